// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What the checks of a live device are made of.

use std::fmt::Debug;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::device::DeviceError;
use crate::function::FunctionError;
use crate::ktap::{self, Wrong};
use crate::module::ModuleError;
use crate::status;

/// By when what must come has come, on the slowest machine there is.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Why a check failed, or could not be done.
#[derive(Debug, Error)]
pub enum Failure {
    /// A call that should have succeeded.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Sysfs.
    #[error(transparent)]
    Function(#[from] FunctionError),
    /// The module.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// Something that has nothing to do with the driver.
    #[error("cannot {what}: {source}")]
    System {
        /// What was to be done.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// The driver.
    #[error(transparent)]
    Wrong(#[from] Wrong),
}

impl Failure {
    /// The exit status that tells of this.
    pub fn status(&self) -> u8 {
        match self {
            Self::Device(error) => error.status(),
            Self::Function(FunctionError::Missing { .. }) => status::UNAVAILABLE,
            _ => status::FINDING,
        }
    }
}

/// Makes a [`Failure`] of an error of the system.
pub fn cannot<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Failure {
    move |error| Failure::System {
        what: what.into(),
        source: error.into(),
    }
}

/// Says what is wrong if something is not as it must be.
pub fn expect<T: PartialEq + Debug>(what: &str, found: T, wanted: T) -> Result<(), Failure> {
    Ok(ktap::expect(what, found, wanted)?)
}

/// Waits until `condition` holds.
pub fn wait_until(
    what: &str,
    mut condition: impl FnMut() -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let start = Instant::now();
    while !condition()? {
        if start.elapsed() > PATIENCE {
            return Err(Wrong(format!("{what}: not within {} s", PATIENCE.as_secs())).into());
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
