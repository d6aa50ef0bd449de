// SPDX-License-Identifier: Apache-2.0 OR MIT

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{PipeReader, PipeWriter, Read, pipe};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use arbitrary::{Arbitrary, Unstructured};
use lockstorm::devices::evgen::{EvgenFunction, EvgenHost, Wiring};
use lockstorm::machine::clock::Clock;
use lockstorm::machine::events::Events;
use lockstorm::machine::lent_memory::survive_loss;
use lockstorm::machine::memory::Memory;
use lockstorm::vfio_user::{
    Broken, EventfdSink, Eventfds, HEADER_SIZE, Header, Interrupts, MAX_MESSAGE, MessageSink,
    Messages, Session,
};
use lockstorm_device_model::abi::event::PAYLOAD_SIZE;
use lockstorm_device_model::abi::identity::{MSIX_BAR, REGISTER_BAR};
use lockstorm_device_model::abi::registers::{CONTROL_RUN, Register};
use lockstorm_device_model::{Config, Fault, Injection, MsiSink};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, memfd_create};

use crate::device::steps;

const VERSION: u16 = 1;
const DMA_MAP: u16 = 2;
const DMA_UNMAP: u16 = 3;
const GET_INFO: u16 = 4;
const SET_IRQS: u16 = 8;
const REGION_READ: u16 = 9;
const REGION_WRITE: u16 = 10;
const DMA_WRITE: u16 = 12;
const RESET: u16 = 13;
const CONFIG_REGION: u32 = 7;
const MSIX_IRQ: u32 = 2;
const EEXIST: u32 = 17;

/// Interrupts by message that a client may leave unanswered.
const UNANSWERED_MAX: usize = 16;
const FILES: usize = 2;
const PAGE: u64 = 0x1000;
const PAGES: usize = 16;
/// What a page holds that the device has not written to.
const UNTOUCHED: u8 = 0xa5;

/// What a client sends along.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Along {
    Nothing,
    Memory(u8),
    Eventfd { blocks: bool, full: bool },
    Pipe,
    Many(u8),
}

/// Something that a client or the host does.
#[derive(Arbitrary, Debug)]
enum Step {
    /// Any bytes.
    Raw {
        header: [u8; HEADER_SIZE],
        body: Vec<u8>,
        along: Along,
    },
    /// Any command, of the right size.
    Command {
        command: u8,
        no_reply: bool,
        body: Vec<u8>,
        along: Along,
    },
    /// By pages, or nearly so.
    Map {
        flags: u8,
        offset: u8,
        address: u8,
        pages: u8,
        odd: u64,
        along: Along,
    },
    Unmap {
        flags: u8,
        address: u8,
        pages: u8,
        odd: u64,
    },
    SetIrqs {
        flags: u8,
        index: u8,
        start: u8,
        count: u8,
        along: Along,
    },
    Read {
        region: u8,
        offset: u16,
        count: u16,
    },
    Write {
        region: u8,
        offset: u16,
        data: Vec<u8>,
    },
    /// The client lends a file as a whole, and the driver has ring 0 in it.
    Begin {
        file: u8,
    },
    Reset,
    /// The client changes the size of what it has lent.
    Truncate {
        file: u8,
        pages: u8,
    },
    Inject {
        ring: u8,
        count: u8,
    },
    Interrupt {
        ring: u8,
    },
    /// It goes, and another comes.
    NextClient,
}

/// Something that a client does which is sent interrupts by message, or the host to it.
#[derive(Arbitrary, Debug)]
enum MessageStep {
    Any(Step),
    /// The guest gives a vector a message, or masks it.
    Vector {
        vector: u8,
        address: u64,
        masked: bool,
    },
    /// Interrupts, of which some may be on their way.
    Interrupts {
        ring: u8,
        count: u8,
    },
    /// The client reads what it is sent.
    Listen,
    /// The client answers, whether it was asked or not.
    Answer {
        body: Vec<u8>,
        refuses: bool,
    },
}

/// A served device, its client, and what is known of the two.
struct Stand {
    host: EvgenHost,
    device: Arc<EvgenFunction>,
    interrupts: Interrupts,
    session: Option<Session>,
    /// Interrupts that the client was sent and has not answered.
    unanswered: usize,
    name: String,
    files: [File; FILES],
    /// By file and page: whether the device may have written there.
    touched: [[bool; PAGES]; FILES],
    /// Of each region the client knows: size by address.
    regions: BTreeMap<u64, u64>,
    pipes: Vec<PipeReader>,
}

/// A client of the vfio-user server: each message has one reply that is well formed, or none; memory
/// is written to only where it is lent; and what the client sent along is closed in the end.
pub fn vfio_user(data: &[u8]) {
    survive_loss().unwrap();
    let mut plan = Unstructured::new(data);
    if plan.arbitrary().unwrap_or(false) {
        let messages = Arc::<Messages>::default();
        let sink = MessageSink(Arc::clone(&messages));
        let mut stand = Stand::new(Box::new(sink), Interrupts::Messages(messages));
        for step in steps::<MessageStep>(&mut plan) {
            stand.take_with_messages(step);
        }
        stand.end();
    } else {
        let eventfds = Arc::new(Eventfds::new(Arc::default()));
        let sink = EventfdSink(Arc::clone(&eventfds));
        let mut stand = Stand::new(Box::new(sink), Interrupts::Eventfds(eventfds));
        for step in steps::<Step>(&mut plan) {
            stand.take(step);
        }
        stand.end();
    }
}

impl Stand {
    fn new(sink: Box<dyn MsiSink + Send>, interrupts: Interrupts) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("lent-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let files = [(); FILES].map(|()| {
            let file = File::from(memfd_create(&name, MemfdFlags::CLOEXEC).unwrap());
            let whole = vec![UNTOUCHED; PAGES * PAGE as usize];
            file.write_all_at(&whole, 0).unwrap();
            file
        });
        let wiring = Wiring {
            sink,
            memory: Memory::default(),
            doorbells: None,
        };
        let (events, _) = Events::channel();
        let clock = Clock::new(Instant::now());
        let host = EvgenHost::start(Arc::default(), &clock, events).unwrap();
        let (_, device) = host.add(Config::default(), wiring).unwrap();
        let mut stand = Self {
            host,
            device,
            interrupts,
            session: None,
            unanswered: 0,
            name,
            files,
            touched: [[false; PAGES]; FILES],
            regions: BTreeMap::new(),
            pipes: Vec::new(),
        };
        stand.next_client();
        stand
    }

    fn next_client(&mut self) {
        // First the one goes, then the other comes.
        self.session = None;
        self.regions.clear();
        self.unanswered = 0;
        let device = Arc::clone(&self.device);
        self.session = Some(Session::begin(device, self.interrupts.clone()));
        if let Interrupts::Messages(messages) = &self.interrupts {
            messages.close();
            messages.open();
        }
        self.ask(VERSION, &[0; 4], Along::Nothing).unwrap();
    }

    fn take_with_messages(&mut self, step: MessageStep) {
        match step {
            MessageStep::Any(step) => self.take(step),
            MessageStep::Vector {
                vector,
                address,
                masked,
            } => {
                let place = u64::from(vector % 10) * 16;
                let entry = [address, u64::from(masked) << 32].map(u64::to_le_bytes);
                for (offset, half) in (place..).step_by(8).zip(entry) {
                    let body = [access(MSIX_BAR.into(), offset, 8), half.to_vec()].concat();
                    self.ask(REGION_WRITE, &body, Along::Nothing).unwrap();
                }
            }
            MessageStep::Interrupts { ring, count } => {
                let fault = Fault::SpuriousInterrupt;
                let _ = self.host.inject_fault(0, ring.into(), fault, count.into());
            }
            MessageStep::Listen => self.listen(),
            MessageStep::Answer { body, refuses } => {
                let flags = 1 | u32::from(refuses) << 5;
                let body = &body[..body.len().min(MAX_MESSAGE - HEADER_SIZE)];
                self.send(&header(DMA_WRITE, body.len(), flags), body, Along::Nothing);
            }
        }
    }

    /// What is sent are writes of four bytes, and no more of them than may be unanswered.
    fn listen(&mut self) {
        let Interrupts::Messages(messages) = &self.interrupts else {
            return;
        };
        while let Some(message) = messages.next_now() {
            self.unanswered += 1;
            assert!(self.unanswered <= UNANSWERED_MAX);
            assert_eq!(message.len(), 36);
            let header = Header::parse(&message[..HEADER_SIZE].try_into().unwrap());
            assert!(header.command == DMA_WRITE && header.wants_reply() && !header.answers());
            assert_eq!(header.body(), Some(20));
            assert_eq!(message[24..32], 4_u64.to_ne_bytes());
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Raw {
                header,
                body,
                along,
            } => {
                let header = Header::parse(&header);
                let Some(size) = header.body() else {
                    return;
                };
                assert!(size <= MAX_MESSAGE);
                let mut whole = body;
                whole.resize(size, 0);
                self.send(&header, &whole, along);
            }
            Step::Command {
                command,
                no_reply,
                body,
                along,
            } => {
                let flags = u32::from(no_reply) << 4;
                let body = &body[..body.len().min(MAX_MESSAGE - HEADER_SIZE)];
                self.send(&header(command.into(), body.len(), flags), body, along);
            }
            Step::Map {
                flags,
                offset,
                address,
                pages,
                odd,
                along,
            } => {
                let place = [
                    u64::from(offset % 20),
                    address.into(),
                    u64::from(pages % 20),
                ];
                let [offset, address, size] = place.map(|page| page * PAGE);
                let address = address.wrapping_add(odd_or_nothing(odd));
                self.map(flags % 5, offset, address, size, along);
            }
            Step::Unmap {
                flags,
                address,
                pages,
                odd,
            } => {
                let address = (u64::from(address) * PAGE).wrapping_add(odd_or_nothing(odd));
                self.unmap(flags % 8 == 7, address, u64::from(pages % 20) * PAGE);
            }
            Step::SetIrqs {
                flags,
                index,
                start,
                count,
                along,
            } => {
                let kinds = [0x21, 0x24, 0x09, 0x11, 0x22, 0, u32::MAX];
                let flags = kinds[usize::from(flags) % kinds.len()];
                let index = if index < 0xf0 { MSIX_IRQ } else { index.into() };
                let body = words(&[20, flags, index, (start % 8).into(), (count % 8).into()]);
                let _ = self.ask(SET_IRQS, &body, along);
            }
            Step::Read {
                region,
                offset,
                count,
            } => {
                let body = access(region.into(), offset.into(), count.into());
                if let Ok(reply) = self.ask(REGION_READ, &body, Along::Nothing) {
                    assert_eq!(reply.len(), 16 + usize::from(count));
                }
            }
            Step::Write {
                region,
                offset,
                data,
            } => {
                let data = &data[..data.len().min(5000)];
                let body = access(region.into(), offset.into(), data.len() as u32);
                let body = [body, data.to_vec()].concat();
                if body.len() <= MAX_MESSAGE - HEADER_SIZE {
                    let _ = self.ask(REGION_WRITE, &body, Along::Nothing);
                }
            }
            Step::Begin { file } => self.begin(usize::from(file) % FILES),
            Step::Reset => {
                self.ask(RESET, &[], Along::Nothing).unwrap();
            }
            Step::Truncate { file, pages } => {
                let (file, pages) = (usize::from(file) % FILES, usize::from(pages) % PAGES);
                self.files[file].set_len(pages as u64 * PAGE).unwrap();
                // What is cut off comes back as zeros.
                self.touched[file][pages..].fill(true);
            }
            Step::Inject { ring, count } => {
                let injection = Injection {
                    ring: ring.into(),
                    kind: 0,
                    payload: [0; PAYLOAD_SIZE],
                    count: count.into(),
                    acknowledge: false,
                };
                let _ = self.host.inject(0, injection);
            }
            Step::Interrupt { ring } => {
                let fault = Fault::SpuriousInterrupt;
                let _ = self.host.inject_fault(0, ring.into(), fault, 1);
            }
            Step::NextClient => self.next_client(),
        }
        // Whatever it was, the next command is understood.
        self.ask(GET_INFO, &words(&[16, 0, 0, 0]), Along::Nothing)
            .unwrap();
    }

    fn map(&mut self, flags: u8, offset: u64, address: u64, size: u64, along: Along) {
        let mut body = words(&[32, flags.into()]);
        for field in [offset, address, size] {
            body.extend(field.to_ne_bytes());
        }
        let overlaps = self.regions.iter().any(|(&start, &known)| {
            let apart = start.checked_sub(address).is_some_and(|gap| gap >= size)
                || address.checked_sub(start).is_some_and(|gap| gap >= known);
            size > 0 && !apart
        });
        match self.ask(DMA_MAP, &body, along) {
            Ok(_) => {
                assert!(size > 0 && !overlaps, "{size:#x} at {address:#x}");
                self.regions.insert(address, size);
                if let Along::Memory(file) = along {
                    let first = (offset / PAGE) as usize;
                    let pages = (size / PAGE) as usize;
                    let file = &mut self.touched[usize::from(file) % FILES];
                    file.iter_mut()
                        .skip(first)
                        .take(pages)
                        .for_each(|page| *page = true);
                }
            }
            Err(EEXIST) => assert!(overlaps, "{size:#x} at {address:#x}"),
            Err(_) => {}
        }
    }

    fn unmap(&mut self, all: bool, address: u64, size: u64) {
        let mut body = words(&[24, u32::from(all) << 1]);
        for field in [address, size] {
            body.extend(field.to_ne_bytes());
        }
        let range = u128::from(address)..u128::from(address) + u128::from(size);
        let of =
            |start: &u64, size: &u64| u128::from(*start)..u128::from(*start) + u128::from(*size);
        let inside = |region: &Range<u128>| range.start <= region.start && region.end <= range.end;
        let outside = |region: &Range<u128>| region.end <= range.start || range.end <= region.start;
        let whole = self
            .regions
            .iter()
            .map(|(start, size)| of(start, size))
            .all(|region| inside(&region) || outside(&region));
        let valid = size > 0 && range.end <= 1 << 64;
        let done = self.ask(DMA_UNMAP, &body, Along::Nothing).is_ok();
        assert_eq!(done, all || valid && whole, "{size:#x} at {address:#x}");
        if all {
            self.regions.clear();
        } else if done {
            self.regions.retain(|start, size| !inside(&of(start, size)));
        }
    }

    fn begin(&mut self, number: usize) {
        let address = 0x100 * PAGE * (number as u64 + 1);
        self.map(
            3,
            0,
            address,
            PAGES as u64 * PAGE,
            Along::Memory(number as u8),
        );
        let file = &self.files[number];
        let buffer = address + 3 * PAGE;
        let descriptor = [&buffer.to_le_bytes()[..], &[64, 0, 0, 0, 2, 0, 0, 0]].concat();
        file.write_all_at(&[&descriptor[..], &descriptor].concat(), 0)
            .unwrap();
        file.write_all_at(&[0, 0, 2, 0, 0, 0, 1, 0], PAGE).unwrap();
        self.touched[number] = [true; PAGES];
        let mut write = |region: u32, offset: u64, data: &[u8]| {
            let body = [access(region, offset, data.len() as u32), data.to_vec()].concat();
            self.ask(REGION_WRITE, &body, Along::Nothing).unwrap();
        };
        write(CONFIG_REGION, 0x04, &[0b110, 0]);
        write(CONFIG_REGION, 0x42, &[0, 0x80]);
        for (register, value, width) in [
            (Register::RingSize, 2, 4),
            (Register::RingDescriptors, address, 8),
            (Register::RingAvailable, address + PAGE, 8),
            (Register::RingUsed, address + 2 * PAGE, 8),
            (Register::RingEnable, 1, 4),
            (Register::Control, CONTROL_RUN.into(), 4),
        ] {
            let (offset, value) = (register.offset(0) as u64, value.to_le_bytes());
            write(REGISTER_BAR.into(), offset, &value[..width]);
        }
    }

    fn ask(&mut self, command: u16, body: &[u8], along: Along) -> Result<Vec<u8>, u32> {
        let reply = self.send(&header(command, body.len(), 0), body, along);
        reply.expect("a reply, as it was wanted")
    }

    /// Hands the session a message; gives the reply's body or error, if there is one.
    fn send(&mut self, header: &Header, body: &[u8], along: Along) -> Option<Result<Vec<u8>, u32>> {
        let files = self.files_of(along);
        let session = self.session.as_mut().unwrap();
        // What breaks a connection is a first message that is wrong, and the first was right; and an
        // answer to nothing.
        if header.answers() {
            let taken = session.take(header, body, files);
            if let Some(fewer) = self.unanswered.checked_sub(1) {
                assert_eq!(taken, Ok(None));
                self.unanswered = fewer;
            } else {
                assert_eq!(taken, Err(Broken::Unasked));
                self.next_client();
            }
            return None;
        }
        let reply = session.take(header, body, files).unwrap();
        assert_eq!(reply.is_some(), header.wants_reply());
        let reply = reply?;
        assert!((HEADER_SIZE..=MAX_MESSAGE).contains(&reply.len()));
        assert_eq!(reply[..2], header.id.to_ne_bytes());
        assert_eq!(reply[2..4], header.command.to_ne_bytes());
        let field = |at: usize| u32::from_ne_bytes(reply[at..at + 4].try_into().unwrap());
        assert_eq!(field(4) as usize, reply.len());
        match field(8) {
            1 => Some(Ok(reply[HEADER_SIZE..].to_vec())),
            0x21 => {
                assert!(reply.len() == HEADER_SIZE && (1..200).contains(&field(12)));
                Some(Err(field(12)))
            }
            other => panic!("a reply with flags {other:#x}"),
        }
    }

    fn files_of(&mut self, along: Along) -> Vec<OwnedFd> {
        match along {
            Along::Nothing => vec![],
            Along::Memory(file) => {
                vec![
                    self.files[usize::from(file) % FILES]
                        .try_clone()
                        .unwrap()
                        .into(),
                ]
            }
            Along::Eventfd { blocks, full } => {
                let flags = if blocks {
                    EventfdFlags::empty()
                } else {
                    EventfdFlags::NONBLOCK
                };
                let eventfd = eventfd(0, flags | EventfdFlags::CLOEXEC).unwrap();
                if full {
                    rustix::io::write(&eventfd, &(u64::MAX - 1).to_ne_bytes()).unwrap();
                }
                vec![eventfd]
            }
            Along::Pipe => vec![self.pipe().into()],
            Along::Many(count) => (0..count % 17).map(|_| self.pipe().into()).collect(),
        }
    }

    fn pipe(&mut self) -> PipeWriter {
        let (reader, writer) = pipe().unwrap();
        self.pipes.push(reader);
        writer
    }

    fn end(self) {
        let Self {
            host,
            session,
            name,
            files,
            touched,
            pipes,
            ..
        } = self;
        drop(session);
        // Nobody has these files open but the plan itself.
        for mut pipe in pipes {
            assert_eq!(pipe.read(&mut [0]).unwrap(), 0);
        }
        let open = fs::read_dir("/proc/self/fd").unwrap().flatten();
        let lent = open.filter_map(|entry| fs::read_link(entry.path()).ok());
        let lent = lent.filter(|link| *link.as_os_str() == *format!("/memfd:{name} (deleted)"));
        assert_eq!(lent.count(), FILES);
        drop(host);
        for (file, touched) in files.iter().zip(touched) {
            for (page, _) in touched.iter().enumerate().filter(|(_, touched)| !**touched) {
                let mut bytes = [0; PAGE as usize];
                file.read_exact_at(&mut bytes, page as u64 * PAGE).unwrap();
                assert!(bytes.iter().all(|&byte| byte == UNTOUCHED), "page {page}");
            }
        }
    }
}

/// Most addresses are to be good ones.
fn odd_or_nothing(odd: u64) -> u64 {
    if odd % 16 == 15 { odd } else { 0 }
}

fn header(command: u16, body: usize, flags: u32) -> Header {
    let mut bytes = [0; HEADER_SIZE];
    bytes[..2].copy_from_slice(&0x1234_u16.to_ne_bytes());
    bytes[2..4].copy_from_slice(&command.to_ne_bytes());
    bytes[4..8].copy_from_slice(&((HEADER_SIZE + body) as u32).to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    let header = Header::parse(&bytes);
    assert_eq!(header.body(), Some(body));
    header
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn access(region: u32, offset: u64, count: u32) -> Vec<u8> {
    let place = words(&[region, count]);
    [offset.to_ne_bytes().to_vec(), place].concat()
}
