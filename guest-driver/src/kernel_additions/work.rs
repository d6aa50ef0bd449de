// SPDX-License-Identifier: GPL-2.0

//! [`Work`]: waiting for it.

use kernel::{
    bindings,
    sync::Arc,
    workqueue::{HasWork, Work},
};

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
