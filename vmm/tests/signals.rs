// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Signals to a lockstorm that is stuck.

#![allow(clippy::unwrap_used, reason = "this is a test as a whole")]

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use vmm_sys_util::tempdir::TempDir;

/// The program, waiting for the folder of its control socket, which the test has locked.
struct Stuck {
    child: Child,
    _folder: TempDir,
    _lock: File,
}

impl Stuck {
    fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let lock = File::open(folder.as_path()).unwrap();
        // SAFETY: the call gets an open file descriptor and no memory.
        assert_eq!(unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX) }, 0);
        let child = Command::new(env!("CARGO_BIN_EXE_lockstorm"))
            .args(["boot", "--kernel", "none", "--initramfs", "none"])
            .arg("--control")
            .arg(folder.as_path().join("control"))
            .spawn();
        Self {
            child: child.unwrap(),
            _folder: folder,
            _lock: lock,
        }
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < Duration::from_secs(10), "no {what}");
        sleep(Duration::from_millis(5));
    }
}

/// Whether the program has got as far as to take signals for events.
fn watches_signals(child: &Child) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
    let blocked = u64::from_str_radix(blocked.unwrap().trim(), 16).unwrap();
    blocked & (1 << (libc::SIGINT - 1)) != 0
}

fn send(child: &Child, signal: i32) {
    // SAFETY: no memory is involved; the child has not been waited for, so its id is its own.
    assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
}

#[test]
fn a_later_second_signal_ends_a_stuck_program() {
    let mut stuck = Stuck::start();
    let child = &mut stuck.child;
    wait_until("signals", || watches_signals(child));
    send(child, libc::SIGINT);
    // Longer than a signal that is merely sent twice takes to come.
    sleep(Duration::from_millis(600));
    assert_eq!(child.try_wait().unwrap(), None, "it has time to end well");
    send(child, libc::SIGTERM);
    let mut status = None;
    wait_until("end", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.and_then(|status| status.code()), Some(143));
}
