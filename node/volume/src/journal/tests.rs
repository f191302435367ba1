//! The index journal: round trip, golden bytes, torn and damaged blocks.

use meridian_env::disk::{Fault, FaultDisk, SimulatedDisk};
use meridian_types::{DatacenterId, FileGeneration, VolumeId};

use super::*;

const PATH: &str = "/v/1.index";

fn header() -> FileHeader {
    let volume = VolumeId::new(3, DatacenterId::new(1).unwrap()).unwrap();
    let identity = FileIdentity { volume, generation: FileGeneration(0) };
    FileHeader { identity, code: "000".parse().unwrap() }
}

fn entry(n: u64) -> Entry {
    (NeedleKey(n), Place::new(64 + n * 48, 9))
}

/// A journal of `count` one-needle blocks.
fn journal(disk: &dyn Disk, count: u64) -> IndexJournal {
    let mut journal = IndexJournal::create(disk, Path::new(PATH), &header()).unwrap();
    for n in 0..count {
        journal.append(&[entry(n)], 64 + (n + 1) * 48, Timestamp::from_raw(n + 1)).unwrap();
    }
    journal
}

fn load(disk: &dyn Disk) -> (Loaded, Vec<Entry>) {
    let mut entries = Vec::new();
    let loaded = IndexJournal::load(disk, Path::new(PATH), &header(), &mut |entry| entries.push(entry)).unwrap();
    (loaded, entries)
}

#[test]
fn golden_bytes_of_a_block() {
    let disk = SimulatedDisk::new();
    journal(&*disk, 1);
    let content = disk.content(Path::new(PATH)).unwrap();
    let block: String = content[64..].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        block,
        "9343f2f94d690100010000000000000040000000000000007000000000000000\
         0100000000000000\
         00000000000000000800000009000000"
    );
}

#[test]
fn what_was_told_is_told_again() {
    let disk = SimulatedDisk::new();
    let mut journal = journal(&*disk, 20);
    let range = DamagedRange { offset: 64, length: 48, key: Some(NeedleKey(0)) };
    let unknown = DamagedRange { offset: 112, length: 96, key: None };
    journal.append_damaged(&[range, unknown]).unwrap();
    let many: Vec<Entry> = (20..20 + 3 * BLOCK_ENTRIES_MAX as u64).map(entry).collect();
    let to = 64 + (20 + many.len() as u64) * 48;
    journal.append(&many, to, Timestamp::from_raw(99)).unwrap();
    let (loaded, entries) = load(&*disk);
    assert_eq!(entries, (0..20 + many.len() as u64).map(entry).collect::<Vec<_>>());
    assert_eq!(loaded.damaged, [range, unknown]);
    assert_eq!((loaded.journal.through(), loaded.recorded, loaded.intact), (to, to, true));
    assert_eq!(loaded.journal.stamp(), Timestamp::from_raw(99));
}

#[test]
fn a_damaged_block_ends_the_journal_but_the_ones_behind_it_prove_what_was_committed() {
    let disk = SimulatedDisk::new();
    journal(&*disk, 10);
    disk.corrupt(Path::new(PATH), |bytes| bytes[64 + 4 * 56 + 44] ^= 1);
    let (loaded, entries) = load(&*disk);
    assert_eq!(entries.len(), 4);
    assert_eq!((loaded.journal.through(), loaded.recorded, loaded.intact), (64 + 4 * 48, 64 + 10 * 48, true));
    let mut journal = loaded.journal;
    journal.append(&[entry(4)], 64 + 5 * 48, Timestamp::from_raw(5)).unwrap();
    assert_eq!(load(&*disk).1.len(), 5, "a cut journal goes on");
}

#[test]
fn every_cut_and_every_flipped_bit_leaves_a_true_prefix() {
    for cut in 64..64 + 3 * 56 {
        let disk = SimulatedDisk::new();
        journal(&*disk, 3);
        disk.corrupt(Path::new(PATH), |bytes| bytes.truncate(cut));
        assert_eq!(load(&*disk).1.len(), (cut - 64) / 56);
    }
    for bit in 0..56 * 8 {
        let disk = SimulatedDisk::new();
        journal(&*disk, 3);
        disk.corrupt(Path::new(PATH), |bytes| bytes[64 + 56 + bit / 8] ^= 1 << (bit % 8));
        assert_eq!(load(&*disk).1, [entry(0)], "bit {bit} passed");
    }
}

#[test]
fn a_journal_of_another_volume_is_made_anew_and_proves_nothing() {
    let disk = SimulatedDisk::new();
    journal(&*disk, 3);
    disk.corrupt(Path::new(PATH), |bytes| bytes[12] ^= 1);
    let (loaded, entries) = load(&*disk);
    assert!(entries.is_empty() && !loaded.intact);
    disk.remove(Path::new(PATH)).unwrap();
    assert!(!load(&*disk).0.intact);
}

#[test]
fn a_full_disk_only_makes_the_journal_wait() {
    let disk = FaultDisk::new(SimulatedDisk::new());
    let mut journal = journal(&*disk, 2);
    disk.plan(Fault::NoSpace { bytes: 20 }, ".index", 0);
    assert!(!journal.append(&[entry(2)], 64 + 3 * 48, Timestamp::from_raw(3)).unwrap());
    assert_eq!(journal.through(), 64 + 2 * 48);
    assert!(journal.append(&[entry(3)], 64 + 4 * 48, Timestamp::from_raw(4)).unwrap());
    let (loaded, entries) = load(&*disk);
    assert_eq!((entries.len(), loaded.journal.through()), (4, 64 + 4 * 48));
}
