//! One metadata stream as a state machine: the log of one origin, pulled from a source, applied to one partition.
//!
//! The shell feeds events to `step` and performs the effects: it pulls, proposes, sets timers, shows the state. It
//! gives every call a deadline, so each `Pull` and each `Propose` ends in exactly one event; pacing of idle pulls
//! is the source's (it answers late when it has no news). No clock is read here and nothing is applied.
//!
//! ```text
//!   Stopped ─ Started ─▶ Pulling ─ Pulled ─▶ Applying ─ Applied ─▶ Pulling …
//!                          ▲ │ failed, refused  │ failed, skewed, rejected
//!                          │ ▼                  ▼
//!                          └─────── Tick ─── waiting (Backoff, or Held when time alone may not heal it)
//! ```
//!
//! Invariants:
//! - At most one pull or proposal is under way; only the event that answers it moves the stream.
//! - A batch is proposed only if it follows the cursor (`check_batch`); no entry is ever passed over (rule 12).
//! - What went wrong stays shown, with its reason, until the stream has made progress: a retry alone hides nothing.

use crate::{Batch, BatchError, Cursor, check_batch};

/// The first wait after a failure; each further one doubles it.
const BACKOFF_MS_MIN: u64 = 100;
/// The longest wait between retries, so that a healed link is found within that time.
const BACKOFF_MS_MAX: u64 = 2_000;
/// How often a held stream is tried again: what holds it needs a person or a full sync.
const HELD_RETRY_MS: u64 = 5_000;

/// What has happened to a stream.
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
        cursor: Cursor,
    },
    /// `apply` refused the batch.
    Rejected {
        reason: String,
    },
    /// A stamp of the batch is too far ahead of this clock: it was not proposed (rule 10).
    Skewed {
        ahead_ms: u64,
    },
    /// The proposal failed or its outcome is unknown.
    ApplyFailed {
        reason: String,
    },
    /// Time has passed: the wait asked for with `Effect::Retry` is over.
    Tick,
    LeadershipLost,
}

/// What the shell shall do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Ask the source for what follows the cursor.
    Pull { cursor: Cursor },
    /// Propose the batch to the partition's raft group.
    Propose(Batch),
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
}

/// What is under way.
#[derive(Debug)]
enum Phase {
    Stopped,
    Pulling { cursor: Cursor },
    Applying { cursor: Cursor },
    Waiting { cursor: Cursor, until_ms: u64 },
}

/// What went wrong since the last progress.
#[derive(Debug, Clone)]
enum Trouble {
    Failing { retry_at_ms: u64, attempts: u32, reason: String },
    Held { retry_at_ms: u64, reason: HoldReason },
}

impl Stream {
    pub fn new() -> Self {
        Self { phase: Phase::Stopped, trouble: None, shown: StreamState::Stopped }
    }

    /// Takes one event; `now_ms` is a monotonic clock's reading. Effects are appended in the order to perform them.
    /// An event that answers nothing under way (a late reply) changes nothing.
    pub fn step(&mut self, now_ms: u64, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Started { cursor } => {
                self.trouble = None;
                self.pull(cursor, effects);
            }
            Event::LeadershipLost => {
                self.trouble = None;
                self.phase = Phase::Stopped;
            }
            event => match self.phase {
                Phase::Stopped => {}
                Phase::Pulling { cursor } => self.step_pulling(now_ms, cursor, event, effects),
                Phase::Applying { cursor } => self.step_applying(now_ms, cursor, event, effects),
                Phase::Waiting { cursor, until_ms } => self.step_waiting(now_ms, cursor, until_ms, event, effects),
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
            Phase::Pulling { cursor } => Some(cursor),
            _ => None,
        }
    }

    /// The cursor as last reported, `None` while stopped.
    pub fn cursor(&self) -> Option<&Cursor> {
        match &self.phase {
            Phase::Stopped => None,
            Phase::Pulling { cursor } | Phase::Applying { cursor } | Phase::Waiting { cursor, .. } => Some(cursor),
        }
    }

    fn step_pulling(&mut self, now_ms: u64, cursor: Cursor, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Pulled(batch) => self.take_batch(now_ms, cursor, batch, effects),
            Event::PullFailed { reason } => self.fail_pull(now_ms, cursor, reason, effects),
            Event::Refused { reason } => self.hold(now_ms, cursor, HoldReason::Refused(reason), effects),
            Event::NeedsFullSync => self.hold(now_ms, cursor, HoldReason::NeedsFullSync, effects),
            _ => {}
        }
    }

    fn step_applying(&mut self, now_ms: u64, cursor: Cursor, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Applied { cursor: now_at } if now_at != cursor => {
                self.trouble = None;
                self.pull(now_at, effects);
            }
            // A batch that follows the cursor and yet moves nothing: never a tight loop over one proposal.
            Event::Applied { .. } => {
                self.back_off(now_ms, cursor, "the batch was ignored and the cursor did not move".to_owned(), effects);
            }
            Event::ApplyFailed { reason } => self.back_off(now_ms, cursor, reason, effects),
            Event::Rejected { reason } => self.hold(now_ms, cursor, HoldReason::BadEntry(reason), effects),
            Event::Skewed { ahead_ms } => self.hold(now_ms, cursor, HoldReason::Skewed { ahead_ms }, effects),
            _ => {}
        }
    }

    fn step_waiting(&mut self, now_ms: u64, cursor: Cursor, until_ms: u64, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Tick if now_ms >= until_ms => self.pull(cursor, effects),
            // A timer of an earlier wait, or one that fired early: ask for the rest, else the stream may sleep on.
            Event::Tick => effects.push(Effect::Retry { after_ms: until_ms - now_ms }),
            _ => {}
        }
    }

    fn take_batch(&mut self, now_ms: u64, cursor: Cursor, batch: Batch, effects: &mut Vec<Effect>) {
        match check_batch(&cursor, &batch) {
            Ok(checked) if checked.cursor == cursor => {
                self.trouble = None;
                self.pull(cursor, effects);
            }
            Ok(_) => {
                self.phase = Phase::Applying { cursor };
                effects.push(Effect::Propose(batch));
            }
            // The answer to an older pull of this stream, from before it was stopped and started: ask again.
            Err(error @ BatchError::NotNext { expected, found, .. }) if found < expected => {
                self.back_off(now_ms, cursor, error.to_string(), effects);
            }
            Err(error @ (BatchError::NotNext { .. } | BatchError::Gap { .. })) => {
                self.hold(now_ms, cursor, HoldReason::Gap(error.to_string()), effects);
            }
            Err(error) => self.hold(now_ms, cursor, HoldReason::BadEntry(error.to_string()), effects),
        }
    }

    fn pull(&mut self, cursor: Cursor, effects: &mut Vec<Effect>) {
        self.phase = Phase::Pulling { cursor };
        effects.push(Effect::Pull { cursor });
    }

    /// A link that fails while the stream is held says nothing of what holds it: that stays shown.
    fn fail_pull(&mut self, now_ms: u64, cursor: Cursor, reason: String, effects: &mut Vec<Effect>) {
        match self.trouble.take() {
            Some(Trouble::Held { reason, .. }) => self.hold(now_ms, cursor, reason, effects),
            trouble => {
                self.trouble = trouble;
                self.back_off(now_ms, cursor, reason, effects);
            }
        }
    }

    fn back_off(&mut self, now_ms: u64, cursor: Cursor, reason: String, effects: &mut Vec<Effect>) {
        let attempts = match &self.trouble {
            Some(Trouble::Failing { attempts, .. }) => attempts.saturating_add(1),
            _ => 1,
        };
        let doublings = (attempts - 1).min(BACKOFF_MS_MAX.ilog2());
        let after_ms = (BACKOFF_MS_MIN << doublings).min(BACKOFF_MS_MAX);
        let retry_at_ms = self.wait(now_ms, cursor, after_ms, effects);
        self.trouble = Some(Trouble::Failing { retry_at_ms, attempts, reason });
    }

    fn hold(&mut self, now_ms: u64, cursor: Cursor, reason: HoldReason, effects: &mut Vec<Effect>) {
        let after_ms = match &reason {
            // Time does heal this one when the clock is ahead by little.
            HoldReason::Skewed { ahead_ms } => (*ahead_ms).clamp(BACKOFF_MS_MIN, HELD_RETRY_MS),
            _ => HELD_RETRY_MS,
        };
        let retry_at_ms = self.wait(now_ms, cursor, after_ms, effects);
        self.trouble = Some(Trouble::Held { retry_at_ms, reason });
    }

    fn wait(&mut self, now_ms: u64, cursor: Cursor, after_ms: u64, effects: &mut Vec<Effect>) -> u64 {
        let until_ms = now_ms.saturating_add(after_ms);
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
            (Phase::Applying { .. }, None) => StreamState::Applying,
            (Phase::Pulling { .. } | Phase::Waiting { .. }, None) => StreamState::Pulling,
        };
        if state != self.shown {
            self.shown = state.clone();
            effects.push(Effect::Report(state));
        }
    }
}

impl Default for Stream {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
