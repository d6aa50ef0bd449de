// SPDX-License-Identifier: Apache-2.0 OR MIT

use arbitrary::{Arbitrary, Unstructured};
use lockstorm_device_model::Config;
use lockstorm_device_model::abi::registers::Register;

use crate::device::{Machine, Step, steps};
use crate::driver::Driver;

/// What goes on around a driver that does everything right.
#[derive(Arbitrary, Debug)]
enum Turn {
    On {
        ring: u8,
        event_index: bool,
    },
    Off(u8),
    Drain(u8),
    Run(bool),
    Reset,
    Coalesce {
        ring: u8,
        count: u8,
        time: u8,
    },
    Vector {
        ring: u8,
        vector: u8,
    },
    Acknowledge(u8),
    ClearCause,
    Doorbell {
        ring: u8,
        count: u16,
    },
    Inject {
        ring: u8,
        count: u8,
        acknowledge: bool,
    },
    Withhold {
        ring: u8,
        count: u8,
    },
    Fault {
        ring: u8,
        fault: u8,
        count: u8,
    },
    Hold {
        vector: u8,
        held: bool,
    },
    HostReset,
    Storm {
        which: u8,
        instance: u8,
    },
    StopStorm,
    Pass {
        time: u16,
        shift: u8,
    },
}

/// Storms and faults on a device whose driver does everything right: what it takes out of its rings
/// is what the device says that it put in, no ring ends in the error state, and every event that was
/// asked for is accounted for.
pub fn storm_run(data: &[u8]) {
    let mut plan = Unstructured::new(data);
    let Ok(rings) = plan.int_in_range(1..=8_u8) else {
        return;
    };
    let mut machine = Machine::new(Config {
        rings,
        ..Config::default()
    });
    machine.begin();
    let mut drivers: Vec<_> = (0..rings.into()).map(Driver::new).collect();
    for driver in &mut drivers {
        driver.turn_on(&mut machine, false);
    }
    let mut asked_for = 0;
    for turn in steps::<Turn>(&mut plan) {
        let before = of_storm(&machine);
        asked_for += asks_for(&machine, &turn);
        take(&mut machine, &mut drivers, &turn);
        if !matches!(turn, Turn::Storm { .. }) {
            asked_for += of_storm(&machine) - before;
        }
        for driver in &mut drivers {
            driver.look(&mut machine);
        }
    }
    // All faults end, and then it must add up.
    machine.take(&Step::HostReset);
    for driver in &mut drivers {
        driver.look(&mut machine);
    }
    let stats = machine.device.stats();
    let generated: u64 = stats.rings.iter().map(|ring| ring.generated).sum();
    assert_eq!(generated, asked_for);
}

/// Events that the storm that runs, or the last one that did, has made.
fn of_storm(machine: &Machine) -> u64 {
    machine.device.stats().storm.map_or(0, |storm| storm.made)
}

/// Events that the device has to make because of a turn. What rings at nobody's door makes none.
fn asks_for(machine: &Machine, turn: &Turn) -> u64 {
    let known = |ring: u8| ring % 9 < machine.device.config().rings;
    let gone = machine.read(Register::Health, 0) == u64::MAX;
    match *turn {
        Turn::Inject { ring, count, .. } if known(ring) => count.into(),
        Turn::Doorbell { ring, count } if known(ring) && !gone => count.into(),
        _ => 0,
    }
}

fn take(machine: &mut Machine, drivers: &mut [Driver], turn: &Turn) {
    let ring = |ring: u8| usize::from(ring) % drivers.len();
    let write = |machine: &mut Machine, which: Register, of: u8, value: u64| {
        machine.write(which, ring(of), value);
    };
    match *turn {
        Turn::On {
            ring: of,
            event_index,
        } => {
            drivers[ring(of)].turn_on(machine, event_index);
        }
        Turn::Off(of) => drivers[ring(of)].turn_off(machine),
        Turn::Drain(of) => drivers[ring(of)].drain(machine),
        Turn::Run(on) => write(machine, Register::Control, 0, on.into()),
        Turn::Reset => write(machine, Register::Control, 0, 2),
        Turn::Coalesce { ring, count, time } => {
            write(machine, Register::RingCoalesceCount, ring, count.into());
            write(machine, Register::RingCoalesceTime, ring, time.into());
        }
        Turn::Vector { ring, vector } => write(machine, Register::RingVector, ring, vector.into()),
        Turn::Acknowledge(ring) => write(machine, Register::RingAcknowledge, ring, 0),
        Turn::ClearCause => write(machine, Register::StatusCause, 0, u32::MAX.into()),
        Turn::Doorbell { ring, count } => machine.take(&Step::Doorbell {
            ring,
            count: count.into(),
        }),
        Turn::Inject {
            ring,
            count,
            acknowledge,
        } => machine.take(&Step::Inject {
            ring,
            count,
            acknowledge,
        }),
        Turn::Withhold { ring, count } => machine.take(&Step::Withhold { ring, count }),
        Turn::Fault { ring, fault, count } => machine.take(&Step::Fault {
            ring,
            fault,
            count: count.into(),
        }),
        Turn::Hold { vector, held } => machine.take(&Step::Hold {
            vector: vector.into(),
            held,
        }),
        Turn::HostReset => machine.take(&Step::HostReset),
        Turn::Storm { which, instance } => machine.take(&Step::Storm { which, instance }),
        Turn::StopStorm => machine.take(&Step::StopStorm),
        Turn::Pass { time, shift } => machine.take(&Step::Pass { time, shift }),
    }
}
