// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The device against a model of §6.8.2 that is as plain as can be, through thousands of steps that
//! nobody thought of.

use super::board::{Board, COMMAND, COMMAND_BUS_MASTER, COMMAND_MEMORY, ENABLE, FUNCTION_MASK};
use crate::MsiMessage;

const SEEDS: u64 = 60;
const STEPS: u32 = 1500;

/// One vector as the specification has it.
#[derive(Clone, Copy)]
struct Vector {
    entry: [u32; 4],
    pending: bool,
    held: bool,
}

impl Vector {
    const POWER_ON: Self = Self {
        entry: [0, 0, 0, 1],
        pending: false,
        held: false,
    };

    fn message(&self) -> MsiMessage {
        MsiMessage {
            address: u64::from(self.entry[1]) << 32 | u64::from(self.entry[0]),
            data: self.entry[2],
        }
    }
}

struct Model {
    vectors: Vec<Vector>,
    control: u16,
    bus_master: bool,
}

impl Model {
    fn new(vectors: u16) -> Self {
        Self {
            vectors: vec![Vector::POWER_ON; vectors.into()],
            control: 0,
            bus_master: false,
        }
    }

    /// The vectors that nothing keeps from being sent.
    fn open(&self) -> Vec<u16> {
        let function = self.control & (ENABLE | FUNCTION_MASK) == ENABLE && self.bus_master;
        let open = |vector: &Vector| function && vector.entry[3] == 0 && !vector.held;
        let vectors = (0..).zip(&self.vectors);
        vectors
            .filter_map(|(index, vector)| open(vector).then_some(index))
            .collect()
    }

    /// Sends whatever can be sent, looking at everything.
    fn deliver(&mut self) -> Vec<(u16, MsiMessage)> {
        let mut sent = Vec::new();
        for index in self.open() {
            let vector = &mut self.vectors[usize::from(index)];
            if std::mem::take(&mut vector.pending) {
                sent.push((index, vector.message()));
            }
        }
        sent
    }

    fn pending(&self) -> Vec<u16> {
        let vectors = (0..).zip(&self.vectors);
        vectors
            .filter_map(|(index, vector)| vector.pending.then_some(index))
            .collect()
    }
}

/// xorshift64: any sequence will do.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) % bound
    }
}

/// One thing that happens to both.
fn step(board: &mut Board, model: &mut Model, chance: &mut Chance) {
    let vector = chance.below(board.vectors.into()) as u16;
    let index = usize::from(vector);
    let entry = u64::from(vector) * 16;
    match chance.below(100) {
        0..40 => {
            board.trigger(vector);
            model.vectors[index].pending = true;
        }
        40..60 => {
            let masked = chance.below(2) == 1;
            board.mask(vector, masked);
            model.vectors[index].entry[3] = masked.into();
        }
        60..70 => {
            let (field, value) = (chance.below(4) as usize, chance.below(1 << 32) as u32);
            board.write(entry + field as u64 * 4, &value.to_le_bytes());
            model.vectors[index].entry[field] = if field == 3 { value & 1 } else { value };
        }
        70..77 => {
            let half = chance.below(2) as usize;
            let [low, high] = [0; 2].map(|_: u32| chance.below(1 << 32) as u32);
            let value = u64::from(high) << 32 | u64::from(low);
            board.write(entry + half as u64 * 8, &value.to_le_bytes());
            let high = if half == 1 { high & 1 } else { high };
            model.vectors[index].entry[half * 2..][..2].copy_from_slice(&[low, high]);
        }
        77..87 => {
            // Mostly on, or little would be sent.
            let control = [ENABLE, ENABLE, ENABLE | FUNCTION_MASK, FUNCTION_MASK, 0];
            model.control = control[chance.below(5) as usize];
            let at = board.msix_capability();
            match chance.below(3) {
                0 => board.config_write(at + 3, &model.control.to_le_bytes()[1..]),
                1 => board.config_write(at + 2, &model.control.to_le_bytes()),
                _ => board.config_write(at, &(u32::from(model.control) << 16).to_le_bytes()),
            }
        }
        87..92 => {
            model.bus_master = chance.below(3) > 0;
            let bus_master = if model.bus_master {
                COMMAND_BUS_MASTER
            } else {
                0
            };
            board.config_write(COMMAND, &[COMMAND_MEMORY | bus_master]);
        }
        92..97 => {
            let held = chance.below(2) == 1;
            board.hold(vector, held);
            model.vectors[index].held = held;
        }
        97..99 => {
            board.device_reset();
            for vector in &mut model.vectors {
                vector.pending = false;
            }
        }
        _ if chance.below(4) == 0 => {
            board.function_level_reset();
            let held: Vec<_> = model.vectors.iter().map(|vector| vector.held).collect();
            *model = Model::new(board.vectors);
            for (vector, held) in model.vectors.iter_mut().zip(held) {
                vector.held = held;
            }
        }
        _ => {}
    }
}

/// After every step the device has sent what the model has, in that order and with those messages,
/// the same bits are pending, and the host has settled each vector that must be silent now. In the
/// end nothing is in the way of anything, so whatever pends must come out.
pub fn under_fire() {
    for seed in 1..=SEEDS {
        let vectors = [2, 3, 64, 70][(seed % 4) as usize];
        let mut board = Board::new(vectors);
        let mut model = Model::new(vectors);
        let mut chance = Chance(seed);
        for number in 0..STEPS {
            let before = model.open();
            step(&mut board, &mut model, &mut chance);
            assert_eq!(board.sent(), model.deliver(), "seed {seed}, step {number}");
            assert_eq!(
                board.pending(),
                model.pending(),
                "seed {seed}, step {number}"
            );
            let after = model.open();
            let recorder = board.recorder();
            let released = std::mem::take(&mut recorder.released) > 0;
            let settled = std::mem::take(&mut recorder.settled);
            for silenced in before.into_iter().filter(|vector| !after.contains(vector)) {
                let heard = released || settled.contains(&silenced);
                assert!(
                    heard,
                    "seed {seed}, step {number}: {silenced} is not settled"
                );
            }
        }
        let pending = board.pending();
        board.config_write(COMMAND, &[COMMAND_BUS_MASTER]);
        board.control(ENABLE);
        for vector in 0..vectors {
            board.hold(vector, false);
            board.mask(vector, false);
        }
        let mut sent: Vec<u16> = board.sent().into_iter().map(|(vector, _)| vector).collect();
        sent.sort_unstable();
        assert_eq!(sent, pending, "seed {seed}: each once");
    }
}
