// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The sockets of all devices, and the threads of their clients.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tracing::{error, warn};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use super::interrupts::{Interrupts, let_writers_be_freed};
use super::message::{HEADER_SIZE, Header};
use super::messages::{Messages, Voice};
use super::session::Session;
use super::stream::receive;
use crate::console::tell;
use crate::devices::evgen::EvgenFunction;
use crate::machine::lent_memory::survive_loss;
use crate::rate_limit::Occurrences;
use crate::socket_file::SocketFile;

/// What epoll says of the eventfd that tells of orders; of a socket it says the device's number.
const ORDERS: u64 = u64::MAX;
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
    pub interrupts: Interrupts,
}

/// What the doorman is to do.
enum Order {
    Serve(usize, Served),
    Dismiss(usize),
    Stop,
}

/// The served devices. The end of it sends the clients away and removes the sockets' files.
pub struct VfioUserServer {
    orders: Sender<Order>,
    wake: EventFd,
    thread: Option<JoinHandle<()>>,
}

impl VfioUserServer {
    /// Serves the devices, whose numbers count from 0 in this order. With `announce` it is told who comes
    /// and goes.
    pub fn start(devices: Vec<Served>, announce: bool) -> io::Result<Self> {
        survive_loss()?;
        let_writers_be_freed()?;
        let wake = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        let (orders, received) = mpsc::channel();
        let mut doorman = Doorman::new(received, announce, &wake)?;
        for (number, served) in devices.into_iter().enumerate() {
            doorman.serve(number, served)?;
        }
        let thread = thread::Builder::new()
            .name("vfio-user".to_owned())
            .spawn(move || {
                if let Err(error) = doorman.work() {
                    error!("no more vfio-user clients are let in: {error}");
                }
                doorman.send_all_away();
            })?;
        Ok(Self {
            orders,
            wake,
            thread: Some(thread),
        })
    }

    /// Serves one more device, with a number that no other has had.
    pub fn serve(&self, number: usize, served: Served) {
        self.order(Order::Serve(number, served));
    }

    /// Serves a device no more: its client is sent away, and its socket's file goes.
    pub fn dismiss(&self, number: usize) {
        self.order(Order::Dismiss(number));
    }

    fn order(&self, order: Order) {
        // Nobody takes it only when the thread has ended, which has been told.
        let _ = self.orders.send(order);
        // A full counter is the only error there can be, and that wakes too.
        let _ = self.wake.write(1);
    }
}

impl Drop for VfioUserServer {
    fn drop(&mut self) {
        self.order(Order::Stop);
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
    /// By number, each with its client.
    devices: BTreeMap<usize, (Served, Option<Client>)>,
    orders: Receiver<Order>,
    announce: bool,
    epoll: Epoll,
    wake: EventFd,
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
    fn new(orders: Receiver<Order>, announce: bool, wake: &EventFd) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let event = EpollEvent::new(EventSet::IN, ORDERS);
        epoll.ctl(ControlOperation::Add, wake.as_raw_fd(), event)?;
        Ok(Self {
            devices: BTreeMap::new(),
            orders,
            announce,
            epoll,
            wake: wake.try_clone()?,
            looked: Instant::now(),
            not_let_in: Occurrences::new(),
        })
    }

    fn serve(&mut self, number: usize, served: Served) -> io::Result<()> {
        let event = EpollEvent::new(EventSet::IN, number as u64);
        let listener = served.socket.listener.as_raw_fd();
        self.epoll.ctl(ControlOperation::Add, listener, event)?;
        self.devices.insert(number, (served, None));
        Ok(())
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
                    ORDERS if self.take_orders()? => return Ok(()),
                    ORDERS => {}
                    device => self.open(device as usize),
                }
            }
            if self.looked.elapsed() >= LOOK_INTERVAL {
                self.looked = Instant::now();
                for (served, _) in self.devices.values() {
                    if let Interrupts::Eventfds(eventfds) = &served.interrupts {
                        eventfds.free_writer();
                    }
                }
            }
        }
    }

    /// Does what it was told to; true if that is to stop.
    fn take_orders(&mut self) -> io::Result<bool> {
        // The only error there can be is that nothing was new.
        let _ = self.wake.read();
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Serve(number, served) => self.serve(number, served)?,
                Order::Dismiss(number) => {
                    let client = self.devices.remove(&number).and_then(|(_, client)| client);
                    send_away(client);
                }
                Order::Stop => return Ok(true),
            }
        }
        Ok(false)
    }

    /// Somebody is at the door of device `number`.
    fn open(&mut self, number: usize) {
        let Some((served, slot)) = self.devices.get_mut(&number) else {
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
        let devices = std::mem::take(&mut self.devices).into_values();
        // Each socket's file goes when nobody is served there any more.
        let (_devices, clients): (Vec<_>, Vec<_>) = devices.unzip();
        send_away(clients.into_iter().flatten());
    }
}

fn send_away(clients: impl IntoIterator<Item = Client>) {
    let clients: Vec<_> = clients.into_iter().collect();
    for client in &clients {
        // It may have gone by itself.
        let _ = client.stream.shutdown(Shutdown::Both);
    }
    let deadline = Instant::now() + END_TIMEOUT;
    for client in clients {
        client.wait_for_end(deadline);
    }
}

fn admit(served: &Served, number: usize, stream: UnixStream, announce: bool) -> io::Result<Client> {
    // On some systems what is accepted is like the socket that accepts.
    stream.set_nonblocking(false)?;
    let mine = stream.try_clone()?;
    let (device, interrupts) = (Arc::clone(&served.device), served.interrupts.clone());
    let thread = thread::Builder::new()
        .name(format!("client-{number}"))
        .spawn(move || {
            if announce {
                tell(format_args!("device {number}: a client has come"));
            }
            let session = Session::begin(device, interrupts.clone());
            let served = match &interrupts {
                Interrupts::Eventfds(_) => serve(&mine, &Voice::new(&mine), session),
                Interrupts::Messages(messages) => serve_with_messages(&mine, session, messages),
            };
            if let Err(why) = served {
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

/// Serves a client that a second thread sends interrupts to.
fn serve_with_messages(
    stream: &UnixStream,
    session: Session,
    messages: &Messages,
) -> Result<(), String> {
    let voice = Voice::new(stream);
    messages.open();
    thread::scope(|scope| {
        let sender = thread::Builder::new().name("interrupts".to_owned());
        let sender = sender.spawn_scoped(scope, || {
            while let Some(message) = messages.next() {
                if voice.say(&message).is_err() {
                    return;
                }
            }
        });
        let served = match sender {
            Ok(_) => serve(stream, &voice, session),
            Err(error) => Err(format!("there is no thread for its interrupts: {error}")),
        };
        // Whoever waits for it to take a message waits no more.
        let _ = stream.shutdown(Shutdown::Both);
        messages.close();
        served
    })
}

/// Serves a client until it goes; else says why it has to.
fn serve(stream: &UnixStream, voice: &Voice, mut session: Session) -> Result<(), String> {
    loop {
        let message = receive(stream).map_err(|error| error.to_string())?;
        let Some(message) = message else {
            return Ok(());
        };
        let reply = session.take(&message.header, &message.body, message.files);
        let reply = reply.map_err(|broken| broken.to_string())?;
        if let Some(reply) = reply
            && voice.say(&reply).is_err()
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
