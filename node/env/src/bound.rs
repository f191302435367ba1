//! The file `clock.bound`: up to where this node may have stamped (rule 10).
//!
//! ```text
//! two slots of 4096 bytes; in each: length u8 | record(ClockBound, 1): counter, bound
//! ```
//!
//! The slots are written in turn, so that a torn write leaves the one before it whole; the greater counter counts. They
//! are 4096 bytes apart, so that no device writes both as one piece. See docs/formats/clock-bound.md.
//!
//! Invariants: a bound is durable before `write` returns; a file that exists has at least one whole slot, because it
//! gets its name only when that is synced.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use meridian_types::{RecordKind, Timestamp, decode_record, encode_record};

use crate::disk::replace_file;
use crate::{Disk, DiskError, DiskFile};

const SLOT_SIZE: usize = 4096;
const SLOTS: u64 = 2;
const VERSION: u8 = 1;

/// Why the bound could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BoundError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("{}: neither slot of the clock's bound is readable ({reason}); without it this node could stamp twice", path.display())]
    Damaged { path: PathBuf, reason: String },
}

/// The open file.
#[derive(Debug)]
pub(crate) struct BoundFile {
    file: Arc<dyn DiskFile>,
    counter: u64,
}

impl BoundFile {
    /// Opens or creates the file. The bound is that of the earlier life, if there was one that stamped.
    pub(crate) fn open(disk: &dyn Disk, path: &Path) -> Result<(Self, Option<Timestamp>), BoundError> {
        let file = match disk.open(path) {
            Err(error) if error.is_not_found() => {
                let mut first = vec![0; SLOT_SIZE * SLOTS as usize];
                first[..SLOT_SIZE].copy_from_slice(&encode_slot(0, Timestamp::ZERO));
                replace_file(disk, path, &first)?;
                disk.open(path)?
            }
            opened => opened?,
        };
        let mut newest: Option<(u64, Timestamp)> = None;
        let mut reasons = Vec::new();
        for slot in 0..SLOTS {
            let mut bytes = vec![0; SLOT_SIZE];
            let read = file.read_at(&mut bytes, slot * SLOT_SIZE as u64)?;
            match decode_slot(&bytes[..read]) {
                Ok(found) => newest = newest.max(Some(found)),
                Err(reason) => reasons.push(reason),
            }
        }
        let Some((counter, bound)) = newest else {
            return Err(BoundError::Damaged { path: path.to_owned(), reason: reasons.join("; ") });
        };
        Ok((Self { file, counter }, (bound != Timestamp::ZERO).then_some(bound)))
    }

    /// Makes `bound` durable.
    pub(crate) fn write(&mut self, bound: Timestamp) -> Result<(), DiskError> {
        let counter = self.counter + 1;
        self.file.write_at(&[IoSlice::new(&encode_slot(counter, bound))], counter % SLOTS * SLOT_SIZE as u64)?;
        self.file.sync_data()?;
        self.counter = counter;
        Ok(())
    }
}

fn encode_slot(counter: u64, bound: Timestamp) -> Vec<u8> {
    let record = encode_record(RecordKind::ClockBound, VERSION, &(counter, bound));
    let mut slot = vec![u8::try_from(record.len()).expect("two numbers are short")];
    slot.extend_from_slice(&record);
    slot.resize(SLOT_SIZE, 0);
    slot
}

fn decode_slot(slot: &[u8]) -> Result<(u64, Timestamp), String> {
    let length = usize::from(*slot.first().ok_or("missing")?);
    let record = slot.get(1..1 + length).ok_or("cut off")?;
    decode_record(RecordKind::ClockBound, VERSION, record).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SimulatedDisk;

    const PATH: &str = "/node/clock.bound";

    fn open(disk: &SimulatedDisk) -> (BoundFile, Option<Timestamp>) {
        BoundFile::open(disk, Path::new(PATH)).unwrap()
    }

    #[test]
    fn golden_bytes() {
        let slot = encode_slot(7, Timestamp::from_raw(300));
        assert_eq!(slot[..6], [9, 18, 1, 7, 0xac, 0x02]);
        assert_eq!(u32::from_le_bytes(slot[6..10].try_into().unwrap()), 2_771_045_639);
        assert!(slot[10..].iter().all(|byte| *byte == 0) && slot.len() == SLOT_SIZE);
    }

    #[test]
    fn the_last_bound_is_found_again() {
        let disk = SimulatedDisk::new();
        let (mut file, bound) = open(&disk);
        assert_eq!(bound, None);
        for raw in 1..=5 {
            file.write(Timestamp::from_raw(raw)).unwrap();
        }
        assert_eq!(open(&disk).1, Some(Timestamp::from_raw(5)));
    }

    #[test]
    fn a_cut_at_any_moment_leaves_the_last_durable_bound() {
        for seed in 0..300 {
            let disk = SimulatedDisk::new();
            disk.cut_power_after(seed % 20);
            let mut durable = 0;
            if let Ok((mut file, _)) = BoundFile::open(&*disk, Path::new(PATH)) {
                while file.write(Timestamp::from_raw(durable + 1)).is_ok() {
                    durable += 1;
                }
            }
            disk.restore(seed);
            let found = open(&disk).1.map_or(0, Timestamp::raw);
            assert!(found == durable || found == durable + 1, "seed {seed}: {found} after {durable}");
        }
    }

    #[test]
    fn one_damaged_slot_is_survived_and_two_are_refused() {
        let disk = SimulatedDisk::new();
        let (mut file, _) = open(&disk);
        file.write(Timestamp::from_raw(10)).unwrap();
        file.write(Timestamp::from_raw(20)).unwrap();
        disk.corrupt(Path::new(PATH), |bytes| bytes[SLOT_SIZE + 3] ^= 1);
        assert_eq!(open(&disk).1, Some(Timestamp::from_raw(20)));
        disk.corrupt(Path::new(PATH), |bytes| bytes[3] ^= 1);
        let error = BoundFile::open(&*disk, Path::new(PATH)).unwrap_err();
        assert!(matches!(error, BoundError::Damaged { .. }), "{error}");
        disk.corrupt(Path::new(PATH), Vec::clear);
        assert!(BoundFile::open(&*disk, Path::new(PATH)).is_err());
    }
}
