// SPDX-License-Identifier: GPL-2.0

//! Binding to a device and letting go of it.

use kernel::{
    device::Core,
    dma::{Device as _, DmaMask},
    miscdevice::{MiscDeviceOptions, MiscDeviceRegistration},
    pci,
    prelude::*,
    sync::Arc,
};

use crate::{
    abi::identity::{DEVICE_ID, VENDOR_ID},
    device::Device,
    device_list::Listed,
    interrupts::Interrupts,
    list_bound,
    registers::Registers,
};

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
    // Dropped in this order: the device falls silent; its name is free; the list forgets it; the
    // handlers and the memory that it wrote to are freed.
    _silence: ResetOnDrop,
    #[pin]
    _file: MiscDeviceRegistration<Device>,
    _listed: Listed,
    _interrupts: Interrupts<'bound>,
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
            registers.reset()?;
            pdev.set_master();

            let device = Device::new(registers, shape.rings, list_bound())?;
            let silence = ResetOnDrop(device.clone());
            let interrupts = Interrupts::new(pdev, &device, &shape)?;
            let listed = Listed::new(device.clone())
                .inspect_err(|_| dev_err!(pdev, "there are too many evgen devices\n"))?;
            let name = listed.name();

            Ok(try_pin_init!(Driven {
                device,
                _silence: silence,
                _interrupts: interrupts,
                _listed: listed,
                _file <- MiscDeviceRegistration::register(MiscDeviceOptions { name }),
                _: {
                    // Last: events come from here on, and whatever fails before may free the rings
                    // without asking the device.
                    device.registers().run()?;
                    dev_info!(
                        pdev,
                        "{}: {} rings, at most {} events listed\n",
                        name,
                        shape.rings,
                        list_bound()
                    );
                },
            }))
        })
    }

    fn unbind<'bound>(_pdev: &'bound pci::Device<Core<'_>>, this: Pin<&Self::Data<'bound>>) {
        this.device.remove();
    }
}

/// Resets the device when dropped: after that it writes no memory and raises no interrupt.
struct ResetOnDrop(Arc<Device>);

impl Drop for ResetOnDrop {
    fn drop(&mut self) {
        // If this fails, the registers cannot be reached, and so neither can our memory.
        let _ = self.0.registers().reset();
    }
}
