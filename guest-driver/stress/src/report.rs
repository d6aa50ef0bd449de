// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What `stress` prints in the end: KTAP, the tables, and one line that says it all.

use std::fmt::{self, Write};

use crate::faults::KINDS;
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
                let line = format!("evgen{}{ring}: {}", verdict.device, violation.figures);
                // What is about two faults is there for both.
                if lines.last() != Some(&line) {
                    lines.push(line);
                }
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

    /// The faults that came about: how often, and how often they were noticed.
    pub fn faults(&self) -> String {
        let fault = |number: usize| {
            let came_about = self.sum(|verdict| verdict.came_about(number));
            let noticed = match KINDS[number].noticed {
                Some(_) => {
                    let noticed = self.sum(|verdict| verdict.noticed(number));
                    format!(" ({} noticed)", thousands(noticed))
                }
                None => String::new(),
            };
            let name = KINDS[number].name;
            (came_about != 0).then(|| format!("{name} {}{noticed}", thousands(came_about)))
        };
        let faults: Vec<_> = (0..KINDS.len()).filter_map(fault).collect();
        match faults.as_slice() {
            [] => "no fault".to_owned(),
            faults => faults.join(", "),
        }
    }

    fn sum(&self, figure: impl Fn(&Verdict) -> i64) -> i64 {
        self.verdicts.iter().map(figure).sum()
    }

    /// The figures, 80 columns wide. Those of faults only if there were any.
    pub fn tables(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        self.write_rings(&mut text)?;
        self.write_lists(&mut text)?;
        if (0..KINDS.len()).any(|kind| self.sum(|verdict| verdict.came_about(kind)) != 0) {
            self.write_spoiled(&mut text)?;
            self.write_faults(&mut text)?;
        }
        Ok(text)
    }

    fn write_rings(&self, text: &mut String) -> fmt::Result {
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
        Ok(())
    }

    fn write_lists(&self, text: &mut String) -> fmt::Result {
        writeln!(
            text,
            "\n{:6} {:>4} {:>10} {:>10} {:>8} {:>10} {:>8} {:>8}  law",
            "device", "", "added", "read", "readers", "interrupts", "evicted", "pending"
        )?;
        for verdict in &self.verdicts {
            let good = verdict
                .violations
                .iter()
                .all(|violation| violation.ring.is_some() || violation.fault.is_some());
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
        Ok(())
    }

    fn write_spoiled(&self, text: &mut String) -> fmt::Result {
        writeln!(
            text,
            "\n{:6} {:>4} {:>10} {:>10} {:>10} {:>12} {:>12}",
            "device", "ring", "faulted", "thrown out", "extra", "out of order", "seen again"
        )?;
        for verdict in &self.verdicts {
            for (number, ring) in verdict.rings.iter().enumerate() {
                writeln!(
                    text,
                    "evgen{} {number:>4} {:>10} {:>10} {:>10} {:>12} {:>12}",
                    verdict.device,
                    thousands(ring.faulted),
                    thousands(ring.bad_checksum),
                    thousands(ring.extra),
                    thousands(ring.out_of_order),
                    thousands(ring.seen_again)
                )?;
            }
        }
        Ok(())
    }

    fn write_faults(&self, text: &mut String) -> fmt::Result {
        writeln!(
            text,
            "\n{:20} {:>12} {:>12}   law",
            "fault", "came about", "noticed"
        )?;
        for (number, kind) in KINDS.iter().enumerate() {
            let came_about = self.sum(|verdict| verdict.came_about(number));
            let noticed = self.sum(|verdict| verdict.noticed(number));
            if (came_about, noticed) == (0, 0) {
                continue;
            }
            let noticed = match kind.noticed {
                None => "-".to_owned(),
                Some(_) => thousands(noticed),
            };
            let shared = match kind.noticed {
                Some(notice) if notice.shared => "*",
                _ => " ",
            };
            let good = self.verdicts.iter().all(|verdict| {
                let mut violations = verdict.violations.iter();
                violations.all(|violation| violation.fault != Some(number))
            });
            writeln!(
                text,
                "{:20} {:>12} {noticed:>12}{shared}  {}",
                kind.name,
                thousands(came_about),
                word(good)
            )?;
        }
        writeln!(
            text,
            "* with all that looks the same. Rings set up anew: {}; devices: {}",
            thousands(self.sum(|verdict| verdict.restarts[0])),
            thousands(self.sum(|verdict| verdict.restarts[1]))
        )
    }

    /// Events that were made, and those that are unaccounted for.
    pub fn balance(&self) -> (i64, u64) {
        let unaccounted = self.verdicts.iter().map(Verdict::unaccounted);
        (
            self.sum(Verdict::events),
            unaccounted.fold(0, u64::saturating_add),
        )
    }

    /// The last line.
    pub fn conclusion(&self) -> String {
        let (events, unaccounted) = self.balance();
        let (events, unaccounted) = (thousands(events), thousands(unaccounted.cast_signed()));
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
    use crate::faults::{CORRUPT_CHECKSUM, UNMAPPED_DMA};
    use crate::verdict::{FaultFigures, RingFigures};

    fn report() -> Report {
        let ring = RingFigures {
            generated: 1_234_567,
            delivered: 1_234_560,
            dropped: 7,
            received: 1_234_560,
            evicted: 123_456,
            missing: 123_463,
            ..RingFigures::default()
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
                "  not ok 2 each ring: received = delivered + extra",
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

    #[test]
    fn faults_have_a_table_if_there_were_any() {
        let mut report = report();
        assert_eq!(report.faults(), "no fault");
        assert!(!report.tables().unwrap().contains("came about"));
        for verdict in &mut report.verdicts {
            verdict.faults = vec![FaultFigures::default(); KINDS.len()];
            verdict.faults[1] = FaultFigures {
                came_about: 1_200_000,
                noticed: Some(1_100_000),
            };
            verdict.faults[CORRUPT_CHECKSUM].came_about = 3;
            verdict.faults[UNMAPPED_DMA].came_about = 4;
            verdict.faults[2].came_about = 1;
        }
        let figures = "faulted 0, but corrupt-checksum came about 3 times".to_owned();
        for kind in [CORRUPT_CHECKSUM, UNMAPPED_DMA] {
            report.verdicts[1].broken_by(Law::Spoiled, kind, figures.clone());
        }
        assert_eq!(report.violations().len(), 1);
        assert_eq!(
            report.faults(),
            "lost-interrupt 2,400,000 (2,200,000 noticed), duplicate-interrupt 2, corrupt-checksum 6 (0 noticed), \
             unmapped-dma 8 (0 noticed)"
        );
        let tables = report.tables().unwrap();
        for line in tables.lines() {
            assert!(line.len() <= 80, "{line}");
        }
        for row in [
            "lost-interrupt          2,400,000    2,200,000*  ok",
            "corrupt-checksum                6            0*  BROKEN",
        ] {
            assert!(tables.contains(row), "{tables}");
        }
        assert!(!tables.contains("hang"));
    }
}
