// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What can be wrong with a storm.

use std::fmt;

use thiserror::Error;

use super::{MAX_FILE, MAX_PHASES, MAX_TRACE};

/// A storm that there cannot be, or that the device will not start.
///
/// Phases are counted from 1. Values of the file are shown shortened and without control
/// characters.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum StormError {
    /// The file is too long.
    #[error("a storm of {0} bytes: must be at most {MAX_FILE}")]
    Size(usize),
    /// The file is not TOML.
    #[error("line {line}: {message}")]
    Syntax {
        /// Where, counted from 1.
        line: usize,
        /// What is wrong there.
        message: String,
    },
    /// A value out of its range or of the wrong type.
    #[error("{place}: `{key}` is {value}, must be {wanted}")]
    Value {
        /// Where in the storm.
        place: Place,
        /// Its key.
        key: String,
        /// What it is.
        value: String,
        /// What it may be.
        wanted: String,
    },
    /// A value is not there.
    #[error("{place}: `{key}` is missing, must be {wanted}")]
    Missing {
        /// Where in the storm.
        place: Place,
        /// Its key.
        key: &'static str,
        /// What it may be.
        wanted: String,
    },
    /// A key that means nothing, or nothing to this pattern.
    #[error("{place}: `{key}` means nothing here; what does: {known}")]
    Unknown {
        /// Where in the storm.
        place: Place,
        /// The key.
        key: String,
        /// The keys that there are.
        known: String,
    },
    /// Too few or too many phases.
    #[error("the storm: `phase` is there {0} times, must be 1 to {MAX_PHASES}")]
    Phases(usize),
    /// Too long traces.
    #[error("the storm: its traces have {0} events, must be at most {MAX_TRACE} together")]
    Trace(usize),
    /// It names rings that are not there.
    #[error("phase {phase}: `vectors` names {vector}, but the device has only rings 0 to {last}", last = rings - 1)]
    NoRing {
        /// Which phase.
        phase: usize,
        /// The ring it names.
        vector: u8,
        /// How many there are.
        rings: u8,
    },
    /// Not a token, or not whole.
    #[error("this is no token of a storm: {0}")]
    Token(&'static str),
    /// One storm at a time.
    #[error("a storm is running already on this device: stop it first")]
    Running,
}

/// Where something is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Outside of the phases.
    Storm,
    /// In this phase, counted from 1.
    Phase(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Storm => f.write_str("the storm"),
            Self::Phase(number) => write!(f, "phase {number}"),
        }
    }
}
