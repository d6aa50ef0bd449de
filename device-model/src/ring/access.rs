// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Guest memory for a batch of events: where the parts of each ring are is looked up once, not for
//! every access.

use lockstorm_abi::event::EVENT_SIZE;
use lockstorm_abi::identity::MAX_RINGS;
use vm_memory::bitmap::BS;
use vm_memory::{Bytes, GuestAddress, GuestMemory, Permissions, VolatileSlice};

use super::queue::Unusable;

/// A piece of guest memory.
pub(super) type Piece<'m, M> = VolatileSlice<'m, BS<'m, <M as GuestMemory>::Bitmap>>;

/// The three parts of a queue.
pub(super) struct Parts<'m, M: GuestMemory + 'm> {
    pub descriptors: Piece<'m, M>,
    pub available: Piece<'m, M>,
    pub used: Piece<'m, M>,
}

/// Address and length of each part, in the order of [`Parts`].
pub(super) type Places = [(u64, usize); 3];

/// Guest memory, lent for one call into the device. Rings do not move meanwhile: only the driver
/// moves them, by a call of its own.
pub(crate) struct Access<'m, M: GuestMemory> {
    memory: &'m M,
    parts: [Option<Parts<'m, M>>; MAX_RINGS],
}

impl<'m, M: GuestMemory> Access<'m, M> {
    pub fn new(memory: &'m M) -> Self {
        Self {
            memory,
            parts: Default::default(),
        }
    }

    /// Writes an event, which may lie in two pieces of memory.
    pub(super) fn write(
        &self,
        bytes: &[u8; EVENT_SIZE],
        address: GuestAddress,
    ) -> Result<(), Unusable> {
        match piece(self.memory, (address.0, EVENT_SIZE), Permissions::Write) {
            Ok(piece) => piece.write_slice(bytes, 0).map_err(|_| Unusable),
            Err(Unusable) => self
                .memory
                .write_slice(bytes, address)
                .map_err(|_| Unusable),
        }
    }

    /// The parts of ring `ring`, which lie at `places`. Each must be in one piece.
    pub(super) fn parts(&mut self, ring: u16, places: &Places) -> Result<&Parts<'m, M>, Unusable> {
        let memory = self.memory;
        let parts = self.parts.get_mut(usize::from(ring)).ok_or(Unusable)?;
        if parts.is_none() {
            let [descriptors, available, used] = *places;
            *parts = Some(Parts {
                descriptors: piece(memory, descriptors, Permissions::Read)?,
                available: piece(memory, available, Permissions::Read)?,
                used: piece(memory, used, Permissions::Write)?,
            });
        }
        parts.as_ref().ok_or(Unusable)
    }
}

fn piece<M: GuestMemory>(
    memory: &M,
    (address, length): (u64, usize),
    permissions: Permissions,
) -> Result<Piece<'_, M>, Unusable> {
    let mut pieces = memory
        .get_slices(GuestAddress(address), length, permissions)
        .map_err(|_| Unusable)?;
    let piece = pieces.next().ok_or(Unusable)?.map_err(|_| Unusable)?;
    if piece.len() == length {
        Ok(piece)
    } else {
        Err(Unusable)
    }
}
