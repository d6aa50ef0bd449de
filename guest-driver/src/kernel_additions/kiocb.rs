// SPDX-License-Identifier: GPL-2.0

//! [`Kiocb`]: whether the call may wait.

use kernel::{
    fs::{file::flags::O_NONBLOCK, Kiocb, LocalFile},
    types::ForeignOwnable,
};

/// Whether the call is to fail rather than wait, as its file is set now: `fcntl` can change that.
///
/// Any context.
pub(crate) fn is_nonblocking<T: ForeignOwnable>(kiocb: &Kiocb<'_, T>) -> bool {
    // SAFETY: The file of a call in progress is valid, and this is its own thread.
    let file = unsafe { LocalFile::from_raw_file((*kiocb.as_raw()).ki_filp) };
    file.flags() & O_NONBLOCK != 0
}
