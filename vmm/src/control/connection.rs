// SPDX-License-Identifier: Apache-2.0 OR MIT

//! One client: its bytes in, its bytes out, and what it can make the server keep.

use std::io::{ErrorKind, Read, Result, Write};

use super::reply::Reply;
use super::request::MAX_REQUEST;

/// Bytes read at a time.
const CHUNK: usize = 16 * 1024;
/// With this many bytes of replies unread, the client has no request done. A reply more may come
/// on top of it.
const MAX_UNREAD: usize = 256 * 1024;
/// With this many bytes unread, the client gets no more lines of the event stream. Less than what
/// stops requests, so that one who reads slowly still has some done.
const MAX_EVENTS_UNREAD: usize = MAX_UNREAD / 2;

/// How a client comes and goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// By connecting and closing.
    Socket,
    /// Unseen: a read gives nothing as long as there is no client.
    Port,
}

/// What to do with the connection next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// There may be more to do at once.
    Again,
    /// Nothing to do until the system reports a change.
    Wait,
    /// Nothing to do any more.
    Close,
}

/// A client that is served without ever waiting for it.
pub(super) struct Connection<S> {
    stream: S,
    kind: Kind,
    input: Vec<u8>,
    output: Vec<u8>,
    /// What was written last is not the end of a line.
    mid_line: bool,
    /// The rest of that line is gone: the next one is to begin a new line.
    torn: bool,
    /// Nothing more will be read; what is unread goes out first.
    closing: bool,
    /// In the middle of a line that is too long.
    skipping: bool,
}

impl<S: Read + Write> Connection<S> {
    /// `stream` must not block.
    pub(super) fn new(stream: S, kind: Kind) -> Self {
        Self {
            stream,
            kind,
            input: Vec::new(),
            output: Vec::new(),
            mid_line: false,
            torn: false,
            closing: false,
            skipping: false,
        }
    }

    pub(super) fn stream(&self) -> &S {
        &self.stream
    }

    /// Whether replies wait to be read.
    pub(super) fn has_unread(&self) -> bool {
        !self.output.is_empty()
    }

    /// Throws away the replies that wait, because nobody will read them.
    pub(super) fn forget_unread(&mut self) {
        self.torn |= self.mid_line;
        self.output.clear();
    }

    /// The port reports that there is no client. One who let so much wait was not going to read it.
    pub(super) fn hang_up(&mut self) {
        if self.output.len() >= MAX_UNREAD {
            self.forget_unread();
        }
    }

    /// Adds a line of the event stream to what is to be read; false if the client does not keep up.
    pub(super) fn stream_line(&mut self, line: &[u8]) -> bool {
        let fits = self.output.len() < MAX_EVENTS_UNREAD && !self.closing;
        if fits {
            self.put(line);
        }
        fits
    }

    fn put(&mut self, line: &[u8]) {
        if std::mem::take(&mut self.torn) {
            self.output.push(b'\n');
        }
        self.output.extend_from_slice(line);
    }

    /// Does a bounded piece of what there is to do, asking `answer` for the reply to each line.
    pub(super) fn turn(&mut self, mut answer: impl FnMut(&[u8]) -> Reply) -> Next {
        self.try_turn(&mut answer).unwrap_or(Next::Close)
    }

    fn try_turn(&mut self, answer: &mut impl FnMut(&[u8]) -> Reply) -> Result<Next> {
        let mut busy = self.flush()?;
        // As long as no request is done, nothing bounds what is read of one.
        let reads = self.output.len() < MAX_UNREAD;
        if !self.closing && reads && self.line_end().is_none() {
            busy |= self.fill()?;
        }
        busy |= self.answer(answer);
        busy |= self.flush()?;
        if self.closing && self.output.is_empty() && self.line_end().is_none() {
            return Ok(Next::Close);
        }
        Ok(if busy { Next::Again } else { Next::Wait })
    }

    /// Reads once.
    fn fill(&mut self) -> Result<bool> {
        let mut chunk = [0; CHUNK];
        match self.stream.read(&mut chunk) {
            Ok(0) if self.kind == Kind::Port => {
                // The client is gone, and the next one shall not complete its line.
                self.input.clear();
                self.skipping = false;
                Ok(false)
            }
            Ok(0) => {
                self.closing = true;
                Ok(true)
            }
            Ok(length) => {
                self.input.extend_from_slice(&chunk[..length]);
                Ok(true)
            }
            Err(error) if is_later(error.kind()) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Has one line done, if there is one and the client reads its replies. One, because a request
    /// may take long, and others want their turn.
    fn answer(&mut self, answer: &mut impl FnMut(&[u8]) -> Reply) -> bool {
        if self.output.len() >= MAX_UNREAD {
            return false;
        }
        let Some(end) = self.line_end() else {
            if self.input.len() > MAX_REQUEST {
                self.input.clear();
                if !std::mem::replace(&mut self.skipping, true) {
                    self.refuse();
                }
            }
            return false;
        };
        if std::mem::take(&mut self.skipping) {
            self.input.drain(..=end);
        } else if end > MAX_REQUEST {
            self.input.drain(..=end);
            self.refuse();
        } else {
            let reply = answer(&self.input[..end]);
            self.put(&reply.to_line());
            self.input.drain(..=end);
        }
        true
    }

    fn refuse(&mut self) {
        let text = format!("the request is longer than {MAX_REQUEST} bytes");
        self.put(&Reply::error(text).to_line());
        if self.kind == Kind::Socket {
            self.input.clear();
            self.closing = true;
        }
    }

    /// Writes as much as the client takes.
    fn flush(&mut self) -> Result<bool> {
        let before = self.output.len();
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                // A port that has no room just now may say so in this way too.
                Ok(0) => break,
                Ok(length) => {
                    self.mid_line = self.output.drain(..length).next_back() != Some(b'\n');
                }
                Err(error) if is_later(error.kind()) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(self.output.len() < before)
    }

    fn line_end(&self) -> Option<usize> {
        self.input.iter().position(|&byte| byte == b'\n')
    }
}

fn is_later(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[cfg(test)]
#[path = "connection_test.rs"]
mod tests;
