// SPDX-License-Identifier: Apache-2.0 OR MIT
//! See `lockstorm_fuzz`.

#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| lockstorm_fuzz::root_ports(data));
