// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The device as the host has it: whether it can be assigned, by what sysfs says, before anything is
//! opened. What is in the way is told together with the way out.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use thiserror::Error;

/// Where a PCI function is: domain, bus, device and function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PciAddress {
    domain: u32,
    bus: u8,
    device: u8,
    function: u8,
}

/// Not the address of a PCI function.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "a PCI address is DOMAIN:BUS:DEVICE.FUNCTION in hexadecimal, like 0000:3b:00.0; `lspci -D` lists them"
)]
pub struct MalformedAddress;

impl FromStr for PciAddress {
    type Err = MalformedAddress;

    /// Takes what `lspci` prints, with its domain or, for domain 0, without.
    fn from_str(text: &str) -> Result<Self, MalformedAddress> {
        let (place, function) = text.split_once('.').ok_or(MalformedAddress)?;
        let (domain, bus, device) = match place.split(':').collect::<Vec<_>>()[..] {
            [domain, bus, device] => (hexadecimal(domain, 4..=8)?, bus, device),
            [bus, device] => (0, bus, device),
            _ => return Err(MalformedAddress),
        };
        let address = Self {
            domain,
            bus: hexadecimal(bus, 2..=2)? as u8,
            device: hexadecimal(device, 2..=2)? as u8,
            function: hexadecimal(function, 1..=1)? as u8,
        };
        let exists = address.device < 32 && address.function < 8;
        exists.then_some(address).ok_or(MalformedAddress)
    }
}

fn hexadecimal(
    digits: &str,
    length: std::ops::RangeInclusive<usize>,
) -> Result<u32, MalformedAddress> {
    let valid = length.contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let number = u32::from_str_radix(digits, 16).ok();
    number.filter(|_| valid).ok_or(MalformedAddress)
}

/// As sysfs names it.
impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            domain,
            bus,
            device,
            function,
        } = self;
        write!(f, "{domain:04x}:{bus:02x}:{device:02x}.{function}")
    }
}

/// Why the host does not give the device away.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum HostDeviceError {
    /// There is none.
    #[error("there is no PCI device {0}; `lspci -D` lists those that there are")]
    NoDevice(PciAddress),
    /// No IOMMU watches it.
    #[error(
        "PCI device {0} is in no IOMMU group: turn the IOMMU (VT-d, AMD-Vi) on in the firmware, and \
         on Intel machines also with the kernel argument intel_iommu=on"
    )]
    NoGroup(PciAddress),
    /// The module is missing.
    #[error("the host's kernel has no vfio-pci: load it with `modprobe vfio-pci`")]
    NoVfioPci,
    /// It belongs to another driver, or to none.
    #[error(
        "PCI device {address} is bound to {}, and not to vfio-pci. To bind it, as root: \
         echo vfio-pci >/sys/bus/pci/devices/{address}/driver_override; {}\
         echo {address} >/sys/bus/pci/drivers_probe",
        .driver.as_ref().map_or("no driver".to_owned(), |driver| format!("the driver {driver}")),
        .driver.as_ref().map_or(String::new(), |_| format!(
            "echo {address} >/sys/bus/pci/devices/{address}/driver/unbind; "
        ))
    )]
    NotBound {
        /// Which device.
        address: PciAddress,
        /// Whose it is.
        driver: Option<String>,
    },
    /// Others in its group are in use by the host.
    #[error(
        "PCI device {address} cannot be assigned alone: IOMMU group {group} also has {}, in use by \
         the host. Bind these to vfio-pci too, or unbind their drivers",
        list(.others)
    )]
    NotViable {
        /// Which device.
        address: PciAddress,
        /// The group's number.
        group: u32,
        /// The other devices and their drivers.
        others: Vec<(String, String)>,
    },
}

fn list(others: &[(String, String)]) -> String {
    let named = others
        .iter()
        .map(|(device, driver)| format!("{device} ({driver})"));
    named.collect::<Vec<_>>().join(", ")
}

/// A device that is bound to vfio-pci, in a group of which the host uses nothing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HostDevice {
    pub address: PciAddress,
    /// Its folder in sysfs.
    pub folder: PathBuf,
    /// The number of its IOMMU group.
    pub group: u32,
}

impl HostDevice {
    /// Finds a device in `sysfs`, which is /sys but for tests.
    pub fn find(sysfs: &Path, address: PciAddress) -> Result<Self, HostDeviceError> {
        let bus = sysfs.join("bus/pci");
        let folder = bus.join("devices").join(address.to_string());
        if !folder.exists() {
            return Err(HostDeviceError::NoDevice(address));
        }
        let group = target(&folder.join("iommu_group")).and_then(|name| name.parse().ok());
        let group = group.ok_or(HostDeviceError::NoGroup(address))?;
        if !bus.join("drivers/vfio-pci").exists() {
            return Err(HostDeviceError::NoVfioPci);
        }
        let driver = target(&folder.join("driver"));
        if driver.as_deref() != Some("vfio-pci") {
            return Err(HostDeviceError::NotBound { address, driver });
        }
        let others = used_by_host(&folder.join("iommu_group/devices"));
        if !others.is_empty() {
            return Err(HostDeviceError::NotViable {
                address,
                group,
                others,
            });
        }
        Ok(Self {
            address,
            folder,
            group,
        })
    }
}

/// The devices of a group with drivers that use them for the host. The kernel judges likewise.
fn used_by_host(devices: &Path) -> Vec<(String, String)> {
    let devices = fs::read_dir(devices).into_iter().flatten().flatten();
    let mut used: Vec<_> = devices
        .filter_map(|device| {
            let driver = target(&device.path().join("driver"))?;
            let name = device.file_name().to_string_lossy().into_owned();
            (!["vfio-pci", "pci-stub", "pcieport"].contains(&driver.as_str()))
                .then_some((name, driver))
        })
        .collect();
    used.sort();
    used
}

/// The name of what a link points to.
fn target(link: &Path) -> Option<String> {
    let target = fs::read_link(link).ok()?;
    Some(target.file_name()?.to_string_lossy().into_owned())
}

#[cfg(test)]
#[path = "host_device_test.rs"]
mod tests;
