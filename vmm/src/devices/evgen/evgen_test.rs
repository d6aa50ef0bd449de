// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The devices in a VM without KVM: the test counts doorbells in its place.

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lockstorm_device_model::abi::event::PAYLOAD_SIZE;
use lockstorm_device_model::abi::identity::{MSIX_BAR, REGISTER_BAR};
use lockstorm_device_model::abi::registers::{CONTROL_RESET, Register};
use vm_memory::GuestAddress;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::errno;
use vmm_sys_util::eventfd::EventFd;

use super::*;
use crate::pci::PciFunction;
use lockstorm_device_model::{MsiMessage, MsiSink, Stats};

const BAR: u64 = 0xc000_0000;

struct NoInterrupts;

impl MsiSink for NoInterrupts {
    fn raise(&mut self, _vector: u16, _message: MsiMessage) {}
    fn release(&mut self) {}
}

/// What KVM would watch, by address.
#[derive(Default)]
struct Counter {
    watched: Mutex<BTreeMap<u64, EventFd>>,
    refuse: bool,
}

impl Counter {
    /// The guest writes to `address`; false if that is an exit.
    fn write(&self, address: u64, times: u64) -> bool {
        let watched = self.watched.lock().unwrap();
        let count = watched.get(&address);
        count.is_some_and(|count| count.write(times).is_ok())
    }

    /// Whether writes to `address` wait to be taken.
    fn waiting(&self, address: u64) -> bool {
        let epoll = Epoll::new().unwrap();
        let fd = self.watched.lock().unwrap()[&address].as_raw_fd();
        let event = EpollEvent::new(EventSet::IN, 0);
        epoll.ctl(ControlOperation::Add, fd, event).unwrap();
        epoll.wait(0, &mut [event]).unwrap() > 0
    }

    fn addresses(&self) -> Vec<u64> {
        self.watched.lock().unwrap().keys().copied().collect()
    }
}

impl WriteCounter for Counter {
    fn attach(&self, address: u64, count: &EventFd) -> Result<(), errno::Error> {
        if self.refuse {
            return Err(errno::Error::new(libc::ENOSPC));
        }
        let count = count.try_clone().unwrap();
        let old = self.watched.lock().unwrap().insert(address, count);
        assert!(old.is_none(), "{address:#x} attached twice");
        Ok(())
    }

    fn detach(&self, address: u64, _count: &EventFd) -> Result<(), errno::Error> {
        let old = self.watched.lock().unwrap().remove(&address);
        assert!(old.is_some(), "{address:#x} is not attached");
        Ok(())
    }
}

fn setup(counter: Counter, devices: usize) -> (Arc<Counter>, EvgenHost) {
    setup_with(counter, devices, &Clock::new(Instant::now()))
}

fn setup_with(counter: Counter, devices: usize, clock: &Clock) -> (Arc<Counter>, EvgenHost) {
    let counter = Arc::new(counter);
    let host = start(counter.clone(), devices, Config::default(), clock);
    (counter, host)
}

/// Devices that no guest drives, for other tests.
pub fn without_kvm(devices: usize, config: Config, clock: &Clock) -> EvgenHost {
    start(Arc::new(Counter::default()), devices, config, clock)
}

/// What wires a device to such a machine.
pub fn wired_to_nothing() -> Wiring {
    wiring(NoInterrupts, Arc::default())
}

fn wiring(sink: impl MsiSink + Send + 'static, counter: Arc<Counter>) -> Wiring {
    Wiring {
        sink: Box::new(sink),
        memory: Memory::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap(),
        doorbells: Some(counter),
    }
}

fn start(counter: Arc<Counter>, devices: usize, config: Config, clock: &Clock) -> EvgenHost {
    let (events, _) = Events::channel();
    let host = EvgenHost::start(Arc::default(), clock, events).unwrap();
    for device in 0..devices {
        let wiring = wiring(NoInterrupts, Arc::clone(&counter));
        assert_eq!(host.add(config, wiring).unwrap().0, device);
    }
    host
}

fn stats(host: &EvgenHost) -> Vec<Stats> {
    let figures = host.figures().into_iter();
    figures.map(|figures| figures.stats).collect()
}

fn doorbell(bar: u64, ring: usize) -> u64 {
    bar + Register::Doorbell.offset(ring) as u64
}

fn generated(function: &EvgenFunction, ring: usize) -> u64 {
    let mut data = [0; 8];
    let offset = Register::RingGenerated.offset(ring) as u64;
    function.bar_read(REGISTER_BAR, offset, &mut data);
    u64::from_le_bytes(data)
}

#[test]
fn doorbells_are_served_before_whatever_comes_next() {
    let (counter, host) = setup(Counter::default(), 1);
    let function = &host.function(0).unwrap();
    function.decoding(REGISTER_BAR, Some(BAR));
    assert!(counter.write(doorbell(BAR, 0), 3));
    assert!(counter.write(doorbell(BAR, 3), 5));
    assert_eq!((generated(function, 0), generated(function, 3)), (3, 5));

    // Those rung before a reset are served before it; none is left for the time after.
    assert!(counter.write(doorbell(BAR, 0), 7));
    let control = Register::Control.offset(0) as u64;
    function.bar_write(REGISTER_BAR, control, &CONTROL_RESET.to_le_bytes());
    assert!(!counter.waiting(doorbell(BAR, 0)));
    assert_eq!(generated(function, 0), 10);
}

#[test]
fn doorbells_follow_the_bar_and_lose_nothing() {
    let (counter, host) = setup(Counter::default(), 1);
    let function = &host.function(0).unwrap();
    let all = |bar: u64| (0..4).map(|ring| doorbell(bar, ring)).collect::<Vec<_>>();
    function.decoding(REGISTER_BAR, Some(BAR));
    assert_eq!(counter.addresses(), all(BAR));
    counter.write(doorbell(BAR, 1), 2);
    function.decoding(REGISTER_BAR, None);
    assert!(counter.addresses().is_empty());
    function.decoding(REGISTER_BAR, Some(BAR + 0x1_0000));
    assert_eq!(counter.addresses(), all(BAR + 0x1_0000));
    counter.write(doorbell(BAR + 0x1_0000, 1), 1);
    assert_eq!(generated(function, 1), 3);

    // The MSI-X BAR has no doorbells.
    function.decoding(MSIX_BAR, Some(BAR));
    assert_eq!(counter.addresses(), all(BAR + 0x1_0000));
}

#[test]
fn without_ioeventfd_a_doorbell_is_an_exit() {
    let refusing = Counter {
        refuse: true,
        ..Counter::default()
    };
    let (counter, host) = setup(refusing, 1);
    let function = &host.function(0).unwrap();
    function.decoding(REGISTER_BAR, Some(BAR));
    assert!(!counter.write(doorbell(BAR, 2), 1));
    function.bar_write(REGISTER_BAR, Register::Doorbell.offset(2) as u64, &[0; 4]);
    function.decoding(REGISTER_BAR, None);
    assert_eq!(generated(function, 2), 1);
}

#[test]
fn the_worker_serves_doorbells_and_storms() {
    let (counter, host) = setup(Counter::default(), 2);
    host.function(1).unwrap().decoding(REGISTER_BAR, Some(BAR));
    counter.write(doorbell(BAR, 0), 4);
    let count = |device: usize| stats(&host)[device].rings[0].generated;
    wait_until("doorbells", || !counter.waiting(doorbell(BAR, 0)));
    assert_eq!(count(1), 4);

    host.start_storm(&storm(), None).unwrap();
    wait_until("a storm", || count(0) > 20 && count(1) > 20);
    host.stop_storm();
    let before = (count(0), count(1));
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!((count(0), count(1)), before);
    host.stop();
    host.stop();
}

#[test]
fn while_the_clock_stands_still_a_storm_does_too() {
    let clock = Clock::new(Instant::now());
    let (_, host) = setup_with(Counter::default(), 1, &clock);
    // More than any host can keep up with, so that there is always something due.
    let flood = "[[phase]]\npattern = 'periodic'\nrate = 10_000_000\nduration_ms = 3_600_000";
    let flood = Storm::from_toml(flood).unwrap();
    host.start_storm(&flood, None).unwrap();
    let count = || stats(&host)[0].rings[0].generated;
    wait_until("a storm", || count() > 20);
    clock.stop();
    host.stand_still();
    let before = count();
    // Nor does it get on when the worker wakes up for something else.
    host.worker.wake();
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(count(), before);
    // What the host asks for is done all the same.
    host.inject(0, one(0)).unwrap();
    assert_eq!(count(), before + 1);
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(count(), before + 1);
    let elapsed = stats(&host)[0].storm.unwrap().elapsed;
    clock.go_on();
    host.go_on();
    wait_until("the storm again", || count() > before + 20);
    assert!(stats(&host)[0].storm.unwrap().elapsed > elapsed);
}

#[test]
fn what_is_observed_is_told_once_and_in_order() {
    let (_, host) = setup(Counter::default(), 2);
    host.inject(0, one(0)).unwrap();
    host.observe(&|device| device == 1);
    host.inject(0, one(0)).unwrap();
    host.inject(
        1,
        Injection {
            count: 600,
            ..one(2)
        },
    )
    .unwrap();
    host.withhold(1, 3, 1).unwrap();
    let told = host.feed().take();
    let sequences: Vec<_> = told
        .iter()
        .map(|told| (told.device, told.made.event.ring, told.made.event.sequence))
        .collect();
    assert_eq!(sequences, (0..600).map(|n| (1, 2, n)).collect::<Vec<_>>());
    assert!(told.iter().all(|told| told.lost == 0));
    host.observe(&|_| false);
    host.inject(1, one(2)).unwrap();
    assert!(host.feed().take().is_empty());

    // What one reader lost is nothing to the next.
    host.observe(&|_| true);
    let many = Injection {
        count: 20_000,
        ..one(2)
    };
    host.inject(1, many).unwrap();
    host.observe(&|_| false);
    host.observe(&|_| true);
    host.inject(1, one(2)).unwrap();
    let told = host.feed().take();
    assert_eq!((told.len(), told[0].lost), (1, 0));
}

/// Counts what KVM would hold for a device's interrupts.
#[derive(Clone, Default)]
struct Routes(Arc<AtomicU64>);

impl MsiSink for Routes {
    fn raise(&mut self, _vector: u16, _message: MsiMessage) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn release(&mut self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

impl Drop for Routes {
    fn drop(&mut self) {
        self.release();
    }
}

#[test]
fn a_device_that_is_taken_out_leaves_nothing_behind_and_does_nothing_more() {
    let (counter, host) = setup(Counter::default(), 0);
    for device in 0..100 {
        let held = Arc::<AtomicU64>::default();
        let wiring = wiring(Routes(Arc::clone(&held)), Arc::clone(&counter));
        let (number, function) = host.add(Config::default(), wiring).unwrap();
        assert_eq!(number, device);
        // Memory and bus master; MSI-X; two vectors.
        function.config_write(0x04, &[0b110]);
        function.config_write(0x43, &[0x80]);
        for entry in [0, 0x10] {
            function.bar_write(MSIX_BAR, entry, &0xfee0_0000_u64.to_le_bytes());
            function.bar_write(MSIX_BAR, entry + 8, &0x41_u64.to_le_bytes());
        }
        function.decoding(REGISTER_BAR, Some(BAR));
        for ring in [0, 1] {
            let spurious = Fault::SpuriousInterrupt;
            host.inject_fault(device, ring, spurious, 1).unwrap();
        }
        assert_eq!(held.load(Ordering::Relaxed), 2);
        assert_eq!(counter.addresses().len(), 4);
        counter.write(doorbell(BAR, 2), 3);

        function.take_out();
        assert_eq!(held.load(Ordering::Relaxed), 0);
        assert!(counter.addresses().is_empty());
        let figures = host.figures().pop().unwrap();
        assert!(figures.gone && figures.stats.raised[..2] == [1, 1]);
        assert_eq!(figures.stats.rings[2].generated, 3, "rang before");
        let mut data = [0; 4];
        function.config_read(0, &mut data);
        assert_eq!(data, [0xff; 4]);
        function.bar_read(REGISTER_BAR, 0, &mut data);
        assert_eq!(data, [0xff; 4]);
        // What a guest or a bus that has not heard of it may still do.
        function.config_write(0x04, &[0b110]);
        function.bar_write(REGISTER_BAR, 0, &[0; 4]);
        function.decoding(REGISTER_BAR, Some(BAR));
        function.reset();
        function.take_out();
        assert!(function.bars().is_empty() && counter.addresses().is_empty());
        assert_eq!(host.figures().pop().unwrap().stats, figures.stats);
        // The worker lets go of it, so that only this test and the table have it.
        wait_until("forgetful worker", || Arc::strong_count(&function) == 2);
    }
}

#[test]
fn the_worker_serves_devices_that_come_later() {
    let (counter, host) = setup(Counter::default(), 1);
    let wiring = wiring(NoInterrupts, Arc::clone(&counter));
    let (_, function) = host.add(Config::default(), wiring).unwrap();
    function.decoding(REGISTER_BAR, Some(BAR));
    counter.write(doorbell(BAR, 1), 4);
    wait_until("doorbells", || !counter.waiting(doorbell(BAR, 1)));
    host.start_storm(&storm(), Some(&[1])).unwrap();
    wait_until("a storm", || stats(&host)[1].rings[0].generated > 20);
    function.take_out();
    // The first one is served as before.
    host.start_storm(&storm(), None).unwrap();
    wait_until("a storm", || stats(&host)[0].rings[0].generated > 20);
}

#[test]
fn a_storm_must_suit_all_devices_that_it_is_for() {
    let (_, host) = setup(Counter::default(), 1);
    let few = Config {
        rings: 2,
        ..Config::default()
    };
    host.add(few, wired_to_nothing()).unwrap();
    let third = "[[phase]]\npattern = 'periodic'\nrate = 1\nvectors = [2]\nduration_ms = 1000";
    let third = Storm::from_toml(third).unwrap();
    let refused = host.start_storm(&third, None).unwrap_err().to_string();
    assert!(refused.contains("device 1: ") && refused.contains("rings 0 to 1"));
    assert_eq!(stats(&host)[0].storm, None);
    host.start_storm(&third, Some(&[0])).unwrap();
}

#[test]
fn faults_come_as_often_as_asked_for_however_they_are_divided() {
    let (_, host) = setup(Counter::default(), 1);
    let (spurious, hang) = (Fault::SpuriousInterrupt, Fault::Hang);
    host.inject_fault(0, 0, spurious, 1000).unwrap();
    host.inject_fault(0, 0, hang, 1000).unwrap();
    let faults = stats(&host)[0].faults;
    assert_eq!(faults[spurious as usize], 1000);
    assert_eq!(faults[hang as usize], 1, "one that lasts is one");
}

/// A worker that is behind takes the device again and again.
#[test]
fn whoever_waits_for_a_device_is_next() {
    const ROUNDS: u64 = 50;
    let (_, host) = setup(Counter::default(), 1);
    let function = &host.function(0).unwrap();
    let (batches, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let between = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let _ = function.with_device(|_, _, _| {
                    let begin = Instant::now();
                    while begin.elapsed() < Duration::from_micros(200) {}
                    batches.fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        let rounds = (0..ROUNDS).map(|_| {
            std::thread::sleep(Duration::from_millis(1));
            let before = batches.load(Ordering::Relaxed);
            let waited = function.with_device(|_, _, _| batches.load(Ordering::Relaxed) - before);
            waited.unwrap()
        });
        let between: u64 = rounds.sum();
        stop.store(true, Ordering::Relaxed);
        between
    });
    assert!(between < 10 * ROUNDS, "{between} batches in {ROUNDS} waits");
}

#[test]
fn a_command_that_cannot_be_done_changes_nothing() {
    let (_, host) = setup(Counter::default(), 2);
    let before = stats(&host);
    let start = |storm: &Storm, devices: &[usize]| {
        let error = host.start_storm(storm, Some(devices)).unwrap_err();
        error.to_string()
    };
    let fifth = "[[phase]]\npattern = 'periodic'\nrate = 1\nvectors = [4]\nduration_ms = 1";
    let fifth = Storm::from_toml(fifth).unwrap();
    for (message, part) in [
        (
            host.inject(2, one(0)).unwrap_err().to_string(),
            "no device 2",
        ),
        (
            host.inject(usize::MAX, one(0)).unwrap_err().to_string(),
            "no device",
        ),
        (host.inject(1, one(4)).unwrap_err().to_string(), "no ring 4"),
        (
            host.withhold(0, usize::MAX, 1).unwrap_err().to_string(),
            "no ring",
        ),
        (
            host.inject_fault(0, 4, Fault::LostInterrupt, 1)
                .unwrap_err()
                .to_string(),
            "no ring 4",
        ),
        (
            host.hold_vector(0, 5, true).unwrap_err().to_string(),
            "no vector 5",
        ),
        (host.reset(2).unwrap_err().to_string(), "no device 2"),
        (start(&fifth, &[0, 1]), "only rings 0 to 3"),
        (start(&storm(), &[]), "no device is named"),
        (start(&storm(), &[0, 2]), "no device 2"),
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(stats(&host), before);
}

#[test]
fn a_storm_takes_the_devices_and_rings_it_names_and_only_if_all_are_free() {
    let (_, host) = setup(Counter::default(), 3);
    let third =
        "[[phase]]\npattern = 'periodic'\nrate = 1000\nvectors = [2]\nduration_ms = 3_600_000";
    let third = Storm::from_toml(third).unwrap();
    host.start_storm(&third, Some(&[1, 1])).unwrap();
    assert!(matches!(
        host.start_storm(&storm(), None),
        Err(CommandError::Storm { device: 1, .. })
    ));
    wait_until("the storm", || stats(&host)[1].rings[2].generated > 0);
    let counted = stats(&host);
    for (device, ring) in [(0, 0), (0, 2), (1, 0), (1, 3), (2, 2)] {
        assert_eq!(counted[device].rings[ring].generated, 0, "{device} {ring}");
    }
}

fn storm() -> Storm {
    let storm = "[[phase]]\npattern = 'periodic'\nrate = 1000\nduration_ms = 3_600_000";
    Storm::from_toml(storm).unwrap()
}

/// One event on this ring.
fn one(ring: usize) -> Injection {
    Injection {
        ring,
        kind: 0,
        payload: [0; PAYLOAD_SIZE],
        count: 1,
        acknowledge: false,
    }
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < Duration::from_secs(10), "no {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
