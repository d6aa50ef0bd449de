// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The faults that the device can show, by name. `SPEC.md` ("What can go wrong") says what each
//! does.

use std::fmt;
use std::str::FromStr;

use lockstorm_abi::registers::FAULTS;
use thiserror::Error;

/// Whom a fault befalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One event of a ring, or its interrupt: it waits for the ring's next event.
    Event,
    /// The ring: it waits until the ring is turned off.
    Ring,
    /// The ring's vector or the whole device: it happens at once.
    Now,
}

macro_rules! faults {
    ($( $name:ident $label:literal $scope:ident $meaning:literal; )*) => {
        /// One way to misbehave.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault {
            $( #[doc = $meaning] $name, )*
        }

        impl Fault {
            /// Every fault, in the order of their numbers.
            pub const ALL: &[Self] = &[$( Self::$name, )*];
            /// How many there are.
            pub const COUNT: usize = FAULTS;

            /// Its name, as in `SPEC.md`.
            pub const fn name(self) -> &'static str {
                match self { $( Self::$name => $label, )* }
            }

            /// Whom it befalls.
            pub const fn scope(self) -> Scope {
                match self { $( Self::$name => Scope::$scope, )* }
            }
        }
    };
}

faults! {
    SpuriousInterrupt "spurious-interrupt" Now "A ring's vector is raised without an event.";
    LostInterrupt "lost-interrupt" Event "An event's interrupt is not sent.";
    DuplicateInterrupt "duplicate-interrupt" Event "An event's interrupt is sent twice.";
    EarlyInterrupt "early-interrupt" Event "An event's interrupt comes before the event.";
    LateInterrupt "late-interrupt" Ring "A ring that is off interrupts.";
    StaleIndex "stale-index" Event "The used index does not move with its event.";
    WildIndex "wild-index" Event "The used index is far out for a while.";
    CorruptChecksum "corrupt-checksum" Event "An event's checksum is wrong.";
    DuplicateEvent "duplicate-event" Event "An event is delivered twice.";
    ReorderedEvent "reordered-event" Event "An event comes after the one that follows it.";
    UnmappedDma "unmapped-dma" Event "An event is written to where no memory is.";
    Hang "hang" Now "The device does nothing for a while.";
    StuckBusy "stuck-busy" Now "The device is busy for a while, and takes no register writes.";
    AllOnes "all-ones" Now "The device is gone from the bus for a while.";
    SelfReset "self-reset" Now "The device resets itself.";
}

/// No fault has this name.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("there is no fault `{name}`; there are: {all}", all = names())]
pub struct NoSuchFault {
    name: String,
}

fn names() -> String {
    let names: Vec<_> = Fault::ALL.iter().map(|fault| fault.name()).collect();
    names.join(", ")
}

impl FromStr for Fault {
    type Err = NoSuchFault;

    fn from_str(name: &str) -> Result<Self, NoSuchFault> {
        let mut all = Fault::ALL.iter().copied();
        all.find(|fault| fault.name() == name)
            .ok_or_else(|| NoSuchFault { name: name.into() })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Some of the faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultSet(u16);

impl FaultSet {
    /// None of them.
    pub const NONE: Self = Self(0);

    /// Whether `fault` is among them.
    pub const fn contains(self, fault: Fault) -> bool {
        self.0 & 1 << fault as u16 != 0
    }

    /// Adds `fault`.
    pub fn insert(&mut self, fault: Fault) {
        self.0 |= 1 << fault as u16;
    }

    /// The set as a bit mask: bit `n` is the fault with number `n` in [`Fault::ALL`].
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_datasheet_and_read_back() {
        let datasheet = include_str!("../SPEC.md");
        assert_eq!(Fault::ALL.len(), FAULTS);
        for (number, &fault) in Fault::ALL.iter().enumerate() {
            assert_eq!(fault as usize, number);
            assert_eq!(fault.name().parse(), Ok(fault));
            let row = format!("| {number} | `{fault}` |");
            assert!(datasheet.contains(&row), "SPEC.md lacks {row}");
        }
        let error = "lost".parse::<Fault>().unwrap_err().to_string();
        assert!(error.contains("`lost`") && error.contains("lost-interrupt, "));
    }

    #[test]
    fn a_set_holds_what_was_put_in() {
        let mut set = FaultSet::NONE;
        assert!(set.is_empty());
        set.insert(Fault::SelfReset);
        set.insert(Fault::SpuriousInterrupt);
        for &fault in Fault::ALL {
            let expected = matches!(fault, Fault::SelfReset | Fault::SpuriousInterrupt);
            assert_eq!(set.contains(fault), expected, "{fault}");
        }
        assert_eq!(set.bits(), 1 << 14 | 1);
    }
}
