// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What a process that does not end is at, as the kernel tells it.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use evgen_uapi::{
    ADD, COUNTERS, GET_EVENT, INJECT, INJECT_DEFERRED, RESET, SET_COALESCING, WAIT_DRAINED,
};

const CALLS: [(&str, &str); 9] = [
    ("0", "read"),
    ("3", "close"),
    ("7", "poll"),
    ("16", "ioctl"),
    ("61", "wait4"),
    ("230", "clock_nanosleep"),
    ("232", "epoll_wait"),
    ("257", "openat"),
    ("281", "epoll_pwait"),
];

const IOCTLS: [(u32, &str); 8] = [
    (ADD, "ADD"),
    (INJECT, "INJECT"),
    (COUNTERS, "COUNTERS"),
    (INJECT_DEFERRED, "INJECT_DEFERRED"),
    (GET_EVENT, "GET_EVENT"),
    (WAIT_DRAINED, "WAIT_DRAINED"),
    (SET_COALESCING, "SET_COALESCING"),
    (RESET, "RESET"),
];

/// One thread, as it was found.
#[derive(Debug)]
pub struct Thread {
    task: String,
    state: String,
    call: String,
    /// The function in which it sleeps; empty if it does not.
    place: String,
    stack: String,
}

/// The threads of a process and of its children. None if it is gone.
pub fn threads(process: u32) -> Vec<Thread> {
    let family = [process].into_iter().chain(children(process));
    family
        .flat_map(|process| entries(&PathBuf::from(format!("/proc/{process}/task"))))
        .map(|folder| thread(&folder))
        .collect()
}

/// Lists a folder of `/proc`, from which anything may vanish at any moment.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn children(parent: u32) -> Vec<u32> {
    let mark = format!("\nPPid:\t{parent}\n");
    let is_child = |folder: &PathBuf| file(folder, "status").contains(&mark);
    entries(Path::new("/proc"))
        .into_iter()
        .filter_map(|folder| Some((folder.file_name()?.to_str()?.parse().ok()?, folder)))
        .filter(|(_, folder)| is_child(folder))
        .map(|(process, _)| process)
        .collect()
}

fn thread(folder: &Path) -> Thread {
    let status = file(folder, "status");
    let state = status
        .lines()
        .find_map(|line| line.strip_prefix("State:\t"));
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let place = match file(folder, "wchan") {
        place if place == "0" => String::new(),
        place => place,
    };
    Thread {
        task: name.into_owned(),
        state: state.unwrap_or("gone").to_owned(),
        call: call(&file(folder, "syscall"), |descriptor| {
            let path = fs::read_link(folder.join("fd").join(descriptor));
            path.map_or_else(
                |_| format!("file {descriptor}"),
                |path| path.display().to_string(),
            )
        }),
        place,
        stack: file(folder, "stack"),
    }
}

fn file(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).unwrap_or_default()
}

/// Puts the line of `/proc/N/syscall` into words; `path` is that of an open file.
fn call(line: &str, path: impl Fn(&str) -> String) -> String {
    let mut words = line.split_ascii_whitespace();
    let number = match words.next() {
        None | Some("running") => return "running".to_owned(),
        Some("-1") => return "in no system call".to_owned(),
        Some(number) => number,
    };
    let mut number_of = || {
        let word = words.next()?;
        u64::from_str_radix(word.strip_prefix("0x")?, 16).ok()
    };
    let (first, second) = (number_of(), number_of());
    let name = CALLS.iter().find(|(known, _)| *known == number);
    let Some((_, name)) = name else {
        return format!("in system call {number}");
    };
    let descriptor = first.map(|first| first.to_string()).unwrap_or_default();
    match *name {
        "ioctl" => {
            let code = second.unwrap_or_default() & u64::from(u32::MAX);
            let known = IOCTLS.iter().find(|(known, _)| u64::from(*known) == code);
            let request =
                known.map_or_else(|| format!("{code:#x}"), |(_, name)| (*name).to_owned());
            format!("in ioctl({}, {request})", path(&descriptor))
        }
        "read" | "close" => format!("in {name}({})", path(&descriptor)),
        name => format!("in {name}"),
    }
}

impl fmt::Display for Thread {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            text,
            "task {} is {}, state {}",
            self.task, self.call, self.state
        )?;
        if !self.place.is_empty() {
            write!(text, ", sleeps in {}", self.place)?;
        }
        let mut stack = self.stack.lines();
        stack.try_for_each(|line| write!(text, "\n  {line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_put_into_words() {
        for (line, words) in [
            ("", "running"),
            ("running\n", "running"),
            ("-1 0x7ffe 0x7f\n", "in no system call"),
            (
                "0 0x3 0x7ffe 0x40 0x0 0x0 0x0 0x7ffd 0x7f01\n",
                "in read(/dev/evgen3)",
            ),
            (
                "16 0x4 0x4508 0x0 0x0 0x0 0x0 0x7ffd 0x7f01\n",
                "in ioctl(/dev/evgen4, RESET)",
            ),
            (
                "16 0x4 0xffffffff83684503 0x0 0x0 0x0 0x0 0x7ffd 0x7f01\n",
                "in ioctl(/dev/evgen4, COUNTERS)",
            ),
            ("16 0x4 0x1 0x0", "in ioctl(/dev/evgen4, 0x1)"),
            ("16", "in ioctl(/dev/evgen, 0x0)"),
            ("281 0x3 0x7ffe 0x1", "in epoll_pwait"),
            ("999 0x3", "in system call 999"),
        ] {
            let path = |descriptor: &str| format!("/dev/evgen{descriptor}");
            assert_eq!(call(line, path), words, "{line:?}");
        }
    }

    #[test]
    fn this_very_thread_is_found() {
        let threads = threads(std::process::id());
        assert!(!threads.is_empty());
        let text = threads[0].to_string();
        assert!(text.contains("state "), "{text}");
    }
}
