//! The wait of an answer for the word of other datacenters (rule 25).
//!
//! Invariants: a datacenter counts by what it says itself of its committed watermarks; those who come while this datacenter is
//! being closed share the next closing, so that many waiting writes cost few; nothing is waited for past the bound, but for
//! the grace of the last question.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use meridian_object::RemoteError;
use meridian_types::{DatacenterId, Timestamp};
use tokio::time::Instant;

use crate::driver::{Inner, Replication};
use crate::sources::Source;
use crate::wait::WaitFailure;

/// Pause after a question that failed at once: a link that was broken may be back within the bound.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(200);

impl Replication {
    /// See `RemoteBytes::await_copies`.
    pub(crate) async fn copies(
        &self,
        through: Timestamp,
        holders: &BTreeSet<DatacenterId>,
        needed: usize,
    ) -> Result<(), RemoteError> {
        let inner = &self.inner;
        let until = Instant::now() + inner.config.limits.remote_ack_wait;
        // Without it the others learn only at the next periodic closing that nothing else came before the write.
        let closing = async {
            let _ = tokio::time::timeout_at(until, close_through(inner, through)).await;
        };
        let sources = inner.sources.values();
        let waits: FuturesUnordered<_> =
            sources.map(|source| async move { (source.id(), self.copy_at(source, through, until).await) }).collect();
        futures::join!(closing, counted(waits, holders.clone(), needed)).1
    }

    /// None when that datacenter has it.
    async fn copy_at(&self, source: &Source, through: Timestamp, until: Instant) -> Option<WaitFailure> {
        let (own, name) = (self.inner.own(), self.inner.config.datacenter_name.as_str());
        loop {
            let failure = self.wait_for(own, name, source.id(), source.peer.name.as_str(), through, until).await?;
            if Instant::now() + ASK_AGAIN_AFTER >= until {
                return Some(failure);
            }
            tokio::time::sleep(ASK_AGAIN_AFTER).await;
        }
    }
}

/// Ends with success as soon as enough have it.
async fn counted(
    mut waits: FuturesUnordered<impl Future<Output = (DatacenterId, Option<WaitFailure>)>>,
    mut missing: BTreeSet<DatacenterId>,
    mut needed: usize,
) -> Result<(), RemoteError> {
    let mut failures = Vec::new();
    while !(missing.is_empty() && needed == 0) {
        match waits.next().await {
            Some((datacenter, None)) => {
                missing.remove(&datacenter);
                needed = needed.saturating_sub(1);
            }
            Some((_, Some(failure))) => failures.push(failure),
            None => {
                let names: Vec<&str> = failures.iter().map(|failure| failure.to.as_str()).collect();
                let reasons: Vec<String> =
                    failures.iter().map(|failure| format!("{}: {}", failure.to, failure.reason)).collect();
                return Err(RemoteError::Unreachable { datacenter: names.join(", "), reason: reasons.join("; ") });
            }
        }
    }
    Ok(())
}

/// Tells the others that all up to `through` is told, unless that has been done.
async fn close_through(inner: &Inner, through: Timestamp) {
    let mut closed = inner.closed_for_acks.lock().await;
    if *closed >= through {
        return;
    }
    match inner.close_now().await {
        Ok(now) => *closed = now,
        // The periodic closing goes on, and the wait has its bound.
        Err(error) => tracing::debug!(%error, "this datacenter was not closed for a write that others shall have"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datacenter(id: u8) -> DatacenterId {
        DatacenterId::new(id).unwrap()
    }

    async fn count(have: &[u8], lack: &[u8], holders: &[u8], needed: usize) -> Result<(), RemoteError> {
        let failure = |id: u8| WaitFailure { from: "a".into(), to: format!("dc-{id}"), reason: "cut".into() };
        let waits = have.iter().map(|id| (*id, None)).chain(lack.iter().map(|id| (*id, Some(failure(*id)))));
        let waits = waits.map(|(id, failure)| std::future::ready((datacenter(id), failure))).collect();
        counted(waits, holders.iter().map(|id| datacenter(*id)).collect(), needed).await
    }

    #[tokio::test]
    async fn bytes_count_where_they_are_kept_and_entries_anywhere() {
        assert!(count(&[2], &[3], &[], 1).await.is_ok());
        assert!(count(&[2], &[3], &[2], 1).await.is_ok());
        assert!(count(&[2], &[3], &[3], 1).await.is_err(), "dc-2 has no copy of the bytes");
        assert!(count(&[2], &[3], &[2], 2).await.is_err());
        assert!(count(&[2, 3], &[], &[2, 3], 2).await.is_ok());
        let Err(RemoteError::Unreachable { datacenter, reason }) = count(&[2], &[3, 4], &[], 3).await else {
            panic!("two of three are missing");
        };
        assert!(datacenter.contains("dc-3") && datacenter.contains("dc-4") && reason.contains("cut"), "{reason}");
    }
}
