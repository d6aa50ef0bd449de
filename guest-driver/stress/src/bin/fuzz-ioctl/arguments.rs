// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Arguments of the driver's `ioctl`s, right ones and wrong ones.

use evgen_uapi::{
    ADD, COALESCING_EVENTS_MAX, COALESCING_MICROSECONDS_MAX, COUNTERS, DEFERRED_MILLISECONDS_MAX,
    GET_EVENT, INJECT, INJECT_DEFERRED, PAYLOAD_SIZE, RESET, SET_COALESCING, WAIT_DRAINED,
};
use fastrand::Rng;

/// All commands that the driver knows.
const COMMANDS: [u32; 8] = [
    ADD,
    INJECT,
    COUNTERS,
    INJECT_DEFERRED,
    GET_EVENT,
    WAIT_DRAINED,
    SET_COALESCING,
    RESET,
];

/// Types of commands that never reach a driver, as the kernel takes them itself (`do_vfs_ioctl`).
const KERNELS: [u32; 6] = [0, 0x15, b'T' as u32, b'X' as u32, b'f' as u32, 0x94];

/// An argument, as it is in memory.
pub struct Argument {
    pub bytes: Vec<u8>,
    /// Whether the driver should take it.
    pub valid: bool,
}

/// An [`evgen_uapi::AddEvent`].
pub fn add_event(random: &mut Rng) -> Argument {
    let reserved = if random.u8(0..8) == 0 {
        random.u16(..)
    } else {
        0
    };
    let mut bytes = random.u16(..).to_ne_bytes().to_vec();
    let mut fields = [0; 3];
    fields[random.usize(0..3)] = reserved;
    bytes.extend(fields.iter().flat_map(|field| field.to_ne_bytes()));
    bytes.extend((0..PAYLOAD_SIZE).map(|_| random.u8(..)));
    let valid = reserved == 0;
    Argument { bytes, valid }
}

/// A ring of a device that has `rings`.
pub fn ring(random: &mut Rng, rings: u32) -> Argument {
    let ring = number(random, rings - 1);
    words(&[ring], ring < rings)
}

/// An [`evgen_uapi::DeferredInjection`]. Most of the right ones do not wait for long.
pub fn deferred_injection(random: &mut Rng, rings: u32) -> Argument {
    let ring = number(random, rings - 1);
    let milliseconds = match random.u16(0..512) {
        0 => random.u32(0..=DEFERRED_MILLISECONDS_MAX),
        1..100 => DEFERRED_MILLISECONDS_MAX
            .saturating_add(extreme(random))
            .saturating_add(1),
        _ => random.u32(0..50),
    };
    let valid = ring < rings && milliseconds <= DEFERRED_MILLISECONDS_MAX;
    words(&[ring, milliseconds], valid)
}

/// An [`evgen_uapi::Coalescing`].
pub fn coalescing(random: &mut Rng, rings: u32) -> Argument {
    let ring = number(random, rings - 1);
    let events = number(random, COALESCING_EVENTS_MAX);
    let microseconds = number(random, COALESCING_MICROSECONDS_MAX);
    let reserved = if random.u8(0..8) == 0 {
        extreme(random)
    } else {
        0
    };
    let valid = ring < rings
        && events <= COALESCING_EVENTS_MAX
        && microseconds <= COALESCING_MICROSECONDS_MAX
        && reserved == 0;
    words(&[ring, events, microseconds, reserved], valid)
}

/// How many milliseconds to wait.
pub fn milliseconds(random: &mut Rng) -> Argument {
    words(&[number(random, 10)], true)
}

/// A command that the driver does not know: another number, size or direction, or any.
pub fn unknown_command(random: &mut Rng) -> u32 {
    loop {
        let near = COMMANDS[random.usize(0..COMMANDS.len())];
        let command = match random.u8(0..5) {
            0 => near ^ random.u32(0..0x100),
            1 => near ^ random.u32(0..4) << 30,
            2 => near ^ random.u32(0..0x4000) << 16,
            3 => near ^ random.u32(0..0x100) << 8,
            _ => random.u32(..),
        };
        if !COMMANDS.contains(&command) && !KERNELS.contains(&(command >> 8 & 0xff)) {
            return command;
        }
    }
}

/// A number that is mostly 0 to `most`, and often one of the two.
fn number(random: &mut Rng, most: u32) -> u32 {
    match random.u8(0..16) {
        0 => most,
        1 => 0,
        2 => most.saturating_add(1),
        3 => extreme(random),
        _ => random.u32(0..=most),
    }
}

/// A number where something may begin to go wrong.
fn extreme(random: &mut Rng) -> u32 {
    let bit = 1_u32 << random.u32(0..32);
    [bit, bit.wrapping_sub(1), !bit, random.u32(..)][random.usize(0..4)]
}

fn words(words: &[u32], valid: bool) -> Argument {
    Argument {
        bytes: words.iter().flat_map(|word| word.to_ne_bytes()).collect(),
        valid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Size of the argument in a command's number.
    fn size(command: u32) -> usize {
        (command >> 16 & 0x3fff) as usize
    }

    #[test]
    fn arguments_have_their_size_and_are_of_both_kinds() {
        let mut random = Rng::with_seed(1);
        type Make = fn(&mut Rng) -> Argument;
        let table: [(u32, Make); 4] = [
            (ADD, add_event),
            (INJECT, |random| ring(random, 4)),
            (INJECT_DEFERRED, |random| deferred_injection(random, 1)),
            (SET_COALESCING, |random| coalescing(random, 8)),
        ];
        for (command, make) in table {
            let arguments: Vec<_> = (0..1000).map(|_| make(&mut random)).collect();
            let right = arguments.iter().filter(|argument| argument.valid).count();
            assert!((500..950).contains(&right), "{command:#x}: {right}");
            assert!(
                arguments
                    .iter()
                    .all(|argument| argument.bytes.len() == size(command))
            );
        }
        assert_eq!(milliseconds(&mut random).bytes.len(), size(WAIT_DRAINED));
    }

    #[test]
    fn unknown_commands_are_all_near_and_far() {
        let mut random = Rng::with_seed(1);
        let unknown: Vec<_> = (0..1000).map(|_| unknown_command(&mut random)).collect();
        let ours = unknown
            .iter()
            .filter(|&command| command >> 8 & 0xff == b'E'.into())
            .count();
        assert!((400..900).contains(&ours), "{ours}");
        assert!(COMMANDS.iter().all(|command| !unknown.contains(command)));
    }
}
