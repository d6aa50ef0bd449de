// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The devices of the machine.

pub mod evgen;
pub mod exit;
pub mod hot_plug;
pub mod power;
pub mod serial;
