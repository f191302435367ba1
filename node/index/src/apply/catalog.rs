//! The catalog's mutations: buckets and users.
//!
//! Who may do what is for the gateways; the two phases of a deletion are for the shells (rule 18), and here is its last
//! step. Invariants: a bucket's id derives from its name and completed deletions (rule 17); a bucket's row stays for ever.

use meridian_types::{BucketId, BucketName, Plant, Stamp};

use crate::apply::Apply;
use crate::catalog_rows::{BucketRow, BucketSettings, BucketState, StoredBucket, UserRow};
use crate::command::{Mutation, Outcome};
use crate::keys;
use crate::machine::MachineError;
use crate::merge::{merge_bucket, merge_user};
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
        self.change_bucket(BucketRow { name, id, deletions, created: stamp, updated: stamp, owner, state, settings })?;
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
        let Some(row) = queries::bucket_by_id(self.view, bucket)? else { return Ok(Outcome::NoSuchBucket) };
        if !row.is_active() {
            return Ok(Outcome::BucketGone);
        }
        self.change_bucket(BucketRow { updated: stamp, settings, ..row })?;
        Ok(Outcome::BucketUpdated)
    }

    pub(super) fn put_user(&mut self, stamp: Stamp, user: UserRow) -> Result<Outcome, MachineError> {
        if !is_valid_user(&user) {
            return Ok(Outcome::InvalidUser);
        }
        let mutation = Mutation::User(UserRow { updated: stamp, ..user });
        self.append_log(stamp, mutation.encode());
        let Mutation::User(user) = mutation else { unreachable!("made above") };
        self.place_user(user)?;
        Ok(Outcome::UserStored)
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
        for (winner, lost) in outcome.lost {
            let (name, id, loser) = (lost.name.clone(), lost.id, lost.updated);
            let conflict = ConflictRow::Bucket { name, winner, loser, lost: Box::new(lost) };
            self.record_conflict(id, "", &conflict)?;
        }
        self.view.put(keys::bucket_name(row.id, &row.name), Vec::new());
        self.view.put(keys::bucket(&row.name), outcome.merged.to_record());
        Ok(())
    }

    /// Merges a user row, own or remote, and keeps the look-up by access key in step.
    pub(super) fn place_user(&mut self, incoming: UserRow) -> Result<(), MachineError> {
        let existing = queries::user_row(self.view, &incoming.name)?;
        if !merge_user(self.plant, existing.as_ref(), &incoming) {
            return Ok(());
        }
        for key in existing.iter().flat_map(|user| &user.access_keys) {
            self.view.delete(keys::access_key(&key.access_key, &incoming.name));
        }
        for key in &incoming.access_keys {
            self.view.put(keys::access_key(&key.access_key, &incoming.name), Vec::new());
        }
        self.view.put(keys::user(&incoming.name), incoming.to_record());
        Ok(())
    }
}

/// Whether a user's name and access keys can stand in keys.
pub(super) fn is_valid_user(user: &UserRow) -> bool {
    let is_valid = |text: &str| !text.is_empty() && !text.contains('\0');
    is_valid(&user.name) && user.access_keys.iter().all(|key| is_valid(&key.access_key))
}
