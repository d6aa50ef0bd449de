// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What is in an event besides its header: added ones carry a pattern, so that every one of them
//! proves itself. Their checksum cannot: the driver computes it over whatever it holds.

use evgen_uapi::{AddEvent, PAYLOAD_SIZE, Record, SOURCE_DOORBELL, SOURCE_DRIVER};

/// Event number `number` of those that process `maker` adds: both are in the payload, plain and
/// inverted, and the kind follows from the number.
pub fn added(maker: u32, number: u64) -> AddEvent {
    let maker = u64::from(maker);
    let mut payload = [0; PAYLOAD_SIZE];
    for (word, value) in payload
        .chunks_exact_mut(8)
        .zip([maker, number, !maker, !number])
    {
        word.copy_from_slice(&value.to_le_bytes());
    }
    AddEvent {
        kind: kind(&payload),
        payload,
        ..AddEvent::default()
    }
}

/// Whether kind and payload are what the event was made with. For the events of the host that is
/// anything.
pub fn fits(record: &Record) -> bool {
    match record.source {
        SOURCE_DRIVER => {
            let (plain, inverted) = record.payload.split_at(PAYLOAD_SIZE / 2);
            plain.iter().map(|byte| !byte).eq(inverted.iter().copied())
                && record.kind == kind(&record.payload)
        }
        SOURCE_DOORBELL => record.kind == 0 && record.payload == [0; PAYLOAD_SIZE],
        _ => true,
    }
}

/// The low bits of the number in the payload.
fn kind(payload: &[u8; PAYLOAD_SIZE]) -> u16 {
    u16::from_le_bytes([payload[8], payload[9]])
}

#[cfg(test)]
mod tests {
    use evgen_uapi::{NO_RING, SOURCE_INJECT, SOURCE_STORM};

    use super::*;

    fn record(source: u16, kind: u16, payload: [u8; PAYLOAD_SIZE]) -> Record {
        Record {
            sequence: 0,
            timestamp: 0,
            source,
            kind,
            ring: NO_RING,
            flags: 0,
            payload,
            intact: true,
        }
    }

    #[test]
    fn an_added_event_fits_until_any_bit_of_it_changes() {
        for (maker, number) in [
            (0, 0),
            (1, 0),
            (77, 1),
            (77, 0x1_0000),
            (u32::MAX, u64::MAX),
        ] {
            let AddEvent { kind, payload, .. } = added(maker, number);
            assert!(fits(&record(SOURCE_DRIVER, kind, payload)));
            for bit in 0..16 {
                let damaged = record(SOURCE_DRIVER, kind ^ 1 << bit, payload);
                assert!(!fits(&damaged), "{maker} {number}, bit {bit} of the kind");
            }
            for bit in 0..PAYLOAD_SIZE * 8 {
                let mut payload = payload;
                payload[bit / 8] ^= 1 << (bit % 8);
                let damaged = record(SOURCE_DRIVER, kind, payload);
                assert!(
                    !fits(&damaged),
                    "{maker} {number}, bit {bit} of the payload"
                );
            }
        }
    }

    #[test]
    fn each_source_has_its_own_contents() {
        let (zeros, ones) = ([0; PAYLOAD_SIZE], [1; PAYLOAD_SIZE]);
        let AddEvent { kind, payload, .. } = added(1, 1);
        for (source, kind, payload, expected) in [
            (SOURCE_DRIVER, 0, zeros, false),
            (SOURCE_DRIVER, kind, payload, true),
            (SOURCE_DRIVER, kind + 1, payload, false),
            (SOURCE_DOORBELL, 0, zeros, true),
            (SOURCE_DOORBELL, 1, zeros, false),
            (SOURCE_DOORBELL, 0, ones, false),
            (SOURCE_DOORBELL, kind, payload, false),
            (SOURCE_INJECT, 7, ones, true),
            (SOURCE_STORM, 7, ones, true),
        ] {
            let record = record(source, kind, payload);
            assert_eq!(fits(&record), expected, "{record:?}");
        }
    }
}
