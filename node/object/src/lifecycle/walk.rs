//! The walk over the versions of keys, as a listing gives them: by key, and within a key the newest first. It decides about
//! each version once it knows its neighbours, over the borders of pages.
//!
//! Invariants: depends on nothing but what it is shown and the clock it is given; a lone delete marker goes only when
//! every datacenter has all that is older, because an older version that is still under way would come back.

use meridian_index::VersionId;
use meridian_types::{DatacenterId, Stamp, Timestamp};

use super::{LifecycleRule, at, due_unix_ms};

/// What time it is, and for whom.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    pub now_unix_ms: u64,
    pub day_ms: u64,
    /// How long another datacenter's version must be overdue.
    pub grace_ms: u64,
    pub own: DatacenterId,
    /// Everything stamped at or below it is everywhere.
    pub everywhere: Timestamp,
}

impl Clock {
    /// Whether this datacenter ends a version now that is due at `due_unix_ms`.
    fn is_due(&self, stamp: Stamp, due_unix_ms: u64) -> bool {
        let grace_ms = if stamp.datacenter == self.own { 0 } else { self.grace_ms };
        self.now_unix_ms >= due_unix_ms.saturating_add(grace_ms)
    }
}

/// One version that the listing shows.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub key: String,
    pub stamp: Stamp,
    pub version: VersionId,
    pub is_latest: bool,
    /// Size in bytes and tags; `None` for a delete marker.
    pub object: Option<(u64, Vec<(String, String)>)>,
}

/// What to do about a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Delete the current version, as a client would.
    Expire { key: String, stamp: Stamp },
    /// Remove a version for good.
    Remove { key: String, version: VersionId, stamp: Stamp },
}

/// Where the walk stands.
#[derive(Debug, Default)]
pub(crate) struct KeyWalk {
    key: String,
    /// When the version before this one, of the same key, was written: since then this one is not current.
    newer_unix_ms: Option<u64>,
    /// Noncurrent versions of the key so far.
    noncurrent: u32,
    /// The current version is a delete marker that goes if nothing follows it.
    lone: Option<Action>,
}

impl KeyWalk {
    /// Takes the next version, and tells what is to be done by what is known now.
    pub fn visit(&mut self, seen: &Seen, rules: &[LifecycleRule], clock: &Clock, actions: &mut Vec<Action>) {
        if seen.key != self.key {
            self.end(actions);
            *self = Self { key: seen.key.clone(), ..Self::default() };
        }
        self.lone = None; // something follows it
        let newer_unix_ms = self.newer_unix_ms.replace(seen.stamp.timestamp.unix_ms());
        match (seen.is_latest, newer_unix_ms) {
            (true, _) => self.visit_current(seen, rules, clock, actions),
            (false, Some(since_unix_ms)) => {
                let place = self.noncurrent;
                self.noncurrent = self.noncurrent.saturating_add(1);
                if rules.iter().any(|rule| is_noncurrent_due(rule, seen, since_unix_ms, place, clock)) {
                    let (key, version, stamp) = (seen.key.clone(), seen.version, seen.stamp);
                    actions.push(Action::Remove { key, version, stamp });
                }
            }
            // The walk began in the middle of a key: since when it is noncurrent is not known.
            (false, None) => self.noncurrent = self.noncurrent.saturating_add(1),
        }
    }

    /// Nothing follows.
    pub fn end(&mut self, actions: &mut Vec<Action>) {
        actions.extend(self.lone.take());
    }

    fn visit_current(&mut self, seen: &Seen, rules: &[LifecycleRule], clock: &Clock, actions: &mut Vec<Action>) {
        let written_unix_ms = seen.stamp.timestamp.unix_ms();
        let (key, version, stamp) = (seen.key.clone(), seen.version, seen.stamp);
        match &seen.object {
            Some((size, tags)) => {
                let is_due = |rule: &LifecycleRule| {
                    rule.filter.covers(&seen.key, *size, tags)
                        && rule.expiration.is_some_and(|it| clock.is_due(stamp, at(it, written_unix_ms, clock.day_ms)))
                };
                if rules.iter().any(is_due) {
                    actions.push(Action::Expire { key, stamp });
                }
            }
            None => {
                let is_due = |rule: &LifecycleRule| {
                    let covers = seen.key.starts_with(&rule.filter.prefix) && !rule.filter.asks_of_objects();
                    let by_age = rule.expiration.map(|expiry| at(expiry, written_unix_ms, clock.day_ms));
                    let due = if rule.lone_markers { Some(written_unix_ms) } else { by_age };
                    covers && due.is_some_and(|due| clock.is_due(stamp, due))
                };
                if stamp.timestamp <= clock.everywhere && rules.iter().any(is_due) {
                    self.lone = Some(Action::Remove { key, version, stamp });
                }
            }
        }
    }
}

/// `place`: how many newer noncurrent versions there are.
fn is_noncurrent_due(rule: &LifecycleRule, seen: &Seen, since_unix_ms: u64, place: u32, clock: &Clock) -> bool {
    let Some(noncurrent) = rule.noncurrent else { return false };
    let covers = match &seen.object {
        Some((size, tags)) => rule.filter.covers(&seen.key, *size, tags),
        None => seen.key.starts_with(&rule.filter.prefix) && !rule.filter.asks_of_objects(),
    };
    let due = due_unix_ms(since_unix_ms, noncurrent.days, clock.day_ms);
    covers && place >= noncurrent.keep && clock.is_due(seen.stamp, due)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::{Expiry, LifecycleFilter, NoncurrentExpiry};

    const DAY: u64 = 1000;

    fn stamp(days: u64, datacenter: u8) -> Stamp {
        Stamp::new(Timestamp::from_unix_ms(BASE + days * DAY), DatacenterId::new(datacenter).unwrap())
    }

    /// A time that stamps can have.
    const BASE: u64 = 1_800_000_000_000;

    fn clock(days: u64) -> Clock {
        let everywhere = Timestamp::from_unix_ms(BASE + days * DAY);
        let own = DatacenterId::new(1).unwrap();
        Clock { now_unix_ms: BASE + days * DAY, day_ms: DAY, grace_ms: 3 * DAY, own, everywhere }
    }

    fn object(key: &str, stamp: Stamp, is_latest: bool) -> Seen {
        Seen { key: key.to_owned(), stamp, version: VersionId::Stamp(stamp), is_latest, object: Some((5, Vec::new())) }
    }

    fn marker(key: &str, stamp: Stamp, is_latest: bool) -> Seen {
        Seen { object: None, ..object(key, stamp, is_latest) }
    }

    fn walk(versions: &[Seen], rule: &LifecycleRule, clock: Clock) -> Vec<String> {
        let (mut walk, mut actions) = (KeyWalk::default(), Vec::new());
        for seen in versions {
            walk.visit(seen, std::slice::from_ref(rule), &clock, &mut actions);
        }
        walk.end(&mut actions);
        let told = |action: &Action| match action {
            Action::Expire { key, .. } => format!("expire {key}"),
            Action::Remove { key, stamp, .. } => {
                format!("remove {key} {}", (stamp.timestamp.unix_ms() - BASE) / DAY)
            }
        };
        actions.iter().map(told).collect()
    }

    fn expiring(days: u32) -> LifecycleRule {
        LifecycleRule { expiration: Some(Expiry::Days(days)), ..LifecycleRule::default() }
    }

    #[test]
    fn a_current_version_expires_when_it_is_due_and_not_before() {
        let versions = [object("a", stamp(1, 1), true), object("b", stamp(3, 1), true)];
        assert!(walk(&versions, &expiring(2), clock(2)).is_empty());
        assert_eq!(walk(&versions, &expiring(2), clock(3)), ["expire a"]);
        let prefixed = LifecycleRule {
            filter: LifecycleFilter { prefix: "b".to_owned(), ..LifecycleFilter::default() },
            ..expiring(2)
        };
        assert_eq!(walk(&versions, &prefixed, clock(9)), ["expire b"]);
    }

    #[test]
    fn another_datacenters_version_must_be_overdue() {
        let versions = [object("a", stamp(1, 2), true)];
        assert!(walk(&versions, &expiring(2), clock(5)).is_empty());
        assert_eq!(walk(&versions, &expiring(2), clock(6)), ["expire a"]);
    }

    #[test]
    fn noncurrent_versions_age_from_their_successor_and_the_newest_are_kept() {
        let versions = [
            object("a", stamp(9, 1), true),
            object("a", stamp(8, 1), false),
            marker("a", stamp(4, 1), false),
            object("a", stamp(1, 1), false),
        ];
        let rule = |days, keep| LifecycleRule {
            noncurrent: Some(NoncurrentExpiry { days, keep }),
            ..LifecycleRule::default()
        };
        assert_eq!(walk(&versions, &rule(2, 0), clock(10)), ["remove a 4", "remove a 1"]);
        assert_eq!(walk(&versions, &rule(2, 2), clock(10)), ["remove a 1"]);
        assert_eq!(walk(&versions, &rule(2, 0), clock(11)), ["remove a 8", "remove a 4", "remove a 1"]);
    }

    #[test]
    fn a_lone_marker_goes_and_one_with_versions_behind_it_stays() {
        let lone = LifecycleRule { lone_markers: true, ..LifecycleRule::default() };
        let versions =
            [marker("a", stamp(2, 1), true), marker("b", stamp(2, 1), true), object("b", stamp(1, 1), false)];
        assert_eq!(walk(&versions, &lone, clock(3)), ["remove a 2"]);
        assert_eq!(walk(&versions, &expiring(2), clock(4)), ["remove a 2"], "by age too");
        assert!(walk(&versions, &expiring(2), clock(3)).is_empty());
        let behind = Clock { everywhere: Timestamp::from_unix_ms(BASE + DAY), ..clock(3) };
        assert!(walk(&versions, &lone, behind).is_empty(), "an older version may be under way");
    }

    #[test]
    fn a_walk_that_begins_inside_a_key_waits_for_the_next_neighbour() {
        let versions = [object("a", stamp(4, 1), false), object("a", stamp(1, 1), false)];
        let rule =
            LifecycleRule { noncurrent: Some(NoncurrentExpiry { days: 1, keep: 0 }), ..LifecycleRule::default() };
        assert_eq!(walk(&versions, &rule, clock(9)), ["remove a 1"]);
    }
}
