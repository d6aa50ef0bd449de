// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The rules of the conformance table, each as a test.

pub use super::model::under_fire;

use super::board::{
    Board, COMMAND, COMMAND_BUS_MASTER, COMMAND_MEMORY, ENABLE, FUNCTION_MASK, message,
};
use crate::MsiMessage;

/// Numbers of vectors at which something could go wrong: within a word, words, all there can be.
const SIZES: [u16; 6] = [2, 3, 64, 65, 200, 2048];

/// Devices in their state after reset: at power-on, and when a guest had been using them.
fn after_reset(vectors: u16) -> [Board; 2] {
    let mut used = Board::running(vectors);
    used.trigger(0);
    used.mask(1, true);
    used.trigger(1);
    used.control(ENABLE | FUNCTION_MASK);
    used.function_level_reset();
    used.sent();
    [Board::new(vectors), used]
}

pub fn reset_disables() {
    for board in SIZES.into_iter().flat_map(after_reset) {
        assert_eq!(board.message_control(), board.vectors - 1);
    }
}

pub fn reset_masks() {
    for mut board in SIZES.into_iter().flat_map(after_reset) {
        assert!((0..board.vectors).all(|vector| board.is_masked(vector)));
        board.config_write(COMMAND, &[COMMAND_BUS_MASTER]);
        board.control(ENABLE);
        board.trigger(0);
        assert_eq!(board.sent(), []);
    }
}

pub fn reset_clears_pending() {
    for mut board in SIZES.into_iter().flat_map(after_reset) {
        assert!(board.pending().is_empty());
        board.set_up();
    }
}

pub fn capability() {
    for vectors in SIZES {
        let board = Board::new(vectors);
        let at = board.msix_capability();
        assert_eq!(board.message_control() & 0x7ff, vectors - 1);
        let [table, pending] =
            [4, 8].map(|field| u32::from_le_bytes(board.config_read(at + field)));
        assert_eq!((table & 7, pending & 7), (2, 2), "both in BAR 2");
        let table_end = u64::from(table & !7) + u64::from(vectors) * 16;
        let pending_end = board.pending_offset() + u64::from(vectors.div_ceil(64)) * 8;
        assert!(table_end <= board.pending_offset() && pending_end <= board.bar_size());
    }
}

pub fn table_size() {
    let mut board = Board::new(5);
    for value in [0, 0x7ff, 0x3fff, 0xffff] {
        board.control(value);
        assert_eq!(board.message_control(), value & 0xc000 | 4);
    }
}

pub fn message_control_widths() {
    for (offset, data) in [
        (3, &[0xff][..]),
        (2, &[0xff, 0xff]),
        (0, &[0xff; 4]),
        (1, &[0xff; 3]),
    ] {
        let mut board = Board::new(5);
        let at = board.msix_capability();
        board.config_write(at + offset, data);
        assert_eq!(board.message_control(), ENABLE | FUNCTION_MASK | 4);
        let whole: [u8; 4] = board.config_read(at);
        assert_eq!(whole[2..], board.config_read::<2>(at + 2));
        assert_eq!(whole[3..], board.config_read::<1>(at + 3));
    }
    // The low byte has nothing to write, and must not take the high one along.
    let mut board = Board::new(5);
    board.config_write(board.msix_capability() + 2, &[0xff]);
    assert_eq!(board.message_control(), 4);
}

pub fn table_widths() {
    let mut board = Board::new(65);
    for vector in [0, 1, 64] {
        let entry = vector * 16;
        let fields = [0x1111_1110, 0x2222_2222, 0x3333_3333, 0];
        for (field, value) in (entry..).step_by(4).zip(fields) {
            board.write(field, &u32::to_le_bytes(value));
        }
        assert_eq!(board.read64(entry), 0x2222_2222_1111_1110);
        assert_eq!(board.read64(entry + 8), 0x3333_3333);
        board.write(entry, &0x5555_5555_4444_4444_u64.to_le_bytes());
        board.write(entry + 8, &0xffff_ffff_6666_6666_u64.to_le_bytes());
        let fields: Vec<u32> = (entry..entry + 16)
            .step_by(4)
            .map(|field| board.read32(field))
            .collect();
        assert_eq!(fields, [0x4444_4444, 0x5555_5555, 0x6666_6666, 1]);
    }
}

pub fn pending_widths() {
    for vectors in SIZES {
        let mut board = Board::new(vectors);
        let set = [0, 1, 31, 32, 63, 64, vectors - 1];
        for vector in set {
            board.trigger(vector);
        }
        for word in 0..u64::from(vectors.div_ceil(64)) + 2 {
            let bits = set
                .iter()
                .filter(|&&vector| vector < vectors && u64::from(vector / 64) == word)
                .fold(0, |bits, vector| bits | 1_u64 << (vector % 64));
            let offset = board.pending_offset() + word * 8;
            assert_eq!(board.read64(offset), bits, "{vectors} vectors, word {word}");
            assert_eq!(board.read32(offset), bits as u32);
            assert_eq!(board.read32(offset + 4), (bits >> 32) as u32);
        }
    }
}

pub fn pending_is_read_only() {
    let mut board = Board::new(65);
    board.trigger(64);
    let offset = board.pending_offset();
    for at in [offset, offset + 8] {
        board.write(at, &[0xff; 8]);
        board.write(at, &[0; 8]);
        board.write(at + 4, &[0xff; 4]);
        board.write(at, &[0; 4]);
    }
    assert_eq!(board.pending(), [64]);
}

pub fn other_accesses() {
    for vectors in SIZES {
        let mut board = Board::running(vectors);
        board.mask(1, true);
        board.trigger(1);
        let (table, pending) = (u64::from(vectors) * 16, board.pending_offset());
        let edges = [0, 16, table, pending, board.bar_size(), u64::MAX - 32];
        for offset in edges
            .into_iter()
            .flat_map(|edge| edge.saturating_sub(18)..edge + 18)
        {
            for width in 0..=17_usize {
                if matches!(width, 4 | 8) && offset % width as u64 == 0 && offset < table {
                    continue;
                }
                board.write(offset, &vec![0xff; width]);
                let mut data = vec![0xa5; width];
                board.read_into(offset, &mut data);
                let defined = matches!(width, 4 | 8) && offset % width as u64 == 0;
                if !defined {
                    assert!(data.iter().all(|&byte| byte == 0), "{width} at {offset:#x}");
                }
            }
        }
        assert_eq!((board.pending(), board.sent()), (vec![1], vec![]));
        for vector in 0..vectors {
            let entry = u64::from(vector) * 16;
            let expected = (message(vector).address, u64::from(message(vector).data));
            let control = u64::from(vector == 1) << 32;
            assert_eq!(board.read64(entry), expected.0);
            assert_eq!(board.read64(entry + 8), expected.1 | control);
        }
    }
}

pub fn vector_mask_pends() {
    for vectors in SIZES {
        let mut board = Board::running(vectors);
        let last = vectors - 1;
        board.mask(last, true);
        board.trigger(last);
        board.trigger(last);
        board.trigger(0);
        assert_eq!(board.sent(), [(0, message(0))]);
        assert_eq!(board.pending(), [last]);
    }
}

pub fn vector_unmask_sends() {
    let mut board = Board::running(65);
    board.mask(64, true);
    board.trigger(64);
    board.trigger(64);
    board.mask(64, true);
    assert_eq!(board.sent(), []);
    board.mask(64, false);
    board.mask(64, false);
    assert_eq!(board.sent(), [(64, message(64))]);
    assert!(board.pending().is_empty());
    board.mask(64, true);
    board.mask(64, false);
    assert_eq!(board.sent(), []);
}

pub fn no_other_vector() {
    let mut board = Board::running(65);
    for vector in [1, 2, 64] {
        board.mask(vector, true);
        board.trigger(vector);
    }
    board.mask(2, false);
    assert_eq!(board.sent(), [(2, message(2))]);
    assert_eq!(board.pending(), [1, 64]);
}

pub fn function_mask_pends() {
    let mut board = Board::running(65);
    board.mask(1, true);
    board.control(ENABLE | FUNCTION_MASK);
    for vector in [0, 1, 64] {
        board.trigger(vector);
    }
    board.mask(0, true);
    board.mask(0, false);
    assert_eq!(board.sent(), []);
    assert_eq!(board.pending(), [0, 1, 64]);
    let masked: Vec<u16> = (0..65).filter(|&vector| board.is_masked(vector)).collect();
    assert_eq!(masked, [1]);
}

pub fn function_unmask_sends() {
    let mut board = Board::running(65);
    board.mask(1, true);
    board.control(ENABLE | FUNCTION_MASK);
    for vector in [64, 1, 0, 64] {
        board.trigger(vector);
    }
    for _ in 0..2 {
        board.control(ENABLE);
    }
    assert_eq!(board.sent(), [(0, message(0)), (64, message(64))]);
    assert_eq!(board.pending(), [1]);
    board.mask(1, false);
    assert_eq!(board.sent(), [(1, message(1))]);
}

pub fn disabled_pends() {
    for off in [0, FUNCTION_MASK] {
        let mut board = Board::running(3);
        board.control(off);
        board.trigger(2);
        board.trigger(2);
        assert_eq!((board.sent(), board.pending()), (vec![], vec![2]));
        for _ in 0..2 {
            board.control(ENABLE);
        }
        assert_eq!(board.sent(), [(2, message(2))]);
        assert!(board.pending().is_empty());
    }
}

pub fn bus_master() {
    let mut board = Board::running(3);
    board.config_write(COMMAND, &[COMMAND_MEMORY]);
    board.trigger(2);
    board.trigger(2);
    assert_eq!((board.sent(), board.pending()), (vec![], vec![2]));
    board.config_write(COMMAND, &[COMMAND_MEMORY | COMMAND_BUS_MASTER]);
    assert_eq!(board.sent(), [(2, message(2))]);
}

pub fn message_of_the_moment() {
    let mut board = Board::running(3);
    let changed = MsiMessage {
        address: 0xfee0_1000,
        data: 0x77,
    };
    board.trigger(1);
    board.mask(1, true);
    board.trigger(1);
    board.write(16, &changed.address.to_le_bytes());
    // Data and unmasking in one access: the data must not come too late.
    board.write(24, &u64::from(changed.data).to_le_bytes());
    board.trigger(1);
    assert_eq!(board.sent(), [(1, message(1)), (1, changed), (1, changed)]);
}

pub fn masking_is_final() {
    let mut board = Board::running(3);
    board.trigger(1);
    assert!(board.recorder().settled.is_empty());
    board.mask(1, true);
    assert_eq!(board.recorder().settled, [1]);
    for (stop, go) in [(ENABLE | FUNCTION_MASK, ENABLE), (0, ENABLE)] {
        board.recorder().released = 0;
        board.trigger(0);
        board.control(stop);
        assert_eq!(board.recorder().released, 1);
        board.control(go);
    }
}

pub fn reason_gone() {
    let mut board = Board::running(3);
    board.mask(1, true);
    board.trigger(1);
    board.device_reset();
    assert!(board.pending().is_empty());
    board.mask(1, false);
    assert_eq!(board.sent(), []);
    assert_eq!(
        board.message_control() & ENABLE,
        ENABLE,
        "the bus's business stays"
    );
}

pub fn all_vectors() {
    let mut board = Board::running(2048);
    for vector in [2047, 7] {
        board.trigger(vector);
    }
    // The host hears of these two, and has never heard of another.
    assert_eq!(board.sent(), [(2047, message(2047)), (7, message(7))]);
    board.control(ENABLE | FUNCTION_MASK);
    for vector in (0..2048).rev() {
        board.trigger(vector);
    }
    assert_eq!(board.pending().len(), 2048);
    board.control(ENABLE);
    let all: Vec<_> = (0..2048).map(|vector| (vector, message(vector))).collect();
    assert_eq!(board.sent(), all);
}

pub fn reset_gives_back() {
    let mut board = Board::running(3);
    board.trigger(0);
    board.function_level_reset();
    assert_eq!(board.recorder().released, 1);
    board.trigger(0);
    board.config_write(COMMAND, &[COMMAND_BUS_MASTER]);
    board.trigger(1);
    board.control(ENABLE);
    assert_eq!(board.sent(), [(0, message(0))], "only what came before");
}

pub fn reset_restores_all() {
    let [new, mut used] = after_reset(65);
    assert_eq!(used.config_read::<256>(0), new.config_read::<256>(0));
    for offset in (0..new.bar_size()).step_by(8) {
        assert_eq!(used.read64(offset), new.read64(offset), "{offset:#x}");
    }
    used.set_up();
    used.trigger(64);
    assert_eq!(used.sent(), [(64, message(64))]);
}
