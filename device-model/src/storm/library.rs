// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The storms that come with the device, by name.

use super::{Storm, StormError};

/// A storm that comes with the device.
#[derive(Clone, Copy, Debug)]
pub struct Named {
    /// Its name: that of its file in `device-model/storms/`.
    pub name: &'static str,
    /// The file.
    pub text: &'static str,
}

macro_rules! library {
    ($( $name:literal )*) => {
        /// The storms that come with the device, from the gentle to the rough.
        pub const LIBRARY: &[Named] = &[$(
            Named {
                name: $name,
                text: include_str!(concat!("../../storms/", $name, ".toml")),
            },
        )*];
    };
}

library! {
    "calm"
    "steady"
    "round-robin"
    "poisson"
    "ramp"
    "bursts"
    "all-at-once"
    "thundering-herd"
    "everything-goes-wrong"
}

impl Named {
    /// Reads the file.
    pub fn storm(&self) -> Result<Storm, StormError> {
        Storm::from_toml(self.text)
    }
}

impl Storm {
    /// The storm with this name in [`LIBRARY`].
    pub fn named(name: &str) -> Option<Self> {
        let named = LIBRARY.iter().find(|named| named.name == name)?;
        named.storm().ok()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::fault::Fault;

    #[test]
    fn every_file_is_listed_is_sound_and_says_what_it_is_good_for() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("storms");
        let files: BTreeSet<String> = std::fs::read_dir(folder)
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
            .filter_map(|name| name.strip_suffix(".toml").map(str::to_owned))
            .collect();
        let listed: BTreeSet<String> = LIBRARY.iter().map(|named| named.name.into()).collect();
        assert_eq!(files, listed);
        assert_eq!(listed.len(), LIBRARY.len(), "a name is there twice");
        for named in LIBRARY {
            let storm = named
                .storm()
                .unwrap_or_else(|e| panic!("{}: {e}", named.name));
            assert!(!storm.description().is_empty(), "{}", named.name);
            assert_eq!(Storm::named(named.name), Some(storm.clone()));
            for rings in 1..=8 {
                // The small device of a test can have them all.
                assert!(storm.outline(rings).is_ok(), "{} on {rings}", named.name);
            }
        }
        assert_eq!(Storm::named("no such storm"), None);
    }

    #[test]
    fn every_fault_goes_wrong_where_everything_does() {
        let storm = Storm::named("everything-goes-wrong").unwrap();
        let faults = storm.phases.iter().flat_map(|phase| &phase.faults);
        let faults: Vec<Fault> = faults.map(|&(fault, _)| fault).collect();
        for fault in Fault::ALL {
            assert!(faults.contains(fault), "{fault}");
        }
    }
}
