// SPDX-License-Identifier: Apache-2.0 OR MIT

//! MSI-X to the letter: each rule with its test, and the datasheet's conformance table made of them.
//!
//! A rule that a guest can check too is checked in a VM by `test-msix`, under the same name; that
//! program's own tests hold its list against the datasheet, as this file does.

mod board;
mod model;
mod rules;

use std::fmt::Write;
use std::panic::catch_unwind;

/// One row of the conformance table.
struct Rule {
    /// What must hold.
    rule: &'static str,
    /// Where it says so: a section of PCI Local Bus 3.0, or "AF" for the PCI ECN "Advanced
    /// Capabilities for Conventional PCI".
    section: &'static str,
    /// Panics if it does not hold.
    test: fn(),
    /// Whether `test-msix` checks it in a VM.
    in_vm: bool,
}

/// Makes a row, and a test of its own, of each rule.
macro_rules! rules {
    ($( $test:ident $section:literal $rule:literal $( + $vm:ident )?; )*) => {
        const RULES: &[Rule] = &[
            $( Rule {
                rule: $rule,
                section: $section,
                test: rules::$test,
                in_vm: rules!(@in_vm $( $vm )?),
            }, )*
        ];

        mod each {
            $( #[test] fn $test() { super::rules::$test(); } )*
        }
    };
    (@in_vm vm) => { true };
    (@in_vm) => { false };
}

rules! {
    reset_disables "6.8.2.3" "after reset MSI-X is disabled and the function not masked" + vm;
    reset_masks "6.8.2.9" "after reset every vector is masked" + vm;
    reset_clears_pending "6.8.2.10" "after reset nothing is pending" + vm;
    capability "6.8.2.4" "table and pending bits are where the capability says, and apart" + vm;
    table_size "6.8.2.3" "Table Size cannot be written" + vm;
    message_control_widths "6.8.2.3" "Message Control takes writes of 1, 2 and 4 bytes" + vm;
    table_widths "6.8.2" "table entries read back by 4 and by 8 bytes" + vm;
    pending_widths "6.8.2" "pending bits read by 4 and by 8 bytes" + vm;
    pending_is_read_only "6.8.2.10" "pending bits cannot be written" + vm;
    other_accesses "6.8.2" "any other access reads zero and changes nothing" + vm;
    vector_mask_pends "6.8.3.5" "an interrupt of a masked vector pends and is not sent" + vm;
    vector_unmask_sends "6.8.3.5" "unmasking a vector sends what pends, once" + vm;
    no_other_vector "6.8.3.5" "unmasking a vector sends nothing of another" + vm;
    function_mask_pends "6.8.3.5" "Function Mask masks every vector and leaves the mask bits alone" + vm;
    function_unmask_sends "6.8.3.5" "clearing Function Mask sends what pends, once each" + vm;
    disabled_pends "6.8.2.3" "with MSI-X disabled interrupts pend, and enabling sends them once" + vm;
    bus_master "6.2.2" "without bus mastering interrupts pend, and with it they are sent once";
    message_of_the_moment "6.8.3.5" "what is sent is what the entry holds when it is sent";
    masking_is_final "6.8.3.5" "once a vector is masked, nothing raised before comes after" + vm;
    under_fire "6.8.3.5" "updates under fire lose nothing, and send nothing stray or twice" + vm;
    reason_gone "6.8.3.5" "an interrupt whose reason is gone stops pending";
    all_vectors "6.8.2.3" "2048 vectors work, and those never raised take nothing from the host";
    reset_gives_back "AF" "function level reset leaves nothing set aside for the device" + vm;
    reset_restores_all "AF" "after function level reset the device can be set up anew" + vm;
}

const BEGIN: &str = "<!-- conformance table: generated, see src/conformance_test.rs -->\n";
const END: &str = "<!-- end of conformance table -->\n";

/// The table, with what the tests say now.
fn render() -> String {
    let mut table = "| Rule | Section | Device core | In a VM |\n|---|---|---|---|\n".to_owned();
    for rule in RULES {
        let core = if catch_unwind(rule.test).is_ok() {
            "ok"
        } else {
            "FAILED"
        };
        let vm = if rule.in_vm { "`test-msix`" } else { "–" };
        writeln!(
            table,
            "| {} | {} | {core} | {vm} |",
            rule.rule, rule.section
        )
        .unwrap();
    }
    table
}

#[test]
fn the_datasheet_has_the_conformance_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/SPEC.md");
    let datasheet = std::fs::read_to_string(path).unwrap();
    let (before, rest) = datasheet.split_once(BEGIN).expect("the table begins");
    let (table, after) = rest.split_once(END).expect("the table ends");
    let rendered = render();
    if std::env::var("LOCKSTORM_BLESS").is_ok_and(|bless| bless == "1") {
        std::fs::write(path, [before, BEGIN, &rendered, END, after].concat()).unwrap();
        return;
    }
    assert_eq!(
        table, rendered,
        "SPEC.md is not what the tests say: look, and then run them with LOCKSTORM_BLESS=1"
    );
}
