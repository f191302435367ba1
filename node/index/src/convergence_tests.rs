//! Several datacenters write, delete, retry, close, and exchange their logs in random batches: late, doubled, with gaps,
//! through relays. A model that remembers every mutation says what must hold at each step and in the end.
//!
//! A failure prints its seed; `run(seed)` repeats it.

use std::collections::{BTreeMap, BTreeSet};

use meridian_replicator::{Batch, Cursor};
use meridian_types::{Incarnation, Stamp, Timestamp};

use crate::testing::{BUCKET, Group, delete, key, put, put_if, stamp};
use crate::{
    Command, Condition, ConflictRow, Outcome, Proposal, ReclaimRow, RemoteOutcome, Response, VersionKind, queries,
};

const KEYS: [&str; 4] = ["a", "a/b", "a\u{1}", "\u{10ffff}"];
const STEPS: usize = 160;
const SEEDS: u64 = 120;
/// Steps until everything has been exchanged; more means that a stream is stuck.
const ROUNDS_TO_HEAL_MAX: usize = 400;

/// splitmix64: a generator that is the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// A mutation that happened, and what its datacenter had applied before it.
struct Happened {
    key: &'static str,
    is_delete: bool,
    knew: BTreeSet<Stamp>,
}

struct World {
    seed: u64,
    random: Random,
    groups: Vec<Group>,
    happened: BTreeMap<Stamp, Happened>,
    /// What each group has applied, own and others'.
    applied: Vec<BTreeSet<Stamp>>,
    /// The stamp that each group last showed for a key.
    shown: BTreeMap<(usize, &'static str), Stamp>,
    proposed: Vec<(usize, Proposal, Outcome)>,
    /// Batches on their way, with their destination.
    sent: Vec<(usize, Batch)>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let count = 2 + random.below(3);
        let groups: Vec<Group> = (1..=count as u8).map(Group::new).collect();
        let applied = vec![BTreeSet::new(); count];
        let (happened, shown, proposed, sent) = (BTreeMap::new(), BTreeMap::new(), Vec::new(), Vec::new());
        Self { seed, random, groups, happened, applied, shown, proposed, sent }
    }

    fn id(group: usize) -> u8 {
        group as u8 + 1
    }

    fn step(&mut self) {
        let group = self.random.below(self.groups.len());
        match self.random.below(100) {
            0..=39 => self.write(group),
            40..=44 => self.retry(),
            45..=49 => {
                let at = Timestamp::from_raw(self.groups[group].greatest().raw() + self.random.below(8) as u64);
                let Response::Closed(closed) = self.groups[group].apply(&Command::Close(at)) else { panic!() };
                assert!(closed >= at, "seed {}", self.seed);
            }
            50..=51 => {
                let to = Incarnation(self.random.below(4) as u32);
                self.groups[group].apply(&Command::RaiseIncarnation { to });
            }
            52..=74 => self.send(group),
            _ => self.receive(),
        }
        self.check_shown();
    }

    fn write(&mut self, group: usize) {
        let text = KEYS[self.random.below(KEYS.len())];
        let number = self.random.below(1000) as u64;
        let operation = match self.random.below(10) {
            0..=3 => delete(text),
            4 => put_if(text, number, Condition::Absent),
            _ => put(text, number),
        };
        let mut proposal = self.groups[group].proposal(operation);
        let skew = self.random.below(12) as u64;
        let raw = (proposal.stamp.timestamp.raw() + skew).saturating_sub(3).max(1); // some are stale
        proposal.stamp = stamp(raw, Self::id(group));
        let greatest = self.groups[group].greatest();
        let outcome = self.groups[group].submit(proposal.clone());
        let is_stale = proposal.stamp.timestamp <= greatest;
        assert_eq!(is_stale, matches!(outcome, Outcome::Restamp { .. }), "seed {}", self.seed);
        match outcome {
            Outcome::Stored { stamp, .. } => self.note(group, stamp, text, false),
            Outcome::Deleted { stamp, .. } => self.note(group, stamp, text, true),
            Outcome::PreconditionFailed => assert!(self.groups[group].object(text).is_some(), "seed {}", self.seed),
            Outcome::Restamp { .. } => return,
            other => panic!("seed {}: {other:?}", self.seed),
        }
        self.proposed.push((group, proposal, outcome));
    }

    fn note(&mut self, group: usize, stamp: Stamp, key: &'static str, is_delete: bool) {
        let knew = self.applied[group].clone();
        let before = self.happened.insert(stamp, Happened { key, is_delete, knew });
        assert!(before.is_none(), "seed {}: two mutations at {stamp}", self.seed);
        self.applied[group].insert(stamp);
    }

    fn retry(&mut self) {
        if self.proposed.is_empty() {
            return;
        }
        let index = self.random.below(self.proposed.len());
        let (group, mut proposal, outcome) = self.proposed[index].clone();
        if self.random.chance(50) {
            proposal.stamp.timestamp = self.groups[group].greatest().next();
        }
        let before = self.groups[group].kv.clone();
        assert_eq!(self.groups[group].submit(proposal), outcome, "seed {}", self.seed);
        assert_eq!(self.groups[group].kv, before, "seed {}: a retry changed something", self.seed);
    }

    /// A source sends what it has of an origin's log behind a cursor that the destination has, had, or never had.
    fn send(&mut self, source: usize) {
        let to = self.random.below(self.groups.len());
        let origin = self.random.below(self.groups.len());
        if to == source || to == origin {
            return;
        }
        let cursor = match self.random.below(10) {
            0 => Cursor::start(self.groups[origin].machine.datacenter),
            1 => self.groups[self.random.below(self.groups.len())].cursor(Self::id(origin)),
            _ => self.groups[to].cursor(Self::id(origin)),
        };
        let entries_max = 1 + self.random.below(6);
        let batch = self.groups[source].batch(&cursor, entries_max);
        if self.random.chance(20) {
            self.sent.push((to, batch.clone()));
        }
        self.sent.push((to, batch));
    }

    fn receive(&mut self) {
        if self.sent.is_empty() {
            return;
        }
        let index = self.random.below(self.sent.len());
        let (to, batch) = self.sent.swap_remove(index);
        self.deliver(to, batch);
    }

    fn deliver(&mut self, to: usize, batch: Batch) {
        let origin = batch.after.origin;
        let before = self.groups[to].cursor(origin.get());
        let follows = batch.after == before.position;
        match self.groups[to].deliver(batch) {
            RemoteOutcome::Applied(cursor) => {
                assert!(follows, "seed {}: applied a batch that does not follow", self.seed);
                assert_eq!(cursor, self.groups[to].cursor(origin.get()), "seed {}", self.seed);
                assert!(cursor.applied_through >= before.applied_through, "seed {}", self.seed);
                let own = self.own_log(origin.get());
                let reached = cursor.position.sequence.0 as usize;
                self.applied[to].extend(&own[..reached]);
                let due = self.happened.keys().filter(|stamp| stamp.datacenter == origin);
                for stamp in due.filter(|stamp| stamp.timestamp <= cursor.applied_through) {
                    assert!(self.applied[to].contains(stamp), "seed {}: W_meta covers {stamp}", self.seed);
                }
            }
            RemoteOutcome::Ignored(cursor) => assert_eq!((cursor, follows), (before, false), "seed {}", self.seed),
            RemoteOutcome::Rejected { reason, .. } => panic!("seed {}: {reason}", self.seed),
        }
    }

    /// The stamps of a datacenter's mutations, which are in the order of its log.
    fn own_log(&self, datacenter: u8) -> Vec<Stamp> {
        self.happened.keys().copied().filter(|stamp| stamp.datacenter.get() == datacenter).collect()
    }

    /// Each group shows, for each key, the greatest of what it has applied, and never goes back: so no delete that was
    /// shown is undone (C4).
    fn check_shown(&mut self) {
        for (index, group) in self.groups.iter().enumerate() {
            for text in KEYS {
                let greatest = self.applied[index].iter().rev().find(|stamp| self.happened[stamp].key == text);
                let row = group.row(text);
                assert_eq!(row.as_ref().map(|row| row.stamp), greatest.copied(), "seed {}", self.seed);
                let Some(row) = row else { continue };
                let is_delete = self.happened[&row.stamp].is_delete;
                assert_eq!(row.kind == VersionKind::Tombstone, is_delete, "seed {}", self.seed);
                assert_eq!(group.object(text).is_some(), !is_delete, "seed {}", self.seed);
                let before = self.shown.insert((index, text), row.stamp);
                assert!(before <= Some(row.stamp), "seed {}: {text:?} went back", self.seed);
            }
        }
    }

    /// Exchanges everything, then compares all groups with each other and with the model.
    fn heal(&mut self) {
        let mut rounds = 0;
        loop {
            let mut moved = false;
            for (to, origin) in pairs(self.groups.len()) {
                let cursor = self.groups[to].cursor(Self::id(origin));
                let batch = self.groups[origin].batch(&cursor, 1 + self.random.below(5));
                moved |= !batch.entries.is_empty();
                self.deliver(to, batch);
            }
            rounds += 1;
            assert!(rounds < ROUNDS_TO_HEAL_MAX, "seed {}: does not converge", self.seed);
            if !moved {
                break;
            }
        }
        self.check_shown();
        let everything: BTreeSet<Stamp> = self.happened.keys().copied().collect();
        for (group, applied) in self.groups.iter().zip(&self.applied) {
            assert_eq!(applied, &everything, "seed {}", self.seed);
            assert_eq!(group.rows_of(b'o'), self.groups[0].rows_of(b'o'), "seed {}: rows differ", self.seed);
            assert_eq!(group.rows_of(b'l'), self.groups[0].rows_of(b'l'), "seed {}: logs differ", self.seed);
            self.check_superseded(group);
            self.check_conflicts(group);
        }
    }

    /// Whatever is not current is in the reclaim queue, whole, under a stamp that superseded it (rule 14).
    fn check_superseded(&self, group: &Group) {
        let queue = queries::superseded(&group.kv, Timestamp::MAX, usize::MAX).unwrap();
        let mut queued = BTreeSet::new();
        for found in queue {
            let ReclaimRow::Version(version) = found.row else { panic!("seed {}", self.seed) };
            assert!(found.superseding > version.stamp, "seed {}", self.seed);
            assert_eq!(found.key, key(self.happened[&version.stamp].key), "seed {}", self.seed);
            assert_eq!(self.happened[&found.superseding].key, self.happened[&version.stamp].key, "seed {}", self.seed);
            assert!(queued.insert(version.stamp), "seed {}: {} queued twice", self.seed, version.stamp);
        }
        for (stamp, happened) in &self.happened {
            let is_current = group.row(happened.key).is_some_and(|row| row.stamp == *stamp);
            assert!(!(is_current && queued.contains(stamp)), "seed {}: {stamp} is current", self.seed);
            let must = !is_current && !happened.is_delete;
            assert!(!must || queued.contains(stamp), "seed {}: {stamp} is lost", self.seed);
        }
    }

    /// A recorded loser was unknown to the winner and the other way round (rule 16); and where two datacenters wrote
    /// once each to a key without knowing of each other, the loser is recorded.
    fn check_conflicts(&self, group: &Group) {
        let mut recorded = BTreeSet::new();
        for conflict in queries::conflicts(&group.kv, None, usize::MAX).unwrap() {
            let ConflictRow::Object { bucket, key: lost_key, winner, loser, .. } = conflict else {
                panic!("seed {}", self.seed)
            };
            let (won, lost) = (&self.happened[&winner], &self.happened[&loser]);
            assert_eq!((bucket, lost_key), (BUCKET, key(lost.key)), "seed {}", self.seed);
            assert!(winner > loser && won.key == lost.key, "seed {}", self.seed);
            assert!(!won.knew.contains(&loser) && !lost.knew.contains(&winner), "seed {}: no conflict", self.seed);
            recorded.insert(loser);
        }
        for text in KEYS {
            let writes: Vec<_> = self.happened.iter().filter(|(_, happened)| happened.key == text).collect();
            if let [(first, lost), (second, won)] = writes[..] {
                let deletes = lost.is_delete && won.is_delete;
                let concurrent = first.datacenter != second.datacenter && !won.knew.contains(first) && !deletes;
                assert_eq!(recorded.contains(first), concurrent, "seed {}: {text:?}", self.seed);
            }
        }
    }
}

fn pairs(count: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..count).flat_map(move |to| (0..count).map(move |origin| (to, origin))).filter(|(to, origin)| to != origin)
}

fn run(seed: u64, steps: usize) -> World {
    let mut world = World::new(seed);
    for _ in 0..steps {
        world.step();
    }
    world.heal();
    world
}

#[test]
fn datacenters_that_exchange_their_logs_in_any_order_converge_to_the_greatest_stamps() {
    let mut conflicts = 0;
    for seed in 0..SEEDS {
        let world = run(seed, STEPS);
        conflicts += world.groups[0].rows_of(b'k').len();
    }
    assert!(conflicts > 100, "the runs must meet conflicts to say anything about them: {conflicts}");
}

#[test]
fn short_histories_record_exactly_their_concurrent_losers() {
    let mut conflicts = 0;
    for seed in 10_000..10_000 + 20 * SEEDS {
        conflicts += run(seed, 12).groups[0].rows_of(b'k').len();
    }
    assert!(conflicts > 100, "{conflicts}");
}

#[test]
fn one_seed_gives_one_history() {
    let (first, second) = (run(7, STEPS), run(7, STEPS));
    for (a, b) in first.groups.iter().zip(&second.groups) {
        assert_eq!(a.kv, b.kv);
    }
}
