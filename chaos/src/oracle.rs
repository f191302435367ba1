//! What must be true, kept apart from what is: each datacenter's mutations in the order of their commits, the row that
//! each key must show there, the losers that must be recorded.
//!
//! It is fed with proposals and answers, and never reads a row of the state machines. Invariants: a mutation enters when
//! its command is applied at its origin, once; what a datacenter has applied is a set of stamps, so that renumbered
//! histories can't hide.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use meridian_index::Outcome;
use meridian_replicator::OriginCursor;
use meridian_types::{RequestId, Stamp, Timestamp};

use crate::{Checked, DATACENTERS, Violation};

/// A key: the index of its bucket and its own.
pub type KeyIndex = (usize, usize);

/// One committed mutation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutation {
    pub operation_index: usize,
    /// `None` in the catalog.
    pub key: Option<KeyIndex>,
    pub stamp: Stamp,
    /// The index of the stamp's datacenter.
    pub origin: usize,
    /// The ETag, or nothing of a delete.
    pub etag: Option<String>,
    pub versioned: bool,
    /// The greatest stamp of each datacenter's log that its group had applied at its origin.
    pub known: [Timestamp; DATACENTERS],
}

/// What a datacenter must hold.
#[derive(Debug, Clone, Default)]
pub struct DatacenterModel {
    pub groups: Vec<GroupModel>,
    /// The winner of each key.
    pub rows: BTreeMap<KeyIndex, Rc<Mutation>>,
    /// The greatest delete that each key has shown here.
    pub tombstones: BTreeMap<KeyIndex, Stamp>,
}

#[derive(Debug, Clone, Default)]
pub struct GroupModel {
    /// Own entries of this history.
    pub own_count: u64,
    /// Stamps of all mutations that are applied here.
    pub applied: BTreeSet<Stamp>,
    pub known: [Timestamp; DATACENTERS],
    /// Loser → winner.
    pub conflicts: BTreeMap<Stamp, Stamp>,
    pub outcomes: BTreeMap<RequestId, Outcome>,
}

#[derive(Debug, Default)]
pub struct Oracle {
    pub datacenters: Vec<DatacenterModel>,
    /// Entries by (origin, group) and place; never cut, because peers may hold what their origin forgot.
    logs: BTreeMap<(usize, usize, OriginCursor), Rc<Mutation>>,
    /// Stamps that each operation was committed under.
    pub commits: BTreeMap<usize, BTreeSet<Stamp>>,
    /// The operation that was committed under a stamp.
    pub by_stamp: BTreeMap<Stamp, usize>,
    deletes: BTreeSet<Stamp>,
}

impl Oracle {
    pub fn new(groups: usize) -> Self {
        let datacenter = || DatacenterModel {
            groups: (0..groups).map(|_| GroupModel::default()).collect(),
            ..DatacenterModel::default()
        };
        Self { datacenters: (0..DATACENTERS).map(|_| datacenter()).collect(), ..Self::default() }
    }

    pub fn visible(&self, datacenter: usize, key: KeyIndex) -> Option<&Rc<Mutation>> {
        self.datacenters[datacenter].rows.get(&key).filter(|mutation| mutation.etag.is_some())
    }

    /// The stamp of the delete that a key must show in a datacenter.
    pub fn deleted(&self, datacenter: usize, key: KeyIndex) -> Option<Stamp> {
        let row = self.datacenters[datacenter].rows.get(&key);
        row.filter(|mutation| mutation.etag.is_none()).map(|mutation| mutation.stamp)
    }

    /// Whether the mutation under a stamp was a delete.
    pub fn is_delete(&self, stamp: Stamp) -> bool {
        self.deletes.contains(&stamp)
    }

    /// An own mutation is committed at its origin as the next entry of `group`'s log.
    ///
    /// # Errors
    /// The operation has been committed before, or its stamp is not above what could be read here.
    pub fn commit(&mut self, group: usize, place: OriginCursor, mut mutation: Mutation) -> Checked<Rc<Mutation>> {
        let datacenter = mutation.origin;
        let stamps = self.commits.entry(mutation.operation_index).or_default();
        if !stamps.is_empty() {
            let what =
                format!("operation {} is committed twice: {stamps:?}, {}", mutation.operation_index, mutation.stamp);
            return Err(Violation::new("C2 (rule 11)", what));
        }
        stamps.insert(mutation.stamp);
        self.by_stamp.insert(mutation.stamp, mutation.operation_index);
        if mutation.etag.is_none() {
            self.deletes.insert(mutation.stamp);
        }
        let model = &mut self.datacenters[datacenter];
        if let Some(shown) = mutation.key.and_then(|key| model.rows.get(&key)).filter(|row| row.stamp >= mutation.stamp)
        {
            let what = format!("{} is stamped below {} that it overwrites", mutation.stamp, shown.stamp);
            return Err(Violation::new("C2 (rule 9)", what));
        }
        let group_model = &mut model.groups[group];
        mutation.known = group_model.known;
        group_model.own_count += 1;
        let mutation = Rc::new(mutation);
        self.logs.insert((datacenter, group, place), Rc::clone(&mutation));
        self.apply(datacenter, group, Rc::clone(&mutation))?;
        Ok(mutation)
    }

    /// Entries of `source` are applied in another datacenter; returns their keys.
    ///
    /// # Errors
    /// An entry that its origin never had, or one that was applied before.
    pub fn merge(
        &mut self,
        datacenter: usize,
        group: usize,
        source: usize,
        places: &[OriginCursor],
    ) -> Checked<Vec<KeyIndex>> {
        let mut keys = Vec::new();
        for place in places {
            let Some(mutation) = self.logs.get(&(source, group, *place)).cloned() else {
                let what =
                    format!("entry {place} of datacenter {source} is applied in {datacenter} and never was there");
                return Err(Violation::new("C3", what));
            };
            keys.extend(mutation.key);
            self.apply(datacenter, group, mutation)?;
        }
        Ok(keys)
    }

    fn apply(&mut self, datacenter: usize, group: usize, mutation: Rc<Mutation>) -> Checked {
        let model = &mut self.datacenters[datacenter];
        let group = &mut model.groups[group];
        if !group.applied.insert(mutation.stamp) {
            return Err(Violation::new("C3", format!("{} is applied twice in {datacenter}", mutation.stamp)));
        }
        let known = &mut group.known[mutation.origin];
        *known = (*known).max(mutation.stamp.timestamp);
        let Some(key) = mutation.key else { return Ok(()) };
        if let Some(row) = model.rows.get(&key) {
            let (winner, loser) = if mutation.stamp > row.stamp { (&mutation, row) } else { (row, &mutation) };
            // Rule 16, from what the winner's origin had applied; two deletes lose nothing.
            let unknown = winner.origin != loser.origin && winner.known[loser.origin] < loser.stamp.timestamp;
            if unknown && !mutation.versioned && (winner.etag.is_some() || loser.etag.is_some()) {
                group.conflicts.insert(loser.stamp, winner.stamp);
            }
            if mutation.stamp < row.stamp {
                return Ok(());
            }
        }
        if mutation.etag.is_none() {
            model.tombstones.insert(key, mutation.stamp);
        }
        model.rows.insert(key, mutation);
        Ok(())
    }
}
