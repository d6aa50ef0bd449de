// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The vectors alone, without the device around them.

use super::*;

#[derive(Default)]
struct Recorder {
    sent: Vec<(u16, MsiMessage)>,
    settled: Vec<u16>,
    released: usize,
}

impl MsiSink for Recorder {
    fn raise(&mut self, vector: u16, message: MsiMessage) {
        self.sent.push((vector, message));
    }
    fn settle(&mut self, vector: u16) {
        self.settled.push(vector);
    }
    fn release(&mut self) {
        self.released += 1;
    }
}

fn message(vector: u32) -> MsiMessage {
    MsiMessage {
        address: 0xfee0_0000 | u64::from(vector) << 12,
        data: 0x4000 | vector,
    }
}

/// Three vectors, set up and unmasked, MSI-X enabled.
fn running() -> (Msix, Recorder) {
    let (mut msix, mut recorder) = (Msix::new(3), Recorder::default());
    msix.set_control(true, false, true, &mut recorder);
    for vector in 0..3 {
        let entry = u64::from(vector) * ENTRY_SIZE;
        msix.write(entry, &message(vector).address.to_le_bytes(), &mut recorder);
        msix.write(
            entry + 8,
            &message(vector).data.to_le_bytes(),
            &mut recorder,
        );
        msix.write(entry + 12, &0_u32.to_le_bytes(), &mut recorder);
    }
    assert_eq!(recorder.sent, []);
    (msix, recorder)
}

fn pending(msix: &Msix) -> u32 {
    let mut bits = [0; 4];
    msix.read(Msix::pending_offset(3), &mut bits);
    u32::from_le_bytes(bits)
}

#[test]
fn after_reset_nothing_is_sent_and_every_vector_is_masked() {
    let (mut msix, mut recorder) = (Msix::new(3), Recorder::default());
    msix.trigger(1, &mut recorder);
    assert_eq!(recorder.sent, []);
    for vector in 0..3 {
        let mut control = [0; 4];
        msix.read(vector * ENTRY_SIZE + 12, &mut control);
        assert_eq!(u32::from_le_bytes(control), ENTRY_MASKED);
    }
}

#[test]
fn whatever_masks_a_vector_pends_it_and_lifting_that_replays_it_once() {
    type Step = fn(&mut Msix, &mut Recorder);
    let cases: [(&str, Step, Step); 4] = [
        (
            "vector mask",
            |msix, recorder| msix.write(ENTRY_SIZE + 12, &1_u32.to_le_bytes(), recorder),
            |msix, recorder| msix.write(ENTRY_SIZE + 12, &0_u32.to_le_bytes(), recorder),
        ),
        (
            "function mask",
            |msix, recorder| msix.set_control(true, true, true, recorder),
            |msix, recorder| msix.set_control(true, false, true, recorder),
        ),
        (
            "enable",
            |msix, recorder| msix.set_control(false, false, true, recorder),
            |msix, recorder| msix.set_control(true, false, true, recorder),
        ),
        (
            "bus master",
            |msix, recorder| msix.set_control(true, false, false, recorder),
            |msix, recorder| msix.set_control(true, false, true, recorder),
        ),
    ];
    for (name, mask, unmask) in cases {
        let (mut msix, mut recorder) = running();
        mask(&mut msix, &mut recorder);
        msix.trigger(1, &mut recorder);
        msix.trigger(1, &mut recorder);
        assert_eq!((recorder.sent.len(), pending(&msix)), (0, 0b010), "{name}");
        unmask(&mut msix, &mut recorder);
        assert_eq!(recorder.sent, [(1, message(1))], "{name}");
        assert_eq!(pending(&msix), 0, "{name}");
        unmask(&mut msix, &mut recorder);
        assert_eq!(recorder.sent.len(), 1, "{name}: replayed twice");
    }
}

#[test]
fn a_changed_entry_is_what_gets_sent() {
    let (mut msix, mut recorder) = running();
    msix.trigger(2, &mut recorder);
    msix.write(2 * ENTRY_SIZE + 8, &0x77_u32.to_le_bytes(), &mut recorder);
    msix.trigger(2, &mut recorder);
    let changed = MsiMessage {
        data: 0x77,
        ..message(2)
    };
    assert_eq!(recorder.sent, [(2, message(2)), (2, changed)]);
    assert_eq!(msix.raised(), [0, 0, 2]);
}

#[test]
fn what_stops_the_whole_function_gives_everything_back_once() {
    for (enabled, function_masked, bus_master) in [
        (false, false, true),
        (true, true, true),
        (true, false, false),
    ] {
        let (mut msix, mut recorder) = running();
        for _ in 0..2 {
            msix.set_control(enabled, function_masked, bus_master, &mut recorder);
        }
        assert_eq!(recorder.released, 1);
    }
}

#[test]
fn masking_a_vector_settles_it_and_no_other() {
    let (mut msix, mut recorder) = running();
    msix.trigger(1, &mut recorder);
    msix.write(ENTRY_SIZE + 12, &1_u32.to_le_bytes(), &mut recorder);
    assert_eq!(recorder.settled, [1]);
    msix.hold(2, true, &mut recorder).unwrap();
    assert_eq!(recorder.settled, [1, 2]);
}

#[test]
fn a_held_vector_pends_until_released_and_looks_unmasked() {
    let (mut msix, mut recorder) = running();
    msix.hold(1, true, &mut recorder).unwrap();
    msix.trigger(1, &mut recorder);
    msix.trigger(0, &mut recorder);
    assert_eq!(recorder.sent, [(0, message(0))]);
    let mut control = [0xff; 4];
    msix.read(ENTRY_SIZE + 12, &mut control);
    assert_eq!((control, pending(&msix)), ([0; 4], 0b010));
    // The guest's own mask comes on top, and neither lifts the other.
    msix.write(ENTRY_SIZE + 12, &1_u32.to_le_bytes(), &mut recorder);
    msix.write(ENTRY_SIZE + 12, &0_u32.to_le_bytes(), &mut recorder);
    msix.set_control(true, true, true, &mut recorder);
    msix.set_control(true, false, true, &mut recorder);
    assert_eq!(recorder.sent.len(), 1);
    msix.write(ENTRY_SIZE + 12, &1_u32.to_le_bytes(), &mut recorder);
    msix.hold(1, false, &mut recorder).unwrap();
    assert_eq!(recorder.sent.len(), 1);
    msix.write(ENTRY_SIZE + 12, &0_u32.to_le_bytes(), &mut recorder);
    assert_eq!(recorder.sent, [(0, message(0)), (1, message(1))]);
    let refused = msix.hold(3, true, &mut recorder).unwrap_err().to_string();
    assert_eq!(
        refused,
        "there is no vector 3: the device has vectors 0 to 2"
    );
}

#[test]
fn reset_is_power_on_for_all_but_what_is_the_hosts() {
    let (mut msix, mut recorder) = running();
    msix.trigger(0, &mut recorder);
    msix.hold(1, true, &mut recorder).unwrap();
    msix.trigger(1, &mut recorder);
    msix.reset(&mut recorder);
    assert_eq!(recorder.released, 1);
    let (mut now, mut new) = (vec![0; 8], vec![0; 8]);
    for offset in (0..Msix::bar_size(3)).step_by(8) {
        msix.read(offset, &mut now);
        Msix::new(3).read(offset, &mut new);
        assert_eq!(now, new, "{offset:#x}");
    }
    msix.set_control(true, false, true, &mut recorder);
    msix.write(ENTRY_SIZE + 12, &0_u32.to_le_bytes(), &mut recorder);
    assert_eq!(recorder.sent, [(0, message(0))], "nothing is pending");
    assert_eq!(msix.raised(), [1, 0, 0]);
    msix.trigger(1, &mut recorder);
    assert_eq!(recorder.sent.len(), 1, "the vector is held");
    msix.hold(1, false, &mut recorder).unwrap();
    assert_eq!(recorder.sent.len(), 2);
}

#[test]
fn no_access_panics_and_undefined_ones_do_nothing() {
    for vectors in [1, 9, 2048] {
        let (mut msix, mut recorder) = (Msix::new(vectors), Recorder::default());
        let size = Msix::bar_size(vectors);
        let edges = [0, 1, 4, 12, 14, ENTRY_SIZE * vectors as u64, size];
        for offset in edges
            .into_iter()
            .flat_map(|edge| edge.saturating_sub(9)..edge + 9)
        {
            for width in 0..=9 {
                let mut data = vec![0xaa; width];
                msix.read(offset, &mut data);
                msix.write(offset, &data, &mut recorder);
                if !aligned(offset, width) {
                    assert!(data.iter().all(|byte| *byte == 0), "{width} at {offset:#x}");
                }
            }
        }
        msix.read(u64::MAX, &mut [0; 4]);
        msix.trigger(vectors, &mut recorder);
        assert_eq!(recorder.sent, []);
    }
}
