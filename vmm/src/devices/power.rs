// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The power registers of hardware-reduced ACPI: sleep control, sleep status (ACPI 6.5 §4.8.3.7)
//! and reset (§4.8.3.6), one byte each.

use crate::machine::bus::{BusDevice, Outcome, Stop};

/// Offset of the sleep control register.
pub const SLEEP_CONTROL: u16 = 0;
/// Offset of the sleep status register.
pub const SLEEP_STATUS: u16 = 1;
/// Offset of the reset register.
pub const RESET: u16 = 2;
/// What the guest writes to [`RESET`].
pub const RESET_VALUE: u8 = 1;
/// The sleep type of S5, soft off.
pub const SLEEP_TYPE_SOFT_OFF: u8 = 5;

const SLEEP_ENABLE: u8 = 1 << 5;
const SLEEP_TYPE_SHIFT: u8 = 2;
const SLEEP_TYPE_MASK: u8 = 7;

/// The registers. None of them holds a state: a write either stops the machine or does nothing.
#[derive(Debug)]
pub struct PowerRegisters;

impl BusDevice for PowerRegisters {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&self, offset: u64, data: &[u8]) -> Outcome {
        let &[value] = data else { return Outcome::Done };
        let sleep_type = value >> SLEEP_TYPE_SHIFT & SLEEP_TYPE_MASK;
        if offset == u64::from(SLEEP_CONTROL)
            && value & SLEEP_ENABLE != 0
            && sleep_type == SLEEP_TYPE_SOFT_OFF
        {
            Outcome::Stop(Stop::PowerOff)
        } else if offset == u64::from(RESET) && value == RESET_VALUE {
            Outcome::Stop(Stop::Reset)
        } else {
            Outcome::Done
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_specified_writes_stop_the_machine() {
        for (offset, data, expected) in [
            (0, &[0x34][..], Outcome::Stop(Stop::PowerOff)),
            (0, &[0x14], Outcome::Done),
            (0, &[0x20], Outcome::Done),
            (0, &[0x34, 0], Outcome::Done),
            (1, &[0x34], Outcome::Done),
            (2, &[1], Outcome::Stop(Stop::Reset)),
            (2, &[0], Outcome::Done),
            (2, &[], Outcome::Done),
        ] {
            assert_eq!(
                PowerRegisters.write(offset, data),
                expected,
                "{offset} {data:x?}"
            );
        }
    }
}
