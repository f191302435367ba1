//! Tests of `wal`.

use std::path::Path;

use meridian_index::kv::{KvRead, Step, WriteSet};

use super::*;
use crate::{GroupId, SharedMemory, Store};

const GROUP: GroupId = GroupId(16);

fn memory() -> SharedMemory {
    SharedMemory::new(1 << 20, 8 << 20)
}

fn row(index: u32) -> (Vec<u8>, Vec<u8>) {
    let length = [40, 900, 70_000][index as usize % 3];
    (index.to_be_bytes().to_vec(), vec![index as u8; length])
}

fn write(store: &Store, rows: std::ops::Range<u32>) {
    for index in rows {
        let (key, value) = row(index);
        store.commit(GROUP, &WriteSet::from([(key, Some(value.into()))])).unwrap();
    }
}

fn sync(store: &Store) {
    let (sender, receiver) = std::sync::mpsc::channel();
    store.sync(move |result| sender.send(result).unwrap());
    receiver.recv().unwrap().unwrap();
}

/// How many rows are there; they must be a prefix of those written, each whole.
fn rows_kept(store: &Store) -> u32 {
    let mut count = 0;
    let visit = &mut |key: &[u8], value: &[u8]| {
        assert_eq!((key.to_vec(), value.to_vec()), row(count), "row {count}");
        count += 1;
        Step::Next
    };
    store.view(GROUP).scan(&[], &[0xff; 5], visit).unwrap();
    count
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// A closed store of `synced` rows, each synced, and `more` rows that only the close has synced.
fn closed_store(directory: &Path, synced: u32, more: u32) -> PathBuf {
    let path = directory.join("store");
    let store = Store::open(&path, &memory()).unwrap();
    for index in 0..synced {
        write(&store, index..index + 1);
        sync(&store);
    }
    write(&store, synced..synced + more);
    drop(store);
    path
}

fn last_log(path: &Path) -> PathBuf {
    log_files(path).unwrap().into_iter().rfind(|file| fs::metadata(file).unwrap().len() > 0).unwrap()
}

/// Opens a copy of the store whose last log is `log`.
fn open_with_log(path: &Path, scratch: &Path, log: &[u8]) -> Result<u32, StoreError> {
    let copied = tempfile::tempdir_in(scratch).unwrap();
    copy(path, copied.path());
    fs::write(last_log(copied.path()), log).unwrap();
    Store::open(copied.path(), &memory()).map(|store| rows_kept(&store))
}

/// The offsets at which whole records of a log end.
fn record_ends(path: &Path, log: &[u8]) -> Vec<u64> {
    let scratch = path.join("scratch");
    let mut ends = Vec::new();
    for length in 0..=log.len() {
        // Scanning each prefix is quadratic; only those are looked at where a fragment may end.
        if length % 7 == 0 || length == log.len() {
            fs::write(&scratch, &log[..length]).unwrap();
            ends.push(scan(&File::open(&scratch).unwrap()).unwrap().end);
        }
    }
    fs::remove_file(scratch).unwrap();
    ends.dedup();
    ends
}

#[test]
fn an_untouched_log_is_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = closed_store(directory.path(), 6, 3);
    let file = File::open(last_log(&path)).unwrap();
    let found = scan(&file).unwrap();
    assert!(found.damage.is_none());
    assert_eq!(found.end, file.metadata().unwrap().len());
    assert_eq!(rows_kept(&Store::open(&path, &memory()).unwrap()), 9);
}

#[test]
fn a_torn_end_is_cut_and_a_prefix_of_the_rows_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = closed_store(directory.path(), 2, 3);
    let log = fs::read(last_log(&path)).unwrap();
    let mut before = 5;
    for missing in [1, 6, 8, 40, 60, 900, 1100, 70_000] {
        let kept = open_with_log(&path, directory.path(), &log[..log.len() - missing]).unwrap();
        assert!(kept <= before, "{missing} bytes missing: {kept} rows");
        assert!(kept >= 2, "rows that a mark covers are there");
        before = kept;
    }
    assert!(before < 5, "the cuts reached a row");
}

#[test]
fn zeros_behind_the_last_record_are_a_torn_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = closed_store(directory.path(), 3, 2);
    let mut log = fs::read(last_log(&path)).unwrap();
    log.resize(log.len() + 100_000, 0);
    assert_eq!(open_with_log(&path, directory.path(), &log).unwrap(), 5);
}

#[test]
fn an_unsynced_record_missing_before_others_is_a_torn_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = closed_store(directory.path(), 3, 4);
    let log = fs::read(last_log(&path)).unwrap();
    let needle = vec![4u8; 900]; // row 4, written by the close alone; row 5 is whole behind it
    let at = log.windows(needle.len()).position(|window| window == needle).unwrap();
    let mut torn = log;
    torn[at..at + 500].fill(0);
    assert_eq!(open_with_log(&path, directory.path(), &torn).unwrap(), 4);
}

#[test]
fn a_flipped_bit_in_the_middle_refuses_to_open() {
    let directory = tempfile::tempdir().unwrap();
    let path = closed_store(directory.path(), 6, 0);
    let log = fs::read(last_log(&path)).unwrap();
    // The log ends with the marks of the last sync and of the close. A flip there loses no row and is cut.
    let last = log.len() - 2 * (HEADER_LENGTH + BATCH_HEADER_LENGTH + 2 + MARK_LENGTH);
    for at in (0..last).step_by(997).chain([0, 4, 5, 6, 7, BLOCK_SIZE + 4, BLOCK_SIZE + 6, last - 1]) {
        let mut flipped = log.clone();
        flipped[at] ^= 0x10;
        let opened = open_with_log(&path, directory.path(), &flipped);
        assert!(matches!(opened, Err(StoreError::WalDamaged { .. })), "byte {at}: {opened:?}");
    }
    assert_eq!(open_with_log(&path, directory.path(), &log).unwrap(), 6);
}

#[test]
fn a_sector_of_zeros_in_the_middle_refuses_to_open() {
    let directory = tempfile::tempdir().unwrap();
    let path = closed_store(directory.path(), 6, 0);
    let log = fs::read(last_log(&path)).unwrap();
    for at in [0, 4096, BLOCK_SIZE, BLOCK_SIZE + 512] {
        let mut zeroed = log.clone();
        zeroed[at..at + 512].fill(0);
        let opened = open_with_log(&path, directory.path(), &zeroed);
        assert!(matches!(opened, Err(StoreError::WalDamaged { .. })), "sector at {at}: {opened:?}");
    }
}

#[test]
fn a_damaged_log_is_left_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let path = closed_store(directory.path(), 6, 0);
    let file = last_log(&path);
    let mut log = fs::read(&file).unwrap();
    log[100] ^= 1;
    fs::write(&file, &log).unwrap();
    Store::open(&path, &memory()).map(|_| ()).unwrap_err();
    assert_eq!(fs::read(&file).unwrap(), log);
}

#[test]
fn damage_at_the_end_of_a_log_before_the_last_one_refuses_to_open() {
    let directory = tempfile::tempdir().unwrap();
    let path = closed_store(directory.path(), 2, 0);
    let older = last_log(&path);
    let newer = path.join("900000.log");
    fs::copy(&older, &newer).unwrap();
    let length = fs::metadata(&older).unwrap().len();
    OpenOptions::new().write(true).open(&older).unwrap().set_len(length - 3).unwrap();
    assert!(matches!(check_and_cut(&path), Err(StoreError::WalDamaged { .. })));
    fs::write(&newer, b"").unwrap();
    check_and_cut(&path).unwrap();
    assert!(fs::metadata(&older).unwrap().len() < length - 3, "with an empty log behind it, it is the end");
    assert_eq!(rows_kept(&Store::open(&path, &memory()).unwrap()), 2);
}

#[test]
fn every_cut_ends_behind_a_whole_record() {
    let directory = tempfile::tempdir().unwrap();
    let path = closed_store(directory.path(), 2, 0);
    let log = fs::read(last_log(&path)).unwrap();
    let ends = record_ends(directory.path(), &log);
    assert!(ends.len() >= 4, "format row, two rows, marks: {ends:?}");
    assert_eq!(*ends.last().unwrap(), log.len() as u64);
}

#[test]
fn a_mark_round_trips_and_belongs_to_one_store() {
    let mark = SyncMark::of("3f1d9a60-0c52-4b7e-9d8f-00112233aabb\n");
    let bytes = mark.encode(77);
    assert_eq!(bytes.len(), MARK_LENGTH);
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(text, GOLDEN_MARK);
    let payload = [&b"before"[..], &bytes, &mark.encode(9), b"behind"].concat();
    assert_eq!(mark.find(&payload), Some(77));
    assert_eq!(SyncMark::of("00000000-0c52-4b7e-9d8f-00112233aabb").find(&payload), None);
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(mark.find(&flipped), None, "bit {bit}");
    }
}

const GOLDEN_MARK: &str = "4d4453594e4300013f1d9a600c524b7e9d8f00112233aabb4d00000000000000088b4d12";
