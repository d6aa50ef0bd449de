// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Makes the table of what was measured, and the same as JSON.
//!
//! Exit status 1 if something could not be measured; a missed aim is a result like any other.

mod figure;
mod figures;
mod table;

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use lockstorm_bench::measurement::Measurement;
use serde::Serialize;

use figure::Figure;
use figures::Measurements;

/// Makes the table of what was measured; scripts/bench.sh runs it
#[derive(Debug, Parser)]
struct Arguments {
    /// Lines of JSON that bench-place printed
    #[arg(long, value_name = "PATH")]
    measurements: PathBuf,
    /// Folder with Criterion's results
    #[arg(long, value_name = "PATH")]
    criterion: PathBuf,
    /// Something to record, KEY=VALUE
    #[arg(long, value_name = "FACT", value_parser = parse_fact)]
    fact: Vec<(String, String)>,
    /// File for all of it as JSON
    #[arg(long, value_name = "PATH")]
    json: PathBuf,
    /// What was measured: core, interrupts, boot, memory
    #[arg(required = true, value_parser = ["core", "interrupts", "boot", "memory"])]
    parts: Vec<String>,
}

fn parse_fact(text: &str) -> Result<(String, String), String> {
    let fact = text.split_once('=');
    let (key, value) = fact.ok_or_else(|| format!("`{text}` is not of the form KEY=VALUE"))?;
    Ok((key.into(), value.into()))
}

/// What the JSON file holds.
#[derive(Serialize)]
struct Report<'a> {
    facts: BTreeMap<String, String>,
    figures: &'a [Figure],
    measurements: &'a [Measurement],
}

fn main() -> ExitCode {
    match report(Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench-report: {error}");
            ExitCode::FAILURE
        }
    }
}

/// True if everything was measured.
fn report(arguments: Arguments) -> Result<bool, Box<dyn Error>> {
    let lines = fs::read_to_string(&arguments.measurements)?;
    let measurements = lines
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<Vec<Measurement>, _>>()?;
    let measurements = Measurements(measurements);
    let mut figures = Vec::new();
    for part in &arguments.parts {
        figures.extend(match part.as_str() {
            "core" => figures::core(&arguments.criterion),
            "interrupts" => figures::interrupts(&measurements),
            "boot" => figures::boot(&measurements),
            _ => figures::memory(&measurements),
        });
    }
    let report = Report {
        facts: arguments.fact.into_iter().collect(),
        figures: &figures,
        measurements: &measurements.0,
    };
    fs::write(&arguments.json, serde_json::to_string_pretty(&report)?)?;
    for (fact, value) in &report.facts {
        println!("{fact}: {value}");
    }
    println!("\n{}", table::table(&figures));
    Ok(figures.iter().all(|figure| figure.failure.is_none()))
}
