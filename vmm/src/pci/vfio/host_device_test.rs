// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Devices in a sysfs made for the test.

use std::os::unix::fs::symlink;

use super::*;

/// A folder that looks like /sys, and goes with the test.
struct Sysfs(PathBuf);

impl Sysfs {
    /// Devices as (address, IOMMU group, driver).
    fn with(name: &str, devices: &[(&str, Option<u32>, Option<&str>)]) -> Self {
        let root = std::env::temp_dir().join(format!("lockstorm-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        for (address, group, driver) in devices {
            let folder = root.join("bus/pci/devices").join(address);
            fs::create_dir_all(&folder).unwrap();
            if let Some(driver) = driver {
                let driver = root.join("bus/pci/drivers").join(driver);
                fs::create_dir_all(&driver).unwrap();
                symlink(driver, folder.join("driver")).unwrap();
            }
            if let Some(group) = group {
                let group = root.join(format!("kernel/iommu_groups/{group}"));
                fs::create_dir_all(group.join("devices")).unwrap();
                symlink(&folder, group.join("devices").join(address)).unwrap();
                symlink(group, folder.join("iommu_group")).unwrap();
            }
        }
        Self(root)
    }
}

impl Drop for Sysfs {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn addresses() {
    for (text, expected) in [
        ("0000:3b:00.0", Some("0000:3b:00.0")),
        ("3b:1f.7", Some("0000:3b:1f.7")),
        ("0001:FF:0a.1", Some("0001:ff:0a.1")),
        ("00010000:00:00.0", Some("10000:00:00.0")),
        ("", None),
        ("0000:3b:00", None),
        ("0000:3b:00.8", None),
        ("0000:3b:20.0", None),
        ("000:3b:00.0", None),
        ("0000:3b:00.0 ", None),
        ("0000:3b:0.0", None),
        ("+000:3b:00.0", None),
        ("0000:3b:00.00", None),
        ("0:0000:3b:00.0", None),
        ("../../3b:00.0", None),
    ] {
        let address = text.parse::<PciAddress>().ok();
        let shown = address.map(|address| address.to_string());
        assert_eq!(shown.as_deref(), expected, "{text}");
    }
}

#[test]
fn what_is_in_the_way_is_named() {
    let sysfs = Sysfs::with(
        "vfio-errors",
        &[
            ("0000:00:01.0", None, Some("vfio-pci")),
            ("0000:00:02.0", Some(2), Some("nvme")),
            ("0000:00:03.0", Some(3), None),
            ("0000:00:04.0", Some(4), Some("vfio-pci")),
            ("0000:00:04.1", Some(4), Some("snd_hda_intel")),
            ("0000:00:04.2", Some(4), Some("i801_smbus")),
            ("0000:00:04.3", Some(4), Some("pcieport")),
            ("0000:00:05.0", Some(5), Some("vfio-pci")),
            ("0000:00:05.1", Some(5), Some("vfio-pci")),
            ("0000:00:05.2", Some(5), None),
        ],
    );
    for (address, expected) in [
        (
            "00:09.0",
            Err(&["no PCI device 0000:00:09.0", "lspci -D"][..]),
        ),
        ("00:01.0", Err(&["0000:00:01.0", "IOMMU", "intel_iommu=on"])),
        (
            "00:02.0",
            Err(&[
                "the driver nvme",
                "echo vfio-pci >/sys/bus/pci/devices/0000:00:02.0/driver_override",
                "driver/unbind",
                "drivers_probe",
            ]),
        ),
        ("00:03.0", Err(&["bound to no driver", "drivers_probe"])),
        (
            "00:04.0",
            Err(&["group 4 also has 0000:00:04.1 (snd_hda_intel), 0000:00:04.2 (i801_smbus), in"]),
        ),
        ("00:05.0", Ok(5)),
    ] {
        let address = address.parse().unwrap();
        match (HostDevice::find(&sysfs.0, address), expected) {
            (Ok(device), Ok(group)) => assert_eq!(device.group, group),
            (Err(error), Err(parts)) => {
                let text = error.to_string();
                for part in parts {
                    assert!(text.contains(part), "{address}: {part} is not in: {text}");
                }
            }
            (found, _) => panic!("{address}: {found:?}"),
        }
    }
    // Nothing is to be unbound where there is no driver.
    let unbound = HostDevice::find(&sysfs.0, "00:03.0".parse().unwrap()).unwrap_err();
    assert!(!unbound.to_string().contains("unbind"), "{unbound}");
}

#[test]
fn without_the_module_nothing_can_be_bound_to_it() {
    let sysfs = Sysfs::with("vfio-module", &[("0000:00:02.0", Some(2), Some("nvme"))]);
    assert_eq!(
        HostDevice::find(&sysfs.0, "00:02.0".parse().unwrap()),
        Err(HostDeviceError::NoVfioPci)
    );
}
