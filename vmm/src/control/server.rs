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

use tracing::{error, warn};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use super::commands::Handler;
use super::connection::{Connection, Kind, Next};
use super::endpoint::{Endpoint, SocketFile};
use super::protocol::{Reply, Request};
use crate::rate_limit::Occurrences;

/// Clients served at a time.
const MAX_CLIENTS: usize = 8;
/// Clients accepted in one go, so that those who are there get their turn.
const ACCEPT_BATCH: usize = 16;

/// How long replies on a port wait for a client, in milliseconds. A port reports the coming and
/// going of clients later than their bytes, so a request may be done when there still seems to be
/// nobody who sent it.
const PORT_PATIENCE: i32 = 1000;

/// What epoll says of the eventfd that ends the thread.
const STOP: u64 = 0;
/// What epoll says of the listening socket, or of the port.
const ENDPOINT: u64 = 1;
/// What epoll says of the first client; the next ones count up.
const FIRST_CLIENT: u64 = 2;

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
    /// Gives `connection` its turn. A reply to `quit` is on its way before the machine ends.
    fn serve<S: Read + Write>(&self, connection: &mut Connection<S>) -> Next {
        let mut quit = false;
        let next = connection.turn(|line| match Request::parse(line) {
            Ok(Request::Quit {}) => {
                quit = true;
                Reply::done()
            }
            Ok(request) => self.handler.handle(&request),
            Err(error) => Reply::error(format_args!("not a request: {error}")),
        });
        if quit {
            (self.on_quit)();
        }
        next
    }
}

/// Where clients come in, open for them.
enum Entrance {
    Socket(SocketFile),
    Port {
        connection: Connection<File>,
        /// There is no client, as far as the port has told.
        deserted: bool,
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
    clients: BTreeMap<u64, Connection<UnixStream>>,
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
        let entrance = match endpoint {
            Endpoint::Socket(socket) => {
                add(&epoll, &socket.listener, ENDPOINT)?;
                Entrance::Socket(socket)
            }
            Endpoint::Port(port) => {
                add(&epoll, &port, ENDPOINT)?;
                Entrance::Port {
                    connection: Connection::new(port, Kind::Port),
                    deserted: true,
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
        let mut events = [EpollEvent::default(); MAX_CLIENTS + 2];
        loop {
            let count = match self.epoll.wait(self.patience(), &mut events) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            };
            if count == 0
                && let Entrance::Port { connection, .. } = &mut self.entrance
            {
                connection.forget_unread();
            }
            for event in &events[..count] {
                // Not only once for all: each may take as long as a request may.
                if self.stop.1.load(Ordering::Acquire) {
                    return Ok(());
                }
                match event.data() {
                    STOP => {}
                    ENDPOINT => self.serve_entrance(event.events())?,
                    client => self.serve_client(client)?,
                }
            }
        }
    }

    /// How long to wait for events, in milliseconds; -1 is for ever.
    fn patience(&self) -> i32 {
        match &self.entrance {
            Entrance::Port {
                connection,
                deserted: true,
            } if connection.has_unread() => PORT_PATIENCE,
            _ => -1,
        }
    }

    fn serve_entrance(&mut self, ready: u32) -> io::Result<()> {
        match &mut self.entrance {
            Entrance::Socket(_) => self.accept(),
            Entrance::Port {
                connection,
                deserted,
            } => {
                *deserted = ready & EventSet::HANG_UP.bits() != 0;
                if *deserted {
                    connection.hang_up();
                }
                match self.commands.serve(connection) {
                    Next::Again => rearm(&self.epoll, connection.stream(), ENDPOINT),
                    Next::Wait => Ok(()),
                    Next::Close => {
                        warn!("the control port is gone: this machine takes no more commands");
                        self.entrance = Entrance::Closed;
                        Ok(())
                    }
                }
            }
            Entrance::Closed => Ok(()),
        }
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
                let connection = Connection::new(stream, Kind::Socket);
                self.clients.insert(self.next_client, connection);
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
        match self.commands.serve(client) {
            Next::Again => rearm(&self.epoll, client.stream(), number),
            Next::Wait => Ok(()),
            Next::Close => {
                // Closing the last descriptor takes it out of the epoll set.
                self.clients.remove(&number);
                Ok(())
            }
        }
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
