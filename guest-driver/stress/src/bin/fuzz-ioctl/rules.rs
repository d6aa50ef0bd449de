// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What each call may answer, as `evgen-uapi` documents it.

use rustix::io::Errno;

use crate::memory::Sure;

/// A call that is made again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    Add,
    Inject,
    Counters,
    InjectDeferred,
    GetEvent,
    WaitDrained,
    SetCoalescing,
    Reset,
    /// An `ioctl` that the driver does not know.
    Unknown,
    Read,
    Readv,
    Write,
    Poll,
    EpollControl,
    EpollWait,
    Open,
    Dup,
    Close,
    SetNonblocking,
}

/// What a call is called, and what it may fail with.
struct Rule {
    name: &'static str,
    errnos: &'static [Errno],
}

impl Call {
    /// Its name.
    pub fn name(self) -> &'static str {
        self.rule().name
    }

    /// What it may fail with. Any call may with `EBADF` too, as its file may have been closed.
    fn rule(self) -> Rule {
        use Errno as E;
        let (name, errnos): (_, &[Errno]) = match self {
            Self::Add => ("ADD", &[E::INVAL, E::NOMEM, E::FAULT, E::INTR, E::NODEV]),
            Self::Inject => ("INJECT", &[E::INVAL, E::FAULT, E::INTR, E::NODEV]),
            Self::Counters => ("COUNTERS", &[E::FAULT, E::INTR, E::NODEV]),
            Self::InjectDeferred => (
                "INJECT_DEFERRED",
                &[E::INVAL, E::BUSY, E::NOMEM, E::FAULT, E::INTR, E::NODEV],
            ),
            Self::GetEvent => ("GET_EVENT", &[E::AGAIN, E::FAULT, E::INTR, E::NODEV]),
            Self::WaitDrained => (
                "WAIT_DRAINED",
                &[E::TIMEDOUT, E::INTR, E::NOMEM, E::FAULT, E::NODEV],
            ),
            Self::SetCoalescing => ("SET_COALESCING", &[E::INVAL, E::FAULT, E::INTR, E::NODEV]),
            Self::Reset => ("RESET", &[E::INTR, E::NODEV]),
            Self::Unknown => ("unknown ioctl", &[E::NOTTY, E::NODEV]),
            Self::Read => ("read", &[E::INVAL, E::FAULT, E::AGAIN, E::INTR, E::NODEV]),
            Self::Readv => ("readv", &[E::INVAL, E::FAULT, E::AGAIN, E::INTR, E::NODEV]),
            Self::Write => ("write", &[E::INVAL]),
            Self::Poll => ("poll", &[E::FAULT, E::INTR]),
            Self::EpollControl => ("epoll_ctl", &[E::EXIST, E::NOENT, E::FAULT]),
            Self::EpollWait => ("epoll_wait", &[E::FAULT, E::INTR]),
            Self::Open => ("open", &[E::NODEV]),
            Self::Dup => ("dup", &[]),
            Self::Close => ("close", &[]),
            Self::SetNonblocking => ("fcntl", &[]),
        };
        Rule { name, errnos }
    }
}

/// What is known of a call's argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Whether the kernel can use the memory that it is in.
    pub memory: Sure,
    /// Whether what is there is right, if the kernel can read it.
    pub valid: bool,
}

impl Known {
    /// There is nothing that could be wrong.
    pub const RIGHT: Self = Self {
        memory: Sure::Yes,
        valid: true,
    };
}

/// What is wrong with the answer of a call, if anything is.
pub fn judge(call: Call, known: Known, answer: Result<usize, Errno>) -> Option<String> {
    let usable = known.memory == Sure::Yes;
    match answer {
        Err(errno) if errno != Errno::BADF && !call.rule().errnos.contains(&errno) => {
            Some(format!("{}, which is not documented for it", name(errno)))
        }
        Err(Errno::FAULT) if usable => Some("EFAULT, but the memory is good".to_owned()),
        Err(Errno::INVAL) if usable && known.valid => {
            Some("EINVAL, but the argument is valid".to_owned())
        }
        Ok(_) if known.memory == Sure::No => {
            Some("success, but the memory cannot be used".to_owned())
        }
        Ok(_) if usable && !known.valid => Some("success, but the argument is wrong".to_owned()),
        _ => None,
    }
}

/// The name of an error.
pub fn name(errno: Errno) -> String {
    let named = [
        (Errno::INVAL, "EINVAL"),
        (Errno::NOMEM, "ENOMEM"),
        (Errno::FAULT, "EFAULT"),
        (Errno::INTR, "EINTR"),
        (Errno::NODEV, "ENODEV"),
        (Errno::BUSY, "EBUSY"),
        (Errno::AGAIN, "EAGAIN"),
        (Errno::TIMEDOUT, "ETIMEDOUT"),
        (Errno::NOTTY, "ENOTTY"),
        (Errno::BADF, "EBADF"),
        (Errno::EXIST, "EEXIST"),
        (Errno::NOENT, "ENOENT"),
        (Errno::IO, "EIO"),
    ];
    match named.into_iter().find(|(named, _)| *named == errno) {
        Some((_, name)) => name.to_owned(),
        None => format!("errno {}", errno.raw_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERFACE: &str = include_str!("../../../../uapi/src/interface.rs");

    /// The errors that these lines of documentation name.
    fn errnos<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
        let quoted = lines.flat_map(|line| line.split('`').skip(1).step_by(2));
        let mut errnos: Vec<_> = quoted
            .filter(|word| {
                word.starts_with('E') && word.bytes().all(|byte| byte.is_ascii_uppercase())
            })
            .collect();
        errnos.sort_unstable();
        errnos.dedup();
        errnos
    }

    #[test]
    fn rules_are_what_is_documented() {
        for call in [
            Call::Add,
            Call::Inject,
            Call::Counters,
            Call::InjectDeferred,
            Call::GetEvent,
            Call::WaitDrained,
            Call::SetCoalescing,
            Call::Reset,
            Call::Read,
        ] {
            let mut rule: Vec<_> = call
                .rule()
                .errnos
                .iter()
                .map(|&errno| name(errno))
                .collect();
            rule.sort_unstable();
            let head = format!("pub const {}: u32", call.name());
            let documented = match INTERFACE.split_once(&head) {
                Some((before, _)) => {
                    let doc = before
                        .lines()
                        .rev()
                        .take_while(|line| line.starts_with("///"));
                    errnos(doc)
                }
                // `read` is described at the top.
                None => {
                    let (top, _) = INTERFACE.split_once("An `ioctl`").unwrap();
                    errnos(top.lines())
                }
            };
            assert_eq!(rule, documented, "{}", call.name());
        }
    }

    #[test]
    fn answers_are_judged_by_what_is_known() {
        use Sure::{No, Unknown, Yes};
        let (right, wrong) = (true, false);
        for (call, memory, valid, answer, good) in [
            (Call::Add, Yes, right, Ok(0), true),
            (Call::Add, Yes, right, Err(Errno::INTR), true),
            (Call::Add, Yes, right, Err(Errno::BADF), true),
            (Call::Add, Yes, right, Err(Errno::INVAL), false),
            (Call::Add, Yes, right, Err(Errno::FAULT), false),
            (Call::Add, Yes, right, Err(Errno::AGAIN), false),
            (Call::Add, Yes, wrong, Ok(0), false),
            (Call::Add, Yes, wrong, Err(Errno::INVAL), true),
            (Call::Add, No, right, Ok(0), false),
            (Call::Add, No, right, Err(Errno::FAULT), true),
            (Call::Add, No, wrong, Err(Errno::FAULT), true),
            (Call::Add, Unknown, wrong, Ok(0), true),
            (Call::Add, Unknown, right, Err(Errno::FAULT), true),
            (Call::Add, Unknown, right, Err(Errno::NOTTY), false),
            (Call::GetEvent, No, right, Err(Errno::AGAIN), true),
            (Call::Unknown, Unknown, right, Err(Errno::NOTTY), true),
            (Call::Unknown, Unknown, right, Err(Errno::INVAL), false),
            (
                Call::Reset,
                Yes,
                right,
                Err(Errno::from_raw_os_error(512)),
                false,
            ),
        ] {
            let verdict = judge(call, Known { memory, valid }, answer);
            assert_eq!(
                verdict.is_none(),
                good,
                "{call:?} {memory:?} {valid} {answer:?}"
            );
        }
    }
}
