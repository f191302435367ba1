//! What clients were told of their mutations, and so what a reader may find.
//!
//! Each key is a register. Its mutations are intervals of a logical clock, from the request to the answer; one whose
//! answer is unknown may take effect at any moment until `settle` says that nothing of it is running any more. A value
//! is *older* than it may be when a mutation that began after that value's own had ended, in the same datacenter, was
//! acknowledged and must be visible to the reader. That is linearizability inside a datacenter, and a lower bound of
//! it between them: how writes of different datacenters are ordered is not judged here.
//!
//! It does no I/O and knows no protocol.
//!
//! Invariants: a mutation is in the ledger before its request is sent; what a reader has seen counts as acknowledged.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::linearizable::{Action, Operation, check_linearizable};

/// A point of the ledger's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(u64);

/// What a client knows of its mutation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Acknowledged,
    /// It did not and will not happen.
    Refused,
    /// It may have happened, and may still.
    Unknown,
}

/// Names one mutation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    key: String,
    index: usize,
}

/// From where and when somebody looks.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    pub datacenter: &'a str,
    /// When the read was sent.
    pub began: Moment,
    /// Everything acknowledged before it in the other datacenters has been waited for here.
    pub replicated: Moment,
}

#[derive(Debug)]
struct Mutation {
    /// The write's number; none for a delete.
    value: Option<u64>,
    datacenter: String,
    begun: Moment,
    ended: Option<Moment>,
    outcome: Outcome,
    /// When a reader in `datacenter` had found a later state.
    overtaken: Option<Moment>,
}

#[derive(Debug)]
struct Read {
    datacenter: String,
    begun: Moment,
    ended: Moment,
    found: Option<u64>,
}

#[derive(Debug, Default)]
struct State {
    clock: u64,
    numbers: u64,
    acknowledged: u64,
    keys: BTreeMap<String, Vec<Mutation>>,
    /// Answered reads, by key.
    reads: BTreeMap<String, Vec<Read>>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Ledger {
    state: Mutex<State>,
}

impl State {
    fn tick(&mut self) -> Moment {
        self.clock += 1;
        Moment(self.clock)
    }
}

impl Ledger {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no ledger call panics while it holds the lock")
    }

    /// A number that no other write has.
    pub fn number(&self) -> u64 {
        let mut state = self.state();
        state.numbers += 1;
        state.numbers
    }

    /// A write of `number`, or a delete, is about to be sent.
    pub fn begin(&self, datacenter: &str, key: &str, value: Option<u64>) -> Ticket {
        let mut state = self.state();
        let begun = state.tick();
        let mutations = state.keys.entry(key.to_owned()).or_default();
        mutations.push(Mutation {
            value,
            datacenter: datacenter.to_owned(),
            begun,
            ended: None,
            outcome: Outcome::Unknown,
            overtaken: None,
        });
        Ticket { key: key.to_owned(), index: mutations.len() - 1 }
    }

    /// The answer is there, or will never be.
    pub fn finish(&self, ticket: &Ticket, outcome: Outcome) {
        let mut state = self.state();
        let now = state.tick();
        state.acknowledged += u64::from(outcome == Outcome::Acknowledged);
        let mutation = state.mutation(ticket);
        mutation.outcome = outcome;
        mutation.ended = (outcome != Outcome::Unknown).then_some(now);
    }

    /// Every server is dead: what is unknown has happened by now, or never will.
    pub fn settle(&self) {
        let mut state = self.state();
        let now = state.tick();
        for mutation in state.keys.values_mut().flatten() {
            mutation.ended.get_or_insert(now);
        }
    }

    pub fn now(&self) -> Moment {
        self.state().tick()
    }

    /// How many mutations have been acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.state().acknowledged
    }

    pub fn keys(&self) -> Vec<String> {
        self.state().keys.keys().cloned().collect()
    }

    /// Whether the newest value of a key may be one of another datacenter that was not waited for.
    pub fn may_have_come_from_elsewhere(&self, key: &str, reader: Reader<'_>) -> bool {
        let state = self.state();
        state.keys.get(key).into_iter().flatten().any(|mutation| {
            mutation.outcome != Outcome::Refused
                && mutation.datacenter != reader.datacenter
                && mutation.ended.is_none_or(|ended| ended >= reader.replicated)
        })
    }

    /// Holds the whole history of each key that was mutated and read in one datacenter alone against a register (C1);
    /// returns how many keys that were.
    ///
    /// # Errors
    /// The first key whose history no order explains.
    pub fn check_linearizable(&self, datacenter: &str) -> Result<usize, String> {
        let state = self.state();
        let mut checked = 0;
        for (key, mutations) in &state.keys {
            let reads = state.reads.get(key).map_or(&[][..], Vec::as_slice);
            let is_of_one = mutations.iter().all(|mutation| mutation.datacenter == datacenter);
            if !is_of_one || mutations.is_empty() {
                continue;
            }
            let writes = mutations.iter().filter(|mutation| mutation.outcome != Outcome::Refused).map(|mutation| {
                let is_certain = mutation.outcome == Outcome::Acknowledged;
                let ended = mutation.ended.filter(|_| is_certain).map(|ended| ended.0);
                Operation { begun: mutation.begun.0, ended, action: Action::Write(mutation.value) }
            });
            let reads = reads.iter().filter(|read| read.datacenter == datacenter).map(|read| Operation {
                begun: read.begun.0,
                ended: Some(read.ended.0),
                action: Action::Read(read.found),
            });
            let history: Vec<Operation> = writes.chain(reads).collect();
            check_linearizable(&history).map_err(|reason| format!("{key} in {datacenter}: {reason}"))?;
            checked += 1;
        }
        Ok(checked)
    }

    /// Judges what a reader found under `key`: the number of a write, or nothing.
    ///
    /// # Errors
    /// When nothing explains it: it was never written, was refused, or is older than what the reader must see.
    pub fn judge(&self, key: &str, found: Option<u64>, reader: Reader<'_>) -> Result<(), String> {
        let mut state = self.state();
        let now = state.tick();
        let read = Read { datacenter: reader.datacenter.to_owned(), begun: reader.began, ended: now, found };
        state.reads.entry(key.to_owned()).or_default().push(read);
        let mutations = state.keys.entry(key.to_owned()).or_default();
        let never_written = found.is_none() && !mutations.iter().any(|other| other.must_be_seen(reader));
        let explanations: Vec<usize> = (0..mutations.len())
            .filter(|&index| mutations[index].value == found && is_possible(mutations, index, reader))
            .collect();
        if explanations.is_empty() && !never_written {
            return Err(describe(key, found, mutations, reader));
        }
        for (index, mutation) in mutations.iter_mut().enumerate() {
            let explains = explanations.contains(&index);
            let is_before =
                mutation.datacenter == reader.datacenter && mutation.ended.is_some_and(|e| e < reader.began);
            if explains && explanations.len() == 1 && !never_written && mutation.ended.is_some() {
                mutation.outcome = Outcome::Acknowledged;
            } else if !explains && is_before {
                mutation.overtaken.get_or_insert(now);
            }
        }
        Ok(())
    }
}

impl State {
    fn mutation(&mut self, ticket: &Ticket) -> &mut Mutation {
        &mut self.keys.get_mut(&ticket.key).expect("a ticket's key is there")[ticket.index]
    }
}

impl Mutation {
    /// Whether a reader sees it, or something later.
    fn must_be_seen(&self, reader: Reader<'_>) -> bool {
        let before = if self.datacenter == reader.datacenter { reader.began } else { reader.replicated };
        self.outcome == Outcome::Acknowledged && self.ended.is_some_and(|ended| ended < before)
    }
}

fn is_possible(mutations: &[Mutation], index: usize, reader: Reader<'_>) -> bool {
    let candidate = &mutations[index];
    let known_at = if candidate.datacenter == reader.datacenter { reader.began } else { reader.replicated };
    let is_overtaken = candidate.overtaken.is_some_and(|overtaken| overtaken < known_at);
    let is_superseded = candidate.ended.is_some_and(|ended| {
        mutations
            .iter()
            .any(|later| later.datacenter == candidate.datacenter && ended < later.begun && later.must_be_seen(reader))
    });
    candidate.outcome != Outcome::Refused && !is_overtaken && !is_superseded
}

/// The found value, and the end of the key's history.
fn describe(key: &str, found: Option<u64>, mutations: &[Mutation], reader: Reader<'_>) -> String {
    const SHOWN: usize = 12;
    let value = |value: Option<u64>| value.map_or("nothing".to_owned(), |number| format!("write {number}"));
    let mut text = format!("{key}: {} found {}, which nothing explains.", reader.datacenter, value(found));
    text += &format!(" The read began at {}, replicated is {}.", reader.began.0, reader.replicated.0);
    let skipped = mutations.len().saturating_sub(SHOWN);
    for mutation in mutations.iter().filter(|other| other.value == found).take(2).chain(&mutations[skipped..]) {
        let Mutation { value: of, datacenter, begun, ended, outcome, overtaken } = mutation;
        let ended = ended.map_or("running".to_owned(), |ended| ended.0.to_string());
        let overtaken = overtaken.map_or(String::new(), |at| format!(", overtaken at {}", at.0));
        text += &format!("\n  {} in {datacenter} {}..{ended} {outcome:?}{overtaken}", value(*of), begun.0);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "dc-a";
    const B: &str = "dc-b";

    fn write(ledger: &Ledger, datacenter: &str, number: u64, outcome: Outcome) {
        ledger.finish(&ledger.begin(datacenter, "k", Some(number)), outcome);
    }

    fn delete(ledger: &Ledger, outcome: Outcome) {
        ledger.finish(&ledger.begin(A, "k", None), outcome);
    }

    fn finds(ledger: &Ledger, datacenter: &str, found: Option<u64>) -> bool {
        let reader = Reader { datacenter, began: ledger.now(), replicated: Moment::default() };
        ledger.judge("k", found, reader).is_ok()
    }

    fn finds_after_wait(ledger: &Ledger, datacenter: &str, found: Option<u64>) -> bool {
        let now = ledger.now();
        ledger.judge("k", found, Reader { datacenter, began: now, replicated: now }).is_ok()
    }

    #[test]
    fn a_lost_acknowledged_write_is_caught() {
        let ledger = Ledger::default();
        write(&ledger, A, 1, Outcome::Acknowledged);
        assert!(!finds(&ledger, A, None));
        assert!(finds(&ledger, A, Some(1)));
        assert!(finds(&ledger, B, None), "it need not be there yet");
        assert!(!finds_after_wait(&ledger, B, None));
    }

    #[test]
    fn an_older_value_is_caught() {
        let ledger = Ledger::default();
        write(&ledger, A, 1, Outcome::Acknowledged);
        write(&ledger, A, 2, Outcome::Acknowledged);
        assert!(!finds(&ledger, A, Some(1)));
        assert!(finds(&ledger, B, Some(1)));
        assert!(finds(&ledger, A, Some(2)));
        assert!(!finds_after_wait(&ledger, B, Some(1)));
    }

    #[test]
    fn a_resurrected_object_is_caught() {
        let ledger = Ledger::default();
        write(&ledger, A, 1, Outcome::Acknowledged);
        delete(&ledger, Outcome::Acknowledged);
        assert!(!finds(&ledger, A, Some(1)));
        assert!(finds(&ledger, A, None));
    }

    #[test]
    fn a_refused_write_and_one_that_was_never_sent_are_caught() {
        let ledger = Ledger::default();
        write(&ledger, A, 1, Outcome::Refused);
        assert!(!finds(&ledger, A, Some(1)));
        assert!(!finds(&ledger, A, Some(9)));
        assert!(finds(&ledger, A, None));
    }

    #[test]
    fn an_unknown_write_may_be_there_or_not_but_not_come_and_go() {
        let seen = Ledger::default();
        write(&seen, A, 1, Outcome::Acknowledged);
        write(&seen, A, 2, Outcome::Unknown);
        seen.settle();
        assert!(finds(&seen, A, Some(2)));
        assert!(!finds(&seen, A, Some(1)), "it was seen, and is gone");

        let unseen = Ledger::default();
        write(&unseen, A, 1, Outcome::Acknowledged);
        write(&unseen, A, 2, Outcome::Unknown);
        unseen.settle();
        assert!(finds(&unseen, A, Some(1)));
        assert!(!finds(&unseen, A, Some(2)), "it had not happened, and nobody can send it any more");
    }

    #[test]
    fn an_unknown_write_may_come_late_as_long_as_servers_live() {
        let ledger = Ledger::default();
        write(&ledger, A, 1, Outcome::Unknown);
        write(&ledger, A, 2, Outcome::Acknowledged);
        assert!(finds(&ledger, A, Some(2)));
        assert!(finds(&ledger, A, Some(1)));
    }

    #[test]
    fn of_concurrent_writes_either_may_win_but_only_one() {
        let ledger = Ledger::default();
        let (first, second) = (ledger.begin(A, "k", Some(1)), ledger.begin(A, "k", Some(2)));
        ledger.finish(&first, Outcome::Acknowledged);
        ledger.finish(&second, Outcome::Acknowledged);
        assert!(finds(&ledger, A, Some(1)));
        assert!(!finds(&ledger, A, Some(2)));
    }

    #[test]
    fn a_write_of_another_datacenter_may_win() {
        let ledger = Ledger::default();
        write(&ledger, A, 1, Outcome::Acknowledged);
        write(&ledger, B, 2, Outcome::Acknowledged);
        assert!(finds(&ledger, A, Some(1)), "not there yet");
        assert!(finds_after_wait(&ledger, A, Some(2)));
        assert!(!finds_after_wait(&ledger, A, Some(1)), "it was overtaken");
    }
}
