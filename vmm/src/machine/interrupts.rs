// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Interrupts into the guest: which GSI means which message, and the eventfds that raise them.
//!
//! KVM knows an interrupt by a number, the GSI, and looks up in one table per machine what it
//! means. [`InterruptRouter`] owns that table. [`KvmMsiSink`] gives a device's MSI-X vectors GSIs
//! and irqfds of it, each when it is first raised, so that vectors never raised cost nothing. When
//! there are no more to be had, messages go to KVM one by one, which takes none.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, KVM_MAX_IRQ_ROUTES, KvmIrqRouting, kvm_irq_routing_entry, kvm_msi,
};
use kvm_ioctls::VmFd;
use lockstorm_device_model::{MsiMessage, MsiSink};
use thiserror::Error;
use tracing::warn;
use vmm_sys_util::errno;
use vmm_sys_util::eventfd::EventFd;

use crate::rate_limit::Occurrences;

/// Pins of the I/O APIC; their GSIs are 0 to 23.
const IOAPIC_PINS: u32 = 24;
/// Pins of the two PICs together.
const PIC_PINS: u32 = 16;
/// Messages that the table has room for, beside the pins.
const MAX_MESSAGES: usize = KVM_MAX_IRQ_ROUTES - (IOAPIC_PINS + PIC_PINS) as usize;

/// An interrupt that could not be set up.
#[derive(Debug, Error)]
pub enum InterruptError {
    /// The table is full.
    #[error(
        "all {MAX_MESSAGES} interrupt routes that KVM has for messages are in use: \
         give the machine fewer devices or vectors"
    )]
    Full,
    /// KVM does not take the table.
    #[error(
        "KVM refuses to route GSIs to messages (None: to nothing), {count} of them, the first \
         {first:x?}: {source}"
    )]
    Routes {
        /// How much was to change in the table.
        count: usize,
        /// The first of it.
        first: Option<(u32, Option<MsiMessage>)>,
        /// KVM's answer.
        source: errno::Error,
    },
    /// No eventfd to be had.
    #[error("cannot make an eventfd for an interrupt: {0}; raise the limit of open files")]
    Eventfd(#[source] io::Error),
    /// KVM does not take the irqfd.
    #[error("KVM refuses an irqfd for GSI {gsi}: {source}")]
    Assign {
        /// The interrupt's number.
        gsi: u32,
        /// KVM's answer.
        source: errno::Error,
    },
    /// The eventfd does not take a write.
    #[error("cannot raise GSI {gsi}: {source}")]
    Raise {
        /// The interrupt's number.
        gsi: u32,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// The GSI is a pin of an interrupt controller.
    Pin {
        /// The interrupt's number.
        gsi: u32,
        /// Which controller: one of the `KVM_IRQCHIP_` constants.
        chip: u32,
        /// Which of its pins.
        pin: u32,
    },
    /// The GSI sends a message.
    Message {
        /// The interrupt's number.
        gsi: u32,
        /// What it sends.
        message: MsiMessage,
    },
}

impl From<Route> for kvm_irq_routing_entry {
    fn from(route: Route) -> Self {
        let mut entry = Self::default();
        match route {
            Route::Pin { gsi, chip, pin } => {
                entry.gsi = gsi;
                entry.type_ = KVM_IRQ_ROUTING_IRQCHIP;
                entry.u.irqchip.irqchip = chip;
                entry.u.irqchip.pin = pin;
            }
            Route::Message { gsi, message } => {
                entry.gsi = gsi;
                entry.type_ = KVM_IRQ_ROUTING_MSI;
                entry.u.msi.address_lo = message.address as u32;
                entry.u.msi.address_hi = (message.address >> 32) as u32;
                entry.u.msi.data = message.data;
            }
        }
        entry
    }
}

/// What the router asks of KVM.
pub trait IrqChip: Send + Sync {
    /// Replaces the whole table.
    fn set_routes(&self, routes: &[Route]) -> Result<(), errno::Error>;
    /// Makes a write to `trigger` raise `gsi`.
    fn assign(&self, gsi: u32, trigger: &EventFd) -> Result<(), errno::Error>;
    /// Ends that. What was written before has been raised when this returns.
    fn deassign(&self, gsi: u32, trigger: &EventFd) -> Result<(), errno::Error>;
    /// Sends `message`, without a route. It has arrived when this returns.
    fn signal(&self, message: MsiMessage) -> Result<(), errno::Error>;
}

impl IrqChip for VmFd {
    fn set_routes(&self, routes: &[Route]) -> Result<(), errno::Error> {
        let entries: Vec<kvm_irq_routing_entry> =
            routes.iter().map(|&route| route.into()).collect();
        let table =
            KvmIrqRouting::from_entries(&entries).map_err(|_| errno::Error::new(libc::E2BIG))?;
        self.set_gsi_routing(&table)
    }

    fn assign(&self, gsi: u32, trigger: &EventFd) -> Result<(), errno::Error> {
        self.register_irqfd(trigger, gsi)
    }

    fn deassign(&self, gsi: u32, trigger: &EventFd) -> Result<(), errno::Error> {
        self.unregister_irqfd(trigger, gsi)
    }

    fn signal(&self, message: MsiMessage) -> Result<(), errno::Error> {
        self.signal_msi(kvm_msi {
            address_lo: message.address as u32,
            address_hi: (message.address >> 32) as u32,
            data: message.data,
            ..kvm_msi::default()
        })
        .map(drop)
    }
}

/// The machine's table of interrupt routes.
///
/// The lock covers the messages in the table and is held while KVM takes a new one, so that tables
/// reach KVM in the order they were made. It is taken in process context by whoever sets up a
/// vector, which is done with the device locked; nothing is locked inside it.
pub struct InterruptRouter {
    chip: Arc<dyn IrqChip>,
    irqfds: bool,
    messages: Mutex<BTreeMap<u32, MsiMessage>>,
    lost: Arc<Occurrences>,
    signalled: Occurrences,
    irqfds_kept: Occurrences,
    routes_kept: Occurrences,
}

impl InterruptRouter {
    /// A router for a machine with the in-kernel interrupt controllers and nothing else routed.
    pub fn new(chip: Arc<dyn IrqChip>) -> Self {
        Self {
            chip,
            irqfds: true,
            messages: Mutex::default(),
            lost: Arc::default(),
            signalled: Occurrences::default(),
            irqfds_kept: Occurrences::default(),
            routes_kept: Occurrences::default(),
        }
    }

    /// The same, but every message goes to KVM by itself and no irqfd is used: for a benchmark to
    /// compare the two.
    pub fn without_irqfds(self) -> Self {
        Self {
            irqfds: false,
            ..self
        }
    }

    /// Interrupts lost because the host could not set them up or raise them. None on a sound host.
    pub fn lost(&self) -> &Arc<Occurrences> {
        &self.lost
    }

    /// Gives `message` a GSI.
    fn allocate(&self, message: MsiMessage) -> Result<u32, InterruptError> {
        let mut messages = self.lock();
        if messages.len() == MAX_MESSAGES {
            return Err(InterruptError::Full);
        }
        let in_a_row = (IOAPIC_PINS..)
            .zip(messages.keys())
            .take_while(|(expected, gsi)| expected == *gsi);
        let gsi = IOAPIC_PINS + in_a_row.count() as u32;
        self.change(&mut messages, &[(gsi, Some(message))])?;
        Ok(gsi)
    }

    /// Gives `gsi`, which is allocated and has no irqfd now, another message.
    fn update(&self, gsi: u32, message: MsiMessage) -> Result<(), InterruptError> {
        self.change(&mut self.lock(), &[(gsi, Some(message))])
    }

    /// Takes back GSIs, which have no irqfds any more.
    fn free(&self, gsis: impl IntoIterator<Item = u32>) -> Result<(), InterruptError> {
        let edits: Vec<_> = gsis.into_iter().map(|gsi| (gsi, None)).collect();
        self.change(&mut self.lock(), &edits)
    }

    /// Changes the table, or leaves it alone if KVM does not like what comes of it. The guest
    /// chooses messages, and one that KVM refuses must not stand in the way of all others.
    fn change(
        &self,
        messages: &mut BTreeMap<u32, MsiMessage>,
        edits: &[(u32, Option<MsiMessage>)],
    ) -> Result<(), InterruptError> {
        let before: Vec<_> = edits
            .iter()
            .map(|&(gsi, message)| (gsi, set(messages, gsi, message)))
            .collect();
        self.chip.set_routes(&table(messages)).map_err(|source| {
            for (gsi, message) in before {
                set(messages, gsi, message);
            }
            InterruptError::Routes {
                count: edits.len(),
                first: edits.first().copied(),
                source,
            }
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, MsiMessage>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the message of a vector that has no irqfd, because of `error` unless none was wanted.
    /// That is slower; the interrupt is lost only if KVM refuses it this way too.
    fn signal(&self, vector: u16, message: MsiMessage, error: Option<&InterruptError>) {
        match (self.chip.signal(message), error) {
            (Ok(()), None) => {}
            (Ok(()), Some(error)) => {
                if let Some(so_far) = self.signalled.add() {
                    warn!(
                        "interrupt of MSI-X vector {vector} sent without an irqfd, {so_far} so far: {error}"
                    );
                }
            }
            (Err(source), error) => {
                if let Some(so_far) = self.lost.add() {
                    let before = error.map(|error| format!("{error}; and without an irqfd: "));
                    let before = before.unwrap_or_default();
                    warn!(
                        "interrupt of MSI-X vector {vector} lost, {so_far} so far: {before}{source}"
                    );
                }
            }
        }
    }
}

/// Sets or removes the message of `gsi`, and gives what was there.
fn set(
    messages: &mut BTreeMap<u32, MsiMessage>,
    gsi: u32,
    message: Option<MsiMessage>,
) -> Option<MsiMessage> {
    match message {
        Some(message) => messages.insert(gsi, message),
        None => messages.remove(&gsi),
    }
}

/// The whole table. The pins are as KVM has them from the start: each table replaces the last.
fn table(messages: &BTreeMap<u32, MsiMessage>) -> Vec<Route> {
    let ioapic = (0..IOAPIC_PINS).map(|pin| Route::Pin {
        gsi: pin,
        chip: KVM_IRQCHIP_IOAPIC,
        pin,
    });
    let pic = (0..PIC_PINS).map(|gsi| Route::Pin {
        gsi,
        chip: if gsi < 8 {
            KVM_IRQCHIP_PIC_MASTER
        } else {
            KVM_IRQCHIP_PIC_SLAVE
        },
        pin: gsi % 8,
    });
    let messages = messages
        .iter()
        .map(|(&gsi, &message)| Route::Message { gsi, message });
    ioapic.chain(pic).chain(messages).collect()
}

/// A vector that has been raised.
struct Line {
    gsi: u32,
    message: MsiMessage,
    trigger: EventFd,
    /// Whether KVM raises `gsi` when `trigger` is written to. Not while the guest masks the vector.
    assigned: bool,
}

/// Sends a device's interrupts by irqfd.
pub struct KvmMsiSink {
    router: Arc<InterruptRouter>,
    lines: BTreeMap<u16, Line>,
}

impl KvmMsiSink {
    /// A sink with no vector set up yet.
    pub fn new(router: Arc<InterruptRouter>) -> Self {
        Self {
            router,
            lines: BTreeMap::new(),
        }
    }

    /// From now on a write to `trigger`, whoever it comes from, sends `message` as `vector`'s, until
    /// [`MsiSink::settle`] or [`MsiSink::release`]. A vector keeps the trigger that it had first.
    pub fn connect(
        &mut self,
        vector: u16,
        message: MsiMessage,
        trigger: &EventFd,
    ) -> Result<(), InterruptError> {
        self.ready(vector, message, || trigger.try_clone())
    }

    fn try_raise(&mut self, vector: u16, message: MsiMessage) -> Result<(), InterruptError> {
        self.ready(vector, message, || {
            EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)
        })?;
        match self.lines.get(&vector) {
            None => Ok(()),
            Some(line) => line
                .trigger
                .write(1)
                .map_err(|source| InterruptError::Raise {
                    gsi: line.gsi,
                    source,
                }),
        }
    }

    /// Has KVM send `message` when the vector's trigger is written to.
    fn ready(
        &mut self,
        vector: u16,
        message: MsiMessage,
        trigger: impl FnOnce() -> io::Result<EventFd>,
    ) -> Result<(), InterruptError> {
        if self
            .lines
            .get(&vector)
            .is_none_or(|line| line.message != message || !line.assigned)
        {
            let line = match self.lines.remove(&vector) {
                None => self.new_line(message, trigger)?,
                Some(line) => self.reconnect(line, message)?,
            };
            self.lines.insert(vector, line);
        }
        Ok(())
    }

    fn new_line(
        &self,
        message: MsiMessage,
        trigger: impl FnOnce() -> io::Result<EventFd>,
    ) -> Result<Line, InterruptError> {
        let trigger = trigger().map_err(InterruptError::Eventfd)?;
        let gsi = self.router.allocate(message)?;
        self.assign(Line {
            gsi,
            message,
            trigger,
            assigned: false,
        })
    }

    /// Without its irqfd the GSI is quiet while its route changes: what was raised before has gone
    /// out with the old message, and nothing can go out with the new one before its time.
    fn reconnect(&self, mut line: Line, message: MsiMessage) -> Result<Line, InterruptError> {
        if line.message != message {
            self.deassign(&mut line);
            if let Err(error) = self.router.update(line.gsi, message) {
                self.free([line.gsi]);
                return Err(error);
            }
            line.message = message;
        }
        self.assign(line)
    }

    fn assign(&self, line: Line) -> Result<Line, InterruptError> {
        match self.router.chip.assign(line.gsi, &line.trigger) {
            Ok(()) => Ok(Line {
                assigned: true,
                ..line
            }),
            Err(source) => {
                self.free([line.gsi]);
                Err(InterruptError::Assign {
                    gsi: line.gsi,
                    source,
                })
            }
        }
    }

    fn deassign(&self, line: &mut Line) {
        if !std::mem::take(&mut line.assigned) {
            return;
        }
        if let Err(error) = self.router.chip.deassign(line.gsi, &line.trigger)
            && let Some(so_far) = self.router.irqfds_kept.add()
        {
            let gsi = line.gsi;
            warn!("KVM keeps the irqfd of GSI {gsi}, {so_far} such so far: {error}");
        }
    }

    fn free(&self, gsis: impl IntoIterator<Item = u32>) {
        if let Err(error) = self.router.free(gsis)
            && let Some(so_far) = self.router.routes_kept.add()
        {
            warn!("{error} ({so_far} such refusals so far)");
        }
    }
}

impl MsiSink for KvmMsiSink {
    fn raise(&mut self, vector: u16, message: MsiMessage) {
        if !self.router.irqfds {
            self.router.signal(vector, message, None);
        } else if let Err(error) = self.try_raise(vector, message) {
            self.router.signal(vector, message, Some(&error));
        }
    }

    /// KVM injects most messages while the eventfd is written to, and leaves the others to a worker
    /// of its own, which may come late. To take the irqfd away waits for that worker. The route
    /// stays, so that raising the vector again costs no new table.
    fn settle(&mut self, vector: u16) {
        if let Some(mut line) = self.lines.remove(&vector) {
            self.deassign(&mut line);
            self.lines.insert(vector, line);
        }
    }

    fn release(&mut self) {
        if self.lines.is_empty() {
            return;
        }
        let mut lines = std::mem::take(&mut self.lines);
        for line in lines.values_mut() {
            self.deassign(line);
        }
        self.free(lines.values().map(|line| line.gsi));
    }
}

impl Drop for KvmMsiSink {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
#[path = "interrupts_test.rs"]
mod tests;

#[cfg(test)]
#[path = "interrupts_fire_test.rs"]
mod fire_tests;
