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

/// What the kernel logs, as a warning or worse, when it finds a fault that sets none of these bits.
/// `WARNING: ` alone would not do: some say no more than what hardware a kernel runs on. Those of
/// `WARN()` are tainting.
const REPORTS: [&str; 19] = [
    // Lock validator (kernel/locking/lockdep.c)
    "WARNING: possible circular locking dependency detected",
    "WARNING: possible recursive locking detected",
    "WARNING: possible irq lock inversion dependency detected",
    "-unsafe lock order detected",
    "WARNING: inconsistent lock state",
    "WARNING: Nested lock was not taken",
    "WARNING: bad unlock balance detected",
    "WARNING: bad contention detected",
    "WARNING: held lock freed",
    "still has locks held",
    "WARNING: lock held when returning to user space",
    "WARNING: suspicious RCU usage",
    // RCU (kernel/rcu/tree_stall.h, tree_exp.h, tasks.h)
    "detected stall",
    "detected expedited stall",
    // Hung tasks: "INFO: task NAME:PID blocked for more than …", or "blocked in I/O wait for …"
    "INFO: task ",
    // An interrupt that no handler takes
    "nobody cared",
    // A CPU that takes no interrupts
    "hard LOCKUP",
    // Wait contexts of locks, workqueue lockups, KCSAN and more
    "BUG: ",
    "UBSAN: ",
];

/// Level of a warning in the kernel log; lower is worse.
const WARNING: u32 = 4;

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

/// The warnings in the kernel log, and worse.
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

/// The text of a record of /dev/kmsg ("level,number,time,flags;text"), if it is a warning or worse.
fn complaint(record: &str) -> Option<&str> {
    let (head, text) = record.split_once(';')?;
    let level: u32 = head.split(',').next()?.parse().ok()?;
    // The upper bits are the facility; the kernel's own is 0.
    (level <= WARNING).then(|| text.lines().next().unwrap_or_default())
}

/// What is wrong by the taint bits, or else the first line of the log that tells of a fault.
fn faults(tainted: &str, log: &[String]) -> Option<String> {
    let Ok(bits) = tainted.trim().parse::<u64>() else {
        return Some(format!("tainted reads {tainted:?}"));
    };
    let faults: Vec<_> = FAULTS
        .iter()
        .filter(|&(bit, _)| bits >> bit & 1 == 1)
        .map(|&(_, name)| name)
        .collect();
    if !faults.is_empty() {
        return Some(faults.join(", "));
    }
    log.iter()
        .find(|line| REPORTS.iter().any(|report| line.contains(report)))
        .cloned()
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
            assert_eq!(faults(tainted, &[]).as_deref(), expected, "{tainted}");
        }
    }

    #[test]
    fn reports_are_told_from_what_is_normal() {
        for (line, fault) in [
            (
                "WARNING: possible circular locking dependency detected",
                true,
            ),
            ("WARNING: possible recursive locking detected", true),
            (
                "WARNING: SOFTIRQ-safe -> SOFTIRQ-unsafe lock order detected",
                true,
            ),
            ("WARNING: inconsistent lock state", true),
            ("[ BUG: Invalid wait context ]", true),
            ("WARNING: stress/98 still has locks held!", true),
            ("rcu: INFO: rcu_preempt self-detected stall on CPU", true),
            (
                "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
                true,
            ),
            (
                "rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: {",
                true,
            ),
            ("INFO: rcu_tasks detected stalls on tasks:", true),
            (
                "INFO: task stress:98 blocked for more than 120 seconds.",
                true,
            ),
            (
                "INFO: task stress:98 blocked in I/O wait for more than 120 seconds.",
                true,
            ),
            (
                "irq 25: nobody cared (try booting with the \"irqpoll\" option)",
                true,
            ),
            (
                "watchdog: CPU1: Watchdog detected hard LOCKUP on cpu 0",
                true,
            ),
            ("BUG: workqueue lockup - pool", true),
            ("UBSAN: array-index-out-of-bounds in a.c:1:2", true),
            ("evgen: loading out-of-tree module taints kernel.", false),
            ("evgen 0000:00:01.0: ring 0 is in the error state", false),
            (
                "RETBleed: WARNING: Spectre v2 mitigation leaves CPU vulnerable",
                false,
            ),
            (
                "WARNING: BIOS bug: CPU MTRRs don't cover all of memory",
                false,
            ),
            (
                "ENERGY_PERF_BIAS: Set to 'normal', was 'performance'",
                false,
            ),
            (
                "[Firmware Bug]: TSC doesn't count with P0 frequency!",
                false,
            ),
        ] {
            let log = ["evgen: hello", line, "BUG: later"].map(str::to_owned);
            let log = if fault { &log[..] } else { &log[..2] };
            assert_eq!(faults("12288", log).as_deref(), fault.then_some(line));
        }
    }
}
