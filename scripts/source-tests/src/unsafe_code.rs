// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The driver has little `unsafe`, and each says why it is sound, directly above itself or above the
//! statement that it is in.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::sources::rust_files;

/// The driver.
const DRIVER: &str = "guest-driver/src";
/// Modules that stand beside it.
const LAB: &str = "guest-driver/lab";
/// How many lines of the driver's code there are for each `unsafe`, at least.
const LINES_PER_UNSAFE: usize = 40;

/// The lines, counted from 1, of each `unsafe` that promises something or asks for a promise. The
/// type of a pointer to an unsafe function does neither.
fn unsafe_lines(text: &str) -> Vec<usize> {
    let mut lines = Vec::new();
    gather(text.parse().unwrap(), &mut lines);
    lines
}

fn gather(tokens: TokenStream, lines: &mut Vec<usize>) {
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Ident(word) if word == "unsafe" => {
                let mut rest = tokens.clone();
                rest.find(|token| !is_abi(token));
                let is_pointer = matches!(tokens.peek(), Some(TokenTree::Ident(_)))
                    && matches!(rest.next(), Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis);
                if !is_pointer {
                    lines.push(word.span().start().line);
                }
            }
            TokenTree::Group(group) => gather(group.stream(), lines),
            _ => {}
        }
    }
}

/// `extern "C"` between `unsafe` and `fn`.
fn is_abi(token: &TokenTree) -> bool {
    match token {
        TokenTree::Ident(word) => word == "extern",
        TokenTree::Literal(_) => true,
        _ => false,
    }
}

/// Whether the comment above line `line`, or above the statement that it belongs to, gives a reason.
fn has_reason(text: &str, line: usize) -> bool {
    let above: Vec<_> = text.lines().take(line - 1).map(str::trim).collect();
    let is_comment = |line: &&&str| line.starts_with("//");
    let ends_statement = |line: &str| line.is_empty() || line.ends_with([';', '{', '}']);
    let comment = above
        .iter()
        .rev()
        .skip_while(|line| !is_comment(line) && !ends_statement(line));
    comment
        .take_while(is_comment)
        .any(|line| line.contains("SAFETY: ") || line.contains("# Safety"))
}

#[test]
fn every_unsafe_of_the_modules_has_its_reason() {
    let mut found = Vec::new();
    for source in [DRIVER, LAB].into_iter().flat_map(rust_files) {
        for line in unsafe_lines(&source.text) {
            if !has_reason(&source.text, line) {
                found.push(format!("{}:{line}: no SAFETY comment", source.path));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_driver_has_little_unsafe() {
    let (mut lines, mut found) = (0, Vec::new());
    for source in rust_files(DRIVER) {
        let is_code = |line: &&str| !line.is_empty() && !line.starts_with("//");
        lines += source.text.lines().map(str::trim).filter(is_code).count();
        let places = unsafe_lines(&source.text);
        found.extend(places.iter().map(|line| format!("{}:{line}", source.path)));
    }
    assert!(
        found.len() * LINES_PER_UNSAFE <= lines,
        "{} times unsafe in {lines} lines of code, allowed is one in {LINES_PER_UNSAFE}:\n{}",
        found.len(),
        found.join("\n")
    );
}

#[test]
fn unsafe_is_found_wherever_it_is() {
    for (text, expected) in [
        ("fn f() {\n unsafe { g() } }", &[2][..]),
        (
            "unsafe impl A for B {}\nunsafe fn f() {}\nunsafe extern \"C\" fn g() {}",
            &[1, 2, 3],
        ),
        ("unsafe trait A { unsafe fn f(); }", &[1, 1]),
        (
            "m! { a => unsafe(uninit) static B\n unsafe { c() } }",
            &[1, 2],
        ),
        (
            "#[unsafe(no_mangle)] fn f() {}\nunsafe extern \"C\" {}",
            &[1, 2],
        ),
        (
            "struct S { f: unsafe fn(u8), g: Option<unsafe extern \"C\" fn(u8)> }",
            &[],
        ),
        ("/// unsafe\nfn f() { g(\"unsafe\") } // unsafe", &[]),
    ] {
        assert_eq!(unsafe_lines(text), expected, "{text}");
    }
}

#[test]
fn a_reason_is_directly_above() {
    for (text, expected) in [
        ("// SAFETY: so.\nunsafe { f() }", true),
        ("// SAFETY: it is\n// so.\nunsafe { f() }", true),
        ("// SAFETY: so.\nlet a =\n    unsafe { f() };", true),
        (
            "/// Doc.\n///\n/// # Safety\n///\n/// Don't.\n#[inline]\nunsafe fn f() {}",
            true,
        ),
        ("unsafe { f() }", false),
        ("// Why not?\nunsafe { f() }", false),
        ("// SAFETY: so.\n\nunsafe { f() }", false),
        ("// SAFETY: so.\ng();\nunsafe { f() }", false),
        ("unsafe { f() } // SAFETY: so.", false),
    ] {
        let [line] = unsafe_lines(text)[..] else {
            panic!("{text}");
        };
        assert_eq!(has_reason(text, line), expected, "{text}");
    }
}
