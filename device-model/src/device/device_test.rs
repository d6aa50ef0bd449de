// SPDX-License-Identifier: Apache-2.0 OR MIT

use lockstorm_abi::event::{SOURCE_DOORBELL, SOURCE_INJECT, SOURCE_STORM};
use lockstorm_abi::identity::REGISTER_BAR;
use lockstorm_abi::registers::{
    Access, CONTROL_RESET, CONTROL_RUN, FAULTS, REGISTERS, RING_STATE_ERROR, RING_STATE_OFF,
    RING_STATE_ON, Register, cause_dropped, cause_error,
};

use super::guest::{Guest, MEMORY_SIZE, RING_SIZE, ring_base};
use crate::{Config, ConfigError, Evgen, Injection, Storm, StormError};

const STATUS_VECTOR: u16 = 2;

#[test]
fn registers_hold_their_reset_values() {
    let guest = Guest::new(3);
    for description in REGISTERS {
        for ring in [0, 2, 7] {
            let ring = if description.stride == 0 { 0 } else { ring };
            let expected = match description.register {
                Register::Rings | Register::StatusVector => 3,
                Register::RingSizeMax => 1024,
                Register::Vectors => 4,
                Register::RingVector if ring < 3 => ring as u64,
                _ => description.reset,
            };
            let value = guest.read(description.register, ring, description.width);
            assert_eq!(value, expected, "{} of ring {ring}", description.name);
        }
    }
}

#[test]
fn registers_keep_what_their_access_says() {
    for description in REGISTERS {
        let mut guest = Guest::new(3);
        let width = description.width;
        // All ones but CONTROL.RESET, which would undo the rest.
        let ones = 0xffff_ffff_ffff_fffd_u64.to_le_bytes();
        let offset = description.register.offset(0) as u64;
        guest.write_bar(REGISTER_BAR, offset, &ones[..width]);
        let expected = match (description.access, description.register) {
            (_, Register::Control) => CONTROL_RUN.into(),
            (_, Register::RingEnable | Register::RingFeatures) => 1,
            // These keep what they have rather than take what cannot be.
            (_, Register::StatusVector) => 3,
            (
                _,
                Register::RingVector | Register::RingCoalesceCount | Register::RingCoalesceTime,
            ) => 0,
            (Access::ReadWrite, _) if width == 4 => 0xffff_fffd,
            (Access::ReadWrite, _) => 0xffff_ffff_ffff_fffd,
            (_, Register::Rings) => 3,
            (_, Register::RingSizeMax) => 1024,
            (_, Register::Vectors) => 4,
            _ => description.reset,
        };
        let value = guest.read(description.register, 0, width);
        assert_eq!(value, expected, "{}", description.name);
    }
}

#[test]
fn no_access_to_a_bar_panics() {
    let mut guest = Guest::running(2);
    for bar in 0..7 {
        for offset in (0..0x2010).chain([u64::MAX - 8, u64::MAX]) {
            for width in 0..=9 {
                let mut data = vec![0xff; width];
                guest.device.bar_read(bar, offset, &mut data, 0);
                // CONTROL.RESET in between keeps the rings usable; both ways must be fine.
                guest.write_bar(bar, offset, &data);
                guest.write_bar(bar, offset, &vec![0xff; width]);
            }
        }
    }
}

#[test]
fn an_event_arrives_whole_and_interrupts_once() {
    let mut guest = Guest::running(2);
    let payload = std::array::from_fn(|index| index as u8);
    let injection = Injection {
        ring: 1,
        kind: 77,
        payload,
        count: 1,
        acknowledge: false,
    };
    guest
        .device
        .inject(&guest.memory, &injection, 1234)
        .unwrap();
    assert_eq!(guest.raised(), [1]);
    let events = guest.drain(1);
    assert_eq!(events.len(), 1);
    let event = &events[0];
    assert_eq!((event.sequence, event.timestamp), (0, 1234));
    assert_eq!(
        (event.source, event.kind, event.ring),
        (SOURCE_INJECT, 77, 1)
    );
    assert_eq!(event.payload, payload);
    assert_eq!(guest.drain(0), []);
}

#[test]
fn each_source_numbers_its_events_per_ring() {
    let mut guest = Guest::running(2);
    guest.inject(0, 2);
    guest.write(Register::Doorbell, 0, 0);
    guest.device.doorbell(&guest.memory, 1, 2, 0);
    guest.inject(0, 1);
    let numbered = |guest: &mut Guest, ring| -> Vec<(u16, u64)> {
        let events = guest.drain(ring);
        events.iter().map(|e| (e.source, e.sequence)).collect()
    };
    assert_eq!(
        numbered(&mut guest, 0),
        [
            (SOURCE_INJECT, 0),
            (SOURCE_INJECT, 1),
            (SOURCE_DOORBELL, 0),
            (SOURCE_INJECT, 2)
        ]
    );
    assert_eq!(
        numbered(&mut guest, 1),
        [(SOURCE_DOORBELL, 0), (SOURCE_DOORBELL, 1)]
    );
}

#[test]
fn a_full_ring_drops_counts_and_reports_once_until_acknowledged() {
    let mut guest = Guest::running(2);
    guest.inject(0, u32::from(RING_SIZE) + 3);
    assert_eq!(guest.counted(0), (7, 4));
    assert_eq!(guest.raised(), [0, 0, 0, 0, STATUS_VECTOR]);
    let cause = guest.read32(Register::StatusCause, 0);
    assert_eq!(cause, cause_dropped(0));

    // Another ring's drop is another reason, and interrupts again.
    guest.inject(1, 5);
    assert_eq!(guest.raised().last(), Some(&STATUS_VECTOR));
    guest.write(Register::StatusCause, 0, cause_dropped(0).into());
    assert_eq!(guest.read32(Register::StatusCause, 0), cause_dropped(1));

    // The numbers of the dropped ones are missing, so the loss can be seen.
    guest.drain(0);
    guest.inject(0, 1);
    assert_eq!(guest.raised(), [0]);
    assert_eq!(guest.drain(0)[0].sequence, 7);
}

#[test]
fn doorbells_beyond_any_ring_are_dropped_at_once() {
    let mut guest = Guest::running(2);
    guest.device.doorbell(&guest.memory, 0, 1 << 60, 0);
    assert_eq!(guest.counted(0), (1 << 60, 4));
    assert_eq!(guest.raised(), [0, 0, 0, 0, STATUS_VECTOR]);
    guest.drain(0);
    guest.device.doorbell(&guest.memory, 0, 1, 0);
    assert_eq!(guest.drain(0)[0].sequence, 1 << 60);
    assert_eq!(guest.read(Register::RingFull, 0, 8), (1 << 60) - 4);
    // A ring that is off does not lack buffers.
    guest.write(Register::RingEnable, 1, 0);
    guest.device.doorbell(&guest.memory, 1, 5000, 0);
    assert_eq!(guest.counted(1), (5000, 0));
    assert_eq!(guest.read(Register::RingFull, 1, 8), 0);
}

#[test]
fn many_laps_around_a_ring_lose_nothing() {
    let mut guest = Guest::running(1);
    let mut expected = 0;
    for _ in 0..70_000 / 3 {
        guest.inject(0, 3);
        for event in guest.drain(0) {
            assert_eq!(event.sequence, expected);
            expected += 1;
        }
    }
    assert!(
        expected > u64::from(u16::MAX),
        "the ring's indices must wrap"
    );
    assert_eq!(guest.counted(0), (expected, expected));
}

#[test]
fn what_must_not_be_delivered_is_dropped() {
    type Step = fn(&mut Guest);
    let cases: [(&str, Step); 4] = [
        ("device off", |guest| guest.write(Register::Control, 0, 0)),
        ("ring off", |guest| guest.write(Register::RingEnable, 0, 0)),
        ("bus master off", |guest| {
            guest.config_write(0x04, &[0b010]);
        }),
        ("device reset", |guest| {
            guest.write(Register::Control, 0, CONTROL_RESET.into());
        }),
    ];
    for (name, step) in cases {
        let mut guest = Guest::running(1);
        step(&mut guest);
        guest.inject(0, 2);
        assert_eq!(guest.counted(0), (2, 0), "{name}");
        assert_eq!(guest.drain(0), [], "{name}");
    }
}

#[test]
fn reset_forgets_all_but_counters_numbers_and_vectors() {
    let mut guest = Guest::running(1);
    guest.inject(0, 9);
    guest.drain(0);
    for (register, value) in [
        (Register::StatusVector, 0),
        (Register::RingVector, 1),
        (Register::RingCoalesceCount, 4),
        (Register::RingCoalesceTime, 50),
    ] {
        guest.write(register, 0, value);
    }
    guest.write(Register::Control, 0, CONTROL_RESET.into());
    assert_eq!(guest.counted(0), (9, 4));
    for (register, expected) in [
        (Register::StatusCause, 0),
        (Register::StatusVector, 1),
        (Register::RingState, RING_STATE_OFF),
        (Register::RingSize, 0),
        (Register::RingVector, 0),
        (Register::RingCoalesceCount, 0),
        (Register::RingCoalesceTime, 0),
    ] {
        assert_eq!(guest.read32(register, 0), expected, "{register:?}");
    }

    guest.raised();
    guest.inject(0, 1);
    assert_eq!(guest.raised(), [1], "the status vector is still set up");
    guest.restart();
    guest.inject(0, 1);
    assert_eq!(guest.drain(0)[0].sequence, 10);
}

#[test]
fn reset_takes_back_interrupts_that_were_not_sent() {
    let mut guest = Guest::running(1);
    guest.config_write(0x43, &[0xc0]);
    guest.inject(0, 1);
    guest.write(Register::Control, 0, CONTROL_RESET.into());
    guest.config_write(0x43, &[0x80]);
    assert!(guest.raised().is_empty());
}

#[test]
fn layouts_that_cannot_be_used_end_in_the_error_state() {
    let past_the_end = MEMORY_SIZE as u64;
    for (register, value) in [
        (Register::RingSize, 0),
        (Register::RingSize, 1),
        (Register::RingSize, 3),
        (Register::RingSize, 2048),
        (Register::RingSize, 0x1_0004),
        (Register::RingDescriptors, 8),
        (Register::RingAvailable, 1),
        (Register::RingAvailable, 0),
        (Register::RingUsed, 2),
        (Register::RingDescriptors, past_the_end - 16),
        (Register::RingAvailable, past_the_end),
        (Register::RingUsed, u64::MAX - 3),
    ] {
        let mut guest = Guest::new(1);
        guest.lay_out(0);
        guest.write(register, 0, value);
        guest.write(Register::RingEnable, 0, 1);
        let state = guest.read32(Register::RingState, 0);
        assert_eq!(state, RING_STATE_ERROR, "{register:?} {value:#x}");
        assert_eq!(guest.read32(Register::StatusCause, 0), cause_error(0));

        // The way out: off, right, on.
        guest.write(Register::RingEnable, 0, 0);
        guest.lay_out(0);
        guest.write(Register::RingEnable, 0, 1);
        assert_eq!(guest.read32(Register::RingState, 0), RING_STATE_ON);
    }
}

#[test]
fn a_hostile_ring_ends_in_the_error_state_and_harms_no_other() {
    const WRITE: u16 = 2;
    const NEXT: u16 = 1;
    const INDIRECT: u16 = 4;
    let buffer = ring_base(0) + 0x4000;
    type Step = Box<dyn Fn(&mut Guest)>;
    let descriptor = |address, length, flags, next| -> Step {
        Box::new(move |guest| guest.set_descriptor(0, 0, address, length, flags, next))
    };
    let cases: [(&str, Step); 11] = [
        ("not writable", descriptor(buffer, 64, 0, 0)),
        ("too short", descriptor(buffer, 63, WRITE, 0)),
        ("a chain", descriptor(buffer, 64, WRITE | NEXT, 1)),
        ("a loop", descriptor(buffer, 64, WRITE | NEXT, 0)),
        (
            "no such memory",
            descriptor(MEMORY_SIZE as u64, 64, WRITE, 0),
        ),
        (
            "half outside",
            descriptor(MEMORY_SIZE as u64 - 32, 64, WRITE, 0),
        ),
        ("around the end", descriptor(u64::MAX - 31, 64, WRITE, 0)),
        (
            "an indirect table",
            descriptor(ring_base(0) + 16, 16, INDIRECT, 0),
        ),
        (
            "an indirect table of one's own",
            descriptor(ring_base(0) + 16, 64, INDIRECT | WRITE, 0),
        ),
        (
            "no such descriptor",
            Box::new(|guest| {
                guest.set_available_index(0, 0);
                guest.write_slot(0, 0, 0xffff);
                guest.set_available_index(0, 1);
            }),
        ),
        (
            "index jumps",
            Box::new(|guest| guest.set_available_index(0, 0x8000)),
        ),
    ];
    for (name, step) in cases {
        let mut guest = Guest::running(2);
        step(&mut guest);
        guest.inject(0, 3);
        guest.inject(1, 3);
        let state = guest.read32(Register::RingState, 0);
        assert_eq!(state, RING_STATE_ERROR, "{name}");
        let cause = guest.read32(Register::StatusCause, 0);
        assert_eq!(cause, cause_dropped(0) | cause_error(0), "{name}");
        assert_eq!(guest.raised(), [STATUS_VECTOR, 1, 1, 1], "{name}");
        let counted = (guest.counted(0), guest.counted(1));
        assert_eq!(counted, ((3, 0), (3, 3)), "{name}");
        assert_eq!(guest.drain(1).len(), 3, "{name}");
    }
}

#[test]
fn a_withheld_event_counts_as_delivered_and_never_comes() {
    let mut guest = Guest::running(1);
    guest.device.withhold(0, 1).unwrap();
    guest.inject(0, 2);
    assert_eq!(guest.counted(0), (2, 2));
    assert_eq!(guest.raised(), [0]);
    let sequences: Vec<_> = guest.drain(0).iter().map(|e| e.sequence).collect();
    assert_eq!(sequences, [1]);
}

#[test]
fn a_storm_runs_in_bounded_steps_and_ends() {
    let mut guest = Guest::running(2);
    let storm = "[[phase]]\npattern = 'all-at-once'\nrate = 1_000_000\nduration_ms = 1";
    let storm = Storm::from_toml(storm).unwrap();
    guest.device.start_storm(&storm, 0, 0).unwrap();
    let again = guest.device.start_storm(&storm, 0, 0);
    assert_eq!(again, Err(StormError::Running));
    let (mut calls, mut seen) = (0, 0);
    let mut time = Some(0);
    while time.is_some() {
        // A host that is far behind gets all of it, a bounded piece at a time.
        time = guest.device.advance(&guest.memory, 5_000_000);
        for ring in 0..2 {
            for event in guest.drain(ring) {
                assert_eq!(event.source, SOURCE_STORM);
                seen += 1;
            }
        }
        calls += 1;
    }
    let stats = guest.device.stats();
    let generated: u64 = stats.rings.iter().map(|ring| ring.generated).sum();
    assert_eq!((generated, calls), (2000, 8));
    let delivered: u64 = stats.rings.iter().map(|ring| ring.delivered).sum();
    assert_eq!(delivered, seen);
    let status = stats.storm.unwrap();
    assert_eq!((status.running, status.made), (false, 2000));
    assert_eq!(guest.device.start_storm(&storm, 0, 0), Ok(()));
}

#[test]
fn time_never_runs_backwards_in_events() {
    let mut guest = Guest::running(1);
    for now in [50, 20, 60] {
        guest.device.doorbell(&guest.memory, 0, 1, now);
    }
    let times: Vec<_> = guest.drain(0).iter().map(|e| e.timestamp).collect();
    assert_eq!(times, [50, 50, 60]);
}

#[test]
fn impossible_devices_and_rings_are_refused() {
    let config = |rings, ring_size_max| Config {
        rings,
        ring_size_max,
        vectors: None,
    };
    let vectors = |rings, vectors| Config {
        rings,
        ring_size_max: 64,
        vectors: Some(vectors),
    };
    let refused = |vectors, rings| ConfigError::Vectors { vectors, rings };
    for (config, expected) in [
        (config(0, 64), ConfigError::Rings(0)),
        (config(9, 64), ConfigError::Rings(9)),
        (config(1, 0), ConfigError::RingSize(0)),
        (config(1, 1), ConfigError::RingSize(1)),
        (config(1, 48), ConfigError::RingSize(48)),
        (config(1, 2048), ConfigError::RingSize(2048)),
        (vectors(4, 4), refused(4, 4)),
        (vectors(1, 2049), refused(2049, 1)),
    ] {
        let made = Evgen::new(config, super::guest::Recorder::default());
        assert_eq!(made.err(), Some(expected));
    }
    let mut guest = Guest::running(2);
    let message = guest.device.withhold(2, 1).unwrap_err().to_string();
    assert_eq!(message, "there is no ring 2: the device has rings 0 to 1");
    guest.device.doorbell(&guest.memory, 7, 1, 0);
}

/// The datasheet's register table is the one in the code.
#[test]
fn the_datasheet_lists_these_registers() {
    let datasheet = include_str!("../../SPEC.md");
    for description in REGISTERS {
        let offset = if description.stride == 0 {
            format!("{:#05x}", description.offset)
        } else {
            let index = if description.count == FAULTS {
                'f'
            } else {
                'r'
            };
            format!(
                "{:#05x} + {:#x}·{index}",
                description.offset, description.stride
            )
        };
        let access = match description.access {
            Access::ReadOnly => "RO",
            Access::ReadWrite => "RW",
            Access::WriteOneToClear => "RW1C",
            Access::WriteOnly => "WO",
        };
        let row = format!(
            "| {offset} | `{}` | {} | {access} | {:#x} | {} |",
            description.name, description.width, description.reset, description.meaning
        );
        assert!(datasheet.contains(&row), "SPEC.md lacks this row:\n{row}");
    }
}
