//! The healed phase: every fault ends, and within a bound everything must have come everywhere (C8). Then the last
//! checks are made.
//!
//! Invariant: after a restored disk only what rule 7 promises is demanded of that datacenter's log, until full sync
//! exists: a peer has the same history, or its stream is held and says so.

use std::collections::BTreeMap;

use meridian_index::{Condition, queries};
use meridian_replicator::{HoldReason, StreamState};
use meridian_types::{Stamp, Timestamp};

use crate::bucket_deletion::MORTAL;
use crate::datacenter::{Place, SYNC_MS_MAX};
use crate::proposer::unreadable;
use crate::rng::mix;
use crate::workload::{Kind, State};
use crate::world::{Event, World};
use crate::{Checked, DATACENTERS, NODES, Violation};

/// Everything is everywhere so long after the last fault, at the latest: the longest hold of a stream, the furthest
/// clock, and some.
pub const LIVENESS_MS_MAX: u64 = 30_000;

/// A run ends when all that was written so long before the heal has settled. Later writes have in any case: it is the same
/// code, and each run would be longer.
const SETTLED_BEFORE_HEAL_MS: u64 = 2_000;

impl World {
    pub fn heal(&mut self) {
        self.healed_at_ms = Some(self.now_ms);
        self.network.heal();
        for datacenter in 0..DATACENTERS {
            self.datacenters[datacenter].sync_ms_max = SYNC_MS_MAX;
            for node in 0..NODES {
                let subject = &mut self.datacenters[datacenter].nodes[node];
                subject.offset_ms = subject.offset_base_ms;
            }
        }
    }

    /// Whether the run is over: one more write of each datacenter has been acknowledged, and all is everywhere.
    pub fn has_converged(&mut self) -> Checked<bool> {
        let Some(healed_at_ms) = self.healed_at_ms else { return Ok(false) };
        let mut acknowledged = 0;
        for datacenter in 0..DATACENTERS {
            let of_mine = |operation: &&crate::workload::Operation| {
                operation.after_heal
                    && operation.datacenter == datacenter
                    && operation.kind == Kind::Put(Condition::None)
            };
            let mine: Vec<State> = self.operations.iter().filter(of_mine).map(|operation| operation.state).collect();
            if mine.iter().any(|state| matches!(state, State::Acknowledged(_))) {
                acknowledged += 1;
            } else if !mine.contains(&State::Running) && self.serves(datacenter) {
                self.start(datacenter, Kind::Put(Condition::None), (0, datacenter));
            }
        }
        if acknowledged < DATACENTERS || self.operations.iter().any(|operation| operation.state == State::Running) {
            return Ok(false);
        }
        Ok(self.lag(healed_at_ms)?.is_none())
    }

    /// What is not everywhere yet.
    pub fn lag(&self, healed_at_ms: u64) -> Checked<Option<String>> {
        let healed = Timestamp::from_unix_ms(crate::node::START_UNIX_MS + healed_at_ms);
        for datacenter in 0..DATACENTERS {
            for source in (0..DATACENTERS).filter(|source| *source != datacenter) {
                for group in 0..=self.partitions {
                    if self.is_held_after_restore(datacenter, source, group) {
                        continue;
                    }
                    let kv = &self.datacenters[datacenter].groups[group].kv;
                    let cursor = queries::cursor(kv, self.datacenters[source].id).map_err(unreadable)?;
                    let head = self.head(Place { datacenter: source, group })?;
                    if cursor.position != head.position || cursor.applied_through < healed {
                        let state = self.datacenters[datacenter].sources[source].lanes[group].stream.state();
                        return Ok(Some(format!(
                            "{source}→{datacenter} group {group}: {cursor:?} of {head:?}, {state:?}"
                        )));
                    }
                }
                if self.datacenters[source].restored {
                    continue; // its volumes may be shorter than their mirrors, whose watermark then stands, as it should
                }
                let watermark = &self.datacenters[datacenter].sources[source].watermark;
                if watermark.value() < healed {
                    let held_by = watermark.held_by();
                    return Ok(Some(format!(
                        "{source}→{datacenter}: W_data {:?} held by {held_by:?}",
                        watermark.value()
                    )));
                }
            }
            let stable = self.datacenters[datacenter].stable.times();
            let wanted = Timestamp::from_unix_ms(healed.unix_ms() - SETTLED_BEFORE_HEAL_MS);
            let is_restored = self.datacenters.iter().any(|datacenter| datacenter.restored);
            if !is_restored && (stable.meta < healed || stable.settled < wanted) {
                return Ok(Some(format!("{datacenter} knows of {stable:?}")));
            }
        }
        Ok(None)
    }

    /// Rule 7: the source went back in time, and this stream has noticed.
    fn is_held_after_restore(&self, datacenter: usize, source: usize, group: usize) -> bool {
        let state = self.datacenters[datacenter].sources[source].lanes[group].stream.state();
        let is_held = matches!(
            state,
            StreamState::Held {
                reason: HoldReason::Refused(_) | HoldReason::NeedsFullSync | HoldReason::BadEntry(_),
                ..
            }
        );
        self.datacenters[source].restored && is_held
    }

    /// The checks at the end of a run that has converged.
    pub fn check_end(&mut self) -> Checked {
        self.tally.add("C8 progress after heal", 1);
        self.check_histories()?;
        self.check_deleted_buckets()?;
        self.check_conflicts()?;
        let is_restored = self.datacenters.iter().any(|datacenter| datacenter.restored);
        if !is_restored {
            self.check_fingerprints()?;
        }
        for datacenter in 0..DATACENTERS {
            let keys: Vec<_> = self.oracle.datacenters[datacenter].rows.keys().copied().collect();
            self.check_rows(datacenter, &keys)?;
            for key in keys {
                let is_gone = self.oracle.deleted(datacenter, key).is_some() && self.row(datacenter, key)?.is_none();
                self.tally.add("C4 tombstones gone at stable time", u64::from(is_gone));
            }
            self.list(datacenter)?;
            self.check_winners(datacenter)?;
        }
        Ok(())
    }

    /// Every stream that is not held stands in its source's own history, hash and all.
    fn check_histories(&mut self) -> Checked {
        for datacenter in 0..DATACENTERS {
            for source in (0..DATACENTERS).filter(|source| *source != datacenter) {
                for group in 0..=self.partitions {
                    let restored = self.datacenters[source].restored;
                    self.tally.add("rule 7 after a restore: refused or the same history", u64::from(restored));
                    if self.is_held_after_restore(datacenter, source, group) {
                        continue;
                    }
                    let id = self.datacenters[source].id;
                    let kv = &self.datacenters[datacenter].groups[group].kv;
                    let at = queries::cursor(kv, id).map_err(unreadable)?.position;
                    let kv = &self.datacenters[source].groups[group].kv;
                    let there = queries::entry_hash_at(kv, id, at.incarnation, at.sequence).map_err(unreadable)?;
                    if there != Some(at.hash) {
                        let what = format!("{datacenter} follows {source} at {at:?}, where {source} has {there:?}");
                        return Err(Violation::new("C3 (rule 7)", what));
                    }
                }
            }
        }
        Ok(())
    }

    fn check_conflicts(&mut self) -> Checked {
        let is_restored = self.datacenters.iter().any(|datacenter| datacenter.restored);
        for datacenter in 0..DATACENTERS {
            for group in 0..self.partitions {
                let kv = &self.datacenters[datacenter].groups[group].kv;
                let recorded = queries::conflicts(kv, None, usize::MAX).map_err(unreadable)?;
                let mut pairs = BTreeMap::new();
                for row in recorded {
                    if let meridian_index::ConflictRow::Object { winner, loser, .. } = row {
                        pairs.insert(loser, winner);
                    }
                }
                self.tally.add("conflicts are the concurrent losers", 1);
                self.tally.add("… conflicts recorded", pairs.len() as u64);
                let expected = &self.oracle.datacenters[datacenter].groups[group].conflicts;
                // A datacenter on old disks may write without knowing a delete that all had, and that was let go since.
                let is_missing_rightly = |(loser, _): &(&Stamp, &Stamp)| {
                    is_restored && !pairs.contains_key(*loser) && self.oracle.is_delete(**loser)
                };
                let expected: BTreeMap<Stamp, Stamp> =
                    expected.iter().filter(|pair| !is_missing_rightly(pair)).map(|(l, w)| (*l, *w)).collect();
                if pairs != expected {
                    let missing: Vec<_> = expected.iter().filter(|(loser, _)| !pairs.contains_key(*loser)).collect();
                    let other: Vec<_> = pairs.iter().filter(|(l, w)| expected.get(*l) != Some(*w)).collect();
                    let what = format!(
                        "datacenter {datacenter} group {group} does not record {missing:?} and records {other:?} (loser, winner)"
                    );
                    return Err(Violation::new("promise 4 (rule 16)", what));
                }
            }
        }
        Ok(())
    }

    fn check_fingerprints(&mut self) -> Checked {
        let mut prints = Vec::new();
        for datacenter in 0..DATACENTERS {
            prints.push(self.fingerprint(datacenter)?);
        }
        self.tally.add("C3 equal fingerprints", 1);
        if prints.windows(2).any(|pair| pair[0] != pair[1]) {
            return Err(Violation::new("C3", format!("fingerprints differ: {prints:x?}")));
        }
        self.note(prints[0], 3);
        Ok(())
    }

    /// Of all that a client of a datacenter can see.
    fn fingerprint(&self, datacenter: usize) -> Checked<u64> {
        let mut print = 0;
        let mut add = |bytes: &[u8]| {
            print = bytes.iter().fold(mix(print ^ bytes.len() as u64), |print, byte| mix(print ^ u64::from(*byte)));
        };
        for bucket in 0..self.buckets.len() {
            for (item, etag) in self.list_all(datacenter, bucket, "", None, 5)? {
                add(item.as_bytes());
                add(etag.unwrap_or_default().as_bytes());
            }
            for key in 0..self.keys.len() {
                // A tombstone may be gone in one datacenter and not yet in another.
                if let Some(version) = self.row(datacenter, (bucket, key))?.filter(|row| row.kind.is_visible()) {
                    add(&version.stamp.to_bytes());
                }
            }
        }
        let catalog = &self.datacenters[datacenter].groups[self.partitions].kv;
        for row in queries::buckets(catalog).map_err(unreadable)? {
            add(format!("{row:?}").as_bytes());
        }
        Ok(print)
    }

    /// C2: what was acknowledged is not above what stands; what was refused has not happened.
    fn check_winners(&mut self, datacenter: usize) -> Checked {
        for (operation_index, operation) in self.operations.iter().enumerate() {
            let has_happened = self.oracle.commits.contains_key(&operation_index);
            if operation.state == State::Refused && has_happened {
                return Err(Violation::new("C2", format!("refused, and yet committed: {operation:?}")));
            }
            let State::Acknowledged(stamp) = operation.state else { continue };
            let (origin, group) = (operation.datacenter, operation.group);
            if origin != datacenter && self.is_held_after_restore(datacenter, origin, group) {
                continue;
            }
            self.tally.add("C2 acknowledged <= winner, at the end", 1);
            if operation.key.0 >= MORTAL && operation.group == self.partitions {
                continue; // a later deletion may have been stamped below; what it left is checked by itself
            }
            let winner = match operation.kind {
                Kind::CreateBucket | Kind::UpdateBucket => {
                    let name = self.buckets[operation.key.0].name.parse().expect("a valid name");
                    let catalog = &self.datacenters[datacenter].groups[self.partitions].kv;
                    queries::bucket(catalog, &name).map_err(unreadable)?.map(|row| row.updated)
                }
                _ => match self.row(datacenter, operation.key)? {
                    Some(row) => Some(row.stamp),
                    // A tombstone is dropped once all have it.
                    None => self.oracle.deleted(datacenter, operation.key),
                },
            };
            if winner.is_none_or(|winner| winner < stamp) {
                let what = format!("{stamp} was acknowledged, {datacenter} shows {winner:?}: {operation:?}");
                return Err(Violation::new("C2", what));
            }
        }
        Ok(())
    }

    /// The first events of a run.
    pub fn start_run(&mut self) {
        for datacenter in 0..DATACENTERS {
            for group in 0..=self.partitions {
                self.schedule(1, Event::Election { place: Place { datacenter, group }, term: 0 });
            }
            self.schedule(10 + 300 * datacenter as u64, Event::CloseTick { datacenter });
            self.schedule(300, Event::StableTick { datacenter });
            for source in (0..DATACENTERS).filter(|source| *source != datacenter) {
                self.schedule(20, Event::VolumesPoll { datacenter, source });
            }
        }
        self.schedule(30, Event::NextOperation);
        self.schedule(100, Event::Probe);
        self.start_sessions();
        self.schedule_faults();
        self.schedule_join();
    }
}
