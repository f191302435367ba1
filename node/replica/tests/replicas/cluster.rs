//! Nodes of one datacenter in this process, each with its own directory, disk with planned faults, port and `Replicas`; and
//! a registry that does what control does.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use meridian_env::disk::{Fault, FaultDisk, SimulatedDisk};
use meridian_env::{ClockConfig, Disk, HybridClock, RealDisk, SystemClock};
use meridian_replica::{
    NodeAddress, Placement, ReplicaDirectory, ReplicaError, ReplicaTimings, Replicas, ReplicasConfig, Stage,
};
use meridian_types::{
    ClusterId, Cookie, DatacenterId, DatacenterName, Epoch, Fid, FileGeneration, NeedleKey, NodeId, NodeName, VolumeId,
};
use meridian_volume::{Appended, VolumeSet};
use meridian_wire::LocalNode;
use meridian_wire::tls::{Identity, server_name};
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::serving::Port;

pub const COOKIE: Cookie = Cookie(0x00c0_ffee);
pub const CLUSTER: ClusterId = ClusterId([7; 16]);

pub fn datacenter() -> DatacenterId {
    DatacenterId::new(1).unwrap()
}

pub fn volume(counter: u32) -> VolumeId {
    VolumeId::new(counter, datacenter()).unwrap()
}

pub fn fid(counter: u32, key: u64) -> Fid {
    Fid { volume: volume(counter), key: NeedleKey(key), cookie: COOKIE }
}

/// `length` bytes that only `key` has.
pub fn content(key: u64, length: usize) -> Bytes {
    (0..length).map(|at| (key.wrapping_mul(0x9e37_79b9).wrapping_add(at as u64 * 131) >> 3) as u8).collect()
}

fn node_name(node: NodeId) -> NodeName {
    format!("node-{node}").parse().unwrap()
}

fn datacenter_name() -> DatacenterName {
    "dc-a".parse().unwrap()
}

/// What the registry holds, shared by all nodes; a node may be kept from hearing of it.
#[derive(Default)]
struct Registry {
    volumes: BTreeMap<VolumeId, Placement>,
    nodes: BTreeMap<NodeId, SocketAddr>,
    failed: BTreeMap<VolumeId, String>,
}

#[derive(Clone)]
struct Directory {
    registry: Arc<Mutex<Registry>>,
    reported: watch::Sender<u64>,
}

#[async_trait]
impl ReplicaDirectory for Directory {
    fn volume(&self, volume: VolumeId) -> Option<Placement> {
        self.registry.lock().volumes.get(&volume).cloned()
    }

    fn volumes_on(&self, node: NodeId) -> Vec<Placement> {
        let registry = self.registry.lock();
        registry.volumes.values().filter(|placement| placement.replicas().any(|at| at == node)).cloned().collect()
    }

    fn node(&self, node: NodeId) -> Option<NodeAddress> {
        let bulk = self.registry.lock().nodes.get(&node)?.to_string();
        Some(NodeAddress { bulk, server_name: server_name(&node_name(node), &datacenter_name()) })
    }

    async fn report_failed(&self, volume: VolumeId, reason: &str) {
        self.registry.lock().failed.entry(volume).or_insert_with(|| reason.to_owned());
        self.reported.send_modify(|reports| *reports += 1);
    }
}

pub struct Node {
    pub replicas: Replicas,
    pub disk: Arc<FaultDisk>,
    pub port: Port,
}

pub struct Cluster {
    directory: TempDir,
    registry: Directory,
    authority: Issuer<'static, KeyPair>,
    ca_pem: String,
    pub nodes: BTreeMap<NodeId, Node>,
    lives: u64,
    acknowledge_max: Duration,
    /// What was acknowledged: volume counter, key, length of the data.
    pub acknowledged: Vec<(u32, u64, usize)>,
}

pub const P: NodeId = NodeId(1);
pub const S: NodeId = NodeId(2);
pub const T: NodeId = NodeId(3);

impl Cluster {
    pub async fn start(nodes: u32) -> Cluster {
        Self::start_with(nodes, Duration::from_secs(20)).await
    }

    /// A secondary has `acknowledge_max` for each batch.
    pub async fn start_with(nodes: u32, acknowledge_max: Duration) -> Cluster {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let ca_pem = params.self_signed(&key).unwrap().pem();
        let registry = Directory { registry: Arc::default(), reported: watch::Sender::new(0) };
        let mut cluster = Cluster {
            directory: tempfile::tempdir().unwrap(),
            registry,
            authority: Issuer::new(params, key),
            ca_pem,
            nodes: BTreeMap::new(),
            lives: 0,
            acknowledge_max,
            acknowledged: Vec::new(),
        };
        for node in 1..=nodes {
            cluster.boot(NodeId(node)).await;
        }
        cluster
    }

    pub fn identity(&self, name: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        Identity::from_pem(&self.ca_pem, &certificate.pem(), &key.serialize_pem()).unwrap()
    }

    pub fn path(&self, node: NodeId) -> PathBuf {
        self.directory.path().join(format!("node-{node}"))
    }

    /// A handle as `node` that is not served: for calls with another identity or epoch.
    pub fn stranger(&self, node: NodeId, identity: Identity, cluster: ClusterId) -> Replicas {
        let directory = tempfile::tempdir().unwrap();
        let volumes = VolumeSet::open(directory.path(), RealDisk::new(), clock()).unwrap();
        let local = LocalNode { cluster, datacenter: datacenter(), node };
        let config = ReplicasConfig { local, boot_counter: 999, timings: timings(self.acknowledge_max) };
        let replicas = Replicas::new(config, Some(identity), volumes);
        replicas.attach(Arc::new(self.registry.clone()));
        replicas
    }

    /// A node without replicas, known to the others.
    pub fn gateway(&self, node: NodeId) -> Replicas {
        let identity = self.identity(&server_name(&node_name(node), &datacenter_name()));
        let address = SocketAddr::from(([127, 0, 0, 1], 1)); // it is never called
        self.registry.registry.lock().nodes.insert(node, address);
        self.stranger(node, identity, CLUSTER)
    }

    pub async fn boot(&mut self, node: NodeId) {
        self.lives += 1;
        let disk = FaultDisk::new(RealDisk::new());
        let volumes = VolumeSet::open(&self.path(node), disk.clone(), clock()).unwrap();
        let local = LocalNode { cluster: CLUSTER, datacenter: datacenter(), node };
        let config = ReplicasConfig { local, boot_counter: self.lives, timings: timings(self.acknowledge_max) };
        let identity = self.identity(&server_name(&node_name(node), &datacenter_name()));
        let replicas = Replicas::new(config, Some(identity.clone()), volumes);
        replicas.attach(Arc::new(self.registry.clone()));
        let port = Port::serve(&identity, replicas.handler(), None).await;
        self.registry.registry.lock().nodes.insert(node, port.address);
        self.nodes.insert(node, Node { replicas, disk, port });
    }

    /// Ends a node without a clean end of anything.
    pub async fn kill(&mut self, node: NodeId) {
        let path = self.path(node);
        let node = self.nodes.remove(&node).unwrap();
        node.port.kill().await;
        // What of it still runs in this process can write no more: its disk fails.
        node.disk.plan(Fault::Sync, "", 0);
        node.disk.sync_directory(&path).unwrap_err();
    }

    pub fn wipe(&self, node: NodeId) {
        assert!(!self.nodes.contains_key(&node), "wiped while it runs");
        std::fs::remove_dir_all(self.path(node)).unwrap();
    }

    pub fn replicas(&self, node: NodeId) -> &Replicas {
        &self.nodes[&node].replicas
    }

    pub fn placement(&self, counter: u32) -> Placement {
        self.registry.registry.lock().volumes[&volume(counter)].clone()
    }

    fn set_stage(&self, counter: u32, stage: Stage) {
        self.registry.registry.lock().volumes.get_mut(&volume(counter)).unwrap().stage = stage;
    }

    /// Registers a volume whose primary is node 1 and whose secondaries are all others; makes it on all of them.
    pub async fn create(&self, counter: u32) {
        let secondaries: Vec<NodeId> = self.nodes.keys().copied().filter(|node| *node != P).collect();
        let placement = Placement {
            volume: volume(counter),
            code: format!("00{}", secondaries.len()).parse().unwrap(),
            generation: FileGeneration(0),
            epoch: Epoch(1),
            stage: Stage::Creating,
            primary: P,
            secondaries,
        };
        self.registry.registry.lock().volumes.insert(volume(counter), placement.clone());
        self.replicas(P).create(&placement).await.unwrap();
        self.set_stage(counter, Stage::Open);
    }

    pub async fn append(
        &mut self,
        at: NodeId,
        counter: u32,
        key: u64,
        length: usize,
    ) -> Result<Appended, ReplicaError> {
        let data = content(key, length);
        let appended = self.replicas(at).append(volume(counter), NeedleKey(key), COOKIE, data).await;
        if appended.is_ok() {
            self.acknowledged.push((counter, key, length));
        }
        appended
    }

    pub fn failed(&self, counter: u32) -> Option<String> {
        self.registry.registry.lock().failed.get(&volume(counter)).cloned()
    }

    /// Returns once the volume was reported as failed.
    pub async fn wait_for_report(&self, counter: u32) -> String {
        let mut reported = self.registry.reported.subscribe();
        loop {
            reported.borrow_and_update();
            if let Some(reason) = self.failed(counter) {
                return reason;
            }
            reported.changed().await.unwrap();
        }
    }

    /// Raises the epoch as the registry does, once.
    pub fn begin_seal(&self, counter: u32) -> Epoch {
        let mut registry = self.registry.registry.lock();
        let placement = registry.volumes.get_mut(&volume(counter)).unwrap();
        if placement.stage == Stage::Open {
            (placement.stage, placement.epoch) = (Stage::Sealing, Epoch(placement.epoch.0 + 1));
        }
        placement.epoch
    }

    /// What control's leader does, run by `leader`. Returns the length.
    pub async fn seal(&self, leader: NodeId, counter: u32) -> Result<u64, ReplicaError> {
        let epoch = self.begin_seal(counter);
        let decision = self.replicas(leader).seal(volume(counter), epoch, 0).await?;
        self.set_stage(counter, Stage::Sealed { length: decision.length });
        self.replicas(leader).end(volume(counter)).await?;
        Ok(decision.length)
    }

    /// Every node brings its replicas to what the registry says.
    pub async fn reconcile(&self) {
        for node in self.nodes.values() {
            node.replicas.reconcile_all().await;
        }
    }

    /// Demands that all replicas of all sealed volumes are there, complete and byte-identical, and that everything that was
    /// acknowledged reads back on every node.
    pub async fn check(&self) {
        let placements: Vec<Placement> = self.registry.registry.lock().volumes.values().cloned().collect();
        for placement in placements {
            let Stage::Sealed { length } = placement.stage else { continue };
            let mut first: Option<Vec<u8>> = None;
            for node in placement.replicas() {
                let bytes = std::fs::read(self.file(node, placement.volume)).unwrap();
                assert_eq!(bytes.len() as u64, length, "volume {} on node {node}", placement.volume);
                assert!(
                    *first.get_or_insert_with(|| bytes.clone()) == bytes,
                    "replicas of {} differ",
                    placement.volume
                );
                assert!(self.replicas(node).state(placement.volume).unwrap().sealed);
            }
        }
        for (counter, key, length) in &self.acknowledged {
            for node in self.nodes.values() {
                let read = node.replicas.read(fid(*counter, *key), 0..*length as u32).await;
                let read = read.unwrap_or_else(|error| panic!("needle {key} of volume {counter}: {error}"));
                assert!(read == content(*key, *length));
            }
        }
    }

    pub fn file(&self, node: NodeId, volume: VolumeId) -> PathBuf {
        self.path(node).join(format!("{volume}-0.data"))
    }
}

/// Patient, for a disk that others keep busy must not fail an append here.
fn timings(acknowledge_max: Duration) -> ReplicaTimings {
    ReplicaTimings { acknowledge_max, fence_max: Duration::from_secs(4), ..ReplicaTimings::default() }
}

pub fn clock() -> Arc<HybridClock> {
    let config = ClockConfig { skew_ms_max: 500 };
    let path = std::path::Path::new("/clock.bound");
    HybridClock::open_on(&*SimulatedDisk::new(), path, Arc::new(SystemClock::new()), config).unwrap()
}
