// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Allocations of the driver fail, in whatever context it makes them, and nobody else's: those with
//! a return address of the module on the stack
//! (Documentation/fault-injection/fault-injection.rst).

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::Pause;
use crate::setting::Setting;

const FAILSLAB: &str = "/sys/kernel/debug/failslab";

/// More failures than there can be.
const ENOUGH: u64 = 1_000_000_000;

/// Why allocations cannot be made to fail, if they cannot.
pub fn obstacle() -> Option<String> {
    let missing = ["probability", "require-start"]
        .map(|name| Path::new(FAILSLAB).join(name))
        .into_iter()
        .find(|path| !path.exists());
    if let Some(path) = missing {
        return Some(format!("there is no {}", path.display()));
    }
    module().err().map(|error| error.to_string())
}

/// Lets so many of a hundred allocations fail until told to end. How many?
pub fn fail(percent: u8, pause: &Pause) -> io::Result<u64> {
    let (start, end) = module()?;
    let folder = Path::new(FAILSLAB);
    let settings = [
        ("require-start", format!("{start:#x}")),
        ("require-end", format!("{end:#x}")),
        ("stacktrace-depth", "32".to_owned()),
        ("ignore-gfp-wait", "N".to_owned()),
        ("cache-filter", "N".to_owned()),
        ("task-filter", "N".to_owned()),
        ("interval", "1".to_owned()),
        ("space", "0".to_owned()),
        ("verbose", "0".to_owned()),
    ]
    .map(|(name, value)| Setting::change(folder.join(name), &value));
    let settings = settings.into_iter().collect::<io::Result<Vec<_>>>()?;
    let times = Setting::change(folder.join("times"), &ENOUGH.to_string())?;
    // The last to come and the first to go: the others say whom it is about.
    let probability = Setting::change(folder.join("probability"), &percent.to_string())?;
    while pause.wait(Duration::from_secs(1)) {}
    drop(probability);
    // It counts down.
    let left: u64 = times.get()?.parse().unwrap_or(ENOUGH);
    drop((times, settings));
    Ok(ENOUGH.saturating_sub(left))
}

/// From where to where the module lies in memory, or a bit further.
fn module() -> io::Result<(u64, u64)> {
    let modules = fs::read_to_string("/proc/modules")?;
    parse(&modules).ok_or_else(|| io::Error::other("/proc/modules does not say where evgen is"))
}

/// A line is `NAME SIZE USERS BY STATE ADDRESS`.
fn parse(modules: &str) -> Option<(u64, u64)> {
    let line = modules.lines().find(|line| line.starts_with("evgen "))?;
    let words: Vec<_> = line.split(' ').collect();
    let size: u64 = words.get(1)?.parse().ok()?;
    let start = u64::from_str_radix(words.get(5)?.strip_prefix("0x")?, 16).ok()?;
    // Zero is what those see who may not know.
    (start > 0).then(|| (start, start.saturating_add(size)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_is_found() {
        let modules = "virtio 4096 0 - Live 0xffffffffc0000000\n\
                       evgen 73728 2 - Live 0xffffffffc0235000 (OE)\n";
        let expected = Some((0xffff_ffff_c023_5000, 0xffff_ffff_c024_7000));
        assert_eq!(parse(modules), expected);
        for wrong in [
            "",
            "evgen",
            "evgen 1 0 - Live 0x0\n",
            "evgen x 0 - Live 0x1\n",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
