// SPDX-License-Identifier: Apache-2.0 OR MIT

//! A device served to a client that says what a test wants it to say.

use std::fs::File;
use std::io::{IoSlice, pipe};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use lockstorm_device_model::abi::event::{EVENT_SIZE, PAYLOAD_SIZE};
use lockstorm_device_model::abi::identity::{MSIX_BAR, REGISTER_BAR};
use lockstorm_device_model::abi::registers::{CONTROL_RUN, Register};
use lockstorm_device_model::{Config, Injection};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use vmm_sys_util::tempdir::TempDir;

use super::*;
use crate::devices::evgen::{EvgenHost, Sink, Wiring};
use crate::machine::clock::Clock;
use crate::machine::events::Events;
use crate::machine::memory::Memory;
use crate::vfio_user::message::{Reader, Writer, command};
use crate::vfio_user::{EventfdSink, Eventfds};

#[path = "server_messages_test.rs"]
mod messages;

const NO_REPLY: u32 = 1 << 4;
const CONFIG: u32 = 7;
const MSIX: u32 = 2;
/// Where the guest has what is at the beginning of the file.
const GUEST: u64 = 0x8000_0000;
/// SET_IRQS: take eventfds back, give them, mask, unmask.
const TAKE: u32 = 0x21;
const GIVE: u32 = 0x24;
const MASK: u32 = 0x09;
const UNMASK: u32 = 0x11;

/// A served device.
struct Stand {
    host: EvgenHost,
    server: VfioUserServer,
    path: PathBuf,
    _folder: TempDir,
}

impl Stand {
    fn new() -> Self {
        let eventfds = Arc::new(Eventfds::new(Arc::default()));
        let sink = EventfdSink(Arc::clone(&eventfds));
        Self::with(Box::new(sink), Interrupts::Eventfds(eventfds))
    }

    /// One whose interrupts go that way.
    fn with(sink: Sink, interrupts: Interrupts) -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.as_path().join("evgen");
        let wiring = Wiring {
            sink,
            memory: Memory::default(),
            doorbells: None,
        };
        let (events, _) = Events::channel();
        let clock = Clock::new(Instant::now());
        let lost = Arc::default();
        let host = EvgenHost::start(lost, &clock, events).unwrap();
        let (_, device) = host.add(Config::default(), wiring).unwrap();
        let served = Served {
            socket: SocketFile::create("socket", &path).unwrap(),
            device,
            interrupts,
        };
        Self {
            host,
            server: VfioUserServer::start(vec![served], false).unwrap(),
            path,
            _folder: folder,
        }
    }

    /// A client that has said nothing.
    fn stranger(&self) -> Client {
        let stream = UnixStream::connect(&self.path).unwrap();
        let patience = Some(Duration::from_secs(10));
        stream.set_read_timeout(patience).unwrap();
        Client { stream, id: 0 }
    }

    /// A client that has agreed on the version.
    fn client(&self) -> Client {
        let mut client = self.stranger();
        client.call(command::VERSION, &version(0, ""), &[]).unwrap();
        client
    }

    fn inject(&self, ring: usize, count: u32) {
        let injection = Injection {
            ring,
            kind: 1,
            payload: [0x5a; PAYLOAD_SIZE],
            count,
            acknowledge: false,
        };
        self.host.inject(0, injection).unwrap();
    }
}

struct Client {
    stream: UnixStream,
    id: u16,
}

impl Client {
    fn send(&mut self, command: u16, flags: u32, body: &[u8], files: &[BorrowedFd]) {
        self.id += 1;
        let mut message = Writer::default();
        message.u16(self.id).u16(command);
        message.u32((16 + body.len()) as u32).u32(flags).u32(0);
        message.bytes(body);
        self.send_raw(&message.0, files);
    }

    fn send_raw(&self, bytes: &[u8], files: &[BorrowedFd]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(32))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(files)));
        }
        let slices = [IoSlice::new(bytes)];
        let sent = sendmsg(&self.stream, &slices, &mut control, SendFlags::NOSIGNAL);
        assert_eq!(sent.unwrap(), bytes.len());
    }

    /// The next reply: its command, and its body or error.
    fn receive(&self) -> (u16, Result<Vec<u8>, i32>) {
        let mut header = [0; 16];
        (&self.stream).read_exact(&mut header).unwrap();
        let mut fields = Reader(&header);
        let (id, command) = (fields.u16().unwrap(), fields.u16().unwrap());
        let (size, flags) = (fields.u32().unwrap(), fields.u32().unwrap());
        let error = fields.u32().unwrap().cast_signed();
        assert_eq!(id, self.id);
        let mut body = vec![0; size as usize - 16];
        (&self.stream).read_exact(&mut body).unwrap();
        match flags {
            1 => (command, Ok(body)),
            0x21 if body.is_empty() => (command, Err(error)),
            _ => panic!("reply with flags {flags:#x} and {} bytes", body.len()),
        }
    }

    fn call(&mut self, command: u16, body: &[u8], files: &[BorrowedFd]) -> Result<Vec<u8>, i32> {
        self.send(command, 0, body, files);
        let (answered, result) = self.receive();
        assert_eq!(answered, command);
        result
    }

    fn read(&mut self, region: u32, offset: u64, count: u32) -> Result<Vec<u8>, i32> {
        let head = access(region, offset, count);
        let reply = self.call(command::REGION_READ, &head, &[])?;
        assert_eq!(reply[..16], head);
        Ok(reply[16..].to_vec())
    }

    fn write(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<(), i32> {
        let body = [access(region, offset, data.len() as u32), data.to_vec()].concat();
        let reply = self.call(command::REGION_WRITE, &body, &[])?;
        assert_eq!(reply, body[..16]);
        Ok(())
    }

    fn register(&mut self, register: Register, ring: usize, value: u64, width: usize) {
        let (offset, value) = (register.offset(ring) as u64, value.to_le_bytes());
        self.write(REGISTER_BAR.into(), offset, &value[..width])
            .unwrap();
    }

    fn generated(&mut self, ring: usize) -> u64 {
        let offset = Register::RingGenerated.offset(ring) as u64;
        let value = self.read(REGISTER_BAR.into(), offset, 8).unwrap();
        u64::from_le_bytes(value.try_into().unwrap())
    }

    /// Lets the function send messages.
    fn open(&mut self) {
        self.write(CONFIG, 0x04, &[0b110, 0]).unwrap();
        self.write(CONFIG, 0x42, &[0, 0x80]).unwrap();
    }

    /// Whether the server has closed the connection, after all the replies.
    fn is_sent_away(&self) -> bool {
        let mut rest = Vec::new();
        match (&self.stream).read_to_end(&mut rest) {
            Ok(_) => true,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }
}

fn version(major: u16, text: &str) -> Vec<u8> {
    let mut body = Writer::default();
    body.u16(major).u16(0).bytes(text.as_bytes());
    if !text.is_empty() {
        body.bytes(&[0]);
    }
    body.0
}

fn access(region: u32, offset: u64, count: u32) -> Vec<u8> {
    let mut body = Writer::default();
    body.u64(offset).u32(region).u32(count);
    body.0
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn irqs(flags: u32, index: u32, start: u32, count: u32) -> Vec<u8> {
    words(&[20, flags, index, start, count])
}

fn map(flags: u32, offset: u64, address: u64, size: u64) -> Vec<u8> {
    let mut body = Writer::default();
    body.u32(32).u32(flags).u64(offset).u64(address).u64(size);
    body.0
}

fn unmap(flags: u32, address: u64, size: u64) -> Vec<u8> {
    let mut body = Writer::default();
    body.u32(24).u32(flags).u64(address).u64(size);
    body.0
}

fn memory(size: u64) -> File {
    let file = File::from(memfd_create("guest", MemfdFlags::CLOEXEC).unwrap());
    file.set_len(size).unwrap();
    file
}

fn new_eventfd() -> OwnedFd {
    eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap()
}

/// How often it was raised since the last look.
fn raised(eventfd: &OwnedFd) -> u64 {
    let mut count = [0; 8];
    match rustix::io::read(eventfd, &mut count) {
        Ok(_) => u64::from_ne_bytes(count),
        Err(_) => 0,
    }
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < Duration::from_secs(10), "no {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_client_learns_what_there_is() {
    let stand = Stand::new();
    let mut client = stand.stranger();
    let proposed = r#"{"capabilities":{"max_msg_fds":8,"pgsizes":4096,"write_multiple":true}}"#;
    let reply = client.call(command::VERSION, &version(0, proposed), &[]);
    let agreed = r#"{"capabilities":{"max_msg_fds":16,"pgsizes":4096}}"#;
    assert_eq!(reply, Ok(version(0, agreed)));
    let info = client.call(command::GET_INFO, &words(&[16, 0, 0, 0]), &[]);
    assert_eq!(info, Ok(words(&[16, 3, 9, 5])));
    for (index, size) in [(0, 0x2000), (1, 0), (2, 0x2000), (6, 0), (7, 256), (8, 0)] {
        let body = words(&[32, 0, index, 0, 0, 0, 0, 0]);
        let flags = if size > 0 { 3 } else { 0 };
        let expected = words(&[32, flags, index, 0, size, 0, 0, 0]);
        assert_eq!(
            client.call(command::GET_REGION_INFO, &body, &[]),
            Ok(expected)
        );
    }
    for (index, flags, count) in [(0, 0, 0), (1, 0, 0), (MSIX, 3, 5), (3, 0, 0), (4, 0, 0)] {
        let body = words(&[16, 0, index, 0]);
        let expected = words(&[16, flags, index, count]);
        assert_eq!(client.call(command::GET_IRQ_INFO, &body, &[]), Ok(expected));
    }
    assert_eq!(client.read(CONFIG, 0, 4), Ok(vec![0x34, 0x12, 0x56, 0x45]));
    assert_eq!(client.read(CONFIG, 0, 256).unwrap().len(), 256);
}

/// Whatever is refused, the next command is understood.
#[test]
fn what_cannot_be_done_is_refused_and_nothing_else_suffers() {
    let (einval, enosys) = (Err(libc::EINVAL), Err(libc::ENOSYS));
    let stand = Stand::new();
    let mut client = stand.client();
    let (file, eventfds) = (memory(0x4000), [new_eventfd(), new_eventfd()]);
    let file = [file.as_fd()];
    let eventfds = [eventfds[0].as_fd(), eventfds[1].as_fd()];
    let bar = u32::from(REGISTER_BAR);
    let write = |region, offset, count, data: &[u8]| {
        [access(region, offset, count), data.to_vec()].concat()
    };
    for (command, body, files, expected) in [
        (command::VERSION, version(0, ""), &[][..], &enosys),
        (0, vec![], &[], &enosys),
        // Migration, and what only servers may ask for.
        (16, words(&[8, 1 << 18 | 1]), &[], &enosys),
        (11, vec![0; 16], &[], &enosys),
        (999, vec![1; 4000], &file, &enosys),
        (command::GET_INFO, vec![], &[], &einval),
        (
            command::GET_REGION_INFO,
            words(&[32, 0, 9, 0, 0, 0, 0, 0]),
            &[],
            &einval,
        ),
        (command::GET_REGION_INFO, words(&[32]), &[], &einval),
        (command::GET_IRQ_INFO, words(&[16, 0, 5, 0]), &[], &einval),
        (
            command::REGION_READ,
            access(bar, 0, 8)[..12].to_vec(),
            &[],
            &einval,
        ),
        (command::REGION_READ, access(bar, 0x1ffc, 8), &[], &einval),
        (command::REGION_READ, access(bar, u64::MAX, 8), &[], &einval),
        (command::REGION_READ, access(bar, 0, u32::MAX), &[], &einval),
        (command::REGION_READ, access(bar, 0, 4097), &[], &einval),
        (command::REGION_READ, access(1, 0, 4), &[], &einval),
        (command::REGION_READ, access(u32::MAX, 0, 4), &[], &einval),
        (command::REGION_READ, access(CONFIG, 253, 4), &[], &einval),
        (
            command::REGION_WRITE,
            write(bar, 0, 4, &[0; 3]),
            &[],
            &einval,
        ),
        (
            command::REGION_WRITE,
            write(bar, 0, 4, &[0; 5]),
            &[],
            &einval,
        ),
        (
            command::REGION_WRITE,
            write(bar, 0x1fff, 2, &[0; 2]),
            &[],
            &einval,
        ),
        (
            command::SET_IRQS,
            irqs(GIVE, 9, 0, 1),
            &eventfds[..1],
            &einval,
        ),
        (
            command::SET_IRQS,
            irqs(GIVE, 0, 0, 1),
            &eventfds[..1],
            &einval,
        ),
        (
            command::SET_IRQS,
            irqs(GIVE, MSIX, 5, 1),
            &eventfds[..1],
            &einval,
        ),
        (
            command::SET_IRQS,
            irqs(GIVE, MSIX, u32::MAX, 1),
            &eventfds[..1],
            &einval,
        ),
        (
            command::SET_IRQS,
            irqs(GIVE, MSIX, 0, 1),
            &eventfds,
            &einval,
        ),
        (command::SET_IRQS, irqs(GIVE, MSIX, 0, 1), &file, &einval),
        (command::SET_IRQS, irqs(0, MSIX, 0, 1), &[], &einval),
        (command::SET_IRQS, irqs(u32::MAX, MSIX, 0, 1), &[], &einval),
        (
            command::SET_IRQS,
            irqs(GIVE, MSIX, 0, 0)[..16].to_vec(),
            &[],
            &einval,
        ),
        (command::DMA_MAP, map(3, 0, 0, 0x1000), &eventfds, &einval),
        (command::DMA_MAP, map(3, 0, 0, 0), &file, &einval),
        (command::DMA_MAP, map(3, 0, 1, 0x1000), &file, &einval),
        (command::DMA_MAP, map(3, 0x800, 0, 0x1000), &file, &einval),
        (
            command::DMA_MAP,
            map(3, 0, u64::MAX - 0xfff, 0x2000),
            &file,
            &einval,
        ),
        (command::DMA_MAP, map(3, 0x1000, 0, 0x4000), &file, &einval),
        (
            command::DMA_MAP,
            map(3, u64::MAX - 0xfff, 0, 0x1000),
            &file,
            &einval,
        ),
        (
            command::DMA_MAP,
            map(3, 0, 0, 1 << 41),
            &file,
            &Err(libc::ENOSPC),
        ),
        (
            command::DMA_MAP,
            map(3, 0, 0, 0x1000),
            &eventfds[..1],
            &Err(libc::EOPNOTSUPP),
        ),
        (command::DMA_UNMAP, unmap(0, 0, 0), &[], &einval),
    ] {
        let result = client.call(command, &body, files);
        assert_eq!(&result, expected, "command {command}: {body:x?}");
        let info = client.call(command::GET_INFO, &words(&[16, 0, 0, 0]), &[]);
        assert!(info.is_ok(), "command {command}: {body:x?}");
    }
}

#[test]
fn who_breaks_the_protocol_is_sent_away_and_the_next_is_served() {
    let stand = Stand::new();
    let raw = |command: u16, size: u32, flags: u32| {
        let mut header = Writer::default();
        header.u16(1).u16(command).u32(size).u32(flags).u32(0);
        header.0
    };
    let files: Vec<_> = (0..17).map(|_| new_eventfd()).collect();
    let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    for (agreed, message, files, what) in [
        (false, raw(command::GET_INFO, 16, 0), &[][..], "no version"),
        (
            false,
            [raw(command::VERSION, 20, 0), version(1, "")].concat(),
            &[],
            "version 1",
        ),
        (true, raw(command::RESET, 15, 0), &[], "too small"),
        (true, raw(command::RESET, 4129, 0), &[], "too large"),
        (true, raw(command::RESET, u32::MAX, 0), &[], "far too large"),
        (true, raw(command::RESET, 16, 1), &[], "a reply"),
        (true, raw(command::DMA_WRITE, 16, 1), &[], "an answer"),
        (true, raw(command::RESET, 16, 0), &files, "too many files"),
    ] {
        let client = if agreed {
            stand.client()
        } else {
            stand.stranger()
        };
        client.send_raw(&message, files);
        assert!(client.is_sent_away(), "{what}");
    }
    // In the middle of a header, and of a body.
    for length in [7, 30] {
        let client = stand.client();
        client.send_raw(
            &[raw(command::DMA_MAP, 48, 0), vec![0; 32]].concat()[..length],
            &[],
        );
        client.stream.shutdown(Shutdown::Write).unwrap();
        assert!(client.is_sent_away());
    }
    for text in ["{", "[]", "{\"capabilities\":7}", &"[".repeat(4000)] {
        let mut client = stand.stranger();
        let result = client.call(command::VERSION, &version(0, text), &[]);
        assert_eq!(result, Err(libc::EINVAL), "{text}");
        // It may try again.
        assert!(
            client
                .call(command::VERSION, &version(0, "{}"), &[])
                .is_ok()
        );
    }
}

#[test]
fn a_second_client_is_told_that_the_device_is_busy() {
    let stand = Stand::new();
    let mut first = stand.client();
    let mut second = stand.stranger();
    let refused = second.call(command::VERSION, &version(0, ""), &[]);
    assert_eq!(refused, Err(libc::EBUSY));
    assert!(second.is_sent_away());
    // One that says nothing holds nobody up.
    let silent = stand.stranger();
    assert!(silent.is_sent_away());
    assert_eq!(first.generated(0), 0);
    drop(first);
    stand.client();
}

#[test]
fn posted_writes_are_done_before_the_next_read() {
    let stand = Stand::new();
    let mut client = stand.client();
    let offset = Register::Doorbell.offset(1) as u64;
    let ring = [access(REGISTER_BAR.into(), offset, 4), vec![1, 0, 0, 0]].concat();
    for _ in 0..200 {
        client.send(command::REGION_WRITE, NO_REPLY, &ring, &[]);
    }
    // What is not wanted is not told, even if it cannot be done.
    client.send(command::SET_IRQS, NO_REPLY, &[], &[]);
    client.send(999, NO_REPLY, &[], &[]);
    assert_eq!(client.generated(1), 200);
}

#[test]
fn regions_of_memory_do_not_overlap_and_go_as_a_whole() {
    let stand = Stand::new();
    let mut client = stand.client();
    let file = memory(0x10_0000);
    let file = [file.as_fd()];
    let mut lend = |flags, address, size, files: &[BorrowedFd]| {
        client.call(command::DMA_MAP, &map(flags, 0, address, size), files)
    };
    assert_eq!(lend(3, 0x10_0000, 0x4000, &file), Ok(vec![]));
    // Without a file, or for reading only: known all the same.
    assert_eq!(lend(3, 0x20_0000, 0x4000, &[]), Ok(vec![]));
    assert_eq!(lend(1, 0x30_0000, 0x4000, &file), Ok(vec![]));
    assert_eq!(lend(3, u64::MAX - 0xfff, 0x1000, &[]), Ok(vec![]));
    for address in [0x10_0000, 0x20_0000, 0x30_0000] {
        for (start, size) in [
            (address, 0x4000),
            (address + 0x1000, 0x1000),
            (address - 0x1000, 0x2000),
            (address + 0x3000, 0x2000),
            (address - 0x1000, 0x8000),
        ] {
            assert_eq!(lend(3, start, size, &file), Err(libc::EEXIST), "{start:#x}");
        }
    }
    assert_eq!(lend(3, 0x10_4000, 0x1000, &file), Ok(vec![]));
    let mut unlend =
        |flags, address, size| client.call(command::DMA_UNMAP, &unmap(flags, address, size), &[]);
    // A part of a region, alone or with others.
    for (address, size) in [
        (0x10_0000, 0x1000),
        (0x10_1000, 0x3000),
        (0xf_f000, 0x2000),
        (0x10_0000, 0x4800),
        (0x10_2000, 0x20_0000),
        (0x10_0000, 0),
        (0x10_0000, u64::MAX),
    ] {
        assert_eq!(unlend(0, address, size), Err(libc::EINVAL), "{address:#x}");
    }
    // One, two, none.
    for (address, size) in [
        (0x30_0000, 0x4000),
        (0x10_0000, 0x5000),
        (0x10_0000, 0x5000),
        (0, 0x20_0000),
    ] {
        assert_eq!(unlend(0, address, size), Ok(unmap(0, address, size)));
    }
    assert_eq!(
        client.call(command::DMA_MAP, &map(3, 0, 0x10_0000, 0x5000), &file),
        Ok(vec![])
    );
    let still = client.call(command::DMA_MAP, &map(3, 0, 0x20_0000, 0x1000), &file);
    assert_eq!(still, Err(libc::EEXIST));
    assert!(
        client
            .call(command::DMA_UNMAP, &unmap(2, 0, 0), &[])
            .is_ok()
    );
    // There is a limit, and after all are taken back there is room again.
    for _ in 0..2 {
        for number in 0..1025 {
            let body = map(3, 0, number * 0x2000, 0x1000);
            let expected = if number < 1024 {
                Ok(vec![])
            } else {
                Err(libc::ENOSPC)
            };
            assert_eq!(client.call(command::DMA_MAP, &body, &file), expected);
        }
        client
            .call(command::DMA_UNMAP, &unmap(2, 0, 0), &[])
            .unwrap();
    }
}

#[test]
fn files_that_are_refused_are_closed() {
    let stand = Stand::new();
    let mut client = stand.client();
    for (command, body) in [
        (command::DMA_MAP, map(3, 0, 0, 0x1000)),
        (command::SET_IRQS, irqs(GIVE, MSIX, 0, 1)),
        (command::GET_INFO, words(&[16, 0, 0, 0])),
        (999, vec![]),
    ] {
        let (mut reader, writer) = pipe().unwrap();
        let _ = client.call(command, &body, &[writer.as_fd()]);
        drop(writer);
        assert_eq!(reader.read(&mut [0]).unwrap(), 0, "command {command}");
    }
}

#[test]
fn interrupts_pend_until_the_client_wants_them() {
    let stand = Stand::new();
    let mut client = stand.client();
    client.open();
    let (eventfd, other) = (new_eventfd(), new_eventfd());
    let pending = |client: &mut Client| {
        let offset = 0x1000;
        client.read(MSIX_BAR.into(), offset, 8).unwrap()[0]
    };
    let spurious = || {
        let fault = lockstorm_device_model::Fault::SpuriousInterrupt;
        stand.host.inject_fault(0, 1, fault, 1).unwrap();
    };
    let set = |client: &mut Client, flags, start, count, files: &[BorrowedFd]| {
        let body = irqs(flags, MSIX, start, count);
        client.call(command::SET_IRQS, &body, files).unwrap();
    };
    // No eventfd is as good as a mask.
    spurious();
    assert_eq!(pending(&mut client), 0b10);
    set(&mut client, GIVE, 0, 2, &[other.as_fd(), eventfd.as_fd()]);
    assert_eq!((raised(&eventfd), raised(&other)), (1, 0));
    assert_eq!(pending(&mut client), 0);
    spurious();
    assert_eq!(raised(&eventfd), 1);

    set(&mut client, MASK, 1, 1, &[]);
    spurious();
    spurious();
    assert_eq!((raised(&eventfd), pending(&mut client)), (0, 0b10));
    set(&mut client, UNMASK, 1, 1, &[]);
    assert_eq!((raised(&eventfd), pending(&mut client)), (1, 0));

    // Another eventfd in its place; then none; then all taken back.
    set(&mut client, GIVE, 1, 1, &[other.as_fd()]);
    spurious();
    assert_eq!((raised(&eventfd), raised(&other)), (0, 1));
    set(&mut client, GIVE, 1, 1, &[]);
    spurious();
    assert_eq!((raised(&other), pending(&mut client)), (0, 0b10));
    set(&mut client, GIVE, 1, 1, &[eventfd.as_fd()]);
    assert_eq!(raised(&eventfd), 1);
    // The client's own, which the device has no part in.
    set(&mut client, TAKE, 1, 1, &[]);
    assert_eq!(raised(&eventfd), 1);
    set(&mut client, TAKE, 0, 0, &[]);
    spurious();
    assert_eq!((raised(&eventfd), pending(&mut client)), (0, 0b10));
    assert_eq!(stand.host.interrupts_lost(), 0);
}

/// A driver in a few lines: ring 0 with two buffers, in memory that the client has lent.
fn turn_on(client: &mut Client, file: &File) {
    use std::os::unix::fs::FileExt;
    file.set_len(0x10_0000).unwrap();
    for index in 0..2_u64 {
        let mut descriptor = [0; 16];
        descriptor[..8]
            .copy_from_slice(&(GUEST + 0x3000 + index * EVENT_SIZE as u64).to_le_bytes());
        descriptor[8..14].copy_from_slice(&[EVENT_SIZE as u8, 0, 0, 0, 2, 0]);
        file.write_all_at(&descriptor, index * 16).unwrap();
    }
    file.write_all_at(&[0, 0, 2, 0, 0, 0, 1, 0], 0x1000)
        .unwrap();
    let lent = client.call(
        command::DMA_MAP,
        &map(3, 0, GUEST, 0x10_0000),
        &[file.as_fd()],
    );
    lent.unwrap();
    client.open();
    client.register(Register::RingSize, 0, 2, 4);
    for (register, offset) in [
        (Register::RingDescriptors, 0),
        (Register::RingAvailable, 0x1000),
        (Register::RingUsed, 0x2000),
    ] {
        client.register(register, 0, GUEST + offset, 8);
    }
    client.register(Register::RingEnable, 0, 1, 4);
    client.register(Register::Control, 0, CONTROL_RUN.into(), 4);
}

fn used_index(file: &File) -> u16 {
    use std::os::unix::fs::FileExt;
    let mut index = [0; 2];
    file.read_exact_at(&mut index, 0x2002).unwrap();
    u16::from_le_bytes(index)
}

#[test]
fn events_reach_the_memory_that_is_lent_and_no_other() {
    let stand = Stand::new();
    let mut client = stand.client();
    let (file, eventfd) = (memory(0), new_eventfd());
    turn_on(&mut client, &file);
    let give = irqs(GIVE, MSIX, 0, 1);
    client
        .call(command::SET_IRQS, &give, &[eventfd.as_fd()])
        .unwrap();
    stand.inject(0, 1);
    assert_eq!((used_index(&file), raised(&eventfd)), (1, 1));
    client
        .call(command::DMA_UNMAP, &unmap(2, 0, 0), &[])
        .unwrap();
    stand.inject(0, 1);
    assert_eq!(used_index(&file), 1);
    let state = Register::RingState.offset(0) as u64;
    let state = client.read(REGISTER_BAR.into(), state, 4).unwrap();
    assert_eq!(state, [2, 0, 0, 0], "the ring is in error");
}

#[test]
fn memory_that_the_client_truncates_hurts_nobody() {
    let stand = Stand::new();
    let mut client = stand.client();
    let file = memory(0);
    turn_on(&mut client, &file);
    file.set_len(0).unwrap();
    // In this thread, in the one of the client, and in the one of storms.
    stand.inject(0, 2);
    let offset = Register::Doorbell.offset(0) as u64;
    client.write(REGISTER_BAR.into(), offset, &[0; 4]).unwrap();
    assert_eq!(client.generated(0), 3);
    let storm = "[[phase]]\npattern = 'periodic'\nrate = 10_000\nduration_ms = 3_600_000";
    let storm = lockstorm_device_model::Storm::from_toml(storm).unwrap();
    stand.host.start_storm(&storm, None).unwrap();
    wait_until("storm", || {
        stand.host.figures()[0].stats.rings[0].generated > 10
    });
    // The next one finds everything as it should be.
    drop(client);
    let mut client = stand.client();
    turn_on(&mut client, &file);
    stand.inject(0, 1);
    assert_eq!(used_index(&file), 1);
}

#[test]
fn a_client_that_dies_leaves_a_device_as_at_power_on() {
    let stand = Stand::new();
    let mut client = stand.client();
    let (file, eventfd) = (memory(0), new_eventfd());
    turn_on(&mut client, &file);
    let give = irqs(GIVE, MSIX, 0, 1);
    client
        .call(command::SET_IRQS, &give, &[eventfd.as_fd()])
        .unwrap();
    let storm = "[[phase]]\npattern = 'periodic'\nrate = 10_000\nduration_ms = 3_600_000";
    let storm = lockstorm_device_model::Storm::from_toml(storm).unwrap();
    stand.host.start_storm(&storm, None).unwrap();
    wait_until("storm", || used_index(&file) == 2);
    drop(client);
    let running = || stand.host.figures()[0].stats.storm.unwrap().running;
    wait_until("end of the storm", || !running());
    // What was counted can still be asked for.
    let counted = stand.host.figures()[0].stats.rings[0];
    assert!(counted.delivered >= 2, "{counted:?}");

    let mut client = stand.client();
    assert_eq!(client.read(CONFIG, 0x04, 2), Ok(vec![0, 0]));
    assert_eq!(client.read(CONFIG, 0x42, 2), Ok(vec![4, 0]));
    assert_eq!(client.generated(0), 0);
    raised(&eventfd);
    client.open();
    stand.inject(0, 1);
    assert_eq!((used_index(&file), raised(&eventfd)), (2, 0));
}

#[test]
fn a_reset_is_one_of_the_device_and_not_of_the_client() {
    let stand = Stand::new();
    let mut client = stand.client();
    let file = memory(0);
    turn_on(&mut client, &file);
    stand.inject(0, 1);
    client.call(command::RESET, &[], &[]).unwrap();
    assert_eq!(client.read(CONFIG, 0x04, 2), Ok(vec![0, 0]));
    assert_eq!(client.generated(0), 0);
    // What it has lent it has still lent.
    let again = map(3, 0, GUEST, 0x1000);
    let again = client.call(command::DMA_MAP, &again, &[file.as_fd()]);
    assert_eq!(again, Err(libc::EEXIST));
}

#[test]
fn the_end_sends_clients_away() {
    let stand = Stand::new();
    let (client, path) = (stand.client(), stand.path.clone());
    let Stand { server, .. } = stand;
    drop(server);
    assert!(client.is_sent_away());
    assert!(!path.exists());
}
