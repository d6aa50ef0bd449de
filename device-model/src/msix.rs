// SPDX-License-Identifier: Apache-2.0 OR MIT

//! MSI-X (PCI Local Bus 3.0, §6.8.2): table, pending bit array, masking and replay.
//!
//! All of it is kept here and nowhere else: a host only ever sees messages that are to be sent now.

/// The memory write that is an interrupt, as the guest put it into the vector's table entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MsiMessage {
    /// Message address: which interrupt controller.
    pub address: u64,
    /// Message data: which interrupt, delivered how.
    pub data: u32,
}

/// Sends the device's interrupts: the host's side of MSI-X.
pub trait MsiSink {
    /// Sends `message`, which is what the table entry of `vector` holds at this moment.
    ///
    /// Called only when nothing masks the vector, and with the device borrowed: it must not block.
    fn raise(&mut self, vector: u16, message: MsiMessage);

    /// Gives back whatever the host has set aside for this device's vectors: none of them will be
    /// raised until the guest has set MSI-X up anew.
    fn release(&mut self);
}

/// Size of a table entry in bytes.
const ENTRY_SIZE: u64 = 16;
/// Vector Control bit 0. The other bits are reserved and read as zero.
const ENTRY_MASKED: u32 = 1;
/// Granularity of the BAR's two regions, so that a host can map each by pages of its own.
const PAGE: u64 = 0x1000;

#[derive(Clone, Copy)]
struct Entry {
    message: MsiMessage,
    masked: bool,
    pending: bool,
    raised: u64,
}

/// The vectors of one function.
pub(crate) struct Msix {
    entries: Vec<Entry>,
    /// Message Control: MSI-X Enable.
    enabled: bool,
    /// Message Control: Function Mask.
    function_masked: bool,
    /// Command: Bus Master Enable. A message is a memory write, so without it none can be sent.
    bus_master: bool,
}

impl Msix {
    /// `vectors` vectors as after reset: MSI-X disabled, each vector masked.
    pub fn new(vectors: usize) -> Self {
        let entry = Entry {
            message: MsiMessage::default(),
            masked: true,
            pending: false,
            raised: 0,
        };
        Self {
            entries: vec![entry; vectors],
            enabled: false,
            function_masked: false,
            bus_master: false,
        }
    }

    /// Offset in the BAR of the pending bit array; the table is at offset 0.
    pub fn pending_offset(vectors: usize) -> u64 {
        (vectors as u64 * ENTRY_SIZE).next_multiple_of(PAGE)
    }

    /// Size of the BAR in bytes: a power of two.
    pub fn bar_size(vectors: usize) -> u64 {
        (Self::pending_offset(vectors) + PAGE).next_power_of_two()
    }

    /// Messages sent so far, per vector.
    pub fn raised(&self) -> Vec<u64> {
        self.entries.iter().map(|entry| entry.raised).collect()
    }

    /// Follows the bits of configuration space that say whether messages may be sent at all.
    pub fn set_control(
        &mut self,
        enabled: bool,
        function_masked: bool,
        bus_master: bool,
        sink: &mut impl MsiSink,
    ) {
        if self.enabled && !enabled {
            sink.release();
        }
        self.enabled = enabled;
        self.function_masked = function_masked;
        self.bus_master = bus_master;
        self.replay(sink);
    }

    /// Sends the message of `vector`, or sets its pending bit while something masks it.
    pub fn trigger(&mut self, vector: usize, sink: &mut impl MsiSink) {
        let open = self.open();
        let Some(entry) = self.entries.get_mut(vector) else {
            return;
        };
        if open && !entry.masked {
            entry.raised += 1;
            sink.raise(vector as u16, entry.message);
        } else {
            entry.pending = true;
        }
    }

    /// Holds.
    pub fn hold(&mut self, _vector: usize, _held: bool, _sink: &mut impl MsiSink) {}

    /// Power-on.
    pub fn reset(&mut self, sink: &mut impl MsiSink) {
        *self = Self::new(self.entries.len());
        sink.release();
    }

    /// Forgets what is pending, as a device does whose reasons to interrupt are gone.
    pub fn clear_pending(&mut self) {
        for entry in &mut self.entries {
            entry.pending = false;
        }
    }

    /// Reads from the BAR: an aligned 4- or 8-byte access to table or pending bits, else zeros.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if !aligned(offset, data.len()) {
            return;
        }
        for (index, bytes) in data.chunks_exact_mut(4).enumerate() {
            bytes.copy_from_slice(&self.read_dword(offset + index as u64 * 4).to_le_bytes());
        }
    }

    /// Writes to the BAR: an aligned 4- or 8-byte access to the table. Others, and writes to the
    /// read-only pending bits, are ignored.
    pub fn write(&mut self, offset: u64, data: &[u8], sink: &mut impl MsiSink) {
        if !aligned(offset, data.len()) {
            return;
        }
        for (index, bytes) in data.chunks_exact(4).enumerate() {
            let value = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            self.write_dword(offset + index as u64 * 4, value);
        }
        self.replay(sink);
    }

    fn open(&self) -> bool {
        self.enabled && !self.function_masked && self.bus_master
    }

    /// Sends what waited, each vector once: pending is a bit, not a count (§6.8.2.9).
    fn replay(&mut self, sink: &mut impl MsiSink) {
        if !self.open() {
            return;
        }
        for (vector, entry) in self.entries.iter_mut().enumerate() {
            if entry.pending && !entry.masked {
                entry.pending = false;
                entry.raised += 1;
                sink.raise(vector as u16, entry.message);
            }
        }
    }

    fn read_dword(&self, offset: u64) -> u32 {
        if let Some(entry) = self.entries.get((offset / ENTRY_SIZE) as usize) {
            return match offset % ENTRY_SIZE {
                0 => entry.message.address as u32,
                4 => (entry.message.address >> 32) as u32,
                8 => entry.message.data,
                _ => u32::from(entry.masked) * ENTRY_MASKED,
            };
        }
        let Some(first_bit) = offset
            .checked_sub(Self::pending_offset(self.entries.len()))
            .map(|byte| byte as usize * 8)
        else {
            return 0;
        };
        let vectors = self.entries.iter().skip(first_bit).take(32);
        vectors.enumerate().fold(0, |bits, (bit, entry)| {
            bits | u32::from(entry.pending) << bit
        })
    }

    fn write_dword(&mut self, offset: u64, value: u32) {
        let Some(entry) = self.entries.get_mut((offset / ENTRY_SIZE) as usize) else {
            return;
        };
        let address = &mut entry.message.address;
        match offset % ENTRY_SIZE {
            0 => *address = *address >> 32 << 32 | u64::from(value),
            4 => *address = u64::from(value) << 32 | (*address & u64::from(u32::MAX)),
            8 => entry.message.data = value,
            _ => entry.masked = value & ENTRY_MASKED != 0,
        }
    }
}

/// The accesses that §6.8.2 defines.
fn aligned(offset: u64, width: usize) -> bool {
    (width == 4 || width == 8) && offset.is_multiple_of(width as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Recorder {
        sent: Vec<(u16, MsiMessage)>,
        released: usize,
    }

    impl MsiSink for Recorder {
        fn raise(&mut self, vector: u16, message: MsiMessage) {
            self.sent.push((vector, message));
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
    fn disabling_gives_everything_back_once() {
        let (mut msix, mut recorder) = running();
        msix.set_control(false, false, true, &mut recorder);
        msix.set_control(false, false, true, &mut recorder);
        assert_eq!(recorder.released, 1);
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
}
