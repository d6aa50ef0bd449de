// SPDX-License-Identifier: GPL-2.0

//! The interrupt handlers: one for each ring, one for the device's status.

use kernel::{
    device::Bound,
    irq::{self, Flags, IrqReturn, Registration},
    list::List,
    new_spinlock_irq,
    pci::{self, IrqType, IrqTypes, IrqVectorRegistration},
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, SpinLockIrq,
    },
};

use crate::{
    abi::{
        event::Event,
        identity::{ring_vector, status_vector, vector_count, MAX_RINGS},
        registers::cause_error,
    },
    device::Device,
    event_list::{Entry, Node},
    registers::Shape,
    ring::{Fault, Ring},
};

/// What `/proc/interrupts` calls the vectors of the rings.
const RING_NAMES: [&CStr; MAX_RINGS] = [
    c"evgen-ring0",
    c"evgen-ring1",
    c"evgen-ring2",
    c"evgen-ring3",
    c"evgen-ring4",
    c"evgen-ring5",
    c"evgen-ring6",
    c"evgen-ring7",
];

/// The vectors of one device with their handlers. The rings and their memory live in the handlers,
/// so the device must have been reset when this is dropped.
pub(crate) struct Interrupts<'bound> {
    // Dropped in this order: each handler needs its vector.
    _rings: KVec<Pin<KBox<Registration<'bound, RingInterrupt>>>>,
    _status: Pin<KBox<Registration<'bound, StatusInterrupt>>>,
    _vectors: KBox<IrqVectorRegistration<'bound>>,
}

impl<'bound> Interrupts<'bound> {
    /// Sets up all handlers, and all rings, which are turned on at the device.
    pub(crate) fn new(
        pdev: &'bound pci::Device<Bound>,
        device: &Arc<Device>,
        shape: &Shape,
    ) -> Result<Self> {
        let count = vector_count(shape.rings) as u32;
        let types = IrqTypes::default().with(IrqType::MsiX);
        let vectors = pdev
            .alloc_irq_vectors(count, count, types)
            .inspect_err(|_| dev_err!(pdev, "cannot get {count} MSI-X vectors\n"))?;
        let vectors = KBox::new(vectors, GFP_KERNEL)?;
        // SAFETY: The box keeps it at one address, and it is dropped after those that borrow from
        // it: here because they are declared later, in `Self` because they are declared earlier.
        let borrowed: &'bound IrqVectorRegistration<'bound> =
            unsafe { &*core::ptr::from_ref(&*vectors) };

        let mut rings = KVec::with_capacity(shape.rings, GFP_KERNEL)?;
        for index in 0..shape.rings {
            let ring = Ring::new(pdev.as_ref(), shape.ring_size_max)?;
            let (size, addresses) = (ring.size(), ring.addresses());
            let handler = RingInterrupt::new(device.clone(), index, ring)?;
            let registration = register(borrowed, ring_vector(index), RING_NAMES[index], handler)?;
            rings.push(registration, GFP_KERNEL)?;
            device
                .registers()
                .turn_on(index, size, &addresses)
                .inspect_err(|_| dev_err!(pdev, "the device refuses ring {index}\n"))?;
        }
        let handler = StatusInterrupt {
            device: device.clone(),
            told: Atomic::new(0),
        };
        let status = register(
            borrowed,
            status_vector(shape.rings),
            c"evgen-status",
            Ok(handler),
        )?;
        Ok(Self {
            _rings: rings,
            _status: status,
            _vectors: vectors,
        })
    }
}

/// Registers the handler of one vector.
fn register<'a, H: irq::Handler + 'a>(
    vectors: &'a IrqVectorRegistration<'a>,
    vector: usize,
    name: &'static CStr,
    handler: impl PinInit<H, Error> + 'a,
) -> Result<Pin<KBox<Registration<'a, H>>>> {
    let request = vectors.index(vector)?.into();
    // SAFETY: What this returns goes into `Interrupts` or is dropped, never forgotten.
    let registration = unsafe { Registration::new(request, Flags::TRIGGER_NONE, name, handler) };
    KBox::pin_init(registration, GFP_KERNEL)
}

/// The handler of one ring's vector.
#[pin_data]
struct RingInterrupt {
    device: Arc<Device>,
    index: usize,

    /// The ring. Only this handler takes it, in hard-IRQ context, and a handler does not run twice
    /// at a time: it is never waited for.
    ///
    /// Lock order: outermost; the device's `events` is taken inside.
    #[pin]
    service: SpinLockIrq<Service>,
}

/// A ring in service.
struct Service {
    ring: Ring,
    /// A node for each event that can wait in the ring, so that none need be found for it then.
    spare: List<Node>,
    /// The device broke the rules; the ring is off.
    faulty: bool,
}

/// The events that one interrupt brought.
struct Batch {
    events: List<Node>,
    count: usize,
    bad_checksum: u64,
    fault: Option<Fault>,
}

impl RingInterrupt {
    fn new(device: Arc<Device>, index: usize, ring: Ring) -> Result<impl PinInit<Self, Error>> {
        let service = Service {
            spare: Node::pool(usize::from(ring.size()))?,
            ring,
            faulty: false,
        };
        Ok(try_pin_init!(Self {
            device,
            index,
            service <- new_spinlock_irq!(service, "evgen::ring"),
        }))
    }
}

impl irq::Handler for RingInterrupt {
    /// Takes what waits in the ring over into the device's list.
    ///
    /// Once is enough: the device interrupts after it has moved the used index, so an event that
    /// came too late for this run brings a run of its own.
    fn handle(&self) -> IrqReturn {
        let mut service = self.service.lock();
        let mut batch = service.drain(self.index);
        self.device.events().lock().receive(
            self.index,
            &mut batch.events,
            batch.count,
            batch.bad_checksum,
            &mut service.spare,
        );
        drop(service);
        if batch.count > 0 {
            self.device.notify();
        }
        if let Some(fault) = batch.fault {
            let registers = self.device.registers();
            dev_err!(
                registers.device(),
                "ring {}: {fault}; it stays off from now on\n",
                self.index
            );
            // If this fails, the device is gone, and the ring with it.
            let _ = registers.turn_off(self.index);
        }
        IrqReturn::Handled
    }
}

impl Service {
    fn drain(&mut self, index: usize) -> Batch {
        let mut batch = Batch {
            events: List::new(),
            count: 0,
            bad_checksum: 0,
            fault: None,
        };
        if !self.faulty {
            batch.fault = self.drain_into(&mut batch, index).err();
            self.faulty = batch.fault.is_some();
        }
        batch
    }

    fn drain_into(&mut self, batch: &mut Batch, index: usize) -> Result<(), Fault> {
        for _ in 0..self.ring.waiting()? {
            // There always is one: see `spare`. If not, the event stays where it is.
            let Some(mut node) = self.spare.pop_front() else {
                break;
            };
            match self.ring.take() {
                Ok(bytes) => *node.entry_mut() = Entry::from_ring(index, bytes),
                Err(fault) => {
                    self.spare.push_front(node);
                    return Err(fault);
                }
            }
            if Event::from_bytes(&node.entry().bytes).is_none() {
                batch.bad_checksum = batch.bad_checksum.wrapping_add(1);
            }
            batch.events.push_back(node);
            batch.count = batch.count.wrapping_add(1);
        }
        self.ring.offer();
        Ok(())
    }
}

/// The handler of the status vector.
struct StatusInterrupt {
    device: Arc<Device>,
    /// The error bits that were told of already: each is worth one line in the log, and the device
    /// could raise it forever. Only the handler uses it.
    told: Atomic<u32>,
}

impl irq::Handler for StatusInterrupt {
    /// Lets the device tell of the next change. There is nothing to do about this one: the device
    /// itself counts what it dropped.
    fn handle(&self) -> IrqReturn {
        self.device.events().lock().count_status_interrupt();
        let registers = self.device.registers();
        let causes = match registers.take_status() {
            Ok(causes) if causes != u32::MAX => causes,
            // All ones is what everything reads as when the device went by surprise.
            _ => return IrqReturn::None,
        };
        let told = self.told.load(Relaxed);
        for ring in 0..MAX_RINGS {
            if causes & !told & cause_error(ring) != 0 {
                dev_err!(registers.device(), "ring {ring} is in the error state\n");
            }
        }
        self.told.store(told | causes, Relaxed);
        // Also without a cause: this run may come from a change that the last one saw already.
        IrqReturn::Handled
    }
}
