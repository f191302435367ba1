//! The first 64 bytes of each file of a volume: what the file is, readable when everything else of it is lost.
//!
//! ```text
//!    0  magic       "meridvol" data · "meridvix" index journal · "meridvde" delete journal
//!    8  version     u32  1
//!   12  volume      u32
//!   16  generation  u32
//!   20  code        three digits as text, then a zero
//!   24  zeros
//!   60  checksum    u32  CRC32C of the 60 bytes before it
//! ```
//!
//! It depends on nothing but the volume's identity, so that a mirror writes the very same bytes.

use meridian_types::{FileGeneration, ReplicaCode, VolumeId};

use crate::needle::{FileIdentity, checksum};

/// Bytes before the first needle of a volume file, and before the first record of its journals.
pub const VOLUME_HEADER_SIZE: u64 = 64;

const SIZE: usize = VOLUME_HEADER_SIZE as usize;
const CHECKED: usize = SIZE - 4;
const VERSION: u32 = 1;

/// Which of a volume's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    Data,
    Index,
    Deletes,
}

impl FileKind {
    const fn magic(self) -> &'static [u8; 8] {
        match self {
            Self::Data => b"meridvol",
            Self::Index => b"meridvix",
            Self::Deletes => b"meridvde",
        }
    }
}

/// What the header names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileHeader {
    pub(crate) identity: FileIdentity,
    pub(crate) code: ReplicaCode,
}

pub(crate) fn encode(kind: FileKind, header: &FileHeader) -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    bytes[..8].copy_from_slice(kind.magic());
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&header.identity.volume.get().to_le_bytes());
    bytes[16..20].copy_from_slice(&header.identity.generation.0.to_le_bytes());
    bytes[20..23].copy_from_slice(header.code.to_string().as_bytes());
    let crc = checksum(&[&bytes[..CHECKED]]);
    bytes[CHECKED..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// # Errors
/// A sentence that says what is wrong.
pub(crate) fn decode(kind: FileKind, bytes: &[u8]) -> Result<FileHeader, String> {
    let bytes: &[u8; SIZE] = bytes.get(..SIZE).and_then(|b| b.try_into().ok()).ok_or("its header is cut off")?;
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    if &bytes[..8] != kind.magic() {
        return Err(format!("it is no {kind:?} file of a volume"));
    }
    if u32_at(CHECKED) != checksum(&[&bytes[..CHECKED]]) {
        return Err("its header fails the checksum".to_owned());
    }
    if u32_at(8) != VERSION {
        return Err(format!("its version is {}, the newest known is {VERSION}", u32_at(8)));
    }
    let code = std::str::from_utf8(&bytes[20..23]).ok().and_then(|text| text.parse().ok());
    Ok(FileHeader {
        identity: FileIdentity {
            volume: VolumeId::from_raw(u32_at(12)).map_err(|error| error.to_string())?,
            generation: FileGeneration(u32_at(16)),
        },
        code: code.ok_or("its replica code is none")?,
    })
}

#[cfg(test)]
mod tests {
    use meridian_types::DatacenterId;

    use super::*;

    fn header() -> FileHeader {
        let volume = VolumeId::new(3, DatacenterId::new(1).unwrap()).unwrap();
        let identity = FileIdentity { volume, generation: FileGeneration(2) };
        FileHeader { identity, code: "210".parse().unwrap() }
    }

    #[test]
    fn golden_bytes() {
        let bytes = encode(FileKind::Data, &header());
        assert_eq!(&bytes[..24], b"meridvol\x01\0\0\0\x01\x03\0\0\x02\0\0\x00210\0");
        assert_eq!(bytes[24..60], [0; 36]);
        assert_eq!(u32::from_le_bytes(bytes[60..].try_into().unwrap()), 3_084_822_443);
    }

    #[test]
    fn headers_round_trip_and_every_damage_is_refused() {
        for kind in [FileKind::Data, FileKind::Index, FileKind::Deletes] {
            let bytes = encode(kind, &header());
            assert_eq!(decode(kind, &bytes), Ok(header()));
            for bit in 0..SIZE * 8 {
                let mut flipped = bytes;
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(decode(kind, &flipped).is_err(), "bit {bit} passed");
            }
            for cut in 0..SIZE {
                assert!(decode(kind, &bytes[..cut]).is_err());
            }
        }
        assert!(decode(FileKind::Data, &encode(FileKind::Index, &header())).is_err());
    }
}
