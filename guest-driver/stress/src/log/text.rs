// SPDX-License-Identifier: Apache-2.0 OR MIT

//! A log as one line, in which a process hands it to another one.
//!
//! ```text
//! EVENTS CORRUPT STRANGE FIRST SOURCE.RING:START-END,START-END… SOURCE.RING:…
//! ```
//!
//! FIRST is source and ring of the first strange event, or `-`. The runs of a stream stand in the
//! order in which they were seen; END is one more than the last number.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use thiserror::Error;

use super::{Log, Stream};

/// A line that is no log.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("no log has {0:?}")]
pub struct ParseError(String);

impl fmt::Display for Log {
    fn fmt(&self, line: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(line, "{} {} {} ", self.events, self.corrupt, self.strange)?;
        match self.first_strange {
            Some((source, ring)) => write!(line, "{source}.{ring}")?,
            None => write!(line, "-")?,
        }
        for (source, rings) in self.streams.iter().enumerate() {
            for (ring, Stream { runs, .. }) in rings.iter().enumerate() {
                let mut separator = format!(" {source}.{ring}:");
                for Range { start, end } in runs {
                    write!(line, "{separator}{start}-{end}")?;
                    separator = ",".to_owned();
                }
            }
        }
        Ok(())
    }
}

impl Log {
    /// Takes note of everything that is in a line, as if it came just here and in this order.
    pub fn replay(&mut self, line: &str) -> Result<(), ParseError> {
        let mut words = line.split(' ');
        for count in [&mut self.events, &mut self.corrupt, &mut self.strange] {
            *count = count.saturating_add(number(words.next().unwrap_or_default())?);
        }
        let first = words.next().unwrap_or_default();
        if first != "-" {
            self.first_strange.get_or_insert(pair(first, '.')?);
        }
        for word in words {
            let no_log = || ParseError(word.to_owned());
            let (place, runs) = word.split_once(':').ok_or_else(no_log)?;
            let (source, ring): (usize, usize) = pair(place, '.')?;
            let stream = self.streams.get_mut(source).ok_or_else(no_log)?;
            let stream = stream.get_mut(ring).ok_or_else(no_log)?;
            for run in runs.split(',') {
                let (start, end) = pair(run, '-')?;
                if start >= end {
                    return Err(no_log());
                }
                stream.see(start..end);
            }
        }
        Ok(())
    }
}

fn pair<T: FromStr>(text: &str, separator: char) -> Result<(T, T), ParseError> {
    let (first, second) = text
        .split_once(separator)
        .ok_or_else(|| ParseError(text.to_owned()))?;
    Ok((number(first)?, number(second)?))
}

fn number<T: FromStr>(text: &str) -> Result<T, ParseError> {
    text.parse().map_err(|_| ParseError(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use evgen_uapi::{NO_RING, SOURCE_DOORBELL, SOURCE_DRIVER, SOURCE_STORM};

    use super::*;
    use crate::example::records;
    use crate::log::seen;

    fn log(base: &Log, events: &[(u16, u16, u64)]) -> Log {
        let mut log = base.clone();
        for &(source, ring, number) in events {
            log.record(&records(source, ring, [number])[0]);
        }
        log
    }

    #[test]
    fn a_log_survives_its_line() {
        let (a, b, c) = (
            (SOURCE_DOORBELL, 0),
            (SOURCE_DRIVER, NO_RING),
            (SOURCE_STORM, 1),
        );
        let events = [
            (a.0, a.1, 0),
            (a.0, a.1, 1),
            (b.0, b.1, 7),
            (a.0, a.1, 5),
            (a.0, a.1, 4),
            (c.0, 9, 0),
            (c.0, c.1, u64::MAX - 1),
        ];
        let new = Log::new(2);
        let log = log(&new, &events);
        let line =
            "7 0 1 3.9 0.0:7-8 1.0:0-2,5-6,4-5 3.1:18446744073709551614-18446744073709551615";
        assert_eq!(log.to_string(), line);
        let mut again = new.clone();
        again.replay(line).unwrap();
        assert_eq!(again.to_string(), line);
        assert_eq!(again.first_strange, Some((3, 9)));
        let seen_of = |log: &Log| seen(std::slice::from_ref(log), SOURCE_DOORBELL, 0);
        assert_eq!(seen_of(&again), seen_of(&log));
        assert_eq!(seen_of(&again).disorder.count, 1);
        again.replay(&new.to_string()).unwrap();
        assert_eq!(again.to_string(), line);
    }

    #[test]
    fn what_was_there_before_is_out_of_order_for_a_log_that_goes_on() {
        let first = log(&Log::new(1), &[(SOURCE_STORM, 0, 4)]);
        let mut next = Log::continued(1, &[first]);
        let line = log(&Log::new(1), &[(SOURCE_STORM, 0, 4)]).to_string();
        next.replay(&line).unwrap();
        let seen = seen(&[next], SOURCE_STORM, 0);
        assert_eq!(seen.disorder.first, Some((4, 4)));
    }

    #[test]
    fn nonsense_is_refused() {
        for wrong in [
            "",
            "1",
            "1 2 3",
            "1 2 3 x",
            "1 2 3 1.2.3",
            "1 2 -3 -",
            "1 2 3 - 1.0",
            "1 2 3 - 4.0:1-2",
            "1 2 3 - 1.8:1-2",
            "1 2 3 - 1.0:",
            "1 2 3 - 1.0:2-1",
            "1 2 3 - 1.0:2-2",
            "1 2 3 - 1.0:1-2,",
            "1 2 3 -  1.0:1-2",
        ] {
            assert!(Log::new(1).replay(wrong).is_err(), "{wrong:?}");
        }
    }
}
