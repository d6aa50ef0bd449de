// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Storms on a whole device, with a driver in miniature that recovers from whatever it sees.

use std::collections::BTreeSet;

use lockstorm_abi::event::{Event, SOURCE_STORM};
use lockstorm_abi::registers::{
    CONTROL_RESET, HEALTH_BUSY, HEALTH_RUN, RING_FEATURE_EVENT_INDEX, Register,
};

use super::guest::{Guest, RING_SIZE};
use crate::{Fault, Storm};

const RINGS: usize = 4;
const MICROSECOND: u64 = 1000;
const MILLISECOND: u64 = 1_000_000;

/// A storm of a million events, in which each fault comes about.
const EVERYTHING: &str = "
    seed = 21
    [[phase]]
    pattern = 'poisson'
    rate = 100_000
    duration_ms = 1500
    [phase.faults]
    spurious-interrupt = 2000
    lost-interrupt = 2000
    duplicate-interrupt = 2000
    early-interrupt = 2000
    late-interrupt = 20_000
    stale-index = 2000
    wild-index = 3000
    corrupt-checksum = 500
    duplicate-event = 700
    reordered-event = 300
    unmapped-dma = 900
    self-reset = 50_000
    [[phase]]
    pattern = 'burst'
    rate = 100_000
    burst = 3
    duration_ms = 1100
    [phase.faults]
    corrupt-checksum = 900
    duplicate-event = 500
    reordered-event = 500
    late-interrupt = 20_000
    hang = 150_000
    stuck-busy = 150_000
    all-ones = 150_000";

/// What the driver got from one ring.
#[derive(Default)]
struct Got {
    intact: u64,
    spoilt: u64,
    out_of_order: u64,
    last: Option<u64>,
    distinct: BTreeSet<u64>,
}

impl Got {
    fn take(&mut self, bytes: &[u8; 64]) {
        let Some(event) = Event::from_bytes(bytes) else {
            self.spoilt += 1;
            return;
        };
        assert_eq!(event.source, SOURCE_STORM);
        self.intact += 1;
        self.out_of_order += u64::from(self.last.is_some_and(|last| event.sequence <= last));
        self.last = self.last.max(Some(event.sequence));
        self.distinct.insert(event.sequence);
    }
}

/// Does what a driver does: takes what is there, and recovers.
fn service(guest: &mut Guest, got: &mut [Got]) {
    let health = guest.read(Register::Health, 0, 8);
    // Gone, or busy: there is nothing to be done but wait.
    if health == u64::MAX || health & HEALTH_BUSY != 0 {
        return;
    }
    for (ring, got) in got.iter_mut().enumerate() {
        let wild = guest.used_index(ring).wrapping_sub(guest.next_used(ring)) > RING_SIZE;
        if wild {
            guest.write(Register::RingEnable, ring, 0);
        }
        guest
            .drain_raw(ring)
            .iter()
            .for_each(|bytes| got.take(bytes));
        if wild {
            guest.lay_out(ring);
            guest.write(Register::RingEnable, ring, 1);
        }
    }
    if health & HEALTH_RUN == 0 {
        guest.write(Register::Control, 0, CONTROL_RESET.into());
        guest.restart();
    }
}

#[test]
fn a_million_events_with_every_fault_reconcile_exactly() {
    let mut guest = Guest::running(RINGS as u8);
    let storm = Storm::from_toml(EVERYTHING).unwrap();
    guest.device.start_storm(&storm, 0, 0).unwrap();
    let mut got: [Got; RINGS] = std::array::from_fn(|_| Got::default());
    while guest.device.stats().storm.unwrap().running {
        guest.pass(10 * MICROSECOND);
        service(&mut guest, &mut got);
    }
    // What is put off, and what lasts, comes to its end.
    guest.pass(2000 * MILLISECOND);
    service(&mut guest, &mut got);

    let stats = guest.device.stats();
    let sum = |figure: fn(&crate::RingStats) -> u64| stats.rings.iter().map(figure).sum::<u64>();
    let came_about = |fault: Fault| stats.faults[fault as usize];
    for &fault in Fault::ALL {
        assert!(came_about(fault) > 0, "{fault} never came about: {stats:?}");
    }
    let made = stats.storm.unwrap().made;
    assert!(made >= 1_000_000, "{made}");
    assert_eq!(sum(|ring| ring.generated), made);
    assert!(sum(|ring| ring.delivered) > made / 2, "{stats:?}");

    let spoilt = came_about(Fault::CorruptChecksum) + came_about(Fault::UnmappedDma);
    assert_eq!(sum(|ring| ring.faulted), spoilt);
    assert_eq!(sum(|ring| ring.extra), came_about(Fault::DuplicateEvent));
    let out_of_order = came_about(Fault::DuplicateEvent) + came_about(Fault::ReorderedEvent);
    assert_eq!(
        got.iter().map(|got| got.out_of_order).sum::<u64>(),
        out_of_order
    );
    for (ring, got) in stats.rings.iter().zip(&got) {
        assert_eq!(ring.generated, ring.delivered + ring.dropped + ring.faulted);
        assert_eq!(got.intact, ring.delivered + ring.extra);
        assert_eq!(got.spoilt, ring.faulted);
        assert_eq!(got.distinct.len() as u64, ring.delivered);
        assert!(
            got.distinct
                .last()
                .is_none_or(|&last| last < ring.generated)
        );
    }
}

/// Two hosts, one of them slow: the same storm by its token.
#[test]
fn the_same_token_makes_the_same_events_byte_for_byte() {
    let storm = Storm::from_toml(
        "seed = 7\n[[phase]]\npattern = 'poisson'\nrate = 1000\nduration_ms = 500\n\
         faults = { corrupt-checksum = 50, reordered-event = 50, duplicate-event = 70 }",
    )
    .unwrap();
    let token = storm.token();
    let run = |step: u64, instance| {
        let mut guest = Guest::running(2);
        guest.device.observe(true);
        let storm = Storm::from_token(&token).unwrap();
        guest.device.start_storm(&storm, instance, 0).unwrap();
        let mut events = Vec::new();
        while guest.device.stats().storm.unwrap().running {
            guest.pass(step);
            for ring in 0..2 {
                guest.drain_raw(ring);
            }
            events.extend(guest.device.take_made().0);
        }
        // When an event was made is the host's doing; when it was due is the storm's.
        let mut bytes: Vec<_> = events
            .iter()
            .map(|made| {
                let mut event = made.event;
                event.timestamp = made.storm_offset.unwrap();
                (event.ring, event.sequence, event.to_bytes())
            })
            .collect();
        bytes.sort_unstable();
        (bytes, guest.device.stats().storm.unwrap().digest)
    };
    let (first, digest) = run(20 * MICROSECOND, 0);
    assert!(first.len() > 500, "{}", first.len());
    assert_eq!(run(20 * MICROSECOND, 0), (first.clone(), digest));
    let (late, late_digest) = run(MILLISECOND, 0);
    assert_eq!((late, late_digest), (first.clone(), digest));
    let (other, other_digest) = run(20 * MICROSECOND, 1);
    assert!(other != first && other_digest != digest);
}

/// A ring may never be turned off while it storms.
#[test]
fn late_interrupts_do_not_outlive_their_storm() {
    let mut guest = Guest::running(1);
    let storm = "[[phase]]\npattern = 'periodic'\nrate = 1000\nduration_ms = 100\n\
                 faults = { late-interrupt = 1 }";
    let storm = Storm::from_toml(storm).unwrap();
    guest.device.start_storm(&storm, 0, 0).unwrap();
    guest.pass(100 * MILLISECOND);
    guest.raised();
    for late in [1, 0] {
        guest.write(Register::RingEnable, 0, 0);
        guest.pass(MILLISECOND);
        assert_eq!(guest.raised().len(), late);
        guest.lay_out(0);
        guest.write(Register::RingEnable, 0, 1);
    }
}

/// With event index a ring may interrupt rarely. A storm's faults of interrupts do not pile up until
/// it does.
#[test]
fn faults_of_interrupts_do_not_outlive_their_storm() {
    let mut guest = Guest::running(1);
    guest.write(Register::RingEnable, 0, 0);
    guest.write(Register::RingFeatures, 0, RING_FEATURE_EVENT_INDEX.into());
    guest.lay_out(0);
    guest.set_used_event(0, 0x7000);
    guest.write(Register::RingEnable, 0, 1);
    let storm = "[[phase]]\npattern = 'periodic'\nrate = 1000\nduration_ms = 100\n\
                 faults = { lost-interrupt = 1, duplicate-interrupt = 1 }";
    let storm = Storm::from_toml(storm).unwrap();
    guest.device.start_storm(&storm, 0, 0).unwrap();
    for _ in 0..100 {
        guest.pass(MILLISECOND);
        guest.drain(0);
    }
    assert!(guest.raised().is_empty());
    let interrupts = |guest: &mut Guest| {
        guest.set_used_event(0, guest.used_index(0));
        guest.inject(0, 1);
        guest.drain(0);
        guest.raised().len()
    };
    assert_eq!(interrupts(&mut guest), 0);
    assert_eq!(interrupts(&mut guest), 2);
    assert_eq!(interrupts(&mut guest), 1);
}
