//! Gives the needles of one group commit their places and stamps.
//!
//! It decides and encodes; whoever calls it writes. Invariants: offsets and stamps rise together, each stamp is above
//! everything that the clock has observed (rule 13); the first needle of a commit says that it is.

use std::collections::HashSet;

use bytes::Bytes;
use meridian_env::HybridClock;
use meridian_types::{Cookie, NeedleKey, Timestamp};

use crate::VolumeError;
use crate::needle::{NeedleHeader, encode_front, span};
use crate::volume::Volume;

/// Where a needle goes, and the bytes before its data.
pub(crate) struct Seat {
    pub(crate) offset: u64,
    pub(crate) stamp: Timestamp,
    pub(crate) front: Vec<u8>,
}

/// One group commit in the making.
pub(crate) struct Placing<'a> {
    volume: &'a Volume,
    clock: &'a HybridClock,
    size_max: u64,
    offset: u64,
    keys: HashSet<u64>,
}

impl<'a> Placing<'a> {
    /// A commit whose first needle starts at `start`, in a file that may grow to `size_max` bytes.
    pub(crate) fn new(volume: &'a Volume, clock: &'a HybridClock, size_max: u64, start: u64) -> Self {
        Self { volume, clock, size_max, offset: start, keys: HashSet::new() }
    }

    /// The next needle's place. `table` is the data's block table. May wait for the clock's bound.
    ///
    /// # Errors
    /// `Full`, `KeyUsed`, `Clock`: the others of the commit are not concerned.
    pub(crate) fn place(
        &mut self,
        key: NeedleKey,
        cookie: Cookie,
        table: &[u8],
        data: &Bytes,
    ) -> Result<Seat, VolumeError> {
        let (volume, length, offset) = (self.volume.id(), data.len() as u32, self.offset);
        if offset + span(length) > self.size_max {
            return Err(VolumeError::Full(volume));
        }
        if self.keys.contains(&key.0) || self.volume.has_key(key) {
            return Err(VolumeError::KeyUsed { volume, key });
        }
        let stamp = self.clock.next_blocking().map_err(|source| VolumeError::Clock { volume, source })?;
        let batch_first = self.keys.is_empty();
        let header = NeedleHeader { key, cookie, length, stamp, batch_first };
        let front = encode_front(self.volume.identity, offset, &header, table, data);
        self.keys.insert(key.0);
        self.offset += span(length);
        Ok(Seat { offset, stamp, front })
    }
}
