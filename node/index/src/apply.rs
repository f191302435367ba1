//! `apply`: one command against one partition. Here is the frame: the state row, the log, rows that lose their place.
//! Each kind of command has its file below.
//!
//! Invariants: everything goes into the one write set of the view; the state row is written last and only when it
//! changed; a log entry's cursors and position are those of the moment of apply.

mod catalog;
mod local;
mod objects;
mod remote;
mod stable;
mod supersede;
mod uploads;
mod users;

use bytes::Bytes;
use meridian_replicator::{LogEntry, OriginCursor};
use meridian_types::{BucketId, DatacenterId, Incarnation, Plant, Planted, Stamp, Timestamp};

use crate::command::{Command, Response};
use crate::keys;
use crate::kv::Overlay;
use crate::machine::{IndexMachine, MachineError};
use crate::queries::{self, LOG_HASH_LENGTH};
use crate::rows::{FenceAttempt, FenceRow, PartitionState, Row};

pub use stable::RELEASES_IN_COMMAND_MAX;

/// Applies one command and returns its answer.
pub(crate) fn apply<P: Plant>(
    machine: &IndexMachine,
    plant: P,
    view: &mut Overlay<'_>,
    command: Command,
) -> Result<Response, MachineError> {
    let before = queries::state(view)?;
    let mut apply = Apply { machine, plant, view, state: before.clone() };
    let response = match command {
        Command::Local(proposals) => Response::Local(apply.local(proposals)?),
        Command::Remote(batch) => Response::Remote(apply.remote(&batch)?),
        Command::Close(at) => Response::Closed(apply.close(at)),
        Command::Fence { bucket, attempt, raised } => {
            apply.fence(bucket, attempt, raised)?;
            Response::Done
        }
        Command::RaiseIncarnation { to } => {
            apply.raise_incarnation(to);
            Response::Done
        }
        Command::Stable(times) => Response::Stable { more: apply.stable(times)? },
    };
    if apply.state != before {
        let row = apply.state.to_record();
        apply.view.put(keys::STATE.to_vec(), row);
    }
    Ok(response)
}

/// An apply under way.
struct Apply<'v, 'b, P: Plant> {
    machine: &'v IndexMachine,
    plant: P,
    view: &'v mut Overlay<'b>,
    state: PartitionState,
}

impl<P: Plant> Apply<'_, '_, P> {
    fn datacenter(&self) -> DatacenterId {
        self.machine.datacenter
    }

    /// Nothing of this datacenter is stamped at or below `at` from here on (rule 9): the closed timestamp is a
    /// committed entry like any other.
    fn close(&mut self, at: Timestamp) -> Timestamp {
        self.state.closed = self.state.closed.max(at);
        self.state.greatest = self.state.greatest.max(at);
        self.state.closed
    }

    /// Rule 18: a fence stands while any attempt holds it, so that one of two deletions that meet can't lift the other's.
    fn fence(&mut self, bucket: BucketId, attempt: FenceAttempt, raised: bool) -> Result<(), MachineError> {
        let key = keys::fence(bucket);
        let before: FenceRow = queries::read(self.view, &key)?.unwrap_or_default();
        let mut row = before.clone();
        let of_datacenter = row.attempts.binary_search_by_key(&attempt.datacenter, |held| held.datacenter);
        match (of_datacenter, raised) {
            (Ok(held), true) => row.attempts[held] = attempt, // its earlier attempt is over
            (Err(place), true) => row.attempts.insert(place, attempt),
            (Ok(held), false) if row.attempts[held] == attempt => drop(row.attempts.remove(held)),
            (Ok(_) | Err(_), false) => {}
        }
        if row == before {
            return Ok(());
        }
        if row.attempts.is_empty() {
            self.view.delete(key);
            self.state.fences = self.state.fences.saturating_sub(1);
        } else {
            self.view.put(key, row.to_record());
            self.state.fences += u32::from(before.attempts.is_empty());
        }
        Ok(())
    }

    /// Rule 7: the sequence goes on counting and the hash goes on chaining under the new incarnation.
    fn raise_incarnation(&mut self, to: Incarnation) {
        self.state.incarnation = self.state.incarnation.max(to);
    }

    /// Whether a bucket's mutations are refused (rule 18).
    fn is_fenced(&self, bucket: BucketId) -> Result<bool, MachineError> {
        let holds = self.state.fences > 0 && !self.plant.has(Planted::FenceIgnored);
        Ok(holds && queries::is_fenced(self.view, bucket)?)
    }

    /// The place in the own log that the next entry gets.
    fn next_place(&self) -> OriginCursor {
        OriginCursor { incarnation: self.state.incarnation, sequence: self.state.next }
    }

    /// Appends an own mutation to the log, with the cursors as of now (rule 16).
    fn append_log(&mut self, stamp: Stamp, mutation: Bytes) {
        let place = self.next_place();
        let entry = LogEntry {
            stamp,
            incarnation: place.incarnation,
            sequence: place.sequence,
            cursors: self.state.cursors.clone(),
            mutation,
        };
        let encoded = entry.encode();
        let hash = self.state.head.chain(&encoded);
        let mut row = Vec::with_capacity(LOG_HASH_LENGTH + encoded.len());
        row.extend_from_slice(&hash.0);
        row.extend_from_slice(&encoded);
        self.view.put(keys::log(stamp.datacenter, place.incarnation, place.sequence), row);
        self.state.head = hash;
        self.state.head_incarnation = place.incarnation;
        self.state.next = place.sequence.next();
        self.stamped(stamp);
    }

    /// An own stamp has been used: later ones must be above it (rule 9), so it is closed as well.
    fn stamped(&mut self, stamp: Stamp) {
        self.close(stamp.timestamp);
    }
}

#[cfg(test)]
mod tests;
