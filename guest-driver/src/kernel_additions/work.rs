// SPDX-License-Identifier: GPL-2.0

//! [`Work`]: a queue for it, and waiting for it.

use kernel::{
    bindings,
    sync::Arc,
    workqueue::{HasWork, Queue, Work},
};

/// The queue for work that no processor is to be bound to. The kernel's Rust has it only by a name that
/// is deprecated, and the kernel complains of whoever uses that.
pub(crate) fn unbound_queue() -> &'static Queue {
    // SAFETY: The kernel has made it before it loads the first module, and keeps it.
    unsafe { Queue::from_raw(bindings::system_dfl_wq) }
}

/// Waits until the work of `item` is neither queued nor under way. It may be again by then, if others
/// queue it meanwhile.
///
/// Process context; sleeps. No lock may be held that the work takes. The function of a work that was
/// waited for has returned, so its module may go.
pub(crate) fn flush<T: HasWork<T>>(item: &Arc<T>) {
    // SAFETY: There is a reference to the item, so it is valid and its work initialised.
    unsafe {
        let work = T::raw_get_work(Arc::as_ptr(item).cast_mut());
        bindings::flush_work(Work::raw_get(work));
    }
}
