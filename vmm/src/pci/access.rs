// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The two ways into configuration space: ECAM and the ports 0xcf8 to 0xcff.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Segment;
use crate::machine::bus::{BusDevice, Outcome};

/// The memory-mapped way (PCI Express Base 5.0, §7.2.2). An offset in its range is a configuration
/// address as [`Segment`] takes it.
pub struct Ecam {
    segment: Arc<Segment>,
}

impl Ecam {
    /// The way into `segment`.
    pub fn new(segment: Arc<Segment>) -> Self {
        Self { segment }
    }
}

impl BusDevice for Ecam {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.segment.read(offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) -> Outcome {
        self.segment.write(offset, data);
        Outcome::Done
    }
}

/// Bit 31 of the address register: accesses to the data register go to configuration space.
const ENABLE: u32 = 1 << 31;
/// Bits of the address register that can be set: enable, bus, device and function, register.
const ADDRESS_BITS: u32 = ENABLE | 0x00ff_fffc;

/// The way by ports (PCI Local Bus 3.0, §3.2.2.3.2): an address register, which only answers to
/// 4-byte accesses, and a data register.
pub struct ConfigPorts {
    segment: Arc<Segment>,
    /// A machine has one such register for all vCPUs; keeping them apart is the guest's task.
    address: AtomicU32,
}

/// Offset of the data register.
const DATA: u64 = 4;

impl ConfigPorts {
    /// The way into `segment`.
    pub fn new(segment: Arc<Segment>) -> Self {
        Self {
            segment,
            address: AtomicU32::new(0),
        }
    }

    /// The configuration address that an access at `offset` means, if it means one.
    fn target(&self, offset: u64, width: usize) -> Option<u64> {
        let address = self.address.load(Ordering::Relaxed);
        let byte = offset.checked_sub(DATA)?;
        let inside = byte + width as u64 <= 4;
        if !inside || address & ENABLE == 0 {
            return None;
        }
        // Bus, device and function sit 4 bits higher in an ECAM offset, whose registers are wider.
        let function = u64::from(address & 0x00ff_ff00) << 4;
        Some(function | u64::from(address & 0xfc) | byte)
    }
}

impl BusDevice for ConfigPorts {
    fn read(&self, offset: u64, data: &mut [u8]) {
        if offset == 0 && data.len() == 4 {
            data.copy_from_slice(&self.address.load(Ordering::Relaxed).to_le_bytes());
        } else if let Some(address) = self.target(offset, data.len()) {
            self.segment.read(address, data);
        } else {
            data.fill(0xff);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Outcome {
        if offset == 0
            && let Ok(bytes) = <[u8; 4]>::try_from(data)
        {
            let address = u32::from_le_bytes(bytes) & ADDRESS_BITS;
            self.address.store(address, Ordering::Relaxed);
        } else if let Some(address) = self.target(offset, data.len()) {
            self.segment.write(address, data);
        }
        Outcome::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::bus::Bus;
    use crate::pci::Windows;

    fn ports() -> ConfigPorts {
        let windows = Windows::new(0xc000_0000..0xe000_0000, 1 << 36..1 << 37).unwrap();
        ConfigPorts::new(Arc::new(Segment::new(Arc::new(Bus::default()), windows)))
    }

    fn read(device: &dyn BusDevice, offset: u64, width: usize) -> Vec<u8> {
        let mut data = vec![0xa5; width];
        device.read(offset, &mut data);
        data
    }

    #[test]
    fn data_goes_where_the_address_points() {
        let ports = ports();
        for (address, offset, expected) in [
            (0x8000_0000_u32, 4, &[0x36, 0x1b, 0x08, 0x00][..]),
            (0x8000_0000, 4, &[0x36, 0x1b]),
            (0x8000_0000, 5, &[0x1b]),
            (0x8000_0000, 5, &[0x1b, 0x08]),
            (0x8000_0008, 7, &[0x06]),
            (0x8000_000b, 4, &[0, 0, 0, 0x06]),
            (0x0000_0000, 4, &[0xff; 4]),
            (0x8000_0100, 4, &[0xff; 4]),
            (0x8000_0800, 4, &[0xff; 4]),
            (0x8001_0000, 4, &[0xff; 4]),
            (0xff00_0000, 4, &[0x36, 0x1b, 0x08, 0x00]),
            (0x8000_0000, 5, &[0xff; 4]),
            (0x8000_0000, 2, &[0xff; 4]),
        ] {
            ports.write(0, &address.to_le_bytes());
            let data = read(&ports, offset, expected.len());
            assert_eq!(data, expected, "{address:#x} + {offset}");
        }
    }

    #[test]
    fn the_address_register_answers_to_four_bytes_only() {
        let ports = ports();
        ports.write(0, &0xffff_ffff_u32.to_le_bytes());
        assert_eq!(read(&ports, 0, 4), 0x80ff_fffc_u32.to_le_bytes());
        for (offset, width) in [(0, 1), (0, 2), (3, 1), (2, 2), (0, 8), (1, 4)] {
            ports.write(offset, &vec![0; width]);
            assert_eq!(read(&ports, offset, width), vec![0xff; width]);
        }
        assert_eq!(read(&ports, 0, 4), 0x80ff_fffc_u32.to_le_bytes());
    }
}
