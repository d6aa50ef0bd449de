// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Waiting for the guest to take a device into use, or to let go of it.

use std::thread;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::control::reply::Plugged;
use crate::control::request::Unplug;
use crate::control::stats::MachineStats;
use crate::control::{Client, ClientError, Reply, Request};

/// From one look to the next.
const INTERVAL: Duration = Duration::from_millis(50);

/// The guest has not done its part.
#[derive(Debug, Error)]
pub(super) enum WaitError {
    /// It has not taken the device into use.
    #[error(
        "the guest has not taken device {device} in slot {slot} into use within {seconds} s; its \
         kernel log may say why (dmesg)"
    )]
    NotTaken {
        device: usize,
        slot: u8,
        seconds: u64,
    },
    /// It has not let go of the device.
    #[error(
        "the guest has not let go of device {device} within {seconds} s. The device goes as soon as \
         it does; `unplug {device} --surprise` takes it out now"
    )]
    NotReleased { device: usize, seconds: u64 },
    /// It lets go of the device no more.
    #[error("the guest keeps device {device}: it was to let go of it, and has changed its mind")]
    Kept { device: usize },
    /// The device went while it was waited for.
    #[error("device {device} is gone: somebody else took it out")]
    Gone { device: usize },
    /// The machine does not answer any more.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// Waits for what `request`, which was done with this reply, has the guest do.
pub(super) fn wait(
    client: &mut Client,
    request: &Request,
    reply: &Reply,
    patience: Duration,
) -> Result<(), WaitError> {
    let deadline = Instant::now() + patience;
    let seconds = patience.as_secs();
    loop {
        let (looked, _) = client.request(&Request::Stats {})?;
        let stats = looked.stats.unwrap_or_default();
        let late = match (request, reply.plugged) {
            (Request::Plug(_), Some(plugged)) if !is_used(&stats, plugged)? => {
                let Plugged { device, slot } = plugged;
                WaitError::NotTaken {
                    device,
                    slot,
                    seconds,
                }
            }
            (&Request::Unplug(Unplug { device, .. }), _) if !is_released(&stats, device)? => {
                WaitError::NotReleased { device, seconds }
            }
            _ => return Ok(()),
        };
        if Instant::now() >= deadline {
            return Err(late);
        }
        thread::sleep(INTERVAL);
    }
}

/// Whether the guest uses the device in its slot.
fn is_used(stats: &MachineStats, plugged: Plugged) -> Result<bool, WaitError> {
    let device = plugged.device;
    let mut slots = stats.slots.iter();
    let slot = slots.find(|slot| slot.device == Some(device));
    slot.map(|slot| slot.used).ok_or(WaitError::Gone { device })
}

/// Whether the guest has let go of the device, or it was gone for other reasons.
fn is_released(stats: &MachineStats, device: usize) -> Result<bool, WaitError> {
    let mut slots = stats.slots.iter();
    match slots.find(|slot| slot.device == Some(device)) {
        None => Ok(true),
        Some(slot) if slot.leaving => Ok(false),
        Some(_) => Err(WaitError::Kept { device }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::stats::{Light, SlotStats};

    fn stats(device: Option<usize>, used: bool, leaving: bool) -> MachineStats {
        MachineStats {
            slots: vec![SlotStats {
                slot: 2,
                device,
                used,
                leaving,
                power: Some(Light::On),
                attention: Some(Light::Off),
                bus: None,
            }],
            ..MachineStats::default()
        }
    }

    #[test]
    fn a_device_is_used_when_its_slot_is() {
        let plugged = Plugged { device: 5, slot: 2 };
        for (device, used, expected) in [
            (Some(5), false, Some(false)),
            (Some(5), true, Some(true)),
            (Some(6), true, None),
            (None, false, None),
        ] {
            let is_used = is_used(&stats(device, used, false), plugged);
            assert_eq!(is_used.ok(), expected, "{device:?} {used}");
        }
    }

    #[test]
    fn a_device_is_released_when_it_is_in_no_slot_any_more() {
        for (device, leaving, expected) in [
            (Some(5), true, Some(false)),
            (Some(5), false, None),
            (Some(6), false, Some(true)),
            (None, false, Some(true)),
        ] {
            let released = is_released(&stats(device, true, leaving), 5);
            assert_eq!(released.ok(), expected, "{device:?} {leaving}");
        }
    }
}
