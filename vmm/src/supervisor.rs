// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Decides when the run ends and with which status. Neither waits nor prints: events and the time
//! are handed in.

use std::time::{Duration, Instant};

use crate::machine::bus::Stop;
use crate::machine::events::Event;

/// Exit statuses that lockstorm itself gives; a guest may give any.
pub mod status {
    /// As expected.
    pub const OK: u8 = 0;
    /// A finding.
    pub const FINDING: u8 = 42;
    /// Used wrongly.
    pub const USAGE: u8 = 2;
    /// The machine lacks something.
    pub const UNAVAILABLE: u8 = 69;
    /// Timeout or hang.
    pub const TIMEOUT: u8 = 124;
    /// The guest panicked, or ended without saying how its work went.
    pub const GUEST: u8 = 255;
}

/// The mark that says that the guest's init runs.
const BOOTED: &str = "init";
/// A kernel that panicked gets this long to print its report and to reset.
const PANIC_GRACE: Duration = Duration::from_millis(1500);

/// How a run is judged.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The guest runs a command and must give its status; otherwise a user works in a shell.
    pub command: bool,
    /// The guest's init must run by then, if there is a guest to be watched.
    pub boot_timeout: Option<Duration>,
    /// The run must be over by then.
    pub timeout: Option<Duration>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// The exit status.
    pub status: u8,
    /// What there is to say about it, in one line.
    pub message: Option<String>,
}

impl Ending {
    fn new(status: u8, message: impl Into<String>) -> Self {
        Self {
            status,
            message: Some(message.into()),
        }
    }
}

/// A run under way.
#[derive(Debug)]
pub struct Supervisor {
    rules: Rules,
    start: Instant,
    booted: bool,
    panic: Option<(String, Instant)>,
}

impl Supervisor {
    /// A run that began at `start`.
    pub fn new(rules: Rules, start: Instant) -> Self {
        Self {
            rules,
            start,
            booted: false,
            panic: None,
        }
    }

    /// Takes an event of time `now` into account; returns how the run ends if that ends it.
    pub fn handle(&mut self, event: Event, now: Instant) -> Option<Ending> {
        match event {
            Event::Mark { name, .. } => {
                self.booted |= name == BOOTED;
                None
            }
            Event::Panic(line) => {
                self.panic.get_or_insert((line, now + PANIC_GRACE));
                None
            }
            // Of interest only when the run has ended.
            Event::Left(_) => None,
            Event::Signal(signal) => Some(Ending::new(
                128u8.wrapping_add(signal as u8),
                format!("stopped by {}", signal_name(signal)),
            )),
            // Whatever a kernel does once it has panicked, the panic is what is to be told.
            _ if self.panic.is_some() => self.panicked(),
            Event::Stop(stop) => Some(self.stopped(stop)),
            Event::GuestFault(fault) => Some(Ending::new(
                status::GUEST,
                format!("the guest crashed: {fault}"),
            )),
            Event::HostFault(fault) => Some(Ending::new(
                status::UNAVAILABLE,
                format!("the run cannot go on: {fault}"),
            )),
            // A command that was cut short is not one that went well.
            Event::Quit(by) => Some(Ending::new(
                if self.rules.command {
                    status::GUEST
                } else {
                    status::OK
                },
                format!("ended by {by}"),
            )),
        }
    }

    /// When [`Supervisor::expire`] is to be called next.
    pub fn deadline(&self) -> Option<Instant> {
        let boot_timeout = self.rules.boot_timeout.filter(|_| !self.booted);
        let boot = boot_timeout.map(|timeout| self.start + timeout);
        let run = self.rules.timeout.map(|timeout| self.start + timeout);
        let panic = self.panic.as_ref().map(|(_, deadline)| *deadline);
        [boot, run, panic].into_iter().flatten().min()
    }

    /// Returns how the run ends if one of its deadlines has passed at `now`.
    pub fn expire(&self, now: Instant) -> Option<Ending> {
        let elapsed = now.saturating_duration_since(self.start);
        if self
            .panic
            .as_ref()
            .is_some_and(|(_, deadline)| now >= *deadline)
        {
            self.panicked()
        } else if let Some(timeout) = self.rules.boot_timeout
            && !self.booted
            && elapsed >= timeout
        {
            let seconds = timeout.as_secs();
            Some(Ending::new(
                status::TIMEOUT,
                format!("the guest's init did not run within {seconds} s (--boot-timeout)"),
            ))
        } else if let Some(timeout) = self.rules.timeout.filter(|timeout| elapsed >= *timeout) {
            let seconds = timeout.as_secs();
            Some(Ending::new(
                status::TIMEOUT,
                format!("the run took longer than {seconds} s (--timeout)"),
            ))
        } else {
            None
        }
    }

    fn panicked(&self) -> Option<Ending> {
        let (line, _) = self.panic.as_ref()?;
        Some(Ending::new(status::GUEST, format!("guest panic: {line}")))
    }

    fn stopped(&self, stop: Stop) -> Ending {
        match stop {
            Stop::Exit(status) => Ending {
                status,
                message: None,
            },
            Stop::PowerOff if !self.rules.command => Ending {
                status: status::OK,
                message: None,
            },
            Stop::PowerOff => Ending::new(
                status::GUEST,
                "the guest powered off without giving an exit status",
            ),
            Stop::Reset => Ending::new(status::GUEST, "the guest reset itself"),
        }
    }
}

fn signal_name(signal: i32) -> String {
    match signal {
        libc::SIGINT => "SIGINT".into(),
        libc::SIGTERM => "SIGTERM".into(),
        libc::SIGHUP => "SIGHUP".into(),
        libc::SIGQUIT => "SIGQUIT".into(),
        other => format!("signal {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(command: bool) -> Rules {
        Rules {
            command,
            boot_timeout: Some(Duration::from_secs(60)),
            timeout: Some(Duration::from_secs(100)),
        }
    }

    fn mark(name: &str) -> Event {
        Event::Mark {
            name: name.into(),
            at: Duration::ZERO,
        }
    }

    #[test]
    fn every_ending_has_its_status() {
        let panic = || Event::Panic("Kernel panic - not syncing: x".into());
        for (command, events, expected) in [
            (true, vec![Event::Stop(Stop::Exit(0))], 0),
            (true, vec![Event::Stop(Stop::Exit(42))], 42),
            (true, vec![Event::Stop(Stop::PowerOff)], 255),
            (true, vec![Event::Stop(Stop::Reset)], 255),
            (false, vec![Event::Stop(Stop::PowerOff)], 0),
            (false, vec![Event::Stop(Stop::Reset)], 255),
            (true, vec![Event::GuestFault("triple fault".into())], 255),
            (true, vec![Event::HostFault("EFAULT".into())], 69),
            (true, vec![panic(), Event::Stop(Stop::Reset)], 255),
            (false, vec![panic(), Event::Stop(Stop::Exit(0))], 255),
            (false, vec![panic(), Event::Quit("ctl")], 255),
            (false, vec![Event::Quit("ctl")], 0),
            (true, vec![Event::Quit("ctl")], 255),
            (true, vec![mark("init"), Event::Signal(libc::SIGINT)], 130),
            (true, vec![panic(), Event::Signal(libc::SIGTERM)], 143),
        ] {
            let now = Instant::now();
            let mut supervisor = Supervisor::new(rules(command), now);
            let shown = format!("{events:?}");
            let mut endings = events
                .into_iter()
                .filter_map(|event| supervisor.handle(event, now));
            assert_eq!(
                endings.next().map(|ending| ending.status),
                Some(expected),
                "{shown}"
            );
        }
    }

    #[test]
    fn deadlines() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut supervisor = Supervisor::new(rules(true), start);
        assert_eq!(supervisor.deadline(), Some(after(60)));
        assert_eq!(supervisor.expire(after(59)), None);
        assert_eq!(
            supervisor.expire(after(60)).map(|ending| ending.status),
            Some(124)
        );
        assert_eq!(supervisor.handle(mark("init"), after(3)), None);
        assert_eq!(supervisor.deadline(), Some(after(100)));
        assert_eq!(supervisor.expire(after(99)), None);
        assert_eq!(
            supervisor.expire(after(100)).map(|ending| ending.status),
            Some(124)
        );
        assert_eq!(supervisor.handle(Event::Panic("x".into()), after(5)), None);
        assert_eq!(supervisor.deadline(), Some(after(5) + PANIC_GRACE));
        assert_eq!(
            supervisor.expire(after(7)).map(|ending| ending.status),
            Some(255)
        );
    }
}
