//! LIST against a reference that reads everything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use proptest::prelude::{Just, Strategy, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::{ListPage, ListQuery, list};
use crate::keys;
use crate::kv::{KvError, KvRead, MemoryKv, Visit, WriteSet};
use crate::rows::{ObjectVersion, VersionId, VersionKind};
use crate::testing::{BUCKET, body, key, stamp, version};

/// Pieces that keys, prefixes, delimiters and markers are made of: bytes next to the row format's own, the last code
/// points, delimiters that overlap themselves.
const PIECES: [&str; 10] = ["a", "b", "/", "//", "\u{1}", "\u{2}", "é", "\u{ff}", "\u{10ffff}", "\u{7f}"];

fn text(pieces_max: usize) -> impl Strategy<Value = String> {
    proptest::collection::vec(proptest::sample::select(PIECES.to_vec()), 0..=pieces_max).prop_map(|list| list.concat())
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Object,
    Tombstone,
    DeleteMarker,
}

/// The rows of one key: the null version's kind and stamp, and those of its other versions.
#[derive(Debug, Clone)]
struct Rows {
    null: Option<(Kind, u64)>,
    versions: BTreeMap<u64, Kind>,
}

fn rows(versioned: bool) -> impl Strategy<Value = Rows> {
    let null = prop_oneof![3 => Just(Kind::Object), 2 => Just(Kind::Tombstone), 1 => Just(Kind::DeleteMarker)];
    let other = prop_oneof![3 => Just(Kind::Object), 2 => Just(Kind::DeleteMarker), 1 => Just(Kind::Tombstone)];
    let null = (proptest::option::weighted(if versioned { 0.6 } else { 0.95 }, null), 0u64..9);
    let versions = proptest::collection::btree_map((0u64..9).prop_map(|n| n * 2 + 1), other, 0..4);
    (null, versions).prop_map(move |((null, n), versions)| Rows {
        null: null.map(|kind| (kind, n * 2)), // even, so that no two rows of a key share a stamp
        versions: if versioned { versions } else { BTreeMap::new() },
    })
}

fn bucket(versioned: bool) -> impl Strategy<Value = BTreeMap<String, Rows>> {
    proptest::collection::btree_map(
        text(5).prop_filter("keys are not empty", |key| !key.is_empty()),
        rows(versioned),
        0..30,
    )
}

fn stored(raw: u64, kind: Kind) -> ObjectVersion {
    let kind = match kind {
        Kind::Object => VersionKind::Object(body(raw)),
        Kind::Tombstone => VersionKind::Tombstone,
        Kind::DeleteMarker => VersionKind::DeleteMarker,
    };
    version(stamp(raw, 1), 1, &[], kind)
}

fn load(bucket: &BTreeMap<String, Rows>, versioned: bool) -> MemoryKv {
    let mut writes = WriteSet::new();
    if versioned {
        writes.insert(keys::versions_marker(BUCKET), Some(Bytes::new()));
    }
    for (text, rows) in bucket {
        if let Some((kind, raw)) = rows.null {
            writes.insert(keys::object_null(BUCKET, &key(text)), Some(stored(raw, kind).encode().into()));
        }
        for (raw, kind) in &rows.versions {
            let version = ObjectVersion { version: VersionId::Stamp(stamp(*raw, 1)), ..stored(*raw, *kind) };
            writes.insert(keys::object_version(BUCKET, &key(text), version.stamp), Some(version.encode().into()));
        }
    }
    // Rows of neighbouring buckets must never be seen.
    for neighbour in [[0xb6; 16], [0xb8; 16]] {
        let row = keys::object_null(meridian_types::BucketId(neighbour), &key("a"));
        writes.insert(row, Some(stored(1, Kind::Object).encode().into()));
    }
    let mut kv = MemoryKv::new();
    kv.apply(writes);
    kv
}

/// What a bucket shows: each visible key with its current stamp.
fn visible(bucket: &BTreeMap<String, Rows>) -> BTreeMap<String, u64> {
    let current = |rows: &Rows| {
        let versions = rows.versions.iter().map(|(raw, kind)| (*raw, *kind));
        let null = rows.null.map(|(kind, raw)| (raw, kind));
        // A tombstone says that its version is gone, and nothing of the others.
        versions.chain(null).filter(|(_, kind)| *kind != Kind::Tombstone).max_by_key(|(raw, _)| *raw)
    };
    let shown = |(text, rows): (&String, &Rows)| match current(rows) {
        Some((raw, Kind::Object)) => Some((text.clone(), raw)),
        _ => None,
    };
    bucket.iter().filter_map(shown).collect()
}

#[derive(Debug, PartialEq, Eq)]
struct Expected {
    entries: Vec<(String, u64)>,
    common_prefixes: Vec<String>,
    truncated: bool,
}

fn expected(bucket: &BTreeMap<String, Rows>, query: &ListQuery) -> Expected {
    let mut items: BTreeMap<String, Option<u64>> = BTreeMap::new();
    for (text, raw) in visible(bucket) {
        let Some(rest) = text.strip_prefix(query.prefix.as_str()) else { continue };
        let rolled_up = query.delimiter.as_deref().filter(|delimiter| !delimiter.is_empty()).and_then(|delimiter| {
            rest.find(delimiter).map(|at| format!("{}{}", query.prefix, &rest[..at + delimiter.len()]))
        });
        match rolled_up {
            Some(common_prefix) => items.insert(common_prefix, None),
            None => items.insert(text, Some(raw)),
        };
    }
    items.retain(|item, _| query.after.as_ref().is_none_or(|after| item > after));
    let truncated = query.limit > 0 && items.len() > query.limit;
    let page: Vec<_> = items.into_iter().take(query.limit).collect();
    Expected {
        entries: page.iter().filter_map(|(item, raw)| raw.map(|raw| (item.clone(), raw))).collect(),
        common_prefixes: page.into_iter().filter(|(_, raw)| raw.is_none()).map(|(item, _)| item).collect(),
        truncated,
    }
}

fn shown(page: &ListPage) -> Expected {
    Expected {
        entries: page.entries.iter().map(|it| (it.key.as_str().to_owned(), it.stamp.timestamp.raw())).collect(),
        common_prefixes: page.common_prefixes.clone(),
        truncated: page.truncated,
    }
}

fn query() -> impl Strategy<Value = ListQuery> {
    let delimiter = proptest::option::of(text(1));
    (text(2), delimiter, proptest::option::of(text(4)), 0usize..12)
        .prop_map(|(prefix, delimiter, after, limit)| ListQuery { prefix, delimiter, after, limit })
}

proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(1500))]

    #[test]
    fn a_page_is_what_the_reference_shows(
        (versioned, bucket) in proptest::bool::ANY.prop_flat_map(|v| (Just(v), bucket(v))), query in query(),
    ) {
        let kv = load(&bucket, versioned);
        prop_assert_eq!(shown(&list(&kv, BUCKET, &query).unwrap()), expected(&bucket, &query));
    }

    #[test]
    fn pages_together_are_complete_without_phantoms_or_repeats(
        (versioned, bucket) in proptest::bool::ANY.prop_flat_map(|v| (Just(v), bucket(v))),
        query in query(), page_size in 1usize..4,
    ) {
        let kv = load(&bucket, versioned);
        let mut seen = BTreeSet::new();
        let mut query = ListQuery { limit: page_size, after: None, ..query };
        loop {
            let page = shown(&list(&kv, BUCKET, &query).unwrap());
            let items: Vec<String> =
                page.entries.into_iter().map(|(item, _)| item).chain(page.common_prefixes).collect();
            for item in &items {
                prop_assert!(seen.insert(item.clone()), "{:?} twice", item);
            }
            if !page.truncated {
                break;
            }
            prop_assert_eq!(items.len(), page_size);
            query.after = items.into_iter().max();
        }
        let all = expected(&bucket, &ListQuery { limit: usize::MAX, after: None, ..query });
        let all: BTreeSet<String> =
            all.entries.into_iter().map(|(item, _)| item).chain(all.common_prefixes).collect();
        prop_assert_eq!(seen, all);
    }
}

/// Counts the rows that a scan reads.
struct Counting {
    kv: MemoryKv,
    rows: AtomicUsize,
}

impl KvRead for Counting {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        self.kv.get(key)
    }

    fn scan(&self, start: &[u8], end: &[u8], visit: &mut Visit<'_>) -> Result<(), KvError> {
        self.kv.scan(start, end, &mut |key, value| {
            self.rows.fetch_add(1, Ordering::Relaxed);
            visit(key, value)
        })
    }

    fn scan_reverse(&self, start: &[u8], end: &[u8], visit: &mut Visit<'_>) -> Result<(), KvError> {
        self.kv.scan_reverse(start, end, visit)
    }
}

#[test]
fn a_common_prefix_is_passed_by_seeking_and_never_scanned() {
    let one = Rows { null: Some((Kind::Object, 2)), versions: BTreeMap::from([(1, Kind::Object)]) };
    for versioned in [false, true] {
        let mut bucket = BTreeMap::new();
        for directory in ["a", "b", "c"] {
            for number in 0..2000 {
                let versions = if versioned { one.versions.clone() } else { BTreeMap::new() };
                bucket.insert(format!("{directory}/{number:05}"), Rows { versions, ..one.clone() });
            }
        }
        let kv = Counting { kv: load(&bucket, versioned), rows: AtomicUsize::new(0) };
        let query = ListQuery { delimiter: Some("/".to_owned()), limit: 10, ..ListQuery::default() };
        let page = list(&kv, BUCKET, &query).unwrap();
        assert_eq!(page.common_prefixes, ["a/", "b/", "c/"]);
        assert!(!page.truncated);
        let rows = kv.rows.swap(0, Ordering::Relaxed);
        assert!(rows <= 6, "{rows} rows read for three common prefixes");

        let query = ListQuery { after: Some("a/".to_owned()), limit: 1, ..query };
        let page = list(&kv, BUCKET, &query).unwrap();
        assert_eq!((page.common_prefixes, page.truncated), (vec!["b/".to_owned()], true));
        assert!(kv.rows.load(Ordering::Relaxed) <= 4);
    }
}

#[test]
fn a_common_prefix_of_nothing_but_deletes_is_not_listed() {
    let dead = Rows { null: Some((Kind::Tombstone, 2)), versions: BTreeMap::new() };
    let live = Rows { null: Some((Kind::Object, 2)), versions: BTreeMap::new() };
    let bucket = BTreeMap::from([("a/1".to_owned(), dead.clone()), ("b/1".to_owned(), dead), ("b/2".to_owned(), live)]);
    let query = ListQuery { delimiter: Some("/".to_owned()), limit: 1, ..ListQuery::default() };
    let page = list(&load(&bucket, false), BUCKET, &query).unwrap();
    assert_eq!((page.common_prefixes, page.truncated), (vec!["b/".to_owned()], false));
}

#[test]
fn a_damaged_row_is_an_error_and_not_an_absence() {
    let live = Rows { null: Some((Kind::Object, 2)), versions: BTreeMap::new() };
    let mut kv = load(&BTreeMap::from([("a".to_owned(), live)]), false);
    let row = keys::object_null(BUCKET, &key("a"));
    let mut damaged = kv.get(&row).unwrap().unwrap().to_vec();
    damaged[9] ^= 1;
    kv.apply(WriteSet::from([(row, Some(Bytes::from(damaged)))]));
    assert!(list(&kv, BUCKET, &ListQuery { limit: 9, ..ListQuery::default() }).is_err());
    assert!(crate::queries::object(&kv, BUCKET, &key("a")).is_err());
}
