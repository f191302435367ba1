//! The handle that gateways hold: configuration, the planes below, and the byte budget that all requests share.
//!
//! Invariants: the bytes of chunks held by running requests never exceed `chunk_budget_bytes`; waiting for the budget
//! is bounded, and ends in `Busy` (promise 9).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use meridian_control::Control;
use meridian_env::HybridClock;
use meridian_index::BucketRow;
use meridian_meta::{Meta, ReadView};
use meridian_replica::Replicas;
use meridian_sigv4::ClusterKey;
use meridian_types::limits::CHUNK_SIZE_MAX;
use meridian_types::{BucketId, DatacenterId, DatacenterName, ObjectKey, PartitionId, ReplicaCode, partition_of};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::identity::Identities;
use crate::known_buckets::KnownBuckets;
use crate::propose::meta_error;
use crate::{KmsKeys, ObjectError, RemoteBuckets, RemoteBytes};

/// How long a request waits for its turn in the byte budget before it is told to slow down.
const BUDGET_WAIT: Duration = Duration::from_secs(5);
/// How long one linearizable read waits for its partition.
const READ_WAIT: Duration = Duration::from_secs(10);
/// Two chunks: one that is written while the next is filled. The largest blobs need more, and are refused as long as there is
/// no more.
const CHUNK_BUDGET_BYTES_MIN: usize = 2 * CHUNK_SIZE_MAX;

#[derive(Debug, Clone)]
pub struct ObjectsConfig {
    pub datacenter: DatacenterId,
    /// P, at least 1.
    pub partitions: u16,
    pub region: DatacenterName,
    /// The code of buckets that set none.
    pub default_code: ReplicaCode,
    /// Most bytes of chunks held in memory by all running requests; raised to two chunks if it is less.
    pub chunk_budget_bytes: usize,
    /// How many datacenters the cluster has, this one included (rule 24).
    pub datacenters: u8,
    /// Seals secret keys; the same in every datacenter.
    pub cluster_key: ClusterKey,
    /// The keys that objects may be encrypted under.
    pub kms: Arc<dyn KmsKeys>,
}

/// Cheap to clone; all clones share the byte budget.
#[derive(Clone)]
pub struct Objects {
    pub(crate) inner: Arc<Inner>,
}

/// What the operations work on.
pub(crate) struct Inner {
    pub(crate) config: ObjectsConfig,
    pub(crate) meta: Meta,
    pub(crate) replicas: Replicas,
    pub(crate) control: Control,
    /// Only for the wall time that uploads and parts show; mutations are stamped by `meta`.
    pub(crate) clock: Arc<HybridClock>,
    pub(crate) remote: Arc<dyn RemoteBytes>,
    pub(crate) buckets: Arc<dyn RemoteBuckets>,
    /// Buckets whose deletion runs on this node: two at once would lift each other's fences (rule 18).
    pub(crate) deleting: Mutex<HashSet<BucketId>>,
    pub(crate) identities: Identities,
    /// Deletes of blobs that other datacenters are being told of.
    pub(crate) telling: Arc<Semaphore>,
    pub(crate) known_buckets: KnownBuckets,
    budget: Arc<Semaphore>,
}

impl Objects {
    pub fn new(
        config: ObjectsConfig,
        meta: Meta,
        replicas: Replicas,
        control: Control,
        clock: Arc<HybridClock>,
        remote: Arc<dyn RemoteBytes>,
        buckets: Arc<dyn RemoteBuckets>,
    ) -> Self {
        assert!(config.partitions > 0, "a cluster has at least one partition");
        let permits = config.chunk_budget_bytes.clamp(CHUNK_BUDGET_BYTES_MIN, Semaphore::MAX_PERMITS);
        let budget = Arc::new(Semaphore::new(permits));
        let inner = Inner {
            config,
            meta,
            replicas,
            control,
            clock,
            remote,
            buckets,
            deleting: Mutex::new(HashSet::new()),
            identities: Identities::default(),
            telling: Arc::new(Semaphore::new(crate::blob::TELLING_MAX)),
            known_buckets: KnownBuckets::default(),
            budget,
        };
        Self { inner: Arc::new(inner) }
    }

    pub fn datacenter(&self) -> DatacenterId {
        self.inner.config.datacenter
    }

    /// The S3 region name of this datacenter.
    pub fn region(&self) -> &DatacenterName {
        &self.inner.config.region
    }

    /// Whether a bucket's code gives other datacenters a copy of its bytes.
    pub fn keeps_copies_elsewhere(&self, bucket: &BucketRow) -> bool {
        bucket.settings.code.unwrap_or(self.inner.config.default_code).other_datacenters() > 0
    }

    /// The node's wall clock, in milliseconds since the Unix epoch.
    pub fn now_unix_ms(&self) -> u64 {
        self.inner.now_unix_ms()
    }

    /// Bytes of the chunk budget that are free now; for metrics.
    pub fn chunk_budget_free_bytes(&self) -> usize {
        self.inner.budget.available_permits()
    }
}

impl Inner {
    pub(crate) fn partition(&self, bucket: BucketId, key: &ObjectKey) -> PartitionId {
        partition_of(bucket, key, self.config.partitions)
    }

    /// A view of one partition that holds everything acknowledged before the call.
    pub(crate) async fn read(&self, partition: PartitionId) -> Result<ReadView, ObjectError> {
        match tokio::time::timeout(READ_WAIT, self.meta.read(partition)).await {
            Ok(view) => view.map_err(meta_error),
            Err(_) => Err(ObjectError::unavailable(format!("partition {partition} does not answer reads"))),
        }
    }

    /// Room for `size` bytes of a chunk, waiting a bounded time.
    pub(crate) async fn reserve(&self, size: usize) -> Result<OwnedSemaphorePermit, ObjectError> {
        let permits = u32::try_from(size).expect("a reservation is at most one needle");
        match tokio::time::timeout(BUDGET_WAIT, Arc::clone(&self.budget).acquire_many_owned(permits)).await {
            Ok(permit) => Ok(permit.expect("the budget is never closed")),
            Err(_) => Err(ObjectError::Busy("the memory for chunks is in use")),
        }
    }

    /// Room for `size` bytes if it is there at once: for work that is not needed yet.
    pub(crate) fn try_reserve(&self, size: usize) -> Option<OwnedSemaphorePermit> {
        let permits = u32::try_from(size).expect("a reservation is at most one needle");
        Arc::clone(&self.budget).try_acquire_many_owned(permits).ok()
    }
}
