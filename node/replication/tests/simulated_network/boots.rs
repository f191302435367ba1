//! Calls between datacenters over a simulated network that cuts, holds back and repairs, in virtual time: the shipped
//! service, the shipped channel with its TLS, deadlines and keep-alives, and the shipped questions of a boot.
//!
//! What goes wrong is the network's doing alone. Invariants to see: a call to a peer that says nothing ends at its
//! deadline, a boot at its bound; after a repair the same channel carries again; silence moves nothing.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use meridian_control::RememberedBoot;
use meridian_env::{ClockConfig, ClockError, HybridClock, ManualClock};
use meridian_replication::{Heard, ReplicationService, hear_peers};
use meridian_types::Incarnation;
use meridian_wire::replication::BootRequest;
use meridian_wire::tls::Identity;
use meridian_wire::{Peer, call, replication_client, replication_server, server};
use tokio::time::Instant;

use crate::network::{
    GRPC_PORT, NAMES, NOW_MS, Outcome, Port, config, datacenter, dialer, identities, incoming, local, members,
    node_name, timings,
};

/// What a boot waits at most, and what the machine may add to virtual time.
const BOOT_BOUND: Duration = Duration::from_millis(3_300);

fn clock(directory: &Path, name: &str, ahead_ms: u64) -> Arc<HybridClock> {
    let wall = Arc::new(ManualClock::new(NOW_MS + ahead_ms));
    HybridClock::open(&directory.join(name), wall, ClockConfig { skew_ms_max: 500 }).unwrap()
}

/// A network on which dc-b and dc-c serve; each remembers a boot of whoever asks.
fn network(identities: &[Identity], directory: &Path) -> turmoil::Sim<'static> {
    let mut sim = turmoil::Builder::new()
        .simulation_duration(Duration::from_secs(180))
        .min_message_latency(Duration::from_millis(5))
        .max_message_latency(Duration::from_millis(60))
        .tcp_capacity(65_536)
        .rng_seed(7)
        .build();
    for index in 1..3 {
        let (identity, clock) = (identities[index].clone(), clock(directory, NAMES[index], 0));
        sim.host(NAMES[index], move || {
            let boot = RememberedBoot { boot_counter: 3 + index as u64, incarnation: Incarnation(0) };
            let memory = Arc::new(move |peer: Peer| (peer.datacenter == datacenter(0)).then_some(boot));
            let service = ReplicationService::new(local(index), members(), Arc::clone(&clock), memory);
            let identity = identity.clone();
            async move {
                let listener = Port::bind(GRPC_PORT).await?;
                let served = server(&identity, &timings())?.add_service(replication_server(service));
                served.serve_with_incoming(incoming(listener)).await?;
                Ok(())
            }
        });
    }
    sim
}

async fn hear(identity: &Identity, clock: &HybridClock) -> (Heard, Duration) {
    let began = Instant::now();
    let heard = hear_peers(&config(0), identity, clock).await.unwrap();
    (heard, began.elapsed())
}

#[test]
fn a_boot_hears_who_can_be_reached_within_its_bound_whatever_the_network_does() {
    let (identities, directory) = (identities(), tempfile::tempdir().unwrap());
    let mut sim = network(&identities, directory.path());
    let (right, ahead) = (clock(directory.path(), "right", 0), clock(directory.path(), "ahead", 57_000));
    let identity = identities[0].clone();
    sim.client("dc-a", async move {
        let (heard, took) = hear(&identity, &right).await;
        assert!(took < Duration::from_secs(2) && heard.clocks == 2, "{heard:?} after {took:?}");
        assert_eq!(heard.went_back(6), None);
        assert_eq!(heard.went_back(5).map(|boot| boot.boot_counter), Some(5), "dc-c remembers the latest");

        turmoil::partition("dc-a", "dc-b");
        let (heard, took) = hear(&identity, &right).await;
        assert!(took <= BOOT_BOUND && heard.clocks == 1, "cut: {heard:?} after {took:?}");
        turmoil::repair("dc-a", "dc-b");

        // Held back: the peer accepts and then says nothing.
        turmoil::hold("dc-a", "dc-b");
        turmoil::hold("dc-a", "dc-c");
        let (heard, took) = hear(&identity, &right).await;
        assert!(took <= BOOT_BOUND && heard == Heard::default(), "held: {heard:?} after {took:?}");
        turmoil::release("dc-a", "dc-b");
        turmoil::release("dc-a", "dc-c");

        let (heard, _) = hear(&identity, &ahead).await;
        assert_eq!(heard.clocks, 2, "after the repair");
        assert!(matches!(ahead.next(), Err(ClockError::PeersDisagree { disagreeing: 2, by_ms: -57_000, .. })));
        assert!(!matches!(right.next(), Err(ClockError::PeersDisagree { .. })));
        Outcome::Ok(())
    });
    sim.run().unwrap();
}

#[test]
fn a_call_ends_at_its_deadline_and_the_same_channel_carries_again_after_the_repair() {
    const DEADLINE: Duration = Duration::from_millis(1_500);
    let (identities, directory) = (identities(), tempfile::tempdir().unwrap());
    let mut sim = network(&identities, directory.path());
    let identity = identities[0].clone();
    sim.client("dc-a", async move {
        let address = format!("dc-b:{GRPC_PORT}");
        let channel = dialer().channel(&address, &identity, &node_name(1), &timings()).unwrap();
        let ask = async || {
            let (mut client, began) = (replication_client(channel.clone()), Instant::now());
            let request = BootRequest { caller: local(0).caller() };
            let answer = call(DEADLINE, request, |request| async move { client.boot(request).await }).await;
            (answer, began.elapsed())
        };
        assert!(ask().await.0.is_ok());
        for _ in 0..3 {
            turmoil::hold("dc-a", "dc-b");
            for _ in 0..4 {
                let (answer, took) = ask().await;
                assert!(answer.is_err() && took <= DEADLINE + Duration::from_millis(50), "{answer:?} after {took:?}");
            }
            turmoil::release("dc-a", "dc-b");
            turmoil::partition("dc-a", "dc-b");
            let (answer, took) = ask().await;
            assert!(answer.is_err() && took <= DEADLINE + Duration::from_millis(50), "{answer:?} after {took:?}");
            turmoil::repair("dc-a", "dc-b");
            // A dead connection is given up by its keep-alives, and then dialled anew.
            let (timings, repaired) = (timings(), Instant::now());
            while ask().await.0.is_err() {}
            let took = repaired.elapsed();
            let bound = timings.keep_alive_interval + timings.keep_alive_timeout + timings.connect_timeout + DEADLINE;
            assert!(took <= bound, "carries again after {took:?}");
        }
        Outcome::Ok(())
    });
    sim.run().unwrap();
}
