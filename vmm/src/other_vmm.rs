// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Another VMM as a part of the run: a child whose output is the guest's console.
//!
//! Two sockets take the place of the exit device's two ports: what the VMM's guest writes to them
//! arrives here byte by byte, as from two isa-debugcon devices of QEMU.

use std::ffi::OsString;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};
use rustix::process::{
    Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal, set_parent_process_death_signal,
};

use crate::console::output::ConsoleWriter;
use crate::devices::exit::ExitDevice;
use crate::machine::bus::{BusDevice, Outcome, Stop};
use crate::machine::events::{Event, Events};
use crate::socket_file::SocketFile;

/// In a VMM's arguments, what stands for the guest's kernel arguments.
const KERNEL_ARGUMENTS: &str = "{}";
/// How long a VMM may take to end when it is asked to.
const END_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the last output may take when the VMM has ended: somebody else may have it open.
const REST_TIMEOUT: Duration = Duration::from_secs(1);

/// What a guest says of itself.
pub struct Ports {
    /// Takes the status that ends the run.
    pub status: SocketFile,
    /// Takes the names of marks.
    pub marks: SocketFile,
}

/// A running VMM, which the end of this ends.
pub struct OtherVmm {
    process: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl OtherVmm {
    /// Runs `command`. `console` gets its output, `exit` what comes by `ports`, and `events` hears
    /// how it ends. With `typed` its standard input is given back.
    pub fn start(
        command: &[OsString],
        kernel_arguments: &str,
        typed: bool,
        console: ConsoleWriter,
        (ports, exit): (Ports, ExitDevice),
        events: Events,
    ) -> io::Result<(Self, Option<ChildStdin>)> {
        let mut child = spawn(command, kernel_arguments, typed)?;
        let stdin = child.stdin.take();
        let process = watched(&mut child)?;
        for port in [&ports.marks, &ports.status] {
            port.listener.set_nonblocking(false)?;
        }
        let ports = Arc::new(ports);
        let carried = spawn_thread("exit-ports", {
            let (ports, events) = (Arc::clone(&ports), events.clone());
            move || {
                // Without its last word the guest's end is told by the VMM's.
                if let Ok(stop) = ports.carry(&exit) {
                    events.send(Event::Stop(stop));
                }
            }
        })?;
        let output = child.stdout.take();
        let output = spawn_thread("vmm-output", move || {
            if let Some(output) = output {
                carry(output, console);
            }
        })?;
        let thread = spawn_thread("vmm", move || {
            let ended = child.wait();
            // What it has said comes before its end.
            let deadline = Instant::now() + REST_TIMEOUT;
            ports.admit_no_more();
            for thread in [output, carried] {
                while !thread.is_finished() && Instant::now() < deadline {
                    thread::sleep(Duration::from_millis(1));
                }
            }
            events.send(ending(ended));
        })?;
        let thread = Some(thread);
        Ok((Self { process, thread }, stdin))
    }
}

impl Drop for OtherVmm {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        // The only error there can be is that it has ended.
        let _ = pidfd_send_signal(&self.process, Signal::TERM);
        let deadline = Instant::now() + END_TIMEOUT;
        while !thread.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        let _ = pidfd_send_signal(&self.process, Signal::KILL);
        // Nothing in it goes on for long after that, and a panic there has been told.
        let _ = thread.join();
    }
}

fn spawn(command: &[OsString], kernel_arguments: &str, typed: bool) -> io::Result<Child> {
    let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let arguments = arguments.iter().map(|argument| match argument.to_str() {
        Some(KERNEL_ARGUMENTS) => kernel_arguments.into(),
        _ => argument.clone(),
    });
    let mut command = Command::new(program);
    command.args(arguments);
    command.stdin(if typed { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped());
    // Out of reach of the terminal's Ctrl-C: how the run ends is decided here.
    command.process_group(0);
    // SAFETY: the call in the new process is one to the system, which neither allocates nor locks.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
    }
    command.spawn()
}

/// A handle to end `child` with, or it is ended at once.
fn watched(child: &mut Child) -> io::Result<OwnedFd> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let opened = pid
        .ok_or(Errno::SRCH)
        .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
    opened.map_err(|error| {
        let _ = child.kill();
        let _ = child.wait();
        error.into()
    })
}

impl Ports {
    /// Carries what comes by both ports to `exit`, until that stops the run or the VMM is gone.
    fn carry(&self, exit: &ExitDevice) -> io::Result<Stop> {
        let marks = self.marks.listener.accept()?.0;
        let mut status = self.status.listener.accept()?.0;
        marks.set_nonblocking(true)?;
        loop {
            let mut ready = [&marks, &status].map(|port| PollFd::new(port, PollFlags::IN));
            poll(&mut ready, None)?;
            let ends = !ready[1].revents().is_empty();
            // What the guest has marked before the end is here by then, and is told before it.
            let mut bytes = [0; 4096];
            match (&marks).read(&mut bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Ok(0) if !ends => return Err(ErrorKind::UnexpectedEof.into()),
                count => {
                    for byte in &bytes[..count?] {
                        exit.write(1, &[*byte]);
                    }
                }
            }
            if ends {
                status.read_exact(&mut bytes[..1])?;
                if let Outcome::Stop(stop) = exit.write(0, &bytes[..1]) {
                    return Ok(stop);
                }
            }
        }
    }

    /// Whoever has not connected yet does not any more.
    fn admit_no_more(&self) {
        for port in [&self.marks, &self.status] {
            // A socket that listens takes this, so there is no error to be had.
            let _ = shutdown(&port.listener, Shutdown::Both);
        }
    }
}

fn spawn_thread(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(work)
}

/// Carries the VMM's output to the console, until its end.
fn carry(mut output: impl Read, mut console: ConsoleWriter) {
    let mut buffer = [0; 4096];
    loop {
        match output.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // The console takes everything.
            Ok(count @ 1..) => drop(console.write_all(&buffer[..count])),
            Ok(0) | Err(_) => return,
        }
    }
}

/// What the end of the VMM means.
fn ending(status: io::Result<ExitStatus>) -> Event {
    let status = match status {
        Ok(status) if status.success() => return Event::Stop(Stop::PowerOff),
        Ok(status) => status,
        Err(error) => return Event::HostFault(format!("cannot wait for the VMM's end: {error}")),
    };
    // Those who run others give such a status for a signal.
    let by_signal = |code: i32| code.checked_sub(128).filter(|signal| *signal > 0);
    let signal = status.signal().or(status.code().and_then(by_signal));
    Event::HostFault(match (signal, status.code()) {
        (Some(signal), _) => format!("the VMM was killed by signal {signal}"),
        (None, code) => format!("the VMM ended with status {}", code.unwrap_or_default()),
    })
}
