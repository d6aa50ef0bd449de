// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Memory into which the driver cannot write, or not yet, and calls that write there.

use std::io;
use std::os::fd::OwnedFd;
use std::ptr;
use std::sync::{Mutex, PoisonError};

use evgen_stress::device::Device;
use evgen_uapi::{EVENT_SIZE, GET_EVENT};
use rustix::io::Errno;
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};
use rustix::mm::{
    MapFlags, MprotectFlags, ProtFlags, UserfaultfdFlags, mmap_anonymous, mprotect, munmap,
    userfaultfd,
};

use crate::bench::Answer;
use crate::calls;

const PAGE: usize = 4096;

/// Pages that can be written.
struct Pages {
    address: usize,
    count: usize,
}

impl Pages {
    fn map(count: usize, flags: MapFlags) -> io::Result<Self> {
        // SAFETY: a new mapping, wherever there is room.
        let pages = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                count * PAGE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | flags,
            )
        };
        Ok(Self {
            address: pages?.addr(),
            count,
        })
    }

    /// From now on nobody can access page number `index`.
    fn forbid(&self, index: usize) -> io::Result<()> {
        let page = ptr::with_exposed_provenance_mut(self.address + index * PAGE);
        // SAFETY: it is in this mapping, to which there are no references.
        Ok(unsafe { mprotect(page, PAGE, MprotectFlags::empty()) }?)
    }

    /// What is in there. All of it must be accessible.
    fn bytes(&self, offset: usize, count: usize) -> Vec<u8> {
        assert!(offset + count <= self.count * PAGE);
        let start = ptr::with_exposed_provenance::<u8>(self.address + offset);
        // SAFETY: it is in this mapping, which begins as zeros and into which only the kernel writes.
        (0..count)
            .map(|at| unsafe { start.add(at).read_volatile() })
            .collect()
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let start = ptr::with_exposed_provenance_mut(self.address);
        // SAFETY: nothing refers to this mapping. If it stays, it does no harm.
        let _ = unsafe { munmap(start, self.count * PAGE) };
    }
}

/// Pages before one that cannot be written.
pub struct Edge(Pages);

impl Edge {
    const WRITABLE: usize = 4 * PAGE;

    /// Some pages with an edge.
    pub fn new() -> io::Result<Self> {
        let pages = Pages::map(Self::WRITABLE / PAGE + 1, MapFlags::empty())?;
        pages.forbid(Self::WRITABLE / PAGE)?;
        Ok(Self(pages))
    }

    /// `read` of `length` bytes to where `room` bytes are writable.
    pub fn read(&self, device: &Device, room: usize, length: usize) -> Answer<usize> {
        assert!(room <= Self::WRITABLE && length <= room + PAGE);
        let buffer = self.0.address + Self::WRITABLE - room;
        // SAFETY: it is in this mapping.
        unsafe { calls::read_to(device, buffer, length) }
    }

    /// `GET_EVENT` to where `room` bytes are writable.
    pub fn get_event(&self, device: &Device, room: usize) -> Answer<()> {
        assert!(room <= Self::WRITABLE);
        let buffer = self.0.address + Self::WRITABLE - room;
        // SAFETY: it is in this mapping, with one event's room before its end.
        unsafe { calls::ioctl_at(device, GET_EVENT, buffer) }
    }

    /// The first `count` bytes of where `room` bytes are writable.
    pub fn bytes(&self, room: usize, count: usize) -> Vec<u8> {
        assert!(count <= room);
        self.0.bytes(Self::WRITABLE - room, count)
    }
}

/// A page that 32-bit programs can point to.
pub struct Low(Pages);

impl Low {
    /// A page.
    pub fn new() -> io::Result<Self> {
        let low = MapFlags::from_bits_retain(libc::MAP_32BIT.cast_unsigned());
        Ok(Self(Pages::map(1, low)?))
    }

    /// `ioctl` as a 32-bit program makes it, which must write at most a page. `None` if there are none
    /// here.
    pub fn ioctl(&self, device: &Device, command: Opcode) -> Option<Answer<()>> {
        let address = u32::try_from(self.0.address).ok()?;
        // SAFETY: it is in this mapping, and there are such system calls.
        calls::runs_32_bits().then(|| unsafe { calls::ioctl_of_32_bits(device, command, address) })
    }

    /// The first `count` bytes.
    pub fn bytes(&self, count: usize) -> Vec<u8> {
        self.0.bytes(0, count)
    }
}

/// A page that is not there yet: whoever accesses it sleeps, the kernel too.
pub struct Absent {
    page: Pages,
    handler: Mutex<Option<OwnedFd>>,
}

/// `struct uffdio_api`.
#[repr(C)]
#[derive(Default)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

/// `struct uffdio_register`.
#[repr(C)]
#[derive(Default)]
struct Register {
    start: u64,
    length: u64,
    mode: u64,
    ioctls: u64,
}

const UFFDIO_API: Opcode = opcode::read_write::<Api>(0xaa, 0x3f);
const UFFDIO_REGISTER: Opcode = opcode::read_write::<Register>(0xaa, 0x00);
const UFFD_API: u64 = 0xaa;
const UFFDIO_REGISTER_MODE_MISSING: u64 = 1;

impl Absent {
    /// A page that is not there. `None` if this kernel has no `userfaultfd`.
    pub fn new() -> io::Result<Option<Self>> {
        // SAFETY: it is used here only.
        let handler = match unsafe { userfaultfd(UserfaultfdFlags::CLOEXEC) } {
            Err(Errno::NOSYS) => return Ok(None),
            handler => handler?,
        };
        let page = Pages::map(1, MapFlags::empty())?;
        let mut api = Api {
            api: UFFD_API,
            ..Api::default()
        };
        // SAFETY: the call reads and writes an `Api`.
        unsafe { ioctl(&handler, Updater::<UFFDIO_API, _>::new(&mut api)) }?;
        let mut register = Register {
            start: page.address as u64,
            length: PAGE as u64,
            mode: UFFDIO_REGISTER_MODE_MISSING,
            ..Register::default()
        };
        // SAFETY: the call reads and writes a `Register`. Only the kernel accesses that page before
        // it is there.
        unsafe { ioctl(&handler, Updater::<UFFDIO_REGISTER, _>::new(&mut register)) }?;
        Ok(Some(Self {
            page,
            handler: Mutex::new(Some(handler)),
        }))
    }

    /// `read` of `count` events into the page: sleeps until that is there.
    pub fn read(&self, device: &Device, count: usize) -> Answer<usize> {
        assert!(count * EVENT_SIZE <= PAGE);
        // SAFETY: it is in this mapping.
        unsafe { calls::read_to(device, self.page.address, count * EVENT_SIZE) }
    }

    /// From now on the page is there; who waits for it goes on.
    pub fn provide(&self) {
        // Without a handler the kernel has pages for all who wait.
        let mut handler = self.handler.lock().unwrap_or_else(PoisonError::into_inner);
        drop(handler.take());
    }

    /// From now on nobody can access the page; who waits for it fails.
    pub fn forbid(&self) -> io::Result<()> {
        self.page.forbid(0)?;
        self.provide();
        Ok(())
    }

    /// What is in the page, once it is there.
    pub fn event(&self) -> Vec<u8> {
        self.page.bytes(0, EVENT_SIZE)
    }
}
