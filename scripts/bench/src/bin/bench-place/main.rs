// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Takes measurements where there is a KVM. Prints one line of JSON for each on standard output, and
//! how it gets on on standard error.

mod boots;
mod memory;
mod monitors;
mod terminal;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

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
    /// What to measure: boot, memory
    #[arg(required = true, value_parser = ["boot", "memory"])]
    parts: Vec<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let images = Images(arguments.images);
    for part in arguments.parts {
        let results = match part.as_str() {
            "boot" => boots::measure(&images, arguments.rounds),
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
