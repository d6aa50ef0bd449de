// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Whether the kernel has more of something than it had: objects, pages, interrupts, files.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use thiserror::Error;

use crate::thousands::thousands;

const SLABS: &str = "/sys/kernel/slab";
const MEMORY: &str = "/proc/meminfo";
/// Caches that are not counted. In the first there is where stacks of threads and other mappings were, which
/// the kernel forgets only when there are thousands (mm/vmalloc.c). The others are kmemleak's notes on these
/// and on whatever is counted elsewhere.
const UNCOUNTED: [&str; 3] = ["vmap_area", "kmemleak_object", "kmemleak_scan_area"];
const PAGE_KIBIBYTES: u64 = 4;
/// How often the figures are read; the smallest counts, but for the first ones: reading makes entries for the
/// files that are read. Memory that is freed later, by RCU or a work item, is so by the last time.
const READINGS: usize = 3;
const PAUSE: Duration = Duration::from_millis(500);

/// Something that tells of leaks cannot be read.
#[derive(Debug, Error)]
#[error("cannot {what} {}, which tells of leaks: {source}", path.display())]
pub struct LeakError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unit {
    /// Things whose number must be the same.
    Exact,
    /// Objects of one slab cache, in which the whole kernel has some.
    Objects,
    /// Memory, of which the whole kernel uses some.
    Kibibytes,
}

/// What there was at one time, by name. All are counts of which less is better.
#[derive(Clone, Debug, Default)]
pub struct Figures(BTreeMap<(Unit, String), u64>);

/// Something of which there is more than there was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Growth {
    /// Of what.
    pub name: String,
    /// Its unit.
    pub unit: Unit,
    /// How much there was.
    pub before: u64,
    /// How much there is.
    pub after: u64,
    /// By how much it may have grown.
    pub allowed: u64,
}

impl Growth {
    /// Whether it is a leak.
    pub fn is_leak(&self) -> bool {
        self.after - self.before > self.allowed
    }
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.unit {
            Unit::Exact => "",
            Unit::Objects => " objects",
            Unit::Kibibytes => " KiB",
        };
        let number = |number: u64| thousands(number.cast_signed());
        write!(
            f,
            "{}: {}, then {}{unit}: {} more, {} allowed",
            self.name,
            number(self.before),
            number(self.after),
            number(self.after - self.before),
            number(self.allowed)
        )
    }
}

impl Figures {
    /// What there is now. Nobody must use the driver meanwhile. Takes some seconds.
    pub fn now() -> Result<Self, LeakError> {
        Self::read()?;
        let mut least = Self::default();
        for _ in 1..READINGS {
            thread::sleep(PAUSE);
            for (name, value) in Self::read()?.0 {
                let entry = least.0.entry(name).or_insert(value);
                *entry = value.min(*entry);
            }
        }
        Ok(least)
    }

    fn read() -> Result<Self, LeakError> {
        // What the kernel keeps for later, it gives back now.
        order(Path::new("/proc/sys/vm/drop_caches"), "3")?;
        let mut figures = BTreeMap::new();
        for (name, count) in [
            ("lines of /proc/interrupts", lines("/proc/interrupts")?),
            ("lines of /proc/iomem", lines("/proc/iomem")?),
            ("PCI devices", entries("/sys/bus/pci/devices", "")?),
            ("files /dev/evgenN", entries("/dev", "evgen")?),
            ("files open in the driver", users()?),
            (
                "folders in debugfs",
                entries("/sys/kernel/debug/evgen", "").unwrap_or(0),
            ),
        ] {
            figures.insert((Unit::Exact, name.to_owned()), count);
        }
        for (name, count) in slabs()? {
            figures.insert((Unit::Objects, format!("slab {name}")), count);
        }
        let text = read(Path::new(MEMORY))?;
        for (name, kibibytes) in memory(&text, uncounted()) {
            figures.insert((Unit::Kibibytes, name.to_owned()), kibibytes);
        }
        Ok(Self(figures))
    }

    /// What has grown since `before`, in `rounds` rounds of which each may leak.
    pub fn growth_since(&self, before: &Self, rounds: u64) -> Vec<Growth> {
        self.0
            .iter()
            .filter_map(|((unit, name), &after)| {
                let before = before.0.get(&(*unit, name.clone())).copied().unwrap_or(0);
                (after > before).then(|| Growth {
                    name: name.clone(),
                    unit: *unit,
                    before,
                    after,
                    allowed: allowed(*unit, rounds),
                })
            })
            .collect()
    }
}

/// By how much a figure may grow in so many rounds: less than one object in twenty rounds, or a KiB in
/// each, that is leaked, beside what the rest of the kernel does meanwhile.
fn allowed(unit: Unit, rounds: u64) -> u64 {
    match unit {
        Unit::Exact => 0,
        Unit::Objects => 50 + rounds / 20,
        Unit::Kibibytes => 2048 + rounds,
    }
}

/// The objects in use, by cache. Caches that are the same under two names come once.
fn slabs() -> Result<Vec<(String, u64)>, LeakError> {
    let folder = Path::new(SLABS);
    let place = |name| fs::canonicalize(folder.join(name)).unwrap_or_default();
    let uncounted = UNCOUNTED.map(place);
    let list = fs::read_dir(folder).map_err(failed("list", folder))?;
    let mut slabs = Vec::new();
    for entry in list.flatten() {
        // The other names of a cache are links to it.
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) || uncounted.contains(&entry.path()) {
            continue;
        }
        order(&entry.path().join("shrink"), "1")?;
        let text = read(&entry.path().join("objects"))?;
        let count = text.split_ascii_whitespace().next();
        if let Some(count) = count.and_then(|count| count.parse().ok()) {
            slabs.push((entry.file_name().to_string_lossy().into_owned(), count));
        }
    }
    Ok(slabs)
}

/// The memory of the caches that are not counted, in KiB.
fn uncounted() -> u64 {
    let figure = |cache: &Path, name| -> Option<u64> {
        let text = fs::read_to_string(cache.join(name)).ok()?;
        text.split_ascii_whitespace().next()?.parse().ok()
    };
    let caches = UNCOUNTED.map(|name| Path::new(SLABS).join(name));
    let sizes = caches.iter().filter_map(|cache| {
        let pages = figure(cache, "slabs")? << figure(cache, "order")?.min(10);
        Some(pages * PAGE_KIBIBYTES)
    });
    sizes.sum()
}

/// Memory in use, in KiB, from `/proc/meminfo`, without so much that is not counted.
fn memory(text: &str, uncounted: u64) -> Vec<(&'static str, u64)> {
    let value = |name: &str| {
        text.lines().find_map(|line| {
            let value = line.strip_prefix(name)?.strip_prefix(':')?;
            value.split_ascii_whitespace().next()?.parse::<u64>().ok()
        })
    };
    let used = value("MemTotal")
        .zip(value("MemAvailable"))
        .map(|(total, available)| total.saturating_sub(available).saturating_sub(uncounted));
    [
        ("memory in use", used),
        ("memory of each CPU", value("Percpu")),
        ("mapped kernel memory", value("VmallocUsed")),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect()
}

fn lines(path: &'static str) -> Result<u64, LeakError> {
    Ok(read(Path::new(path))?.lines().count() as u64)
}

fn entries(folder: &'static str, prefix: &str) -> Result<u64, LeakError> {
    let folder = Path::new(folder);
    let entries = fs::read_dir(folder).map_err(failed("list", folder))?;
    let fits = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(prefix);
    Ok(entries.flatten().filter(fits).count() as u64)
}

fn users() -> Result<u64, LeakError> {
    let path = Path::new("/sys/module/evgen/refcnt");
    read(path)?
        .trim()
        .parse()
        .map_err(|_| failed("understand", path)(io::ErrorKind::InvalidData.into()))
}

fn order(path: &Path, what: &str) -> Result<(), LeakError> {
    let file = OpenOptions::new().write(true).open(path);
    file.and_then(|mut file| file.write_all(what.as_bytes()))
        .map_err(failed("write", path))
}

fn read(path: &Path) -> Result<String, LeakError> {
    fs::read_to_string(path).map_err(failed("read", path))
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LeakError {
    let path = path.to_owned();
    move |source| LeakError { what, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(entries: &[(Unit, &str, u64)]) -> Figures {
        let entry = |&(unit, name, value): &(Unit, &str, u64)| ((unit, name.to_owned()), value);
        Figures(entries.iter().map(entry).collect())
    }

    #[test]
    fn a_leak_is_more_than_the_kernel_needs_itself() {
        for (unit, rounds, more, expected) in [
            (Unit::Exact, 1000, 1, true),
            (Unit::Objects, 1000, 100, false),
            (Unit::Objects, 1000, 101, true),
            (Unit::Objects, 4, 51, true),
            (Unit::Kibibytes, 1000, 3048, false),
            (Unit::Kibibytes, 1000, 3049, true),
        ] {
            let before = figures(&[(unit, "it", 7)]);
            let after = figures(&[(unit, "it", 7 + more)]);
            let growth = after.growth_since(&before, rounds);
            assert_eq!(growth.len(), 1);
            assert_eq!(growth[0].is_leak(), expected, "{}", growth[0]);
        }
    }

    #[test]
    fn only_what_has_grown_is_told_and_what_is_new_has_grown() {
        let before = figures(&[(Unit::Exact, "same", 5), (Unit::Objects, "less", 5)]);
        let after = figures(&[
            (Unit::Exact, "same", 5),
            (Unit::Objects, "less", 4),
            (Unit::Exact, "new", 1),
        ]);
        let growth = after.growth_since(&before, 1);
        assert_eq!(growth.len(), 1);
        assert_eq!((growth[0].name.as_str(), growth[0].before), ("new", 0));
        assert!(growth[0].is_leak());
    }

    #[test]
    fn memory_in_use_is_what_is_not_available() {
        let text =
            "MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:   400 kB\nVmallocUsed:  7 kB\n";
        assert_eq!(
            memory(text, 20),
            [("memory in use", 580), ("mapped kernel memory", 7)]
        );
    }
}
