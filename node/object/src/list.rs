//! LIST: the partitions' ordered pages merged into one.
//!
//! Invariants: every page takes a read index in each partition after the request arrived, and a partition that can't
//! be read fails the page (rule 23); the views of one page do not change while it is merged.

use futures::future::try_join_all;
use meridian_index::{ListPage as PartitionPage, ListQuery, ListedObject, queries};
use meridian_types::limits::LIST_PAGE_MAX;
use meridian_types::{BucketId, BucketName, ObjectKey, PartitionId};

use crate::merge::{Fetched, Item, Lane, merge, share_of};
use crate::objects::Inner;
use crate::read_row::index_error;
use crate::{ObjectError, Objects, seen};
use meridian_meta::ReadView;

#[derive(Debug, Clone)]
pub struct ListRequest {
    pub bucket: BucketName,
    pub prefix: String,
    /// Empty is the same as none.
    pub delimiter: Option<String>,
    /// Exclusive: only keys and common prefixes above it are listed.
    pub after: Option<String>,
    /// Most entries and common prefixes together, cut to `LIST_PAGE_MAX`; 0 gives an empty page that is not truncated.
    pub limit: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPage {
    /// In byte order of the keys.
    pub entries: Vec<Box<ListedObject>>,
    pub common_prefixes: Vec<String>,
    pub truncated: bool,
    /// The last key or common prefix of a truncated page: the next `after`.
    pub next: Option<String>,
}

impl Objects {
    /// One page over all partitions, each read at an index taken after the request arrived (rule 23).
    ///
    /// # Errors
    /// `NoSuchBucket`; `Unavailable` when one partition can't be read: never a partial page.
    pub async fn list(&self, request: ListRequest) -> Result<ListPage, ObjectError> {
        let bucket = self.inner.bucket_row(&request.bucket).await?.id;
        let limit = request.limit.min(LIST_PAGE_MAX);
        if limit == 0 {
            return Ok(ListPage { entries: Vec::new(), common_prefixes: Vec::new(), truncated: false, next: None });
        }
        let views = self.inner.read_all().await?;
        let query = ListQuery {
            prefix: request.prefix,
            delimiter: request.delimiter,
            after: request.after,
            limit: share_of(limit, views.len()),
        };
        on_blocking_thread(move || merge_views(views, bucket, &query, limit)).await
    }
}

impl Inner {
    /// A linearizable view of every partition, without the catalog.
    pub(crate) async fn read_all(&self) -> Result<Vec<ReadView>, ObjectError> {
        let views =
            try_join_all((0..self.config.partitions).map(|partition| self.read(PartitionId(partition)))).await?;
        views.iter().for_each(|view| seen::note_view(view, self.config.datacenter));
        Ok(views)
    }
}

/// Scans cost milliseconds, and more when they wait for the disk: never on a thread that drives connections.
pub(crate) async fn on_blocking_thread<T: Send + 'static>(
    scan: impl FnOnce() -> Result<T, ObjectError> + Send + 'static,
) -> Result<T, ObjectError> {
    match tokio::task::spawn_blocking(scan).await {
        Ok(result) => result,
        Err(error) => Err(ObjectError::Storage(format!("a scan ended early: {error}"))),
    }
}

fn merge_views(
    views: Vec<ReadView>,
    bucket: BucketId,
    query: &ListQuery,
    limit: usize,
) -> Result<ListPage, ObjectError> {
    let mut lanes: Vec<_> = views
        .into_iter()
        .map(|view| {
            let mut query = query.clone();
            Lane::new(move || {
                let page = queries::list(&view, bucket, &query).map_err(index_error)?;
                let (items, more) = items_of(page)?;
                if let Some(last) = items.last() {
                    query.after = Some(last.at.as_str().to_owned());
                }
                Ok((items, more))
            })
        })
        .collect();
    let (items, truncated) = merge(&mut lanes, limit)?;
    let next = if truncated { items.last().map(|item| item.at.as_str().to_owned()) } else { None };
    let mut page = ListPage { entries: Vec::with_capacity(items.len()), common_prefixes: Vec::new(), truncated, next };
    for item in items {
        match item.value {
            Some(info) => page.entries.push(info),
            None => page.common_prefixes.push(item.at.as_str().to_owned()),
        }
    }
    Ok(page)
}

/// A partition's entries and common prefixes as one ordered run.
fn items_of(page: PartitionPage) -> Result<Fetched<ObjectKey, Box<ListedObject>>, ObjectError> {
    let objects = page.entries.into_iter().map(|object| Item { at: object.key.clone(), value: Some(object) });
    let mut items: Vec<_> = objects.collect();
    if !page.common_prefixes.is_empty() {
        for prefix in page.common_prefixes {
            // The front of a key is a key as well.
            items.push(Item { at: prefix.parse().map_err(index_error)?, value: None });
        }
        items.sort_by(|a, b| a.at.cmp(&b.at));
    }
    Ok((items, page.truncated))
}
