// SPDX-License-Identifier: Apache-2.0 OR MIT

//! A device with memory and time, on which any step may be taken, and the rules that hold after
//! each.

use std::cell::RefCell;
use std::rc::Rc;

use arbitrary::{Arbitrary, Unstructured};
use lockstorm_device_model::abi::identity::{MSIX_BAR, REGISTER_BAR};
use lockstorm_device_model::abi::registers::{REGISTERS, Register};
use lockstorm_device_model::{
    Config, Evgen, Fate, Fault, Injection, Made, MsiMessage, MsiSink, RingStats, Stats, Storm,
    storm,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Guest memory: address and size of each piece. Between the two nothing is.
pub const MEMORY: [(u64, usize); 2] = [(0, 0x8000), (0x1_0000, 0x2000)];
/// Steps of a plan; what comes after is not taken.
pub const STEPS: usize = 200;

/// Interrupts sent since the last look.
pub type Raised = Rc<RefCell<Vec<(u16, MsiMessage)>>>;

/// Remembers interrupts.
pub struct Recorder(pub Raised);

impl MsiSink for Recorder {
    fn raise(&mut self, vector: u16, message: MsiMessage) {
        self.0.borrow_mut().push((vector, message));
    }

    fn release(&mut self) {}
}

/// Something that a guest, time or the host does to a device.
#[derive(Arbitrary, Clone, Debug)]
pub enum Step {
    ConfigWrite {
        offset: u8,
        data: [u8; 4],
        width: u8,
    },
    ConfigRead {
        offset: u16,
        width: u8,
    },
    /// A write to a register as it should be.
    Register {
        which: u8,
        ring: u8,
        value: u64,
    },
    /// An access to anything else.
    BarWrite {
        bar: u8,
        offset: u32,
        data: [u8; 8],
        width: u8,
    },
    BarRead {
        bar: u8,
        offset: u32,
        width: u8,
    },
    /// The driver allows everything, and begins.
    Begin,
    Doorbell {
        ring: u8,
        count: u32,
    },
    Inject {
        ring: u8,
        count: u8,
        acknowledge: bool,
    },
    Withhold {
        ring: u8,
        count: u8,
    },
    Fault {
        ring: u8,
        fault: u8,
        count: u32,
    },
    Hold {
        vector: u16,
        held: bool,
    },
    HostReset,
    Storm {
        which: u8,
        instance: u8,
    },
    StopStorm,
    /// Time passes: `time` << `shift` nanoseconds.
    Pass {
        time: u16,
        shift: u8,
    },
    /// The guest writes to its memory.
    Memory {
        address: u16,
        data: [u8; 8],
    },
    TakeLatencies,
}

/// A device, and what is known about it.
pub struct Machine {
    pub device: Evgen<Recorder>,
    pub memory: GuestMemoryMmap,
    pub raised: Raised,
    pub now: u64,
    /// Events that vanished so far, per ring, as the device tells it.
    pub withheld: Vec<u64>,
    before: Before,
    /// Events told so far.
    made: u64,
    scratch: Vec<u8>,
}

/// The state before a step.
struct Before {
    stats: Stats,
    /// The device must not write to memory: what is in there.
    untouched: Option<u64>,
    /// It must not interrupt.
    quiet: bool,
}

impl Machine {
    pub fn new(config: Config) -> Self {
        let raised = Raised::default();
        let pieces = MEMORY.map(|(start, size)| (GuestAddress(start), size));
        let mut device = Evgen::new(config, Recorder(Rc::clone(&raised))).unwrap();
        device.observe(true);
        Self {
            before: Before {
                stats: device.stats(),
                untouched: None,
                quiet: true,
            },
            memory: GuestMemoryMmap::from_ranges(&pieces).unwrap(),
            withheld: vec![0; config.rings.into()],
            device,
            raised,
            now: 0,
            made: 0,
            scratch: vec![0; MEMORY[0].1],
        }
    }

    /// A device as the plan wants it.
    pub fn arbitrary(plan: &mut Unstructured) -> arbitrary::Result<Self> {
        let rings: u8 = plan.int_in_range(1..=8)?;
        let vectors: Option<u16> = plan.arbitrary()?;
        Ok(Self::new(Config {
            rings,
            ring_size_max: 1 << plan.int_in_range(1..=10)?,
            vectors: vectors
                .map(|vectors| vectors % 64 + 1)
                .filter(|&v| v > rings.into()),
        }))
    }

    pub fn ring(&self, number: u8) -> usize {
        usize::from(number) % usize::from(self.device.config().rings)
    }

    /// Takes a step and checks all rules.
    pub fn take(&mut self, step: &Step) {
        self.look();
        let resets = self.act(step);
        self.check(
            resets,
            matches!(step, Step::Memory { .. } | Step::HostReset),
        );
    }

    /// A write to a register, of the register's width.
    pub fn write(&mut self, register: Register, ring: usize, value: u64) {
        let width = REGISTERS
            .iter()
            .find(|d| d.register == register)
            .unwrap()
            .width;
        let offset = register.offset(ring) as u64;
        let data = value.to_le_bytes();
        self.device
            .bar_write(&self.memory, REGISTER_BAR, offset, &data[..width], self.now);
    }

    /// Reads a register.
    pub fn read(&self, register: Register, ring: usize) -> u64 {
        let width = REGISTERS
            .iter()
            .find(|d| d.register == register)
            .unwrap()
            .width;
        let mut data = [0; 8];
        let offset = register.offset(ring) as u64;
        self.device
            .bar_read(REGISTER_BAR, offset, &mut data[..width], self.now);
        u64::from_le_bytes(data)
    }

    pub fn config_write(&mut self, offset: u16, data: &[u8]) {
        self.device
            .config_write(&self.memory, offset, data, self.now);
    }

    /// Memory space, bus mastering and MSI-X on, vectors unmasked, device running.
    pub fn begin(&mut self) {
        self.config_write(0x04, &[0b110]);
        self.config_write(0x42, &[0, 0x80]);
        for vector in 0..16 {
            let entry = [vector as u8, 0, 0, 0, 0, 0, 0, 0];
            let device = &mut self.device;
            device.bar_write(&self.memory, MSIX_BAR, vector * 16 + 8, &entry, self.now);
        }
        self.write(Register::Control, 0, 1);
    }

    /// Does what a step says; true if it is a function level reset.
    fn act(&mut self, step: &Step) -> bool {
        let now = self.now;
        let (device, memory) = (&mut self.device, &self.memory);
        match *step {
            Step::ConfigWrite {
                offset,
                data,
                width,
            } => {
                let data = &data[..usize::from(width % 5)];
                device.config_write(memory, offset.into(), data, now);
                let flr = usize::from(0x54_u8.wrapping_sub(offset));
                return data.get(flr).is_some_and(|byte| byte & 1 != 0);
            }
            Step::ConfigRead { offset, width } => {
                device.config_read(offset, &mut [0xa5; 8][..usize::from(width % 9)], now);
            }
            Step::Register { which, ring, value } => {
                let register = REGISTERS[usize::from(which) % REGISTERS.len()];
                self.write(register.register, usize::from(ring) % register.count, value);
            }
            Step::BarWrite {
                bar,
                offset,
                data,
                width,
            } => {
                let data = &data[..usize::from(width % 9)];
                device.bar_write(memory, bar % 4, offset.into(), data, now);
            }
            Step::BarRead { bar, offset, width } => {
                let data = &mut [0xa5; 8][..usize::from(width % 9)];
                device.bar_read(bar % 4, offset.into(), data, now);
            }
            Step::Begin => self.begin(),
            Step::Doorbell { ring, count } => {
                device.doorbell(memory, usize::from(ring % 9), count.into(), now);
            }
            Step::Inject {
                ring,
                count,
                acknowledge,
            } => {
                let injection = Injection {
                    ring: usize::from(ring % 9),
                    kind: count.into(),
                    payload: [count; 32],
                    count: count.into(),
                    acknowledge,
                };
                let known = injection.ring < usize::from(device.config().rings);
                assert_eq!(device.inject(memory, &injection, now).is_ok(), known);
            }
            Step::Withhold { ring, count } => {
                let _ = device.withhold(usize::from(ring % 9), count.into());
            }
            Step::Fault { ring, fault, count } => {
                let fault = Fault::ALL[usize::from(fault) % Fault::COUNT];
                let _ = device.inject_fault(memory, usize::from(ring % 9), fault, count, now);
            }
            Step::Hold { vector, held } => {
                let _ = device.hold_vector(vector, held);
            }
            Step::HostReset => device.host_reset(memory, now),
            Step::Storm { which, instance } => {
                let named = &storm::LIBRARY[usize::from(which) % storm::LIBRARY.len()];
                if let Some(storm) = Storm::named(named.name) {
                    let _ = device.start_storm(&storm, instance.into(), now);
                }
            }
            Step::StopStorm => device.stop_storm(),
            Step::Pass { time, shift } => self.pass(u64::from(time) << (shift % 24)),
            Step::Memory { address, data } => {
                let _ = memory.write_slice(&data, GuestAddress(address.into()));
            }
            Step::TakeLatencies => {
                let taken = device.take_latencies();
                assert!(taken.iter().all(|&latency| latency <= now));
            }
        }
        false
    }

    /// Lets time pass. A storm may be behind after that.
    fn pass(&mut self, nanoseconds: u64) {
        self.now += nanoseconds;
        let due = self.device.due();
        let before = self.device.stats();
        let next = self.device.advance(&self.memory, self.now);
        assert_eq!(next, self.device.due());
        let after = self.device.stats();
        if due.is_none_or(|due| due > self.now) {
            assert_eq!(
                before.rings, after.rings,
                "something was made that was not due"
            );
            assert_eq!(
                before.raised, after.raised,
                "an interrupt came that was not due"
            );
        }
        let storms = after.storm.is_some_and(|storm| storm.running);
        assert!(
            storms || next.is_none_or(|next| next > self.now),
            "the host would never come to rest: {next:?} at {}",
            self.now
        );
    }

    /// What the guest sees at the begin of configuration space: the command register if the device
    /// is there.
    fn command(&self) -> Option<u8> {
        let mut data = [0; 5];
        self.device.config_read(0, &mut data, self.now);
        (data[0] != 0xff).then_some(data[4])
    }

    fn may_write(&self) -> bool {
        self.command().is_some_and(|command| command & 0b100 != 0)
    }

    /// Whether interrupts may be sent, as far as the function as a whole is concerned.
    fn may_interrupt(&self) -> bool {
        let mut control = [0; 2];
        self.device.config_read(0x42, &mut control, self.now);
        self.may_write() && control[1] >> 6 == 0b10
    }

    /// Takes what the device tells of events.
    pub fn collect(&mut self) -> (Vec<Made>, u64) {
        let (made, lost) = self.device.take_made();
        self.made += made.len() as u64 + lost;
        for made in made.iter().filter(|made| made.fate == Fate::Withheld) {
            self.withheld[usize::from(made.event.ring)] += 1;
        }
        (made, lost)
    }

    fn look(&mut self) {
        self.collect();
        self.raised.borrow_mut().clear();
        self.before = Before {
            stats: self.device.stats(),
            untouched: (!self.may_write()).then(|| self.digest()),
            quiet: !self.may_interrupt(),
        };
    }

    /// Of memory.
    fn digest(&mut self) -> u64 {
        let mut digest = 0_u64;
        for (start, size) in MEMORY {
            let bytes = &mut self.scratch[..size];
            self.memory.read_slice(bytes, GuestAddress(start)).unwrap();
            for word in bytes.as_chunks().0 {
                digest = (digest ^ u64::from_le_bytes(*word))
                    .wrapping_mul(0x100_0000_01b3)
                    .rotate_left(32);
            }
        }
        digest
    }

    fn check(&mut self, reset: bool, writes: bool) {
        let stats = self.device.stats();
        for (ring, of) in stats.rings.iter().enumerate() {
            let accounted = of.delivered + of.dropped + of.faulted;
            assert_eq!(of.generated, accounted, "ring {ring}: {of:?}");
            assert!(of.full <= of.dropped, "ring {ring}: {of:?}");
            assert!(of.quiet <= of.delivered, "ring {ring}: {of:?}");
            let old = &self.before.stats.rings[ring];
            if !reset {
                let grown = [
                    (old.generated, of.generated),
                    (old.delivered, of.delivered),
                    (old.dropped, of.dropped),
                    (old.faulted, of.faulted),
                    (old.extra, of.extra),
                    (old.full, of.full),
                    (old.quiet, of.quiet),
                ];
                let fell = grown.iter().any(|(old, new)| new < old);
                assert!(!fell, "ring {ring}: {old:?} became {of:?}");
            }
        }
        self.check_made(&stats, reset);
        self.check_registers(&stats);
        for (old, new) in self.before.stats.faults.iter().zip(&stats.faults) {
            assert!(old <= new);
        }
        let sent: u64 = stats.raised.iter().sum();
        let sent_before: u64 = self.before.stats.raised.iter().sum();
        let recorded = self.raised.borrow_mut().drain(..).count() as u64;
        assert_eq!(sent - sent_before, recorded);
        if self.before.quiet && !self.may_interrupt() && self.command().is_some() && !writes {
            assert_eq!(recorded, 0, "an interrupt was sent and must not");
        }
        if let Some(before) = self.before.untouched
            && !self.may_write()
            && !writes
        {
            assert_eq!(
                before,
                self.digest(),
                "the device wrote to memory and must not"
            );
        }
    }

    /// The events that are told are those that are counted.
    fn check_made(&mut self, stats: &Stats, reset: bool) {
        let (made, lost) = self.collect();
        let sum =
            |of: fn(&RingStats) -> u64, stats: &Stats| -> u64 { stats.rings.iter().map(of).sum() };
        let generated = sum(|ring| ring.generated, stats);
        if reset {
            self.made = generated;
            return;
        }
        assert_eq!(self.made, generated, "told, and counted");
        let count = |fates: &[Fate]| {
            made.iter()
                .filter(|made| fates.contains(&made.fate))
                .count()
        };
        let grown = |of: fn(&RingStats) -> u64| sum(of, stats) - sum(of, &self.before.stats);
        if lost == 0 {
            let delivered = count(&[Fate::Delivered, Fate::Withheld]) as u64;
            assert_eq!(delivered, grown(|ring| ring.delivered));
            assert_eq!(count(&[Fate::Faulted]) as u64, grown(|ring| ring.faulted));
        }
        for made in made {
            assert!(made.event.timestamp <= self.now);
            let ring = &stats.rings[usize::from(made.event.ring)];
            assert!(made.event.sequence < ring.generated);
        }
    }

    fn check_registers(&self, stats: &Stats) {
        if self.command().is_none() {
            assert_eq!(self.read(Register::Magic, 0), u64::from(u32::MAX));
            return;
        }
        for (ring, of) in stats.rings.iter().enumerate() {
            assert_eq!(self.read(Register::RingGenerated, ring), of.generated);
            assert_eq!(self.read(Register::RingDropped, ring), of.dropped);
            assert!(self.read(Register::RingState, ring) <= 2);
            let vectors = self.read(Register::Vectors, 0);
            assert!(self.read(Register::RingVector, ring) < vectors);
        }
    }
}

/// The steps of a plan, as far as it goes.
pub fn steps<'a, T: Arbitrary<'a>>(plan: &mut Unstructured<'a>) -> impl Iterator<Item = T> {
    std::iter::from_fn(move || (!plan.is_empty()).then(|| plan.arbitrary().ok()).flatten())
        .take(STEPS)
}
