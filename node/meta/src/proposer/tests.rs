//! The proposer over one real raft group whose log others write to as well: what a change of leaders leaves behind.

use std::collections::BTreeSet;
use std::time::Duration;

use meridian_env::{ClockConfig, SystemClock};
use meridian_index::{Condition, IndexMachine, ObjectBody, VersionMode};
use meridian_raft::{HostConfig, PeerChannels, RaftHost};
use meridian_store::{GroupId, SharedMemory, Store};
use meridian_types::{BucketId, ClusterId, Incarnation, NodeId, Sequence};
use meridian_wire::LocalNode;
use tokio::sync::Semaphore;
use tonic::transport::Channel;

use super::*;

const PARTITION: PartitionId = PartitionId(0);

struct Alone;

impl PeerChannels for Alone {
    fn channel(&self, _node: NodeId) -> Option<Channel> {
        None
    }
}

struct Fixture {
    group: Group,
    clock: Arc<HybridClock>,
    queue: mpsc::Sender<Work>,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
    host: Arc<RaftHost>,
    _directory: tempfile::TempDir,
}

fn datacenter() -> DatacenterId {
    DatacenterId::new(1).unwrap()
}

impl Fixture {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("db"), &SharedMemory::new(8 << 20, 8 << 20)).unwrap();
        let skew = ClockConfig { skew_ms_max: 500 };
        let clock = HybridClock::open(&directory.path().join("clock"), Arc::new(SystemClock::new()), skew).unwrap();
        let local = LocalNode { cluster: ClusterId([1; 16]), datacenter: datacenter(), node: NodeId(1) };
        let timings =
            HostConfig { heartbeat_ms: 50, election_ms_min: 100, election_ms_max: 200, ..HostConfig::new(local) };
        let host = RaftHost::new(timings, store, Arc::new(Alone));
        let machine = Arc::new(IndexMachine { datacenter: datacenter(), partition: PARTITION });
        let members = BTreeSet::from([NodeId(1)]);
        let group = host.start_group(GroupId::partition(PARTITION), machine, members).await.unwrap();
        let (queue, receiver) = mpsc::channel(64);
        let (stop, stopping) = watch::channel(false);
        let activity = Arc::new(Notify::new());
        let proposer =
            Proposer::new(datacenter(), PARTITION, group.clone(), clock.clone(), receiver, activity, stopping);
        let task = tokio::spawn(proposer.run());
        Self { group, clock, queue, stop, task, host, _directory: directory }
    }

    async fn serving(&self) {
        let mut leadership = self.group.leadership();
        let waited = tokio::time::timeout(Duration::from_secs(20), leadership.wait_for(|known| known.serving)).await;
        waited.unwrap().unwrap();
    }

    fn enqueue(&self, key: &str) -> oneshot::Receiver<Result<Outcome, MetaError>> {
        let (reply, answer) = oneshot::channel();
        let share = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let ticket = Ticket { reply, deadline: Instant::now() + Duration::from_secs(20), _share: share };
        let body = ObjectBody { etag: "d41d8cd98f00b204e9800998ecf8427e".to_owned(), ..ObjectBody::default() };
        let (bucket, key) = (BucketId([7; 16]), key.parse().unwrap());
        let operation = Operation::Put { bucket, key, mode: VersionMode::Null, body, condition: Condition::None };
        let request = meridian_env::entropy::request_id();
        let work = Work::Local(Box::new(Waiting { request, operation, seen: Timestamp::ZERO, size: 100, ticket }));
        self.queue.try_send(work).map_err(|_| "queue").unwrap();
        answer
    }

    async fn put(&self, key: &str) -> Result<Timestamp, MetaError> {
        self.enqueue(key).await.unwrap().map(|outcome| match outcome {
            Outcome::Stored { stamp, .. } => stamp.timestamp,
            other => panic!("{other:?}"),
        })
    }

    fn log(&self) -> Vec<LogEntry> {
        let entries =
            queries::log_entries(&self.group.view(), datacenter(), Incarnation(0), Sequence(1), usize::MAX, usize::MAX);
        entries.unwrap().iter().map(|entry| LogEntry::decode(entry).unwrap()).collect()
    }

    async fn end(self) {
        self.stop.send_replace(true);
        self.task.await.unwrap();
        self.host.shutdown().await;
    }
}

#[tokio::test]
async fn a_stamp_that_apply_refuses_is_taken_anew_for_the_same_request() {
    let fixture = Fixture::new().await;
    fixture.serving().await;
    fixture.put("before").await.unwrap();
    // Another leader has closed the partition above what this node's clock has seen.
    let above = fixture.clock.last().plus_ms(150);
    let closed = fixture.group.propose(Command::Close(above).encode()).await.unwrap();
    assert_eq!(Response::decode(&closed).unwrap(), Response::Closed(above));
    assert!(fixture.clock.last() < above, "the clock must not know of it, or nothing is refused");

    let answers: Vec<_> = (0..10).map(|number| fixture.enqueue(&format!("after/{number}"))).collect();
    for answer in answers {
        assert!(matches!(answer.await.unwrap(), Ok(Outcome::Stored { stamp, .. }) if stamp.timestamp > above));
    }
    let log = fixture.log();
    assert_eq!(log.len(), 11, "each request once");
    assert!(log.windows(2).all(|pair| pair[0].stamp < pair[1].stamp));
    fixture.end().await;
}

#[tokio::test]
async fn nothing_is_stamped_before_this_node_serves() {
    let fixture = Fixture::new().await;
    let before = fixture.clock.last();
    let mut served_first = false;
    match fixture.put("early").await {
        Err(MetaError::NotLeader { .. }) => assert_eq!(fixture.clock.last(), before, "it was stamped"),
        Ok(_) => served_first = true, // the election was over by then
        Err(other) => panic!("{other:?}"),
    }
    fixture.serving().await;
    fixture.put("later").await.unwrap();
    assert_eq!(fixture.log().len(), 1 + usize::from(served_first));
    fixture.end().await;
}

#[tokio::test]
async fn a_proposal_whose_caller_has_gone_is_not_stamped() {
    let fixture = Fixture::new().await;
    fixture.serving().await;
    drop(fixture.enqueue("gone")); // on this one thread the proposer has not run in between
    fixture.put("here").await.unwrap();
    assert_eq!(fixture.log().len(), 1);
    fixture.end().await;
}

#[tokio::test]
async fn what_waits_when_the_proposer_stops_is_refused_as_certain() {
    let fixture = Fixture::new().await;
    fixture.serving().await;
    fixture.stop.send_replace(true);
    let answer = fixture.enqueue("late");
    assert_eq!(answer.await.unwrap(), Err(MetaError::Stopped));
    fixture.end().await;
}
