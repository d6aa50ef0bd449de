// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Memory for the arguments of system calls: good, bad, and bad from the middle on.
//!
//! All of it lies at fixed addresses, between those that the kernel never maps and those where
//! programs begin. Nothing else of this process is ever put there. So whatever the kernel writes to an
//! [`Address`], it destroys nothing.

use std::ffi::c_void;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{ptr, thread};

use fastrand::Rng;
use rustix::io::Errno;
use rustix::mm::{
    Advice, MapFlags, MprotectFlags, MremapFlags, ProtFlags, madvise, mmap_anonymous, mprotect,
    mremap_fixed, munmap,
};

pub const PAGE: usize = 4096;
/// How many threads can have memory: programs begin at 2 MiB.
pub const THREADS_MAX: usize = 16;
/// Where the memory of the first thread begins.
const BEGIN: usize = 0x2_0000;
/// How much address space each thread has.
const SHARE: usize = 16 * PAGE;

/// Pages of a thread's share. The others are not mapped.
const WRITABLE: Range<usize> = 1..3;
const BEFORE_READ_ONLY: usize = 4;
const READ_ONLY: usize = 5;
const NO_ACCESS: usize = 7;
const AFTER_NO_ACCESS: usize = 8;
/// The page that can only be read once more, for us to write.
const ALIAS: usize = 10;

/// Pages, behind the shares of all threads, that [`vanish`] lets come and go.
const VANISHING: usize = BEGIN + THREADS_MAX * SHARE;
const VANISHING_PAGES: usize = 2;

/// The end of what a program can address, what no processor can, and the kernel's own memory.
const BEYOND: [usize; 8] = [
    0x7fff_ffff_f000,
    0x7fff_ffff_ffff,
    0x8000_0000_0000,
    1 << 63,
    0xffff_8880_0000_1000,
    0xffff_c900_0000_0001,
    0xffff_ffff_8100_0000,
    usize::MAX,
];

/// An address that the kernel may write to without harm: of memory that is there for that, or of
/// nothing that this process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address(usize);

impl Address {
    /// The number that system calls take.
    pub fn number(self) -> usize {
        self.0
    }
}

/// Whether something works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sure {
    /// It does.
    Yes,
    /// It does not.
    No,
    /// It may change meanwhile.
    Unknown,
}

/// A place for an argument.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Where it is.
    pub address: Address,
    /// Whether all of it can be read.
    pub readable: Sure,
    /// Whether all of it can be written.
    pub writable: Sure,
}

/// The memory of one thread.
pub struct Memory {
    /// Address of its share.
    share: usize,
}

impl Memory {
    /// The memory of thread `thread`, below [`THREADS_MAX`]. `EEXIST` if something is there already.
    pub fn new(thread: usize) -> Result<Self, Errno> {
        let memory = Self {
            share: BEGIN + thread * SHARE,
        };
        let writable = ProtFlags::READ | ProtFlags::WRITE;
        for (pages, protection, sharing) in [
            (WRITABLE, writable, MapFlags::PRIVATE),
            (BEFORE_READ_ONLY..READ_ONLY, writable, MapFlags::PRIVATE),
            (
                NO_ACCESS..AFTER_NO_ACCESS,
                ProtFlags::empty(),
                MapFlags::PRIVATE,
            ),
            (
                AFTER_NO_ACCESS..AFTER_NO_ACCESS + 1,
                writable,
                MapFlags::PRIVATE,
            ),
            (ALIAS..ALIAS + 1, writable, MapFlags::SHARED),
        ] {
            let begin = memory.pointer_to(pages.start);
            let flags = sharing | MapFlags::FIXED_NOREPLACE;
            // SAFETY: the flag says that what is there already stays.
            unsafe { mmap_anonymous(begin, pages.len() * PAGE, protection, flags)? };
        }
        let (alias, read_only) = (memory.pointer_to(ALIAS), memory.pointer_to(READ_ONLY));
        let flags = MremapFlags::MAYMOVE;
        // SAFETY: an old size of zero makes a second mapping, and nothing is at the new address.
        unsafe {
            mremap_fixed(alias, 0, PAGE, flags, read_only)?;
            mprotect(read_only, PAGE, MprotectFlags::READ)?;
        }
        Ok(memory)
    }

    /// A place for `size` bytes, 2 bytes to a page, that may be good or bad.
    pub fn place(&self, random: &mut Rng, size: usize) -> Place {
        use Sure::{No, Unknown, Yes};
        let part = random.usize(1..size);
        let (address, readable, writable) = match random.u8(0..20) {
            // To a page boundary, across one, and across one that should not be crossed.
            0 => (self.page(WRITABLE.end) - size, Yes, Yes),
            1 => (self.page(WRITABLE.start + 1) - part, Yes, Yes),
            2 => (self.page(WRITABLE.end) - part, No, No),
            3 => (self.page(READ_ONLY) - part, Yes, No),
            4 => (self.page(NO_ACCESS + 1) - part, No, No),
            5 => (self.page(READ_ONLY + 1) - size, Yes, No),
            // In the middle of a page that cannot be used.
            6 => (self.page(NO_ACCESS) + random.usize(0..PAGE), No, No),
            7 => (self.page(0) + random.usize(0..PAGE / 2), No, No),
            8 => (random.usize(0..PAGE), No, No),
            9 => (0, No, No),
            10 => (BEYOND[random.usize(0..BEYOND.len())], No, No),
            11 | 12 => {
                let room = VANISHING_PAGES * PAGE - size;
                (VANISHING + random.usize(0..=room), Unknown, Unknown)
            }
            // Where most programs have it.
            _ => return self.good_place(random, size),
        };
        Place {
            address: Address(address),
            readable,
            writable,
        }
    }

    /// A place for `size` bytes, at most a page, that is good; aligned or not.
    pub fn good_place(&self, random: &mut Rng, size: usize) -> Place {
        let room = WRITABLE.len() * PAGE - size;
        let offset = random.usize(0..=room);
        let offset = if random.bool() { offset } else { offset & !7 };
        Place {
            address: Address(self.page(WRITABLE.start) + offset),
            readable: Sure::Yes,
            writable: Sure::Yes,
        }
    }

    /// Writes as much of `bytes` to `address` as can be there, also where only this can write.
    pub fn put(&self, address: Address, bytes: &[u8]) {
        for (index, &byte) in bytes.iter().enumerate() {
            let position = address.0.wrapping_add(index);
            let pointer = match self.page_of(position) {
                Some(READ_ONLY) => pointer(position + (ALIAS - READ_ONLY) * PAGE),
                _ if self.is_writable(position) => pointer(position),
                _ => continue,
            };
            // SAFETY: the page is mapped and writable, and no reference to it exists.
            unsafe { pointer.write_volatile(byte) };
        }
    }

    /// What is in the `length` bytes at `address`; `None` if they are not all in writable memory.
    pub fn content(&self, address: Address, length: usize) -> Option<Vec<u8>> {
        let range = address.0..address.0.checked_add(length)?;
        range
            .map(|position| {
                let pointer = self.is_writable(position).then(|| pointer(position))?;
                // SAFETY: the page is mapped and readable, and no reference to it exists.
                Some(unsafe { pointer.read_volatile() })
            })
            .collect()
    }

    /// The address where page `page` of the share begins.
    fn page(&self, page: usize) -> usize {
        self.share + page * PAGE
    }

    fn page_of(&self, position: usize) -> Option<usize> {
        let offset = position.checked_sub(self.share)?;
        (offset < SHARE).then_some(offset / PAGE)
    }

    fn is_writable(&self, position: usize) -> bool {
        self.page_of(position).is_some_and(|page| {
            WRITABLE.contains(&page) || [BEFORE_READ_ONLY, AFTER_NO_ACCESS].contains(&page)
        })
    }

    fn pointer_to(&self, page: usize) -> *mut c_void {
        pointer(self.page(page)).cast()
    }
}

/// Nothing that is known to the compiler is there.
fn pointer(address: usize) -> *mut u8 {
    ptr::with_exposed_provenance_mut(address)
}

/// Lets the pages that vanish come and go until told to stop. `EEXIST` if something else is there.
pub fn vanish(mut random: Rng, stop: &AtomicBool) -> Result<(), Errno> {
    let pages = pointer(VANISHING).cast();
    let length = VANISHING_PAGES * PAGE;
    let writable = ProtFlags::READ | ProtFlags::WRITE;
    let mut flags = MapFlags::PRIVATE | MapFlags::FIXED_NOREPLACE;
    let pause = |random: &mut Rng| thread::sleep(Duration::from_micros(random.u64(0..10_000)));
    while !stop.load(Ordering::Relaxed) {
        // SAFETY: nothing was there at first, nobody else maps anything there, and no reference to it
        // exists.
        unsafe { mmap_anonymous(pages, length, writable, flags)? };
        flags = MapFlags::PRIVATE | MapFlags::FIXED;
        pause(&mut random);
        // SAFETY: as above.
        unsafe {
            match random.u8(0..4) {
                0 => mprotect(pages, length, MprotectFlags::empty())?,
                1 => mprotect(pages, length, MprotectFlags::READ)?,
                2 => madvise(pages, length, Advice::LinuxDontNeed)?,
                _ => munmap(pages, length)?,
            }
        }
        pause(&mut random);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::AsRawFd;

    use super::*;

    /// The kernel has the last word on what can be read and written.
    #[test]
    fn places_are_what_they_say() {
        let memory = Memory::new(0).unwrap();
        let zeros = File::open("/dev/zero").unwrap();
        let mut random = Rng::with_seed(1);
        let mut seen = [0; 4];
        for _ in 0..20_000 {
            let size = random.usize(2..=PAGE);
            let place = memory.place(&mut random, size);
            let address = ptr::without_provenance_mut(place.address.number());
            // SAFETY: what is written there destroys nothing.
            let written = unsafe { libc::read(zeros.as_raw_fd(), address, size) };
            let expected = match place.writable {
                Sure::Yes => written == size.cast_signed(),
                Sure::No => written < size.cast_signed(),
                Sure::Unknown => true,
            };
            assert!(expected, "{place:?}, {size} bytes: {written}");
            let read = read_by_kernel(place.address, size).is_some();
            let expected = match place.readable {
                Sure::Yes => read,
                Sure::No => !read,
                Sure::Unknown => true,
            };
            assert!(expected, "{place:?}, {size} bytes: {read}");
            seen[match (place.readable, place.writable) {
                (Sure::Yes, Sure::Yes) => 0,
                (Sure::Yes, _) => 1,
                (Sure::No, _) => 2,
                (Sure::Unknown, _) => 3,
            }] += 1;
        }
        assert!(seen.iter().all(|&count| count > 500), "{seen:?}");
    }

    /// What the kernel finds in the `size` bytes at `address`, if it can read all of them.
    fn read_by_kernel(address: Address, size: usize) -> Option<Vec<u8>> {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let from = ptr::without_provenance(address.number());
        // SAFETY: `write` only reads, and tells if it cannot.
        let written = unsafe { libc::write(writer.as_raw_fd(), from, size) };
        drop(writer);
        let mut read = Vec::new();
        reader.read_to_end(&mut read).unwrap();
        (written == size.cast_signed()).then_some(read)
    }

    #[test]
    fn what_is_put_is_there() {
        let memory = Memory::new(1).unwrap();
        let mut random = Rng::with_seed(1);
        for number in 0..2000_u32 {
            let bytes = [number.to_ne_bytes(); 3].concat();
            let place = memory.place(&mut random, bytes.len());
            memory.put(place.address, &bytes);
            if place.readable == Sure::Yes {
                assert_eq!(read_by_kernel(place.address, bytes.len()).unwrap(), bytes);
            }
            let content = memory.content(place.address, bytes.len());
            assert_eq!(content, (place.writable == Sure::Yes).then_some(bytes));
        }
    }
}
