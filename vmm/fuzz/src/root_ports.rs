// SPDX-License-Identifier: Apache-2.0 OR MIT

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use arbitrary::{Arbitrary, Unstructured};
use lockstorm::machine::bus::Bus;
use lockstorm::machine::layout::{BAR_WINDOW_32, BAR_WINDOW_64};
use lockstorm::pci::{MemoryBar, PciFunction, RootPort, Segment, Windows};
use lockstorm_device_model::{Config, MsiMessage, MsiSink};

use crate::bus::Function;
use crate::device::steps;

const PORTS: u8 = 3;
const COMMAND: u64 = 0x04;
const BUSES: u64 = 0x18;
const MEMORY_WINDOW: u64 = 0x20;
const PREFETCHABLE_WINDOW: u64 = 0x24;
const PREFETCHABLE_HIGH: u64 = 0x28;
const BRIDGE_CONTROL: u64 = 0x3e;
const LINK_CONTROL: u64 = 0x50;
const LINK_STATUS: u64 = 0x52;
const SLOT_CONTROL: u64 = 0x58;
const SLOT_STATUS: u64 = 0x5a;
const MSI_CONTROL: u64 = 0x82;

/// What a guest does, or the host.
#[derive(Arbitrary, Debug)]
enum Step {
    /// Any configuration address: bus, device, function and register.
    Read {
        address: u32,
        width: u8,
    },
    Write {
        address: u32,
        data: [u8; 8],
        width: u8,
    },
    /// A register of a port.
    Port {
        port: u8,
        register: u8,
        data: [u8; 8],
        width: u8,
    },
    Buses {
        port: u8,
        secondary: u8,
        subordinate: u8,
    },
    /// Windows by MiB of the host bridge's.
    Window {
        port: u8,
        base: u8,
        limit: u8,
    },
    HighWindow {
        port: u8,
        base: u8,
        limit: u8,
    },
    /// What Linux does with a port, in one.
    SetUp {
        port: u8,
    },
    SlotControl {
        port: u8,
        value: u16,
    },
    Clear {
        port: u8,
    },
    Link {
        port: u8,
        disable: bool,
        reset: bool,
    },
    /// Configuration space of whatever is on one of the first buses; on the root bus that is the
    /// function that stays.
    Behind {
        bus: u8,
        register: u8,
        data: [u8; 8],
        width: u8,
    },
    Place {
        bus: u8,
        msix: bool,
        page: u16,
    },
    Decode {
        bus: u8,
        command: u8,
    },
    Memory {
        address: u64,
        data: [u8; 8],
        width: u8,
    },
    PutIn {
        port: u8,
    },
    Ask {
        port: u8,
    },
    TakeOut {
        port: u8,
    },
}

/// Counts a port's interrupts.
struct Counter(Arc<AtomicUsize>);

impl MsiSink for Counter {
    fn raise(&mut self, vector: u16, _message: MsiMessage) {
        assert_eq!(vector, 0);
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn release(&mut self) {}
}

/// What was last put into a slot, and what its port has told.
struct Slot {
    function: Mutex<Option<Arc<Function>>>,
    raised: Arc<AtomicUsize>,
    /// At the last look: interrupts, and whether there was something to tell.
    seen: Mutex<(usize, bool)>,
}

struct Machine {
    bus: Arc<Bus>,
    windows: Windows,
    segment: Segment,
    /// The function in slot 1 of the root bus. The ports come after it.
    fixed: Arc<Function>,
    slots: Vec<Slot>,
    made: AtomicUsize,
    probed: Arc<AtomicBool>,
}

/// Root ports that a guest configures as it likes, and a host that puts devices into their slots and
/// takes them out: each access reaches the one function that it should, or none, and what was taken
/// out is never reached again.
pub fn root_ports(data: &[u8]) {
    let machine = Machine::new();
    for step in steps::<Step>(&mut Unstructured::new(data)) {
        machine.take(&step);
        machine.check();
    }
}

fn windows() -> Windows {
    let (low, high) = (BAR_WINDOW_32, BAR_WINDOW_64);
    Windows::new(low.start..low.end(), high.start..high.end()).unwrap()
}

fn function(id: u8, probed: &Arc<AtomicBool>) -> Arc<Function> {
    let config = Config {
        rings: 1,
        ..Config::default()
    };
    Arc::new(Function::new(id, config, Arc::clone(probed)))
}

impl Machine {
    fn new() -> Self {
        let bus = Arc::new(Bus::default());
        let probed = Arc::new(AtomicBool::new(false));
        let mut segment = Segment::new(Arc::clone(&bus), windows());
        let fixed = function(0, &probed);
        segment
            .add(Arc::clone(&fixed) as Arc<dyn PciFunction>)
            .unwrap();
        let slots = (1..=PORTS).map(|number| {
            let raised = Arc::new(AtomicUsize::new(0));
            let sink = Box::new(Counter(Arc::clone(&raised)));
            segment.add_port(RootPort::new(number, sink)).unwrap();
            Slot {
                function: Mutex::default(),
                raised,
                seen: Mutex::default(),
            }
        });
        let slots = slots.collect();
        Self {
            bus,
            windows: windows(),
            segment,
            fixed,
            slots,
            made: AtomicUsize::new(0),
            probed,
        }
    }

    fn take(&self, step: &Step) {
        match *step {
            Step::Read { address, width } => {
                let data = &mut [0; 8][..usize::from(width % 9)];
                self.segment.read(address.into(), data);
            }
            Step::Write {
                address,
                data,
                width,
            } => self.segment.write(address.into(), part(&data, width)),
            Step::Port {
                port,
                register,
                data,
                width,
            } => self.write(port, register.into(), part(&data, width)),
            Step::Buses {
                port,
                secondary,
                subordinate,
            } => self.write(port, BUSES, &[0, secondary, subordinate]),
            Step::Window { port, base, limit } => {
                let [base, limit] = [base, limit].map(|mib| 0xc000 + u16::from(mib) * 0x10);
                self.write_words(port, MEMORY_WINDOW, [base, limit]);
            }
            Step::HighWindow { port, base, limit } => {
                let [base, limit] = [base, limit].map(|mib| u16::from(mib) * 0x10);
                self.write_words(port, PREFETCHABLE_WINDOW, [base, limit]);
                let high = ((BAR_WINDOW_64.start >> 32) as u32).to_le_bytes();
                self.write(port, PREFETCHABLE_HIGH, &[high, high].concat());
            }
            Step::SetUp { port } => {
                let bus = port % PORTS + 1;
                self.write(port, BUSES, &[0, bus, bus]);
                self.write(port, COMMAND, &[0x06]);
                self.write(port, MSI_CONTROL, &[1]);
                let base = 0xc000 + 0x40 * u16::from(bus);
                self.write_words(port, MEMORY_WINDOW, [base, base + 0x30]);
                self.write(port, SLOT_CONTROL, &0x13f9_u16.to_le_bytes());
            }
            Step::SlotControl { port, value } => {
                self.write(port, SLOT_CONTROL, &value.to_le_bytes());
            }
            Step::Clear { port } => self.write(port, SLOT_STATUS, &[0xff, 0xff]),
            Step::Link {
                port,
                disable,
                reset,
            } => {
                self.write(port, LINK_CONTROL, &[u8::from(disable) << 4]);
                self.write(port, BRIDGE_CONTROL, &[u8::from(reset) << 6]);
            }
            Step::Behind {
                bus,
                register,
                data,
                width,
            } => {
                let address = at_bus(bus % 8, register.into());
                self.segment.write(address, part(&data, width));
            }
            Step::Place { bus, msix, page } => {
                let address = BAR_WINDOW_32.start + u64::from(page % 0x1400) * 0x1000;
                let (register, width) = if msix { (0x18, 8) } else { (0x10, 4) };
                let address = &address.to_le_bytes()[..width];
                self.segment.write(at_bus(bus % 8, register), address);
            }
            Step::Decode { bus, command } => {
                self.segment.write(at_bus(bus % 8, COMMAND), &[command]);
            }
            Step::Memory {
                address,
                data,
                width,
            } => {
                let data = part(&data, width);
                self.bus.read(address, &mut data.to_vec());
                let _ = self.bus.write(address, data);
            }
            Step::PutIn { port } => self.put_in(port),
            Step::Ask { port } => {
                let (_, port) = self.slot(port);
                let before = port.view();
                let asked = self.segment.ask(port);
                let after = port.view();
                assert!(asked.is_ok() || before == after, "{before:?} {after:?}");
                let waits = after.occupied && after.leaving;
                assert_eq!(asked.is_ok(), waits || !after.occupied, "{after:?}");
            }
            Step::TakeOut { port } => {
                let (slot, port) = self.slot(port);
                self.segment.take_out(port);
                assert!(!port.view().occupied);
                slot.forget_if_gone();
                assert!(slot.function.lock().unwrap().is_none());
            }
        }
        // Whoever had it taken out.
        self.slots.iter().for_each(Slot::forget_if_gone);
    }

    fn put_in(&self, port: u8) {
        let (slot, port) = self.slot(port);
        let id = 1 + self.made.fetch_add(1, Ordering::Relaxed) % 14;
        let new = function(id as u8, &self.probed);
        let mut function = slot.function.lock().unwrap();
        let put_in = self.segment.put_in(port, Arc::clone(&new) as _);
        assert_eq!(put_in, function.is_none());
        if put_in {
            *function = Some(new);
        }
    }

    fn slot(&self, port: u8) -> (&Slot, &RootPort) {
        let index = usize::from(port % PORTS);
        (&self.slots[index], self.segment.ports().nth(index).unwrap())
    }

    fn write(&self, port: u8, register: u64, data: &[u8]) {
        self.segment.write(at_port(port) | register, data);
    }

    fn write_words(&self, port: u8, register: u64, words: [u16; 2]) {
        self.write(port, register, &words.map(u16::to_le_bytes).concat());
    }

    /// A register of a port, as the guest reads it.
    fn read(&self, port: u8, register: u64) -> u32 {
        let mut data = [0; 4];
        self.segment.read(at_port(port) | register, &mut data);
        u32::from_le_bytes(data)
    }

    fn check(&self) {
        self.check_bars(&self.fixed, None);
        // Who should answer on each bus.
        let mut on_bus: [Option<Arc<Function>>; 256] = [const { None }; 256];
        for port in 0..PORTS {
            let here = self.slots[usize::from(port)].function.lock().unwrap();
            let up = self.check_slot(port, here.is_some());
            self.check_interrupt(port);
            let Some(here) = here.as_ref() else { continue };
            self.check_bars(here, Some(port));
            let [_, secondary, subordinate, _] = self.read(port, BUSES).to_le_bytes();
            if up && 0 < secondary && secondary <= subordinate {
                on_bus[usize::from(secondary)].get_or_insert(Arc::clone(here));
            }
        }
        self.probed.store(true, Ordering::Relaxed);
        for (bus, function) in (0..=255).zip(&on_bus).skip(1) {
            let mut data = [0; 4];
            self.segment.read(at_bus(bus, 0), &mut data);
            let expected = function.as_ref().map_or(0xff, |function| function.name());
            assert_eq!(data, [expected; 4], "bus {bus}");
        }
        self.probed.store(false, Ordering::Relaxed);
    }

    /// What Slot Status and Link Status say of the slot; gives whether the link is up.
    fn check_slot(&self, port: u8, occupied: bool) -> bool {
        let status = self.read(port, SLOT_CONTROL) >> 16;
        assert_eq!(status & 1 << 6 != 0, occupied);
        let disabled = self.read(port, LINK_CONTROL) & 1 << 4 != 0;
        let reset = self.read(port, BRIDGE_CONTROL & !3) >> 16 & 1 << 6 != 0;
        let active = self.read(port, LINK_STATUS & !3) >> 16 & 1 << 13 != 0;
        assert_eq!(active, occupied && !disabled && !reset);
        let view = self.slot(port).1.view();
        assert_eq!(view.occupied, occupied);
        assert!(occupied || !view.used && !view.leaving, "{view:?}");
        active
    }

    /// When there begins to be something to tell, there is an interrupt.
    fn check_interrupt(&self, port: u8) {
        let slot = self.read(port, SLOT_CONTROL);
        let (control, status) = (slot & 0xffff, slot >> 16);
        let enabled = control & 1 << 5 != 0
            && self.read(port, MSI_CONTROL & !3) >> 16 & 1 != 0
            && self.read(port, COMMAND) & 1 << 2 != 0;
        // Each event, and what enables it.
        let mut events = [(0, 0), (3, 3), (4, 4), (8, 12)].into_iter();
        let news = enabled
            && events.any(|(event, enable)| status >> event & 1 != 0 && control >> enable & 1 != 0);
        let of = &self.slots[usize::from(port)];
        let raised = of.raised.load(Ordering::Relaxed);
        let mut seen = of.seen.lock().unwrap();
        let (before, had_news) = *seen;
        assert!(!news || had_news || raised > before, "nobody was told");
        *seen = (raised, news);
    }

    /// Each BAR answers where its function says, if all that leads to it passes accesses on and
    /// nothing else is there; and nowhere else.
    fn check_bars(&self, function: &Function, port: Option<u8>) {
        for bar in function.bars() {
            let told = function.decoding()[usize::from(bar.index / 2)];
            let wanted = bar.enabled
                && self.windows.contain(&bar)
                && port.is_none_or(|port| self.passes_on(port, &bar));
            assert!(wanted || told.is_none(), "{bar:x?} answers");
            assert!(told.is_none_or(|address| address == bar.address));
            self.probed.store(true, Ordering::Relaxed);
            for address in [bar.address, bar.address.wrapping_add(bar.size - 1)] {
                let mut byte = [0];
                self.bus.read(address, &mut byte);
                let answers = byte[0] == function.tag(bar.index);
                assert!(answers || told.is_none(), "{bar:x?} does not answer");
            }
            assert!(
                !wanted || told.is_some() || self.is_blocked(&bar),
                "{bar:x?} does not answer though nothing is in its way"
            );
            self.probed.store(false, Ordering::Relaxed);
        }
    }

    /// Whether something answers where the BAR is to be.
    fn is_blocked(&self, bar: &MemoryBar) -> bool {
        (0..bar.size / 0x1000).any(|page| {
            let mut byte = [0];
            self.bus.read(bar.address + page * 0x1000, &mut byte);
            byte[0] != 0xff
        })
    }

    fn passes_on(&self, port: u8, bar: &MemoryBar) -> bool {
        let last = bar.address.wrapping_add(bar.size - 1);
        let window = |register, high: [u32; 2]| {
            let value = self.read(port, register);
            let [base, limit] = [value & 0xfff0, value >> 16 & 0xfff0].map(u64::from);
            let base = u64::from(high[0]) << 32 | base << 16;
            let limit = u64::from(high[1]) << 32 | limit << 16 | 0xf_ffff;
            base <= bar.address && bar.address <= last && last <= limit
        };
        let high = [PREFETCHABLE_HIGH, PREFETCHABLE_HIGH + 4];
        let high = high.map(|register| self.read(port, register));
        self.read(port, COMMAND) & 1 << 1 != 0
            && (window(MEMORY_WINDOW, [0, 0]) || window(PREFETCHABLE_WINDOW, high))
    }
}

impl Slot {
    fn forget_if_gone(&self) {
        let mut function = self.function.lock().unwrap();
        if let Some(gone) = function.take_if(|function| function.is_gone()) {
            assert_eq!(gone.decoding(), [None; 2], "it still answers");
        }
    }
}

fn part(data: &[u8; 8], width: u8) -> &[u8] {
    &data[..usize::from(width % 9)]
}

/// Where the configuration space of a port is.
fn at_port(port: u8) -> u64 {
    (u64::from(port % PORTS) + 2) << 15
}

/// Where that of the function on a bus is.
fn at_bus(bus: u8, register: u64) -> u64 {
    let slot = u64::from(bus == 0);
    u64::from(bus) << 20 | slot << 15 | register
}
