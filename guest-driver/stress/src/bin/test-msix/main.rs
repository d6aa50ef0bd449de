// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Checks in a VM, through a guest's eyes, that an evgen device keeps to the rules of MSI-X.

mod bar;
mod bench;
mod masking;
mod reset;
mod structures;
mod under_fire;

use std::process::ExitCode;

use clap::Parser;
use evgen_stress::ktap::{self, Outcome};
use evgen_stress::status;

use bench::{Bench, Failure};
use reset::AfterReset;

/// Checks the MSI-X conformance of evgen device N, and prints a line of KTAP for each rule.
///
/// The rules are those of the datasheet's conformance table. The device's table, pending bits and
/// configuration space are used by hand, beside its driver, so nothing else may use the device
/// meanwhile. The driver is unbound and bound again, and the device is reset.
#[derive(Parser)]
#[command(
    name = "test-msix",
    after_help = "Examples:
  test-msix          device 0
  test-msix 1        device 1

Exit status: 0 every rule holds, 2 wrong arguments, 42 one does not, 69 no such device."
)]
struct Arguments {
    /// Number of the device: 0 for /dev/evgen0
    #[arg(value_name = "N", default_value_t = 0)]
    device: usize,
}

type Check = fn(&mut Bench, &AfterReset) -> Result<(), Failure>;

/// The rules of the conformance table that a guest can check.
const RULES: [(&str, Check); 20] = [
    (
        "after reset MSI-X is disabled and the function not masked",
        reset::disables,
    ),
    ("after reset every vector is masked", reset::masks),
    ("after reset nothing is pending", reset::clears_pending),
    (
        "function level reset leaves nothing set aside for the device",
        reset::gives_back,
    ),
    (
        "after function level reset the device can be set up anew",
        reset::restores_all,
    ),
    (
        "table and pending bits are where the capability says, and apart",
        structures::capability,
    ),
    ("Table Size cannot be written", structures::table_size),
    (
        "Message Control takes writes of 1, 2 and 4 bytes",
        structures::message_control_widths,
    ),
    (
        "table entries read back by 4 and by 8 bytes",
        structures::table_widths,
    ),
    (
        "pending bits read by 4 and by 8 bytes",
        structures::pending_widths,
    ),
    (
        "pending bits cannot be written",
        structures::pending_is_read_only,
    ),
    (
        "any other access reads zero and changes nothing",
        structures::other_accesses,
    ),
    (
        "an interrupt of a masked vector pends and is not sent",
        masking::vector_mask_pends,
    ),
    (
        "unmasking a vector sends what pends, once",
        masking::vector_unmask_sends,
    ),
    (
        "unmasking a vector sends nothing of another",
        masking::no_other_vector,
    ),
    (
        "Function Mask masks every vector and leaves the mask bits alone",
        masking::function_mask_pends,
    ),
    (
        "clearing Function Mask sends what pends, once each",
        masking::function_unmask_sends,
    ),
    (
        "with MSI-X disabled interrupts pend, and enabling sends them once",
        masking::disabled_pends,
    ),
    (
        "once a vector is masked, nothing raised before comes after",
        under_fire::masking_is_final,
    ),
    (
        "updates under fire lose nothing, and send nothing stray or twice",
        under_fire::updates,
    ),
];

fn main() -> ExitCode {
    let index = Arguments::parse().device;
    ExitCode::from(match check_all(index) {
        Ok(true) => status::OK,
        Ok(false) => status::FINDING,
        Err(error) => {
            eprintln!("test-msix: {error}");
            error.status()
        }
    })
}

/// Whether all rules hold.
fn check_all(index: usize) -> Result<bool, Failure> {
    let mut bench = Bench::new(index)?;
    let after_reset = reset::reset(&mut bench)?;
    let good = ktap::check_all(&RULES, |check| {
        bench.restore()?;
        check(&mut bench, &after_reset)?;
        Ok::<_, Failure>(Outcome::Good)
    });
    bench.restore()?;
    Ok(good)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::RULES;

    /// The datasheet says which rules this program checks.
    #[test]
    fn these_are_the_rules_of_the_conformance_table() {
        let datasheet = include_str!("../../../../../device-model/SPEC.md");
        let listed: BTreeSet<&str> = datasheet
            .lines()
            .filter_map(|line| line.strip_suffix(" | `test-msix` |"))
            .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next())
            .collect();
        let checked: BTreeSet<&str> = RULES.iter().map(|(rule, _)| *rule).collect();
        assert_eq!(checked, listed);
        assert_eq!(checked.len(), RULES.len());
    }
}
