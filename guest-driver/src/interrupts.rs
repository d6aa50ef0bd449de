// SPDX-License-Identifier: GPL-2.0

//! The interrupt handlers: one for each ring, one for the device's status.

use kernel::{
    device::Bound,
    irq::{self, Flags, IrqReturn, Registration},
    pci::{self, IrqType, IrqTypes, IrqVectorRegistration},
    prelude::*,
    sync::Arc,
};

use crate::{
    abi::identity::{ring_vector, status_vector, vector_count, MAX_RINGS},
    rings::Rings,
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
    _rings: KVec<Pin<KBox<Registration<'bound, RingInterrupt>>>>,
    _status: Pin<KBox<Registration<'bound, StatusInterrupt>>>,
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
            let handler = RingInterrupt { rings, index };
            let registration = register(borrowed, ring_vector(index), name, handler)?;
            handlers.push(registration, GFP_KERNEL)?;
        }
        let handler = StatusInterrupt {
            rings: rings.clone(),
        };
        let status = register(
            borrowed,
            status_vector(ring_count),
            c"evgen-status",
            handler,
        )?;
        Ok(Self {
            _rings: handlers,
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
    handler: H,
) -> Result<Pin<KBox<Registration<'a, H>>>> {
    let request = vectors.index(vector)?.into();
    // SAFETY: What this returns goes into `Interrupts` or is dropped, never forgotten.
    let registration =
        unsafe { Registration::new(request, Flags::TRIGGER_NONE, name, Ok(handler)) };
    KBox::pin_init(registration, GFP_KERNEL)
}

/// The handler of one ring's vector.
struct RingInterrupt {
    rings: Arc<Rings>,
    index: usize,
}

impl irq::Handler for RingInterrupt {
    /// Takes what waits in the ring over into the device's list. One that finds nothing is counted,
    /// and does no harm: messages merge on their way, and a device may raise an interrupt for
    /// nothing, or late.
    fn handle(&self) -> IrqReturn {
        self.rings.interrupt(self.index);
        IrqReturn::Handled
    }
}

/// The handler of the status vector.
struct StatusInterrupt {
    rings: Arc<Rings>,
}

impl irq::Handler for StatusInterrupt {
    /// Lets the device tell of the next change, and asks the watchdog to see to what this one is
    /// about.
    fn handle(&self) -> IrqReturn {
        let device = self.rings.device();
        device.events().lock().count_status_interrupt();
        self.rings.look_at_status();
        // Also without a cause: this run may come from a change that the last one saw already.
        IrqReturn::Handled
    }
}
