// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Where clients come in: a socket made here, or a character device that is there already.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// A path that cannot be served.
#[derive(Debug, Error)]
pub enum EndpointError {
    /// Another program listens there.
    #[error(
        "control socket {} is taken: a running program listens there; choose another path",
        path.display()
    )]
    Taken {
        /// The path.
        path: PathBuf,
    },
    /// It is neither of the two.
    #[error(
        "control socket {} cannot be made: there is something else by that name; \
         choose another path",
        path.display()
    )]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("control socket {} cannot be served: {source}", path.display())]
    Io {
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
    /// Serves `path`: the character device that is there, or a new socket. A socket that nobody
    /// listens on any more, as a killed program leaves it, is replaced.
    pub fn open(path: &Path) -> Result<Self, EndpointError> {
        let io = |source| EndpointError::Io {
            path: path.to_owned(),
            source,
        };
        // What is a stale socket now may be another starter's new one in a moment.
        let _others_wait = lock_folder(path).map_err(io)?;
        let kind = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return SocketFile::bind(path).map(Self::Socket).map_err(io);
            }
            result => result.map_err(io)?.file_type(),
        };
        if kind.is_char_device() {
            let mut options = OpenOptions::new();
            let port = options
                .read(true)
                .write(true)
                .custom_flags(libc::O_NONBLOCK);
            return port.open(path).map(Self::Port).map_err(io);
        }
        if !kind.is_socket() {
            return Err(EndpointError::NotASocket {
                path: path.to_owned(),
            });
        }
        match UnixStream::connect(path) {
            Ok(_) => Err(EndpointError::Taken {
                path: path.to_owned(),
            }),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(io)?;
                SocketFile::bind(path).map(Self::Socket).map_err(io)
            }
            Err(error) => Err(io(error)),
        }
    }
}

/// Keeps other starters out of the folder that `path` is in, for as long as the file is open. A
/// file of its own to lock would be left behind.
fn lock_folder(path: &Path) -> io::Result<File> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let folder = File::open(folder)?;
    // SAFETY: the call gets an open file descriptor and no memory.
    match unsafe { libc::flock(folder.as_raw_fd(), libc::LOCK_EX) } {
        0 => Ok(folder),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A listening socket, whose file goes when it goes.
#[derive(Debug)]
pub struct SocketFile {
    pub(super) listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file, to know it again.
    identity: (u64, u64),
}

impl SocketFile {
    fn bind(path: &Path) -> io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        // Whoever may write to the file may stop the machine.
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            identity: identity(path)?,
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody may have put another file in its place since.
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use vmm_sys_util::tempdir::TempDir;

    use super::*;

    #[test]
    fn a_socket_is_made_used_and_removed() {
        let folder = TempDir::new().unwrap();
        let path = folder.as_path().join("control");
        let endpoint = Endpoint::open(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
        drop(endpoint);
        assert!(!path.exists());
    }

    #[test]
    fn a_live_socket_is_left_alone_and_a_stale_one_is_replaced() {
        let folder = TempDir::new().unwrap();
        let path = folder.as_path().join("control");
        let listener = UnixListener::bind(&path).unwrap();
        let taken = Endpoint::open(&path).unwrap_err();
        assert!(matches!(taken, EndpointError::Taken { .. }), "{taken}");
        UnixStream::connect(&path).unwrap();
        drop(listener);
        let endpoint = Endpoint::open(&path).unwrap();
        UnixStream::connect(&path).unwrap();

        // One that another program has put there meanwhile is not ours to remove.
        fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(endpoint);
        assert!(path.exists());
    }

    #[test]
    fn of_those_who_replace_a_stale_socket_one_wins() {
        const STARTERS: usize = 4;
        let folder = TempDir::new().unwrap();
        for round in 0..200 {
            let path = folder.as_path().join(round.to_string());
            drop(UnixListener::bind(&path).unwrap());
            let barrier = Barrier::new(STARTERS);
            let endpoints: Vec<_> = std::thread::scope(|scope| {
                let starters: Vec<_> = (0..STARTERS)
                    .map(|_| {
                        scope.spawn(|| {
                            barrier.wait();
                            Endpoint::open(&path)
                        })
                    })
                    .collect();
                starters
                    .into_iter()
                    .map(|starter| starter.join().unwrap())
                    .collect()
            });
            let winners = endpoints.iter().filter(|endpoint| endpoint.is_ok()).count();
            assert_eq!(winners, 1, "{endpoints:?}");
            UnixStream::connect(&path).unwrap();
        }
    }

    #[test]
    fn other_files_are_left_alone() {
        let folder = TempDir::new().unwrap();
        let file = folder.as_path().join("file");
        fs::write(&file, "precious").unwrap();
        for path in [file.as_path(), folder.as_path()] {
            let error = Endpoint::open(path).unwrap_err();
            assert!(matches!(error, EndpointError::NotASocket { .. }), "{error}");
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
        for name in [
            "no/such/folder",
            "name-that-is-too-long".repeat(10).as_str(),
        ] {
            let error = Endpoint::open(&folder.as_path().join(name)).unwrap_err();
            assert!(matches!(error, EndpointError::Io { .. }), "{error}");
        }
    }

    #[test]
    fn a_character_device_is_served_as_it_is() {
        let endpoint = Endpoint::open(Path::new("/dev/null")).unwrap();
        assert!(matches!(endpoint, Endpoint::Port(_)));
    }
}
