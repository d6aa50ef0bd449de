// SPDX-License-Identifier: Apache-2.0 OR MIT

use super::*;

/// Registers with those words written, one after the other.
fn written(words: &[(usize, u16)]) -> Registers {
    let mut registers = Registers::new(5);
    for &(register, value) in words {
        registers.write(register as u16, &value.to_le_bytes());
    }
    registers
}

#[test]
fn the_capabilities_are_express_and_msi() {
    let registers = Registers::new(1);
    let mut found = Vec::new();
    let mut next = registers.bytes[CAPABILITY_POINTER];
    while next != 0 {
        found.push(registers.bytes[usize::from(next)]);
        next = registers.bytes[usize::from(next) + 1];
        assert!(found.len() < 48, "the list goes round");
    }
    assert_eq!(found, [EXPRESS_ID, MSI_ID]);
    let mut beyond = [0xa5; 4];
    registers.read(0x100, &mut beyond);
    assert_eq!(beyond, [0; 4], "extended capabilities");
}

#[test]
fn a_guest_writes_what_it_may_and_nothing_else() {
    let mut registers = Registers::new(5);
    for register in (0..256).step_by(4) {
        registers.write(register, &[0xff; 4]);
    }
    for (register, expected) in [
        (0x00, 0x000c_1b36),
        (COMMAND, 0x0010_0006),
        (REVISION_AND_CLASS, 0x0604_0000),
        (0x0c, 0x0001_0000),
        (0x10, 0),
        (0x14, 0),
        (PRIMARY_BUS, 0x00ff_ffff),
        // I/O base and limit, secondary status.
        (0x1c, 0),
        (MEMORY_BASE, 0xfff0_fff0),
        (PREFETCHABLE_BASE, 0xfff1_fff1),
        (PREFETCHABLE_BASE_HIGH, u32::MAX),
        (PREFETCHABLE_LIMIT_HIGH, u32::MAX),
        (0x30, 0),
        (0x38, 0),
        (INTERRUPT_LINE, 0x0040_00ff),
        (EXPRESS, 0x0142_8010),
        (DEVICE_CONTROL, 0x0000_000f),
        (LINK_CAPABILITIES, 0x0550_0011),
        (LINK_CONTROL, 0x0011_0010),
        (SLOT_CAPABILITIES, 0x0028_0079),
        (SLOT_CONTROL, 0x0010_13f9),
        (ROOT_CONTROL, 0x0000_000f),
        (EXPRESS + 0x20, 0),
        (EXPRESS + 0x28, 0),
        (EXPRESS + 0x38, 0),
        (MSI, 0x0081_0005),
        (MSI_ADDRESS, 0xffff_fffc),
        (MSI_ADDRESS + 4, u32::MAX),
        (MSI_DATA, 0x0000_ffff),
        (0xfc, 0),
    ] {
        assert_eq!(registers.dword(register), expected, "{register:#x}");
    }
}

#[test]
fn an_event_is_cleared_by_writing_its_own_bit_by_any_width() {
    let (low, high) = (SLOT_STATUS as u16, SLOT_STATUS as u16 + 1);
    for (register, data, left) in [
        (low, &[0x01][..], 0x0108),
        (low, &[0x08, 0x00], 0x0101),
        (high, &[0x01], 0x0009),
        (low, &[0x00, 0x00], 0x0109),
        (low, &[0xff, 0xff], 0x0000),
        // With the control register before it, or that alone.
        (low - 2, &[0xc0, 0x03, 0x19, 0x00], 0x0110),
        (low - 2, &[0xff], 0x0119),
        (low - 1, &[0x00], 0x0119),
        (low - 3, &[0x00], 0x0109),
    ] {
        let mut registers = Registers::new(1);
        for event in [Event::Button, Event::Presence, Event::LinkState] {
            registers.report(event);
        }
        registers.write(register, data);
        let status = registers.word(SLOT_STATUS);
        assert_eq!(status, left, "{data:x?} at {register:#x}");
    }
}

#[test]
fn the_secondary_bus_is_a_range_that_begins_behind_the_root_bus() {
    for (primary, secondary, subordinate, expected) in [
        (0, 0, 0, None),
        (0, 1, 1, Some(1)),
        (0, 1, 255, Some(1)),
        (0, 255, 255, Some(255)),
        (0, 2, 1, None),
        (0, 0, 255, None),
        // Whatever the guest believes the root bus to be.
        (7, 3, 3, Some(3)),
    ] {
        let mut registers = Registers::new(1);
        registers.write(PRIMARY_BUS as u16, &[primary, secondary, subordinate]);
        let bus = registers.secondary_bus();
        assert_eq!(bus, expected, "{primary} {secondary}-{subordinate}");
    }
}

#[test]
fn a_window_passes_on_what_lies_in_it_as_a_whole() {
    let memory = [(MEMORY_BASE, 0xc010), (MEMORY_LIMIT, 0xc020)];
    let prefetchable = [
        (PREFETCHABLE_BASE, 0x0000),
        (PREFETCHABLE_BASE_HIGH, 8),
        (PREFETCHABLE_LIMIT, 0xfff0),
        (PREFETCHABLE_LIMIT_HIGH, 8),
    ];
    let on = [(COMMAND, COMMAND_MEMORY)];
    let closed = [(MEMORY_BASE, 0xc020), (MEMORY_LIMIT, 0xc010)];
    let backwards = [(PREFETCHABLE_LIMIT_HIGH, 7)];
    for (words, address, size, expected) in [
        (&[&on[..], &memory][..], 0xc010_0000, 0x2000, true),
        (&[&on, &memory], 0xc02f_e000, 0x2000, true),
        (&[&on, &memory], 0xc02f_f000, 0x2000, false),
        (&[&on, &memory], 0xc00f_f000, 0x2000, false),
        (&[&on, &memory], 0xc010_0000, 0x20_0000, true),
        (&[&on, &memory], 0xc010_0000, 0x40_0000, false),
        (&[&memory], 0xc010_0000, 0x2000, false),
        (&[&on], 0xc010_0000, 0x2000, false),
        (&[&on], 0, 0x2000, false),
        (&[&on, &closed], 0xc010_0000, 0x2000, false),
        (&[&on, &prefetchable], 8 << 32, 0x1000, true),
        (&[&on, &prefetchable], (8 << 32) + 0xffff_f000, 0x1000, true),
        (&[&on, &prefetchable], (8 << 32) - 0x1000, 0x2000, false),
        (&[&on, &prefetchable], u64::MAX - 0xfff, 0x2000, false),
        (&[&on, &prefetchable, &backwards], 8 << 32, 0x1000, false),
    ] {
        let forwarding = written(&words.concat()).forwarding();
        let contains = forwarding.contains(address, size);
        assert_eq!(
            contains, expected,
            "{address:#x}+{size:#x}: {forwarding:x?}"
        );
    }
}

#[test]
fn lights_are_what_the_guest_sets_and_a_reserved_value_is_not_off() {
    for (control, attention, power) in [
        (0x03c0, Light::Off, Light::Off),
        (0x0140, Light::On, Light::On),
        (0x0280, Light::Blinking, Light::Blinking),
        (0x0000, Light::On, Light::On),
    ] {
        let mut registers = written(&[(SLOT_CONTROL, control)]);
        let lights = (registers.attention_light(), registers.power_light());
        assert_eq!(lights, (attention, power), "{control:#x}");
        registers.set_power_light(Light::Blinking);
        let lights = (registers.attention_light(), registers.power_light());
        assert_eq!(lights, (attention, Light::Blinking), "{control:#x}");
    }
}

#[test]
fn messages_take_msi_and_bus_master() {
    let [address, data] = [(MSI_ADDRESS, 0x1000), (MSI_DATA, 0x41)];
    let (enable, master) = ((MSI_CONTROL, MSI_ENABLE), (COMMAND, COMMAND_BUS_MASTER));
    let message = MsiMessage {
        address: 0x1000,
        data: 0x41,
    };
    for (words, expected) in [
        (&[address, data][..], None),
        (&[address, data, enable], None),
        (&[address, data, master], None),
        (&[address, data, master, enable], Some(message)),
    ] {
        assert_eq!(written(words).interrupt(), expected, "{words:x?}");
    }
}
