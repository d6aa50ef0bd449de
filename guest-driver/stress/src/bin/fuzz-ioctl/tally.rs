// SPDX-License-Identifier: Apache-2.0 OR MIT

//! How often each call gave each answer.

use std::collections::BTreeMap;
use std::fmt;

use evgen_stress::thousands::thousands;
use rustix::io::Errno;

use crate::rules::{Call, name};

/// Answers that were counted. Prints as a table.
#[derive(Default)]
pub struct Tally {
    /// By call, then by error, or `None` for success.
    answers: BTreeMap<Call, BTreeMap<Option<i32>, u64>>,
}

impl Tally {
    pub fn count(&mut self, call: Call, answer: Result<usize, Errno>) {
        let errno = answer.err().map(Errno::raw_os_error);
        *self
            .answers
            .entry(call)
            .or_default()
            .entry(errno)
            .or_default() += 1;
    }

    pub fn add(&mut self, other: &Self) {
        for (&call, answers) in &other.answers {
            let sums = self.answers.entry(call).or_default();
            for (&errno, count) in answers {
                *sums.entry(errno).or_default() += count;
            }
        }
    }

    /// Number of all calls.
    pub fn calls(&self) -> u64 {
        self.answers.values().flat_map(BTreeMap::values).sum()
    }

    /// Number of calls that were made and did well.
    pub fn successes(&self, call: Call) -> u64 {
        let answers = self.answers.get(&call);
        let successes = answers.and_then(|answers| answers.get(&None));
        successes.copied().unwrap_or(0)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:16} {:>10} {:>10}  errors", "call", "made", "done")?;
        for (&call, answers) in &self.answers {
            let made: u64 = answers.values().sum();
            let (made, done) = (number(made), number(self.successes(call)));
            write!(f, "\n{:16} {made:>10} {done:>10}", call.name())?;
            for (&errno, &count) in answers {
                if let Some(errno) = errno {
                    let errno = name(Errno::from_raw_os_error(errno));
                    write!(f, "  {errno} {}", number(count))?;
                }
            }
        }
        Ok(())
    }
}

fn number(count: u64) -> String {
    thousands(count.cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_add_up_in_the_table() {
        let mut tally = Tally::default();
        tally.count(Call::Add, Ok(0));
        tally.count(Call::Add, Err(Errno::FAULT));
        let mut sum = Tally::default();
        sum.count(Call::Add, Err(Errno::INTR));
        sum.count(Call::Read, Err(Errno::AGAIN));
        for _ in 0..2 {
            sum.add(&tally);
        }
        assert_eq!((sum.calls(), sum.successes(Call::Add)), (6, 2));
        assert_eq!(sum.successes(Call::Read), 0);
        assert_eq!(
            sum.to_string(),
            "call                   made       done  errors\n\
             ADD                       5          2  EINTR 1  EFAULT 2\n\
             read                      1          0  EAGAIN 1"
        );
    }
}
