//! Deleting a blob: durable in the datacenter that owns its volume, then told to every other one.
//!
//! Invariants: a success means that the owner's delete journals name it, on every replica; other datacenters are told in the
//! background, for as long as `TELL_PAUSES` says, and no longer (docs/consistency.md).

use std::collections::BTreeSet;
use std::time::Duration;

use meridian_types::Fid;

use super::{BlobAddress, BlobError};
use crate::{Objects, RemoteError};

/// When other datacenters are told again what not all of them have heard, or have had to delete.
const TELL_PAUSES: [Duration; 5] =
    [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(4), Duration::from_secs(30), Duration::from_secs(120)];
/// Deletes that are being told to other datacenters; past it one is told once.
pub(crate) const TELLING_MAX: usize = 4096;

impl Objects {
    /// Deletes a blob and returns its size in bytes.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable` when a replica could not be asked: some may have deleted it, repeat the delete.
    pub async fn delete_blob(&self, address: BlobAddress) -> Result<u64, BlobError> {
        let opened = match self.open_blob(address).await {
            Ok(opened) => opened,
            Err(error) => {
                self.delete_remains(address, &error).await;
                return Err(error);
            }
        };
        let (size, fid) = (opened.info.size, opened.fid());
        drop(opened);
        if fid.volume.datacenter() == self.datacenter() {
            self.inner.replicas.delete(fid).await.map_err(|error| match error {
                error if error.is_no_such_needle() => BlobError::NotFound,
                error => {
                    tracing::warn!(?fid, %error, "a blob was not deleted on every replica");
                    BlobError::Unavailable("not every replica could be asked; repeat the delete".to_owned())
                }
            })?;
        } else {
            self.inner.remote.delete_at_owner(fid).await.map_err(|error| match error {
                // The mirror here still has what the owner has deleted already.
                RemoteError::NotFound { .. } => BlobError::NotFound,
                RemoteError::Unreachable { datacenter, .. } => BlobError::Unavailable(format!(
                    "the blob's volume belongs to datacenter {datacenter}, not all of which can be asked; repeat the delete"
                )),
            })?;
        }
        self.tell_others(fid);
        Ok(size)
    }

    /// An earlier delete may have missed a replica of this datacenter, which then goes on serving the blob: the repeated delete,
    /// for which it is gone already, reaches that one too. Never for a fid that is no blob's.
    async fn delete_remains(&self, address: BlobAddress, error: &BlobError) {
        if let (BlobError::NotFound, Ok(fid)) = (error, self.assigned(address))
            && fid.volume.datacenter() == self.datacenter()
            && matches!(self.read_first(fid).await, Err(BlobError::NotFound))
        {
            let outcome = self.inner.replicas.delete(fid).await;
            tracing::debug!(?fid, ?outcome, "a blob that is gone was deleted again");
        }
    }

    /// Tells the mirrors, in the background. A mirror that is still behind has nothing to delete yet: it is told again.
    fn tell_others(&self, fid: Fid) {
        let objects = self.clone();
        let pauses = match self.inner.telling.clone().try_acquire_owned() {
            Ok(permit) => (&TELL_PAUSES[..], Some(permit)),
            Err(_) => (&TELL_PAUSES[..1], None),
        };
        tokio::spawn(async move {
            let (pauses, _permit) = pauses;
            let mut told = BTreeSet::new();
            for pause in pauses {
                tokio::time::sleep(*pause).await;
                if objects.inner.remote.delete_at_mirrors(fid, &mut told).await {
                    return;
                }
            }
            tracing::debug!(?fid, "not every mirror was told of a deleted blob");
        });
    }
}
