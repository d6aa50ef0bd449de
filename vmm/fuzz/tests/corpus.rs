// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Replays what was once found or is worth trying, on a stable toolchain.

#![expect(clippy::unwrap_used, reason = "helpers of tests count as tests")]

use std::fs;
use std::path::{Path, PathBuf};

use lockstorm_fuzz::TARGETS;

/// Files per target, and bytes per file, at most: the corpus is to stay small.
const FILES: usize = 48;
const BYTES: usize = 4096;

fn corpus(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn the_corpus_breaks_no_rule() {
    for (name, target) in TARGETS {
        let files = corpus(name);
        assert!(
            (1..=FILES).contains(&files.len()),
            "{name}: {} files",
            files.len()
        );
        for file in files {
            let data = fs::read(&file).unwrap();
            assert!(
                data.len() <= BYTES,
                "{}: {} bytes",
                file.display(),
                data.len()
            );
            // Says which file it was if the target panics.
            println!("{}", file.display());
            target(&data);
        }
    }
}

/// Both lists of targets, this crate's and Cargo's, have the same.
#[test]
fn every_target_is_built() {
    let manifest = include_str!("../Cargo.toml");
    for (name, _) in TARGETS {
        assert!(
            manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")),
            "{name}"
        );
    }
    assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len());
}

/// Bytes that mean nothing, of every length up to a point, are survived.
#[test]
fn noise_breaks_no_rule() {
    let mut state = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    })
    .take(2000)
    .collect();
    for (name, target) in TARGETS {
        println!("{name}");
        for round in 0..40 {
            target(&noise[round * 7..round * 7 + round * 40]);
        }
    }
}
