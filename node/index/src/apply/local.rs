//! Local proposals: each is applied once under its request id, with a stamp above everything applied before, or not at
//! all.
//!
//! Invariants: an outcome but `Restamp` is remembered in the same write set (rule 11); a proposal that is answered with
//! `Restamp` has changed nothing.

use meridian_types::{Plant, Planted, RequestId, UploadId};
use serde::{Deserialize, Serialize};

use crate::apply::Apply;
use crate::apply::uploads::Choice;
use crate::command::{Operation, Outcome, Proposal};
use crate::keys;
use crate::machine::{MachineError, REQUESTS_REMEMBERED_MAX, UPLOADS_REMEMBERED_MAX};
use crate::queries;
use crate::rows::{Row, UploadRow, row};

/// What the memory of requests and completed uploads holds. Discriminants are on disk: never reuse one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Remembered {
    Outcome(Outcome),
    /// In a slot of the ring: who takes it.
    Request(RequestId),
    Upload(UploadId),
}

row!(Remembered, RememberedRequest, 1);

impl<P: Plant> Apply<'_, '_, P> {
    pub(super) fn local(&mut self, proposals: Vec<Proposal>) -> Result<Vec<Outcome>, MachineError> {
        proposals.into_iter().map(|proposal| self.propose(proposal)).collect()
    }

    fn propose(&mut self, proposal: Proposal) -> Result<Outcome, MachineError> {
        let Proposal { request, stamp, operation } = proposal;
        // Rule 11: a retry whose first try was applied after all must not be applied again.
        if let Some(outcome) = self.remembered(&keys::request(request))? {
            return Ok(outcome);
        }
        if stamp.datacenter != self.datacenter() || operation.is_for_catalog() != self.machine.partition.is_catalog() {
            return Ok(Outcome::Misdirected);
        }
        // Rule 9: proposals may commit in another order than they were stamped, a new leader's clock may be slow, and a
        // remote row may have been merged since. Uploads take part, because their stamps order the reclaim queue.
        let is_late = stamp.timestamp <= self.state.greatest;
        if is_late && !self.plant.has(Planted::StampOrderNotChecked) {
            return Ok(Outcome::Restamp { above: self.state.greatest });
        }
        let outcome = match operation {
            Operation::Put { bucket, key, mode, body, condition } => {
                self.put(stamp, bucket, key, mode, body, &condition)?
            }
            Operation::Delete { bucket, key, mode, condition } => self.delete(stamp, bucket, key, mode, &condition)?,
            Operation::CreateUpload { bucket, key, upload, attributes, initiated, checksum } => {
                let row = UploadRow { key, upload, attributes, initiated, checksum };
                self.create_upload(stamp, bucket, row)?
            }
            Operation::PutPart { bucket, key, upload, number, part } => {
                self.put_part(stamp, bucket, &key, upload, number, part)?
            }
            Operation::CompleteUpload { bucket, key, upload, parts, mode, condition, checksums } => {
                let choice = Choice { parts, mode, condition, checksums };
                self.complete_upload(stamp, bucket, key, upload, choice)?
            }
            Operation::AbortUpload { bucket, key, upload } => self.abort_upload(stamp, bucket, &key, upload)?,
            Operation::CreateBucket { name, settings, owner } => self.create_bucket(stamp, name, settings, owner)?,
            Operation::DeleteBucket { name, bucket } => self.delete_bucket(stamp, &name, bucket)?,
            Operation::UpdateBucket { bucket, settings } => self.update_bucket(stamp, bucket, settings)?,
            Operation::ChangeBucket { bucket, change } => self.change_setting(stamp, bucket, change)?,
            Operation::ChangeUser { name, change } => self.change_user(stamp, name, change)?,
            Operation::ChangeGroup { name, change } => self.change_group(stamp, name, change)?,
            Operation::DeleteVersion { bucket, key, version, condition, bypass_governance } => {
                self.delete_version(stamp, bucket, key, version, &condition, bypass_governance)?
            }
            Operation::Annotate { bucket, key, version, change, bypass_governance } => {
                self.annotate(stamp, bucket, key, version, change, bypass_governance)?
            }
        };
        self.remember_request(request, &outcome)?;
        Ok(outcome)
    }

    /// The outcome remembered under a key of the memory.
    pub(super) fn remembered(&self, key: &[u8]) -> Result<Option<Outcome>, MachineError> {
        match queries::read(self.view, key)? {
            None => Ok(None),
            Some(Remembered::Outcome(outcome)) => Ok(Some(outcome)),
            Some(other) => Err(MachineError::Invariant(format!("{other:?} where an outcome is remembered"))),
        }
    }

    fn remember_request(&mut self, request: RequestId, outcome: &Outcome) -> Result<(), MachineError> {
        let slot = ring_slot(self.state.requests, REQUESTS_REMEMBERED_MAX);
        if self.state.requests >= REQUESTS_REMEMBERED_MAX
            && let Some(Remembered::Request(oldest)) = queries::read(self.view, &keys::request_slot(slot))?
        {
            self.view.delete(keys::request(oldest));
        }
        self.view.put(keys::request_slot(slot), Remembered::Request(request).to_record());
        self.view.put(keys::request(request), Remembered::Outcome(outcome.clone()).to_record());
        self.state.requests += 1;
        Ok(())
    }

    /// Rule 22: a repeated Complete gets this answer, whatever has happened to the key since.
    pub(super) fn remember_completion(&mut self, upload: UploadId, outcome: &Outcome) -> Result<(), MachineError> {
        let slot = ring_slot(self.state.completions, UPLOADS_REMEMBERED_MAX);
        if self.state.completions >= UPLOADS_REMEMBERED_MAX
            && let Some(Remembered::Upload(oldest)) = queries::read(self.view, &keys::completion_slot(slot))?
        {
            self.view.delete(keys::completion(oldest));
        }
        self.view.put(keys::completion_slot(slot), Remembered::Upload(upload).to_record());
        self.view.put(keys::completion(upload), Remembered::Outcome(outcome.clone()).to_record());
        self.state.completions += 1;
        Ok(())
    }
}

/// The slot of the `count`th entry of a ring.
fn ring_slot(count: u64, slots: u64) -> u32 {
    u32::try_from(count % slots).expect("rings have fewer than 2^32 slots")
}

impl Operation {
    /// Whether it belongs to the catalog's group rather than to a partition's.
    fn is_for_catalog(&self) -> bool {
        match self {
            Operation::Put { .. }
            | Operation::Delete { .. }
            | Operation::CreateUpload { .. }
            | Operation::PutPart { .. }
            | Operation::CompleteUpload { .. }
            | Operation::AbortUpload { .. }
            | Operation::DeleteVersion { .. }
            | Operation::Annotate { .. } => false,
            Operation::CreateBucket { .. }
            | Operation::DeleteBucket { .. }
            | Operation::UpdateBucket { .. }
            | Operation::ChangeBucket { .. }
            | Operation::ChangeUser { .. }
            | Operation::ChangeGroup { .. } => true,
        }
    }
}
