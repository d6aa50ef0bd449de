// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Devices as users name them.

use std::str::FromStr;

use crate::device::Device;

/// Which devices to take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Devices {
    /// Every one there is.
    All,
    /// These.
    Some(Vec<usize>),
}

impl Devices {
    /// Their numbers.
    pub fn indices(&self) -> Vec<usize> {
        match self {
            Self::All => Device::all(),
            Self::Some(indices) => indices.clone(),
        }
    }
}

impl FromStr for Devices {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        let mut devices = Vec::new();
        for number in text.split(',') {
            let device = number
                .parse()
                .map_err(|_| format!("{number:?} is not the number of a device"))?;
            if devices.contains(&device) {
                return Err(format!("device {device} is named twice"));
            }
            devices.push(device);
        }
        Ok(Self::Some(devices))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_a_list_or_all() {
        let some = |devices: &[usize]| Some(Devices::Some(devices.to_vec()));
        for (text, expected) in [
            ("all", Some(Devices::All)),
            ("0", some(&[0])),
            ("1,0", some(&[1, 0])),
            ("", None),
            ("0,", None),
            ("0,0", None),
            ("evgen0", None),
        ] {
            assert_eq!(text.parse().ok(), expected, "{text}");
        }
    }
}
