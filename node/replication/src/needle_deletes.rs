//! Deletes of needles by whoever is not their owner's primary: at the owner's datacenter, and at mirrors.
//!
//! A call deletes what lies on the asked node and asks nobody else. Invariants: the owner has deleted only if each of its nodes
//! was asked, for any of them may hold a replica; a mirror that had nothing to delete may only be behind, and is not told.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use http::StatusCode;
use meridian_object::RemoteError;
use meridian_types::{DatacenterId, Fid};

use crate::bulk_client::{BulkClient, BulkError};
use crate::bulk_server::delete_path;
use crate::driver::Replication;
use crate::sources::Source;

/// Deadline of one delete at one node.
const DELETE_DEADLINE: Duration = Duration::from_secs(5);

/// What the nodes of a datacenter said.
#[derive(Debug, Default)]
struct Told {
    /// Some node had the needle.
    deleted: bool,
    /// Why some node could not be asked.
    failed: Option<String>,
}

impl Replication {
    pub(crate) async fn delete_needle_at_owner(&self, fid: Fid) -> Result<(), RemoteError> {
        let owner = fid.volume.datacenter();
        let source = self.inner.sources.get(&owner);
        let source = source.ok_or_else(|| RemoteError::NotFound { reason: format!("no datacenter {owner}") })?;
        match delete_in(source, fid).await {
            Told { failed: Some(reason), .. } => {
                Err(RemoteError::Unreachable { datacenter: source.peer.name.to_string(), reason })
            }
            Told { deleted: true, .. } => Ok(()),
            Told { .. } => Err(RemoteError::NotFound { reason: "its owner has no such needle".to_owned() }),
        }
    }

    pub(crate) async fn delete_needle_at_mirrors(&self, fid: Fid, told: &mut BTreeSet<DatacenterId>) -> bool {
        let (own, owner) = (self.inner.config.local.datacenter, fid.volume.datacenter());
        let mut mirrors: BTreeSet<DatacenterId> = match self.inner.control.volume(fid.volume) {
            Some(record) => record.mirrors.into_iter().collect(),
            None => self.inner.sources.keys().copied().chain([own]).collect(),
        };
        mirrors.retain(|mirror| *mirror != owner && !told.contains(mirror));
        let asked = mirrors.iter().map(|mirror| async move {
            let answer = match self.inner.sources.get(mirror) {
                Some(source) => delete_in(source, fid).await,
                None => self.delete_in_own_mirror(fid).await,
            };
            (*mirror, answer)
        });
        let answers = join_all(asked).await;
        told.extend(answers.into_iter().filter(|(_, answer)| answer.deleted).map(|(mirror, _)| mirror));
        mirrors.is_subset(told)
    }

    async fn delete_in_own_mirror(&self, fid: Fid) -> Told {
        if self.inner.volumes.delete(fid).await.is_ok() {
            return Told { deleted: true, failed: None };
        }
        match self.inner.control.mirror_node(fid.volume).and_then(|node| self.inner.siblings.get(node)) {
            Some(sibling) => told(vec![sibling.bulk.delete(&delete_path(fid), DELETE_DEADLINE).await]),
            None => Told::default(),
        }
    }
}

async fn delete_in(source: &Source, fid: Fid) -> Told {
    let path = delete_path(fid);
    let delete = |bulk: Arc<BulkClient>| {
        let path = &path;
        async move { bulk.delete(path, DELETE_DEADLINE).await }
    };
    told(join_all(source.links_in_turn().map(|link| delete(Arc::clone(&link.bulk)))).await)
}

fn told(answers: Vec<Result<(), BulkError>>) -> Told {
    let mut told = Told::default();
    for answer in answers {
        match answer {
            Ok(()) => told.deleted = true,
            Err(BulkError::Status { status: StatusCode::NOT_FOUND, .. }) => {}
            Err(error) => told.failed = Some(error.to_string()),
        }
    }
    told
}
