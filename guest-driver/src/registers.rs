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
        registers::{
            Register, CONTROL_RESET, CONTROL_RUN, FAULTS, HEALTH_BUSY, HEALTH_HEARTBEAT_SHIFT,
            HEALTH_RUN, MAGIC, RING_FEATURE_EVENT_INDEX, RING_STATE_ERROR, RING_STATE_OFF,
            RING_STATE_ON, VERSION,
        },
    },
    ring::Addresses,
};

/// The mapped registers of one device.
///
/// No lock: each access is a single one of the width that the register has, and what must not be
/// interleaved is kept apart by who does it. Setting up and resetting belong to probe, then to the
/// watchdog, then, when that has ended, to removal; only when rings interrupt is for programs too, and
/// has a lock, `Device::gathering`. The rest can be done by anybody at any time: each is a single read
/// or an order that stands for itself.
///
/// May outlive the device; each access then fails with `ENODEV`. A device that does not answer for a
/// while shows in what is read: all ones. Whoever sets the device up reads back what it wrote,
/// for a device can also take no writes for a while.
pub(crate) struct Registers(pci::DevresBar<REGISTER_BAR_SIZE>);

/// What kind of evgen device this is.
pub(crate) struct Shape {
    /// Number of rings.
    pub(crate) rings: usize,
    /// Most descriptors that a ring can have.
    pub(crate) ring_size_max: u16,
}

/// When a ring interrupts. As it is after a reset: for every event.
#[derive(Clone, Copy, Default)]
pub(crate) struct Gathering {
    /// How many events are worth an interrupt.
    pub(crate) events: u32,
    /// After how many microseconds fewer are worth one too.
    pub(crate) microseconds: u32,
}

impl Gathering {
    /// For how many microseconds events may rightly wait without an interrupt.
    pub(crate) fn longest_wait(self) -> u32 {
        match self.events {
            0 | 1 => 0,
            _ => self.microseconds,
        }
    }
}

/// What the device counts for one ring.
#[derive(Clone, Copy, Default)]
pub(crate) struct DeviceCounters {
    pub(crate) generated: u64,
    pub(crate) delivered: u64,
    pub(crate) dropped: u64,
    pub(crate) faulted: u64,
    pub(crate) extra: u64,
}

impl DeviceCounters {
    /// Whether the device was there when they were read.
    pub(crate) fn are_real(&self) -> bool {
        let all = [
            self.generated,
            self.delivered,
            self.dropped,
            self.faulted,
            self.extra,
        ];
        !all.contains(&u64::MAX)
    }
}

/// How the device is: `HEALTH`, read at one time.
#[derive(Clone, Copy)]
pub(crate) struct Health(u64);

impl Health {
    /// It does not answer: it is gone from the bus, for a while or for good.
    pub(crate) fn is_gone(self) -> bool {
        self.0 == u64::MAX
    }

    /// A reset is under way, or so it says; writes to registers are ignored.
    pub(crate) fn is_busy(self) -> bool {
        self.0 & HEALTH_BUSY != 0
    }

    /// It may write events to rings.
    pub(crate) fn runs(self) -> bool {
        self.0 & HEALTH_RUN != 0
    }

    /// Milliseconds of the device's time.
    pub(crate) fn heartbeat(self) -> u32 {
        (self.0 >> HEALTH_HEARTBEAT_SHIFT) as u32
    }
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

    /// How the device is.
    pub(crate) fn health(&self) -> Health {
        // What cannot be reached any more is as gone as can be.
        Health(self.read64(Register::Health, 0).unwrap_or(u64::MAX))
    }

    /// Tells the device to reset itself.
    pub(crate) fn ask_for_reset(&self) -> Result {
        self.write32(Register::Control, 0, CONTROL_RESET)
    }

    /// Whether the device does not run and all of its `rings` rings are off. It then writes no
    /// memory until somebody turns one on.
    pub(crate) fn is_off(&self, rings: usize) -> bool {
        // `RUN` is all that can be read there: all ones come from a device that is gone.
        self.read32(Register::Control, 0) == Ok(0) && (0..rings).all(|ring| self.ring_is_off(ring))
    }

    /// Lets the device write events to the rings that are on. `EAGAIN` if it does not take that now.
    pub(crate) fn run(&self) -> Result {
        self.write32(Register::Control, 0, CONTROL_RUN)?;
        match self.read32(Register::Control, 0)? {
            CONTROL_RUN => Ok(()),
            _ => Err(EAGAIN),
        }
    }

    /// Turns ring `ring`, which is off, on. `EIO` if the device will not have it, `EAGAIN` if it
    /// does not take it now.
    pub(crate) fn turn_on(
        &self,
        ring: usize,
        size: u16,
        at: &Addresses,
        gathering: Gathering,
    ) -> Result {
        self.write32(Register::RingSize, ring, u32::from(size))?;
        self.write64(Register::RingDescriptors, ring, at.descriptors)?;
        self.write64(Register::RingAvailable, ring, at.available)?;
        self.write64(Register::RingUsed, ring, at.used)?;
        self.write32(Register::RingFeatures, ring, RING_FEATURE_EVENT_INDEX)?;
        self.set_gathering(ring, gathering)?;
        // A device that was busy or gone for just one of these would write to wherever it believes.
        if !self.ring_is_laid_out(ring, size, at)? {
            return Err(EAGAIN);
        }
        self.write32(Register::RingEnable, ring, 1)?;
        match self.read32(Register::RingState, ring)? {
            RING_STATE_ON => Ok(()),
            // One that has reset itself before the last write refuses what it has forgotten.
            RING_STATE_ERROR if self.ring_is_laid_out(ring, size, at)? => Err(EIO),
            _ => Err(EAGAIN),
        }
    }

    /// Whether the device knows of ring `ring` what it was told.
    fn ring_is_laid_out(&self, ring: usize, size: u16, at: &Addresses) -> Result<bool> {
        Ok(self.read32(Register::RingSize, ring)? == u32::from(size)
            && self.read64(Register::RingDescriptors, ring)? == at.descriptors
            && self.read64(Register::RingAvailable, ring)? == at.available
            && self.read64(Register::RingUsed, ring)? == at.used
            && self.read32(Register::RingFeatures, ring)? == RING_FEATURE_EVENT_INDEX)
    }

    /// Has ring `ring` gather events before it interrupts. `EAGAIN` if the device does not take that
    /// now.
    pub(crate) fn set_gathering(&self, ring: usize, gathering: Gathering) -> Result {
        self.write32(Register::RingCoalesceCount, ring, gathering.events)?;
        self.write32(Register::RingCoalesceTime, ring, gathering.microseconds)?;
        if self.read32(Register::RingCoalesceCount, ring)? == gathering.events
            && self.read32(Register::RingCoalesceTime, ring)? == gathering.microseconds
        {
            Ok(())
        } else {
            Err(EAGAIN)
        }
    }

    /// Turns ring `ring` off: what is made for it from now on counts as dropped, and its used ring
    /// is right, whatever it was before. `EAGAIN` if the device does not take that now.
    pub(crate) fn turn_off(&self, ring: usize) -> Result {
        self.write32(Register::RingEnable, ring, 0)?;
        if self.ring_is_off(ring) {
            Ok(())
        } else {
            Err(EAGAIN)
        }
    }

    /// Tells the device that an event with the flag that asks for it has come.
    pub(crate) fn acknowledge(&self, ring: usize) -> Result {
        self.write32(Register::RingAcknowledge, ring, 1)
    }

    /// Makes the device make an event for ring `ring`.
    pub(crate) fn ring_doorbell(&self, ring: usize) -> Result {
        self.write32(Register::Doorbell, ring, 1)
    }

    /// Reads which causes a status interrupt has, and clears those. `ENODEV` if the device is gone.
    pub(crate) fn take_status(&self) -> Result<u32> {
        let causes = self.read32(Register::StatusCause, 0)?;
        if causes == u32::MAX {
            return Err(ENODEV);
        }
        self.write32(Register::StatusCause, 0, causes)?;
        Ok(causes)
    }

    /// What the device counts for ring `ring`.
    pub(crate) fn counters(&self, ring: usize) -> Result<DeviceCounters> {
        Ok(DeviceCounters {
            generated: self.read64(Register::RingGenerated, ring)?,
            delivered: self.read64(Register::RingDelivered, ring)?,
            dropped: self.read64(Register::RingDropped, ring)?,
            faulted: self.read64(Register::RingFaulted, ring)?,
            extra: self.read64(Register::RingExtra, ring)?,
        })
    }

    /// How often each fault of the device came about.
    pub(crate) fn fault_counts(&self) -> Result<[u64; FAULTS]> {
        let mut counts = [0; FAULTS];
        for (fault, count) in counts.iter_mut().enumerate() {
            *count = self.read64(Register::FaultCount, fault)?;
        }
        Ok(counts)
    }

    /// Whether ring `ring` is off. One of a device that does not answer is not known to be.
    pub(crate) fn ring_is_off(&self, ring: usize) -> bool {
        self.read32(Register::RingState, ring) == Ok(RING_STATE_OFF)
    }

    fn read32(&self, register: Register, index: usize) -> Result<u32> {
        let bar = self.0.try_access().ok_or(ENODEV)?;
        bar.try_read32(register.offset(index))
    }

    fn read64(&self, register: Register, index: usize) -> Result<u64> {
        let bar = self.0.try_access().ok_or(ENODEV)?;
        bar.try_read64(register.offset(index))
    }

    fn write32(&self, register: Register, index: usize, value: u32) -> Result {
        let bar = self.0.try_access().ok_or(ENODEV)?;
        bar.try_write32(value, register.offset(index))
    }

    fn write64(&self, register: Register, index: usize, value: u64) -> Result {
        let bar = self.0.try_access().ok_or(ENODEV)?;
        bar.try_write64(value, register.offset(index))
    }
}
