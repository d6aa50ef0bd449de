// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Command line of `test-removal`.

use std::fmt;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Takes the evgen devices away from under programs that use them, again and again, and checks that
/// everybody comes back, that the devices work afterwards, and that nothing leaks.
///
/// A round puts a device under load: readers, pollers and others sleep in it, events are added and
/// injected at once and for later, counters and debugfs are read, another program has it open. Then the
/// device goes. Each sleeper must come back with ENODEV or a hang-up, each later call on a file opened
/// before must fail with ENODEV, and when the device is back, a file opened anew must take an event in and
/// give it out. Devices are treated in parallel.
///
/// After some rounds of each kind to warm up, and in the end, the kernel's objects, its memory, interrupts,
/// files and folders are counted. What has grown more than it may, and does so again when the same rounds are
/// done twice more, is a leak. Kernels that look for leaks themselves (kmemleak) are asked too.
#[derive(Debug, Parser)]
#[command(
    name = "test-removal",
    after_help = "A machine takes devices out of its hot-plug slots, and puts others in, if somebody has it do what this
program asks for by a line on the console. scripts/hot-plug.sh does so:

  scripts/hot-plug.sh --ports 4 --run 'test-removal --kind unplug --kind surprise --rounds 200'

Exit status: 0 all is well, 2 wrong arguments, 42 something is not (a line says what), 69 no device, 124
somebody never came back from a device that is gone."
)]
pub struct Options {
    /// How often a device goes, of each kind; with `module`, how often all of them do
    #[arg(short, long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub rounds: u64,
    /// How they go; given more than once, one after the other [default: unbind, module]
    #[arg(short, long, value_name = "KIND")]
    pub kind: Vec<Kind>,
    /// Repeats the choices of an earlier run: how long the load lasts and how late it is noticed that a
    /// device is gone
    #[arg(short, long, value_name = "S")]
    pub seed: Option<u64>,
    /// Seconds that a sleeper may take to come back
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub limit: u64,
    /// The module to load again
    #[arg(long, value_name = "PATH", default_value = "/lib/modules/evgen.ko")]
    pub module: PathBuf,
}

/// How a device goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Its driver is unbound from it through sysfs, and bound again
    Unbind,
    /// The module is unloaded, which must fail while a file is open, and loaded again
    Module,
    /// It is taken out of its hot-plug slot when the kernel has let go of it, and another is put in
    Unplug,
    /// It is torn out of its hot-plug slot, so that all reads of it are ones, and another is put in
    Surprise,
}

impl Kind {
    /// Whether it is about hot-plug slots.
    pub fn is_hot_plug(self) -> bool {
        matches!(self, Self::Unplug | Self::Surprise)
    }
}

impl fmt::Display for Kind {
    /// As on the command line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}

impl Options {
    /// What to do, in this order.
    pub fn kinds(&self) -> Vec<Kind> {
        if self.kind.is_empty() {
            vec![Kind::Unbind, Kind::Module]
        } else {
            self.kind.clone()
        }
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
}
