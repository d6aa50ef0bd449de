// SPDX-License-Identifier: Apache-2.0 OR MIT

use std::time::{Duration, Instant};

use lockstorm_device_model::abi::event::PAYLOAD_SIZE;
use lockstorm_device_model::{Fault, Injection, MsiMessage, MsiSink, Storm};

use super::*;
use crate::devices::evgen::{self, Forgotten};
use crate::machine::bus::Bus;
use crate::machine::clock::Clock;
use crate::pci::Windows;

struct Deaf;

impl MsiSink for Deaf {
    fn raise(&mut self, _vector: u16, _message: MsiMessage) {}
    fn release(&mut self) {}
}

/// `slots` empty slots of a machine without a guest, for `evgen`'s devices.
pub fn with_slots(evgen: Arc<EvgenHost>, slots: u8) -> SegmentSlots {
    let windows = Windows::new(0xc000_0000..0xe000_0000, 1 << 36..1 << 37).unwrap();
    let mut segment = Segment::new(Arc::new(Bus::default()), windows);
    for number in 1..=slots {
        let port = RootPort::new(number, Box::new(Deaf));
        segment.add_port(port).unwrap();
    }
    let slots = Slots {
        segment: Arc::new(segment),
        wiring: Box::new(evgen::wired_to_nothing),
        usual: Config::default(),
    };
    SegmentSlots::new(evgen, Some(slots))
}

/// A machine with that many devices on its root bus and that many slots.
fn machine(devices: usize, slots: u8) -> (Arc<EvgenHost>, SegmentSlots) {
    let clock = Clock::new(Instant::now());
    let evgen = Arc::new(evgen::without_kvm(devices, Config::default(), &clock));
    let hot_plug = with_slots(Arc::clone(&evgen), slots);
    (evgen, hot_plug)
}

fn plugged(device: usize, slot: u8) -> Plugged {
    Plugged { device, slot }
}

fn error<T: std::fmt::Debug>(result: Result<T, HotPlugError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_device_gets_a_number_that_no_other_had_and_the_slot_asked_for_or_a_free_one() {
    let (_, hot_plug) = machine(2, 3);
    let plug = |slot| hot_plug.plug(None, None, slot);
    assert_eq!(plug(None).unwrap(), plugged(2, 1));
    assert_eq!(plug(Some(3)).unwrap(), plugged(3, 3));
    assert!(error(plug(Some(3))).contains("taken by device 3"));
    assert!(error(plug(Some(4))).contains("slots 1 to 3"));
    assert!(error(plug(Some(0))).contains("no slot 0"));
    assert_eq!(plug(None).unwrap(), plugged(4, 2));
    assert!(error(plug(None)).contains("all slots are taken"));
    hot_plug.pull(3).unwrap();
    assert_eq!(plug(None).unwrap(), plugged(5, 3));
    let devices: Vec<_> = hot_plug.slots().iter().map(|slot| slot.device).collect();
    assert_eq!(devices, [Some(2), Some(4), Some(5)]);
}

#[test]
fn a_machine_without_slots_says_so() {
    let (evgen, no_ports) = machine(1, 0);
    for hot_plug in [no_ports, SegmentSlots::new(evgen, None)] {
        assert!(error(hot_plug.plug(None, None, None)).contains("--ports"));
        assert!(error(hot_plug.unplug(0)).contains("device 0 is not in a slot"));
        assert_eq!(hot_plug.slots(), []);
    }
}

#[test]
fn a_device_is_as_asked_for_or_as_usual_and_a_bad_one_takes_neither_number_nor_slot() {
    let (evgen, hot_plug) = machine(0, 2);
    for (rings, vectors) in [(Some(9), None), (Some(0), None), (Some(4), Some(4))] {
        let refused = error(hot_plug.plug(rings, vectors, None));
        assert!(refused.contains("cannot make evgen device 0"), "{refused}");
    }
    hot_plug.plug(Some(8), Some(12), None).unwrap();
    hot_plug.plug(None, None, None).unwrap();
    let shapes: Vec<_> = evgen
        .figures()
        .iter()
        .map(|of| (of.device, of.stats.rings.len(), of.stats.raised.len()))
        .collect();
    assert_eq!(shapes, [(0, 8, 12), (1, 4, 5)]);
}

#[test]
fn only_what_is_in_a_slot_can_be_taken_out() {
    let (_, hot_plug) = machine(1, 1);
    hot_plug.plug(None, None, None).unwrap();
    for take_out in [SegmentSlots::unplug, SegmentSlots::pull] {
        assert!(error(take_out(&hot_plug, 0)).contains("device 0 is not in a slot"));
        assert!(error(take_out(&hot_plug, 2)).contains("the machine has 0 to 1"));
    }
    hot_plug.pull(1).unwrap();
    for take_out in [SegmentSlots::unplug, SegmentSlots::pull] {
        assert!(error(take_out(&hot_plug, 1)).contains("device 1 is gone"));
    }
    // The guest does not listen, so it cannot be asked.
    hot_plug.plug(None, None, None).unwrap();
    assert!(error(hot_plug.unplug(2)).contains("does not hear"));
    assert_eq!(hot_plug.slots()[0].device, Some(2));
}

#[test]
fn what_a_device_counted_outlives_it_and_its_storm_ends() {
    let (evgen, hot_plug) = machine(1, 1);
    hot_plug.plug(None, None, None).unwrap();
    let storm = "[[phase]]\npattern = 'periodic'\nrate = 1000\nduration_ms = 3_600_000";
    let storm = Storm::from_toml(storm).unwrap();
    evgen.start_storm(&storm, None).unwrap();
    evgen
        .inject_fault(1, 0, Fault::SpuriousInterrupt, 1)
        .unwrap();
    let counted = || evgen.figures()[1].clone();
    while counted().stats.rings[0].generated == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    hot_plug.pull(1).unwrap();
    let last = counted();
    let storm = last.stats.storm.unwrap();
    assert!(last.gone && !storm.running && storm.made > 0);
    let made: u64 = last.stats.rings.iter().map(|ring| ring.generated).sum();
    let faults = last.stats.faults[Fault::SpuriousInterrupt as usize];
    assert_eq!((made, faults), (storm.made, 1));
    std::thread::sleep(Duration::from_millis(10));
    assert_eq!(counted().stats, last.stats);
    // The other one goes on, alone.
    assert!(evgen.figures()[0].stats.storm.unwrap().running);
    let gone = evgen.reset(1).unwrap_err();
    assert_eq!(gone, CommandError::Gone { device: 1 });
    assert!(evgen.check(Some(&[0, 1])).is_err());
}

#[test]
fn of_those_that_are_gone_the_last_are_kept() {
    let (evgen, hot_plug) = machine(1, 1);
    for device in 1..=50 {
        hot_plug.plug(None, None, None).unwrap();
        let injection = Injection {
            ring: 0,
            kind: 0,
            payload: [0; PAYLOAD_SIZE],
            count: 1,
            acknowledge: false,
        };
        evgen.inject(device, injection).unwrap();
        hot_plug.pull(device).unwrap();
    }
    hot_plug.plug(None, None, None).unwrap();
    let kept: Vec<_> = evgen.figures().iter().map(|of| of.device).collect();
    let expected = [0].into_iter().chain(19..=51);
    assert_eq!(kept, expected.collect::<Vec<_>>());
    let Forgotten { devices, rings } = evgen.forgotten();
    assert_eq!((devices, rings.generated, rings.dropped), (18, 18, 18));
    // One that is forgotten has been there all the same.
    assert!(error(hot_plug.pull(3)).contains("device 3 is gone"));
}

/// A device that is taken out leaves nothing behind in this process.
#[test]
fn a_thousand_devices_come_and_go_and_no_descriptor_stays() {
    let (_, hot_plug) = machine(1, 2);
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let cycle = |device| {
        hot_plug.plug(None, None, None).unwrap();
        hot_plug.pull(device).unwrap();
    };
    (1..=40).for_each(cycle);
    let before = descriptors();
    (41..=1040).for_each(cycle);
    // Other tests run meanwhile, and open some.
    let after = descriptors();
    assert!(
        after < before + 500,
        "{before} and then {after} descriptors"
    );
}
