//! What a client has seen of the cluster: of each datacenter the greatest stamp that an answer could show. Clients carry it
//! from region to region as an opaque text (`x-meridian-token`, `x-meridian-after`; rule 21).
//!
//! It is no secret and no permission: a made-up token can only make its own request wait. The text is the hex form of a
//! record (kind `Seen`), so it has a version and a checksum; see docs/formats/seen-token.md.
//!
//! Invariants: one entry a datacenter, in order of their ids, none at zero; so the text has at most `TEXT_LENGTH_MAX` bytes.

use crate::{
    DatacenterId, Plant, Planted, RecordError, RecordKind, Sound, Stamp, Timestamp, decode_record, encode_record,
};

const VERSION: u8 = 1;
/// Datacenters of a cluster.
const ORIGINS_MAX: usize = 254;
/// A longer text is no token, and is refused before it is read: 12 bytes an origin and the record's frame, in hex.
const TEXT_LENGTH_MAX: usize = 2 * (12 * ORIGINS_MAX + 8);

/// Of each datacenter the greatest stamp seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen(Vec<(DatacenterId, Timestamp)>);

/// Why a text is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SeenError {
    #[error("it is longer than any token")]
    TooLong,
    #[error("it is not in hexadecimal")]
    Text,
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("its datacenters are not in order")]
    Order,
}

impl Seen {
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In order of the ids.
    pub fn iter(&self) -> impl Iterator<Item = (DatacenterId, Timestamp)> + '_ {
        self.0.iter().copied()
    }

    pub fn note(&mut self, stamp: Stamp) {
        self.note_through(stamp.datacenter, stamp.timestamp);
    }

    /// Everything of `origin` up to `through` may have been seen.
    pub fn note_through(&mut self, origin: DatacenterId, through: Timestamp) {
        if through == Timestamp::ZERO {
            return;
        }
        match self.0.binary_search_by_key(&origin, |(origin, _)| *origin) {
            Ok(at) => self.0[at].1 = self.0[at].1.max(through),
            Err(at) => self.0.insert(at, (origin, through)),
        }
    }

    pub fn merge(&mut self, other: &Seen) {
        self.merge_planted(Sound, other);
    }

    /// `merge`, with mistakes for a simulation to find.
    pub fn merge_planted(&mut self, plant: impl Plant, other: &Seen) {
        for (origin, through) in other.iter() {
            let is_known = self.iter().any(|(known, _)| known == origin);
            if is_known || !plant.has(Planted::SessionForgetsOrigin) {
                self.note_through(origin, through);
            }
        }
    }

    pub fn to_text(&self) -> String {
        hex::encode(encode_record(RecordKind::Seen, VERSION, &self.0))
    }

    /// # Errors
    /// `SeenError`: it is not a token, or one of a newer version.
    pub fn from_text(text: &str) -> Result<Self, SeenError> {
        if text.len() > TEXT_LENGTH_MAX {
            return Err(SeenError::TooLong);
        }
        let bytes = hex::decode(text).map_err(|_| SeenError::Text)?;
        let origins: Vec<(DatacenterId, Timestamp)> = decode_record(RecordKind::Seen, VERSION, &bytes)?;
        let in_order = origins.windows(2).all(|pair| pair[0].0 < pair[1].0);
        if !in_order || origins.iter().any(|(_, through)| *through == Timestamp::ZERO) {
            return Err(SeenError::Order);
        }
        Ok(Self(origins))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seen(entries: &[(u8, u64)]) -> Seen {
        let mut seen = Seen::new();
        for (origin, raw) in entries {
            seen.note_through(DatacenterId::new(*origin).unwrap(), Timestamp::from_raw(*raw));
        }
        seen
    }

    #[test]
    fn golden_text() {
        let token = seen(&[(2, 300), (1, 7)]);
        assert_eq!(token.to_text(), "320102010702ac02e1e63afc");
        assert_eq!(Seen::from_text(&token.to_text()).unwrap(), token);
        assert_eq!(Seen::from_text(&Seen::new().to_text()).unwrap(), Seen::new());
    }

    #[test]
    fn the_greatest_of_each_origin_stays() {
        let mut one = seen(&[(1, 5), (2, 9), (1, 3)]);
        one.merge(&seen(&[(2, 4), (3, 1), (1, 6), (4, 0)]));
        assert_eq!(one, seen(&[(1, 6), (2, 9), (3, 1)]));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        assert_eq!(Seen::from_text("zz"), Err(SeenError::Text));
        assert_eq!(Seen::from_text(&"0".repeat(TEXT_LENGTH_MAX + 1)), Err(SeenError::TooLong));
        assert!(matches!(Seen::from_text(""), Err(SeenError::Record(_))));
        let (one, two) = (DatacenterId::new(1).unwrap(), DatacenterId::new(2).unwrap());
        for body in [vec![(two, Timestamp::MAX), (one, Timestamp::MAX)], vec![(one, Timestamp::ZERO)]] {
            let text = hex::encode(encode_record(RecordKind::Seen, VERSION, &body));
            assert_eq!(Seen::from_text(&text), Err(SeenError::Order));
        }
        let all: Vec<(u8, u64)> = (1..=254).map(|origin| (origin, u64::MAX)).collect();
        assert!(seen(&all).to_text().len() <= TEXT_LENGTH_MAX);
    }

    proptest! {
        #[test]
        fn a_flipped_bit_is_refused(raw in 1u64.., flip: prop::sample::Index) {
            let bytes = hex::decode(seen(&[(1, raw), (3, 4)]).to_text()).unwrap();
            let bit = flip.index(bytes.len() * 8);
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Seen::from_text(&hex::encode(flipped)).is_err());
        }
    }
}
