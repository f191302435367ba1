//! The machine's file system.
//!
//! Invariants: the disk fails as a whole, see `disk`; a vectored write that comes back short is continued, because the
//! kernel may cut it at any signal or limit.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::{Errno, ReadWriteFlags};

use super::poison::Poison;
use super::{Disk, DiskError, DiskFile};

/// Most pieces in one vectored write (IOV_MAX of Linux).
const PIECES_MAX: usize = 1024;

/// Files of the operating system. Clones of the `Arc` are the same failure domain.
#[derive(Debug, Default)]
pub struct RealDisk {
    poison: Arc<Poison>,
}

impl RealDisk {
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    fn file(&self, file: File, path: &Path) -> Arc<dyn DiskFile> {
        Arc::new(RealFile { file, path: path.to_owned(), poison: self.poison.clone() })
    }
}

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> Result<Arc<dyn DiskFile>, DiskError> {
        self.poison.check("create", path)?;
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path);
        Ok(self.file(file.map_err(|error| DiskError::io("create", path, error))?, path))
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn DiskFile>, DiskError> {
        let file = OpenOptions::new().read(true).write(true).open(path);
        Ok(self.file(file.map_err(|error| DiskError::io("open", path, error))?, path))
    }

    fn create_directory(&self, path: &Path) -> Result<(), DiskError> {
        self.poison.check("create directory", path)?;
        std::fs::create_dir_all(path).map_err(|error| DiskError::io("create directory", path, error))
    }

    fn list(&self, directory: &Path) -> Result<Vec<String>, DiskError> {
        let failed = |error| DiskError::io("list", directory, error);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if let (true, Ok(name)) = (entry.file_type().map_err(failed)?.is_file(), entry.file_name().into_string()) {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        self.poison.check("rename", from)?;
        std::fs::rename(from, to).map_err(|error| DiskError::io("rename", from, error))
    }

    fn remove(&self, path: &Path) -> Result<(), DiskError> {
        self.poison.check("remove", path)?;
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(DiskError::io("remove", path, error)),
            _ => Ok(()),
        }
    }

    fn sync_directory(&self, directory: &Path) -> Result<(), DiskError> {
        self.poison.check("sync directory", directory)?;
        let handle = File::open(directory).map_err(|error| DiskError::io("open directory", directory, error))?;
        handle.sync_all().map_err(|error| self.poison.after_sync(DiskError::io("sync directory", directory, error)))
    }

    fn failed(&self) -> Option<String> {
        self.poison.reason()
    }
}

#[derive(Debug)]
struct RealFile {
    file: File,
    path: PathBuf,
    poison: Arc<Poison>,
}

impl RealFile {
    fn error(&self, act: &'static str, source: impl Into<io::Error>) -> DiskError {
        DiskError::io(act, &self.path, source)
    }
}

impl DiskFile for RealFile {
    fn length(&self) -> Result<u64, DiskError> {
        Ok(self.file.metadata().map_err(|error| self.error("measure", error))?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, DiskError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.error("read", error)),
            }
        }
        Ok(filled)
    }

    fn append_at(&self, buffer: &mut Vec<u8>, size: usize, offset: u64) -> Result<usize, DiskError> {
        let start = buffer.len();
        buffer.reserve_exact(size);
        while buffer.len() < start + size {
            let at = offset + (buffer.len() - start) as u64;
            match rustix::io::pread(&self.file, rustix::buffer::spare_capacity(buffer), at) {
                Ok(0) => break,
                Ok(_) => {}
                Err(Errno::INTR) => {}
                Err(error) => return Err(self.error("read", error)),
            }
        }
        buffer.truncate(start + size); // there may have been more room than was asked for
        Ok(buffer.len() - start)
    }

    fn read_cached_at(&self, buffer: &mut [u8], offset: u64) -> Result<bool, DiskError> {
        let wanted = buffer.len();
        let mut pieces = [IoSliceMut::new(buffer)];
        match rustix::io::preadv2(&self.file, &mut pieces, offset, ReadWriteFlags::NOWAIT) {
            Ok(count) => Ok(count == wanted),
            // Not in the page cache, interrupted, or a file system that does not know the flag: read it the slow way.
            Err(Errno::AGAIN | Errno::INTR | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(false),
            Err(error) => Err(self.error("read", error)),
        }
    }

    fn write_at(&self, pieces: &[IoSlice<'_>], offset: u64) -> Result<(), DiskError> {
        self.poison.check("write", &self.path)?;
        let mut offset = offset;
        for group in pieces.chunks(PIECES_MAX) {
            let mut group = group.to_vec();
            let mut left = group.as_mut_slice();
            IoSlice::advance_slices(&mut left, 0); // drops empty pieces in front
            while !left.is_empty() {
                match rustix::io::pwritev(&self.file, left, offset) {
                    Ok(0) => {
                        let error = io::Error::from(io::ErrorKind::WriteZero);
                        return Err(self.poison.after_write(self.error("write", error)));
                    }
                    Ok(count) => {
                        offset += count as u64;
                        IoSlice::advance_slices(&mut left, count);
                    }
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(self.poison.after_write(self.error("write", error))),
                }
            }
        }
        Ok(())
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        self.poison.check("sync", &self.path)?;
        self.file.sync_data().map_err(|error| self.poison.after_sync(self.error("sync", error)))
    }

    fn truncate(&self, length: u64) -> Result<(), DiskError> {
        self.poison.check("truncate", &self.path)?;
        self.file.set_len(length).map_err(|error| self.poison.after_write(self.error("truncate", error)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_keep_what_is_written_in_pieces() {
        let directory = tempfile::tempdir().unwrap();
        let disk = RealDisk::new();
        let path = directory.path().join("file");
        let file = disk.create(&path).unwrap();
        let bytes: Vec<u8> = (0..5000).map(|n| n as u8).collect();
        let mut pieces = vec![IoSlice::new(&[]); 7];
        pieces.extend(bytes.chunks(3).map(IoSlice::new)); // more than one vectored write takes
        file.write_at(&pieces, 10).unwrap();
        file.sync_data().unwrap();
        disk.sync_directory(directory.path()).unwrap();
        let mut read = vec![0; 6000];
        assert_eq!(disk.open(&path).unwrap().read_at(&mut read, 10).unwrap(), 5000);
        assert_eq!(read[..5000], bytes);
        for (size, expected) in [(0, 0), (7, 7), (5000, 5000), (6000, 5000)] {
            let mut appended = Vec::with_capacity(9000); // more room than is asked for
            appended.push(1);
            assert_eq!(file.append_at(&mut appended, size, 10).unwrap(), expected);
            assert_eq!((appended[0], &appended[1..]), (1, &bytes[..expected]));
        }
        assert!(!file.read_cached_at(&mut read, 10).unwrap(), "a read past the end is not whole");
        file.truncate(20).unwrap();
        assert_eq!(file.length().unwrap(), 20);
    }

    #[test]
    fn names_are_listed_renamed_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let disk = RealDisk::new();
        let path = |name: &str| directory.path().join(name);
        disk.create_directory(&path("a/b")).unwrap();
        for name in ["2", "1"] {
            disk.create(&path(name)).unwrap();
        }
        assert!(disk.create(&path("1")).is_err());
        assert_eq!(disk.list(directory.path()).unwrap(), ["1", "2"]);
        disk.rename(&path("1"), &path("2")).unwrap();
        disk.remove(&path("1")).unwrap();
        assert_eq!(disk.list(directory.path()).unwrap(), ["2"]);
        assert!(disk.open(&path("1")).unwrap_err().is_not_found());
    }

    #[test]
    fn a_replaced_file_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let (disk, path) = (RealDisk::new(), directory.path().join("file"));
        for content in [b"first".as_slice(), b"the second", b""] {
            super::super::replace_file(&*disk, &path, content).unwrap();
            assert_eq!(super::super::read_file(&*disk, &path).unwrap(), content);
        }
        assert_eq!(disk.list(directory.path()).unwrap(), ["file"]);
    }
}
