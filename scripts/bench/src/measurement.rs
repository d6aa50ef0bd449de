// SPDX-License-Identifier: Apache-2.0 OR MIT

//! One measurement, as a line of JSON.

use serde::{Deserialize, Serialize};

/// What was measured on one subject, or why nothing was.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Measurement {
    /// What was measured: `boot`, `memory` …
    pub quantity: String,
    /// On what: `lockstorm`, `qemu-q35` …
    pub subject: String,
    /// Unit of the samples.
    pub unit: String,
    /// All that was measured, in the order of the runs.
    pub samples: Vec<f64>,
    /// Why there are no samples, or fewer than there should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

impl Measurement {
    /// A measurement without samples yet.
    pub fn new(quantity: &str, subject: &str, unit: &str) -> Self {
        Self {
            quantity: quantity.into(),
            subject: subject.into(),
            unit: unit.into(),
            samples: Vec::new(),
            failure: None,
        }
    }

    /// Whether this is the measurement of `quantity` on `subject`.
    pub fn is(&self, quantity: &str, subject: &str) -> bool {
        self.quantity == quantity && self.subject == subject
    }

    /// Prints it as a line, for whoever collects them.
    pub fn print(&self) -> Result<(), serde_json::Error> {
        println!("{}", serde_json::to_string(self)?);
        Ok(())
    }
}
