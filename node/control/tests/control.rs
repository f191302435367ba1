//! The promises of the control group over the real stack of one node.

mod stack;

use std::collections::{BTreeMap, BTreeSet};

use meridian_control::{
    Command, ControlError, NodeReport, PeerRecord, VOLUMES_OPEN_TARGET, VolumeState, WatermarkReport,
};
use meridian_types::{Incarnation, NodeId, PartitionId, RequestId, Timestamp, VolumeId};
use stack::{NODE, Stack, code, datacenter, propose_raw};

fn at(raw: u64) -> Timestamp {
    Timestamp::from_raw(raw)
}

#[tokio::test]
async fn a_started_node_has_open_volumes_that_every_member_mirrors() {
    let directory = tempfile::tempdir().unwrap();
    let stack = Stack::start(directory.path(), 1).await;
    assert!(stack.control.ready());
    let volumes = stack.control.volumes();
    assert_eq!(volumes.len(), VOLUMES_OPEN_TARGET);
    for record in &volumes {
        assert_eq!((record.state, record.primary, record.id.datacenter()), (VolumeState::Open, NODE, datacenter(1)));
        assert_eq!(record.mirrors, [datacenter(2), datacenter(3)]);
        assert!(stack.volumes.state(record.id).is_some());
    }
    let leased = stack.control.lease_volume(code("200")).await.unwrap();
    let (_, appended) = stack.append(leased).await;
    assert!(appended.stamp > stack.control.volume(leased).unwrap().created, "rule 13");
    assert_eq!(stack.control.nodes().len(), 1);
    stack.stop().await;
}

#[tokio::test]
async fn mirrors_rotate_over_the_other_members() {
    let directory = tempfile::tempdir().unwrap();
    let stack = Stack::start(directory.path(), 1).await;
    stack.control.lease_volume(code("100")).await.unwrap();
    stack.until(|control| control.volumes().len() == 2 * VOLUMES_OPEN_TARGET).await;
    let volumes = stack.control.volumes();
    let mirrors: BTreeSet<_> =
        volumes.iter().filter(|record| record.code == code("100")).flat_map(|record| record.mirrors.clone()).collect();
    assert_eq!(mirrors, BTreeSet::from([datacenter(2), datacenter(3)]));
    stack.stop().await;
}

#[tokio::test]
async fn a_code_that_can_not_be_met_is_refused_with_what_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    let stack = Stack::start(directory.path(), 1).await;
    let error = stack.control.lease_volume(code("110")).await.unwrap_err();
    assert_eq!(error.to_string(), "110 needs a second rack in dc-a; it has one");
    let error = stack.control.lease_volume(code("300")).await.unwrap_err();
    assert_eq!(error.to_string(), "300 needs three copies in other datacenters; the cluster has two besides 1");
    let failed = stack.control.lease_volume(code("200")).await.unwrap();
    stack.control.report_failed(failed).await;
    stack.until(|control| control.volumes().len() > VOLUMES_OPEN_TARGET).await; // others are not held back
    stack.stop().await;
}

#[tokio::test]
async fn keys_and_volume_ids_are_never_issued_twice_across_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let (mut created, mut greatest, mut retired) = (BTreeMap::new(), None, BTreeSet::new());
    for life in 1..=4 {
        let stack = Stack::start(directory.path(), life).await;
        let volume = stack.control.lease_volume(code("200")).await.unwrap();
        for _ in 0..3 {
            let (fid, _) = stack.append(volume).await;
            assert!(greatest < Some(fid.key), "a key of an earlier life's range came again");
            greatest = Some(fid.key);
        }
        stack.control.report_failed(volume).await;
        let next = stack.control.lease_volume(code("200")).await.unwrap();
        assert!(next != volume && !retired.contains(&volume), "a retired volume came back");
        if life % 2 == 0 {
            stack.until_state(volume, VolumeState::Sealed).await; // the other lives end wherever the seal is
            retired.insert(volume);
        }
        for record in stack.control.volumes() {
            let first = *created.entry(record.id).or_insert(record.created);
            assert_eq!(first, record.created, "volume {} was issued again", record.id);
        }
        stack.stop().await;
    }
    assert!(retired.len() == 2 && created.len() > VOLUMES_OPEN_TARGET);
}

#[tokio::test]
async fn a_failed_volume_is_replaced_at_once_and_sealed_at_its_length() {
    let directory = tempfile::tempdir().unwrap();
    let stack = Stack::start(directory.path(), 1).await;
    let failed = stack.control.lease_volume(code("200")).await.unwrap();
    let (fid, appended) = stack.append(failed).await;
    stack.control.report_failed(failed).await;
    assert_ne!(stack.control.lease_volume(code("200")).await.unwrap(), failed);
    stack.until_state(failed, VolumeState::Sealed).await;
    let record = stack.control.volume(failed).unwrap();
    assert_eq!((record.epoch.0, record.sealed_length), (2, Some(appended.end_offset)));
    let again = stack.volumes.append(failed, fid.key, fid.cookie, bytes::Bytes::from_static(b"late")).await;
    assert!(again.is_err(), "rule 1: the old epoch takes no more appends");
    let open = |state| move |record: &&meridian_control::VolumeRecord| record.state == state;
    stack
        .until(|control| control.volumes().iter().filter(open(VolumeState::Open)).count() == VOLUMES_OPEN_TARGET)
        .await;
    stack.stop().await;
}

#[tokio::test]
async fn a_boot_counter_that_went_back_is_refused_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    Stack::start(directory.path(), 7).await.stop().await;
    for counter in [7, 3] {
        match Stack::try_start(directory.path(), counter).await {
            Err(error @ ControlError::BootCounterWentBack { registered: 7, .. }) => {
                assert!(error.to_string().contains("went back in time"), "{error}");
            }
            other => panic!("{:?}", other.err()),
        }
    }
    let stack = Stack::start(directory.path(), 8).await;
    assert_eq!(stack.control.boot_counter(), 2, "the datacenter's own counter rose with each registration");
    stack.stop().await;
}

#[tokio::test]
async fn a_registry_that_went_back_is_refused_before_it_issues_anything_again() {
    let directory = tempfile::tempdir().unwrap();
    Stack::start(directory.path(), 1).await.stop().await;
    std::fs::remove_dir_all(directory.path().join("db")).unwrap();
    let error = Stack::try_start(directory.path(), 2).await.err();
    assert!(matches!(error, Some(ControlError::RegistryWentBack { .. })), "{error:?}");
}

#[tokio::test]
async fn a_registered_volume_without_a_file_gets_one() {
    let directory = tempfile::tempdir().unwrap();
    let mirrors = vec![datacenter(2), datacenter(3)];
    let create =
        Command::CreateVolume { code: code("200"), primary: NODE, secondaries: vec![], mirrors, created: at(1) };
    propose_raw(directory.path(), 1, [create]).await;
    let stack = Stack::start(directory.path(), 2).await;
    let volume = VolumeId::new(1, datacenter(1)).unwrap();
    assert_eq!(stack.control.volume(volume).unwrap().state, VolumeState::Open);
    assert_eq!(stack.control.lease_volume(code("200")).await.unwrap(), volume, "and it is the one in use");
    stack.append(volume).await;
    assert_eq!(stack.control.volumes().len(), VOLUMES_OPEN_TARGET, "no further one in its place");
    stack.stop().await;
}

#[tokio::test]
async fn the_lost_file_of_an_open_volume_is_never_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let stack = Stack::start(directory.path(), 1).await;
    let lost: Vec<_> = stack.control.volumes().into_iter().map(|record| record.id).collect();
    stack.stop().await;
    std::fs::remove_dir_all(directory.path().join("volumes")).unwrap();
    let stack = Stack::start(directory.path(), 2).await;
    for volume in lost {
        stack.until_state(volume, VolumeState::Sealing).await;
        assert!(stack.volumes.state(volume).is_none());
        assert_ne!(stack.control.lease_volume(code("200")).await.unwrap(), volume);
    }
    stack.stop().await;
}

#[tokio::test]
async fn watermarks_only_move_forward_also_across_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let report = |meta, data, reported_at| WatermarkReport {
        source: datacenter(2),
        meta: at(meta),
        data: at(data),
        reported_at: at(reported_at),
        parked: 0,
        held: None,
    };
    // Of a node that leads every partition.
    let told = |meta, data, reported_at| NodeReport {
        source: datacenter(2),
        applied: (0..4).map(PartitionId).chain([PartitionId::CATALOG]).map(|partition| (partition, at(meta))).collect(),
        data: at(data),
        reported_at: at(reported_at),
        parked: 0,
        held: None,
        moves: 0,
    };
    let stack = Stack::start(directory.path(), 1).await;
    stack.control.report_watermarks(vec![told(10, 9, 1)]).await.unwrap();
    stack.control.report_watermarks(vec![told(8, 8, 2)]).await.unwrap();
    assert_eq!(stack.control.watermarks(), [report(10, 9, 2)]);
    stack.stop().await;
    let stack = Stack::start(directory.path(), 2).await;
    assert_eq!(stack.control.watermarks(), [report(10, 9, 2)]);
    stack.control.report_watermarks(vec![told(11, 5, 3)]).await.unwrap();
    assert_eq!(stack.control.watermarks(), [report(11, 9, 3)]);
    let mut long = told(11, 9, 4);
    long.held = Some("é".repeat(1000));
    stack.control.report_watermarks(vec![long]).await.unwrap();
    assert_eq!(stack.control.watermarks()[0].held.as_ref().unwrap().len(), meridian_control::HELD_REASON_LENGTH_MAX);
    stack.stop().await;
}

#[tokio::test]
async fn volumes_created_after_a_close_hold_nothing_at_or_below_it() {
    let directory = tempfile::tempdir().unwrap();
    let stack = Stack::start(directory.path(), 1).await;
    let closed = stack.control.close_registry(stack.clock.wall().plus_ms(100)).await.unwrap();
    assert!(stack.control.registry_closed() >= closed);
    let known: BTreeSet<_> = stack.control.registry().0.into_iter().map(|record| record.id).collect();
    let later = stack.control.lease_volume(code("000")).await.unwrap();
    assert!(!known.contains(&later));
    let (_, appended) = stack.append(later).await;
    let created = stack.control.volume(later).unwrap().created;
    assert!(closed < created && created < appended.stamp, "{closed} {created} {}", appended.stamp);
    assert!(stack.control.close_registry(at(1)).await.unwrap() >= closed, "never back");
    stack.stop().await;
}

#[tokio::test]
async fn a_report_closes_the_registry_and_its_followers_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let stack = Stack::start(directory.path(), 1).await;
    let now = stack.clock.next_waiting().await.unwrap();
    assert!(stack.control.registry_closed() < now);
    stack.control.report_watermarks(vec![]).await.unwrap();
    assert!(stack.control.registry_closed() > now);
    stack.until(|control| control.registry_closed() > now).await;
    let now = stack.clock.next_waiting().await.unwrap();
    let followed = stack.until(|control| control.registry_closed() >= now);
    let (closed, ()) = tokio::join!(stack.control.close_registry(now), followed);
    assert!(closed.unwrap() >= now);
    stack.stop().await;
}

#[tokio::test]
async fn a_peer_that_went_back_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let stack = Stack::start(directory.path(), 1).await;
    let hello = |boot_counter, incarnation| {
        let (datacenter, node, session) = (datacenter(2), NodeId(1), RequestId([7; 16]));
        let incarnation = Incarnation(incarnation);
        stack.control.register_peer(PeerRecord { datacenter, node, boot_counter, session, incarnation })
    };
    hello(5, 0).await.unwrap();
    hello(5, 0).await.unwrap();
    assert!(matches!(hello(4, 0).await, Err(ControlError::PeerWentBack { registered: 5, given: 4, .. })));
    hello(4, 1).await.unwrap();
    assert_eq!(stack.control.peers().len(), 1);
    stack.stop().await;
}
