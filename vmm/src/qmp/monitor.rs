// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The connection with QEMU: commands, their answers, and events.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::net::shutdown;
use serde_json::{Value, json};
use thiserror::Error;
use tracing::{error, warn};

use super::message::{Message, Refusal};
use crate::socket_file::{SocketError, SocketFile};

/// Longest line that QEMU may send, in bytes: a list of 256 PCI devices fits several times.
const LINE_MAX: u64 = 1024 * 1024;
/// Answers kept that nobody waits for.
const ANSWERS_MAX: usize = 16;
/// How long a greeting may take, and how long QEMU may take to read what we say.
const PATIENCE: Duration = Duration::from_secs(10);

/// A command that was not done, as far as is known.
#[derive(Debug, Error)]
pub enum QmpError {
    /// QEMU is not connected.
    #[error(
        "QEMU has not connected to {}: start it with -qmp unix:{}",
        path.display(),
        path.display()
    )]
    NotThere {
        /// Where it is awaited.
        path: PathBuf,
    },
    /// It went before it answered.
    #[error("QEMU has closed its monitor, and not answered {command}")]
    Gone {
        /// What was asked for.
        command: &'static str,
    },
    /// It takes its time. It may do the command yet.
    #[error(
        "QEMU has not answered {command} within {} s; `stats` tells whether it does it yet",
        patience.as_secs()
    )]
    Late {
        /// What was asked for.
        command: &'static str,
        /// How long it was waited for.
        patience: Duration,
    },
    /// It does not do it.
    #[error("QEMU does not do {command}: {why}")]
    Refused {
        /// What was asked for.
        command: &'static str,
        /// The kind of error, for programs.
        class: String,
        /// What QEMU says.
        why: String,
    },
}

/// What happens to QEMU and its devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Happening {
    /// The device with this id is out of its slot, and QEMU has forgotten it.
    Deleted(String),
    /// The guest does not let go of the device with this id.
    Kept(String),
    /// QEMU has gone, and all devices in its slots with it.
    Gone,
}

/// Whom QEMU's events are told; called in the monitor's thread, with nothing locked.
pub(super) type Listener = Box<dyn Fn(Happening) + Send>;

/// The monitor of a QEMU, as soon as it connects, and of the next when that has gone. The end of it ends
/// the thread and removes the socket's file.
pub struct Monitor {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// The lock `conversation` covers a command and its answer, so that there is one at a time. Commands
/// take it, in any thread, and so does the monitor's thread, when nobody waits for it; nothing is locked
/// inside it. The lock `stream` covers what the monitor's thread reads from, so that whoever ends us can end
/// that. Both take it; nothing is locked inside it.
struct Shared {
    socket: SocketFile,
    path: PathBuf,
    conversation: Mutex<Option<Conversation>>,
    stream: Mutex<Option<UnixStream>>,
    stopped: AtomicBool,
}

struct Conversation {
    stream: UnixStream,
    answers: Receiver<(u64, Result<Value, Refusal>)>,
    /// Id of the last command.
    last: u64,
}

impl Monitor {
    /// Lets QEMU connect at `path`, which it takes to be `listener`'s.
    pub(super) fn start(path: &Path, listener: Listener) -> Result<Self, SocketError> {
        let socket = SocketFile::create("QMP socket", path)?;
        let shared = Arc::new(Shared {
            socket,
            path: path.to_owned(),
            conversation: Mutex::default(),
            stream: Mutex::default(),
            stopped: AtomicBool::new(false),
        });
        let io = |source| SocketError::Io {
            what: "QMP socket",
            path: path.to_owned(),
            source,
        };
        shared.socket.listener.set_nonblocking(false).map_err(io)?;
        let thread = thread::Builder::new().name("qmp".to_owned());
        let thread = thread.spawn({
            let shared = Arc::clone(&shared);
            move || shared.serve(&listener)
        });
        let thread = Some(thread.map_err(io)?);
        Ok(Self { shared, thread })
    }

    /// Has QEMU do `command`, and waits for its answer.
    pub(super) fn execute(
        &self,
        command: &'static str,
        arguments: &Value,
        patience: Duration,
    ) -> Result<Value, QmpError> {
        let mut conversation = lock(&self.shared.conversation);
        let Some(with_qemu) = conversation.as_mut() else {
            let path = self.shared.path.clone();
            return Err(QmpError::NotThere { path });
        };
        with_qemu.execute(command, arguments, patience)
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Release);
        // A socket that listens takes this, and one that is gone needs none.
        let _ = shutdown(&self.shared.socket.listener, rustix::net::Shutdown::Both);
        if let Some(stream) = &*lock(&self.shared.stream) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        let thread = self.thread.take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            error!("the thread of QEMU's monitor has panicked");
        }
    }
}

impl Shared {
    fn serve(&self, listener: &Listener) {
        loop {
            let accepted = self.socket.listener.accept();
            if self.stopped.load(Ordering::Acquire) {
                return;
            }
            let served = accepted.and_then(|(stream, _)| {
                *lock(&self.stream) = Some(stream.try_clone()?);
                // Who ends us in between has not seen it.
                match self.stopped.load(Ordering::Acquire) {
                    true => Ok(()),
                    false => self.converse(stream, listener),
                }
            });
            if let (Err(why), false) = (served, self.stopped.load(Ordering::Acquire)) {
                warn!("QEMU's monitor is not listened to any more: {why}");
                // The next one may be there at once.
                thread::sleep(Duration::from_millis(100));
            }
            *lock(&self.stream) = None;
        }
    }

    /// Listens to a QEMU until it goes.
    fn converse(&self, stream: UnixStream, listener: &Listener) -> io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut lines = BufReader::new(stream.try_clone()?);
        if next(&mut lines)? != Some(Message::Greeting) {
            return Err(unexpected("it does not greet as QEMU does"));
        }
        let (sender, answers) = sync_channel(ANSWERS_MAX);
        let mut with_qemu = Conversation {
            stream,
            answers,
            last: 0,
        };
        // Of its own accord it says nothing before that, and does nothing.
        with_qemu.say("qmp_capabilities", &json!({}))?;
        lines.get_ref().set_read_timeout(None)?;
        *lock(&self.conversation) = Some(with_qemu);
        let listened = listen(&mut lines, &sender, listener);
        // Who waits for an answer hears of it, and lets go of the lock.
        drop(sender);
        *lock(&self.conversation) = None;
        listener(Happening::Gone);
        listened
    }
}

impl Conversation {
    fn execute(
        &mut self,
        command: &'static str,
        arguments: &Value,
        patience: Duration,
    ) -> Result<Value, QmpError> {
        let gone = QmpError::Gone { command };
        if self.say(command, arguments).is_err() {
            // Half a command may be on its way: nothing more can be said.
            let _ = self.stream.shutdown(Shutdown::Both);
            return Err(gone);
        }
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.answers.recv_timeout(left) {
                Ok((id, outcome)) if id == self.last => {
                    return outcome.map_err(|Refusal { class, desc: why }| QmpError::Refused {
                        command,
                        class,
                        why,
                    });
                }
                // That of an earlier command, which was late.
                Ok(_) => {}
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return Err(gone),
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                    return Err(QmpError::Late { command, patience });
                }
            }
        }
    }

    fn say(&mut self, command: &str, arguments: &Value) -> io::Result<()> {
        self.last += 1;
        let command = json!({ "execute": command, "arguments": arguments, "id": self.last });
        self.stream.write_all(format!("{command}\n").as_bytes())
    }
}

fn listen(
    lines: &mut impl BufRead,
    answers: &SyncSender<(u64, Result<Value, Refusal>)>,
    listener: &Listener,
) -> io::Result<()> {
    while let Some(message) = next(lines)? {
        match message {
            Message::Answer {
                id: Some(id),
                outcome,
            } => {
                // One that nobody waits for, and so many of them, is nobody's loss.
                let _ = answers.try_send((id, outcome));
            }
            Message::Event {
                name,
                device: Some(device),
            } => match name.as_str() {
                "DEVICE_DELETED" => listener(Happening::Deleted(device)),
                "DEVICE_UNPLUG_GUEST_ERROR" => listener(Happening::Kept(device)),
                _ => {}
            },
            _ => {}
        }
    }
    Ok(())
}

/// The next message; `None` when there are no more.
fn next(lines: &mut impl BufRead) -> io::Result<Option<Message>> {
    let mut line = Vec::new();
    match lines.by_ref().take(LINE_MAX).read_until(b'\n', &mut line) {
        // One that has gone without reading what we said.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
        read => read?,
    };
    match line.last() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(Message::parse(&line)?)),
        Some(_) if line.len() as u64 == LINE_MAX => {
            Err(unexpected("it has sent a line without end"))
        }
        Some(_) => Ok(None),
    }
}

fn unexpected(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "monitor_test.rs"]
pub(super) mod tests;
