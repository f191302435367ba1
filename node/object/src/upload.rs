//! Multipart uploads: create, parts, complete, abort. An upload lives in the datacenter that its id names (rule 22).
//!
//! Invariants: no byte of a part is taken before its upload is known to be here; parts, Complete and Abort serialise
//! in `apply` on the upload's row, in its key's partition.

use std::collections::BTreeMap;
use std::sync::Arc;

use meridian_env::entropy;
use meridian_index::{
    Attributes, BucketRow, Checksum, ChecksumAlgorithm, Condition, Encryption, EncryptionMethod, Operation, Outcome,
    Part, PartChoice, UploadChecksum, UploadRow, VersionId, queries,
};
use meridian_types::limits::PART_SIZE_MAX;
use meridian_types::{BucketId, BucketName, ObjectKey, Stamp, Timestamp, UploadId};

use crate::bytes_in::{BodyCipher, greatest_stamp, store_body};
use crate::bytes_out::open_stream;
use crate::checksum::{computed_checksum, of_parts};
use crate::encryption::{NewEncryption, invalid_request};
use crate::objects::Inner;
use crate::propose::{refusal, unexpected};
use crate::put::{check_attributes, check_md5};
use crate::read_row::{check_part_number, index_error};
use crate::version::{shown_version, with_default_lock};
use crate::{
    BodyFinish, ByteStream, CopySource, CustomerKey, EncryptionWish, ObjectError, ObjectInfo, Objects, RangeSpec, seen,
};
use meridian_meta::ReadView;

/// Of parts that come without a checksum, in an upload that asks for none.
const ALGORITHM_DEFAULT: ChecksumAlgorithm = ChecksumAlgorithm::Crc64Nvme;

#[derive(Debug, Clone)]
pub struct CreateUploadRequest {
    pub bucket: BucketName,
    pub key: ObjectKey,
    pub attributes: Attributes,
    /// The checksum that the object shall have.
    pub checksum: Option<UploadChecksum>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateUploadOutcome {
    pub upload: UploadId,
    pub initiated: Timestamp,
    /// How its parts will be encrypted, if they will.
    pub encryption: Option<Box<Encryption>>,
}

pub struct PutPartRequest {
    pub bucket: BucketName,
    pub key: ObjectKey,
    pub upload: UploadId,
    /// 1..=10000.
    pub number: u16,
    pub body: ByteStream,
    pub length: Option<u64>,
    pub content_md5: Option<[u8; 16]>,
    pub finish: Option<BodyFinish>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartOutcome {
    pub etag: String,
    /// Bytes.
    pub size: u64,
    pub stored: Timestamp,
    /// What the `finish` hook handed over, or what the upload asked for.
    pub checksums: Vec<Checksum>,
    /// How it is encrypted, if it is: as its upload says.
    pub encryption: Option<Box<Encryption>>,
}

#[derive(Debug, Clone)]
pub struct CopyPartRequest {
    pub source: CopySource,
    /// `None` copies the whole source; a range past its end is `InvalidRange`.
    pub range: Option<RangeSpec>,
    pub bucket: BucketName,
    pub key: ObjectKey,
    pub upload: UploadId,
    pub number: u16,
}

/// A part as a client names it in its Complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChosenPart {
    pub number: u16,
    /// Without quotes.
    pub etag: String,
    /// Must be the part's, where given.
    pub checksum: Option<Checksum>,
}

#[derive(Debug, Clone)]
pub struct CompleteRequest {
    pub bucket: BucketName,
    pub key: ObjectKey,
    pub upload: UploadId,
    pub parts: Vec<ChosenPart>,
    pub condition: Condition,
    /// The whole object's checksum as the client says; it must be what the parts give.
    pub checksums: Vec<Checksum>,
    /// The kind of checksum that the client expects, which must be the upload's.
    pub composite: Option<bool>,
    /// The object's size in bytes as the client says.
    pub size: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompleteOutcome {
    /// `md5(md5s)-n`.
    pub etag: String,
    pub stamp: Stamp,
    /// `None` in a bucket that never had versioning.
    pub version: Option<VersionId>,
    /// Bytes.
    pub size: u64,
    /// The checksums that the object's row keeps.
    pub checksums: Vec<Checksum>,
    /// How it is encrypted, if it is; not told again to those who complete again.
    pub encryption: Option<Box<Encryption>>,
}

impl Objects {
    /// # Errors
    /// `NoSuchBucket`, `BucketBeingDeleted`, `Busy`, `Unavailable`.
    pub async fn create_upload(&self, request: CreateUploadRequest) -> Result<CreateUploadOutcome, ObjectError> {
        self.create_upload_with_key(request, EncryptionWish::BucketDefault).await
    }

    /// An upload whose encryption is asked for. All its parts share one data key.
    ///
    /// # Errors
    /// Those of `create_upload`; `Refused` for a key that is not there.
    pub async fn create_upload_with_key(
        &self,
        request: CreateUploadRequest,
        wish: EncryptionWish,
    ) -> Result<CreateUploadOutcome, ObjectError> {
        let inner = &self.inner;
        let CreateUploadRequest { bucket, key, attributes, checksum } = request;
        check_attributes(&attributes)?;
        let bucket = inner.bucket_row(&bucket).await?;
        let mut random = [0; 15];
        entropy::fill(&mut random);
        let upload = UploadId::new(inner.config.datacenter, random);
        let initiated = inner.clock.wall();
        let mut attributes = with_default_lock(&bucket, attributes, initiated.unix_ms())?;
        let encryption = inner.new_encryption(&bucket, &key, &wish)?.map(|new| new.encryption);
        attributes.encryption.clone_from(&encryption);
        let partition = inner.partition(bucket.id, &key);
        let operation = Operation::CreateUpload { bucket: bucket.id, key, upload, attributes, initiated, checksum };
        match inner.propose(partition, operation, Timestamp::ZERO).await.outcome? {
            Outcome::UploadCreated => Ok(CreateUploadOutcome { upload, initiated, encryption }),
            outcome => Err(refusal(&outcome, &bucket.name).unwrap_or_else(|| unexpected("a create", &outcome))),
        }
    }

    /// Stores one part; a later one of the same number replaces it.
    ///
    /// # Errors
    /// `NoSuchUpload` before any byte is taken, and those of `put`.
    pub async fn put_part(&self, request: PutPartRequest) -> Result<PartOutcome, ObjectError> {
        self.put_part_with_key(request, None).await
    }

    /// Stores a part of an upload that was created with a customer's key.
    ///
    /// # Errors
    /// Those of `put_part`; `Refused` for a key that is missing, another one, or not asked for.
    pub async fn put_part_with_key(
        &self,
        request: PutPartRequest,
        customer: Option<&CustomerKey>,
    ) -> Result<PartOutcome, ObjectError> {
        let inner = &self.inner;
        let PutPartRequest { bucket, key, upload, number, body, length, content_md5, finish } = request;
        check_part_number(number)?;
        let bucket = inner.bucket_row(&bucket).await?;
        let (row, _) = inner.upload_row(bucket.id, &key, upload).await?;
        let new = inner.encryption_of_upload(bucket.id, &row, customer)?;
        let (body, finish) = match finish {
            // What comes without a checksum gets the one that its object shall have (S3).
            None => computed_checksum(row.checksum.map_or(ALGORITHM_DEFAULT, |wanted| wanted.algorithm), body),
            Some(finish) => (body, finish),
        };
        let cipher = new.as_ref().map(|new| BodyCipher { key: Arc::clone(&new.key), part: number });
        let stored = store_body(inner, inner.code_of(&bucket), body, length, PART_SIZE_MAX, cipher).await?;
        check_md5(content_md5, stored.md5)?;
        let checksums = finish()?;
        check_algorithm(row.checksum, &checksums)?;
        let etag = NewEncryption::etag(new.as_ref(), stored.md5);
        let (size, stored_at) = (stored.size, inner.clock.wall());
        let chunks = stored.chunks.release();
        let part = Part { size, etag: etag.clone(), chunks, stored: stored_at, checksums: checksums.clone() };
        inner.commit_part(&bucket, key, upload, number, part).await?;
        let encryption = new.map(|new| new.encryption);
        Ok(PartOutcome { etag, size, stored: stored_at, checksums, encryption })
    }

    /// Copies an object or a range of it, at most 5 GiB, into a part.
    ///
    /// # Errors
    /// Those of `copy` and `put_part`.
    pub async fn copy_part(&self, request: CopyPartRequest) -> Result<(PartOutcome, ObjectInfo), ObjectError> {
        self.copy_part_with_keys(request, None, None).await
    }

    /// A copied part, with the customer's keys of the source and of the upload.
    ///
    /// # Errors
    /// Those of `copy_part`; `Refused` for keys that do not fit.
    pub async fn copy_part_with_keys(
        &self,
        request: CopyPartRequest,
        source_key: Option<&CustomerKey>,
        customer: Option<&CustomerKey>,
    ) -> Result<(PartOutcome, ObjectInfo), ObjectError> {
        let CopyPartRequest { source, range, bucket, key, upload, number } = request;
        let (source, data_key) = self.inner.copy_source(&source, source_key).await?;
        let size = source.info.size;
        let range = match range {
            None => 0..size,
            // Unlike a GET, a copy is not cut back: less than was asked for would be a silent loss (S3).
            Some(RangeSpec::FromTo(_, Some(last))) if last >= size => return Err(ObjectError::InvalidRange { size }),
            Some(range) => range.resolve(size)?,
        };
        let length = range.end - range.start;
        if length > PART_SIZE_MAX {
            return Err(ObjectError::CopySourceTooLarge { size: length, size_max: PART_SIZE_MAX });
        }
        let body = open_stream(&self.inner, &source.source(data_key), range).await?;
        let (length, content_md5, finish) = (Some(length), None, None);
        let put = PutPartRequest { bucket, key, upload, number, body, length, content_md5, finish };
        Ok((self.put_part_with_key(put, customer).await?, source.info))
    }

    /// Makes the object of its parts; a repeated call gets the remembered answer.
    ///
    /// # Errors
    /// `NoSuchUpload`, `InvalidPart`, `InvalidPartOrder`, `EntityTooSmall`, `PreconditionFailed`, and those of `put`.
    pub async fn complete_upload(&self, request: CompleteRequest) -> Result<CompleteOutcome, ObjectError> {
        let inner = &self.inner;
        let bucket = inner.bucket_row(&request.bucket).await?;
        inner.check_upload_here(request.upload)?;
        inner.check_copies(inner.code_of(&bucket).other_datacenters())?;
        let (checksums, encryption) = inner.completed(&bucket, &request).await?;
        let CompleteRequest { key, upload, parts, condition, .. } = request;
        let partition = inner.partition(bucket.id, &key);
        let parts = parts.into_iter().map(|part| PartChoice { number: part.number, etag: part.etag }).collect();
        // An upload that is not there is no error yet: a repeated Complete finds none and still has its answer (rule 22).
        let operation = Operation::CompleteUpload {
            bucket: bucket.id,
            key: key.clone(),
            upload,
            parts,
            mode: bucket.settings.version_mode(),
            condition: condition.clone(),
            checksums,
        };
        // Its chunks' stamps were observed with their parts, in this very partition (rule 13).
        match inner.propose(partition, operation, Timestamp::ZERO).await.outcome? {
            Outcome::Completed { stamp, etag, size, version, checksums } => {
                let version = shown_version(&bucket, version);
                Ok(CompleteOutcome { etag, stamp, version, size, checksums, encryption })
            }
            Outcome::PreconditionFailed => {
                inner.check_condition_early(&bucket, &key, &condition).await?; // tells a missing object from another one
                Err(ObjectError::PreconditionFailed("the object is not in the required state"))
            }
            outcome => Err(upload_refusal(&outcome, &bucket, key, upload, "a complete")),
        }
    }

    /// Ends an upload; its parts are reclaimed.
    ///
    /// # Errors
    /// `NoSuchUpload`, `UploadElsewhere`.
    pub async fn abort_upload(
        &self,
        bucket: &BucketName,
        key: &ObjectKey,
        upload: UploadId,
    ) -> Result<(), ObjectError> {
        let inner = &self.inner;
        let bucket = inner.bucket_row(bucket).await?;
        inner.check_upload_here(upload)?;
        let partition = inner.partition(bucket.id, key);
        let operation = Operation::AbortUpload { bucket: bucket.id, key: key.clone(), upload };
        match inner.propose(partition, operation, Timestamp::ZERO).await.outcome? {
            Outcome::Aborted => Ok(()),
            outcome => Err(upload_refusal(&outcome, &bucket, key.clone(), upload, "an abort")),
        }
    }
}

/// # Errors
/// `Refused` when a part's checksum is of another algorithm than the upload's.
fn check_algorithm(wanted: Option<UploadChecksum>, given: &[Checksum]) -> Result<(), ObjectError> {
    match (wanted, given.first()) {
        (Some(wanted), Some(given)) if wanted.algorithm != given.algorithm => {
            let (wanted, given) = (name(wanted.algorithm), name(given.algorithm));
            let message = format!(
                "Checksum Type mismatch occurred, expected checksum Type: {wanted}, actual checksum Type: {given}"
            );
            Err(ObjectError::Refused { code: "InvalidRequest", message })
        }
        _ => Ok(()),
    }
}

fn missing_checksum(algorithm: ChecksumAlgorithm, number: u16) -> ObjectError {
    let message = format!(
        "The upload was created using a {} checksum. The complete request must include the checksum for each part. It \
         was missing for part {number} in the request.",
        name(algorithm)
    );
    ObjectError::Refused { code: "InvalidRequest", message }
}

fn name(algorithm: ChecksumAlgorithm) -> &'static str {
    match algorithm {
        ChecksumAlgorithm::Crc32 => "crc32",
        ChecksumAlgorithm::Crc32c => "crc32c",
        ChecksumAlgorithm::Crc64Nvme => "crc64nvme",
        ChecksumAlgorithm::Sha1 => "sha1",
        ChecksumAlgorithm::Sha256 => "sha256",
    }
}

/// Choices that `apply` will refuse anyway are left to it.
fn assembled_checksums(
    wanted: Option<UploadChecksum>,
    stored: &BTreeMap<u16, Part>,
    request: &CompleteRequest,
) -> Result<Vec<Checksum>, ObjectError> {
    let mut parts: Vec<(&Part, &ChosenPart)> = Vec::with_capacity(request.parts.len());
    for chosen in &request.parts {
        let Some(part) = stored.get(&chosen.number) else { return Ok(Vec::new()) };
        parts.push((part, chosen));
    }
    let is_composite = wanted.is_some_and(|wanted| wanted.composite);
    for (part, chosen) in &parts {
        let Some(said) = &chosen.checksum else {
            // A checksum of the parts' checksums says nothing unless the client tells what it has sent (S3).
            if let Some(wanted) = wanted.filter(|_| is_composite) {
                return Err(missing_checksum(wanted.algorithm, chosen.number));
            }
            continue;
        };
        let kept = part.checksums.iter().find(|kept| kept.algorithm == said.algorithm);
        if kept.is_some_and(|kept| kept.value != said.value) {
            return Err(ObjectError::InvalidPart(chosen.number));
        }
    }
    let size: u64 = parts.iter().map(|(part, _)| part.size).sum();
    if request.size.is_some_and(|said| said != size) {
        let message = "The provided 'x-amz-mp-object-size' header value does not match what was computed.".to_owned();
        return Err(ObjectError::Refused { code: "InvalidRequest", message });
    }
    // Without a word at Create the parts decide: if all have one kind of checksum, the object has it as well.
    let said = request.checksums.first();
    let first = parts.first().and_then(|(part, _)| part.checksums.first());
    let wanted = wanted.or_else(|| {
        let algorithm = first?.algorithm;
        let composite = request.composite.or(said.map(|said| said.composite));
        let composite = composite.unwrap_or(algorithm != ChecksumAlgorithm::Crc64Nvme);
        Some(UploadChecksum { algorithm, composite })
    });
    let Some(wanted) = wanted else { return Ok(Vec::new()) };
    if request.composite.is_some_and(|composite| composite != wanted.composite) {
        let kind = |composite| if composite { "COMPOSITE" } else { "FULL_OBJECT" };
        let message = format!(
            "The upload was created using the {} checksum mode. The complete request must use the same checksum mode.",
            kind(wanted.composite)
        );
        return Err(ObjectError::Refused { code: "InvalidRequest", message });
    }
    let values = parts.iter().map(|(part, _)| {
        let kept = part.checksums.iter().find(|kept| kept.algorithm == wanted.algorithm)?;
        Some((kept.value.clone(), part.size))
    });
    let Some(values) = values.collect::<Option<Vec<_>>>() else { return Ok(Vec::new()) };
    let computed = of_parts(wanted.algorithm, wanted.composite, &values);
    if let (Some(said), Some(computed)) = (said, &computed)
        && said.algorithm == computed.algorithm
        && said.value != computed.value
    {
        return Err(ObjectError::ChecksumMismatch { algorithm: name(said.algorithm).to_uppercase() });
    }
    Ok(computed.into_iter().collect())
}

fn upload_refusal(
    outcome: &Outcome,
    bucket: &BucketRow,
    key: ObjectKey,
    upload: UploadId,
    operation: &'static str,
) -> ObjectError {
    match outcome {
        Outcome::NoSuchUpload => ObjectError::NoSuchUpload { key, upload },
        outcome => refusal(outcome, &bucket.name).unwrap_or_else(|| unexpected(operation, outcome)),
    }
}

impl Inner {
    /// An upload lives in the datacenter that its id names (rule 22).
    fn check_upload_here(&self, upload: UploadId) -> Result<(), ObjectError> {
        let datacenter = upload.datacenter();
        let here = datacenter == self.config.datacenter;
        if here { Ok(()) } else { Err(ObjectError::UploadElsewhere { upload, datacenter }) }
    }

    /// The upload's row and the view it was read from.
    pub(crate) async fn upload_row(
        &self,
        bucket: BucketId,
        key: &ObjectKey,
        upload: UploadId,
    ) -> Result<(UploadRow, ReadView), ObjectError> {
        self.check_upload_here(upload)?;
        let view = self.read(self.partition(bucket, key)).await?;
        let row = queries::upload(&view, bucket, key, upload).map_err(index_error)?;
        row.map(|row| (row, view)).ok_or_else(|| ObjectError::NoSuchUpload { key: key.clone(), upload })
    }

    /// How the parts of an upload are encrypted. A client must send its own key with each of them, and the same one.
    fn encryption_of_upload(
        &self,
        bucket: BucketId,
        row: &UploadRow,
        customer: Option<&CustomerKey>,
    ) -> Result<Option<NewEncryption>, ObjectError> {
        let encryption = row.attributes.encryption.clone();
        let by_customer = encryption.as_ref().is_some_and(|encryption| encryption.method == EncryptionMethod::Customer);
        match (by_customer, customer) {
            (true, None) => {
                return Err(invalid_request(
                    "The multipart upload initiate requested encryption. Subsequent part requests must include the \
                     appropriate encryption parameters.",
                ));
            }
            (false, Some(_)) => {
                return Err(invalid_request(
                    "The multipart upload initiate did not request encryption. Please resend the request without \
                     sending encryption parameters.",
                ));
            }
            _ => {}
        }
        let key = self.data_key(bucket, &row.key, &row.attributes, customer).map_err(|error| match error {
            ObjectError::Refused { code: "AccessDenied", .. } => invalid_request(
                "The provided encryption parameters did not match the ones used originally to encrypt the object.",
            ),
            error => error,
        })?;
        Ok(encryption.zip(key).map(|(encryption, key)| NewEncryption { encryption, key }))
    }

    /// What the object's encryption is and its checksum will be, once everything that the client says of checksums and size is true. The ETags
    /// that `apply` compares fix the parts, and so their checksums: nothing can change between here and there.
    async fn completed(
        &self,
        bucket: &BucketRow,
        request: &CompleteRequest,
    ) -> Result<(Vec<Checksum>, Option<Box<Encryption>>), ObjectError> {
        let view = self.read(self.partition(bucket.id, &request.key)).await?;
        let row = queries::upload(&view, bucket.id, &request.key, request.upload).map_err(index_error)?;
        let Some(row) = row else {
            seen::note_bytes_anywhere(); // a repeated Complete: its parts are no longer told apart here
            return Ok((Vec::new(), None));
        };
        let stored: BTreeMap<u16, Part> = queries::parts(&view, bucket.id, &request.key, request.upload, 0, usize::MAX)
            .map_err(index_error)?
            .into_iter()
            .collect();
        stored.values().for_each(|part| seen::note_chunks(&part.chunks));
        Ok((assembled_checksums(row.checksum, &stored, request)?, row.attributes.encryption))
    }

    /// Proposes a part whose bytes are durable. Its chunks are discarded if it provably was not committed.
    async fn commit_part(
        self: &Arc<Self>,
        bucket: &BucketRow,
        key: ObjectKey,
        upload: UploadId,
        number: u16,
        part: Part,
    ) -> Result<(), ObjectError> {
        let chunks = part.chunks.clone();
        let partition = self.partition(bucket.id, &key);
        let operation = Operation::PutPart { bucket: bucket.id, key: key.clone(), upload, number, part };
        let proposed = self.propose(partition, operation, greatest_stamp(&chunks)).await;
        let error = match proposed.outcome {
            Ok(Outcome::PartStored) => return Ok(()),
            Ok(outcome) => upload_refusal(&outcome, bucket, key, upload, "a part"),
            Err(error) => error,
        };
        if proposed.certain && !matches!(error, ObjectError::Storage(_)) {
            self.discard(chunks);
        }
        Err(error)
    }
}
