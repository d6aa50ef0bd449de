// SPDX-License-Identifier: Apache-2.0 OR MIT

//! How each call is made, and what must be so when it does well.

use evgen_uapi::{
    ADD, COUNTERS, Counters, EVENT_SIZE, GET_EVENT, INJECT, INJECT_DEFERRED, RESET, Record,
    SET_COALESCING, WAIT_DRAINED,
};
use libc::{epoll_event, iovec, pollfd};

use crate::arguments::{self, Argument};
use crate::counters;
use crate::fuzzer::Fuzzer;
use crate::memory::{Address, PAGE, Place, Sure};
use crate::rules::{Call, Known};
use crate::system::{self, Descriptor};

/// A `read` of at most this much from memory that is there does not reach addresses that no program
/// has.
const LONG: usize = 1 << 20;
/// Size of an `iovec`, of an `epoll_event` and of a `pollfd`.
const VECTOR: usize = size_of::<iovec>();
const EPOLL_EVENT: usize = size_of::<epoll_event>();
const POLLED: usize = size_of::<pollfd>();
/// What `poll` may say of a device's file.
const POLL_ANSWERS: i16 =
    libc::POLLIN | libc::POLLRDNORM | libc::POLLERR | libc::POLLHUP | libc::POLLNVAL;

impl Fuzzer<'_> {
    /// Makes a call and judges its answer.
    pub fn make(&mut self, call: Call) {
        let (random, rings) = (&mut self.random, self.rings);
        match call {
            Call::Add => {
                let event = arguments::add_event(random);
                self.give(call, ADD, &event);
            }
            Call::Inject => {
                let ring = arguments::ring(random, rings);
                self.give(call, INJECT, &ring);
            }
            Call::InjectDeferred => {
                let injection = arguments::deferred_injection(random, rings);
                self.give(call, INJECT_DEFERRED, &injection);
            }
            Call::SetCoalescing => {
                let coalescing = arguments::coalescing(random, rings);
                self.give(call, SET_COALESCING, &coalescing);
            }
            Call::WaitDrained => {
                let time = arguments::milliseconds(random);
                self.give(call, WAIT_DRAINED, &time);
            }
            Call::Counters => self.counters(),
            Call::GetEvent => self.get_event(),
            Call::Reset => self.ioctl_without_argument(call, RESET, true),
            Call::Unknown => {
                let command = arguments::unknown_command(random);
                self.ioctl_without_argument(call, command, false);
            }
            Call::Read => self.read(),
            Call::Readv => self.readv(),
            Call::Write => self.write(),
            Call::Poll => self.poll(),
            Call::EpollControl => self.epoll_control(),
            Call::EpollWait => self.epoll_wait(),
            Call::Open => {
                let answer = self.files.open(random);
                self.judge(call, Known::RIGHT, answer);
            }
            Call::Dup => {
                let answer = self.files.dup(random);
                self.judge(call, Known::RIGHT, answer);
            }
            Call::Close => {
                let answer = self.files.close(random);
                self.judge(call, Known::RIGHT, answer);
            }
            Call::SetNonblocking => {
                let (file, nonblocking) = (self.files.any(random), random.bool());
                let answer = system::set_nonblocking(file, nonblocking);
                self.judge(call, Known::RIGHT, answer);
            }
        }
    }

    /// An `ioctl` that reads its argument.
    fn give(&mut self, call: Call, command: u32, argument: &Argument) {
        let place = self.place(argument.bytes.len());
        self.memory.put(place.address, &argument.bytes);
        let known = Known {
            memory: place.readable,
            valid: argument.valid,
        };
        let answer = system::ioctl(self.file(), command, place.address);
        self.judge(call, known, answer);
    }

    fn ioctl_without_argument(&mut self, call: Call, command: u32, valid: bool) {
        let place = self.place(EVENT_SIZE);
        let answer = system::ioctl(self.file(), command, place.address);
        let memory = Sure::Yes;
        self.judge(call, Known { memory, valid }, answer);
    }

    fn counters(&mut self) {
        let place = self.place(size_of::<Counters>());
        let answer = system::ioctl(self.file(), COUNTERS, place.address);
        self.judge(Call::Counters, written(place), answer);
        let content = self.memory.content(place.address, size_of::<Counters>());
        let counters = content.and_then(|bytes| counters::parse(&bytes));
        if let (Ok(_), Some(counters)) = (answer, counters)
            && let Some(wrong) = counters::imbalance(&counters)
        {
            self.find(Call::Counters, &wrong);
        }
    }

    fn get_event(&mut self) {
        let place = self.place(EVENT_SIZE);
        let answer = system::ioctl(self.file(), GET_EVENT, place.address);
        self.judge(Call::GetEvent, written(place), answer);
        if answer.is_ok() {
            self.take_events(Call::GetEvent, place.address, EVENT_SIZE);
        }
    }

    fn read(&mut self) {
        let lengths = [
            0,
            1,
            EVENT_SIZE - 1,
            EVENT_SIZE,
            EVENT_SIZE + 1,
            PAGE,
            LONG,
            i32::MAX as usize,
            isize::MAX as usize,
            usize::MAX,
        ];
        let length = match self.random.u8(0..2) {
            0 => lengths[self.random.usize(0..lengths.len())],
            _ => self.random.usize(EVENT_SIZE..20 * EVENT_SIZE),
        };
        let place = self.place(EVENT_SIZE);
        let memory = match place.writable {
            Sure::Yes if length > LONG => Sure::Unknown,
            first_event => first_event,
        };
        let valid = (EVENT_SIZE..=isize::MAX as usize).contains(&length);
        let answer = system::read(self.file(), place.address, length);
        self.judge(Call::Read, Known { memory, valid }, answer);
        if let Ok(count) = answer {
            if count == 0 || count > length {
                self.find(Call::Read, "less than an event, or more than was asked for");
            }
            self.take_events(Call::Read, place.address, count);
        }
    }

    fn readv(&mut self) {
        let count = self.random.usize(1..=4);
        // What is in memory that others write to could point anywhere.
        let vectors = match self.place(count * VECTOR) {
            place if place.readable == Sure::Unknown => {
                self.memory.good_place(&mut self.random, count * VECTOR)
            }
            place => place,
        };
        let mut bytes = Vec::new();
        for _ in 0..count {
            let to = self.place(EVENT_SIZE).address.number();
            let lengths = [
                0,
                1,
                EVENT_SIZE / 2,
                EVENT_SIZE,
                5 * EVENT_SIZE,
                PAGE,
                usize::MAX,
            ];
            let length = lengths[self.random.usize(0..lengths.len())];
            bytes.extend(to.to_ne_bytes());
            bytes.extend(length.to_ne_bytes());
        }
        self.memory.put(vectors.address, &bytes);
        let memory = match vectors.readable {
            Sure::No => Sure::No,
            _ => Sure::Unknown,
        };
        let answer = system::readv(self.file(), vectors.address, count);
        let valid = true;
        self.judge(Call::Readv, Known { memory, valid }, answer);
        if let Ok(count) = answer {
            self.count_events(Call::Readv, count);
        }
    }

    fn write(&mut self) {
        let place = self.place(EVENT_SIZE);
        let answer = system::write(self.file(), place.address, EVENT_SIZE);
        let (memory, valid) = (Sure::Yes, false);
        self.judge(Call::Write, Known { memory, valid }, answer);
    }

    fn poll(&mut self) {
        let count = self.random.usize(1..=4);
        let place = self.place(count * POLLED);
        let mut bytes = Vec::new();
        for _ in 0..count {
            bytes.extend(self.file().to_ne_bytes());
            bytes.extend(self.random.u16(..).to_ne_bytes());
            bytes.extend([0; 2]);
        }
        self.memory.put(place.address, &bytes);
        let timeout = self.timeout();
        let answer = system::poll(place.address, count, timeout);
        self.judge(Call::Poll, written(place), answer);
        let content = self.memory.content(place.address, count * POLLED);
        if let (Ok(_), Some(content)) = (answer, content) {
            for polled in content.chunks_exact(POLLED) {
                let told = i16::from_ne_bytes([polled[6], polled[7]]);
                if told & !POLL_ANSWERS != 0 {
                    self.find(Call::Poll, &format!("a file has the events {told:#x}"));
                }
            }
        }
    }

    fn epoll_control(&mut self) {
        let place = self.place(EPOLL_EVENT);
        let flags = [
            libc::EPOLLIN,
            libc::EPOLLET,
            libc::EPOLLONESHOT,
            libc::EPOLLOUT,
        ];
        let flags = flags
            .into_iter()
            .filter(|_| self.random.bool())
            .fold(0, |all, flag| all | flag);
        let mut bytes = flags.to_ne_bytes().to_vec();
        bytes.extend(self.random.u64(..).to_ne_bytes());
        self.memory.put(place.address, &bytes);
        let (operation, memory) = match self.random.u8(0..3) {
            0 => (libc::EPOLL_CTL_ADD, place.readable),
            1 => (libc::EPOLL_CTL_MOD, place.readable),
            // Takes none.
            _ => (libc::EPOLL_CTL_DEL, Sure::Unknown),
        };
        let (epoll, file) = (self.files.epoll(), self.file());
        let answer = system::epoll_control(epoll, operation, file, place.address);
        let valid = true;
        self.judge(Call::EpollControl, Known { memory, valid }, answer);
    }

    fn epoll_wait(&mut self) {
        let count = self.random.usize(1..=4);
        let place = self.place(count * EPOLL_EVENT);
        let timeout = self.timeout();
        let answer = system::epoll_wait(self.files.epoll(), place.address, count, timeout);
        // With nothing to tell, it does well anywhere.
        let memory = match place.writable {
            Sure::Yes => Sure::Yes,
            _ => Sure::Unknown,
        };
        let valid = true;
        self.judge(Call::EpollWait, Known { memory, valid }, answer);
    }

    /// Notes that events came to writable memory, if they did not come to other memory, and are intact.
    fn take_events(&mut self, call: Call, address: Address, length: usize) {
        self.count_events(call, length);
        let Some(content) = self.memory.content(address, length) else {
            return;
        };
        let (events, _) = content.as_chunks::<EVENT_SIZE>();
        if !events.iter().all(|event| Record::parse(event).intact) {
            self.find(call, "an event with a wrong checksum");
        }
    }

    fn count_events(&mut self, call: Call, length: usize) {
        if !length.is_multiple_of(EVENT_SIZE) {
            self.find(call, "a part of an event");
        }
        self.done.events += (length / EVENT_SIZE) as u64;
    }

    fn file(&mut self) -> Descriptor {
        self.files.any(&mut self.random)
    }

    fn place(&mut self, size: usize) -> Place {
        self.memory.place(&mut self.random, size)
    }

    /// Milliseconds; sometimes until a signal comes.
    fn timeout(&mut self) -> i32 {
        self.random.i32(-1..4)
    }
}

/// What is known of a valid argument that is written.
fn written(place: Place) -> Known {
    Known {
        memory: place.writable,
        valid: true,
    }
}
