//! Stable times: what every member has, from every member (rules 14, 15).
//!
//! `W[s→d] ≥ T` says that all that `s` stamped at or below T is at `d`. The smallest such T over all ordered pairs of members
//! is a time below which no datacenter can bring anything new to another. It is computed from committed reports: a report
//! that is late is a lower bound, so the result may be too small and never too large. It fetches and stores nothing.
//!
//! ```text
//!   settled ≤ data, meta ≤ every report
//!      │        │     └ all have the mutations            (W_meta)
//!      │        └ all have the bytes that they mirror     (W_data): superseded bytes may go
//!      └ all have what anybody wrote before he had these  : tombstones and cursors of rows may go
//! ```
//!
//! Why `settled` and not `meta`: a write that is concurrent with a tombstone may carry a greater stamp, and so may still be
//! under way when all have the tombstone. Whether the two were concurrent is then read from the tombstone's row (rule 16). A
//! member that has applied the tombstone writes nothing more that is concurrent with it, so once stable-meta has passed all
//! that the members had stamped when they reported, nothing of the kind is left (docs/adr/0016).
//!
//! Invariants: the times only move forward; a member that has not reported counts as zero, also one that was just added; a
//! member that reports less than before is believed.

use std::collections::{BTreeMap, BTreeSet};

use meridian_types::{DatacenterId, Plant, Planted, Sound, Timestamp};
use serde::{Deserialize, Serialize};

/// What every member has. Zero: nothing is known yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StableTimes {
    /// All mutations stamped at or below it are visible everywhere.
    pub meta: Timestamp,
    /// And all bytes of them are durable wherever their code gives a datacenter a copy.
    pub data: Timestamp,
    /// And no mutation that is concurrent with one of them is still to arrive anywhere.
    pub settled: Timestamp,
}

impl StableTimes {
    /// The later of each.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            meta: self.meta.max(other.meta),
            data: self.data.max(other.data),
            settled: self.settled.max(other.settled),
        }
    }
}

/// What a member has of another one: its committed watermarks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceReport {
    pub source: DatacenterId,
    /// W_meta and W_data, `source` → the member that reports.
    pub meta: Timestamp,
    pub data: Timestamp,
}

/// What a member says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberReport {
    pub member: DatacenterId,
    /// Everything that it has committed by itself so far is stamped at or below it. Read after `sources`.
    pub stamped_through: Timestamp,
    pub sources: Vec<SourceReport>,
}

/// The stable times as one datacenter knows them.
#[derive(Debug, Clone)]
pub struct StableView<P: Plant = Sound> {
    plant: P,
    members: BTreeSet<DatacenterId>,
    reports: BTreeMap<DatacenterId, MemberReport>,
    times: StableTimes,
    /// Settled at the first timestamp once stable-meta has passed the second.
    settling: Option<(Timestamp, Timestamp)>,
}

impl StableView {
    /// Of a cluster of `members`, this datacenter among them; starts at `committed`.
    pub fn new(members: impl IntoIterator<Item = DatacenterId>, committed: StableTimes) -> Self {
        Self::planted(Sound, members, committed)
    }
}

impl<P: Plant> StableView<P> {
    /// `new`, with mistakes for a simulation to find.
    pub fn planted(plant: P, members: impl IntoIterator<Item = DatacenterId>, committed: StableTimes) -> Self {
        let members = members.into_iter().collect();
        Self { plant, members, reports: BTreeMap::new(), times: committed, settling: None }
    }

    /// A member joins: it has nothing, and so the times stand still until it has reported otherwise (rule 15).
    pub fn add_member(&mut self, member: DatacenterId) {
        if self.members.insert(member) {
            self.settling = None; // what it writes before it has heard of the others was not counted
        }
    }

    /// Takes a member's report; one of a datacenter that is no member is ignored.
    pub fn report(&mut self, report: MemberReport) {
        if !self.members.contains(&report.member) {
            return;
        }
        self.reports.insert(report.member, report);
        self.advance();
    }

    /// The times; they only move forward.
    pub fn times(&self) -> StableTimes {
        self.times
    }

    /// The pair that holds stable-meta, as (source, destination): whom the oldest tombstone is kept for. Of equals the
    /// first by destination. `None` of a cluster of one.
    pub fn held_by(&self) -> Option<(DatacenterId, DatacenterId)> {
        self.pairs().min_by_key(|(source, destination)| (self.pair(*source, *destination).0, *destination, *source))
    }

    fn pairs(&self) -> impl Iterator<Item = (DatacenterId, DatacenterId)> + '_ {
        let destinations = self.members.iter().copied();
        destinations
            .flat_map(|to| self.members.iter().copied().filter(move |from| *from != to).map(move |from| (from, to)))
    }

    /// W_meta and W_data of a pair, zero while its destination has not reported (rule 15).
    fn pair(&self, source: DatacenterId, destination: DatacenterId) -> (Timestamp, Timestamp) {
        let reported = self.reports.get(&destination);
        let known = reported.and_then(|report| report.sources.iter().find(|known| known.source == source));
        known.map_or((Timestamp::ZERO, Timestamp::ZERO), |known| (known.meta, known.data))
    }

    fn advance(&mut self) {
        let skips_silent = self.plant.has(Planted::SilentMemberIgnored);
        let counted = |(source, destination): &(DatacenterId, DatacenterId)| {
            !skips_silent || self.pair(*source, *destination).0 > Timestamp::ZERO
        };
        let (mut meta, mut data) = (Timestamp::MAX, Timestamp::MAX);
        for (source, destination) in self.pairs().filter(counted) {
            let pair = self.pair(source, destination);
            (meta, data) = (meta.min(pair.0), data.min(pair.1));
        }
        let stamped = self.reports.values().map(|report| report.stamped_through).max().unwrap_or(Timestamp::ZERO);
        // A member alone has all that there is.
        (meta, data) = (meta.min(stamped), data.min(stamped));
        self.times.meta = self.times.meta.max(meta);
        self.times.data = self.times.data.max(data);
        if let Some((settled, _)) = self.settling.filter(|(_, passed)| self.times.meta >= *passed) {
            self.times.settled = self.times.settled.max(settled);
            self.settling = None;
        }
        if self.settling.is_none() && meta > self.times.settled {
            self.settling = Some((meta, stamped));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert, proptest};

    use super::*;

    fn dc(id: u8) -> DatacenterId {
        DatacenterId::new(id).unwrap()
    }

    fn time(raw: u64) -> Timestamp {
        Timestamp::from_raw(raw)
    }

    /// `sources`: (source, W_meta, W_data).
    fn report(member: u8, stamped_through: u64, sources: &[(u8, u64, u64)]) -> MemberReport {
        let sources = sources.iter().map(|(source, meta, data)| SourceReport {
            source: dc(*source),
            meta: time(*meta),
            data: time(*data),
        });
        MemberReport { member: dc(member), stamped_through: time(stamped_through), sources: sources.collect() }
    }

    fn three() -> StableView {
        StableView::new([dc(1), dc(2), dc(3)], StableTimes::default())
    }

    #[test]
    fn the_times_are_the_minimum_over_all_ordered_pairs() {
        let mut view = three();
        view.report(report(1, 99, &[(2, 50, 40), (3, 60, 30)]));
        view.report(report(2, 99, &[(1, 70, 70), (3, 45, 45)]));
        assert_eq!(view.times(), StableTimes::default(), "datacenter 3 has not reported");
        view.report(report(3, 99, &[(1, 80, 20), (2, 90, 90)]));
        assert_eq!((view.times().meta, view.times().data), (time(45), time(20)));
        assert_eq!(view.held_by(), Some((dc(3), dc(2))));
    }

    #[test]
    fn a_silent_or_unknown_source_counts_as_zero_and_a_stranger_does_not_count() {
        let mut view = three();
        view.report(report(1, 99, &[(2, 50, 50), (3, 50, 50)]));
        view.report(report(2, 99, &[(1, 50, 50)])); // says nothing of 3
        view.report(report(3, 99, &[(1, 50, 50), (2, 50, 50)]));
        assert_eq!(view.times(), StableTimes::default());
        view.report(report(2, 99, &[(1, 50, 50), (3, 50, 50)]));
        view.report(report(9, 99, &[(1, 1, 1)]));
        assert_eq!(view.times().meta, time(50));
    }

    #[test]
    fn what_is_concurrent_with_a_stable_write_has_arrived_before_it_settles() {
        let mut view = three();
        let all = |view: &mut StableView, stamped, through| {
            for (member, others) in [(1, [2, 3]), (2, [1, 3]), (3, [1, 2])] {
                view.report(report(member, stamped, &others.map(|other| (other, through, through))));
            }
        };
        all(&mut view, 120, 50);
        assert_eq!((view.times().meta, view.times().settled), (time(50), Timestamp::ZERO));
        all(&mut view, 200, 119);
        assert_eq!(view.times().settled, Timestamp::ZERO, "a write stamped 120 may be under way");
        all(&mut view, 220, 120);
        assert_eq!(view.times().settled, time(50));
    }

    #[test]
    fn a_new_member_holds_the_times_until_it_has_caught_up() {
        let mut view = StableView::new([dc(1), dc(2)], StableTimes::default());
        view.report(report(1, 90, &[(2, 50, 50)]));
        view.report(report(2, 90, &[(1, 50, 50)]));
        assert_eq!(view.times().meta, time(50));
        view.add_member(dc(3));
        view.report(report(1, 190, &[(2, 90, 90), (3, 90, 90)]));
        view.report(report(2, 190, &[(1, 90, 90), (3, 90, 90)]));
        assert_eq!(view.times().meta, time(50));
        view.report(report(3, 190, &[(1, 80, 80), (2, 90, 90)]));
        assert_eq!(view.times().meta, time(80));
    }

    #[test]
    fn a_member_alone_is_stable_in_all_that_it_has_stamped() {
        let mut view = StableView::new([dc(1)], StableTimes::default());
        view.report(report(1, 7, &[]));
        assert_eq!((view.times().meta, view.held_by()), (time(7), None));
    }

    proptest! {
        #[test]
        fn the_times_never_pass_a_pair_and_never_go_back(
            reports in prop::collection::vec((1u8..4, 0u64..50, any::<[u8; 4]>()), 1..40),
        ) {
            let mut view = three();
            let mut before = StableTimes::default();
            let mut best = BTreeMap::new();
            for (member, stamped, figures) in reports {
                let others: Vec<u8> = (1..4).filter(|other| *other != member).collect();
                let sources = [(others[0], u64::from(figures[0]), u64::from(figures[1].min(figures[0]))),
                    (others[1], u64::from(figures[2]), u64::from(figures[3].min(figures[2])))];
                for (source, meta, _) in sources {
                    let known = best.entry((source, member)).or_insert(0);
                    *known = meta.max(*known);
                }
                view.report(report(member, 255 + stamped, &sources));
                let now = view.times();
                prop_assert!(now.meta >= before.meta && now.data >= before.data && now.settled >= before.settled);
                prop_assert!(now.data <= now.meta && now.settled <= now.meta);
                for (source, destination) in [(1, 2), (1, 3), (2, 1), (2, 3), (3, 1), (3, 2)] {
                    let known = best.get(&(source, destination)).copied().unwrap_or(0);
                    prop_assert!(now.meta <= time(known));
                }
                before = now;
            }
        }
    }
}
