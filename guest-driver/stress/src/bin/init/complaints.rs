// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The kernel's own word on whether something went wrong: `/proc/sys/kernel/tainted`, and the
//! kernel log, for not every fault leaves a taint.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::OFlags;
use rustix::io::Errno;
use thiserror::Error;

use crate::say;
use crate::splats::is_splat;

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

/// The last of the kernel's own levels. The bits above them tell who else logs.
const LEVEL_MAX: u32 = 7;

/// The kernel did not say whether something went wrong.
#[derive(Debug, Error)]
#[error("cannot read {path}, which tells of faults in the kernel: {source}")]
struct Silence {
    path: &'static str,
    source: io::Error,
}

/// If the kernel complained of a fault, says so with what it logged, and gives true. A kernel that
/// cannot be asked is no better.
pub fn warn() -> bool {
    let (tainted, log) = match tainted().and_then(|tainted| Ok((tainted, kernel_log()?))) {
        Ok(asked) => asked,
        Err(silence) => {
            say(silence);
            return true;
        }
    };
    let Some(faults) = faults(&tainted, &log) else {
        return false;
    };
    // Warnings do not show on a quiet kernel's console.
    say("the kernel logged:");
    log.iter().for_each(say);
    say(format_args!("the kernel complained: {faults}"));
    true
}

fn tainted() -> Result<String, Silence> {
    let path = "/proc/sys/kernel/tainted";
    fs::read_to_string(path).map_err(|source| Silence { path, source })
}

/// The warnings in the kernel log, and worse, and what tells of a fault in any other way.
fn kernel_log() -> Result<Vec<String>, Silence> {
    let path = "/dev/kmsg";
    let silence = |source| Silence { path, source };
    let mut log = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
        .map_err(silence)?;
    let mut complaints = Vec::new();
    // The kernel refuses to split a record, and none is longer.
    let mut record = [0; 8192];
    loop {
        match log.read(&mut record) {
            Ok(0) => return Ok(complaints),
            Ok(length) => {
                let record = String::from_utf8_lossy(&record[..length]);
                complaints.extend(complaint(&record).map(str::to_owned));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(complaints),
            // Overwritten before it was read; the next read goes on after the gap.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::PIPE) => {}
            Err(error) => return Err(silence(error)),
        }
    }
}

/// The text of a record of /dev/kmsg ("level,number,time,flags;text"), if it is a warning or worse, or
/// tells of a fault: that of leaks is informational, and that the lock validator gave up is for
/// debugging.
fn complaint(record: &str) -> Option<&str> {
    let (head, text) = record.split_once(';')?;
    let level: u32 = head.split(',').next()?.parse().ok()?;
    if level > LEVEL_MAX {
        return None;
    }
    let line = text.lines().next().unwrap_or_default();
    (level <= WARNING || is_splat(line)).then_some(line)
}

/// What is wrong by the taint bits, and the first line of the log that tells of a fault.
fn faults(tainted: &str, log: &[String]) -> Option<String> {
    let Ok(bits) = tainted.trim().parse::<u64>() else {
        return Some(format!("tainted reads {tainted:?}"));
    };
    let by_taint = FAULTS
        .iter()
        .filter(|&(bit, _)| bits >> bit & 1 == 1)
        .map(|&(_, name)| name);
    let by_log = log.iter().map(String::as_str).find(|line| is_splat(line));
    let faults: Vec<_> = by_taint.chain(by_log).collect();
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
            (
                "7,1,2,-;turning off the locking correctness validator.\n",
                Some("turning off the locking correctness validator."),
            ),
            ("12,1,2,-;from a program\n", None),
            ("8,1,2,-;BUG: says a program\n", None),
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
            assert_eq!(faults(tainted, &[]).as_deref(), expected, "{tainted}");
        }
    }

    #[test]
    fn the_first_line_that_tells_of_a_fault_is_named() {
        let log = ["evgen: hello", "BUG: KASAN: double-free", "BUG: later"].map(str::to_owned);
        for (tainted, log, expected) in [
            ("12288", &log[..], Some("BUG: KASAN: double-free")),
            ("12320", &log[..], Some("bad page, BUG: KASAN: double-free")),
            ("12288", &log[..1], None),
            ("12800", &log[..1], Some("warning")),
        ] {
            assert_eq!(
                faults(tainted, log).as_deref(),
                expected,
                "{tainted} {log:?}"
            );
        }
    }
}
