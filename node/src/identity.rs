//! Who this data directory belongs to, and how often it has been started (rule 7).
//!
//! The boot counter is raised and synced before the node serves anything; control refuses one that went back,
//! because that means a restored old disk.
//!
//! Invariants: a directory of another cluster, datacenter or node is refused; one process at a time holds it.

use std::fs::File;
use std::path::{Path, PathBuf};

use meridian_types::{ClusterId, DatacenterId, NodeId, RecordError, RecordKind, decode_record, encode_record};
use serde::{Deserialize, Serialize};

const IDENTITY_VERSION: u8 = 1;

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("{step} {}: {source}", path.display())]
    Io { step: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{}: {source}; restore it from this node's newest backup or start the node with an empty data directory under a new id", path.display())]
    Damaged { path: PathBuf, source: RecordError },
    #[error("node.data: {} belongs to {found}, this configuration is {wanted}; point node.data elsewhere", path.display())]
    Foreign { path: PathBuf, found: String, wanted: String },
    #[error("node.data: {} is in use by another process; stop it first", path.display())]
    InUse { path: PathBuf },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    cluster: ClusterId,
    datacenter: DatacenterId,
    node: NodeId,
    boot_counter: u64,
}

/// A held data directory. Dropping it lets another process have it.
#[derive(Debug)]
pub struct Identity {
    boot_counter: u64,
    _lock: File,
}

impl Identity {
    /// Takes `directory` for this node and counts the boot.
    ///
    /// # Errors
    /// Says whose directory it is, or who holds it.
    pub fn take(
        directory: &Path,
        cluster: ClusterId,
        datacenter: DatacenterId,
        node: NodeId,
    ) -> Result<Self, IdentityError> {
        let io = |step, path: &Path| {
            let path = path.to_owned();
            move |source| IdentityError::Io { step, path, source }
        };
        std::fs::create_dir_all(directory).map_err(io("create", directory))?;
        let lock_path = directory.join("lock");
        let lock = File::create(&lock_path).map_err(io("create", &lock_path))?;
        lock.try_lock().map_err(|_| IdentityError::InUse { path: directory.to_owned() })?;

        let path = directory.join("identity");
        let boot_counter = match std::fs::read(&path) {
            Ok(bytes) => {
                let stored: Stored = decode_record(RecordKind::NodeIdentity, IDENTITY_VERSION, &bytes)
                    .map_err(|source| IdentityError::Damaged { path: path.clone(), source })?;
                if (stored.cluster, stored.datacenter, stored.node) != (cluster, datacenter, node) {
                    let show =
                        |c: ClusterId, d: DatacenterId, n: NodeId| format!("node {n} of datacenter {d} of cluster {c}");
                    return Err(IdentityError::Foreign {
                        path: directory.to_owned(),
                        found: show(stored.cluster, stored.datacenter, stored.node),
                        wanted: show(cluster, datacenter, node),
                    });
                }
                stored.boot_counter + 1
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 1,
            Err(error) => return Err(io("read", &path)(error)),
        };
        let stored = Stored { cluster, datacenter, node, boot_counter };
        let bytes = encode_record(RecordKind::NodeIdentity, IDENTITY_VERSION, &stored);
        crate::init::write_atomically(&path, &bytes, false)
            .map_err(|error| io("write", &path)(std::io::Error::other(format!("{error:#}"))))?;
        Ok(Self { boot_counter, _lock: lock })
    }

    pub fn boot_counter(&self) -> u64 {
        self.boot_counter
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(dir: &Path, cluster: u8, node: u32) -> Result<Identity, IdentityError> {
        Identity::take(dir, ClusterId([cluster; 16]), DatacenterId::new(1).unwrap(), NodeId(node))
    }

    #[test]
    fn each_start_counts_one_boot() {
        let dir = tempfile::tempdir().unwrap();
        for boot in 1..=3 {
            assert_eq!(take(dir.path(), 1, 1).unwrap().boot_counter(), boot);
        }
    }

    #[test]
    fn directories_of_others_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(take(dir.path(), 1, 1).unwrap());
        assert!(matches!(take(dir.path(), 2, 1), Err(IdentityError::Foreign { .. })));
        assert!(matches!(take(dir.path(), 1, 2), Err(IdentityError::Foreign { .. })));
        let held = take(dir.path(), 1, 1).unwrap();
        assert!(matches!(take(dir.path(), 1, 1), Err(IdentityError::InUse { .. })));
        drop(held);
        let path = dir.path().join("identity");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[5] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert!(matches!(take(dir.path(), 1, 1), Err(IdentityError::Damaged { .. })));
    }
}
