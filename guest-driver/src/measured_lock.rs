// SPDX-License-Identifier: GPL-2.0

//! Locks that count how often they are taken, and how often somebody found them taken.

use core::ops::{Deref, DerefMut};

use kernel::{
    prelude::*,
    sync::lock::{mutex::MutexBackend, Backend, Guard, Lock},
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
/// What it covers, in which context it is taken and its place in the lock order say its owner. The
/// counters are covered by the lock itself, and so cost no more than two additions. Going back to sleep
/// and waking up again on a condition variable does not count.
#[pin_data]
pub(crate) struct MeasuredLock<T, B: Backend> {
    #[pin]
    lock: Lock<Measured<T>, B>,
}

/// What a [`MeasuredLock`] covers.
pub(crate) struct Measured<T> {
    covered: T,
    figures: LockFigures,
}

/// How often a lock was taken, since it was made.
#[derive(Clone, Copy, Default)]
pub(crate) struct LockFigures {
    /// Times that it was taken, the one to look at this included.
    pub(crate) taken: u64,
    found_taken: u64,
}

impl LockFigures {
    /// Of these times, how often somebody else had it just then. `None` if that is not counted.
    pub(crate) fn contended(&self) -> Option<u64> {
        TRIES.then_some(self.found_taken)
    }
}

/// Proof that a [`MeasuredLock`] is held.
pub(crate) type MeasuredGuard<'a, T, B> = Guard<'a, Measured<T>, B>;

impl<T, B: Backend> MeasuredLock<T, B> {
    /// Makes a lock of one that was never taken.
    pub(crate) fn new(lock: impl PinInit<Lock<Measured<T>, B>>) -> impl PinInit<Self> {
        pin_init!(Self { lock <- lock })
    }
}

impl<T: Unpin, B: Backend> MeasuredLock<T, B> {
    /// Takes the lock.
    pub(crate) fn lock(&self) -> MeasuredGuard<'_, T, B> {
        self.try_lock().unwrap_or_else(|| {
            let mut guard = self.lock.lock();
            guard.figures.count(true);
            guard
        })
    }

    /// How often the lock was taken. Takes it.
    pub(crate) fn figures(&self) -> LockFigures {
        self.lock().figures
    }

    fn try_lock(&self) -> Option<MeasuredGuard<'_, T, B>> {
        let mut guard = TRIES.then(|| self.lock.try_lock()).flatten()?;
        guard.figures.count(false);
        Some(guard)
    }
}

impl<T: Unpin> MeasuredLock<T, MutexBackend> {
    /// Takes the lock; fails with `EINTR` if it is taken and a signal comes first. Sleeps.
    pub(crate) fn lock_interruptible(&self) -> Result<MeasuredGuard<'_, T, MutexBackend>> {
        if let Some(guard) = self.try_lock() {
            return Ok(guard);
        }
        let mut guard = lock_interruptible(&self.lock)?;
        guard.figures.count(true);
        Ok(guard)
    }
}

impl<T> Measured<T> {
    /// Something that is to be covered by a lock.
    pub(crate) fn new(covered: T) -> Self {
        Self {
            covered,
            figures: LockFigures::default(),
        }
    }
}

impl LockFigures {
    /// With lockdep nobody knows whether it was found taken, and nobody asks.
    fn count(&mut self, found_taken: bool) {
        self.taken = self.taken.wrapping_add(1);
        self.found_taken = self.found_taken.wrapping_add(u64::from(found_taken));
    }
}

impl<T> Deref for Measured<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.covered
    }
}

impl<T> DerefMut for Measured<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.covered
    }
}
