// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Takes measurements where there is a KVM. Prints one line of JSON for each on standard output, and
//! how it gets on on standard error.

mod boots;
mod control;
mod interrupts;
mod memory;
mod monitors;
mod terminal;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use interrupts::Effort;
use monitors::Images;

/// Measures virtual machine monitors; scripts/bench.sh runs it
#[derive(Debug, Parser)]
struct Arguments {
    /// Folder with vmlinux, bare.cpio, guest.cpio, lockstorm and alioth
    #[arg(long, value_name = "PATH")]
    images: PathBuf,
    /// Boots of each monitor
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: u32,
    /// A fifth of what takes long
    #[arg(long)]
    quick: bool,
    /// What to measure: boot, interrupts, memory
    #[arg(required = true, value_parser = ["boot", "interrupts", "memory"])]
    parts: Vec<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let images = Images(arguments.images);
    for part in arguments.parts {
        let results = match part.as_str() {
            "boot" => boots::measure(&images, arguments.rounds),
            "interrupts" => interrupts::measure(&images, effort(arguments.rounds, arguments.quick)),
            _ => memory::measure(&images),
        };
        for result in results {
            if let Err(error) = result.print() {
                eprintln!("bench-place: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn effort(rounds: u32, quick: bool) -> Effort {
    let part = if quick { 5 } else { 1 };
    Effort {
        // Each is two boots and some twenty seconds of work.
        rounds: rounds.div_ceil(2),
        singles: 1000 / part,
        batches: 100 / part,
        seconds: 5 / part,
    }
}
