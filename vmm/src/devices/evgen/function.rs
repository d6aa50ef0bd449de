// SPDX-License-Identifier: Apache-2.0 OR MIT

//! One evgen device as a function on the PCI bus.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};

use lockstorm_device_model::abi::identity::{MSIX_BAR, REGISTER_BAR};
use lockstorm_device_model::{Config, ConfigError, ConfigOutcome, Evgen, MsiSink};
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
    device: Evgen<Sink>,
    memory: Memory,
    doorbells: Option<Doorbells>,
    /// When the worker believes that the device is to be called next.
    announced: Option<u64>,
    latencies: Option<Latencies>,
}

impl State {
    /// Lends the device and its memory.
    fn with_memory<T>(&mut self, action: impl FnOnce(&mut Evgen<Sink>, &Memory) -> T) -> T {
        lend(&self.memory, || action(&mut self.device, &self.memory))
    }
}

/// What a device is told about where it is.
pub(super) struct Place {
    /// Its number among the machine's devices.
    pub number: usize,
    /// The time that it goes by.
    pub clock: Clock,
    /// Whom it tells of its events.
    pub feed: Arc<Feed>,
}

/// An evgen device in its machine.
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
    /// Wakes the worker because something is due earlier than it believes.
    earlier: EventFd,
    place: Place,
}

impl EvgenFunction {
    /// A device in its place.
    pub(super) fn new(config: Config, wiring: Wiring, place: Place) -> Result<Self, NewError> {
        let doorbells = wiring
            .doorbells
            .map(|counter| Doorbells::new(counter, config.rings).map_err(NewError::Eventfd));
        Ok(Self {
            turn: Mutex::default(),
            state: Mutex::new(State {
                device: Evgen::new(config, wiring.sink).map_err(NewError::Config)?,
                memory: wiring.memory,
                doorbells: doorbells.transpose()?,
                announced: None,
                latencies: None,
            }),
            earlier: EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)
                .map_err(NewError::Eventfd)?,
            place,
        })
    }

    /// Lends the device, with guest memory and the time.
    ///
    /// Doorbells that rang before are served before: a driver that rings one and then reads a
    /// counter, resets the device or moves its BAR sees them done in this order, as on a real bus.
    pub(crate) fn with_device<T>(
        &self,
        action: impl FnOnce(&mut Evgen<Sink>, &Memory, u64) -> T,
    ) -> T {
        self.with_state(|state, now| {
            state.with_memory(|device, memory| action(device, memory, now))
        })
    }

    /// Gives the device other memory. When this returns it accesses nothing else any more.
    pub(crate) fn set_memory(&self, memory: Memory) {
        // What it had is unmapped when nobody waits for the device.
        let _before = self.with_state(|state, _| std::mem::replace(&mut state.memory, memory));
    }

    /// The eventfds that call for the worker; they live as long as the device. Being lent the
    /// device is enough to have its doorbells served.
    pub(super) fn worker_fds(&self) -> Vec<RawFd> {
        self.with_state(|state, _| {
            let counts = state.doorbells.iter().flat_map(Doorbells::counts);
            let fds = counts.chain([&self.earlier]);
            fds.map(AsRawFd::as_raw_fd).collect()
        })
    }

    /// Does what is due, for the worker; gives when it is to be called next. While the clock stands
    /// still nothing is done, and what is due stays so.
    pub(super) fn advance(&self) -> Option<u64> {
        self.with_state(|state, now| {
            // The only error there can be is that nobody has written to it.
            let _ = self.earlier.read();
            state.announced = if self.place.clock.is_stopped() {
                state.device.due()
            } else {
                state.with_memory(|device, memory| device.advance(memory, now))
            };
            state.announced
        })
    }

    /// All latencies measured so far.
    pub(super) fn latencies(&self) -> Option<Latencies> {
        self.with_state(|state, _| state.latencies.clone())
    }

    /// Tells the feed of each event from now on, or of none any more.
    pub(super) fn observe(&self, on: bool) {
        self.with_state(|state, _| {
            state.device.observe(on);
            if !on {
                self.place.feed.forget(self.place.number);
            }
        });
    }

    fn with_state<T>(&self, action: impl FnOnce(&mut State, u64) -> T) -> T {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        drop(turn);
        let now = self.place.clock.now();
        serve_doorbells(&mut state, now);
        let result = action(&mut state, now);
        let due = state.device.due();
        if due.is_some_and(|due| state.announced.is_none_or(|announced| due < announced)) {
            state.announced = due;
            // A full counter is the only error there can be, and that wakes too.
            let _ = self.earlier.write(1);
        }
        self.fetch(&mut state);
        result
    }

    /// Fetches what the device has to tell.
    fn fetch(&self, state: &mut State) {
        Latencies::add(&mut state.latencies, &state.device.take_latencies());
        let (made, lost) = state.device.take_made();
        self.place.feed.push(self.place.number, made, lost);
    }
}

fn serve_doorbells(state: &mut State, now: u64) {
    let State {
        device,
        memory,
        doorbells: Some(doorbells),
        ..
    } = state
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
        self.with_device(|device, _, now| device.config_read(register, data, now));
    }

    fn config_write(&self, register: u16, data: &[u8]) -> ConfigOutcome {
        self.with_device(|device, memory, now| device.config_write(memory, register, data, now))
    }

    fn bars(&self) -> Vec<MemoryBar> {
        self.with_device(|device, _, _| {
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
        })
    }

    fn place_bar(&self, index: u8, address: u64) {
        self.with_device(|device, _, _| device.place_bar(index, address));
    }

    fn decoding(&self, index: u8, address: Option<u64>) {
        if index == REGISTER_BAR {
            self.with_state(|state, now| {
                if let Some(doorbells) = &mut state.doorbells {
                    doorbells.follow(address);
                }
                // What rang while KVM was told to stop.
                serve_doorbells(state, now);
            });
        }
    }

    fn bar_read(&self, index: u8, offset: u64, data: &mut [u8]) {
        self.with_device(|device, _, now| device.bar_read(index, offset, data, now));
    }

    fn bar_write(&self, index: u8, offset: u64, data: &[u8]) -> Outcome {
        self.with_device(|device, memory, now| device.bar_write(memory, index, offset, data, now));
        Outcome::Done
    }
}
