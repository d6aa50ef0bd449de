// SPDX-License-Identifier: GPL-2.0

//! All rings of one device in service: taking what comes, and setting a ring up, at first and when
//! something went wrong.

use kernel::{
    device::{self, Bound},
    fmt,
    list::List,
    new_spinlock_irq,
    prelude::*,
    sync::{lock::spinlock::SpinLockIrqBackend, Arc},
};

use crate::{
    abi::registers::cause_error,
    device::Device,
    measured_lock::{LockFigures, MeasuredLock},
    node::{Batch, Node},
    refill::Refill,
    registers::Registers,
    ring::Ring,
    service::{Service, Snapshot, State, Taken},
    trace,
    trouble::Trouble,
    watchdog::PERIOD_MICROSECONDS,
};

/// The rings of one device, as its interrupt handlers and its watchdog share them. Their memory lives
/// here, so the device must have been silenced when the last of those lets go.
pub(crate) struct Rings {
    device: Arc<Device>,
    refill: Arc<Refill>,
    rings: KVec<Pin<KBox<Serviced>>>,
}

/// One ring and its lock.
#[pin_data]
struct Serviced {
    /// The ring. Taken by the ring's handler (hard-IRQ context), by the watchdog (soft-IRQ context),
    /// by the handler of the status vector, and by probe. With PREEMPT_RT all of those are threads.
    /// Nothing under it sleeps, allocates or frees; registers are accessed under it.
    ///
    /// Lock order: outermost but for the watchdog's own; no two rings' at a time; the device's
    /// `events` is taken inside.
    #[pin]
    service: MeasuredLock<Service, SpinLockIrqBackend>,
}

impl Rings {
    /// Allocates all rings of a device, of `size` descriptors each, none of which the device knows of
    /// yet. Sleeps.
    pub(crate) fn new(
        dev: &device::Device<Bound>,
        device: Arc<Device>,
        refill: Arc<Refill>,
        size: u16,
    ) -> Result<Arc<Self>> {
        let mut rings = KVec::with_capacity(device.rings(), GFP_KERNEL)?;
        for index in 0..device.rings() {
            let service = Service::new(index, Ring::new(dev, size)?)?;
            let serviced = pin_init!(Serviced {
                service <- MeasuredLock::new(new_spinlock_irq!(service, "evgen::ring")),
            });
            rings.push(KBox::pin_init(serviced, GFP_KERNEL)?, GFP_KERNEL)?;
        }
        let rings = Self {
            device,
            refill,
            rings,
        };
        Ok(Arc::new(rings, GFP_KERNEL)?)
    }

    /// The device that they belong to.
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// What each ring is like. In any context.
    pub(crate) fn snapshots(&self) -> impl Iterator<Item = Snapshot> + '_ {
        self.rings
            .iter()
            .map(|serviced| serviced.service.lock().snapshot())
    }

    /// How often the lock of each ring was taken. In any context.
    pub(crate) fn lock_figures(&self) -> impl Iterator<Item = LockFigures> + '_ {
        self.rings.iter().map(|serviced| serviced.service.figures())
    }

    /// Sets up all rings of a device that is off, and lets it run. What the device had put into them
    /// is taken first. In any context.
    pub(crate) fn bring_up(&self) -> Result {
        for index in 0..self.rings.len() {
            self.set_up(index)?;
        }
        self.registers().run()?;
        // A device that reset itself before it ran has turned off what was on. One that does so from
        // now on does not run any more, which the watchdog sees.
        for (index, serviced) in self.rings.iter().enumerate() {
            let in_use = serviced.service.lock().state == State::InUse;
            if in_use && self.registers().ring_is_off(index) {
                return Err(EAGAIN);
            }
        }
        Ok(())
    }

    /// An interrupt of ring `index`: takes all that is there.
    pub(crate) fn interrupt(&self, index: usize) {
        let Some(serviced) = self.rings.get(index) else {
            return;
        };
        let mut service = serviced.service.lock();
        let taken = match service.state {
            State::InUse => self.take_all(&mut service),
            State::Suspended | State::Lost => Taken::default(),
        };
        drop(service);
        trace::interrupt(self.registers().device(), index, taken.events);
        self.device
            .events()
            .lock()
            .count_interrupt(taken.is_empty());
        self.tell(index, &taken);
    }

    /// An interrupt of the status vector, or a time at which one may have been missed.
    pub(crate) fn look_at_status(&self) {
        let Ok(causes) = self.registers().take_status() else {
            return;
        };
        // That a ring dropped events is only good to know; the device counts them itself. That the
        // device reset itself, the watchdog sees in its health.
        for (index, serviced) in self.rings.iter().enumerate() {
            if causes & cause_error(index) == 0 {
                continue;
            }
            serviced.service.lock().suspend();
            self.device.note(
                Trouble::RingError,
                Some(index),
                fmt!("ring {index} is in the error state, and will be set up anew"),
            );
        }
    }

    /// Has nodes made once more if there was no memory for them. In any context.
    pub(crate) fn refill_again(&self) {
        let wants_nodes = self.device.events().lock().wants_nodes_again();
        if wants_nodes {
            Refill::queue(&self.refill);
        }
    }

    /// The watchdog's regular look at all rings: takes what nobody told of, sets up what is
    /// suspended.
    pub(crate) fn check(&self) {
        for (index, serviced) in self.rings.iter().enumerate() {
            let mut service = serviced.service.lock();
            let mut taken = Taken::default();
            let mut lost = false;
            if service.state == State::InUse {
                match service.ring.waiting() {
                    Ok(0) => service.waited = 0,
                    Ok(_) if service.waited < self.patience(index) => service.waited += 1,
                    Ok(_) => {
                        lost = true;
                        taken = self.take_all(&mut service);
                    }
                    // Taking finds the same, and suspends the ring.
                    Err(_) => taken = self.take_all(&mut service),
                }
            }
            let suspended = service.state == State::Suspended;
            drop(service);
            if lost {
                self.device.note(
                    Trouble::LostInterrupt,
                    Some(index),
                    fmt!("ring {index}: events waited, and no interrupt told of them"),
                );
            }
            self.tell(index, &taken);
            if suspended {
                self.restart(index);
            }
        }
    }

    /// At how many looks in a row events may wait in a ring until one at which they still do means that
    /// their interrupt was lost.
    fn patience(&self, index: usize) -> u32 {
        let wait = self.device.gathering().lock()[index].longest_wait();
        1 + wait.div_ceil(PERIOD_MICROSECONDS)
    }

    /// Turns a ring off and sets it up anew. If the device does not take that now, the next look
    /// tries again.
    fn restart(&self, index: usize) {
        if self.registers().turn_off(index).is_err() {
            return;
        }
        match self.set_up(index) {
            Ok(()) => {
                self.device.events().lock().count_ring_restart();
                trace::restart(self.registers().device(), Some(index));
            }
            Err(error) if error == EIO => self.lose(index, fmt!("the device refuses it")),
            Err(_) => {}
        }
    }

    /// Sets up a ring that the device has turned off, from the beginning; before that, takes what is
    /// in it.
    fn set_up(&self, index: usize) -> Result {
        let Some(serviced) = self.rings.get(index) else {
            return Err(EINVAL);
        };
        let mut service = serviced.service.lock();
        if service.state == State::Lost {
            return Ok(());
        }
        let taken = self.take_all(&mut service);
        if taken.fault.is_some() {
            drop(service);
            self.tell(index, &taken);
            self.lose(index, fmt!("that is so even when it is off"));
            return Ok(());
        }
        service.state = State::Suspended;
        service.waited = 0;
        service.ring.begin();
        // Under the lock, for the first event can come before this returns.
        let (size, addresses) = (service.ring.size(), service.ring.addresses());
        let gathering = self.device.gathering().lock();
        let result = self
            .registers()
            .turn_on(index, size, &addresses, gathering[index]);
        drop(gathering);
        if result.is_ok() {
            service.state = State::InUse;
        }
        drop(service);
        self.tell(index, &taken);
        result
    }

    fn lose(&self, index: usize, why: fmt::Arguments<'_>) {
        if let Some(serviced) = self.rings.get(index) {
            serviced.service.lock().state = State::Lost;
        }
        self.device.note(
            Trouble::RingLost,
            Some(index),
            fmt!("ring {index} stays off from now on: {why}"),
        );
    }

    /// Takes all that is in a ring over into the device's list, also what comes meanwhile. The next
    /// event after this interrupts. A ring with a fault is suspended.
    fn take_all(&self, service: &mut Service) -> Taken {
        let (index, size) = (service.index(), usize::from(service.ring.size()));
        let mut taken = Taken::default();
        let result = loop {
            let waiting = match service.ring.waiting() {
                Ok(0) => break Ok(()),
                Ok(waiting) => waiting,
                Err(fault) => break Err(fault),
            };
            service.waited = 0;
            let mut batch = Batch::default();
            let result = service.take(waiting, &mut batch, || {
                // If this fails, the device is gone, and nobody measures any more.
                let _ = self.registers().acknowledge(index);
            });
            taken.add(&batch);
            self.append(index, &mut batch, &mut service.spare);
            if result.is_err() {
                break result;
            }
            service.ring.ask_for_interrupt();
            // A device as fast as this could keep it going for ever; one without buffers cannot.
            if taken.count() < size {
                service.ring.offer();
            }
        };
        match result {
            Ok(()) => service.ring.offer(),
            Err(fault) => {
                taken.fault = Some(fault);
                service.suspend();
            }
        }
        taken
    }

    /// Appends what was taken to the device's list, and has nodes made if few are left there.
    fn append(&self, index: usize, batch: &mut Batch, spare: &mut List<Node>) {
        let mut events = self.device.events().lock();
        let evicted = events.receive(index, batch, spare);
        let wants_nodes = events.wants_nodes();
        drop(events);
        if wants_nodes {
            Refill::queue(&self.refill);
        }
        self.device.tell_evicted(evicted);
    }

    /// Tells whom it concerns what was taken. With no ring's lock held.
    fn tell(&self, index: usize, taken: &Taken) {
        if taken.events > 0 {
            self.device.notify();
        }
        if let Some(fault) = taken.fault {
            self.device
                .note(fault.into(), Some(index), fmt!("ring {index}: {fault}"));
        }
    }

    fn registers(&self) -> &Registers {
        self.device.registers()
    }
}
