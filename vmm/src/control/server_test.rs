// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The server with real sockets and a handler that only counts.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use vmm_sys_util::tempdir::TempDir;

use super::*;
use crate::control::Client;

#[derive(Default)]
struct Counting(AtomicUsize);

impl Handler for Counting {
    fn handle(&self, _request: &Request) -> Reply {
        self.0.fetch_add(1, Ordering::Relaxed);
        Reply::done()
    }
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
    let handled = Arc::new(Counting::default());
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
    let mut client = Client::connect(&setup.path).unwrap();
    for _ in 0..3 {
        let (reply, line) = client.request(&Request::Stats {}).unwrap();
        assert!(reply.ok && line == r#"{"ok":true}"#);
    }
    let (reply, _) = client.request(&Request::Quit {}).unwrap();
    assert!(reply.ok);
    setup.quits.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!(setup.handled.0.load(Ordering::Relaxed), 3);
    drop(setup.server);
    assert!(!setup.path.exists());
    assert!(Client::connect(&setup.path).is_err());
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
    while setup.handled.0.load(Ordering::Relaxed) == 0 {
        assert!(begin.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(line(&mut client).contains(r#""ok":false"#));
    assert!(line(&mut client).contains("unknown field"));
    assert!(line(&mut client).contains(r#""ok":true"#));
    assert_eq!(setup.handled.0.load(Ordering::Relaxed), 1);
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
    let mut client = Client::connect(&setup.path).unwrap();
    for _ in 0..10 {
        assert!(client.request(&Request::Stats {}).unwrap().0.ok);
    }
}

/// Takes as long for each request as the test wants.
struct Slow {
    begun: mpsc::Sender<()>,
    done: Mutex<mpsc::Receiver<()>>,
}

impl Handler for Slow {
    fn handle(&self, _request: &Request) -> Reply {
        self.begun.send(()).unwrap();
        self.done.lock().unwrap().recv().unwrap();
        Reply::done()
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
    let slow = Arc::new(Slow { begun, done });
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
