// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Storm files and tokens, right and wrong.

use super::random::SplitMix64;
use super::token::MAX_TOKEN;
use super::*;

const FULL: &str = r#"
description = "a \"quoted\" \\ text, äöü"
seed = 9_223_372_036_854_775_807
[[phase]]
pattern = "ramp"
rate = 1
rate_end = 10_000_000
vectors = [7, 0, 3]
duration_ms = 86_400_000
acknowledge = 1_000_000_000
seed = 0
faults = { self-reset = 1, spurious-interrupt = 1_000_000_000 }
[[phase]]
pattern = "burst"
rate = 10_000_000
burst = 4096
duration_ms = 1
[phase.faults]
hang = 2
[[phase]]
pattern = "trace"
trace = [[0, 0], [0, 7, 65535], [86_400_000_000, 1, 0]]
"#;

/// A phase with one more line.
fn with(line: &str) -> String {
    format!("[[phase]]\npattern = 'periodic'\nrate = 1\nduration_ms = 1\n{line}\n")
}

#[test]
fn a_file_is_understood_and_comes_back_from_its_token() {
    let storm = Storm::from_toml(FULL).unwrap();
    assert_eq!(storm.description(), r#"a "quoted" \ text, äöü"#);
    assert_eq!((storm.seed, storm.phases.len()), (MAX_SEED, 3));
    let faults = [
        (Fault::SpuriousInterrupt, 1_000_000_000),
        (Fault::SelfReset, 1),
    ];
    assert_eq!(storm.phases[0].faults, faults);
    let pattern = Pattern::Stream {
        shape: Shape::Ramp(10_000_000),
        rate: 1,
        vectors: Some(vec![7, 0, 3]),
        duration_ms: 86_400_000,
    };
    assert_eq!(storm.phases[0].pattern, pattern);
    assert_eq!(Storm::from_toml(&storm.to_toml()), Ok(storm.clone()));
    assert_eq!(Storm::from_token(&storm.token()), Ok(storm));
    for named in LIBRARY {
        let storm = named.storm().unwrap();
        assert_eq!(
            Storm::from_token(&storm.token()),
            Ok(storm),
            "{}",
            named.name
        );
    }
}

#[test]
fn what_is_wrong_is_named_with_its_phase_key_value_and_range() {
    const GOOD: &str = "[[phase]]\npattern = 'periodic'\nrate = 1\nduration_ms = 1\n";
    let trace = |events: &str| format!("{GOOD}[[phase]]\npattern = 'trace'\ntrace = {events}");
    let second = |from: &str, to: &str| format!("{GOOD}{}", GOOD.replace(from, to));
    for (text, expected) in [
        (
            String::new(),
            "the storm: `phase` is there 0 times, must be 1 to 64",
        ),
        (
            GOOD.repeat(65),
            "the storm: `phase` is there 65 times, must be 1 to 64",
        ),
        (
            "phase = 1".into(),
            "the storm: `phase` is 1, must be a list of phases",
        ),
        (
            "phase = [1]".into(),
            "the storm: `phase` is 1, must be a list of tables",
        ),
        ("\n\nx = = 1".into(), "line 3: "),
        (
            format!("seed = 1\nseed = 2\n{GOOD}"),
            "line 2: duplicate key",
        ),
        (
            format!("sed = 1\n{GOOD}"),
            "the storm: `sed` means nothing here; what does: description, seed, phase",
        ),
        (
            format!("seed = -1\n{GOOD}"),
            "the storm: `seed` is -1, must be a whole number from 0 to 9223372036854775807",
        ),
        (
            format!("seed = '1'\n{GOOD}"),
            "the storm: `seed` is \"1\", must be a whole number",
        ),
        (
            format!("description = 1\n{GOOD}"),
            "the storm: `description` is 1, must be one line of text",
        ),
        (
            format!("description = '{}'\n{GOOD}", "x".repeat(201)),
            "must be one line of at most 200 bytes",
        ),
        (
            format!("description = \"\\u001b[2J\"\n{GOOD}"),
            "`description` is  [2J, must be one line",
        ),
        (
            second("periodic", "perodic"),
            "phase 2: `pattern` is perodic, must be one of periodic, poisson, burst, ramp, all-at-once, round-robin, trace",
        ),
        (
            second("pattern = 'periodic'", ""),
            "phase 2: `pattern` is missing, must be one of periodic",
        ),
        (
            second("rate = 1", "rate = 0"),
            "phase 2: `rate` is 0, must be a whole number from 1 to 10000000",
        ),
        (
            second("rate = 1", "rate = 10_000_001"),
            "phase 2: `rate` is 10000001, must be",
        ),
        (
            second("rate = 1", "rate = 1.0"),
            "phase 2: `rate` is 1.0, must be",
        ),
        (
            second("rate = 1", ""),
            "phase 2: `rate` is missing, must be a whole number from 1 to 10000000",
        ),
        (
            second("duration_ms = 1", "duration_ms = 0"),
            "phase 2: `duration_ms` is 0, must be a whole number from 1 to 86400000",
        ),
        (
            second("duration_ms = 1", "duration_ms = 86_400_001"),
            "is 86400001, must be",
        ),
        (
            second("duration_ms = 1", ""),
            "phase 2: `duration_ms` is missing",
        ),
        (
            second("periodic", "burst"),
            "phase 2: `burst` is missing, must be a whole number from 1 to 4096",
        ),
        (
            second("periodic'", "burst'\nburst = 4097"),
            "phase 2: `burst` is 4097, must be",
        ),
        (
            second("periodic", "ramp"),
            "phase 2: `rate_end` is missing, must be a whole number from 1 to 10000000",
        ),
        (
            with("burst = 2"),
            "phase 1: `burst` means nothing here; what does: pattern, rate, vectors, duration_ms, faults, acknowledge, seed",
        ),
        (
            with("rate_end = 2"),
            "phase 1: `rate_end` means nothing here",
        ),
        (with("trace = []"), "phase 1: `trace` means nothing here"),
        (
            with("vectors = []"),
            "phase 1: `vectors` is [], must be a list of different numbers from 0 to 7",
        ),
        (with("vectors = [8]"), "phase 1: `vectors` is [8], must be"),
        (
            with("vectors = [1, 2, 1]"),
            "phase 1: `vectors` is [1, 2, 1], must be",
        ),
        (with("vectors = 1"), "phase 1: `vectors` is 1, must be"),
        (
            with("acknowledge = 0"),
            "phase 1: `acknowledge` is 0, must be a whole number from 1 to 1000000000",
        ),
        (with("seed = 'x'"), "phase 1: `seed` is \"x\", must be"),
        (
            with("faults = 1"),
            "phase 1: `faults` is 1, must be a table",
        ),
        (
            with("faults = { hang = 0 }"),
            "phase 1: `faults.hang` is 0, must be a whole number from 1 to 1000000000",
        ),
        (
            with("faults = { hung = 1 }"),
            "phase 1: `faults.hung` means nothing here; what does: spurious-interrupt, ",
        ),
        (
            trace("[]"),
            "phase 2: `trace` is a list of 0, must be a list of 1 to 4096 events",
        ),
        (trace("1"), "phase 2: `trace` is 1, must be a list"),
        (
            trace("[[0, 0], [1]]"),
            "phase 2: `trace[1]` is [1], must be [TIME, VECTOR] or",
        ),
        (
            trace("[[5, 0], [4, 0]]"),
            "phase 2: `trace[1]` is [4, 0], must be [TIME, VECTOR] or [TIME, VECTOR, KIND]: microseconds from 5 to 86400000000, 0 to 7",
        ),
        (trace("[[0, 8]]"), "phase 2: `trace[0]` is [0, 8], must be"),
        (trace("[[0, 0, 65536]]"), "phase 2: `trace[0]` is"),
        (trace("[[86400000001, 0]]"), "phase 2: `trace[0]` is"),
        (trace("[[0, 0, 0, 0]]"), "phase 2: `trace[0]` is"),
        (
            trace("[[0, 0]]\nrate = 1"),
            "phase 2: `rate` means nothing here; what does: pattern, trace, faults",
        ),
        (
            trace(&format!("[{}]", "[0,0],".repeat(4097))),
            "phase 2: `trace` is a list of 4097, must be a list of 1 to 4096",
        ),
        (
            format!(
                "{0}[[phase]]\npattern='trace'\ntrace=[{1}]",
                trace("[[0,0]]\n"),
                "[0,0],".repeat(4096)
            ),
            "the storm: its traces have 4097 events, must be at most 4096 together",
        ),
        (
            format!("#{}", "x".repeat(MAX_FILE)),
            "a storm of 65537 bytes: must be at most 65536",
        ),
        ("[".repeat(MAX_FILE), "line 1: "),
        (format!("a = {}", "[".repeat(60_000)), "line 1: "),
    ] {
        let error = Storm::from_toml(&text).unwrap_err().to_string();
        let shown = &text[..text.len().min(300)];
        assert!(
            error.contains(expected),
            "{shown}\n{error:?} lacks {expected:?}"
        );
        assert!(
            error.len() < 600 && !error.contains(char::is_control),
            "{error:?}"
        );
    }
}

#[test]
fn the_largest_storm_there_can_be_has_a_token() {
    let mut text = format!("description = '{}'\n", "x".repeat(MAX_DESCRIPTION));
    let mut random = SplitMix64::new(1);
    let mut at = 0;
    text.push_str("[[phase]]\npattern='trace'\ntrace=[");
    for _ in 0..3600 {
        at += random.below(20_000_000);
        text.push_str(&format!("[{at},{}],", random.below(8)));
    }
    text.push_str("]\n");
    let storm = Storm::from_toml(&text).unwrap();
    let token = storm.token();
    assert!(token.len() < MAX_TOKEN, "{}", token.len());
    assert_eq!(Storm::from_token(&token), Ok(storm));
}

#[test]
fn tokens_that_are_not_whole_are_refused() {
    let storm = Storm::from_toml(FULL).unwrap();
    let token = storm.token();
    for length in 0..token.len() {
        assert!(Storm::from_token(&token[..length]).is_err(), "{length}");
    }
    for (at, new) in (0..token.len()).flat_map(|at| [b'A', b'z', b'-', b'='].map(|new| (at, new))) {
        let mut changed = token.clone().into_bytes();
        if changed[at] != new {
            changed[at] = new;
            let changed = String::from_utf8(changed).unwrap();
            assert!(Storm::from_token(&changed).is_err(), "{at} {new}");
        }
    }
    for bad in [
        format!("{token}A"),
        format!("{token}AAAA"),
        format!("{token}="),
        format!(" {token}"),
        token.replace("storm1", "storm2"),
        "storm1.".into(),
        "ä".repeat(MAX_TOKEN),
    ] {
        let error = Storm::from_token(&bad).unwrap_err().to_string();
        assert!(
            error.starts_with("this is no token of a storm: "),
            "{error}"
        );
    }
}

#[test]
fn the_description_of_the_format_is_true_and_complete() {
    let readme = include_str!("../../storms/README.md");
    let (_, rest) = readme.split_once("```toml\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    let storm = Storm::from_toml(example).unwrap();
    assert_eq!((storm.seed, storm.phases.len()), (1, 2));
    let patterns = file::PATTERNS.map(|name| format!("\n| `{name}` |"));
    let keys =
        "description seed pattern rate rate_end burst vectors duration_ms trace acknowledge faults";
    let keys = keys.split(' ').map(|key| format!("\n| `{key}` |"));
    for row in patterns.into_iter().chain(keys) {
        assert!(readme.contains(&row), "no row {row}");
    }
}

/// Older tokens stay good, whatever packs newer ones.
#[test]
fn a_token_of_the_first_version_is_understood() {
    const OLD: &str = "storm1.ITX0r_99yU8BOQDG_1tbcGhhc2VdXQpwYXR0ZXJuPSJwZXJpb2RpYyIKcmF0ZT0xCmR1cmF0aW9uX21zPTEKc2VlZD01Cg";
    let storm = Storm::from_token(OLD).unwrap();
    assert_eq!(storm, Storm::from_toml(&with("seed = 5")).unwrap());
}

#[test]
fn no_text_brings_the_reader_down() {
    let mut random = SplitMix64::new(3);
    let files = LIBRARY.iter().map(|named| named.text).chain([FULL]);
    for file in files {
        for _ in 0..300 {
            let mut bytes = file.as_bytes().to_vec();
            for _ in 0..=random.below(4) {
                let at = random.below(bytes.len() as u64) as usize;
                match random.below(4) {
                    0 => bytes.truncate(at + 1),
                    1 => drop(bytes.remove(at)),
                    2 => bytes[at] = b"[]{}=\"'\\#,\n 09-_.eE"[random.below(19) as usize],
                    _ => bytes[at] = random.next() as u8,
                }
                if bytes.is_empty() {
                    break;
                }
            }
            let text = String::from_utf8_lossy(&bytes);
            // Either it is refused, or it is a storm like any other.
            if let Ok(storm) = Storm::from_toml(&text) {
                assert_eq!(Storm::from_token(&storm.token()), Ok(storm));
            }
            assert!(Storm::from_token(&text).is_err());
        }
    }
    for length in 0..2000 {
        let bytes: Vec<u8> = (0..length % 100).map(|_| random.next() as u8).collect();
        let token = format!("storm1.{}", data_encoding::BASE64URL_NOPAD.encode(&bytes));
        assert!(Storm::from_token(&token).is_err());
    }
}
