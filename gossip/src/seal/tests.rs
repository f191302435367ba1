//! The seal as bytes: golden, flipped, cut, replayed, out of order.

use proptest::collection::vec;
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
use proptest::sample::Index;

use super::*;

const CLOCK_DIFFERENCE_MS: u64 = 60_000;

fn now() -> Timestamp {
    Timestamp::from_unix_ms(1_800_000_000_000)
}

fn sender(node: u32, boot_counter: u64) -> Sender {
    Sender { datacenter: DatacenterId::new(2).unwrap(), node: NodeId(node), boot_counter }
}

fn key(byte: u8) -> GossipKey {
    GossipKey::new([byte; 32])
}

fn sealer(node: u32, boot_counter: u64) -> Sealer {
    Sealer::new(&key(1), ClusterId([5; 16]), sender(node, boot_counter))
}

fn opener() -> Opener {
    Opener::new(&key(1), ClusterId([5; 16]), sender(1, 1), CLOCK_DIFFERENCE_MS)
}

fn seal_one(sealer: &mut Sealer, message: &[u8]) -> Vec<u8> {
    let mut datagrams = sealer.seal(now(), message).unwrap();
    assert_eq!(datagrams.len(), 1);
    datagrams.remove(0)
}

fn open(opener: &mut Opener, datagram: &[u8]) -> Result<Option<Vec<u8>>, DropReason> {
    opener.open(now(), &mut datagram.to_vec())
}

#[test]
fn a_header_has_these_bytes() {
    let header = Header {
        part: 1,
        parts: 2,
        sender: sender(0x0a0b_0c0d, 3),
        cluster: ClusterId([5; 16]),
        sequence: 0x0102,
        sent_at: Timestamp::from_raw(7),
    };
    let mut golden = vec![1, 1, 2, 2, 0x0d, 0x0c, 0x0b, 0x0a];
    golden.extend_from_slice(&[5; 16]);
    golden.extend_from_slice(&[3, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(header.encode()[..], golden);
    assert_eq!(Header::decode(&header.encode()), Ok(header));
}

#[test]
fn a_datagram_has_these_bytes() {
    let header =
        Header { part: 0, parts: 1, sender: sender(9, 3), cluster: ClusterId([5; 16]), sequence: 1, sent_at: now() };
    let datagram = sealer(9, 3).seal_part([4; NONCE_LEN], &header, b"hi");
    assert_eq!(datagram.len(), OVERHEAD + 2);
    // Computed by another implementation of AES-256-GCM.
    #[rustfmt::skip]
    let golden: [u8; 78] = [
        0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0xee, 0xa1, 0x5a, 0x42,
        0x90, 0xb8, 0xbb, 0x49, 0xa2, 0x49, 0x9b, 0xb9, 0x95, 0x50, 0xa9, 0x87, 0x70, 0x1d, 0xec, 0xa2,
        0x29, 0x29, 0xe0, 0x31, 0xc8, 0x83, 0xfd, 0xbd, 0xc3, 0x38, 0xbb, 0x15, 0xc4, 0x33, 0x67, 0xe3,
        0x75, 0x0d, 0xf5, 0xe6, 0x06, 0xa9, 0xeb, 0x48, 0xb0, 0xd8, 0x4d, 0xd1, 0x61, 0x81, 0x6b, 0xe1,
        0xb0, 0x1e, 0x65, 0x20, 0x6f, 0x09, 0x89, 0xae, 0x6a, 0xcc, 0xa6, 0x49, 0x9b, 0xab,
    ];
    assert_eq!(datagram, golden);
    assert_eq!(open(&mut opener(), &golden), Ok(Some(b"hi".to_vec())));
}

#[test]
fn what_is_sealed_is_not_readable() {
    let datagram = seal_one(&mut sealer(9, 1), b"a secret about node nine");
    assert!(!datagram.windows(6).any(|window| window == b"secret" || window == [5; 6]));
    assert_ne!(datagram, seal_one(&mut sealer(9, 1), b"a secret about node nine"), "each has its own nonce");
}

#[test]
fn another_key_cluster_or_version_is_dropped_by_its_reason() {
    let datagram = seal_one(&mut sealer(9, 1), b"x");
    let mut other_key = Opener::new(&key(2), ClusterId([5; 16]), sender(1, 1), CLOCK_DIFFERENCE_MS);
    assert_eq!(open(&mut other_key, &datagram), Err(DropReason::Unsealed));
    let mut other_cluster = Opener::new(&key(1), ClusterId([6; 16]), sender(1, 1), CLOCK_DIFFERENCE_MS);
    assert_eq!(open(&mut other_cluster, &datagram), Err(DropReason::WrongCluster));
    for (at, value, reason) in [
        (0, 2, DropReason::Version),
        (1, 1, DropReason::Malformed),
        (2, 0, DropReason::Malformed),
        (2, PARTS_MAX + 1, DropReason::Malformed),
        (3, 0, DropReason::Malformed),
        (3, 255, DropReason::Malformed),
    ] {
        // Sealed with the right key, by a program that is not this one.
        assert_eq!(open(&mut opener(), &forge(at, value)), Err(reason), "byte {at} = {value}");
    }
}

/// A datagram under the right key whose header has one other byte.
fn forge(at: usize, value: u8) -> Vec<u8> {
    let header =
        Header { part: 0, parts: 1, sender: sender(9, 1), cluster: ClusterId([5; 16]), sequence: 1, sent_at: now() };
    let mut bytes = header.encode();
    bytes[at] = value;
    let mut datagram = vec![4; NONCE_LEN];
    datagram.extend_from_slice(&bytes);
    let nonce = Nonce::assume_unique_for_key([4; NONCE_LEN]);
    let tag = aead(&key(1)).seal_in_place_separate_tag(nonce, Aad::empty(), &mut datagram[NONCE_LEN..]).unwrap();
    datagram.extend_from_slice(tag.as_ref());
    datagram
}

#[test]
fn lengths_that_can_not_be_are_dropped_unopened() {
    let mut opener = opener();
    for length in [0, 1, 12, 28, OVERHEAD - 1] {
        assert_eq!(open(&mut opener, &vec![0; length]), Err(DropReason::Truncated), "{length}");
    }
    assert_eq!(open(&mut opener, &[0; OVERHEAD]), Err(DropReason::Unsealed));
    assert_eq!(open(&mut opener, &vec![0; DATAGRAM_SIZE_MAX]), Err(DropReason::Unsealed));
    for length in [DATAGRAM_SIZE_MAX + 1, 65_507, 10 << 20] {
        assert_eq!(open(&mut opener, &vec![0; length]), Err(DropReason::Oversize), "{length}");
    }
}

#[test]
fn a_replayed_datagram_is_dropped() {
    let (mut opener, mut sealer) = (opener(), sealer(9, 1));
    let (first, second) = (seal_one(&mut sealer, b"1"), seal_one(&mut sealer, b"2"));
    assert_eq!(open(&mut opener, &second), Ok(Some(b"2".to_vec())));
    assert_eq!(open(&mut opener, &first), Ok(Some(b"1".to_vec())), "late, but new");
    for replayed in [&first, &second] {
        assert_eq!(open(&mut opener, replayed), Err(DropReason::Replayed));
    }
}

#[test]
fn a_datagram_of_an_earlier_life_is_dropped() {
    let mut opener = opener();
    let (before, after) = (seal_one(&mut sealer(9, 1), b"old"), seal_one(&mut sealer(9, 2), b"new"));
    assert_eq!(open(&mut opener, &after), Ok(Some(b"new".to_vec())));
    assert_eq!(open(&mut opener, &before), Err(DropReason::Replayed));
}

#[test]
fn our_own_datagram_sent_back_is_dropped() {
    assert_eq!(open(&mut opener(), &seal_one(&mut sealer(1, 1), b"x")), Err(DropReason::Replayed));
}

#[test]
fn a_clock_far_off_is_dropped_either_way() {
    let mut sealer = sealer(9, 1);
    let mut at = |sent_at| sealer.seal(sent_at, b"x").unwrap().remove(0);
    let (year_2100, yesterday) = (Timestamp::from_unix_ms(4_102_444_800_000), now().raw() - (86_400_000 << 22));
    let mut opener = opener();
    assert_eq!(open(&mut opener, &at(year_2100)), Err(DropReason::Future));
    assert_eq!(open(&mut opener, &at(Timestamp::MAX)), Err(DropReason::Future));
    assert_eq!(open(&mut opener, &at(Timestamp::from_raw(yesterday))), Err(DropReason::Stale));
    assert_eq!(open(&mut opener, &at(Timestamp::ZERO)), Err(DropReason::Stale));
    assert!(open(&mut opener, &at(now().plus_ms(CLOCK_DIFFERENCE_MS))).is_ok());
}

#[test]
fn a_bad_datagram_does_not_move_the_window() {
    let (mut opener, mut sealer) = (opener(), sealer(9, 1));
    let good = seal_one(&mut sealer, b"x");
    let mut flipped = good.clone();
    flipped[40] ^= 1;
    assert_eq!(open(&mut opener, &flipped), Err(DropReason::Unsealed));
    assert!(open(&mut opener, &good).is_ok());
}

#[test]
fn a_large_message_goes_in_parts_and_comes_whole() {
    let (mut opener, mut sealer) = (opener(), sealer(9, 1));
    for size in [PART_SIZE_MAX, PART_SIZE_MAX + 1, 65_507, MESSAGE_SIZE_MAX] {
        let message: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
        let datagrams = sealer.seal(now(), &message).unwrap();
        assert_eq!(datagrams.len(), size.div_ceil(PART_SIZE_MAX));
        assert!(datagrams.iter().all(|datagram| datagram.len() <= DATAGRAM_SIZE_MAX));
        let (last, before) = datagrams.split_last().unwrap();
        for datagram in before {
            assert_eq!(open(&mut opener, datagram), Ok(None));
        }
        assert_eq!(open(&mut opener, last), Ok(Some(message)));
    }
    let size_bytes = MESSAGE_SIZE_MAX + 1;
    assert_eq!(sealer.seal(now(), &vec![0; size_bytes]), Err(SealError::TooLarge { size_bytes }));
}

#[test]
fn parts_of_two_messages_are_never_mixed() {
    let mut sealer = sealer(9, 1);
    let first = sealer.seal(now(), &vec![1; MESSAGE_SIZE_MAX]).unwrap();
    let second = sealer.seal(now(), &vec![2; MESSAGE_SIZE_MAX]).unwrap();
    let mut opener = opener();
    assert_eq!(open(&mut opener, &first[0]), Ok(None));
    assert_eq!(open(&mut opener, &second[1]), Err(DropReason::Incomplete), "its first part is missing");
    assert_eq!(open(&mut opener, &first[1]), Err(DropReason::Incomplete), "the message was given up");
    // What follows is not disturbed.
    let third = sealer.seal(now(), &vec![3; MESSAGE_SIZE_MAX]).unwrap();
    assert_eq!(open(&mut opener, &third[0]), Ok(None));
    assert_eq!(open(&mut opener, &third[1]), Ok(None));
    assert_eq!(open(&mut opener, &third[2]), Ok(Some(vec![3; MESSAGE_SIZE_MAX])));
}

#[test]
fn the_memory_for_senders_is_bounded() {
    let mut opener = opener();
    for node in 10..10 + SENDERS_MAX as u32 + 100 {
        assert!(open(&mut opener, &seal_one(&mut sealer(node, 1), b"x")).is_ok());
    }
    assert_eq!(opener.heard.len(), SENDERS_MAX);
    let oldest = opener.heard.keys().map(|(_, node)| node.0).min();
    assert_eq!(oldest, Some(110), "those silent longest are forgotten first");
}

proptest! {
    #[test]
    fn messages_round_trip(message in vec(any::<u8>(), 0..2000), node in 2u32.., boot: u64, ms in 0u64..1 << 41) {
        let sent_at = Timestamp::from_unix_ms(Timestamp::EPOCH_UNIX_MS + ms);
        let mut datagram = sealer(node, boot).seal(sent_at, &message).unwrap().remove(0);
        prop_assert_eq!(opener().open(sent_at, &mut datagram), Ok(Some(message)));
    }

    #[test]
    fn a_flipped_byte_does_not_open(message in vec(any::<u8>(), 0..200), at: Index, flip in 1u8..) {
        let mut datagram = seal_one(&mut sealer(9, 1), &message);
        let index = at.index(datagram.len());
        datagram[index] ^= flip;
        prop_assert_eq!(open(&mut opener(), &datagram), Err(DropReason::Unsealed));
    }

    #[test]
    fn a_cut_or_lengthened_datagram_does_not_open(cut: Index, more in 1usize..100) {
        let datagram = seal_one(&mut sealer(9, 1), &[7; 300]);
        let short = &datagram[..cut.index(datagram.len())];
        prop_assert!(matches!(open(&mut opener(), short), Err(DropReason::Truncated | DropReason::Unsealed)));
        let mut long = datagram.clone();
        long.resize(datagram.len() + more, 0);
        prop_assert_eq!(open(&mut opener(), &long), Err(DropReason::Unsealed));
    }

    #[test]
    fn garbage_is_dropped(mut bytes in vec(any::<u8>(), 0..300)) {
        prop_assert!(opener().open(now(), &mut bytes).is_err());
    }
}
