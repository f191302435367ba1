//! Tests of `snapshot`.

use std::collections::BTreeMap;
use std::path::Path;

use meridian_index::kv::{KvRead, WriteSet};
use meridian_store::SharedMemory;
use proptest::prelude::*;

use super::*;
use crate::types::{StoredMembership, log_id};

const GROUP: GroupId = GroupId(16);

fn open(path: &Path) -> Store {
    Store::open(path, &SharedMemory::new(1 << 20, 8 << 20)).unwrap()
}

fn filled(store: &Store) -> WriteSet {
    let rows: WriteSet = (0..600u32)
        .map(|index| {
            let length = [0, 10, 5000][index as usize % 3];
            (index.to_be_bytes().to_vec(), Some(Bytes::from(vec![index as u8; length])))
        })
        .chain([(b"large".to_vec(), Some(Bytes::from(vec![9; 3 << 20])))])
        .collect();
    store.commit(GROUP, &rows).unwrap();
    rows
}

fn stream(view: &GroupView) -> (Vec<Bytes>, StreamEnd) {
    let mut pieces = Vec::new();
    let end = write_rows(view, |piece| {
        pieces.push(piece);
        true
    });
    (pieces, end.unwrap().unwrap())
}

fn rows(store: &Store) -> WriteSet {
    let mut found = BTreeMap::new();
    store
        .view(GROUP)
        .scan(&[], &[0xff; 9], &mut |key, value| {
            found.insert(key.to_vec(), Some(Bytes::copy_from_slice(value)));
            Step::Next
        })
        .unwrap();
    found
}

#[test]
fn a_state_arrives_whole_however_it_is_cut() {
    let directory = tempfile::tempdir().unwrap();
    let (from, to) = (open(&directory.path().join("from")), open(&directory.path().join("to")));
    let sent = filled(&from);
    let (pieces, end) = stream(&from.view(GROUP));
    assert!(pieces.len() > 3 && pieces.iter().all(|piece| piece.len() <= SNAPSHOT_PIECE_SIZE_MAX));
    let bytes = pieces.concat();
    for cut in [7, 4096, bytes.len()] {
        to.commit(GROUP, &WriteSet::from([(b"stale".to_vec(), Some(Bytes::new()))])).unwrap();
        let mut reader = RowReader::new(to.install(GROUP).unwrap());
        for piece in bytes.chunks(cut) {
            reader.take(piece).unwrap();
        }
        reader.end(end).unwrap().finish(|_| ()).unwrap();
        assert!(rows(&to) == sent, "cut into {cut}");
    }
}

#[test]
fn a_stream_cut_short_or_flipped_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (from, to) = (open(&directory.path().join("from")), open(&directory.path().join("to")));
    filled(&from);
    let (pieces, end) = stream(&from.view(GROUP));
    let bytes = pieces.concat();
    let feed = |bytes: &[u8], end| {
        let mut reader = RowReader::new(to.install(GROUP).unwrap());
        reader.take(bytes).and_then(|()| reader.end(end)).map(|_| ())
    };
    assert!(matches!(feed(&bytes[..bytes.len() - 1], end), Err(SnapshotError::Mismatch { .. })));
    let mut flipped = bytes.clone();
    *flipped.last_mut().unwrap() ^= 1;
    assert!(matches!(feed(&flipped, end), Err(SnapshotError::Mismatch { .. })));
    flipped[7] = 0xff;
    assert!(matches!(feed(&flipped, end), Err(SnapshotError::RowTooLong { .. })));
    let mut sum = Sum::new();
    sum.add(&bytes[..bytes.len() - 1]);
    let end_of_short = StreamEnd { size_bytes: sum.size_bytes, crc32c: sum.crc32c() };
    assert!(matches!(feed(&bytes[..bytes.len() - 1], end_of_short), Err(SnapshotError::CutShort)));
    assert!(rows(&to).is_empty());
}

#[test]
fn an_empty_state_is_a_stream_too() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let (pieces, end) = stream(&store.view(GROUP));
    assert!(pieces.is_empty());
    RowReader::new(store.install(GROUP).unwrap()).end(end).unwrap();
}

#[test]
fn a_receiver_that_leaves_ends_the_walk() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    filled(&store);
    let mut count = 0;
    let end = write_rows(&store.view(GROUP), |_| {
        count += 1;
        false
    });
    assert_eq!((end.unwrap(), count), (None, 1));
}

fn head() -> SnapshotHead {
    let membership = crate::types::Membership::new_with_defaults(vec![[1, 2, 3].into()], []);
    let last_membership = StoredMembership::new(Some(log_id(1, 0)), membership);
    let meta = SnapshotMeta { last_log_id: Some(log_id(2, 500)), last_membership };
    SnapshotHead::new(&Vote::new_committed(3, 1), &meta)
}

#[test]
fn the_head_has_golden_bytes_and_round_trips() {
    let bytes = head().encode();
    assert_eq!(hex::encode(&bytes), GOLDEN_HEAD);
    let (vote, meta) = SnapshotHead::decode(&bytes).unwrap().into_parts();
    assert_eq!(SnapshotHead::new(&vote, &meta), head());
}

const GOLDEN_HEAD: &str = "16010301010102f40301010001030102030092cde0f1";

proptest! {
    #[test]
    fn a_flipped_or_cut_head_is_refused(flip: prop::sample::Index) {
        let bytes = head().encode();
        let bit = flip.index(bytes.len() * 8);
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(SnapshotHead::decode(&flipped).is_err());
        prop_assert!(SnapshotHead::decode(&bytes[..bit / 8]).is_err());
    }
}
