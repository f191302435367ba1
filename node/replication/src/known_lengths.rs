//! What is known here of how far a volume of this datacenter was committed (rule 1): the last word of its primary, and
//! what its mirrors hold. A seal asks before it believes a replica's length.
//!
//! Invariants: every figure was committed once, for mirrors take nothing else (rule 2); each datacenter is given
//! `ASK_MAX` and a silent one is passed over: then its mirror protects nothing, as if it had been a little slower.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use meridian_control::KnownLengths;
use meridian_types::VolumeId;
use meridian_wire::call;
use meridian_wire::replication::MirrorsRequest;

use crate::driver::{Inner, Replication};
use crate::error::reason_of;
use crate::sources::Source;

/// How long a datacenter may take to say what its mirror holds.
const ASK_MAX: Duration = Duration::from_secs(1);

/// Weak: the driver holds control, which holds this.
struct Known(Weak<Inner>);

impl Replication {
    /// What control asks before it seals.
    pub fn known_lengths(&self) -> Arc<dyn KnownLengths> {
        Arc::new(Known(Arc::downgrade(&self.inner)))
    }
}

#[async_trait]
impl KnownLengths for Known {
    async fn committed(&self, volume: VolumeId) -> u64 {
        let Some(inner) = self.0.upgrade() else { return 0 };
        let inner = &*inner;
        let heard = inner.siblings.iter().filter_map(|sibling| sibling.volume(volume));
        let heard = heard.filter(|file| !file.mirror).map(|file| file.committed).max();
        let Some(record) = inner.control.volume(volume) else { return heard.unwrap_or(0) };
        let mirrors = inner.sources.values().filter(|source| record.mirrors.contains(&source.id()));
        let lengths = join_all(mirrors.map(|source| mirror_length(inner, source, volume))).await;
        lengths.into_iter().chain(heard).max().unwrap_or(0)
    }
}

async fn mirror_length(inner: &Inner, source: &Source, volume: VolumeId) -> u64 {
    let (mut client, caller) = (source.client(), inner.config.local.caller());
    let request = MirrorsRequest { caller, volume: volume.get() };
    match call(ASK_MAX, request, |request| async move { client.list_mirrors(request).await }).await {
        Ok(reply) => {
            let of_volume = reply.mirrors.iter().filter(|copy| copy.volume == volume.get());
            of_volume.map(|copy| copy.length_bytes).max().unwrap_or(0)
        }
        Err(status) => {
            tracing::debug!(source = %source.peer.name, %volume, reason = reason_of(&status), "a mirror's length is not known");
            0
        }
    }
}
