// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The command line of `lockstorm`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use lockstorm_device_model::abi::identity::MAX_VECTORS;
use lockstorm_device_model::{Config, Storm};

use crate::completion::Completion;
use crate::ctl::Ctl;
use crate::machine::layout;
use crate::pci::vfio::PciAddress;
use crate::storms::{self, StormCommand};
use crate::supervisor::Rules;
use crate::top::Top;

const EXAMPLES: &str = "\
Examples:
  A shell in a guest with one evgen device (Ctrl-A x quits):
    lockstorm boot --kernel vmlinux --initramfs guest.cpio

  A command; its exit status is lockstorm's:
    lockstorm boot --kernel vmlinux --initramfs guest.cpio --run 'ls /dev/evgen*'

  A storm under load, from the moment when the guest is ready:
    lockstorm boot --kernel vmlinux --initramfs guest.cpio --cpus 2 --devices 2 \\
      --storm bursts --run 'stress --seconds 10'

  With a PCI device of this machine, which its own driver has in the guest (docs/vfio.md):
    lockstorm boot --kernel vmlinux --initramfs guest.cpio --vfio 0000:3b:00.0

  From another terminal, to a guest booted with --control /tmp/storm.sock:
    lockstorm ctl --socket /tmp/storm.sock stats
    lockstorm top --socket /tmp/storm.sock

Exit status:
  0 as expected · 42 a finding · 2 usage · 69 the machine lacks something
  124 timeout or hang · 255 guest panic; with --run, the command's own";

const SERVE_EXAMPLES: &str = "\
Examples:
  Two devices for a QEMU that is started by hand; docs/qemu.md has its options:
    lockstorm serve --socket /tmp/evgen --devices 2 --control /tmp/storm.sock

  The same QEMU as a part of the run; its end is the other's:
    lockstorm serve --socket /tmp/evgen -- qemu-system-x86_64 -nographic …

  Two slots of it, into which `lockstorm ctl plug` puts devices:
    lockstorm serve --socket /tmp/evgen --ports 2 --control /tmp/storm.sock -- \
      qemu-system-x86_64 -qmp unix:/tmp/evgen.qmp -device pcie-root-port,id=port1,slot=1,chassis=1 …

A client has a device to itself. When it goes, the device is reset and waits for the next.

Exit status: as of `lockstorm boot`; 69 if the VMM ends before its guest is done.";

/// A small virtual machine monitor that storms drivers with interrupts.
#[derive(Debug, Parser)]
#[command(name = "lockstorm", version, after_help = EXAMPLES, after_long_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What lockstorm does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Boot a Linux guest with evgen devices
    Boot(Boot),
    /// Serve evgen devices to another VMM, such as QEMU, over vfio-user
    Serve(Serve),
    /// Talk to a running guest's devices through its control socket
    Ctl(Ctl),
    /// Watch a running guest's devices
    Top(Top),
    /// Look at storms: those that there are, and your own
    Storm(StormCommand),
    /// Print what makes a shell complete lockstorm's commands and options
    Completion(Completion),
}

/// Options of `lockstorm boot`.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Boot {
    /// Linux kernel: an ELF vmlinux or a bzImage, with CONFIG_PVH=y
    #[arg(long, value_name = "PATH")]
    pub kernel: PathBuf,
    /// Initial RAM disk that holds the guest's programs
    #[arg(long, value_name = "PATH")]
    pub initramfs: PathBuf,
    /// Virtual CPUs
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u8).range(1..=i64::from(layout::CPUS_MAX)))]
    pub cpus: u8,
    /// Guest memory in MiB
    #[arg(long, value_name = "MIB", default_value_t = 512,
          value_parser = clap::value_parser!(u64).range(layout::MEMORY_MIN_MIB..=layout::MEMORY_MAX_MIB))]
    pub mem: u64,
    /// Its devices.
    #[command(flatten)]
    pub devices: Devices,
    /// Empty slots, into which `lockstorm ctl plug` puts devices while the machine runs, each behind a
    /// PCI Express root port of its own
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=31))]
    pub ports: u8,
    /// PCI device of this machine to assign to the guest, such as 0000:3b:00.0; given more than once,
    /// more of them. It must be bound to vfio-pci, and all of the guest's memory is pinned for it
    #[arg(long, value_name = "ADDRESS")]
    pub vfio: Vec<PciAddress>,
    /// What the guest does, and how it is watched.
    #[command(flatten)]
    pub guest: GuestOptions,
    /// How interrupts go to KVM; for scripts/bench.sh to compare the two
    #[arg(
        long,
        hide = true,
        value_name = "WAY",
        value_enum,
        default_value = "irqfd"
    )]
    pub msi: Msi,
}

/// Options of `lockstorm serve`.
#[derive(Clone, Debug, Args)]
#[command(after_help = SERVE_EXAMPLES)]
pub struct Serve {
    /// Socket of the first device, to create; the next ones are PATH.1, PATH.2 and so on
    #[arg(long, value_name = "PATH")]
    pub socket: PathBuf,
    /// The devices.
    #[command(flatten)]
    pub devices: Devices,
    /// Slots of QEMU, into which `lockstorm ctl plug` puts devices while it runs: its root ports with the
    /// ids port1, port2 and so on. QEMU's monitor has to connect to PATH.qmp; docs/qemu.md has its options
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=31))]
    pub ports: u8,
    /// What the guest does, and how it is watched.
    #[command(flatten)]
    pub guest: GuestOptions,
    /// Program to run with the devices, which lockstorm ends with; its output is the guest's console.
    /// An argument {} stands for the guest's kernel arguments. Isa-debugcon devices at ports 0x5e0
    /// and 0x5e1, with the sockets PATH.status and PATH.marks, are the guest's exit device
    #[arg(last = true, value_name = "VMM")]
    pub vmm: Vec<OsString>,
}

/// What devices there are.
#[derive(Clone, Debug, Args)]
pub struct Devices {
    /// evgen devices, up to 64
    #[arg(long = "devices", value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u8).range(0..=DEVICES_MAX))]
    pub count: u8,
    /// Event rings of each device
    #[arg(long, value_name = "N", default_value_t = 4,
          value_parser = clap::value_parser!(u8).range(1..=8))]
    pub rings: u8,
    /// MSI-X vectors of each device; more than rings + 1 serve to steer rings, or to try how a driver
    /// takes so many [default: rings + 1]
    #[arg(long, value_name = "N",
          value_parser = clap::value_parser!(u16).range(2..=MAX_VECTORS as i64))]
    pub vectors: Option<u16>,
}

impl Devices {
    /// The device model's part of it.
    pub fn config(&self) -> Config {
        Config {
            rings: self.rings,
            vectors: self.vectors,
            ..Config::default()
        }
    }
}

/// What a guest does, and how it is watched.
#[derive(Clone, Debug, Args)]
pub struct GuestOptions {
    /// More kernel arguments
    #[arg(long, value_name = "ARGS", allow_hyphen_values = true)]
    pub append: Option<String>,
    /// Shell command to run in the guest, instead of a shell on the console
    #[arg(long, value_name = "CMD", allow_hyphen_values = true)]
    pub run: Option<String>,
    /// Control socket: a Unix socket to create, or a character device to serve on
    #[arg(long, value_name = "PATH")]
    pub control: Option<PathBuf>,
    /// File that gets a copy of the guest's console
    #[arg(long, value_name = "PATH")]
    pub console_log: Option<PathBuf>,
    /// Seconds until the guest's init must run
    #[arg(long, value_name = "S", default_value_t = 60,
          value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX))]
    pub boot_timeout: u64,
    /// Seconds until the run must be over; those of a pause count too
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX))]
    pub timeout: Option<u64>,
    /// Storm on all devices once the guest is ready: its name (see `lockstorm storm list`), file or
    /// token, or rate=EVENTS per second and vector[,burst=EVENTS at once][,seconds=S][,seed=N] and
    /// faults: lost-interrupt=50 befalls one event in 50. Given more than once, the next storm
    /// begins whenever the guest is ready again
    #[arg(long = "storm", value_name = "STORM", value_parser = storms::find)]
    pub storms: Vec<Storm>,
}

impl GuestOptions {
    /// How a run with such a guest is judged.
    pub fn rules(&self) -> Rules {
        Rules {
            command: self.run.is_some(),
            boot_timeout: Some(Duration::from_secs(self.boot_timeout)),
            timeout: self.timeout.map(Duration::from_secs),
        }
    }
}

/// How interrupts go to KVM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Msi {
    /// Each vector by an irqfd of its own.
    Irqfd,
    /// Each message by a request of its own, `KVM_SIGNAL_MSI`.
    Signal,
}

/// As many as the guest's driver takes.
const DEVICES_MAX: i64 = 64;
/// A month: nobody waits longer, and no sum of times overflows.
const SECONDS_MAX: u64 = 31 * 24 * 3600;

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn limits_of_numbers() {
        let images = ["lockstorm", "boot", "--kernel", "k", "--initramfs", "i"];
        for (arguments, valid) in [
            (["--cpus", "8"], true),
            (["--cpus", "9"], false),
            (["--cpus", "0"], false),
            (["--mem", "63"], false),
            (["--mem", "99999999"], false),
            (["--rings", "9"], false),
            (["--ports", "0"], true),
            (["--ports", "31"], true),
            (["--ports", "32"], false),
            (["--devices", "64"], true),
            (["--devices", "65"], false),
            (["--vectors", "2048"], true),
            (["--vectors", "2049"], false),
            (["--boot-timeout", "0"], false),
            (["--run", "-x"], true),
            (["--append", "--"], true),
            (["--storm", "calm"], true),
            (["--storm=calm", "--storm=rate=1,hang=9"], true),
            (["--storm", "rate=0"], false),
            (["--vfio", "0000:3b:00.0"], true),
            (["--vfio", "3b:00"], false),
            (["--bogus", "1"], false),
        ] {
            let parsed = Cli::try_parse_from(images.iter().chain(&arguments));
            assert_eq!(parsed.is_ok(), valid, "{arguments:?}");
        }
    }
}
