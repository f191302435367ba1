//! The needle codec: round trip, golden bytes, flipped and truncated input.

use meridian_types::DatacenterId;
use proptest::prelude::*;

use super::*;

fn identity() -> FileIdentity {
    let volume = VolumeId::new(3, DatacenterId::new(1).unwrap()).unwrap();
    FileIdentity { volume, generation: FileGeneration(2) }
}

fn header(length: usize) -> NeedleHeader {
    NeedleHeader {
        key: NeedleKey(0x0102_0304_0506_0708),
        cookie: Cookie(0x1122_3344),
        length: length as u32,
        stamp: Timestamp::from_raw(0xa1a2_a3a4_a5a6_a7a8),
        batch_first: true,
    }
}

fn encode(offset: u64, header: &NeedleHeader, data: &[u8]) -> Vec<u8> {
    let mut bytes = encode_front(identity(), offset, header, &block_table(data), data);
    bytes.extend_from_slice(data);
    bytes.resize(span(header.length) as usize, 0);
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn golden_bytes_of_a_small_needle() {
    let bytes = encode(64, &header(5), b"hello");
    assert_eq!(
        hex(&bytes),
        "f80e0f16\
         4d6e\
         01\
         02\
         0807060504030201\
         44332211\
         05000000\
         a8a7a6a5a4a3a2a1\
         68656c6c6f\
         000000"
    );
}

#[test]
fn golden_front_of_a_large_needle() {
    let data: Vec<u8> = (0..BLOCK_SIZE + 1).map(|n| n as u8).collect();
    let bytes = encode(64, &header(data.len()), &data);
    assert_eq!(bytes.len() as u64, span(data.len() as u32));
    assert_eq!(bytes.len(), (32 + 8 + BLOCK_SIZE + 1).next_multiple_of(8));
    assert_eq!(
        hex(&bytes[..48]),
        "bf1e80bc4d6e010308070605040302014433221101000100a8a7a6a5a4a3a2a1\
         3daf24a251537d52\
         0001020304050607"
    );
}

#[test]
fn a_small_needle_costs_at_most_40_bytes() {
    for length in 0..64 {
        assert!(span(length) <= u64::from(length) + 40);
        assert_eq!(span(length) % ALIGNMENT, 0);
    }
}

#[test]
fn a_needle_passes_only_where_it_was_written() {
    let bytes = encode(64, &header(5), b"hello");
    assert_eq!(verify(identity(), 64, &bytes), Ok(header(5)));
    assert_eq!(verify(identity(), 72, &bytes), Err(NeedleError::Checksum));
    let other = FileIdentity { generation: FileGeneration(3), ..identity() };
    assert_eq!(verify(other, 64, &bytes), Err(NeedleError::Checksum));
}

#[test]
fn a_length_above_the_limit_is_no_needle() {
    let mut bytes = encode(64, &header(5), b"hello");
    bytes[20..24].copy_from_slice(&(NEEDLE_SIZE_MAX as u32 + 1).to_le_bytes());
    assert_eq!(verify(identity(), 64, &bytes), Err(NeedleError::Header));
}

#[test]
fn blocks_are_checked_by_themselves() {
    let data: Vec<u8> = (0..3 * BLOCK_SIZE + 77).map(|n| (n * 7) as u8).collect();
    let mut bytes = encode(64, &header(data.len()), &data);
    let front = front_size(data.len() as u32);
    bytes[front + BLOCK_SIZE + 9] ^= 4;
    assert_eq!(verify(identity(), 64, &bytes), Err(NeedleError::Block(1)));
    assert!(verify_front(identity(), 64, &bytes).is_ok());
    let (front, data) = bytes.split_at(front);
    assert_eq!(verify_blocks(front, 0, &data[..BLOCK_SIZE]), Ok(()));
    assert_eq!(verify_blocks(front, 2, &data[2 * BLOCK_SIZE..3 * BLOCK_SIZE + 77]), Ok(()));
    assert!(verify_blocks(front, 0, &data[BLOCK_SIZE..2 * BLOCK_SIZE]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn needles_round_trip(length in prop_oneof![0usize..200, 65_530usize..65_560, 131_000usize..200_000], units in 8u64..1 << 32, key: u64, cookie: u32, raw: u64, batch_first: bool) {
        let header = NeedleHeader {
            key: NeedleKey(key), cookie: Cookie(cookie), length: length as u32, stamp: Timestamp::from_raw(raw), batch_first,
        };
        let data: Vec<u8> = (0..length).map(|n| (n as u64 ^ key) as u8).collect();
        let bytes = encode(units * ALIGNMENT, &header, &data);
        prop_assert_eq!(verify(identity(), units * ALIGNMENT, &bytes), Ok(header));
    }

    #[test]
    fn every_flipped_bit_is_found(length in prop_oneof![0usize..100, 65_537usize..70_000], flip: prop::sample::Index) {
        let data: Vec<u8> = (0..length).map(|n| n as u8).collect();
        let mut bytes = encode(64, &header(length), &data);
        let bit = flip.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(verify(identity(), 64, &bytes).is_err(), "bit {} passed", bit);
    }

    #[test]
    fn every_cut_is_short(length in prop_oneof![0usize..100, 65_537usize..66_000], cut: prop::sample::Index) {
        let data: Vec<u8> = (0..length).map(|n| n as u8).collect();
        let bytes = encode(64, &header(length), &data);
        let cut = cut.index(bytes.len());
        let is_short = matches!(verify(identity(), 64, &bytes[..cut]), Err(NeedleError::Short { .. }));
        prop_assert!(is_short);
    }

    #[test]
    fn arbitrary_bytes_are_never_a_needle(bytes: Vec<u8>) {
        prop_assert!(verify(identity(), 64, &bytes).is_err());
    }
}
