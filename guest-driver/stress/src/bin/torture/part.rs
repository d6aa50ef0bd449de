// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What one actor does, as the arguments with which this program starts itself as that actor.

use std::fmt;

use clap::{Args, Subcommand, ValueEnum};

/// What one actor does in one round.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Part {
    /// Numbers of the devices
    #[arg(long, value_delimiter = ',', required = true)]
    pub devices: Vec<usize>,
    /// What its own choices come from
    #[arg(long)]
    pub seed: u32,
    /// What it does.
    #[command(subcommand)]
    pub role: Role,
}

/// The kinds of actors, with their figures. All but `Write` take one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum Role {
    /// Adds events, rings doorbells and has them rung later, on all its devices.
    Write {
        /// Threads that do so, with the same open files.
        #[arg(long)]
        threads: u8,
        /// Most microseconds between two calls.
        #[arg(long)]
        pause: u32,
        /// Of a hundred calls, how many defer a doorbell.
        #[arg(long)]
        deferred: u8,
    },
    /// Reads, and now and then does so wrongly.
    Read {
        /// In which way.
        #[arg(long)]
        how: How,
        /// Size of the buffer.
        #[arg(long)]
        bytes: usize,
        /// Most microseconds between two calls.
        #[arg(long)]
        pause: u32,
    },
    /// Waits for events without reading, then reads.
    Poll {
        /// In which way.
        #[arg(long)]
        by: By,
        /// Size of the buffer.
        #[arg(long)]
        bytes: usize,
    },
    /// Waits until all is read, for a few milliseconds.
    Drain,
    /// Reads the counters, and checks that each snapshot is consistent.
    Count,
    /// Reads what debugfs has of the driver.
    Browse,
    /// Sets coalescing to this and that.
    Coalesce,
    /// Resets the device.
    Reset,
    /// Forks children that share open files, and read, poll, wait, close and die.
    Fork,
}

/// How a reader reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum How {
    /// `read` sleeps until there is an event.
    Block,
    /// `read` never sleeps.
    Try,
    /// `GET_EVENT`.
    One,
}

/// How a poller waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// `poll`, then one `read`.
    Poll,
    /// Level-triggered `epoll`, then one `read`.
    Level,
    /// Edge-triggered `epoll`, then `read` until there is nothing left.
    Edge,
}

impl Role {
    /// Whether it takes events until it is stopped, so that none stays in the list.
    pub fn consumes(&self) -> bool {
        matches!(self, Self::Read { .. } | Self::Poll { .. })
    }
}

/// The arguments, so that a part can be told apart, compared and played by hand.
impl fmt::Display for Part {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        let devices: Vec<_> = self.devices.iter().map(usize::to_string).collect();
        let (devices, seed) = (devices.join(","), self.seed);
        write!(text, "--devices {devices} --seed {seed} {}", self.role)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write {
                threads,
                pause,
                deferred,
            } => write!(
                text,
                "write --threads {threads} --pause {pause} --deferred {deferred}"
            ),
            Self::Read { how, bytes, pause } => {
                let how = name(how);
                write!(text, "read --how {how} --bytes {bytes} --pause {pause}")
            }
            Self::Poll { by, bytes } => write!(text, "poll --by {} --bytes {bytes}", name(by)),
            Self::Drain => text.write_str("drain"),
            Self::Count => text.write_str("count"),
            Self::Browse => text.write_str("browse"),
            Self::Coalesce => text.write_str("coalesce"),
            Self::Reset => text.write_str("reset"),
            Self::Fork => text.write_str("fork"),
        }
    }
}

fn name(value: &impl ValueEnum) -> String {
    let value = value.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}
