//! The catalog's mutations of buckets.
//!
//! Who may do what is for the gateways; the two phases of a deletion are for the shells (rule 18), and here is its last
//! step. Invariants: a bucket's id derives from its name and completed deletions (rule 17); a bucket's row stays for ever.

use meridian_types::{BucketId, BucketName, Plant, Stamp};

use crate::apply::Apply;
use crate::catalog_rows::{BucketRow, BucketSettings, BucketState, SettingChange, SettingStamp, StoredBucket};
use crate::command::{Mutation, Outcome};
use crate::keys;
use crate::machine::MachineError;
use crate::merge::{LostSetting, merge_bucket};
use crate::queries;
use crate::rows::{ConflictRow, Row};

impl<P: Plant> Apply<'_, '_, P> {
    pub(super) fn create_bucket(
        &mut self,
        stamp: Stamp,
        name: BucketName,
        settings: BucketSettings,
        owner: String,
    ) -> Result<Outcome, MachineError> {
        let deletions = match queries::bucket(self.view, &name)? {
            Some(row) if row.is_active() => return Ok(Outcome::BucketCreated { bucket: row.id, existed: true }),
            Some(row) => row.deletions,
            None => 0,
        };
        let id = BucketId::derive(&name, deletions); // rule 17: no datacenter needs to be asked
        let state = BucketState::Active;
        let set = settings.differences(&BucketSettings::default());
        let changes = set.into_iter().map(|name| (name, self.setting_stamp(stamp))).collect();
        let (created, updated) = (stamp, stamp);
        self.change_bucket(BucketRow { name, id, deletions, created, updated, owner, state, settings, changes })?;
        Ok(Outcome::BucketCreated { bucket: id, existed: false })
    }

    pub(super) fn delete_bucket(
        &mut self,
        stamp: Stamp,
        name: &BucketName,
        bucket: BucketId,
    ) -> Result<Outcome, MachineError> {
        let Some(row) = queries::bucket(self.view, name)? else { return Ok(Outcome::NoSuchBucket) };
        if !row.is_active() || row.id != bucket {
            return Ok(Outcome::BucketGone);
        }
        let deletions = row.deletions + 1;
        self.change_bucket(BucketRow { deletions, updated: stamp, state: BucketState::Deleted, ..row })?;
        Ok(Outcome::BucketDeleted)
    }

    pub(super) fn update_bucket(
        &mut self,
        stamp: Stamp,
        bucket: BucketId,
        settings: BucketSettings,
    ) -> Result<Outcome, MachineError> {
        let Some(mut row) = queries::bucket_by_id(self.view, bucket)? else { return Ok(Outcome::NoSuchBucket) };
        if !row.is_active() {
            return Ok(Outcome::BucketGone);
        }
        for name in row.settings.differences(&settings) {
            row.changes.insert(name, self.setting_stamp(stamp));
        }
        self.change_bucket(BucketRow { updated: stamp, settings, ..row })?;
        Ok(Outcome::BucketUpdated)
    }

    pub(super) fn change_setting(
        &mut self,
        stamp: Stamp,
        bucket: BucketId,
        change: SettingChange,
    ) -> Result<Outcome, MachineError> {
        let Some(mut row) = queries::bucket_by_id(self.view, bucket)? else { return Ok(Outcome::NoSuchBucket) };
        if !row.is_active() {
            return Ok(Outcome::BucketGone);
        }
        let name = change.name();
        row.settings.change(change);
        row.changes.insert(name, self.setting_stamp(stamp));
        self.change_bucket(BucketRow { updated: stamp, ..row })?;
        Ok(Outcome::BucketUpdated)
    }

    fn setting_stamp(&self, stamp: Stamp) -> SettingStamp {
        SettingStamp { stamp, origin: self.next_place(), cursors: self.state.cursors.clone() }
    }

    /// Writes an own change of a bucket's row, stamped `row.updated`, to the row and to the log.
    fn change_bucket(&mut self, row: BucketRow) -> Result<(), MachineError> {
        let (stamp, origin, cursors) = (row.updated, self.next_place(), self.state.cursors.clone());
        let mutation = Mutation::Bucket(row);
        self.append_log(stamp, mutation.encode());
        let Mutation::Bucket(row) = mutation else { unreachable!("made above") };
        self.place_bucket(StoredBucket { row, origin, cursors })
    }

    /// Merges a bucket row, own or remote. Concurrent creates become one bucket; what did not stay is recorded
    /// (rule 17).
    pub(super) fn place_bucket(&mut self, incoming: StoredBucket) -> Result<(), MachineError> {
        let existing = queries::stored_bucket(self.view, &incoming.row.name)?;
        let outcome = merge_bucket(existing.as_ref(), &incoming);
        let row = &outcome.merged.row;
        if let Some((winner, lost)) = outcome.lost {
            let (name, id, loser) = (lost.name.clone(), lost.id, lost.updated);
            let conflict = ConflictRow::Bucket { name, winner, loser, lost: Box::new(lost) };
            self.record_conflict(id, "", &conflict)?;
        }
        for LostSetting { setting, winner, loser } in outcome.lost_settings {
            let conflict = ConflictRow::Setting { name: row.name.clone(), setting, winner, loser };
            self.record_conflict(row.id, &setting.to_string(), &conflict)?;
        }
        self.view.put(keys::bucket_name(row.id, &row.name), Vec::new());
        self.view.put(keys::bucket(&row.name), outcome.merged.to_record());
        Ok(())
    }
}
