//! A secondary of a volume: takes what the primary sends, at the offset that the primary names, and nothing else.
//!
//! Several batches may be under way on several connections, so they come in any order: a batch for a later offset is held
//! until those before it are durable. One write at a time; an answer always means durable, with everything before it.
//!
//! Invariants:
//! - Only the current epoch and session append; a fenced secondary takes nothing, whatever its session says (rule 1).
//! - `committed` is what the primary said, at most what is durable here (rule 2).
//! - At most `WINDOW_BATCHES_MAX` batches are held.

use std::collections::BTreeMap;

use meridian_types::{Epoch, Plant, Planted, Sound};
use serde::{Deserialize, Serialize};

use super::{Session, WINDOW_BATCHES_MAX};

/// Names a call that waits for its answer.
pub type Request = u64;

/// Why a call was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refused {
    #[error("the volume is at epoch {current}, the call is of {asked}")]
    WrongEpoch { current: Epoch, asked: Epoch },
    /// The secondary was restarted, or a later life of the primary has begun.
    #[error("the session is not known")]
    UnknownSession,
    #[error("the replica ends at {end}, the batch is for {offset}")]
    WrongOffset { end: u64, offset: u64 },
    #[error("too many batches wait")]
    Busy,
    #[error("the replica has failed: {0}")]
    Failed(String),
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Begin {
        request: Request,
        epoch: Epoch,
        session: Session,
    },
    /// A batch for `offset..to`; its bytes stay with the shell.
    Append {
        request: Request,
        epoch: Epoch,
        session: Session,
        offset: u64,
        to: u64,
        committed: u64,
    },
    Tell {
        request: Request,
        epoch: Epoch,
        session: Session,
        committed: u64,
    },
    /// The write in progress is durable.
    Synced,
    /// The write in progress, or one before it, failed: nothing more is taken (rule 6).
    WriteFailed {
        reason: String,
    },
    /// A seal's new epoch is durable here: what is still to be written will be refused by the file.
    Fenced {
        epoch: Epoch,
    },
}

/// What the shell is to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Write and sync the bytes of this request's batch.
    Write { request: Request },
    /// Answer with the durable end. The shell drops the batch's bytes.
    Answer { request: Request, outcome: Result<u64, Refused> },
    /// Make the bytes up to `to` readable.
    Commit { to: u64 },
}

#[derive(Debug, Clone, Copy)]
struct Held {
    request: Request,
    to: u64,
    committed: u64,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Secondary<P: Plant = Sound> {
    plant: P,
    epoch: Epoch,
    fenced: bool,
    session: Option<Session>,
    durable: u64,
    committed: u64,
    writing: Option<Held>,
    /// By offset.
    held: BTreeMap<u64, Held>,
    /// Sessions that begin when the write in progress has ended.
    beginning: Vec<Request>,
    failed: Option<String>,
}

impl Secondary {
    pub fn new(epoch: Epoch, durable: u64, committed: u64) -> Self {
        Self::planted(Sound, epoch, durable, committed)
    }
}

impl<P: Plant> Secondary<P> {
    /// `new`, with mistakes for a simulation to find.
    pub fn planted(plant: P, epoch: Epoch, durable: u64, committed: u64) -> Self {
        Self {
            plant,
            epoch,
            fenced: false,
            session: None,
            durable,
            committed,
            writing: None,
            held: BTreeMap::new(),
            beginning: Vec::new(),
            failed: None,
        }
    }

    pub fn step(&mut self, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Begin { request, epoch, session } => match self.check(epoch, None) {
                Err(refused) => answer(request, Err(refused), effects),
                Ok(()) if self.session.is_some_and(|current| session < current) => {
                    answer(request, Err(Refused::UnknownSession), effects);
                }
                Ok(()) => {
                    self.session = Some(session);
                    self.refuse_held(|| Refused::UnknownSession, effects);
                    self.beginning.push(request);
                    self.end_of_write(effects);
                }
            },
            Event::Append { request, epoch, session, offset, to, committed } => {
                if let Err(refused) = self.check(epoch, Some(session)) {
                    return answer(request, Err(refused), effects);
                }
                self.append(offset, Held { request, to, committed }, effects);
            }
            Event::Tell { request, epoch, session, committed } => {
                let outcome = self.check(epoch, Some(session));
                if outcome.is_ok() {
                    self.learn(committed, effects);
                }
                answer(request, outcome.map(|()| self.durable), effects);
            }
            Event::Synced => {
                let Some(written) = self.writing.take() else { return };
                self.durable = written.to;
                if !self.plant.has(Planted::AcknowledgedBeforeSync) {
                    answer(written.request, Ok(written.to), effects);
                }
                self.learn(written.committed, effects);
                self.end_of_write(effects);
            }
            Event::WriteFailed { reason } => {
                if let Some(written) = self.writing.take() {
                    answer(written.request, Err(Refused::Failed(reason.clone())), effects);
                }
                self.refuse_held(|| Refused::Failed(reason.clone()), effects);
                self.failed.get_or_insert(reason);
                self.end_of_write(effects);
            }
            Event::Fenced { epoch } => {
                let asked = self.epoch;
                (self.epoch, self.fenced) = (epoch, true);
                self.refuse_held(|| Refused::WrongEpoch { current: epoch, asked }, effects);
                self.end_of_write(effects);
            }
        }
    }

    fn check(&self, epoch: Epoch, session: Option<Session>) -> Result<(), Refused> {
        let is_old = (epoch != self.epoch || self.fenced) && !self.plant.has(Planted::FencedReplicaAppends);
        if is_old {
            return Err(Refused::WrongEpoch { current: self.epoch, asked: epoch });
        }
        if let Some(reason) = &self.failed {
            return Err(Refused::Failed(reason.clone()));
        }
        if session.is_some() && session != self.session { Err(Refused::UnknownSession) } else { Ok(()) }
    }

    fn append(&mut self, offset: u64, batch: Held, effects: &mut Vec<Effect>) {
        let next = self.writing.map_or(self.durable, |writing| writing.to);
        if offset < next {
            // Sent again: within a session an offset has one content, so what is durable need not be compared.
            let durable = batch.to <= self.durable;
            let outcome = if durable { Ok(batch.to) } else { Err(Refused::WrongOffset { end: next, offset }) };
            answer(batch.request, outcome, effects);
        } else if offset == next && self.writing.is_none() {
            self.write(batch, effects);
        } else if self.held.len() < WINDOW_BATCHES_MAX && !self.held.contains_key(&offset) {
            self.held.insert(offset, batch);
        } else {
            answer(batch.request, Err(Refused::Busy), effects);
        }
    }

    /// When no write is in progress: answers those who waited for that, and starts the next one.
    fn end_of_write(&mut self, effects: &mut Vec<Effect>) {
        if self.writing.is_some() {
            return;
        }
        for request in std::mem::take(&mut self.beginning) {
            let outcome = match &self.failed {
                Some(reason) => Err(Refused::Failed(reason.clone())),
                None if self.fenced => Err(Refused::WrongEpoch { current: self.epoch, asked: self.epoch }),
                None => Ok(self.durable),
            };
            answer(request, outcome, effects);
        }
        if let Some(batch) = self.held.remove(&self.durable) {
            self.write(batch, effects);
        }
    }

    fn write(&mut self, batch: Held, effects: &mut Vec<Effect>) {
        self.writing = Some(batch);
        effects.push(Effect::Write { request: batch.request });
        if self.plant.has(Planted::AcknowledgedBeforeSync) {
            answer(batch.request, Ok(batch.to), effects);
        }
    }

    fn refuse_held(&mut self, refused: impl Fn() -> Refused, effects: &mut Vec<Effect>) {
        for batch in std::mem::take(&mut self.held).into_values() {
            answer(batch.request, Err(refused()), effects);
        }
    }

    fn learn(&mut self, committed: u64, effects: &mut Vec<Effect>) {
        let to = committed.min(self.durable);
        if to > self.committed && !self.fenced {
            self.committed = to;
            effects.push(Effect::Commit { to });
        }
    }
}

fn answer(request: Request, outcome: Result<u64, Refused>, effects: &mut Vec<Effect>) {
    effects.push(Effect::Answer { request, outcome });
}

#[cfg(test)]
mod tests {
    use super::*;

    const E: Epoch = Epoch(1);
    const S: Session = Session(7);

    fn run(secondary: &mut Secondary, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        secondary.step(event, &mut effects);
        effects
    }

    fn begun(durable: u64) -> Secondary {
        let mut secondary = Secondary::new(E, durable, 64);
        let effects = run(&mut secondary, Event::Begin { request: 0, epoch: E, session: S });
        assert_eq!(effects, [Effect::Answer { request: 0, outcome: Ok(durable) }]);
        secondary
    }

    fn append(request: Request, offset: u64, to: u64) -> Event {
        Event::Append { request, epoch: E, session: S, offset, to, committed: offset }
    }

    #[test]
    fn batches_that_come_out_of_order_are_written_in_order() {
        let mut secondary = begun(64);
        assert_eq!(run(&mut secondary, append(2, 100, 200)), []);
        assert_eq!(run(&mut secondary, append(1, 64, 100)), [Effect::Write { request: 1 }]);
        let effects = run(&mut secondary, Event::Synced);
        assert_eq!(effects, [Effect::Answer { request: 1, outcome: Ok(100) }, Effect::Write { request: 2 }]);
        let effects = run(&mut secondary, Event::Synced);
        assert_eq!(effects, [Effect::Answer { request: 2, outcome: Ok(200) }, Effect::Commit { to: 100 }]);
        let again = run(&mut secondary, append(3, 100, 200));
        assert_eq!(again, [Effect::Answer { request: 3, outcome: Ok(200) }]);
    }

    #[test]
    fn another_epoch_or_session_is_refused_by_name() {
        let mut secondary = begun(64);
        let of = |epoch, session| Event::Append { request: 1, epoch, session, offset: 64, to: 72, committed: 64 };
        let refused = |effects: Vec<Effect>| match &effects[..] {
            [Effect::Answer { outcome: Err(refused), .. }] => refused.clone(),
            other => panic!("{other:?}"),
        };
        for epoch in [Epoch(0), Epoch(2)] {
            let found = refused(run(&mut secondary, of(epoch, S)));
            assert_eq!(found, Refused::WrongEpoch { current: E, asked: epoch });
        }
        assert_eq!(refused(run(&mut secondary, of(E, Session(6)))), Refused::UnknownSession);
        let old = Event::Begin { request: 1, epoch: E, session: Session(6) };
        assert_eq!(refused(run(&mut secondary, old)), Refused::UnknownSession);
    }

    #[test]
    fn a_fence_lets_the_write_in_progress_end_and_takes_nothing_after_it() {
        let mut secondary = begun(64);
        run(&mut secondary, append(1, 64, 100));
        run(&mut secondary, append(2, 100, 200));
        let effects = run(&mut secondary, Event::Fenced { epoch: Epoch(2) });
        assert!(matches!(effects[..], [Effect::Answer { request: 2, outcome: Err(Refused::WrongEpoch { .. }) }]));
        let effects = run(&mut secondary, Event::Synced);
        assert_eq!(effects, [Effect::Answer { request: 1, outcome: Ok(100) }]);
        let effects = run(&mut secondary, append(3, 100, 200));
        assert!(matches!(effects[..], [Effect::Answer { outcome: Err(Refused::WrongEpoch { .. }), .. }]));
    }

    #[test]
    fn nothing_is_taken_after_a_failed_write() {
        let mut secondary = begun(64);
        run(&mut secondary, append(1, 64, 100));
        run(&mut secondary, append(2, 100, 200));
        let effects = run(&mut secondary, Event::WriteFailed { reason: "EIO".to_owned() });
        assert!(effects.iter().all(|e| matches!(e, Effect::Answer { outcome: Err(Refused::Failed(_)), .. })));
        assert_eq!(effects.len(), 2);
        let effects = run(&mut secondary, append(3, 64, 100));
        assert!(matches!(effects[..], [Effect::Answer { outcome: Err(Refused::Failed(_)), .. }]));
    }

    #[test]
    fn what_is_held_is_bounded() {
        let mut secondary = begun(64);
        for batch in 1..=WINDOW_BATCHES_MAX as u64 {
            assert_eq!(run(&mut secondary, append(batch, 64 + batch * 8, 72 + batch * 8)), []);
        }
        let effects = run(&mut secondary, append(99, 800, 808));
        assert_eq!(effects, [Effect::Answer { request: 99, outcome: Err(Refused::Busy) }]);
    }
}
