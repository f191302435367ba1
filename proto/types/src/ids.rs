//! Identifiers. Each is its own type, so that a volume id can't be passed where a partition is meant.
//!
//! Invariants: a `DatacenterId` lies in 1..=254; a `VolumeId` carries its datacenter in its low byte and so
//! is never issued twice (rule 3); text forms are lower-case hex and fixed in length.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a number or a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("datacenter id {0} is outside 1..=254")]
    DatacenterOutOfRange(u64),
    #[error("{kind} must be {expected} hex digits, got {got:?}")]
    BadHex { kind: &'static str, expected: usize, got: String },
    #[error("volume counter {0} is above 16777215")]
    VolumeCounterOverflow(u32),
}

/// A datacenter, 1..=254. Never issued twice in the life of a cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct DatacenterId(u8);

impl DatacenterId {
    pub const MAX: u8 = 254;

    /// # Errors
    /// `IdError::DatacenterOutOfRange` for 0 and 255.
    pub fn new(id: u8) -> Result<Self, IdError> {
        if id == 0 || id > Self::MAX { Err(IdError::DatacenterOutOfRange(u64::from(id))) } else { Ok(Self(id)) }
    }

    pub const fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<u8> for DatacenterId {
    type Error = IdError;
    fn try_from(id: u8) -> Result<Self, IdError> {
        Self::new(id)
    }
}

impl From<DatacenterId> for u8 {
    fn from(id: DatacenterId) -> u8 {
        id.0
    }
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

number_id!(
    /// A node of a datacenter, also its raft id. A wiped node comes back under a new one.
    NodeId(u32)
);
number_id!(
    /// A shard of the object index, 0..P; `PartitionId::CATALOG` is the catalog's own.
    PartitionId(u16)
);
number_id!(
    /// How often a datacenter's log has been started anew after its disks went back in time (rule 7).
    Incarnation(u32)
);
number_id!(
    /// A volume's epoch: raised by each seal, so that an old primary is refused (rule 1).
    Epoch(u32)
);
number_id!(
    /// Which file holds a volume's bytes: raised by each compaction, so that offsets stay unambiguous (rule 4).
    FileGeneration(u32)
);
number_id!(
    /// The key of a needle in its volume; ranges of them are leased and never issued twice.
    NeedleKey(u64)
);

impl PartitionId {
    /// The catalog: buckets, users, policies. It replicates like a partition.
    pub const CATALOG: PartitionId = PartitionId(u16::MAX);

    pub fn is_catalog(self) -> bool {
        self == Self::CATALOG
    }
}

impl fmt::Display for DatacenterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for DatacenterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatacenterId({})", self.0)
    }
}

/// A volume: counter × 256 + the `DatacenterId` that created it (rule 3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VolumeId(u32);

impl VolumeId {
    pub const COUNTER_MAX: u32 = (1 << 24) - 1;

    /// # Errors
    /// `VolumeCounterOverflow` when the counter does not fit 24 bits.
    pub fn new(counter: u32, datacenter: DatacenterId) -> Result<Self, IdError> {
        if counter > Self::COUNTER_MAX {
            return Err(IdError::VolumeCounterOverflow(counter));
        }
        Ok(Self(counter * 256 + u32::from(datacenter.get())))
    }

    /// From a number that a peer, a file or a client gave.
    ///
    /// # Errors
    /// `DatacenterOutOfRange` when its low byte is no datacenter.
    pub fn from_raw(raw: u32) -> Result<Self, IdError> {
        DatacenterId::new((raw & 0xff) as u8)?;
        Ok(Self(raw))
    }

    pub const fn get(self) -> u32 {
        self.0
    }

    /// The datacenter that owns the volume.
    pub fn datacenter(self) -> DatacenterId {
        DatacenterId((self.0 & 0xff) as u8)
    }

    pub const fn counter(self) -> u32 {
        self.0 >> 8
    }
}

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VolumeId({}@dc{})", self.counter(), self.0 & 0xff)
    }
}

/// A needle's cookie: 32 random bits that keep a fid from being guessed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Cookie(pub u32);

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cookie(..)") // a capability: never in a log
    }
}

macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), hex::encode(self.0))
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let bad = || IdError::BadHex { kind: $kind, expected: 32, got: text.chars().take(64).collect() };
                let mut bytes = [0; 16];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| bad())?;
                Ok(Self(bytes))
            }
        }
    };
}

bytes_id!(
    /// The cluster, drawn at `meridian init`; nodes of another cluster are refused.
    ClusterId,
    "cluster id"
);
bytes_id!(
    /// A bucket: derived from its name and how often that name has been deleted, so that two datacenters that
    /// create one name while cut off mean the same bucket (rule 17).
    BucketId,
    "bucket id"
);
bytes_id!(
    /// Names one proposal, so that a retry of unknown outcome is applied once (rule 11).
    RequestId,
    "request id"
);

impl BucketId {
    /// Derives the id of incarnation `deletions` (the count of completed deletions) of a bucket name.
    pub fn derive(name: &crate::BucketName, deletions: u32) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("meridian bucket id v1");
        hasher.update(&deletions.to_le_bytes());
        hasher.update(name.as_str().as_bytes());
        let mut id = [0; 16];
        id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Self(id)
    }
}

/// A multipart upload. Its first byte is the datacenter where the upload lives (rule 22); the rest is random.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UploadId([u8; 16]);

impl UploadId {
    /// `random` supplies 15 bytes of entropy.
    pub fn new(datacenter: DatacenterId, random: [u8; 15]) -> Self {
        let mut id = [0; 16];
        id[0] = datacenter.get();
        id[1..].copy_from_slice(&random);
        Self(id)
    }

    pub fn datacenter(self) -> DatacenterId {
        DatacenterId(self.0[0])
    }

    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UploadId({})", hex::encode(self.0))
    }
}

impl FromStr for UploadId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = || IdError::BadHex { kind: "upload id", expected: 32, got: text.chars().take(64).collect() };
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| bad())?;
        DatacenterId::new(bytes[0])?;
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volume_id_carries_its_datacenter() {
        let id = VolumeId::new(7, DatacenterId::new(3).unwrap()).unwrap();
        assert_eq!((id.get(), id.counter(), id.datacenter().get()), (7 * 256 + 3, 7, 3));
        assert!(VolumeId::new(1 << 24, DatacenterId::new(1).unwrap()).is_err());
        assert!(VolumeId::from_raw(0x0700).is_err());
        assert!(VolumeId::from_raw(0x07ff).is_err());
    }

    #[test]
    fn datacenter_ids_lie_between_1_and_254() {
        assert!(DatacenterId::new(0).is_err() && DatacenterId::new(255).is_err());
        assert!(DatacenterId::new(1).is_ok() && DatacenterId::new(254).is_ok());
        assert!(postcard::from_bytes::<DatacenterId>(&[0]).is_err());
    }

    #[test]
    fn bucket_id_is_stable_and_depends_on_the_incarnation() {
        let name = "photos".parse().unwrap();
        assert_eq!(BucketId::derive(&name, 0).to_string(), "fe4bcd3cb83aa45575446b61a83bb6da");
        assert_ne!(BucketId::derive(&name, 0), BucketId::derive(&name, 1));
    }

    #[test]
    fn upload_id_round_trips_and_names_its_datacenter() {
        let id = UploadId::new(DatacenterId::new(9).unwrap(), [0xab; 15]);
        assert_eq!(id.to_string().parse::<UploadId>().unwrap(), id);
        assert_eq!(id.datacenter().get(), 9);
        assert!("00".repeat(16).parse::<UploadId>().is_err());
        assert!("zz".parse::<UploadId>().is_err());
    }
}
