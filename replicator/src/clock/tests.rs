//! Tests of `clock`.

use proptest::prelude::*;

use super::*;

const SKEW_MS: u64 = 500;
const CONFIG: ClockConfig = ClockConfig { skew_ms_max: SKEW_MS };

/// `ms` after 2025, when all tests begin.
fn wall(ms: u64) -> Timestamp {
    Timestamp::from_unix_ms(1_735_689_600_000 + ms)
}

fn persist(guard: &mut ClockGuard, now: Timestamp) {
    if let Some(bound) = guard.bound_wanted(now) {
        guard.bound_persisted(bound);
    }
}

/// A stamp, with the bound persisted when it is wanted.
fn stamp(guard: &mut ClockGuard, now: Timestamp) -> Timestamp {
    persist(guard, now);
    guard.next(now).unwrap()
}

#[test]
fn stamps_follow_the_wall_clock_and_rise_within_a_millisecond() {
    let mut guard = ClockGuard::new(CONFIG, None);
    assert_eq!(stamp(&mut guard, wall(0)), wall(0));
    assert_eq!(stamp(&mut guard, wall(0)), wall(0).next());
    assert_eq!(stamp(&mut guard, wall(7)), wall(7));
    assert_eq!(guard.last(), wall(7));
}

#[test]
fn a_wall_clock_that_goes_back_a_little_does_not_take_stamps_back() {
    let mut guard = ClockGuard::new(CONFIG, None);
    assert_eq!(stamp(&mut guard, wall(100)), wall(100));
    assert_eq!(stamp(&mut guard, wall(60)), wall(100).next());
}

#[test]
fn only_the_milliseconds_of_the_wall_clock_count() {
    let mut guard = ClockGuard::new(CONFIG, None);
    let within = Timestamp::from_raw(wall(5).raw() + 77);
    assert_eq!(stamp(&mut guard, within), wall(5));
}

#[test]
fn nothing_is_stamped_before_a_bound_is_durable() {
    let mut guard = ClockGuard::new(CONFIG, None);
    assert_eq!(guard.next(wall(0)), Err(ClockError::WaitForBound { bound: wall(0), wait_ms: 0 }));
    let bound = guard.bound_wanted(wall(0)).unwrap();
    assert_eq!(bound, wall(SKEW_MS / 2));
    assert!(guard.next(wall(0)).is_err(), "wanted is not yet durable");
    guard.bound_persisted(bound);
    assert_eq!(guard.next(wall(0)), Ok(wall(0)));
    assert_eq!(guard.next(wall(250)), Ok(wall(250)));
    let last_within = guard.next(wall(250)); // the bound itself was the last one
    assert_eq!(last_within, Err(ClockError::WaitForBound { bound: wall(251), wait_ms: 0 }));
}

#[test]
fn the_bound_is_renewed_ahead_of_need_and_not_at_each_stamp() {
    let mut guard = ClockGuard::new(CONFIG, None);
    let mut renewals = 0;
    for ms in 0..1000 {
        if let Some(bound) = guard.bound_wanted(wall(ms)) {
            renewals += 1;
            guard.bound_persisted(bound);
        }
        guard.next(wall(ms)).unwrap();
    }
    assert!((4..=9).contains(&renewals), "{renewals} renewals in a second");
}

#[test]
fn an_idle_hour_costs_one_renewal() {
    let mut guard = ClockGuard::new(CONFIG, None);
    stamp(&mut guard, wall(0));
    let later = wall(3_600_000);
    assert_eq!(guard.next(later), Err(ClockError::WaitForBound { bound: later, wait_ms: 0 }));
    assert_eq!(stamp(&mut guard, later), later);
}

#[test]
fn a_restart_waits_for_its_earlier_life() {
    let mut guard = ClockGuard::new(CONFIG, None);
    persist(&mut guard, wall(0));
    guard.next(wall(0)).unwrap();
    let durable = wall(250);

    let mut reborn = ClockGuard::new(CONFIG, Some(durable));
    assert_eq!(reborn.last(), durable);
    assert_eq!(reborn.next(wall(10)), Err(ClockError::RestartWait { until: durable, wait_ms: 241 }));
    assert_eq!(reborn.next(wall(250)), Err(ClockError::RestartWait { until: durable, wait_ms: 1 }));
    assert_eq!(stamp(&mut reborn, wall(251)), wall(251));
    assert_eq!(stamp(&mut reborn, wall(240)), wall(251).next(), "once it has waited it is an ordinary clock");
}

#[test]
fn a_restart_may_renew_the_bound_while_it_waits() {
    let mut reborn = ClockGuard::new(CONFIG, Some(wall(250)));
    persist(&mut reborn, wall(200));
    assert!(matches!(reborn.next(wall(200)), Err(ClockError::RestartWait { .. })));
    assert_eq!(reborn.next(wall(251)), Ok(wall(251)));
}

#[test]
fn a_full_logical_counter_carries() {
    let mut guard = ClockGuard::new(CONFIG, None);
    persist(&mut guard, wall(0));
    let full = Timestamp::from_raw(wall(1).raw() - 1);
    guard.observe(full);
    assert_eq!(guard.last(), full);
    assert_eq!(guard.next(wall(0)), Ok(wall(1)));
    assert_eq!(guard.next(wall(0)), Ok(wall(1).next()));
}

#[test]
fn a_remote_stamp_with_a_full_counter_does_not_block() {
    let mut guard = ClockGuard::new(CONFIG, None);
    let full = Timestamp::from_raw(wall(201).raw() - 1);
    guard.observe_remote(wall(0), full).unwrap();
    assert_eq!(stamp(&mut guard, wall(0)), wall(201));
}

#[test]
fn a_remote_stamp_within_the_skew_is_merged() {
    let mut guard = ClockGuard::new(CONFIG, None);
    guard.observe_remote(wall(0), wall(200)).unwrap();
    assert_eq!(stamp(&mut guard, wall(0)), wall(200).next());
    guard.observe_remote(wall(0), wall(100)).unwrap();
    assert_eq!(guard.last(), wall(200).next(), "an older one changes nothing");
}

#[test]
fn a_far_future_remote_stamp_neither_merges_nor_blocks() {
    let mut guard = ClockGuard::new(CONFIG, None);
    stamp(&mut guard, wall(0));
    let before = guard.last();
    for remote in [wall(SKEW_MS + 1), Timestamp::from_unix_ms(4_102_444_800_000), Timestamp::MAX] {
        let error = guard.observe_remote(wall(0), remote).unwrap_err();
        assert_eq!(error, ClockError::Skewed { remote, ahead_ms: remote.ms_since(wall(0)) });
        assert_eq!(guard.last(), before);
    }
    assert_eq!(stamp(&mut guard, wall(1)), wall(1));
    guard.observe_remote(wall(1), wall(SKEW_MS + 1)).unwrap();
}

#[test]
fn a_stamp_above_a_remote_one_at_the_limit_waits_half_the_skew() {
    let mut guard = ClockGuard::new(CONFIG, None);
    guard.observe_remote(wall(0), wall(SKEW_MS)).unwrap();
    let error = guard.next(wall(0)).unwrap_err();
    assert_eq!(error, ClockError::WaitForBound { bound: wall(501), wait_ms: 251 });
    assert_eq!(guard.bound_wanted(wall(0)), None, "a bound within the limit would not help");
    assert_eq!(guard.bound_wanted(wall(250)), None);
    assert_eq!(stamp(&mut guard, wall(251)), wall(SKEW_MS).next());
}

#[test]
fn catching_up_with_a_clock_ahead_does_not_sync_at_each_millisecond() {
    let mut guard = ClockGuard::new(CONFIG, None);
    guard.observe_remote(wall(0), wall(SKEW_MS)).unwrap();
    let mut renewals = 0;
    for ms in 251..1251 {
        if let Some(bound) = guard.bound_wanted(wall(ms)) {
            renewals += 1;
            guard.bound_persisted(bound);
        }
        guard.next(wall(ms)).unwrap();
    }
    assert!(renewals <= 16, "{renewals} renewals");
}

#[test]
fn timestamps_beyond_the_range_of_the_generator_refuse_without_a_panic() {
    for absurd in [Timestamp::MAX, Timestamp::from_raw(u64::MAX - 1), CLOCK_END.next(), CLOCK_END.plus_ms(1)] {
        let mut guard = ClockGuard::new(CONFIG, None);
        guard.observe(absurd);
        assert_eq!(guard.last(), absurd);
        persist(&mut guard, wall(0));
        assert!(matches!(guard.next(wall(0)), Err(ClockError::WaitForBound { wait_ms: 1.., .. })));
        let mut reborn = ClockGuard::new(CONFIG, Some(absurd));
        persist(&mut reborn, wall(0));
        assert!(matches!(reborn.next(wall(0)), Err(ClockError::RestartWait { .. })));
    }
    let mut guard = ClockGuard::new(CONFIG, None);
    persist(&mut guard, Timestamp::MAX);
    assert!(guard.next(Timestamp::MAX).is_err());
    guard.bound_persisted(Timestamp::MAX);
    assert!(guard.next(Timestamp::MAX).is_err());
}

#[test]
fn a_leap_of_the_wall_clock_is_caught_before_it_is_stamped() {
    let mut guard = ClockGuard::new(CONFIG, None);
    guard.check_wall(wall(0), 1_000).unwrap();
    stamp(&mut guard, wall(0));
    let year_2100 = Timestamp::from_unix_ms(4_102_444_800_000);
    // Before the next check: the durable bound stands in the way.
    assert!(matches!(guard.next(year_2100), Err(ClockError::WaitForBound { .. })));
    let by_ms = i64::try_from(year_2100.ms_since(wall(10))).unwrap();
    assert_eq!(guard.check_wall(year_2100, 1_010), Err(ClockError::WallClockJumped { by_ms }));
    assert_eq!(guard.bound_wanted(year_2100), None);
    assert_eq!(guard.next(year_2100), Err(ClockError::WallClockJumped { by_ms }));
    // And the visit ends.
    guard.check_wall(wall(20), 1_020).unwrap();
    assert_eq!(stamp(&mut guard, wall(20)), wall(20));
}

#[test]
fn a_wall_clock_set_far_back_is_refused_too() {
    let mut guard = ClockGuard::new(CONFIG, None);
    guard.check_wall(wall(60_000), 0).unwrap();
    assert_eq!(guard.check_wall(wall(0), 100), Err(ClockError::WallClockJumped { by_ms: -60_100 }));
    assert!(guard.next(wall(0)).is_err());
}

#[test]
fn small_corrections_are_absorbed_and_do_not_add_up() {
    let mut guard = ClockGuard::new(CONFIG, None);
    for step in 0..100 {
        let (monotonic_ms, corrected_ms) = (step * 3_600_000, step * 300);
        guard.check_wall(wall(monotonic_ms + corrected_ms), monotonic_ms).unwrap();
    }
    assert!(guard.check_wall(wall(100 * 3_600_000 + 99 * 300 + 501), 100 * 3_600_000).is_err());
}

#[test]
fn most_peers_decide_whether_the_wall_clock_is_believed() {
    let mut guard = ClockGuard::new(CONFIG, None);
    stamp(&mut guard, wall(0));
    assert_eq!(guard.check_peers(&[]), Ok(()));
    assert_eq!(guard.check_peers(&[3, -900, 20]), Ok(()));
    assert_eq!(guard.check_peers(&[900, 3]), Ok(()), "half is not most");
    let verdict = ClockError::PeersDisagree { disagreeing: 2, peers: 3, by_ms: 700 };
    assert_eq!(guard.check_peers(&[900, 3, 700]), Err(verdict));
    assert_eq!((guard.next(wall(1)), guard.bound_wanted(wall(1))), (Err(verdict), None));
    guard.check_peers(&[1, 2, 700]).unwrap();
    assert_eq!(stamp(&mut guard, wall(1)), wall(1));
}

#[test]
fn a_jump_that_most_peers_agree_with_was_a_correction() {
    let mut guard = ClockGuard::new(CONFIG, None);
    guard.check_wall(wall(0), 0).unwrap();
    guard.check_wall(wall(10_000), 10).unwrap_err();
    guard.check_peers(&[]).unwrap();
    assert!(guard.next(wall(10_000)).is_err(), "no peer has said anything");
    guard.check_peers(&[4, -9]).unwrap();
    guard.check_wall(wall(10_001), 11).unwrap();
    assert_eq!(stamp(&mut guard, wall(10_001)), wall(10_001));
}

#[test]
fn a_tiny_skew_still_allows_stamps() {
    for skew_ms_max in [0, 1, 2, 3] {
        let mut guard = ClockGuard::new(ClockConfig { skew_ms_max }, None);
        for ms in 0..20 {
            stamp(&mut guard, wall(ms));
            stamp(&mut guard, wall(ms));
        }
    }
}

/// A step in the life of a node's clock.
#[derive(Debug, Clone)]
enum Act {
    Stamp,
    Persist,
    /// The bound reaches the disk, and the node dies before it learns of it.
    PersistAndCrash,
    Crash,
    WallForward(u64),
    WallBack(u64),
    Observe(u64),
    Remote {
        ahead_ms: u64,
        logical: u32,
    },
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => Just(Act::Stamp),
        4 => Just(Act::Persist),
        1 => Just(Act::PersistAndCrash),
        1 => Just(Act::Crash),
        4 => (0..400u64).prop_map(Act::WallForward),
        1 => (0..400u64).prop_map(Act::WallBack),
        1 => (0..1u64 << 30).prop_map(Act::Observe),
        2 => (0..2_000u64, prop_oneof![Just(0), Just(LOGICAL_MAX), 0..=LOGICAL_MAX])
            .prop_map(|(ahead_ms, logical)| Act::Remote { ahead_ms, logical }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn stamps_rise_within_durable_bounds_through_any_life(
        skew_ms_max in prop_oneof![Just(SKEW_MS), 0..50u64],
        acts in prop::collection::vec(any_act(), 1..200),
    ) {
        let config = ClockConfig { skew_ms_max };
        let mut guard = ClockGuard::new(config, None);
        let mut durable = None;
        let mut now_ms = 1_000_000;
        let mut given = Timestamp::ZERO;
        for act in acts {
            match act {
                Act::Stamp => {
                    let last = guard.last();
                    match guard.next(wall(now_ms)) {
                        Ok(stamp) => {
                            prop_assert!(stamp > given, "{stamp} after {given}");
                            prop_assert!(stamp > last && Some(stamp) <= durable);
                            prop_assert_eq!(guard.last(), stamp);
                            given = stamp;
                        }
                        Err(error) => {
                            prop_assert_eq!(guard.last(), last, "a refusal changes nothing: {}", error);
                            if let ClockError::WaitForBound { bound, wait_ms } = error {
                                let wanted = guard.bound_wanted(wall(now_ms));
                                prop_assert_eq!(wanted.is_some(), wait_ms == 0);
                                prop_assert!(wanted.is_none_or(|wanted| wanted >= bound));
                                let later = guard.bound_wanted(wall(now_ms + wait_ms));
                                prop_assert!(later.is_some_and(|later| later >= bound), "waited in vain");
                            }
                        }
                    }
                }
                Act::Persist | Act::PersistAndCrash => {
                    if let Some(bound) = guard.bound_wanted(wall(now_ms)) {
                        prop_assert!(Some(bound) > durable);
                        prop_assert!(bound.ms_since(wall(now_ms)) <= (skew_ms_max / 2).max(1));
                        durable = Some(bound);
                        if matches!(act, Act::Persist) {
                            guard.bound_persisted(bound);
                        } else {
                            guard = ClockGuard::new(config, durable);
                        }
                    }
                }
                Act::Crash => guard = ClockGuard::new(config, durable),
                Act::WallForward(ms) => now_ms += ms,
                Act::WallBack(ms) => now_ms -= ms,
                Act::Observe(raw) => {
                    let seen = Timestamp::from_raw(wall(now_ms).raw() + raw);
                    guard.observe(seen);
                    prop_assert!(guard.last() >= seen);
                }
                Act::Remote { ahead_ms, logical } => {
                    let remote = Timestamp::from_raw(wall(now_ms + ahead_ms).raw() + u64::from(logical));
                    let last = guard.last();
                    let merged = guard.observe_remote(wall(now_ms), remote);
                    prop_assert_eq!(merged.is_ok(), ahead_ms <= skew_ms_max);
                    let expected = if merged.is_ok() { last.max(remote) } else { last };
                    prop_assert_eq!(guard.last(), expected);
                }
            }
        }
    }

    /// With a wall clock that does not go back, no restart waits longer than half the skew and a millisecond.
    #[test]
    fn a_restart_waits_at_most_half_the_skew(idle_ms in 0..600u64, stamps in 1..50u64, down_ms in 0..400u64) {
        let mut guard = ClockGuard::new(CONFIG, None);
        let mut durable = None;
        let mut now_ms = 0;
        let mut given = Timestamp::ZERO;
        for n in 0..stamps {
            now_ms += if n == stamps / 2 { idle_ms } else { n % 40 };
            if let Some(bound) = guard.bound_wanted(wall(now_ms)) {
                durable = Some(bound);
                guard.bound_persisted(bound);
            }
            given = guard.next(wall(now_ms)).unwrap();
        }
        now_ms += down_ms;
        let mut reborn = ClockGuard::new(CONFIG, durable);
        let waited_ms = match reborn.next(wall(now_ms)) {
            Err(ClockError::RestartWait { wait_ms, .. }) => wait_ms,
            _ => 0,
        };
        prop_assert!(waited_ms <= SKEW_MS / 2 + 1, "{waited_ms} ms");
        persist(&mut reborn, wall(now_ms + waited_ms));
        prop_assert!(reborn.next(wall(now_ms + waited_ms)).unwrap() > given);
    }
}
