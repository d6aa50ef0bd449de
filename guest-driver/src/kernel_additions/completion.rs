// SPDX-License-Identifier: GPL-2.0

//! [`Completion`]: waiting for it so that a signal, or a time that is over, ends the wait.
//!
//! Reinitialising one is not here on purpose. The kernel demands that whoever waited has left
//! before that (`complete_all` in `kernel/sched/completion.c`), and only they know when they have.
//! Something that happens again and again needs a new completion each time.

use kernel::{bindings, prelude::*, sync::Completion, time::Jiffies};

// A struct with a field of its own size has it at its beginning.
const _: () = assert!(size_of::<Completion>() == size_of::<bindings::completion>());

/// Waits until `completion` is complete, for `timeout` at most.
///
/// `ETIMEDOUT` if it is not in that time, `ERESTARTSYS` if a signal comes first. It being complete
/// wins over both. Process context; sleeps.
pub(crate) fn wait_interruptible_timeout(completion: &Completion, timeout: Jiffies) -> Result {
    // All that there is in a `Completion` is the kernel's, in an `Opaque`: see the assertion above.
    let raw: *mut bindings::completion = core::ptr::from_ref(completion).cast_mut().cast();
    // SAFETY: A `Completion` only comes into being initialised, and does not move.
    match unsafe { bindings::wait_for_completion_interruptible_timeout(raw, timeout) } {
        ..0 => Err(ERESTARTSYS),
        0 => Err(ETIMEDOUT),
        1.. => Ok(()),
    }
}
