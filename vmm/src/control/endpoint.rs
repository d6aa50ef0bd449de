// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Where clients come in: a socket made here, or a character device that is there already.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::socket_file::{SocketError, SocketFile};

/// A path that cannot be served.
#[derive(Debug, Error)]
pub enum EndpointError {
    /// There can be no socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The character device cannot be opened.
    #[error("control port {} cannot be served: {source}", path.display())]
    Port {
        /// The path.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// Where clients come in.
#[derive(Debug)]
pub enum Endpoint {
    /// A socket that clients connect to.
    Socket(SocketFile),
    /// A character device, whose other end is the client.
    Port(File),
}

impl Endpoint {
    /// Serves `path`: the character device that is there, or a new socket.
    pub fn open(path: &Path) -> Result<Self, EndpointError> {
        let is_port = fs::metadata(path).is_ok_and(|there| there.file_type().is_char_device());
        if !is_port {
            return Ok(Self::Socket(SocketFile::create("control socket", path)?));
        }
        let mut options = OpenOptions::new();
        let port = options
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path);
        port.map(Self::Port).map_err(|source| EndpointError::Port {
            path: path.to_owned(),
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use vmm_sys_util::tempdir::TempDir;

    use super::*;

    #[test]
    fn a_character_device_is_served_as_it_is_and_else_there_is_a_new_socket() {
        let endpoint = Endpoint::open(Path::new("/dev/null")).unwrap();
        assert!(matches!(endpoint, Endpoint::Port(_)));
        let folder = TempDir::new().unwrap();
        let endpoint = Endpoint::open(&folder.as_path().join("control")).unwrap();
        assert!(matches!(endpoint, Endpoint::Socket(_)));
        let taken = Endpoint::open(folder.as_path()).unwrap_err();
        assert!(taken.to_string().starts_with("control socket /"), "{taken}");
    }
}
