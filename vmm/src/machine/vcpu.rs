// SPDX-License-Identifier: Apache-2.0 OR MIT

//! A virtual CPU: its state at the kernel's PVH entry point, and its run loop.

use std::sync::Arc;

use kvm_bindings::{
    CpuId, KVM_INTERNAL_ERROR_DELIVERY_EV, KVM_INTERNAL_ERROR_EMULATION, KVM_MP_STATE_HALTED, Msrs,
    kvm_lapic_state, kvm_msr_entry, kvm_regs, kvm_segment,
};
use kvm_ioctls::{VcpuExit, VcpuFd};
use thiserror::Error;

use super::Machine;
use super::bus::{Bus, Outcome};
use super::events::Event;
use super::exits::{ExitCounts, ExitReason};
use super::layout;
use super::memory::Memory;
use super::run_control::{RunControl, Turn};

const CR0_PROTECTED: u64 = 1 << 0;
const CR0_EXTENSION_TYPE: u64 = 1 << 4;
/// RFLAGS has a bit that is always one.
const RFLAGS: u64 = 1 << 1;
const RFLAGS_INTERRUPTS: u64 = 1 << 9;
/// Offsets of two registers in a local APIC.
const APIC_IN_SERVICE: usize = 0x100;
const APIC_REQUESTED: usize = 0x200;

const MSR_MISC_ENABLE: u32 = 0x1a0;
const MISC_ENABLE_FAST_STRINGS: u64 = 1 << 0;
const MSR_MTRR_DEFAULT_TYPE: u32 = 0x2ff;
const MTRR_ENABLED: u64 = 1 << 11;
const MTRR_WRITE_BACK: u64 = 6;

/// How often a vCPU that cannot get on is run again as it is.
const STALLS_MAX: u8 = 16;

/// KVM refuses a vCPU or its state.
#[derive(Debug, Error)]
#[error("KVM refuses to {step} of vCPU {id}: {source}")]
pub struct Error {
    step: &'static str,
    id: u8,
    source: kvm_ioctls::Error,
}

/// A vCPU, owned by the thread that runs it.
pub struct Vcpu {
    id: u8,
    fd: VcpuFd,
    ports: Arc<Bus>,
    mmio: Arc<Bus>,
    stall: Stall,
    /// Of all vCPUs; this one counts its own.
    exits: Arc<[ExitCounts]>,
    /// The guest may write to its RAM as long as a vCPU runs.
    _memory: Memory,
}

impl Vcpu {
    /// Takes `fd` over as vCPU `id` of `machine`.
    pub fn new(id: u8, fd: VcpuFd, machine: &Machine) -> Self {
        Self {
            id,
            fd,
            ports: Arc::clone(&machine.ports),
            mmio: Arc::clone(&machine.mmio),
            stall: Stall::default(),
            exits: Arc::clone(&machine.exits),
            _memory: machine.memory.clone(),
        }
    }

    /// Sets up what every vCPU has after reset here.
    pub fn reset(&self, cpuid: &CpuId) -> Result<(), Error> {
        let id = self.id;
        let error = |step| move |source| Error { step, id, source };
        self.fd.set_cpuid2(cpuid).map_err(error("set the CPUID"))?;
        let msrs = [
            (MSR_MISC_ENABLE, MISC_ENABLE_FAST_STRINGS),
            (MSR_MTRR_DEFAULT_TYPE, MTRR_ENABLED | MTRR_WRITE_BACK),
        ];
        for (index, data) in msrs {
            let entry = kvm_msr_entry {
                index,
                data,
                ..Default::default()
            };
            let list = Msrs::from_entries(&[entry])
                .map_err(|_| error("list the MSRs")(kvm_ioctls::Error::new(libc::ENOMEM)))?;
            // Not every KVM lets MISC_ENABLE be written; the kernel does without.
            self.fd.set_msrs(&list).map_err(error("set the MSRs"))?;
        }
        Ok(())
    }

    /// Puts the vCPU at a PVH entry point: 32-bit protected mode, flat segments, no paging.
    pub fn enter_at(&self, entry: u64) -> Result<(), Error> {
        let id = self.id;
        let error = |step| move |source| Error { step, id, source };
        let mut sregs = self.fd.get_sregs().map_err(error("read the segments"))?;
        let data = segment(0x10, 0x3);
        sregs.cs = segment(0x8, 0xb);
        (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
        // A busy 32-bit TSS: not code or data (s), byte-granular.
        sregs.tr = kvm_segment {
            limit: 0x67,
            s: 0,
            g: 0,
            db: 0,
            ..segment(0x18, 0xb)
        };
        sregs.cr0 = CR0_PROTECTED | CR0_EXTENSION_TYPE;
        sregs.cr4 = 0;
        self.fd
            .set_sregs(&sregs)
            .map_err(error("set the segments"))?;
        let regs = kvm_bindings::kvm_regs {
            rip: entry,
            rbx: layout::START_INFO,
            rflags: RFLAGS,
            ..Default::default()
        };
        self.fd.set_regs(&regs).map_err(error("set the registers"))
    }

    /// Runs until the machine stops or `control` ends it, and returns why, or where that was.
    pub fn run(mut self, control: &RunControl) -> Event {
        let seat = control.seat();
        loop {
            match seat.turn() {
                Turn::Run => {}
                Turn::Resume => self.tell_of_pause(),
                Turn::End => return Event::Left(self.position()),
            }
            match self.run_once() {
                Ok(Outcome::Done) => {}
                Ok(Outcome::Stop(stop)) => return Event::Stop(stop),
                Err(event) => return event,
            }
        }
    }

    /// Where the guest is and which interrupts it has not taken: what there is to look at first when
    /// it hangs.
    fn position(&self) -> String {
        let (id, regs) = (self.id, self.fd.get_regs().unwrap_or_default());
        let level = self.fd.get_sregs().map_or(0, |sregs| sregs.cs.dpl);
        let halted = self
            .fd
            .get_mp_state()
            .is_ok_and(|state| state.mp_state == KVM_MP_STATE_HALTED);
        let taken = if regs.rflags & RFLAGS_INTERRUPTS != 0 {
            "on"
        } else {
            "off"
        };
        let apic = self.fd.get_lapic().unwrap_or_default();
        format!(
            "vCPU {id} was at {:#x}, privilege level {level}{}, interrupts {taken}, \
             in service {:x?}, requested {:x?}",
            regs.rip,
            if halted { ", halted" } else { "" },
            vectors(&apic, APIC_IN_SERVICE),
            vectors(&apic, APIC_REQUESTED),
        )
    }

    /// Has the guest's kernel know that it stood still, so that its watchdogs do not take the pause
    /// for a lockup.
    fn tell_of_pause(&self) {
        // Without kvmclock the guest cannot be told; then its watchdogs may complain.
        let _ = self.fd.kvmclock_ctrl();
    }

    fn run_once(&mut self) -> Result<Outcome, Event> {
        let exit = self.fd.run();
        if let Some(counts) = self.exits.get(usize::from(self.id)) {
            counts.count(reason(&exit));
        }
        let exit = match exit {
            Ok(exit) => exit,
            Err(error) if [libc::EINTR, libc::EAGAIN].contains(&error.errno()) => {
                return Ok(Outcome::Done);
            }
            Err(error) => {
                return Err(Event::HostFault(format!(
                    "vCPU {}: KVM_RUN: {error}",
                    self.id
                )));
            }
        };
        match exit {
            VcpuExit::IoIn(port, data) => {
                // String instructions move several units through one port in one exit; the unit is
                // what KVM_RUN says beside the data, which it keeps in a page of their own.
                let (port, data): (_, *mut [u8]) = (port, data);
                let unit = self.io_unit();
                // SAFETY: the data are those of the exit above, valid until the next KVM_RUN, which
                // needs `self` mutably; nothing else refers to them.
                for unit in unsafe { &mut *data }.chunks_mut(unit) {
                    self.ports.read(port.into(), unit);
                }
                Ok(Outcome::Done)
            }
            VcpuExit::IoOut(port, data) => {
                let (port, data): (_, *const [u8]) = (port, data);
                let unit = self.io_unit();
                // SAFETY: as for `IoIn`.
                for unit in unsafe { &*data }.chunks(unit) {
                    if let stop @ Outcome::Stop(_) = self.ports.write(port.into(), unit) {
                        return Ok(stop);
                    }
                }
                Ok(Outcome::Done)
            }
            VcpuExit::MmioRead(address, data) => {
                self.mmio.read(address, data);
                Ok(Outcome::Done)
            }
            VcpuExit::MmioWrite(address, data) => Ok(self.mmio.write(address, data)),
            VcpuExit::Intr | VcpuExit::IrqWindowOpen => Ok(Outcome::Done),
            VcpuExit::Shutdown => Err(Event::GuestFault(format!("vCPU {}: triple fault", self.id))),
            VcpuExit::FailEntry(reason, _) => Err(Event::GuestFault(format!(
                "vCPU {}: the CPU refuses to enter the guest (reason {reason:#x})",
                self.id
            ))),
            VcpuExit::InternalError => self.internal_error(),
            other => {
                let message = format!("vCPU {}: unexpected exit {other:?}", self.id);
                Err(Event::HostFault(message))
            }
        }
    }

    /// Bytes of one access of the port exit that was just taken.
    fn io_unit(&mut self) -> usize {
        // SAFETY: the exit was one for port access, so `io` is the union's member in use.
        let io = unsafe { self.fd.get_kvm_run().__bindgen_anon_1.io };
        usize::from(io.size).max(1)
    }

    fn internal_error(&mut self) -> Result<Outcome, Event> {
        let id = self.id;
        // SAFETY: the exit was an internal error, so `internal` is the union's member in use.
        let internal = unsafe { self.fd.get_kvm_run().__bindgen_anon_1.internal };
        let suberror = internal.suberror;
        let details = internal.data.get(..internal.ndata as usize).unwrap_or(&[]);
        let regs = self.fd.get_regs().unwrap_or_default();
        // KVM gives up on an access to a device in the middle of the delivery of an exception, but
        // it does not look at the bit that says whether one was being delivered (svm.c,
        // svm_check_emulate_instruction). QEMU's emulated SVM clears just that bit when the
        // delivery is over, so the next access may be taken for such a one. Nothing was lost; the
        // guest does the access again, and it works.
        if suberror == KVM_INTERNAL_ERROR_DELIVERY_EV && self.stall.may_go_on(regs) {
            return Ok(Outcome::Done);
        }
        let rip = regs.rip;
        Err(Event::GuestFault(
            if suberror == KVM_INTERNAL_ERROR_EMULATION {
                format!("vCPU {id}: KVM cannot emulate the instruction at {rip:#x}")
            } else {
                format!(
                    "vCPU {id}: KVM internal error {suberror} at {rip:#x}, details {details:x?}"
                )
            },
        ))
    }
}

/// The vectors whose bits are set in one of the local APIC's 256-bit registers, which are eight
/// words, 16 bytes apart (Intel SDM vol. 3, §12.4.1).
fn vectors(apic: &kvm_lapic_state, register: usize) -> Vec<u8> {
    let bit = |vector: u8| {
        let byte = usize::from(vector / 32) * 16 + usize::from(vector % 32 / 8);
        let byte = apic.regs.get(register + byte).copied().unwrap_or(0);
        byte.cast_unsigned() >> (vector % 8) & 1 != 0
    };
    (0..=u8::MAX).filter(|&vector| bit(vector)).collect()
}

/// Why the guest was left.
fn reason(exit: &Result<VcpuExit, kvm_ioctls::Error>) -> ExitReason {
    match exit {
        Ok(VcpuExit::IoIn(..)) => ExitReason::IoIn,
        Ok(VcpuExit::IoOut(..)) => ExitReason::IoOut,
        Ok(VcpuExit::MmioRead(..)) => ExitReason::MmioRead,
        Ok(VcpuExit::MmioWrite(..)) => ExitReason::MmioWrite,
        Ok(VcpuExit::Intr) => ExitReason::Signal,
        Err(error) if error.errno() == libc::EINTR => ExitReason::Signal,
        _ => ExitReason::Other,
    }
}

/// Tells a vCPU that gets on from one that is stuck: the latter has the same registers each time.
#[derive(Default)]
struct Stall {
    regs: kvm_regs,
    count: u8,
}

impl Stall {
    /// Whether a vCPU with these registers, which did not get on, is worth another try.
    fn may_go_on(&mut self, regs: kvm_regs) -> bool {
        if self.regs != regs {
            *self = Self { regs, count: 0 };
        }
        self.count += 1;
        self.count <= STALLS_MAX
    }
}

/// A flat 4 GiB 32-bit code or data segment.
fn segment(selector: u16, type_: u8) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_where_an_apic_has_them() {
        let mut apic = kvm_lapic_state::default();
        apic.regs[APIC_REQUESTED] = 1;
        apic.regs[APIC_REQUESTED + 0x10 + 1] = -128;
        apic.regs[APIC_REQUESTED + 0x70 + 3] = -128;
        assert_eq!(vectors(&apic, APIC_REQUESTED), [0, 47, 255]);
        assert_eq!(vectors(&apic, APIC_IN_SERVICE), [0; 0]);
    }

    #[test]
    fn a_vcpu_is_stuck_when_its_registers_stay_the_same() {
        let at = |rip| kvm_regs {
            rip,
            ..Default::default()
        };
        let mut stall = Stall::default();
        for round in 0..1000 {
            assert!(stall.may_go_on(at(round)));
        }
        for _ in 0..STALLS_MAX {
            assert!(stall.may_go_on(at(7)));
        }
        assert!(!stall.may_go_on(at(7)));
    }
}
