// SPDX-License-Identifier: GPL-2.0

//! One device, as its driver, its interrupt handlers, its watchdog and its open files share it.

use kernel::{
    fmt,
    list::List,
    new_condvar, new_mutex, new_poll_condvar, new_spinlock_irq,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        lock::{
            mutex::{MutexBackend, MutexGuard},
            spinlock::SpinLockIrqBackend,
        },
        poll::PollCondVar,
        Arc, Completion, CondVar, SpinLockIrq,
    },
    time::{delay::fsleep, msecs_to_jiffies, ClockSource, Delta, Monotonic, Msecs},
};

use crate::{
    abi::{
        event::{Event, NO_RING, SOURCE_DRIVER},
        identity::MAX_RINGS,
    },
    deferred::DeferredInjections,
    event_list::{EventList, Evicted},
    kernel_additions::completion::wait_interruptible_timeout,
    measured_lock::{LockFigures, MeasuredLock},
    node::{Entry, Node},
    registers::{DeviceCounters, Gathering, Registers},
    trace,
    trouble::{Noticed, Told, Trouble},
    uapi::{AddEvent, Coalescing, Counters, COALESCING_EVENTS_MAX, COALESCING_MICROSECONDS_MAX},
};

/// How long to wait before a device that does not answer is asked again.
const ANSWER_PAUSE: Delta = Delta::from_millis(20);

/// One device. An open file keeps it alive when the device is gone; every call then fails with
/// `ENODEV`, and no register is touched. Freed in process context: that sleeps.
#[pin_data]
pub(crate) struct Device {
    rings: usize,
    registers: Registers,

    /// Serialises process context: adding events, doorbells, coalescing, reading counters, and
    /// readers, which would otherwise give each other's events out of order. Held while events are
    /// copied to a program, never while waiting for events.
    ///
    /// Lock order: taken with no other lock held; `events` or `gathering` may be taken inside.
    #[pin]
    process: MeasuredLock<Process, MutexBackend>,

    /// The events, shared with the interrupt handlers, the timers and the work that makes nodes; all
    /// that is counted; which reset is wanted; and whether the device is gone. Taken in process,
    /// hard-IRQ and soft-IRQ context. Nothing under it sleeps, allocates, frees, or copies to or from
    /// a program.
    ///
    /// Lock order: innermost; taken inside `process`, inside the lock of the deferred injections, and
    /// inside a ring's lock by its handler and by the watchdog.
    #[pin]
    events: MeasuredLock<EventList, SpinLockIrqBackend>,

    /// When each ring is to interrupt, as programs want it. Held while that is written to the device,
    /// which so has what was wanted last. Taken in process context, and by the watchdog in soft-IRQ
    /// context. Nothing under it sleeps, allocates or frees; registers are accessed under it.
    ///
    /// Lock order: innermost; taken inside `process`, and inside a ring's lock by the watchdog and by
    /// probe.
    #[pin]
    gathering: SpinLockIrq<[Gathering; MAX_RINGS]>,

    /// Wakes those who wait in [`Self::wait_for_event`], and those who poll: an event came, or the
    /// device is gone.
    #[pin]
    changed: PollCondVar,

    /// Wakes those who wait in [`Self::reset`]: the device was set up anew, or is gone.
    #[pin]
    restarted: CondVar,

    /// Doorbells that are to be rung later. Locks for itself.
    #[pin]
    deferred: DeferredInjections,

    /// What the log knows already. Needs no lock.
    told: Told,
}

/// What only process context needs.
pub(crate) struct Process {
    /// Sequence number of the next event that a program adds.
    next_sequence: u64,
}

impl Device {
    /// A device of which nobody knows yet. May sleep.
    pub(crate) fn new(registers: Registers, rings: usize, list_bound: u32) -> Result<Arc<Self>> {
        let process = Process { next_sequence: 0 };
        let events = EventList::new(rings, list_bound)?;
        Arc::pin_init(
            try_pin_init!(Self {
                rings,
                registers,
                process <- MeasuredLock::new(new_mutex!(process, "evgen::process")),
                events <- MeasuredLock::new(new_spinlock_irq!(events, "evgen::events")),
                gathering <- new_spinlock_irq!(
                    [Gathering::default(); MAX_RINGS], "evgen::gathering"
                ),
                changed <- new_poll_condvar!("evgen::changed"),
                restarted <- new_condvar!("evgen::restarted"),
                deferred <- DeferredInjections::new(),
                told: Told::new(),
            }),
            GFP_KERNEL,
        )
    }

    /// Number of rings.
    pub(crate) fn rings(&self) -> usize {
        self.rings
    }

    pub(crate) fn registers(&self) -> &Registers {
        &self.registers
    }

    pub(crate) fn events(&self) -> &MeasuredLock<EventList, SpinLockIrqBackend> {
        &self.events
    }

    /// How often the mutex that serialises process context was taken. In any context.
    pub(crate) fn process_figures(&self) -> LockFigures {
        self.process.figures()
    }

    /// Notified when an event came, or the device is gone.
    pub(crate) fn changed(&self) -> &PollCondVar {
        &self.changed
    }

    pub(crate) fn deferred(&self) -> &DeferredInjections {
        &self.deferred
    }

    /// `ENODEV` if the device is gone. It may be by the time that the caller looks at this.
    pub(crate) fn check_present(&self) -> Result {
        match self.events.lock().is_gone() {
            true => Err(ENODEV),
            false => Ok(()),
        }
    }

    /// Locks out all other process context, if the device is still there. Sleeps; `ERESTARTSYS` if
    /// a signal comes first, so this is what a call does before anything else that can be seen.
    pub(crate) fn lock(&self) -> Result<MutexGuard<'_, Process>> {
        let process = self.process.lock_interruptible().map_err(|_| ERESTARTSYS)?;
        self.check_present()?;
        Ok(process)
    }

    /// The device is of no more use: from now on every call fails, and nobody waits for it. In any
    /// context.
    ///
    /// Who holds `process` may still use the device once more. That does no harm, as [`Registers`]
    /// explains, and waiting for it might take forever: until a program's page is there.
    pub(crate) fn give_up(&self) {
        let drained = self.events.lock().set_gone();
        self.changed.notify_all();
        self.restarted.notify_all();
        if let Some(drained) = drained {
            drained.complete_all();
        }
    }

    /// Counts and remembers what went wrong, with a ring or with the whole device, and logs it if it
    /// is the first of its kind. In any context.
    pub(crate) fn note(&self, trouble: Trouble, ring: Option<usize>, what: fmt::Arguments<'_>) {
        let noticed = Noticed::now(trouble, ring);
        self.events.lock().record_trouble(noticed);
        trace::trouble(self.registers.device(), ring, trouble);
        self.told.tell(&self.registers, trouble, what);
    }

    /// Tells those who look on that events left the list unread. In any context.
    pub(crate) fn tell_evicted(&self, evicted: Evicted) {
        if evicted.count > 0 {
            trace::evicted(self.registers.device(), evicted.count, evicted.early);
        }
    }

    /// Tells those who wait that events came.
    ///
    /// All who wait: more events than one may have come at a time.
    pub(crate) fn notify(&self) {
        self.changed.notify_all();
    }

    /// Waits until there is an event. By the time the caller has the mutex, another reader may have
    /// taken it. Counts in `sleeps` how often it sleeps.
    pub(crate) fn wait_for_event(&self, nonblocking: bool, sleeps: &Atomic<u64>) -> Result {
        let mut events = self.events.lock();
        let mut signal_pending = false;
        loop {
            // A signal must not win over an event or the end of the device that came with it.
            if events.is_gone() {
                return Err(ENODEV);
            }
            if !events.is_empty() {
                return Ok(());
            }
            if nonblocking {
                return Err(EAGAIN);
            }
            if signal_pending {
                return Err(ERESTARTSYS);
            }
            sleeps.add(1, Relaxed);
            signal_pending = self.changed.wait_interruptible(&mut events);
        }
    }

    /// Takes back what a reader took out of the list: the nodes of `count` events that were `read`,
    /// and the events that were left `unread`. In process context.
    pub(crate) fn give_back(&self, read: &mut List<Node>, count: usize, unread: &mut List<Node>) {
        // Others may have found the list empty meanwhile, and sleep.
        let notify = !unread.is_empty();
        let drained = self.events.lock().give_back(read, count, unread);
        if notify {
            self.notify();
        }
        if let Some(drained) = drained {
            drained.complete_all();
        }
    }

    /// Waits until every event was read, for so many milliseconds at most; `ETIMEDOUT` if they were
    /// not, `EINTR` if a signal came first.
    pub(crate) fn wait_drained(&self, milliseconds: Msecs) -> Result {
        let new = Arc::pin_init(Completion::new(), GFP_KERNEL)?;
        let drained = {
            let mut events = self.events.lock();
            if events.is_gone() {
                return Err(ENODEV);
            }
            match events.when_drained(&new) {
                Some(drained) => drained,
                None => return Ok(()),
            }
        };
        let waited = wait_interruptible_timeout(&drained, msecs_to_jiffies(milliseconds));
        self.check_present()?;
        waited.map_err(|error| match error {
            // Called again, it would wait for the whole time again.
            ERESTARTSYS => EINTR,
            error => error,
        })
    }

    /// Appends an event to the list.
    pub(crate) fn add(&self, event: &AddEvent) -> Result {
        if event.reserved != [0; 3] {
            return Err(EINVAL);
        }
        let mut spare = List::new();
        let evicted = {
            // The sequence numbers go with the order in the list because the mutex is held over
            // both. The list's lock is not held while the node is allocated and, with `spare`,
            // freed.
            let mut process = self.lock()?;
            let event = Event {
                sequence: process.next_sequence,
                timestamp: Monotonic::ktime_get() as u64,
                source: SOURCE_DRIVER,
                kind: event.kind,
                ring: NO_RING,
                flags: 0,
                payload: event.payload,
            };
            let node = Node::new(Entry::added(event.to_bytes()), GFP_KERNEL)?;
            process.next_sequence = process.next_sequence.wrapping_add(1);
            self.events.lock().add(node, &mut spare)
        };
        self.tell_evicted(evicted);
        self.notify();
        Ok(())
    }

    /// Makes the device make an event.
    pub(crate) fn inject(&self, ring: u32) -> Result {
        let ring = ring as usize;
        if ring >= self.rings {
            return Err(EINVAL);
        }
        let _process = self.lock()?;
        self.registers.ring_doorbell(ring)
    }

    /// When each ring is to interrupt. With the lock held, that stays so.
    pub(crate) fn gathering(&self) -> &SpinLockIrq<[Gathering; MAX_RINGS]> {
        &self.gathering
    }

    /// Lets a ring gather events before it interrupts. Sleeps while the device does not answer; that
    /// ends, because the watchdog gives such a device up.
    pub(crate) fn set_coalescing(&self, coalescing: &Coalescing) -> Result {
        let ring = coalescing.ring as usize;
        if ring >= self.rings
            || coalescing.events > COALESCING_EVENTS_MAX
            || coalescing.microseconds > COALESCING_MICROSECONDS_MAX
            || coalescing.reserved != 0
        {
            return Err(EINVAL);
        }
        let wanted = Gathering {
            events: coalescing.events,
            microseconds: coalescing.microseconds,
        };
        loop {
            let process = self.lock()?;
            let mut gathering = self.gathering.lock();
            let result = self.registers.set_gathering(ring, wanted);
            if result.is_ok() {
                // From now on it is written whenever the ring is set up.
                gathering[ring] = wanted;
            }
            drop(gathering);
            drop(process);
            match result {
                Err(error) if error == EAGAIN => self.wait_for_answer()?,
                result => return result,
            }
        }
    }

    /// Has the watchdog reset the device at its next look, and waits until it is set up anew. `EINTR` if
    /// a signal comes first; the reset goes on.
    pub(crate) fn reset(&self) -> Result {
        let mut events = self.events.lock();
        let reset = events.resets().ask();
        let mut signal_pending = false;
        loop {
            if events.is_gone() {
                return Err(ENODEV);
            }
            if events.resets().is_done(reset) {
                return Ok(());
            }
            if signal_pending {
                return Err(EINTR);
            }
            signal_pending = self.restarted.wait_interruptible(&mut events);
        }
    }

    /// The device was set up anew. In any context.
    pub(crate) fn note_restart(&self) {
        let mut events = self.events.lock();
        events.count_device_restart();
        events.resets().finish();
        drop(events);
        self.restarted.notify_all();
        trace::restart(self.registers.device(), None);
    }

    /// Waits until it is worth while to ask the device again. Not with the mutex held: readers need
    /// no register.
    fn wait_for_answer(&self) -> Result {
        if current!().signal_pending() {
            return Err(ERESTARTSYS);
        }
        fsleep(ANSWER_PAUSE);
        Ok(())
    }

    /// What the device and the driver counted. Sleeps while the device does not answer; that ends,
    /// because the watchdog gives such a device up.
    pub(crate) fn counters(&self) -> Result<Counters> {
        loop {
            if let Some(counters) = self.try_counters()? {
                return Ok(counters);
            }
            self.wait_for_answer()?;
        }
    }

    fn try_counters(&self) -> Result<Option<Counters>> {
        let _process = self.lock()?;
        let mut by_device = [DeviceCounters::default(); MAX_RINGS];
        for (ring, by_device) in by_device.iter_mut().enumerate().take(self.rings) {
            *by_device = self.registers.counters(ring)?;
            if !by_device.are_real() {
                return Ok(None);
            }
        }
        let came_about = self.registers.fault_counts()?;
        if came_about.contains(&u64::MAX) {
            return Ok(None);
        }
        let mut counters = self.events.lock().counters();
        counters.came_about = came_about;
        for (ring, by_device) in counters.ring.iter_mut().zip(by_device) {
            ring.generated = by_device.generated;
            ring.delivered = by_device.delivered;
            ring.dropped = by_device.dropped;
            ring.faulted = by_device.faulted;
            ring.extra = by_device.extra;
        }
        Ok(Some(counters))
    }
}
