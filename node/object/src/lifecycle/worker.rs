//! The background task that carries lifecycle rules out in this datacenter: for each partition that this node leads, and
//! each bucket that has rules, a walk over the rows in pages.
//!
//! Each decision becomes an ordinary mutation that names the version it saw, so that a newer write, a lock or a bucket's
//! deletion makes it fail and nothing is lost. Limits: `PAGE_ROWS` rows at a time, `ACTIONS_IN_FLIGHT_MAX` mutations at a time,
//! a pause after each page; a round that was cut off by a change of leader begins again at the next interval.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::{StreamExt, stream};
use meridian_index::{
    BucketRow, Condition, DocumentKind, Operation, Outcome, UploadRow, VersionListPage, VersionListQuery, Wanted,
    queries,
};
use meridian_types::{ObjectKey, PartitionId, Timestamp};

use super::{Action, Clock, KeyWalk, LifecycleRule, Seen, due_unix_ms};
use crate::list::on_blocking_thread;
use crate::objects::Inner;
use crate::propose::meta_error;
use crate::read_row::index_error;
use crate::{ObjectError, Objects};

/// Rows of one look at a partition.
const PAGE_ROWS: usize = 1000;
/// Mutations that wait for their partition at a time: few, so that clients come first.
const ACTIONS_IN_FLIGHT_MAX: usize = 16;
/// After each page: at most 50,000 rows a second are looked at.
const PAGE_PAUSE: Duration = Duration::from_millis(20);
/// Rounds follow each other after this part of a day, within these bounds.
const ROUNDS_IN_DAY: u32 = 24;
const INTERVAL_MIN: Duration = Duration::from_millis(500);
const INTERVAL_MAX: Duration = Duration::from_secs(3600);
/// The shortest time that another datacenter gets to end its own versions; a day, where days are longer.
const GRACE_MIN: Duration = Duration::from_secs(60);

/// Reads the lifecycle document of a bucket; disabled rules are left out.
pub type ParseRules = Arc<dyn Fn(&str) -> Vec<LifecycleRule> + Send + Sync>;

/// How the worker runs.
#[derive(Clone)]
pub struct LifecycleConfig {
    /// How long a day of a rule is; shorter ones are for tests.
    pub day: Duration,
    pub parse: ParseRules,
}

impl fmt::Debug for LifecycleConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LifecycleConfig").field("day", &self.day).finish_non_exhaustive()
    }
}

/// What the worker of this node has done since its start.
#[derive(Debug, Default)]
pub struct LifecycleCounts {
    pub rounds: AtomicU64,
    /// Versions looked at.
    pub scanned: AtomicU64,
    /// Current versions deleted.
    pub expired: AtomicU64,
    /// Noncurrent versions and lone delete markers removed.
    pub removed: AtomicU64,
    /// Uploads aborted.
    pub aborted: AtomicU64,
    /// Decisions that were refused: a lock, or a newer write.
    pub refused: AtomicU64,
}

impl Objects {
    /// Runs until `stop`.
    pub async fn run_lifecycle(
        &self,
        config: LifecycleConfig,
        counts: Arc<LifecycleCounts>,
        stop: impl Future<Output = ()>,
    ) {
        let interval = (config.day / ROUNDS_IN_DAY).clamp(INTERVAL_MIN, INTERVAL_MAX);
        tokio::pin!(stop);
        loop {
            let round = async {
                tokio::time::sleep(interval).await;
                Worker { inner: &self.inner, config: &config, counts: &counts }.round().await;
            };
            tokio::select! {
                () = &mut stop => return,
                () = round => {}
            }
        }
    }
}

struct Worker<'a> {
    inner: &'a Inner,
    config: &'a LifecycleConfig,
    counts: &'a LifecycleCounts,
}

impl Worker<'_> {
    async fn round(&self) {
        let led: Vec<PartitionId> =
            (0..self.inner.config.partitions).map(PartitionId).filter(|one| self.inner.meta.serving(*one)).collect();
        if led.is_empty() {
            return;
        }
        let buckets = match self.buckets().await {
            Ok(buckets) => buckets,
            Err(failure) => {
                tracing::warn!(%failure, "lifecycle: the buckets can't be read; the next round tries again");
                return;
            }
        };
        for (bucket, rules) in &buckets {
            for &partition in &led {
                if let Err(failure) = self.walk(partition, bucket, rules).await {
                    let bucket = bucket.name.as_str();
                    tracing::warn!(%failure, bucket, %partition, "lifecycle: a walk ended early; the next round begins anew");
                }
            }
        }
        self.counts.rounds.fetch_add(1, Ordering::Relaxed);
    }

    /// The buckets with rules that are enabled.
    async fn buckets(&self) -> Result<Vec<(BucketRow, Vec<LifecycleRule>)>, ObjectError> {
        let view = self.inner.read(PartitionId::CATALOG).await?;
        let rows = on_blocking_thread(move || queries::buckets(&view).map_err(index_error)).await?;
        let with_rules = rows.into_iter().filter_map(|row| {
            let rules = (self.config.parse)(row.settings.document(DocumentKind::Lifecycle)?);
            (!rules.is_empty()).then_some((row, rules))
        });
        Ok(with_rules.collect())
    }

    async fn walk(
        &self,
        partition: PartitionId,
        bucket: &BucketRow,
        rules: &[LifecycleRule],
    ) -> Result<(), ObjectError> {
        let prefix = common_prefix(rules);
        let mut query = VersionListQuery { prefix: prefix.clone(), delimiter: None, after: None, limit: PAGE_ROWS };
        let mut walk = KeyWalk::default();
        loop {
            let (page, clock) = self.page(partition, bucket, &query).await?;
            let mut actions = Vec::new();
            for listed in &page.versions {
                walk.visit(&seen(listed), rules, &clock, &mut actions);
            }
            if !page.truncated {
                walk.end(&mut actions);
            }
            self.counts.scanned.fetch_add(page.versions.len() as u64, Ordering::Relaxed);
            self.act(partition, bucket, actions).await?;
            tokio::time::sleep(PAGE_PAUSE).await;
            match page.versions.last().filter(|_| page.truncated) {
                Some(last) => query.after = Some((last.key.as_str().to_owned(), Some(last.row.stamp))),
                None => break,
            }
            if !self.inner.meta.serving(partition) {
                return Ok(()); // its new leader walks it
            }
        }
        self.abort_uploads(partition, bucket, rules, &prefix).await
    }

    async fn page(
        &self,
        partition: PartitionId,
        bucket: &BucketRow,
        query: &VersionListQuery,
    ) -> Result<(VersionListPage, Clock), ObjectError> {
        let view = self.inner.meta.local_view(partition).map_err(meta_error)?;
        let (bucket, query) = (bucket.id, query.clone());
        let (page, stable) = on_blocking_thread(move || {
            let stable = queries::stable(&view).map_err(index_error)?;
            Ok((queries::list_versions(&view, bucket, &query).map_err(index_error)?, stable))
        })
        .await?;
        // A cluster of one datacenter has nobody to wait for.
        let everywhere = if self.inner.config.datacenters > 1 { stable.meta } else { Timestamp::MAX };
        Ok((page, self.clock(everywhere)))
    }

    fn clock(&self, everywhere: Timestamp) -> Clock {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Clock {
            now_unix_ms: self.inner.now_unix_ms(),
            day_ms: millis(self.config.day),
            grace_ms: millis(self.config.day.max(GRACE_MIN)),
            own: self.inner.config.datacenter,
            everywhere,
        }
    }

    async fn act(&self, partition: PartitionId, bucket: &BucketRow, actions: Vec<Action>) -> Result<(), ObjectError> {
        let mutations = actions.into_iter().filter_map(|action| operation(bucket, action));
        let running = mutations.map(|(operation, counter)| async move {
            let proposed = self.inner.propose(partition, operation, Timestamp::ZERO).await;
            match proposed.outcome? {
                Outcome::Deleted { .. } => counter(self.counts).fetch_add(1, Ordering::Relaxed),
                // A newer write, a lock, a deletion of the bucket: it stands.
                _ => self.counts.refused.fetch_add(1, Ordering::Relaxed),
            };
            Ok(())
        });
        let mut running = stream::iter(running).buffer_unordered(ACTIONS_IN_FLIGHT_MAX);
        while let Some(done) = running.next().await {
            done?;
        }
        Ok(())
    }

    /// Uploads live in one datacenter, which alone aborts them (rule 22).
    async fn abort_uploads(
        &self,
        partition: PartitionId,
        bucket: &BucketRow,
        rules: &[LifecycleRule],
        prefix: &str,
    ) -> Result<(), ObjectError> {
        if rules.iter().all(|rule| rule.abort_days.is_none()) {
            return Ok(());
        }
        let mut after: Option<UploadRow> = None;
        loop {
            let view = self.inner.meta.local_view(partition).map_err(meta_error)?;
            let (id, prefix, behind) = (bucket.id, prefix.to_owned(), after.take());
            let rows = on_blocking_thread(move || {
                let marker = behind.as_ref().map(|row| (&row.key, Some(row.upload)));
                queries::uploads(&view, id, &prefix, marker, PAGE_ROWS).map_err(index_error)
            })
            .await?;
            let (now_unix_ms, day_ms) = (self.inner.now_unix_ms(), self.clock(Timestamp::ZERO).day_ms);
            for row in rows.iter().filter(|row| is_upload_due(row, rules, now_unix_ms, day_ms)) {
                let operation = Operation::AbortUpload { bucket: id, key: row.key.clone(), upload: row.upload };
                let counter = match self.inner.propose(partition, operation, Timestamp::ZERO).await.outcome? {
                    Outcome::Aborted => &self.counts.aborted,
                    _ => &self.counts.refused,
                };
                counter.fetch_add(1, Ordering::Relaxed);
            }
            if rows.len() < PAGE_ROWS {
                return Ok(());
            }
            after = rows.into_iter().next_back();
            tokio::time::sleep(PAGE_PAUSE).await;
        }
    }
}

type Counter = fn(&LifecycleCounts) -> &AtomicU64;

/// The mutation of a decision. It holds only for the version that was seen.
fn operation(bucket: &BucketRow, action: Action) -> Option<(Operation, Counter)> {
    let only = |stamp| Condition::Matches(Wanted::stamped(stamp));
    let id = bucket.id;
    Some(match action {
        Action::Expire { key, stamp } => {
            let (key, mode) = (key.parse::<ObjectKey>().ok()?, bucket.settings.version_mode());
            (Operation::Delete { bucket: id, key, mode, condition: only(stamp) }, |counts| &counts.expired)
        }
        Action::Remove { key, version, stamp } => {
            let (key, condition) = (key.parse::<ObjectKey>().ok()?, only(stamp));
            let removal = Operation::DeleteVersion { bucket: id, key, version, condition, bypass_governance: false };
            (removal, |counts| &counts.removed)
        }
    })
}

fn seen(listed: &meridian_index::ListedVersion) -> Seen {
    Seen {
        key: listed.key.as_str().to_owned(),
        stamp: listed.row.stamp,
        version: listed.row.version,
        is_latest: listed.is_latest,
        object: listed.row.body().map(|body| (body.size, body.attributes_now().tags)),
    }
}

fn is_upload_due(row: &UploadRow, rules: &[LifecycleRule], now_unix_ms: u64, day_ms: u64) -> bool {
    rules.iter().any(|rule| {
        let due = rule.abort_days.map(|days| due_unix_ms(row.initiated.unix_ms(), days, day_ms));
        row.key.as_str().starts_with(&rule.filter.prefix) && due.is_some_and(|due| now_unix_ms >= due)
    })
}

/// What all keys begin with that any rule is about.
fn common_prefix(rules: &[LifecycleRule]) -> String {
    let mut prefixes = rules.iter().map(|rule| rule.filter.prefix.as_str());
    let first = prefixes.next().unwrap_or_default();
    let shared = prefixes.fold(first, |shared, other| {
        let common = shared.char_indices().zip(other.chars()).find(|((_, a), b)| a != b).map(|((at, _), _)| at);
        &shared[..common.unwrap_or_else(|| shared.len().min(other.len()))]
    });
    shared.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::LifecycleFilter;

    #[test]
    fn a_walk_begins_where_its_rules_do() {
        let rules = |prefixes: &[&str]| {
            let filter = |prefix: &&str| LifecycleFilter { prefix: (*prefix).to_owned(), ..LifecycleFilter::default() };
            let rule = |prefix| LifecycleRule { filter: filter(prefix), ..LifecycleRule::default() };
            prefixes.iter().map(rule).collect::<Vec<_>>()
        };
        for (prefixes, expected) in [
            (&["logs/a", "logs/b"][..], "logs/"),
            (&["logs/", "logs/b"], "logs/"),
            (&["a", ""], ""),
            (&["é1", "é2"], "é"),
            (&["a", "b"], ""),
            (&["only"], "only"),
        ] {
            assert_eq!(common_prefix(&rules(prefixes)), expected, "{prefixes:?}");
        }
    }
}
