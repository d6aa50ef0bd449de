// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Every fault: what it does, that it is counted, and that the books balance.

use lockstorm_abi::event::{Event, SOURCE_INJECT};
use lockstorm_abi::identity::REGISTER_BAR;
use lockstorm_abi::registers::{
    CAUSE_SELF_RESET, CONTROL_RESET, CONTROL_RUN, HEALTH_BUSY, HEALTH_HEARTBEAT_SHIFT, HEALTH_RUN,
    RING_FEATURE_EVENT_INDEX, RING_STATE_ERROR, Register,
};

use super::guest::{Guest, RING_SIZE};
use crate::{Fate, Fault};

const MILLISECOND: u64 = 1_000_000;
/// How long a fault lasts that lasts.
const LASTING: u64 = 500 * MILLISECOND;

fn inject_fault(guest: &mut Guest, ring: usize, fault: Fault, count: u32) {
    let now = guest.now;
    guest
        .device
        .inject_fault(&guest.memory, ring, fault, count, now)
        .unwrap();
}

fn came_about(guest: &Guest, fault: Fault) -> u64 {
    let count = guest.read(Register::FaultCount, fault as usize, 8);
    assert_eq!(count, guest.device.stats().faults[fault as usize]);
    count
}

fn sequences(guest: &mut Guest) -> Vec<u64> {
    let events = guest.drain(0);
    events.iter().map(|event| event.sequence).collect()
}

/// A ring of four buffers, a fault armed once, three events, then 2 ms.
#[test]
fn faults_of_events_and_interrupts() {
    struct Case {
        fault: Fault,
        /// Used index after each event, relative to the one at the start.
        index: [u16; 3],
        /// Interrupts after each event, and once the time has passed.
        interrupts: [usize; 4],
        /// Numbers of the events that arrive intact, in the end.
        intact: &'static [u64],
    }
    const WILD: u16 = 0x8000;
    for Case {
        fault,
        index,
        interrupts,
        intact,
    } in [
        Case {
            fault: Fault::LostInterrupt,
            index: [1, 2, 3],
            interrupts: [0, 1, 1, 0],
            intact: &[0, 1, 2],
        },
        Case {
            fault: Fault::DuplicateInterrupt,
            index: [1, 2, 3],
            interrupts: [2, 1, 1, 0],
            intact: &[0, 1, 2],
        },
        Case {
            fault: Fault::EarlyInterrupt,
            index: [0, 2, 3],
            interrupts: [1, 1, 1, 0],
            intact: &[0, 1, 2],
        },
        Case {
            fault: Fault::StaleIndex,
            index: [0, 2, 3],
            interrupts: [1, 1, 1, 0],
            intact: &[0, 1, 2],
        },
        Case {
            fault: Fault::WildIndex,
            index: [1 + WILD, 2, 3],
            interrupts: [1, 1, 1, 0],
            intact: &[0, 1, 2],
        },
        Case {
            fault: Fault::CorruptChecksum,
            index: [1, 2, 3],
            interrupts: [1, 1, 1, 0],
            intact: &[1, 2],
        },
        Case {
            fault: Fault::DuplicateEvent,
            index: [2, 3, 4],
            interrupts: [1, 1, 1, 0],
            intact: &[0, 0, 1, 2],
        },
        Case {
            fault: Fault::ReorderedEvent,
            index: [0, 2, 3],
            interrupts: [0, 2, 1, 0],
            intact: &[1, 0, 2],
        },
        Case {
            fault: Fault::UnmappedDma,
            index: [1, 2, 3],
            interrupts: [1, 1, 1, 0],
            intact: &[1, 2],
        },
    ] {
        let mut guest = Guest::running(1);
        inject_fault(&mut guest, 0, fault, 1);
        for event in 0..3 {
            guest.inject(0, 1);
            assert_eq!(guest.used_index(0), index[event], "{fault}, event {event}");
            assert_eq!(guest.raised().len(), interrupts[event], "{fault}, {event}");
        }
        guest.pass(2 * MILLISECOND);
        assert_eq!(guest.raised().len(), interrupts[3], "{fault}");
        let raw = guest.drain_raw(0);
        let arrived: Vec<_> = raw.iter().filter_map(Event::from_bytes).collect();
        let numbers: Vec<_> = arrived.iter().map(|event| event.sequence).collect();
        assert_eq!(numbers, intact, "{fault}");
        assert_eq!(came_about(&guest, fault), 1, "{fault}");

        let stats = guest.device.stats().rings[0];
        guest.counted(0);
        assert_eq!(stats.generated, 3, "{fault}");
        let used = stats.delivered + stats.faulted + stats.extra;
        assert_eq!(raw.len() as u64, used, "{fault}");
        assert_eq!(
            numbers.len() as u64,
            stats.delivered + stats.extra,
            "{fault}"
        );
    }
}

/// What a fault puts off does not need a next event.
#[test]
fn what_is_put_off_comes_in_time() {
    for (fault, before, after, interrupts) in [
        (Fault::EarlyInterrupt, 0, 1, 0),
        (Fault::StaleIndex, 0, 1, 0),
        (Fault::WildIndex, 0x8001, 1, 0),
        (Fault::ReorderedEvent, 0, 1, 1),
    ] {
        let mut guest = Guest::running(1);
        inject_fault(&mut guest, 0, fault, 1);
        guest.inject(0, 1);
        assert_eq!(guest.used_index(0), before, "{fault}");
        guest.raised();
        guest.pass(MILLISECOND);
        assert_eq!(guest.used_index(0), after, "{fault}");
        assert_eq!(guest.raised().len(), interrupts, "{fault}");
        assert_eq!(sequences(&mut guest), [0], "{fault}");
        assert_eq!(guest.device.due(), None, "{fault}");
        // An event that nothing followed did not come out of order.
        let expected = u64::from(fault != Fault::ReorderedEvent);
        assert_eq!(came_about(&guest, fault), expected, "{fault}");
    }
}

#[test]
fn a_ring_that_is_turned_off_is_right() {
    for fault in [
        Fault::EarlyInterrupt,
        Fault::StaleIndex,
        Fault::WildIndex,
        Fault::ReorderedEvent,
    ] {
        for (register, value) in [
            (Register::RingEnable, 0),
            (Register::Control, CONTROL_RESET.into()),
        ] {
            let mut guest = Guest::running(1);
            inject_fault(&mut guest, 0, fault, 1);
            guest.inject(0, 1);
            guest.raised();
            guest.write(register, 0, value);
            assert_eq!(sequences(&mut guest), [0], "{fault}");
            assert_eq!(guest.counted(0), (1, 1), "{fault}");
            guest.pass(2 * MILLISECOND);
            assert!(guest.raised().is_empty(), "{fault}");
        }
    }
}

/// A driver that has taken bus mastering away may have freed the ring's memory.
#[test]
fn a_wrong_index_is_put_right_by_none_who_may_not_write() {
    type Step = fn(&mut Guest);
    let cases: [Step; 4] = [
        |guest| guest.pass(2 * MILLISECOND),
        |guest| guest.write(Register::RingEnable, 0, 0),
        |guest| guest.write(Register::Control, 0, CONTROL_RESET.into()),
        |guest| guest.config_write(0x54, &[1]),
    ];
    for (number, step) in cases.iter().enumerate() {
        let mut guest = Guest::running(1);
        inject_fault(&mut guest, 0, Fault::StaleIndex, 1);
        guest.inject(0, 1);
        guest.config_write(0x04, &[0b010]);
        step(&mut guest);
        guest.pass(2 * MILLISECOND);
        assert_eq!(guest.used_index(0), 0, "case {number}");
        assert_eq!(guest.device.due(), None, "case {number}");
    }
}

#[test]
fn spurious_interrupts_are_bounded_whatever_the_host_asks_for() {
    let mut guest = Guest::running(1);
    inject_fault(&mut guest, 0, Fault::SpuriousInterrupt, u32::MAX);
    assert_eq!(guest.raised().len(), 65_536);
    assert_eq!(came_about(&guest, Fault::SpuriousInterrupt), 65_536);
}

/// After these the driver has looked at the ring and found nothing new; with event index it must
/// hear of the next event all the same.
#[test]
fn event_index_and_faults_of_the_index_do_not_silence_a_ring() {
    for fault in [Fault::EarlyInterrupt, Fault::StaleIndex, Fault::WildIndex] {
        let mut guest = Guest::running(1);
        guest.write(Register::RingEnable, 0, 0);
        guest.write(Register::RingFeatures, 0, RING_FEATURE_EVENT_INDEX.into());
        guest.lay_out(0);
        guest.write(Register::RingEnable, 0, 1);
        guest.set_used_event(0, 0);
        inject_fault(&mut guest, 0, fault, 1);
        guest.inject(0, 1);
        assert_eq!(guest.raised(), [0], "{fault}");
        guest.inject(0, 1);
        assert_eq!(guest.raised(), [0], "{fault}");
    }
}

#[test]
fn no_two_faults_befall_one_event() {
    let mut guest = Guest::running(1);
    inject_fault(&mut guest, 0, Fault::CorruptChecksum, 1);
    inject_fault(&mut guest, 0, Fault::UnmappedDma, 1);
    inject_fault(&mut guest, 0, Fault::ReorderedEvent, 1);
    guest.inject(0, 1);
    assert_eq!(came_about(&guest, Fault::CorruptChecksum), 1);
    assert_eq!(came_about(&guest, Fault::UnmappedDma), 0);
    // Held back; the next one is spoiled, so there is no order to be changed.
    guest.inject(0, 2);
    assert_eq!(came_about(&guest, Fault::ReorderedEvent), 0);
    assert_eq!(came_about(&guest, Fault::UnmappedDma), 1);
}

#[test]
fn a_spurious_interrupt_is_one_without_an_event() {
    let mut guest = Guest::running(2);
    inject_fault(&mut guest, 1, Fault::SpuriousInterrupt, 3);
    assert_eq!(guest.raised(), [1, 1, 1]);
    assert_eq!(came_about(&guest, Fault::SpuriousInterrupt), 3);
    assert_eq!(guest.counted(1), (0, 0));
}

#[test]
fn a_late_interrupt_comes_after_the_ring_is_off() {
    for (register, value) in [
        (Register::RingEnable, 0),
        (Register::Control, CONTROL_RESET.into()),
    ] {
        let mut guest = Guest::running(2);
        inject_fault(&mut guest, 1, Fault::LateInterrupt, 1);
        guest.write(register, 1, value);
        assert!(guest.raised().is_empty());
        assert_eq!(came_about(&guest, Fault::LateInterrupt), 0);
        guest.pass(MILLISECOND);
        assert_eq!(guest.raised(), [1]);
        assert_eq!(came_about(&guest, Fault::LateInterrupt), 1);
        guest.restart();
        guest.write(Register::RingEnable, 1, 0);
        guest.pass(MILLISECOND);
        assert!(guest.raised().is_empty(), "it was armed once");
    }
}

#[test]
fn a_device_that_hangs_drops_all_until_time_or_a_reset_frees_it() {
    for by_reset in [false, true] {
        let mut guest = Guest::running(1);
        guest.pass(3 * MILLISECOND);
        inject_fault(&mut guest, 0, Fault::Hang, 1);
        guest.pass(100 * MILLISECOND);
        let frozen = 3 << HEALTH_HEARTBEAT_SHIFT | HEALTH_RUN;
        assert_eq!(guest.read(Register::Health, 0, 8), frozen);
        guest.inject(0, 1);
        guest.write(Register::Doorbell, 0, 1);
        assert_eq!(guest.counted(0), (2, 0));
        assert!(guest.raised().is_empty(), "not even of its status it tells");
        if by_reset {
            guest.write(Register::Control, 0, CONTROL_RESET.into());
            guest.restart();
        } else {
            guest.pass(LASTING);
        }
        guest.inject(0, 1);
        assert_eq!(guest.counted(0), (3, 1));
        let heartbeat = guest.now / MILLISECOND;
        let expected = heartbeat << HEALTH_HEARTBEAT_SHIFT | HEALTH_RUN;
        assert_eq!(guest.read(Register::Health, 0, 8), expected);
        assert_eq!(came_about(&guest, Fault::Hang), 1);
    }
}

#[test]
fn a_busy_device_takes_no_register_writes_for_a_while() {
    let mut guest = Guest::running(1);
    inject_fault(&mut guest, 0, Fault::StuckBusy, 2);
    for _ in 0..2 {
        guest.write(Register::Control, 0, CONTROL_RESET.into());
        assert_eq!(
            guest.read(Register::Health, 0, 8) & HEALTH_BUSY,
            HEALTH_BUSY
        );
        assert_eq!(guest.read32(Register::Control, 0), CONTROL_RUN);
        guest.inject(0, 1);
        guest.pass(LASTING - 1);
    }
    guest.pass(2);
    assert_eq!(guest.read(Register::Health, 0, 8) & HEALTH_BUSY, 0);
    guest.write(Register::Control, 0, CONTROL_RESET.into());
    assert_eq!(guest.read32(Register::Control, 0), 0);
    assert_eq!(guest.counted(0), (2, 2));
}

#[test]
fn a_device_that_is_gone_reads_as_ones_and_does_nothing() {
    let mut guest = Guest::running(1);
    guest.pass(MILLISECOND);
    inject_fault(&mut guest, 0, Fault::AllOnes, 1);
    for (bar, offset) in [(REGISTER_BAR, 0), (REGISTER_BAR, 0x1ff8), (2, 0), (2, 4)] {
        let mut data = [0; 8];
        guest.device.bar_read(bar, offset, &mut data, guest.now);
        assert_eq!(data, [0xff; 8], "{offset:#x} of BAR {bar}");
    }
    let mut id = [0; 4];
    guest.device.config_read(0, &mut id, guest.now);
    assert_eq!(id, [0xff; 4]);
    guest.config_write(0x04, &[0]);
    guest.write(Register::Control, 0, CONTROL_RESET.into());
    guest.write(Register::Doorbell, 0, 1);
    guest.inject(0, 2);
    assert!(guest.raised().is_empty());
    guest.pass(LASTING);

    assert_eq!(guest.read32(Register::Control, 0), CONTROL_RUN);
    assert_eq!(guest.counted(0), (2, 0));
    guest.inject(0, 1);
    assert_eq!(guest.raised(), [0]);
    assert_eq!(sequences(&mut guest), [2]);
    assert_eq!(came_about(&guest, Fault::AllOnes), 1);
}

#[test]
fn an_event_that_is_spoilt_is_not_delivered_without_an_interrupt() {
    for fault in [Fault::CorruptChecksum, Fault::UnmappedDma] {
        let mut guest = Guest::running(1);
        guest.write(Register::RingCoalesceTime, 0, 50);
        guest.write(Register::RingCoalesceCount, 0, 3);
        inject_fault(&mut guest, 0, fault, 1);
        guest.inject(0, 2);
        assert!(guest.raised().is_empty());
        assert_eq!(guest.device.stats().rings[0].quiet, 1, "{fault}");
    }
}

#[test]
fn the_longest_of_several_faults_of_a_kind_counts() {
    for (fault, offset) in [
        (Fault::Hang, Register::Doorbell),
        (Fault::StuckBusy, Register::StatusVector),
        (Fault::AllOnes, Register::Doorbell),
    ] {
        let mut guest = Guest::running(1);
        inject_fault(&mut guest, 0, fault, 10);
        inject_fault(&mut guest, 0, fault, 1);
        // What shows that the device is in order: the doorbell's event, or the register's value.
        let in_order = |guest: &mut Guest| {
            guest.write(offset, 0, 0);
            let vector = guest.read32(Register::StatusVector, 0) == 0;
            vector || guest.counted(0).1 > 0
        };
        guest.pass(10 * LASTING - 1);
        assert!(!in_order(&mut guest), "{fault}");
        guest.pass(1);
        assert!(in_order(&mut guest), "{fault}");
    }
}

#[test]
fn a_device_that_resets_itself_says_so() {
    let mut guest = Guest::running(2);
    guest.inject(0, 1);
    guest.write(Register::StatusVector, 0, 0);
    guest.raised();
    inject_fault(&mut guest, 0, Fault::SelfReset, 1);
    assert_eq!(guest.raised(), [2], "at its place after reset");
    assert_eq!(guest.read32(Register::StatusCause, 0), CAUSE_SELF_RESET);
    assert_eq!(guest.read(Register::Health, 0, 8) & HEALTH_RUN, 0);
    assert_eq!(sequences(&mut guest), [0], "what was delivered stays so");
    guest.inject(0, 1);
    assert_eq!(guest.counted(0), (2, 1));
    guest.restart();
    guest.inject(0, 1);
    assert_eq!(sequences(&mut guest), [2]);
}

#[test]
fn a_host_reset_ends_every_fault_and_those_to_come() {
    let mut guest = Guest::running(1);
    for &fault in Fault::ALL {
        inject_fault(&mut guest, 0, fault, 5);
    }
    let now = guest.now;
    guest.device.host_reset(&guest.memory, now);
    assert_eq!(guest.read32(Register::StatusCause, 0), CAUSE_SELF_RESET);
    guest.raised();
    guest.restart();
    let before = guest.device.stats().faults;
    guest.inject(0, RING_SIZE.into());
    guest.pass(LASTING);
    assert_eq!(guest.raised(), [0; RING_SIZE as usize]);
    assert_eq!(sequences(&mut guest), [0, 1, 2, 3]);
    assert_eq!(guest.device.stats().faults, before);
}

#[test]
fn a_host_that_watches_gets_every_event_and_what_became_of_it() {
    let mut guest = Guest::running(1);
    guest.inject(0, 1);
    guest.device.observe(true);
    inject_fault(&mut guest, 0, Fault::CorruptChecksum, 1);
    guest.inject(0, 5);
    let (made, lost) = guest.device.take_made();
    let fates: Vec<_> = made.iter().map(|made| made.fate).collect();
    let [faulted, delivered, dropped] = [Fate::Faulted, Fate::Delivered, Fate::Dropped];
    assert_eq!(fates, [faulted, delivered, delivered, dropped, dropped]);
    assert!(made[0].faults.contains(Fault::CorruptChecksum) && made[1].faults.is_empty());
    assert_eq!(made[0].event.source, SOURCE_INJECT);
    assert_eq!(
        (made[0].event.sequence, made[0].storm_offset, lost),
        (1, None, 0)
    );

    guest.inject(0, 5000);
    let (made, lost) = guest.device.take_made();
    assert_eq!(
        (made.len() as u64 + lost, made[0].event.sequence),
        (5000, 6)
    );
    assert!(lost > 0);
    guest.device.observe(false);
    guest.inject(0, 1);
    assert_eq!(guest.device.take_made(), (vec![], 0));
}

#[test]
fn a_host_that_watches_hears_of_doorbells_that_are_dropped_at_once() {
    let mut guest = Guest::running(1);
    guest.device.observe(true);
    guest.device.doorbell(&guest.memory, 0, 5000, 0);
    let (made, lost) = guest.device.take_made();
    assert_eq!((made.len() as u64 + lost, lost), (5000, 5000 - 1024));
}

/// A ring that fails while its index is wrong has delivered what it has delivered.
#[test]
fn a_ring_that_fails_leaves_a_right_index() {
    let mut guest = Guest::running(1);
    inject_fault(&mut guest, 0, Fault::StaleIndex, 1);
    guest.inject(0, 1);
    guest.set_descriptor(0, 1, 0, 0, 0, 0);
    guest.inject(0, 1);
    assert_eq!(guest.read32(Register::RingState, 0), RING_STATE_ERROR);
    assert_eq!(sequences(&mut guest), [0]);
    assert_eq!(guest.counted(0), (2, 1));
}
