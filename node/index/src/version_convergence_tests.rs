//! Versioned, suspended and unversioned writes, removals, tags and locks in several datacenters that exchange their logs
//! late and in pieces: in the end all hold the same rows, and these are what a model says.
//!
//! A failure prints its seed; `run(seed)` repeats it.

use std::collections::{BTreeMap, BTreeSet};

use meridian_types::Stamp;

use crate::testing::{BUCKET, Group, annotate, delete, delete_in, key, put, put_in, remove};
use crate::{
    Change, Outcome, Retention, RetentionMode, VersionId, VersionKind, VersionListQuery, VersionMode, list_versions,
    queries,
};

const KEYS: [&str; 2] = ["a", "a/b"];
const SEEDS: u64 = 150;
const STEPS: usize = 120;

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
}

#[derive(Default)]
struct Model {
    /// Versions with ids of their own.
    written: BTreeSet<(&'static str, Stamp)>,
    removed: BTreeSet<(&'static str, Stamp)>,
    /// The last write or delete of each null version.
    null: BTreeMap<&'static str, Stamp>,
    /// The last tags of each write.
    tags: BTreeMap<(&'static str, Stamp), (Stamp, u64)>,
    /// The latest date promised for each write.
    compliance: BTreeMap<(&'static str, Stamp), u64>,
}

fn live_versions(group: &Group, text: &str) -> Vec<(VersionId, bool)> {
    let query = VersionListQuery { limit: usize::MAX, ..VersionListQuery::default() };
    let page = list_versions(&group.kv, BUCKET, &query).unwrap();
    let of_key = page.versions.into_iter().filter(|listed| listed.key.as_str() == text);
    of_key.map(|listed| (listed.row.version, listed.row.kind.is_visible())).collect()
}

fn step(group: &mut Group, model: &mut Model, random: &mut Random, number: u64) {
    let text = KEYS[random.below(KEYS.len())];
    let live = live_versions(group, text);
    let chosen = (!live.is_empty()).then(|| live[random.below(live.len().max(1))]);
    let objects: Vec<VersionId> = live.iter().filter(|(_, visible)| *visible).map(|(version, _)| *version).collect();
    let subject = (!objects.is_empty()).then(|| objects[random.below(objects.len().max(1))]);
    let written_at = |group: &Group, version| {
        queries::object_version(&group.kv, BUCKET, &key(text), version).unwrap().unwrap().stamp
    };
    match (random.below(12), chosen, subject) {
        (0..=2, ..) => {
            let Outcome::Stored { stamp, .. } = group.propose(put_in(VersionMode::Versioned, text, number)) else {
                panic!()
            };
            model.written.insert((text, stamp));
        }
        (3, ..) => {
            let Outcome::Deleted { stamp, .. } = group.propose(delete_in(VersionMode::Versioned, text)) else {
                panic!()
            };
            model.written.insert((text, stamp));
        }
        (4 | 5, ..) => {
            let operation = if random.below(2) == 0 { put(text, number) } else { delete(text) };
            let (Outcome::Stored { stamp, .. } | Outcome::Deleted { stamp, .. }) = group.propose(operation) else {
                panic!()
            };
            let last = model.null.entry(text).or_insert(stamp);
            *last = stamp.max(*last);
        }
        (6, ..) => {
            let Outcome::Deleted { stamp, .. } = group.propose(delete_in(VersionMode::Suspended, text)) else {
                panic!()
            };
            let last = model.null.entry(text).or_insert(stamp);
            *last = stamp.max(*last);
        }
        (7 | 8, Some((version, _)), _) => match (group.propose(remove(text, version)), version) {
            (Outcome::Deleted { .. }, VersionId::Stamp(stamp)) => {
                model.removed.insert((text, stamp));
            }
            (Outcome::Deleted { stamp, .. }, VersionId::Null) => {
                let last = model.null.entry(text).or_insert(stamp);
                *last = stamp.max(*last);
            }
            (Outcome::Locked, _) => {}
            (other, _) => panic!("{other:?}"),
        },
        (9 | 10, _, Some(version)) => {
            let at = written_at(group, version);
            let tags = Change::Tags(vec![("n".to_owned(), number.to_string())]);
            assert_eq!(group.propose(annotate(text, Some(version), tags)), Outcome::Annotated { version });
            let changed = Stamp::new(group.greatest(), group.machine.datacenter);
            let last = model.tags.entry((text, at)).or_insert((changed, number));
            *last = (changed, number).max(*last);
        }
        (_, _, Some(version)) if number.is_multiple_of(7) => {
            let at = written_at(group, version);
            let until_unix_ms = at.timestamp.unix_ms() + number * 1000;
            let lock = Retention { mode: RetentionMode::Compliance, until_unix_ms };
            if group.propose(annotate(text, Some(version), Change::Retention(Some(lock)))) != Outcome::Locked {
                let last = model.compliance.entry((text, at)).or_default();
                *last = until_unix_ms.max(*last);
            }
        }
        _ => {}
    }
}

fn run(seed: u64) -> usize {
    let (mut random, mut model) = (Random(seed), Model::default());
    let count = 2 + random.below(2);
    let mut groups: Vec<Group> = (1..=count as u8).map(Group::new).collect();
    for number in 1..=STEPS as u64 {
        let (index, source) = (random.below(count), random.below(count));
        step(&mut groups[index], &mut model, &mut random, number);
        if index != source && random.below(3) == 0 {
            let cursor = groups[index].cursor(source as u8 + 1);
            let batch = groups[source].batch(&cursor, 1 + random.below(5));
            groups[index].deliver(batch);
        }
    }
    for _ in 0..2 {
        for to in 0..count {
            for from in (0..count).filter(|from| *from != to) {
                let source = groups[from].clone();
                groups[to].pull(&source);
            }
        }
    }
    for group in &groups {
        assert_eq!(group.rows_of(b'o'), groups[0].rows_of(b'o'), "seed {seed}: rows differ");
        check(group, &model, seed);
    }
    groups[0].rows_of(b'o').len()
}

fn check(group: &Group, model: &Model, seed: u64) {
    for text in KEYS {
        for (_, stamp) in model.written.iter().filter(|(at, _)| *at == text) {
            let row = queries::object_version(&group.kv, BUCKET, &key(text), VersionId::Stamp(*stamp)).unwrap();
            let is_removed = model.removed.contains(&(text, *stamp));
            assert_eq!(row.is_none(), is_removed, "seed {seed}: {text:?} {stamp}");
            let Some(row) = row else { continue };
            check_annotations(&row, model, text, seed);
        }
        let null = queries::version_row(&group.kv, BUCKET, &key(text), VersionId::Null).unwrap();
        assert_eq!(null.as_ref().map(|row| row.stamp), model.null.get(text).copied(), "seed {seed}: {text:?}");
        if let Some(null) = null {
            check_annotations(&null, model, text, seed);
        }
    }
}

fn check_annotations(row: &crate::ObjectVersion, model: &Model, text: &'static str, seed: u64) {
    let VersionKind::Object(body) = &row.kind else { return };
    let attributes = body.attributes_now();
    let tags = model.tags.get(&(text, row.stamp)).map(|(_, number)| number.to_string());
    assert_eq!(attributes.tags.first().map(|(_, value)| value.clone()), tags, "seed {seed}: {text:?}");
    let until = attributes.retention.map(|retention| retention.until_unix_ms);
    assert_eq!(until, model.compliance.get(&(text, row.stamp)).copied(), "seed {seed}: {text:?}");
}

#[test]
fn versions_removals_tags_and_locks_converge_whatever_the_order_of_the_logs() {
    let rows: usize = (0..SEEDS).map(run).sum();
    assert!(rows > 1000, "the runs must leave rows to say anything about them: {rows}");
}
