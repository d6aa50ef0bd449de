// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The driver's module: loading and unloading it.

use std::ffi::CString;
use std::fs::File;
use std::io;

use rustix::io::Errno;
use rustix::system::{delete_module, finit_module};

const PATH: &str = "/lib/modules/evgen.ko";

/// Loads the module with these parameters.
pub fn load(parameters: &str) -> io::Result<()> {
    Ok(finit_module(
        File::open(PATH)?,
        &CString::new(parameters)?,
        0,
    )?)
}

/// Unloads the module, if it is loaded and nobody uses it.
pub fn unload() -> io::Result<()> {
    match delete_module(c"evgen", libc::O_NONBLOCK) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
