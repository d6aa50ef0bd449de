// SPDX-License-Identifier: GPL-2.0

//! [`Mutex`]: locking it so that a signal ends the wait.

#[cfg(not(CONFIG_DEBUG_LOCK_ALLOC))]
use kernel::bindings::mutex_lock_interruptible;
use kernel::{
    bindings,
    error::to_result,
    prelude::*,
    sync::{lock::mutex::MutexGuard, Mutex},
};

/// Acquires `mutex`, as [`Mutex::lock`] does, or fails with `EINTR` if a signal comes first.
///
/// Process context; sleeps. With PREEMPT_RT the holder inherits the priority of who waits, as
/// always.
pub(crate) fn lock_interruptible<T>(mutex: &Mutex<T>) -> Result<MutexGuard<'_, T>> {
    // `Lock` is `repr(C)` and begins with the kernel's mutex, in an `Opaque`.
    let raw: *mut bindings::mutex = core::ptr::from_ref(mutex).cast_mut().cast();
    // SAFETY: A `Mutex` only comes into being initialised, and does not move.
    to_result(unsafe { mutex_lock_interruptible(raw) })?;
    // SAFETY: It was just acquired, by this thread.
    Ok(unsafe { MutexGuard::new(mutex, ()) })
}

/// With lock debugging, C's `mutex_lock_interruptible` is a macro.
///
/// # Safety
///
/// `mutex` must point to an initialised mutex.
#[cfg(CONFIG_DEBUG_LOCK_ALLOC)]
unsafe fn mutex_lock_interruptible(mutex: *mut bindings::mutex) -> kernel::ffi::c_int {
    // SAFETY: As the caller promises.
    unsafe { bindings::mutex_lock_interruptible_nested(mutex, 0) }
}
