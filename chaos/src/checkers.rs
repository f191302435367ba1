//! The checks at every step: each commit against the oracle, each stamp against time, each page against the rows.
//!
//! Invariant: what is expected comes from the oracle and from what was asked, never from the state that is judged.

use std::collections::BTreeSet;

use meridian_index::{Condition, Operation as IndexOperation, Outcome};
use meridian_replicator::OriginCursor;
use meridian_types::limits::CLOCK_SKEW_MS_MAX_DEFAULT;
use meridian_types::{Sequence, Stamp, Timestamp};

use crate::bucket_deletion::MORTAL;
use crate::datacenter::Place;
use crate::group::Request;
use crate::node::START_UNIX_MS;
use crate::oracle::{KeyIndex, Mutation};
use crate::workload::etag_of;
use crate::world::World;
use crate::{Checked, DATACENTERS, Violation};

/// How far a stamp may lie beyond the furthest believed clock: a jump that is within the limit, the persisted bound
/// of half of it, and peers that agree within it once more.
const STAMP_AHEAD_MS_MAX: i64 = 2 * CLOCK_SKEW_MS_MAX_DEFAULT as i64 + CLOCK_SKEW_MS_MAX_DEFAULT as i64 / 2;

impl World {
    /// C11: a stamp that was given lies within the skew of what its clock may believe.
    pub fn check_stamp(&mut self, stamp: Timestamp) -> Checked {
        self.tally.add("C11 stamp monotone and bounded", 1);
        let limit =
            (START_UNIX_MS + self.now_ms).saturating_add_signed(self.believed_offset_ms_max + STAMP_AHEAD_MS_MAX);
        if stamp.unix_ms() > limit {
            let ahead_ms = stamp.unix_ms() - START_UNIX_MS - self.now_ms;
            return Err(Violation::new("C11", format!("stamp {stamp} is {ahead_ms} ms ahead of true time")));
        }
        Ok(())
    }

    /// C11: no stamp further ahead than the skew is merged (promise 7).
    pub fn check_remote_stamp(&mut self, last: Option<Stamp>, wall: Timestamp) -> Checked {
        let Some(last) = last else { return Ok(()) };
        self.tally.add("C11 remote stamp within the skew", 1);
        let ahead_ms = last.timestamp.ms_since(wall);
        if ahead_ms > CLOCK_SKEW_MS_MAX_DEFAULT {
            return Err(Violation::new("C11", format!("{last} is merged {ahead_ms} ms ahead of the clock there")));
        }
        Ok(())
    }

    /// The own log is as long as the oracle's: a mutation is in it exactly once.
    pub fn check_log(&self, place: Place) -> Checked {
        let state = self.state(place)?;
        let expected = self.oracle.datacenters[place.datacenter].groups[place.group].own_count + 1;
        if state.next != Sequence(expected) {
            return Err(Violation::new("C2", format!("{place:?} has {state:?}, expected next is {expected}")));
        }
        Ok(())
    }

    /// C2 and C4: the row of each key is the greatest that was applied here, and no deleted one comes back.
    pub fn check_rows(&mut self, datacenter: usize, keys: &[KeyIndex]) -> Checked {
        for key in keys {
            self.tally.add("C2 row is the greatest applied, each commit", 1);
            let shown = self.row(datacenter, *key)?;
            let model = &self.oracle.datacenters[datacenter];
            if let Some(tombstone) = model.tombstones.get(key) {
                self.tally.add("C4 nothing below a seen tombstone", 1);
                if let Some(back) = shown.as_ref().filter(|row| row.kind.is_visible() && row.stamp <= *tombstone) {
                    let what = format!("{} of {key:?} is back in {datacenter} behind {tombstone}", back.stamp);
                    return Err(Violation::new("C4", what));
                }
            }
            let expected = model.rows.get(key);
            let is_deleted = expected.is_none_or(|mutation| mutation.etag.is_none());
            let shown_etag = shown.as_ref().and_then(|row| row.body()).map(|body| &body.etag);
            let is_right = match (&shown, expected) {
                (None, _) => is_deleted, // a tombstone may go once stable time has passed it
                (Some(row), Some(mutation)) => row.stamp == mutation.stamp && shown_etag == mutation.etag.as_ref(),
                (Some(_), None) => false,
            };
            if !is_right {
                let what = format!("datacenter {datacenter} shows {shown:?} of {key:?}, expected is {expected:?}");
                return Err(Violation::new("C2", what));
            }
        }
        Ok(())
    }

    /// A proposal was applied for the first time: its outcome is the oracle's, and the oracle learns of it.
    pub fn record_commit(&mut self, place: Place, request: &Request, stamp: Stamp, outcome: &Outcome) -> Checked {
        let operation_index = request.operation_index;
        let key = self.operations[operation_index].key;
        let visible = self.oracle.visible(place.datacenter, key).and_then(|mutation| mutation.etag.clone());
        let unexpected = |expected: &str| {
            let what = format!("{:?} got {outcome:?}, expected was {expected}", request.operation);
            Err(Violation::new("C2 (conditions)", what))
        };
        if stamp.timestamp <= request.seen {
            let what = format!("{stamp} is not above its chunks' {}", request.seen);
            return Err(Violation::new("C11 (rule 13)", what));
        }
        if let IndexOperation::Put { condition, .. } | IndexOperation::Delete { condition, .. } = &request.operation
            && *condition != Condition::None
        {
            self.tally.add("C2 condition decided as the oracle does", 1);
            let is_met = match condition {
                Condition::None => true,
                Condition::Absent => visible.is_none(),
                Condition::Etag(wanted) => visible.as_ref().is_some_and(|etag| wanted == "*" || wanted == etag),
                Condition::Matches(_) => return unexpected("no condition that the workload does not make"),
            };
            if matches!(request.operation, IndexOperation::Delete { .. }) && visible.is_none() {
                // A conditional delete of nothing succeeds and changes nothing.
                let is_nothing = matches!(outcome, Outcome::Deleted { existed: false, version: None, .. });
                return if is_nothing { Ok(()) } else { unexpected("nothing") };
            }
            if is_met == (*outcome == Outcome::PreconditionFailed) {
                return unexpected(if is_met { "a change" } else { "a refusal" });
            }
        }
        let etag = match (&request.operation, outcome) {
            (_, Outcome::PreconditionFailed) => return Ok(()),
            (IndexOperation::Put { .. }, Outcome::Stored { stamp: given, replaced, .. })
                if *given == stamp && *replaced == visible.is_some() =>
            {
                Some(etag_of(operation_index, 0))
            }
            (IndexOperation::Delete { .. }, Outcome::Deleted { stamp: given, existed, .. })
                if *given == stamp && *existed == visible.is_some() =>
            {
                None
            }
            (IndexOperation::CompleteUpload { .. }, Outcome::Completed { stamp: given, etag, .. })
                if *given == stamp =>
            {
                Some(etag.clone())
            }
            (IndexOperation::CreateBucket { .. }, Outcome::BucketCreated { existed: false, .. })
            | (IndexOperation::DeleteBucket { .. }, Outcome::BucketDeleted)
            | (IndexOperation::UpdateBucket { .. }, Outcome::BucketUpdated) => None,
            (IndexOperation::Put { .. } | IndexOperation::Delete { .. }, Outcome::Fenced) if key.0 >= MORTAL => {
                return Ok(());
            }
            (IndexOperation::DeleteBucket { .. }, Outcome::BucketGone | Outcome::NoSuchBucket) => return Ok(()),
            (IndexOperation::CreateBucket { .. }, Outcome::BucketCreated { existed: true, .. })
            | (IndexOperation::UpdateBucket { .. }, Outcome::NoSuchBucket)
            | (IndexOperation::CreateUpload { .. }, Outcome::UploadCreated)
            | (IndexOperation::PutPart { .. }, Outcome::PartStored)
            | (IndexOperation::AbortUpload { .. }, Outcome::Aborted) => return Ok(()),
            _ => return unexpected(&format!("a change stamped {stamp}, with {visible:?} there")),
        };
        let own_count = self.oracle.datacenters[place.datacenter].groups[place.group].own_count;
        let incarnation = self.datacenters[place.datacenter].incarnation;
        let mutation = Mutation {
            operation_index,
            key: (place.group != self.partitions).then_some(key),
            stamp,
            origin: place.datacenter,
            etag,
            versioned: self.buckets[key.0].versioned,
            known: [Timestamp::ZERO; DATACENTERS],
        };
        let entry = OriginCursor { incarnation, sequence: Sequence(own_count + 1) };
        let mutation = self.oracle.commit(place.group, entry, mutation)?;
        self.note(mutation.stamp.timestamp.raw(), u64::from(mutation.etag.is_some()));
        Ok(())
    }

    /// C7: a LIST holds every visible object of the bucket under its prefix, and nothing else.
    pub fn check_list(
        &mut self,
        datacenter: usize,
        bucket: usize,
        (prefix, delimiter): (&str, Option<&str>),
        listed: Vec<(String, Option<String>)>,
    ) -> Checked {
        self.tally.add("C7 LIST complete, no phantoms", 1);
        let mut expected: BTreeSet<(String, Option<String>)> = BTreeSet::new();
        for (key_index, key) in self.keys.iter().enumerate() {
            let Some(rest) = key.as_str().strip_prefix(prefix) else { continue };
            let Some(mutation) = self.oracle.visible(datacenter, (bucket, key_index)) else { continue };
            match delimiter.and_then(|delimiter| rest.find(delimiter)) {
                Some(found) => expected.insert((key.as_str()[..prefix.len() + found + 1].to_owned(), None)),
                None => expected.insert((key.as_str().to_owned(), mutation.etag.clone())),
            };
        }
        let expected: Vec<_> = expected.into_iter().collect();
        if listed != expected {
            let what = format!("datacenter {datacenter} lists {listed:?} under {prefix:?}, expected is {expected:?}");
            return Err(Violation::new("C7", what));
        }
        Ok(())
    }
}
