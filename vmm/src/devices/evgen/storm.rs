// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What a user asks for when asking for a storm.

use lockstorm_device_model::{Storm, StormError};
use serde::{Deserialize, Serialize};

/// A storm on some or all devices.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StormRequest {
    /// Events per second on each ring: 1 to 10,000,000.
    pub rate: u32,
    /// Events that come at once on each ring: 1 to 4096. One if not given.
    #[serde(default = "one")]
    pub burst: u32,
    /// How long it lasts, in seconds: 1 to 86,400.
    pub seconds: u32,
    /// Seed of the payloads. Device `n` gets `seed + n`, so that no two make the same events.
    /// Zero if not given.
    #[serde(default)]
    pub seed: u64,
    /// Devices; all if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<Vec<usize>>,
    /// Rings of each of them; all if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rings: Option<Vec<u8>>,
}

impl StormRequest {
    /// The storm that is asked for.
    pub(super) fn to_storm(&self) -> Result<Storm, StormError> {
        let Self {
            rate,
            burst,
            seconds,
            seed,
            ..
        } = self;
        let vectors = self
            .rings
            .as_ref()
            .map_or(String::new(), |rings| format!("vectors = {rings:?}\n"));
        Storm::from_toml(&format!(
            "seed = {seed}\n[[phase]]\npattern = 'burst'\nrate = {rate}\nburst = {burst}\n\
             duration_ms = {}\n{vectors}",
            u64::from(*seconds) * 1000
        ))
    }
}

fn one() -> u32 {
    1
}
