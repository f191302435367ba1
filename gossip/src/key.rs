//! The key that seals the gossip of one datacenter.

use std::fmt;

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use meridian_types::{ClusterId, DatacenterId};
use zeroize::Zeroizing;

/// HKDF's salt: separates this key from any other that is derived of the cluster's secret.
const SALT: &[u8] = b"meridian gossip key v1";

/// An AES-256-GCM key. Never printed, wiped when dropped.
///
/// Nonces are random, 96 bits: the odds of one repeating under a key stay below 2^-32 up to 2^32 datagrams, which a
/// datacenter of 100 nodes reaches after months. The key of another datacenter is another one.
#[derive(Clone)]
pub struct GossipKey(Zeroizing<[u8; Self::LENGTH]>);

impl GossipKey {
    pub const LENGTH: usize = 32;

    /// From 32 random bytes.
    pub fn new(bytes: [u8; Self::LENGTH]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The key of a datacenter, by HKDF-SHA256 (RFC 5869) from the cluster's secret. All nodes of the datacenter get
    /// the same one; a datagram of another cluster or datacenter does not open.
    pub fn derive(secret: &[u8; 32], cluster: ClusterId, datacenter: DatacenterId) -> Self {
        struct Length;
        impl KeyType for Length {
            fn len(&self) -> usize {
                GossipKey::LENGTH
            }
        }
        let prk = Salt::new(HKDF_SHA256, SALT).extract(secret);
        let info: [&[u8]; 2] = [&cluster.0, &[datacenter.get()]];
        let mut key = Zeroizing::new([0; Self::LENGTH]);
        prk.expand(&info, Length)
            .and_then(|okm| okm.fill(&mut key[..]))
            .expect("32 bytes are within what HKDF-SHA256 can give");
        Self(key)
    }

    pub(crate) fn bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }
}

impl fmt::Debug for GossipKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GossipKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn derive(secret: u8, cluster: u8, datacenter: u8) -> [u8; 32] {
        *GossipKey::derive(&[secret; 32], ClusterId([cluster; 16]), DatacenterId::new(datacenter).unwrap()).bytes()
    }

    #[test]
    fn each_cluster_and_datacenter_has_its_own_key() {
        let key = derive(1, 2, 3);
        assert_eq!(key, derive(1, 2, 3));
        for other in [derive(2, 2, 3), derive(1, 3, 3), derive(1, 2, 4)] {
            assert_ne!(key, other);
        }
    }

    #[test]
    fn the_derivation_does_not_change() {
        // A change would cut a datacenter in two during an upgrade.
        #[rustfmt::skip]
        let golden = [
        0x25, 0x93, 0xcc, 0xdd, 0x5e, 0x45, 0x57, 0xc1, 0x88, 0x5f, 0xa2, 0xed, 0xb8, 0x87, 0xb1, 0xf9,
        0x6a, 0x83, 0x2c, 0x8b, 0xc6, 0x98, 0x17, 0x53, 0x5d, 0xc7, 0xb3, 0xdd, 0xe4, 0x57, 0x19, 0x52,
        ];
        assert_eq!(derive(1, 2, 3), golden);
    }

    #[test]
    fn a_key_is_never_printed() {
        assert_eq!(format!("{:?}", GossipKey::new([7; 32])), "GossipKey(..)");
    }
}
