// SPDX-License-Identifier: Apache-2.0 OR MIT

use lockstorm_device_model::storm::MAX_FILE;
use lockstorm_device_model::{Config, Evgen, Storm};
use vm_memory::{GuestAddress, GuestMemoryMmap};

use crate::device::{Raised, Recorder};

/// Events of a storm that are looked at.
const EVENTS: u64 = 2000;

/// A storm file or token of any content. The first byte says which, and on which device it is to
/// run.
pub fn storm_file(data: &[u8]) {
    let Some((&first, text)) = data.split_first() else {
        return;
    };
    let text = String::from_utf8_lossy(text);
    let storm = match first >> 6 {
        0 => Storm::from_token(&text),
        1 => Storm::from_token(&format!("storm1.{text}")),
        _ => Storm::from_toml(&text),
    };
    let storm = match storm {
        Ok(storm) => storm,
        Err(error) => {
            let error = error.to_string();
            assert!(error.len() < 1000, "{} bytes of error", error.len());
            assert!(!error.contains(char::is_control), "{error:?}");
            return;
        }
    };
    assert_eq!(Storm::from_token(&storm.token()).as_ref(), Ok(&storm));
    if storm.to_toml().len() <= MAX_FILE {
        assert_eq!(Storm::from_toml(&storm.to_toml()).as_ref(), Ok(&storm));
    }
    let rings = first % 8 + 1;
    if let Ok(outline) = storm.outline(rings) {
        assert!(!outline.is_empty() && outline.len() <= 64);
        run(&storm, rings, (first >> 3 & 7).into());
    }
}

/// Runs the begin of a storm twice, once in time and once late: it must be the same.
fn run(storm: &Storm, rings: u8, instance: u64) {
    let memory: GuestMemoryMmap =
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
    let config = Config {
        rings,
        ..Config::default()
    };
    let device = || {
        let mut device = Evgen::new(config, Recorder(Raised::default())).unwrap();
        device.start_storm(storm, instance, 0).unwrap();
        device
    };
    let (mut punctual, mut late) = (device(), device());
    let made = |device: &Evgen<Recorder>| device.stats().storm.unwrap();
    while made(&punctual).running && made(&punctual).made < EVENTS {
        let due = punctual.due().unwrap();
        let before = made(&punctual).made;
        punctual.advance(&memory, due);
        assert!(made(&punctual).made > before || punctual.due() > Some(due));
    }
    // The late one stops at most one call later than the other.
    let end = storm.duration();
    while made(&late).made < made(&punctual).made {
        late.advance(&memory, end);
    }
    let (punctual, late) = (made(&punctual), made(&late));
    if punctual.made == late.made {
        assert_eq!(punctual.digest, late.digest);
    }
    if !late.running {
        assert!(
            late.total.is_none_or(|total| total == late.made),
            "{late:?}"
        );
    }
    assert!(
        late.total.is_none_or(|total| total >= late.made),
        "{late:?}"
    );
}
