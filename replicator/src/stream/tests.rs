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

/// A stream that applies entries `count + 1 ..= through`.
fn applying(count: u64, through: u64) -> Stream {
    let mut stream = pulling(count);
    step(&mut stream, 0, Event::Pulled(batch(count, through)));
    assert_eq!(stream.state(), &StreamState::Applying);
    stream
}

fn pull(count: u64) -> Effect {
    Effect::Pull { cursor: cursor(count) }
}

fn failed(reason: &str) -> Event {
    Event::PullFailed { reason: reason.to_owned() }
}

#[test]
fn a_stream_pulls_applies_and_pulls_again() {
    let mut stream = Stream::new();
    assert_eq!((stream.state(), stream.cursor()), (&StreamState::Stopped, None));
    let effects = step(&mut stream, 0, Event::Started { cursor: cursor(0) });
    assert_eq!(effects, [pull(0), Effect::Report(StreamState::Pulling)]);
    let effects = step(&mut stream, 1, Event::Pulled(batch(0, 3)));
    assert_eq!(effects, [Effect::Propose(batch(0, 3)), Effect::Report(StreamState::Applying)]);
    let effects = step(&mut stream, 2, Event::Applied { cursor: cursor(3) });
    assert_eq!(effects, [pull(3), Effect::Report(StreamState::Pulling)]);
    assert_eq!(stream.cursor(), Some(&cursor(3)));
}

#[test]
fn no_news_is_pulled_again_and_a_closed_timestamp_is_applied() {
    let mut stream = pulling(3);
    assert_eq!(step(&mut stream, 5, Event::Pulled(batch(3, 3))), [pull(3)]);
    let closed = Batch { closed: Timestamp::from_raw(99), ..batch(3, 3) };
    let effects = step(&mut stream, 6, Event::Pulled(closed.clone()));
    assert_eq!(effects[0], Effect::Propose(closed));
}

#[test]
fn only_the_answer_to_what_is_under_way_counts() {
    let mut stopped = Stream::new();
    let mut pulls = pulling(3);
    let mut applies = applying(3, 5);
    for event in [Event::Tick, Event::Pulled(batch(3, 5)), failed("late"), Event::NeedsFullSync] {
        assert_eq!(step(&mut stopped, 1, event.clone()), [], "{event:?}");
        assert_eq!(step(&mut applies, 1, event.clone()), [], "{event:?}");
    }
    for event in [Event::Tick, Event::Applied { cursor: cursor(9) }, Event::Skewed { ahead_ms: 9 }] {
        assert_eq!(step(&mut stopped, 1, event.clone()), [], "{event:?}");
        assert_eq!(step(&mut pulls, 1, event.clone()), [], "{event:?}");
    }
}

#[test]
fn lost_leadership_stops_it_until_it_is_started_at_the_committed_cursor() {
    let mut stream = applying(3, 5);
    assert_eq!(step(&mut stream, 1, Event::LeadershipLost), [Effect::Report(StreamState::Stopped)]);
    assert_eq!(stream.cursor(), None);
    assert_eq!(step(&mut stream, 2, Event::Applied { cursor: cursor(5) }), [], "the late answer");
    let effects = step(&mut stream, 3, Event::Started { cursor: cursor(4) });
    assert_eq!(effects[0], pull(4));
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
    let effects = step(&mut stream, 0, Event::ApplyFailed { reason: "leader lost".into() });
    assert_eq!(effects[0], Effect::Retry { after_ms: 100 });
    assert_eq!(step(&mut stream, 100, Event::Tick), [pull(3)]);
    assert_eq!(step(&mut stream, 101, Event::Pulled(batch(3, 5))), [Effect::Propose(batch(3, 5))]);
    // It had been applied after all: `apply` ignores the second one and names its cursor (rule 12).
    let effects = step(&mut stream, 102, Event::Applied { cursor: cursor(5) });
    assert_eq!(effects, [pull(5), Effect::Report(StreamState::Pulling)]);
}

#[test]
fn a_batch_that_moves_nothing_does_not_spin() {
    let mut stream = applying(3, 5);
    let effects = step(&mut stream, 0, Event::Applied { cursor: cursor(3) });
    assert_eq!(effects[0], Effect::Retry { after_ms: 100 });
    assert!(matches!(stream.state(), StreamState::Backoff { attempts: 1, .. }));
}

#[test]
fn a_skewed_stamp_holds_the_stream_and_says_by_how_much() {
    let mut stream = applying(3, 5);
    let effects = step(&mut stream, 0, Event::Skewed { ahead_ms: 700 });
    let reason = HoldReason::Skewed { ahead_ms: 700 };
    let held = StreamState::Held { retry_at_ms: 700, reason };
    assert_eq!(effects, [Effect::Retry { after_ms: 700 }, Effect::Report(held.clone())]);
    assert_eq!(step(&mut stream, 700, Event::Tick), [pull(3)]);
    assert_eq!(step(&mut stream, 701, Event::Pulled(batch(3, 5))), [Effect::Propose(batch(3, 5))]);
    assert_eq!(stream.state(), &held, "a retry alone hides nothing");
    let effects = step(&mut stream, 702, Event::Applied { cursor: cursor(5) });
    assert_eq!(effects[1..], [Effect::Report(StreamState::Pulling)]);
}

#[test]
fn a_clock_a_century_ahead_is_tried_again_all_the_same() {
    let mut stream = applying(3, 5);
    let effects = step(&mut stream, 0, Event::Skewed { ahead_ms: u64::MAX });
    assert_eq!(effects[0], Effect::Retry { after_ms: HELD_RETRY_MS });
    let mut stream = applying(3, 5);
    let effects = step(&mut stream, 0, Event::Skewed { ahead_ms: 0 });
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
        assert_eq!(effects, [Effect::Propose(batch(3, 5))], "healed at the source");
    }
}

#[test]
fn what_apply_or_the_source_refuses_is_held_with_its_reason() {
    let mut stream = applying(3, 5);
    step(&mut stream, 0, Event::Rejected { reason: "unknown version".into() });
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
    /// Through failures, lost answers and restarts: every entry is applied once, in order, and the stream ends at
    /// the head once nothing fails any more; at no time are two calls under way.
    #[test]
    fn every_entry_is_applied_once_and_in_order(
        fates in prop::collection::vec(
            prop_oneof![
                4 => Just(Fate::Works), 1 => Just(Fate::Fails), 1 => Just(Fate::AnswerLost),
                1 => Just(Fate::Restart), 1 => Just(Fate::Refuse)
            ],
            0..60,
        ),
        batch_length in 1..4u64,
    ) {
        const HEAD: u64 = 12;
        let mut stream = Stream::new();
        let mut committed = cursor(0);
        let mut applied: Vec<u64> = vec![];
        let mut now_ms = 0;
        let mut fates = fates.into_iter();
        let mut effects = step(&mut stream, now_ms, Event::Started { cursor: committed });
        for _ in 0..500 {
            let calls: Vec<_> = effects.drain(..).filter(|effect| !matches!(effect, Effect::Report(_))).collect();
            prop_assert_eq!(calls.len(), 1, "exactly one call or timer is under way: {:?}", calls);
            if committed.position.sequence.0 == HEAD && fates.len() == 0 {
                break;
            }
            let event = match (calls.into_iter().next().unwrap(), fates.next().unwrap_or(Fate::Works)) {
                (_, Fate::Restart) => {
                    effects.extend(step(&mut stream, now_ms, Event::LeadershipLost));
                    Event::Started { cursor: committed }
                }
                (Effect::Pull { .. }, Fate::Fails | Fate::AnswerLost) => failed("unreachable"),
                (Effect::Pull { .. }, Fate::Refuse) => Event::Refused { reason: "not today".into() },
                (Effect::Pull { cursor }, Fate::Works) => {
                    let after = cursor.position.sequence.0;
                    Event::Pulled(batch(after, (after + batch_length).min(HEAD)))
                }
                (Effect::Propose(_), Fate::Fails) => Event::ApplyFailed { reason: "no leader".into() },
                (Effect::Propose(_), Fate::Refuse) => Event::Skewed { ahead_ms: 600 },
                (Effect::Propose(batch), fate) => {
                    if let Ok(checked) = check_batch(&committed, &batch) {
                        applied.extend(checked.entries.iter().map(|(entry, ..)| entry.sequence.0));
                        committed = checked.cursor;
                    }
                    match fate {
                        Fate::AnswerLost => Event::ApplyFailed { reason: "answer lost".into() },
                        _ => Event::Applied { cursor: committed },
                    }
                }
                (Effect::Retry { after_ms }, _) => {
                    now_ms += after_ms;
                    Event::Tick
                }
                (Effect::Report(_), _) => unreachable!("filtered above"),
            };
            effects.extend(step(&mut stream, now_ms, event));
        }
        prop_assert_eq!(applied, (1..=HEAD).collect::<Vec<_>>());
    }
}
