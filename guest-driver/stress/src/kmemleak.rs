// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Kernels that look for leaks themselves: memory to which no pointer is left
//! (Documentation/dev-tools/kmemleak.rst).

use std::fs;
use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

use thiserror::Error;

const FILE: &str = "/sys/kernel/debug/kmemleak";
/// What is younger than 5 s is not looked at.
const AGE: Duration = Duration::from_secs(6);
/// What is on its way from one list to another may be in none; so is it never found twice.
const SCANS: usize = 2;

/// The kernel's leak detector cannot be asked.
#[derive(Debug, Error)]
#[error("cannot ask {FILE} to {what}: {source}")]
pub struct KmemleakError {
    what: &'static str,
    source: io::Error,
}

/// Whether this kernel looks for leaks.
pub fn is_there() -> bool {
    Path::new(FILE).exists()
}

/// Forgets the leaks that there are.
pub fn forget() -> Result<(), KmemleakError> {
    order("clear")
}

/// What the kernel tells of the leaks since [`forget`]; nothing if there is none. Takes a while.
pub fn leaks() -> Result<String, KmemleakError> {
    for _ in 0..SCANS {
        thread::sleep(AGE);
        order("scan")?;
    }
    fs::read_to_string(FILE).map_err(|source| KmemleakError {
        what: "tell of leaks",
        source,
    })
}

fn order(what: &'static str) -> Result<(), KmemleakError> {
    fs::write(FILE, what).map_err(|source| KmemleakError { what, source })
}
