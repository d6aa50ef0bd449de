// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Interrupts to a client as what they are on a bus: writes of the device to memory, VFIO_USER_DMA_WRITE.
//!
//! The client is not told that the device has MSI-X, and takes its table for memory like any other;
//! the device masks vectors and keeps them pending by itself. That is for devices which are to be
//! unplugged again: QEMU 11.1.3 ends by an assertion when it lets go of a device whose MSI-X it knows.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::Bound;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use lockstorm_device_model::{MsiMessage, MsiSink};

use super::message::{Header, Writer, command};
use crate::devices::evgen::EvgenFunction;
use crate::pci::PciFunction;

/// The longest access to configuration space by a guest, in bytes.
const CONFIG_ACCESS_MAX: usize = 4;
/// Capabilities: where the first one stands, and the ids of MSI-X and of none (PCI Express Base 5.0,
/// §7.9.28).
const CAPABILITY_POINTER: u16 = 0x34;
const MSIX_CAPABILITY_ID: u8 = 0x11;
const NULL_CAPABILITY_ID: u8 = 0x00;

/// Messages that the client may leave unanswered, so that it cannot make the server fill its socket.
const UNANSWERED_MAX: usize = 16;

/// The interrupts of a device on their way to its client. Of two messages of a vector that wait at
/// the same time one is sent, as an interrupt controller makes of them.
///
/// The lock covers what waits and what is unanswered. Whoever has the device locked takes it to raise
/// a vector, the client's two threads to send and to take answers; it is a leaf: nothing is locked
/// inside it, and nobody writes to the socket with it locked.
#[derive(Default)]
pub struct Messages {
    state: Mutex<State>,
    /// There may be something to send, or the client is gone.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: BTreeMap<u16, MsiMessage>,
    /// The vector that was sent last: the next one has its turn, so that none has to wait for ever.
    last: u16,
    unanswered: usize,
    /// The number of the next message, for the client to answer by.
    next: u16,
    /// There is a client.
    open: bool,
}

/// The client answers a message that it was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unasked;

impl Messages {
    /// A client has come. Nothing that was meant for the last one waits for it.
    pub fn open(&self) {
        *self.lock() = State {
            open: true,
            ..State::default()
        };
    }

    /// The client is gone.
    pub fn close(&self) {
        *self.lock() = State::default();
        self.changed.notify_all();
    }

    /// The client has answered a message, whatever it said. A bus too has no word for an interrupt
    /// that did not arrive.
    pub(super) fn answered(&self) -> Result<(), Unasked> {
        let mut state = self.lock();
        state.unanswered = state.unanswered.checked_sub(1).ok_or(Unasked)?;
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// The next message to send, as it is on the wire, if there is one that may be sent now.
    pub fn next_now(&self) -> Option<Vec<u8>> {
        self.lock().take()
    }

    /// Waits for the next message to send; `None` when the client is gone.
    pub(super) fn next(&self) -> Option<Vec<u8>> {
        let mut state = self.lock();
        loop {
            if !state.open {
                return None;
            }
            if let Some(message) = state.take() {
                return Some(message);
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The next message that may be sent.
    fn take(&mut self) -> Option<Vec<u8>> {
        if self.unanswered == UNANSWERED_MAX {
            return None;
        }
        let behind = (Bound::Excluded(self.last), Bound::Unbounded);
        let mut behind = self.waiting.range(behind);
        let next = behind.next().or_else(|| self.waiting.iter().next());
        let vector = *next?.0;
        let MsiMessage { address, data } = self.waiting.remove(&vector)?;
        self.last = vector;
        self.unanswered += 1;
        self.next = self.next.wrapping_add(1);
        let mut body = Writer::default();
        body.u64(address).u64(4).u32(data);
        Some(Header::request(self.next, command::DMA_WRITE, &body.0))
    }
}

/// Sends a device's interrupts by message.
pub struct MessageSink(pub Arc<Messages>);

impl MsiSink for MessageSink {
    fn raise(&mut self, vector: u16, message: MsiMessage) {
        let mut state = self.0.lock();
        if state.open {
            state.waiting.insert(vector, message);
            drop(state);
            self.0.changed.notify_all();
        }
    }

    /// What was raised may reach the guest a moment after it has masked the vector: to wait here would
    /// be to wait for a client that waits for the answer to the guest's write.
    fn settle(&mut self, _vector: u16) {}

    fn release(&mut self) {
        self.0.lock().waiting.clear();
    }
}

/// What a client is told that has read `data` from configuration space at `offset`. Whoever reads more
/// at once than a guest can is the client itself, which looks what it has to emulate. To it MSI-X is a
/// capability of no meaning; what else it says, and that it is there, it leaves to the device.
pub(super) fn hide_msix(device: &EvgenFunction, offset: u16, data: &mut [u8]) {
    if data.len() <= CONFIG_ACCESS_MAX {
        return;
    }
    // It is the first one of a device that is there.
    let mut first = [0];
    device.config_read(CAPABILITY_POINTER, &mut first);
    let place = u16::from(first[0]).checked_sub(offset).map(usize::from);
    if let Some(id) = place.and_then(|place| data.get_mut(place))
        && *id == MSIX_CAPABILITY_ID
    {
        *id = NULL_CAPABILITY_ID;
    }
}

/// The way to a client.
///
/// The lock covers the stream while a message is written, so that each goes as a whole. The client's two
/// threads take it, the one that answers and the one that sends interrupts; nothing is locked inside it.
pub(super) struct Voice<'a>(Mutex<&'a UnixStream>);

impl<'a> Voice<'a> {
    pub fn new(stream: &'a UnixStream) -> Self {
        Self(Mutex::new(stream))
    }

    pub fn say(&self, message: &[u8]) -> io::Result<()> {
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stream.write_all(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(data: u32) -> MsiMessage {
        MsiMessage {
            address: 0xfee0_1000,
            data,
        }
    }

    /// Vector data of the next message.
    fn next(messages: &Messages) -> Option<u32> {
        let sent = messages.next_now()?;
        assert_eq!(sent.len(), 36);
        assert_eq!(
            sent[16..32],
            [0xfee0_1000_u64, 4].map(u64::to_ne_bytes).concat()
        );
        Some(u32::from_ne_bytes(sent[32..].try_into().unwrap()))
    }

    #[test]
    fn messages_of_a_vector_merge_and_every_vector_has_its_turn() {
        let messages = Arc::new(Messages::default());
        let mut sink = MessageSink(Arc::clone(&messages));
        sink.raise(0, message(1));
        assert_eq!(next(&messages), None, "there is no client");
        messages.open();
        for (vector, data) in [(0, 10), (2, 12), (0, 20), (1, 11)] {
            sink.raise(vector, message(data));
        }
        assert_eq!(next(&messages), Some(11));
        // The first one again and again does not keep the last one waiting.
        sink.raise(1, message(21));
        assert_eq!(next(&messages), Some(12));
        assert_eq!(next(&messages), Some(20));
        assert_eq!(next(&messages), Some(21));
        sink.raise(3, message(1));
        sink.release();
        assert_eq!(next(&messages), None);
    }

    #[test]
    fn a_client_that_does_not_answer_is_sent_no_more() {
        let messages = Arc::new(Messages::default());
        let mut sink = MessageSink(Arc::clone(&messages));
        messages.open();
        assert_eq!(messages.answered(), Err(Unasked));
        (0..20).for_each(|vector| sink.raise(vector, message(vector.into())));
        let sent = std::iter::from_fn(|| next(&messages)).count();
        assert_eq!(sent, UNANSWERED_MAX);
        messages.answered().unwrap();
        assert!(next(&messages).is_some() && next(&messages).is_none());
        // Whoever waits for more hears that the client is gone.
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| messages.next());
            messages.close();
            assert_eq!(waiting.join().unwrap(), None);
        });
    }
}
