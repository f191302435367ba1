//! The wait of one request for what its session has seen in other datacenters (rule 21).
//!
//! Invariants: only the datacenters that the token names are waited for, all at once and within one bound; nobody is asked:
//! what has arrived is known here.

use futures::future::try_join_all;
use meridian_object::RemoteError;
use meridian_types::Seen;

use crate::driver::Inner;
use crate::error::reason_of;
use crate::service::await_watermark;

/// # Errors
/// `NotFound` for a datacenter that is no member, `Unreachable` with the link that holds it back.
pub(crate) async fn await_seen(inner: &Inner, wanted: &Seen) -> Result<(), RemoteError> {
    let bound = inner.config.limits.session_wait;
    // What this datacenter acknowledged is seen by every read in it.
    let others = wanted.iter().filter(|(origin, _)| *origin != inner.own());
    let waits = others.map(|(origin, through)| async move {
        let Some(source) = inner.sources.get(&origin) else {
            return Err(RemoteError::NotFound { reason: format!("datacenter {origin} is no member of this cluster") });
        };
        let unreachable = |reason| RemoteError::Unreachable { datacenter: source.peer.name.to_string(), reason };
        match await_watermark(inner, origin, through, bound, true).await {
            Ok(reply) if reply.met => Ok(()),
            Ok(reply) => Err(unreachable(reply.reason)),
            Err(status) => Err(unreachable(reason_of(&status))),
        }
    });
    try_join_all(waits).await.map(drop)
}
