//! Multipart uploads: rows of this datacenter alone until a Complete turns them into an object (rule 22).
//!
//! Invariants: parts, Complete and Abort serialise on the upload's row; a part's chunks stand in the part, in the object
//! or in the reclaim queue, in exactly one of them (rule 14).

use std::collections::BTreeMap;

use md5::{Digest, Md5};
use meridian_types::limits::{CHUNKS_IN_ROW_MAX, PART_NUMBER_MAX, PART_SIZE_MIN};
use meridian_types::{BucketId, ObjectKey, Plant, Stamp, UploadId};

use crate::apply::Apply;
use crate::attributes::Attributes;
use crate::command::{Condition, Outcome, PartChoice};
use crate::keys;
use crate::machine::MachineError;
use crate::queries;
use crate::rows::{Checksum, ObjectBody, Part, PartSize, Row, UploadRow, VersionKind, VersionMode};

const MD5_LENGTH: usize = 16;

/// What a Complete asks for.
pub(super) struct Choice {
    pub(super) parts: Vec<PartChoice>,
    pub(super) mode: VersionMode,
    pub(super) condition: Condition,
    pub(super) checksums: Vec<Checksum>,
}

impl<P: Plant> Apply<'_, '_, P> {
    pub(super) fn create_upload(
        &mut self,
        stamp: Stamp,
        bucket: BucketId,
        row: UploadRow,
    ) -> Result<Outcome, MachineError> {
        if row.upload.datacenter() != self.datacenter() {
            return Ok(Outcome::Misdirected);
        }
        if self.is_fenced(bucket)? {
            return Ok(Outcome::Fenced);
        }
        if queries::upload(self.view, bucket, &row.key, row.upload)?.is_none() {
            self.view.put(keys::upload(bucket, &row.key, row.upload), row.to_record());
            self.stamped(stamp);
        }
        Ok(Outcome::UploadCreated)
    }

    pub(super) fn put_part(
        &mut self,
        stamp: Stamp,
        bucket: BucketId,
        key: &ObjectKey,
        upload: UploadId,
        number: u16,
        part: Part,
    ) -> Result<Outcome, MachineError> {
        if self.is_fenced(bucket)? {
            return Ok(Outcome::Fenced);
        }
        if queries::upload(self.view, bucket, key, upload)?.is_none() {
            return Ok(Outcome::NoSuchUpload);
        }
        if !(1..=PART_NUMBER_MAX).contains(&number) {
            return Ok(Outcome::InvalidPart(number));
        }
        if part.chunks.len() > CHUNKS_IN_ROW_MAX {
            return Ok(Outcome::TooLarge);
        }
        let row = keys::part(bucket, key, upload, number);
        if let Some(replaced) = queries::read(self.view, &row)? {
            self.queue_part(stamp, bucket, key, upload, number, replaced);
        }
        self.view.put(row, part.to_record());
        self.stamped(stamp);
        Ok(Outcome::PartStored)
    }

    pub(super) fn complete_upload(
        &mut self,
        stamp: Stamp,
        bucket: BucketId,
        key: ObjectKey,
        upload: UploadId,
        choice: Choice,
    ) -> Result<Outcome, MachineError> {
        let Choice { parts: choices, mode, condition, checksums } = choice;
        if let Some(answer) = self.remembered(&keys::completion(upload))? {
            return Ok(answer);
        }
        if self.is_fenced(bucket)? {
            return Ok(Outcome::Fenced);
        }
        let Some(row) = queries::upload(self.view, bucket, &key, upload)? else { return Ok(Outcome::NoSuchUpload) };
        let mut stored: BTreeMap<u16, Part> =
            queries::parts(self.view, bucket, &key, upload, 0, usize::MAX)?.into_iter().collect();
        let chosen = match choose(&mut stored, &choices) {
            Ok(chosen) => chosen,
            Err(outcome) => return Ok(outcome),
        };
        let before = self.before(bucket, &key)?;
        if !before.meets(&condition) {
            return Ok(Outcome::PreconditionFailed);
        }
        let numbers: Vec<u16> = chosen.iter().map(|(number, _)| *number).collect();
        let body = match assemble(chosen, row.attributes, checksums) {
            Ok(body) => body,
            Err(outcome) => return Ok(outcome),
        };
        let (etag, size, version) = (body.etag.clone(), body.size, mode.version_id(stamp));
        let answer = Outcome::Completed { stamp, etag, size, version, checksums: body.checksums.clone() };
        if !self.store(stamp, bucket, key.clone(), mode, VersionKind::Object(body), before)? {
            return Ok(Outcome::TooLarge);
        }
        for number in numbers {
            self.view.delete(keys::part(bucket, &key, upload, number));
        }
        self.drop_upload(stamp, bucket, &key, upload, stored);
        self.remember_completion(upload, &answer)?;
        Ok(answer)
    }

    /// Not refused by a fence: it adds nothing to the bucket.
    pub(super) fn abort_upload(
        &mut self,
        stamp: Stamp,
        bucket: BucketId,
        key: &ObjectKey,
        upload: UploadId,
    ) -> Result<Outcome, MachineError> {
        if queries::upload(self.view, bucket, key, upload)?.is_none() {
            return Ok(Outcome::NoSuchUpload);
        }
        let parts = queries::parts(self.view, bucket, key, upload, 0, usize::MAX)?;
        self.drop_upload(stamp, bucket, key, upload, parts);
        self.stamped(stamp);
        Ok(Outcome::Aborted)
    }

    /// Removes an upload's row, and its remaining parts into the reclaim queue.
    fn drop_upload(
        &mut self,
        stamp: Stamp,
        bucket: BucketId,
        key: &ObjectKey,
        upload: UploadId,
        parts: impl IntoIterator<Item = (u16, Part)>,
    ) {
        self.view.delete(keys::upload(bucket, key, upload));
        for (number, part) in parts {
            self.view.delete(keys::part(bucket, key, upload, number));
            self.queue_part(stamp, bucket, key, upload, number, part);
        }
    }
}

/// Takes the chosen parts out of `stored`, in their order, or says what is wrong with the choice (S3,
/// CompleteMultipartUpload).
fn choose(stored: &mut BTreeMap<u16, Part>, choices: &[PartChoice]) -> Result<Vec<(u16, Part)>, Outcome> {
    if choices.is_empty() {
        return Err(Outcome::InvalidPart(0));
    }
    if !choices.is_sorted_by(|before, after| before.number < after.number) {
        return Err(Outcome::InvalidPartOrder);
    }
    let named = |choice: &PartChoice| {
        stored.get(&choice.number).filter(|part| part.etag.eq_ignore_ascii_case(&choice.etag)).map(|part| part.size)
    };
    for choice in choices {
        named(choice).ok_or(Outcome::InvalidPart(choice.number))?;
    }
    for choice in &choices[..choices.len() - 1] {
        if named(choice).is_some_and(|size| size < PART_SIZE_MIN) {
            return Err(Outcome::PartTooSmall(choice.number));
        }
    }
    Ok(choices.iter().filter_map(|choice| stored.remove_entry(&choice.number)).collect())
}

/// The object that parts make: their chunks in order, and the MD5 of their MD5s with their count as its ETag.
fn assemble(parts: Vec<(u16, Part)>, attributes: Attributes, checksums: Vec<Checksum>) -> Result<ObjectBody, Outcome> {
    let mut hasher = Md5::new();
    let algorithm = checksums.first().map(|checksum| checksum.algorithm);
    let mut body = ObjectBody { attributes, checksums, ..ObjectBody::default() };
    let count = parts.len();
    for (number, part) in parts {
        let mut md5 = [0; MD5_LENGTH];
        hex::decode_to_slice(&part.etag, &mut md5).map_err(|_| Outcome::InvalidPart(number))?;
        hasher.update(md5);
        body.size += part.size;
        let checksum = part.checksums.into_iter().find(|checksum| Some(checksum.algorithm) == algorithm);
        body.parts.push(PartSize { number, size: part.size, checksum: checksum.map(|checksum| checksum.value) });
        body.chunks.extend(part.chunks);
    }
    body.etag = format!("{}-{count}", hex::encode(hasher.finalize()));
    Ok(body)
}
