// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Messages as they are on the wire: a header of 16 bytes, then what the command has to say. All
//! numbers are in the byte order of the host.

use rustix::io::Errno;

/// Bytes of a header.
pub const HEADER_SIZE: usize = 16;
/// The most bytes that one access to a region may read or write. The client hears of it.
pub const MAX_TRANSFER: usize = 4096;
/// The longest message that a client can have reason to send: a write of that many bytes.
pub const MAX_MESSAGE: usize = HEADER_SIZE + 16 + MAX_TRANSFER;

const TYPE_MASK: u32 = 0xf;
const TYPE_COMMAND: u32 = 0;
const TYPE_REPLY: u32 = 1;
const NO_REPLY: u32 = 1 << 4;
const ERROR: u32 = 1 << 5;

/// What a client can ask of a server, by number.
pub mod command {
    /// Agree on version and capabilities.
    pub const VERSION: u16 = 1;
    /// Lend memory.
    pub const DMA_MAP: u16 = 2;
    /// Take memory back.
    pub const DMA_UNMAP: u16 = 3;
    /// Tell what kind of device it is.
    pub const GET_INFO: u16 = 4;
    /// Tell of a region.
    pub const GET_REGION_INFO: u16 = 5;
    /// Tell of a kind of interrupt.
    pub const GET_IRQ_INFO: u16 = 7;
    /// Give or take the eventfds of interrupts, mask and unmask them.
    pub const SET_IRQS: u16 = 8;
    /// Read from a region.
    pub const REGION_READ: u16 = 9;
    /// Write to a region.
    pub const REGION_WRITE: u16 = 10;
    /// The other way round, of a client by a server: write to its memory.
    pub const DMA_WRITE: u16 = 12;
    /// Reset the device.
    pub const RESET: u16 = 13;
}

/// The header of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The sender's own number for it, which the reply repeats.
    pub id: u16,
    /// What is asked for.
    pub command: u16,
    size: u32,
    flags: u32,
}

impl Header {
    /// Reads a header. Any bytes are one.
    pub fn parse(bytes: &[u8; HEADER_SIZE]) -> Self {
        let [i0, i1, c0, c1, s0, s1, s2, s3, f0, f1, f2, f3, ..] = *bytes;
        Self {
            id: u16::from_ne_bytes([i0, i1]),
            command: u16::from_ne_bytes([c0, c1]),
            size: u32::from_ne_bytes([s0, s1, s2, s3]),
            flags: u32::from_ne_bytes([f0, f1, f2, f3]),
        }
    }

    /// The whole of what a server asks of a client, in one piece.
    pub(super) fn request(id: u16, command: u16, body: &[u8]) -> Vec<u8> {
        let mut request = Writer::default();
        request.u16(id).u16(command);
        request.u32((HEADER_SIZE + body.len()) as u32);
        request.u32(TYPE_COMMAND).u32(0).bytes(body);
        request.0
    }

    /// How many bytes follow it; `None` if this is neither a command nor the answer to what a server
    /// asks for, or longer than any can be.
    pub fn body(&self) -> Option<usize> {
        let size = usize::try_from(self.size).ok()?;
        let known = self.flags & TYPE_MASK == TYPE_COMMAND || self.answers();
        (known && size <= MAX_MESSAGE).then(|| size.checked_sub(HEADER_SIZE))?
    }

    /// Whether it is the answer to what a server asks for.
    pub fn answers(&self) -> bool {
        self.flags & TYPE_MASK == TYPE_REPLY && self.command == command::DMA_WRITE
    }

    /// Whether the client wants to hear what came of it.
    pub fn wants_reply(&self) -> bool {
        self.flags & NO_REPLY == 0
    }

    /// The whole reply: in one piece, because clients take half a header for the end.
    pub fn reply(&self, result: Result<Vec<u8>, Errno>) -> Vec<u8> {
        let (flags, error, body) = match result {
            Ok(body) => (TYPE_REPLY, 0, body),
            Err(errno) => (TYPE_REPLY | ERROR, errno.raw_os_error(), Vec::new()),
        };
        let mut reply = Writer::default();
        reply.u16(self.id).u16(self.command);
        reply.u32((HEADER_SIZE + body.len()) as u32).u32(flags);
        reply.u32(error.cast_unsigned()).bytes(&body);
        reply.0
    }
}

/// Takes a message's fields one after the other.
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// The next 16 bits.
    pub fn u16(&mut self) -> Result<u16, Errno> {
        self.array().map(u16::from_ne_bytes)
    }

    /// The next 32 bits.
    pub fn u32(&mut self) -> Result<u32, Errno> {
        self.array().map(u32::from_ne_bytes)
    }

    /// The next 64 bits.
    pub fn u64(&mut self) -> Result<u64, Errno> {
        self.array().map(u64::from_ne_bytes)
    }

    /// What is left.
    pub fn rest(self) -> &'a [u8] {
        self.0
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Errno> {
        let (first, rest) = self.0.split_first_chunk().ok_or(Errno::INVAL)?;
        self.0 = rest;
        Ok(*first)
    }
}

/// Puts a reply's fields one after the other.
#[derive(Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    /// Adds 16 bits.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_ne_bytes())
    }

    /// Adds 32 bits.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_ne_bytes())
    }

    /// Adds 64 bits.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_ne_bytes())
    }

    /// Adds bytes.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(id: u16, command: u16, size: u32, flags: u32) -> [u8; HEADER_SIZE] {
        let mut bytes = Writer::default();
        bytes.u16(id).u16(command).u32(size).u32(flags).u32(99);
        bytes.0.try_into().unwrap()
    }

    #[test]
    fn only_commands_of_a_possible_size_have_a_body() {
        let longest = MAX_MESSAGE as u32;
        for (size, flags, expected) in [
            (16, 0, Some(0)),
            (48, NO_REPLY, Some(32)),
            (longest, 0, Some(MAX_MESSAGE - 16)),
            (longest + 1, 0, None),
            (u32::MAX, 0, None),
            (15, 0, None),
            (0, 0, None),
            (16, TYPE_REPLY, None),
            (16, 2, None),
        ] {
            let header = Header::parse(&header(7, command::RESET, size, flags));
            assert_eq!(header.body(), expected, "{size} {flags}");
            assert_eq!(header.wants_reply(), flags & NO_REPLY == 0);
        }
        for (size, expected) in [
            (16, Some(0)),
            (20, Some(4)),
            (longest + 1, None),
            (15, None),
        ] {
            let answer = header(7, command::DMA_WRITE, size, TYPE_REPLY | ERROR);
            assert_eq!(Header::parse(&answer).body(), expected, "{size}");
        }
    }

    #[test]
    fn replies_repeat_id_and_command_and_tell_their_size() {
        let asked = Header::parse(&header(0x1234, command::GET_INFO, 32, 0));
        let reply = asked.reply(Ok(vec![1, 2, 3]));
        let expected = header(0x1234, command::GET_INFO, 19, TYPE_REPLY);
        assert_eq!(
            (&reply[..12], &reply[12..]),
            (&expected[..12], &[0, 0, 0, 0, 1, 2, 3][..])
        );
        let reply = asked.reply(Err(Errno::NOSPC));
        let expected = header(0x1234, command::GET_INFO, 16, TYPE_REPLY | ERROR);
        assert_eq!(
            (&reply[..12], &reply[12..]),
            (&expected[..12], &28_u32.to_ne_bytes()[..])
        );
    }
}
