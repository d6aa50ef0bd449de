// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Which events storms make, and when.

use std::collections::BTreeSet;

use super::progress::{Digest, Planned};
use super::*;
use crate::fault::FaultSet;

const SECOND: u64 = 1_000_000_000;
const MICROSECOND: u64 = 1000;

fn phases(text: &str) -> Storm {
    Storm::from_toml(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// A storm of one phase, with the seed 7.
fn phase(text: &str) -> Storm {
    phases(&format!(
        "seed = 7\n[[phase]]\n{}",
        text.replace("; ", "\n")
    ))
}

fn begin(storm: &Storm, rings: u8) -> Progress {
    Progress::begin(storm, 0, rings, 0).unwrap()
}

fn due_until(progress: &mut Progress, now: u64) -> Vec<Planned> {
    std::iter::from_fn(|| progress.next(now)).collect()
}

fn all(storm: &Storm, rings: u8) -> Vec<Planned> {
    let mut progress = begin(storm, rings);
    let events = due_until(&mut progress, u64::MAX);
    let status = progress.status();
    assert_eq!((status.running, status.made), (false, events.len() as u64));
    assert!(
        status.total.is_none_or(|total| total == status.made),
        "{status:?}"
    );
    assert!(events.is_sorted_by_key(|event| event.offset));
    assert!(events.iter().all(|event| event.offset <= storm.duration()));
    events
}

fn times_and_rings(storm: &Storm, rings: u8) -> Vec<(u64, usize)> {
    let events = all(storm, rings);
    events
        .iter()
        .map(|event| (event.offset, event.ring))
        .collect()
}

/// Whoever changes these has changed what tokens mean: then let them begin with `storm2.`.
#[test]
fn sequences_never_change() {
    for (storm, instance, digest) in [
        (
            "pattern='periodic'; rate=1000; duration_ms=500",
            0,
            0xd2f4_864b_8650_4105,
        ),
        (
            "pattern='periodic'; rate=1000; duration_ms=500",
            1,
            0x9d84_2a8c_51e4_c40b,
        ),
        (
            "pattern='poisson'; rate=1000; duration_ms=500",
            0,
            0x0fc4_61f8_b068_b648,
        ),
        (
            "pattern='burst'; rate=1000; burst=3; duration_ms=500",
            0,
            0xf272_bd3d_4b7d_973e,
        ),
        (
            "pattern='ramp'; rate=10; rate_end=3000; duration_ms=500",
            0,
            0x4630_3ee4_22a1_87a4,
        ),
        (
            "pattern='ramp'; rate=3000; rate_end=10; duration_ms=500",
            0,
            0x72ab_d48a_150e_c526,
        ),
        (
            "pattern='all-at-once'; rate=1000; duration_ms=500",
            0,
            0x5d47_9ffa_4d99_a3dc,
        ),
        (
            "pattern='round-robin'; rate=1000; duration_ms=500",
            0,
            0x5417_9ab4_19aa_5714,
        ),
        (
            "pattern='trace'; trace=[[0,3],[7,0,9],[7,1]]",
            0,
            0x32fa_db01_be5e_d7d0,
        ),
        (
            "pattern='burst'; rate=1000; burst=3; duration_ms=500; seed=8; vectors=[2,0]; acknowledge=5; faults={hang=9,self-reset=2}",
            0,
            0x7aa9_eafa_baea_fda2,
        ),
    ] {
        let mut progress = Progress::begin(&phase(storm), instance, 4, 0).unwrap();
        due_until(&mut progress, u64::MAX);
        let found = progress.status().digest;
        assert_eq!(found, digest, "{storm} on device {instance}: {found:#x}");
    }
}

#[test]
fn a_late_host_makes_the_same_events() {
    let storm = Storm::named("everything-goes-wrong").unwrap();
    let (mut punctual, mut late) = (begin(&storm, 4), begin(&storm, 4));
    let mut in_time = Vec::new();
    while let Some(due) = punctual.due() {
        assert_eq!(punctual.next(due - 1), None);
        let event = punctual.next(due).unwrap();
        assert_eq!(event.offset, due);
        in_time.push(event);
    }
    assert_eq!(in_time, due_until(&mut late, u64::MAX));
    let digest = punctual.status().digest;
    assert_eq!(digest, late.status().digest);
    let mut defined = Digest::default();
    let words = in_time.iter().flat_map(Planned::words);
    words.for_each(|word| defined.add(word));
    assert_eq!(digest, defined.value());
}

#[test]
fn patterns_have_their_times() {
    let [ms, us] = [MILLISECOND, MICROSECOND];
    for (storm, rings, expected) in [
        (
            "pattern='all-at-once'; rate=1000; duration_ms=2",
            3,
            vec![(0, 0), (0, 1), (0, 2), (ms, 0), (ms, 1), (ms, 2)],
        ),
        (
            "pattern='burst'; rate=1000; burst=2; vectors=[2,0]; duration_ms=3",
            3,
            vec![
                (0, 2),
                (0, 2),
                (0, 0),
                (0, 0),
                (2 * ms, 2),
                (2 * ms, 2),
                (2 * ms, 0),
                (2 * ms, 0),
            ],
        ),
        (
            "pattern='round-robin'; rate=500; vectors=[1,0]; duration_ms=3",
            2,
            vec![(0, 1), (ms, 0), (2 * ms, 1)],
        ),
        (
            "pattern='periodic'; rate=400; duration_ms=6",
            1,
            vec![(0, 0), (2500 * us, 0), (5 * ms, 0)],
        ),
        // A third of a second, without drift.
        (
            "pattern='all-at-once'; rate=3; duration_ms=1001",
            1,
            vec![(0, 0), (333_333_333, 0), (666_666_666, 0), (SECOND, 0)],
        ),
        // After t seconds, 1 to 3 events a second have come to t + t²/2.
        (
            "pattern='ramp'; rate=1; rate_end=3; duration_ms=2000",
            1,
            vec![
                (0, 0),
                (732_050_807, 0),
                (1_236_067_977, 0),
                (1_645_751_311, 0),
            ],
        ),
        (
            "pattern='trace'; trace=[[5,1],[5,0,9],[80,1]]",
            2,
            vec![(5 * us, 1), (5 * us, 0), (80 * us, 1)],
        ),
    ] {
        assert_eq!(times_and_rings(&phase(storm), rings), expected, "{storm}");
    }
    let kinds = all(&phase("pattern='trace'; trace=[[0,0,65535],[0,0,0]]"), 1);
    assert_eq!([kinds[0].kind, kinds[1].kind], [65535, 0]);
}

#[test]
fn a_pattern_makes_as_many_events_as_its_rate_says() {
    for (storm, rings, expected) in [
        ("pattern='periodic'; rate=1000; duration_ms=2000", 4, 8000),
        (
            "pattern='round-robin'; rate=1000; duration_ms=2000",
            4,
            8000,
        ),
        (
            "pattern='all-at-once'; rate=1000; duration_ms=2000",
            4,
            8000,
        ),
        (
            "pattern='burst'; rate=1000; burst=16; duration_ms=2000",
            4,
            8000,
        ),
        (
            "pattern='burst'; rate=1; burst=4096; duration_ms=1",
            8,
            8 * 4096,
        ),
        (
            "pattern='ramp'; rate=500; rate_end=1500; duration_ms=2000",
            4,
            8000,
        ),
        (
            "pattern='ramp'; rate=1500; rate_end=500; duration_ms=2000",
            4,
            8000,
        ),
        (
            "pattern='ramp'; rate=1000; rate_end=1000; duration_ms=2000",
            4,
            8000,
        ),
        ("pattern='ramp'; rate=1; rate_end=1; duration_ms=1", 1, 1),
        (
            "pattern='all-at-once'; rate=7; duration_ms=1000; vectors=[1]",
            4,
            7,
        ),
        (
            "pattern='round-robin'; rate=10_000_000; duration_ms=10",
            8,
            800_000,
        ),
    ] {
        let storm = phase(storm);
        assert_eq!(all(&storm, rings).len(), expected, "{storm:?}");
        let outline = storm.outline(rings).unwrap()[0];
        assert_eq!((outline.events, outline.exact), (expected as u64, true));
    }
}

#[test]
fn clocks_of_their_own_keep_their_rate() {
    let events = times_and_rings(&phase("pattern='periodic'; rate=1000; duration_ms=100"), 4);
    let mut begins = BTreeSet::new();
    for ring in 0..4 {
        let own = events.iter().filter(|event| event.1 == ring);
        let times: Vec<u64> = own.map(|event| event.0).collect();
        assert_eq!(times.len(), 100);
        assert!(
            times
                .windows(2)
                .all(|pair| pair[1] - pair[0] == MILLISECOND)
        );
        begins.insert(times[0]);
    }
    assert_eq!((begins.len(), begins.first()), (4, Some(&0)), "{begins:?}");
}

#[test]
fn events_of_chance_have_their_rate_and_come_anywhere() {
    let storm = phase("pattern='poisson'; rate=5000; duration_ms=10_000");
    let outline = storm.outline(4).unwrap()[0];
    assert_eq!((outline.events, outline.exact), (200_000, false));
    assert_eq!(begin(&storm, 4).status().total, None);
    let events = times_and_rings(&storm, 4);
    for ring in 0..4 {
        let own = events.iter().filter(|event| event.1 == ring).count();
        assert!((49_000..51_000).contains(&own), "ring {ring}: {own}");
    }
    // Of gaps with the mean 50 µs, as many are shorter than 50 µs as 1 - 1/e says: 63.2 %.
    let short = events
        .windows(2)
        .filter(|pair| pair[1].0 - pair[0].0 < 50 * MICROSECOND);
    let short = short.count();
    assert!((125_000..128_000).contains(&short), "{short}");
}

#[test]
fn faults_have_their_odds_and_change_nothing_else() {
    let plain = phase("pattern='poisson'; rate=10_000; duration_ms=1000");
    let faulty = phase(
        "pattern='poisson'; rate=10_000; duration_ms=1000; acknowledge=100; \
         faults={ lost-interrupt=10, hang=1, wild-index=1_000_000_000 }",
    );
    let (plain, faulty) = (all(&plain, 2), all(&faulty, 2));
    let stripped = faulty.iter().map(|event| Planned {
        faults: FaultSet::NONE,
        acknowledge: false,
        ..*event
    });
    assert_eq!(plain, stripped.collect::<Vec<_>>());
    let hit = |fault| {
        faulty
            .iter()
            .filter(|event| event.faults.contains(fault))
            .count()
    };
    let lost = hit(Fault::LostInterrupt);
    assert!(
        (faulty.len() / 11..faulty.len() / 9).contains(&lost),
        "{lost}"
    );
    assert_eq!(hit(Fault::Hang), faulty.len());
    assert_eq!((hit(Fault::WildIndex), hit(Fault::SelfReset)), (0, 0));
    for (number, event) in (1..).zip(&faulty) {
        assert_eq!(event.acknowledge, number % 100 == 0, "event {number}");
    }
}

#[test]
fn seeds_and_devices_make_other_events_and_the_same_ones_again() {
    const PHASE: &str = "[[phase]]\npattern='poisson'\nrate=1000\nduration_ms=100\n";
    let made = |text: &str, instance| {
        let mut progress = Progress::begin(&phases(text), instance, 2, 0).unwrap();
        due_until(&mut progress, u64::MAX)
    };
    let payloads = |events: &[Planned]| events.iter().map(|e| e.payload).collect::<BTreeSet<_>>();
    let zero = made(PHASE, 0);
    assert_eq!(made(&format!("seed = 0\n{PHASE}"), 0), zero);
    // The device's number is added to the seed.
    assert_eq!(made(&format!("seed = 3\n{PHASE}"), 4), made(PHASE, 7));
    assert_eq!(
        made(&format!("{PHASE}seed = 3"), 4),
        made(&format!("{PHASE}seed = 7"), 0)
    );
    let most = format!("seed = {MAX_SEED}\n{PHASE}");
    for other in [
        made(PHASE, 1),
        made(&most, u64::MAX),
        made(&format!("{PHASE}seed = 0"), 0),
    ] {
        assert!(payloads(&other).is_disjoint(&payloads(&zero)));
    }
    // A phase without a seed is not the one before it again; one with the same seed is.
    let twice = made(&format!("{PHASE}{PHASE}"), 0);
    let second = twice.iter().skip(zero.len()).copied().collect::<Vec<_>>();
    assert!(payloads(&second).is_disjoint(&payloads(&zero)));
    let [own, again] = ["", PHASE].map(|text| made(&format!("{text}{PHASE}seed = 7"), 0));
    assert_eq!(payloads(&again[zero.len()..]), payloads(&own));
}

#[test]
fn phases_follow_each_other() {
    let storm = phases(
        "[[phase]]\npattern='all-at-once'\nrate=1\nduration_ms=10\n\
         [[phase]]\npattern='trace'\ntrace=[[1000,1],[2000,0]]\n\
         [[phase]]\npattern='trace'\ntrace=[[0,1]]\n\
         [[phase]]\npattern='trace'\ntrace=[[0,0]]\n\
         [[phase]]\npattern='all-at-once'\nrate=1000\nvectors=[1]\nduration_ms=2",
    );
    let ms = MILLISECOND;
    let expected = [
        (0, 0),
        (0, 1),
        (11 * ms, 1),
        (12 * ms, 0),
        (12 * ms, 1),
        (12 * ms, 0),
        (12 * ms, 1),
        (13 * ms, 1),
    ];
    assert_eq!(times_and_rings(&storm, 2), expected);
    assert_eq!(storm.duration(), 14 * ms);
    let mut progress = Progress::begin(&storm, 0, 2, 5).unwrap();
    assert_eq!(due_until(&mut progress, 5 + 11 * ms).len(), 3);
    let status = progress.status();
    assert_eq!(
        (status.running, status.made, status.total),
        (true, 3, Some(8))
    );
    assert_eq!(
        (status.elapsed, progress.due()),
        (11 * ms, Some(5 + 12 * ms))
    );
    // A phase in which chance has nothing happen does not end the storm.
    const RARE: &str = "[[phase]]\npattern='poisson'\nrate=1\nduration_ms=1\n";
    let rare = phases(&format!(
        "{}[[phase]]\npattern='trace'\ntrace=[[0,0]]",
        RARE.repeat(63)
    ));
    assert_eq!(times_and_rings(&rare, 1), [(63 * ms, 0)]);
}

#[test]
fn a_storm_that_is_stopped_takes_no_more_time() {
    let storm = phase("pattern='periodic'; rate=1000; duration_ms=1000");
    let mut progress = Progress::begin(&storm, 0, 1, 0).unwrap();
    due_until(&mut progress, 5_000_000);
    progress.stop();
    let stopped = progress.status();
    assert_eq!((stopped.running, stopped.made), (false, 6));
    // The device is called on, for its rings.
    assert_eq!(progress.next(900_000_000), None);
    assert_eq!(progress.status(), stopped);
}

#[test]
fn storms_for_rings_that_are_not_there_are_refused() {
    let on_three = phase("pattern='poisson'; rate=1; duration_ms=1; vectors=[0,3]");
    let traced = phase("pattern='trace'; trace=[[0,0],[0,7]]");
    for (storm, vector, rings) in [(&on_three, 3, 3), (&traced, 7, 7)] {
        let error = StormError::NoRing {
            phase: 1,
            vector,
            rings,
        };
        assert_eq!(
            Progress::begin(storm, 0, rings, 0).err(),
            Some(error.clone())
        );
        assert_eq!(storm.outline(rings), Err(error));
        assert!(Progress::begin(storm, 0, rings + 1, 0).is_ok());
    }
}

/// The longest and fastest there can be, late in the life of a host.
#[test]
fn nothing_overflows() {
    for shape in [
        "pattern='periodic'; rate=10_000_000",
        "pattern='poisson'; rate=10_000_000",
        "pattern='burst'; rate=10_000_000; burst=4096",
        "pattern='burst'; rate=1; burst=4096",
        "pattern='ramp'; rate=10_000_000; rate_end=10_000_000",
        "pattern='ramp'; rate=10_000_000; rate_end=1",
        "pattern='all-at-once'; rate=10_000_000",
        "pattern='round-robin'; rate=10_000_000",
    ] {
        let long = format!(
            "[[phase]]\n{}\nduration_ms=86_400_000\n",
            shape.replace("; ", "\n")
        );
        let storm = phases(&long.repeat(MAX_PHASES));
        let mut progress = Progress::begin(&storm, u64::MAX, 8, u64::MAX - 5).unwrap();
        for _ in 0..10_000 {
            assert!(progress.next(u64::MAX).is_some(), "{shape}");
        }
        let status = progress.status();
        assert!(
            status.total.is_none_or(|total| total > 40_000_000),
            "{status:?}"
        );
        assert_eq!(storm.duration(), 64 * 86_400 * SECOND);
    }
}

#[test]
fn in_the_rough_storm_of_the_library_everything_does_go_wrong() {
    let storm = Storm::named("everything-goes-wrong").unwrap();
    for instance in 0..4 {
        let mut progress = Progress::begin(&storm, instance, 4, 0).unwrap();
        let events = due_until(&mut progress, u64::MAX);
        for &fault in Fault::ALL {
            let hit = events.iter().any(|event| event.faults.contains(fault));
            assert!(hit, "{fault} on device {instance}");
        }
    }
}
