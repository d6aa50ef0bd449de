// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What the host decides about a device.

use lockstorm_abi::identity::{MAX_RING_SIZE, MAX_RINGS, MAX_VECTORS, vector_count};
use thiserror::Error;

use crate::ring::Ring;

/// What the host decides about a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Event rings: 1 to 8.
    pub rings: u8,
    /// Largest ring that a driver may set up, in descriptors: a power of two from 2 to 1024.
    pub ring_size_max: u16,
    /// MSI-X vectors: one more than rings, up to 2048. If not given, one more than rings.
    pub vectors: Option<u16>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rings: 4,
            ring_size_max: MAX_RING_SIZE,
            vectors: None,
        }
    }
}

/// A device that cannot be made.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ConfigError {
    /// Too few or too many rings.
    #[error("a device with {0} rings: must be 1 to {MAX_RINGS}")]
    Rings(u8),
    /// Not a possible size.
    #[error("rings of at most {0} descriptors: must be a power of two from 2 to {MAX_RING_SIZE}")]
    RingSize(u16),
    /// Too few or too many vectors.
    #[error("{vectors} vectors for {rings} rings: must be {least} to {MAX_VECTORS}", least = rings + 1)]
    Vectors {
        /// What was asked for.
        vectors: u16,
        /// The device's rings.
        rings: u8,
    },
}

impl Config {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.rings == 0 || usize::from(self.rings) > MAX_RINGS {
            return Err(ConfigError::Rings(self.rings));
        }
        let size = self.ring_size_max;
        if !(2..=MAX_RING_SIZE).contains(&size) || !size.is_power_of_two() {
            return Err(ConfigError::RingSize(size));
        }
        let least = vector_count(self.rings.into());
        match self.vectors {
            Some(vectors) if !(least..=MAX_VECTORS).contains(&vectors.into()) => {
                Err(ConfigError::Vectors {
                    vectors,
                    rings: self.rings,
                })
            }
            _ => Ok(()),
        }
    }

    /// The number of MSI-X vectors.
    pub(super) fn vector_count(&self) -> usize {
        self.vectors
            .map_or(vector_count(self.rings.into()), usize::from)
    }

    /// The rings as at power-on.
    pub(super) fn make_rings(&self) -> Vec<Ring> {
        (0..u16::from(self.rings))
            .map(|index| Ring::new(index, self.ring_size_max))
            .collect()
    }
}
