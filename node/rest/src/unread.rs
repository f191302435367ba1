//! Says when an answer leaves its request's body unread, so that the connection ends with it, and with patience.
//!
//! Invariants: a body that was read to its end changes nothing.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::{HeaderValue, Version, header};
use axum::middleware::Next;
use axum::response::Response;
use http_body::{Frame, SizeHint};
use meridian_linger::Owed;

/// A client that expects `100 Continue` and gets its answer first may send its body or not: nobody can tell.
pub(crate) async fn end_with_unread_body(request: Request, next: Next) -> Response {
    let expects = request.headers().contains_key(header::EXPECT);
    let may_send = request.version() <= Version::HTTP_11 && (expects || !request.body().is_end_stream());
    let Some(owed) = request.extensions().get::<Owed>().cloned().filter(|_| may_send) else {
        return next.run(request).await;
    };
    let ended = Arc::new(AtomicBool::new(false));
    let watched = |body| Body::new(Watched { body, ended: Arc::clone(&ended) });
    let mut response = next.run(request.map(watched)).await;
    if !ended.load(Ordering::Acquire) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        owed.set();
    }
    response
}

/// A body that tells of its end.
struct Watched {
    body: Body,
    ended: Arc<AtomicBool>,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if matches!(polled, Poll::Ready(None)) || this.body.is_end_stream() {
            this.ended.store(true, Ordering::Release);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
