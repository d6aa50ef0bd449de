// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Finds a kernel panic in the console's byte stream.

/// How Linux begins the report of every panic (`panic()` in `kernel/panic.c`).
const PANIC: &[u8] = b"Kernel panic - not syncing";
/// Lines are looked at in pieces of this size at most.
const LINE_MAX: usize = 1024;

/// Watches a byte stream line by line, however it is cut into writes.
#[derive(Debug, Default)]
pub struct PanicScanner {
    line: Vec<u8>,
    found: bool,
}

impl PanicScanner {
    /// Takes one byte. Returns the line that reports a panic when it ends, for the first one only.
    pub fn push(&mut self, byte: u8) -> Option<String> {
        if self.found {
            return None;
        }
        let line_ends = byte == b'\n' || byte == b'\r';
        if !line_ends {
            self.line.push(byte);
            if self.line.len() < LINE_MAX {
                return None;
            }
        }
        self.found = self.line.windows(PANIC.len()).any(|window| window == PANIC);
        let report = self.found.then(|| printable(&self.line));
        // What could be the beginning of the text stays when a long line is cut.
        let keep = if line_ends { 0 } else { PANIC.len() - 1 };
        self.line
            .drain(..self.line.len() - keep.min(self.line.len()));
        report
    }
}

/// The guest's text without what could command the user's terminal.
fn printable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    text.chars()
        .map(|character| {
            if character.is_control() {
                '?'
            } else {
                character
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(text: &[u8]) -> Vec<String> {
        let mut scanner = PanicScanner::default();
        text.iter().filter_map(|byte| scanner.push(*byte)).collect()
    }

    #[test]
    fn first_panic_is_reported_with_its_line() {
        let long = [
            &[b'x'; 3 * LINE_MAX - 10][..],
            b"Kernel panic - not syncing: far\r\n",
        ]
        .concat();
        for (text, expected) in [
            (
                &b"all is well\r\nKernel panic - not\r\n syncing\r\n"[..],
                None,
            ),
            (
                b"[ 1.5] Kernel panic - not syncing: oops\r\n",
                Some("[ 1.5] Kernel panic - not syncing: oops"),
            ),
            (
                b"~ # [ 9.0] Kernel panic - not syncing: mid-line\n",
                Some("~ # [ 9.0] Kernel panic - not syncing: mid-line"),
            ),
            (
                b"Kernel panic - not syncing: \x1b[2J\n",
                Some("Kernel panic - not syncing: ?[2J"),
            ),
            (b"Kernel panic - not syncing: no end of line", None),
        ] {
            assert_eq!(
                scan(text),
                expected.map(String::from).as_slice(),
                "{text:?}"
            );
        }
        assert_eq!(scan(&long).len(), 1);
        assert_eq!(
            scan(&b"Kernel panic - not syncing: again\n".repeat(3)).len(),
            1
        );
    }
}
