//! One datacenter of one node in one process: RocksDB, raft groups of one, real volumes, all in a temporary directory.
//!
//! The other datacenters are played by `Elsewhere`, which says what a test told it to say.
#![allow(dead_code)] // each test file uses a part of it

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use md5::{Digest, Md5};
use meridian_control::{Control, ControlConfig, NodeInfo};
use meridian_env::{ClockConfig, HybridClock, RealDisk, SystemClock};
use meridian_meta::{Meta, MetaConfig};
use meridian_object::{
    Attributes, BucketSettings, ByteStream, Condition, DeleteItem, FenceReport, GetRequest, ObjectError, Objects,
    ObjectsConfig, Preconditions, PutOutcome, PutRequest, RangeSpec, RemoteBuckets, RemoteBytes, RemoteError,
    StreamError,
};
use meridian_raft::{HostConfig, PeerChannels, RaftHost};
use meridian_replica::{ReplicaTimings, Replicas, ReplicasConfig};
use meridian_store::{SharedMemory, Store};
use meridian_types::{BucketId, BucketName, ClusterId, DatacenterId, Fid, NodeId, ObjectKey, ReplicaCode};
use meridian_volume::{VolumeOptions, VolumeSet};
use meridian_wire::LocalNode;
use parking_lot::Mutex;
use tonic::transport::Channel;

pub const PARTITIONS: u16 = 4;
const READY_WAIT: Duration = Duration::from_secs(30);

pub fn here() -> DatacenterId {
    DatacenterId::new(1).unwrap()
}

pub struct Stack {
    pub objects: Objects,
    pub meta: Meta,
    pub control: Control,
    pub volumes: Arc<VolumeSet>,
    pub elsewhere: Arc<Elsewhere>,
    host: Arc<RaftHost>,
}

pub struct Settings {
    pub chunk_budget_bytes: usize,
    pub volume_size_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { chunk_budget_bytes: 64 << 20, volume_size_max: VolumeOptions::default().size_max }
    }
}

impl Stack {
    pub async fn start(directory: &Path) -> Stack {
        Self::start_with(directory, Settings::default(), 1).await
    }

    /// `boot_counter` is raised with every start on the same directory.
    pub async fn start_with(directory: &Path, settings: Settings, boot_counter: u64) -> Stack {
        let (node, members) = (NodeId(1), BTreeSet::from([NodeId(1)]));
        let clock_config = ClockConfig { skew_ms_max: 500 };
        let clock =
            HybridClock::open(&directory.join("clock.bound"), Arc::new(SystemClock::new()), clock_config).unwrap();
        let memory = SharedMemory::new(8 << 20, 16 << 20);
        let store = Store::open(&directory.join("store"), &memory).unwrap();
        let local = LocalNode { cluster: ClusterId([1; 16]), datacenter: here(), node };
        let host_config =
            HostConfig { election_ms_min: 50, election_ms_max: 100, heartbeat_ms: 25, ..HostConfig::new(local) };
        let host = RaftHost::new(host_config, store, Arc::new(NoPeers));
        std::fs::create_dir_all(directory.join("volumes")).unwrap();
        let options = VolumeOptions { size_max: settings.volume_size_max };
        let volumes =
            VolumeSet::open_with(&directory.join("volumes"), RealDisk::new(), clock.clone(), options).unwrap();
        let code = ReplicaCode::NONE;
        let control_config = ControlConfig {
            datacenter: here(),
            datacenter_name: "dc-a".parse().unwrap(),
            node,
            members: members.clone().into(),
            node_info: NodeInfo {
                name: "dc-a-1".parse().unwrap(),
                rack: "r1".to_owned(),
                s3: String::new(),
                rest: String::new(),
                grpc: String::new(),
                bulk: String::new(),
            },
            boot_counter,
            renewal: None,
            mirrors_to: Vec::new(),
            code,
            partitions: 4,
            liveness: Default::default(),
            repair_after: meridian_control::REPAIR_AFTER_DEFAULT,
            join_wait_ms_max: 10_000,
            wait_ms_max: 10_000,
        };
        let replicas = ReplicasConfig { local, boot_counter, timings: ReplicaTimings::default() };
        let replicas = Replicas::new(replicas, None, volumes.clone());
        let control = Control::start(control_config, host.clone(), clock.clone(), replicas.clone()).await.unwrap();
        let meta_config = MetaConfig::new(here(), PARTITIONS, members);
        let meta = Meta::start(meta_config, host.clone(), clock.clone()).await.unwrap();
        let started = Instant::now();
        while !(meta.ready() && control.ready()) {
            assert!(started.elapsed() < READY_WAIT, "the node does not get ready");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let config = ObjectsConfig {
            datacenters: 3,
            cluster_key: meridian_sigv4::ClusterKey::new([7; 32]),
            datacenter: here(),
            partitions: PARTITIONS,
            region: "dc-a".parse().unwrap(),
            default_code: code,
            chunk_budget_bytes: settings.chunk_budget_bytes,
            kms: Arc::new(meridian_object::EveryKey),
        };
        let elsewhere = Arc::new(Elsewhere::default());
        let objects =
            Objects::new(config, meta.clone(), replicas, control.clone(), clock, elsewhere.clone(), elsewhere.clone());
        Stack { objects, meta, control, volumes, elsewhere, host }
    }

    pub async fn bucket(&self, name: &str) -> BucketName {
        let name: BucketName = name.parse().unwrap();
        let created = self.objects.create_bucket(&name, BucketSettings::default(), "owner").await.unwrap();
        assert!(!created.existed);
        name
    }

    pub async fn stop(self) {
        self.meta.shutdown().await;
        self.control.shutdown().await;
        self.host.shutdown().await;
        self.volumes.shutdown().await;
    }

    pub async fn put(&self, bucket: &BucketName, key: &str, data: &[u8]) -> Result<PutOutcome, ObjectError> {
        self.objects.put(put_request(bucket, key, data)).await
    }

    pub async fn get(&self, bucket: &BucketName, key: &str) -> Result<Vec<u8>, ObjectError> {
        let outcome = self.objects.get(get_request(bucket, key)).await?;
        assert_eq!(outcome.range, 0..outcome.info.size);
        Ok(collect(outcome.body).await.unwrap())
    }

    pub async fn get_range(&self, bucket: &BucketName, key: &str, range: RangeSpec) -> Result<Vec<u8>, ObjectError> {
        let outcome = self.objects.get(GetRequest { range: Some(range), ..get_request(bucket, key) }).await?;
        let body = collect(outcome.body).await.unwrap();
        assert_eq!(body.len() as u64, outcome.range.end - outcome.range.start);
        Ok(body)
    }
}

struct NoPeers;

impl PeerChannels for NoPeers {
    fn channel(&self, _node: NodeId) -> Option<Channel> {
        None
    }
}

/// The other datacenters.
#[derive(Default)]
pub struct Elsewhere {
    pub needles: Mutex<HashMap<Fid, Bytes>>,
    pub fetches: Mutex<Vec<(Fid, Range<u32>)>>,
    pub unreachable: Mutex<bool>,
    pub reports: Mutex<Vec<FenceReport>>,
    /// Replaces `reports` once they were told.
    pub later_reports: Mutex<Option<Vec<FenceReport>>>,
    /// What was asked of the fences, in order.
    pub fences: Mutex<Vec<(BucketId, bool)>>,
}

impl Elsewhere {
    fn reachable(&self) -> Result<(), RemoteError> {
        let gone = || RemoteError::Unreachable { datacenter: "dc-b".to_owned(), reason: "cut off".to_owned() };
        if *self.unreachable.lock() { Err(gone()) } else { Ok(()) }
    }
}

#[async_trait]
impl RemoteBytes for Elsewhere {
    async fn fetch(&self, fid: Fid, range: Range<u32>) -> Result<Bytes, RemoteError> {
        self.reachable()?;
        self.fetches.lock().push((fid, range.clone()));
        let needles = self.needles.lock();
        let needle = needles.get(&fid).ok_or(RemoteError::NotFound { reason: "nowhere".to_owned() })?;
        Ok(needle.slice(range.start as usize..range.end as usize))
    }
}

#[async_trait]
impl RemoteBuckets for Elsewhere {
    async fn fence(
        &self,
        bucket: BucketId,
        _: meridian_index::FenceAttempt,
        raised: bool,
    ) -> Result<Vec<FenceReport>, RemoteError> {
        self.fences.lock().push((bucket, raised));
        self.reachable()?;
        let reports = self.reports.lock().clone();
        if let Some(later) = self.later_reports.lock().take() {
            *self.reports.lock() = later;
        }
        Ok(reports)
    }
}

pub fn key(text: &str) -> ObjectKey {
    text.parse().unwrap()
}

pub fn put_request(bucket: &BucketName, name: &str, data: &[u8]) -> PutRequest {
    PutRequest {
        bucket: bucket.clone(),
        key: key(name),
        attributes: Attributes::default(),
        body: body(data),
        length: Some(data.len() as u64),
        content_md5: None,
        condition: Condition::None,
        finish: None,
    }
}

pub fn get_request(bucket: &BucketName, name: &str) -> GetRequest {
    GetRequest {
        bucket: bucket.clone(),
        key: key(name),
        version: None,
        range: None,
        part_number: None,
        preconditions: Preconditions::default(),
    }
}

pub fn delete_item(name: &str) -> DeleteItem {
    DeleteItem { key: key(name), version: None, condition: Condition::None, bypass_governance: false }
}

/// A body in pieces of odd sizes, with empty ones among them.
pub fn body(data: &[u8]) -> ByteStream {
    let mut pieces = vec![Ok(Bytes::new())];
    let (mut rest, mut size) = (Bytes::copy_from_slice(data), 1);
    while !rest.is_empty() {
        pieces.push(Ok(rest.split_to(size.min(rest.len()))));
        size = (size * 3 + 1) % 700_001;
        if size.is_multiple_of(5) {
            pieces.push(Ok(Bytes::new()));
        }
    }
    stream::iter(pieces).boxed()
}

pub async fn collect(mut body: ByteStream) -> Result<Vec<u8>, StreamError> {
    let mut data = Vec::new();
    while let Some(piece) = body.next().await {
        data.extend_from_slice(&piece?);
    }
    Ok(data)
}

/// Bytes that differ everywhere, so that a chunk in the wrong place shows.
pub fn pattern(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut data = Vec::with_capacity(size + 8);
    while data.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data.extend_from_slice(&state.to_le_bytes());
    }
    data.truncate(size);
    data
}

pub fn md5_of(data: &[u8]) -> [u8; 16] {
    Md5::digest(data).into()
}
