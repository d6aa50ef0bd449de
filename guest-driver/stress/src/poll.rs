// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Waiting for several devices at once.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// What `poll` says of each of `files`, which are asked for what can be read: always `ERR` and `HUP`
/// too. All of it is empty if nothing happened in time.
pub fn wait_readable(files: &[impl AsFd], timeout: Option<Duration>) -> io::Result<Vec<PollFlags>> {
    let mut polled: Vec<_> = files
        .iter()
        .map(|file| PollFd::new(file, PollFlags::IN))
        .collect();
    wait(timeout, |timeout| poll(&mut polled, timeout))?;
    Ok(polled.iter().map(PollFd::revents).collect())
}

/// Calls `waits`, and again with what is left of the time if a signal ended it.
pub fn wait<T>(
    timeout: Option<Duration>,
    mut waits: impl FnMut(Option<&Timespec>) -> Result<T, Errno>,
) -> io::Result<T> {
    let start = Instant::now();
    loop {
        let left = timeout
            .map(|timeout| Timespec::try_from(timeout.saturating_sub(start.elapsed())))
            .transpose()
            .map_err(|_| Errno::INVAL)?;
        match waits(left.as_ref()) {
            Err(Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use super::*;

    #[test]
    fn whatever_can_be_read_is_told_from_what_cannot() {
        let (quiet, _open) = io::pipe().unwrap();
        let (full, mut filling) = io::pipe().unwrap();
        let (closed, closing) = io::pipe().unwrap();
        filling.write_all(b"x").unwrap();
        drop(closing);
        let files = [quiet, full, closed].map(|pipe| File::from(std::os::fd::OwnedFd::from(pipe)));
        assert_eq!(
            wait_readable(&files, None).unwrap(),
            [PollFlags::empty(), PollFlags::IN, PollFlags::HUP]
        );
        let nothing = wait_readable(&files[..1], Some(Duration::from_millis(1)));
        assert_eq!(nothing.unwrap(), [PollFlags::empty()]);
    }

    #[test]
    fn a_signal_does_not_make_a_wait_longer() {
        let limit = Duration::from_secs(3600);
        let mut left = Vec::new();
        let result = wait(Some(limit), |timeout| {
            left.push(*timeout.unwrap());
            std::thread::sleep(Duration::from_millis(2));
            if left.len() < 4 {
                Err(Errno::INTR)
            } else {
                Ok(7)
            }
        });
        assert_eq!(result.unwrap(), 7);
        assert!(left.is_sorted_by(|one, next| one > next), "{left:?}");

        let over = |timeout: Option<&Timespec>| Ok(*timeout.unwrap());
        let nothing = Timespec::try_from(Duration::ZERO).unwrap();
        assert_eq!(wait(Some(Duration::ZERO), over).unwrap(), nothing);
    }
}
