//! A running node: every subsystem wired together, started in the order in which they need each other, and stopped
//! in the opposite one.
//!
//! Invariants: nothing is served before the boot is counted and registered (rule 7); ports are bound before anything
//! is started, so that a taken port fails the start with its number.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use meridian_control::{Control, ControlConfig, Liveness, NodeInfo};
use meridian_env::{HybridClock, RealDisk, SystemClock};
use meridian_gossip::{ChitchatMembership, GossipConfig, GossipKey, Membership};
use meridian_meta::{GroupMembers, Meta, MetaConfig};
use meridian_object::{LifecycleCounts, Objects, ObjectsConfig};
use meridian_raft::{HostConfig, RaftHost};
use meridian_replica::{ReplicaTimings, Replicas, ReplicasConfig};
use meridian_replication::{
    BootMemory, PeerDatacenter, PeerNode, Replication, ReplicationConfig, ReplicationLimits, ReplicationService,
    hear_peers, serve_bulk,
};
use meridian_replicator::ClockConfig;
use meridian_rest::{BlobAuth, NodeMetrics, NodeView, Readiness, RequestKind, RestConfig};
use meridian_s3::{Door, GatewayLimits, RequestObserver, RequestReport, S3Config};
use meridian_store::{GroupId, SharedMemory, Store};
use meridian_types::{DatacenterId, Timestamp};
use meridian_volume::{VolumeOptions, VolumeSet};
use meridian_wire::tls::{Identity as TlsIdentity, server_name};
use meridian_wire::{Dialer, LinkTimings, LocalNode, Members, Peer};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::address::Address;
use crate::client_ports::ClientPorts;
use crate::config::{BlobAuthSetting, Datacenter, LimitsSection, Member, NodeConfig};
use crate::forwarding;
use crate::identity::Identity;
use crate::key_list::KeyFile;
use crate::lifecycle;
use crate::links::DatacenterLinks;
use crate::users::Users;

/// How long `wait_ready` pauses between two looks.
const READY_POLL: Duration = Duration::from_millis(20);
/// The longest that every partition may take to begin a new incarnation of its log.
const RENEWAL_WAIT_MAX: Duration = Duration::from_secs(30);
/// How long the servers may take to end their requests.
const SERVERS_GRACE: Duration = Duration::from_secs(6);
/// The longest that a command to control waits for its outcome, and a node alone for itself to lead.
const CONTROL_WAIT_MS_MAX: u64 = 20_000;
/// The longest that a node waits at its start for others to make up a quorum: they may be started one by one.
const JOIN_WAIT_MS_MAX: u64 = 15 * 60_000;

/// Memory that all nodes of this process share.
#[derive(Clone)]
pub struct ProcessMemory {
    store: Arc<SharedMemory>,
}

impl ProcessMemory {
    pub fn new(limits: &LimitsSection) -> Self {
        let store = SharedMemory::new(limits.cache_mib << 20, limits.write_buffers_mib << 20);
        Self { store: Arc::new(store) }
    }
}

/// One node of a cluster, serving.
pub struct RunningNode {
    view: Arc<View>,
    replication: Replication,
    host: Arc<RaftHost>,
    volumes: Arc<VolumeSet>,
    gossip: Arc<ChitchatMembership>,
    servers: JoinSet<()>,
    stop: watch::Sender<bool>,
    _identity: Arc<Mutex<Identity>>,
}

struct Listeners {
    s3: TcpListener,
    rest: TcpListener,
    grpc: TcpListener,
    bulk: TcpListener,
}

impl RunningNode {
    /// Starts a node; it elects leaders and grows volumes in the background (`wait_ready`).
    pub async fn start(config: NodeConfig, memory: ProcessMemory) -> Result<Self> {
        let node_name = config.member.name.clone();
        Self::start_subsystems(config, memory).await.with_context(|| format!("start node {node_name}"))
    }

    async fn start_subsystems(config: NodeConfig, memory: ProcessMemory) -> Result<Self> {
        let ports = ClientPorts::open(config.client_tls.as_ref())?;
        let mut identity = Identity::take(&config.data, config.cluster, config.datacenter.id, config.member.id)?;
        let listeners = Listeners::bind(&config).await?;
        let tls = TlsIdentity::load(&config.tls)?;
        let timings = LinkTimings::default();
        let clock = open_clock(&config)?;
        let metadata = config.data.join("meta");
        let store = tokio::task::spawn_blocking(move || Store::open(&metadata, &memory.store)).await??;
        let volumes = open_volumes(&config, Arc::clone(&clock)).await?;

        let stop = watch::Sender::new(false);
        let mut servers = JoinSet::new();
        let links = Arc::new(DatacenterLinks::new(&config, &tls, &timings)?);
        let memory = boot_memory(config.datacenter.id, store.clone());
        let host = RaftHost::new(host_config(&config), store, links);
        let replication_service =
            ReplicationService::new(local_node(&config), members(&config), Arc::clone(&clock), memory);
        let grpc = meridian_wire::server(&tls, &timings)?
            .add_service(host.service())
            .add_service(meridian_wire::replication_server(replication_service.clone()))
            .serve_with_incoming_shutdown(meridian_wire::incoming(listeners.grpc), stopped(&stop));
        servers.spawn(async move {
            if let Err(error) = grpc.await {
                tracing::error!(%error, "the gRPC port failed");
            }
        });
        let mut replication_config = replication_config(&config, identity.boot_counter(), timings);
        // Rules 7, 10: before anything is stamped, voted for or appended to.
        let heard = hear_peers(&replication_config, &tls, &clock).await?;
        let renewal = identity.judge(&heard, config.datacenter.nodes.len())?;
        replication_config.boot_counter = identity.boot_counter();
        let replicas = replicas(&config, identity.boot_counter(), tls.clone(), Arc::clone(&volumes));
        let door = Door::default();
        {
            let (tls, volumes, stopped) = (tls.clone(), Arc::clone(&volumes), stopped(&stop));
            let (handler, forwarded) = (replicas.handler(), forwarding::through(door.clone()));
            servers.spawn(async move { serve_bulk(listeners.bulk, &tls, volumes, handler, forwarded, stopped).await });
        }
        let gossip = start_gossip(&config, identity.boot_counter(), &clock).await?;

        let members = control_members(&config);
        let meta_config = MetaConfig::placed(config.datacenter.id, partition_members(&config), members.clone());
        let meta = Meta::start(meta_config, Arc::clone(&host), Arc::clone(&clock)).await?;
        let liveness = liveness(&config, &gossip);
        let control_config =
            ControlConfig { renewal, ..control_config(&config, members, identity.boot_counter(), liveness) };
        let control = Control::start(control_config, Arc::clone(&host), Arc::clone(&clock), replicas.clone()).await?;
        if let Some(incarnation) = renewal {
            meta.raise_incarnation(incarnation, RENEWAL_WAIT_MAX)
                .await
                .context("start a new incarnation of the log")?;
            identity.renewed()?;
        }
        let replication = Replication::start(
            replication_config,
            &tls,
            meta.clone(),
            control.clone(),
            Arc::clone(&volumes),
            Arc::clone(&clock),
        )?;
        let identity = Arc::new(Mutex::new(identity));
        {
            let (marking, stopped) = (mark_when_told(replication.clone(), Arc::clone(&identity)), stopped(&stop));
            servers.spawn(async move {
                tokio::select! {
                    () = marking => {}
                    () = stopped => {}
                }
            });
        }
        let members = Arc::clone(&gossip);
        replication.count_live_nodes(Arc::new(move || members.live().len() as u32));
        replication_service.set(replication.clone());
        let objects = Objects::new(
            ObjectsConfig {
                datacenter: config.datacenter.id,
                partitions: config.partitions,
                region: config.datacenter.name.clone(),
                default_code: config.code,
                chunk_budget_bytes: config.limits.chunk_budget_mib << 20,
                datacenters: u8::try_from(config.others.len() + 1).expect("ids of datacenters are u8"),
                cluster_key: config.secrets.cluster_key_sealer()?,
                kms: Arc::new(KeyFile::open(config.encryption.keys.clone(), config.encryption.make_keys)?),
            },
            meta.clone(),
            replicas,
            control.clone(),
            Arc::clone(&clock),
            Arc::new(replication.clone()),
            Arc::new(replication.clone()),
        );

        let metrics = Arc::new(NodeMetrics::new());
        let users = Arc::new(Users::new(&config.secrets, objects.clone()));
        let administered = objects.clone();
        let mut s3_config = s3_config(&config, Arc::clone(&users), &metrics, &ports);
        let replicated = replication.clone();
        s3_config.forward = Some(Arc::new(forwarding::Elsewhere(replication.clone())));
        s3_config.door = door;
        s3_config.durable_everywhere = Some(Arc::new(move || replicated.durable_everywhere()));
        let lifecycle = Arc::new(LifecycleCounts::default());
        {
            let (objects, counts, stopped) = (objects.clone(), Arc::clone(&lifecycle), stopped(&stop));
            let config = lifecycle::config(config.lifecycle);
            servers.spawn(async move { objects.run_lifecycle(config, counts, stopped).await });
        }
        {
            let (following, stopped) = (ports.clone().follow(), stopped(&stop));
            servers.spawn(async move {
                tokio::select! {
                    () = following => {}
                    () = stopped => {}
                }
            });
        }
        let shutdown = stopped(&stop);
        servers.spawn(async move {
            if let Err(error) = meridian_s3::serve(s3_config, objects, listeners.s3, shutdown).await {
                tracing::error!(%error, "the S3 port failed");
            }
        });
        let view = Arc::new(View {
            config,
            meta,
            control,
            replication: replication.clone(),
            volumes: Arc::clone(&volumes),
            clock,
            metrics: Arc::clone(&metrics),
            gossip: gossip.clone(),
            lifecycle,
            ports,
        });
        let rest_config = RestConfig {
            view: Arc::clone(&view) as Arc<dyn NodeView>,
            replication: replication.clone(),
            keys: users,
            objects: administered,
            metrics,
            connections_max: view.config.limits.s3_connections_max,
            handshakes_max: view.config.limits.handshakes_max,
            tls: view.ports.tls.clone(),
            counts: Arc::clone(&view.ports.rest),
            blob_auth: match view.config.rest.blob_auth {
                BlobAuthSetting::Token => BlobAuth::Token,
                BlobAuthSetting::Open => BlobAuth::Open,
            },
        };
        servers.spawn(meridian_rest::serve(rest_config, listeners.rest, stopped(&stop)));
        Ok(Self { view, replication, host, volumes, gossip, servers, stop, _identity: identity })
    }

    /// Returns once the node serves: leaders are known and volumes are writable.
    pub async fn wait_ready(&self) {
        while !self.view.readiness().ready {
            tokio::time::sleep(READY_POLL).await;
        }
    }

    /// Lets requests in flight end, then stops every subsystem.
    pub async fn stop(mut self) {
        // While this node still serves: writes go on elsewhere at once, and not only after an election.
        self.host.hand_over().await;
        let _ = self.stop.send(true);
        self.replication.end_waits();
        let ended = tokio::time::timeout(SERVERS_GRACE, async { while self.servers.join_next().await.is_some() {} });
        if ended.await.is_err() {
            tracing::warn!("some requests did not end in time");
        }
        self.servers.shutdown().await;
        self.replication.shutdown().await;
        self.view.control.shutdown().await;
        self.view.meta.shutdown().await;
        self.host.shutdown().await;
        self.volumes.shutdown().await;
        self.gossip.shutdown().await;
    }
}

impl Listeners {
    async fn bind(config: &NodeConfig) -> Result<Self> {
        let bind = async |name: &str, address: &Address| {
            let address = address.bind();
            TcpListener::bind(address).await.with_context(|| {
                format!("bind the {name} port {address}: is another node or process there? Choose another port")
            })
        };
        Ok(Self {
            s3: bind("S3", &config.member.s3).await?,
            rest: bind("REST", &config.member.rest).await?,
            grpc: bind("gRPC", &config.member.grpc).await?,
            bulk: bind("bulk", &config.member.bulk).await?,
        })
    }
}

async fn stopped_at(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

fn stopped(stop: &watch::Sender<bool>) -> impl Future<Output = ()> + Send + 'static {
    stopped_at(stop.subscribe())
}

fn open_clock(config: &NodeConfig) -> Result<Arc<HybridClock>> {
    let wall = Arc::new(SystemClock::with_offset_ms(config.timing.clock_offset_ms));
    let guard = ClockConfig { skew_ms_max: config.timing.clock_skew_ms_max };
    Ok(HybridClock::open(&config.data.join("clock.bound"), wall, guard)?)
}

/// Makes the next start renew volumes and logs, when a peer tells only now that this node's disk went back (rule 7).
async fn mark_when_told(replication: Replication, identity: Arc<Mutex<Identity>>) {
    let remembered = replication.disk_went_back().await;
    let marked = tokio::task::spawn_blocking(move || identity.lock().went_back(remembered)).await;
    if let Ok(Err(error)) = marked {
        tracing::error!(%error, "the next start will not know that this disk went back");
    }
}

/// What this node's control rows say of the boots of others, also before the control group runs.
fn boot_memory(own: DatacenterId, store: Store) -> BootMemory {
    Arc::new(move |peer| {
        let view = store.view(GroupId::CONTROL);
        let remembered = meridian_control::remembered_boot(&view, own, (peer.datacenter, peer.node));
        remembered.unwrap_or_else(|error| {
            tracing::error!(%error, "read what is remembered of a node");
            None
        })
    })
}

async fn open_volumes(config: &NodeConfig, clock: Arc<HybridClock>) -> Result<Arc<VolumeSet>> {
    let directory = config.data.join("volumes");
    let options = VolumeOptions { size_max: config.limits.volume_size_mib << 20 };
    let open = move || VolumeSet::open_with(&directory, RealDisk::new(), clock, options);
    Ok(tokio::task::spawn_blocking(open).await??)
}

fn replicas(config: &NodeConfig, boot_counter: u64, tls: TlsIdentity, volumes: Arc<VolumeSet>) -> Replicas {
    let config = ReplicasConfig { local: local_node(config), boot_counter, timings: ReplicaTimings::default() };
    Replicas::new(config, Some(tls), volumes)
}

fn host_config(config: &NodeConfig) -> HostConfig {
    HostConfig {
        members: Some(members(config)),
        heartbeat_ms: config.timing.raft_heartbeat_ms,
        election_ms_min: config.timing.raft_election_ms_min,
        election_ms_max: config.timing.raft_election_ms_max,
        ..HostConfig::new(local_node(config))
    }
}

/// Every node of the cluster by the name in its certificate.
fn members(config: &NodeConfig) -> Members {
    let of = |datacenter: &Datacenter| {
        let (id, name) = (datacenter.id, datacenter.name.clone());
        let named = move |node: &Member| (Peer { datacenter: id, node: node.id }, server_name(&node.name, &name));
        datacenter.nodes.iter().map(named).collect::<Vec<_>>()
    };
    Members::new(std::iter::once(&config.datacenter).chain(&config.others).flat_map(of))
}

fn local_node(config: &NodeConfig) -> LocalNode {
    LocalNode { cluster: config.cluster, datacenter: config.datacenter.id, node: config.member.id }
}

async fn start_gossip(
    config: &NodeConfig,
    boot_counter: u64,
    clock: &Arc<HybridClock>,
) -> Result<Arc<ChitchatMembership>> {
    let seeds = config.datacenter.nodes.iter().filter(|node| node.id != config.member.id);
    let key = GossipKey::derive(&config.secrets.gossip_key_bytes()?, config.cluster, config.datacenter.id);
    let address = &config.member.gossip;
    let advertise = address.resolve().await.with_context(|| format!("resolve the own gossip address {address}"))?;
    let gossip = GossipConfig {
        advertise: Some(advertise),
        interval: Duration::from_millis(config.timing.gossip_interval_ms),
        ..GossipConfig::new(
            config.cluster,
            (config.datacenter.id, config.member.id, config.member.name.clone()),
            boot_counter,
            address.bind(),
            seeds.map(|node| node.gossip.to_string()).collect(),
            key,
        )
    };
    let clock = Arc::clone(clock);
    let membership = ChitchatMembership::start(gossip, Arc::new(move || clock.wall())).await?;
    Ok(Arc::new(membership))
}

/// The voters of the control group and of the catalog; the other nodes follow them, so that each has both at hand.
fn control_members(config: &NodeConfig) -> GroupMembers {
    let voters = meridian_topology::control_voters(&config.datacenter.members());
    let learners = config.datacenter.nodes.iter().map(|node| node.id);
    GroupMembers::new(voters.iter().copied().collect(), voters[0]).with_learners(learners)
}

/// A node is live while gossip hears of it; this one always is.
fn liveness(config: &NodeConfig, gossip: &Arc<ChitchatMembership>) -> Liveness {
    let (own, gossip) = (config.member.id, Arc::downgrade(gossip));
    Liveness::new(move |node| {
        node == own || gossip.upgrade().is_some_and(|gossip| gossip.live().iter().any(|member| member.node == node))
    })
}

fn partition_members(config: &NodeConfig) -> Vec<GroupMembers> {
    meridian_topology::partition_groups(&config.datacenter.members(), config.partitions)
        .into_iter()
        .map(|group| GroupMembers::new(group.replicas.into_iter().collect(), group.leader))
        .collect()
}

fn control_config(config: &NodeConfig, members: GroupMembers, boot_counter: u64, liveness: Liveness) -> ControlConfig {
    let member = &config.member;
    ControlConfig {
        datacenter: config.datacenter.id,
        datacenter_name: config.datacenter.name.clone(),
        node: member.id,
        members,
        node_info: NodeInfo {
            name: member.name.clone(),
            rack: member.rack.clone(),
            s3: member.s3.to_string(),
            rest: member.rest.to_string(),
            grpc: member.grpc.to_string(),
            bulk: member.bulk.to_string(),
        },
        boot_counter,
        renewal: None,
        partitions: config.partitions,
        liveness,
        mirrors_to: config.others.iter().map(|datacenter| datacenter.id).collect::<Vec<DatacenterId>>(),
        code: config.code,
        repair_after: Duration::from_millis(config.timing.repair_after_ms),
        join_wait_ms_max: if config.datacenter.nodes.len() > 1 { JOIN_WAIT_MS_MAX } else { CONTROL_WAIT_MS_MAX },
        wait_ms_max: CONTROL_WAIT_MS_MAX,
    }
}

fn replication_config(config: &NodeConfig, boot_counter: u64, timings: LinkTimings) -> ReplicationConfig {
    let node = |node: &crate::config::Member| PeerNode {
        node: node.id,
        name: node.name.clone(),
        rack: node.rack.clone(),
        grpc: node.grpc.to_string(),
        bulk: node.bulk.to_string(),
    };
    let peer = |datacenter: &crate::config::Datacenter| PeerDatacenter {
        id: datacenter.id,
        name: datacenter.name.clone(),
        nodes: datacenter.nodes.iter().map(node).collect(),
    };
    let siblings = config.datacenter.nodes.iter().filter(|other| other.id != config.member.id);
    ReplicationConfig {
        local: local_node(config),
        cluster_name: config.cluster_name.clone(),
        datacenter_name: config.datacenter.name.clone(),
        boot_counter,
        peers: config.others.iter().map(peer).collect(),
        siblings: siblings.map(node).collect(),
        timings,
        dialer: Dialer::default(),
        limits: ReplicationLimits {
            link_bytes_per_second_max: config.replication.rate_bytes_per_second_max,
            lag_warn: Duration::from_millis(config.timing.lag_warn_ms),
            lag_critical: Duration::from_millis(config.timing.lag_critical_ms),
            session_wait: Duration::from_millis(config.timing.session_wait_ms),
            remote_ack_wait: Duration::from_millis(config.timing.remote_ack_wait_ms),
            ..ReplicationLimits::default()
        },
    }
}

fn s3_config(config: &NodeConfig, users: Arc<Users>, metrics: &Arc<NodeMetrics>, ports: &ClientPorts) -> S3Config {
    let (connections_max, handshakes_max) = (config.limits.s3_connections_max, config.limits.handshakes_max);
    let limits = GatewayLimits { connections_max, handshakes_max, ..GatewayLimits::default() };
    let observer: Arc<dyn RequestObserver> = Arc::new(S3Requests(Arc::clone(metrics)));
    let customer_keys_over_http = config.encryption.customer_keys_over_http;
    let (tls, counts) = (ports.tls.clone(), Arc::clone(&ports.s3));
    let domains = config.s3.domains.clone();
    S3Config { limits, domains, observer: Some(observer), customer_keys_over_http, tls, counts, ..S3Config::new(users) }
}

/// Counts the S3 gateway's requests.
struct S3Requests(Arc<NodeMetrics>);

impl RequestObserver for S3Requests {
    fn observe(&self, report: &RequestReport<'_>) {
        self.0.request(RequestKind::S3, report.operation, report.status, report.latency);
    }
}

/// What the REST port tells of this node.
struct View {
    config: NodeConfig,
    meta: Meta,
    control: Control,
    replication: Replication,
    volumes: Arc<VolumeSet>,
    clock: Arc<HybridClock>,
    metrics: Arc<NodeMetrics>,
    gossip: Arc<ChitchatMembership>,
    lifecycle: Arc<LifecycleCounts>,
    ports: ClientPorts,
}

#[async_trait]
impl NodeView for View {
    fn readiness(&self) -> Readiness {
        let mut missing = Vec::new();
        if !self.meta.ready() {
            missing.push("a leader of every partition and of the catalog".to_owned());
        }
        if !self.control.ready() {
            missing.push("a leader of the control group and a writable volume".to_owned());
        }
        Readiness { ready: missing.is_empty(), missing }
    }

    fn now_unix_ms(&self) -> u64 {
        self.clock.wall().unix_ms()
    }

    async fn status(&self) -> Value {
        let datacenter = &self.config.datacenter;
        let live: BTreeSet<String> = self.gossip.live().iter().map(|member| member.name.to_string()).collect();
        let nodes: Vec<Value> = self
            .control
            .nodes()
            .into_iter()
            .map(|node| {
                json!({
                    "id": node.id.0,
                    "name": node.info.name.to_string(),
                    "rack": node.info.rack,
                    "s3": node.info.s3,
                    "rest": node.info.rest,
                    "boot_counter": node.boot_counter,
                    "gossip": if live.contains(node.info.name.as_str()) { "live" } else { "silent" },
                })
            })
            .collect();
        let partitions: Vec<Value> = self
            .meta
            .partitions()
            .map(|partition| {
                let leader = self.meta.leader(partition);
                json!({
                    "partition": if partition.is_catalog() { "catalog".to_owned() } else { partition.to_string() },
                    "leader": leader.map(|(node, _)| node.0),
                    "term": leader.map(|(_, term)| term),
                    "serving": self.meta.serving(partition),
                })
            })
            .collect();
        let volumes: Vec<Value> = self
            .volumes
            .states()
            .into_iter()
            .map(|volume| {
                json!({
                    "volume": volume.header.volume.get(),
                    "code": volume.header.code.to_string(),
                    "owner": volume.header.volume.datacenter().get(),
                    "role": if volume.mirror { "mirror" } else { "primary" },
                    "sealed": volume.sealed,
                    "committed_bytes": volume.committed,
                    "needles": volume.needles,
                    "damaged_ranges": volume.damaged.len(),
                    "failed": volume.failed,
                })
            })
            .collect();
        let readiness = self.readiness();
        json!({
            "cluster": self.config.cluster_name,
            "cluster_id": self.config.cluster.to_string(),
            "datacenter": datacenter.name.to_string(),
            "datacenter_id": datacenter.id.get(),
            "node": self.config.member.name.to_string(),
            "ready": readiness.ready,
            "missing": readiness.missing,
            "control_leader": self.control.leader().map(|(node, _)| node.0),
            "nodes": nodes,
            "partitions": partitions,
            "volumes": volumes,
            "stable": self.replication.stable(),
        })
    }

    fn refresh_metrics(&self) {
        use metrics::Label;
        let now = self.clock.wall();
        for report in self.control.watermarks() {
            let labels = || vec![Label::new("source", report.source.to_string())];
            let seconds = |at| now.ms_since(at) as f64 / 1e3;
            self.metrics.gauge("meridian_replication_visible_lag_seconds", labels()).set(seconds(report.meta));
            self.metrics.gauge("meridian_replication_durable_lag_seconds", labels()).set(seconds(report.data));
            self.metrics.gauge("meridian_replication_parked_ranges", labels()).set(report.parked as f64);
        }
        let slowed_by = self.replication.write_delay();
        for destination in &self.config.others {
            let delay_ms =
                slowed_by.filter(|delay| delay.destination == destination.id).map_or(0, |delay| delay.delay_ms);
            let labels = vec![Label::new("destination", destination.name.to_string())];
            self.metrics.gauge("meridian_replication_backpressure_seconds", labels).set(delay_ms as f64 / 1e3);
        }
        let stable = self.replication.stable();
        let age = |raw| now.ms_since(Timestamp::from_raw(raw)) as f64 / 1e3;
        for (name, raw) in [("meta", stable.stable_meta), ("data", stable.stable_data), ("settled", stable.settled)] {
            self.metrics.gauge("meridian_stable_age_seconds", vec![Label::new("time", name)]).set(age(raw));
        }
        lifecycle::show(&self.lifecycle, &self.metrics);
        self.ports.show(&self.metrics);
        self.metrics.gauge("meridian_tombstones", Vec::new()).set(stable.tombstones as f64);
        for (role, mirror) in [("primary", false), ("mirror", true)] {
            let states = self.volumes.states();
            let of_role = states.iter().filter(|volume| volume.mirror == mirror);
            let bytes: u64 = of_role.clone().map(|volume| volume.committed).sum();
            let labels = || vec![Label::new("role", role)];
            self.metrics.gauge("meridian_volume_bytes", labels()).set(bytes as f64);
            self.metrics.gauge("meridian_volumes", labels()).set(of_role.count() as f64);
        }
    }
}
