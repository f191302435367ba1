//! The lead of a group goes where it belongs: away from a node that stops, and back to the first voter.

use std::time::Duration;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_gives_its_lead_away_without_an_election_timeout() {
    let cluster = Cluster::start().await;
    cluster.propose(Bytes::from_static(b"before")).await;
    cluster.applied_everywhere().await;
    let leader = cluster.leader().await;
    let (host, mut leadership) = (cluster.nodes[&leader].host.clone(), cluster.group(leader).leadership());
    let term = leadership.borrow().term;
    host.hand_over().await;
    let moved = leadership.wait_for(|now| now.leader.is_some_and(|other| other != NodeId(leader)));
    let moved = *timeout(PATIENCE, moved).await.unwrap().unwrap();
    assert_eq!(moved.term, term + 1, "one election, won by the one that was asked");
    cluster.propose(Bytes::from_static(b"after")).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_voter_gets_the_lead_back_once_it_keeps_up() {
    let mut cluster = Cluster::start().await;
    assert_eq!(cluster.leader().await, 1);
    cluster.propose(Bytes::from_static(b"one")).await;
    cluster.stop_node(1).await;
    assert_ne!(cluster.leader().await, 1);
    for command in commands(0..50) {
        cluster.propose(command).await;
    }
    cluster.start_node(1).await;
    let back = cluster.group(1);
    timeout(PATIENCE + Duration::from_secs(10), serving(&back)).await.unwrap();
    assert_eq!(journal(&back.view()).len(), 51);
    // And it stays: nothing moves a lead that is where it belongs.
    let term = back.leadership().borrow().term;
    for command in commands(50..100) {
        cluster.propose(command).await;
    }
    assert_eq!(back.leadership().borrow().term, term);
    drop(back);
    cluster.stop().await;
}
