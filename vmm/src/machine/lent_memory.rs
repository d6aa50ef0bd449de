// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Survives guest memory that goes away while it is used.
//!
//! Memory that another process lends stays that process's: it may truncate the file behind it, and
//! then an access is a SIGBUS. Seals would forbid it that, but not every VMM makes memory that can
//! be sealed. So the signal is handled: the whole region becomes zeros of our own, which nobody
//! else sees, and the access goes on there. To a device that is memory like any other: it believes
//! nothing that it reads.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use libc::{c_int, c_void, siginfo_t};
use tracing::warn;
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};
use vmm_sys_util::errno;
use vmm_sys_util::signal::register_signal_handler;

use super::memory::Memory;
use crate::rate_limit::Occurrences;

thread_local! {
    /// What this thread may be accessing just now.
    static LENT: Cell<*const Memory> = const { Cell::new(std::ptr::null()) };
}

/// Regions that have gone away.
static GONE: AtomicU64 = AtomicU64::new(0);
static TOLD: Occurrences = Occurrences::new();

/// Has the whole program survive memory that goes away within [`lend`].
pub fn survive_loss() -> Result<(), errno::Error> {
    register_signal_handler(libc::SIGBUS, on_sigbus)
}

/// Calls `action`, which may access `memory`.
pub fn lend<T>(memory: &Memory, action: impl FnOnce() -> T) -> T {
    struct Restore(*const Memory);
    impl Drop for Restore {
        fn drop(&mut self) {
            LENT.set(self.0);
        }
    }
    let gone = GONE.load(Ordering::Relaxed);
    let restore = Restore(LENT.replace(memory));
    let result = action();
    drop(restore);
    if GONE.load(Ordering::Relaxed) != gone
        && let Some(so_far) = TOLD.add()
    {
        warn!("memory that a device used has gone away and is zeros now, {so_far} such so far");
    }
    result
}

extern "C" fn on_sigbus(signal: c_int, info: *mut siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel hands the handler of a fault a siginfo with an address.
    let address = unsafe { (*info).si_addr() } as usize;
    if !replace(address) {
        // SAFETY: the call takes no memory. The access is tried again, and then ends the program.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Replaces the lent region that `address` is in; false if there is none.
fn replace(address: usize) -> bool {
    let lent = LENT.get();
    // SAFETY: `lend` borrows what it points to until it sets it back, and this thread is inside: the
    // fault is this thread's own. What is read here is not what is being accessed, but where it is.
    let Some(memory) = (unsafe { lent.as_ref() }) else {
        return false;
    };
    let region = memory.iter().find(|region| {
        let start = region.as_ptr() as usize;
        (start..start + region.len() as usize).contains(&address)
    });
    let Some(region) = region else {
        return false;
    };
    // SAFETY: the range is a mapping of vm-memory's, which Rust code reaches only through volatile
    // accesses; whatever they find there is sound. It stays mapped until vm-memory unmaps it.
    let new = unsafe {
        libc::mmap(
            region.as_ptr().cast(),
            region.len() as usize,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED,
            -1,
            0,
        )
    };
    GONE.fetch_add(1, Ordering::Relaxed);
    new != libc::MAP_FAILED
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use rustix::fs::{MemfdFlags, memfd_create};
    use vm_memory::{Bytes, FileOffset, GuestAddress};

    use super::*;

    #[test]
    fn a_truncated_region_reads_as_zeros_and_the_others_stay() {
        survive_loss().unwrap();
        let files: Vec<_> = (0..2)
            .map(|_| {
                let file = File::from(memfd_create("guest", MemfdFlags::CLOEXEC).unwrap());
                file.set_len(0x4000).unwrap();
                file
            })
            .collect();
        let ranges = files.iter().zip([0, 0x4000]).map(|(file, start)| {
            let offset = FileOffset::new(file.try_clone().unwrap(), 0);
            (GuestAddress(start), 0x4000, Some(offset))
        });
        let memory = Memory::from_ranges_with_files(ranges).unwrap();
        memory.write_obj(1_u64, GuestAddress(0x1000)).unwrap();
        memory.write_obj(2_u64, GuestAddress(0x5000)).unwrap();
        files[0].set_len(0x1000).unwrap();
        let read = |address| memory.read_obj::<u64>(GuestAddress(address)).unwrap();
        lend(&memory, || {
            assert_eq!(lend(&memory, || read(0x1000)), 0);
            memory.write_obj(3_u64, GuestAddress(0x2000)).unwrap();
            assert_eq!((read(0x2000), read(0x5000)), (3, 2));
        });
        // What was ours is not the other's.
        files[0].set_len(0x4000).unwrap();
        assert_eq!(read(0x2000), 3);
    }
}
