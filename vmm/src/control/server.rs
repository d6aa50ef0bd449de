// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The thread that serves the control socket.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracing::{error, warn};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use super::commands::Handler;
use super::connection::{Connection, Kind, Next};
use super::endpoint::Endpoint;
use super::reply::Reply;
use super::request::Request;
use super::subscription::{Line, Subscription};
use crate::rate_limit::Occurrences;
use crate::socket_file::SocketFile;

/// Clients served at a time.
const MAX_CLIENTS: usize = 8;
/// Lines of the event stream that are put before clients in one go. They fit into what one may have
/// unread, so none is left out before a client that keeps up could have it.
const LINES_AT_ONCE: usize = 256;
/// Clients accepted in one go, so that those who are there get their turn.
const ACCEPT_BATCH: usize = 16;

/// How long replies on a port wait for a client, and its stream of events goes on. A port reports the
/// coming and going of clients later than their bytes, so a request may be done when there still
/// seems to be nobody who sent it.
const PORT_PATIENCE: Duration = Duration::from_secs(1);

/// What epoll says of the eventfd that ends the thread.
const STOP: u64 = 0;
/// What epoll says of the listening socket, or of the port.
const ENDPOINT: u64 = 1;
/// What epoll says of the eventfd that tells of events to stream.
const STREAM: u64 = 2;
/// What epoll says of the first client; the next ones count up.
const FIRST_CLIENT: u64 = 3;

/// The served control socket. The end of it ends the thread and removes the socket's file.
pub struct ControlServer {
    stop: Arc<(EventFd, AtomicBool)>,
    thread: Option<JoinHandle<()>>,
}

impl ControlServer {
    /// Serves `endpoint`. Requests are done by `handler`; at [`Request::Quit`] `on_quit` is called,
    /// each time in the server's thread.
    pub fn start(
        endpoint: Endpoint,
        handler: Arc<dyn Handler>,
        on_quit: Box<dyn Fn() + Send>,
    ) -> io::Result<Self> {
        let flags = libc::EFD_NONBLOCK | libc::EFD_CLOEXEC;
        let stop = Arc::new((EventFd::new(flags)?, AtomicBool::new(false)));
        let commands = Commands { handler, on_quit };
        let mut service = Service::new(endpoint, commands, Arc::clone(&stop))?;
        let thread = std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || {
                if let Err(error) = service.run() {
                    error!("the control socket is not served any more: {error}");
                }
            })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        self.stop.1.store(true, Ordering::Release);
        // A full counter is the only error there can be, and that wakes too.
        let _ = self.stop.0.write(1);
        if self
            .thread
            .take()
            .is_some_and(|thread| thread.join().is_err())
        {
            error!("the thread of the control socket has panicked");
        }
    }
}

struct Commands {
    handler: Arc<dyn Handler>,
    on_quit: Box<dyn Fn() + Send>,
}

impl Commands {
    /// Gives `client` its turn. A reply to `quit` is on its way before the machine ends.
    fn serve<S: Read + Write>(&self, client: &mut Client<S>) -> Turn {
        let mut quit = false;
        let mut reobserve = false;
        let subscription = &mut client.subscription;
        let next = client.connection.turn(|line| match Request::parse(line) {
            Ok((request, id)) => {
                quit |= matches!(request, Request::Quit {});
                let reply = self.handler.handle(&request);
                // A new device does not know what anybody wants.
                reobserve |= matches!(request, Request::Plug(_));
                if let (true, Request::Events(events)) = (reply.ok, request) {
                    *subscription = Subscription::to(events);
                    reobserve = true;
                }
                Reply { id, ..reply }
            }
            Err(malformed) => Reply {
                id: malformed.id,
                ..Reply::error(malformed.error)
            },
        });
        if quit {
            (self.on_quit)();
        }
        Turn { next, reobserve }
    }
}

/// What came of a client's turn.
struct Turn {
    next: Next,
    /// It wants other events than before, or there are other devices.
    reobserve: bool,
}

/// Who is at the other end of a connection, and what it wants.
struct Client<S> {
    connection: Connection<S>,
    subscription: Option<Subscription>,
}

impl<S: Read + Write> Client<S> {
    fn new(stream: S, kind: Kind) -> Self {
        Self {
            connection: Connection::new(stream, kind),
            subscription: None,
        }
    }

    /// Has the client get those of `lines` that it wants; false if there were none.
    fn stream(&mut self, lines: &[Line]) -> bool {
        let Some(subscription) = &mut self.subscription else {
            return false;
        };
        let connection = &mut self.connection;
        let mut any = false;
        for line in lines {
            any |= subscription.offer(line, |line| connection.stream_line(line));
        }
        any
    }
}

/// Where clients come in, open for them.
enum Entrance {
    Socket(SocketFile),
    Port {
        client: Client<File>,
        /// When the port last told of anything, if it told that there is no client.
        deserted: Option<Instant>,
    },
    /// The port broke.
    Closed,
}

/// The thread's own.
///
/// Everything is watched edge-triggered. A port without a client is "ready" all the time, and would
/// keep a level-triggered loop spinning. Whoever had something to do is asked anew by `rearm`, so no
/// turn needs to go on until there is nothing left.
struct Service {
    entrance: Entrance,
    commands: Commands,
    clients: BTreeMap<u64, Client<UnixStream>>,
    next_client: u64,
    epoll: Epoll,
    stop: Arc<(EventFd, AtomicBool)>,
    turned_away: Occurrences,
}

impl Service {
    fn new(
        endpoint: Endpoint,
        commands: Commands,
        stop: Arc<(EventFd, AtomicBool)>,
    ) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        add(&epoll, &stop.0, STOP)?;
        add(&epoll, commands.handler.stream(), STREAM)?;
        let entrance = match endpoint {
            Endpoint::Socket(socket) => {
                add(&epoll, &socket.listener, ENDPOINT)?;
                Entrance::Socket(socket)
            }
            Endpoint::Port(port) => {
                add(&epoll, &port, ENDPOINT)?;
                Entrance::Port {
                    client: Client::new(port, Kind::Port),
                    deserted: Some(Instant::now()),
                }
            }
        };
        Ok(Self {
            entrance,
            commands,
            clients: BTreeMap::new(),
            next_client: FIRST_CLIENT,
            epoll,
            stop,
            turned_away: Occurrences::default(),
        })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = [EpollEvent::default(); MAX_CLIENTS + 3];
        loop {
            let count = match self.epoll.wait(self.patience(), &mut events) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            };
            for event in &events[..count] {
                // Not only once for all: each may take as long as a request may.
                if self.stop.1.load(Ordering::Acquire) {
                    return Ok(());
                }
                match event.data() {
                    STOP => {}
                    ENDPOINT => self.serve_entrance(Some(event.events()))?,
                    STREAM => self.stream()?,
                    client => self.serve_client(client)?,
                }
            }
            self.desert_port();
        }
    }

    /// How long to wait for events, in milliseconds; -1 is for ever.
    fn patience(&self) -> i32 {
        match &self.entrance {
            Entrance::Port {
                client,
                deserted: Some(since),
            } if client.connection.has_unread() || client.subscription.is_some() => {
                let left = PORT_PATIENCE.saturating_sub(since.elapsed());
                // Rounded up, or the last millisecond would be spent in a hurry.
                left.as_millis() as i32 + 1
            }
            _ => -1,
        }
    }

    /// Ends what goes on for a client of the port who has been gone for long.
    fn desert_port(&mut self) {
        if let Entrance::Port {
            client,
            deserted: Some(since),
        } = &mut self.entrance
            && since.elapsed() >= PORT_PATIENCE
        {
            client.connection.forget_unread();
            if client.subscription.take().is_some() {
                self.observe();
            }
        }
    }

    /// Serves who comes in; `ready` is what epoll says of it, if it was epoll who asked for this.
    fn serve_entrance(&mut self, ready: Option<u32>) -> io::Result<()> {
        let turn = match &mut self.entrance {
            Entrance::Socket(_) => return self.accept(),
            Entrance::Closed => return Ok(()),
            Entrance::Port { client, deserted } => {
                if let Some(ready) = ready {
                    let gone = ready & EventSet::HANG_UP.bits() != 0;
                    // What comes now may be from the next client already: the time begins anew.
                    *deserted = gone.then(Instant::now);
                    if gone {
                        client.connection.hang_up();
                    }
                }
                let turn = self.commands.serve(client);
                if turn.next == Next::Again {
                    rearm(&self.epoll, client.connection.stream(), ENDPOINT)?;
                }
                turn
            }
        };
        if turn.next == Next::Close {
            warn!("the control port is gone: this machine takes no more commands");
            self.entrance = Entrance::Closed;
        }
        if turn.reobserve || turn.next == Next::Close {
            self.observe();
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        let Entrance::Socket(socket) = &self.entrance else {
            return Ok(());
        };
        for _ in 0..ACCEPT_BATCH {
            let stream = match socket.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // Out of file descriptors, say. The next one who connects is a new chance.
                Err(error) => {
                    if let Some(so_far) = self.turned_away.add() {
                        warn!(
                            "cannot accept a client on the control socket, \
                             {so_far} times so far: {error}"
                        );
                    }
                    return Ok(());
                }
            };
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            if self.clients.len() >= MAX_CLIENTS {
                let refusal = Reply::error(format_args!(
                    "{MAX_CLIENTS} clients are connected already: try again later"
                ));
                // It fits into an empty socket buffer, or the client is gone.
                let _ = (&stream).write(&refusal.to_line());
                continue;
            }
            if add(&self.epoll, &stream, self.next_client).is_ok() {
                let client = Client::new(stream, Kind::Socket);
                self.clients.insert(self.next_client, client);
                self.next_client += 1;
            }
        }
        rearm(&self.epoll, &socket.listener, ENDPOINT)
    }

    fn serve_client(&mut self, number: u64) -> io::Result<()> {
        // It may have been closed by an earlier event of the same batch.
        let Some(client) = self.clients.get_mut(&number) else {
            return Ok(());
        };
        let turn = self.commands.serve(client);
        match turn.next {
            Next::Again => rearm(&self.epoll, client.connection.stream(), number)?,
            Next::Wait => {}
            // Closing the last descriptor takes it out of the epoll set.
            Next::Close => drop(self.clients.remove(&number)),
        }
        if turn.reobserve || turn.next == Next::Close {
            self.observe();
        }
        Ok(())
    }

    /// Has the devices tell of just the events that somebody wants.
    fn observe(&self) {
        let port = match &self.entrance {
            Entrance::Port { client, .. } => client.subscription.as_ref(),
            _ => None,
        };
        let sockets = self.clients.values();
        let subscriptions: Vec<_> = sockets
            .filter_map(|client| client.subscription.as_ref())
            .chain(port)
            .collect();
        self.commands.handler.observe(&|device| {
            let mut subscriptions = subscriptions.iter();
            subscriptions.any(|subscription| subscription.wants(device))
        });
    }

    /// Passes on what the devices tell.
    fn stream(&mut self) -> io::Result<()> {
        let handler = &self.commands.handler;
        // The only error there can be is that nothing was new.
        let _ = handler.stream().read();
        let lines = handler.take_events();
        let lines: Vec<_> = lines.into_iter().map(Line::new).collect();
        lines
            .chunks(LINES_AT_ONCE)
            .try_for_each(|lines| self.pass_on(lines))
    }

    fn pass_on(&mut self, lines: &[Line]) -> io::Result<()> {
        let mut ready = Vec::new();
        for (&number, client) in &mut self.clients {
            if client.stream(lines) {
                ready.push(number);
            }
        }
        for number in ready {
            self.serve_client(number)?;
        }
        if let Entrance::Port { client, .. } = &mut self.entrance
            && client.stream(lines)
        {
            self.serve_entrance(None)?;
        }
        Ok(())
    }
}

fn watch(data: u64) -> EpollEvent {
    EpollEvent::new(
        EventSet::IN | EventSet::OUT | EventSet::EDGE_TRIGGERED,
        data,
    )
}

fn add(epoll: &Epoll, file: &impl AsRawFd, data: u64) -> io::Result<()> {
    epoll.ctl(ControlOperation::Add, file.as_raw_fd(), watch(data))
}

/// Has epoll report `file` again if it is ready now.
fn rearm(epoll: &Epoll, file: &impl AsRawFd, data: u64) -> io::Result<()> {
    epoll.ctl(ControlOperation::Modify, file.as_raw_fd(), watch(data))
}

#[cfg(test)]
#[path = "server_test.rs"]
mod tests;
