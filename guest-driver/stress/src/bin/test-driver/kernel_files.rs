// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What the kernel shows in files: the driver's debugfs, the kernel log, threads.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use evgen_stress::ktap::Wrong;
use rustix::fs::OFlags;
use rustix::system::uname;

use crate::bench::{Failure, cannot};

/// All files that there are for each device.
pub const FILES: [&str; 4] = ["rings", "counters", "locks", "faults"];

/// The folder of one device in debugfs.
#[derive(Clone)]
pub struct DeviceFiles(PathBuf);

impl DeviceFiles {
    /// The folder of device `index`.
    pub fn new(index: usize) -> Self {
        Self(PathBuf::from(format!(
            "/sys/kernel/debug/evgen/evgen{index}"
        )))
    }

    /// Whether it is there.
    pub fn exist(&self) -> bool {
        self.0.exists()
    }

    /// Opens a file.
    pub fn open(&self, name: &str) -> io::Result<File> {
        File::open(self.0.join(name))
    }

    /// What a file shows.
    pub fn read(&self, name: &str) -> Result<String, Failure> {
        let path = self.0.join(name);
        fs::read_to_string(&path).map_err(cannot(format!("read {}", path.display())))
    }

    /// The counters that are shown, by name.
    pub fn counters(&self) -> Result<BTreeMap<String, u64>, Failure> {
        let text = self.read("counters")?;
        text.lines()
            .map(|line| {
                let figure = line
                    .split_once(' ')
                    .and_then(|(name, value)| Some((name.to_owned(), value.parse().ok()?)));
                Ok(figure.ok_or_else(|| Wrong(format!("no counter: {line:?}")))?)
            })
            .collect()
    }

    /// One of these counters.
    pub fn counter(&self, name: &str) -> Result<u64, Failure> {
        let counters = self.counters()?;
        let missing = || Wrong(format!("debugfs shows no counter {name}"));
        Ok(*counters.get(name).ok_or_else(missing)?)
    }
}

/// The kernel log from some moment on.
pub struct Log(File);

impl Log {
    /// From now on.
    pub fn from_now_on() -> Result<Self, Failure> {
        let open = || {
            let mut log = OpenOptions::new()
                .read(true)
                .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
                .open("/dev/kmsg")?;
            log.seek(SeekFrom::End(0))?;
            Ok::<_, io::Error>(log)
        };
        Ok(Self(open().map_err(cannot("read the kernel log"))?))
    }

    /// What was logged since.
    pub fn text(&mut self) -> Result<String, Failure> {
        let (mut text, mut record) = (String::new(), [0; 8192]);
        loop {
            match self.0.read(&mut record) {
                Ok(length) => text.push_str(&String::from_utf8_lossy(&record[..length])),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(text),
                Err(error) => return Err(cannot("read the kernel log")(error)),
            }
        }
    }
}

/// Threads of the kernel that handle the device's interrupts.
pub fn handler_threads() -> Result<usize, Failure> {
    let processes = fs::read_dir("/proc").map_err(cannot("list /proc"))?;
    Ok(processes
        .filter_map(|process| fs::read_to_string(process.ok()?.path().join("comm")).ok())
        .filter(|name| name.starts_with("irq/") && name.contains("-evgen"))
        .count())
}

/// Whether all handlers are threads on this kernel.
pub fn is_realtime() -> bool {
    uname().version().to_string_lossy().contains("PREEMPT_RT")
}
