// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The open files, which all threads share. Anybody opens, doubles and closes them at any time, and
//! does not tell those who use them just then.

use std::ffi::CString;
use std::sync::atomic::{AtomicI32, Ordering};

use fastrand::Rng;
use rustix::io::Errno;

use crate::system::{self, Answer, Descriptor};

/// Most files that are open at a time.
const SLOTS: usize = 8;
/// The number of no file.
const NONE: Descriptor = -1;

/// Open files of one device, and an epoll for them.
pub struct Files {
    path: CString,
    slots: [AtomicI32; SLOTS],
    epoll: Descriptor,
}

impl Files {
    /// Opens the device as often as possible.
    pub fn new(path: CString) -> Result<Self, Errno> {
        let files = Self {
            path,
            slots: [const { AtomicI32::new(NONE) }; SLOTS],
            epoll: descriptor(system::epoll_create()?),
        };
        for (number, slot) in files.slots.iter().enumerate() {
            let nonblocking = number % 2 == 0;
            let opened = descriptor(system::open(&files.path, nonblocking)?);
            slot.store(opened, Ordering::Relaxed);
        }
        Ok(files)
    }

    /// The epoll, which is never closed.
    pub fn epoll(&self) -> Descriptor {
        self.epoll
    }

    /// One of the files, or the number of none.
    pub fn any(&self, random: &mut Rng) -> Descriptor {
        self.slot(random).load(Ordering::Relaxed)
    }

    /// Opens the device once more, in place of another file.
    pub fn open(&self, random: &mut Rng) -> Answer {
        let opened = system::open(&self.path, random.bool())?;
        self.replace(random, descriptor(opened));
        Ok(opened)
    }

    /// Gives a file a second number, in place of another file.
    pub fn dup(&self, random: &mut Rng) -> Answer {
        let doubled = system::dup(self.any(random))?;
        self.replace(random, descriptor(doubled));
        Ok(doubled)
    }

    /// Closes one.
    pub fn close(&self, random: &mut Rng) -> Answer {
        system::close(self.slot(random).swap(NONE, Ordering::Relaxed))
    }

    /// Closes all.
    pub fn close_all(&self) {
        for slot in &self.slots {
            // What is not open need not be closed.
            let _ = system::close(slot.swap(NONE, Ordering::Relaxed));
        }
    }

    fn slot(&self, random: &mut Rng) -> &AtomicI32 {
        &self.slots[random.usize(0..SLOTS)]
    }

    fn replace(&self, random: &mut Rng, new: Descriptor) {
        let old = self.slot(random).swap(new, Ordering::Relaxed);
        if old != NONE {
            let _ = system::close(old);
        }
    }
}

/// The kernel gives numbers of files as any answer.
fn descriptor(answer: usize) -> Descriptor {
    Descriptor::try_from(answer).unwrap_or(NONE)
}
