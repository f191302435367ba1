//! What the answer to one request lets its client see, and the wait of a request that comes from another datacenter with
//! such a token (rule 21).
//!
//! Reads and proposals note the stamps of what they meet in the request's own record; outside of a request nothing is
//! noted. A listing shows what is absent as well, so it notes all that its partitions have applied.
//!
//! Invariants: whatever an answer shows, tombstones and the catalog included, lies at or below what is noted; noting never
//! fails a request.

use std::cell::RefCell;
use std::future::Future;

use meridian_index::kv::KvRead;
use meridian_index::{ChunkRef, ObjectVersion, queries};
use meridian_replicator::OriginCursor;
use meridian_types::{DatacenterId, Seen, Sequence, Stamp};

use crate::ack::Written;
use crate::{Ack, ObjectError, Objects, RemoteError};

/// The header of a request that waits for what a token names.
pub const AFTER_HEADER: &str = "x-meridian-after";

tokio::task_local! {
    static SEEN: RefCell<Shown>;
}

/// What one request has met and written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shown {
    pub seen: Seen,
    pub(crate) ack: Ack,
    pub(crate) written: Written,
}

/// Runs one request, whose client waits for the word of `ack`, and gives its answer together with what it has seen.
pub async fn recording<T>(ack: Ack, request: impl Future<Output = T>) -> (T, Shown) {
    SEEN.scope(RefCell::new(Shown { ack, ..Shown::default() }), async {
        let answer = request.await;
        (answer, SEEN.with(RefCell::take))
    })
    .await
}

/// What the running request's client waits for.
pub(crate) fn wish() -> Ack {
    SEEN.try_with(|shown| shown.borrow().ack).unwrap_or_default()
}

pub(crate) fn note(stamp: Stamp) {
    let _ = SEEN.try_with(|shown| shown.borrow_mut().seen.note(stamp));
}

/// Notes in how many other datacenters a bucket that the request met keeps its bytes.
pub(crate) fn note_copies(copies: u8) {
    let _ = SEEN.try_with(|shown| {
        let written = &mut shown.borrow_mut().written;
        written.copies = written.copies.max(copies);
    });
}

/// Notes where the bytes of what is being written lie.
pub(crate) fn note_chunks<'a>(chunks: impl IntoIterator<Item = &'a ChunkRef>) {
    let _ = SEEN.try_with(|shown| {
        shown.borrow_mut().written.volumes.extend(chunks.into_iter().map(|chunk| chunk.fid.volume));
    });
}

/// Notes that it is not known where the bytes of what was written lie.
pub(crate) fn note_bytes_anywhere() {
    let _ = SEEN.try_with(|shown| shown.borrow_mut().written.everywhere = true);
}

/// Notes a version and what was changed of it since.
pub(crate) fn note_row(row: &ObjectVersion) {
    note(row.stamp);
    if let Some(annotations) = row.body().and_then(|body| body.annotations.as_deref()) {
        annotations.stamps().for_each(note);
    }
}

/// Notes all that a partition has applied: for answers that show what is absent.
pub(crate) fn note_view(view: &dyn KvRead, own: DatacenterId) {
    let _ = SEEN.try_with(|shown| {
        // The stamps of entries, not closed timestamps: those show nothing, and one that only this datacenter has heard of
        // would hold the session up for as long as its origin is away.
        let Ok(state) = queries::state(view) else { return };
        let head = OriginCursor { incarnation: state.head_incarnation, sequence: Sequence(state.next.0 - 1) };
        let seen = &mut shown.borrow_mut().seen;
        for (origin, last) in state.cursors.iter().chain([(own, head)]) {
            if let Ok(Some(stamp)) = queries::entry_stamp_at(view, origin, last) {
                seen.note(stamp);
            }
        }
    });
}

impl Objects {
    /// Waits until this datacenter shows all that a client has seen elsewhere, by the text of its token.
    ///
    /// # Errors
    /// `InvalidArgument` when it is no token of this cluster; `Unavailable` when it is not here within the bound, with the
    /// link that holds it back.
    pub async fn await_seen(&self, text: &str) -> Result<(), ObjectError> {
        let refused = |reason| ObjectError::InvalidArgument { argument: AFTER_HEADER, reason };
        let wanted = Seen::from_text(text).map_err(|error| refused(format!("is no session token: {error}")))?;
        self.inner.remote.await_seen(&wanted).await.map_err(|error| match error {
            RemoteError::NotFound { reason } => refused(reason),
            RemoteError::Unreachable { datacenter, reason } => ObjectError::unavailable(format!(
                "what this session has seen of datacenter {datacenter} is not here yet: {reason}"
            )),
        })?;
        // A client that keeps only its last token loses nothing.
        let _ = SEEN.try_with(|shown| shown.borrow_mut().seen.merge(&wanted));
        Ok(())
    }
}
