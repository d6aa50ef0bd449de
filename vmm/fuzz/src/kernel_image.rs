// SPDX-License-Identifier: Apache-2.0 OR MIT

use std::io::Write;

use lockstorm::machine::{kernel, memory};
use vmm_sys_util::tempfile::TempFile;

/// A kernel file, of which the user may not know where it comes from.
pub fn kernel_image(data: &[u8]) {
    let memory = memory::create(32).unwrap();
    let file = TempFile::new_in("/dev/shm".as_ref()).or_else(|_| TempFile::new());
    let file = file.unwrap();
    file.as_file().write_all(data).unwrap();
    if let Err(error) = kernel::load(&memory, file.as_path()) {
        assert!(!error.to_string().contains(char::is_control), "{error:?}");
    }
}
