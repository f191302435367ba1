//! What is free on the file system of a directory.
//!
//! Invariant: what is kept for the superuser does not count as free.

use std::io;
use std::path::Path;

/// Bytes that may still be written below `path`.
///
/// # Errors
/// Whatever the system says of the path.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_has_room_and_a_missing_one_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        assert!(free_bytes(directory.path()).unwrap() > 0);
        assert_eq!(free_bytes(&directory.path().join("missing")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
