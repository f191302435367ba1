//! Which partition holds a key: the same in every datacenter, fixed for the life of the cluster.

use crate::{BucketId, ObjectKey, PartitionId};

/// `hash(bucket id, key) mod partitions`, with the first eight bytes (little-endian) of blake3.
///
/// `partitions` is the cluster's P, at least 1.
pub fn partition_of(bucket: BucketId, key: &ObjectKey, partitions: u16) -> PartitionId {
    assert!(partitions > 0, "a cluster has at least one partition");
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bucket.0);
    hasher.update(key.as_str().as_bytes());
    let hash = u64::from_le_bytes(hasher.finalize().as_bytes()[..8].try_into().expect("eight bytes"));
    PartitionId((hash % u64::from(partitions)) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_spread_and_stay_where_they_are() {
        let bucket = BucketId([7; 16]);
        let mut counts = [0u32; 16];
        for n in 0..16_000 {
            let key = format!("dir/file-{n}").parse().unwrap();
            counts[usize::from(partition_of(bucket, &key, 16).0)] += 1;
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
        assert_eq!(partition_of(bucket, &"dir/file-1".parse().unwrap(), 16), PartitionId(11)); // golden: on disk for ever
    }
}
