//! Lifecycle rules: what a bucket's owner wants to be gone, and when. Here are the rules and what they say of the versions of
//! a key, as pure functions; `worker` walks the rows and acts.
//!
//! The datacenter that wrote a version is the one that ends it; another does so only when it is overdue by `grace`, so that
//! an expiry leaves one delete marker and not one for each datacenter, and goes on when a datacenter is lost.
//!
//! Invariants: a decision names the stamp of the version that it saw, and is refused where another one has come since;
//! nothing is decided about a version whose place among its neighbours is not known.
//!
//! Source: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/intro-lifecycle-rules.html>

mod walk;
mod worker;

pub(crate) use walk::{Action, Clock, KeyWalk, Seen};
pub use worker::{LifecycleConfig, LifecycleCounts};

/// A day in milliseconds.
pub const DAY_MS: u64 = 24 * 3600 * 1000;

/// One rule that is enabled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LifecycleRule {
    pub id: String,
    pub filter: LifecycleFilter,
    /// Of the current version.
    pub expiration: Option<Expiry>,
    /// Removes a delete marker behind which there is no version.
    pub lone_markers: bool,
    pub noncurrent: Option<NoncurrentExpiry>,
    /// Days after which an upload that was not completed is aborted.
    pub abort_days: Option<u32>,
}

/// What a rule is about; all must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LifecycleFilter {
    pub prefix: String,
    pub tags: Vec<(String, String)>,
    /// Bytes; exclusive.
    pub size_above: Option<u64>,
    /// Bytes; exclusive.
    pub size_below: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// After the write.
    Days(u32),
    /// Milliseconds since 1970.
    At(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoncurrentExpiry {
    /// After another version took its place.
    pub days: u32,
    /// How many of the newest are kept whatever their age.
    pub keep: u32,
}

impl LifecycleFilter {
    /// Whether an object is meant.
    pub fn covers(&self, key: &str, size: u64, tags: &[(String, String)]) -> bool {
        key.starts_with(&self.prefix)
            && self.tags.iter().all(|tag| tags.contains(tag))
            && self.size_above.is_none_or(|above| size > above)
            && self.size_below.is_none_or(|below| size < below)
    }

    /// Whether it asks for anything but a prefix; such a rule says nothing of delete markers.
    fn asks_of_objects(&self) -> bool {
        !self.tags.is_empty() || self.size_above.is_some() || self.size_below.is_some()
    }
}

/// When something is due that happens `days` after `from_unix_ms`. Real days end at midnight UTC (S3); those of tests don't.
pub fn due_unix_ms(from_unix_ms: u64, days: u32, day_ms: u64) -> u64 {
    let due = from_unix_ms.saturating_add(u64::from(days).saturating_mul(day_ms));
    if day_ms == DAY_MS { due.div_ceil(DAY_MS).saturating_mul(DAY_MS) } else { due }
}

/// When the current version of a key expires by real days, and by which rule: the earliest.
pub fn expiry_of<'r>(
    rules: &'r [LifecycleRule],
    key: &str,
    size: u64,
    tags: &[(String, String)],
    written_unix_ms: u64,
) -> Option<(u64, &'r str)> {
    let covering = rules.iter().filter(|rule| rule.filter.covers(key, size, tags));
    let due = covering.filter_map(|rule| Some((at(rule.expiration?, written_unix_ms, DAY_MS), rule.id.as_str())));
    due.min_by_key(|(at, _)| *at)
}

fn at(expiry: Expiry, written_unix_ms: u64, day_ms: u64) -> u64 {
    match expiry {
        Expiry::Days(days) => due_unix_ms(written_unix_ms, days, day_ms),
        Expiry::At(at) => at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(key: &str, value: &str) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    #[test]
    fn filters_demand_all_that_they_name() {
        let filter = LifecycleFilter {
            prefix: "logs/".to_owned(),
            tags: vec![tag("a", "1")],
            size_above: Some(10),
            size_below: Some(20),
        };
        let tags = [tag("b", "2"), tag("a", "1")];
        for (key, size, tags, expected) in [
            ("logs/x", 15, &tags[..], true),
            ("log/x", 15, &tags[..], false),
            ("logs/x", 10, &tags[..], false),
            ("logs/x", 20, &tags[..], false),
            ("logs/x", 15, &tags[..1], false),
        ] {
            assert_eq!(filter.covers(key, size, tags), expected, "{key} {size} {tags:?}");
        }
        assert!(LifecycleFilter::default().covers("", 0, &[]));
    }

    #[test]
    fn real_days_end_at_midnight_and_those_of_tests_do_not() {
        assert_eq!(due_unix_ms(DAY_MS + 1, 1, DAY_MS), 3 * DAY_MS);
        assert_eq!(due_unix_ms(DAY_MS, 1, DAY_MS), 2 * DAY_MS);
        assert_eq!(due_unix_ms(5, 2, 1000), 2005);
        assert_eq!(due_unix_ms(u64::MAX, 1, 1000), u64::MAX);
    }

    #[test]
    fn the_earliest_expiry_is_told_with_its_rule() {
        let rule = |id: &str, expiration| LifecycleRule {
            id: id.to_owned(),
            expiration: Some(expiration),
            ..LifecycleRule::default()
        };
        let rules =
            [rule("late", Expiry::Days(9)), rule("soon", Expiry::Days(1)), rule("date", Expiry::At(5 * DAY_MS))];
        assert_eq!(expiry_of(&rules, "k", 1, &[], 1), Some((2 * DAY_MS, "soon")));
        assert_eq!(expiry_of(&rules, "k", 1, &[], 6 * DAY_MS), Some((5 * DAY_MS, "date")));
        assert_eq!(expiry_of(&[LifecycleRule::default()], "k", 1, &[], 1), None);
    }
}
