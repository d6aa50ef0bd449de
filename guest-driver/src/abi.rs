// SPDX-License-Identifier: GPL-2.0

//! What the device and its drivers agree on: the very files that the device is built from.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "shared with the device, which uses all of it and sees it as a crate"
)]

#[path = "../../device-model/abi/src/event.rs"]
pub(crate) mod event;
#[path = "../../device-model/abi/src/identity.rs"]
pub(crate) mod identity;
#[path = "../../device-model/abi/src/registers.rs"]
pub(crate) mod registers;

// What programs are told in their own words must be the same.
const _: () = {
    use crate::uapi;

    assert!(uapi::EVENT_SIZE == event::EVENT_SIZE);
    assert!(uapi::PAYLOAD_SIZE == event::PAYLOAD_SIZE);
    assert!(uapi::MAX_RINGS == identity::MAX_RINGS);
    assert!(uapi::FAULTS == registers::FAULTS);
    assert!(uapi::SOURCE_DRIVER == event::SOURCE_DRIVER);
    assert!(uapi::SOURCE_DOORBELL == event::SOURCE_DOORBELL);
    assert!(uapi::SOURCE_INJECT == event::SOURCE_INJECT);
    assert!(uapi::SOURCE_STORM == event::SOURCE_STORM);
    assert!(uapi::SOURCES == event::SOURCES);
    assert!(uapi::NO_RING == event::NO_RING);
};
