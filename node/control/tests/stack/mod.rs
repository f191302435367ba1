//! One node's real stack under `Control`: RocksDB and volumes in a directory of its own, single-voter raft.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use meridian_control::{
    Command, Control, ControlConfig, ControlError, ControlMachine, NodeInfo, Response, VolumeState,
};
use meridian_env::{ClockConfig, HybridClock, RealDisk, SystemClock, entropy};
use meridian_raft::{Group, HostConfig, PeerChannels, RaftHost};
use meridian_replica::{ReplicaTimings, Replicas, ReplicasConfig};
use meridian_store::{GroupId, SharedMemory, Store};
use meridian_types::{ClusterId, DatacenterId, Fid, NodeId, ReplicaCode, RequestId, VolumeId};
use meridian_volume::{Appended, VolumeSet};
use meridian_wire::LocalNode;
use tonic::transport::Channel;

/// Nothing here takes this long; a test that waits for it has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);
pub const NODE: NodeId = NodeId(1);

pub struct Stack {
    pub control: Control,
    pub clock: Arc<HybridClock>,
    pub volumes: Arc<VolumeSet>,
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

pub fn code(text: &str) -> ReplicaCode {
    text.parse().unwrap()
}

fn node_info() -> NodeInfo {
    let address = "127.0.0.1:9000".to_owned();
    NodeInfo {
        name: "dc-a-1".parse().unwrap(),
        rack: "r1".to_owned(),
        s3: address.clone(),
        rest: address.clone(),
        grpc: address.clone(),
        bulk: address,
    }
}

/// A member of datacenters 1, 2 and 3, with the code 200.
fn config(boot_counter: u64) -> ControlConfig {
    ControlConfig {
        datacenter: datacenter(1),
        datacenter_name: "dc-a".parse().unwrap(),
        node: NODE,
        members: BTreeSet::from([NODE]).into(),
        node_info: node_info(),
        boot_counter,
        renewal: None,
        mirrors_to: vec![datacenter(3), datacenter(2)],
        code: code("200"),
        partitions: 4,
        liveness: Default::default(),
        repair_after: meridian_control::REPAIR_AFTER_DEFAULT,
        join_wait_ms_max: 10_000,
        wait_ms_max: 10_000,
    }
}

fn open(directory: &Path) -> (Arc<RaftHost>, Arc<HybridClock>, Arc<VolumeSet>) {
    let memory = SharedMemory::new(8 << 20, 8 << 20);
    let store = Store::open(&directory.join("db"), &memory).unwrap();
    let skew = ClockConfig { skew_ms_max: 500 };
    let clock = HybridClock::open(&directory.join("clock.bound"), Arc::new(SystemClock::default()), skew).unwrap();
    let local = LocalNode { cluster: ClusterId([1; 16]), datacenter: datacenter(1), node: NODE };
    let timings = HostConfig { heartbeat_ms: 50, election_ms_min: 100, election_ms_max: 200, ..HostConfig::new(local) };
    let host = RaftHost::new(timings, store, Arc::new(Alone));
    let files = directory.join("volumes");
    std::fs::create_dir_all(&files).unwrap();
    let volumes = VolumeSet::open(&files, RealDisk::new(), clock.clone()).unwrap();
    (host, clock, volumes)
}

fn replicas(boot_counter: u64, volumes: &Arc<VolumeSet>) -> Replicas {
    let local = LocalNode { cluster: ClusterId([1; 16]), datacenter: datacenter(1), node: NODE };
    let config = ReplicasConfig { local, boot_counter, timings: ReplicaTimings::default() };
    Replicas::new(config, None, volumes.clone())
}

impl Stack {
    pub async fn start(directory: &Path, boot_counter: u64) -> Self {
        Self::try_start(directory, boot_counter).await.unwrap()
    }

    pub async fn try_start(directory: &Path, boot_counter: u64) -> Result<Self, ControlError> {
        let (host, clock, volumes) = open(directory);
        match Control::start(config(boot_counter), host.clone(), clock.clone(), replicas(boot_counter, &volumes)).await
        {
            Ok(control) => Ok(Self { control, clock, volumes, host }),
            Err(error) => {
                volumes.shutdown().await;
                host.shutdown().await;
                Err(error)
            }
        }
    }

    pub async fn stop(self) {
        self.control.shutdown().await;
        self.volumes.shutdown().await;
        self.host.shutdown().await;
    }

    pub async fn append(&self, volume: VolumeId) -> (Fid, Appended) {
        let fid = self.control.next_fid(volume).await.unwrap();
        let data = Bytes::from_static(b"twelve bytes");
        (fid, self.volumes.append(volume, fid.key, fid.cookie, data).await.unwrap())
    }

    /// Waits until the registry says so.
    pub async fn until(&self, holds: impl Fn(&Control) -> bool) {
        let mut changed = self.control.registry_changed();
        let waited = tokio::time::timeout(PATIENCE, async {
            while !holds(&self.control) {
                changed.changed().await.unwrap();
            }
        });
        waited.await.unwrap_or_else(|_| panic!("what was waited for did not come: {:?}", self.control.volumes()));
    }

    pub async fn until_state(&self, volume: VolumeId, state: VolumeState) {
        self.until(|control| control.volume(volume).is_some_and(|record| record.state == state)).await;
    }
}

/// Gives commands to the group without a `Control` around it: a node that stopped half way.
pub async fn propose_raw(directory: &Path, boot_counter: u64, commands: impl IntoIterator<Item = Command>) {
    let (host, _clock, volumes) = open(directory);
    let machine = Arc::new(ControlMachine { datacenter: datacenter(1) });
    let group: Group = host.start_group(GroupId::CONTROL, machine, BTreeSet::from([NODE])).await.unwrap();
    let mut leadership = group.leadership();
    tokio::time::timeout(PATIENCE, leadership.wait_for(|leadership| leadership.serving)).await.unwrap().unwrap();
    let session: RequestId = entropy::request_id();
    let register = Command::RegisterNode { node: NODE, info: node_info(), boot_counter, session };
    for command in [register].into_iter().chain(commands) {
        let answer = Response::decode(&group.propose(command.encode()).await.unwrap()).unwrap();
        assert!(!matches!(answer, Response::Refused(_)), "{answer:?}");
    }
    drop((leadership, group));
    volumes.shutdown().await;
    host.shutdown().await;
}
