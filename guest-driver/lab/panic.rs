// SPDX-License-Identifier: GPL-2.0

//! Panics while it loads: shows that a run in which a module panics is told as such, never as 0.

use kernel::prelude::*;

module! {
    type: Panic,
    name: "panic",
    authors: ["The lockstorm authors"],
    description: "Panics on purpose while it loads",
    license: "GPL",
}

struct Panic;

impl kernel::Module for Panic {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        panic!("on purpose")
    }
}
