// SPDX-License-Identifier: Apache-2.0 OR MIT

//! A table of a storm file, whose values are taken out one by one: what then is left means nothing.

use std::fmt::Display;
use std::ops::RangeInclusive;

use toml::{Table, Value};

use super::{Place, StormError};

/// Characters of a value that an error shows.
const SHOWN: usize = 60;

/// A table and what was asked of it.
pub(super) struct Keys {
    table: Table,
    place: Place,
    /// What the keys are in; empty but for inner tables.
    within: String,
    asked: Vec<&'static str>,
}

impl Keys {
    pub fn new(table: Table, place: Place) -> Self {
        Self {
            table,
            place,
            within: String::new(),
            asked: Vec::new(),
        }
    }

    /// A number in `range`, if the key is there.
    pub fn number(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, StormError> {
        let Some(value) = self.take(key) else {
            return Ok(None);
        };
        let number = value.as_integer().and_then(|n| u64::try_from(n).ok());
        match number.filter(|number| range.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(self.refuse(key, &value, numbers(range.start(), range.end()))),
        }
    }

    /// A number in `range`, if the key is there.
    pub fn small(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u32>,
    ) -> Result<Option<u32>, StormError> {
        let range = u64::from(*range.start())..=u64::from(*range.end());
        let number = self.number(key, range)?;
        Ok(number.map(|number| number as u32))
    }

    /// A number in `range`.
    pub fn required(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u32>,
    ) -> Result<u32, StormError> {
        let wanted = numbers(range.start(), range.end());
        self.small(key, range)?
            .ok_or_else(|| self.missing(key, &wanted))
    }

    /// A text, if the key is there.
    pub fn text(&mut self, key: &'static str, wanted: &str) -> Result<Option<String>, StormError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.refuse(key, &other, wanted)),
        }
    }

    /// A list, if the key is there.
    pub fn list(
        &mut self,
        key: &'static str,
        wanted: &str,
    ) -> Result<Option<Vec<Value>>, StormError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(other) => Err(self.refuse(key, &other, wanted)),
        }
    }

    /// A table in this one, if the key is there.
    pub fn inner(&mut self, key: &'static str, wanted: &str) -> Result<Option<Self>, StormError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Table(table)) => Ok(Some(Self {
                within: format!("{key}."),
                ..Self::new(table, self.place)
            })),
            Some(other) => Err(self.refuse(key, &other, wanted)),
        }
    }

    /// Refuses keys that nobody asked for.
    pub fn end(self) -> Result<(), StormError> {
        match self.table.keys().next() {
            None => Ok(()),
            Some(key) => Err(StormError::Unknown {
                place: self.place,
                key: format!("{}{}", self.within, brief(key)),
                known: self.asked.join(", "),
            }),
        }
    }

    /// The error that says that `key` cannot be `value`.
    pub fn refuse(&self, key: &str, value: &impl Display, wanted: impl Into<String>) -> StormError {
        StormError::Value {
            place: self.place,
            key: format!("{}{key}", self.within),
            value: brief(value),
            wanted: wanted.into(),
        }
    }

    /// The error that says that `key` has to be there.
    pub fn missing(&self, key: &'static str, wanted: &str) -> StormError {
        StormError::Missing {
            place: self.place,
            key,
            wanted: wanted.to_owned(),
        }
    }

    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.asked.push(key);
        self.table.remove(key)
    }
}

fn numbers(first: impl Display, last: impl Display) -> String {
    format!("a whole number from {first} to {last}")
}

/// The begin of a value, fit for a terminal and a log.
pub(super) fn brief(value: impl Display) -> String {
    let text = value.to_string();
    let mut brief: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(SHOWN)
        .collect();
    if brief.len() < text.len() {
        brief.push('…');
    }
    brief
}
