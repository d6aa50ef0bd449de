// SPDX-License-Identifier: GPL-2.0

//! Locks that count how often they are taken, and how often somebody found them taken.

use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        lock::{
            mutex::{MutexBackend, MutexGuard},
            Backend, Guard, Lock,
        },
    },
};

use crate::kernel_additions::mutex::lock_interruptible;

/// Whether it is counted that a lock was found taken: with lockdep it is not.
///
/// To notice, a lock is first only tried. Lockdep believes that trying cannot deadlock, so it would
/// learn nothing of the order in which locks are taken, nor in which contexts. It has figures of its
/// own in `/proc/lock_stat`.
const TRIES: bool = !cfg!(CONFIG_LOCKDEP);

/// A lock that counts.
///
/// What it covers, in which context it is taken and its place in the lock order say its owner. Waiting
/// on a condition variable, which lets go of it and takes it again, does not count.
#[pin_data]
pub(crate) struct MeasuredLock<T, B: Backend> {
    #[pin]
    lock: Lock<T, B>,
    taken: Atomic<u64>,
    found_taken: Atomic<u64>,
}

/// How often a lock was taken, since it was made.
#[derive(Clone, Copy)]
pub(crate) struct LockFigures {
    /// Times that it was taken.
    pub(crate) taken: u64,
    /// Of these times, how often somebody else had it just then. `None` if that is not counted.
    pub(crate) contended: Option<u64>,
}

impl<T, B: Backend> MeasuredLock<T, B> {
    /// Makes a lock of one that was never taken.
    pub(crate) fn new(lock: impl PinInit<Lock<T, B>>) -> impl PinInit<Self> {
        pin_init!(Self {
            lock <- lock,
            taken: Atomic::new(0),
            found_taken: Atomic::new(0),
        })
    }

    /// Takes the lock.
    pub(crate) fn lock(&self) -> Guard<'_, T, B> {
        self.try_lock().unwrap_or_else(|| {
            let guard = self.lock.lock();
            self.count_found_taken();
            guard
        })
    }

    /// How often the lock was taken. Does not take it: whoever has it may have it for long.
    pub(crate) fn figures(&self) -> LockFigures {
        LockFigures {
            taken: self.taken.load(Relaxed),
            contended: TRIES.then(|| self.found_taken.load(Relaxed)),
        }
    }

    fn try_lock(&self) -> Option<Guard<'_, T, B>> {
        let guard = TRIES.then(|| self.lock.try_lock()).flatten()?;
        self.taken.add(1, Relaxed);
        Some(guard)
    }

    /// With lockdep nobody knows whether it was, and nobody asks.
    fn count_found_taken(&self) {
        self.taken.add(1, Relaxed);
        self.found_taken.add(1, Relaxed);
    }
}

impl<T> MeasuredLock<T, MutexBackend> {
    /// Takes the lock; fails with `EINTR` if it is taken and a signal comes first. Sleeps.
    pub(crate) fn lock_interruptible(&self) -> Result<MutexGuard<'_, T>> {
        if let Some(guard) = self.try_lock() {
            return Ok(guard);
        }
        let guard = lock_interruptible(&self.lock)?;
        self.count_found_taken();
        Ok(guard)
    }
}
