// SPDX-License-Identifier: Apache-2.0 OR MIT

use super::*;

/// Configuration space of a device with everything in it: all bytes are 0xa0 or more, so that none
/// is shown by mistake, but for the header and the capabilities.
fn device() -> [u8; SIZE] {
    let mut device = [0xa5; SIZE];
    let mut set = |at: usize, bytes: &[u8]| device[at..at + bytes.len()].copy_from_slice(bytes);
    set(0x00, &[0x34, 0x12, 0x78, 0x56]);
    set(COMMAND, &[0x07, 0x04, 0x18, 0x20]);
    set(0x08, &[0x01, 0x00, 0x80, 0x08]);
    set(CACHE_LINE, &[0x10, 0x20, 0x80, 0x40]);
    set(CAPABILITY_POINTER, &[0x41]);
    set(INTERRUPT_LINE, &[11, 1]);
    // Power management, Express, MSI, MSI-X, vendor specific, Advanced Features, unknown.
    set(0x40, &[0x01, 0x50]);
    set(0x50, &[EXPRESS, 0x90, 0x02, 0x00]);
    set(0x90, &[0x05, 0xa0]);
    set(0xa0, &[MSIX, 0xb0, 0x04, 0x80]);
    set(0xa4, &[0x02, 0x10, 0, 0]);
    set(0xa8, &[0x04, 0x08, 0, 0]);
    set(0xb0, &[VENDOR_SPECIFIC, 0xd0, 0x08]);
    set(0xd0, &[ADVANCED_FEATURES, 0xe0, 6, 3, 0, 0]);
    set(0xe0, &[0x77, 0x40]);
    device
}

fn bars() -> [Option<BarShape>; 6] {
    let mut bars = [None; 6];
    bars[0] = Some(BarShape {
        size: 0x2000,
        kind: 0b0000,
    });
    bars[2] = Some(BarShape {
        size: 0x4_0000_0000,
        kind: 0b1100,
    });
    bars
}

fn space() -> ConfigSpace {
    let device = device();
    ConfigSpace::new(&device, bars(), MsixCapability::find(&device).unwrap())
}

/// What the guest reads, a byte at a time.
fn seen(space: &ConfigSpace) -> Vec<u8> {
    let mut seen = vec![0; 0x110];
    for (at, byte) in (0..).zip(&mut seen) {
        space.read(at, std::slice::from_mut(byte), |data| {
            data[0] = device()[usize::from(at)];
        });
    }
    seen
}

#[test]
fn the_guest_sees_what_it_may() {
    let seen = seen(&space());
    for (what, at, expected) in [
        ("identity", 0x00, &[0x34, 0x12, 0x78, 0x56][..]),
        ("command and status", COMMAND, &[0, 0, 0x10, 0]),
        ("class", 0x08, &[0x01, 0x00, 0x80, 0x08]),
        (
            "no latency, one function, no test",
            CACHE_LINE,
            &[0x10, 0, 0, 0],
        ),
        ("32-bit BAR", 0x10, &[0; 4]),
        ("no BAR", 0x14, &[0; 4]),
        ("64-bit BAR", 0x18, &[0b1100, 0, 0, 0, 0, 0, 0, 0]),
        ("CardBus", 0x28, &[0; 4]),
        ("subsystem", 0x2c, &[0xa5; 4]),
        ("no ROM", 0x30, &[0; 4]),
        ("no interrupt pin", INTERRUPT_LINE, &[0, 0, 0xa5, 0xa5]),
        ("Express comes first", CAPABILITY_POINTER, &[0x50]),
        ("power management", 0x40, &[0; 16]),
        ("Express, integrated", 0x50, &[EXPRESS, 0xa0, 0x92, 0x00]),
        ("device control", 0x58, &[0xa5; 4]),
        ("no link", 0x5c, &[0; 8]),
        ("device control 2", 0x78, &[0xa5; 4]),
        ("no link 2", 0x7c, &[0; 8]),
        ("MSI", 0x90, &[0; 16]),
        (
            "MSI-X, off",
            0xa0,
            &[MSIX, 0xb0, 0x04, 0x00, 0x02, 0x10, 0, 0],
        ),
        (
            "vendor specific",
            0xb0,
            &[VENDOR_SPECIFIC, 0xd0, 0x08, 0xa5],
        ),
        (
            "Advanced Features, the last",
            0xd0,
            &[ADVANCED_FEATURES, 0, 6, 3, 0, 0],
        ),
        ("unknown", 0xe0, &[0; 32]),
        ("extended", 0x100, &[0; 16]),
    ] {
        assert_eq!(&seen[at..at + expected.len()], expected, "{what}");
    }
}

#[test]
fn only_harmless_writes_reach_the_device() {
    for (what, register, data, expected) in [
        ("command", 0x04, &[0xff, 0xff][..], &[][..]),
        ("status", 0x06, &[0xff, 0xff], &[]),
        ("BAR", 0x10, &[0xff; 4], &[]),
        ("ROM", 0x30, &[0xff; 4], &[]),
        ("identity", 0x00, &[0xff; 4], &[]),
        ("interrupt line", 0x3c, &[5], &[]),
        ("power state", 0x44, &[3, 0], &[]),
        ("link in Express", 0x60, &[0xff; 4], &[]),
        ("slot in Express", 0x64, &[0xff; 4], &[]),
        (
            "device control",
            0x58,
            &[0x10, 0x28],
            &[(0x58, &[0x10, 0x28][..])],
        ),
        (
            "device control with status",
            0x58,
            &[0x10, 0x28, 0xff, 0xff],
            &[(0x58, &[0x10, 0x28])],
        ),
        ("MSI", 0x92, &[1, 0], &[]),
        ("MSI-X", 0xa2, &[0xff, 0xff], &[]),
        ("MSI-X table's place", 0xa4, &[0xff; 4], &[]),
        (
            "vendor specific",
            0xb4,
            &[1, 2, 3, 4],
            &[(0xb4, &[1, 2, 3, 4])],
        ),
        ("a head", 0xb0, &[1, 2, 3, 4], &[(0xb2, &[3, 4])]),
        ("unknown", 0xe4, &[0xff; 4], &[]),
        ("extended", 0x100, &[0xff; 4], &[]),
        ("the end", 0xffe, &[0xff; 2], &[]),
    ] {
        let mut space = space();
        let written = space.write(register, data);
        let forward: Vec<(u16, &[u8])> = written
            .forward
            .iter()
            .map(|(at, bytes)| (*at, &bytes[..]))
            .collect();
        assert_eq!(forward, expected, "{what}");
        assert!(!written.reset, "{what}");
    }
}

#[test]
fn both_ways_to_reset_are_seen_and_kept_from_the_device() {
    for (register, data, forward) in [
        (0x58, &[0x10, 0xa8][..], vec![(0x58, vec![0x10, 0x28])]),
        (0x59, &[0x80], vec![(0x59, vec![0])]),
        (0xd4, &[1], vec![]),
        (0xd4, &[1, 0, 0, 0], vec![]),
    ] {
        let written = space().write(register, data);
        assert!(written.reset, "{register:#x}");
        assert_eq!(written.forward, forward, "{register:#x}");
    }
}

#[test]
fn bars_are_sized_and_placed() {
    let mut space = space();
    for (at, register, expected) in [(0, 0x10, 0xffff_e000_u32), (1, 0x18, 0x0000_000c)] {
        space.write(register, &[0xff; 4]);
        assert_eq!(
            seen(&space)[usize::from(register)..][..4],
            expected.to_le_bytes(),
            "{at}"
        );
    }
    space.write(0x1c, &[0xff; 4]);
    assert_eq!(seen(&space)[0x1c..0x20], 0xffff_fffc_u32.to_le_bytes());
    // A BAR that is not there.
    space.write(0x14, &[0xff; 4]);
    assert_eq!(seen(&space)[0x14..0x18], [0; 4]);

    space.place_bar(0, 0xc000_2000);
    space.place_bar(2, 0x8_0000_0000);
    space.place_bar(9, 0x1000);
    let bars = space.bars();
    let places: Vec<_> = bars
        .iter()
        .map(|bar| (bar.index, bar.address, bar.size, bar.width, bar.enabled))
        .collect();
    assert_eq!(
        places,
        [
            (0, 0xc000_2000, 0x2000, AddressWidth::Bits32, false),
            (2, 0x8_0000_0000, 0x4_0000_0000, AddressWidth::Bits64, false),
        ]
    );
    space.write(0x04, &[0xff, 0xff]);
    assert!(space.bars().iter().all(|bar| bar.enabled) && space.bus_master());
    assert_eq!(seen(&space)[COMMAND..COMMAND + 2], [0x06, 0x00]);
    space.reset();
    assert!(
        space
            .bars()
            .iter()
            .all(|bar| !bar.enabled && bar.address == 0)
    );
}

#[test]
fn msix_control_is_the_guests() {
    let mut space = space();
    assert_eq!(space.msix_control(), (false, false));
    space.write(0xa2, &[0xff, 0xff]);
    assert_eq!(space.msix_control(), (true, true));
    assert_eq!(seen(&space)[0xa2..0xa4], [0x04, 0xc0]);
    space.write(0xa3, &[0x80]);
    assert_eq!(space.msix_control(), (true, false));
    space.write(0xa0, &[0, 0, 0, 0x40]);
    assert_eq!(space.msix_control(), (false, true));
}

#[test]
fn the_msix_capability_is_read() {
    let capability = MsixCapability::find(&device()).unwrap();
    let part = |bar, offset| BarPart { bar, offset };
    assert_eq!(
        (capability.vectors, capability.table, capability.pending),
        (5, part(2, 0x1000), part(4, 0x800))
    );
}

/// Hardware may say anything.
#[test]
fn lists_that_lead_nowhere_end() {
    for (what, pointer, links) in [
        ("none", 0x00, &[][..]),
        ("into the header", 0x10, &[]),
        ("a circle", 0x40, &[(0x41, 0x40)]),
        ("two in a circle", 0x40, &[(0x41, 0x50), (0x51, 0x40)]),
        ("at the end", 0xfc, &[(0xfd, 0xfc)]),
    ] {
        for id in 0..=0xff {
            let mut device = [0xff; SIZE];
            device[CAPABILITY_POINTER] = pointer;
            for at in (HEADER_END..SIZE).step_by(4) {
                device[at] = id;
            }
            for &(at, link) in links {
                device[at] = link;
            }
            let found = MsixCapability::find(&device);
            let expected = id == MSIX && !links.is_empty() && pointer != 0xfc;
            assert_eq!(found.is_some(), expected, "{what} {id:#x}");
            let msix = found
                .or_else(|| MsixCapability::find(&self::device()))
                .unwrap();
            let mut space = ConfigSpace::new(&device, bars(), msix);
            for at in 0..0x110 {
                space.write(at, &[0xff]);
                space.read(at, &mut [0], |_| ());
            }
        }
    }
}
