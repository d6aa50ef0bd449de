// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The kernel module: loading it, and unloading it if nobody uses it.

use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::system::{delete_module, finit_module};
use thiserror::Error;

const NAME: &CStr = c"evgen";
const USERS: &str = "/sys/module/evgen/refcnt";
/// `O_NONBLOCK`: to fail if it is in use, the only way that there is.
const NONBLOCK: i32 = libc::O_NONBLOCK;

/// The module cannot be loaded, unloaded or asked.
#[derive(Debug, Error)]
pub enum ModuleError {
    /// It cannot be loaded.
    #[error("cannot load {}: {source}; the kernel log says more (dmesg)", path.display())]
    Load {
        /// Its file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It cannot be unloaded.
    #[error("cannot unload evgen: {source}")]
    Unload {
        /// Why not.
        source: io::Error,
    },
    /// The kernel does not say how many use it.
    #[error("cannot tell from {USERS} how many use the module")]
    Users,
}

/// Loads the module.
pub fn load(path: &Path) -> Result<(), ModuleError> {
    load_with(path, "")
}

/// Loads the module with these parameters.
pub fn load_with(path: &Path, parameters: &str) -> Result<(), ModuleError> {
    let load = || {
        let parameters = CString::new(parameters)?;
        Ok(finit_module(File::open(path)?, &parameters, 0)?)
    };
    load().map_err(|source| ModuleError::Load {
        path: path.to_owned(),
        source,
    })
}

/// Whether the module is loaded.
pub fn is_loaded() -> bool {
    Path::new(USERS).exists()
}

/// Unloads the module; false if it is in use.
pub fn unload() -> Result<bool, ModuleError> {
    match delete_module(NAME, NONBLOCK) {
        Ok(()) => Ok(true),
        // EBUSY is of another kind: it is being loaded, or cannot be unloaded at all.
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(ModuleError::Unload {
            source: error.into(),
        }),
    }
}

/// How many use the module: open files, above all.
pub fn users() -> Result<u32, ModuleError> {
    fs::read_to_string(USERS)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .ok_or(ModuleError::Users)
}
