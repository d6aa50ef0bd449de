// SPDX-License-Identifier: Apache-2.0 OR MIT

//! One evgen device as a function on the PCI bus.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lockstorm_device_model::abi::identity::{MSIX_BAR, REGISTER_BAR};
use lockstorm_device_model::{Config, ConfigError, ConfigOutcome, Evgen, MsiSink, Stats};
use vmm_sys_util::eventfd::EventFd;

use super::doorbells::{Doorbells, WriteCounter};
use super::feed::Feed;
use super::latencies::Latencies;
use crate::machine::bus::Outcome;
use crate::machine::clock::Clock;
use crate::machine::lent_memory::lend;
use crate::machine::memory::Memory;
use crate::pci::{AddressWidth, MemoryBar, PciFunction};

/// Whoever sends a device's interrupts.
pub type Sink = Box<dyn MsiSink + Send>;

/// What connects a device to the machine that it is in.
pub struct Wiring {
    /// Sends its interrupts.
    pub sink: Sink,
    /// The memory that it reads and writes.
    pub memory: Memory,
    /// Counts writes to its doorbells. Without one they come as any other write.
    pub doorbells: Option<Arc<dyn WriteCounter>>,
}

/// What the lock covers.
struct State {
    life: Life,
    latencies: Option<Latencies>,
}

/// A device that can be used, or what is left of it.
enum Life {
    Here(Box<Here>),
    /// What it had counted when it was taken out.
    Gone(Box<Stats>),
}

/// A device, what it has, and what KVM and the worker know of it.
struct Here {
    device: Evgen<Sink>,
    memory: Memory,
    doorbells: Option<Doorbells>,
    /// When the worker believes that the device is to be called next.
    announced: Option<u64>,
}

impl Here {
    /// Lends the device and its memory.
    fn with_memory<T>(&mut self, action: impl FnOnce(&mut Evgen<Sink>, &Memory) -> T) -> T {
        lend(&self.memory, || action(&mut self.device, &self.memory))
    }
}

/// The device was taken out of its slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gone;

/// What a device has counted.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Its number.
    pub device: usize,
    /// Whether it was taken out, and counts no more.
    pub gone: bool,
    /// Events, interrupts, faults and its storm.
    pub stats: Stats,
    /// From the delivery of an event to its acknowledgement; `None` if nothing was acknowledged yet.
    pub latencies: Option<Latencies>,
}

/// What a device is told about where it is.
pub(super) struct Place {
    /// Its number among the machine's devices.
    pub number: usize,
    /// The time that it goes by.
    pub clock: Clock,
    /// Whom it tells of its events.
    pub feed: Arc<Feed>,
    /// Wakes the worker.
    pub wake: Arc<EventFd>,
}

/// An evgen device in its machine, for as long as it is not taken out of it.
///
/// `state` covers the device, the memory that it has, and what KVM watches of it. Whoever carries
/// out an access of the guest takes it, a vCPU or the thread of a vfio-user client; the worker when
/// a doorbell rang or a storm goes on; the control socket's thread for a command; each for a bounded
/// piece of work. Inside it the lock of the sink may be taken, and the feed's; no other.
///
/// `turn` is held by whoever waits for `state`, and only while waiting. Without it, a worker that
/// is behind in a storm would let go of `state` and have it again before anybody who sleeps on it
/// has woken up, for as long as the storm lasts.
pub struct EvgenFunction {
    turn: Mutex<()>,
    state: Mutex<State>,
    /// Whether the worker is to call the device now, whatever it believes.
    nudged: AtomicBool,
    place: Place,
}

impl EvgenFunction {
    /// A device in its place.
    pub(super) fn new(config: Config, wiring: Wiring, place: Place) -> Result<Self, NewError> {
        let doorbells = wiring
            .doorbells
            .map(|counter| Doorbells::new(counter, config.rings).map_err(NewError::Eventfd));
        let here = Here {
            device: Evgen::new(config, wiring.sink).map_err(NewError::Config)?,
            memory: wiring.memory,
            doorbells: doorbells.transpose()?,
            announced: None,
        };
        Ok(Self {
            turn: Mutex::default(),
            state: Mutex::new(State {
                life: Life::Here(Box::new(here)),
                latencies: None,
            }),
            nudged: AtomicBool::new(false),
            place,
        })
    }

    /// Its number among the machine's devices.
    pub(super) fn number(&self) -> usize {
        self.place.number
    }

    /// Lends the device, with guest memory and the time.
    ///
    /// Doorbells that rang before are served before: a driver that rings one and then reads a
    /// counter, resets the device or moves its BAR sees them done in this order, as on a real bus.
    pub(crate) fn with_device<T>(
        &self,
        action: impl FnOnce(&mut Evgen<Sink>, &Memory, u64) -> T,
    ) -> Result<T, Gone> {
        self.with_here(|here, now| here.with_memory(|device, memory| action(device, memory, now)))
    }

    /// Gives the device other memory. When this returns it accesses nothing else any more.
    pub(crate) fn set_memory(&self, memory: Memory) {
        // What it had is unmapped when nobody waits for the device.
        let _before = self.with_here(|here, _| std::mem::replace(&mut here.memory, memory));
    }

    /// The eventfds that call for the worker; they live until the device is gone. Being lent the
    /// device is enough to have its doorbells served.
    pub(super) fn worker_fds(&self) -> Vec<RawFd> {
        let fds = self.with_here(|here, _| {
            let counts = here.doorbells.iter().flat_map(Doorbells::counts);
            counts.map(AsRawFd::as_raw_fd).collect()
        });
        fds.unwrap_or_default()
    }

    /// Whether the worker was asked to call the device, since the last time that it looked.
    pub(super) fn take_nudge(&self) -> bool {
        self.nudged.swap(false, Ordering::AcqRel)
    }

    /// Does what is due, for the worker; gives when it is to be called next. While the clock stands
    /// still nothing is done, and what is due stays so.
    pub(super) fn advance(&self) -> Result<Option<u64>, Gone> {
        self.with_here(|here, now| {
            here.announced = if self.place.clock.is_stopped() {
                here.device.due()
            } else {
                here.with_memory(|device, memory| device.advance(memory, now))
            };
            here.announced
        })
    }

    /// All that was counted so far.
    pub(super) fn figures(&self) -> Figures {
        // Doorbells that rang count, and latencies that wait to be fetched.
        let _ = self.with_here(|_, _| ());
        let state = self.state();
        let (gone, stats) = match &state.life {
            Life::Here(here) => (false, here.device.stats()),
            Life::Gone(stats) => (true, (**stats).clone()),
        };
        Figures {
            device: self.place.number,
            gone,
            stats,
            latencies: state.latencies.clone(),
        }
    }

    /// Whether the device was taken out.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self.state().life, Life::Gone(_))
    }

    /// Tells the feed of each event from now on, or of none any more.
    pub(super) fn observe(&self, on: bool) {
        let _ = self.with_here(|here, _| {
            here.device.observe(on);
            if !on {
                self.place.feed.forget(self.place.number);
            }
        });
    }

    fn with_here<T>(&self, action: impl FnOnce(&mut Here, u64) -> T) -> Result<T, Gone> {
        let mut state = self.state();
        let State { life, latencies } = &mut *state;
        let Life::Here(here) = life else {
            return Err(Gone);
        };
        let now = self.place.clock.now();
        serve_doorbells(here, now);
        let result = action(here, now);
        let due = here.device.due();
        if due.is_some_and(|due| here.announced.is_none_or(|announced| due < announced)) {
            here.announced = due;
            self.nudge();
        }
        self.fetch(here, latencies);
        Ok(result)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        drop(turn);
        state
    }

    /// Has the worker call the device.
    fn nudge(&self) {
        self.nudged.store(true, Ordering::Release);
        // A full counter is the only error there can be, and that wakes too.
        let _ = self.place.wake.write(1);
    }

    /// Fetches what the device has to tell.
    fn fetch(&self, here: &mut Here, latencies: &mut Option<Latencies>) {
        Latencies::add(latencies, &here.device.take_latencies());
        let (made, lost) = here.device.take_made();
        self.place.feed.push(self.place.number, made, lost);
    }
}

fn serve_doorbells(here: &mut Here, now: u64) {
    let Here {
        device,
        memory,
        doorbells: Some(doorbells),
        ..
    } = here
    else {
        return;
    };
    for ring in 0..doorbells.counts().len() {
        let count = doorbells.take(ring);
        if count > 0 {
            lend(memory, || device.doorbell(memory, ring, count, now));
        }
    }
}

/// A device that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum NewError {
    /// The device core refuses.
    #[error(transparent)]
    Config(ConfigError),
    /// No eventfd to be had.
    #[error("cannot make an eventfd for a device: {0}; raise the limit of open files")]
    Eventfd(#[source] io::Error),
}

impl PciFunction for EvgenFunction {
    fn config_read(&self, register: u16, data: &mut [u8]) {
        let read = self.with_device(|device, _, now| device.config_read(register, data, now));
        if read.is_err() {
            data.fill(0xff);
        }
    }

    fn config_write(&self, register: u16, data: &[u8]) -> ConfigOutcome {
        self.with_device(|device, memory, now| device.config_write(memory, register, data, now))
            .unwrap_or(ConfigOutcome::Done)
    }

    fn bars(&self) -> Vec<MemoryBar> {
        let bars = self.with_device(|device, _, _| {
            let enabled = device.memory_enabled();
            let bars = device.bars().into_iter();
            bars.map(|bar| MemoryBar {
                index: bar.index,
                address: bar.address,
                size: bar.size,
                width: match bar.index {
                    MSIX_BAR => AddressWidth::Bits64,
                    _ => AddressWidth::Bits32,
                },
                enabled,
            })
            .collect()
        });
        bars.unwrap_or_default()
    }

    fn place_bar(&self, index: u8, address: u64) {
        let _ = self.with_device(|device, _, _| device.place_bar(index, address));
    }

    fn decoding(&self, index: u8, address: Option<u64>) {
        if index == REGISTER_BAR {
            let _ = self.with_here(|here, now| {
                if let Some(doorbells) = &mut here.doorbells {
                    doorbells.follow(address);
                }
                // What rang while KVM was told to stop.
                serve_doorbells(here, now);
            });
        }
    }

    fn reset(&self) {
        let _ = self.with_device(|device, memory, now| device.bus_reset(memory, now));
    }

    fn take_out(&self) {
        let mut state = self.state();
        let State { life, latencies } = &mut *state;
        let Life::Here(here) = life else {
            return;
        };
        if let Some(doorbells) = &mut here.doorbells {
            doorbells.follow(None);
        }
        serve_doorbells(here, self.place.clock.now());
        here.device.stop_storm();
        self.fetch(here, latencies);
        // All that KVM and this process hold for the device goes with it.
        *life = Life::Gone(Box::new(here.device.stats()));
        drop(state);
        // The worker forgets it.
        self.nudge();
    }

    fn bar_read(&self, index: u8, offset: u64, data: &mut [u8]) {
        let read = self.with_device(|device, _, now| device.bar_read(index, offset, data, now));
        if read.is_err() {
            data.fill(0xff);
        }
    }

    fn bar_write(&self, index: u8, offset: u64, data: &[u8]) -> Outcome {
        let _ = self
            .with_device(|device, memory, now| device.bar_write(memory, index, offset, data, now));
        Outcome::Done
    }
}
