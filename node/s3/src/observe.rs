//! What is told about each request when its answer's headers are ready: for metrics.

use std::time::Duration;

/// Told once a request, after the handler has answered and before the body is sent.
pub trait RequestObserver: Send + Sync + 'static {
    fn observe(&self, report: &RequestReport<'_>);
}

#[derive(Debug, Clone)]
pub struct RequestReport<'a> {
    /// S3's name of the operation; `"-"` when the request never became one.
    pub operation: &'a str,
    /// HTTP status of the answer.
    pub status: u16,
    /// From the end of the request's headers to the answer's headers.
    pub latency: Duration,
    /// Bytes announced by the request, if it says so.
    pub request_bytes: Option<u64>,
    /// Bytes announced by the answer, if it says so.
    pub response_bytes: Option<u64>,
}
