//! Randomness of the operating system, and the ids that are drawn from it.

use meridian_types::{Cookie, RequestId};

/// Fills `bytes` with random bytes fit for keys.
pub fn fill(bytes: &mut [u8]) {
    // A machine without entropy can make neither keys nor ids; nothing sensible goes on without it.
    aws_lc_rs::rand::fill(bytes).expect("the operating system gives entropy");
}

fn array<const LENGTH: usize>() -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    fill(&mut bytes);
    bytes
}

/// A new name for one proposal (rule 11).
pub fn request_id() -> RequestId {
    RequestId(array())
}

/// A new cookie for a needle.
pub fn cookie() -> Cookie {
    Cookie(u32::from_le_bytes(array()))
}

/// The random part of an upload id.
pub fn upload_bytes() -> [u8; 15] {
    array()
}

/// A number below `bound`, for spreading load and jitter; `bound` is at least 1.
pub fn below(bound: u64) -> u64 {
    assert!(bound > 0, "a number below nothing was asked");
    u64::from_le_bytes(array()) % bound
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ() {
        let mut ids: Vec<RequestId> = (0..1000).map(|_| request_id()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 1000);
        assert!((0..100).all(|_| below(7) < 7));
    }
}
