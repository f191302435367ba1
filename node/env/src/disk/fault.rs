//! A disk that fails on request: for tests of what stands above it.
//!
//! Each planned fault names a kind of operation by itself, a suffix of the file's path, and how many such operations
//! pass before it strikes once. Behind it the disk's own rule holds: a failed sync or write fails the disk. A disk can
//! also be stalled: its syncs then wait until it is resumed.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::poison::Poison;
use super::{Disk, DiskError, DiskFile};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A sync answers EIO; what it should have made durable is in the file but may not be on the device.
    Sync,
    /// A write answers EIO and writes nothing.
    Write,
    /// A write stores its first `bytes` bytes, then answers EIO.
    ShortWrite { bytes: usize },
    /// A write stores its first `bytes` bytes, then answers ENOSPC.
    NoSpace { bytes: usize },
    /// A read answers EIO.
    Read,
    /// A truncate answers EIO.
    Truncate,
}

impl Fault {
    fn acts_on(self) -> Act {
        match self {
            Self::Sync => Act::Sync,
            Self::Write | Self::ShortWrite { .. } | Self::NoSpace { .. } => Act::Write,
            Self::Read => Act::Read,
            Self::Truncate => Act::Truncate,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Sync,
    Write,
    Read,
    Truncate,
}

#[derive(Debug)]
struct Planned {
    fault: Fault,
    suffix: String,
    passes: u32,
}

#[derive(Debug, Default)]
struct Plan {
    planned: Mutex<Vec<Planned>>,
    poison: Poison,
    stall: Mutex<Stall>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct Stall {
    /// Files whose path ends like this wait.
    suffix: Option<String>,
    waiting: usize,
}

impl Plan {
    /// The fault that strikes this operation, if any.
    fn strike(&self, act: Act, path: &Path) -> Option<Fault> {
        let mut planned = self.planned.lock();
        let mut struck = None;
        for (position, plan) in planned.iter_mut().enumerate() {
            if plan.fault.acts_on() != act || !path.to_string_lossy().ends_with(&plan.suffix) {
                continue;
            }
            if plan.passes == 0 {
                struck = Some(position);
                break;
            }
            plan.passes -= 1;
        }
        struck.map(|position| planned.remove(position).fault)
    }

    fn wait_out_stall(&self, path: &Path) {
        let mut stall = self.stall.lock();
        while stall.suffix.as_ref().is_some_and(|suffix| path.to_string_lossy().ends_with(suffix)) {
            stall.waiting += 1;
            self.moved.notify_all();
            self.moved.wait(&mut stall);
            stall.waiting -= 1;
        }
    }
}

/// Any disk, with faults that were planned.
#[derive(Debug)]
pub struct FaultDisk {
    inner: Arc<dyn Disk>,
    plan: Arc<Plan>,
}

impl FaultDisk {
    pub fn new(inner: Arc<dyn Disk>) -> Arc<Self> {
        Arc::new(Self { inner, plan: Arc::default() })
    }

    /// Plans `fault` for the operation after `passes` others of its kind on files whose path ends in `suffix`.
    pub fn plan(&self, fault: Fault, suffix: &str, passes: u32) {
        self.plan.planned.lock().push(Planned { fault, suffix: suffix.to_owned(), passes });
    }

    /// How many planned faults have not struck yet.
    pub fn pending(&self) -> usize {
        self.plan.planned.lock().len()
    }

    /// Lets the syncs of files whose path ends in `suffix` wait until `resume`.
    pub fn stall(&self, suffix: &str) {
        self.plan.stall.lock().suffix = Some(suffix.to_owned());
    }

    /// Waits until a sync is held up by the stall.
    pub fn wait_for_stalled(&self) {
        let mut stall = self.plan.stall.lock();
        while stall.waiting == 0 {
            self.plan.moved.wait(&mut stall);
        }
    }

    pub fn resume(&self) {
        self.plan.stall.lock().suffix = None;
        self.plan.moved.notify_all();
    }

    fn file(&self, inner: Arc<dyn DiskFile>, path: &Path) -> Arc<dyn DiskFile> {
        Arc::new(FaultFile { inner, path: path.to_owned(), plan: self.plan.clone() })
    }
}

impl Disk for FaultDisk {
    fn create(&self, path: &Path) -> Result<Arc<dyn DiskFile>, DiskError> {
        self.plan.poison.check("create", path)?;
        Ok(self.file(self.inner.create(path)?, path))
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn DiskFile>, DiskError> {
        Ok(self.file(self.inner.open(path)?, path))
    }

    fn create_directory(&self, path: &Path) -> Result<(), DiskError> {
        self.plan.poison.check("create directory", path)?;
        self.inner.create_directory(path)
    }

    fn list(&self, directory: &Path) -> Result<Vec<String>, DiskError> {
        self.inner.list(directory)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        self.plan.poison.check("rename", from)?;
        self.inner.rename(from, to)
    }

    fn remove(&self, path: &Path) -> Result<(), DiskError> {
        self.plan.poison.check("remove", path)?;
        self.inner.remove(path)
    }

    fn sync_directory(&self, directory: &Path) -> Result<(), DiskError> {
        self.plan.poison.check("sync directory", directory)?;
        if self.plan.strike(Act::Sync, directory).is_some() {
            return Err(self.plan.poison.after_sync(injected("sync directory", directory)));
        }
        self.inner.sync_directory(directory)
    }

    fn failed(&self) -> Option<String> {
        self.plan.poison.reason().or_else(|| self.inner.failed())
    }
}

fn injected(act: &'static str, path: &Path) -> DiskError {
    DiskError::io(act, path, io::Error::from(rustix::io::Errno::IO))
}

#[derive(Debug)]
struct FaultFile {
    inner: Arc<dyn DiskFile>,
    path: PathBuf,
    plan: Arc<Plan>,
}

impl FaultFile {
    fn write_front(&self, pieces: &[IoSlice<'_>], offset: u64, bytes: usize) -> Result<(), DiskError> {
        let all: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).take(bytes).collect();
        self.inner.write_at(&[IoSlice::new(&all)], offset)
    }
}

impl DiskFile for FaultFile {
    fn length(&self) -> Result<u64, DiskError> {
        self.inner.length()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, DiskError> {
        if self.plan.strike(Act::Read, &self.path).is_some() {
            return Err(injected("read", &self.path));
        }
        self.inner.read_at(buffer, offset)
    }

    fn read_cached_at(&self, buffer: &mut [u8], offset: u64) -> Result<bool, DiskError> {
        if self.plan.strike(Act::Read, &self.path).is_some() {
            return Err(injected("read", &self.path));
        }
        self.inner.read_cached_at(buffer, offset)
    }

    fn write_at(&self, pieces: &[IoSlice<'_>], offset: u64) -> Result<(), DiskError> {
        let poison = &self.plan.poison;
        poison.check("write", &self.path)?;
        match self.plan.strike(Act::Write, &self.path) {
            None => self.inner.write_at(pieces, offset),
            Some(Fault::ShortWrite { bytes }) => {
                self.write_front(pieces, offset, bytes)?;
                Err(poison.after_write(injected("write", &self.path)))
            }
            Some(Fault::NoSpace { bytes }) => {
                self.write_front(pieces, offset, bytes)?;
                let full = io::Error::from(rustix::io::Errno::NOSPC);
                Err(poison.after_write(DiskError::io("write", &self.path, full)))
            }
            Some(_) => Err(poison.after_write(injected("write", &self.path))),
        }
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        self.plan.wait_out_stall(&self.path);
        self.plan.poison.check("sync", &self.path)?;
        match self.plan.strike(Act::Sync, &self.path) {
            None => self.inner.sync_data(),
            Some(_) => Err(self.plan.poison.after_sync(injected("sync", &self.path))),
        }
    }

    fn truncate(&self, length: u64) -> Result<(), DiskError> {
        self.plan.poison.check("truncate", &self.path)?;
        match self.plan.strike(Act::Truncate, &self.path) {
            None => self.inner.truncate(length),
            Some(_) => Err(self.plan.poison.after_write(injected("truncate", &self.path))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SimulatedDisk;

    #[test]
    fn a_failed_sync_fails_every_file_of_the_disk_for_good() {
        let disk = FaultDisk::new(SimulatedDisk::new());
        let (a, b) = (disk.create(Path::new("/d/a")).unwrap(), disk.create(Path::new("/d/b")).unwrap());
        disk.plan(Fault::Sync, "a", 1);
        a.sync_data().unwrap();
        assert!(matches!(a.sync_data().unwrap_err(), DiskError::Io { .. }));
        for file in [&a, &b] {
            assert!(matches!(file.sync_data().unwrap_err(), DiskError::Failed { .. }));
            assert!(file.write_at(&[IoSlice::new(b"x")], 0).is_err() && file.truncate(0).is_err());
            assert_eq!(file.read_at(&mut [0; 4], 0).unwrap(), 0, "reads go on");
        }
        assert!(disk.create(Path::new("/d/c")).is_err() && disk.sync_directory(Path::new("/d")).is_err());
        assert!(disk.failed().is_some());
    }

    #[test]
    fn a_full_disk_is_not_a_failed_one() {
        let disk = FaultDisk::new(SimulatedDisk::new());
        let file = disk.create(Path::new("/d/a")).unwrap();
        disk.plan(Fault::NoSpace { bytes: 2 }, "a", 0);
        assert!(file.write_at(&[IoSlice::new(b"abcd")], 0).unwrap_err().is_no_space());
        assert_eq!((file.length().unwrap(), disk.failed()), (2, None));
        disk.plan(Fault::ShortWrite { bytes: 3 }, "a", 0);
        assert!(!file.write_at(&[IoSlice::new(b"abcd")], 0).unwrap_err().is_no_space());
        assert!(file.length().unwrap() == 3 && disk.failed().is_some());
        assert_eq!(disk.pending(), 0);
    }
}
