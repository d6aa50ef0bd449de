// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Shuffling: actors and interrupts move between CPUs.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use fastrand::Rng;
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

use super::{Pause, cpus};
use crate::setting::Setting;

/// The devices that the driver is bound to.
const DEVICES: &str = "/sys/bus/pci/drivers/evgen";

/// Moves each actor, and each interrupt of the devices, to some CPU or, now and then, lets it go
/// anywhere. How often?
pub fn shuffle(actors: &[Pid], interval: Duration, mut rng: Rng, pause: &Pause) -> io::Result<u64> {
    let cpus = cpus::present();
    let interrupts = interrupts()?;
    let mut count = 0;
    while pause.wait(interval) {
        for &actor in actors {
            let some = [cpus[rng.usize(..cpus.len())]];
            let allowed = if rng.bool() { &some[..] } else { &cpus[..] };
            for thread in threads(actor) {
                // The CPU may be away just now, the thread for ever.
                let _ = sched_setaffinity(Some(thread), &set(allowed));
            }
        }
        for interrupt in &interrupts {
            let cpu = cpus[rng.usize(..cpus.len())];
            let _ = interrupt.set(&cpu.to_string());
        }
        count += 1;
    }
    Ok(count)
}

fn set(cpus: &[usize]) -> CpuSet {
    let mut set = CpuSet::new();
    cpus.iter().for_each(|&cpu| set.set(cpu));
    set
}

fn threads(process: Pid) -> Vec<Pid> {
    let folder = format!("/proc/{}/task", process.as_raw_nonzero());
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let thread = |name: &str| Pid::from_raw(name.parse().ok()?);
    entries
        .filter_map(|entry| thread(entry.file_name().to_str()?))
        .collect()
}

/// Where the interrupts of all devices go.
fn interrupts() -> io::Result<Vec<Setting>> {
    let mut settings = Vec::new();
    for device in fs::read_dir(DEVICES)? {
        // Beside the devices there are files of the driver.
        let Ok(numbers) = fs::read_dir(device?.path().join("msi_irqs")) else {
            continue;
        };
        for number in numbers {
            let path = Path::new("/proc/irq")
                .join(number?.file_name())
                .join("smp_affinity_list");
            // One that nobody has asked for cannot be moved.
            settings.extend(Setting::keep(path));
        }
    }
    Ok(settings)
}
