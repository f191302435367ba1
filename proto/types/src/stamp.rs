//! Stamps: what orders every mutation of the cluster.
//!
//! A `Timestamp` is a hybrid logical clock reading: 42 bits of milliseconds since 2024-01-01T00:00:00Z and 22
//! logical bits. A `Stamp` adds the datacenter that gave it and is totally ordered: timestamps first, ties fall
//! to the greater datacenter id, everywhere alike. Byte forms are big-endian, so that they sort like the values.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{DatacenterId, IdError};

/// A hybrid timestamp: 42 bits of milliseconds since 2024-01-01 UTC, 22 bits of logical counter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Timestamp(u64);

impl Timestamp {
    pub const LOGICAL_BITS: u32 = 22;
    /// 2024-01-01T00:00:00Z in milliseconds since the Unix epoch.
    pub const EPOCH_UNIX_MS: u64 = 1_704_067_200_000;
    pub const ZERO: Timestamp = Timestamp(0);
    pub const MAX: Timestamp = Timestamp(u64::MAX);

    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The first timestamp of a millisecond of Unix time; times before 2024 become zero.
    pub const fn from_unix_ms(unix_ms: u64) -> Self {
        Self(unix_ms.saturating_sub(Self::EPOCH_UNIX_MS) << Self::LOGICAL_BITS)
    }

    pub const fn unix_ms(self) -> u64 {
        (self.0 >> Self::LOGICAL_BITS) + Self::EPOCH_UNIX_MS
    }

    pub const fn logical(self) -> u32 {
        (self.0 & ((1 << Self::LOGICAL_BITS) - 1)) as u32
    }

    /// The very next timestamp; carries from the logical bits into the milliseconds.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    pub const fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms << Self::LOGICAL_BITS))
    }

    /// Milliseconds from `earlier` to `self`, zero when it is not earlier.
    pub const fn ms_since(self, earlier: Timestamp) -> u64 {
        (self.0 >> Self::LOGICAL_BITS).saturating_sub(earlier.0 >> Self::LOGICAL_BITS)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.unix_ms(), self.logical())
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timestamp({self})")
    }
}

/// A timestamp and the datacenter that gave it: the total order of all mutations.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamp {
    pub timestamp: Timestamp,
    pub datacenter: DatacenterId,
}

impl Stamp {
    pub const LENGTH: usize = 9;

    pub const fn new(timestamp: Timestamp, datacenter: DatacenterId) -> Self {
        Self { timestamp, datacenter }
    }

    /// Nine bytes that sort like the stamp.
    pub fn to_bytes(self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[..8].copy_from_slice(&self.timestamp.raw().to_be_bytes());
        bytes[8] = self.datacenter.get();
        bytes
    }

    /// # Errors
    /// `IdError` when the last byte is no datacenter.
    pub fn from_bytes(bytes: [u8; Self::LENGTH]) -> Result<Self, IdError> {
        let (raw, dc) = (u64::from_be_bytes(bytes[..8].try_into().expect("eight bytes")), bytes[8]);
        Ok(Self { timestamp: Timestamp(raw), datacenter: DatacenterId::new(dc)? })
    }

    /// Nine bytes that sort the newest stamp first.
    pub fn to_inverted_bytes(self) -> [u8; Self::LENGTH] {
        self.to_bytes().map(|byte| !byte)
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.timestamp, self.datacenter)
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stamp({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(raw: u64, dc: u8) -> Stamp {
        Stamp::new(Timestamp::from_raw(raw), DatacenterId::new(dc).unwrap())
    }

    #[test]
    fn ties_fall_to_the_greater_datacenter() {
        assert!(stamp(5, 2) > stamp(5, 1) && stamp(6, 1) > stamp(5, 254));
    }

    #[test]
    fn bytes_sort_like_stamps_and_inverted_bytes_the_other_way() {
        let (a, b) = (stamp(1 << 40, 1), stamp((1 << 40) + 1, 1));
        assert!(a.to_bytes() < b.to_bytes() && a.to_inverted_bytes() > b.to_inverted_bytes());
        assert_eq!(Stamp::from_bytes(a.to_bytes()).unwrap(), a);
        assert!(Stamp::from_bytes([0; 9]).is_err());
    }

    #[test]
    fn timestamp_layout_is_42_and_22_bits() {
        let t = Timestamp::from_unix_ms(Timestamp::EPOCH_UNIX_MS + 3);
        assert_eq!((t.raw(), t.unix_ms(), t.logical()), (3 << 22, Timestamp::EPOCH_UNIX_MS + 3, 0));
        assert_eq!(Timestamp::from_raw((3 << 22) | 0x3f_ffff).next().raw(), 4 << 22);
        assert_eq!(t.plus_ms(7).ms_since(t), 7);
    }
}
