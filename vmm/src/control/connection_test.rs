// SPDX-License-Identifier: Apache-2.0 OR MIT

//! A client's bytes, well- and ill-meant, against a script in the place of the stream.

use std::collections::VecDeque;
use std::io::Error;

use super::*;

/// Gives what it was told to give, and takes as much as it was told to take.
struct Script {
    reads: VecDeque<Vec<u8>>,
    /// Comes when all is read: the end, or "later".
    then: Result<usize>,
    room: usize,
    written: Vec<u8>,
}

impl Read for Script {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        match self.reads.pop_front() {
            Some(mut bytes) => {
                let length = bytes.len().min(buffer.len());
                buffer[..length].copy_from_slice(&bytes[..length]);
                if length < bytes.len() {
                    self.reads.push_front(bytes.split_off(length));
                }
                Ok(length)
            }
            None => self
                .then
                .as_ref()
                .copied()
                .map_err(|error| error.kind().into()),
        }
    }
}

impl Write for Script {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let length = bytes.len().min(self.room);
        if length == 0 {
            return Err(Error::from(ErrorKind::WouldBlock));
        }
        self.room -= length;
        self.written.extend(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

fn later() -> Result<usize> {
    Err(ErrorKind::WouldBlock.into())
}

fn connection(kind: Kind, reads: &[&[u8]], then: Result<usize>) -> Connection<Script> {
    let script = Script {
        reads: reads.iter().map(|bytes| bytes.to_vec()).collect(),
        then,
        room: usize::MAX,
        written: Vec::new(),
    };
    Connection::new(script, kind)
}

/// Turns until there is nothing to do; gives the lines that were to be answered.
fn run(connection: &mut Connection<Script>) -> (Vec<String>, Next) {
    let mut lines = Vec::new();
    for _ in 0..100_000 {
        let next = connection.turn(|line| {
            lines.push(String::from_utf8_lossy(line).into_owned());
            Reply::done()
        });
        if next != Next::Again {
            return (lines, next);
        }
    }
    panic!("it spins");
}

fn written(connection: &mut Connection<Script>) -> String {
    String::from_utf8(std::mem::take(&mut connection.stream.written)).unwrap()
}

const OK: &str = "{\"ok\":true}\n";

#[test]
fn lines_are_found_wherever_the_bytes_are_cut() {
    for reads in [
        &[&b"one\ntwo\nthree"[..]][..],
        &[b"o", b"ne", b"\n", b"two\nthr", b"ee"],
        &[b"one\n", b"two", b"\nthree"],
    ] {
        let mut connection = connection(Kind::Socket, reads, later());
        let (lines, next) = run(&mut connection);
        assert_eq!(
            (lines, next),
            (vec!["one".into(), "two".into()], Next::Wait)
        );
        assert_eq!(written(&mut connection), OK.repeat(2));
    }
}

#[test]
fn at_the_end_the_replies_still_go_out() {
    let mut connection = connection(Kind::Socket, &[b"one\ntwo\nthr"], Ok(0));
    connection.stream.room = 0;
    let (lines, next) = run(&mut connection);
    assert_eq!((lines.len(), next), (2, Next::Wait));
    connection.stream.room = usize::MAX;
    assert_eq!(run(&mut connection), (vec![], Next::Close));
    assert_eq!(written(&mut connection), OK.repeat(2));
}

#[test]
fn a_request_has_a_longest_length() {
    let line = |length: usize| [vec![b'x'; length], b"\n".to_vec()].concat();
    let longest = line(MAX_REQUEST);
    let mut fits = connection(Kind::Socket, &[&longest], later());
    assert_eq!(run(&mut fits).0.len(), 1);

    for length in [MAX_REQUEST + 1, MAX_REQUEST + CHUNK, 10 * MAX_REQUEST] {
        let mut bytes = line(length);
        bytes.extend(b"after\n");
        let mut socket = connection(Kind::Socket, &[&bytes], later());
        assert_eq!(run(&mut socket), (vec![], Next::Close), "{length}");
        let reply = written(&mut socket);
        assert!(reply.contains("longer") && reply.lines().count() == 1);

        let mut port = connection(Kind::Port, &[&bytes], later());
        assert_eq!(run(&mut port), (vec!["after".into()], Next::Wait));
        let reply = written(&mut port);
        assert!(reply.contains("longer") && reply.lines().count() == 2);
    }
}

#[test]
fn who_does_not_read_has_nothing_done_and_costs_little() {
    let requests = b"request\n".repeat(1_000_000);
    let mut connection = connection(Kind::Socket, &[&requests], later());
    connection.stream.room = 0;
    let (lines, next) = run(&mut connection);
    assert_eq!(next, Next::Wait);
    assert_eq!(lines.len(), MAX_UNREAD.div_ceil(OK.len()));
    assert!(connection.input.len() <= MAX_REQUEST + CHUNK);
    // Whoever reads on gets on.
    connection.stream.room = 10 * OK.len();
    assert_eq!(run(&mut connection).0.len(), 10);
}

#[test]
fn who_does_not_read_cannot_go_on_sending_a_line_without_end() {
    let mut bytes = b"request\n".repeat(MAX_UNREAD.div_ceil(OK.len()));
    bytes.extend(vec![b'x'; 100 * MAX_REQUEST]);
    for kind in [Kind::Socket, Kind::Port] {
        let mut connection = connection(kind, &[&bytes], later());
        connection.stream.room = 0;
        assert_eq!(run(&mut connection).1, Next::Wait);
        assert!(connection.input.len() <= MAX_REQUEST + CHUNK, "{kind:?}");
        // Whoever reads on is told.
        connection.stream.room = usize::MAX;
        run(&mut connection);
        assert!(written(&mut connection).contains("longer"), "{kind:?}");
    }
}

#[test]
fn on_a_port_clients_come_and_go() {
    let mut port = connection(Kind::Port, &[b"one\nhalf a li"], Ok(0));
    assert_eq!(run(&mut port), (vec!["one".into()], Next::Wait));
    assert_eq!(run(&mut port), (vec![], Next::Wait), "it does not spin");
    written(&mut port);

    port.stream.reads.push_back(b"two\n".to_vec());
    assert_eq!(run(&mut port), (vec!["two".into()], Next::Wait));
    assert_eq!(written(&mut port), OK);
}

#[test]
fn on_a_port_a_reply_waits_for_a_client_but_not_a_flood_of_them() {
    let requests = b"request\n".repeat(100_000);
    for (requests, longest) in [(&requests[..8], OK.len()), (&requests, MAX_UNREAD - 1)] {
        let mut port = connection(Kind::Port, &[requests], Ok(0));
        port.stream.room = 0;
        for _ in 0..100 {
            run(&mut port);
            port.hang_up();
        }
        assert!(port.stream.reads.is_empty());
        assert!(port.has_unread() && port.output.len() <= longest);

        port.forget_unread();
        port.stream.room = usize::MAX;
        port.stream.reads.push_back(b"next\n".to_vec());
        assert_eq!(run(&mut port).0, ["next"]);
        assert_eq!(written(&mut port), OK);
    }
}

#[test]
fn a_broken_stream_is_closed() {
    let broken = Err(ErrorKind::ConnectionReset.into());
    let mut connection = connection(Kind::Socket, &[b"one\n"], broken);
    assert_eq!(run(&mut connection), (vec!["one".into()], Next::Close));
}

#[test]
fn who_does_not_keep_up_with_the_stream_still_has_requests_done() {
    let mut connection = connection(Kind::Socket, &[b"one\n"], later());
    connection.stream.room = 0;
    let line = [b'x'; 100];
    let lines = (0..100_000).filter(|_| connection.stream_line(&line));
    let bytes = lines.count() * line.len();
    assert!((MAX_EVENTS_UNREAD..MAX_EVENTS_UNREAD + line.len()).contains(&bytes));
    assert_eq!(run(&mut connection).0, ["one"]);
    connection.stream.room = usize::MAX;
    run(&mut connection);
    assert!(written(&mut connection).ends_with(&format!("x{OK}")));
    assert!(connection.stream_line(&line));
}

#[test]
fn a_line_that_was_torn_does_not_spoil_the_next() {
    let mut port = connection(Kind::Port, &[b"one\n"], later());
    port.stream.room = 4;
    run(&mut port);
    for _ in 0..2 {
        port.forget_unread();
    }
    port.stream.room = usize::MAX;
    port.stream.reads.push_back(b"two\n".to_vec());
    run(&mut port);
    assert_eq!(written(&mut port), format!("{}\n{OK}", &OK[..4]));
    port.forget_unread();
    port.stream.reads.push_back(b"three\n".to_vec());
    run(&mut port);
    assert_eq!(written(&mut port), OK);
}
