//! Who this data directory belongs to, and how often it has been started (rule 7).
//!
//! The boot counter is raised and synced before the node serves anything; control refuses one that went back,
//! because that means a restored old disk.
//!
//! Invariants: a directory of another cluster, datacenter or node is refused; one process at a time holds it.

use std::fs::File;
use std::path::{Path, PathBuf};

use meridian_control::RememberedBoot;
use meridian_replication::Heard;
use meridian_types::{
    ClusterId, DatacenterId, Incarnation, NodeId, RecordError, RecordKind, decode_record, encode_record,
};
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
    #[error(
        "node.data: {} went back in time: it is at boot {boot_counter}, others remember boot {remembered} of this node; \
         start it with an empty data directory under a new id", directory.display()
    )]
    WentBack { directory: PathBuf, boot_counter: u64, remembered: u64 },
    #[error("node.data: {} is in use by another process; stop it first", path.display())]
    InUse { path: PathBuf },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    cluster: ClusterId,
    datacenter: DatacenterId,
    node: NodeId,
    boot_counter: u64,
    /// This disk went back in time, and volumes and logs are still to be renewed under this incarnation (rule 7).
    renewal: Option<Incarnation>,
}

/// A held data directory. Dropping it lets another process have it.
#[derive(Debug)]
pub struct Identity {
    path: PathBuf,
    stored: Stored,
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
        let (boot_counter, renewal) = match std::fs::read(&path) {
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
                (stored.boot_counter + 1, stored.renewal)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => (1, None),
            Err(error) => return Err(io("read", &path)(error)),
        };
        let stored = Stored { cluster, datacenter, node, boot_counter, renewal };
        let identity = Self { path, stored, _lock: lock };
        identity.write()?;
        Ok(identity)
    }

    pub fn boot_counter(&self) -> u64 {
        self.stored.boot_counter
    }

    /// Judges this boot by what others remember. A node that is its datacenter goes on under a new incarnation of its logs,
    /// which is returned, also when an earlier start did not come to the end of that: the decision is durable first.
    ///
    /// # Errors
    /// `WentBack` when the datacenter has `nodes` of them: what this disk has forgotten the others may have counted on.
    pub fn judge(&mut self, heard: &Heard, nodes: usize) -> Result<Option<Incarnation>, IdentityError> {
        let went_back = heard.went_back(self.stored.boot_counter);
        if nodes > 1 && (went_back.is_some() || self.stored.renewal.is_some()) {
            let directory = self.path.parent().unwrap_or(&self.path).to_owned();
            let boot_counter = self.stored.boot_counter;
            let remembered = went_back.map_or(boot_counter, |remembered| remembered.boot_counter);
            return Err(IdentityError::WentBack { directory, boot_counter, remembered });
        }
        if let Some(remembered) = went_back {
            self.went_back(remembered)?;
        }
        Ok(self.stored.renewal)
    }

    /// Others remember a later life of this node than its disk does: from the next start on at the latest its logs go on
    /// under a new incarnation, which is durable here first.
    ///
    /// # Errors
    /// When that can't be written.
    pub fn went_back(&mut self, remembered: RememberedBoot) -> Result<(), IdentityError> {
        let (boot_counter, remembered_boot_counter) = (self.stored.boot_counter, remembered.boot_counter);
        let incarnation = Incarnation(remembered.incarnation.0.max(self.stored.renewal.map_or(0, |to| to.0)) + 1);
        tracing::error!(boot_counter, remembered_boot_counter, %incarnation, "this node's disk went back in time: what it \
            acknowledged since is only where it was replicated to; its log goes on under a new incarnation, its old \
            volumes take nothing more");
        self.stored.boot_counter = boot_counter.max(remembered.boot_counter + 1);
        self.stored.renewal = Some(incarnation);
        self.write()
    }

    /// Volumes and logs are renewed.
    ///
    /// # Errors
    /// When that can't be written; the next start renews them again, which changes nothing.
    pub fn renewed(&mut self) -> Result<(), IdentityError> {
        self.stored.renewal = None;
        self.write()
    }

    fn write(&self) -> Result<(), IdentityError> {
        let bytes = encode_record(RecordKind::NodeIdentity, IDENTITY_VERSION, &self.stored);
        crate::init::write_atomically(&self.path, &bytes, false).map_err(|error| IdentityError::Io {
            step: "write",
            path: self.path.clone(),
            source: std::io::Error::other(format!("{error:#}")),
        })
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
    fn a_disk_that_went_back_is_renewed_once_and_counts_on_from_what_others_remember() {
        let dir = tempfile::tempdir().unwrap();
        let heard = |boot_counter, incarnation| {
            let incarnation = Incarnation(incarnation);
            Heard { clocks: 2, remembered: Some(RememberedBoot { boot_counter, incarnation }) }
        };
        let mut identity = take(dir.path(), 1, 1).unwrap();
        assert_eq!(identity.judge(&Heard::default(), 1).unwrap(), None);
        assert_eq!(identity.judge(&heard(7, 2), 1).unwrap(), Some(Incarnation(3)));
        assert_eq!(identity.boot_counter(), 8);
        drop(identity); // a crash before all is renewed
        let mut identity = take(dir.path(), 1, 1).unwrap();
        assert_eq!((identity.boot_counter(), identity.judge(&heard(7, 2), 1).unwrap()), (9, Some(Incarnation(3))));
        identity.renewed().unwrap();
        drop(identity);
        let mut identity = take(dir.path(), 1, 1).unwrap();
        assert_eq!(identity.judge(&heard(9, 3), 1).unwrap(), None);
        let refused = identity.judge(&heard(10, 3), 3).unwrap_err();
        assert!(matches!(refused, IdentityError::WentBack { remembered: 10, .. }), "{refused}");
        assert_eq!(identity.boot_counter(), 10, "a refused start is no renewal");
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
