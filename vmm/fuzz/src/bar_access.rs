// SPDX-License-Identifier: Apache-2.0 OR MIT

use arbitrary::Unstructured;

use crate::device::{Machine, Step, steps};

/// Registers, MSI-X and the host's commands in any order, while time passes and faults are at work.
pub fn bar_access(data: &[u8]) {
    let mut plan = Unstructured::new(data);
    let Ok(mut machine) = Machine::arbitrary(&mut plan) else {
        return;
    };
    for step in steps::<Step>(&mut plan) {
        machine.take(&step);
    }
}
