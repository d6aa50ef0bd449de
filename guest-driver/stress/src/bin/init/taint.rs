// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The kernel's own word on whether something went wrong: `/proc/sys/kernel/tainted`.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::say;

/// The bits that tell of a fault, with the kernel's word for each
/// (Documentation/admin-guide/tainted-kernels.rst). Others tell only what kind of kernel it is; a
/// module that is out of tree and unsigned sets two of them.
const FAULTS: [(u32, &str); 6] = [
    (3, "module forcibly unloaded"),
    (4, "machine check"),
    (5, "bad page"),
    (7, "oops"),
    (9, "warning"),
    (14, "soft lockup"),
];

/// Level of a warning in the kernel log; lower is worse.
const WARNING: u32 = 4;

/// If the kernel complained of a fault, says so with what it logged, and gives true.
pub fn warn() -> bool {
    let tainted = match fs::read_to_string("/proc/sys/kernel/tainted") {
        Ok(tainted) => tainted,
        Err(error) => {
            say(format_args!(
                "cannot ask the kernel whether it is tainted: {error}"
            ));
            return true;
        }
    };
    let Some(faults) = faults(&tainted) else {
        return false;
    };
    // Warnings do not show on a quiet kernel's console.
    say("the kernel logged:");
    if let Err(error) = print_kernel_log() {
        say(format_args!("cannot read /dev/kmsg: {error}"));
    }
    say(format_args!("the kernel complained: {faults}"));
    true
}

fn print_kernel_log() -> io::Result<()> {
    let mut log = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open("/dev/kmsg")?;
    // The kernel refuses to split a record, and none is longer.
    let mut record = [0; 8192];
    loop {
        match log.read(&mut record) {
            Ok(0) => return Ok(()),
            Ok(length) => {
                if let Some(text) = complaint(&String::from_utf8_lossy(&record[..length])) {
                    say(text);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            // Overwritten before it was read; the next read goes on after the gap.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::PIPE) => {}
            Err(error) => return Err(error),
        }
    }
}

/// The text of a record of /dev/kmsg ("level,number,time,flags;text"), if it is a warning or worse.
fn complaint(record: &str) -> Option<&str> {
    let (head, text) = record.split_once(';')?;
    let level: u32 = head.split(',').next()?.parse().ok()?;
    // The upper bits are the facility; the kernel's own is 0.
    (level <= WARNING).then(|| text.lines().next().unwrap_or_default())
}

fn faults(tainted: &str) -> Option<String> {
    let Ok(bits) = tainted.trim().parse::<u64>() else {
        return Some(format!("tainted reads {tainted:?}"));
    };
    let faults: Vec<_> = FAULTS
        .iter()
        .filter(|&(bit, _)| bits >> bit & 1 == 1)
        .map(|&(_, name)| name)
        .collect();
    (!faults.is_empty()).then(|| faults.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_the_kernels_warnings_or_worse() {
        for (record, expected) in [
            (
                "4,339,5140900,-;WARNING: CPU: 0\n SUBSYSTEM=pci\n",
                Some("WARNING: CPU: 0"),
            ),
            ("2,1,2,c;Oops; really\n", Some("Oops; really")),
            ("6,339,5140900,-;NET: Registered\n", None),
            ("12,1,2,-;from a program\n", None),
            ("", None),
        ] {
            assert_eq!(complaint(record), expected);
        }
    }

    #[test]
    fn faults_are_told_from_what_is_normal() {
        for (tainted, expected) in [
            ("0\n", None),
            ("12288\n", None), // out of tree, unsigned
            ("12800\n", Some("warning")),
            ("12928\n", Some("oops, warning")),
            ("16896\n", Some("warning, soft lockup")),
            ("4096", None),
            ("", Some("tainted reads \"\"")),
        ] {
            assert_eq!(faults(tainted).as_deref(), expected, "{tainted}");
        }
    }
}
