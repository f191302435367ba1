//! The row behind GET, HEAD and the sources of copies.
//!
//! Invariants: a row is read at a read index, so that what was acknowledged in this datacenter is seen (promise 2).

use std::ops::Range;
use std::sync::Arc;

use meridian_cipher::DataKey;
use meridian_index::{BucketRow, ChunkRef, ObjectBody, ObjectVersion, VersionId, VersionKind, Versioning, queries};
use meridian_types::limits::PART_NUMBER_MAX;
use meridian_types::{BucketName, ObjectKey};

use crate::bytes_out::Source;
use crate::objects::Inner;
use crate::seen;
use crate::version::shown_version;
use crate::{CustomerKey, GetRequest, ObjectError, ObjectInfo};

/// An object as one row says it: its description and its chunks are of the same version (C10).
pub(crate) struct ReadRow {
    pub(crate) info: ObjectInfo,
    pub(crate) chunks: Vec<ChunkRef>,
}

impl ReadRow {
    /// Its bytes, encrypted ones with their key.
    pub(crate) fn source(&self, key: Option<Arc<DataKey>>) -> Source<'_> {
        Source { chunks: &self.chunks, parts: &self.info.parts, key }
    }
}

impl Inner {
    /// The row, and the key that opens its bytes where they are encrypted.
    ///
    /// # Errors
    /// `NoSuchBucket`, `Refused` for a customer's key that does not fit, and those of `row_in`.
    pub(crate) async fn opened_row(
        &self,
        bucket: &BucketName,
        key: &ObjectKey,
        version: Option<VersionId>,
        customer: Option<&CustomerKey>,
    ) -> Result<(ReadRow, Option<Arc<DataKey>>), ObjectError> {
        let bucket = self.bucket_row(bucket).await?;
        let row = self.row_in(&bucket, key, version).await?;
        let data_key = self.data_key(bucket.id, key, &row.info.attributes, customer)?;
        Ok((row, data_key))
    }

    /// A version that is an object; the current one when none is named.
    ///
    /// # Errors
    /// `NoSuchKey`, `NoSuchVersion`, `DeleteMarker`, `Unavailable`.
    pub(crate) async fn row_in(
        &self,
        bucket: &BucketRow,
        key: &ObjectKey,
        version: Option<VersionId>,
    ) -> Result<ReadRow, ObjectError> {
        let view = self.read(self.partition(bucket.id, key)).await?;
        let found = match version {
            Some(version) => queries::object_version(&view, bucket.id, key, version),
            None => queries::object_row(&view, bucket.id, key),
        };
        let found = found.map_err(index_error)?;
        match &found {
            // The one version of its key; what removed it is its tombstone.
            Some(row) if row.version == VersionId::Null && bucket.settings.versioning == Versioning::Off => {
                seen::note_row(row);
            }
            // Nothing here says what removed a version before it.
            _ => seen::note_view(&view, self.config.datacenter),
        }
        let found = found.filter(|row| row.kind != VersionKind::Tombstone);
        let Some(found) = found else {
            let key = key.clone();
            return Err(match version {
                Some(_) => ObjectError::NoSuchVersion { key },
                None => ObjectError::NoSuchKey { bucket: bucket.name.clone(), key },
            });
        };
        let (id, last_modified_unix_ms) = (found.version, found.stamp.timestamp.unix_ms());
        match read_row(key.clone(), found) {
            Some(mut row) => {
                row.info.shown_version = shown_version(bucket, id);
                Ok(row)
            }
            None => {
                let (key, named) = (key.clone(), version.is_some());
                Err(ObjectError::DeleteMarker { key, version: id, named, last_modified_unix_ms })
            }
        }
    }
}

/// `None` for a version that is no object.
pub(crate) fn read_row(key: ObjectKey, version: ObjectVersion) -> Option<ReadRow> {
    let (stamp, id) = (version.stamp, version.version);
    let VersionKind::Object(body) = version.kind else { return None };
    let ObjectBody { size, etag, attributes, chunks, parts, checksums, annotations } = body;
    let info = ObjectInfo {
        key,
        size,
        etag,
        attributes: attributes.annotated(annotations.as_deref()),
        stamp,
        version: id,
        shown_version: None,
        last_modified_unix_ms: stamp.timestamp.unix_ms(),
        parts,
        checksums,
    };
    Some(ReadRow { info, chunks })
}

/// The bytes that a request asks of the object.
pub(crate) fn requested_range(info: &ObjectInfo, request: &GetRequest) -> Result<Range<u64>, ObjectError> {
    match (request.part_number, request.range) {
        (Some(_), Some(_)) => Err(ObjectError::InvalidArgument {
            argument: "partNumber",
            reason: "a part number and a range exclude each other".to_owned(),
        }),
        (Some(number), None) => part_range(info, number),
        (None, Some(range)) => range.resolve(info.size),
        (None, None) => Ok(0..info.size),
    }
}

fn part_range(info: &ObjectInfo, number: u16) -> Result<Range<u64>, ObjectError> {
    check_part_number(number)?;
    if info.parts.is_empty() && number == 1 {
        return Ok(0..info.size); // an object that was put whole is its own first part
    }
    let mut start = 0;
    for part in &info.parts {
        if part.number == number {
            return Ok(start..start + part.size);
        }
        start += part.size;
    }
    Err(ObjectError::InvalidPartNumber { number, parts: info.parts.len().max(1) })
}

/// # Errors
/// `InvalidArgument` outside of 1..=10000.
pub(crate) fn check_part_number(number: u16) -> Result<(), ObjectError> {
    if (1..=PART_NUMBER_MAX).contains(&number) {
        return Ok(());
    }
    let reason = format!("{number} is outside of 1..={PART_NUMBER_MAX}");
    Err(ObjectError::InvalidArgument { argument: "partNumber", reason })
}

/// Rows that can't be read: damage, never an absent object.
pub(crate) fn index_error(error: impl std::fmt::Display) -> ObjectError {
    ObjectError::Storage(format!("read the object index: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use meridian_index::{Attributes, PartSize};
    use meridian_types::{DatacenterId, Stamp, Timestamp};

    fn info(parts: &[(u16, u64)], size: u64) -> ObjectInfo {
        ObjectInfo {
            key: "k".parse().unwrap(),
            size,
            etag: String::new(),
            attributes: Attributes::default(),
            stamp: Stamp::new(Timestamp::ZERO, DatacenterId::new(1).unwrap()),
            version: VersionId::Null,
            shown_version: None,
            last_modified_unix_ms: 0,
            parts: parts
                .iter()
                .map(|(number, size)| PartSize { number: *number, size: *size, checksum: None })
                .collect(),
            checksums: Vec::new(),
        }
    }

    #[test]
    fn a_part_number_is_the_range_of_that_part() {
        let object = info(&[(1, 5), (3, 7), (9, 2)], 14);
        assert_eq!(part_range(&object, 1).unwrap(), 0..5);
        assert_eq!(part_range(&object, 3).unwrap(), 5..12);
        assert_eq!(part_range(&object, 9).unwrap(), 12..14);
        assert!(matches!(part_range(&object, 2), Err(ObjectError::InvalidPartNumber { parts: 3, .. })));
        for number in [0, 10_001] {
            assert!(matches!(part_range(&object, number), Err(ObjectError::InvalidArgument { .. })));
        }
    }

    #[test]
    fn an_object_that_was_put_whole_has_one_part() {
        assert_eq!(part_range(&info(&[], 9), 1).unwrap(), 0..9);
        assert!(matches!(part_range(&info(&[], 9), 2), Err(ObjectError::InvalidPartNumber { .. })));
    }
}
