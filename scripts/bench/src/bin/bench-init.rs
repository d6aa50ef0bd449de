// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Process 1 of the guest whose boot is measured. It says that it runs, and waits for the machine to
//! be ended.

use std::thread;
use std::time::Duration;

fn main() {
    println!("{}", lockstorm_bench::MARKER);
    loop {
        thread::sleep(Duration::MAX);
    }
}
