// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What a function level reset leaves.

use crate::bar::Bar;
use crate::bench::{Bench, ENABLE, FUNCTION_MASK, Failure, expect};
use evgen_stress::function::COMMAND;

const COMMAND_MEMORY: u8 = 1 << 1;
const REGISTER_BAR: u8 = 0;
/// Offset of `STATUS_VECTOR` in the registers (datasheet, "Registers").
const STATUS_VECTOR: usize = 0x01c;
/// Offset of ring 0's `RING_ENABLE`.
const RING_ENABLE: usize = 0x404;

/// The state after a function level reset of a device that was in use.
pub struct AfterReset {
    message_control: u16,
    vectors: usize,
    /// Vector Control of each vector.
    vector_controls: Vec<u32>,
    /// Message address and data of all vectors were zero.
    messages_forgotten: bool,
    pending: Vec<usize>,
    /// Runs of the handlers since the driver has the device again, which has made no event yet.
    interrupts: u64,
}

/// Takes the device from its driver, leaves it in disorder, resets it, and gives it back.
pub fn reset(bench: &mut Bench) -> Result<AfterReset, Failure> {
    let vectors = bench.vectors()?;
    // The host has something set aside for these.
    for ring in 0..bench.rings()? {
        bench.inject(ring, 1)?;
    }

    let unbound = bench.function.unbind()?;
    let [command] = bench.function.read(COMMAND)?;
    bench.function.write(COMMAND, &[command | COMMAND_MEMORY])?;
    bench.control(ENABLE | FUNCTION_MASK)?;
    for vector in 0..vectors {
        bench.write(bench.entry(vector)?, 0xfee0_0000_u64)?;
        bench.write(bench.entry(vector)? + 8, 0x55_u64)?;
    }
    // A ring without memory is an error, which the status vector tells of. Any vector can be that.
    let registers = Bar::map(&bench.function.bar_path(REGISTER_BAR))?;
    registers.write(STATUS_VECTOR, vectors as u32 - 1)?;
    registers.write(RING_ENABLE, 1_u32)?;
    drop(registers);
    expect(
        "pending vectors before reset",
        bench.pending()?,
        vec![vectors - 1],
    )?;
    unbound.reset()?;
    let mut after = AfterReset {
        message_control: bench.message_control()?,
        vectors: bench.vectors()?,
        vector_controls: Vec::new(),
        messages_forgotten: true,
        pending: bench.pending()?,
        interrupts: 0,
    };
    expect("vectors after reset", after.vectors, vectors)?;
    for vector in 0..vectors {
        let entry = bench.entry(vector)?;
        after.vector_controls.push(bench.read(entry + 12)?);
        after.messages_forgotten &=
            bench.read::<u64>(entry)? == 0 && bench.read::<u32>(entry + 8)? == 0;
    }
    unbound.bind()?;
    bench.reopen()?;
    after.interrupts = bench.interrupts()?;
    Ok(after)
}

pub fn disables(_: &mut Bench, after: &AfterReset) -> Result<(), Failure> {
    let table_size = after.vectors as u16 - 1;
    expect("Message Control", after.message_control, table_size)
}

pub fn masks(_: &mut Bench, after: &AfterReset) -> Result<(), Failure> {
    expect(
        "Vector Control",
        &after.vector_controls,
        &vec![1; after.vectors],
    )
}

pub fn clears_pending(_: &mut Bench, after: &AfterReset) -> Result<(), Failure> {
    expect("pending vectors", &after.pending, &vec![])
}

/// Nothing set up before the reset can come after it, however much the host had set aside.
pub fn gives_back(bench: &mut Bench, after: &AfterReset) -> Result<(), Failure> {
    expect("messages are forgotten", after.messages_forgotten, true)?;
    expect("interrupts without an event", after.interrupts, 0)?;
    let before = bench.interrupts()?;
    bench.expect_interrupts(before, 0)
}

/// The driver has bound again, and every ring and vector works.
pub fn restores_all(bench: &mut Bench, _: &AfterReset) -> Result<(), Failure> {
    let counters = bench.counters()?;
    for ring in 0..bench.rings()? {
        expect("events since reset", counters.ring[ring].generated, 0)?;
        let before = bench.interrupts()?;
        bench.inject(ring, 1)?;
        bench.expect_interrupts(before, 1)?;
    }
    Ok(())
}
