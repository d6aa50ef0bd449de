// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What requests do to devices and run control, without KVM.

use std::time::{Duration, Instant};

use lockstorm_device_model::Config;

use super::*;
use crate::control::request::{Events, Reset};
use crate::devices::evgen;
use crate::machine::clock::Clock;

fn commands(devices: usize) -> Commands {
    let run_control = RunControl::new(Clock::new(Instant::now())).unwrap();
    let evgen = evgen::without_kvm(devices, Config::default(), run_control.clock());
    let evgen = Arc::new(evgen);
    let hot_plug = hot_plug::with_slots(Arc::clone(&evgen), 2);
    Commands::new(
        evgen,
        Box::new(hot_plug),
        Arc::new(run_control),
        Arc::default(),
    )
}

fn done(commands: &Commands, request: &Request) -> Reply {
    let reply = commands.handle(request);
    assert!(reply.ok, "{request:?}: {reply:?}");
    reply
}

fn inject(count: u32) -> Request {
    Request::Inject(Inject {
        device: 1,
        ring: 2,
        count,
        kind: 7,
        acknowledge: true,
    })
}

fn stats(commands: &Commands) -> MachineStats {
    done(commands, &Request::Stats {}).stats.unwrap()
}

#[test]
fn events_are_made_counted_and_streamed() {
    let commands = commands(2);
    commands.observe(&|device| device == 1);
    done(&commands, &inject(3));
    let ring = stats(&commands).devices[1].rings[2];
    // No driver has set up a ring.
    assert_eq!((ring.generated, ring.dropped, ring.adds_up()), (3, 3, true));
    let lines = commands.take_events();
    assert_eq!(lines.len(), 3);
    let event = &lines[2].event;
    assert_eq!((event.device, event.ring, event.kind), (1, 2, 7));
    assert_eq!((event.sequence, event.flags), (2, 1));
    assert_eq!(event.payload, "0".repeat(64));
    let metrics = done(&commands, &Request::Metrics {}).metrics.unwrap();
    let line = "lockstorm_events_dropped_total{device=\"1\",ring=\"2\"} 3\n";
    assert!(metrics.contains(line), "{metrics}");
}

#[test]
fn a_storm_starts_stops_and_tells_how_far_it_is() {
    let commands = commands(2);
    let token = Storm::named("steady").unwrap().token();
    let start = |devices| {
        Request::StormStart(StormStart {
            storm: token.clone(),
            devices,
        })
    };
    let reply = done(&commands, &start(Some(vec![1])));
    assert_eq!(reply.token.as_ref(), Some(&token));
    let status = || done(&commands, &Request::StormStatus {}).storms.unwrap();
    assert!(status().len() == 1 && status()[0].device == 1 && status()[0].storm.running);
    // It runs on one of the devices, so it starts on none.
    assert!(!commands.handle(&start(None)).ok);
    assert_eq!(status().len(), 1);
    done(&commands, &Request::StormStop {});
    let stopped = status()[0].storm.clone();
    assert!(!stopped.running && stopped.digest.len() == 16);
    assert_eq!(stats(&commands).devices[1].storm, Some(stopped));
}

#[test]
fn faults_are_counted_by_name() {
    let commands = commands(1);
    let fault = |fault, count| {
        Request::Fault(InjectFault {
            device: 0,
            ring: 0,
            fault,
            count,
        })
    };
    done(&commands, &fault(Fault::SpuriousInterrupt, 2));
    done(&commands, &fault(Fault::Hang, 1));
    let faults = &stats(&commands).devices[0].faults;
    assert_eq!(faults.get("spurious-interrupt"), Some(&2));
    assert!(faults.contains_key("hang") && !faults.contains_key("all-ones"));
    done(&commands, &Request::Reset(Reset { device: 0 }));
}

#[test]
fn a_pause_takes_no_time_and_requests_go_on_in_it() {
    let commands = commands(1);
    for _ in 0..2 {
        done(&commands, &Request::Pause {});
    }
    let before = stats(&commands);
    assert!(before.paused);
    std::thread::sleep(Duration::from_millis(3));
    assert_eq!(stats(&commands), before);
    let here = Inject {
        device: 0,
        ring: 0,
        count: 1,
        kind: 0,
        acknowledge: false,
    };
    done(&commands, &Request::Inject(here));
    assert_eq!(stats(&commands).devices[0].rings[0].generated, 1);
    for _ in 0..2 {
        done(&commands, &Request::Resume {});
    }
    let after = stats(&commands);
    assert!(!after.paused && after.time > before.time);
}

#[test]
fn a_device_that_is_plugged_in_is_one_like_any_until_it_is_unplugged() {
    let commands = commands(1);
    let plug = Request::Plug(Plug {
        rings: Some(8),
        vectors: None,
        slot: Some(2),
    });
    let plugged = done(&commands, &plug).plugged.unwrap();
    assert_eq!((plugged.device, plugged.slot), (1, 2));
    done(&commands, &inject(3));
    let slots = stats(&commands).slots;
    assert_eq!(slots.len(), 2);
    assert_eq!((slots[0].device, slots[1].device), (None, Some(1)));
    let unplug = |surprise| {
        Request::Unplug(Unplug {
            device: 1,
            surprise,
        })
    };
    // No guest listens to the button.
    let refused = commands.handle(&unplug(false));
    assert!(refused.error.unwrap().contains("surprise"));
    done(&commands, &unplug(true));
    let counted = stats(&commands);
    assert!(counted.devices[1].gone && counted.slots[1].device.is_none());
    assert_eq!(counted.devices[1].rings[2].generated, 3);
    let about = done(&commands, &Request::Version {}).about.unwrap();
    assert_eq!(about.devices.len(), 1);
    for request in [inject(1), unplug(true)] {
        let reply = commands.handle(&request);
        assert!(reply.error.unwrap().contains("device 1 is gone"));
    }
}

#[test]
fn version_tells_what_there_is() {
    let about = done(&commands(2), &Request::Version {}).about.unwrap();
    assert_eq!(about.protocol, PROTOCOL);
    let devices: Vec<_> = about
        .devices
        .iter()
        .map(|device| (device.device, device.rings, device.vectors))
        .collect();
    assert_eq!(devices, [(0, 4, 5), (1, 4, 5)]);
    assert_eq!(about.faults.len(), Fault::COUNT);
}

#[test]
fn what_cannot_be_done_changes_nothing() {
    let commands = commands(2);
    let before = MachineStats {
        time: 0,
        ..stats(&commands)
    };
    let fault = |device, ring, count| {
        Request::Fault(InjectFault {
            device,
            ring,
            fault: Fault::Hang,
            count,
        })
    };
    let withhold = |ring, count| {
        Request::Withhold(Withhold {
            device: 0,
            ring,
            count,
        })
    };
    let mask = |device, vector| {
        Request::Mask(Mask {
            device,
            vector,
            masked: true,
        })
    };
    let events = |devices| {
        Request::Events(Events {
            on: true,
            devices: Some(devices),
        })
    };
    let storm = |storm: &str, devices| {
        Request::StormStart(StormStart {
            storm: storm.to_owned(),
            devices,
        })
    };
    let calm = Storm::named("calm").unwrap().token();
    for (request, part) in [
        (inject(0), "count is 0"),
        (inject(65_537), "must be 1 to 65536"),
        (fault(0, 0, 0), "count is 0"),
        (fault(0, 0, u32::MAX), "fault: count"),
        (fault(2, 0, 1), "no device 2"),
        (fault(0, 4, 1), "no ring 4"),
        (mask(0, 5), "no vector 5"),
        (mask(9, 0), "no device 9"),
        (Request::Reset(Reset { device: 2 }), "no device 2"),
        (events(vec![0, 2]), "no device 2"),
        (events(vec![]), "no device is named"),
        (storm("", None), "token"),
        (storm("storm1.AAAA", None), "token"),
        (storm(&calm, Some(vec![2])), "no device 2"),
        (storm(&calm, Some(vec![])), "no device is named"),
        (withhold(usize::MAX, 1), "no ring"),
        (withhold(0, 65_537), "withhold: count"),
    ] {
        let reply = commands.handle(&request);
        let error = reply.error.unwrap_or_default();
        assert!(!reply.ok && error.contains(part), "{request:?}: {error}");
    }
    let after = MachineStats {
        time: 0,
        ..stats(&commands)
    };
    assert_eq!(after, before);
}
