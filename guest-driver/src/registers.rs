// SPDX-License-Identifier: GPL-2.0

//! BAR 0: the device's registers.

use kernel::{
    device::{self, Bound},
    io::Io,
    pci,
    prelude::*,
};

use crate::{
    abi::{
        identity::{MAX_RINGS, MAX_RING_SIZE, REGISTER_BAR, REGISTER_BAR_SIZE},
        registers::{Register, CONTROL_RESET, CONTROL_RUN, MAGIC, RING_STATE_ON, VERSION},
    },
    ring::Addresses,
};

/// The mapped registers of one device.
///
/// No lock: each access is a single one of the width that the register has, and what must not be
/// interleaved is kept apart by who does it: setup and teardown by probe and remove, doorbells and
/// counters under the device's mutex, `STATUS_CAUSE` by the status interrupt alone.
///
/// May outlive the device; each access then fails with `ENODEV`.
pub(crate) struct Registers(pci::DevresBar<REGISTER_BAR_SIZE>);

/// What kind of evgen device this is.
pub(crate) struct Shape {
    /// Number of rings.
    pub(crate) rings: usize,
    /// Most descriptors that a ring can have.
    pub(crate) ring_size_max: u16,
}

/// What the device counts for one ring.
#[derive(Clone, Copy, Default)]
pub(crate) struct DeviceCounters {
    pub(crate) generated: u64,
    pub(crate) delivered: u64,
    pub(crate) dropped: u64,
}

impl Registers {
    /// Maps the registers.
    pub(crate) fn map(pdev: &pci::Device<Bound>) -> Result<Self> {
        let bar = pdev.iomap_region_sized(u32::from(REGISTER_BAR), c"evgen")?;
        Ok(Self(bar.into_devres()?))
    }

    /// The device, to name it in the log.
    pub(crate) fn device(&self) -> &device::Device {
        self.0.device()
    }

    /// Checks that this is a device that we know how to drive.
    pub(crate) fn identify(&self, pdev: &pci::Device<Bound>) -> Result<Shape> {
        let magic = self.read32(Register::Magic, 0)?;
        if magic != MAGIC {
            dev_err!(
                pdev,
                "MAGIC is {magic:#010x}, not {MAGIC:#010x}: not an evgen device\n"
            );
            return Err(ENODEV);
        }
        let version = self.read32(Register::Version, 0)?;
        if version != VERSION {
            dev_err!(
                pdev,
                "VERSION is {version}, this driver knows {VERSION} only\n"
            );
            return Err(ENODEV);
        }
        let rings = self.read32(Register::Rings, 0)?;
        if rings == 0 || rings as usize > MAX_RINGS {
            dev_err!(pdev, "RINGS is {rings}, not 1 to {MAX_RINGS}\n");
            return Err(ENODEV);
        }
        let size = self.read32(Register::RingSizeMax, 0)?;
        if !size.is_power_of_two() || size < 2 || size > u32::from(MAX_RING_SIZE) {
            dev_err!(
                pdev,
                "RING_SIZE_MAX is {size}, not a power of two from 2 to {MAX_RING_SIZE}\n"
            );
            return Err(ENODEV);
        }
        Ok(Shape {
            rings: rings as usize,
            ring_size_max: size as u16,
        })
    }

    /// Resets the device: it forgets its rings, writes no memory and raises no interrupt.
    pub(crate) fn reset(&self) -> Result {
        self.write32(Register::Control, 0, CONTROL_RESET)?;
        // Writes are posted; a read that has come back proves that the reset was done.
        self.read32(Register::Control, 0).map(|_| ())
    }

    /// Lets the device write events to the rings that are on.
    pub(crate) fn run(&self) -> Result {
        self.write32(Register::Control, 0, CONTROL_RUN)
    }

    /// Turns ring `ring` on.
    pub(crate) fn turn_on(&self, ring: usize, size: u16, at: &Addresses) -> Result {
        self.write32(Register::RingSize, ring, u32::from(size))?;
        self.write64(Register::RingDescriptors, ring, at.descriptors)?;
        self.write64(Register::RingAvailable, ring, at.available)?;
        self.write64(Register::RingUsed, ring, at.used)?;
        self.write32(Register::RingEnable, ring, 1)?;
        match self.read32(Register::RingState, ring)? {
            RING_STATE_ON => Ok(()),
            _ => Err(EIO),
        }
    }

    /// Turns ring `ring` off: what is made for it from now on counts as dropped.
    pub(crate) fn turn_off(&self, ring: usize) -> Result {
        self.write32(Register::RingEnable, ring, 0)
    }

    /// Makes the device make an event for ring `ring`.
    pub(crate) fn ring_doorbell(&self, ring: usize) -> Result {
        self.write32(Register::Doorbell, ring, 1)
    }

    /// Reads which causes a status interrupt has, and clears those.
    pub(crate) fn take_status(&self) -> Result<u32> {
        let causes = self.read32(Register::StatusCause, 0)?;
        self.write32(Register::StatusCause, 0, causes)?;
        Ok(causes)
    }

    /// What the device counts for ring `ring`.
    pub(crate) fn counters(&self, ring: usize) -> Result<DeviceCounters> {
        Ok(DeviceCounters {
            generated: self.read64(Register::RingGenerated, ring)?,
            delivered: self.read64(Register::RingDelivered, ring)?,
            dropped: self.read64(Register::RingDropped, ring)?,
        })
    }

    fn read32(&self, register: Register, ring: usize) -> Result<u32> {
        let bar = self.0.try_access().ok_or(ENODEV)?;
        bar.try_read32(register.offset(ring))
    }

    fn read64(&self, register: Register, ring: usize) -> Result<u64> {
        let bar = self.0.try_access().ok_or(ENODEV)?;
        bar.try_read64(register.offset(ring))
    }

    fn write32(&self, register: Register, ring: usize, value: u32) -> Result {
        let bar = self.0.try_access().ok_or(ENODEV)?;
        bar.try_write32(value, register.offset(ring))
    }

    fn write64(&self, register: Register, ring: usize, value: u64) -> Result {
        let bar = self.0.try_access().ok_or(ENODEV)?;
        bar.try_write64(value, register.offset(ring))
    }
}
