// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Messages off the socket, each with the file descriptors that came with it.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use thiserror::Error;

use super::message::{HEADER_SIZE, Header};
use super::session::MAX_FDS;

/// A client whose messages cannot be told apart any more.
#[derive(Debug, Error)]
pub(super) enum StreamError {
    /// It is gone in the middle of a message.
    #[error("it is gone in the middle of a message")]
    Cut,
    /// Not the beginning of a message.
    #[error("it sent something that is no command, or is longer than any can be: {0:?}")]
    Header(Header),
    /// More file descriptors than it may send.
    #[error("it sent more than {MAX_FDS} file descriptors with a message")]
    Files,
    /// The system refuses.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// A message.
pub(super) struct Message {
    pub header: Header,
    pub body: Vec<u8>,
    pub files: Vec<OwnedFd>,
}

/// Waits for the next message; `None` if the client is gone. No more than one message is read at a
/// time: whose file descriptors are whose would be unknown.
pub(super) fn receive(stream: &UnixStream) -> Result<Option<Message>, StreamError> {
    let mut files = Vec::new();
    let mut header = [0; HEADER_SIZE];
    match fill(stream, &mut header, &mut files)? {
        0 => return Ok(None),
        HEADER_SIZE => {}
        _ => return Err(StreamError::Cut),
    }
    let header = Header::parse(&header);
    let size = header.body().ok_or(StreamError::Header(header))?;
    let mut body = vec![0; size];
    if fill(stream, &mut body, &mut files)? < size {
        return Err(StreamError::Cut);
    }
    Ok(Some(Message {
        header,
        body,
        files,
    }))
}

/// Fills `buffer`, unless the client goes before; gives how much came.
fn fill(
    stream: &UnixStream,
    buffer: &mut [u8],
    files: &mut Vec<OwnedFd>,
) -> Result<usize, StreamError> {
    let mut filled = 0;
    while filled < buffer.len() {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(&mut buffer[filled..])];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = match recvmsg(stream, &mut into, &mut control, flags) {
            Err(Errno::INTR) => continue,
            // One that has gone without reading our replies.
            Err(Errno::CONNRESET) => return Ok(filled),
            result => result.map_err(io::Error::from)?,
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                files.extend(rights);
            }
        }
        if files.len() > MAX_FDS || received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(StreamError::Files);
        }
        match received.bytes {
            0 => break,
            bytes => filled += bytes,
        }
    }
    Ok(filled)
}
