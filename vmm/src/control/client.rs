// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The client: one request, one reply, and lines of the event stream.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use thiserror::Error;

use super::reply::{EventLine, Reply};
use super::request::{Id, Request};

/// How long a reply may take. The machine may be busy, but not for ever.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest line in bytes.
const MAX_LINE: u64 = 16 << 20;

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
    /// The other end has closed the connection.
    #[error("the control socket was closed: the machine has ended")]
    Closed,
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
    /// What no other client's ids begin with.
    name: String,
    requests: u64,
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
        // Process numbers alone come again, in a container each time.
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default().as_nanos();
        connect()
            .map(|stream| Self {
                stream: BufReader::new(stream),
                name: format!("{:x}-{now:x}", process::id()),
                requests: 0,
            })
            .map_err(|source| ClientError::Connect {
                path: path.to_owned(),
                source,
            })
    }

    /// Sends `request`; gives the reply, and the very line that it came in.
    ///
    /// Lines that are not for it are skipped: events, and on a port whatever was meant for the
    /// client before, of which the first line may be torn. A refusal without an id is for this client
    /// if nothing else comes.
    pub fn request(&mut self, request: &Request) -> Result<(Reply, String), ClientError> {
        self.requests += 1;
        let id = Id::Text(format!("{}-{}", self.name, self.requests));
        let sent = self.stream.get_mut().write_all(&request.to_line(&id));
        let deadline = Instant::now() + PATIENCE;
        let (mut refusal, mut torn) = (None, None);
        // Who was turned away can send nothing, and has been told why.
        let error = if let Err(error @ io::Error { .. }) = sent
            && error.kind() != ErrorKind::BrokenPipe
        {
            ClientError::Io(error)
        } else {
            loop {
                let line = match self.next_line(Some(deadline)) {
                    Ok(line) => line,
                    Err(error) => break error,
                };
                if is_event(&line) {
                    continue;
                }
                let reply: Reply = match serde_json::from_str(&line) {
                    Ok(reply) => reply,
                    Err(error) => {
                        torn = Some(ClientError::from(error));
                        continue;
                    }
                };
                if reply.id.as_ref() == Some(&id) {
                    return Ok((reply, line));
                }
                if reply.id.is_none() && !reply.ok {
                    refusal = Some((reply, line));
                }
            }
        };
        refusal.ok_or(torn.unwrap_or(error))
    }

    /// Waits for the next line of the event stream, for as long as it takes; gives it, and the
    /// very line that it came in.
    pub fn event(&mut self) -> Result<(EventLine, String), ClientError> {
        loop {
            let line = self.next_line(None)?;
            if is_event(&line) {
                return Ok((serde_json::from_str(&line)?, line));
            }
        }
    }

    fn next_line(&mut self, deadline: Option<Instant>) -> Result<String, ClientError> {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return Err(io::Error::from(ErrorKind::TimedOut).into());
        }
        self.stream.get_ref().set_read_timeout(left)?;
        let mut line = String::new();
        match self.stream.by_ref().take(MAX_LINE).read_line(&mut line) {
            Ok(0) => Err(ClientError::Closed),
            Ok(_) => Ok(line.trim_end().to_owned()),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Err(ClientError::Closed),
            // What the system says of a timeout is not what people understand.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                Err(io::Error::from(ErrorKind::TimedOut).into())
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether a line is one of the event stream.
fn is_event(line: &str) -> bool {
    serde_json::from_str::<Value>(line).is_ok_and(|line| line.get("event").is_some())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use vmm_sys_util::tempdir::TempDir;

    use super::*;
    use crate::control::examples;

    /// The client's reply when the server says `lines` and closes; `ID` there stands for its id.
    fn answered(lines: &str) -> Result<Reply, ClientError> {
        let folder = TempDir::new().unwrap();
        let path = folder.as_path().join("control");
        let listener = UnixListener::bind(&path).unwrap();
        let lines = lines.to_owned();
        let server = thread::spawn(move || {
            let mut stream = BufReader::new(listener.accept().unwrap().0);
            let mut request = String::new();
            stream.read_line(&mut request).unwrap();
            let request: Value = serde_json::from_str(&request).unwrap();
            let lines = lines.replace("ID", request["id"].as_str().unwrap());
            stream.get_mut().write_all(lines.as_bytes()).unwrap();
        });
        let mut client = Client::connect(&path).unwrap();
        let reply = client.request(&Request::Stats {});
        server.join().unwrap();
        reply.map(|(reply, _)| reply)
    }

    #[test]
    fn replies_for_others_are_skipped() {
        let event = serde_json::to_string(&examples::event_line()).unwrap();
        let lines = format!(
            "d\":3}}}}\n{event}\n{}\n{}\n{}\n{}\n",
            r#"{"ok":true}"#,
            r#"{"ok":false,"error":"for whom?"}"#,
            r#"{"ok":false,"id":"1-2-3","error":"for another"}"#,
            r#"{"ok":true,"id":"ID","token":"mine"}"#
        );
        assert_eq!(answered(&lines).unwrap().token.as_deref(), Some("mine"));
    }

    #[test]
    fn a_refusal_without_id_counts_if_nothing_else_comes() {
        let refusal = "{\"ok\":false,\"error\":\"8 clients\"}\n";
        let reply = answered(refusal).unwrap();
        assert_eq!(reply.error.as_deref(), Some("8 clients"));
        for lines in ["", "{\"ok\":true}\n", "{\"ok\":true,\"id\":\"x\"}\n"] {
            let error = answered(lines).unwrap_err();
            assert!(matches!(error, ClientError::Closed), "{lines}: {error}");
        }
        let error = answered("hello\n").unwrap_err();
        assert!(matches!(error, ClientError::Reply(_)), "{error}");
    }
}
