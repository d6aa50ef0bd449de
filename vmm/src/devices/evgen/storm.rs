// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What a user asks for when asking for a storm.

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

fn one() -> u32 {
    1
}
