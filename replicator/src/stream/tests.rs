//! Tests of `stream`.

use bytes::Bytes;
use meridian_types::{DatacenterId, EntryHash, Incarnation, LogPosition, Sequence, Stamp, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::{CursorVector, LogEntry, LogHead};

fn origin() -> DatacenterId {
    DatacenterId::new(1).unwrap()
}

/// Entry `sequence` of the origin's log, stamped ten times its number.
fn entry(sequence: u64) -> Bytes {
    let entry = LogEntry {
        stamp: Stamp::new(Timestamp::from_raw(sequence * 10), origin()),
        incarnation: Incarnation(1),
        sequence: Sequence(sequence),
        cursors: CursorVector::new(),
        mutation: Bytes::from_static(b"m"),
    };
    Bytes::from(entry.encode())
}

/// The cursor behind the first `count` entries.
fn cursor(count: u64) -> Cursor {
    if count == 0 {
        return Cursor::start(origin());
    }
    let hash = (1..=count).fold(EntryHash::START, |hash, sequence| hash.chain(&entry(sequence)));
    let position = LogPosition { origin: origin(), incarnation: Incarnation(1), sequence: Sequence(count), hash };
    Cursor { position, applied_through: Timestamp::from_raw(count * 10) }
}

/// Entries `after + 1 ..= through` of a log that ends at `through`.
fn batch(after: u64, through: u64) -> Batch {
    let head = LogHead { position: cursor(through).position, closed: cursor(through).applied_through };
    Batch::new(origin(), cursor(after).position, (after + 1..=through).map(entry).collect(), &head).unwrap()
}

fn step(stream: &mut Stream, now_ms: u64, event: Event) -> Vec<Effect> {
    let mut effects = vec![];
    stream.step(now_ms, event, &mut effects);
    effects
}

/// A stream that pulls behind `count` entries.
fn pulling(count: u64) -> Stream {
    let mut stream = Stream::new();
    step(&mut stream, 0, Event::Started { cursor: cursor(count) });
    stream
}

/// A stream that applies entries `count + 1 ..= through` as its first proposal, and pulls behind them.
fn applying(count: u64, through: u64) -> Stream {
    let mut stream = pulling(count);
    let effects = step(&mut stream, 0, Event::Pulled(batch(count, through)));
    assert_eq!(effects, [propose(0, count, through), pull(through), Effect::Report(StreamState::Applying)]);
    stream
}

fn propose(number: u64, after: u64, through: u64) -> Effect {
    Effect::Propose { number, batch: batch(after, through) }
}

fn applied(number: u64, count: u64) -> Event {
    Event::Applied { number, cursor: cursor(count) }
}

fn pull(count: u64) -> Effect {
    Effect::Pull { cursor: cursor(count) }
}

fn failed(reason: &str) -> Event {
    Event::PullFailed { reason: reason.to_owned() }
}

#[test]
fn a_stream_pulls_on_while_it_applies() {
    let mut stream = Stream::new();
    assert_eq!((stream.state(), stream.cursor()), (&StreamState::Stopped, None));
    let effects = step(&mut stream, 0, Event::Started { cursor: cursor(0) });
    assert_eq!(effects, [pull(0), Effect::Report(StreamState::Pulling)]);
    let effects = step(&mut stream, 1, Event::Pulled(batch(0, 3)));
    assert_eq!(effects, [propose(0, 0, 3), pull(3), Effect::Report(StreamState::Applying)]);
    let effects = step(&mut stream, 2, Event::Pulled(batch(3, 5)));
    assert_eq!(effects, [propose(1, 3, 5), pull(5)]);
    assert_eq!((stream.cursor(), stream.pulling()), (Some(&cursor(0)), Some(&cursor(5))));
    assert_eq!(step(&mut stream, 3, applied(0, 3)), []);
    assert_eq!(stream.cursor(), Some(&cursor(3)));
    assert_eq!(step(&mut stream, 4, applied(1, 5)), [Effect::Report(StreamState::Pulling)]);
    assert_eq!((stream.cursor(), stream.pulling()), (Some(&cursor(5)), Some(&cursor(5))));
}

#[test]
fn what_is_in_flight_is_bounded_in_batches() {
    let mut stream = pulling(0);
    let most = BATCHES_IN_FLIGHT_MAX as u64;
    for count in 0..most {
        let effects = step(&mut stream, 1, Event::Pulled(batch(count, count + 1)));
        assert_eq!(effects[0], propose(count, count, count + 1));
        assert_eq!(effects.contains(&pull(count + 1)), count + 1 < most, "{count}");
    }
    assert_eq!(stream.pulling(), None);
    assert_eq!(step(&mut stream, 2, Event::Pulled(batch(most, most + 1))), [], "nobody has asked");
    assert_eq!(step(&mut stream, 3, applied(0, 1)), [pull(most)]);
}

#[test]
fn what_is_in_flight_is_bounded_in_bytes() {
    let large = |sequence: u64| {
        let entry = LogEntry {
            stamp: Stamp::new(Timestamp::from_raw(sequence * 10), origin()),
            incarnation: Incarnation(1),
            sequence: Sequence(sequence),
            cursors: CursorVector::new(),
            mutation: Bytes::from(vec![0; LOG_BATCH_SIZE_MAX]),
        };
        Bytes::from(entry.encode())
    };
    let mut stream = pulling(0);
    let first = Batch { entries: vec![large(1)], ..batch(0, 0) };
    let reached = check_batch(&cursor(0), &first).unwrap().cursor;
    let effects = step(&mut stream, 1, Event::Pulled(first));
    assert_eq!(effects[1], Effect::Pull { cursor: reached });
    let second = Batch { after: reached.position, entries: vec![large(2)], ..batch(0, 0) };
    let effects = step(&mut stream, 2, Event::Pulled(second));
    assert_eq!(effects.len(), 1, "two are as much as may be in flight: {effects:?}");
    let effects = step(&mut stream, 3, Event::Applied { number: 0, cursor: reached });
    assert!(matches!(effects[..], [Effect::Pull { .. }]), "{effects:?}");
}

#[test]
fn answers_out_of_order_say_the_same() {
    let mut stream = applying(0, 3);
    step(&mut stream, 1, Event::Pulled(batch(3, 5)));
    assert_eq!(step(&mut stream, 2, applied(1, 5)), [Effect::Report(StreamState::Pulling)], "it covers the first");
    assert_eq!(step(&mut stream, 3, applied(0, 3)), []);
    assert_eq!(stream.cursor(), Some(&cursor(5)));
}

#[test]
fn a_batch_refused_in_the_middle_falls_back_to_what_is_committed() {
    let mut stream = applying(0, 3);
    step(&mut stream, 1, Event::Pulled(batch(3, 5)));
    step(&mut stream, 1, Event::Pulled(batch(5, 6)));
    step(&mut stream, 2, applied(0, 3));
    let effects = step(&mut stream, 3, Event::Rejected { number: 1, reason: "unknown version".into() });
    assert_eq!(effects[0], Effect::Retry { after_ms: HELD_RETRY_MS });
    assert_eq!((stream.cursor(), stream.pulling()), (Some(&cursor(3)), None));
    // The one behind it was ignored; the pull of before answers late.
    assert_eq!(step(&mut stream, 4, applied(2, 3)), []);
    assert_eq!(step(&mut stream, 5, Event::Pulled(batch(6, 7))), []);
    let until = 3 + HELD_RETRY_MS;
    assert_eq!(step(&mut stream, until, Event::Tick), [pull(3)]);
    assert_eq!(step(&mut stream, until, Event::Pulled(batch(3, 5))), [propose(3, 3, 5)], "held: one at a time");
    let effects = step(&mut stream, until, applied(3, 5));
    assert_eq!(effects, [pull(5), Effect::Report(StreamState::Pulling)]);
}

#[test]
fn a_failed_proposal_that_was_applied_all_the_same_is_not_pulled_again() {
    let mut stream = applying(0, 3);
    step(&mut stream, 1, Event::Pulled(batch(3, 5)));
    let effects = step(&mut stream, 2, Event::ApplyFailed { number: 0, reason: "its outcome is unknown".into() });
    assert_eq!(effects[0], Effect::Retry { after_ms: BACKOFF_MS_MIN });
    assert_eq!(step(&mut stream, 3, applied(1, 5)), [], "so the first was applied as well");
    assert_eq!(step(&mut stream, 2 + BACKOFF_MS_MIN, Event::Tick), [pull(5)]);
}

#[test]
fn a_source_that_restarts_with_another_history_is_asked_from_the_committed_cursor() {
    let mut stream = applying(0, 3);
    let mut other = batch(3, 5);
    other.after.hash = EntryHash([7; 16]);
    step(&mut stream, 1, Event::Pulled(other));
    assert!(matches!(stream.state(), StreamState::Held { reason: HoldReason::BadEntry(_), .. }), "{stream:?}");
    step(&mut stream, 2, applied(0, 3));
    assert_eq!(step(&mut stream, 1 + HELD_RETRY_MS, Event::Tick), [pull(3)]);

    // It has lost what was pulled ahead and not yet applied here: what it refuses is a place behind the cursor.
    let mut stream = applying(0, 3);
    let effects = step(&mut stream, 1, Event::Refused { reason: "beyond the head".into() });
    assert_eq!(effects[0], Effect::Retry { after_ms: HELD_RETRY_MS });
    assert_eq!(step(&mut stream, 1 + HELD_RETRY_MS, Event::Tick), [pull(0)]);
}

#[test]
fn a_pull_that_fails_leaves_what_is_in_flight_to_its_end() {
    let mut stream = applying(0, 3);
    step(&mut stream, 1, failed("unreachable"));
    step(&mut stream, 2, applied(0, 3));
    assert_eq!(step(&mut stream, 1 + BACKOFF_MS_MIN, Event::Tick), [pull(3)]);
}

#[test]
fn no_news_is_pulled_again_and_a_closed_timestamp_is_applied() {
    let mut stream = pulling(3);
    assert_eq!(step(&mut stream, 5, Event::Pulled(batch(3, 3))), [pull(3)]);
    let closed = Batch { closed: Timestamp::from_raw(99), ..batch(3, 3) };
    let effects = step(&mut stream, 6, Event::Pulled(closed.clone()));
    assert_eq!(effects[0], Effect::Propose { number: 0, batch: closed });
}

#[test]
fn only_the_answer_to_what_is_under_way_counts() {
    let mut stopped = Stream::new();
    let mut pulls = pulling(3);
    for event in [Event::Tick, Event::Pulled(batch(3, 5)), failed("late"), Event::NeedsFullSync, applied(0, 5)] {
        assert_eq!(step(&mut stopped, 1, event.clone()), [], "{event:?}");
    }
    let skewed = Event::Skewed { number: 0, ahead_ms: 9 };
    let rejected = Event::Rejected { number: 0, reason: "late".into() };
    for event in [Event::Tick, applied(0, 3), skewed, rejected] {
        assert_eq!(step(&mut pulls, 1, event.clone()), [], "{event:?}");
    }
}

#[test]
fn lost_leadership_stops_it_until_it_is_started_at_the_committed_cursor() {
    let mut stream = applying(3, 5);
    assert_eq!(step(&mut stream, 1, Event::LeadershipLost), [Effect::Report(StreamState::Stopped)]);
    assert_eq!(stream.cursor(), None);
    assert_eq!(step(&mut stream, 2, applied(0, 5)), [], "the late answer");
    let effects = step(&mut stream, 3, Event::Started { cursor: cursor(4) });
    assert_eq!(effects[0], pull(4));
    let late = Event::Rejected { number: 0, reason: "of another life".into() };
    for event in [applied(0, 9), late] {
        assert_eq!(step(&mut stream, 4, event), []);
    }
    assert_eq!(step(&mut stream, 5, Event::Pulled(batch(4, 6)))[0], propose(1, 4, 6));
}

#[test]
fn failed_pulls_back_off_further_and_further_up_to_a_limit() {
    let mut stream = pulling(3);
    let mut now_ms = 0;
    let mut waits = vec![];
    for attempts in 1..=8 {
        let effects = step(&mut stream, now_ms, failed("unreachable"));
        let Effect::Retry { after_ms } = effects[0] else { panic!("{effects:?}") };
        let shown = StreamState::Backoff { retry_at_ms: now_ms + after_ms, attempts, reason: "unreachable".into() };
        assert_eq!(effects[1..], [Effect::Report(shown)]);
        waits.push(after_ms);
        now_ms += after_ms;
        assert_eq!(step(&mut stream, now_ms, Event::Tick), [pull(3)], "the failure stays shown meanwhile");
    }
    assert_eq!(waits, [100, 200, 400, 800, 1600, 2000, 2000, 2000]);
    let effects = step(&mut stream, now_ms, Event::Pulled(batch(3, 3)));
    assert_eq!(effects, [pull(3), Effect::Report(StreamState::Pulling)]);
    let effects = step(&mut stream, now_ms, failed("again"));
    assert_eq!(effects[0], Effect::Retry { after_ms: 100 }, "it begins anew after a success");
}

#[test]
fn a_tick_that_comes_early_asks_for_the_rest() {
    let mut stream = pulling(3);
    step(&mut stream, 1000, failed("unreachable"));
    assert_eq!(step(&mut stream, 1099, Event::Tick), [Effect::Retry { after_ms: 1 }]);
    assert_eq!(step(&mut stream, 1100, Event::Tick), [pull(3)]);
}

#[test]
fn a_proposal_of_unknown_outcome_is_pulled_and_proposed_again() {
    let mut stream = applying(3, 5);
    let effects = step(&mut stream, 0, Event::ApplyFailed { number: 0, reason: "leader lost".into() });
    assert_eq!(effects[0], Effect::Retry { after_ms: 100 });
    assert_eq!(step(&mut stream, 100, Event::Tick), [pull(3)]);
    assert_eq!(step(&mut stream, 101, Event::Pulled(batch(3, 5))), [propose(1, 3, 5)]);
    // It had been applied after all: `apply` ignores the second one and names its cursor (rule 12).
    let effects = step(&mut stream, 102, applied(1, 5));
    assert_eq!(effects, [pull(5), Effect::Report(StreamState::Pulling)]);
}

#[test]
fn a_batch_that_moves_nothing_does_not_spin() {
    let mut stream = applying(3, 5);
    let effects = step(&mut stream, 0, applied(0, 3));
    assert_eq!(effects[0], Effect::Retry { after_ms: 100 });
    assert!(matches!(stream.state(), StreamState::Backoff { attempts: 1, .. }));
}

#[test]
fn a_skewed_stamp_holds_the_stream_and_says_by_how_much() {
    let mut stream = applying(3, 5);
    let effects = step(&mut stream, 0, Event::Skewed { number: 0, ahead_ms: 700 });
    let reason = HoldReason::Skewed { ahead_ms: 700 };
    let held = StreamState::Held { retry_at_ms: 700, reason };
    assert_eq!(effects, [Effect::Retry { after_ms: 700 }, Effect::Report(held.clone())]);
    assert_eq!(step(&mut stream, 700, Event::Tick), [pull(3)]);
    assert_eq!(step(&mut stream, 701, Event::Pulled(batch(3, 5))), [propose(1, 3, 5)]);
    assert_eq!(stream.state(), &held, "a retry alone hides nothing");
    let effects = step(&mut stream, 702, applied(1, 5));
    assert_eq!(effects[1..], [Effect::Report(StreamState::Pulling)]);
}

#[test]
fn a_clock_a_century_ahead_is_tried_again_all_the_same() {
    let mut stream = applying(3, 5);
    let effects = step(&mut stream, 0, Event::Skewed { number: 0, ahead_ms: u64::MAX });
    assert_eq!(effects[0], Effect::Retry { after_ms: HELD_RETRY_MS });
    let mut stream = applying(3, 5);
    let effects = step(&mut stream, 0, Event::Skewed { number: 0, ahead_ms: 0 });
    assert_eq!(effects[0], Effect::Retry { after_ms: BACKOFF_MS_MIN });
}

#[test]
fn a_gap_holds_the_stream_and_nothing_is_proposed() {
    let mut stream = pulling(3);
    let effects = step(&mut stream, 0, Event::Pulled(batch(4, 6)));
    assert_eq!(effects[0], Effect::Retry { after_ms: HELD_RETRY_MS });
    assert!(matches!(stream.state(), StreamState::Held { reason: HoldReason::Gap(_), .. }), "{stream:?}");

    let mut stream = pulling(3);
    let mut with_hole = batch(3, 6);
    with_hole.entries.remove(1);
    step(&mut stream, 0, Event::Pulled(with_hole));
    assert!(matches!(stream.state(), StreamState::Held { reason: HoldReason::Gap(_), .. }), "{stream:?}");
}

#[test]
fn a_late_answer_to_an_older_pull_is_asked_for_again() {
    let mut stream = pulling(3);
    let effects = step(&mut stream, 0, Event::Pulled(batch(1, 3)));
    assert_eq!(effects[0], Effect::Retry { after_ms: BACKOFF_MS_MIN });
    assert_eq!(step(&mut stream, 100, Event::Tick), [pull(3)]);
}

#[test]
fn a_damaged_entry_and_another_history_hold_the_stream() {
    let mut damaged = batch(3, 5);
    damaged.entries[1] = Bytes::from_static(b"\x02\x01nonsense");
    let mut other_history = batch(3, 5);
    other_history.after.hash = EntryHash([1; 16]);
    for bad in [damaged, other_history] {
        let mut stream = pulling(3);
        let effects = step(&mut stream, 0, Event::Pulled(bad));
        assert_eq!(effects[0], Effect::Retry { after_ms: HELD_RETRY_MS });
        assert!(matches!(stream.state(), StreamState::Held { reason: HoldReason::BadEntry(_), .. }), "{stream:?}");
        step(&mut stream, HELD_RETRY_MS, Event::Tick);
        let effects = step(&mut stream, HELD_RETRY_MS, Event::Pulled(batch(3, 5)));
        assert_eq!(effects, [propose(0, 3, 5)], "healed at the source");
    }
}

#[test]
fn what_apply_or_the_source_refuses_is_held_with_its_reason() {
    let mut stream = applying(3, 5);
    step(&mut stream, 0, Event::Rejected { number: 0, reason: "unknown version".into() });
    let reason = HoldReason::BadEntry("unknown version".into());
    assert_eq!(stream.state(), &StreamState::Held { retry_at_ms: HELD_RETRY_MS, reason });
    for (event, reason) in [
        (Event::Refused { reason: "beyond the head".into() }, HoldReason::Refused("beyond the head".into())),
        (Event::NeedsFullSync, HoldReason::NeedsFullSync),
    ] {
        let mut stream = pulling(3);
        step(&mut stream, 0, event);
        assert_eq!(stream.state(), &StreamState::Held { retry_at_ms: HELD_RETRY_MS, reason });
    }
}

#[test]
fn a_link_that_fails_does_not_hide_what_holds_the_stream() {
    let mut stream = pulling(3);
    step(&mut stream, 0, Event::NeedsFullSync);
    step(&mut stream, 5_000, Event::Tick);
    step(&mut stream, 5_001, failed("unreachable"));
    assert_eq!(stream.state(), &StreamState::Held { retry_at_ms: 10_001, reason: HoldReason::NeedsFullSync });
}

/// What the test's shell does to the next effect.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Works,
    Fails,
    /// Applied, but the answer is lost.
    AnswerLost,
    Restart,
    Refuse,
}

proptest! {
    /// Through failures, lost answers, batches that overtake each other and restarts: every entry is applied once, in
    /// order, and the stream ends at the head once nothing fails any more; what is under way stays bounded.
    #[test]
    fn every_entry_is_applied_once_and_in_order(
        fates in prop::collection::vec(
            (
                prop_oneof![
                    6 => Just(Fate::Works), 1 => Just(Fate::Fails), 1 => Just(Fate::AnswerLost),
                    1 => Just(Fate::Restart), 1 => Just(Fate::Refuse)
                ],
                0..8usize,
            ),
            0..80,
        ),
        batch_length in 1..4u64,
    ) {
        const HEAD: u64 = 24;
        let mut stream = Stream::new();
        let mut committed = cursor(0);
        let mut applied: Vec<u64> = vec![];
        let mut now_ms = 0;
        let mut fates = fates.into_iter();
        let mut under_way = step(&mut stream, now_ms, Event::Started { cursor: committed });
        for _ in 0..2000 {
            under_way.retain(|effect| !matches!(effect, Effect::Report(_)));
            let count = |is: fn(&Effect) -> bool| under_way.iter().filter(|effect| is(effect)).count();
            prop_assert!(count(|effect| matches!(effect, Effect::Pull { .. })) <= 1, "{:?}", under_way);
            if committed.position.sequence.0 == HEAD && fates.len() == 0 {
                break;
            }
            prop_assert!(!under_way.is_empty(), "nothing would ever move it again: {stream:?}");
            let (fate, which) = fates.next().unwrap_or((Fate::Works, 0));
            let event = match (under_way.remove(which % under_way.len()), fate) {
                (_, Fate::Restart) => {
                    // What was under way ends in answers to nobody; some of it may still be applied.
                    under_way.clear();
                    step(&mut stream, now_ms, Event::LeadershipLost);
                    Event::Started { cursor: committed }
                }
                (Effect::Pull { .. }, Fate::Fails | Fate::AnswerLost) => failed("unreachable"),
                (Effect::Pull { .. }, Fate::Refuse) => Event::Refused { reason: "not today".into() },
                (Effect::Pull { cursor }, Fate::Works) => {
                    let after = cursor.position.sequence.0;
                    Event::Pulled(batch(after, (after + batch_length).min(HEAD)))
                }
                (Effect::Propose { number, .. }, Fate::Fails) => {
                    Event::ApplyFailed { number, reason: "no leader".into() }
                }
                (Effect::Propose { number, .. }, Fate::Refuse) => Event::Skewed { number, ahead_ms: 600 },
                (Effect::Propose { number, batch }, fate) => {
                    if let Ok(checked) = check_batch(&committed, &batch) {
                        applied.extend(checked.entries.iter().map(|(entry, ..)| entry.sequence.0));
                        committed = checked.cursor;
                    }
                    match fate {
                        Fate::AnswerLost => Event::ApplyFailed { number, reason: "answer lost".into() },
                        _ => Event::Applied { number, cursor: committed },
                    }
                }
                (Effect::Retry { after_ms }, _) => {
                    now_ms += after_ms;
                    Event::Tick
                }
                (Effect::Report(_), _) => unreachable!("filtered above"),
            };
            let effects = step(&mut stream, now_ms, event);
            if effects.iter().any(|effect| matches!(effect, Effect::Retry { .. })) {
                under_way.retain(|effect| !matches!(effect, Effect::Pull { .. })); // its answer is nobody's now
            }
            under_way.extend(effects);
        }
        prop_assert_eq!(applied, (1..=HEAD).collect::<Vec<_>>());
    }
}
