// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Run control: the threads that run the vCPUs, and how they are stopped.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use thiserror::Error;
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use super::events::Events;
use super::vcpu::Vcpu;

/// How long a vCPU may take to leave the guest before it is given up. It leaves at the signal;
/// longer takes only a host that is in trouble itself.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
const KICK_INTERVAL: Duration = Duration::from_millis(5);

/// Why the vCPUs do not start.
#[derive(Debug, Error)]
pub enum Error {
    /// No handler for the signal that makes a vCPU leave the guest.
    #[error("cannot install the vCPUs' signal handler: {0}")]
    Signal(vmm_sys_util::errno::Error),
    /// The host gives no thread.
    #[error("cannot start a vCPU's thread: {0}")]
    Thread(#[source] io::Error),
}

/// The running vCPUs.
pub struct Vcpus {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Vcpus {
    /// Runs each of `vcpus` on a thread of its own. Why one ends goes to `events`.
    pub fn start(vcpus: Vec<Vcpu>, events: &Events) -> Result<Self, Error> {
        extern "C" fn leave_guest(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
        register_signal_handler(SIGRTMIN(), leave_guest).map_err(Error::Signal)?;
        let mut running = Self {
            stop: Arc::default(),
            threads: Vec::new(),
        };
        for (id, vcpu) in vcpus.into_iter().enumerate() {
            let stop = Arc::clone(&running.stop);
            let events = events.clone();
            let thread = thread::Builder::new()
                .name(format!("vcpu{id}"))
                .spawn(move || {
                    if let Some(event) = vcpu.run(&stop) {
                        events.send(event);
                    }
                })
                .map_err(Error::Thread)?;
            running.threads.push(thread);
        }
        Ok(running)
    }
}

impl Drop for Vcpus {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let deadline = Instant::now() + STOP_TIMEOUT;
        // A signal that arrives between a vCPU's look at `stop` and its entry into the guest is
        // lost, so signals are repeated until the threads are gone.
        while self.threads.iter().any(|thread| !thread.is_finished()) {
            if Instant::now() > deadline {
                tracing::error!("a vCPU does not leave the guest; its thread is left behind");
                return;
            }
            for thread in self.threads.iter().filter(|thread| !thread.is_finished()) {
                // Fails only for a thread that has just ended.
                let _ = thread.kill(SIGRTMIN());
            }
            thread::sleep(KICK_INTERVAL);
        }
    }
}
