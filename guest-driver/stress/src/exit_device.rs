// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The exit device: two ports through which a program tells the virtual machine monitor how the run
//! went. A byte written to the first ends the run with that status, bytes written to the second
//! make up the timeline.

use std::arch::asm;
use std::io;
use std::thread;
use std::time::Duration;

use thiserror::Error;

use crate::kernel_arguments::{ArgumentError, KernelArguments};

/// How long a machine may take to end.
const END_LIMIT: Duration = Duration::from_secs(5);

/// The exit device cannot be used.
#[derive(Debug, Error)]
pub enum ExitDeviceError {
    /// The command line cannot be read.
    #[error("cannot read /proc/cmdline, where the exit device's port stands: {0}")]
    CommandLine(#[source] io::Error),
    /// The command line is wrong.
    #[error(transparent)]
    Argument(#[from] ArgumentError),
    /// The last port would be beyond what `ioperm` knows, or access is refused.
    #[error("no access to the exit device's ports from {port:#x}: {source}")]
    Access {
        /// First port.
        port: u16,
        /// Why.
        source: io::Error,
    },
}

/// Puts the mark on the machine's timeline upon which it starts the next storm that it was asked
/// for. `program` is who complains if that cannot be.
pub fn announce_ready(program: &str) {
    match ExitDevice::of_this_machine() {
        Ok(Some(machine)) => machine.mark("ready"),
        Ok(None) => {}
        Err(error) => eprintln!("{program}: no storm will come from the host: {error}"),
    }
}

/// Access to the exit device. What it holds is the right of this thread to use the two ports, so it
/// is neither `Send` nor `Sync`.
#[derive(Debug)]
pub struct ExitDevice {
    port: u16,
    this_thread_only: std::marker::PhantomData<*const ()>,
}

impl ExitDevice {
    /// The device that the kernel's command line names; `None` if it names none.
    pub fn of_this_machine() -> Result<Option<Self>, ExitDeviceError> {
        let arguments = KernelArguments::of_this_kernel().map_err(ExitDeviceError::CommandLine)?;
        arguments.exit_port()?.map(Self::open).transpose()
    }

    /// The device at `port` and the port after it.
    fn open(port: u16) -> Result<Self, ExitDeviceError> {
        // Stock cloud kernels have no /dev/port, so the thread itself gets access.
        // SAFETY: `ioperm` touches no memory of this process. The ports are the exit device's alone:
        // the machine that put it there named them.
        let result = unsafe { libc::ioperm(port.into(), 2, 1) };
        if result != 0 {
            let source = io::Error::last_os_error();
            return Err(ExitDeviceError::Access { port, source });
        }
        Ok(Self {
            port,
            this_thread_only: std::marker::PhantomData,
        })
    }

    /// Puts a mark on the machine's timeline.
    pub fn mark(&self, name: &str) {
        for byte in name.bytes().chain([b'\n']) {
            self.write(1, byte);
        }
    }

    /// Ends the run with `status`; returns only if the machine does not do so.
    pub fn exit(&self, status: u8) {
        self.write(0, status);
        // Not every machine ends at once: one that is another program's is ended by that.
        thread::sleep(END_LIMIT);
    }

    fn write(&self, offset: u16, byte: u8) {
        // SAFETY: `open` got access to both ports for this thread, which this value cannot leave;
        // the write has no effect on memory, stack or flags.
        unsafe {
            asm!("out dx, al", in("dx") self.port + offset, in("al") byte,
                options(nomem, nostack, preserves_flags));
        }
    }
}
