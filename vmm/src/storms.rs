// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Storms as users name them, and `lockstorm storm`, which looks at them without a machine.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use clap::{Args, Subcommand};
use lockstorm_device_model::storm::{LIBRARY, MAX_DURATION_MS, MAX_FILE, Named, Outline};
use lockstorm_device_model::{Fault, Storm, StormError};
use thiserror::Error;

use crate::console::tell;
use crate::supervisor::status;

/// How a token begins.
const TOKEN: &str = "storm1.";
/// A storm in short form that does not say how long lasts so many seconds.
const SECONDS: u64 = 10;
const EXAMPLES: &str = "\
Examples:
  lockstorm storm list
  lockstorm storm show bursts >mine.toml
  lockstorm storm check mine.toml

Exit status: 0 sound · 2 not so";

/// Options of `lockstorm storm`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct StormCommand {
    /// What to do.
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the storms that have names
    List,
    /// Print the file of one of them
    Show {
        /// Its name
        #[arg(value_name = "NAME", value_parser = named)]
        named: &'static Named,
    },
    /// Check a storm, and tell what it comes to
    Check {
        /// Its name, file or token, or its short form rate=N,burst=N,seconds=N,seed=N,FAULT=N
        #[arg(value_name = "STORM", value_parser = find)]
        storm: Storm,
        /// Rings of the device
        #[arg(long, value_name = "N", default_value_t = 4,
              value_parser = clap::value_parser!(u8).range(1..=8))]
        rings: u8,
    },
    /// Print the token that repeats a storm
    Token {
        /// Its name, file or token, or its short form rate=N,burst=N,seconds=N,seed=N,FAULT=N
        #[arg(value_name = "STORM", value_parser = find)]
        storm: Storm,
    },
}

/// What is no storm.
#[derive(Debug, Error)]
pub enum FindError {
    /// Neither a name nor a file.
    #[error("there is no storm or file `{0}`; `lockstorm storm list` lists the storms")]
    NoSuchStorm(String),
    /// The file cannot be read.
    #[error("{name}: {source}")]
    Read {
        /// Of the file.
        name: String,
        /// Why not.
        source: io::Error,
    },
    /// The file can be read, but is no storm.
    #[error("{name}: {source}")]
    File {
        /// Of the file.
        name: String,
        /// Why not.
        source: StormError,
    },
    /// The short form does not have the form.
    #[error("`{0}` is none of rate=N, burst=N, seconds=N, seed=N, FAULT=N, or there twice")]
    Pair(String),
    /// More seconds than there can be.
    #[error("`seconds` is {0}, must be a whole number from 1 to {max}", max = MAX_DURATION_MS / 1000)]
    Seconds(String),
    /// The token or short form is no storm.
    #[error(transparent)]
    Storm(#[from] StormError),
}

/// The storm that is meant by a token, a short form, a name or, if it is none of these, the path of
/// a file. A file whose name looks like something else can be named `./NAME`.
pub fn find(text: &str) -> Result<Storm, FindError> {
    if text.starts_with(TOKEN) {
        return Ok(Storm::from_token(text)?);
    }
    if let Some(storm) = Storm::named(text) {
        return Ok(storm);
    }
    if text.contains('=') && !text.contains('/') {
        return Ok(Storm::from_toml(&long_form(text)?)?);
    }
    read(text)
}

fn read(name: &str) -> Result<Storm, FindError> {
    let failed = |source| FindError::Read {
        name: name.to_owned(),
        source,
    };
    let file = File::open(Path::new(name)).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => FindError::NoSuchStorm(name.to_owned()),
        _ => failed(error),
    })?;
    let mut text = String::new();
    // One byte more than there may be is enough to see that it is too much.
    let mut file = file.take(MAX_FILE as u64 + 1);
    file.read_to_string(&mut text).map_err(failed)?;
    Storm::from_toml(&text).map_err(|source| FindError::File {
        name: name.to_owned(),
        source,
    })
}

/// A short form as a file: `rate=20000,burst=16,seconds=10,seed=1`, where all but `rate` may be
/// left out, and the names of faults may be added: `hang=5000` befalls one event in 5000.
fn long_form(text: &str) -> Result<String, FindError> {
    let bad = |pair: &str| FindError::Pair(pair.to_owned());
    let (mut rate, mut burst, mut seconds, mut seed) = (None, None, None, None);
    let mut odds = [None; Fault::COUNT];
    for pair in text.split(',') {
        let (key, value) = pair.split_once('=').ok_or_else(|| bad(pair))?;
        let slot = match key {
            "rate" => &mut rate,
            "burst" => &mut burst,
            "seconds" => &mut seconds,
            "seed" => &mut seed,
            fault => {
                let fault: Fault = fault.parse().map_err(|_| bad(pair))?;
                &mut odds[fault as usize]
            }
        };
        // What is a number to TOML and not to others shall not be one here.
        if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(bad(pair));
        }
        if slot.replace(value).is_some() {
            return Err(bad(pair));
        }
    }
    let seconds = match seconds {
        None => SECONDS,
        Some(text) => (text.parse().ok())
            .filter(|seconds| (1..=u64::from(MAX_DURATION_MS) / 1000).contains(seconds))
            .ok_or_else(|| FindError::Seconds(text.to_owned()))?,
    };
    let mut file = format!(
        "seed = {}\n[[phase]]\npattern = \"burst\"\n",
        seed.unwrap_or("0")
    );
    if let Some(rate) = rate {
        file.push_str(&format!("rate = {rate}\n"));
    }
    let burst = burst.unwrap_or("1");
    file.push_str(&format!(
        "burst = {burst}\nduration_ms = {}\n",
        seconds * 1000
    ));
    if odds.iter().any(Option::is_some) {
        file.push_str("[phase.faults]\n");
    }
    for (fault, odds) in Fault::ALL.iter().zip(odds) {
        if let Some(odds) = odds {
            file.push_str(&format!("{fault} = {odds}\n"));
        }
    }
    Ok(file)
}

fn named(name: &str) -> Result<&'static Named, FindError> {
    let named = LIBRARY.iter().find(|named| named.name == name);
    named.ok_or_else(|| FindError::NoSuchStorm(name.to_owned()))
}

/// Does what is asked for and returns the exit status.
pub fn run(command: &StormCommand) -> u8 {
    let text = match &command.action {
        Action::List => list(),
        Action::Show { named } => named.text.to_owned(),
        Action::Token { storm } => format!("{}\n", storm.token()),
        Action::Check { storm, rings } => match storm.outline(*rings) {
            Ok(phases) => Report { storm, phases }.to_string(),
            Err(error) => {
                tell(error);
                return status::USAGE;
            }
        },
    };
    // Who closes stdout does not want to know.
    let _ = io::stdout().write_all(text.as_bytes());
    status::OK
}

fn list() -> String {
    let lines = LIBRARY.iter().map(|named| {
        let storm = named.storm();
        let description = storm.as_ref().map_or("", Storm::description);
        format!("{:<22} {description}\n", named.name)
    });
    lines.collect()
}

/// What a storm comes to, for people.
struct Report<'a> {
    storm: &'a Storm,
    phases: Vec<Outline>,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.storm.description().is_empty() {
            writeln!(f, "{}", self.storm.description())?;
        }
        for (number, phase) in (1..).zip(&self.phases) {
            let Outline {
                pattern,
                duration,
                events,
                exact,
            } = *phase;
            let about = if exact { "" } else { "about " };
            let events = format!("{about}{events}");
            let seconds = duration as f64 / 1e9;
            writeln!(
                f,
                "phase {number:>2}  {pattern:<12} {seconds:>12.3} s {events:>20} events"
            )?;
        }
        let seconds = self.storm.duration() as f64 / 1e9;
        writeln!(f, "in all {:>25.3} s, on each device", seconds)?;
        writeln!(f, "{}", self.storm.token())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_found_by_name_file_token_and_short_form() {
        let library = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../device-model/storms/ramp.toml"
        );
        let ramp = Storm::named("ramp").unwrap();
        assert_eq!(find("ramp").unwrap(), ramp);
        assert_eq!(find(library).unwrap(), ramp);
        assert_eq!(find(&ramp.token()).unwrap(), ramp);
        let short = find("rate=20000,burst=16,seconds=3,seed=9").unwrap();
        let long =
            "seed = 9\n[[phase]]\npattern = 'burst'\nrate = 20000\nburst = 16\nduration_ms = 3000";
        assert_eq!(short, Storm::from_toml(long).unwrap());
        let short = find("rate=5,self-reset=7,lost-interrupt=50,seconds=1").unwrap();
        let long = "[[phase]]\npattern = 'burst'\nrate = 5\nburst = 1\nduration_ms = 1000\n\
                    faults = { lost-interrupt = 50, self-reset = 7 }";
        assert_eq!(short, Storm::from_toml(long).unwrap());
        let (short, long) = (find("rate=1"), find("rate=1,burst=1,seconds=10,seed=0"));
        assert_eq!(short.unwrap(), long.unwrap());
    }

    #[test]
    fn what_is_no_storm_is_refused() {
        for (text, expected) in [
            ("", "no storm or file"),
            ("no-such-storm", "`lockstorm storm list`"),
            ("/", "directory"),
            ("./a=b", "no storm or file"),
            (concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"), "phase"),
            ("storm1.x", "token"),
            ("burst=1", "`rate` is missing"),
            ("rate=0", "`rate` is 0"),
            ("rate=4294967296", "`rate` is 4294967296"),
            ("rate=1,burst=4097", "from 1 to 4096"),
            ("rate=-1", "`rate=-1`"),
            ("rate=0x1", "`rate=0x1`"),
            ("rate=1,rate=2", "twice"),
            ("rate=1,hang=2,hang=3", "twice"),
            ("rate=1,hang=0", "`faults.hang` is 0"),
            ("rate=1,lost=2", "FAULT=N"),
            ("rate=1,speed=2", "`speed=2` is none of"),
            ("rate=1,seconds=0", "`seconds` is 0"),
            ("rate=1,seconds=86401", "from 1 to 86400"),
            ("rate=1,seconds=99999999999999999999", "from 1 to"),
            ("rate=1,", "`` is none of"),
        ] {
            let error = find(text).unwrap_err().to_string();
            assert!(
                error.contains(expected),
                "{text:?}: {error:?} lacks {expected:?}"
            );
        }
    }

    #[test]
    fn the_list_names_all_and_a_report_ends_with_the_token() {
        let list = list();
        for named in LIBRARY {
            let storm = named.storm().unwrap();
            let line = list
                .lines()
                .find(|line| line.starts_with(named.name))
                .unwrap();
            assert!(line.ends_with(storm.description()));
            let phases = storm.outline(4).unwrap();
            let report = Report {
                storm: &storm,
                phases,
            }
            .to_string();
            assert_eq!(report.lines().last(), Some(storm.token().as_str()));
        }
    }
}
