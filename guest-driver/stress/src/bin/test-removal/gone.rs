// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What can still be done with a file whose device is gone: nothing.

use evgen_stress::device::{Device, DeviceError};
use evgen_uapi::EVENT_SIZE;
use rustix::event::{PollFlags, Timespec};
use rustix::io::Errno;

use crate::actors::is_hung_up;
use crate::trouble::Trouble;

type Call = fn(&Device) -> Result<(), DeviceError>;

/// Every call that there is.
const CALLS: [(&str, Call); 9] = [
    ("read", |device| {
        device.read(&mut [[0; EVENT_SIZE]]).map(drop)
    }),
    ("ADD", |device| device.add(0).map(drop)),
    ("INJECT", |device| device.inject(0)),
    ("COUNTERS", |device| device.counters().map(drop)),
    ("INJECT_DEFERRED", |device| {
        device.inject_deferred(0, 1).map(drop)
    }),
    ("GET_EVENT", |device| device.get_event().map(drop)),
    ("WAIT_DRAINED", |device| {
        device.wait_drained(60_000).map(drop)
    }),
    ("SET_COALESCING", |device| device.set_coalescing(0, 0, 0)),
    ("RESET", |device| device.reset().map(drop)),
];

/// Checks that each call fails with `ENODEV`, and polling gives a hang-up; the number of calls.
pub fn check(device: &Device) -> Result<u64, Trouble> {
    let mut calls = 1;
    let now = Timespec::default();
    if !is_hung_up(device, PollFlags::IN, Some(&now))? {
        return Err(Trouble::wrong(
            "poll",
            "no hang-up of a device that is gone",
        ));
    }
    for (name, call) in CALLS {
        calls += 1;
        match call(device) {
            Err(error) if error.errno() == Some(Errno::NODEV) => {}
            Err(error) => {
                let what = format!("of a device that is gone must be ENODEV, is: {error}");
                return Err(Trouble::wrong(name, what));
            }
            Ok(()) => return Err(Trouble::wrong(name, "a device that is gone took it")),
        }
    }
    Ok(calls)
}
