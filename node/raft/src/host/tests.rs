//! Whole groups: alone, and three over gRPC on loopback.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use meridian_index::MachineError;
use meridian_index::kv::{KvRead, Overlay, Step};
use meridian_store::{Column, GroupView, SharedMemory};
use meridian_types::{ClusterId, DatacenterId};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::transport::{Endpoint, Server};

use super::*;
use crate::record::{PURGED_ROW, decode_purged};
use crate::{ProposeError, ReadError};

const GROUP: GroupId = GroupId(16);
const PATIENCE: Duration = Duration::from_secs(60);

/// Writes each command under the count of commands before it and answers with that count.
struct Journal;

const COUNT_ROW: &[u8] = b"count";
const POISON: &[u8] = b"poison";

fn journal_row(count: u64) -> Vec<u8> {
    [b"entry/", &count.to_be_bytes()[..]].concat()
}

fn count_in(view: &dyn KvRead) -> u64 {
    let row = view.get(COUNT_ROW).unwrap();
    row.map_or(0, |row| u64::from_be_bytes(row[..].try_into().unwrap()))
}

impl Machine for Journal {
    fn apply(&self, view: &mut Overlay<'_>, command: &[u8]) -> Result<Bytes, MachineError> {
        if command == POISON {
            return Err(MachineError::Invariant("poison".to_owned()));
        }
        let count = count_in(view);
        view.put(journal_row(count), Bytes::copy_from_slice(command));
        view.put(COUNT_ROW.to_vec(), Bytes::copy_from_slice(&(count + 1).to_be_bytes()));
        Ok(Bytes::copy_from_slice(&count.to_be_bytes()))
    }
}

fn journal(view: &GroupView) -> Vec<Bytes> {
    let mut found = Vec::new();
    view.scan(b"entry/", b"entry0", &mut |_, value| {
        found.push(Bytes::copy_from_slice(value));
        Step::Next
    })
    .unwrap();
    found
}

fn local(node: u32) -> LocalNode {
    LocalNode { cluster: ClusterId([7; 16]), datacenter: DatacenterId::new(1).unwrap(), node: NodeId(node) }
}

fn config(node: u32) -> HostConfig {
    HostConfig {
        heartbeat_ms: 100,
        election_ms_min: 400,
        election_ms_max: 800,
        snapshot_entries: 100,
        log_entries_kept: 10,
        ..HostConfig::new(local(node))
    }
}

fn open_store(path: &Path) -> Store {
    Store::open(path, &SharedMemory::new(1 << 20, 16 << 20)).unwrap()
}

/// The store of a node that may have been stopped a moment ago: a call that it was answering when its server was aborted
/// still holds it until it notices.
async fn reopened_store(path: &Path) -> Store {
    let reopened = async {
        loop {
            match Store::open(path, &SharedMemory::new(1 << 20, 16 << 20)) {
                Ok(store) => return store,
                Err(error) if error.to_string().contains("lock hold by current process") => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    };
    timeout(PATIENCE, reopened).await.expect("a stopped node lets go of its store")
}

/// Where the members are; a missing one has no address.
#[derive(Default)]
struct Addresses(Mutex<HashMap<NodeId, Channel>>);

impl PeerChannels for Addresses {
    fn channel(&self, node: NodeId) -> Option<Channel> {
        self.0.lock().get(&node).cloned()
    }
}

fn members(nodes: impl IntoIterator<Item = u32>) -> BTreeSet<NodeId> {
    nodes.into_iter().map(NodeId).collect()
}

async fn serving(group: &Group) -> Leadership {
    *timeout(PATIENCE, group.leadership().wait_for(|leadership| leadership.serving)).await.unwrap().unwrap()
}

async fn propose(group: &Group, command: impl Into<Bytes>) -> Result<u64, ProposeError> {
    let answer = timeout(PATIENCE, group.propose(command.into())).await.unwrap()?;
    Ok(u64::from_be_bytes(answer[..].try_into().unwrap()))
}

fn commands(range: std::ops::Range<u64>) -> Vec<Bytes> {
    range.map(|index| Bytes::from(format!("command {index}"))).collect()
}

/// A host with one group whose only member it is.
async fn alone(path: &Path) -> (Arc<RaftHost>, Group) {
    let host = RaftHost::new(config(1), open_store(path), Arc::new(Addresses::default()));
    let group = host.start_group(GROUP, Arc::new(Journal), members([1])).await.unwrap();
    serving(&group).await;
    (host, group)
}

#[tokio::test]
async fn a_group_of_one_applies_in_the_order_of_proposals_and_has_everything_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..3u64 {
        let (host, group) = alone(directory.path()).await;
        let (start, end) = (round * 300, (round + 1) * 300);
        assert_eq!(journal(&group.view()), commands(0..start));
        let answers: Vec<_> = commands(start..end).into_iter().map(|command| group.propose(command)).collect();
        for (index, answer) in (start..end).zip(answers) {
            assert_eq!(answer.await.unwrap()[..], index.to_be_bytes());
        }
        group.read_index().await.unwrap();
        assert_eq!(journal(&group.view()), commands(0..end));
        host.shutdown().await;
    }
}

#[tokio::test]
async fn what_was_answered_survives_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let image = tempfile::tempdir().unwrap();
    let (host, group) = alone(directory.path()).await;
    for command in commands(0..50) {
        propose(&group, command).await.unwrap();
    }
    // What the disk has at this moment, with no chance to close anything.
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), image.path().join(entry.file_name())).unwrap();
    }
    host.shutdown().await;
    let (host, group) = alone(image.path()).await;
    assert_eq!(journal(&group.view()), commands(0..50));
    assert_eq!(propose(&group, "more").await, Ok(50));
    host.shutdown().await;
}

#[tokio::test]
async fn a_sync_that_fails_acknowledges_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let broken = Arc::new(AtomicBool::new(false));
    let hook: meridian_store::SyncHook = Arc::new({
        let broken = broken.clone();
        move || if broken.load(Ordering::SeqCst) { Err("injected".to_owned()) } else { Ok(()) }
    });
    let store = Store::open_with(directory.path(), &SharedMemory::new(1 << 20, 8 << 20), Some(hook)).unwrap();
    let host = RaftHost::new(config(1), store, Arc::new(Addresses::default()));
    let group = host.start_group(GROUP, Arc::new(Journal), members([1])).await.unwrap();
    serving(&group).await;
    propose(&group, "before").await.unwrap();
    broken.store(true, Ordering::SeqCst);
    let waiting: Vec<_> = (0..10).map(|_| group.propose(Bytes::from_static(b"lost"))).collect();
    for outcome in waiting {
        let outcome = timeout(PATIENCE, outcome).await.unwrap();
        assert!(matches!(outcome, Err(ProposeError::Unknown | ProposeError::Stopped)), "{outcome:?}");
    }
    broken.store(false, Ordering::SeqCst);
    assert_eq!(propose(&group, "after").await, Err(ProposeError::Stopped));
    assert_eq!(group.read_index().await, Err(ReadError::Stopped));
    assert_eq!(journal(&group.view()), ["before"]);
    let mut leadership = group.leadership();
    timeout(PATIENCE, leadership.wait_for(|now| now.leader.is_none() && !now.serving)).await.unwrap().unwrap();
    host.shutdown().await;
}

#[tokio::test]
async fn a_machine_that_fails_stops_its_group_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let (host, group) = alone(directory.path()).await;
    let other = host.start_group(GroupId(17), Arc::new(Journal), members([1])).await.unwrap();
    serving(&other).await;
    propose(&group, "fine").await.unwrap();
    assert_eq!(propose(&group, POISON).await, Err(ProposeError::Unknown));
    assert_eq!(propose(&group, "more").await, Err(ProposeError::Stopped));
    assert_eq!(journal(&group.view()), ["fine"]);
    assert_eq!(propose(&other, "fine").await, Ok(0));
    host.shutdown().await;
}

#[tokio::test]
async fn the_log_of_a_busy_group_stays_short_in_count_and_in_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_store(directory.path());
    let config = HostConfig { snapshot_entries: 100_000, log_bytes_max: 1 << 20, ..config(1) };
    let host = RaftHost::new(config, store.clone(), Arc::new(Addresses::default()));
    let group = host.start_group(GROUP, Arc::new(Journal), members([1])).await.unwrap();
    serving(&group).await;
    let purged = || {
        let row = store.get(Column::Log, GROUP, PURGED_ROW).unwrap();
        row.map_or(0, |row| decode_purged(&row).unwrap().index)
    };
    let mut proposed = 0;
    while purged() < 200 {
        propose(&group, vec![0; 20_000]).await.unwrap();
        proposed += 1;
        assert!(proposed < 5000, "the log is not trimmed by its bytes");
    }
    host.shutdown().await;
    drop((host, group, store));

    let (host, group) = alone(directory.path()).await;
    assert_eq!(count_in(&group.view()), proposed, "a trimmed log is enough for a restart");
    let store = host.store().clone();
    for command in commands(0..1000) {
        propose(&group, command).await.unwrap();
    }
    let mut applied = group.applied();
    let last = *applied.borrow_and_update();
    while store.get(Column::Log, GROUP, &crate::record::entry_row(last - 500)).unwrap().is_some() {
        propose(&group, "more").await.unwrap();
        assert!(*applied.borrow_and_update() < last + 5000, "the log is not trimmed by its count");
    }
    host.shutdown().await;
}

#[tokio::test]
async fn a_group_is_started_once_by_a_member_and_not_after_shutdown() {
    let directory = tempfile::tempdir().unwrap();
    let (host, group) = alone(directory.path()).await;
    let start = async |id, nodes: [u32; 1]| host.start_group(id, Arc::new(Journal), members(nodes)).await;
    assert!(matches!(start(GROUP, [1]).await, Err(RaftError::Running { .. })));
    assert!(matches!(start(GroupId(17), [2]).await, Err(RaftError::NotAMember { .. })));
    host.shutdown().await;
    assert!(matches!(start(GroupId(17), [1]).await, Err(RaftError::Stopped)));
    assert_eq!(propose(&group, "late").await, Err(ProposeError::Stopped));
}

/// Three members, each with a store and a gRPC server of its own.
struct Cluster {
    directory: TempDir,
    addresses: Arc<Addresses>,
    nodes: BTreeMap<u32, Member>,
}

struct Member {
    host: Arc<RaftHost>,
    group: Group,
    server: JoinHandle<()>,
}

impl Cluster {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut cluster = Self { directory, addresses: Arc::default(), nodes: BTreeMap::new() };
        for node in 1..=3 {
            cluster.start_node(node).await;
        }
        cluster
    }

    fn path(&self, node: u32) -> PathBuf {
        self.directory.path().join(node.to_string())
    }

    async fn start_node(&mut self, node: u32) {
        self.start_member(node, members(1..=3).into()).await;
    }

    async fn start_member(&mut self, node: u32, members: GroupMembers) {
        let host = RaftHost::new(config(node), reopened_store(&self.path(node)).await, self.addresses.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let server = Server::builder().add_service(host.service());
        let server = tokio::spawn(async move {
            server.serve_with_incoming(meridian_wire::incoming(listener)).await.unwrap();
        });
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
        self.addresses.0.lock().insert(NodeId(node), channel);
        let group = host.start_group(GROUP, Arc::new(Journal), members).await.unwrap();
        self.nodes.insert(node, Member { host, group, server });
    }

    async fn stop_node(&mut self, node: u32) {
        let member = self.nodes.remove(&node).unwrap();
        self.addresses.0.lock().remove(&NodeId(node));
        member.server.abort();
        let _ = member.server.await;
        member.host.shutdown().await;
    }

    fn group(&self, node: u32) -> Group {
        self.nodes[&node].group.clone()
    }

    /// The node that serves.
    async fn leader(&self) -> u32 {
        let waits = self.nodes.iter().map(|(node, member)| {
            Box::pin(async {
                serving(&member.group).await;
                *node
            })
        });
        futures::future::select_all(waits).await.0
    }

    /// Proposes where the leader is until it is applied; only for commands that may be applied twice.
    async fn propose(&self, command: Bytes) -> u64 {
        loop {
            if let Ok(count) = propose(&self.group(self.leader().await), command.clone()).await {
                return count;
            }
        }
    }

    async fn applied_everywhere(&self) -> u64 {
        let leader = self.group(self.leader().await);
        leader.read_index().await.unwrap();
        let index = *leader.applied().borrow();
        for member in self.nodes.values() {
            timeout(PATIENCE, member.group.applied().wait_for(|applied| *applied >= index)).await.unwrap().unwrap();
        }
        index
    }

    async fn stop(mut self) {
        for node in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.stop_node(node).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_elect_replicate_and_survive_the_loss_of_their_leader() {
    let mut cluster = Cluster::start().await;
    let first = cluster.leader().await;
    let term = cluster.group(first).leadership().borrow().term;
    let answers: Vec<_> = commands(0..200).into_iter().map(|one| cluster.group(first).propose(one)).collect();
    for answer in answers {
        timeout(PATIENCE, answer).await.unwrap().unwrap();
    }
    cluster.applied_everywhere().await;
    for (node, member) in &cluster.nodes {
        assert_eq!(journal(&member.group.view()), commands(0..200), "node {node}");
    }
    let follower = cluster.group(if first == 1 { 2 } else { 1 });
    let refused = Some(NodeId(first));
    assert_eq!(propose(&follower, "elsewhere").await, Err(ProposeError::NotLeader { leader: refused }));
    assert_eq!(follower.read_index().await, Err(ReadError::NotLeader { leader: refused }));
    drop(follower);

    cluster.stop_node(first).await;
    let second = cluster.leader().await;
    assert_ne!(second, first);
    assert!(cluster.group(second).leadership().borrow().term > term);
    for command in commands(200..260) {
        cluster.propose(command).await;
    }
    cluster.start_node(first).await;
    cluster.applied_everywhere().await;
    let journals: Vec<_> = cluster.nodes.values().map(|member| journal(&member.group.view())).collect();
    assert!(journals.iter().all(|one| *one == journals[0]));
    let mut once = journals[0].clone();
    once.dedup();
    assert_eq!(once, commands(0..260));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_behind_the_log_gets_a_snapshot() {
    let mut cluster = Cluster::start().await;
    cluster.propose(Bytes::from_static(b"first")).await;
    cluster.applied_everywhere().await;
    let leader = cluster.leader().await;
    let lagging = if leader == 3 { 2 } else { 3 };
    let seen = *cluster.group(lagging).applied().borrow();
    cluster.stop_node(lagging).await;
    for index in 0..600u32 {
        // Some of it large, so that the snapshot takes several pieces.
        let length = if index % 50 == 0 { 300_000 } else { 100 };
        cluster.propose(Bytes::from(vec![index as u8; length])).await;
    }
    let leader = cluster.leader().await;
    let store = cluster.nodes[&leader].host.store().clone();
    let purged = store.get(Column::Log, GROUP, PURGED_ROW).unwrap().unwrap();
    assert!(decode_purged(&purged).unwrap().index > seen, "the entries that it needs are gone");
    drop(store);

    cluster.start_node(lagging).await;
    cluster.applied_everywhere().await;
    let late = &cluster.nodes[&lagging];
    assert!(journal(&late.group.view()) == journal(&cluster.group(leader).view()));
    let row = late.host.store().get(Column::Log, GROUP, PURGED_ROW).unwrap().unwrap();
    assert!(decode_purged(&row).unwrap().index > seen, "it has not read them from a log");

    // The snapshot is durable: it is there after a restart, and the log goes on from it.
    cluster.stop_node(lagging).await;
    cluster.start_node(lagging).await;
    cluster.propose(Bytes::from_static(b"last")).await;
    cluster.applied_everywhere().await;
    assert!(journal(&cluster.group(lagging).view()) == journal(&cluster.group(cluster.leader().await).view()));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_nothing_is_acknowledged_or_read() {
    let mut cluster = Cluster::start().await;
    cluster.propose(Bytes::from_static(b"before")).await;
    let leader = cluster.leader().await;
    for node in (1..=3).filter(|node| *node != leader) {
        cluster.stop_node(node).await;
    }
    let group = cluster.group(leader);
    let pending = group.propose(Bytes::from_static(b"pending"));
    let read = timeout(PATIENCE, group.read_index()).await.unwrap();
    assert!(matches!(read, Err(ReadError::NoQuorum | ReadError::NotLeader { .. })), "{read:?}");
    assert_eq!(journal(&group.view()), ["before"]);
    drop(group);
    cluster.stop_node(leader).await;
    let outcome = timeout(PATIENCE, pending).await.unwrap();
    assert!(outcome.is_err(), "{outcome:?}");
}

#[tokio::test]
async fn a_message_for_another_node_or_an_unknown_group_is_refused() {
    use meridian_wire::raft::raft_server::Raft as RaftRpc;
    use meridian_wire::raft::{MessageKind, RaftMessage};
    let directory = tempfile::tempdir().unwrap();
    let (host, _group) = alone(directory.path()).await;
    let service = RaftService::new(host.clone());
    let send = async |to: u32, group: GroupId, body: &'static [u8]| {
        let message = RaftMessage {
            caller: local(2).caller(),
            group: group.0,
            kind: MessageKind::Vote.into(),
            to,
            body: Bytes::from_static(body),
        };
        service.exchange(tonic::Request::new(message)).await.unwrap_err().code()
    };
    assert_eq!(send(9, GROUP, b"").await, tonic::Code::FailedPrecondition);
    assert_eq!(send(1, GroupId(99), b"").await, tonic::Code::NotFound);
    assert_eq!(send(1, GROUP, b"").await, tonic::Code::InvalidArgument);
    assert_eq!(send(1, GROUP, b"\x01\xff\xff").await, tonic::Code::InvalidArgument);
    host.shutdown().await;
}

mod homing;
mod routes;
