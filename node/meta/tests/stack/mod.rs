//! One node's real stack under `Meta`: RocksDB in a directory of its own, single-voter raft, the machine's clock.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use meridian_env::{ClockConfig, HybridClock, SystemClock, entropy};
use meridian_index::{Condition, ObjectBody, Operation, Outcome, VersionMode, queries};
use meridian_meta::{Meta, MetaConfig, MetaError};
use meridian_raft::{HostConfig, PeerChannels, RaftHost};
use meridian_replicator::LogEntry;
use meridian_store::{SharedMemory, Store, SyncHook};
use meridian_types::{BucketId, ClusterId, DatacenterId, Incarnation, NodeId, PartitionId, Sequence, Stamp, Timestamp};
use meridian_wire::LocalNode;
use tonic::transport::Channel;

pub const PARTITION: PartitionId = PartitionId(0);
pub const PARTITIONS: u16 = 2;
pub const SKEW_MS_MAX: u64 = 500;
/// Nothing here takes this long; a test that waits for it has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Stack {
    pub meta: Meta,
    pub clock: Arc<HybridClock>,
    host: Arc<RaftHost>,
}

struct Alone;

impl PeerChannels for Alone {
    fn channel(&self, _node: NodeId) -> Option<Channel> {
        None
    }
}

pub fn datacenter(id: u8) -> DatacenterId {
    DatacenterId::new(id).unwrap()
}

impl Stack {
    pub async fn start(directory: &Path) -> Self {
        Self::start_with(directory, |_| {}).await
    }

    pub async fn start_with(directory: &Path, change: impl FnOnce(&mut MetaConfig)) -> Self {
        Self::start_at(directory, SystemClock::new(), change).await
    }

    /// Returns once every partition serves.
    pub async fn start_at(directory: &Path, wall: SystemClock, change: impl FnOnce(&mut MetaConfig)) -> Self {
        Self::start_syncing(directory, wall, change, None).await
    }

    /// `start_at` with a hook into each sync of the store.
    pub async fn start_syncing(
        directory: &Path,
        wall: SystemClock,
        change: impl FnOnce(&mut MetaConfig),
        hook: Option<SyncHook>,
    ) -> Self {
        let memory = SharedMemory::new(8 << 20, 8 << 20);
        let store = Store::open_with(&directory.join("db"), &memory, hook).unwrap();
        let config = ClockConfig { skew_ms_max: SKEW_MS_MAX };
        let clock = HybridClock::open(&directory.join("clock.bound"), Arc::new(wall), config).unwrap();
        let node = NodeId(1);
        let local = LocalNode { cluster: ClusterId([1; 16]), datacenter: datacenter(1), node };
        let timings =
            HostConfig { heartbeat_ms: 50, election_ms_min: 100, election_ms_max: 200, ..HostConfig::new(local) };
        let host = RaftHost::new(timings, store, Arc::new(Alone));
        let mut config = MetaConfig::new(datacenter(1), PARTITIONS, BTreeSet::from([node]));
        change(&mut config);
        let meta = Meta::start(config, host.clone(), clock.clone()).await.unwrap();
        let stack = Self { meta, clock, host };
        stack.until(|meta| meta.ready()).await;
        stack
    }

    /// Waits until `holds`, looking again whenever something was applied.
    pub async fn until(&self, holds: impl Fn(&Meta) -> bool) {
        let mut advanced = self.meta.advanced();
        let waited = tokio::time::timeout(PATIENCE, async {
            while !holds(&self.meta) {
                // An election moves no log: look now and then too.
                let _ = tokio::time::timeout(Duration::from_millis(20), advanced.changed()).await;
            }
        });
        waited.await.expect("what was waited for did not come");
    }

    pub async fn stop(self) {
        self.meta.shutdown().await;
        self.host.shutdown().await;
    }

    pub async fn put(&self, key: &str) -> Result<Outcome, MetaError> {
        self.meta.propose(PARTITION, entropy::request_id(), put(key), Timestamp::ZERO).await
    }

    /// Puts and returns the stamp.
    pub async fn put_stamped(&self, key: &str) -> Stamp {
        stamp_of(self.put(key).await.unwrap())
    }

    /// The partition's own log.
    pub fn log(&self) -> Vec<LogEntry> {
        let view = self.meta.local_view(PARTITION).unwrap();
        let entries =
            queries::log_entries(&view, datacenter(1), Incarnation(0), Sequence(1), usize::MAX, usize::MAX).unwrap();
        entries.iter().map(|entry| LogEntry::decode(entry).unwrap()).collect()
    }
}

pub fn bucket() -> BucketId {
    BucketId([7; 16])
}

pub fn put(key: &str) -> Operation {
    let (key, body) = (
        key.parse().unwrap(),
        ObjectBody { etag: "d41d8cd98f00b204e9800998ecf8427e".to_owned(), ..ObjectBody::default() },
    );
    Operation::Put { bucket: bucket(), key, mode: VersionMode::Null, body, condition: Condition::None }
}

pub fn stamp_of(outcome: Outcome) -> Stamp {
    match outcome {
        Outcome::Stored { stamp, .. } => stamp,
        other => panic!("{other:?}"),
    }
}
