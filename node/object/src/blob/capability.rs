//! What makes a fid one of ours, and who may write it.
//!
//! ```text
//! cookie = first 4 bytes of MAC("cookie", volume, first key, keys in the row)      the same for all fids of a row
//! token  = "1." expiry in hex seconds "." hex of MAC("token", volume, first key, cookie, expiry)
//! ```
//!
//! Keys are handed out in rows of a power of two. A client asks for `count` fids and gets the first; the others are `FID_1`,
//! `FID_2` and so on, with the same cookie. Both MACs are HMAC-SHA256 under keys of their own, derived from the cluster's.
//!
//! Invariants: a cookie is guessed no more easily than by chance, whether to read or to write; a fid beyond the end of its row
//! is not ours; MACs are compared in constant time.

use meridian_sigv4::{ClusterKey, Purpose};
use meridian_types::{Cookie, DatacenterName, Fid, NeedleKey, ReplicaCode, VolumeId};
use subtle::ConstantTimeEq;

use super::BlobError;
use crate::Objects;

/// Most fids of one assignment.
pub const COUNT_MAX: u64 = 1 << ROW_BITS_MAX;
const ROW_BITS_MAX: u32 = 15;
/// How long a token lets its holder write.
pub const TOKEN_LIFETIME_MS: u64 = 10 * 60 * 1000;
const _: () = assert!(COUNT_MAX <= meridian_control::KEYS_IN_ROW_MAX);

/// A fid as a URL names it: the first one of a row, and how far behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobAddress {
    pub first: Fid,
    /// The number behind the underscore, 0 without one.
    pub delta: u32,
}

impl BlobAddress {
    /// The fid of the needle itself.
    pub fn fid(&self) -> Option<Fid> {
        let key = self.first.key.0.checked_add(u64::from(self.delta))?;
        Some(Fid { key: NeedleKey(key), ..self.first })
    }
}

/// A row of fids that were handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobGrant {
    pub first: Fid,
    pub count: u64,
    /// Lets its holder write them until it expires.
    pub token: String,
}

/// Keys in a row for `count` fids, as a power of two.
fn row_bits(count: u64) -> u32 {
    count.next_power_of_two().trailing_zeros()
}

fn cookie(key: &ClusterKey, volume: VolumeId, first: NeedleKey, bits: u32) -> Cookie {
    let mac = key.derive(Purpose::BlobCookie, &format!("{volume},{first},{bits}"));
    Cookie(u32::from_be_bytes([mac[0], mac[1], mac[2], mac[3]]))
}

fn token(key: &ClusterKey, first: Fid, expires_s: u64) -> String {
    let Fid { volume, key: first_key, cookie } = first;
    let mac = key.derive(Purpose::BlobToken, &format!("{volume},{first_key},{},{expires_s}", cookie.0));
    format!("1.{expires_s:x}.{}", hex::encode(mac))
}

/// Whether the address is one that was handed out: its cookie is the MAC of a row that reaches so far.
fn is_ours(key: &ClusterKey, address: BlobAddress) -> bool {
    let Fid { volume, key: first, cookie: claimed } = address.first;
    let shortest = row_bits(u64::from(address.delta) + 1);
    (shortest..=ROW_BITS_MAX).any(|bits| {
        let expected = cookie(key, volume, first, bits);
        bool::from(expected.0.to_be_bytes().ct_eq(&claimed.0.to_be_bytes()))
    })
}

fn is_valid(key: &ClusterKey, address: BlobAddress, claimed: &str, now_unix_ms: u64) -> bool {
    let expiry = claimed.strip_prefix("1.").and_then(|rest| Some(rest.split_once('.')?.0));
    let Some(expires_s) = expiry.and_then(|expiry| u64::from_str_radix(expiry, 16).ok()) else { return false };
    let genuine = token(key, address.first, expires_s);
    bool::from(genuine.as_bytes().ct_eq(claimed.as_bytes())) && now_unix_ms / 1000 < expires_s
}

impl Objects {
    /// Hands out `count` fids of one volume of this node that takes appends.
    ///
    /// # Errors
    /// `InvalidArgument` for no fids or more than `COUNT_MAX`; `Impossible` says what is missing for the code; `Unavailable`.
    pub async fn assign_blobs(&self, count: u64, code: Option<ReplicaCode>) -> Result<BlobGrant, BlobError> {
        let inner = &self.inner;
        if count == 0 || count > COUNT_MAX {
            let reason = format!("{count} is outside of 1..={COUNT_MAX}");
            return Err(BlobError::InvalidArgument { argument: "count", reason });
        }
        let code = code.unwrap_or(inner.config.default_code);
        self.check_code(code)?;
        let volume = inner.control.lease_volume(code).await?;
        let bits = row_bits(count);
        let key = inner.control.next_keys(1 << bits).await?;
        let cookie = cookie(&inner.config.cluster_key, volume, key, bits);
        let first = Fid { volume, key, cookie };
        let expires_s = (inner.now_unix_ms() + TOKEN_LIFETIME_MS) / 1000;
        Ok(BlobGrant { first, count, token: token(&inner.config.cluster_key, first, expires_s) })
    }

    /// Whether a token lets its holder write and delete this blob now.
    pub fn is_blob_token(&self, address: BlobAddress, token: &str) -> bool {
        is_valid(&self.inner.config.cluster_key, address, token, self.inner.now_unix_ms())
            && is_ours(&self.inner.config.cluster_key, address)
    }

    /// The fid of an address that was handed out.
    ///
    /// # Errors
    /// `NotAssigned`.
    pub(super) fn assigned(&self, address: BlobAddress) -> Result<Fid, BlobError> {
        let fid = address.fid().filter(|_| is_ours(&self.inner.config.cluster_key, address));
        fid.ok_or(BlobError::NotAssigned)
    }

    /// The default code of this cluster, and the name of this datacenter.
    pub fn placement_defaults(&self) -> (ReplicaCode, &DatacenterName) {
        (self.inner.config.default_code, &self.inner.config.region)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> ClusterKey {
        ClusterKey::new([byte; 32])
    }

    fn row(count: u64) -> Fid {
        let volume = VolumeId::from_raw(0x301).unwrap();
        let first = NeedleKey(500);
        Fid { volume, key: first, cookie: cookie(&key(1), volume, first, row_bits(count)) }
    }

    fn at(first: Fid, delta: u32) -> BlobAddress {
        BlobAddress { first, delta }
    }

    #[test]
    fn a_row_reaches_to_its_power_of_two_and_no_further() {
        for (count, reach) in [(1, 1), (2, 2), (3, 4), (5, 8), (COUNT_MAX, COUNT_MAX as u32)] {
            let first = row(count);
            assert!(is_ours(&key(1), at(first, 0)) && is_ours(&key(1), at(first, reach - 1)), "{count}");
            assert!(!is_ours(&key(1), at(first, reach)), "{count}");
        }
        assert_eq!(at(row(4), 3).fid().map(|fid| fid.key), Some(NeedleKey(503)));
        assert_eq!(at(Fid { key: NeedleKey(u64::MAX), ..row(1) }, 1).fid(), None);
    }

    #[test]
    fn made_up_fids_are_not_ours() {
        let first = row(1);
        assert!(!is_ours(&key(2), at(first, 0)), "another cluster's");
        let next = Fid { key: NeedleKey(501), ..first };
        assert!(!is_ours(&key(1), at(next, 0)), "the cookie is of another key");
        let other = Fid { volume: VolumeId::from_raw(0x401).unwrap(), ..first };
        assert!(!is_ours(&key(1), at(other, 0)), "the cookie is of another volume");
        assert!(!is_ours(&key(1), at(Fid { cookie: Cookie(first.cookie.0 ^ 1), ..first }, 0)));
    }

    #[test]
    fn tokens_hold_for_their_row_until_they_expire() {
        let (first, now) = (row(4), 1_000_000);
        let granted = token(&key(1), first, 2_000);
        assert!(is_valid(&key(1), at(first, 3), &granted, now));
        assert!(!is_valid(&key(1), at(first, 0), &granted, 2_000_000), "expired");
        assert!(!is_valid(&key(2), at(first, 0), &granted, now), "another cluster's");
        assert!(!is_valid(&key(1), at(row(1), 0), &granted, now), "of another row");
        let later = granted.replacen("1.7d0.", "1.ffff.", 1);
        assert_ne!(later, granted);
        assert!(!is_valid(&key(1), at(first, 0), &later, now), "its expiry was changed");
        for text in ["", "1.", "1.zz.", "2.7d0.00", &granted[..granted.len() - 1], &format!("{granted}0")] {
            assert!(!is_valid(&key(1), at(first, 0), text, now), "{text:?}");
        }
    }
}
