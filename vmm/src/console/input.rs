// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Carries stdin to the guest's console, and catches the keys that are meant for lockstorm.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::thread;

use super::tell;
use super::terminal::RawTerminal;
use crate::machine::events::{Event, Events};

const CTRL_A: u8 = 1;

/// The guest has the keyboard while this lives; a terminal is raw for that long.
pub struct ConsoleInput {
    _terminal: Option<RawTerminal>,
}

impl ConsoleInput {
    /// Starts handing stdin to `guest`. When somebody may be typing, Ctrl-A x is told to `events`.
    pub fn start(
        mut guest: impl FnMut(&[u8]) + Send + 'static,
        events: Events,
    ) -> io::Result<Self> {
        let terminal = RawTerminal::enter()?;
        let mut keys = is_typed()?.then(Keys::default);
        if keys.is_some() {
            tell("Ctrl-A x quits, Ctrl-A a is Ctrl-A for the guest");
        }
        // The thread is left behind at the end: nothing interrupts its read.
        thread::Builder::new().name("input".into()).spawn(move || {
            let mut buffer = [0; 256];
            while let Ok(count @ 1..) = io::stdin().read(&mut buffer) {
                let Some(keys) = &mut keys else {
                    guest(&buffer[..count]);
                    continue;
                };
                for byte in &buffer[..count] {
                    match keys.push(*byte) {
                        Key::Guest(byte) => guest(&[byte]),
                        Key::Quit => events.send(Event::Quit("Ctrl-A x")),
                        Key::Nothing => {}
                    }
                }
            }
        })?;
        Ok(Self {
            _terminal: terminal,
        })
    }
}

/// Whether stdin may be a keyboard. Not only terminals may: a virtio port can have one at its other
/// end. What comes from a file or a pipe is for the guest as it is.
fn is_typed() -> io::Result<bool> {
    let stdin = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    Ok(stdin.metadata()?.file_type().is_char_device())
}

/// What a key press means.
#[derive(Debug, PartialEq, Eq)]
enum Key {
    Guest(u8),
    Quit,
    Nothing,
}

/// Ctrl-A begins a command of two keys: x quits, a or Ctrl-A sends Ctrl-A to the guest.
#[derive(Default)]
struct Keys {
    command: bool,
}

impl Keys {
    fn push(&mut self, byte: u8) -> Key {
        let command = std::mem::take(&mut self.command);
        match (command, byte) {
            (false, CTRL_A) => {
                self.command = true;
                Key::Nothing
            }
            (false, byte) => Key::Guest(byte),
            (true, b'x' | b'X') => Key::Quit,
            (true, b'a' | CTRL_A) => Key::Guest(CTRL_A),
            (true, _) => Key::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ctrl_a_commands() {
        for (typed, expected) in [
            (
                &b"ls\n"[..],
                vec![Key::Guest(b'l'), Key::Guest(b's'), Key::Guest(b'\n')],
            ),
            (b"\x01x", vec![Key::Nothing, Key::Quit]),
            (
                b"\x01a\x01\x01",
                vec![Key::Nothing, Key::Guest(1), Key::Nothing, Key::Guest(1)],
            ),
            (
                b"\x01qx",
                vec![Key::Nothing, Key::Nothing, Key::Guest(b'x')],
            ),
        ] {
            let mut keys = Keys::default();
            let result: Vec<_> = typed.iter().map(|byte| keys.push(*byte)).collect();
            assert_eq!(result, expected, "{typed:?}");
        }
    }
}
