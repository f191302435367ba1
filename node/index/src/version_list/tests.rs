//! Pages of versions against a model that keeps every version in a sorted map.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use meridian_types::Stamp;
use proptest::prelude::{Strategy, prop_assert_eq, proptest};

use super::{VersionListQuery, list_versions};
use crate::testing::{BUCKET, Group, delete, delete_in, key, put, put_in, remove};
use crate::{Outcome, VersionId, VersionMode, queries};

const KEYS: [&str; 5] = ["a", "a/b", "a/c", "a\u{1}", "b"];

/// What a test did: key, and one of puts, deletes and removals.
fn any_steps() -> impl Strategy<Value = Vec<(usize, u8)>> {
    proptest::collection::vec((0..KEYS.len(), 0u8..8), 0..40)
}

/// Live versions by key and, newest first, stamp; whether each is a delete marker; and the null version's stamp.
#[derive(Default)]
struct Model {
    live: BTreeMap<(&'static str, Reverse<Stamp>), (VersionId, bool)>,
}

impl Model {
    fn drop_version(&mut self, key: &str, version: VersionId) {
        self.live.retain(|(at, _), (id, _)| *at != key || *id != version);
    }
}

fn run(steps: &[(usize, u8)]) -> (Group, Model) {
    let (mut group, mut model) = (Group::new(1), Model::default());
    for (number, (index, step)) in (1u64..).zip(steps) {
        let text = KEYS[*index];
        let oldest = model.live.iter().rfind(|((at, _), _)| *at == text).map(|(_, (id, _))| *id);
        let operation = match step {
            0 | 1 => put_in(VersionMode::Versioned, text, number),
            2 => put_in(VersionMode::Suspended, text, number),
            3 => put(text, number),
            4 => delete_in(VersionMode::Versioned, text),
            5 => delete_in(VersionMode::Suspended, text),
            6 => delete(text),
            _ => match oldest {
                Some(version) => remove(text, version),
                None => continue,
            },
        };
        match group.propose(operation) {
            Outcome::Stored { stamp, version, .. } => {
                model.drop_version(text, version);
                model.live.insert((text, Reverse(stamp)), (version, false));
            }
            Outcome::Deleted { stamp, version: Some(version), .. } if *step < 7 => {
                model.drop_version(text, version);
                model.live.insert((text, Reverse(stamp)), (version, true));
            }
            Outcome::Deleted { version, .. } => model.drop_version(text, version.unwrap_or(VersionId::Null)),
            other => panic!("{other:?}"),
        }
    }
    (group, model)
}

/// What a page says of one item: key, version, latest, or a common prefix.
type Seen = (String, Option<(VersionId, bool)>);

fn pages(group: &Group, delimiter: Option<&str>, limit: usize) -> Vec<Seen> {
    let mut seen: Vec<Seen> = Vec::new();
    let mut query = VersionListQuery { delimiter: delimiter.map(str::to_owned), limit, ..VersionListQuery::default() };
    loop {
        let page = list_versions(&group.kv, BUCKET, &query).unwrap();
        let versions = page.versions.iter().map(|listed| {
            (
                (listed.key.as_str().to_owned(), Some(Reverse(listed.row.stamp))),
                Some((listed.row.version, listed.is_latest)),
            )
        });
        let prefixes = page.common_prefixes.iter().map(|prefix| ((prefix.clone(), None), None));
        let mut items: Vec<_> = versions.chain(prefixes).collect();
        items.sort_by(|a, b| a.0.cmp(&b.0));
        assert!(items.len() <= limit);
        if let Some(((at, stamp), _)) = items.last() {
            query.after = Some((at.clone(), stamp.map(|Reverse(stamp)| stamp)));
        }
        seen.extend(items.into_iter().map(|((at, _), value)| (at, value)));
        if !page.truncated {
            return seen;
        }
    }
}

fn expected(model: &Model, delimiter: Option<&str>) -> Vec<Seen> {
    let mut seen: Vec<Seen> = Vec::new();
    for ((at, _), (version, _)) in &model.live {
        let prefix = delimiter.and_then(|delimiter| at.find(delimiter).map(|end| &at[..end + delimiter.len()]));
        match prefix {
            Some(prefix) if seen.last().is_some_and(|(last, value)| last == prefix && value.is_none()) => {}
            Some(prefix) => seen.push((prefix.to_owned(), None)),
            None => {
                let is_latest = seen.last().is_none_or(|(last, _)| last != at);
                seen.push(((*at).to_owned(), Some((*version, is_latest))));
            }
        }
    }
    seen
}

proptest! {
    #[test]
    fn pages_of_every_size_show_every_version_once_and_in_order(steps in any_steps(), limit in 1usize..6) {
        let (group, model) = run(&steps);
        for delimiter in [None, Some("/")] {
            prop_assert_eq!(pages(&group, delimiter, limit), expected(&model, delimiter));
        }
    }

    #[test]
    fn what_is_listed_as_latest_is_what_a_read_and_a_listing_of_objects_find(steps in any_steps()) {
        let (group, model) = run(&steps);
        let mut visible = Vec::new();
        for text in KEYS {
            let latest = model.live.iter().find(|((at, _), _)| *at == text);
            let object = queries::object(&group.kv, BUCKET, &key(text)).unwrap();
            let wanted = latest.filter(|(_, (_, marker))| !marker).map(|((_, Reverse(stamp)), _)| *stamp);
            prop_assert_eq!(object.map(|row| row.stamp), wanted);
            visible.extend(wanted.map(|stamp| (text.to_owned(), stamp)));
        }
        visible.sort();
        let query = crate::ListQuery { limit: 100, ..crate::ListQuery::default() };
        let page = crate::list(&group.kv, BUCKET, &query).unwrap();
        let listed: Vec<_> = page.entries.iter().map(|object| (object.key.as_str().to_owned(), object.stamp)).collect();
        prop_assert_eq!(listed, visible);
        prop_assert_eq!(queries::bucket_is_empty(&group.kv, BUCKET).unwrap(), model.live.is_empty());
    }
}
