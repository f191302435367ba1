//! The concurrent writes that lost, as all datacenters saw them lose: the same list from every region.
//!
//! A loser is recorded where it meets its winner, which is not everywhere: a datacenter that gets the two in one batch, or
//! the winner alone, has nothing to record. So every member is asked, and who can't be is named.
//!
//! Invariants: oldest first by the loser's stamp; of several records of one loser the one with the greatest winner is
//! shown, so that the answer does not depend on who is asked.

use std::collections::BTreeMap;

use futures::future::join_all;
use meridian_types::{Stamp, Timestamp};
use meridian_wire::replication::{Conflict as ConflictMessage, ConflictsReply, ConflictsRequest};
use meridian_wire::{call, fields};

use crate::ReplicationError;
use crate::conflicts::{CONFLICTS_PAGE_MAX, Conflict, ConflictPage, ConflictQuery, WrittenAt, token_of};
use crate::driver::Replication;
use crate::error::reason_of;

/// A loser, and what it lost: its stamp, the bucket, the key, the kind.
type Place = (Stamp, String, String, String);

/// A conflict with the stamps of its loser and its winner.
type Stamped = (Stamp, Stamp, Conflict);

/// The conflicts of some datacenters, put together.
#[derive(Default)]
struct Merged {
    found: BTreeMap<Place, (Stamp, Conflict)>,
    /// No datacenter has told of losers behind the least of these.
    told_through: Option<Stamp>,
}

impl Merged {
    /// `more`: the datacenter has more behind its last one.
    fn add(&mut self, conflicts: Vec<Stamped>, more: bool) {
        if let Some((last, ..)) = conflicts.last().filter(|_| more) {
            self.told_through = Some(self.told_through.map_or(*last, |through| through.min(*last)));
        }
        for (loser, winner, conflict) in conflicts {
            let place = (loser, conflict.bucket.clone(), conflict.key.clone(), conflict.lost.clone());
            match self.found.get(&place) {
                Some((known, _)) if *known >= winner => {}
                _ => drop(self.found.insert(place, (winner, conflict))),
            }
        }
    }

    /// Up to `limit` of them, and where to go on. One loser's conflicts are never split, so that none is passed over.
    fn page(self, limit: usize) -> (Vec<Conflict>, Option<String>) {
        let (mut page, mut last) = (Vec::new(), None);
        for ((loser, ..), (_, conflict)) in self.found {
            let is_beyond = self.told_through.is_some_and(|through| loser > through);
            if is_beyond || (page.len() >= limit && last != Some(loser)) {
                return (page, last.map(token_of));
            }
            page.push(conflict);
            last = Some(loser);
        }
        (page, self.told_through.and(last).map(token_of))
    }
}

impl Replication {
    /// A page of the losers that any datacenter has recorded, oldest first.
    ///
    /// # Errors
    /// An unknown bucket, a token that is none, or a partition here that can't be read. A datacenter that can't be asked is
    /// named in the answer.
    pub async fn conflicts(&self, query: &ConflictQuery) -> Result<ConflictPage, ReplicationError> {
        let limit = query.limit.clamp(1, CONFLICTS_PAGE_MAX);
        let asked = self.inner.sources.values().map(|source| async move {
            let request = ConflictsRequest {
                caller: self.inner.config.local.caller(),
                bucket: query.bucket.as_ref().map_or(String::new(), ToString::to_string),
                since_ms: query.since_ms.unwrap_or(0),
                after: query.after.clone().unwrap_or_default(),
                limit: limit as u32,
            };
            let mut client = source.client();
            let deadline = self.inner.config.limits.call_deadline;
            let reply = call(deadline, request, |request| async move { client.conflicts(request).await }).await;
            (source, reply)
        });
        let (own, others) = futures::join!(self.own_conflicts(query), join_all(asked));
        let (own, mut merged, mut not_asked) = (own?, Merged::default(), Vec::new());
        let stamped = own
            .conflicts
            .into_iter()
            .filter_map(|conflict| Some((self.stamp_of(&conflict.loser)?, self.stamp_of(&conflict.winner)?, conflict)));
        merged.add(stamped.collect(), own.next.is_some());
        for (source, reply) in others {
            let told = reply.map_err(|status| reason_of(&status)).and_then(|reply| self.told(reply));
            match told {
                Ok((conflicts, more)) => merged.add(conflicts, more),
                Err(reason) => {
                    tracing::debug!(datacenter = %source.peer.name, reason, "a datacenter does not tell its conflicts");
                    not_asked.push(source.peer.name.to_string());
                }
            }
        }
        let (conflicts, next) = merged.page(limit);
        Ok(ConflictPage { conflicts, next, not_asked })
    }

    /// What a peer is told of this datacenter's records.
    pub(crate) async fn told_conflicts(&self, query: &ConflictQuery) -> Result<ConflictsReply, ReplicationError> {
        let page = match self.own_conflicts(query).await {
            // Created elsewhere a moment ago: nothing can have been lost in it here.
            Err(ReplicationError::NoSuchBucket { .. }) => return Ok(ConflictsReply::default()),
            page => page?,
        };
        let message = |conflict: Conflict| {
            let (loser, winner) = (self.stamp_of(&conflict.loser)?, self.stamp_of(&conflict.winner)?);
            Some(ConflictMessage {
                bucket: conflict.bucket,
                key: conflict.key,
                lost: conflict.lost,
                lost_size: conflict.lost_size,
                lost_etag: conflict.lost_etag,
                loser: loser.timestamp.raw(),
                loser_datacenter: u32::from(loser.datacenter.get()),
                winner: winner.timestamp.raw(),
                winner_datacenter: u32::from(winner.datacenter.get()),
            })
        };
        let more = page.next.is_some();
        Ok(ConflictsReply { conflicts: page.conflicts.into_iter().filter_map(message).collect(), more })
    }

    fn told(&self, reply: ConflictsReply) -> Result<(Vec<Stamped>, bool), String> {
        let stamp = |datacenter: u32, raw: u64| -> Result<Stamp, String> {
            let datacenter = fields::datacenter("datacenter", datacenter).map_err(|error| error.to_string())?;
            Ok(Stamp::new(Timestamp::from_raw(raw), datacenter))
        };
        let conflicts = reply.conflicts.into_iter().map(|told| -> Result<_, String> {
            let loser = stamp(told.loser_datacenter, told.loser)?;
            let winner = stamp(told.winner_datacenter, told.winner)?;
            let conflict = Conflict {
                bucket: told.bucket,
                key: told.key,
                lost: told.lost,
                lost_size: told.lost_size,
                lost_etag: told.lost_etag,
                loser: self.written_at(loser),
                winner: self.written_at(winner),
            };
            Ok((loser, winner, conflict))
        });
        Ok((conflicts.collect::<Result<Vec<_>, String>>()?, reply.more))
    }

    /// The stamp that was shown as `at`; None of a datacenter that is no member any more.
    fn stamp_of(&self, at: &WrittenAt) -> Option<Stamp> {
        let inner = &self.inner;
        let own = (inner.config.datacenter_name.to_string() == at.datacenter).then(|| inner.own());
        let other = || inner.sources.values().find(|source| source.peer.name.to_string() == at.datacenter);
        let datacenter = own.or_else(|| other().map(|source| source.id()))?;
        Some(Stamp::new(Timestamp::from_raw(at.timestamp), datacenter))
    }
}

#[cfg(test)]
mod tests {
    use meridian_types::DatacenterId;

    use super::*;

    fn stamp(raw: u64, datacenter: u8) -> Stamp {
        Stamp::new(Timestamp::from_raw(raw), DatacenterId::new(datacenter).unwrap())
    }

    fn lost(loser: u64, winner: u64, key: &str) -> Stamped {
        let at = |timestamp| WrittenAt { datacenter: "dc".to_owned(), at_ms: 0, timestamp };
        let conflict = Conflict {
            bucket: "photos".to_owned(),
            key: key.to_owned(),
            lost: "write".to_owned(),
            lost_size: None,
            lost_etag: None,
            loser: at(loser),
            winner: at(winner),
        };
        (stamp(loser, 1), stamp(winner, 2), conflict)
    }

    fn shown(page: &[Conflict]) -> Vec<(u64, u64)> {
        page.iter().map(|conflict| (conflict.loser.timestamp, conflict.winner.timestamp)).collect()
    }

    #[test]
    fn one_loser_is_shown_once_with_its_greatest_winner_whoever_told_it() {
        let mut merged = Merged::default();
        merged.add(vec![lost(5, 8, "a"), lost(7, 9, "b")], false);
        merged.add(vec![lost(5, 11, "a"), lost(6, 8, "c")], false);
        let (page, next) = merged.page(10);
        assert_eq!((shown(&page), next), (vec![(5, 11), (6, 8), (7, 9)], None));
    }

    #[test]
    fn a_page_ends_where_a_datacenter_has_not_told_more() {
        let mut merged = Merged::default();
        merged.add(vec![lost(5, 8, "a"), lost(6, 8, "b")], true);
        merged.add(vec![lost(9, 12, "c")], false);
        let (page, next) = merged.page(10);
        assert_eq!((shown(&page), next), (vec![(5, 8), (6, 8)], Some(token_of(stamp(6, 1)))));
        let mut merged = Merged::default();
        merged.add(vec![lost(5, 8, "a"), lost(5, 8, "b"), lost(6, 8, "c")], false);
        let (page, next) = merged.page(1);
        assert_eq!((shown(&page), next), (vec![(5, 8), (5, 8)], Some(token_of(stamp(5, 1)))), "one stamp is not split");
    }
}
