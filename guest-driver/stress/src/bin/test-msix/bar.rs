// SPDX-License-Identifier: Apache-2.0 OR MIT

//! A BAR of a PCI function, mapped: all `unsafe` of this program.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::ptr::{self, NonNull};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use thiserror::Error;

/// A BAR that cannot be reached.
#[derive(Debug, Error)]
pub enum BarError {
    /// It cannot be mapped.
    #[error("cannot map {path}: {source}")]
    Map {
        /// Its file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// An access beyond its end.
    #[error("there are no {width} bytes at {offset:#x} of a BAR of {length:#x}")]
    Outside {
        /// Where.
        offset: usize,
        /// How many bytes.
        width: usize,
        /// Size of the BAR.
        length: usize,
    },
}

/// What one instruction reads or writes.
///
/// # Safety
/// Any bits are a valid value, and there is no padding.
pub unsafe trait Word: Copy {}

// SAFETY: an integer.
unsafe impl Word for u8 {}
// SAFETY: an integer.
unsafe impl Word for u16 {}
// SAFETY: an integer.
unsafe impl Word for u32 {}
// SAFETY: an integer.
unsafe impl Word for u64 {}

/// A word at an address that is not a multiple of its size.
#[derive(Clone, Copy)]
#[repr(C, packed)]
pub struct Unaligned<T>(pub T);

// SAFETY: a packed struct with one word in it has its bits and no others.
unsafe impl<T: Word> Word for Unaligned<T> {}

/// A mapped BAR.
#[derive(Debug)]
pub struct Bar {
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: what is mapped is a device's: accesses from several threads are as good as from one.
unsafe impl Send for Bar {}
// SAFETY: as above.
unsafe impl Sync for Bar {}

impl Bar {
    /// Maps the BAR behind `path`, a `resource` file of the function in sysfs.
    pub fn map(path: &Path) -> Result<Self, BarError> {
        let failed = |source: io::Error| BarError::Map {
            path: path.to_owned(),
            source,
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let length = usize::try_from(length).map_err(|error| failed(io::Error::other(error)))?;
        // SAFETY: the kernel chooses the place, so nothing of this process is mapped over.
        let base = unsafe {
            let access = ProtFlags::READ | ProtFlags::WRITE;
            mmap(ptr::null_mut(), length, access, MapFlags::SHARED, &file, 0)
        };
        let base = base.map_err(|error| failed(error.into()))?;
        NonNull::new(base.cast())
            .map(|base| Self { base, length })
            .ok_or_else(|| failed(io::Error::other("mapped at address 0")))
    }

    /// Size in bytes.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Reads a word.
    pub fn read<T: Word>(&self, offset: usize) -> Result<T, BarError> {
        let at = self.at(offset)?;
        // SAFETY: `at` gives an aligned place within the mapping, and any bits will do as a `T`.
        Ok(unsafe { ptr::read_volatile(at) })
    }

    /// Writes a word.
    pub fn write<T: Word>(&self, offset: usize, value: T) -> Result<(), BarError> {
        let at = self.at(offset)?;
        // SAFETY: `at` gives an aligned place within the mapping, which no Rust value lives in.
        unsafe { ptr::write_volatile(at, value) };
        Ok(())
    }

    fn at<T>(&self, offset: usize) -> Result<*mut T, BarError> {
        let width = size_of::<T>();
        let outside = BarError::Outside {
            offset,
            width,
            length: self.length,
        };
        let inside = offset
            .checked_add(width)
            .is_some_and(|end| end <= self.length);
        if !inside || !offset.is_multiple_of(align_of::<T>()) {
            return Err(outside);
        }
        // SAFETY: the whole word is within the mapping.
        Ok(unsafe { self.base.as_ptr().add(offset) }.cast())
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        // SAFETY: nothing but this value knows of the mapping.
        let result = unsafe { munmap(self.base.as_ptr().cast(), self.length) };
        debug_assert!(result.is_ok(), "what was mapped can be unmapped");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_all_widths_and_nothing_outside() {
        let path = std::env::temp_dir().join(format!("bar-test-{}", std::process::id()));
        std::fs::write(&path, [0; 4096]).unwrap();
        let bar = Bar::map(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(bar.length(), 4096);
        bar.write(8, 0x0807_0605_0403_0201_u64).unwrap();
        assert_eq!(bar.read::<u8>(9).unwrap(), 2);
        assert_eq!(bar.read::<u16>(10).unwrap(), 0x0403);
        assert_eq!(bar.read::<u32>(12).unwrap(), 0x0807_0605);
        let Unaligned(word) = bar.read::<Unaligned<u32>>(9).unwrap();
        assert_eq!(word, 0x0504_0302);
        bar.write(4094, Unaligned(0xffff_u16)).unwrap();
        for refused in [
            bar.write(4094, 0_u32).err(),
            bar.write(4096, 0_u8).err(),
            bar.write(2, 0_u32).err(),
            bar.write(usize::MAX, Unaligned(0_u64)).err(),
        ] {
            assert!(matches!(refused, Some(BarError::Outside { .. })));
        }
    }
}
