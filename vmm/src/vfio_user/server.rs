// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The sockets of all devices, and the threads of their clients.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tracing::{error, warn};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use super::interrupts::{Eventfds, let_writers_be_freed};
use super::message::{HEADER_SIZE, Header};
use super::session::Session;
use super::stream::receive;
use crate::console::tell;
use crate::devices::evgen::EvgenFunction;
use crate::machine::lent_memory::survive_loss;
use crate::rate_limit::Occurrences;
use crate::socket_file::SocketFile;

/// What epoll says of the eventfd that ends the thread; of a socket it says the device's number.
const STOP: u64 = u64::MAX;
/// How often it is looked whether a client holds up a writer.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long one who is not let in may take to say its name.
const REFUSAL_TIMEOUT: Duration = Duration::from_millis(200);
/// How long a client's thread may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// A device to be served.
pub struct Served {
    /// Where its client comes in.
    pub socket: SocketFile,
    /// The device.
    pub device: Arc<EvgenFunction>,
    /// Where its interrupts go.
    pub eventfds: Arc<Eventfds>,
}

/// The served devices. The end of it sends the clients away and removes the sockets' files.
pub struct VfioUserServer {
    stop: EventFd,
    thread: Option<JoinHandle<()>>,
}

impl VfioUserServer {
    /// Serves the devices, in this order. With `announce` it is told who comes and goes.
    pub fn start(devices: Vec<Served>, announce: bool) -> io::Result<Self> {
        survive_loss()?;
        let_writers_be_freed()?;
        let stop = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        let mut doorman = Doorman::new(devices, announce, &stop)?;
        let thread = thread::Builder::new()
            .name("vfio-user".to_owned())
            .spawn(move || {
                if let Err(error) = doorman.work() {
                    error!("no more vfio-user clients are let in: {error}");
                }
                doorman.send_all_away();
            })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for VfioUserServer {
    fn drop(&mut self) {
        // A full counter is the only error there can be, and that wakes too.
        let _ = self.stop.write(1);
        if self
            .thread
            .take()
            .is_some_and(|thread| thread.join().is_err())
        {
            error!("the thread of the vfio-user sockets has panicked");
        }
    }
}

/// Lets clients in: one at a time to each device.
struct Doorman {
    devices: Vec<Served>,
    clients: Vec<Option<Client>>,
    announce: bool,
    epoll: Epoll,
    looked: Instant,
    not_let_in: Occurrences,
}

/// A client that is served by a thread of its own.
struct Client {
    stream: UnixStream,
    thread: JoinHandle<()>,
}

impl Client {
    /// Whether it is served no more. One that is going has some time to go: the next may come close
    /// behind it.
    fn is_over(&self) -> bool {
        let ends = PollFlags::RDHUP | PollFlags::HUP;
        let at_once = Timespec::default();
        if poll(&mut [PollFd::new(&self.stream, ends)], Some(&at_once)) != Ok(0) {
            self.wait_for_end(Instant::now() + END_TIMEOUT);
        }
        self.thread.is_finished()
    }

    fn wait_for_end(&self, deadline: Instant) {
        while !self.thread.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Doorman {
    fn new(devices: Vec<Served>, announce: bool, stop: &EventFd) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let watch = |fd, data| {
            let event = EpollEvent::new(EventSet::IN, data);
            epoll.ctl(ControlOperation::Add, fd, event)
        };
        watch(stop.as_raw_fd(), STOP)?;
        for (number, served) in (0..).zip(&devices) {
            watch(served.socket.listener.as_raw_fd(), number)?;
        }
        Ok(Self {
            clients: devices.iter().map(|_| None).collect(),
            devices,
            announce,
            epoll,
            looked: Instant::now(),
            not_let_in: Occurrences::new(),
        })
    }

    fn work(&mut self) -> io::Result<()> {
        let mut events = [EpollEvent::default(); 16];
        loop {
            let patience = LOOK_INTERVAL.as_millis() as i32;
            let count = match self.epoll.wait(patience, &mut events) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                result => result?,
            };
            for event in &events[..count] {
                match event.data() {
                    STOP => return Ok(()),
                    device => self.open(device as usize),
                }
            }
            if self.looked.elapsed() >= LOOK_INTERVAL {
                self.looked = Instant::now();
                for served in &self.devices {
                    served.eventfds.free_writer();
                }
            }
        }
    }

    /// Somebody is at the door of device `number`.
    fn open(&mut self, number: usize) {
        let Some(served) = self.devices.get(number) else {
            return;
        };
        let stream = match served.socket.listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => {
                if let Some(so_far) = self.not_let_in.add() {
                    warn!("cannot let a client in, {so_far} times so far: {error}");
                }
                // The one who waits is there again at once.
                thread::sleep(Duration::from_millis(10));
                return;
            }
        };
        let slot = &mut self.clients[number];
        if slot.as_ref().is_some_and(|client| !client.is_over()) {
            refuse(&stream);
            return;
        }
        *slot = None;
        match admit(served, number, stream, self.announce) {
            Ok(client) => *slot = Some(client),
            Err(error) => warn!("cannot serve a client of device {number}: {error}"),
        }
    }

    fn send_all_away(&mut self) {
        let clients: Vec<_> = self.clients.drain(..).flatten().collect();
        for client in &clients {
            // It may have gone by itself.
            let _ = client.stream.shutdown(Shutdown::Both);
        }
        let deadline = Instant::now() + END_TIMEOUT;
        for client in clients {
            client.wait_for_end(deadline);
        }
    }
}

fn admit(served: &Served, number: usize, stream: UnixStream, announce: bool) -> io::Result<Client> {
    // On some systems what is accepted is like the socket that accepts.
    stream.set_nonblocking(false)?;
    let mine = stream.try_clone()?;
    let (device, eventfds) = (Arc::clone(&served.device), Arc::clone(&served.eventfds));
    let thread = thread::Builder::new()
        .name(format!("client-{number}"))
        .spawn(move || {
            if announce {
                tell(format_args!("device {number}: a client has come"));
            }
            let session = Session::begin(device, eventfds);
            if let Err(why) = serve(&mine, session) {
                warn!("device {number}: the client is sent away: {why}");
            }
            let _ = mine.shutdown(Shutdown::Both);
            if announce {
                tell(format_args!(
                    "device {number}: the client is gone; the device waits for another"
                ));
            }
        })?;
    Ok(Client { stream, thread })
}

/// Serves a client until it goes; else says why it has to.
fn serve(mut stream: &UnixStream, mut session: Session) -> Result<(), String> {
    loop {
        let message = receive(stream).map_err(|error| error.to_string())?;
        let Some(message) = message else {
            return Ok(());
        };
        let reply = session.take(&message.header, &message.body, message.files);
        let reply = reply.map_err(|broken| broken.to_string())?;
        if let Some(reply) = reply
            && stream.write_all(&reply).is_err()
        {
            return Ok(());
        }
    }
}

/// Answers the first command of somebody who comes while another is served, as far as it has sent
/// any: the device is busy.
fn refuse(mut stream: &UnixStream) {
    let mut header = [0; HEADER_SIZE];
    let heard = stream
        .set_nonblocking(false)
        .and_then(|()| stream.set_read_timeout(Some(REFUSAL_TIMEOUT)))
        .and_then(|()| stream.read_exact(&mut header));
    if heard.is_ok() {
        // It fits into an empty socket buffer, or the client is gone.
        let _ = stream.write(&Header::parse(&header).reply(Err(Errno::BUSY)));
    }
}

#[cfg(test)]
#[path = "server_test.rs"]
mod tests;
