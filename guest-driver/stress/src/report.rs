// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What `stress` prints in the end: KTAP, the tables, and one line that says it all.

use std::fmt::{self, Write};

use crate::thousands::thousands;
use crate::verdict::{Law, Verdict};

/// The verdicts on all devices, and what was asked of them together.
#[derive(Debug)]
pub struct Report {
    /// By device.
    pub verdicts: Vec<Verdict>,
    /// Fewest events that the devices must have delivered.
    pub delivered_at_least: Option<u64>,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn holds(&self) -> bool {
        self.law_holds() && self.shortfall().is_none()
    }

    fn law_holds(&self) -> bool {
        self.verdicts
            .iter()
            .all(|verdict| verdict.violations.is_empty())
    }

    /// One line for each broken law.
    pub fn violations(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for verdict in &self.verdicts {
            for violation in &verdict.violations {
                let ring = violation
                    .ring
                    .map(|ring| format!(" ring {ring}"))
                    .unwrap_or_default();
                lines.push(format!(
                    "evgen{}{ring}: {}",
                    verdict.device, violation.figures
                ));
            }
        }
        lines.extend(self.shortfall());
        lines
    }

    fn delivered(&self) -> i64 {
        self.verdicts
            .iter()
            .map(|verdict| verdict.total(|ring| ring.delivered))
            .sum()
    }

    fn shortfall(&self) -> Option<String> {
        let least = self.delivered_at_least?.cast_signed();
        (self.delivered() < least).then(|| {
            format!(
                "all devices: delivered {}, but at least {} are asked for",
                thousands(self.delivered()),
                thousands(least)
            )
        })
    }

    /// The results as KTAP: a test per device, with a subtest per law.
    pub fn ktap(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        let extra = usize::from(self.delivered_at_least.is_some());
        writeln!(text, "KTAP version 1\n1..{}", self.verdicts.len() + extra)?;
        for (number, verdict) in (1..).zip(&self.verdicts) {
            writeln!(
                text,
                "  KTAP version 1\n  # Subtest: evgen{}",
                verdict.device
            )?;
            writeln!(text, "  1..{}", Law::ALL.len())?;
            for (number, law) in (1..).zip(Law::ALL) {
                let good = verdict
                    .violations
                    .iter()
                    .all(|violation| violation.law != law);
                writeln!(text, "  {} {number} {law}", result(good))?;
            }
            let good = verdict.violations.is_empty();
            writeln!(text, "{} {number} evgen{}", result(good), verdict.device)?;
        }
        if let Some(least) = self.delivered_at_least {
            let good = result(self.shortfall().is_none());
            let number = self.verdicts.len() + 1;
            let least = thousands(least.cast_signed());
            writeln!(text, "{good} {number} at least {least} events delivered")?;
        }
        Ok(text)
    }

    /// The figures, 80 columns wide.
    pub fn tables(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        writeln!(
            text,
            "{:6} {:>4} {:>10} {:>10} {:>8} {:>10} {:>8} {:>8}  law",
            "device", "ring", "generated", "delivered", "dropped", "received", "evicted", "missing"
        )?;
        for verdict in &self.verdicts {
            for (number, ring) in verdict.rings.iter().enumerate() {
                let good = verdict
                    .violations
                    .iter()
                    .all(|violation| violation.ring != Some(number));
                writeln!(
                    text,
                    "evgen{} {number:>4} {:>10} {:>10} {:>8} {:>10} {:>8} {:>8}  {}",
                    verdict.device,
                    thousands(ring.generated),
                    thousands(ring.delivered),
                    thousands(ring.dropped),
                    thousands(ring.received),
                    thousands(ring.evicted),
                    thousands(ring.missing),
                    word(good)
                )?;
            }
        }
        writeln!(
            text,
            "\n{:6} {:>4} {:>10} {:>10} {:>8} {:>10} {:>8} {:>8}  law",
            "device", "", "added", "read", "readers", "interrupts", "evicted", "pending"
        )?;
        for verdict in &self.verdicts {
            let good = verdict
                .violations
                .iter()
                .all(|violation| violation.ring.is_some());
            writeln!(
                text,
                "evgen{} {:>4} {:>10} {:>10} {:>8} {:>10} {:>8} {:>8}  {}",
                verdict.device,
                "",
                thousands(verdict.added),
                thousands(verdict.read),
                verdict.readers,
                thousands(verdict.interrupts),
                thousands(verdict.total(|ring| ring.evicted) + verdict.added_evicted),
                thousands(verdict.pending.cast_signed()),
                word(good)
            )?;
        }
        Ok(text)
    }

    /// The last line.
    pub fn conclusion(&self) -> String {
        let events = thousands(self.verdicts.iter().map(Verdict::events).sum());
        let unaccounted = self
            .verdicts
            .iter()
            .map(Verdict::unaccounted)
            .fold(0, u64::saturating_add);
        let unaccounted = thousands(unaccounted.cast_signed());
        let holds = if self.law_holds() {
            "holds"
        } else {
            "is broken"
        };
        let few = if self.shortfall().is_some() {
            "; too few delivered"
        } else {
            ""
        };
        format!("conservation law {holds}: {events} events, {unaccounted} unaccounted for{few}")
    }
}

fn result(good: bool) -> &'static str {
    if good { "ok" } else { "not ok" }
}

fn word(good: bool) -> &'static str {
    if good { "ok" } else { "BROKEN" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::RingFigures;

    fn report() -> Report {
        let ring = RingFigures {
            generated: 1_234_567,
            delivered: 1_234_560,
            dropped: 7,
            received: 1_234_560,
            evicted: 123_456,
            missing: 123_463,
        };
        let verdict = |device| Verdict {
            device,
            readers: 1,
            rings: vec![ring; 2],
            added: 100_000,
            added_evicted: 1,
            added_missing: 1,
            read: 2_322_207,
            interrupts: 99_999,
            ..Verdict::default()
        };
        Report {
            verdicts: vec![verdict(0), verdict(1)],
            delivered_at_least: Some(1_000_000),
        }
    }

    #[test]
    fn a_good_report() {
        let report = report();
        assert!(report.holds());
        assert_eq!(report.violations(), Vec::<String>::new());
        assert_eq!(
            report.conclusion(),
            "conservation law holds: 5,138,268 events, 0 unaccounted for"
        );
        assert!(!report.ktap().unwrap().contains("not ok"));
        let tables = report.tables().unwrap();
        assert!(!tables.contains("BROKEN"));
        for line in tables.lines() {
            assert!(line.len() <= 80, "{line}");
        }
    }

    #[test]
    fn a_bad_report_names_device_ring_and_figures() {
        let mut report = report();
        report.verdicts[1].broken(Law::Received, Some(1), "received 1, but delivered 2".into());
        report.verdicts[1].rings[1].missing += 1;
        report.delivered_at_least = Some(10_000_000);
        assert!(!report.holds());
        assert_eq!(
            report.violations(),
            [
                "evgen1 ring 1: received 1, but delivered 2",
                "all devices: delivered 4,938,240, but at least 10,000,000 are asked for",
            ]
        );
        assert_eq!(
            report.conclusion(),
            "conservation law is broken: 5,138,268 events, 1 unaccounted for; too few delivered"
        );
        let ktap = report.ktap().unwrap();
        let not_ok: Vec<_> = ktap
            .lines()
            .filter(|line| line.contains("not ok"))
            .collect();
        assert_eq!(
            not_ok,
            [
                "  not ok 2 each ring: received = delivered",
                "not ok 2 evgen1",
                "not ok 3 at least 10,000,000 events delivered",
            ]
        );
        let tables = report.tables().unwrap();
        let broken: Vec<_> = tables
            .lines()
            .filter(|line| line.contains("BROKEN"))
            .collect();
        assert_eq!(broken.len(), 1);
        assert!(broken[0].starts_with("evgen1    1"));
    }
}
