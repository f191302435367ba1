//! What goes wrong, by name: after each, the replicas are byte-identical and nothing acknowledged is missing.

use std::time::Duration;

use meridian_env::disk::Fault;
use meridian_replica::{ReplicaError, Replicas};
use meridian_types::NeedleKey;
use meridian_volume::{Appended, VOLUME_HEADER_SIZE};
use tokio::task::JoinHandle;

use crate::cluster::{COOKIE, Cluster, P, S, T, content, volume};

/// Appends `key`, on a task of its own.
fn appending(replicas: &Replicas, key: u64, length: usize) -> JoinHandle<Result<Appended, ReplicaError>> {
    let replicas = replicas.clone();
    tokio::spawn(async move { replicas.append(volume(1), NeedleKey(key), COOKIE, content(key, length)).await })
}

async fn wait_until_stalled(cluster: &Cluster, node: meridian_types::NodeId) {
    let disk = cluster.nodes[&node].disk.clone();
    tokio::task::spawn_blocking(move || disk.wait_for_stalled()).await.unwrap();
}

async fn started() -> Cluster {
    filled(Cluster::start(3).await).await
}

async fn filled(mut cluster: Cluster) -> Cluster {
    cluster.create(1).await;
    cluster.create(2).await;
    for key in 0..5 {
        cluster.append([P, S, T][key as usize % 3], 1, key, 1000 + key as usize * 40_000).await.unwrap();
    }
    cluster
}

/// The writer takes another volume at once; then the failed one is sealed, everybody is brought up, and all is compared.
async fn end_well(mut cluster: Cluster, leader: meridian_types::NodeId) {
    let at = *cluster.nodes.keys().next().unwrap();
    if cluster.nodes.len() == 3 {
        cluster.append(at, 2, 900, 3000).await.unwrap();
    }
    cluster.seal(leader, 1).await.unwrap();
    for node in [P, S, T] {
        if !cluster.nodes.contains_key(&node) {
            cluster.boot(node).await;
        }
        cluster.nodes[&node].port.cut(false);
        cluster.nodes[&node].disk.resume();
    }
    cluster.seal(leader, 2).await.unwrap();
    cluster.reconcile().await;
    cluster.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_killed_in_the_middle_of_an_append() {
    let mut cluster = started().await;
    // The secondaries have the batch, the primary is killed before its own sync.
    cluster.nodes[&P].disk.stall(".data");
    let lost = appending(cluster.replicas(P), 50, 9000);
    wait_until_stalled(&cluster, P).await;
    let disk = cluster.nodes[&P].disk.clone();
    cluster.kill(P).await;
    disk.resume();
    assert!(lost.await.unwrap().unwrap_err().take_another());
    // A gateway elsewhere finds that out by itself.
    assert!(cluster.append(S, 1, 51, 10).await.unwrap_err().take_another());
    end_well(cluster, S).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secondary_killed_in_the_middle_of_an_append() {
    let mut cluster = started().await;
    cluster.nodes[&S].disk.stall(".data");
    let lost = appending(cluster.replicas(P), 50, 9000);
    wait_until_stalled(&cluster, S).await;
    let disk = cluster.nodes[&S].disk.clone();
    cluster.kill(S).await;
    disk.resume();
    assert!(lost.await.unwrap().unwrap_err().take_another());
    assert!(cluster.wait_for_report(1).await.contains("node 2 does not append"));
    assert!(cluster.append(P, 1, 51, 10).await.unwrap_err().take_another());
    end_well(cluster, T).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_primary_with_something_in_flight_takes_no_append() {
    let mut cluster = started().await;
    cluster.nodes[&T].disk.stall(".data"); // two of three have it
    let lost = appending(cluster.replicas(P), 50, 9000);
    wait_until_stalled(&cluster, T).await;
    let volumes = cluster.replicas(P).volumes().clone();
    while volumes.state(volume(1)).unwrap().durable == volumes.state(volume(1)).unwrap().committed {
        tokio::task::yield_now().await;
    }
    let committed = volumes.state(volume(1)).unwrap().committed;
    drop(volumes);
    let disk = cluster.nodes[&T].disk.clone();
    cluster.kill(T).await;
    disk.resume();
    // Its write was never synced, and its power went with it.
    let file = std::fs::OpenOptions::new().write(true).open(cluster.file(T, volume(1))).unwrap();
    file.set_len(committed).unwrap();
    cluster.kill(P).await;
    assert!(lost.await.unwrap().is_err());
    cluster.boot(P).await;
    cluster.boot(T).await;
    let refused = cluster.append(P, 1, 51, 10).await.unwrap_err();
    assert!(refused.take_another() && refused.to_string().contains("bytes where"), "{refused}");
    end_well(cluster, P).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_the_middle_of_a_seal() {
    let mut cluster = started().await;
    let epoch = cluster.begin_seal(1);
    // The first leader fenced all of them, decided, and died before anybody heard of it; so did a secondary.
    let decision = cluster.replicas(P).seal(volume(1), epoch, 0).await.unwrap();
    assert_eq!(decision.complete, [P, S, T]);
    cluster.kill(P).await;
    cluster.kill(T).await;
    cluster.boot(P).await;
    assert!(cluster.append(P, 1, 60, 10).await.unwrap_err().take_another(), "a fence outlives a restart");
    assert_eq!(cluster.seal(S, 1).await.unwrap(), decision.length, "the next leader decides the same");
    cluster.kill(S).await; // after the decision, before or after its end
    cluster.boot(S).await;
    cluster.boot(T).await;
    end_well(cluster, P).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partitioned_primary_acknowledges_nothing_after_the_fence() {
    let mut cluster = started().await;
    cluster.nodes[&P].port.cut(true); // the seal does not reach it, it reaches the others
    cluster.nodes[&P].disk.stall(".data");
    let late = appending(cluster.replicas(P), 50, 9000);
    wait_until_stalled(&cluster, P).await;
    let length = cluster.seal(S, 1).await.unwrap();
    let disk = cluster.nodes[&P].disk.clone();
    disk.resume();
    // Its registry may be old: it goes on writing, and the fenced secondaries refuse it.
    let later = appending(cluster.replicas(P), 51, 100);
    let (late, later) = (late.await.unwrap(), later.await.unwrap());
    assert!(later.is_err(), "a fenced primary has acknowledged");
    if let Ok(appended) = late {
        assert!(appended.end_offset <= length, "acknowledged behind the end");
        cluster.acknowledged.push((1, 50, 9000));
    }
    cluster.nodes[&P].port.cut(false);
    cluster.reconcile().await; // cuts what is behind the sealed length before it serves
    cluster.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secondary_cut_off_in_silence_fails_the_append_in_time() {
    let mut cluster = filled(Cluster::start_with(3, Duration::from_secs(2)).await).await;
    cluster.nodes[&S].port.cut(true);
    let begun = std::time::Instant::now();
    assert!(cluster.append(P, 1, 50, 10).await.unwrap_err().take_another());
    assert!(begun.elapsed().as_secs() < 10);
    cluster.wait_for_report(1).await;
    cluster.seal(P, 1).await.unwrap();
    cluster.nodes[&S].port.cut(false);
    end_well(cluster, P).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_secondary_is_not_believed_and_gets_its_copy_back() {
    let mut cluster = started().await;
    let committed = cluster.replicas(P).state(volume(1)).unwrap().committed;
    cluster.kill(T).await;
    cluster.wipe(T);
    cluster.boot(T).await;
    // It is not made anew empty, neither by an append nor by a creation.
    assert!(cluster.append(P, 1, 50, 10).await.unwrap_err().take_another());
    let placement = cluster.placement(1);
    assert!(cluster.replicas(P).create(&placement).await.is_err());
    assert!(cluster.replicas(T).state(volume(1)).is_none());
    let epoch = cluster.begin_seal(1);
    let decision = cluster.replicas(T).seal(volume(1), epoch, 0).await.unwrap();
    assert!(decision.length >= committed && decision.length > VOLUME_HEADER_SIZE);
    assert_eq!((decision.complete, decision.failed[0].0), (vec![P, S], T));
    // Alone it seals nothing.
    cluster.kill(P).await;
    cluster.kill(S).await;
    let alone = cluster.replicas(T).seal(volume(1), epoch, 0).await.unwrap_err();
    assert!(matches!(alone, ReplicaError::Sealing { .. }), "{alone}");
    cluster.boot(P).await;
    cluster.boot(S).await;
    cluster.seal(P, 1).await.unwrap();
    cluster.reconcile().await;
    cluster.seal(S, 2).await.unwrap(); // it has no file of that one either
    cluster.reconcile().await;
    cluster.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_is_interrupted_counts_for_nothing_and_goes_on() {
    let mut cluster = Cluster::start(3).await;
    cluster.create(1).await;
    for key in 0..12 {
        cluster.append(P, 1, key, 4 << 20).await.unwrap();
    }
    cluster.kill(T).await;
    cluster.wipe(T);
    cluster.seal(P, 1).await.unwrap();
    cluster.boot(T).await;
    cluster.nodes[&T].disk.plan(Fault::Write, ".data", 2); // a write of the copy fails
    cluster.reconcile().await;
    let state = cluster.replicas(T).state(volume(1)).unwrap();
    assert!(state.filling && !state.sealed && state.durable > VOLUME_HEADER_SIZE);
    let epoch = cluster.placement(1).epoch;
    let decision = cluster.replicas(P).seal(volume(1), epoch, 0).await.unwrap();
    assert_eq!(decision.complete, [P, S], "a half-made copy counts");
    cluster.kill(T).await;
    cluster.boot(T).await;
    assert!(cluster.replicas(T).state(volume(1)).unwrap().durable >= state.durable);
    cluster.reconcile().await;
    cluster.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_on_any_replica() {
    for node in [P, S] {
        let mut cluster = started().await;
        cluster.nodes[&node].disk.plan(Fault::NoSpace { bytes: 20 }, ".data", 0);
        assert!(cluster.append(P, 1, 50, 5000).await.unwrap_err().take_another());
        assert!(cluster.append(P, 1, 51, 5000).await.unwrap_err().take_another(), "an offset is not written twice");
        cluster.wait_for_report(1).await;
        end_well(cluster, T).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_on_any_replica() {
    for node in [P, S] {
        let mut cluster = started().await;
        cluster.nodes[&node].disk.plan(Fault::Sync, ".data", 0);
        assert!(cluster.append(P, 1, 50, 5000).await.unwrap_err().take_another());
        cluster.wait_for_report(1).await;
        // Rule 6: its disk records nothing any more, not even the fence; it counts as silent or failed.
        let epoch = cluster.begin_seal(1);
        let decision = cluster.replicas(T).seal(volume(1), epoch, 0).await.unwrap();
        assert!(!decision.complete.contains(&node));
        assert!(cluster.append(P, 2, 51, 10).await.unwrap_err().take_another(), "another volume of that disk");
        cluster.kill(node).await; // a new disk life: here the bytes are still there
        cluster.boot(node).await;
        cluster.seal(T, 2).await.unwrap();
        cluster.reconcile().await;
        cluster.seal(T, 1).await.unwrap();
        cluster.reconcile().await;
        cluster.check().await;
    }
}
