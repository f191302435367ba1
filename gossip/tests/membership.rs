//! Members over real loopback UDP: who is seen, who is not, and what is dropped.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use meridian_gossip::{
    ChitchatMembership, DropReason, GossipConfig, GossipKey, Member, Membership, VALUE_LENGTH_MAX, WallClock,
};
use meridian_types::{ClusterId, DatacenterId, NodeId, Timestamp};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout};

/// A busy machine may take long; a test that fails fails here.
const DEADLINE: Duration = Duration::from_secs(30);
const INTERVAL: Duration = Duration::from_millis(100);
const NOW_UNIX_MS: u64 = 1_800_000_000_000;
const CLUSTER: ClusterId = ClusterId([5; 16]);

fn clock_at(unix_ms: u64) -> WallClock {
    Arc::new(move || Timestamp::from_unix_ms(unix_ms))
}

fn config(node: u32, boot_counter: u64, seeds: &[SocketAddr]) -> GossipConfig {
    let id = (DatacenterId::new(2).unwrap(), NodeId(node), format!("ams-{node}").parse().unwrap());
    let seeds = seeds.iter().map(SocketAddr::to_string).collect();
    let listen = "127.0.0.1:0".parse().unwrap();
    let config = GossipConfig::new(CLUSTER, id, boot_counter, listen, seeds, GossipKey::new([1; 32]));
    GossipConfig { interval: INTERVAL, ..config }
}

async fn start(config: GossipConfig) -> ChitchatMembership {
    ChitchatMembership::start(config, clock_at(NOW_UNIX_MS)).await.unwrap()
}

/// Waits until the list of members satisfies `wanted`.
async fn until(membership: &ChitchatMembership, what: &str, wanted: impl FnMut(&Vec<Member>) -> bool) -> Vec<Member> {
    let mut watch = membership.watch();
    let seen = timeout(DEADLINE, watch.wait_for(wanted)).await;
    match seen {
        Ok(members) => members.unwrap().clone(),
        Err(_) => panic!("not seen in time: {what}; seen: {:?}", membership.members()),
    }
}

/// Waits until so many datagrams were dropped for `reason`.
async fn until_dropped(membership: &ChitchatMembership, reason: DropReason, count: u64) {
    let end = Instant::now() + DEADLINE;
    while membership.counters().dropped(reason) < count {
        assert!(Instant::now() < end, "only {} dropped as {reason:?}", membership.counters().dropped(reason));
        tokio::task::yield_now().await;
    }
}

fn live_nodes(members: &[Member]) -> Vec<u32> {
    members.iter().filter(|member| member.live).map(|member| member.node.0).collect()
}

#[tokio::test]
async fn three_members_see_each_other_and_what_they_say() {
    let first = start(config(1, 1, &[])).await;
    let second = start(config(2, 1, &[first.address()])).await;
    let third = start(config(3, 4, &[first.address()])).await;
    second.set("disk.free", "17").unwrap();
    for membership in [&first, &second, &third] {
        let said = |members: &Vec<Member>| {
            live_nodes(members) == [1, 2, 3] && members[1].values.get("disk.free").is_some_and(|value| value == "17")
        };
        let members = until(membership, "three live members", said).await;
        assert_eq!(members[2].name.as_str(), "ams-3");
        assert_eq!((members[2].boot_counter, members[2].gossip), (4, third.address()));
        assert_eq!(membership.live().len(), 3);
    }
    second.set("disk.free", "16").unwrap();
    let changed = |members: &Vec<Member>| members[1].values.get("disk.free").is_some_and(|value| value == "16");
    until(&third, "a changed value", changed).await;
}

#[tokio::test]
async fn a_member_that_stops_is_dead_within_a_bound_and_comes_back_in_a_new_life() {
    let first = start(config(1, 1, &[])).await;
    let second = start(config(2, 1, &[first.address()])).await;
    let third = start(config(3, 1, &[first.address()])).await;
    for membership in [&first, &second] {
        until(membership, "three live members", |members| live_nodes(members) == [1, 2, 3]).await;
    }

    third.shutdown().await;
    for membership in [&first, &second] {
        let members = until(membership, "the third is dead", |members| live_nodes(members) == [1, 2]).await;
        assert_eq!(members.len(), 3, "the dead one is still known");
    }

    let again = start(config(3, 2, &[first.address()])).await;
    for membership in [&first, &second, &again] {
        let members = until(membership, "the third is back", |members| live_nodes(members) == [1, 2, 3]).await;
        assert_eq!(members.iter().map(|member| member.boot_counter).collect::<Vec<_>>(), [1, 1, 2]);
    }
}

#[tokio::test]
async fn a_member_with_another_key_is_never_seen_and_counted() {
    let first = start(config(1, 1, &[])).await;
    let stranger = GossipConfig { key: GossipKey::new([2; 32]), ..config(2, 1, &[first.address()]) };
    let stranger = start(stranger).await;
    until_dropped(&first, DropReason::Unsealed, 3).await;
    assert_eq!(live_nodes(&first.members()), [1]);
    assert_eq!((first.members().len(), stranger.members().len()), (1, 1));
}

#[tokio::test]
async fn a_member_of_another_cluster_or_a_wrong_clock_is_never_seen_and_counted() {
    let first = start(config(1, 1, &[])).await;
    let other_cluster = GossipConfig { cluster: ClusterId([6; 16]), ..config(2, 1, &[first.address()]) };
    let _other_cluster = start(other_cluster).await;
    let year_2100 = clock_at(4_102_444_800_000);
    let _ahead = ChitchatMembership::start(config(3, 1, &[first.address()]), year_2100).await.unwrap();
    let hour_ago = clock_at(NOW_UNIX_MS - 3_600_000);
    let _behind = ChitchatMembership::start(config(4, 1, &[first.address()]), hour_ago).await.unwrap();
    for reason in [DropReason::WrongCluster, DropReason::Future, DropReason::Stale] {
        until_dropped(&first, reason, 2).await;
    }
    assert_eq!(first.members().len(), 1);
}

/// A datagram that a member really sent: it took our socket for its seed. The member is gone since, so that
/// whatever comes from it later is a replay. Returns the socket too.
async fn capture(node: u32, boot_counter: u64) -> (UdpSocket, Vec<u8>) {
    let ear = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let from = start(config(node, boot_counter, &[ear.local_addr().unwrap()])).await;
    let mut buffer = vec![0; 65_536];
    let (length, _) = timeout(DEADLINE, ear.recv_from(&mut buffer)).await.unwrap().unwrap();
    buffer.truncate(length);
    from.shutdown().await;
    (ear, buffer)
}

#[tokio::test]
async fn a_captured_datagram_is_taken_once() {
    let target = start(config(1, 1, &[])).await;
    let (ear, datagram) = capture(2, 1).await;
    let (_, next_life) = capture(2, 2).await;
    ear.send_to(&datagram, target.address()).await.unwrap();
    until(&target, "the sender", |members| members.iter().any(|member| member.node.0 == 2)).await;
    assert_eq!(target.counters().dropped(DropReason::Replayed), 0, "the first time is no replay");

    for _ in 0..3 {
        ear.send_to(&datagram, target.address()).await.unwrap();
    }
    until_dropped(&target, DropReason::Replayed, 3).await;
    // After the sender's restart, nothing of its earlier life is taken.
    ear.send_to(&next_life, target.address()).await.unwrap();
    ear.send_to(&datagram, target.address()).await.unwrap();
    until_dropped(&target, DropReason::Replayed, 4).await;
    assert_eq!(target.counters().received(), 6);
}

#[tokio::test]
async fn bad_datagrams_are_counted_and_do_no_harm() {
    let target = start(config(1, 1, &[])).await;
    let (ear, datagram) = capture(2, 1).await;
    let mut flipped = datagram.clone();
    flipped[20] ^= 0x10;
    let bad: [(DropReason, &[u8]); 7] = [
        (DropReason::Truncated, &[]),
        (DropReason::Truncated, b"GET / HTTP/1.1\r\n\r\n"),
        (DropReason::Truncated, &datagram[..40]),
        (DropReason::Unsealed, &datagram[..datagram.len() - 1]),
        (DropReason::Unsealed, &flipped),
        (DropReason::Unsealed, &[0xff; 1000]),
        (DropReason::Oversize, &[0x5a; 65_507]),
    ];
    for (_, bytes) in bad {
        ear.send_to(bytes, target.address()).await.unwrap();
    }
    for (reason, count) in [(DropReason::Truncated, 3), (DropReason::Unsealed, 3), (DropReason::Oversize, 1)] {
        until_dropped(&target, reason, count).await;
        assert_eq!(target.counters().dropped(reason), count, "{reason:?}");
    }
    assert_eq!(target.members().len(), 1);

    // The gossip task is still there.
    let friend = start(config(3, 1, &[target.address()])).await;
    until(&target, "a friend after all that", |members| live_nodes(members) == [1, 3]).await;
    until(&friend, "the target", |members| live_nodes(members) == [1, 3]).await;
}

/// Text that does not compress well.
fn noise(seed: u64) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut digit = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'!' + (state % 90) as u8)
    };
    (0..VALUE_LENGTH_MAX).map(|_| digit()).collect()
}

#[tokio::test]
async fn a_newcomer_hears_more_than_a_datagram_holds() {
    const KEYS: u64 = 60;
    let first = start(config(1, 1, &[])).await;
    let second = start(config(2, 1, &[first.address()])).await;
    for key in 0..KEYS {
        first.set(&format!("noise.{key}"), &noise(key)).unwrap();
        second.set(&format!("noise.{key}"), &noise(key + KEYS)).unwrap();
    }
    let third = start(config(3, 1, &[first.address()])).await;
    let complete = |members: &Vec<Member>| {
        live_nodes(members) == [1, 2, 3] && members[..2].iter().all(|member| member.values.len() as u64 == KEYS)
    };
    let members = until(&third, "all values of both", complete).await;
    assert_eq!(members[1].values["noise.7"], noise(7 + KEYS));
    assert_eq!(first.counters().send_failed(), 0);
}

#[tokio::test]
async fn shutdown_frees_the_socket_and_so_does_drop() {
    let membership = start(config(1, 1, &[])).await;
    let address = membership.address();
    membership.shutdown().await;
    membership.shutdown().await;
    assert!(UdpSocket::bind(address).await.is_ok(), "free at once after shutdown");

    let dropped = start(config(1, 2, &[])).await;
    let address = dropped.address();
    drop(dropped);
    let free = async {
        while UdpSocket::bind(address).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, free).await.expect("free soon after drop");
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let taken = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let config = GossipConfig { listen: address, ..config(1, 1, &[]) };
    let error = ChitchatMembership::start(config, clock_at(NOW_UNIX_MS)).await.err().unwrap();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}
