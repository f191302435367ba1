//! One datacenter of one node: the shipped stack from the object operations down, on a real disk, with its two ports on
//! the simulated network.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use meridian_control::{Control, ControlConfig, NodeInfo};
use meridian_env::{ClockConfig, HybridClock, ManualClock, RealDisk};
use meridian_meta::{Meta, MetaConfig};
use meridian_object::{Objects, ObjectsConfig};
use meridian_raft::{HostConfig, PeerChannels, RaftHost};
use meridian_replica::{ReplicaTimings, Replicas, ReplicasConfig};
use meridian_replication::{Replication, ReplicationService, serve_bulk};
use meridian_store::{GroupId, SharedMemory, Store};
use meridian_types::{DatacenterId, NodeId, ReplicaCode};
use meridian_volume::{VolumeOptions, VolumeSet};
use meridian_wire::tls::Identity;
use meridian_wire::{replication_server, server};
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::network::{BULK_PORT, GRPC_PORT, NAMES, Port, config, datacenter, incoming, local, members, timings};

const PARTITIONS: u16 = 2;

/// Connections that the two ports have taken.
#[derive(Clone, Default)]
pub struct Taken {
    pub grpc: Arc<AtomicU64>,
    pub bulk: Arc<AtomicU64>,
}

/// A running datacenter.
pub struct Datacenter {
    pub objects: Objects,
    pub replication: Replication,
    meta: Meta,
    control: Control,
    volumes: Arc<VolumeSet>,
    host: Arc<RaftHost>,
    servers: JoinSet<()>,
}

struct NoPeers;

impl PeerChannels for NoPeers {
    fn channel(&self, _node: NodeId) -> Option<Channel> {
        None
    }
}

impl Datacenter {
    /// Starts one and waits until it serves. To be called on its simulated host.
    pub async fn start(
        index: usize,
        directory: &Path,
        identity: Identity,
        wall: Arc<ManualClock>,
        taken: &Taken,
    ) -> Self {
        let (node, one) = (NodeId(1), BTreeSet::from([NodeId(1)]));
        let local = local(index);
        let clock = HybridClock::open(&directory.join("clock.bound"), wall, ClockConfig { skew_ms_max: 500 }).unwrap();
        let store = Store::open(&directory.join("meta"), &SharedMemory::new(8 << 20, 16 << 20)).unwrap();
        std::fs::create_dir_all(directory.join("volumes")).unwrap();
        let options = VolumeOptions::default();
        let volumes =
            VolumeSet::open_with(&directory.join("volumes"), RealDisk::new(), clock.clone(), options).unwrap();
        let memory = {
            let (store, own) = (store.clone(), local.datacenter);
            Arc::new(move |peer: meridian_wire::Peer| {
                let view = store.view(GroupId::CONTROL);
                meridian_control::remembered_boot(&view, own, (peer.datacenter, peer.node)).unwrap()
            })
        };
        let host_config =
            HostConfig { election_ms_min: 200, election_ms_max: 400, heartbeat_ms: 100, ..HostConfig::new(local) };
        let host = RaftHost::new(host_config, store, Arc::new(NoPeers));
        let service = ReplicationService::new(local, members(), clock.clone(), memory);
        let mut servers = JoinSet::new();
        let grpc = Port::counted(GRPC_PORT, taken.grpc.clone()).await.unwrap();
        let router = server(&identity, &timings()).unwrap().add_service(replication_server(service.clone()));
        servers.spawn(async move { router.serve_with_incoming(incoming(grpc)).await.unwrap() });
        let replicas = ReplicasConfig { local, boot_counter: 5, timings: ReplicaTimings::default() };
        let replicas = Replicas::new(replicas, None, volumes.clone());
        let bulk = Port::counted(BULK_PORT, taken.bulk.clone()).await.unwrap();
        {
            let (identity, volumes, handler) = (identity.clone(), volumes.clone(), replicas.handler());
            let forwarded: meridian_replication::ForwardHandler =
                std::sync::Arc::new(|_, _| Box::pin(async { panic!("no client's request crosses here") }));
            servers.spawn(async move {
                serve_bulk(bulk, &identity, volumes, handler, forwarded, std::future::pending()).await;
            });
        }
        let meta = Meta::start(MetaConfig::new(local.datacenter, PARTITIONS, one.clone()), host.clone(), clock.clone());
        let meta = meta.await.unwrap();
        let control = control_config(index, node, one);
        let control = Control::start(control, host.clone(), clock.clone(), replicas.clone()).await.unwrap();
        let (meta_too, control_too, volumes_too) = (meta.clone(), control.clone(), volumes.clone());
        let replication =
            Replication::start(config(index), &identity, meta_too, control_too, volumes_too, clock.clone()).unwrap();
        service.set(replication.clone());
        let objects = ObjectsConfig {
            datacenters: NAMES.len() as u8,
            cluster_key: meridian_sigv4::ClusterKey::new([7; 32]),
            datacenter: local.datacenter,
            partitions: PARTITIONS,
            region: NAMES[index].parse().unwrap(),
            default_code: everywhere(),
            chunk_budget_bytes: 64 << 20,
            kms: Arc::new(meridian_object::EveryKey),
        };
        let (bytes, buckets) = (Arc::new(replication.clone()), Arc::new(replication.clone()));
        let objects = Objects::new(objects, meta.clone(), replicas, control.clone(), clock, bytes, buckets);
        while !(meta.ready() && control.ready()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self { objects, replication, meta, control, volumes, host, servers }
    }

    pub async fn stop(mut self) {
        self.servers.shutdown().await;
        self.replication.shutdown().await;
        self.control.shutdown().await;
        self.meta.shutdown().await;
        self.host.shutdown().await;
        self.volumes.shutdown().await;
    }
}

/// Every datacenter holds every byte.
fn everywhere() -> ReplicaCode {
    "200".parse().unwrap()
}

fn control_config(index: usize, node: NodeId, members: BTreeSet<NodeId>) -> ControlConfig {
    let others = (0..NAMES.len()).filter(|other| *other != index);
    ControlConfig {
        datacenter: datacenter(index),
        datacenter_name: NAMES[index].parse().unwrap(),
        node,
        members: members.into(),
        node_info: NodeInfo {
            name: "n1".parse().unwrap(),
            rack: "r1".to_owned(),
            s3: String::new(),
            rest: String::new(),
            grpc: String::new(),
            bulk: String::new(),
        },
        boot_counter: 5,
        renewal: None,
        mirrors_to: others.map(datacenter).collect::<Vec<DatacenterId>>(),
        code: everywhere(),
        partitions: PARTITIONS,
        liveness: Default::default(),
        repair_after: meridian_control::REPAIR_AFTER_DEFAULT,
        join_wait_ms_max: 10_000,
        wait_ms_max: 10_000,
    }
}
