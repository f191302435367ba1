//! What is known of one request, from its headers' arrival to its access-log line. It travels in the request's
//! extensions, through s3s, to the operation.
//!
//! Invariants: set once, by the stage that knows; a body's fault is the first one that happened.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use meridian_edge::Peer;
use meridian_object::BucketRow;

use crate::config::Principal;

/// Why a request's body could not be taken whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BodyFault {
    /// No byte for longer than the limit.
    Idle,
    /// Fewer bytes than announced, or no terminal chunk.
    Incomplete,
    /// `aws-chunked` frames that do not parse, or trailers that do not.
    Framing,
    /// One signed chunk larger than the limit.
    ChunkTooLarge,
    /// More bytes than announced.
    TooLong,
    PayloadHash,
    ChunkSignature,
    /// The connection broke.
    Disconnected(String),
}

/// Ids that are unique in this process and hard to foresee.
pub(crate) struct RequestIds {
    seed: RandomState,
    next: AtomicU64,
}

impl RequestIds {
    pub fn new() -> Self {
        Self { seed: RandomState::new(), next: AtomicU64::new(0) }
    }

    /// 16 hex digits, as S3's are.
    pub fn next(&self) -> String {
        format!("{:016X}", self.seed.hash_one(self.next.fetch_add(1, Ordering::Relaxed)))
    }
}

/// One request.
#[derive(Debug)]
pub(crate) struct RequestContext {
    pub id: String,
    operation: OnceLock<String>,
    principal: OnceLock<Arc<Principal>>,
    /// Where the connection comes from.
    pub peer: Option<IpAddr>,
    /// Whether it came over TLS.
    pub secure: bool,
    /// The XML body, for decisions that depend on it.
    xml: OnceLock<Bytes>,
    /// The bucket that the request was decided on.
    bucket: OnceLock<BucketRow>,
    /// Of a DeleteObjects the places of the keys that may not be deleted.
    denied: OnceLock<HashSet<usize>>,
    /// The bucket and key that the request names, of no consequence but in its answer.
    names: OnceLock<(String, String)>,
    /// The condition that did not hold, by its header.
    condition: OnceLock<&'static str>,
    body_fault: OnceLock<BodyFault>,
    body_ended: AtomicBool,
}

impl RequestContext {
    pub fn new(id: String, peer: Option<Peer>) -> Arc<Self> {
        Arc::new(Self {
            id,
            peer: peer.map(|peer| peer.address.ip()),
            secure: peer.is_some_and(|peer| peer.is_secure()),
            xml: OnceLock::new(),
            bucket: OnceLock::new(),
            denied: OnceLock::new(),
            operation: OnceLock::new(),
            principal: OnceLock::new(),
            names: OnceLock::new(),
            condition: OnceLock::new(),
            body_fault: OnceLock::new(),
            body_ended: AtomicBool::new(false),
        })
    }

    /// `"-"` until the request is routed.
    pub fn operation(&self) -> &str {
        self.operation.get().map_or("-", String::as_str)
    }

    pub fn set_operation(&self, name: &str) {
        let _ = self.operation.set(name.to_owned());
    }

    pub fn principal(&self) -> Option<&Arc<Principal>> {
        self.principal.get()
    }

    pub fn set_principal(&self, principal: Arc<Principal>) {
        let _ = self.principal.set(principal);
    }

    pub fn xml(&self) -> Option<&Bytes> {
        self.xml.get()
    }

    pub fn set_xml(&self, body: Bytes) {
        let _ = self.xml.set(body);
    }

    pub fn bucket(&self) -> Option<&BucketRow> {
        self.bucket.get()
    }

    pub fn set_bucket(&self, row: BucketRow) {
        let _ = self.bucket.set(row);
    }

    /// Whether the key at this place of a DeleteObjects may not be deleted.
    pub fn is_denied(&self, place: usize) -> bool {
        self.denied.get().is_some_and(|denied| denied.contains(&place))
    }

    pub fn set_denied(&self, places: HashSet<usize>) {
        let _ = self.denied.set(places);
    }

    pub fn names(&self) -> Option<&(String, String)> {
        self.names.get()
    }

    pub fn set_names(&self, bucket: String, key: String) {
        let _ = self.names.set((bucket, key));
    }

    pub fn condition(&self) -> Option<&'static str> {
        self.condition.get().copied()
    }

    pub fn set_condition(&self, header: &'static str) {
        let _ = self.condition.set(header);
    }

    pub fn body_fault(&self) -> Option<&BodyFault> {
        self.body_fault.get()
    }

    /// The first fault stays: later ones are its consequences.
    pub fn set_body_fault(&self, fault: BodyFault) {
        let _ = self.body_fault.set(fault);
    }

    /// Whether the body was read to its end; a body that nobody read was not.
    pub fn body_ended(&self) -> bool {
        self.body_ended.load(Ordering::Acquire)
    }

    pub fn set_body_ended(&self) {
        self.body_ended.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_and_have_sixteen_digits() {
        let ids = RequestIds::new();
        let mut seen: Vec<String> = (0..1000).map(|_| ids.next()).collect();
        assert!(seen.iter().all(|id| id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit())));
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 1000);
    }

    #[test]
    fn the_first_fault_of_a_body_stays() {
        let context = RequestContext::new("1".to_owned(), None);
        context.set_body_fault(BodyFault::Idle);
        context.set_body_fault(BodyFault::Incomplete);
        assert_eq!((context.body_fault(), context.operation()), (Some(&BodyFault::Idle), "-"));
    }
}
