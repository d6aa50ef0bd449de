// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The table of the steps of a locking course in the driver's README is true: the files, the functions
//! and the checks that it names are there.

use std::fs;

use crate::sources::{read, root, rust_files};

const README: &str = "guest-driver/README.md";
const HEADING: &str = "## The steps of a locking course\n";
const DRIVER: &str = "guest-driver/src";
const PROGRAMS: &str = "guest-driver/stress/src/bin";

/// A row of the table.
struct Row<'a> {
    step: &'a str,
    place: &'a str,
    proof: &'a str,
}

/// The rows below the heading of the table.
fn rows(text: &str) -> Vec<Row<'_>> {
    let (_, section) = text.split_once(HEADING).unwrap();
    let table = section.lines().skip_while(|line| !line.starts_with("|---"));
    let rows = table.skip(1).take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let ["", step, _, place, proof, ""] = cells[..] else {
            panic!("not four columns: {row}");
        };
        Row { step, place, proof }
    })
    .collect()
}

/// What is between two `mark`s.
fn quoted(text: &str, mark: char) -> impl Iterator<Item = &str> {
    text.split(mark).skip(1).step_by(2)
}

/// What is not there of a cell like "`file.rs`: `function`, `Struct`; `other.rs`: `field`".
fn missing_places(cell: &str) -> Vec<String> {
    let mut missing = Vec::new();
    for part in cell.split("; ").filter(|part| !part.is_empty()) {
        let mut names = quoted(part, '`');
        let file = names.next().unwrap_or(part);
        match fs::read_to_string(root().join(DRIVER).join(file)) {
            Ok(text) => {
                let absent = names.filter(|name| !defines(&text, name));
                missing.extend(absent.map(|name| format!("{name} in {file}")));
            }
            Err(_) => missing.push(format!("the file {file}")),
        }
    }
    missing
}

/// Whether something of this name is defined: a function, a type, a static, or a field.
fn defines(text: &str, name: &str) -> bool {
    let is_part_of_name = |character: char| character.is_alphanumeric() || character == '_';
    text.match_indices(name).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + name.len()..]);
        let item = ["fn ", "struct ", "enum ", "static "]
            .iter()
            .any(|keyword| before.ends_with(keyword));
        let line = before.rsplit('\n').next().unwrap_or_default();
        let field = line.trim().is_empty() && after.starts_with(": ");
        (item || field) && !after.starts_with(is_part_of_name)
    })
}

/// What is not there of a cell like "`program` "check", "another"; `other-program`".
fn missing_proofs(cell: &str) -> Vec<String> {
    let mut missing = Vec::new();
    for part in cell.split("; ").filter(|part| !part.is_empty()) {
        let program = quoted(part, '`').next().unwrap_or(part);
        let Some(source) = source_of(program) else {
            missing.push(format!("the program {program}"));
            continue;
        };
        let absent = quoted(part, '"').filter(|check| !source.contains(check));
        missing.extend(absent.map(|check| format!("\"{check}\" of {program}")));
    }
    missing
}

/// All that a program, the tests of whole machines, or these tests consist of.
fn source_of(program: &str) -> Option<String> {
    match program {
        "test.sh" => {
            let parts = ["scripts/guest-tests.sh", "scripts/kernel-tests.sh"];
            return Some(parts.map(read).concat());
        }
        "source-tests" => return Some(all_in("scripts/source-tests/src")),
        _ => {}
    }
    let folder = format!("{PROGRAMS}/{program}");
    let file = format!("{folder}.rs");
    if root().join(&folder).is_dir() {
        Some(all_in(&folder))
    } else if root().join(&file).is_file() {
        Some(read(&file))
    } else {
        None
    }
}

fn all_in(folder: &str) -> String {
    let files = rust_files(folder).into_iter();
    files.map(|source| source.text).collect()
}

#[test]
fn what_the_table_names_is_there() {
    let text = read(README);
    let rows = rows(&text);
    assert!(rows.len() > 20);
    let mut wrong = Vec::new();
    for Row { step, place, proof } in rows {
        let missing = missing_places(place)
            .into_iter()
            .chain(missing_proofs(proof));
        wrong.extend(missing.map(|missing| format!("{step}: there is no {missing}")));
        if place.is_empty() != proof.is_empty() {
            wrong.push(format!("{step}: what is somewhere must be shown"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_not_there_is_missed() {
    for (cell, expected) in [
        (
            "`device_list.rs`: `find`, `Listed`; `device.rs`: `events`",
            &[][..],
        ),
        (
            "`device_list.rs`: `fin`, `list`",
            &["fin in device_list.rs", "list in device_list.rs"],
        ),
        ("`no_file.rs`: `find`", &["the file no_file.rs"]),
        ("device_list.rs", &[]),
        ("somewhere", &["the file somewhere"]),
    ] {
        assert_eq!(missing_places(cell), expected, "{cell}");
    }
    for (cell, expected) in [
        ("`test-msix`; `test.sh` \"Ctrl-C: 130\"", &[][..]),
        ("`test.sh` \"Ctrl-C: 131\"", &["\"Ctrl-C: 131\" of test.sh"]),
        ("`test-nothing` \"x\"", &["the program test-nothing"]),
        ("`evgen-cat`", &[]),
    ] {
        assert_eq!(missing_proofs(cell), expected, "{cell}");
    }
}
