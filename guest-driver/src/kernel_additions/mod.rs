// SPDX-License-Identifier: GPL-2.0

//! What the kernel's Rust API lacks, as it could be added there: each file wraps one thing of the C
//! API, is safe to use, and knows nothing of evgen.

pub(crate) mod completion;
pub(crate) mod debugfs;
pub(crate) mod kiocb;
pub(crate) mod mutex;
pub(crate) mod pci;
pub(crate) mod poll;
pub(crate) mod work;
