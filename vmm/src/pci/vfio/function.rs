// SPDX-License-Identifier: Apache-2.0 OR MIT

//! An assigned device as a function on the PCI bus.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use lockstorm_device_model::ConfigOutcome;
use tracing::warn;
use vfio_bindings::bindings::vfio::{
    VFIO_PCI_CONFIG_REGION_INDEX as CONFIG_REGION, VFIO_PCI_MSIX_IRQ_INDEX as MSIX_IRQ,
};
use vfio_ioctls::VfioDevice;
use vmm_sys_util::eventfd::EventFd;

use super::config_space::{BarPart, ConfigSpace, MsixCapability};
use super::host_device::PciAddress;
use super::msix::{Msix, Source};
use crate::machine::bus::Outcome;
use crate::pci::header::{COMMAND, COMMAND_BUS_MASTER, COMMAND_MEMORY};
use crate::pci::{MemoryBar, PciFunction};
use crate::rate_limit::Occurrences;

const COMMAND_NO_INTX: u16 = 1 << 10;
const MSIX_ENABLE: u16 = 1 << 15;

/// A part of a BAR that the guest reaches without us. Unmapped when it goes.
pub(super) struct Mapping {
    /// Which BAR.
    bar: u8,
    /// Where in the BAR.
    offset: u64,
    /// In bytes.
    length: u64,
    /// Where it is in our own address space.
    address: u64,
    /// KVM's number for it.
    slot: u32,
}

impl Mapping {
    /// Maps `length` bytes of the device's BAR `bar`, for KVM's memory slot `slot`.
    pub fn new(
        device: &VfioDevice,
        bar: u8,
        range: std::ops::Range<u64>,
        slot: u32,
    ) -> Result<Self, io::Error> {
        let length = range.end - range.start;
        let place = device.get_region_offset(bar.into()) + range.start;
        // SAFETY: a new mapping, at an address of the kernel's choice, takes no memory from anybody.
        // Nothing in this program accesses it.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length as usize,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                device.as_raw_fd(),
                place as i64,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            bar,
            offset: range.start,
            length,
            address: address as u64,
            slot,
        })
    }

    /// Puts it into the guest's memory, with the BAR at `bar_address`, or takes it out.
    fn show(&self, vm: &VmFd, bar_address: Option<u64>) -> Result<(), kvm_ioctls::Error> {
        let region = kvm_userspace_memory_region {
            slot: self.slot,
            flags: 0,
            guest_phys_addr: bar_address.unwrap_or(0) + self.offset,
            memory_size: if bar_address.is_some() {
                self.length
            } else {
                0
            },
            userspace_addr: self.address,
        };
        // SAFETY: the range is a mapping of this length that nothing in this program accesses, and
        // it stays until it has been taken out: `Drop` of the function that has it does that first.
        unsafe { vm.set_user_memory_region(region) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nobody uses it any more.
        unsafe { libc::munmap(self.address as *mut libc::c_void, self.length as usize) };
    }
}

/// What the lock covers.
struct State {
    config: ConfigSpace,
    msix: Msix,
}

/// What a function is made of.
pub(super) struct Parts {
    pub address: PciAddress,
    pub device: VfioDevice,
    pub vm: Arc<VmFd>,
    pub capability: MsixCapability,
    pub config: ConfigSpace,
    pub msix: Msix,
    pub mappings: Vec<Mapping>,
}

/// An assigned device in its machine.
///
/// The lock covers the guest's configuration space and MSI-X, and with them the order in which what
/// follows from a write reaches the device. A vCPU takes it for an access of the guest that the
/// device does not answer by itself; the end of the run takes it once. Inside it the lock of the
/// interrupt routes is taken; no other.
pub struct AssignedFunction {
    address: PciAddress,
    device: VfioDevice,
    vm: Arc<VmFd>,
    capability: MsixCapability,
    state: Mutex<State>,
    mappings: Vec<Mapping>,
    unmapped: Occurrences,
}

/// Who answers an access to a BAR that came to us.
enum Target {
    Device,
    Table(u64),
    Pending(u64),
    /// It goes across an edge between them.
    Nobody,
}

impl AssignedFunction {
    /// The function, with its device in its state at power-on.
    pub(super) fn new(parts: Parts) -> Self {
        let function = Self {
            address: parts.address,
            device: parts.device,
            vm: parts.vm,
            capability: parts.capability,
            state: Mutex::new(State {
                config: parts.config,
                msix: parts.msix,
            }),
            mappings: parts.mappings,
            unmapped: Occurrences::new(),
        };
        function.reset(&mut function.lock());
        function
    }

    /// Gives the device back: it neither interrupts nor accesses memory any more, and has forgotten
    /// what the guest did to it. If the process is killed instead, the host's kernel does the same.
    pub fn release(&self) {
        self.reset(&mut self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reset(&self, state: &mut State) {
        state.msix.reset(&self.irqs());
        state.config.reset();
        // Also where the device knows no reset.
        self.set_command(false);
        self.device.reset();
        self.set_command(false);
    }

    /// The device always decodes its memory, so that what KVM maps is always there.
    fn set_command(&self, bus_master: bool) {
        let bus_master = if bus_master { COMMAND_BUS_MASTER } else { 0 };
        let command = COMMAND_MEMORY | COMMAND_NO_INTX | bus_master;
        self.device
            .region_write(CONFIG_REGION, &command.to_le_bytes(), COMMAND as u64);
    }

    fn irqs(&self) -> DeviceIrqs<'_> {
        DeviceIrqs {
            device: &self.device,
            capability: self.capability,
        }
    }

    fn target(&self, state: &State, bar: u8, offset: u64, length: usize) -> Target {
        let MsixCapability { table, pending, .. } = self.capability;
        let access = offset..offset.saturating_add(length as u64);
        let part = |part: BarPart, size| {
            let range = part.offset..part.offset.saturating_add(size);
            let touches = part.bar == bar && access.start < range.end && range.start < access.end;
            let inside = range.start <= access.start && access.end <= range.end;
            (touches, inside)
        };
        match (
            part(table, state.msix.table_size()),
            part(pending, state.msix.pending_size()),
        ) {
            ((false, _), (false, _)) => Target::Device,
            ((_, true), (false, _)) => Target::Table(offset - table.offset),
            ((false, _), (_, true)) => Target::Pending(offset - pending.offset),
            _ => Target::Nobody,
        }
    }
}

impl Drop for AssignedFunction {
    fn drop(&mut self) {
        for mapping in &self.mappings {
            // It may not be there, and then there is nothing to be done.
            let _ = mapping.show(&self.vm, None);
        }
    }
}

impl PciFunction for AssignedFunction {
    fn config_read(&self, register: u16, data: &mut [u8]) {
        let state = self.lock();
        state.config.read(register, data, |data| {
            self.device
                .region_read(CONFIG_REGION, data, register.into());
        });
    }

    fn config_write(&self, register: u16, data: &[u8]) -> ConfigOutcome {
        let mut state = self.lock();
        let State { config, msix } = &mut *state;
        let before = (config.bars(), config.bus_master(), config.msix_control());
        let written = config.write(register, data);
        for (register, bytes) in written.forward {
            self.device
                .region_write(CONFIG_REGION, &bytes, register.into());
        }
        if written.reset {
            self.reset(&mut state);
            return ConfigOutcome::BarsChanged;
        }
        let bus_master = config.bus_master();
        if bus_master != before.1 {
            self.set_command(bus_master);
        }
        let (enabled, function_masked) = config.msix_control();
        if (enabled, function_masked) != before.2 {
            msix.set_control(enabled, function_masked, &self.irqs());
        }
        match config.bars() == before.0 {
            true => ConfigOutcome::Done,
            false => ConfigOutcome::BarsChanged,
        }
    }

    fn bars(&self) -> Vec<MemoryBar> {
        self.lock().config.bars()
    }

    fn place_bar(&self, index: u8, address: u64) {
        self.lock().config.place_bar(index, address);
    }

    fn decoding(&self, index: u8, address: Option<u64>) {
        for mapping in self.mappings.iter().filter(|mapping| mapping.bar == index) {
            // What could not be put in cannot be taken out, and needs not be.
            if let Err(error) = mapping.show(&self.vm, address)
                && let Some(address) = address
                && let Some(so_far) = self.unmapped.add()
            {
                warn!(
                    "PCI device {}: KVM does not map BAR {index} at {address:#x}, so each access \
                     comes to lockstorm ({so_far} such refusals so far): {error}",
                    self.address
                );
            }
        }
    }

    fn bar_read(&self, index: u8, offset: u64, data: &mut [u8]) {
        let state = self.lock();
        match self.target(&state, index, offset, data.len()) {
            Target::Table(offset) => state.msix.read_table(offset, data),
            Target::Pending(offset) => state.msix.read_pending(offset, data),
            Target::Device => {
                // What a device says that does not answer.
                data.fill(0xff);
                self.device.region_read(index.into(), data, offset);
            }
            Target::Nobody => data.fill(0xff),
        }
    }

    fn bar_write(&self, index: u8, offset: u64, data: &[u8]) -> Outcome {
        let mut state = self.lock();
        match self.target(&state, index, offset, data.len()) {
            Target::Table(offset) => state.msix.write_table(offset, data, &self.irqs()),
            Target::Device => self.device.region_write(index.into(), data, offset),
            Target::Pending(_) | Target::Nobody => {}
        }
        Outcome::Done
    }
}

/// The device's interrupts.
struct DeviceIrqs<'a> {
    device: &'a VfioDevice,
    capability: MsixCapability,
}

impl DeviceIrqs<'_> {
    fn try_enable(&self, triggers: &[EventFd]) -> Result<(), String> {
        self.device
            .enable_irq(MSIX_IRQ, triggers.iter().collect())
            .map_err(|error| format!("{error}: {}", io::Error::last_os_error()))?;
        // The kernel has too few vectors left and says so, but not as an error.
        let mut control = [0; 2];
        self.device
            .region_read(CONFIG_REGION, &mut control, self.capability.control());
        match u16::from_le_bytes(control) & MSIX_ENABLE {
            0 => Err("the host has no more vectors".to_owned()),
            _ => Ok(()),
        }
    }
}

impl Source for DeviceIrqs<'_> {
    fn enable(&self, triggers: &[EventFd]) -> Result<(), String> {
        self.try_enable(triggers).or_else(|_| {
            // Kernels before 6.5 add none to those that there are.
            self.disable()?;
            self.try_enable(triggers)
        })
    }

    fn disable(&self) -> Result<(), String> {
        self.device
            .disable_irq(MSIX_IRQ)
            .map_err(|error| format!("{error}: {}", io::Error::last_os_error()))
    }
}
