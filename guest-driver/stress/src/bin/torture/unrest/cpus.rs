// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Which CPUs there are, and which of them can be taken away.

use std::fs;
use std::path::{Path, PathBuf};

const FOLDER: &str = "/sys/devices/system/cpu";

/// The numbers of all CPUs that the machine has.
pub fn present() -> Vec<usize> {
    let list = fs::read_to_string(Path::new(FOLDER).join("present")).unwrap_or_default();
    parse(list.trim_end())
}

/// The files that take a CPU away and bring it back. The first CPU has none, as a rule.
pub fn switches() -> Vec<PathBuf> {
    let switch = |cpu| Path::new(FOLDER).join(format!("cpu{cpu}/online"));
    let switches = present().into_iter().map(switch);
    switches.filter(|path| path.exists()).collect()
}

/// Takes a list like `0-3,7` apart.
fn parse(list: &str) -> Vec<usize> {
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Some(first.parse::<usize>().ok()?..=last.parse().ok()?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_taken_apart() {
        for (list, expected) in [
            ("", &[][..]),
            ("0", &[0]),
            ("0-1", &[0, 1]),
            ("0-2,5,7-8", &[0, 1, 2, 5, 7, 8]),
            ("x,3", &[3]),
        ] {
            assert_eq!(parse(list), expected, "{list}");
        }
    }
}
