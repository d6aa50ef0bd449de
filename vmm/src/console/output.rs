// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Carries the guest's console output to stdout and to a log file, without making a vCPU wait.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::panic_scanner::PanicScanner;
use crate::machine::events::{Event, Events};

/// Output that may wait to be written; what exceeds it is dropped and counted.
const QUEUE_MAX: usize = 1 << 20;
/// The console log gets no longer than this.
const LOG_MAX: u64 = 64 << 20;
/// Output is gathered for this long, so that it is not written byte by byte.
const GATHER: Duration = Duration::from_millis(2);
/// Stdout may take this long to take more before it counts as stalled.
const STALL_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the end of the run waits for the last output to be written.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);
/// A pipe that is ready takes this much without blocking (`PIPE_BUF`).
const PIECE: usize = 4096;

/// The thread that writes the output, and its queue.
pub struct ConsoleOutput {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<u64>>,
}

/// The lock covers the waiting bytes; vCPU threads take it inside the serial port's lock, the
/// writing thread alone and never across a write. It is a leaf: nothing is locked inside it.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    lost: u64,
    finished: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The guest's end: what the serial port writes to. Never blocks for long and never fails.
pub struct ConsoleWriter {
    queue: Arc<Queue>,
    scanner: PanicScanner,
    events: Events,
}

impl ConsoleOutput {
    /// Starts writing to stdout and, if there is one, to `log`.
    pub fn start(log: Option<File>) -> io::Result<Self> {
        let queue = Arc::<Queue>::default();
        // Without a buffer in between, it is known what was written when a write fails.
        let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let mut sinks = Sinks {
            stdout: Some(stdout),
            stalled: false,
            log: log.map(Log::new),
            lost: 0,
        };
        let thread = thread::Builder::new().name("console".into()).spawn({
            let queue = Arc::clone(&queue);
            move || {
                while let Some(bytes) = next(&queue) {
                    sinks.write(&bytes);
                }
                sinks.lost + queue.lock().lost
            }
        })?;
        Ok(Self {
            queue,
            thread: Some(thread),
        })
    }

    /// A writer for the guest; a panic that passes is told to `events`.
    pub fn writer(&self, events: Events) -> ConsoleWriter {
        ConsoleWriter {
            queue: Arc::clone(&self.queue),
            scanner: PanicScanner::default(),
            events,
        }
    }
}

impl Drop for ConsoleOutput {
    /// Writes what is left, as far as stdout takes it.
    fn drop(&mut self) {
        self.queue.lock().finished = true;
        self.queue.changed.notify_one();
        let Some(thread) = self.thread.take() else {
            return;
        };
        let deadline = Instant::now() + FINISH_TIMEOUT;
        while !thread.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        if !thread.is_finished() {
            tracing::warn!("stdout is blocked: the end of the console output is lost");
        } else if let Ok(lost @ 1..) = thread.join() {
            tracing::warn!("{lost} bytes of console output are lost: stdout was not read");
        }
    }
}

impl Write for ConsoleWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            if let Some(line) = self.scanner.push(*byte) {
                self.events.send(Event::Panic(line));
            }
        }
        let mut waiting = self.queue.lock();
        let was_empty = waiting.bytes.is_empty();
        let room = QUEUE_MAX
            .saturating_sub(waiting.bytes.len())
            .min(bytes.len());
        waiting.bytes.extend_from_slice(&bytes[..room]);
        waiting.lost += (bytes.len() - room) as u64;
        drop(waiting);
        if was_empty {
            self.queue.changed.notify_one();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits for output; `None` when there will be no more.
fn next(queue: &Queue) -> Option<Vec<u8>> {
    let mut waiting = queue.lock();
    while waiting.bytes.is_empty() {
        if waiting.finished {
            return None;
        }
        waiting = queue
            .changed
            .wait(waiting)
            .unwrap_or_else(PoisonError::into_inner);
    }
    if !waiting.finished {
        drop(waiting);
        thread::sleep(GATHER);
        waiting = queue.lock();
    }
    Some(std::mem::take(&mut waiting.bytes))
}

struct Sinks<W> {
    /// Gone once it fails, for example because the reader of a pipe has left.
    stdout: Option<W>,
    stalled: bool,
    log: Option<Log>,
    lost: u64,
}

impl<W: Write + AsRawFd> Sinks<W> {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(log) = &mut self.log
            && let Err(error) = log.write(bytes)
        {
            tracing::warn!("cannot write the console log: {error}; it ends here");
            self.log = None;
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let Some(stdout) = &mut self.stdout else {
                return;
            };
            let patience = if self.stalled {
                Duration::ZERO
            } else {
                STALL_TIMEOUT
            };
            let piece = &rest[..rest.len().min(PIECE)];
            let written = if is_writable(stdout, patience) {
                stdout.write(piece)
            } else {
                Err(ErrorKind::WouldBlock.into())
            };
            self.stalled = false;
            match written {
                Ok(length @ 1..) => rest = &rest[length..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A stdout that does not block may say so itself, if somebody else filled it.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.stalled = true;
                    self.lost += piece.len() as u64;
                    rest = &rest[piece.len()..];
                }
                Ok(0) | Err(_) => self.stdout = None,
            }
        }
    }
}

fn is_writable(file: &impl AsRawFd, patience: Duration) -> bool {
    let mut poll = libc::pollfd {
        fd: file.as_raw_fd(),
        events: libc::POLLOUT,
        revents: 0,
    };
    // SAFETY: `poll` is one valid entry for the whole call.
    let ready = unsafe { libc::poll(&mut poll, 1, patience.as_millis() as i32) };
    ready > 0
}

struct Log {
    file: File,
    room: u64,
}

impl Log {
    fn new(file: File) -> Self {
        Self {
            file,
            room: LOG_MAX,
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.room == 0 {
            return Ok(());
        }
        let taken = self.room.min(bytes.len() as u64);
        self.file.write_all(&bytes[..taken as usize])?;
        self.room -= taken;
        if self.room == 0 {
            writeln!(
                self.file,
                "\n[lockstorm: the console log is cut at {} MiB]",
                LOG_MAX >> 20
            )?;
        }
        Ok(())
    }
}

/// Creates the console log at `path`, emptying what was there.
pub fn create_log(path: &Path) -> io::Result<File> {
    File::create(path)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io::{PipeWriter, Read};
    use std::os::fd::RawFd;

    use vmm_sys_util::tempfile::TempFile;

    use super::*;

    fn sinks<W>(stdout: W) -> Sinks<W> {
        Sinks {
            stdout: Some(stdout),
            stalled: false,
            log: None,
            lost: 0,
        }
    }

    #[test]
    fn log_is_cut_once() {
        let file = TempFile::new().unwrap();
        let mut log = Log {
            file: create_log(file.as_path()).unwrap(),
            room: 6,
        };
        for text in [&b"abcd"[..], b"efgh", b"ijkl"] {
            log.write(text).unwrap();
        }
        let content = std::fs::read_to_string(file.as_path()).unwrap();
        assert_eq!(
            content,
            "abcdef\n[lockstorm: the console log is cut at 64 MiB]\n"
        );
    }

    #[test]
    fn stalled_reader_loses_output_but_stops_nothing() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut sinks = sinks(writer);
        let before = Instant::now();
        sinks.write(&vec![b'x'; QUEUE_MAX]);
        assert!(
            before.elapsed() < 2 * STALL_TIMEOUT,
            "waited more than once"
        );
        assert!(sinks.lost > 0);
        let taken = QUEUE_MAX as u64 - sinks.lost;
        drop(sinks);
        let mut received = Vec::new();
        reader.read_to_end(&mut received).unwrap();
        assert_eq!(received.len() as u64, taken);
    }

    #[test]
    fn reader_that_leaves_is_forgotten() {
        let (reader, writer) = io::pipe().unwrap();
        let mut sinks = sinks(writer);
        drop(reader);
        sinks.write(b"hello");
        assert!(sinks.stdout.is_none());
    }

    /// Says of each write what it was told to say, and takes as much.
    struct Script {
        answers: VecDeque<io::Result<usize>>,
        written: Vec<u8>,
        pipe: PipeWriter,
    }

    impl Write for Script {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let length = self.answers.pop_front().unwrap_or(Ok(bytes.len()))?;
            self.written.extend(&bytes[..length]);
            Ok(length)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl AsRawFd for Script {
        fn as_raw_fd(&self) -> RawFd {
            self.pipe.as_raw_fd()
        }
    }

    #[test]
    fn stdout_that_would_block_is_kept() {
        let (_reader, pipe) = io::pipe().unwrap();
        let would_block = Err(ErrorKind::WouldBlock.into());
        let mut sinks = sinks(Script {
            answers: [Ok(2), would_block].into(),
            written: Vec::new(),
            pipe,
        });
        sinks.write(b"hello");
        sinks.write(b"world");
        assert_eq!(sinks.lost, 3);
        assert_eq!(sinks.stdout.unwrap().written, b"heworld");
    }

    #[test]
    fn queue_is_bounded_and_panics_are_told() {
        let (events, receiver) = Events::channel();
        let queue = Arc::<Queue>::default();
        let scanner = PanicScanner::default();
        let mut writer = ConsoleWriter {
            queue: Arc::clone(&queue),
            scanner,
            events,
        };
        writer
            .write_all(b"Kernel panic - not syncing: x\n")
            .unwrap();
        assert!(matches!(receiver.try_recv(), Ok(Event::Panic(_))));
        writer.write_all(&vec![0; 2 * QUEUE_MAX]).unwrap();
        assert_eq!(queue.lock().bytes.len(), QUEUE_MAX);
        assert!(queue.lock().lost > QUEUE_MAX as u64);
    }
}
