// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What masks an interrupt, and what comes of it.
//!
//! Three events each: a bit that pends stands for all of them.

use crate::bench::{Bench, ENABLE, FUNCTION_MASK, Failure, expect};
use crate::reset::AfterReset;

pub fn vector_mask_pends(bench: &mut Bench, _: &AfterReset) -> Result<(), Failure> {
    for ring in 0..bench.rings()? {
        let before = bench.interrupts()?;
        bench.mask(ring, true)?;
        bench.inject(ring, 3)?;
        expect("pending vectors", bench.pending()?, vec![ring])?;
        bench.expect_interrupts(before, 0)?;
        bench.mask(ring, false)?;
    }
    Ok(())
}

pub fn vector_unmask_sends(bench: &mut Bench, _: &AfterReset) -> Result<(), Failure> {
    for ring in 0..bench.rings()? {
        let before = bench.interrupts()?;
        bench.mask(ring, true)?;
        bench.inject(ring, 3)?;
        bench.mask(ring, true)?;
        bench.mask(ring, false)?;
        bench.expect_interrupts(before, 1)?;
        expect("pending vectors", bench.pending()?, vec![])?;
        bench.mask(ring, true)?;
        bench.mask(ring, false)?;
        bench.expect_interrupts(before, 1)?;
    }
    Ok(())
}

pub fn no_other_vector(bench: &mut Bench, _: &AfterReset) -> Result<(), Failure> {
    let rings: Vec<usize> = (0..bench.rings()?).collect();
    let before = bench.interrupts()?;
    for &ring in &rings {
        bench.mask(ring, true)?;
        bench.inject(ring, 3)?;
    }
    for (done, &ring) in (1..).zip(&rings) {
        bench.mask(ring, false)?;
        bench.expect_interrupts(before, done)?;
        expect(
            "pending vectors",
            bench.pending()?,
            rings[ring + 1..].to_vec(),
        )?;
    }
    Ok(())
}

pub fn function_mask_pends(bench: &mut Bench, _: &AfterReset) -> Result<(), Failure> {
    let rings: Vec<usize> = (0..bench.rings()?).collect();
    let before = bench.interrupts()?;
    bench.control(ENABLE | FUNCTION_MASK)?;
    for &ring in &rings {
        bench.inject(ring, 3)?;
        // Its own mask bit is clear, and says nothing now.
        bench.mask(ring, false)?;
    }
    expect("pending vectors", bench.pending()?, rings.clone())?;
    bench.expect_interrupts(before, 0)?;
    for &ring in &rings {
        let control: u32 = bench.read(bench.entry(ring)? + 12)?;
        expect("Vector Control", control, 0)?;
    }
    Ok(())
}

pub fn function_unmask_sends(bench: &mut Bench, _: &AfterReset) -> Result<(), Failure> {
    masked_by(bench, ENABLE | FUNCTION_MASK)
}

pub fn disabled_pends(bench: &mut Bench, _: &AfterReset) -> Result<(), Failure> {
    masked_by(bench, 0)?;
    masked_by(bench, FUNCTION_MASK)
}

/// With `control` in Message Control every vector pends; with Enable alone each is sent once, but
/// for one that has its own mask bit set.
fn masked_by(bench: &Bench, control: u16) -> Result<(), Failure> {
    let rings = bench.rings()?;
    let before = bench.interrupts()?;
    bench.control(control)?;
    bench.mask(0, true)?;
    for ring in 0..rings {
        bench.inject(ring, 3)?;
    }
    expect("pending vectors", bench.pending()?, (0..rings).collect())?;
    bench.expect_interrupts(before, 0)?;
    bench.control(ENABLE)?;
    bench.expect_interrupts(before, rings as u64 - 1)?;
    expect("pending vectors", bench.pending()?, vec![0])?;
    bench.mask(0, false)?;
    bench.expect_interrupts(before, rings as u64)?;
    bench.control(ENABLE)?;
    bench.expect_interrupts(before, rings as u64)
}
