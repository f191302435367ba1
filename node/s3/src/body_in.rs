//! A request's body between hyper and s3s: silences are limited, `aws-chunked` frames kept small.
//!
//! Invariants: time counts only while we wait for the client, not while the client waits for us; the reason of a
//! failure is recorded in the request's context, because s3s passes on no more than a text.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use meridian_edge::Stall;
use s3s::StdError;
use s3s::stream::{ByteStream, RemainingLength};

use crate::chunked::ChunkFrames;
use crate::context::{BodyFault, RequestContext};

/// The body of one request, `B` being hyper's.
pub(crate) struct InboundBody<B> {
    body: B,
    idle: Stall,
    frames: Option<ChunkFrames>,
    ready: VecDeque<Bytes>,
    ended: bool,
    context: Arc<RequestContext>,
}

/// A body that broke off; the context holds the reason too.
#[derive(Debug, thiserror::Error)]
#[error("the request's body broke off: {0:?}")]
pub(crate) struct BrokenBody(pub BodyFault);

impl<B> InboundBody<B> {
    /// `frames` follows an `aws-chunked` body.
    pub fn new(body: B, idle_max: Duration, frames: Option<ChunkFrames>, context: Arc<RequestContext>) -> Self {
        Self { body, idle: Stall::new(idle_max), frames, ready: VecDeque::new(), ended: false, context }
    }

    fn fail(&mut self, fault: BodyFault) -> Poll<Option<Result<Bytes, StdError>>> {
        self.ended = true;
        self.context.set_body_fault(fault.clone());
        Poll::Ready(Some(Err(Box::new(BrokenBody(fault)))))
    }
}

impl<B> Stream for InboundBody<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(bytes) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(bytes)));
            }
            if this.ended {
                return Poll::Ready(None);
            }
            let frame = match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending if this.idle.is_over(cx) => return this.fail(BodyFault::Idle),
                Poll::Pending => return Poll::Pending,
            };
            this.idle.reset();
            let bytes = match frame {
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(), // HTTP trailers mean nothing in S3
                Some(Err(error)) => return this.fail(BodyFault::Disconnected(error.to_string())),
                None => {
                    this.ended = true;
                    this.context.set_body_ended();
                    match this.frames.as_ref().map_or(Ok(()), ChunkFrames::finish) {
                        Ok(()) => continue,
                        Err(fault) => return this.fail(fault),
                    }
                }
            };
            if this.body.is_end_stream() {
                this.context.set_body_ended(); // who has read the last chunk need not ask for more
            }
            match &mut this.frames {
                None if bytes.is_empty() => {}
                None => return Poll::Ready(Some(Ok(bytes))),
                Some(frames) => {
                    if let Err(fault) = frames.feed(bytes, &mut this.ready) {
                        return this.fail(fault);
                    }
                }
            }
        }
    }
}

impl<B> ByteStream for InboundBody<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    fn remaining_length(&self) -> RemainingLength {
        match self.frames {
            None => self.body.size_hint().into(),
            Some(_) => RemainingLength::unknown(), // cutting chunks adds bytes
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunked::ChunkSigning;
    use futures::StreamExt;
    use http_body_util::{Full, StreamBody};

    const IDLE_MAX: Duration = Duration::from_secs(5);

    fn context() -> Arc<RequestContext> {
        RequestContext::new("1".to_owned(), None)
    }

    #[tokio::test]
    async fn a_plain_body_passes_with_its_length() {
        let context = context();
        let body = InboundBody::new(Full::new(Bytes::from_static(b"hello")), IDLE_MAX, None, Arc::clone(&context));
        assert_eq!((body.remaining_length().exact(), context.body_ended()), (Some(5), false));
        let pieces: Vec<Bytes> = body.map(Result::unwrap).collect().await;
        assert_eq!((pieces.concat().as_slice(), context.body_ended()), (b"hello".as_slice(), true));
    }

    #[tokio::test]
    async fn a_body_without_its_terminal_chunk_is_incomplete() {
        let context = context();
        let frames = Some(ChunkFrames::new(ChunkSigning::Unsigned));
        let body = Full::new(Bytes::from_static(b"5\r\nhello\r\n"));
        let mut body = InboundBody::new(body, IDLE_MAX, frames, Arc::clone(&context));
        let mut last = None;
        while let Some(piece) = body.next().await {
            last = Some(piece);
        }
        assert!(last.unwrap().is_err());
        assert_eq!(context.body_fault(), Some(&BodyFault::Incomplete));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_given_up_and_a_slow_server_is_not_blamed_on_it() {
        let context = context();
        let (send, receive) = futures::channel::mpsc::unbounded::<Result<http_body::Frame<Bytes>, std::io::Error>>();
        let mut body = InboundBody::new(StreamBody::new(receive), IDLE_MAX, None, Arc::clone(&context));
        let piece = || Ok(http_body::Frame::data(Bytes::from_static(b"x")));
        send.unbounded_send(piece()).unwrap();
        assert_eq!(body.next().await.unwrap().unwrap(), "x");
        tokio::time::sleep(IDLE_MAX * 3).await; // our own disk was slow
        send.unbounded_send(piece()).unwrap();
        assert_eq!(body.next().await.unwrap().unwrap(), "x");
        let waited = tokio::time::Instant::now();
        assert!(body.next().await.unwrap().is_err());
        assert!(waited.elapsed() >= IDLE_MAX && waited.elapsed() < IDLE_MAX * 2);
        assert_eq!(context.body_fault(), Some(&BodyFault::Idle));
        assert!(body.next().await.is_none());
    }
}
