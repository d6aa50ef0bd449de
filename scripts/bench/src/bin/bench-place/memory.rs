// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Memory that lockstorm takes beside the guest's, and how much more with each device.

use std::fs;
use std::time::Duration;

use lockstorm_bench::MARKER;
use lockstorm_bench::measurement::Measurement;

use crate::monitors::{Images, MEMORY_MIB};
use crate::terminal::Program;

const LIMIT: Duration = Duration::from_secs(90);
/// So long the guest is left alone before anybody looks.
const SETTLE: Duration = Duration::from_millis(500);

/// Numbers of devices: the first is the machine as it comes, the others tell what each adds.
const DEVICES: [u8; 5] = [1, 9, 17, 25, 31];

/// Measures with a guest that leaves its devices alone, and with one whose driver has them set up.
pub fn measure(images: &Images) -> Vec<Measurement> {
    let mut results = Vec::new();
    for (kind, driver) in [("no driver", false), ("driver", true)] {
        for devices in DEVICES {
            let subject = format!("{devices} devices, {kind}");
            let mut result = Measurement::new("memory", &subject, "KiB");
            match resident(images, devices, driver) {
                Ok(kib) => {
                    eprintln!("memory beyond the guest's, {subject}: {kib} KiB");
                    result.samples.push(kib as f64);
                }
                Err(error) => {
                    eprintln!("memory, {subject}: {error}");
                    result.failure = Some(error);
                }
            }
            results.push(result);
        }
    }
    results
}

/// KiB of the running machine's memory that are resident and not the guest's.
fn resident(images: &Images, devices: u8, driver: bool) -> Result<u64, String> {
    let mut command = if driver {
        // The marker comes from the guest's shell only when init has loaded the driver.
        let mut command = images.lockstorm(&images.guest(), devices);
        let script = format!("echo '{}'; sleep 600", MARKER);
        command.args(["--run", &script]);
        command
    } else {
        let mut command = images.lockstorm(&images.bare(), devices);
        command.args(["--run", "true"]);
        command
    };
    let mut program = Program::start(&mut command).map_err(|error| error.to_string())?;
    program
        .wait_for(MARKER, LIMIT)
        .map_err(|error| error.to_string())?;
    std::thread::sleep(SETTLE);
    let path = format!("/proc/{}/smaps", program.id());
    let maps = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    beside_guest(&maps, MEMORY_MIB << 10)
}

/// What an allocation next to the guest's memory may have, for the kernel to show the two as one
/// mapping.
const NEIGHBOUR_MAX_KIB: u64 = 4096;

/// Adds up what is resident in the mappings of `smaps`, less the guest's, which is known by its size.
/// A neighbour that the kernel shows with it counts as if all of it were resident.
fn beside_guest(smaps: &str, guest_kib: u64) -> Result<u64, String> {
    let (mut guests, mut sum, mut size) = (0, 0, 0);
    let guest = guest_kib..guest_kib + NEIGHBOUR_MAX_KIB;
    for line in smaps.lines() {
        if let Some(kib) = kib(line, "Size:") {
            size = kib;
        } else if let Some(kib) = kib(line, "Rss:") {
            if guest.contains(&size) {
                guests += 1;
                sum += size - guest_kib;
            } else {
                sum += kib;
            }
        }
    }
    match guests {
        1 => Ok(sum),
        _ => Err(format!(
            "{guests} mappings have the size of the guest's memory, and one should"
        )),
    }
}

fn kib(line: &str, key: &str) -> Option<u64> {
    let value = line.strip_prefix(key)?.trim();
    value.strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
00400000-00500000 r-xp 00000000 00:02 7   /run/lockstorm
Size:               1024 kB
KernelPageSize:        4 kB
Rss:                 700 kB
Pss:                 350 kB
7f0000000000-7f0020000000 rw-p 00000000 00:00 0
Size:             524288 kB
Rss:              123456 kB
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0   [stack]
Size:                132 kB
Rss:                  12 kB
";

    #[test]
    fn guest_memory_does_not_count() {
        assert_eq!(beside_guest(SMAPS, 524_288), Ok(712));
        assert_eq!(beside_guest(SMAPS, 524_284), Ok(716));
        assert!(beside_guest(SMAPS, 524_292).is_err());
        assert!(beside_guest(&[SMAPS, SMAPS].concat(), 524_288).is_err());
    }
}
