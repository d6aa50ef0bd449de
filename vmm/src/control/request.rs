// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Requests, as they are on the wire.

use std::fmt;

use lockstorm_device_model::Fault;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// Version of this protocol. It rises when a request or a reply changes its meaning or is gone;
/// new requests, and new members of replies, leave it as it is.
pub const PROTOCOL: u32 = 2;
/// Longest request in bytes, without the newline.
pub(super) const MAX_REQUEST: usize = 64 * 1024;
/// Longest id that a request may carry, in bytes.
pub(super) const MAX_ID: usize = 64;

/// A command.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
// Braces where there is nothing to say, because serde lets a variant without them have any fields.
pub enum Request {
    /// Tells what answers here: the protocol's version, the program's, and the devices.
    Version {},
    /// Makes events on a ring, all at once.
    Inject(Inject),
    /// Lets the next events of a ring vanish: they are counted as delivered and never written. A
    /// test that does not notice is none.
    Withhold(Withhold),
    /// Starts a storm, on all the devices named or on none. The reply has the token that repeats
    /// it.
    StormStart(StormStart),
    /// Ends all storms.
    StormStop {},
    /// Tells how far each device's storm has got; the last one's, when it is over.
    StormStatus {},
    /// Has a device misbehave, in one of the ways that `device-model/SPEC.md` lists.
    Fault(InjectFault),
    /// Keeps the interrupts of a vector pending, or lets them go again.
    Mask(Mask),
    /// Ends all faults of a device, those to come included, and has it reset itself, as
    /// `device-model/SPEC.md` tells: the driver hears of it.
    Reset(Reset),
    /// Makes a device and puts it into a slot. The guest hears of it, and takes it into use a while
    /// later: then the slot is `used` in `stats`. What the guest calls it, `evgenN`, is a number of the
    /// guest's own: its kernel log tells which one the device at the slot's PCI address got.
    Plug(Plug),
    /// Takes a device out of its slot.
    Unplug(Unplug),
    /// Tells what was counted, and what is to be seen of the slots.
    Stats {},
    /// Tells the same as text that Prometheus reads.
    Metrics {},
    /// Turns the stream of events on this connection on or off.
    Events(Events),
    /// Stops the guest, and time for the devices. A machine that is paused stays so.
    Pause {},
    /// Lets a paused machine run again. A machine that runs goes on.
    Resume {},
    /// Ends the run.
    Quit {},
}

/// Which events to make.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Inject {
    /// The device's number.
    pub device: usize,
    /// Ring, counted from 0.
    pub ring: usize,
    /// How many: 1 to 65,536.
    #[serde(default = "one")]
    #[cfg_attr(test, schemars(range(min = 1, max = 65_536)))]
    pub count: u32,
    /// What they carry as their kind.
    #[serde(default)]
    pub kind: u16,
    /// Whether the handler acknowledges them. Each one then is a sample of latency, unless too many
    /// wait for that already.
    #[serde(default)]
    pub acknowledge: bool,
}

/// Which events to let vanish.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Withhold {
    /// The device's number.
    pub device: usize,
    /// Ring, counted from 0.
    pub ring: usize,
    /// How many of the next ones: 1 to 65,536.
    #[serde(default = "one")]
    #[cfg_attr(test, schemars(range(min = 1, max = 65_536)))]
    pub count: u32,
}

/// Which storm to start.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct StormStart {
    /// The storm as a token, `storm1…`: `lockstorm ctl storm start` makes one of a name or a file.
    pub storm: String,
    /// Devices; all if not given. The number of a device goes into its seeds, so that no two make
    /// the same events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<Vec<usize>>,
}

/// Which fault to show.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct InjectFault {
    /// The device's number.
    pub device: usize,
    /// Ring, counted from 0. A fault of the whole device takes any.
    #[serde(default)]
    pub ring: usize,
    /// Name of the fault.
    #[serde(with = "fault_name")]
    #[cfg_attr(test, schemars(schema_with = "super::schema::fault_names"))]
    pub fault: Fault,
    /// How often: 1 to 65,536. For a fault of events, how many of the next ones it befalls; one that
    /// lasts, lasts so many times as long, but for an hour at most.
    #[serde(default = "one")]
    #[cfg_attr(test, schemars(range(min = 1, max = 65_536)))]
    pub count: u32,
}

/// Whose interrupts to keep.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Mask {
    /// The device's number.
    pub device: usize,
    /// MSI-X vector, counted from 0.
    pub vector: u16,
    /// Whether they are kept (true), or let go (false).
    #[serde(default = "yes")]
    pub masked: bool,
}

/// What to reset.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Reset {
    /// The device's number.
    pub device: usize,
}

/// What to put where.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Plug {
    /// Event rings of the device: 1 to 8; as many as the machine was started with if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(range(min = 1, max = 8)))]
    pub rings: Option<u8>,
    /// MSI-X vectors of the device: one more than rings, up to 2048; as many as the machine was started
    /// with if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(range(min = 2, max = 2048)))]
    pub vectors: Option<u16>,
    /// Slot, counted from 1; the first free one if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u8>,
}

/// What to take out, and how.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Unplug {
    /// The device's number.
    pub device: usize,
    /// If false, the slot's attention button is pressed: the guest is asked to let go of the device,
    /// which is taken out as soon as it has, and stays until then. If true, it is gone when the reply
    /// comes, whatever the guest was doing with it.
    #[serde(default)]
    pub surprise: bool,
}

/// Which events to stream.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Events {
    /// Whether this connection is to get a line for each event from now on.
    pub on: bool,
    /// Of which devices; all if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<Vec<usize>>,
}

fn one() -> u32 {
    1
}

fn yes() -> bool {
    true
}

mod fault_name {
    use super::{Deserialize, Deserializer, Fault};
    use serde::Serializer;
    use serde::de::Error as _;

    pub(super) fn serialize<S: Serializer>(fault: &Fault, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(fault.name())
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Fault, D::Error> {
        let name = String::deserialize(from)?;
        name.parse().map_err(D::Error::custom)
    }
}

/// What a client tells its requests apart by: the reply has it too.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Id {
    /// A whole number.
    Number(u64),
    /// A text, at most 64 bytes long.
    Text(#[cfg_attr(test, schemars(length(max = 64)))] String),
}

/// A line that is not a request.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Its id, as far as that could be made out.
    pub id: Option<Id>,
    /// What is wrong with it.
    pub error: String,
}

impl Request {
    /// Reads a line.
    pub fn parse(line: &[u8]) -> Result<(Self, Option<Id>), Malformed> {
        let malformed = |id, error: String| Malformed { id, error };
        let Members(mut members) = serde_json::from_slice(line)
            .map_err(|error| malformed(None, format!("not a request: {error}")))?;
        let id = match members.remove("id").map(take_id) {
            Some(id) => Some(id.map_err(|error| malformed(None, error))?),
            None => None,
        };
        match members.remove("version") {
            Some(version) if version != PROTOCOL => Err(malformed(
                id,
                format!("this is version {PROTOCOL} of the protocol; the request wants another"),
            )),
            _ => match Self::deserialize(Value::Object(members)) {
                Ok(request) => Ok((request, id)),
                Err(error) => Err(malformed(id, format!("not a request: {error}"))),
            },
        }
    }

    /// The line for the wire, with its newline.
    pub(super) fn to_line(&self, id: &Id) -> Vec<u8> {
        #[derive(Serialize)]
        struct Message<'a> {
            #[serde(flatten)]
            request: &'a Request,
            version: u32,
            id: &'a Id,
        }
        let version = PROTOCOL;
        let request = self;
        super::to_line(&Message {
            request,
            version,
            id,
        })
    }
}

fn take_id(id: Value) -> Result<Id, String> {
    match Id::deserialize(id) {
        Ok(Id::Text(text)) if text.len() > MAX_ID => {
            Err(format!("the id is longer than {MAX_ID} bytes"))
        }
        Ok(id) => Ok(id),
        Err(_) => Err("an id is a text or a whole number from 0".to_owned()),
    }
}

/// The members of an object, each there only once: of two, JSON does not say which counts.
struct Members(Map<String, Value>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with the member `command`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Members, A::Error> {
                let mut members = Map::new();
                while let Some((name, value)) = from.next_entry::<String, Value>()? {
                    if members.contains_key(&name) {
                        return Err(A::Error::custom(format_args!("duplicate member `{name}`")));
                    }
                    members.insert(name, value);
                }
                Ok(Members(members))
            }
        }

        from.deserialize_map(Collect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_has_a_default() {
        for (line, expected) in [
            (
                r#" { "ring": 3, "device": 1, "command": "withhold" } "#,
                Request::Withhold(Withhold {
                    device: 1,
                    ring: 3,
                    count: 1,
                }),
            ),
            (
                r#"{"command":"inject","device":0,"ring":1,"version":2}"#,
                Request::Inject(Inject {
                    device: 0,
                    ring: 1,
                    count: 1,
                    kind: 0,
                    acknowledge: false,
                }),
            ),
            (
                r#"{"command":"fault","device":0,"fault":"hang"}"#,
                Request::Fault(InjectFault {
                    device: 0,
                    ring: 0,
                    fault: Fault::Hang,
                    count: 1,
                }),
            ),
            (
                r#"{"command":"mask","device":0,"vector":2047}"#,
                Request::Mask(Mask {
                    device: 0,
                    vector: 2047,
                    masked: true,
                }),
            ),
        ] {
            assert_eq!(Request::parse(line.as_bytes()), Ok((expected, None)));
        }
    }

    #[test]
    fn an_id_comes_back_whatever_else_is_wrong() {
        for (line, id) in [
            (r#"{"command":"stats","id":7}"#, Some(Id::Number(7))),
            (r#"{"id":"a","command":"x"}"#, Some(Id::Text("a".into()))),
            (
                r#"{"command":"stats","id":0,"version":1}"#,
                Some(Id::Number(0)),
            ),
            (r#"{"command":"stats","id":0,"x":2}"#, Some(Id::Number(0))),
            (r#"{"command":"stats"}"#, None),
            (r#"{"command":"stats","id":1"#, None),
        ] {
            let found = match Request::parse(line.as_bytes()) {
                Ok((_, id)) => id,
                Err(malformed) => malformed.id,
            };
            assert_eq!(found, id, "{line}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let long_id = format!(r#"{{"command":"stats","id":"{}"}}"#, "x".repeat(MAX_ID + 1));
        for line in [
            "",
            " ",
            "stats",
            "null",
            "[]",
            "{}",
            r#""stats""#,
            r#"{"command":"stats""#,
            r#"{"command":"stats"}}"#,
            r#"{"command":"stats"}{"command":"quit"}"#,
            r#"{"command":"Stats"}"#,
            r#"{"command":"explode"}"#,
            r#"{"command":["stats"]}"#,
            r#"{"command":"stats","extra":1}"#,
            r#"{"command":"quit","command":"stats"}"#,
            r#"{"command":"quit","device":0}"#,
            r#"{"command":"quit","version":0}"#,
            r#"{"command":"quit","version":1}"#,
            r#"{"command":"quit","version":"1"}"#,
            r#"{"command":"quit","version":null}"#,
            r#"{"command":"quit","id":null}"#,
            r#"{"command":"quit","id":-1}"#,
            r#"{"command":"quit","id":1.5}"#,
            r#"{"command":"quit","id":["a"]}"#,
            r#"{"command":"quit","id":1,"id":1}"#,
            &long_id,
            r#"{"command":"storm-stop","rate":1}"#,
            r#"{"command":"inject","device":0}"#,
            r#"{"command":"inject","device":0,"ring":0,"extra":1}"#,
            r#"{"command":"inject","device":-1,"ring":0}"#,
            r#"{"command":"inject","device":0,"ring":0,"kind":65536}"#,
            r#"{"command":"inject","device":0,"ring":0,"count":1.5}"#,
            r#"{"command":"inject","device":0,"ring":0,"count":1e0}"#,
            r#"{"command":"inject","device":0,"ring":0,"count":4294967296}"#,
            r#"{"command":"inject","device":0,"device":0,"ring":0}"#,
            r#"{"command":"inject","device":"0","ring":0}"#,
            r#"{"command":"storm-start"}"#,
            r#"{"command":"storm-start","storm":1}"#,
            r#"{"command":"storm-start","storm":"x","devices":0}"#,
            r#"{"command":"fault","device":0,"fault":"lost"}"#,
            r#"{"command":"fault","device":0,"fault":3}"#,
            r#"{"command":"mask","device":0,"vector":65536}"#,
            r#"{"command":"mask","device":0,"vector":0,"masked":1}"#,
            r#"{"command":"reset"}"#,
            r#"{"command":"plug","rings":256}"#,
            r#"{"command":"plug","slot":-1}"#,
            r#"{"command":"plug","device":1}"#,
            r#"{"command":"unplug"}"#,
            r#"{"command":"unplug","device":1,"surprise":1}"#,
            r#"{"command":"events"}"#,
        ] {
            assert!(Request::parse(line.as_bytes()).is_err(), "{line}");
        }
        assert!(Request::parse(b"\xff\xfe").is_err());
        let deep = "[".repeat(MAX_REQUEST);
        assert!(Request::parse(deep.as_bytes()).is_err());
        let deep = format!(r#"{{"command":{}"#, "[".repeat(MAX_REQUEST));
        assert!(Request::parse(deep.as_bytes()).is_err());
    }

    #[test]
    fn what_the_client_sends_is_what_the_server_reads() {
        let request = Request::Mask(Mask {
            device: 1,
            vector: 2,
            masked: false,
        });
        let id = Id::Text("a\"b".into());
        let line = request.to_line(&id);
        assert_eq!(line.last(), Some(&b'\n'));
        assert_eq!(Request::parse(&line), Ok((request, Some(id))));
    }
}
