//! The delete journal beside a volume: which needles are no more.
//!
//! ```text
//! file header, 64 bytes (kind deletes), then entries of 32 bytes:
//!    0  checksum  u32  CRC32C of the entry's place in this file and of everything after this field
//!    4  magic     "Md", version u8 1, zero u8
//!    8  key       u64
//!   16  offset    u64  of the needle in the volume file
//!   24  zeros
//! ```
//!
//! An entry names the needle's offset too, so that it can only ever delete what was there when it was written. Entries have
//! one size, so that one behind a damaged one is found without a guess.
//!
//! Invariants: a delete is durable before it is answered; one sync serves all that wait (group commit); the file is made by
//! the first delete.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use meridian_env::{Disk, DiskError, DiskFile};
use meridian_types::NeedleKey;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::file_header::{self, FileHeader, FileKind, VOLUME_HEADER_SIZE};
use crate::needle::{FileIdentity, checksum};
use crate::window::Window;

const ENTRY_SIZE: usize = 32;
const MAGIC: [u8; 4] = *b"Md\x01\0";

/// A needle to delete: its key and where it starts.
pub(crate) type Delete = (NeedleKey, u64);

struct Waiting {
    delete: Delete,
    answer: oneshot::Sender<Result<(), Arc<DiskError>>>,
}

/// The open journal.
pub(crate) struct DeleteJournal {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    header: FileHeader,
    waiting: Mutex<Vec<Waiting>>,
    /// Held across I/O, by the one that writes for all.
    end: Mutex<End>,
}

struct End {
    file: Option<Arc<dyn DiskFile>>,
    position: u64,
}

/// What `load` found.
pub(crate) struct LoadedDeletes {
    pub(crate) journal: DeleteJournal,
    pub(crate) deletes: Vec<Delete>,
    /// Entries that fail their checksum, with whole ones behind them.
    pub(crate) damaged: u64,
}

impl DeleteJournal {
    /// Reads the journal if there is one. What is torn at its end is written over by the next delete.
    pub(crate) fn load(disk: Arc<dyn Disk>, path: PathBuf, header: FileHeader) -> Result<LoadedDeletes, DiskError> {
        let (mut deletes, mut damaged, mut position) = (Vec::new(), 0, 0);
        match disk.open(&path) {
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
            Ok(file) => {
                let length = file.length()?;
                let mut window = Window::new(file, length);
                match file_header::decode(FileKind::Deletes, window.get(0, VOLUME_HEADER_SIZE as usize)?) {
                    Ok(found) if found == header => {
                        (deletes, damaged, position) = read_entries(&mut window, header.identity)?;
                    }
                    // The header was never synced: no delete was ever answered.
                    _ if length <= VOLUME_HEADER_SIZE => {}
                    found => {
                        tracing::error!(path = %path.display(), ?found, "delete journal without a readable header");
                        let (read, damaged_entries, end) = read_entries(&mut window, header.identity)?;
                        (deletes, damaged, position) = (read, damaged_entries + 1, end);
                    }
                }
            }
        }
        let end = Mutex::new(End { file: None, position });
        Ok(LoadedDeletes { journal: Self { disk, path, header, waiting: Mutex::default(), end }, deletes, damaged })
    }

    /// Whether the journal names this needle. Reads it from the disk; a journal that can't be read says yes, for a needle
    /// that was deleted must not come back.
    pub(crate) fn holds(&self, key: NeedleKey, offset: u64) -> bool {
        match Self::load(self.disk.clone(), self.path.clone(), self.header) {
            Ok(loaded) => loaded.deletes.contains(&(key, offset)),
            Err(_) => true,
        }
    }

    /// Puts a delete in the queue; `flush` answers it. Dropping the receiver does not take it back.
    pub(crate) fn enqueue(&self, delete: Delete) -> oneshot::Receiver<Result<(), Arc<DiskError>>> {
        let (answer, receiver) = oneshot::channel();
        self.waiting.lock().push(Waiting { delete, answer });
        receiver
    }

    /// Makes all queued deletes durable, tells `apply` of them, and answers. Blocks on the disk.
    ///
    /// Every caller of `enqueue` calls this; whoever comes first serves all, the others find nothing left to do.
    pub(crate) fn flush(&self, apply: impl FnOnce(&[Delete])) {
        let mut end = self.end.lock();
        let waiting = std::mem::take(&mut *self.waiting.lock());
        if waiting.is_empty() {
            return;
        }
        let deletes: Vec<Delete> = waiting.iter().map(|waiting| waiting.delete).collect();
        let outcome = self.write(&mut end, &deletes).map_err(Arc::new);
        if outcome.is_ok() {
            apply(&deletes);
        }
        drop(end);
        for waiting in waiting {
            let _ = waiting.answer.send(outcome.clone()); // a caller that has gone needs no answer
        }
    }

    fn write(&self, end: &mut End, deletes: &[Delete]) -> Result<(), DiskError> {
        let file = match &end.file {
            Some(file) => file.clone(),
            None => self.open_for_writing(end)?,
        };
        let mut bytes = Vec::with_capacity(deletes.len() * ENTRY_SIZE);
        for delete in deletes {
            bytes.extend(encode(self.header.identity, end.position + bytes.len() as u64, delete));
        }
        file.write_at(&[IoSlice::new(&bytes)], end.position)?;
        file.sync_data()?;
        end.position += bytes.len() as u64;
        end.file = Some(file);
        Ok(())
    }

    fn open_for_writing(&self, end: &mut End) -> Result<Arc<dyn DiskFile>, DiskError> {
        let file = match self.disk.open(&self.path) {
            Err(error) if error.is_not_found() => self.disk.create(&self.path)?,
            opened => opened?,
        };
        if end.position == 0 {
            file.write_at(&[IoSlice::new(&file_header::encode(FileKind::Deletes, &self.header))], 0)?;
            file.sync_data()?;
            self.disk.sync_directory(self.path.parent().unwrap_or(Path::new(".")))?;
            end.position = VOLUME_HEADER_SIZE;
        }
        Ok(file)
    }
}

fn encode(identity: FileIdentity, position: u64, (key, offset): &Delete) -> [u8; ENTRY_SIZE] {
    let mut entry = [0; ENTRY_SIZE];
    entry[4..8].copy_from_slice(&MAGIC);
    entry[8..16].copy_from_slice(&key.0.to_le_bytes());
    entry[16..24].copy_from_slice(&offset.to_le_bytes());
    let crc = checksum(&[&identity.place(position), &entry[4..]]);
    entry[..4].copy_from_slice(&crc.to_le_bytes());
    entry
}

fn decode(identity: FileIdentity, position: u64, entry: &[u8]) -> Option<Delete> {
    let whole = entry.len() == ENTRY_SIZE
        && entry[4..8] == MAGIC
        && checksum(&[&identity.place(position), &entry[4..]]).to_le_bytes() == entry[..4];
    let u64_at = |at: usize| u64::from_le_bytes(entry[at..at + 8].try_into().expect("eight bytes"));
    whole.then(|| (NeedleKey(u64_at(8)), u64_at(16)))
}

/// The whole entries, how many damaged ones lie between them, and where the last whole one ends.
fn read_entries(window: &mut Window, identity: FileIdentity) -> Result<(Vec<Delete>, u64, u64), DiskError> {
    let (mut deletes, mut damaged, mut suspects, mut end) = (Vec::new(), 0, 0, VOLUME_HEADER_SIZE);
    let mut position = VOLUME_HEADER_SIZE;
    while position < window.end() {
        let entry = window.get(position, ENTRY_SIZE)?;
        if let Some(delete) = decode(identity, position, entry) {
            deletes.push(delete);
            damaged += std::mem::take(&mut suspects);
            end = position + ENTRY_SIZE as u64;
        } else if entry.iter().any(|byte| *byte != 0) {
            suspects += 1; // all zeros would be a hole that a power cut left in an unanswered batch
        }
        position += ENTRY_SIZE as u64;
    }
    Ok((deletes, damaged, end))
}

#[cfg(test)]
mod tests {
    use meridian_env::disk::{Fault, FaultDisk, SimulatedDisk};
    use meridian_types::{DatacenterId, FileGeneration, VolumeId};

    use super::*;

    const PATH: &str = "/v/1.deletes";

    fn header() -> FileHeader {
        let volume = VolumeId::new(3, DatacenterId::new(1).unwrap()).unwrap();
        let identity = FileIdentity { volume, generation: FileGeneration(0) };
        FileHeader { identity, code: "000".parse().unwrap() }
    }

    fn load(disk: &Arc<impl Disk>) -> LoadedDeletes {
        DeleteJournal::load(disk.clone(), PathBuf::from(PATH), header()).unwrap()
    }

    fn delete(journal: &DeleteJournal, key: u64) -> Result<(), Arc<DiskError>> {
        let answer = journal.enqueue((NeedleKey(key), key * 8));
        journal.flush(|_| {});
        answer.blocking_recv().unwrap()
    }

    #[test]
    fn golden_bytes() {
        let entry: String =
            encode(header().identity, 64, &(NeedleKey(258), 4096)).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(entry, "97289f5a4d640100020100000000000000100000000000000000000000000000");
    }

    #[test]
    fn answered_deletes_survive_a_power_cut() {
        for seed in 0..200 {
            let disk = SimulatedDisk::new();
            let journal = load(&disk).journal;
            disk.cut_power_after(seed % 17);
            let answered = (1..100).take_while(|key| delete(&journal, *key).is_ok()).count();
            disk.restore(seed);
            let found = load(&disk);
            let keys: Vec<u64> = found.deletes.iter().map(|(key, _)| key.0).collect();
            assert!(keys.len() >= answered && keys.len() <= answered + 1, "seed {seed}: {keys:?} after {answered}");
            assert_eq!(keys, (1..=keys.len() as u64).collect::<Vec<_>>());
            delete(&found.journal, 1000).unwrap();
            assert_eq!(load(&disk).deletes.len(), keys.len() + 1);
        }
    }

    #[test]
    fn one_flush_serves_all_that_wait() {
        let disk = FaultDisk::new(SimulatedDisk::new());
        let journal = load(&disk).journal;
        delete(&journal, 1).unwrap();
        disk.plan(Fault::Sync, ".deletes", 1); // the second sync from here would fail
        let answers: Vec<_> = (2..50).map(|key| journal.enqueue((NeedleKey(key), 8))).collect();
        let mut applied = 0;
        journal.flush(|deletes| applied = deletes.len());
        assert_eq!(applied, 48);
        assert!(answers.into_iter().all(|answer| answer.blocking_recv().unwrap().is_ok()));
        assert!(delete(&journal, 60).is_err());
        assert!(delete(&journal, 61).is_err(), "a failed sync was forgotten");
    }

    #[test]
    fn damage_between_entries_is_counted_and_the_others_stay() {
        let disk = SimulatedDisk::new();
        let journal = load(&disk).journal;
        (1..=5).for_each(|key| delete(&journal, key).unwrap());
        disk.corrupt(Path::new(PATH), |bytes| bytes[64 + 32 + 9] ^= 1);
        let found = load(&disk);
        assert_eq!(found.deletes.iter().map(|(key, _)| key.0).collect::<Vec<_>>(), [1, 3, 4, 5]);
        assert_eq!(found.damaged, 1);
        disk.corrupt(Path::new(PATH), |bytes| bytes[0] ^= 1);
        assert_eq!((load(&disk).deletes.len(), load(&disk).damaged), (4, 2));
    }
}
