//! Reads through followers, learners and nodes without a replica.

use super::*;
use crate::{GroupMembers, ReadView};

type Rows = Vec<(Vec<u8>, Bytes)>;

/// What a scan shows that skips ahead after each seventh row.
fn skipping(view: &dyn KvRead, reverse: bool) -> Rows {
    let mut rows = Rows::new();
    let mut visit = |key: &[u8], value: &[u8]| {
        rows.push((key.to_vec(), Bytes::copy_from_slice(value)));
        if !rows.len().is_multiple_of(7) {
            return Step::Next;
        }
        // Far enough to leave a piece of the answer now and then.
        let count = u64::from_be_bytes(key[b"entry/".len()..].try_into().unwrap());
        let step = 1 + count % 90;
        Step::Seek(journal_row(if reverse { count.saturating_sub(step) } else { count + step }))
    };
    if reverse {
        view.scan_reverse(b"entry/", b"entry0", &mut visit).unwrap();
    } else {
        view.scan(b"entry/", b"entry0", &mut visit).unwrap();
    }
    rows
}

fn all(view: &dyn KvRead) -> Vec<Bytes> {
    let mut found = Vec::new();
    view.scan(b"entry/", b"entry0", &mut |_, value| {
        found.push(Bytes::copy_from_slice(value));
        Step::Next
    })
    .unwrap();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_replica_reads_what_the_leader_has() {
    let cluster = Cluster::start().await;
    let leader = cluster.group(cluster.leader().await);
    for command in commands(0..1500) {
        propose(&leader, command).await.unwrap();
    }
    let host = RaftHost::new(config(4), open_store(&cluster.path(4)), cluster.addresses.clone());
    let route = host.route(GROUP, members(1..=3).into(), None);
    let view = route.read(PATIENCE).await.unwrap();
    assert!(matches!(view, ReadView::There(_)));
    let at_leader = leader.view();
    assert_eq!(all(&view), commands(0..1500));
    for reverse in [false, true] {
        assert_eq!(skipping(&view, reverse), skipping(&at_leader, reverse), "reverse: {reverse}");
    }
    assert_eq!(count_in(&view), 1500);
    assert_eq!(view.get(b"nothing").unwrap(), None);

    // It is a state of one moment.
    propose(&leader, "later").await.unwrap();
    assert_eq!((count_in(&view), count_in(&route.read(PATIENCE).await.unwrap())), (1500, 1501));

    // A view that was closed, and one that another node opened, is an error and never an empty answer.
    cluster.nodes[&cluster.leader().await].host.views.clear();
    assert!(view.get(COUNT_ROW).is_err());
    drop((view, route));
    host.shutdown().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_replica_reads_what_was_acknowledged_before() {
    let cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let route = |node: u32| {
        let member = &cluster.nodes[&node];
        member.host.route(GROUP, members(1..=3).into(), Some(member.group.clone()))
    };
    let routes: Vec<_> = (1..=3).map(route).collect();
    for round in 1..=50 {
        propose(&cluster.group(leader), format!("round {round}")).await.unwrap();
        // Many at once share a question to the leader.
        let reads = routes.iter().flat_map(|route| (0..4).map(move |_| route.read(PATIENCE)));
        for view in futures::future::join_all(reads).await {
            assert!(count_in(&view.unwrap()) >= round);
        }
    }
    drop(routes);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_is_let_in_and_follows_without_a_vote() {
    let mut cluster =
        Cluster { directory: tempfile::tempdir().unwrap(), addresses: Arc::default(), nodes: BTreeMap::new() };
    let members = GroupMembers::new(members([1]), NodeId(1)).with_learners([NodeId(1), NodeId(2)]);
    assert_eq!(members.learners(), &self::members([2]));
    for node in 1..=2 {
        cluster.start_member(node, members.clone()).await;
    }
    for command in commands(0..20) {
        cluster.propose(command).await;
    }
    let learner = &cluster.nodes[&2];
    let route = learner.host.route(GROUP, members.clone(), Some(learner.group.clone()));
    assert_eq!(all(&route.read(PATIENCE).await.unwrap()), commands(0..20));
    drop(route);

    // Its loss stops nobody, and after its return it has what it missed.
    cluster.stop_node(2).await;
    for command in commands(20..40) {
        cluster.propose(command).await;
    }
    cluster.start_member(2, members.clone()).await;
    let learner = &cluster.nodes[&2];
    let route = learner.host.route(GROUP, members, Some(learner.group.clone()));
    assert_eq!(all(&route.read(PATIENCE).await.unwrap()), commands(0..40));
    drop(route);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_one_reads_what_was_acknowledged_before_and_nothing_once_it_has_stopped() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..3u64 {
        let (host, group) = alone(directory.path()).await;
        let route = host.route(GROUP, members([1]).into(), Some(group.clone()));
        // From the first moment in which it serves, also what the last run wrote.
        assert_eq!(count_in(&route.read(PATIENCE).await.unwrap()), round * 200);
        let writers = (0..4).map(|writer| {
            let (group, route) = (group.clone(), route.clone());
            async move {
                for turn in 0..50 {
                    let place = propose(&group, format!("writer {writer} turn {turn}")).await.unwrap();
                    assert!(count_in(&route.read(PATIENCE).await.unwrap()) > place);
                }
            }
        });
        futures::future::join_all(writers).await;
        // A state machine that refuses stops the group: what it holds is no answer any more.
        if round == 2 {
            let _ = propose(&group, POISON).await;
            timeout(PATIENCE, group.leadership().wait_for(|leadership| !leadership.serving)).await.unwrap().unwrap();
            assert!(route.read(Duration::from_millis(200)).await.is_err());
        }
        drop((route, group));
        host.shutdown().await;
    }
}
