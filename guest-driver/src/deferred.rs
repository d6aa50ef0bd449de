// SPDX-License-Identifier: GPL-2.0

//! Injections that wait for their time: each rings a doorbell from a timer.

use kernel::{
    impl_has_hr_timer, new_mutex,
    prelude::*,
    sync::{
        atomic::{Acquire, AtomicFlag, Release},
        Arc, ArcBorrow, Mutex,
    },
    time::{
        hrtimer::{
            ArcHrTimerHandle, HrTimer, HrTimerCallback, HrTimerCallbackContext, HrTimerPointer,
            HrTimerRestart, RelativeSoftMode,
        },
        Delta, Monotonic,
    },
};

use crate::{
    device::Device,
    kernel_additions::mutex::lock_interruptible,
    uapi::{DeferredInjection, DEFERRED_MILLISECONDS_MAX},
};

/// The injections of one device that wait.
#[pin_data]
pub(crate) struct DeferredInjections {
    /// Their timers. Taken in process context, by programs that defer and by removal. Memory is
    /// allocated and freed under it, and timers are waited for whose work is done.
    ///
    /// Lock order: taken with no other lock held; the device's `events` is taken inside.
    #[pin]
    timers: Mutex<Timers>,
}

struct Timers {
    /// Some of them may have expired. They are dropped later, for a timer cannot drop itself.
    running: KVec<RunningTimer>,
    /// The device is going: there must be none any more.
    closed: bool,
}

struct RunningTimer {
    injection: Arc<Injection>,
    /// Dropping it cancels the timer, or waits until it has done its work.
    _handle: ArcHrTimerHandle<Injection>,
}

/// One injection.
#[pin_data]
struct Injection {
    device: Arc<Device>,
    ring: usize,
    /// The doorbell was rung, and the timer does no more.
    is_over: AtomicFlag,
    #[pin]
    timer: HrTimer<Self>,
}

impl_has_hr_timer! {
    impl HasHrTimer<Self> for Injection {
        mode: RelativeSoftMode<Monotonic>, field: self.timer
    }
}

impl DeferredInjections {
    /// None.
    pub(crate) fn new() -> impl PinInit<Self> {
        let timers = Timers {
            running: KVec::new(),
            closed: false,
        };
        pin_init!(Self { timers <- new_mutex!(timers, "evgen::deferred") })
    }

    /// Cancels all injections that wait. There will be no others.
    pub(crate) fn close(&self) {
        let mut timers = self.timers.lock();
        timers.closed = true;
        let running = core::mem::take(&mut timers.running);
        drop(timers);
        drop(running);
    }
}

/// Has the device make an event later. Sleeps; `ERESTARTSYS` if a signal comes first.
pub(crate) fn inject(device: &Arc<Device>, deferred: &DeferredInjection) -> Result {
    let ring = deferred.ring as usize;
    if ring >= device.rings() || deferred.milliseconds > DEFERRED_MILLISECONDS_MAX {
        return Err(EINVAL);
    }
    let injection = Arc::pin_init(
        pin_init!(Injection {
            device: device.clone(),
            ring,
            is_over: AtomicFlag::new(false),
            timer <- HrTimer::new(),
        }),
        GFP_KERNEL,
    )?;

    let mut timers = lock_interruptible(&device.deferred().timers).map_err(|_| ERESTARTSYS)?;
    if timers.closed {
        return Err(ENODEV);
    }
    timers
        .running
        .retain(|timer| !timer.injection.is_over.load(Acquire));
    timers.running.reserve(1, GFP_KERNEL)?;
    device.events().lock().defer()?;
    let running = RunningTimer {
        injection: injection.clone(),
        _handle: injection.start(Delta::from_millis(deferred.milliseconds.into())),
    };
    timers.running.push_within_capacity(running)?;
    Ok(())
}

impl HrTimerCallback for Injection {
    type Pointer<'a> = Arc<Self>;

    /// In soft-IRQ context; with PREEMPT_RT, in a thread.
    fn run(this: ArcBorrow<'_, Self>, _: HrTimerCallbackContext<'_, Self>) -> HrTimerRestart {
        // If that fails the device is gone, and nobody counts any more.
        let _ = this.device.registers().ring_doorbell(this.ring);
        this.device.events().lock().count_deferred_doorbell();
        this.is_over.store(true, Release);
        HrTimerRestart::NoRestart
    }
}

/// Closes a device's deferred injections when dropped.
pub(crate) struct DeferredEnd(pub(crate) Arc<Device>);

impl Drop for DeferredEnd {
    fn drop(&mut self) {
        self.0.deferred().close();
    }
}
