// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The virtual machine monitors, and how each is told to boot the very same guest.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Guest memory in MiB.
pub const MEMORY_MIB: u64 = 512;

/// What lockstorm tells its guest by itself, for the others: it would not do to compare a boot with
/// the self-tests of the crypto subsystem to one without.
const ARGUMENTS: &str = "console=ttyS0 quiet panic=-1 oops=panic reboot=acpi cryptomgr.notests";

/// Where the programs and images are.
#[derive(Clone, Debug)]
pub struct Images(pub PathBuf);

impl Images {
    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The guest of which only the boot matters.
    pub fn bare(&self) -> PathBuf {
        self.at("bare.cpio")
    }

    /// The guest with the evgen driver.
    pub fn guest(&self) -> PathBuf {
        self.at("guest.cpio")
    }

    /// lockstorm with `devices` evgen devices; everything else is to be added.
    pub fn lockstorm(&self, initramfs: &Path, devices: u8) -> Command {
        let mut command = Command::new(self.at("lockstorm"));
        command.arg("boot").arg("--kernel").arg(self.at("vmlinux"));
        command.arg("--initramfs").arg(initramfs);
        command.args(["--mem", &MEMORY_MIB.to_string()]);
        command.args(["--devices", &devices.to_string()]);
        command
    }

    /// What prints the token of a storm.
    pub fn storm_token(&self, storm: &str) -> Command {
        let mut command = Command::new(self.at("lockstorm"));
        command.args(["storm", "token", storm]);
        command
    }

    fn qemu(&self, machine: &str) -> Command {
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-nodefaults", "-no-user-config", "-display", "none"]);
        command.args(["-accel", "kvm", "-cpu", "host", "-smp", "1"]);
        command.args(["-M", machine, "-m", &MEMORY_MIB.to_string()]);
        command.args(["-serial", "stdio", "-append", ARGUMENTS]);
        command.arg("-kernel").arg(self.at("vmlinux"));
        command.arg("-initrd").arg(self.bare());
        command
    }

    fn alioth(&self) -> Command {
        let mut command = Command::new(self.at("alioth"));
        command.args(["boot", "--cpu", "count=1"]);
        command.args(["--memory", &format!("size={MEMORY_MIB}M")]);
        command.args(["--cmdline", ARGUMENTS]);
        command.arg("--pvh").arg(self.at("vmlinux"));
        command.arg("--initramfs").arg(self.bare());
        command
    }

    /// Every monitor with its name, booting the bare guest with one CPU, and lockstorm with the one
    /// evgen device that it has by default.
    pub fn monitors(&self) -> Vec<(&'static str, Command)> {
        let mut lockstorm = self.lockstorm(&self.bare(), 1);
        // Not a shell, so that the terminal is left alone; the bare guest does not look at it.
        lockstorm.args(["--run", "true"]);
        vec![
            ("lockstorm", lockstorm),
            ("qemu-q35", self.qemu("q35")),
            // Off what a guest can do without. Not the clock: it would look for one for seconds.
            ("qemu-microvm", self.qemu("microvm,pit=off,pic=off,rtc=on")),
            ("alioth", self.alioth()),
        ]
    }
}
