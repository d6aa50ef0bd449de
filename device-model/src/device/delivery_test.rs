// SPDX-License-Identifier: Apache-2.0 OR MIT

//! How the driver is told of events: event index, coalescing, steering, acknowledgement.

use lockstorm_abi::event::FLAG_ACKNOWLEDGE;
use lockstorm_abi::registers::{
    CONTROL_RESET, HEALTH_BUSY, HEALTH_HEARTBEAT_SHIFT, HEALTH_RUN, RING_FEATURE_EVENT_INDEX,
    Register,
};

use super::guest::{Guest, RING_SIZE};
use crate::Injection;

const MICROSECOND: u64 = 1000;
const MILLISECOND: u64 = 1_000_000;

/// One ring with event index, and nothing taken.
fn with_event_index() -> Guest {
    let mut guest = Guest::running(1);
    guest.write(Register::RingEnable, 0, 0);
    guest.write(Register::RingFeatures, 0, RING_FEATURE_EVENT_INDEX.into());
    guest.lay_out(0);
    guest.write(Register::RingEnable, 0, 1);
    guest
}

#[test]
fn with_event_index_only_the_event_asked_for_interrupts() {
    let mut guest = with_event_index();
    guest.set_used_event(0, 0);
    guest.inject(0, 3);
    assert_eq!(guest.raised(), [0]);
    guest.drain(0);

    // The driver wants to hear of the fifth, with the fourth it has patience.
    guest.set_used_event(0, 4);
    guest.inject(0, 1);
    assert!(guest.raised().is_empty());
    guest.inject(0, 2);
    assert_eq!(guest.raised(), [0]);
    assert_eq!(guest.device.stats().rings[0].quiet, 4);
}

#[test]
fn event_index_goes_around_with_the_used_index() {
    let mut guest = with_event_index();
    let mut index: u16 = 0;
    for lap in 0..70_000_u32 / 3 {
        guest.set_used_event(0, index);
        guest.inject(0, 3);
        assert_eq!(guest.raised(), [0], "lap {lap}");
        assert_eq!(guest.drain(0).len(), 3);
        index = index.wrapping_add(3);
    }
    assert!(index > 0, "the index must not be where it was at first");
}

#[test]
fn without_the_feature_the_drivers_wish_is_not_read() {
    let mut guest = Guest::running(1);
    guest.set_used_event(0, 0x7000);
    guest.inject(0, 2);
    assert_eq!(guest.raised(), [0, 0]);
}

#[test]
fn coalescing_waits_for_the_count_or_the_time() {
    let mut guest = Guest::running(2);
    guest.write(Register::RingCoalesceTime, 0, 50);
    guest.write(Register::RingCoalesceCount, 0, 3);
    guest.inject(0, 2);
    assert!(guest.raised().is_empty());
    guest.inject(0, 1);
    assert_eq!(guest.raised(), [0]);
    guest.drain(0);

    guest.inject(0, 1);
    guest.pass(50 * MICROSECOND - 1);
    assert!(guest.raised().is_empty());
    guest.pass(1);
    assert_eq!(guest.raised(), [0]);
    guest.pass(MILLISECOND);
    assert!(guest.raised().is_empty(), "there is nothing more to tell");
    assert_eq!(guest.device.stats().rings[0].quiet, 3);

    // The other ring is as it was, and a change lets nothing wait by the old settings.
    guest.inject(1, 1);
    guest.inject(0, 1);
    assert_eq!(guest.raised(), [1]);
    guest.write(Register::RingCoalesceCount, 0, 0);
    assert_eq!(guest.raised(), [0]);
    guest.inject(0, 1);
    assert_eq!(guest.raised(), [0]);
}

#[test]
fn a_reset_forgets_the_interrupt_that_waits() {
    let mut guest = Guest::running(1);
    guest.write(Register::RingCoalesceTime, 0, 50);
    guest.write(Register::RingCoalesceCount, 0, 3);
    guest.inject(0, 1);
    guest.write(Register::Control, 0, CONTROL_RESET.into());
    guest.pass(MILLISECOND);
    assert!(guest.raised().is_empty());
    assert_eq!(guest.device.due(), None);
}

#[test]
fn a_driver_steers_vectors_but_only_to_those_that_are_there() {
    let mut guest = Guest::with_vectors(2, 2048);
    guest.unmask_all(2048);
    guest.restart();
    for (register, ring, value, expected) in [
        (Register::RingVector, 0, 2047, 2047),
        (Register::RingVector, 1, 2048, 1),
        (Register::RingVector, 1, 0xffff_ffff, 1),
        (Register::StatusVector, 0, 2047, 2047),
        (Register::StatusVector, 0, 2048, 2047),
    ] {
        guest.write(register, ring, value);
        assert_eq!(guest.read32(register, ring), expected, "{register:?}");
    }
    guest.inject(0, 1);
    guest.inject(1, u32::from(RING_SIZE) + 1);
    assert_eq!(guest.raised(), [2047, 1, 1, 1, 1, 2047]);
    assert_eq!(guest.read32(Register::Vectors, 0), 2048);
}

#[test]
fn an_acknowledged_event_tells_how_long_its_handler_took() {
    let mut guest = Guest::running(1);
    let inject = |guest: &mut Guest, acknowledge| {
        let injection = Injection {
            ring: 0,
            kind: 0,
            payload: [0; 32],
            count: 1,
            acknowledge,
        };
        let now = guest.now;
        guest.device.inject(&guest.memory, &injection, now).unwrap();
    };
    inject(&mut guest, true);
    inject(&mut guest, false);
    guest.pass(10);
    inject(&mut guest, true);
    let flags: Vec<_> = guest.drain(0).iter().map(|event| event.flags).collect();
    assert_eq!(flags, [FLAG_ACKNOWLEDGE, 0, FLAG_ACKNOWLEDGE]);
    guest.pass(5);
    for _ in 0..3 {
        // One too many, which a hostile driver may well write.
        guest.write(Register::RingAcknowledge, 0, 1);
    }
    assert_eq!(guest.device.take_latencies(), [15, 5]);
    assert!(guest.device.take_latencies().is_empty());
}

#[test]
fn health_shows_the_time_and_whether_the_device_runs() {
    let mut guest = Guest::running(1);
    guest.pass(7 * MILLISECOND);
    let heartbeat = 7 << HEALTH_HEARTBEAT_SHIFT;
    assert_eq!(guest.read(Register::Health, 0, 8), heartbeat | HEALTH_RUN);
    guest.write(Register::Control, 0, CONTROL_RESET.into());
    assert_eq!(guest.read(Register::Health, 0, 8), heartbeat);
    assert_eq!(heartbeat & HEALTH_BUSY, 0);
}

#[test]
fn a_full_ring_is_told_from_one_that_is_off() {
    let mut guest = Guest::running(2);
    guest.write(Register::RingEnable, 1, 0);
    for ring in 0..2 {
        guest.inject(ring, u32::from(RING_SIZE) + 3);
    }
    assert_eq!(guest.read(Register::RingFull, 0, 8), 3);
    assert_eq!(guest.read(Register::RingFull, 1, 8), 0);
    assert_eq!(guest.read(Register::RingDropped, 1, 8), 7);
}

/// Each acknowledgement means the oldest event, also when there were too many to keep the times of.
#[test]
fn a_driver_that_is_behind_gives_fewer_latencies_but_no_wrong_ones() {
    let mut guest = Guest::running(1);
    let inject = |guest: &mut Guest, count| {
        for _ in 0..count {
            let injection = Injection {
                ring: 0,
                kind: 0,
                payload: [0; 32],
                count: 1,
                acknowledge: true,
            };
            let now = guest.now;
            guest.device.inject(&guest.memory, &injection, now).unwrap();
            guest.drain(0);
        }
    };
    inject(&mut guest, 100);
    guest.pass(1000);
    for _ in 0..100 {
        guest.write(Register::RingAcknowledge, 0, 1);
    }
    assert_eq!(guest.device.take_latencies(), [1000; 64]);
    inject(&mut guest, 1);
    guest.pass(7);
    guest.write(Register::RingAcknowledge, 0, 1);
    assert_eq!(guest.device.take_latencies(), [7]);
}
