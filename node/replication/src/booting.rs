//! What a node that boots asks of others before it starts any group: their clocks (rule 10), and which boots of it they
//! remember (rule 7).
//!
//! A node that boots with a wrong clock has no monotonic past to hold it against, and one whose disk was set back can't
//! know that by itself: only others can tell. So it asks them, for a bounded time. They answer from the moment that their
//! port is open, so that a cluster whose nodes all start at once does not wait for itself.
//!
//! Invariants: the wait is bounded, and a datacenter alone among unreachable peers serves all the same; fewer than
//! `PEERS_TO_JUDGE_MIN` clocks judge nothing (ADR 0007).

use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use meridian_control::RememberedBoot;
use meridian_env::HybridClock;
use meridian_types::{DatacenterName, Incarnation, Timestamp};
use meridian_wire::replication::{BootReply, BootRequest};
use meridian_wire::tls::{Identity, server_name};
use meridian_wire::{call, replication_client};
use tokio::time::Instant;

use crate::driver::PEERS_TO_JUDGE_MIN;
use crate::{PeerNode, ReplicationConfig, ReplicationError};

/// The longest that a boot waits for others.
const HEAR_WAIT_MAX: Duration = Duration::from_secs(3);
/// The deadline of one question; half of it is the most that a clock's reading may be wrong by.
const BOOT_DEADLINE: Duration = Duration::from_millis(600);
/// The pause before somebody who did not answer is asked again.
const ASK_PAUSE: Duration = Duration::from_millis(100);

/// What a node that boots has heard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    /// Datacenters whose clocks were heard.
    pub clocks: usize,
    /// The latest boot of this node that somebody remembers, and the latest incarnation of its datacenter's logs.
    pub remembered: Option<RememberedBoot>,
}

impl Heard {
    /// What is remembered, if it can't be of this boot or one before it: this node's disk went back in time (rule 7). The
    /// boot counter is raised on the disk before anybody is told of it, so nobody else can know as much.
    pub fn went_back(&self, boot_counter: u64) -> Option<RememberedBoot> {
        self.remembered.filter(|remembered| remembered.boot_counter >= boot_counter)
    }

    fn add(&mut self, reply: &BootReply) {
        let boot_counter = reply.remembered_boot_counter;
        let incarnation = Incarnation(reply.remembered_incarnation);
        if boot_counter > 0 {
            let known = self.remembered.get_or_insert(RememberedBoot { boot_counter, incarnation });
            known.boot_counter = known.boot_counter.max(boot_counter);
            known.incarnation = known.incarnation.max(incarnation);
        }
    }
}

/// Asks every other datacenter and every other node of this one, for at most `HEAR_WAIT_MAX`. Lets `clock` be judged by
/// those of the other datacenters: when most disagree it gives no stamps until they agree.
///
/// # Errors
/// When the configuration of a peer is not usable. A peer that does not answer is none.
pub async fn hear_peers(
    config: &ReplicationConfig,
    identity: &Identity,
    clock: &HybridClock,
) -> Result<Heard, ReplicationError> {
    let until = Instant::now() + HEAR_WAIT_MAX;
    let mut asked = FuturesUnordered::new();
    for peer in &config.peers {
        asked.push(ask(config, identity, clock, &peer.name, &peer.nodes, true));
    }
    for sibling in &config.siblings {
        asked.push(ask(config, identity, clock, &config.datacenter_name, std::slice::from_ref(sibling), false));
    }
    let (mut heard, mut offsets_ms) = (Heard::default(), Vec::new());
    // Those that answer in time count; the others' questions are dropped.
    while let Ok(Some(answer)) = tokio::time::timeout_at(until, asked.next()).await {
        let (reply, offset_ms) = answer?;
        heard.add(&reply);
        offsets_ms.extend(offset_ms);
    }
    heard.clocks = offsets_ms.len();
    if heard.clocks >= PEERS_TO_JUDGE_MIN {
        if let Err(error) = clock.check_peers(&offsets_ms) {
            tracing::error!(%error, "this node boots with a clock that is off; writes are refused until it is right");
        }
    } else if config.peers.len() >= PEERS_TO_JUDGE_MIN {
        tracing::warn!(heard = heard.clocks, "too few datacenters answer to judge this node's clock by theirs");
    }
    Ok(heard)
}

/// The answer of the first of `nodes` that gives one, and its clock minus ours in milliseconds if that is wanted.
async fn ask(
    config: &ReplicationConfig,
    identity: &Identity,
    clock: &HybridClock,
    datacenter: &DatacenterName,
    nodes: &[PeerNode],
    judges: bool,
) -> Result<(BootReply, Option<i64>), ReplicationError> {
    let channels = nodes.iter().map(|node| {
        let name = server_name(&node.name, datacenter);
        config.dialer.channel(&node.grpc, identity, &name, &config.timings)
    });
    let channels = channels.collect::<Result<Vec<_>, _>>()?;
    loop {
        for channel in &channels {
            let mut client = replication_client(channel.clone());
            let asked_at = clock.wall();
            let request = BootRequest { caller: config.local.caller() };
            let answer = call(BOOT_DEADLINE, request, |request| async move { client.boot(request).await }).await;
            if let Ok(reply) = answer {
                let offset_ms = offset_ms(asked_at, clock.wall(), Timestamp::from_raw(reply.wall));
                return Ok((reply, judges.then_some(offset_ms)));
            }
        }
        tokio::time::sleep(ASK_PAUSE).await;
    }
}

/// The peer read its clock somewhere between our two readings: the middle is off by half of the exchange at most.
fn offset_ms(asked_at: Timestamp, answered_at: Timestamp, theirs: Timestamp) -> i64 {
    let middle = asked_at.unix_ms().midpoint(answered_at.unix_ms());
    theirs.unix_ms() as i64 - middle as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exchange_itself_makes_no_offset() {
        let at = |ms: u64| Timestamp::from_unix_ms(1_800_000_000_000 + ms);
        assert_eq!(offset_ms(at(0), at(400), at(200)), 0);
        assert_eq!(offset_ms(at(0), at(10), at(57_005)), 57_000);
        assert_eq!(offset_ms(at(5_000), at(5_000), at(0)), -5_000);
    }

    #[test]
    fn a_boot_that_somebody_remembers_already_is_one_of_a_disk_that_went_back() {
        let reply = |remembered_boot_counter, remembered_incarnation| BootReply {
            remembered_boot_counter,
            remembered_incarnation,
            ..BootReply::default()
        };
        let mut heard = Heard::default();
        heard.add(&reply(0, 0));
        assert_eq!((heard.went_back(1), heard.remembered), (None, None), "nobody knows it");
        heard.add(&reply(5, 0));
        heard.add(&reply(4, 2));
        let remembered = RememberedBoot { boot_counter: 5, incarnation: Incarnation(2) };
        assert_eq!(heard.went_back(6), None);
        assert_eq!(heard.went_back(5), Some(remembered), "it was this node once, with a later disk");
        assert_eq!(heard.went_back(2), Some(remembered));
    }
}
