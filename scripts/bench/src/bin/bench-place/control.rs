// SPDX-License-Identifier: Apache-2.0 OR MIT

//! A client of lockstorm's control socket, as `docs/control.md` describes it.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

/// No reply takes that long.
const LIMIT: Duration = Duration::from_secs(30);

/// The connection.
pub struct Control(BufReader<UnixStream>);

/// What was counted of one device and of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    /// Nanoseconds.
    pub time: f64,
    /// Events made, on all rings.
    pub generated: f64,
    /// Events delivered, on all rings.
    pub delivered: f64,
    /// Events acknowledged.
    pub acknowledged: f64,
    /// Half of them were acknowledged in that many nanoseconds.
    pub half: f64,
    /// 99 % of them were acknowledged in that many nanoseconds.
    pub most: f64,
    /// Exits of all vCPUs to lockstorm, whatever for.
    pub exits: f64,
}

impl Control {
    /// Connects to the socket at `path`.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(LIMIT))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Makes `count` events on ring 0 of device 0 that are to be acknowledged.
    pub fn inject(&mut self, count: u32) -> io::Result<()> {
        let request = json!({
            "command": "inject", "device": 0, "ring": 0, "count": count, "acknowledge": true,
        });
        self.request(&request).map(drop)
    }

    /// Starts the storm of `token`.
    pub fn start_storm(&mut self, token: &str) -> io::Result<()> {
        let request = json!({ "command": "storm-start", "storm": token });
        self.request(&request).map(drop)
    }

    /// Whether a storm is under way.
    pub fn storms(&mut self) -> io::Result<bool> {
        let reply = self.request(&json!({ "command": "storm-status" }))?;
        Ok(reply.pointer("/storms/0/storm/running") == Some(&Value::Bool(true)))
    }

    /// What was counted so far.
    pub fn counts(&mut self) -> io::Result<Counts> {
        let reply = self.request(&json!({ "command": "stats" }))?;
        counts(&reply).ok_or_else(|| io::Error::other(format!("these are no stats: {reply}")))
    }

    fn request(&mut self, request: &Value) -> io::Result<Value> {
        self.0
            .get_mut()
            .write_all(format!("{request}\n").as_bytes())?;
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(io::Error::other("lockstorm closed its control socket"));
        }
        let reply: Value = serde_json::from_str(&line)?;
        if reply.get("ok") == Some(&Value::Bool(true)) {
            Ok(reply)
        } else {
            Err(io::Error::other(format!("{request} got {}", line.trim())))
        }
    }
}

fn counts(reply: &Value) -> Option<Counts> {
    let stats = reply.get("stats")?;
    let device = stats.pointer("/devices/0")?;
    let rings = device.get("rings")?.as_array()?;
    let sum = |name| -> Option<f64> {
        let counts = rings.iter().map(|ring| ring.get(name)?.as_f64());
        counts.sum()
    };
    // Not there as long as there is nothing to tell.
    let latency = |name| device.pointer(name).and_then(Value::as_f64).unwrap_or(0.0);
    let exits = stats.get("exits").and_then(Value::as_object);
    Some(Counts {
        time: stats.get("time")?.as_f64()?,
        generated: sum("generated")?,
        delivered: sum("delivered")?,
        acknowledged: latency("/latency/count"),
        half: latency("/latency/p50"),
        most: latency("/latency/p99"),
        exits: exits.map_or(Some(0.0), |exits| exits.values().map(Value::as_f64).sum())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_of_the_reply() {
        let ring = json!({ "generated": 3, "delivered": 2, "dropped": 1 });
        let mut reply = json!({ "ok": true, "stats": {
            "time": 9, "devices": [{ "rings": [ring, ring], "latency": null }],
        }});
        let bare = Counts {
            time: 9.0,
            generated: 6.0,
            delivered: 4.0,
            ..Counts::default()
        };
        assert_eq!(counts(&reply), Some(bare));
        reply["stats"]["exits"] = json!({ "io-in": 5, "mmio-read": 2 });
        reply["stats"]["devices"][0]["latency"] = json!({ "count": 7, "p50": 8, "p99": 9 });
        let full = Counts {
            acknowledged: 7.0,
            half: 8.0,
            most: 9.0,
            exits: 7.0,
            ..bare
        };
        assert_eq!(counts(&reply), Some(full));
        assert_eq!(counts(&json!({ "ok": true })), None);
    }
}
