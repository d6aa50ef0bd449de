// SPDX-License-Identifier: Apache-2.0 OR MIT

//! One event, as the device writes it to guest memory: 64 bytes, little endian.

/// Size of an event in bytes. Each buffer that a driver offers must hold one.
pub const EVENT_SIZE: usize = 64;
/// Size of an event's payload in bytes.
pub const PAYLOAD_SIZE: usize = 32;

/// [`Event::source`]: made by the driver itself; never written by the device.
pub const SOURCE_DRIVER: u16 = 0;
/// [`Event::source`]: the driver rang the ring's doorbell.
pub const SOURCE_DOORBELL: u16 = 1;
/// [`Event::source`]: somebody asked the host for this one event.
pub const SOURCE_INJECT: u16 = 2;
/// [`Event::source`]: a storm.
pub const SOURCE_STORM: u16 = 3;
/// Number of sources; each numbers its events on its own, per ring.
pub const SOURCES: usize = 4;

/// [`Event::flags`]: the handler that takes this event tells the device so at once
/// ([`RingAcknowledge`](super::registers::Register::RingAcknowledge)), for the host to measure how
/// long that took.
pub const FLAG_ACKNOWLEDGE: u16 = 1 << 0;

/// [`Event::ring`] of an event that came from no ring ([`SOURCE_DRIVER`]).
pub const NO_RING: u16 = 0xffff;

/// One event.
///
/// | offset | size | field |
/// |---:|---:|---|
/// | 0 | 8 | `sequence` |
/// | 8 | 8 | `timestamp` |
/// | 16 | 2 | `source` |
/// | 18 | 2 | `kind` |
/// | 20 | 2 | `ring` |
/// | 22 | 2 | `flags` |
/// | 24 | 32 | `payload` |
/// | 56 | 8 | checksum over bytes 0 to 55, see [`checksum`] |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Number of this event among those of the same ring and source, from 0 after reset. An event
    /// that is dropped keeps its number, so what is missing can be counted.
    pub sequence: u64,
    /// Device time in nanoseconds at which the event was made; never runs backwards.
    pub timestamp: u64,
    /// Who made the event: one of the `SOURCE_` constants.
    pub source: u16,
    /// What the event is; its maker chooses, the device gives it no meaning.
    pub kind: u16,
    /// Ring that the event was made for.
    pub ring: u16,
    /// [`FLAG_ACKNOWLEDGE`] or nothing; other bits are reserved and zero.
    pub flags: u16,
    /// Whatever its maker put in.
    pub payload: [u8; PAYLOAD_SIZE],
}

impl Event {
    /// The event as it lies in memory, with its checksum.
    pub fn to_bytes(&self) -> [u8; EVENT_SIZE] {
        let mut bytes = [0; EVENT_SIZE];
        bytes[0..8].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.timestamp.to_le_bytes());
        bytes[16..18].copy_from_slice(&self.source.to_le_bytes());
        bytes[18..20].copy_from_slice(&self.kind.to_le_bytes());
        bytes[20..22].copy_from_slice(&self.ring.to_le_bytes());
        bytes[22..24].copy_from_slice(&self.flags.to_le_bytes());
        bytes[24..56].copy_from_slice(&self.payload);
        let sum = checksum(&bytes);
        bytes[56..64].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads an event back; `None` if its checksum is wrong.
    pub fn from_bytes(bytes: &[u8; EVENT_SIZE]) -> Option<Self> {
        if checksum(bytes) != u64_at(bytes, 56) {
            return None;
        }
        let mut payload = [0; PAYLOAD_SIZE];
        payload.copy_from_slice(&bytes[24..56]);
        Some(Self {
            sequence: u64_at(bytes, 0),
            timestamp: u64_at(bytes, 8),
            source: u16_at(bytes, 16),
            kind: u16_at(bytes, 18),
            ring: u16_at(bytes, 20),
            flags: u16_at(bytes, 22),
            payload,
        })
    }
}

/// The checksum of an event: FNV-1a over the first seven 64-bit words.
///
/// Each step is a bijection of the running value, so an event with any one word changed never
/// keeps its checksum.
pub fn checksum(bytes: &[u8; EVENT_SIZE]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut offset = 0;
    while offset < EVENT_SIZE - 8 {
        hash = (hash ^ u64_at(bytes, offset)).wrapping_mul(0x0000_0100_0000_01b3);
        offset += 8;
    }
    hash
}

fn u64_at(bytes: &[u8; EVENT_SIZE], offset: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[offset..offset + 8]);
    u64::from_le_bytes(word)
}

fn u16_at(bytes: &[u8; EVENT_SIZE], offset: usize) -> u16 {
    u16::from_le_bytes([bytes[offset], bytes[offset + 1]])
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: Event = Event {
        sequence: 0x0102_0304_0506_0708,
        timestamp: 1_000_000_007,
        source: SOURCE_STORM,
        kind: 42,
        ring: 5,
        flags: FLAG_ACKNOWLEDGE,
        payload: [0xa5; PAYLOAD_SIZE],
    };

    #[test]
    fn bytes_are_those_of_the_datasheet() {
        let bytes = SAMPLE.to_bytes();
        assert_eq!(bytes[0..8], [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(bytes[16..24], [3, 0, 42, 0, 5, 0, 1, 0]);
        assert_eq!(bytes[24..56], [0xa5; 32]);
        assert_eq!(Event::from_bytes(&bytes), Some(SAMPLE));
    }

    #[test]
    fn every_single_bit_error_is_found() {
        let good = SAMPLE.to_bytes();
        for bit in 0..EVENT_SIZE * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Event::from_bytes(&bad), None, "bit {bit}");
        }
    }

    /// The vectors that `SPEC.md` prints for whoever writes a checksum of their own.
    #[test]
    fn checksum_vectors() {
        let mut counting = [0; EVENT_SIZE];
        for (value, byte) in (0..).zip(counting.iter_mut()) {
            *byte = value;
        }
        assert_eq!(checksum(&[0; EVENT_SIZE]), 0x778b_1a14_b687_6aa7);
        assert_eq!(checksum(&counting), 0x161e_e68f_e44b_adbf);
    }
}
