//! `x-meridian-ack: remote`: an answer that waits until other datacenters have what was written, entry and bytes (rule 25).
//!
//! The gateways run a request in `recording`, which notes what it wrote and where its bytes lie, and call `await_ack` with
//! that before they answer a success. The bytes are waited for where they are kept: in every datacenter that mirrors one of
//! the volumes. A mutation without bytes is waited for in as many other datacenters as the bucket's code names, at
//! least one.
//!
//! Invariants: the write is durable here before anybody is waited for, and stands whatever the wait comes to; what would have
//! no copy elsewhere is refused before a byte of it is taken; a datacenter counts by its own word only.

use std::collections::BTreeSet;

use meridian_types::{DatacenterId, VolumeId};

use crate::objects::Inner;
use crate::seen::{self, Shown};
use crate::{ObjectError, Objects, RemoteError};

/// The header of a request that says whose word its answer waits for: `local` (default) or `remote`.
pub const ACK_HEADER: &str = "x-meridian-ack";

/// Whose word an answer waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ack {
    #[default]
    Local,
    Remote,
}

/// What one request wrote, for the wait of its answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Written {
    /// The volumes of its chunks.
    pub(crate) volumes: BTreeSet<VolumeId>,
    /// The greatest x of the codes of the buckets that it met.
    pub(crate) copies: u8,
    /// Where the bytes lie is not known: every datacenter is waited for.
    pub(crate) everywhere: bool,
}

impl Objects {
    /// What a request asks for by the value of its `x-meridian-ack`.
    ///
    /// # Errors
    /// `InvalidArgument`: another value, or there is no other datacenter that could have it.
    pub fn ack(&self, value: Option<&[u8]>) -> Result<Ack, ObjectError> {
        let refused = |reason: &str| ObjectError::InvalidArgument { argument: ACK_HEADER, reason: reason.to_owned() };
        match value {
            None | Some(b"local") => Ok(Ack::Local),
            Some(b"remote") if self.inner.config.datacenters > 1 => Ok(Ack::Remote),
            Some(b"remote") => Err(refused("this cluster has no other datacenter")),
            Some(_) => Err(refused("write local or remote")),
        }
    }

    /// Waits until what a request wrote is durable in the other datacenters that shall have it. A request that wrote
    /// nothing of a stamp waits for nothing; parts of an upload are waited for with their Complete.
    ///
    /// # Errors
    /// `NotAcknowledged`: not within the bound. The write stands.
    pub async fn await_ack(&self, shown: &Shown) -> Result<(), ObjectError> {
        let config = &self.inner.config;
        let own = shown.seen.iter().find(|(origin, _)| *origin == config.datacenter);
        let Some((_, through)) = own else { return Ok(()) };
        let others = usize::from(config.datacenters.saturating_sub(1));
        if self.inner.is_kept_here_alone(&shown.written.volumes) {
            // Parts may have come without the wish, or under another code than the bucket has now.
            return Err(ObjectError::NotAcknowledged {
                region: config.region.to_string(),
                datacenters: "any other datacenter".to_owned(),
                reason: "the code under which some of its bytes were stored keeps no copy elsewhere".to_owned(),
            });
        }
        let holders = self.inner.holders(&shown.written.volumes);
        let everywhere = shown.written.everywhere || holders.is_none();
        let needed = if everywhere { others } else { usize::from(shown.written.copies).clamp(1, others.max(1)) };
        let waited = self.inner.remote.await_copies(through, &holders.unwrap_or_default(), needed).await;
        waited.map_err(|error| {
            let (datacenters, reason) = match error {
                RemoteError::Unreachable { datacenter, reason } => (datacenter, reason),
                RemoteError::NotFound { reason } => ("another datacenter".to_owned(), reason),
            };
            ObjectError::NotAcknowledged { region: config.region.to_string(), datacenters, reason }
        })
    }
}

impl Inner {
    /// The datacenters that mirror these volumes of ours; `None` when one of the volumes is not known.
    fn holders(&self, volumes: &BTreeSet<VolumeId>) -> Option<BTreeSet<DatacenterId>> {
        let mut holders = BTreeSet::new();
        for volume in volumes {
            holders.extend(self.control.volume(*volume)?.mirrors);
        }
        Some(holders)
    }

    /// Whether one of these volumes of ours is mirrored nowhere.
    fn is_kept_here_alone(&self, volumes: &BTreeSet<VolumeId>) -> bool {
        volumes.iter().filter_map(|volume| self.control.volume(*volume)).any(|record| record.mirrors.is_empty())
    }

    /// Refuses to take bytes that would have no copy elsewhere, when the client waits for one.
    pub(crate) fn check_copies(&self, copies: u8) -> Result<(), ObjectError> {
        if seen::wish() == Ack::Remote && copies == 0 {
            let reason = "the bucket's code keeps no copy in another datacenter".to_owned();
            return Err(ObjectError::InvalidArgument { argument: ACK_HEADER, reason });
        }
        Ok(())
    }
}
