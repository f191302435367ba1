//! The checksums that clients choose: of bytes as they go by, of an object from those of its parts.
//!
//! Invariants: a checksum of the whole object that is made of its parts' is the one that its bytes would give.
//!
//! Source: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html>

use std::sync::Arc;

use crc_fast::{CrcAlgorithm, Digest as Crc, checksum_combine};
use futures::TryStreamExt;
use meridian_index::{Checksum, ChecksumAlgorithm};
use parking_lot::Mutex;
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::{BodyFinish, ByteStream};

/// Computes one checksum.
pub enum Hasher {
    /// With the length of its value in bytes.
    Crc(Box<Crc>, usize),
    Sha1(Sha1),
    Sha256(Sha256),
}

fn crc(algorithm: ChecksumAlgorithm) -> Option<(CrcAlgorithm, usize)> {
    match algorithm {
        ChecksumAlgorithm::Crc32 => Some((CrcAlgorithm::Crc32IsoHdlc, 4)),
        ChecksumAlgorithm::Crc32c => Some((CrcAlgorithm::Crc32Iscsi, 4)),
        ChecksumAlgorithm::Crc64Nvme => Some((CrcAlgorithm::Crc64Nvme, 8)),
        ChecksumAlgorithm::Sha1 | ChecksumAlgorithm::Sha256 => None,
    }
}

impl Hasher {
    pub fn new(algorithm: ChecksumAlgorithm) -> Self {
        match (crc(algorithm), algorithm) {
            (Some((crc, length)), _) => Self::Crc(Box::new(Crc::new(crc)), length),
            (None, ChecksumAlgorithm::Sha1) => Self::Sha1(Sha1::new()),
            (None, _) => Self::Sha256(Sha256::new()),
        }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Crc(hasher, _) => hasher.update(bytes),
            Self::Sha1(hasher) => hasher.update(bytes),
            Self::Sha256(hasher) => hasher.update(bytes),
        }
    }

    /// The value, big-endian.
    pub fn finish(self) -> Vec<u8> {
        match self {
            Self::Crc(hasher, length) => hasher.finalize().to_be_bytes()[8 - length..].to_vec(),
            Self::Sha1(hasher) => hasher.finalize().to_vec(),
            Self::Sha256(hasher) => hasher.finalize().to_vec(),
        }
    }
}

/// Follows bytes that nothing is promised of, and hands over their checksum at the end.
pub fn computed_checksum(algorithm: ChecksumAlgorithm, body: ByteStream) -> (ByteStream, BodyFinish) {
    let hasher = Arc::new(Mutex::new(Hasher::new(algorithm)));
    let feeding = Arc::clone(&hasher);
    let body: ByteStream = Box::pin(body.inspect_ok(move |bytes| feeding.lock().update(bytes)));
    let finish: BodyFinish = Box::new(move || {
        let hasher = std::mem::replace(&mut *hasher.lock(), Hasher::new(algorithm));
        Ok(vec![Checksum { algorithm, value: hasher.finish(), composite: false }])
    });
    (body, finish)
}

/// The checksum of an object from those of its parts and their sizes in bytes, in their order: of the parts' values
/// (composite), or what the object's own bytes would give. `None` when an algorithm can't be put together from parts.
pub(crate) fn of_parts(algorithm: ChecksumAlgorithm, composite: bool, parts: &[(Vec<u8>, u64)]) -> Option<Checksum> {
    if composite {
        let mut hasher = Hasher::new(algorithm);
        for (value, _) in parts {
            hasher.update(value);
        }
        return Some(Checksum { algorithm, value: hasher.finish(), composite });
    }
    let (crc, length) = crc(algorithm)?;
    let number = |value: &[u8]| value.iter().fold(0u64, |number, byte| (number << 8) | u64::from(*byte));
    let mut parts = parts.iter();
    let (first, _) = parts.next()?;
    let whole = parts.fold(number(first), |whole, (value, size)| checksum_combine(crc, whole, number(value), *size));
    Some(Checksum { algorithm, value: whole.to_be_bytes()[8 - length..].to_vec(), composite })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [ChecksumAlgorithm; 5] = [
        ChecksumAlgorithm::Crc32,
        ChecksumAlgorithm::Crc32c,
        ChecksumAlgorithm::Crc64Nvme,
        ChecksumAlgorithm::Sha1,
        ChecksumAlgorithm::Sha256,
    ];

    fn digest(algorithm: ChecksumAlgorithm, bytes: &[u8]) -> Vec<u8> {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    #[test]
    fn the_check_values_of_the_algorithms() {
        let check = |algorithm| hex::encode(digest(algorithm, b"123456789"));
        assert_eq!(check(ChecksumAlgorithm::Crc32), "cbf43926");
        assert_eq!(check(ChecksumAlgorithm::Crc32c), "e3069283");
        assert_eq!(check(ChecksumAlgorithm::Crc64Nvme), "ae8b14860a799888");
        assert_eq!(check(ChecksumAlgorithm::Sha1), "f7c3bc1d808e04732adf679965ccc34ca7ae3441");
        assert!(check(ChecksumAlgorithm::Sha256).starts_with("15e2b0d3c33891eb"));
    }

    #[test]
    fn parts_give_what_the_whole_gives() {
        let data: Vec<u8> = (0..10_000u32).map(|n| ((n * n) >> 3) as u8).collect();
        for algorithm in ALL {
            let parts: Vec<(Vec<u8>, u64)> = [&data[..7], &data[7..7], &data[7..9000], &data[9000..]]
                .map(|part| (digest(algorithm, part), part.len() as u64))
                .into();
            let whole = of_parts(algorithm, false, &parts).map(|checksum| checksum.value);
            assert_eq!(whole, crc(algorithm).map(|_| digest(algorithm, &data)), "{algorithm:?}");
            let composite = of_parts(algorithm, true, &parts).unwrap();
            let values: Vec<u8> = parts.iter().flat_map(|(value, _)| value.clone()).collect();
            assert_eq!((composite.value, composite.composite), (digest(algorithm, &values), true));
        }
    }
}
