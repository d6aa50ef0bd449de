// SPDX-License-Identifier: Apache-2.0 OR MIT

//! A place on the PCI bus where an evgen device is, or was: taking the device from its driver, from the
//! bus, and giving it back.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use evgen_uapi::MAX_DEVICES;
use rustix::io::Errno;

use crate::device::{Device, DeviceError, Mode};
use crate::function::{DEVICES, FunctionError, failed, is_evgen, order};

const DRIVER: &str = "/sys/bus/pci/drivers/evgen";
/// One folder for each slot that a hot-plug driver looks after.
const SLOTS: &str = "/sys/bus/pci/slots";

/// A place on the bus.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    address: String,
}

impl Slot {
    /// The places of all evgen devices that there are now, by rising address.
    pub fn all() -> Result<Vec<Self>, FunctionError> {
        let devices = Path::new(DEVICES);
        let entries = fs::read_dir(devices).map_err(failed("list", devices))?;
        let mut slots: Vec<_> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|folder| is_evgen(folder))
            .filter_map(|folder| folder.file_name()?.to_str().map(str::to_owned))
            .map(|address| Self { address })
            .collect();
        slots.sort();
        Ok(slots)
    }

    /// The places in which devices can be put while the machine runs, whether or not there is one, by
    /// rising address.
    pub fn hot_pluggable() -> Result<Vec<Self>, FunctionError> {
        let folder = Path::new(SLOTS);
        let mut slots = Vec::new();
        for entry in fs::read_dir(folder).map_err(failed("list", folder))? {
            let path = entry
                .map_err(failed("list", folder))?
                .path()
                .join("address");
            let text = fs::read_to_string(&path).map_err(failed("read", &path))?;
            slots.push(Self {
                // Without the function.
                address: format!("{}.0", text.trim()),
            });
        }
        slots.sort();
        Ok(slots)
    }

    /// The address: domain, bus, device and function.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether the kernel lists a device there.
    pub fn is_listed(&self) -> bool {
        self.folder().exists()
    }

    /// Whether the driver is bound to the device.
    pub fn is_bound(&self) -> bool {
        Path::new(DRIVER).join(&self.address).exists()
    }

    /// Takes the device from its driver.
    pub fn unbind(&self) -> Result<(), FunctionError> {
        order(&Path::new(DRIVER).join("unbind"), &self.address)
    }

    /// Gives the device to the driver.
    pub fn bind(&self) -> Result<(), FunctionError> {
        order(&Path::new(DRIVER).join("bind"), &self.address)
    }

    /// Opens the file of the device; `None` if there is none.
    pub fn open(&self, mode: Mode) -> Result<Option<Device>, DeviceError> {
        // The number can be another one each time that the driver is bound.
        for index in 0..MAX_DEVICES {
            if let Some(device) = self.open_numbered(index, mode)? {
                return Ok(Some(device));
            }
        }
        Ok(None)
    }

    /// Opens the file with this number; `None` if it is not that of the device, or not there.
    pub fn open_numbered(&self, index: usize, mode: Mode) -> Result<Option<Device>, DeviceError> {
        match Device::open(index, mode) {
            Ok(device) => Ok(self.is_of(&device).then_some(device)),
            Err(DeviceError::Missing { .. }) => Ok(None),
            // It goes just now.
            Err(error) if matches!(error.errno(), Some(Errno::NODEV | Errno::NXIO)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn is_of(&self, device: &Device) -> bool {
        let path = format!("/proc/self/fdinfo/{}", device.as_fd().as_raw_fd());
        fs::read_to_string(path).is_ok_and(|text| address(&text) == Some(&self.address))
    }

    fn folder(&self) -> PathBuf {
        Path::new(DEVICES).join(&self.address)
    }
}

/// Whose device an open file is, as its `fdinfo` says.
fn address(fdinfo: &str) -> Option<&str> {
    let value = |line| str::strip_prefix(line, "evgen-device:");
    fdinfo.lines().find_map(value).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fdinfo_names_the_device() {
        let text = "pos:\t0\nflags:\t0100000\nevgen-device:\t0000:00:01.0\nevgen-sleeps:\t0\n";
        assert_eq!(address(text), Some("0000:00:01.0"));
        assert_eq!(address("pos:\t0\n"), None);
    }
}
