//! A disk in memory whose power can be cut.
//!
//! Every file has two images: what a reader sees, and what is on the device. A sync carries the one over to the other.
//! When the power is cut, each unsynced write survives in any part (sector by sector, in the writes' order or not, and
//! a lost sector below a kept one reads as zeros), and of the unsynced name changes any prefix survives, since the
//! journals of common file systems keep their order. What was synced survives whole: this disk does not lie.
//!
//! Handles from before the cut answer EIO for ever; `restore` gives the device a new life.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Disk, DiskError, DiskFile};

/// What a device writes as one piece.
const SECTOR_SIZE: usize = 512;

type Inode = u64;

#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Truncate { length: usize },
}

#[derive(Debug, Default, Clone)]
struct Content {
    seen: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Debug, Clone)]
enum NameChange {
    Link(PathBuf, Inode),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf),
}

#[derive(Debug, Default)]
struct Device {
    life: u64,
    powered: bool,
    /// Writes and syncs until the power goes, if that is planned.
    operations_left: Option<u64>,
    inode_next: Inode,
    files: BTreeMap<Inode, Content>,
    seen: BTreeMap<PathBuf, Inode>,
    durable: BTreeMap<PathBuf, Inode>,
    unsynced: Vec<NameChange>,
}

/// See the module. Clones of the `Arc` are one device.
#[derive(Debug)]
pub struct SimulatedDisk {
    device: Arc<Mutex<Device>>,
}

impl SimulatedDisk {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { device: Arc::new(Mutex::new(Device { powered: true, ..Device::default() })) })
    }

    /// Cuts the power in the middle of the write or sync after `operations` others; that one has no answer but an error,
    /// and what a sync then was to make durable is as uncertain as any unsynced write.
    pub fn cut_power_after(&self, operations: u64) {
        self.device.lock().operations_left = Some(operations);
    }

    pub fn is_powered(&self) -> bool {
        self.device.lock().powered
    }

    /// Cuts the power (if it is still on), decides by `seed` what of the unsynced survived, and switches it on again.
    pub fn restore(&self, seed: u64) {
        let mut random = Random(seed);
        let mut device = self.device.lock();
        let kept_of_16 = [0, 4, 8, 14, 16][random.below(5)];
        let device = &mut *device;
        for content in device.files.values_mut() {
            content.crash(&mut random, kept_of_16);
        }
        let kept = random.below(device.unsynced.len() + 1);
        for change in std::mem::take(&mut device.unsynced).into_iter().take(kept) {
            apply_name(&mut device.durable, change);
        }
        device.seen = device.durable.clone();
        device.files.retain(|inode, _| device.durable.values().any(|linked| linked == inode));
        device.life += 1;
        device.powered = true;
        device.operations_left = None;
    }

    /// Changes bytes on the device itself: bit rot.
    pub fn corrupt(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut device = self.device.lock();
        let inode = *device.seen.get(path).expect("corrupt a file that exists");
        let content = device.files.get_mut(&inode).expect("a linked file has content");
        change(&mut content.seen);
        content.durable = content.seen.clone();
        content.unsynced.clear();
    }

    /// The bytes that a reader of `path` sees.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let device = self.device.lock();
        Some(device.files[device.seen.get(path)?].seen.clone())
    }

    fn file(&self, device: &Device, path: &Path, inode: Inode) -> Arc<dyn DiskFile> {
        Arc::new(SimulatedFile { device: self.device.clone(), life: device.life, inode, path: path.to_owned() })
    }
}

fn power_lost() -> io::Error {
    io::Error::other("the power was cut")
}

fn apply_name(names: &mut BTreeMap<PathBuf, Inode>, change: NameChange) {
    match change {
        NameChange::Link(path, inode) => {
            names.insert(path, inode);
        }
        NameChange::Unlink(path) => {
            names.remove(&path);
        }
        NameChange::Rename(from, to) => {
            if let Some(inode) = names.remove(&from) {
                names.insert(to, inode);
            }
        }
    }
}

fn write_into(image: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if image.len() < offset + bytes.len() {
        image.resize(offset + bytes.len(), 0);
    }
    image[offset..offset + bytes.len()].copy_from_slice(bytes);
}

impl Content {
    fn sync(&mut self) {
        for change in std::mem::take(&mut self.unsynced) {
            match change {
                Change::Write { offset, bytes } => write_into(&mut self.durable, offset, &bytes),
                Change::Truncate { length } => self.durable.resize(length, 0),
            }
        }
    }

    fn crash(&mut self, random: &mut Random, kept_of_16: usize) {
        for change in std::mem::take(&mut self.unsynced) {
            match change {
                Change::Write { offset, bytes } => {
                    let mut start = 0;
                    while start < bytes.len() {
                        let end = bytes.len().min(start + SECTOR_SIZE - (offset + start) % SECTOR_SIZE);
                        if random.below(16) < kept_of_16 {
                            write_into(&mut self.durable, offset + start, &bytes[start..end]);
                        }
                        start = end;
                    }
                }
                Change::Truncate { length } if random.below(16) < kept_of_16 => self.durable.resize(length, 0),
                Change::Truncate { .. } => {}
            }
        }
        self.seen = self.durable.clone();
    }
}

impl Device {
    /// Counts a write or sync; false when the power goes with it or is gone.
    fn operate(&mut self) -> bool {
        match &mut self.operations_left {
            Some(0) => self.powered = false,
            Some(left) => *left -= 1,
            None => {}
        }
        self.powered
    }

    fn change_names(&mut self, act: &'static str, path: &Path, change: NameChange) -> Result<(), DiskError> {
        if !self.powered {
            return Err(DiskError::io(act, path, power_lost()));
        }
        self.unsynced.push(change.clone());
        apply_name(&mut self.seen, change);
        Ok(())
    }
}

impl Disk for SimulatedDisk {
    fn create(&self, path: &Path) -> Result<Arc<dyn DiskFile>, DiskError> {
        let mut device = self.device.lock();
        if device.seen.contains_key(path) {
            return Err(DiskError::io("create", path, io::Error::from(io::ErrorKind::AlreadyExists)));
        }
        let inode = device.inode_next;
        device.change_names("create", path, NameChange::Link(path.to_owned(), inode))?;
        device.inode_next += 1;
        device.files.insert(inode, Content::default());
        Ok(self.file(&device, path, inode))
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn DiskFile>, DiskError> {
        let device = self.device.lock();
        match device.seen.get(path) {
            _ if !device.powered => Err(DiskError::io("open", path, power_lost())),
            None => Err(DiskError::io("open", path, io::Error::from(io::ErrorKind::NotFound))),
            Some(inode) => Ok(self.file(&device, path, *inode)),
        }
    }

    fn create_directory(&self, _path: &Path) -> Result<(), DiskError> {
        Ok(()) // directories are only prefixes of paths here
    }

    fn list(&self, directory: &Path) -> Result<Vec<String>, DiskError> {
        let device = self.device.lock();
        let inside = device.seen.keys().filter(|path| path.parent() == Some(directory));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        let mut device = self.device.lock();
        if !device.seen.contains_key(from) {
            return Err(DiskError::io("rename", from, io::Error::from(io::ErrorKind::NotFound)));
        }
        device.change_names("rename", from, NameChange::Rename(from.to_owned(), to.to_owned()))
    }

    fn remove(&self, path: &Path) -> Result<(), DiskError> {
        self.device.lock().change_names("remove", path, NameChange::Unlink(path.to_owned()))
    }

    fn sync_directory(&self, directory: &Path) -> Result<(), DiskError> {
        let mut device = self.device.lock();
        if !device.operate() {
            return Err(DiskError::io("sync directory", directory, power_lost()));
        }
        for change in std::mem::take(&mut device.unsynced) {
            apply_name(&mut device.durable, change);
        }
        Ok(())
    }

    fn failed(&self) -> Option<String> {
        (!self.device.lock().powered).then(|| power_lost().to_string())
    }
}

#[derive(Debug)]
struct SimulatedFile {
    device: Arc<Mutex<Device>>,
    life: u64,
    inode: Inode,
    path: PathBuf,
}

impl SimulatedFile {
    fn with<T>(
        &self,
        act: &'static str,
        changes: bool,
        operation: impl FnOnce(&mut Content) -> T,
    ) -> Result<T, DiskError> {
        let mut device = self.device.lock();
        if device.life != self.life {
            return Err(DiskError::io(act, &self.path, power_lost()));
        }
        let was_powered = device.powered;
        let powered = if changes { device.operate() } else { was_powered };
        // A write that meets the cut may survive in part like any unsynced one; nothing else happens without power.
        let meets_cut = was_powered && act == "write";
        if !powered && !meets_cut {
            return Err(DiskError::io(act, &self.path, power_lost()));
        }
        let content = device.files.get_mut(&self.inode).expect("an open file keeps its content");
        let outcome = operation(content);
        if powered { Ok(outcome) } else { Err(DiskError::io(act, &self.path, power_lost())) }
    }
}

impl DiskFile for SimulatedFile {
    fn length(&self) -> Result<u64, DiskError> {
        self.with("measure", false, |content| content.seen.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, DiskError> {
        self.with("read", false, |content| {
            let start = content.seen.len().min(offset as usize);
            let count = buffer.len().min(content.seen.len() - start);
            buffer[..count].copy_from_slice(&content.seen[start..start + count]);
            count
        })
    }

    fn read_cached_at(&self, buffer: &mut [u8], offset: u64) -> Result<bool, DiskError> {
        Ok(self.read_at(buffer, offset)? == buffer.len())
    }

    fn write_at(&self, pieces: &[IoSlice<'_>], offset: u64) -> Result<(), DiskError> {
        let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
        self.with("write", true, |content| {
            write_into(&mut content.seen, offset as usize, &bytes);
            content.unsynced.push(Change::Write { offset: offset as usize, bytes });
        })
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        self.with("sync", true, Content::sync)
    }

    fn truncate(&self, length: u64) -> Result<(), DiskError> {
        self.with("truncate", true, |content| {
            content.seen.resize(length as usize, 0);
            content.unsynced.push(Change::Truncate { length: length as usize });
        })
    }
}

/// SplitMix64: enough for choosing what a crash keeps, and the same on every machine.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(file: &Arc<dyn DiskFile>, offset: u64, bytes: &[u8]) {
        file.write_at(&[IoSlice::new(bytes)], offset).unwrap();
    }

    #[test]
    fn synced_bytes_survive_every_cut_and_unsynced_ones_in_any_part() {
        let path = Path::new("/d/file");
        let (mut lost, mut kept, mut holes) = (0, 0, 0);
        for seed in 0..200 {
            let disk = SimulatedDisk::new();
            let file = disk.create(path).unwrap();
            write(&file, 0, &[1; 100]);
            file.sync_data().unwrap();
            disk.sync_directory(Path::new("/d")).unwrap();
            write(&file, 100, &[2; 2000]);
            disk.restore(seed);
            assert!(file.length().is_err(), "a handle outlived the cut");
            let content = disk.content(path).unwrap();
            assert_eq!(content[..100], [1; 100]);
            match content[100..].iter().filter(|byte| **byte == 2).count() {
                0 => lost += 1,
                2000 => kept += 1,
                _ => holes += 1,
            }
        }
        assert!(lost > 10 && kept > 10 && holes > 10, "{lost} {kept} {holes}");
    }

    #[test]
    fn a_name_without_a_synced_directory_may_be_lost() {
        let outcomes: Vec<bool> = (0..50)
            .map(|seed| {
                let disk = SimulatedDisk::new();
                disk.create(Path::new("/d/file")).unwrap().sync_data().unwrap();
                disk.restore(seed);
                disk.content(Path::new("/d/file")).is_some()
            })
            .collect();
        assert!(outcomes.contains(&true) && outcomes.contains(&false));
    }

    #[test]
    fn a_planned_cut_answers_its_operation_with_an_error() {
        let disk = SimulatedDisk::new();
        let file = disk.create(Path::new("/d/file")).unwrap();
        disk.cut_power_after(1);
        write(&file, 0, b"a");
        assert!(file.sync_data().is_err() && disk.failed().is_some());
        assert!(file.write_at(&[IoSlice::new(b"b")], 1).is_err());
        disk.restore(1);
        assert!(disk.failed().is_none());
    }
}
