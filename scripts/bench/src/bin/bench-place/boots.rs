// SPDX-License-Identifier: Apache-2.0 OR MIT

//! From the start of a virtual machine monitor to the first program in its guest.

use std::time::Duration;

use lockstorm_bench::MARKER;
use lockstorm_bench::measurement::Measurement;

use crate::monitors::Images;
use crate::terminal::Program;

/// No boot takes that long, even of one machine in another.
const LIMIT: Duration = Duration::from_secs(90);

/// Boots the guest with every monitor in turn, `rounds` times, so that whatever slows the machine
/// down for a while slows them all.
pub fn measure(images: &Images, rounds: u32) -> Vec<Measurement> {
    let mut results: Vec<_> = images
        .monitors()
        .iter()
        .map(|(name, _)| Measurement::new("boot", name, "s"))
        .collect();
    for round in 1..=rounds {
        for ((name, mut command), result) in images.monitors().into_iter().zip(&mut results) {
            // One that cannot do it will not learn it.
            if result.failure.is_some() {
                continue;
            }
            let took = Program::start(&mut command)
                .and_then(|mut program| program.wait_for(MARKER, LIMIT));
            match took {
                Ok(took) => {
                    eprintln!(
                        "boot {round} of {rounds}: {name} {:.3} s",
                        took.as_secs_f64()
                    );
                    result.samples.push(took.as_secs_f64());
                }
                Err(error) => {
                    eprintln!("boot {round} of {rounds}: {name}: {error}");
                    result.failure = Some(error.to_string());
                }
            }
        }
    }
    results
}
