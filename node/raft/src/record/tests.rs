//! Tests of `record`.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn command(bytes: &[u8]) -> Entry {
    Entry { log_id: log_id(3, 300), payload: EntryPayload::Normal(Command(Bytes::copy_from_slice(bytes))) }
}

fn membership() -> Membership {
    Membership::new_with_defaults(vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([1, 4])], [9])
}

fn applied() -> Applied {
    let membership = StoredMembership::new(Some(log_id(1, 2)), membership());
    Applied { last: Some(log_id(7, 1000)), membership }
}

#[test]
fn golden_bytes() {
    let blank = Entry { log_id: log_id(1, 0), payload: EntryPayload::Blank };
    let change = Entry { log_id: log_id(1, 2), payload: EntryPayload::Membership(membership()) };
    let vote = Vote::new_committed(5, 2);
    let found = [
        encode_entry(&command(b"abc")),
        encode_entry(&blank),
        encode_entry(&change),
        encode_vote(&vote),
        encode_applied(&applied()),
        encode_committed(&log_id(2, 128)),
        encode_purged(&log_id(2, 127)),
    ];
    assert_eq!(found.map(hex::encode), GOLDEN);
}

const GOLDEN: [&str; 7] = [
    "0f0103ac0201036162638daa6e05",
    "0f01010000264b6750",
    "0f0101020202030102030201040109738ef000",
    "1001050201d738a4f9",
    "1101000107e80701010202030102030201040109a6bf8078",
    "1101010280014ec985db",
    "110102027f38d8a568",
];

#[test]
fn every_record_round_trips() {
    let change = Entry { log_id: log_id(1, 2), payload: EntryPayload::Membership(membership()) };
    for entry in [command(b""), command(&[7; 3000]), change] {
        assert_eq!(decode_entry(&encode_entry(&entry)).unwrap(), entry);
    }
    for vote in [Vote::new(0, 0), Vote::new(u64::MAX, 9), Vote::new_committed(3, 1)] {
        assert_eq!(decode_vote(&encode_vote(&vote)).unwrap(), vote);
    }
    for state in [applied(), Applied::default()] {
        assert_eq!(decode_applied(&encode_applied(&state)).unwrap(), state);
    }
    assert_eq!(decode_committed(&encode_committed(&log_id(4, 5))).unwrap(), log_id(4, 5));
    assert_eq!(decode_purged(&encode_purged(&log_id(4, 5))).unwrap(), log_id(4, 5));
}

#[test]
fn a_mark_in_the_wrong_row_is_refused() {
    decode_committed(&encode_purged(&log_id(1, 1))).unwrap_err();
    decode_purged(&encode_applied(&applied())).unwrap_err();
    decode_applied(&encode_committed(&log_id(1, 1))).unwrap_err();
    decode_vote(&encode_entry(&command(b"abc"))).unwrap_err();
}

#[test]
fn entry_rows_are_in_the_order_of_their_index() {
    let rows: Vec<_> = [0, 1, 255, 256, u64::from(u32::MAX), u64::MAX].into_iter().map(entry_row).collect();
    assert!(rows.is_sorted());
    assert!(rows.iter().all(|row| row.as_slice() < entry_rows_from(0).end.as_slice()));
    assert!(PURGED_ROW > entry_rows_from(0).end.as_slice() && COMMITTED_ROW < entry_row(0).as_slice());
}

proptest! {
    #[test]
    fn every_flipped_bit_and_cut_is_refused(bytes: Vec<u8>, flip: prop::sample::Index) {
        let encoded = encode_entry(&command(&bytes));
        let bit = flip.index(encoded.len() * 8);
        let mut flipped = encoded.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(decode_entry(&flipped).is_err());
        prop_assert!(decode_entry(&encoded[..bit / 8]).is_err());
    }
}
