// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The table, in Markdown that reads as well as it is.

use std::fmt::Write;

use crate::figure::{Aim, Figure, Value};

const HEAD: [&str; 6] = ["figure", "measured", "against", "ratio", "aim", "met"];

/// All of `figures`, a line each, and what went wrong below.
pub fn table(figures: &[Figure]) -> String {
    let rows: Vec<[String; 6]> = figures.iter().map(cells).collect();
    let mut widths = HEAD.map(length);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(length(cell));
        }
    }
    let mut text = String::new();
    push(&mut text, HEAD.map(String::from), widths);
    push(&mut text, widths.map(|width| "-".repeat(width)), widths);
    for row in rows {
        push(&mut text, row, widths);
    }
    let failures = figures.iter().filter_map(|figure| figure.failure.as_ref());
    let mut told: Vec<&String> = Vec::new();
    for failure in failures {
        if !told.contains(&failure) {
            // Writing to a string cannot fail.
            let _ = write!(text, "\nnot measured: {failure}\n");
            told.push(failure);
        }
    }
    text
}

fn length(text: &str) -> usize {
    text.chars().count()
}

fn push(text: &mut String, cells: [String; 6], widths: [usize; 6]) {
    for (cell, width) in cells.iter().zip(widths) {
        let _ = write!(text, "| {cell}{} ", " ".repeat(width - length(cell)));
    }
    text.push_str("|\n");
}

fn cells(figure: &Figure) -> [String; 6] {
    let missing = || "not measured".to_owned();
    [
        format!("{}: {}", figure.part, figure.name),
        figure.measured.as_ref().map_or_else(missing, shown),
        match (&figure.baseline, figure.aim) {
            (Some(baseline), _) => format!("{}: {}", baseline.subject, shown(baseline)),
            (None, Some(Aim::RatioAtMost(_) | Aim::RatioBelow(_))) => missing(),
            (None, _) => String::new(),
        },
        figure.ratio.map(number).unwrap_or_default(),
        figure.aim.map(aim).unwrap_or_default(),
        match figure.met {
            Some(true) => "yes".into(),
            Some(false) => "no".into(),
            None => String::new(),
        },
    ]
}

fn shown(value: &Value) -> String {
    let mut text = number(value.value);
    if let Some((low, high)) = value.range {
        let _ = write!(text, " ({}–{})", number(low), number(high));
    }
    if !value.unit.is_empty() {
        let _ = write!(text, " {}", value.unit);
    }
    text
}

fn aim(aim: Aim) -> String {
    match aim {
        Aim::RatioAtMost(bound) => format!("ratio ≤ {}", number(bound)),
        Aim::RatioBelow(bound) => format!("ratio < {}", number(bound)),
        Aim::AtMost(bound) => format!("≤ {}", number(bound)),
    }
}

/// Three digits or so, which is more than such measurements are good for, and no fraction of zero.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        0.0 | 100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').into()
    } else {
        thousands(&text)
    }
}

fn thousands(digits: &str) -> String {
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        let left = digits.len() - index;
        if left.is_multiple_of(3) && index > 0 && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (value, expected) in [
            (0.0, "0"),
            (0.0004, "0"),
            (0.5, "0.5"),
            (0.3777, "0.378"),
            (2.0, "2"),
            (38.123, "38.1"),
            (512.4, "512"),
            (2048.0, "2,048"),
            (1_234_567.0, "1,234,567"),
            (-123.0, "-123"),
        ] {
            assert_eq!(number(value), expected, "{value}");
        }
    }

    #[test]
    fn the_table_is_markdown_and_tells_what_is_missing() {
        let value = |value| Ok(Value::new("QEMU", value, "s"));
        let text = table(&[
            Figure::compared(
                "boot",
                "start",
                value(1.0),
                value(2.0),
                Some(Aim::RatioAtMost(0.5)),
            ),
            Figure::compared(
                "boot",
                "start",
                value(1.0),
                Err("alioth: no".into()),
                Some(Aim::RatioBelow(1.0)),
            ),
            Figure::alone("memory", "all", Err("alioth: no".into()), None),
        ]);
        let expected = "\
| figure      | measured     | against      | ratio | aim         | met |
| ----------- | ------------ | ------------ | ----- | ----------- | --- |
| boot: start | 1 s          | QEMU: 2 s    | 0.5   | ratio ≤ 0.5 | yes |
| boot: start | 1 s          | not measured |       | ratio < 1   |     |
| memory: all | not measured |              |       |             |     |

not measured: alioth: no
";
        assert_eq!(text, expected);
    }
}
