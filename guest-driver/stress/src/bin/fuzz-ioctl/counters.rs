// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What must be so of a device's counters, at any time.

use evgen_uapi::{Counters, RingCounters};

/// The counters in `bytes`; `None` if that is not as much as they take.
pub fn parse(bytes: &[u8]) -> Option<Counters> {
    if bytes.len() != size_of::<Counters>() {
        return None;
    }
    // SAFETY: there are as many bytes as it needs, and any are a valid `Counters`, a plain struct of
    // integers.
    Some(unsafe { bytes.as_ptr().cast::<Counters>().read_unaligned() })
}

/// Says how the law does not hold that `evgen-uapi` promises for each snapshot, if so.
pub fn imbalance(counters: &Counters) -> Option<String> {
    let received = sum(counters, |ring| ring.received);
    let evicted = sum(counters, |ring| ring.evicted) + counters.added_evicted;
    let came = received + counters.added;
    let went = counters.read + evicted + counters.pending;
    (came != went).then(|| {
        format!(
            "received {received} + added {} != read {} + evicted {evicted} + pending {}",
            counters.added, counters.read, counters.pending
        )
    })
}

fn sum(counters: &Counters, of: impl Fn(&RingCounters) -> u64) -> u64 {
    counters.ring.iter().map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_balance_or_not() {
        let mut counters = Counters {
            added: 5,
            added_evicted: 1,
            read: 7,
            pending: 2,
            ..Counters::default()
        };
        counters.ring[0].received = 3;
        counters.ring[7].received = 4;
        counters.ring[7].evicted = 2;
        assert_eq!(imbalance(&counters), None);
        counters.pending = 1;
        let wrong = imbalance(&counters).unwrap();
        assert_eq!(
            wrong,
            "received 7 + added 5 != read 7 + evicted 3 + pending 1"
        );
    }

    #[test]
    fn counters_are_parsed_as_they_lie_in_memory() {
        let mut bytes = vec![0; size_of::<Counters>()];
        bytes[4] = 9;
        assert_eq!(parse(&bytes).unwrap().list_bound, 9);
        assert_eq!(parse(&bytes[1..]), None);
    }
}
