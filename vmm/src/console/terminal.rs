// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The user's terminal, raw while the guest has the keyboard.

use std::io;
use std::mem::MaybeUninit;
use std::sync::OnceLock;

/// How the terminal was before. Process-wide, because a panic has to find it.
static BEFORE: OnceLock<libc::termios> = OnceLock::new();

/// Makes the terminal on stdin raw for as long as this lives, and over a panic of this program.
pub struct RawTerminal;

impl RawTerminal {
    /// `None` if stdin is no terminal.
    pub fn enter() -> io::Result<Option<Self>> {
        let mut settings = MaybeUninit::<libc::termios>::uninit();
        // SAFETY: the pointer is good for one `termios`, which the call fills if it succeeds.
        if unsafe { libc::tcgetattr(libc::STDIN_FILENO, settings.as_mut_ptr()) } != 0 {
            return Ok(None);
        }
        // SAFETY: filled by the successful call above.
        let mut settings = unsafe { settings.assume_init() };
        let _ = BEFORE.set(settings);
        // SAFETY: a valid `termios`.
        unsafe { libc::cfmakeraw(&mut settings) };
        // Our own lines keep their line ends.
        settings.c_oflag |= libc::OPOST;
        apply(&settings)?;
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            previous(info);
        }));
        Ok(Some(Self))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Makes the terminal what it was before, if it is raw.
pub fn restore() {
    if let Some(settings) = BEFORE.get() {
        // A terminal that is gone needs no restoring.
        let _ = apply(settings);
    }
}

fn apply(settings: &libc::termios) -> io::Result<()> {
    // SAFETY: a valid `termios` for the whole call.
    match unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, settings) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
