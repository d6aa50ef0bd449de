// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Command line of `stress`.

use clap::{Parser, Subcommand};
use evgen_stress::devices::Devices;

/// Hammers the evgen devices with injecting processes while readers take the events, and then
/// checks the conservation law: every event that was made is accounted for.
///
/// Each injector goes round all devices and rings, rings the doorbell and adds an event of the
/// driver's own. Readers are blocking and non-blocking in turn. A storm from the host may rage at
/// the same time: the machine starts it when told that all is ready, if asked to on its own command
/// line. Then everything must fall quiet, the readers drain the devices, and the figures of the
/// device, of the driver, of the readers and of the injectors are compared. If faults came about, each
/// must show where it should, and every ring must still work.
#[derive(Debug, Parser)]
#[command(
    name = "stress",
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    after_help = "Columns: generated, delivered, dropped, faulted, extra, came about are the device's counts;
received, evicted, thrown out, out of order, noticed the driver's; missing is what was generated and
no reader got. All count from the start of the round.

Exit status: 0 the law holds, 2 wrong arguments, 42 it is broken (a line for each fault),
69 no device, 124 something did not fall quiet or did not end in time."
)]
pub struct Options {
    /// How long to hammer
    #[arg(short, long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,
    /// How often to do all that; the machine is told each time, and starts its next storm
    // The machine takes 64 marks, and others are set too.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=60))]
    pub rounds: u16,
    /// Number of injecting processes
    #[arg(short, long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(0..=256))]
    pub injectors: u16,
    /// Number of readers, at least one per device [default: 2, or one per device]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub readers: Option<u16>,
    /// Numbers of the devices, or "all"
    #[arg(short, long, value_name = "N,N…", default_value = "all")]
    pub devices: Devices,
    /// Fail if the devices deliver fewer events than this, in each round
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    pub min_delivered: Option<u64>,
    /// How long things may take to fall quiet, before and after
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub settle: u64,
    /// Print a line per second (the machine prints its own during a storm)
    #[arg(short, long)]
    pub live: bool,
    /// What this process does in the play.
    #[command(subcommand)]
    pub task: Option<Task>,
}

/// Parts that the program starts itself to play.
#[derive(Debug, Subcommand)]
pub enum Task {
    /// Inject until standard input ends, then tell how much.
    #[command(hide = true)]
    Inject {
        /// Numbers of the devices.
        devices: Vec<usize>,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Options::command().debug_assert();
    }
}
