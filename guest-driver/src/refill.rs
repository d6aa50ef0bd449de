// SPDX-License-Identifier: GPL-2.0

//! Making nodes for events to come: process context's work, for handlers cannot.

use kernel::{
    impl_has_work,
    list::List,
    new_work,
    prelude::*,
    sync::Arc,
    workqueue::{Work, WorkItem},
};

use crate::{
    device::Device,
    kernel_additions::work,
    node::{Entry, Node},
};

/// The work of one device that makes nodes when few are left. [`EventList`] knows when that is, and
/// that it is under way already.
///
/// Memory may be short. Then the work ends, and the watchdog queues it again at its next look; until
/// there are enough nodes, the oldest events have to leave early.
///
/// [`EventList`]: crate::event_list::EventList
#[pin_data]
pub(crate) struct Refill {
    device: Arc<Device>,
    #[pin]
    work: Work<Self>,
}

impl_has_work! {
    impl HasWork<Self> for Refill { self.work }
}

impl Refill {
    /// Work that is not queued yet. May sleep.
    pub(crate) fn new(device: Arc<Device>) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                device,
                work <- new_work!("evgen::refill"),
            }),
            GFP_KERNEL,
        )
    }

    /// Queues the work. In any context, with any lock held.
    pub(crate) fn queue(this: &Arc<Self>) {
        // As long as there may be many nodes to make, no processor is to be bound to it. It fails if
        // it is queued already, which is as good.
        let _ = work::unbound_queue().enqueue(this.clone());
    }

    /// Makes nodes until there are enough. Whether there are.
    fn fill(&self) -> bool {
        loop {
            let count = self.device.events().lock().next_portion();
            if count == 0 {
                return true;
            }
            let mut nodes = List::new();
            let made = (0..count)
                .map_while(|_| Node::new(Entry::none(), GFP_KERNEL | __GFP_NOWARN).ok())
                .map(|node| nodes.push_back(node))
                .count();
            self.device.events().lock().supply(&mut nodes);
            if made < count {
                return false;
            }
        }
    }
}

impl WorkItem for Refill {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        if !this.fill() {
            this.device.events().lock().refill_failed();
        }
    }
}

/// Waits for the work when dropped, and with it for the last use of the module by a work queue.
/// Whoever queues it must be gone by then.
pub(crate) struct RefillEnd(pub(crate) Arc<Refill>);

impl Drop for RefillEnd {
    fn drop(&mut self) {
        work::flush(&self.0);
    }
}
