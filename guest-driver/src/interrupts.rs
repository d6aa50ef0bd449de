// SPDX-License-Identifier: GPL-2.0

//! The interrupt handlers: one for each ring, one for the device's status. They run in hard-IRQ
//! context or, if the module is told so, in threads; with PREEMPT_RT always in threads.

use kernel::{
    device::Bound,
    irq::{self, Flags, IrqReturn, Registration, ThreadedRegistration},
    pci::{self, IrqType, IrqTypes, IrqVectorRegistration},
    prelude::*,
    sync::Arc,
};

use crate::{
    abi::identity::{ring_vector, status_vector, vector_count, MAX_RINGS},
    rings::Rings,
    threaded_handlers,
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

/// The vectors of one device with their handlers.
pub(crate) struct Interrupts<'bound> {
    // Dropped in this order: each handler needs its vector.
    _rings: KVec<Registered<'bound, RingInterrupt>>,
    _status: Registered<'bound, StatusInterrupt>,
    _vectors: KBox<IrqVectorRegistration<'bound>>,
}

impl<'bound> Interrupts<'bound> {
    /// Sets up all handlers. The vectors are those that the device uses after reset.
    pub(crate) fn new(pdev: &'bound pci::Device<Bound>, rings: &Arc<Rings>) -> Result<Self> {
        let ring_count = rings.device().rings();
        let count = vector_count(ring_count) as u32;
        let types = IrqTypes::default().with(IrqType::MsiX);
        let vectors = pdev
            .alloc_irq_vectors(count, count, types)
            .inspect_err(|_| dev_err!(pdev, "cannot get {count} MSI-X vectors\n"))?;
        let vectors = KBox::new(vectors, GFP_KERNEL)?;
        // SAFETY: The box keeps it at one address, and it is dropped after those that borrow from
        // it: here because they are declared later, in `Self` because they are declared earlier.
        let borrowed: &'bound IrqVectorRegistration<'bound> =
            unsafe { &*core::ptr::from_ref(&*vectors) };

        let mut handlers = KVec::with_capacity(ring_count, GFP_KERNEL)?;
        for (index, name) in RING_NAMES.into_iter().enumerate().take(ring_count) {
            let rings = rings.clone();
            let interrupt = RingInterrupt { rings, index };
            let registered = Registered::new(borrowed, ring_vector(index), name, interrupt)?;
            handlers.push(registered, GFP_KERNEL)?;
        }
        let interrupt = StatusInterrupt {
            rings: rings.clone(),
        };
        let vector = status_vector(ring_count);
        let status = Registered::new(borrowed, vector, c"evgen-status", interrupt)?;
        Ok(Self {
            _rings: handlers,
            _status: status,
            _vectors: vectors,
        })
    }
}

/// What is to be done about the interrupts of one vector.
trait Interrupt: Sync {
    /// Does it. In the context of the handler.
    fn serve(&self);
}

/// The registered handler of one vector.
enum Registered<'a, I: Interrupt> {
    /// In hard-IRQ context, unless the kernel has threads for all.
    Hard(#[expect(dead_code, reason = "to be dropped")] Pin<KBox<Registration<'a, Handler<I>>>>),
    /// In a thread of its own.
    Threaded(
        #[expect(dead_code, reason = "to be dropped")]
        Pin<KBox<ThreadedRegistration<'a, Handler<I>>>>,
    ),
}

impl<'a, I: Interrupt + 'a> Registered<'a, I> {
    fn new(
        vectors: &'a IrqVectorRegistration<'a>,
        vector: usize,
        name: &'static CStr,
        interrupt: I,
    ) -> Result<Self> {
        let request = vectors.index(vector)?.into();
        let (flags, handler) = (Flags::TRIGGER_NONE, Ok(Handler(interrupt)));
        // SAFETY, for both: What this returns goes into `Interrupts` or is dropped, never forgotten.
        if threaded_handlers() {
            // SAFETY: See above.
            let registration = unsafe { ThreadedRegistration::new(request, flags, name, handler) };
            Ok(Self::Threaded(KBox::pin_init(registration, GFP_KERNEL)?))
        } else {
            // SAFETY: See above.
            let registration = unsafe { Registration::new(request, flags, name, handler) };
            Ok(Self::Hard(KBox::pin_init(registration, GFP_KERNEL)?))
        }
    }
}

/// The handler of one vector.
struct Handler<I>(I);

impl<I: Interrupt> irq::Handler for Handler<I> {
    fn handle(&self) -> IrqReturn {
        self.0.serve();
        // Even if there was nothing to be done: the vector is nobody else's.
        IrqReturn::Handled
    }
}

impl<I: Interrupt> irq::ThreadedHandler for Handler<I> {
    fn handle_threaded(&self) -> IrqReturn {
        self.0.serve();
        IrqReturn::Handled
    }
}

/// The interrupts of one ring's vector.
struct RingInterrupt {
    rings: Arc<Rings>,
    index: usize,
}

impl Interrupt for RingInterrupt {
    /// Takes what waits in the ring over into the device's list. One that finds nothing is counted,
    /// and does no harm: messages merge on their way, and a device may raise an interrupt for
    /// nothing, or late.
    fn serve(&self) {
        self.rings.interrupt(self.index);
    }
}

/// The interrupts of the status vector.
struct StatusInterrupt {
    rings: Arc<Rings>,
}

impl Interrupt for StatusInterrupt {
    /// Lets the device tell of the next change, and asks the watchdog to see to what this one is
    /// about. There may be no cause: this one may come from a change that the last one saw already.
    fn serve(&self) {
        let device = self.rings.device();
        device.events().lock().count_status_interrupt();
        self.rings.look_at_status();
    }
}
