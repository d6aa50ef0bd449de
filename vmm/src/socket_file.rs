// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Listening Unix sockets, and their files.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// A path at which there cannot be a socket.
#[derive(Debug, Error)]
pub enum SocketError {
    /// Another program listens there.
    #[error(
        "{what} {} is taken: a running program listens there; choose another path",
        path.display()
    )]
    Taken {
        /// What it is for.
        what: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// It is something else.
    #[error(
        "{what} {} cannot be made: there is something else by that name; choose another path",
        path.display()
    )]
    NotASocket {
        /// What it is for.
        what: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("{what} {} cannot be served: {source}", path.display())]
    Io {
        /// What it is for.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// A listening socket, whose file goes when it goes. It does not block.
#[derive(Debug)]
pub struct SocketFile {
    /// The socket.
    pub listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file, to know it again.
    identity: (u64, u64),
}

impl SocketFile {
    /// Makes a socket at `path`; `what` says what it is for. A socket that nobody listens on any
    /// more, as a killed program leaves it, is replaced.
    pub fn create(what: &'static str, path: &Path) -> Result<Self, SocketError> {
        let io = |source| SocketError::Io {
            what,
            path: path.to_owned(),
            source,
        };
        // What is a stale socket now may be another starter's new one in a moment.
        let _others_wait = lock_folder(path).map_err(io)?;
        match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Self::bind(path).map_err(io);
            }
            Ok(metadata) if metadata.file_type().is_socket() => {}
            Ok(_) => {
                let path = path.to_owned();
                return Err(SocketError::NotASocket { what, path });
            }
            Err(error) => return Err(io(error)),
        }
        match UnixStream::connect(path) {
            Ok(_) => {
                let path = path.to_owned();
                Err(SocketError::Taken { what, path })
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(io)?;
                Self::bind(path).map_err(io)
            }
            Err(error) => Err(io(error)),
        }
    }

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

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use vmm_sys_util::tempdir::TempDir;

    use super::*;

    fn create(path: &Path) -> Result<SocketFile, SocketError> {
        SocketFile::create("socket", path)
    }

    #[test]
    fn a_socket_is_made_used_and_removed() {
        let folder = TempDir::new().unwrap();
        let path = folder.as_path().join("socket");
        let socket = create(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_live_socket_is_left_alone_and_a_stale_one_is_replaced() {
        let folder = TempDir::new().unwrap();
        let path = folder.as_path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let taken = create(&path).unwrap_err();
        assert!(matches!(taken, SocketError::Taken { .. }), "{taken}");
        UnixStream::connect(&path).unwrap();
        drop(listener);
        let socket = create(&path).unwrap();
        UnixStream::connect(&path).unwrap();

        // One that another program has put there meanwhile is not ours to remove.
        fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(socket);
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
            let sockets: Vec<_> = std::thread::scope(|scope| {
                let starters: Vec<_> = (0..STARTERS)
                    .map(|_| {
                        scope.spawn(|| {
                            barrier.wait();
                            create(&path)
                        })
                    })
                    .collect();
                starters
                    .into_iter()
                    .map(|starter| starter.join().unwrap())
                    .collect()
            });
            let winners = sockets.iter().filter(|socket| socket.is_ok()).count();
            assert_eq!(winners, 1, "{sockets:?}");
            UnixStream::connect(&path).unwrap();
        }
    }

    #[test]
    fn other_files_are_left_alone() {
        let folder = TempDir::new().unwrap();
        let file = folder.as_path().join("file");
        fs::write(&file, "precious").unwrap();
        for path in [file.as_path(), folder.as_path(), Path::new("/dev/null")] {
            let error = create(path).unwrap_err();
            assert!(matches!(error, SocketError::NotASocket { .. }), "{error}");
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
        for name in [
            "no/such/folder",
            "name-that-is-too-long".repeat(10).as_str(),
        ] {
            let error = create(&folder.as_path().join(name)).unwrap_err();
            assert!(matches!(error, SocketError::Io { .. }), "{error}");
        }
    }
}
