// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Command line of `torture`.

use std::time::Duration;

use clap::{Parser, Subcommand};
use evgen_stress::devices::Devices;

use crate::actor::Act;
use crate::plan::Kind;

/// Tortures the evgen driver, in the manner of the kernel's locktorture and rcutorture.
///
/// In each round a set of actors, each a process of its own, does at once what programs may do with
/// a device: they add events and ring doorbells, at once and later; read in all ways, some of them
/// wrong; poll; wait; ask for counters; change coalescing; reset; fork with open files. Meanwhile
/// they are paused, interrupted, moved between CPUs, CPUs go and come, and allocations of the driver
/// fail. Then all stop, everything falls quiet, and the conservation law is checked: every event
/// that was made is accounted for, every call had the effect that it said.
///
/// Who does what comes from the seed, and is printed before each round. The machine is told when a
/// round begins, and starts the next storm that it was asked for. A storm must end before the round
/// has settled. It takes 64 marks, so storms come in the first 60 rounds only.
#[derive(Debug, Parser)]
#[command(
    name = "torture",
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    after_help = "Examples:
  torture --seconds 60                       twelve rounds, from a new seed
  torture --seed 7 --seconds 60              the rounds of seed 7
  torture --seed 7 --without signals,onoff   the same, but calmer: to find out what matters

Exit status: 0 the law holds, 2 wrong arguments, 42 it is broken (a line for each fault),
69 no device, 124 something hangs (which call, of which actor) or does not fall quiet,
130 Ctrl-C."
)]
pub struct Options {
    /// How long to torture, without what it takes to fall quiet
    #[arg(short, long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub seconds: u32,
    /// How long a round lasts, at most
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub round: u32,
    /// What all choices come from [default: another one each time]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Numbers of the devices, or "all"
    #[arg(short, long, value_name = "N,N…", default_value = "all")]
    pub devices: Devices,
    /// What to leave out
    #[arg(long, value_name = "KIND,KIND…", value_delimiter = ',')]
    pub without: Vec<Kind>,
    /// How long things may take to stop, and to fall quiet
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub settle: u64,
    /// What this process does in the play.
    #[command(subcommand)]
    pub task: Option<Task>,
}

/// Parts that the program starts itself to play.
#[derive(Debug, Subcommand)]
pub enum Task {
    /// Act until told to stop, and leave a record.
    #[command(hide = true)]
    Act(Act),
}

impl Options {
    /// Number of rounds, and how long each lasts.
    pub fn rounds(&self) -> (u32, Duration) {
        let rounds = self.seconds.div_ceil(self.round);
        (rounds, Duration::from_secs(self.seconds.into()) / rounds)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn rounds_take_the_time_there_is() {
        for (arguments, rounds, milliseconds) in [
            (&["torture"][..], 12, 5000),
            (&["torture", "--seconds", "4"], 1, 4000),
            (&["torture", "--seconds", "11"], 3, 3666),
            (
                &["torture", "--seconds", "86400", "--round", "1"],
                86_400,
                1000,
            ),
        ] {
            let options = Options::parse_from(arguments);
            let (number, length) = options.rounds();
            assert_eq!(
                (number, length.as_millis()),
                (rounds, milliseconds),
                "{arguments:?}"
            );
        }
    }
}
