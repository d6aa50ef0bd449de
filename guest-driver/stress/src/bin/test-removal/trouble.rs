// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What can be wrong.

use std::io;
use std::time::Duration;

use evgen_stress::device::DeviceError;
use evgen_stress::function::FunctionError;
use evgen_stress::kmemleak::KmemleakError;
use evgen_stress::leaks::LeakError;
use evgen_stress::module::ModuleError;
use evgen_stress::status;
use rustix::io::Errno;
use thiserror::Error;

/// Why a round, or the whole test, went wrong.
#[derive(Debug, Error)]
pub enum Trouble {
    /// There is nothing to test.
    #[error("there is no evgen device, or no slot for one: does the machine have any?")]
    NoDevice,
    /// A device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Sysfs refuses something.
    #[error(transparent)]
    Function(#[from] FunctionError),
    /// The module cannot be loaded or unloaded.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// Leaks cannot be looked for.
    #[error(transparent)]
    Leak(#[from] LeakError),
    /// Nor does the kernel.
    #[error(transparent)]
    Kmemleak(#[from] KmemleakError),
    /// The system refuses something else.
    #[error("cannot {what}: {source}")]
    System {
        /// What was to be done.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// Somebody sleeps in a device that is gone.
    #[error(
        "{} did not come back within {} s after the device had gone", who.join(", "), limit.as_secs()
    )]
    Stuck {
        /// Who.
        who: Vec<&'static str>,
        /// How long they had.
        limit: Duration,
    },
    /// A call did not do what it must.
    #[error("{who}: {what}")]
    Wrong {
        /// Whose it was.
        who: &'static str,
        /// What it did instead.
        what: String,
    },
    /// Something did not come about.
    #[error("{what} within {} s", limit.as_secs())]
    Late {
        /// What.
        what: &'static str,
        /// How long it had.
        limit: Duration,
    },
}

impl Trouble {
    /// A call that did not do what it must.
    pub fn wrong(who: &'static str, what: impl Into<String>) -> Self {
        let what = what.into();
        Self::Wrong { who, what }
    }

    /// The exit status that tells of this.
    pub fn status(&self) -> u8 {
        match self {
            Self::NoDevice => status::UNAVAILABLE,
            Self::Stuck { .. } => status::TIMEOUT,
            Self::Device(error) => error.status(),
            _ => status::FINDING,
        }
    }

    /// Whether nothing sensible can come after it.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Stuck { .. })
    }

    /// Whether that is what calls on a device say that is gone.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Device(error) if error.errno() == Some(Errno::NODEV))
    }
}
