// SPDX-License-Identifier: Apache-2.0 OR MIT

//! A PCI function in sysfs: configuration space, drivers, reset.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Vendor and device ID of evgen, as sysfs shows them (datasheet, "On the bus").
const EVGEN: [&str; 2] = ["0x1234", "0x4556"];
pub(crate) const DEVICES: &str = "/sys/bus/pci/devices";

/// Offset of Command in configuration space.
pub const COMMAND: u64 = 0x04;
const CAPABILITY_POINTER: u64 = 0x34;
/// More capabilities than fit.
const MANY_CAPABILITIES: usize = 48;

/// Something that sysfs refuses.
#[derive(Debug, Error)]
pub enum FunctionError {
    /// The machine has no such device.
    #[error("there is no evgen device {index}: the machine has {count}, counted from 0")]
    Missing {
        /// Number of the device.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// A file cannot be read or written.
    #[error("cannot {what} {path}: {source}")]
    File {
        /// What was to be done.
        what: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A capability is not in the list.
    #[error("there is no capability {id:#x} in the function's configuration space")]
    NoCapability {
        /// Which one.
        id: u8,
    },
    /// No driver has the function.
    #[error("no driver is bound to {address}")]
    Unbound {
        /// The function.
        address: String,
    },
}

/// An evgen function.
pub struct Function {
    address: String,
    folder: PathBuf,
    config: File,
}

impl Function {
    /// The evgen function number `index`, by rising address: so the driver numbers them too.
    pub fn find(index: usize) -> Result<Self, FunctionError> {
        let devices = Path::new(DEVICES);
        let entries = fs::read_dir(devices).map_err(failed("list", devices))?;
        let mut folders: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|folder| is_evgen(folder))
            .collect();
        folders.sort();
        let count = folders.len();
        let folder = folders
            .into_iter()
            .nth(index)
            .ok_or(FunctionError::Missing { index, count })?;
        let path = folder.join("config");
        let config = OpenOptions::new().read(true).write(true).open(&path);
        Ok(Self {
            address: folder
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
            config: config.map_err(failed("open", &path))?,
            folder,
        })
    }

    /// The file behind which BAR `index` is.
    pub fn bar_path(&self, index: u8) -> PathBuf {
        self.folder.join(format!("resource{index}"))
    }

    /// Reads configuration space, in one access where its width is one of the bus's.
    pub fn read<const N: usize>(&self, offset: u64) -> Result<[u8; N], FunctionError> {
        let mut data = [0; N];
        let result = self.config.read_exact_at(&mut data, offset);
        result.map_err(failed("read", &self.folder.join("config")))?;
        Ok(data)
    }

    /// Writes configuration space, in one access where the width of `data` is one of the bus's.
    pub fn write(&self, offset: u64, data: &[u8]) -> Result<(), FunctionError> {
        let result = self.config.write_all_at(data, offset);
        result.map_err(failed("write", &self.folder.join("config")))
    }

    /// Where the capability with the ID `id` is.
    pub fn capability(&self, id: u8) -> Result<u64, FunctionError> {
        let [mut at] = self.read(CAPABILITY_POINTER)?;
        for _ in 0..MANY_CAPABILITIES {
            if at == 0 {
                break;
            }
            let [found, next] = self.read(at.into())?;
            if found == id {
                return Ok(at.into());
            }
            at = next;
        }
        Err(FunctionError::NoCapability { id })
    }

    /// Resets the function. If a driver has it, that one is not told.
    pub fn reset(&self) -> Result<(), FunctionError> {
        order(&self.folder.join("reset"), "1")
    }

    /// Takes the function from its driver. What this gives binds it again.
    pub fn unbind(&self) -> Result<Unbound<'_>, FunctionError> {
        let link = self.folder.join("driver");
        let driver = fs::canonicalize(&link).map_err(|_| FunctionError::Unbound {
            address: self.address.clone(),
        })?;
        order(&driver.join("unbind"), &self.address)?;
        Ok(Unbound {
            function: self,
            driver,
        })
    }
}

/// A function without a driver.
pub struct Unbound<'function> {
    function: &'function Function,
    driver: PathBuf,
}

impl Unbound<'_> {
    /// Resets the function.
    pub fn reset(&self) -> Result<(), FunctionError> {
        self.function.reset()
    }

    /// Gives it back to its driver.
    pub fn bind(self) -> Result<(), FunctionError> {
        order(&self.driver.join("bind"), &self.function.address)
    }
}

/// Writes `what` to a file of sysfs.
pub(crate) fn order(path: &Path, what: &str) -> Result<(), FunctionError> {
    // Not created if it is not there, as `fs::write` would.
    let file = OpenOptions::new().write(true).open(path);
    file.and_then(|file| file.write_all_at(what.as_bytes(), 0))
        .map_err(failed("write", path))
}

/// Whether this is the folder of an evgen function.
pub(crate) fn is_evgen(folder: &Path) -> bool {
    ["vendor", "device"]
        .into_iter()
        .zip(EVGEN)
        .all(|(file, id)| {
            fs::read_to_string(folder.join(file)).is_ok_and(|text| text.trim_end() == id)
        })
}

pub(crate) fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FunctionError {
    let path = path.to_owned();
    move |source| FunctionError::File { what, path, source }
}
