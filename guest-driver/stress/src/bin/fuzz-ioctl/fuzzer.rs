// SPDX-License-Identifier: Apache-2.0 OR MIT

//! One thread: makes one random call after the other, and judges each answer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};

use fastrand::Rng;
use rustix::process::Signal;

use crate::files::Files;
use crate::memory::Memory;
use crate::rules::{Call, Known, judge};
use crate::system::{self, Answer};
use crate::tally::Tally;

/// Each call and its share of all. A reset takes a while, and so does a deferred injection.
const SHARES: [(Call, u32); 19] = [
    (Call::Read, 200),
    (Call::GetEvent, 120),
    (Call::Add, 120),
    (Call::Inject, 120),
    (Call::Counters, 80),
    (Call::WaitDrained, 60),
    (Call::Unknown, 60),
    (Call::Poll, 50),
    (Call::Readv, 40),
    (Call::SetCoalescing, 30),
    (Call::InjectDeferred, 30),
    (Call::EpollControl, 30),
    (Call::EpollWait, 20),
    (Call::SetNonblocking, 20),
    (Call::Open, 20),
    (Call::Dup, 15),
    (Call::Close, 5),
    (Call::Write, 10),
    (Call::Reset, 2),
];

/// What a thread shows to others.
#[derive(Default)]
pub struct Shown {
    /// Its number in the kernel; 0 before it runs.
    thread: AtomicI32,
    /// Which of [`SHARES`] it makes, or has made last.
    call: AtomicUsize,
    ended: AtomicBool,
}

impl Shown {
    /// The call that it makes, or has made last.
    pub fn call(&self) -> Call {
        SHARES[self.call.load(Ordering::Relaxed)].0
    }

    /// Whether it has not ended.
    pub fn runs(&self) -> bool {
        !self.ended.load(Ordering::Relaxed)
    }

    /// Sends it a signal, if it has begun.
    pub fn interrupt(&self, signal: Signal) {
        let thread = self.thread.load(Ordering::Relaxed);
        if thread != 0 && self.runs() {
            // It may have ended just now.
            let _ = system::signal(thread, signal.as_raw());
        }
    }
}

/// What came of a thread's calls.
#[derive(Default)]
pub struct Done {
    pub tally: Tally,
    /// Events that it got.
    pub events: u64,
    /// What is wrong, and which of the thread's calls was the first to show it.
    pub findings: BTreeMap<String, u64>,
}

impl Done {
    /// Adds what came of another thread's.
    pub fn add(&mut self, other: Self) {
        self.tally.add(&other.tally);
        self.events += other.events;
        for (finding, number) in other.findings {
            self.findings.entry(finding).or_insert(number);
        }
    }
}

/// One thread.
pub struct Fuzzer<'a> {
    pub random: Rng,
    pub memory: Memory,
    pub files: &'a Files,
    /// How many rings the device has.
    pub rings: u32,
    pub done: Done,
}

impl Fuzzer<'_> {
    /// Makes calls until told to stop.
    pub fn run(mut self, shown: &Shown, stop: &AtomicBool) -> Done {
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        shown.thread.store(thread, Ordering::Relaxed);
        while !stop.load(Ordering::Relaxed) {
            let share = self.choose();
            shown.call.store(share, Ordering::Relaxed);
            self.make(SHARES[share].0);
        }
        shown.ended.store(true, Ordering::Relaxed);
        self.done
    }

    fn choose(&mut self) -> usize {
        let all: u32 = SHARES.iter().map(|(_, share)| share).sum();
        let mut left = self.random.u32(0..all);
        let chosen = SHARES.iter().position(|&(_, share)| {
            let here = left < share;
            left = left.wrapping_sub(share);
            here
        });
        chosen.unwrap_or(0)
    }

    /// Counts and judges an answer.
    pub fn judge(&mut self, call: Call, known: Known, answer: Answer) {
        self.done.tally.count(call, answer);
        if let Some(wrong) = judge(call, known, answer) {
            self.find(call, &wrong);
        }
    }

    /// Takes a note of what is wrong.
    pub fn find(&mut self, call: Call, wrong: &str) {
        let number = self.done.tally.calls();
        let finding = format!("{}: {wrong}", call.name());
        self.done.findings.entry(finding).or_insert(number);
    }
}
