//! C1: whether the history of one key can be put in one order that every client could have seen (Herlihy and Wing 1990), by
//! the search of Wing and Gong (1993) with the remembered states of Lowe (2017).
//!
//! The key is a register: a write sets it, a delete empties it, a read tells what is in it. Each operation happens at one
//! moment between its beginning and its end; one whose answer was lost happens at any moment from its beginning on, or
//! never.
//!
//! Invariants: exact, no false alarm and nothing missed; a search that grows beyond `STATES_MAX` is an error, not a pass.

use std::collections::HashSet;

/// States of a search before it is given up.
const STATES_MAX: usize = 2_000_000;

/// What is in the register: the number of a write, or nothing.
pub type Value = Option<u64>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Write(Value),
    Read(Value),
}

/// One operation of a client, in the clock of whoever recorded it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation {
    pub begun: u64,
    /// None when it is not known whether it happened.
    pub ended: Option<u64>,
    pub action: Action,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct State {
    /// One bit an operation that has happened.
    done: Vec<u64>,
    value: Value,
}

impl State {
    fn is_done(&self, index: usize) -> bool {
        self.done[index / 64] >> (index % 64) & 1 == 1
    }

    fn with(&self, index: usize, value: Value) -> Self {
        let mut done = self.done.clone();
        done[index / 64] |= 1 << (index % 64);
        Self { done, value }
    }
}

/// Finds an order for a history that begins with an empty register.
///
/// # Errors
/// The operations that no order explains, or that the search grew too large.
pub fn check_linearizable(history: &[Operation]) -> Result<(), String> {
    let mut operations = needed(history);
    operations.sort_by_key(|operation| operation.begun);
    let first = State { done: vec![0; operations.len().div_ceil(64)], value: None };
    let mut seen = HashSet::from([first.clone()]);
    let mut states = vec![first];
    let (mut furthest, mut furthest_count) = (None, 0);
    while let Some(state) = states.pop() {
        let left: Vec<usize> = (0..operations.len()).filter(|index| !state.is_done(*index)).collect();
        // Whatever has begun before all that is left has ended may be next.
        let Some(limit) = left.iter().filter_map(|index| operations[*index].ended).min() else { return Ok(()) };
        let count = operations.len() - left.len();
        if furthest.is_none() || count > furthest_count {
            (furthest, furthest_count) = (Some(state.clone()), count);
        }
        let may_be_next = |index: &&usize| operations[**index].begun <= limit;
        // A read that fits changes nothing, so that it may as well be next.
        let fits = |index: &&usize| operations[**index].action == Action::Read(state.value);
        let nexts: Vec<State> = match left.iter().filter(may_be_next).find(fits) {
            Some(read) => vec![state.with(*read, state.value)],
            None => left
                .iter()
                .filter(may_be_next)
                .filter_map(|index| match operations[*index].action {
                    Action::Write(value) => Some(state.with(*index, value)),
                    Action::Read(_) => None,
                })
                .collect(),
        };
        for next in nexts.into_iter().rev() {
            if seen.len() >= STATES_MAX {
                return Err(format!("no order found in {STATES_MAX} states of {} operations", operations.len()));
            }
            if seen.insert(next.clone()) {
                states.push(next);
            }
        }
    }
    let state = furthest.expect("there was a first state");
    let stuck: Vec<&Operation> =
        (0..operations.len()).filter(|index| !state.is_done(*index)).map(|index| &operations[index]).take(8).collect();
    Err(format!("with {:?} in it after {furthest_count} operations, no order explains {stuck:#?}", state.value))
}

/// Leaves out what explains nothing: reads without an answer, and writes of unknown outcome whose value nobody has read.
fn needed(history: &[Operation]) -> Vec<Operation> {
    let read: HashSet<Value> = history
        .iter()
        .filter_map(|operation| match operation.action {
            Action::Read(value) if operation.ended.is_some() => Some(value),
            _ => None,
        })
        .collect();
    let is_needed = |operation: &&Operation| match operation.action {
        _ if operation.ended.is_some() => true,
        Action::Read(_) => false,
        Action::Write(value) => read.contains(&value),
    };
    history.iter().filter(is_needed).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(begun: u64, ended: u64, value: u64) -> Operation {
        Operation { begun, ended: Some(ended), action: Action::Write(Some(value)) }
    }

    fn maybe(begun: u64, value: Value) -> Operation {
        Operation { begun, ended: None, action: Action::Write(value) }
    }

    fn delete(begun: u64, ended: u64) -> Operation {
        Operation { begun, ended: Some(ended), action: Action::Write(None) }
    }

    fn read(begun: u64, ended: u64, value: Value) -> Operation {
        Operation { begun, ended: Some(ended), action: Action::Read(value) }
    }

    fn holds(history: &[Operation]) -> bool {
        check_linearizable(history).is_ok()
    }

    #[test]
    fn what_one_client_does_in_turn_is_fine() {
        assert!(holds(&[]));
        assert!(holds(&[read(1, 2, None), write(3, 4, 1), read(5, 6, Some(1)), delete(7, 8), read(9, 10, None)]));
    }

    #[test]
    fn a_lost_write_an_old_value_and_a_deleted_one_are_caught() {
        assert!(!holds(&[write(1, 2, 1), read(3, 4, None)]));
        assert!(!holds(&[write(1, 2, 1), write(3, 4, 2), read(5, 6, Some(1))]));
        assert!(!holds(&[write(1, 2, 1), delete(3, 4), read(5, 6, Some(1))]));
        assert!(!holds(&[read(1, 2, Some(7))]), "never written");
        assert!(!holds(&[read(1, 2, Some(1)), write(3, 4, 1)]), "read before it was written");
    }

    #[test]
    fn concurrent_writes_have_one_order_for_all_readers() {
        let writes = [write(1, 10, 1), write(1, 10, 2)];
        let with = |reads: &[Operation]| holds(&[&writes, reads].concat());
        assert!(with(&[read(11, 12, Some(1)), read(13, 14, Some(1))]));
        assert!(with(&[read(11, 12, Some(2))]));
        assert!(with(&[read(2, 3, Some(1)), read(4, 5, Some(2)), read(11, 12, Some(2))]));
        assert!(!with(&[read(11, 12, Some(1)), read(13, 14, Some(2))]), "both are over");
        assert!(!with(&[read(2, 3, Some(1)), read(4, 5, Some(2)), read(6, 7, Some(1))]), "there and back");
    }

    #[test]
    fn a_new_value_that_one_has_read_the_next_must_read() {
        // The write is still on its way: either is fine, but not first the new one and then the old one.
        let history = |first, second| [write(1, 2, 1), write(3, 20, 2), read(4, 5, first), read(6, 7, second)];
        assert!(holds(&history(Some(1), Some(2))));
        assert!(!holds(&history(Some(2), Some(1))));
    }

    #[test]
    fn what_has_no_answer_happens_late_or_never_but_once() {
        assert!(holds(&[write(1, 2, 1), maybe(3, Some(2)), read(5, 6, Some(1)), read(7, 8, Some(2))]));
        assert!(holds(&[write(1, 2, 1), maybe(3, Some(2)), read(5, 6, Some(1))]));
        assert!(!holds(&[write(1, 2, 1), maybe(3, Some(2)), read(5, 6, Some(2)), read(7, 8, Some(1)),]));
        assert!(!holds(&[maybe(1, Some(2)), read(2, 3, Some(2)), write(4, 5, 3), read(6, 7, Some(2)),]));
        assert!(holds(&[write(1, 2, 1), maybe(3, None), read(5, 6, Some(1)), read(7, 8, None)]));
    }

    #[test]
    fn many_lost_answers_are_searched_quickly() {
        let mut history = Vec::new();
        for round in 0..400u64 {
            let at = round * 10;
            history.push(maybe(at, Some(10_000 + round)));
            history.push(write(at + 1, at + 4, round));
            history.push(write(at + 2, at + 5, 20_000 + round));
            history.push(read(at + 6, at + 7, Some(round)));
        }
        assert!(holds(&history));
        history.push(read(5000, 5001, Some(3)));
        assert!(!holds(&history));
    }
}
