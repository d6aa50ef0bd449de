// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Run control: pause, resume and the end of all vCPUs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use thiserror::Error;
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

use super::clock::Clock;

/// How long a vCPU may take to leave the guest. It leaves at the signal; longer takes only a host
/// that is in trouble itself.
pub(super) const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);
/// A signal that arrives between a vCPU's look at what it shall do and its entry into the guest is
/// lost, so signals are repeated until the vCPU has left.
const KICK_INTERVAL: Duration = Duration::from_millis(2);

/// A machine that cannot be paused or resumed. It goes on as before.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PauseError {
    /// A vCPU's thread is stuck somewhere.
    #[error("a vCPU does not leave the guest within {} s; the machine goes on", LEAVE_TIMEOUT.as_secs())]
    Stuck,
    /// There is nothing to pause any more.
    #[error("the run is ending")]
    Ending,
}

/// What the vCPUs are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Run,
    Pause,
    End,
}

struct State {
    mode: Mode,
    /// Threads that run a vCPU.
    threads: Vec<libc::pthread_t>,
    /// Of these, the ones that wait here while the machine is paused.
    parked: usize,
}

/// Run control of a machine: who may run the guest, and whether devices' time goes on.
///
/// The lock covers what the vCPUs are to do and which threads run one. A vCPU takes it when it
/// starts, when it ends and when it has to wait; whoever pauses, resumes or ends the machine takes
/// it too. Nothing is locked inside it. `commands` is held by whoever pauses or resumes, all the
/// time that it takes; `state` is taken inside it.
pub struct RunControl {
    clock: Clock,
    commands: Mutex<()>,
    state: Mutex<State>,
    changed: Condvar,
    /// Whether vCPUs must look at `state`. They ask each time they have left the guest, so this
    /// has to be cheap.
    attention: AtomicBool,
}

/// What a vCPU is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Run the guest.
    Run,
    /// Run the guest, which has stood still for a while.
    Resume,
    /// End.
    End,
}

impl RunControl {
    /// Run control of a machine whose devices go by `clock`.
    pub fn new(clock: Clock) -> Result<Self, vmm_sys_util::errno::Error> {
        extern "C" fn leave_guest(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
        register_signal_handler(SIGRTMIN(), leave_guest)?;
        Ok(Self {
            clock,
            commands: Mutex::default(),
            state: Mutex::new(State {
                mode: Mode::Run,
                threads: Vec::new(),
                parked: 0,
            }),
            changed: Condvar::new(),
            attention: AtomicBool::new(false),
        })
    }

    /// The clock that stands still while the machine is paused.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Whether the machine is paused.
    pub fn is_paused(&self) -> bool {
        self.lock().mode == Mode::Pause
    }

    /// Has all vCPUs leave the guest and wait, and the clock stand still. One that is paused already
    /// stays so.
    pub fn pause(&self) -> Result<(), PauseError> {
        let _commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.lock();
        if state.mode == Mode::End {
            return Err(PauseError::Ending);
        }
        let before = state.mode;
        self.set(&mut state, Mode::Pause);
        let deadline = Instant::now() + LEAVE_TIMEOUT;
        while state.parked < state.threads.len() {
            if Instant::now() > deadline {
                // If it was paused already its clock stands still, so it must not run.
                self.set(&mut state, before);
                return Err(PauseError::Stuck);
            }
            kick(&state);
            state = self.wait(state, Some(KICK_INTERVAL));
            if state.mode == Mode::End {
                return Err(PauseError::Ending);
            }
        }
        self.clock.stop();
        Ok(())
    }

    /// Has the clock and all vCPUs go on. Those of a machine that runs do anyway.
    pub fn resume(&self) -> Result<(), PauseError> {
        let _commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.lock();
        if state.mode == Mode::End {
            return Err(PauseError::Ending);
        }
        self.clock.go_on();
        self.set(&mut state, Mode::Run);
        Ok(())
    }

    /// Has all vCPUs leave the guest and their threads end; true if they have, within
    /// [`LEAVE_TIMEOUT`].
    pub(super) fn end(&self) -> bool {
        let mut state = self.lock();
        self.set(&mut state, Mode::End);
        let deadline = Instant::now() + LEAVE_TIMEOUT;
        while !state.threads.is_empty() {
            if Instant::now() > deadline {
                return false;
            }
            kick(&state);
            state = self.wait(state, Some(KICK_INTERVAL));
        }
        true
    }

    /// Makes the calling thread one that runs a vCPU.
    pub(super) fn seat(&self) -> Seat<'_> {
        // SAFETY: the call has no requirements.
        let thread = unsafe { libc::pthread_self() };
        self.lock().threads.push(thread);
        Seat {
            control: self,
            thread,
        }
    }

    fn set(&self, state: &mut State, mode: Mode) {
        state.mode = mode;
        self.attention.store(mode != Mode::Run, Ordering::Release);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(
        &self,
        state: MutexGuard<'a, State>,
        longest: Option<Duration>,
    ) -> MutexGuard<'a, State> {
        match longest {
            None => self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner),
            Some(longest) => {
                self.changed
                    .wait_timeout(state, longest)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
        }
    }
}

/// Makes the vCPUs' threads leave the guest, or whatever they sleep in.
fn kick(state: &State) {
    for &thread in &state.threads {
        // SAFETY: a thread is in the list only while it runs: it takes itself out under the lock
        // that is held here.
        unsafe { libc::pthread_kill(thread, SIGRTMIN()) };
    }
}

/// The place of a thread that runs a vCPU.
pub(super) struct Seat<'a> {
    control: &'a RunControl,
    thread: libc::pthread_t,
}

impl Seat<'_> {
    /// Waits while the machine is paused; gives what the vCPU is to do then.
    pub(super) fn turn(&self) -> Turn {
        let control = self.control;
        if !control.attention.load(Ordering::Acquire) {
            return Turn::Run;
        }
        let mut state = control.lock();
        let mut waited = false;
        while state.mode == Mode::Pause {
            if !waited {
                state.parked += 1;
                waited = true;
                control.changed.notify_all();
            }
            state = control.wait(state, None);
        }
        if waited {
            state.parked -= 1;
        }
        match state.mode {
            Mode::End => Turn::End,
            _ if waited => Turn::Resume,
            _ => Turn::Run,
        }
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut state = self.control.lock();
        let mine = |&thread: &libc::pthread_t| thread == self.thread;
        if let Some(index) = state.threads.iter().position(mine) {
            state.threads.swap_remove(index);
        }
        self.control.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::thread;

    use super::*;

    /// A thread in the place of a vCPU's: its guest is a long sleep, which the signal ends.
    fn vcpu(control: &RunControl, turns: &AtomicU64, resumed: &AtomicU64) {
        let seat = control.seat();
        loop {
            match seat.turn() {
                Turn::Run => {}
                Turn::Resume => drop(resumed.fetch_add(1, Ordering::Relaxed)),
                Turn::End => return,
            }
            turns.fetch_add(1, Ordering::Relaxed);
            let hour = libc::timespec {
                tv_sec: 3600,
                tv_nsec: 0,
            };
            // SAFETY: the argument is good for the call; what is left of the time is not asked for.
            unsafe { libc::nanosleep(&hour, std::ptr::null_mut()) };
        }
    }

    fn control() -> RunControl {
        RunControl::new(Clock::new(Instant::now())).unwrap()
    }

    /// Ends the vCPUs however a test ends, or it would wait for them for ever.
    struct EndAtLast<'a>(&'a RunControl);

    impl Drop for EndAtLast<'_> {
        fn drop(&mut self) {
            self.0.end();
        }
    }

    fn wait_until(what: &str, done: impl Fn() -> bool) {
        let begin = Instant::now();
        while !done() {
            assert!(begin.elapsed() < Duration::from_secs(10), "no {what}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn nobody_runs_in_a_pause() {
        const VCPUS: u64 = 3;
        let control = control();
        let (turns, resumed) = (AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            let _end = EndAtLast(&control);
            for _ in 0..VCPUS {
                scope.spawn(|| vcpu(&control, &turns, &resumed));
            }
            wait_until("start", || turns.load(Ordering::Relaxed) == VCPUS);
            for round in 1..20 {
                control.pause().unwrap();
                control.pause().unwrap();
                assert!(control.is_paused());
                let (time, before) = (control.clock().now(), turns.load(Ordering::Relaxed));
                thread::sleep(Duration::from_millis(2));
                assert_eq!(turns.load(Ordering::Relaxed), before);
                assert_eq!(control.clock().now(), time);
                control.resume().unwrap();
                control.resume().unwrap();
                assert!(!control.is_paused() && !control.clock().is_stopped());
                wait_until("resume", || {
                    resumed.load(Ordering::Relaxed) == round * VCPUS
                });
            }
            assert!(control.end());
        });
        assert_eq!(control.pause(), Err(PauseError::Ending));
        assert_eq!(control.resume(), Err(PauseError::Ending));
    }

    #[test]
    fn a_paused_machine_can_be_ended() {
        let control = control();
        let (turns, resumed) = (AtomicU64::new(0), AtomicU64::new(0));
        // Also by a vCPU that starts only then.
        control.pause().unwrap();
        thread::scope(|scope| {
            let _end = EndAtLast(&control);
            scope.spawn(|| vcpu(&control, &turns, &resumed));
            wait_until("vCPU", || control.lock().parked == 1);
            assert!(control.end());
        });
        assert_eq!(turns.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_paused_machine_with_a_vcpu_that_does_not_park_stays_paused() {
        let control = control();
        control.pause().unwrap();
        let _seat = control.seat();
        assert_eq!(control.pause(), Err(PauseError::Stuck));
        assert!(control.is_paused() && control.clock().is_stopped());
    }

    #[test]
    fn a_machine_that_cannot_be_paused_goes_on() {
        let control = control();
        let (left, turns) = (AtomicBool::new(false), AtomicU64::new(0));
        thread::scope(|scope| {
            let _end = EndAtLast(&control);
            scope.spawn(|| {
                let seat = control.seat();
                // Stuck in something that no signal ends.
                while !left.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(1));
                }
                while seat.turn() != Turn::End {
                    turns.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(1));
                }
            });
            wait_until("vCPU", || !control.lock().threads.is_empty());
            assert_eq!(control.pause(), Err(PauseError::Stuck));
            assert!(!control.is_paused() && !control.clock().is_stopped());
            left.store(true, Ordering::Relaxed);
            wait_until("turns", || turns.load(Ordering::Relaxed) > 3);
            assert!(control.end());
        });
    }
}
