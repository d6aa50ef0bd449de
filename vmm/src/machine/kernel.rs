// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Loads the kernel and its initial RAM disk into guest memory.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek};
use std::path::{Path, PathBuf};

use linux_loader::loader::elf::PvhBootCapability;
use linux_loader::loader::{Elf, KernelLoader};
use thiserror::Error;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, ReadVolatile};

use super::bzimage;
use super::layout::{self, Range};
use super::memory::Memory;

/// The largest bzImage that is read, in bytes.
const BZIMAGE_MAX: u64 = 256 << 20;
/// Enough of a file to tell what it is.
const HEAD: u64 = 0x210;
const PAGE: u64 = 4096;

/// Why an image cannot be booted.
#[derive(Debug, Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {what} {path}: {source}", path = path.display())]
    Read {
        /// Kernel or initramfs.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// A folder, a pipe, a device …
    #[error("{what} {path} is not a regular file", path = path.display())]
    NotAFile {
        /// Kernel or initramfs.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// Neither ELF nor bzImage.
    #[error("{path} is not a kernel: neither an ELF vmlinux nor a bzImage", path = .0.display())]
    NotAKernel(PathBuf),
    /// A bzImage that does not give up its kernel.
    #[error("cannot boot {path}: {source}", path = path.display())]
    BzImage {
        /// The file.
        path: PathBuf,
        /// Why.
        source: bzimage::Error,
    },
    /// The ELF file is damaged or has segments outside guest memory.
    #[error("cannot load the kernel in {path}: {source}; is --mem large enough?", path = path.display())]
    Load {
        /// The file.
        path: PathBuf,
        /// What the loader said.
        source: linux_loader::loader::Error,
    },
    /// Built without `CONFIG_PVH`.
    #[error("the kernel in {path} has no PVH entry point: it needs CONFIG_PVH=y", path = .0.display())]
    NoPvh(PathBuf),
    /// No room for the initial RAM disk.
    #[error(
        "initramfs {path} ({} MiB) does not fit in guest memory beside the kernel: use a larger --mem",
        size.div_ceil(1 << 20),
        path = path.display()
    )]
    NoRoom {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
    /// The file became shorter while it was read, or the like.
    #[error("cannot load initramfs {path}: {source}", path = path.display())]
    Copy {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: GuestMemoryError,
    },
}

/// A kernel in guest memory.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    /// Where to begin: the PVH entry point.
    pub entry: u64,
    /// First address past the kernel.
    pub end: u64,
}

/// Loads the kernel at `path`: an ELF vmlinux, or a bzImage that has one inside.
pub fn load(memory: &Memory, path: &Path) -> Result<Kernel, Error> {
    let read_error = |source| Error::Read {
        what: "kernel",
        path: path.into(),
        source,
    };
    let (mut file, _) = open("kernel", path)?;
    let mut head = Vec::new();
    file.by_ref()
        .take(HEAD)
        .read_to_end(&mut head)
        .map_err(read_error)?;
    file.rewind().map_err(read_error)?;
    if head.starts_with(b"\x7fELF") {
        load_elf(memory, path, &mut file)
    } else if bzimage::is_bzimage(&head) {
        let mut image = Vec::new();
        file.take(BZIMAGE_MAX)
            .read_to_end(&mut image)
            .map_err(read_error)?;
        let kernel = bzimage::extract(&image).map_err(|source| Error::BzImage {
            path: path.into(),
            source,
        })?;
        load_elf(memory, path, &mut Cursor::new(kernel))
    } else {
        Err(Error::NotAKernel(path.into()))
    }
}

/// Loads the initial RAM disk at `path` as high as RAM below 4 GiB allows, above `kernel`.
pub fn load_initramfs(
    memory: &Memory,
    mib: u64,
    kernel: Kernel,
    path: &Path,
) -> Result<Range, Error> {
    let (mut file, length) = open("initramfs", path)?;
    let ram_end = (mib << 20).min(layout::LOW_RAM_END);
    let start = ram_end
        .checked_sub(length)
        .map(|start| start & !(PAGE - 1))
        .filter(|start| *start >= kernel.end)
        .ok_or_else(|| Error::NoRoom {
            path: path.into(),
            size: length,
        })?;
    memory
        .read_exact_volatile_from(GuestAddress(start), &mut file, length as usize)
        .map_err(|source| Error::Copy {
            path: path.into(),
            source,
        })?;
    Ok(Range { start, length })
}

fn open(what: &'static str, path: &Path) -> Result<(File, u64), Error> {
    let read_error = |source| Error::Read {
        what,
        path: path.into(),
        source,
    };
    // Looked at before it is opened: opening a pipe waits for its other end.
    let metadata = path.metadata().map_err(read_error)?;
    if !metadata.is_file() {
        return Err(Error::NotAFile {
            what,
            path: path.into(),
        });
    }
    Ok((File::open(path).map_err(read_error)?, metadata.len()))
}

fn load_elf<F>(memory: &Memory, path: &Path, image: &mut F) -> Result<Kernel, Error>
where
    F: Read + ReadVolatile + Seek,
{
    let high = GuestAddress(layout::HIGH_RAM_START);
    let loaded = Elf::load(memory, None, image, Some(high)).map_err(|source| Error::Load {
        path: path.into(),
        source,
    })?;
    match loaded.pvh_boot_cap {
        PvhBootCapability::PvhEntryPresent(entry) => Ok(Kernel {
            entry: entry.0,
            end: loaded.kernel_end,
        }),
        _ => Err(Error::NoPvh(path.into())),
    }
}

#[cfg(test)]
mod tests {
    use vmm_sys_util::tempdir::TempDir;
    use vmm_sys_util::tempfile::TempFile;

    use super::*;
    use crate::machine::memory;

    /// An ELF file with one segment of `memory_size` bytes at 16 MiB and, if asked for, the note
    /// with the PVH entry point.
    fn elf(memory_size: u64, pvh: bool) -> Vec<u8> {
        let mut file = vec![0; 0x200];
        file[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\0");
        file[24..32].copy_from_slice(&0x100_0000u64.to_le_bytes());
        file[32] = 64;
        file[54..57].copy_from_slice(&[56, 0, 2]);
        let header = |file: &mut Vec<u8>, at: usize, fields: [u64; 7]| {
            for (index, field) in fields.iter().enumerate() {
                file[at + index * 8..at + index * 8 + 8].copy_from_slice(&field.to_le_bytes());
            }
        };
        header(
            &mut file,
            64,
            [1, 0x100, 0, 0x100_0000, 0x10, memory_size, 0],
        );
        let note_size = if pvh { 20 } else { 0 };
        header(&mut file, 120, [4, 0x180, 0, 0, note_size, note_size, 0]);
        let note = [4u32, 4, 18, u32::from_le_bytes(*b"Xen\0"), 0x100_0abc];
        for (index, word) in note.iter().enumerate() {
            file[0x180 + index * 4..0x184 + index * 4].copy_from_slice(&word.to_le_bytes());
        }
        file
    }

    fn on_disk(content: &[u8]) -> TempFile {
        let file = TempFile::new().unwrap();
        std::fs::write(file.as_path(), content).unwrap();
        file
    }

    #[test]
    fn elf_and_initramfs_are_placed() {
        let memory = memory::create(64).unwrap();
        let kernel = load(&memory, on_disk(&elf(0x5000, true)).as_path()).unwrap();
        assert_eq!((kernel.entry, kernel.end), (0x100_0abc, 0x100_5000));
        let initramfs = on_disk(&[7; 5000]);
        let range = load_initramfs(&memory, 64, kernel, initramfs.as_path()).unwrap();
        assert_eq!((range.start, range.length), ((64 << 20) - 8192, 5000));
        let last: u8 = memory.read_obj(GuestAddress(range.end() - 1)).unwrap();
        assert_eq!(last, 7);
        let kernel = Kernel {
            end: range.start + 1,
            ..kernel
        };
        let error = load_initramfs(&memory, 64, kernel, initramfs.as_path()).unwrap_err();
        assert!(matches!(error, Error::NoRoom { size: 5000, .. }), "{error}");
    }

    #[test]
    fn what_is_no_kernel_is_refused_by_name() {
        let memory = memory::create(64).unwrap();
        let folder = TempDir::new().unwrap();
        let missing = folder.as_path().join("missing");
        let error = load(&memory, &missing).unwrap_err().to_string();
        assert!(
            error.contains("No such file") && error.contains("missing"),
            "{error}"
        );
        let error = load(&memory, folder.as_path()).unwrap_err().to_string();
        assert!(error.contains("not a regular file"), "{error}");

        let mut outside = elf(0x5000, true);
        outside[64 + 24..64 + 32].copy_from_slice(&u64::MAX.to_le_bytes());
        for (content, expected) in [
            (Vec::new(), "is not a kernel"),
            (b"#!/bin/sh\n".to_vec(), "is not a kernel"),
            (b"\x7fELF".to_vec(), "cannot load"),
            (elf(0x5000, true)[..0x108].to_vec(), "cannot load"),
            (elf(u64::MAX, true), "cannot load"),
            (outside, "cannot load"),
            (elf(0x5000, false), "CONFIG_PVH"),
        ] {
            let file = on_disk(&content);
            let error = load(&memory, file.as_path()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error:?} lacks {expected:?}");
            assert!(
                error.contains(file.as_path().to_str().unwrap()),
                "{error:?} lacks the path"
            );
        }
    }
}
