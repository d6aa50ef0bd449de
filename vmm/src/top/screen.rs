// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The terminal while `top` has it.

use std::io::{self, Stdout};
use std::process;
use std::time::Instant;

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::{Frame, Terminal};

use crate::signals::on_signal;

/// What the user did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// Asked for the end.
    Quit,
    /// Anything else; the size of the terminal may have changed.
    Other,
}

/// The terminal, raw and on its alternate screen for as long as this lives, and over a panic or a
/// signal.
pub struct Screen(Terminal<CrosstermBackend<Stdout>>);

impl Screen {
    /// Takes the terminal on stdin and stdout.
    pub fn enter() -> io::Result<Self> {
        on_signal(|signal| {
            let _ = ratatui::try_restore();
            process::exit(128 + signal);
        })?;
        ratatui::try_init().map(Self)
    }

    /// Shows what `draw` draws.
    pub fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.0.draw(draw).map(drop)
    }

    /// Waits for the user to do something, until `deadline`.
    pub fn key_before(&mut self, deadline: Instant) -> io::Result<Option<Key>> {
        let left = deadline.saturating_duration_since(Instant::now());
        if !event::poll(left)? {
            return Ok(None);
        }
        Ok(Some(key(&event::read()?)))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = ratatui::try_restore();
    }
}

fn key(event: &Event) -> Key {
    let Event::Key(key) = event else {
        return Key::Other;
    };
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        _ if key.kind == KeyEventKind::Release => Key::Other,
        KeyCode::Char('c' | 'C') if control => Key::Quit,
        KeyCode::Char('q' | 'Q') | KeyCode::Esc => Key::Quit,
        _ => Key::Other,
    }
}

#[cfg(test)]
mod tests {
    use ratatui::crossterm::event::KeyEvent;

    use super::*;

    #[test]
    fn q_and_control_c_end_it() {
        let pressed = |code, modifiers| key(&Event::Key(KeyEvent::new(code, modifiers)));
        for (code, modifiers, expected) in [
            (KeyCode::Char('q'), KeyModifiers::NONE, Key::Quit),
            (KeyCode::Char('c'), KeyModifiers::CONTROL, Key::Quit),
            (KeyCode::Esc, KeyModifiers::NONE, Key::Quit),
            (KeyCode::Char('c'), KeyModifiers::NONE, Key::Other),
            (KeyCode::Enter, KeyModifiers::NONE, Key::Other),
        ] {
            assert_eq!(pressed(code, modifiers), expected, "{code:?}");
        }
        assert_eq!(key(&Event::Resize(80, 24)), Key::Other);
    }
}
