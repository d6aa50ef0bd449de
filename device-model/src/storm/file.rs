// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Storm files: TOML, read and written. `storms/README.md` describes them.

use std::fmt::Write;

use toml::{Table, Value};

use super::keys::{Keys, brief};
use super::*;

pub(super) const PATTERNS: [&str; 7] = [
    "periodic",
    "poisson",
    "burst",
    "ramp",
    "all-at-once",
    "round-robin",
    "trace",
];

/// Longest time in a trace, in microseconds.
const MAX_TRACE_TIME: u64 = MAX_DURATION_MS as u64 * 1000;

impl Storm {
    /// Reads a storm file.
    pub fn from_toml(text: &str) -> Result<Self, StormError> {
        if text.len() > MAX_FILE {
            return Err(StormError::Size(text.len()));
        }
        Self::read(text)
    }

    /// Reads a storm whose text is short enough.
    pub(super) fn read(text: &str) -> Result<Self, StormError> {
        let table: Table = text.parse().map_err(|error| syntax(text, &error))?;
        let mut keys = Keys::new(table, Place::Storm);
        let description = keys.text("description", "one line of text")?;
        let description = description.unwrap_or_default();
        if description.len() > MAX_DESCRIPTION || description.contains(char::is_control) {
            let wanted = format!("one line of at most {MAX_DESCRIPTION} bytes");
            return Err(keys.refuse("description", &description, wanted));
        }
        let seed = keys.number("seed", 0..=MAX_SEED)?.unwrap_or(0);
        let phases = keys.list("phase", "a list of phases")?.unwrap_or_default();
        keys.end()?;
        if phases.is_empty() || phases.len() > MAX_PHASES {
            return Err(StormError::Phases(phases.len()));
        }
        let phases = (1..)
            .zip(phases)
            .map(|(number, value)| match value {
                Value::Table(table) => phase(Keys::new(table, Place::Phase(number))),
                other => Err(StormError::Value {
                    place: Place::Storm,
                    key: "phase".to_owned(),
                    value: brief(&other),
                    wanted: "a list of tables".to_owned(),
                }),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let traced = phases.iter().map(|phase| match &phase.pattern {
            Pattern::Trace(events) => events.len(),
            Pattern::Stream { .. } => 0,
        });
        match traced.sum() {
            0..=MAX_TRACE => Ok(Self {
                description,
                seed,
                phases,
            }),
            events => Err(StormError::Trace(events)),
        }
    }

    /// The storm as a file, in its shortest form; the same for equal storms.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        if !self.description.is_empty() {
            let escaped = self.description.replace('\\', r"\\").replace('"', "\\\"");
            line(&mut text, format_args!("description=\"{escaped}\""));
        }
        if self.seed != 0 {
            line(&mut text, format_args!("seed={}", self.seed));
        }
        for phase in &self.phases {
            write_phase(&mut text, phase);
        }
        text
    }
}

fn syntax(text: &str, error: &toml::de::Error) -> StormError {
    let before = error.span().and_then(|span| text.get(..span.start));
    StormError::Syntax {
        line: before.map_or(1, |before| before.matches('\n').count() + 1),
        message: brief(error.message()),
    }
}

fn phase(mut keys: Keys) -> Result<Phase, StormError> {
    let patterns = format!("one of {}", PATTERNS.join(", "));
    let name = keys.text("pattern", &patterns)?;
    let name = name.ok_or_else(|| keys.missing("pattern", &patterns))?;
    let pattern = match name.as_str() {
        "trace" => trace(&mut keys)?,
        "periodic" => stream(&mut keys, Shape::Periodic)?,
        "poisson" => stream(&mut keys, Shape::Poisson)?,
        "all-at-once" => stream(&mut keys, Shape::AllAtOnce)?,
        "round-robin" => stream(&mut keys, Shape::RoundRobin)?,
        "burst" => {
            let burst = keys.required("burst", 1..=MAX_BURST)?;
            stream(&mut keys, Shape::Burst(burst))?
        }
        "ramp" => {
            let rate_end = keys.required("rate_end", 1..=MAX_RATE)?;
            stream(&mut keys, Shape::Ramp(rate_end))?
        }
        _ => return Err(keys.refuse("pattern", &name, patterns)),
    };
    let phase = Phase {
        pattern,
        faults: faults(&mut keys)?,
        acknowledge: keys.small("acknowledge", 1..=MAX_ODDS)?,
        seed: keys.number("seed", 0..=MAX_SEED)?,
    };
    keys.end()?;
    Ok(phase)
}

fn stream(keys: &mut Keys, shape: Shape) -> Result<Pattern, StormError> {
    Ok(Pattern::Stream {
        shape,
        rate: keys.required("rate", 1..=MAX_RATE)?,
        vectors: vectors(keys)?,
        duration_ms: keys.required("duration_ms", 1..=MAX_DURATION_MS)?,
    })
}

fn vectors(keys: &mut Keys) -> Result<Option<Vec<u8>>, StormError> {
    const WANTED: &str = "a list of different numbers from 0 to 7, at least one";
    let Some(list) = keys.list("vectors", WANTED)? else {
        return Ok(None);
    };
    let mut vectors = Vec::new();
    for value in &list {
        match number_in(value, LAST_VECTOR.into()) {
            Some(vector) if !vectors.contains(&(vector as u8)) => vectors.push(vector as u8),
            _ => return Err(keys.refuse("vectors", &Value::Array(list), WANTED)),
        }
    }
    if vectors.is_empty() {
        return Err(keys.refuse("vectors", &Value::Array(list), WANTED));
    }
    Ok(Some(vectors))
}

fn trace(keys: &mut Keys) -> Result<Pattern, StormError> {
    let wanted = format!("a list of 1 to {MAX_TRACE} events");
    let list = keys.list("trace", &wanted)?;
    let list = list.ok_or_else(|| keys.missing("trace", &wanted))?;
    if list.is_empty() || list.len() > MAX_TRACE {
        return Err(keys.refuse("trace", &format!("a list of {}", list.len()), wanted));
    }
    let mut events: Vec<TraceEvent> = Vec::with_capacity(list.len());
    for (index, value) in list.iter().enumerate() {
        let earliest = events.last().map_or(0, |last| last.at);
        match trace_event(value).filter(|event| event.at >= earliest) {
            Some(event) => events.push(event),
            None => {
                return Err(keys.refuse(
                    &format!("trace[{index}]"),
                    value,
                    format!(
                        "[TIME, VECTOR] or [TIME, VECTOR, KIND]: microseconds from {earliest} to \
                         {MAX_TRACE_TIME}, 0 to {LAST_VECTOR}, 0 to 65535"
                    ),
                ));
            }
        }
    }
    Ok(Pattern::Trace(events.into()))
}

fn trace_event(value: &Value) -> Option<TraceEvent> {
    let (at, vector, kind) = match value.as_array()?.as_slice() {
        [at, vector] => (at, vector, None),
        [at, vector, kind] => (at, vector, Some(number_in(kind, u16::MAX.into())? as u16)),
        _ => return None,
    };
    Some(TraceEvent {
        at: number_in(at, MAX_TRACE_TIME)?,
        vector: number_in(vector, LAST_VECTOR.into())? as u8,
        kind,
    })
}

fn number_in(value: &Value, max: u64) -> Option<u64> {
    let number = u64::try_from(value.as_integer()?).ok()?;
    (number <= max).then_some(number)
}

fn faults(keys: &mut Keys) -> Result<Vec<(Fault, u32)>, StormError> {
    let Some(mut odds) = keys.inner("faults", "a table of faults and their odds")? else {
        return Ok(Vec::new());
    };
    let mut faults = Vec::new();
    for &fault in Fault::ALL {
        if let Some(one_in) = odds.small(fault.name(), 1..=MAX_ODDS)? {
            faults.push((fault, one_in));
        }
    }
    odds.end()?;
    Ok(faults)
}

fn write_phase(text: &mut String, phase: &Phase) {
    line(text, "[[phase]]");
    line(text, format_args!("pattern=\"{}\"", phase.pattern.name()));
    match &phase.pattern {
        Pattern::Stream {
            shape,
            rate,
            vectors,
            duration_ms,
        } => {
            line(text, format_args!("rate={rate}"));
            match shape {
                Shape::Burst(burst) => line(text, format_args!("burst={burst}")),
                Shape::Ramp(rate_end) => line(text, format_args!("rate_end={rate_end}")),
                _ => {}
            }
            if let Some(vectors) = vectors {
                line(text, format_args!("vectors={vectors:?}"));
            }
            line(text, format_args!("duration_ms={duration_ms}"));
        }
        Pattern::Trace(events) => {
            text.push_str("trace=[");
            for event in events.iter() {
                let kind = event.kind.map(|kind| format!(",{kind}"));
                let kind = kind.unwrap_or_default();
                push(text, format_args!("[{},{}{kind}],", event.at, event.vector));
            }
            line(text, "]");
        }
    }
    if let Some(every) = phase.acknowledge {
        line(text, format_args!("acknowledge={every}"));
    }
    if let Some(seed) = phase.seed {
        line(text, format_args!("seed={seed}"));
    }
    if !phase.faults.is_empty() {
        let odds = phase.faults.iter();
        let odds: Vec<_> = odds
            .map(|(fault, one_in)| format!("{fault}={one_in}"))
            .collect();
        line(text, format_args!("faults={{{}}}", odds.join(",")));
    }
}

fn push(text: &mut String, part: impl std::fmt::Display) {
    // Memory takes all that is written.
    let _ = write!(text, "{part}");
}

fn line(text: &mut String, part: impl std::fmt::Display) {
    let _ = writeln!(text, "{part}");
}
