// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Doorbells that the guest rings without an exit to this program: one ioeventfd each.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use kvm_bindings::{KVMIO, kvm_ioeventfd, kvm_ioeventfd_flag_nr_deassign};
use kvm_ioctls::VmFd;
use lockstorm_device_model::abi::registers::Register;
use tracing::warn;
use vmm_sys_util::errno;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::ioctl::ioctl_with_ref;
use vmm_sys_util::ioctl_iow_nr;

use crate::rate_limit::Occurrences;

/// Width of a doorbell in bytes. Other widths mean nothing to the device.
const WIDTH: u32 = 4;

ioctl_iow_nr!(KVM_IOEVENTFD, KVMIO, 0x79, kvm_ioeventfd);

/// Counting of writes to guest memory addresses, as KVM does it.
pub trait WriteCounter: Send + Sync {
    /// Counts 4-byte writes to `address` in `count`, and lets nobody else see them.
    fn attach(&self, address: u64, count: &EventFd) -> Result<(), errno::Error>;
    /// Ends that; the writes before have been counted when this returns.
    fn detach(&self, address: u64, count: &EventFd) -> Result<(), errno::Error>;
}

impl WriteCounter for VmFd {
    fn attach(&self, address: u64, count: &EventFd) -> Result<(), errno::Error> {
        ioeventfd(self, address, count, 0)
    }

    fn detach(&self, address: u64, count: &EventFd) -> Result<(), errno::Error> {
        ioeventfd(self, address, count, 1 << kvm_ioeventfd_flag_nr_deassign)
    }
}

/// `VmFd::register_ioevent` ties the width to a value to match. A doorbell has a width, and any
/// value will do.
fn ioeventfd(vm: &VmFd, addr: u64, count: &EventFd, flags: u32) -> Result<(), errno::Error> {
    let request = kvm_ioeventfd {
        addr,
        len: WIDTH,
        fd: count.as_raw_fd(),
        flags,
        ..kvm_ioeventfd::default()
    };
    // SAFETY: `vm` is a VM's file descriptor, for which this request takes a `kvm_ioeventfd`; the
    // kernel only reads it, and only during the call.
    match unsafe { ioctl_with_ref(vm, KVM_IOEVENTFD(), &request) } {
        0 => Ok(()),
        _ => Err(errno::Error::last()),
    }
}

/// The doorbells of one device.
pub(super) struct Doorbells {
    counter: Arc<dyn WriteCounter>,
    counts: Vec<EventFd>,
    /// Per doorbell, the address that KVM watches.
    attached: Vec<Option<u64>>,
    not_attached: Occurrences,
    not_detached: Occurrences,
}

impl Doorbells {
    /// One for each of `rings` rings, not attached yet.
    pub(super) fn new(counter: Arc<dyn WriteCounter>, rings: u8) -> io::Result<Self> {
        let counts = (0..rings)
            .map(|_| EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC))
            .collect::<io::Result<Vec<_>>>()?;
        Ok(Self {
            counter,
            attached: vec![None; counts.len()],
            counts,
            not_attached: Occurrences::default(),
            not_detached: Occurrences::default(),
        })
    }

    /// The eventfds, readable while writes wait to be [taken](Self::take).
    pub(super) fn counts(&self) -> &[EventFd] {
        &self.counts
    }

    /// Follows the register BAR to `address`, or stops watching.
    pub(super) fn follow(&mut self, address: Option<u64>) {
        for (ring, (count, attached)) in self.counts.iter().zip(&mut self.attached).enumerate() {
            if let Some(old) = attached.take()
                && let Err(error) = self.counter.detach(old, count)
                && let Some(so_far) = self.not_detached.add()
            {
                warn!(
                    "KVM goes on watching the doorbell at {old:#x}, {so_far} such so far: {error}"
                );
            }
            let Some(bar) = address else { continue };
            let doorbell = bar + Register::Doorbell.offset(ring) as u64;
            match self.counter.attach(doorbell, count) {
                Ok(()) => *attached = Some(doorbell),
                // Then a write there is an exit like any other, which is slower but as good.
                Err(error) => {
                    if let Some(so_far) = self.not_attached.add() {
                        warn!(
                            "KVM does not watch the doorbell at {doorbell:#x}, \
                             {so_far} such so far: {error}"
                        );
                    }
                }
            }
        }
    }

    /// Takes the writes to `ring`'s doorbell since the last time.
    pub(super) fn take(&self, ring: usize) -> u64 {
        // The only error there can be is that there were none.
        self.counts
            .get(ring)
            .map_or(0, |count| count.read().unwrap_or(0))
    }
}
