// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Messages of QEMU, as they are on the wire.

use serde::Deserialize;
use serde_json::Value;

/// Longest text of QEMU's that is passed on, in characters.
const TEXT_MAX: usize = 300;

/// What QEMU says.
#[derive(Debug, PartialEq)]
pub(super) enum Message {
    /// The first thing that it says.
    Greeting,
    /// What became of the command with this id.
    Answer {
        id: Option<u64>,
        outcome: Result<Value, Refusal>,
    },
    /// Something happened, perhaps to a device that has a name.
    Event {
        name: String,
        device: Option<String>,
    },
    /// What nobody here needs to know.
    Other,
}

/// Why it does not do a command.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub(super) struct Refusal {
    /// For programs.
    pub class: String,
    /// For people.
    pub desc: String,
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "QMP")]
    greeting: Option<Value>,
    #[serde(rename = "return")]
    value: Option<Value>,
    error: Option<Refusal>,
    id: Option<Value>,
    event: Option<String>,
    data: Option<Value>,
}

impl Message {
    /// Reads a line.
    pub fn parse(line: &[u8]) -> Result<Self, serde_json::Error> {
        let line: Line = serde_json::from_slice(line)?;
        let id = line.id.as_ref().and_then(Value::as_u64);
        Ok(match line {
            Line {
                event: Some(name),
                data,
                ..
            } => {
                let device = data.as_ref().and_then(|data| data.get("device"));
                let device = device.and_then(Value::as_str).map(str::to_owned);
                Self::Event { name, device }
            }
            Line {
                error: Some(refusal),
                ..
            } => {
                let desc = refusal.desc.chars().take(TEXT_MAX);
                let desc = desc.filter(|character| !character.is_control()).collect();
                let outcome = Err(Refusal { desc, ..refusal });
                Self::Answer { id, outcome }
            }
            Line {
                value: Some(value), ..
            } => {
                let outcome = Ok(value);
                Self::Answer { id, outcome }
            }
            Line {
                greeting: Some(_), ..
            } => Self::Greeting,
            _ => Self::Other,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_kind_of_message_is_known() {
        let refusal = |class: &str, desc: &str| Refusal {
            class: class.to_owned(),
            desc: desc.to_owned(),
        };
        for (line, expected) in [
            (
                r#"{"QMP":{"version":{},"capabilities":[]}}"#,
                Message::Greeting,
            ),
            (
                r#"{"return":{"a":1},"id":7}"#,
                Message::Answer {
                    id: Some(7),
                    outcome: Ok(json!({"a": 1})),
                },
            ),
            (
                r#"{"id":7,"error":{"class":"GenericError","desc":"no\nbus"}}"#,
                Message::Answer {
                    id: Some(7),
                    outcome: Err(refusal("GenericError", "nobus")),
                },
            ),
            (
                r#"{"event":"DEVICE_DELETED","data":{"device":"evgen1","path":"p"},"timestamp":{}}"#,
                Message::Event {
                    name: "DEVICE_DELETED".to_owned(),
                    device: Some("evgen1".to_owned()),
                },
            ),
            (r#"{"timestamp":{}}"#, Message::Other),
        ] {
            let parsed = Message::parse(line.as_bytes()).unwrap();
            assert_eq!(parsed, expected, "{line}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let deep = "[".repeat(100_000);
        for line in [
            "",
            "QMP",
            "[]",
            r#"{"event":1}"#,
            r#"{"error":"no"}"#,
            &deep,
        ] {
            assert!(Message::parse(line.as_bytes()).is_err(), "{line:.40}");
        }
    }
}
