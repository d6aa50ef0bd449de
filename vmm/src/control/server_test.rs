// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The server with real sockets and a handler that only counts.

use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use vmm_sys_util::tempdir::TempDir;

use super::*;
use crate::control::reply::EventLine;
use crate::control::request::{Events, Reset};
use crate::control::{Client as Caller, ClientError, examples};

struct Counting {
    handled: AtomicUsize,
    stream: EventFd,
    made: Mutex<Vec<EventLine>>,
    observed: Mutex<Vec<usize>>,
}

impl Counting {
    fn new() -> Self {
        Self {
            handled: AtomicUsize::default(),
            stream: stream(),
            made: Mutex::default(),
            observed: Mutex::default(),
        }
    }

    /// Device `device` makes an event with this number.
    fn make(&self, device: usize, sequence: u64) {
        let mut line = examples::event_line();
        (line.event.device, line.event.sequence, line.lost) = (device, sequence, 0);
        self.made.lock().unwrap().push(line);
        self.stream.write(1).unwrap();
    }

    fn wait_observed(&self, devices: &[usize]) {
        let begin = Instant::now();
        while *self.observed.lock().unwrap() != devices {
            assert!(begin.elapsed() < Duration::from_secs(10));
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Handler for Counting {
    fn handle(&self, request: &Request) -> Reply {
        if !matches!(request, Request::Quit {}) {
            self.handled.fetch_add(1, Ordering::Relaxed);
        }
        match request {
            Request::Reset(_) => Reply::error("no"),
            Request::Events(events) if events.devices == Some(vec![9]) => Reply::error("no 9"),
            _ => Reply::done(),
        }
    }

    fn observe(&self, wanted: &dyn Fn(usize) -> bool) {
        *self.observed.lock().unwrap() = (0..3).filter(|&device| wanted(device)).collect();
    }

    fn stream(&self) -> &EventFd {
        &self.stream
    }

    fn take_events(&self) -> Vec<EventLine> {
        std::mem::take(&mut self.made.lock().unwrap())
    }
}

fn stream() -> EventFd {
    EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC).unwrap()
}

struct Setup {
    path: PathBuf,
    quits: mpsc::Receiver<()>,
    handled: Arc<Counting>,
    server: ControlServer,
    _folder: TempDir,
}

fn setup() -> Setup {
    let folder = TempDir::new().unwrap();
    let path = folder.as_path().join("control");
    let (sender, quits) = mpsc::channel();
    let handled = Arc::new(Counting::new());
    let on_quit = Box::new(move || sender.send(()).unwrap());
    let endpoint = Endpoint::open(&path).unwrap();
    let server = ControlServer::start(endpoint, handled.clone(), on_quit).unwrap();
    Setup {
        path,
        quits,
        handled,
        server,
        _folder: folder,
    }
}

fn connect(path: &Path) -> BufReader<UnixStream> {
    let stream = UnixStream::connect(path).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    BufReader::new(stream)
}

fn line(stream: &mut BufReader<UnixStream>) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    line
}

#[test]
fn requests_are_answered_and_the_file_goes_with_the_server() {
    let setup = setup();
    let mut client = Caller::connect(&setup.path).unwrap();
    for _ in 0..3 {
        let (reply, line) = client.request(&Request::Stats {}).unwrap();
        assert!(
            reply.ok && line.starts_with(r#"{"ok":true,"id":"#),
            "{line}"
        );
    }
    let (reply, _) = client.request(&Request::Quit {}).unwrap();
    assert!(reply.ok);
    setup.quits.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!(setup.handled.handled.load(Ordering::Relaxed), 3);
    drop(setup.server);
    assert!(!setup.path.exists());
    assert!(Caller::connect(&setup.path).is_err());
}

#[test]
fn a_bad_request_gets_an_error_and_does_nothing() {
    let setup = setup();
    let mut client = connect(&setup.path);
    client
        .get_mut()
        .write_all(b"\n{\"command\":\"stats\",\"x\":1}\n{\"command\":\"stats\"}\n")
        .unwrap();
    // All lines have their turn, though nobody takes a reply or sends more meanwhile.
    let begin = Instant::now();
    while setup.handled.handled.load(Ordering::Relaxed) == 0 {
        assert!(begin.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(line(&mut client).contains(r#""ok":false"#));
    assert!(line(&mut client).contains("unknown field"));
    assert!(line(&mut client).contains(r#""ok":true"#));
    assert_eq!(setup.handled.handled.load(Ordering::Relaxed), 1);
}

#[test]
fn eight_clients_are_served_and_the_ninth_is_told() {
    let setup = setup();
    let mut clients: Vec<_> = (0..MAX_CLIENTS).map(|_| connect(&setup.path)).collect();
    for client in &mut clients {
        client
            .get_mut()
            .write_all(b"{\"command\":\"stats\"}\n")
            .unwrap();
        assert!(line(client).contains(r#""ok":true"#));
    }
    let mut ninth = connect(&setup.path);
    assert!(line(&mut ninth).contains("8 clients"));
    assert_eq!(line(&mut ninth), "");

    // Half a close is enough for a place to become free.
    let done = clients.pop().unwrap();
    done.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
    let mut rest = done;
    assert_eq!(line(&mut rest), "");
    let mut next = connect(&setup.path);
    next.get_mut()
        .write_all(b"{\"command\":\"stats\"}\n")
        .unwrap();
    assert!(line(&mut next).contains(r#""ok":true"#));
}

#[test]
fn a_client_that_does_not_read_hinders_nobody() {
    let setup = setup();
    let stuck = UnixStream::connect(&setup.path).unwrap();
    stuck.set_nonblocking(true).unwrap();
    let requests = b"{\"command\":\"stats\"}\n".repeat(1000);
    let mut sent = 0;
    for _ in 0..1000 {
        match (&stuck).write(&requests) {
            Ok(length) => sent += length,
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    assert!(sent > 0);
    let mut client = Caller::connect(&setup.path).unwrap();
    for _ in 0..10 {
        assert!(client.request(&Request::Stats {}).unwrap().0.ok);
    }
}

/// Takes as long for each request as the test wants.
struct Slow {
    begun: mpsc::Sender<()>,
    done: Mutex<mpsc::Receiver<()>>,
    stream: EventFd,
}

impl Handler for Slow {
    fn handle(&self, _request: &Request) -> Reply {
        self.begun.send(()).unwrap();
        self.done.lock().unwrap().recv().unwrap();
        Reply::done()
    }

    fn observe(&self, _wanted: &dyn Fn(usize) -> bool) {}

    fn stream(&self) -> &EventFd {
        &self.stream
    }

    fn take_events(&self) -> Vec<EventLine> {
        Vec::new()
    }
}

#[test]
fn the_end_waits_for_one_request_but_not_for_all() {
    let folder = TempDir::new().unwrap();
    let path = folder.as_path().join("control");
    let (begun, begins) = mpsc::channel();
    let (finish, done) = mpsc::channel();
    let done = Mutex::new(done);
    let endpoint = Endpoint::open(&path).unwrap();
    let slow = Arc::new(Slow {
        begun,
        done,
        stream: stream(),
    });
    let server = ControlServer::start(endpoint, slow, Box::new(|| {})).unwrap();
    let mut clients: Vec<_> = (0..MAX_CLIENTS).map(|_| connect(&path)).collect();
    let ask = |client: &mut BufReader<UnixStream>| {
        let stream = client.get_mut();
        stream.write_all(b"{\"command\":\"stats\"}\n").unwrap();
    };
    let wait = || begins.recv_timeout(Duration::from_secs(10)).unwrap();
    for client in &mut clients {
        finish.send(()).unwrap();
        ask(client);
        wait();
        line(client);
    }
    // While the first is busy the others get in line, to be reported together.
    ask(&mut clients[0]);
    wait();
    clients[1..].iter_mut().for_each(ask);
    finish.send(()).unwrap();
    wait();
    let stop = Arc::clone(&server.stop);
    let end = std::thread::spawn(move || drop(server));
    while !stop.1.load(Ordering::Acquire) {
        std::thread::yield_now();
    }
    for _ in &clients {
        // The first may be all that the server waits for.
        let _ = finish.send(());
    }
    end.join().unwrap();
    assert!(begins.try_recv().is_err());
}

fn events(on: bool, devices: Option<Vec<usize>>) -> Request {
    Request::Events(Events { on, devices })
}

#[test]
fn each_client_gets_the_events_that_it_wants() {
    let setup = setup();
    let mut first = Caller::connect(&setup.path).unwrap();
    let mut second = Caller::connect(&setup.path).unwrap();
    assert!(first.request(&events(true, Some(vec![1]))).unwrap().0.ok);
    setup.handled.wait_observed(&[1]);
    assert!(second.request(&events(true, None)).unwrap().0.ok);
    setup.handled.wait_observed(&[0, 1, 2]);
    // What is refused changes nothing.
    assert!(!first.request(&events(true, Some(vec![9]))).unwrap().0.ok);
    for sequence in 0..4 {
        setup.handled.make((sequence % 2) as usize, sequence);
    }
    let sequences = |client: &mut Caller, count: usize| {
        let events = (0..count).map(|_| client.event().unwrap().0.event.sequence);
        events.collect::<Vec<_>>()
    };
    assert_eq!(sequences(&mut first, 2), [1, 3]);
    assert_eq!(sequences(&mut second, 4), [0, 1, 2, 3]);
    // Requests go on beside the stream.
    assert!(first.request(&Request::Stats {}).unwrap().0.ok);
    assert!(second.request(&events(false, None)).unwrap().0.ok);
    setup.handled.wait_observed(&[1]);
    drop(first);
    setup.handled.wait_observed(&[]);
}

#[test]
fn who_does_not_read_events_hinders_nobody_and_is_told() {
    /// More than fits into any buffer on the way.
    const EVENTS: u64 = 20_000;
    let setup = setup();
    let mut slow = Caller::connect(&setup.path).unwrap();
    let mut other = Caller::connect(&setup.path).unwrap();
    assert!(slow.request(&events(true, None)).unwrap().0.ok);
    for sequence in 0..EVENTS {
        setup.handled.make(0, sequence);
    }
    assert!(other.request(&Request::Stats {}).unwrap().0.ok);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // The line that tells of the loss needs an event to come with.
        scope.spawn(|| {
            for sequence in EVENTS.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                setup.handled.make(0, sequence);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let mut expected = 0;
        loop {
            let line = slow.event().unwrap().0;
            assert_eq!(line.event.sequence, expected + line.lost);
            expected = line.event.sequence + 1;
            if line.lost > 0 {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_refusal_has_the_id_too() {
    let setup = setup();
    let mut client = Caller::connect(&setup.path).unwrap();
    let (reply, _) = client
        .request(&Request::Reset(Reset { device: 0 }))
        .unwrap();
    assert_eq!((reply.ok, reply.error.as_deref()), (false, Some("no")));
    let mut stream = connect(&setup.path);
    stream
        .get_mut()
        .write_all(b"{\"id\":5,\"command\":\"x\"}\n")
        .unwrap();
    assert!(line(&mut stream).contains(r#""ok":false,"id":5,"#));
}

/// A port whose other end is the test, which cannot come back once it is gone.
fn port() -> (UnixStream, Arc<Counting>, ControlServer) {
    let (near, far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    far.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let handled = Arc::new(Counting::new());
    let endpoint = Endpoint::Port(File::from(OwnedFd::from(near)));
    let server = ControlServer::start(endpoint, handled.clone(), Box::new(|| {})).unwrap();
    (far, handled, server)
}

#[test]
fn on_a_port_the_stream_ends_a_while_after_its_client() {
    let (far, handled, _server) = port();
    let mut far = BufReader::new(far);
    let request = b"{\"command\":\"events\",\"on\":true}\n";
    far.get_mut().write_all(request).unwrap();
    assert!(line(&mut far).contains(r#""ok":true"#));
    handled.wait_observed(&[0, 1, 2]);
    handled.make(2, 7);
    assert!(line(&mut far).contains(r#""device":2"#));
    // As long as the client is there, the stream is, however quiet it is.
    std::thread::sleep(PORT_PATIENCE + Duration::from_millis(100));
    assert_eq!(*handled.observed.lock().unwrap(), [0, 1, 2]);
    drop(far);
    handled.wait_observed(&[]);
}

/// Passes bytes on between the port's `far` end and one client of `listener` after the other, as
/// QEMU does, until `stop`. What a client has not read when it goes is cut wherever that may be.
fn bridge(far: &UnixStream, listener: &UnixListener, stop: &AtomicBool) {
    far.set_nonblocking(true).unwrap();
    listener.set_nonblocking(true).unwrap();
    while !stop.load(Ordering::Relaxed) {
        let Ok((client, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        client.set_nonblocking(true).unwrap();
        let mut bytes = [0; 100];
        loop {
            match (&client).read(&mut bytes) {
                Ok(0) => break,
                Ok(length) => (&*far).write_all(&bytes[..length]).unwrap(),
                Err(_) => {}
            }
            match (&*far).read(&mut bytes) {
                Ok(length) if (&client).write_all(&bytes[..length]).is_err() => break,
                Ok(_) => {}
                Err(_) => std::thread::sleep(Duration::from_micros(100)),
            }
        }
    }
}

#[test]
fn on_a_port_clients_that_leave_in_mid_stream_do_not_confuse_the_next() {
    let (far, handled, _server) = port();
    let folder = TempDir::new().unwrap();
    let path = folder.as_path().join("port");
    let listener = UnixListener::bind(&path).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| bridge(&far, &listener, &stop));
        scope.spawn(|| {
            for sequence in 0.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                handled.make(0, sequence);
                std::thread::sleep(Duration::from_micros(100));
            }
        });
        let clients = || -> Result<(), ClientError> {
            for _ in 0..20 {
                let mut client = Caller::connect(&path)?;
                client.request(&events(true, None))?;
                client.event()?;
                client.event()?;
                drop(client);
                Caller::connect(&path)?.request(&Request::Stats {})?;
            }
            Ok(())
        };
        let result = clients();
        stop.store(true, Ordering::Relaxed);
        result.unwrap();
    });
}
