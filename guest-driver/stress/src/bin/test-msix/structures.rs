// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Capability, table and pending bits: where they are and what accesses they take.

use crate::bar::Unaligned;
use crate::bench::{Bench, ENABLE, FUNCTION_MASK, Failure, expect};
use crate::reset::AfterReset;

pub fn capability(bench: &mut Bench, _: &AfterReset) -> Result<(), Failure> {
    let vectors = bench.vectors()?;
    expect("enough vectors", vectors > bench.rings()?, true)?;
    let table = bench.table()?..bench.table()? + vectors * 16;
    let pending = bench.pending_bits()?..bench.pending_bits()? + vectors.div_ceil(64) * 8;
    let apart = table.end <= pending.start || pending.end <= table.start;
    expect("table and pending bits lie apart", apart, true)?;
    let inside = table.end.max(pending.end) <= bench.bar.length();
    expect("both lie in the BAR", inside, true)
}

pub fn table_size(bench: &mut Bench, _: &AfterReset) -> Result<(), Failure> {
    let before = bench.message_control()?;
    bench.control(ENABLE)?;
    expect("Message Control", bench.message_control()?, before)?;
    bench.control(ENABLE | 0x3fff)?;
    expect("Message Control", bench.message_control()?, before)
}

pub fn message_control_widths(bench: &mut Bench, _: &AfterReset) -> Result<(), Failure> {
    let (at, idle) = (bench.capability(), bench.message_control()?);
    for value in [ENABLE | FUNCTION_MASK, 0, ENABLE] {
        let wanted = value | idle & 0x7ff;
        let other = (value ^ FUNCTION_MASK) | idle & 0x7ff;
        let [low, high] = value.to_le_bytes();
        for data in [&[high][..], &[low, high], &[0, 0, low, high]] {
            bench.control(other)?;
            expect("Message Control", bench.message_control()?, other)?;
            bench.function.write(at + 4 - data.len() as u64, data)?;
            let what = format!("Message Control after {} bytes", data.len());
            expect(&what, bench.message_control()?, wanted)?;
        }
        let whole: [u8; 4] = bench.function.read(at)?;
        let [byte] = bench.function.read(at + 3)?;
        expect(
            "Message Control by 4 bytes",
            &whole[2..],
            &wanted.to_le_bytes(),
        )?;
        expect("Message Control by 1 byte", byte, whole[3])?;
    }
    Ok(())
}

pub fn table_widths(bench: &mut Bench, _: &AfterReset) -> Result<(), Failure> {
    // Masked all the while, and put back before anything can be sent.
    bench.mask(0, true)?;
    let entry = bench.entry(0)?;
    let (address, data): (u64, u32) = (bench.read(entry)?, bench.read(entry + 8)?);
    expect("lower address", bench.read(entry)?, address as u32)?;
    expect(
        "upper address",
        bench.read(entry + 4)?,
        (address >> 32) as u32,
    )?;
    let result = read_back(bench, entry);
    bench.write(entry, address)?;
    bench.write(entry + 8, u64::from(data) | 1 << 32)?;
    bench.mask(0, false)?;
    result
}

fn read_back(bench: &Bench, entry: usize) -> Result<(), Failure> {
    let words = [0x1111_1110, 0x2222_2222, 0x3333_3333, 1];
    for (field, word) in words.into_iter().enumerate() {
        bench.write::<u32>(entry + field * 4, word)?;
    }
    expect("address", bench.read(entry)?, 0x2222_2222_1111_1110_u64)?;
    expect(
        "data and control",
        bench.read(entry + 8)?,
        0x1_3333_3333_u64,
    )?;
    bench.write(entry, 0x5555_5555_4444_4444_u64)?;
    bench.write(entry + 8, 0xffff_ffff_6666_6666_u64)?;
    let words = [0x4444_4444, 0x5555_5555, 0x6666_6666, 1];
    for (field, word) in words.into_iter().enumerate() {
        let what = format!("field {field}");
        expect::<u32>(&what, bench.read(entry + field * 4)?, word)?;
    }
    Ok(())
}

pub fn pending_widths(bench: &mut Bench, _: &AfterReset) -> Result<(), Failure> {
    let (bits, rings) = (bench.pending_bits()?, bench.rings()?);
    for ring in 0..rings {
        bench.mask(ring, true)?;
        bench.inject(ring, 1)?;
    }
    let all = u64::MAX >> (64 - rings);
    expect("pending bits by 8 bytes", bench.read(bits)?, all)?;
    expect("pending bits by 4 bytes", bench.read(bits)?, all as u32)?;
    expect(
        "upper pending bits",
        bench.read(bits + 4)?,
        (all >> 32) as u32,
    )
}

pub fn pending_is_read_only(bench: &mut Bench, _: &AfterReset) -> Result<(), Failure> {
    let bits = bench.pending_bits()?;
    bench.mask(0, true)?;
    bench.inject(0, 1)?;
    for value in [u64::MAX, 0] {
        bench.write(bits, value)?;
        bench.write(bits, value as u32)?;
        bench.write(bits + 4, value as u32)?;
        expect("pending bits", bench.read(bits)?, 1_u64)?;
    }
    Ok(())
}

pub fn other_accesses(bench: &mut Bench, _: &AfterReset) -> Result<(), Failure> {
    let (table, bits) = (bench.table()?, bench.pending_bits()?);
    let vectors = bench.vectors()?;
    bench.mask(0, true)?;
    bench.inject(0, 1)?;
    let contents = |bench: &Bench| -> Result<Vec<u64>, Failure> {
        let entries = (0..vectors * 2).map(|half| bench.read(table + half * 8));
        entries.chain([bench.read(bits)]).collect()
    };
    let before = contents(bench)?;
    for start in [table, table + 8, table + vectors * 16 - 8, bits] {
        for offset in start..start + 8 {
            expect("1 byte", bench.read(offset)?, 0_u8)?;
            bench.write(offset, 0xff_u8)?;
        }
        for offset in (start..start + 8).step_by(2) {
            expect("2 bytes", bench.read(offset)?, 0_u16)?;
            bench.write(offset, 0xffff_u16)?;
        }
        // Not aligned, among them some that straddle two entries, or the table's end.
        for offset in (start + 1..start + 8).filter(|offset| offset % 4 != 0) {
            let Unaligned(word) = bench.read(offset)?;
            expect::<u32>("4 bytes that are not aligned", word, 0)?;
            bench.write(offset, Unaligned(u32::MAX))?;
            let Unaligned(word) = bench.read(offset)?;
            expect::<u64>("8 bytes that are not aligned", word, 0)?;
            bench.write(offset, Unaligned(u64::MAX))?;
        }
    }
    // Aligned, and of nothing. The table may reach up to the pending bits, which end sooner.
    for offset in [bits + vectors.div_ceil(64) * 8, bench.bar.length() - 8] {
        bench.write(offset, u64::MAX)?;
        expect("reserved place", bench.read(offset)?, 0_u64)?;
        expect("reserved place", bench.read(offset)?, 0_u32)?;
    }
    expect("table and pending bits", contents(bench)?, before)
}
