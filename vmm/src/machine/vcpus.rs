// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The threads that run the vCPUs.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use thiserror::Error;

use super::events::Events;
use super::run_control::RunControl;
use super::vcpu::Vcpu;

/// The host gives no thread.
#[derive(Debug, Error)]
#[error("cannot start a vCPU's thread: {0}")]
pub struct Error(#[source] io::Error);

/// The running vCPUs. The end of it ends them.
pub struct Vcpus {
    control: Arc<RunControl>,
    threads: Vec<JoinHandle<()>>,
}

impl Vcpus {
    /// Runs each of `vcpus` on a thread of its own, as `control` says. Why one ends, or where it was
    /// then, goes to `events`.
    pub fn start(
        vcpus: Vec<Vcpu>,
        control: &Arc<RunControl>,
        events: &Events,
    ) -> Result<Self, Error> {
        let mut running = Self {
            control: Arc::clone(control),
            threads: Vec::new(),
        };
        for (id, vcpu) in vcpus.into_iter().enumerate() {
            let control = Arc::clone(control);
            let events = events.clone();
            let thread = thread::Builder::new()
                .name(format!("vcpu{id}"))
                .spawn(move || events.send(vcpu.run(&control)))
                .map_err(Error)?;
            running.threads.push(thread);
        }
        Ok(running)
    }
}

impl Drop for Vcpus {
    fn drop(&mut self) {
        if !self.control.end() {
            tracing::error!("a vCPU does not leave the guest; its thread is left behind");
            return;
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a vCPU's thread has panicked");
            }
        }
    }
}
