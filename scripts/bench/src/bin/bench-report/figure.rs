// SPDX-License-Identifier: Apache-2.0 OR MIT

//! One line of the table: what was measured, against what, and what was aimed at.

use lockstorm_bench::measurement::Measurement;
use lockstorm_bench::samples::median;
use serde::Serialize;

/// What was aimed at.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Aim {
    /// The ratio is at most this.
    RatioAtMost(f64),
    /// The ratio is below this.
    RatioBelow(f64),
    /// The value itself is at most this.
    AtMost(f64),
}

/// A value with its unit, and the smallest and largest sample behind it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Value {
    /// What it is a value of.
    pub subject: String,
    /// The value: the median where there are several samples.
    pub value: f64,
    /// Its unit.
    pub unit: String,
    /// Smallest and largest sample, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<(f64, f64)>,
}

impl Value {
    /// A value by itself.
    pub fn new(subject: &str, value: f64, unit: &str) -> Self {
        Self {
            subject: subject.into(),
            value,
            unit: unit.into(),
            range: None,
        }
    }

    /// The middle of a measurement, called `subject`; why there is none if there is none.
    pub fn of(found: Option<&Measurement>, subject: &str) -> Result<Self, String> {
        let Some(measurement) = found else {
            return Err(format!("{subject} was not measured"));
        };
        if let Some(failure) = &measurement.failure {
            return Err(format!("{subject}: {failure}"));
        }
        let samples = &measurement.samples;
        let value = median(samples).ok_or_else(|| format!("{subject}: there are no samples"))?;
        let range = samples.iter().fold(
            (f64::INFINITY, f64::NEG_INFINITY),
            |(low, high), &sample| (low.min(sample), high.max(sample)),
        );
        Ok(Self {
            range: (samples.len() > 1).then_some(range),
            ..Self::new(subject, value, &measurement.unit)
        })
    }
}

/// A line of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// Part of the benchmark.
    pub part: &'static str,
    /// What is measured.
    pub name: String,
    /// What came out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured: Option<Value>,
    /// What it is compared with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Value>,
    /// The one over the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// What was aimed at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aim: Option<Aim>,
    /// Whether that was reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub met: Option<bool>,
    /// Why something above is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

impl Figure {
    /// A value that stands for itself.
    pub fn alone(
        part: &'static str,
        name: &str,
        measured: Result<Value, String>,
        aim: Option<Aim>,
    ) -> Self {
        Self::assemble(part, name, measured, None, aim)
    }

    /// A value that is compared with another.
    pub fn compared(
        part: &'static str,
        name: &str,
        measured: Result<Value, String>,
        baseline: Result<Value, String>,
        aim: Option<Aim>,
    ) -> Self {
        Self::assemble(part, name, measured, Some(baseline), aim)
    }

    fn assemble(
        part: &'static str,
        name: &str,
        measured: Result<Value, String>,
        baseline: Option<Result<Value, String>>,
        aim: Option<Aim>,
    ) -> Self {
        let (measured, failure) = split(measured);
        let (baseline, missing) = baseline.map_or((None, None), split);
        let ratio = match (&measured, &baseline) {
            (Some(measured), Some(baseline)) => Some(measured.value / baseline.value),
            _ => None,
        };
        let met = aim.and_then(|aim| match aim {
            Aim::RatioAtMost(bound) => Some(ratio? <= bound),
            Aim::RatioBelow(bound) => Some(ratio? < bound),
            Aim::AtMost(bound) => Some(measured.as_ref()?.value <= bound),
        });
        Self {
            part,
            name: name.into(),
            measured,
            baseline,
            ratio,
            aim,
            met,
            failure: failure.or(missing),
        }
    }
}

fn split(value: Result<Value, String>) -> (Option<Value>, Option<String>) {
    match value {
        Ok(value) => (Some(value), None),
        Err(failure) => (None, Some(failure)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aims_are_judged() {
        let ratio = |aim| {
            let value = |value| Ok(Value::new("it", value, "s"));
            Figure::compared("boot", "it", value(1.0), value(2.0), aim).met
        };
        let alone = |value: Result<f64, String>, aim| {
            let value = value.map(|value| Value::new("it", value, "s"));
            Figure::alone("boot", "it", value, Some(aim)).met
        };
        for (met, expected) in [
            (ratio(None), None),
            (ratio(Some(Aim::RatioAtMost(0.5))), Some(true)),
            (ratio(Some(Aim::RatioAtMost(0.4))), Some(false)),
            (ratio(Some(Aim::RatioBelow(0.5))), Some(false)),
            (alone(Ok(2.0), Aim::AtMost(2.0)), Some(true)),
            (alone(Ok(2.1), Aim::AtMost(2.0)), Some(false)),
            (alone(Err("broken".into()), Aim::AtMost(2.0)), None),
            (alone(Ok(2.0), Aim::RatioBelow(2.0)), None),
        ] {
            assert_eq!(met, expected);
        }
    }

    #[test]
    fn a_failure_is_passed_on_and_hides_the_samples_before_it() {
        let mut measurement = Measurement::new("boot", "it", "s");
        measurement.samples = vec![3.0, 1.0];
        let value = Value::of(Some(&measurement), "it").unwrap();
        assert_eq!((value.value, value.range), (2.0, Some((1.0, 3.0))));
        measurement.failure = Some("broken".into());
        let figure = Figure::alone("boot", "it", Value::of(Some(&measurement), "it"), None);
        assert_eq!(figure.failure.as_deref(), Some("it: broken"));
        assert_eq!(figure.measured, None);
        assert!(Value::of(None, "it").is_err());
    }
}
