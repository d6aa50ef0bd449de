// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The client: one request, one reply.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use super::protocol::{Reply, Request};

/// How long a reply may take. The machine may be busy, but not for ever.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest reply in bytes.
const MAX_REPLY: u64 = 16 << 20;

/// A request that got no reply.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody there.
    #[error(
        "cannot connect to the control socket {}: {source}; is the machine running?",
        path.display()
    )]
    Connect {
        /// The path.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The connection broke.
    #[error("no reply on the control socket: {0}")]
    Io(#[from] io::Error),
    /// That is not a reply.
    #[error("not a reply of this program on the control socket: {0}")]
    Reply(#[from] serde_json::Error),
}

/// A connection to a running machine.
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the socket at `path`.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let connect = || {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(stream)
        };
        connect()
            .map(|stream| Self {
                stream: BufReader::new(stream),
            })
            .map_err(|source| ClientError::Connect {
                path: path.to_owned(),
                source,
            })
    }

    /// Sends `request`; gives the reply, and the very line that it came in.
    pub fn request(&mut self, request: &Request) -> Result<(Reply, String), ClientError> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line)?;
        let mut reply = String::new();
        let length = self.stream.by_ref().take(MAX_REPLY).read_line(&mut reply)?;
        if length == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let reply = reply.trim_end().to_owned();
        Ok((serde_json::from_str(&reply)?, reply))
    }
}
