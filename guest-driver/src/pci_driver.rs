// SPDX-License-Identifier: GPL-2.0

//! Binding to a device and letting go of it.

use kernel::{
    device::{Bound, Core},
    dma::{Device as _, DmaMask},
    io::Io,
    miscdevice::{MiscDeviceOptions, MiscDeviceRegistration},
    pci,
    prelude::*,
    sync::Arc,
    time::hrtimer::ArcHrTimerHandle,
};

use crate::{
    abi::identity::{DEVICE_ID, VENDOR_ID},
    debugfs,
    deferred::DeferredEnd,
    device::Device,
    device_list::Listed,
    file::OpenFile,
    interrupts::Interrupts,
    kernel_additions::pci::{is_disconnected, is_translated},
    list_bound, quarantine,
    refill::{Refill, RefillEnd},
    registers::Registers,
    reset::Reset,
    ring_size,
    rings::Rings,
    watchdog::Watchdog,
};

/// PCI 3.0 §6.2.2: the command register of configuration space, and its bus master bit.
const PCI_COMMAND: usize = 0x04;
const PCI_COMMAND_MASTER: u16 = 1 << 2;

/// The driver of all evgen devices.
pub(crate) struct EvgenDriver;

/// `pci::Vendor` can be made from its own constants only, and this vendor is not among them.
// SAFETY: It is a transparent `u16`, any of which is valid.
const VENDOR: pci::Vendor = unsafe { core::mem::transmute::<u16, pci::Vendor>(VENDOR_ID) };

kernel::pci_device_table!(
    PCI_TABLE,
    <EvgenDriver as pci::Driver>::IdInfo,
    [(pci::DeviceId::from_id(VENDOR, DEVICE_ID as u32), ())]
);

/// A device that we drive: all that ends when it goes.
#[pin_data]
pub(crate) struct Driven<'bound> {
    // Dropped in this order: nobody rings its doorbells any more; nobody sets it up; it falls silent;
    // its name is free; debugfs and the list forget it; its handlers are freed, and with the last of
    // them the memory that it wrote to; the work that they queued ends. The handlers may run until
    // then, but none of them lets the device do anything.
    _deferred: DeferredEnd,
    _watchdog: ArcHrTimerHandle<Watchdog>,
    _silence: SilenceOnDrop<'bound>,
    #[pin]
    _file: MiscDeviceRegistration<OpenFile>,
    _debugfs: debugfs::Files,
    _listed: Listed,
    _interrupts: Interrupts<'bound>,
    _refill: RefillEnd,
    device: Arc<Device>,
}

impl pci::Driver for EvgenDriver {
    type IdInfo = ();
    type Data<'bound> = Driven<'bound>;
    const ID_TABLE: pci::IdTable<Self::IdInfo> = &PCI_TABLE;

    fn probe<'bound>(
        pdev: &'bound pci::Device<Core<'_>>,
        _info: Option<&'bound Self::IdInfo>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        pin_init::pin_init_scope(move || {
            pdev.enable_device_mem()?;
            // SAFETY: Nothing was allocated or mapped for DMA yet.
            unsafe { pdev.dma_set_mask_and_coherent(DmaMask::new::<64>())? };

            let registers = Registers::map(pdev)?;
            let shape = registers.identify(pdev)?;
            Reset::new(shape.rings)
                .finish(&registers)
                .inspect_err(|error| dev_err!(pdev, "the device takes no reset: {error:?}\n"))?;
            quarantine::release(pdev.as_ref().name());
            pdev.set_master();

            let device = Device::new(registers, shape.rings, list_bound())?;
            let refill = Refill::new(device.clone())?;
            let rings = Rings::new(
                pdev.as_ref(),
                device.clone(),
                refill.clone(),
                shape.ring_size_max.min(ring_size()),
            )?;
            let watchdog = Watchdog::new(rings.clone())?;
            let interrupts = Interrupts::new(pdev, &rings)?;
            let listed = Listed::new(device.clone())
                .inspect_err(|_| dev_err!(pdev, "there are too many evgen devices\n"))?;
            let name = listed.name();

            // What fails after a field was made drops it, and the later ones before the earlier.
            Ok(try_pin_init!(Driven {
                device,
                _refill: RefillEnd(refill),
                _interrupts: interrupts,
                _listed: listed,
                _debugfs: debugfs::Files::new(name, &rings)?,
                _deferred: DeferredEnd(device.clone()),
                _file <- MiscDeviceRegistration::register(MiscDeviceOptions { name }),
                _silence: SilenceOnDrop { pdev, rings: rings.clone() },
                _: {
                    // Events come from here on.
                    bring_up(&rings).inspect_err(|error| {
                        dev_err!(pdev, "the device cannot be set up: {error:?}\n");
                        // Somebody may have opened the file by now, and would wait for ever.
                        rings.device().give_up();
                    })?;
                    dev_info!(
                        pdev,
                        "{}: {} rings, at most {} events listed\n",
                        name,
                        shape.rings,
                        list_bound()
                    );
                },
                _watchdog: watchdog.start(),
            }))
        })
    }

    fn unbind<'bound>(_pdev: &'bound pci::Device<Core<'_>>, this: Pin<&Self::Data<'bound>>) {
        this.device.give_up();
    }
}

/// How often a device that was reset is set up until it is given up.
const ATTEMPTS: usize = 3;

/// Sets up a device that was reset. One that resets itself or gets busy meanwhile is reset again, and
/// set up from the beginning.
fn bring_up(rings: &Rings) -> Result {
    let device = rings.device();
    let mut result = rings.bring_up();
    for _ in 1..ATTEMPTS {
        if result.is_ok() {
            break;
        }
        result = Reset::new(device.rings())
            .finish(device.registers())
            .and_then(|()| rings.bring_up());
    }
    result
}

/// Silences the device when dropped: after that it writes no memory that is not its own.
struct SilenceOnDrop<'bound> {
    pdev: &'bound pci::Device<Bound>,
    rings: Arc<Rings>,
}

impl Drop for SilenceOnDrop<'_> {
    fn drop(&mut self) {
        if is_disconnected(self.pdev) || self.silence().is_ok() || is_translated(self.pdev) {
            return;
        }
        dev_warn!(
            self.pdev,
            "the device cannot be silenced; the memory of its rings is kept until it is back\n"
        );
        quarantine::keep(self.rings.clone());
    }
}

impl SilenceOnDrop<'_> {
    /// Resets the device, or forbids it to be bus master. Waits for it for up to a second, but not if
    /// it is gone from the bus, for whoever removes devices then holds up all others of the bus.
    fn silence(&self) -> Result {
        let device = self.rings.device();
        if device.registers().health().is_gone() && !quarantine::is_ending() {
            return Err(EIO);
        }
        Reset::new(device.rings())
            .finish(device.registers())
            .or_else(|_| stop_bus_master(self.pdev))
    }
}

/// Forbids the device to write memory, if it can be reached at all.
fn stop_bus_master(pdev: &pci::Device<Bound>) -> Result {
    let config = pdev.config_space();
    let command = config.try_read16(PCI_COMMAND)?;
    config.try_write16(command & !PCI_COMMAND_MASTER, PCI_COMMAND)?;
    // All ones is what all of a device reads as that is gone.
    match config.try_read16(PCI_COMMAND)? & PCI_COMMAND_MASTER {
        0 => Ok(()),
        _ => Err(EIO),
    }
}
