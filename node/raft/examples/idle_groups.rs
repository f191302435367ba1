//! Measures what idle groups cost: 18 groups with 1 or 3 voters, all in one process, and nothing to do for ten seconds.
//!
//! `cargo run --release -p meridian-raft --example idle_groups -- 3`

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use meridian_index::kv::Overlay;
use meridian_index::{Machine, MachineError};
use meridian_raft::{HostConfig, PeerChannels, RaftHost};
use meridian_store::{GroupId, SharedMemory, Store};
use meridian_types::{ClusterId, DatacenterId, NodeId};
use meridian_wire::LocalNode;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tonic::transport::{Channel, Endpoint, Server};

const GROUPS: u32 = 18;
const SETTLED: Duration = Duration::from_secs(5);
const WATCHED: Duration = Duration::from_secs(10);

struct Echo;

impl Machine for Echo {
    fn apply(&self, _: &mut Overlay<'_>, command: &[u8]) -> Result<Bytes, MachineError> {
        Ok(Bytes::copy_from_slice(command))
    }
}

#[derive(Default)]
struct Addresses(Mutex<HashMap<NodeId, Channel>>);

impl PeerChannels for Addresses {
    fn channel(&self, node: NodeId) -> Option<Channel> {
        self.0.lock().get(&node).cloned()
    }
}

/// CPU time of this process in clock ticks of 10 ms, and how often its threads were woken.
fn used() -> (u64, u64) {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux has it");
    let fields: Vec<_> = stat[stat.rfind(')').expect("a name") + 2..].split(' ').collect();
    let ticks = fields[11].parse::<u64>().expect("a count") + fields[12].parse::<u64>().expect("a count");
    let mut wakes = 0;
    for task in std::fs::read_dir("/proc/self/task").expect("Linux has it").flatten() {
        let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let voluntary = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        wakes += voluntary.and_then(|count| count.trim().parse::<u64>().ok()).unwrap_or(0);
    }
    (ticks, wakes)
}

/// A host with its server, known to the others.
async fn host(node: u32, directory: &Path, memory: &SharedMemory, addresses: &Arc<Addresses>) -> Arc<RaftHost> {
    let datacenter = DatacenterId::new(1).expect("a valid id");
    let local = LocalNode { cluster: ClusterId([1; 16]), datacenter, node: NodeId(node) };
    let store = Store::open(&directory.join(node.to_string()), memory).expect("an empty store opens");
    let host = RaftHost::new(HostConfig::new(local), store, addresses.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let server = Server::builder().add_service(host.service());
    tokio::spawn(server.serve_with_incoming(meridian_wire::incoming(listener)));
    let channel = Endpoint::from_shared(format!("http://{address}")).expect("an address").connect_lazy();
    addresses.0.lock().insert(local.node, channel);
    host
}

#[tokio::main]
async fn main() {
    let voters = std::env::args().nth(1).map_or(1, |count| count.parse::<u32>().expect("a count of voters"));
    let directory = tempfile::tempdir().expect("a directory");
    let memory = SharedMemory::new(8 << 20, 64 << 20);
    let (addresses, members) = (Arc::default(), (1..=voters).map(NodeId).collect::<BTreeSet<_>>());
    let mut hosts = Vec::new();
    for node in 1..=voters {
        hosts.push(host(node, directory.path(), &memory, &addresses).await);
    }
    let mut groups = Vec::new();
    for (host, id) in hosts.iter().flat_map(|host| (0..GROUPS).map(move |id| (host, id))) {
        groups.push(host.start_group(GroupId(id), Arc::new(Echo), members.clone()).await.expect("the group starts"));
    }
    for group in &groups[..GROUPS as usize] {
        group.leadership().wait_for(|leadership| leadership.leader.is_some()).await.expect("somebody leads");
    }
    tokio::time::sleep(SETTLED).await;
    let (ticks, wakes) = used();
    tokio::time::sleep(WATCHED).await;
    let (ticks, wakes) = (used().0 - ticks, used().1 - wakes);
    let seconds = WATCHED.as_secs_f64();
    println!(
        "{GROUPS} idle groups of {voters}: {:.2} % of a core, {:.1} wakes a second",
        ticks as f64 / seconds,
        wakes as f64 / seconds
    );
    for host in hosts {
        host.shutdown().await;
    }
}
