//! One metadata stream as a state machine: the log of one origin, pulled from a source, applied to one partition.
//!
//! The shell feeds events to `step` and performs the effects: it pulls, proposes, sets timers, shows the state. It
//! gives every call a deadline, so each `Pull` and each `Propose` ends in exactly one event; pacing of idle pulls
//! is the source's (it answers late when it has no news). No clock is read here and nothing is applied.
//!
//! The stream pulls ahead of the apply: the next pull goes out behind what has been *received*, while earlier batches
//! are still being proposed, so that a write does not wait for the commit of the one before it.
//!
//! ```text
//!   Stopped ─ Started ─▶ Running: one pull, and up to BATCHES_IN_FLIGHT_MAX proposals, oldest first
//!                          ▲ │ a pull failed or was refused; a proposal failed, was refused, was ignored
//!                          │ ▼
//!                          └─ Tick ─ Waiting (Backoff, or Held when time alone may not heal it)
//! ```
//!
//! Invariants:
//! - At most one pull is under way, and a bounded number of proposals; each proposal has a number that is never used
//!   twice, so an answer of before a fall back or an election moves nothing but what is known to be committed.
//! - A batch is proposed only if it follows everything proposed before it (`check_batch`); `apply` ignores it unless it
//!   follows what is applied (rule 12). After any failure the stream falls back to the committed cursor.
//! - While something is wrong nothing is pulled ahead: a held stream tries one batch at a time.
//! - What went wrong stays shown, with its reason, until the stream has made progress: a retry alone hides nothing.

use std::collections::VecDeque;

use meridian_types::limits::LOG_BATCH_SIZE_MAX;

use crate::{Batch, BatchError, Cursor, OriginCursor, check_batch};

/// The first wait after a failure; each further one doubles it.
const BACKOFF_MS_MIN: u64 = 100;
/// The longest wait between retries, so that a healed link is found within that time.
const BACKOFF_MS_MAX: u64 = 2_000;
/// How often a held stream is tried again: what holds it needs a person or a full sync.
const HELD_RETRY_MS: u64 = 5_000;

/// Batches that are proposed and not yet answered. At a round trip of 100 ms and a commit of 20 ms more would only wait.
pub const BATCHES_IN_FLIGHT_MAX: usize = 6;
/// Nothing more is pulled while so many bytes of entries are proposed and not yet answered.
pub const BYTES_IN_FLIGHT_MAX: usize = 2 * LOG_BATCH_SIZE_MAX;

/// What has happened to a stream. `number` is that of the `Effect::Propose` that is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// This node leads the partition; `cursor` is its committed cursor for the origin.
    Started {
        cursor: Cursor,
    },
    /// The answer to the last `Effect::Pull`; an empty batch when there is no news.
    Pulled(Batch),
    /// The source refused the cursor (rule 7).
    Refused {
        reason: String,
    },
    /// The source no longer keeps what follows the cursor.
    NeedsFullSync,
    /// The pull failed or its deadline passed.
    PullFailed {
        reason: String,
    },
    /// The proposed batch is applied, or was ignored because it is not the next; the cursor as it is now.
    Applied {
        number: u64,
        cursor: Cursor,
    },
    /// `apply` refused the batch.
    Rejected {
        number: u64,
        reason: String,
    },
    /// A stamp of the batch is too far ahead of this clock: it was not proposed (rule 10).
    Skewed {
        number: u64,
        ahead_ms: u64,
    },
    /// The proposal failed or its outcome is unknown.
    ApplyFailed {
        number: u64,
        reason: String,
    },
    /// Time has passed: the wait asked for with `Effect::Retry` is over.
    Tick,
    LeadershipLost,
}

/// What the shell shall do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Ask the source for what follows the cursor, which may be ahead of what is applied.
    Pull { cursor: Cursor },
    /// Propose the batch to the partition's raft group, after all that were to be proposed before it.
    Propose { number: u64, batch: Batch },
    /// Send `Event::Tick` after so long.
    Retry { after_ms: u64 },
    /// The state has changed: show it.
    Report(StreamState),
}

/// Where a stream stands, as status shows it. Times are of the monotonic clock that `step` is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamState {
    /// Not led by this node.
    Stopped,
    Pulling,
    Applying,
    /// Failing in a way that time may heal; `attempts` in a row. Tried again at `retry_at_ms`, or just now.
    Backoff {
        retry_at_ms: u64,
        attempts: u32,
        reason: String,
    },
    /// Stopped at an entry that can't be applied (rule 12). Tried again at `retry_at_ms`, or just now.
    Held {
        retry_at_ms: u64,
        reason: HoldReason,
    },
}

/// Why a stream is held.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HoldReason {
    #[error("the origin's clock is {ahead_ms} ms ahead")]
    Skewed { ahead_ms: u64 },
    #[error("the source sent a batch beyond a gap: {0}")]
    Gap(String),
    #[error("an entry can't be applied: {0}")]
    BadEntry(String),
    #[error("the source refused the cursor: {0}")]
    Refused(String),
    #[error("the source's log no longer reaches back to the cursor: full sync needed")]
    NeedsFullSync,
}

/// One stream.
#[derive(Debug)]
pub struct Stream {
    phase: Phase,
    trouble: Option<Trouble>,
    shown: StreamState,
    /// Of the next proposal.
    next_number: u64,
    /// Of the first proposal since the last start: answers to older ones are of another life.
    first_number: u64,
    /// The furthest place that was ever received: an answer from up to there may only be late.
    furthest: OriginCursor,
}

/// What is under way.
#[derive(Debug)]
enum Phase {
    Stopped,
    Running(Pipeline),
    /// `cursor` is what is known to be committed.
    Waiting {
        cursor: Cursor,
        until_ms: u64,
    },
}

/// A stream at work.
#[derive(Debug)]
struct Pipeline {
    /// What is known to be applied.
    committed: Cursor,
    /// Behind everything that was received: where the next batch has to follow.
    received: Cursor,
    /// A pull behind `received` is under way.
    pulling: bool,
    /// Oldest first.
    in_flight: VecDeque<Flight>,
}

/// A batch whose proposal is not yet answered.
#[derive(Debug)]
struct Flight {
    number: u64,
    /// The cursor once it is applied.
    reached: Cursor,
    bytes: usize,
}

/// What went wrong since the last progress.
#[derive(Debug, Clone)]
enum Trouble {
    Failing { retry_at_ms: u64, attempts: u32, reason: String },
    Held { retry_at_ms: u64, reason: HoldReason },
}

impl Stream {
    pub fn new() -> Self {
        Self {
            phase: Phase::Stopped,
            trouble: None,
            shown: StreamState::Stopped,
            next_number: 0,
            first_number: 0,
            furthest: OriginCursor::ZERO,
        }
    }

    /// Takes one event; `now_ms` is a monotonic clock's reading. Effects are appended in the order to perform them.
    /// An event that answers nothing under way (a late reply) moves at most what is known to be committed.
    pub fn step(&mut self, now_ms: u64, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Started { cursor } => {
                self.trouble = None;
                self.first_number = self.next_number;
                self.pull(cursor, effects);
            }
            Event::LeadershipLost => {
                self.trouble = None;
                self.phase = Phase::Stopped;
            }
            event => match &mut self.phase {
                Phase::Stopped => {}
                Phase::Running(pipeline) => match event {
                    Event::Pulled(batch) if pipeline.pulling => self.take_batch(now_ms, batch, effects),
                    Event::PullFailed { reason } if pipeline.pulling => self.fail_pull(now_ms, reason, effects),
                    Event::Refused { reason } if pipeline.pulling => {
                        self.hold(now_ms, HoldReason::Refused(reason), effects);
                    }
                    Event::NeedsFullSync if pipeline.pulling => self.hold(now_ms, HoldReason::NeedsFullSync, effects),
                    Event::Applied { number, cursor } => self.take_applied(now_ms, number, cursor, effects),
                    Event::ApplyFailed { number, reason } if pipeline.is_in_flight(number) => {
                        self.back_off(now_ms, reason, effects);
                    }
                    Event::Rejected { number, reason } if pipeline.is_in_flight(number) => {
                        self.hold(now_ms, HoldReason::BadEntry(reason), effects);
                    }
                    Event::Skewed { number, ahead_ms } if pipeline.is_in_flight(number) => {
                        self.hold(now_ms, HoldReason::Skewed { ahead_ms }, effects);
                    }
                    _ => {}
                },
                Phase::Waiting { cursor, until_ms } => match event {
                    Event::Tick if now_ms >= *until_ms => {
                        let cursor = *cursor;
                        self.pull(cursor, effects);
                    }
                    // A timer of an earlier wait, or one that fired early: ask for the rest, else the stream may sleep on.
                    Event::Tick => effects.push(Effect::Retry { after_ms: *until_ms - now_ms }),
                    // What was in flight when the stream fell back may have been applied all the same.
                    Event::Applied { number, cursor: now_at } if number >= self.first_number => {
                        raise(cursor, now_at);
                    }
                    _ => {}
                },
            },
        }
        self.report(effects);
    }

    pub fn state(&self) -> &StreamState {
        &self.shown
    }

    /// The cursor of the pull that the stream waits for. What `state` shows may be an older trouble.
    pub fn pulling(&self) -> Option<&Cursor> {
        match &self.phase {
            Phase::Running(pipeline) if pipeline.pulling => Some(&pipeline.received),
            _ => None,
        }
    }

    /// The cursor that is known to be committed, `None` while stopped.
    pub fn cursor(&self) -> Option<&Cursor> {
        match &self.phase {
            Phase::Stopped => None,
            Phase::Running(pipeline) => Some(&pipeline.committed),
            Phase::Waiting { cursor, .. } => Some(cursor),
        }
    }

    fn take_batch(&mut self, now_ms: u64, batch: Batch, effects: &mut Vec<Effect>) {
        let Phase::Running(pipeline) = &mut self.phase else { return };
        pipeline.pulling = false;
        match check_batch(&pipeline.received, &batch) {
            Ok(checked) if checked.cursor == pipeline.received => {
                if pipeline.in_flight.is_empty() {
                    self.trouble = None; // what was applied before still has to say so
                }
                self.pull_ahead(effects);
            }
            Ok(checked) => {
                let number = self.next_number;
                self.next_number += 1;
                pipeline.received = checked.cursor;
                let bytes = batch.size_bytes();
                pipeline.in_flight.push_back(Flight { number, reached: checked.cursor, bytes });
                self.furthest = self.furthest.max(OriginCursor::from(checked.cursor.position));
                effects.push(Effect::Propose { number, batch });
                self.pull_ahead(effects);
            }
            // The answer to an older pull: of before the stream was stopped, or fell back. Ask again.
            Err(error @ BatchError::NotNext { expected, found, .. }) if found < expected || found <= self.furthest => {
                self.back_off(now_ms, error.to_string(), effects);
            }
            Err(error @ (BatchError::NotNext { .. } | BatchError::Gap { .. })) => {
                self.hold(now_ms, HoldReason::Gap(error.to_string()), effects);
            }
            Err(error) => self.hold(now_ms, HoldReason::BadEntry(error.to_string()), effects),
        }
    }

    /// A proposal is answered with the cursor as it is: everything that it covers is applied, whoever's batch it was.
    fn take_applied(&mut self, now_ms: u64, number: u64, cursor: Cursor, effects: &mut Vec<Effect>) {
        let Phase::Running(pipeline) = &mut self.phase else { return };
        if number < self.first_number {
            return;
        }
        let moved = raise(&mut pipeline.committed, cursor);
        raise(&mut pipeline.received, cursor);
        while pipeline.in_flight.front().is_some_and(|flight| covers(&cursor, &flight.reached)) {
            pipeline.in_flight.pop_front();
        }
        if pipeline.is_in_flight(number) {
            // It followed what was proposed before it and was ignored: never a tight loop over one proposal.
            return self.back_off(
                now_ms,
                "the batch was ignored, the cursor stands before its end".to_owned(),
                effects,
            );
        }
        if moved {
            self.trouble = None;
        }
        self.pull_ahead(effects);
    }

    /// Pulls behind what is received, if no pull is under way and what is in flight leaves room.
    fn pull_ahead(&mut self, effects: &mut Vec<Effect>) {
        let Phase::Running(pipeline) = &mut self.phase else { return };
        let bytes: usize = pipeline.in_flight.iter().map(|flight| flight.bytes).sum();
        let is_full = pipeline.in_flight.len() >= BATCHES_IN_FLIGHT_MAX || bytes >= BYTES_IN_FLIGHT_MAX;
        let is_on_trial = self.trouble.is_some() && !pipeline.in_flight.is_empty();
        if pipeline.pulling || is_full || is_on_trial {
            return;
        }
        pipeline.pulling = true;
        effects.push(Effect::Pull { cursor: pipeline.received });
    }

    fn pull(&mut self, cursor: Cursor, effects: &mut Vec<Effect>) {
        self.phase =
            Phase::Running(Pipeline { committed: cursor, received: cursor, pulling: true, in_flight: VecDeque::new() });
        effects.push(Effect::Pull { cursor });
    }

    /// A link that fails while the stream is held says nothing of what holds it: that stays shown.
    fn fail_pull(&mut self, now_ms: u64, reason: String, effects: &mut Vec<Effect>) {
        match self.trouble.take() {
            Some(Trouble::Held { reason, .. }) => self.hold(now_ms, reason, effects),
            trouble => {
                self.trouble = trouble;
                self.back_off(now_ms, reason, effects);
            }
        }
    }

    fn back_off(&mut self, now_ms: u64, reason: String, effects: &mut Vec<Effect>) {
        let attempts = match &self.trouble {
            Some(Trouble::Failing { attempts, .. }) => attempts.saturating_add(1),
            _ => 1,
        };
        let doublings = (attempts - 1).min(BACKOFF_MS_MAX.ilog2());
        let after_ms = (BACKOFF_MS_MIN << doublings).min(BACKOFF_MS_MAX);
        let retry_at_ms = self.wait(now_ms, after_ms, effects);
        self.trouble = Some(Trouble::Failing { retry_at_ms, attempts, reason });
    }

    fn hold(&mut self, now_ms: u64, reason: HoldReason, effects: &mut Vec<Effect>) {
        let after_ms = match &reason {
            // Time does heal this one when the clock is ahead by little.
            HoldReason::Skewed { ahead_ms } => (*ahead_ms).clamp(BACKOFF_MS_MIN, HELD_RETRY_MS),
            _ => HELD_RETRY_MS,
        };
        let retry_at_ms = self.wait(now_ms, after_ms, effects);
        self.trouble = Some(Trouble::Held { retry_at_ms, reason });
    }

    /// Falls back to what is committed. What is in flight is forgotten: it ends by itself, and `apply` ignores it unless
    /// it follows.
    fn wait(&mut self, now_ms: u64, after_ms: u64, effects: &mut Vec<Effect>) -> u64 {
        let until_ms = now_ms.saturating_add(after_ms);
        let cursor = *self.cursor().expect("only a started stream waits");
        self.phase = Phase::Waiting { cursor, until_ms };
        effects.push(Effect::Retry { after_ms });
        until_ms
    }

    fn report(&mut self, effects: &mut Vec<Effect>) {
        let state = match (&self.phase, self.trouble.clone()) {
            (Phase::Stopped, _) => StreamState::Stopped,
            (_, Some(Trouble::Failing { retry_at_ms, attempts, reason })) => {
                StreamState::Backoff { retry_at_ms, attempts, reason }
            }
            (_, Some(Trouble::Held { retry_at_ms, reason })) => StreamState::Held { retry_at_ms, reason },
            (Phase::Running(pipeline), None) if !pipeline.in_flight.is_empty() => StreamState::Applying,
            (Phase::Running(_) | Phase::Waiting { .. }, None) => StreamState::Pulling,
        };
        if state != self.shown {
            self.shown = state.clone();
            effects.push(Effect::Report(state));
        }
    }
}

impl Pipeline {
    fn is_in_flight(&self, number: u64) -> bool {
        self.in_flight.iter().any(|flight| flight.number == number)
    }
}

/// Whether `cursor` stands at `other` or behind it.
fn covers(cursor: &Cursor, other: &Cursor) -> bool {
    let (here, there) = (OriginCursor::from(cursor.position), OriginCursor::from(other.position));
    here > there || (here == there && cursor.applied_through >= other.applied_through)
}

/// Moves `cursor` to `to` unless it stands there or behind it; says whether it moved.
fn raise(cursor: &mut Cursor, to: Cursor) -> bool {
    let moves = !covers(cursor, &to);
    if moves {
        *cursor = to;
    }
    moves
}

impl Default for Stream {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
