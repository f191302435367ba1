//! Membership by chitchat over the sealed transport.
//!
//! Two tasks: chitchat's own, which gossips, and one of ours, which keeps the list of members up to date and hands
//! over what this node says. Both end with `shutdown` or when the membership is dropped.
//!
//! chitchat knows a node by a text, its `node_id`: ours is `DATACENTER.NODE.NAME`, and the boot counter is its
//! generation, so that a node that has restarted is told from its earlier life at once.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chitchat::{
    Chitchat, ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, NodeState, spawn_chitchat,
};
use meridian_types::{ClusterId, DatacenterId, NodeId, NodeName, Timestamp};
use parking_lot::Mutex;
use tokio::net::UdpSocket;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tracing::{error, warn};

use crate::counters::GossipCounters;
use crate::key::GossipKey;
use crate::member::{Member, Membership, OwnValues, ValueError};
use crate::seal::{Opener, Sealer, Sender};
use crate::transport::SealedTransport;

/// How often a node gossips. At one second a node of three costs less than a thousandth of a core.
const INTERVAL_DEFAULT: Duration = Duration::from_secs(1);
/// A datagram whose sender's clock differs by more than this from ours is dropped: a clock that far off is broken, and
/// a datagram that old was captured.
const CLOCK_DIFFERENCE_MS_MAX_DEFAULT: u64 = 60_000;
/// A node unheard of for so many times its mean time between heartbeats counts as dead. High enough that a process
/// that was stopped for some seconds on a busy machine does not flap.
const DEAD_AFTER_MEAN_INTERVALS: f64 = 12.0;
/// Heartbeats over which the mean is taken.
const HEARTBEATS_KEPT: usize = 128;
/// A pause of more than so many intervals is a death and not a sample of the mean.
const SAMPLE_INTERVALS_MAX: u32 = 10;
/// A dead node is forgotten after this long, 15 minutes: its entry travels in every message until then.
const DEAD_NODE_GRACE: Duration = Duration::from_secs(15 * 60);
/// The list of members is looked through this often even if chitchat tells of no change, because it does not tell when
/// it forgets a dead node.
const REFRESH_INTERVAL: Duration = Duration::from_secs(5);

/// Tells the time; in a node it is the one of `env`.
pub type WallClock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// How a node takes part.
#[derive(Debug, Clone)]
pub struct GossipConfig {
    pub cluster: ClusterId,
    pub datacenter: DatacenterId,
    pub node: NodeId,
    pub name: NodeName,
    /// How often the node has started on this disk. It must grow with each start: what an earlier life sent is refused.
    pub boot_counter: u64,
    /// Where to receive. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where the others send to, if that is not `listen`. Port 0 stands for the port taken.
    pub advertise: Option<SocketAddr>,
    /// Where to find the first others, as `HOST:PORT`. Ourselves among them does no harm.
    pub seeds: Vec<String>,
    pub key: GossipKey,
    pub interval: Duration,
    pub clock_difference_ms_max: u64,
}

impl GossipConfig {
    /// With the default interval and limits.
    pub fn new(
        cluster: ClusterId,
        (datacenter, node, name): (DatacenterId, NodeId, NodeName),
        boot_counter: u64,
        listen: SocketAddr,
        seeds: Vec<String>,
        key: GossipKey,
    ) -> Self {
        Self {
            cluster,
            datacenter,
            node,
            name,
            boot_counter,
            listen,
            advertise: None,
            seeds,
            key,
            interval: INTERVAL_DEFAULT,
            clock_difference_ms_max: CLOCK_DIFFERENCE_MS_MAX_DEFAULT,
        }
    }
}

/// Why gossip does not start.
#[derive(Debug, thiserror::Error)]
pub enum GossipError {
    #[error("bind the gossip socket to {address}/udp: {source}")]
    Bind { address: SocketAddr, source: io::Error },
    #[error("gossip listens on {address}, which the others can't send to: set an address to advertise")]
    Advertise { address: SocketAddr },
    #[error("start gossip: {0}")]
    Start(String),
}

/// Membership by chitchat. Dropping it ends it too, without waiting.
pub struct ChitchatMembership {
    own: Arc<Own>,
    members: watch::Receiver<Vec<Member>>,
    counters: Arc<GossipCounters>,
    address: SocketAddr,
    keeper: Mutex<Option<Keeper>>,
}

/// What this node says, and the sign that it has changed.
#[derive(Default)]
struct Own {
    values: Mutex<OwnValues>,
    changed: Notify,
}

struct Keeper {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl ChitchatMembership {
    /// Binds the socket and starts to gossip. To be called within a tokio runtime.
    ///
    /// # Errors
    /// `Bind`, `Advertise`, `Start`. Seeds that can't be reached are no error.
    pub async fn start(config: GossipConfig, clock: WallClock) -> Result<Self, GossipError> {
        let bind_error = |source| GossipError::Bind { address: config.listen, source };
        let socket = UdpSocket::bind(config.listen).await.map_err(bind_error)?;
        let bound = socket.local_addr().map_err(bind_error)?;
        let address = advertised(bound, config.advertise)?;

        let sender = Sender { datacenter: config.datacenter, node: config.node, boot_counter: config.boot_counter };
        let counters = Arc::new(GossipCounters::default());
        let transport = SealedTransport::new(
            socket,
            Sealer::new(&config.key, config.cluster, sender),
            Opener::new(&config.key, config.cluster, sender, config.clock_difference_ms_max),
            clock,
            Arc::clone(&counters),
        );
        let handle = spawn_chitchat(chitchat_config(&config, bound, address), Vec::new(), &transport)
            .await
            .map_err(|error| GossipError::Start(format!("{error:#}")))?;

        let own = Arc::new(Own::default());
        let (publish, members) = watch::channel(handle.with_chitchat(|chitchat| list(chitchat)).await);
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(keep(handle, Arc::clone(&own), publish, stopped));
        Ok(Self { own, members, counters, address, keeper: Mutex::new(Some(Keeper { stop, task })) })
    }

    /// Where the others send to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn counters(&self) -> &Arc<GossipCounters> {
        &self.counters
    }

    /// Stops gossiping and waits until the socket is closed. A second call does nothing.
    pub async fn shutdown(&self) {
        let keeper = self.keeper.lock().take();
        if let Some(Keeper { stop, task }) = keeper {
            // An error of either says that the task has ended already, which it has logged.
            let _ = stop.send(());
            let _ = task.await;
        }
    }
}

impl Membership for ChitchatMembership {
    fn members(&self) -> Vec<Member> {
        self.members.borrow().clone()
    }

    fn watch(&self) -> watch::Receiver<Vec<Member>> {
        self.members.clone()
    }

    fn set(&self, key: &str, value: &str) -> Result<(), ValueError> {
        if self.own.values.lock().set(key, value)? {
            self.own.changed.notify_one();
        }
        Ok(())
    }
}

/// The address for the others: `advertise`, or the bound one.
fn advertised(bound: SocketAddr, advertise: Option<SocketAddr>) -> Result<SocketAddr, GossipError> {
    let mut address = advertise.unwrap_or(bound);
    if address.port() == 0 {
        address.set_port(bound.port());
    }
    if address.ip().is_unspecified() { Err(GossipError::Advertise { address }) } else { Ok(address) }
}

fn chitchat_config(config: &GossipConfig, bound: SocketAddr, address: SocketAddr) -> ChitchatConfig {
    let node_id = format!("{}.{}.{}", config.datacenter, config.node, config.name);
    ChitchatConfig {
        chitchat_id: ChitchatId::new(node_id, config.boot_counter, address),
        cluster_id: config.cluster.to_string(),
        gossip_interval: config.interval,
        listen_addr: bound,
        seed_nodes: config.seeds.clone(),
        failure_detector_config: FailureDetectorConfig {
            phi_threshold: DEAD_AFTER_MEAN_INTERVALS,
            sampling_window_size: HEARTBEATS_KEPT,
            max_interval: config.interval * SAMPLE_INTERVALS_MAX,
            initial_interval: config.interval,
            dead_node_grace_period: DEAD_NODE_GRACE,
        },
        marked_for_deletion_grace_period: DEAD_NODE_GRACE,
        catchup_callback: None,
        extra_liveness_predicate: None,
    }
}

/// Keeps the list of members and hands over what this node says, until it is told to stop.
async fn keep(
    handle: ChitchatHandle,
    own: Arc<Own>,
    publish: watch::Sender<Vec<Member>>,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut live = handle.with_chitchat(|chitchat| chitchat.live_nodes_watcher()).await;
    let mut ended = std::pin::pin!(handle.termination_watcher());
    let mut refresh = tokio::time::interval(REFRESH_INTERVAL);
    refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = &mut stopped => break, // told to, or the membership was dropped
            outcome = &mut ended => {
                error!(?outcome, "gossip has ended by itself; this node sees no other as alive until it restarts");
                publish.send_modify(|members| members.iter_mut().for_each(|member| member.live = false));
                return;
            }
            _ = own.changed.notified() => {}
            _ = live.changed() => {}
            _ = refresh.tick() => {}
        }
        let own_values = own.values.lock().clone();
        let members = handle
            .with_chitchat(|chitchat| {
                say(chitchat.self_node_state(), &own_values);
                list(chitchat)
            })
            .await;
        publish.send_if_modified(|published| {
            let changed = *published != members;
            published.clone_from(&members);
            changed
        });
    }
    if let Err(error) = handle.shutdown().await {
        warn!(%error, "gossip did not end cleanly");
    }
}

/// Only what has changed: each `set` is a new version that travels to everybody.
fn say(state: &mut NodeState, values: &OwnValues) {
    for (key, value) in values.iter() {
        if state.get(key) != Some(value) {
            state.set(key, value);
        }
    }
}

/// Every known node in its latest life, ordered by (datacenter, node).
fn list(chitchat: &Chitchat) -> Vec<Member> {
    let live: BTreeSet<&ChitchatId> = chitchat.live_nodes().collect();
    let mut members: BTreeMap<(DatacenterId, NodeId), Member> = BTreeMap::new();
    for (id, state) in chitchat.node_states() {
        let Some((datacenter, node, name)) = parse_node_id(&id.node_id) else {
            warn!(node_id = %id.node_id, "gossip names a node that can't be one");
            continue;
        };
        let member = Member {
            datacenter,
            node,
            name,
            boot_counter: id.generation_id,
            gossip: id.gossip_advertise_addr,
            live: live.contains(id),
            values: state.key_values().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        };
        match members.entry((datacenter, node)) {
            Entry::Vacant(place) => {
                place.insert(member);
            }
            Entry::Occupied(mut place) if place.get().boot_counter < member.boot_counter => {
                place.insert(member);
            }
            Entry::Occupied(_) => {}
        }
    }
    members.into_values().collect()
}

fn parse_node_id(text: &str) -> Option<(DatacenterId, NodeId, NodeName)> {
    let mut fields = text.splitn(3, '.');
    let datacenter = DatacenterId::new(fields.next()?.parse().ok()?).ok()?;
    let node = NodeId(fields.next()?.parse().ok()?);
    let name = fields.next()?.parse().ok()?;
    Some((datacenter, node, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_ids_name_datacenter_node_and_name() {
        let (datacenter, node, name) = parse_node_id("2.7.ams-1").unwrap();
        assert_eq!((datacenter.get(), node.0, name.as_str()), (2, 7, "ams-1"));
        for bad in ["", "2", "2.7", "0.7.ams-1", "2.x.ams-1", "2.7.", "2.7.AMS", "300.7.ams-1"] {
            assert!(parse_node_id(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn the_advertised_address_is_one_that_can_be_sent_to() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let bound = address("0.0.0.0:7000");
        assert!(matches!(advertised(bound, None), Err(GossipError::Advertise { .. })));
        assert_eq!(advertised(bound, Some(address("10.0.0.1:0"))).unwrap(), address("10.0.0.1:7000"));
        assert_eq!(advertised(bound, Some(address("10.0.0.1:9"))).unwrap(), address("10.0.0.1:9"));
        assert_eq!(advertised(address("127.0.0.1:7000"), None).unwrap(), address("127.0.0.1:7000"));
    }
}
