// SPDX-License-Identifier: Apache-2.0 OR MIT

//! A process that goes on as two, with the same files open.

use std::{fs, io};

use rustix::process::Pid;

/// Forks; gives the child's process to the parent, `None` to the child.
///
/// Fails if this process has more than one thread: the child would have only this one, and find
/// locked for ever what another one had locked.
pub fn fork() -> io::Result<Option<Pid>> {
    if fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("a process with threads cannot be forked"));
    }
    // SAFETY: there is no other thread, so the child is as complete as its parent.
    match unsafe { libc::fork() } {
        child if child < 0 => Err(io::Error::last_os_error()),
        child => Ok(Pid::from_raw(child)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_is_not_forked() {
        let thread = std::thread::spawn(fork);
        assert!(thread.join().unwrap().is_err());
    }
}
