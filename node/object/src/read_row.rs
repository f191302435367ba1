//! The row behind GET, HEAD and the sources of copies.
//!
//! Invariants: a row is read at a read index, so that what was acknowledged in this datacenter is seen (promise 2).

use std::ops::Range;

use meridian_index::{ChunkRef, ObjectBody, ObjectVersion, queries};
use meridian_types::limits::PART_NUMBER_MAX;
use meridian_types::{BucketName, ObjectKey};

use crate::objects::Inner;
use crate::{GetRequest, ObjectError, ObjectInfo};

/// An object as one row says it: its description and its chunks are of the same version (C10).
pub(crate) struct ReadRow {
    pub(crate) info: ObjectInfo,
    pub(crate) chunks: Vec<ChunkRef>,
}

impl Inner {
    /// # Errors
    /// `NoSuchBucket`, `NoSuchKey`, `Unavailable`.
    pub(crate) async fn object_row(&self, bucket: &BucketName, key: &ObjectKey) -> Result<ReadRow, ObjectError> {
        let row = self.bucket_row(bucket).await?;
        let view = self.read(self.partition(row.id, key)).await?;
        let version = queries::object(&view, row.id, key).map_err(index_error)?;
        version
            .and_then(|version| read_row(key.clone(), version))
            .ok_or_else(|| ObjectError::NoSuchKey { bucket: bucket.clone(), key: key.clone() })
    }
}

/// `None` for a version that is no object.
pub(crate) fn read_row(key: ObjectKey, version: ObjectVersion) -> Option<ReadRow> {
    let (stamp, id) = (version.stamp, version.version);
    let meridian_index::VersionKind::Object(body) = version.kind else { return None };
    let ObjectBody { size, etag, attributes, chunks, parts, checksums } = body;
    let last_modified_unix_ms = stamp.timestamp.unix_ms();
    let info = ObjectInfo { key, size, etag, attributes, stamp, version: id, last_modified_unix_ms, parts, checksums };
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
    use meridian_index::{Attributes, PartSize, VersionId};
    use meridian_types::{DatacenterId, Stamp, Timestamp};

    fn info(parts: &[(u16, u64)], size: u64) -> ObjectInfo {
        ObjectInfo {
            key: "k".parse().unwrap(),
            size,
            etag: String::new(),
            attributes: Attributes::default(),
            stamp: Stamp::new(Timestamp::ZERO, DatacenterId::new(1).unwrap()),
            version: VersionId::Null,
            last_modified_unix_ms: 0,
            parts: parts.iter().map(|(number, size)| PartSize { number: *number, size: *size }).collect(),
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
