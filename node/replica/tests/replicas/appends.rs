//! Appends and reads that go well, and calls that are refused.

use futures::future::join_all;
use meridian_env::disk::Fault;
use meridian_replica::ReplicaError;
use meridian_types::{ClusterId, NeedleKey};
use meridian_volume::{ReplicaRole, VOLUME_HEADER_SIZE};
use tokio::task::JoinHandle;

use crate::cluster::{CLUSTER, COOKIE, Cluster, P, S, T, content, fid, volume};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_through_any_node_is_on_every_replica_and_reads_everywhere() {
    let mut cluster = Cluster::start(3).await;
    cluster.create(1).await;
    let lengths = [0, 1, 100, 4096, 70_000, 3 << 20];
    for (key, length) in lengths.into_iter().enumerate() {
        let at = [P, S, T][key % 3];
        let appended = cluster.append(at, 1, key as u64, length).await.unwrap();
        for node in cluster.nodes.values() {
            // Acknowledged means durable on every replica; committed at the primary.
            assert_eq!(node.replicas.state(volume(1)).unwrap().durable, appended.end_offset);
        }
        assert_eq!(cluster.replicas(P).state(volume(1)).unwrap().committed, appended.end_offset);
    }
    for at in [P, S, T] {
        for (key, length) in lengths.into_iter().enumerate() {
            let fid = fid(1, key as u64);
            assert_eq!(cluster.replicas(at).needle_size(fid).await.unwrap() as usize, length);
            assert_eq!(cluster.replicas(at).read(fid, 0..length as u32).await.unwrap(), content(key as u64, length));
        }
        let absent = cluster.replicas(at).read(fid(1, 99), 0..1).await.unwrap_err();
        assert!(absent.is_no_such_needle(), "{absent}");
    }
    cluster.seal(T, 1).await.unwrap();
    cluster.check().await;
    cluster.replicas(S).delete(fid(1, 2)).await.unwrap();
    for at in [P, S, T] {
        assert!(cluster.replicas(at).read(fid(1, 2), 0..1).await.unwrap_err().is_no_such_needle());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secondaries_hear_what_is_committed_also_when_nothing_follows() {
    let mut cluster = Cluster::start(2).await;
    cluster.create(1).await;
    let appended = cluster.append(P, 1, 1, 100).await.unwrap();
    let volumes = cluster.replicas(S).volumes().clone();
    let mut changed = volumes.changed();
    while volumes.state(volume(1)).unwrap().committed < appended.end_offset {
        changed.changed().await.unwrap();
    }
    assert_eq!(volumes.role(volume(1)), Some(ReplicaRole::Secondary));
    assert_eq!(volumes.read(fid(1, 1), 0..100).await.unwrap(), content(1, 100), "its own replica serves it now");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_sync_a_replica_serves_every_append_that_waits_and_answers_keep_their_order() {
    let mut cluster = Cluster::start(2).await;
    cluster.create(1).await;
    cluster.append(P, 1, 1000, 10).await.unwrap(); // the session has begun
    let (primary, secondary) = (cluster.nodes[&P].disk.clone(), cluster.nodes[&S].disk.clone());
    primary.stall(".data");
    let replicas = cluster.replicas(P).clone();
    let append = |key: u64| {
        let replicas = replicas.clone();
        tokio::spawn(async move { replicas.append(volume(1), NeedleKey(key), COOKIE, content(key, 10)).await })
    };
    let first = append(0);
    let stalled = primary.clone();
    tokio::task::spawn_blocking(move || stalled.wait_for_stalled()).await.unwrap();
    // The stalled sync and few more succeed: 200 appends do not take a sync each.
    primary.plan(Fault::Sync, ".data", 8);
    secondary.plan(Fault::Sync, ".data", 8);
    let others: Vec<_> = (1..=200).map(append).collect();
    assert!(!first.is_finished() && !others.iter().any(JoinHandle::is_finished), "acknowledged during a stall");
    tokio::task::yield_now().await;
    primary.resume();
    let mut ends = vec![first.await.unwrap().unwrap().end_offset];
    for outcome in join_all(others).await {
        ends.push(outcome.unwrap().unwrap().end_offset);
    }
    ends.sort_unstable();
    ends.dedup();
    assert_eq!(ends.len(), 201);
    assert_eq!((primary.pending(), secondary.pending()), (1, 1), "the planned faults were not reached");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_batch_leaves_before_the_last_is_acknowledged() {
    let mut cluster = Cluster::start(2).await;
    cluster.create(1).await;
    let start = cluster.append(P, 1, 1000, 10).await.unwrap().end_offset;
    let secondary = cluster.nodes[&S].disk.clone();
    secondary.stall(".data");
    let replicas = cluster.replicas(P).clone();
    let volumes = replicas.volumes().clone();
    let append = |key: u64| {
        let replicas = replicas.clone();
        tokio::spawn(async move { replicas.append(volume(1), NeedleKey(key), COOKIE, content(key, 10)).await })
    };
    let durable = || volumes.state(volume(1)).unwrap().durable;
    let first = append(0);
    while durable() == start {
        tokio::task::yield_now().await;
    }
    let one = durable();
    let second = append(1);
    while durable() == one {
        tokio::task::yield_now().await; // the primary has written the second batch; the first is not acknowledged
    }
    assert_eq!(volumes.state(volume(1)).unwrap().committed, start);
    assert!(!first.is_finished() && !second.is_finished());
    secondary.resume();
    assert!(first.await.unwrap().unwrap().end_offset < second.await.unwrap().unwrap().end_offset);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_were_restarted_while_idle_take_appends_again() {
    let mut cluster = Cluster::start(3).await;
    cluster.create(1).await;
    for round in 0..3 {
        for (key, node) in [P, S, T].into_iter().enumerate() {
            let key = round * 10 + key as u64;
            cluster.append(P, 1, key, 500).await.unwrap();
            cluster.kill(node).await;
            cluster.boot(node).await;
            let unproven = cluster.replicas(S).read(fid(1, key), 0..500).await.unwrap();
            assert_eq!(unproven, content(key, 500), "acknowledged bytes read on");
        }
    }
    assert_eq!(cluster.failed(1), None);
    let length = cluster.seal(P, 1).await.unwrap();
    assert!(length > VOLUME_HEADER_SIZE);
    cluster.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_repaired_from_another_replica_and_never_served() {
    let mut cluster = Cluster::start(2).await;
    cluster.create(1).await;
    for (key, length) in [(1, 100), (2, 200_000), (3, 100)] {
        cluster.append(P, 1, key, length).await.unwrap();
    }
    cluster.seal(P, 1).await.unwrap();
    let path = cluster.file(S, volume(1));
    let mut bytes = std::fs::read(&path).unwrap();
    for at in [100, 100_000] {
        bytes[at] ^= 1; // in the first needle, and inside a block of the second
    }
    std::fs::write(&path, &bytes).unwrap();
    let volumes = cluster.replicas(S).volumes().clone();
    assert!(volumes.read(fid(1, 1), 0..100).await.is_err());
    assert!(volumes.read(fid(1, 2), 90_000..110_000).await.is_err());
    assert_eq!(volumes.state(volume(1)).unwrap().damaged.len(), 2);
    for (key, length) in [(1, 100), (2, 200_000)] {
        let read = cluster.replicas(S).read(fid(1, key), 0..length).await.unwrap();
        assert_eq!(read, content(key, length as usize));
    }
    cluster.replicas(S).repair(volume(1)).await;
    assert_eq!(volumes.state(volume(1)).unwrap().damaged, []);
    assert_eq!(volumes.read(fid(1, 2), 0..200_000).await.unwrap(), content(2, 200_000));
    cluster.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_replica_is_passed_over_by_reads() {
    let mut cluster = Cluster::start(2).await;
    cluster.create(1).await;
    cluster.append(P, 1, 1, 200_000).await.unwrap();
    cluster.seal(P, 1).await.unwrap();
    // A gateway without a replica asks the primary first; it accepts, and says nothing.
    let gateway = cluster.gateway(T);
    cluster.nodes[&P].port.cut(true);
    let begun = std::time::Instant::now();
    assert_eq!(gateway.read(fid(1, 1), 70_000..190_000).await.unwrap(), content(1, 200_000).slice(70_000..190_000));
    assert_eq!(gateway.needle_size(fid(1, 1)).await.unwrap(), 200_000);
    assert!(gateway.read(fid(1, 2), 0..1).await.unwrap_err().is_no_such_needle());
    assert!(begun.elapsed().as_secs() < 5, "it waited for the silent one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_and_other_epochs_are_refused_by_name() {
    let mut cluster = Cluster::start(2).await;
    cluster.create(1).await;
    cluster.append(P, 1, 1, 10).await.unwrap();
    let said = |error: ReplicaError| error.to_string();
    let named = |name: &str| cluster.identity(&format!("{name}.meridian"));

    let foreign = cluster.stranger(T, named("node-3.dc-b"), CLUSTER);
    let refused = foreign.append(volume(1), NeedleKey(2), COOKIE, content(2, 10)).await.unwrap_err();
    assert!(said(refused).contains("the certificate is not that of node 3"));

    let disguised = cluster.stranger(S, named("node-1.dc-a"), CLUSTER);
    let refused = disguised.append(volume(1), NeedleKey(2), COOKIE, content(2, 10)).await.unwrap_err();
    assert!(said(refused).contains("the certificate is not that of node 2"));

    let elsewhere = cluster.stranger(S, named("node-2.dc-a"), ClusterId([8; 16]));
    let refused = elsewhere.append(volume(1), NeedleKey(2), COOKIE, content(2, 10)).await.unwrap_err();
    assert!(said(refused).contains("the call is of another cluster"));

    cluster.begin_seal(1); // the registry is ahead of the files
    let refused = cluster.append(S, 1, 2, 10).await.unwrap_err();
    assert!(refused.take_another());
    assert!(said(refused).contains("the volume is at epoch 1, not 2"));
}
