// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The host bridge: device 0, which does nothing but be there, as guests expect of it.

use lockstorm_device_model::ConfigOutcome;

use super::PciFunction;

/// Identity of QEMU's generic host bridge, for which guests have no quirks.
const VENDOR_AND_DEVICE: [u8; 4] = [0x36, 0x1b, 0x08, 0x00];
/// Revision 0; class 06_00_00, host bridge.
const REVISION_AND_CLASS: [u8; 4] = [0, 0, 0, 0x06];

/// A type 0 function without BARs, capabilities or anything to write.
pub(super) struct HostBridge;

impl PciFunction for HostBridge {
    fn config_read(&self, register: u16, data: &mut [u8]) {
        for (register, byte) in (usize::from(register)..).zip(data) {
            *byte = match register {
                0x00..0x04 => VENDOR_AND_DEVICE[register],
                0x08..0x0c => REVISION_AND_CLASS[register - 0x08],
                _ => 0,
            };
        }
    }

    fn config_write(&self, _register: u16, _data: &[u8]) -> ConfigOutcome {
        ConfigOutcome::Done
    }
}
