// SPDX-License-Identifier: Apache-2.0 OR MIT

//! An example of each request, with its reply: for the schema, for the documentation, and for the
//! tests that hold both against the code.

use lockstorm_device_model::Fault;

use super::reply::{About, AboutDevice, EventLine, Fate, Plugged, Reply, StormOn, StreamedEvent};
use super::request::{
    Events, Id, Inject, InjectFault, Mask, PROTOCOL, Plug, Request, Reset, StormStart, Unplug,
    Withhold,
};
use super::stats::{
    Bucket, DeviceStats, ForgottenStats, Latency, Light, MachineStats, RingStats, SlotStats,
    StormStatus,
};

/// A request as a client writes it, what it means, and the reply.
pub(super) struct Example {
    pub line: &'static str,
    pub request: Request,
    pub reply: Reply,
}

const TOKEN: &str = "storm1…";

/// One for each request, in the order of [`Request`].
pub(super) fn all() -> Vec<Example> {
    let example = |line, request, reply| Example {
        line,
        request,
        reply,
    };
    vec![
        example(
            r#"{"command":"version","version":2,"id":"a1"}"#,
            Request::Version {},
            Reply {
                id: Some(Id::Text("a1".into())),
                about: Some(about()),
                ..Reply::done()
            },
        ),
        example(
            r#"{"command":"inject","device":0,"ring":1,"count":2,"kind":7,"acknowledge":true}"#,
            Request::Inject(Inject {
                device: 0,
                ring: 1,
                count: 2,
                kind: 7,
                acknowledge: true,
            }),
            Reply::done(),
        ),
        example(
            r#"{"command":"withhold","device":0,"ring":0,"count":1}"#,
            Request::Withhold(Withhold {
                device: 0,
                ring: 0,
                count: 1,
            }),
            Reply::done(),
        ),
        example(
            r#"{"command":"storm-start","storm":"storm1…","devices":[0,1]}"#,
            Request::StormStart(StormStart {
                storm: TOKEN.into(),
                devices: Some(vec![0, 1]),
            }),
            Reply {
                token: Some(TOKEN.into()),
                ..Reply::done()
            },
        ),
        example(
            r#"{"command":"storm-stop"}"#,
            Request::StormStop {},
            Reply::done(),
        ),
        example(
            r#"{"command":"storm-status"}"#,
            Request::StormStatus {},
            Reply {
                storms: Some(vec![StormOn {
                    device: 1,
                    storm: storm(),
                }]),
                ..Reply::done()
            },
        ),
        example(
            r#"{"command":"fault","device":0,"ring":1,"fault":"lost-interrupt","count":3}"#,
            Request::Fault(InjectFault {
                device: 0,
                ring: 1,
                fault: Fault::LostInterrupt,
                count: 3,
            }),
            Reply::done(),
        ),
        example(
            r#"{"command":"mask","device":0,"vector":1,"masked":true}"#,
            Request::Mask(Mask {
                device: 0,
                vector: 1,
                masked: true,
            }),
            Reply::done(),
        ),
        example(
            r#"{"command":"reset","device":7,"id":3}"#,
            Request::Reset(Reset { device: 7 }),
            Reply {
                id: Some(Id::Number(3)),
                ..Reply::error("there is no device 7: the machine has 0 to 1")
            },
        ),
        example(
            r#"{"command":"plug","rings":8}"#,
            Request::Plug(Plug {
                rings: Some(8),
                vectors: None,
                slot: None,
            }),
            Reply {
                plugged: Some(Plugged { device: 2, slot: 1 }),
                ..Reply::done()
            },
        ),
        example(
            r#"{"command":"unplug","device":2,"surprise":true}"#,
            Request::Unplug(Unplug {
                device: 2,
                surprise: true,
            }),
            Reply::done(),
        ),
        example(
            r#"{"command":"stats"}"#,
            Request::Stats {},
            Reply {
                stats: Some(stats()),
                ..Reply::done()
            },
        ),
        example(
            r#"{"command":"metrics"}"#,
            Request::Metrics {},
            Reply {
                metrics: Some(super::metrics::text(&MachineStats::default())),
                ..Reply::done()
            },
        ),
        example(
            r#"{"command":"events","on":true,"devices":[0]}"#,
            Request::Events(Events {
                on: true,
                devices: Some(vec![0]),
            }),
            Reply::done(),
        ),
        example(r#"{"command":"pause"}"#, Request::Pause {}, Reply::done()),
        example(r#"{"command":"resume"}"#, Request::Resume {}, Reply::done()),
        example(r#"{"command":"quit"}"#, Request::Quit {}, Reply::done()),
    ]
}

/// A line of the event stream.
pub(super) fn event_line() -> EventLine {
    EventLine {
        event: StreamedEvent {
            device: 0,
            ring: 1,
            source: 3,
            kind: 7,
            sequence: 41,
            timestamp: 2_500_000_000,
            flags: 0,
            payload: "0123456789abcdef".repeat(4),
            fate: Fate::Delivered,
            faults: vec!["lost-interrupt".into()],
            offset: Some(1_000_000),
        },
        lost: 12,
    }
}

/// Statistics in which no two numbers that count something are the same.
pub(super) fn stats() -> MachineStats {
    MachineStats {
        time: 2_718_281_828,
        paused: false,
        devices: vec![DeviceStats {
            device: 0,
            gone: false,
            rings: vec![ring(100), ring(200)],
            raised: [(0, 301), (1, 302), (4, 303)].into(),
            faults: [("lost-interrupt".into(), 401), ("hang".into(), 402)].into(),
            storm: Some(storm()),
            latency: Some(Latency {
                count: 1000,
                sum: 12_345_678,
                min: 8200,
                p50: 10_111,
                p90: 16_127,
                p99: 32_255,
                p999: 32_511,
                max: 2_113_535,
                buckets: [(16_383, 900), (32_767, 99), (4_194_303, 1)]
                    .map(|(to, count)| Bucket { to, count })
                    .into(),
            }),
        }],
        forgotten: ForgottenStats {
            devices: 701,
            rings: ring(800),
        },
        slots: vec![SlotStats {
            slot: 1,
            device: None,
            used: false,
            leaving: false,
            power: Some(Light::Off),
            attention: Some(Light::Off),
            bus: Some(1),
        }],
        interrupts_lost: 501,
        exits: [("io-out".into(), 601), ("mmio-write".into(), 602)].into(),
    }
}

fn ring(base: u64) -> RingStats {
    RingStats {
        generated: 3 * base + 6,
        delivered: base + 1,
        dropped: base + 2,
        faulted: base + 3,
        extra: base + 5,
        full: base,
        quiet: base + 8,
    }
}

fn storm() -> StormStatus {
    StormStatus {
        running: true,
        made: 20_301,
        total: Some(160_001),
        elapsed: 1_015_000_000,
        digest: "9e3779b97f4a7c15".into(),
    }
}

fn about() -> About {
    let device = |device| AboutDevice {
        device,
        rings: 4,
        vectors: 5,
    };
    About {
        protocol: PROTOCOL,
        program: "0.1.0".into(),
        devices: vec![device(0), device(1)],
        faults: Fault::ALL
            .iter()
            .map(|fault| fault.name().to_owned())
            .collect(),
    }
}
