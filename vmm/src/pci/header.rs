// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What the headers of all functions have in common: offsets of registers in configuration space, and
//! bits of them (PCI Express Base 5.0, §7.5.1.1).

pub(super) const COMMAND: usize = 0x04;
pub(super) const COMMAND_MEMORY: u16 = 1 << 1;
pub(super) const COMMAND_BUS_MASTER: u16 = 1 << 2;
pub(super) const STATUS: usize = 0x06;
pub(super) const STATUS_CAPABILITIES: u16 = 1 << 4;
pub(super) const HEADER_TYPE: usize = 0x0e;
pub(super) const CAPABILITY_POINTER: usize = 0x34;
pub(super) const INTERRUPT_LINE: usize = 0x3c;
