// SPDX-License-Identifier: GPL-2.0

//! The watchdog of one device: looks regularly whether it is well, and sets it up anew if not.

use kernel::{
    fmt, impl_has_hr_timer, new_spinlock,
    prelude::*,
    sync::{Arc, ArcBorrow, SpinLock},
    time::{
        hrtimer::{
            ArcHrTimerHandle, HrTimer, HrTimerCallback, HrTimerCallbackContext, HrTimerPointer,
            HrTimerRestart, RelativeSoftMode,
        },
        Delta, Instant, Monotonic,
    },
};

use crate::{
    registers::Health,
    reset::{Progress, Reset},
    rings::Rings,
    trouble::Trouble,
};

/// Time from one look to the next.
pub(crate) const PERIOD_MICROSECONDS: u32 = 100_000;
const PERIOD: Delta = Delta::from_micros(PERIOD_MICROSECONDS as i64);
/// A look that comes this soon after the last one, because that one was late, says nothing.
const TOO_SOON: Delta = Delta::from_millis(50);
/// For how many looks in a row the device must be busy until that is one reset too long.
const BUSY_LOOKS: u32 = 2;
/// For how many looks in a row the heartbeat must stand still until the device hangs.
const STILL_LOOKS: u32 = 2;
/// After how many looks in a row at which the device was not well it is given up: 5 seconds.
const PATIENCE: u32 = 50;

/// The watchdog of one device. Runs in soft-IRQ context, on every kernel, so it may be long compared
/// with a handler: setting up a device takes some fifteen register accesses for each ring. But it never
/// waits: what takes time goes on at the next look.
#[pin_data]
pub(crate) struct Watchdog {
    rings: Arc<Rings>,

    /// What it remembers. Taken by the timer's function alone, which runs once at a time: it is never
    /// waited for, and only there because the timer lends nothing that can be changed.
    ///
    /// Lock order: outermost; a ring's lock, then the device's `events`, are taken inside.
    #[pin]
    memory: SpinLock<Memory>,

    #[pin]
    timer: HrTimer<Self>,
}

impl_has_hr_timer! {
    impl HasHrTimer<Self> for Watchdog {
        mode: RelativeSoftMode<Monotonic>, field: self.timer
    }
}

/// What the watchdog remembers from one look to the next.
struct Memory {
    /// When it looked last.
    looked: Instant<Monotonic>,
    /// The heartbeat at the last look at which it could be read.
    heartbeat: Option<u32>,
    /// For how many looks in a row the heartbeat has stood still.
    still: u32,
    /// For how many looks in a row the device has been busy.
    busy: u32,
    /// The device did not answer at the last look.
    unreachable: bool,
    /// The reset that comes before the device is set up anew. `None` while it is set up.
    reset: Option<Reset>,
    /// For how many looks in a row the device has not been well.
    unwell: u32,
}

impl Watchdog {
    /// A watchdog that does not watch yet. Sleeps.
    pub(crate) fn new(rings: Arc<Rings>) -> Result<Arc<Self>> {
        let memory = Memory {
            looked: Instant::now(),
            heartbeat: None,
            still: 0,
            busy: 0,
            unreachable: false,
            reset: None,
            unwell: 0,
        };
        Arc::pin_init(
            try_pin_init!(Self {
                rings,
                memory <- new_spinlock!(memory, "evgen::watchdog"),
                timer <- HrTimer::new(),
            }),
            GFP_KERNEL,
        )
    }

    /// Begins to watch a device that is set up. Ends when what this gives is dropped, which waits for
    /// a look that is under way.
    pub(crate) fn start(self: Arc<Self>) -> ArcHrTimerHandle<Self> {
        HrTimerPointer::start(self, PERIOD)
    }

    /// One look. Whether the device is well: it answers, is not busy, its time goes on, and it is set
    /// up, if only now.
    fn look(&self, memory: &mut Memory) -> bool {
        let health = self.rings.device().registers().health();
        if health.is_gone() {
            self.unreachable(memory);
            return false;
        }
        memory.unreachable = false;
        if health.is_busy() {
            self.busy(memory);
            return false;
        }
        let was_busy = core::mem::take(&mut memory.busy) > 0;
        let lives = memory.feel(health);

        if memory.reset.is_none() {
            self.examine(memory, health);
        }
        if self.rings.device().events().lock().resets().begin() {
            // From the beginning, even if one is under way: that began too early.
            memory.reset = Some(Reset::new(self.rings.device().rings()));
        }
        if memory.reset.is_some() {
            self.restart(memory);
        } else {
            if was_busy {
                // What was written to `STATUS_CAUSE` then was ignored, and a bit that stays set
                // interrupts no more.
                self.rings.look_at_status();
            }
            self.rings.check();
        }
        lives && memory.reset.is_none()
    }

    fn unreachable(&self, memory: &mut Memory) {
        memory.busy = 0;
        if !memory.unreachable {
            self.note(Trouble::Unreachable, fmt!("the device does not answer"));
        }
        memory.unreachable = true;
        // What was written to it meanwhile is lost, and who knows what else.
        self.want_reset(memory);
    }

    fn busy(&self, memory: &mut Memory) {
        memory.busy = memory.busy.saturating_add(1);
        if memory.busy == BUSY_LOOKS {
            self.note(Trouble::StuckBusy, fmt!("the device is busy all the time"));
        }
    }

    /// Wants a reset if a device that should be set up does not run, or hangs.
    fn examine(&self, memory: &mut Memory, health: Health) {
        if !health.runs() {
            self.note(Trouble::SelfReset, fmt!("the device has reset itself"));
            self.want_reset(memory);
        } else if memory.still == STILL_LOOKS {
            self.note(Trouble::Hang, fmt!("the device hangs"));
            self.want_reset(memory);
        } else if memory.still > STILL_LOOKS && memory.still % STILL_LOOKS == 0 {
            // It still hangs, although it was reset.
            self.want_reset(memory);
        }
    }

    fn want_reset(&self, memory: &mut Memory) {
        let rings = self.rings.device().rings();
        memory.reset.get_or_insert_with(|| Reset::new(rings));
    }

    /// Resets the device and sets it up anew, as far as that is possible now. The rest is for the
    /// next look.
    fn restart(&self, memory: &mut Memory) {
        let device = self.rings.device();
        let Some(reset) = &mut memory.reset else {
            return;
        };
        if reset.step(device.registers()) != Progress::Done {
            return;
        }
        if self.rings.bring_up().is_ok() {
            memory.reset = None;
            device.note_restart();
        } else {
            // It was reset again, or is busy, or gone: from the beginning.
            *reset = Reset::new(device.rings());
        }
    }

    fn note(&self, trouble: Trouble, what: fmt::Arguments<'_>) {
        self.rings.device().note(trouble, None, what);
    }
}

impl Memory {
    /// Feels the device's pulse: whether its time has gone on since the last look.
    fn feel(&mut self, health: Health) -> bool {
        let heartbeat = Some(health.heartbeat());
        let lives = heartbeat != self.heartbeat;
        self.still = if lives {
            0
        } else {
            self.still.saturating_add(1)
        };
        self.heartbeat = heartbeat;
        lives
    }
}

impl HrTimerCallback for Watchdog {
    type Pointer<'a> = Arc<Self>;

    fn run(
        this: ArcBorrow<'_, Self>,
        mut timer: HrTimerCallbackContext<'_, Self>,
    ) -> HrTimerRestart {
        let mut memory = this.memory.lock();
        let now = Instant::now();
        if now - memory.looked >= TOO_SOON {
            memory.looked = now;
            this.rings.refill_again();
            if this.look(&mut memory) {
                memory.unwell = 0;
            } else {
                memory.unwell = memory.unwell.saturating_add(1);
            }
        }
        if memory.unwell >= PATIENCE {
            let device = this.rings.device();
            device.give_up();
            dev_err!(
                device.registers().device(),
                "the device has not been well for 5 s and is given up\n"
            );
            return HrTimerRestart::NoRestart;
        }
        timer.forward_now(PERIOD);
        HrTimerRestart::Restart
    }
}
