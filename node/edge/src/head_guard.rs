//! A connection's byte stream, guarded: framing that two parsers could read differently is answered 400 and the
//! connection closed; a first request that never arrives, or a client that takes no byte of its answer, is cut off.
//!
//! hyper answers the 400: at a violation the guard hands it a line that no parser takes, instead of the client's
//! bytes, and then the end of the stream.
//!
//! Invariants: bytes of a request whose framing is in doubt never reach hyper past the doubt.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::framing::Framing;

/// NUL stands in no header's name.
const POISON: &[u8] = b"\r\n\0\r\n\r\n";

/// `S` with its framing watched and its stalls limited.
pub(crate) struct HeadGuard<S> {
    stream: S,
    framing: Framing,
    /// What hyper still gets instead of the client's bytes; `Some` from a violation on.
    poison: Option<&'static [u8]>,
    /// Runs until the first request's head is complete; hyper's own timer covers the later ones, but not the time
    /// in which it tells HTTP/1 from HTTP/2.
    first_head: Option<Pin<Box<Sleep>>>,
    write_stall: Stall,
}

impl<S> HeadGuard<S> {
    pub fn new(stream: S, first_head_timeout: Duration, write_stall_timeout: Duration) -> Self {
        Self {
            stream,
            framing: Framing::new(),
            poison: None,
            first_head: Some(Box::pin(tokio::time::sleep(first_head_timeout))),
            write_stall: Stall::new(write_stall_timeout),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HeadGuard<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(poison) = &mut this.poison {
            give(poison, buffer);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        if Pin::new(&mut this.stream).poll_read(cx, buffer)?.is_pending() {
            let late = this.first_head.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready());
            return if late { Poll::Ready(Err(io::ErrorKind::TimedOut.into())) } else { Poll::Pending };
        }
        if let Err((intact, violation)) = this.framing.feed(&mut buffer.filled_mut()[before..]) {
            tracing::debug!(?violation, "refused a request's framing");
            buffer.set_filled(before + intact);
            give(this.poison.insert(POISON), buffer);
        }
        if this.framing.heads() > 0 {
            this.first_head = None;
        }
        Poll::Ready(Ok(()))
    }
}

fn give(poison: &mut &'static [u8], buffer: &mut ReadBuf<'_>) {
    let (now, later) = poison.split_at(poison.len().min(buffer.remaining()));
    buffer.put_slice(now);
    *poison = later;
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HeadGuard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.write_stall.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.write_stall.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let flushed = Pin::new(&mut this.stream).poll_flush(cx);
        this.write_stall.watch(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let shut = Pin::new(&mut this.stream).poll_shutdown(cx);
        this.write_stall.watch(cx, shut)
    }
}

/// Fails what stays pending longer than its limit.
pub struct Stall {
    limit: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    pending: bool,
}

impl Stall {
    pub fn new(limit: Duration) -> Self {
        Self { limit, timer: None, pending: false }
    }

    /// Passes `poll` on, unless nothing came of it for too long.
    pub fn watch<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.pending = false;
            return poll;
        }
        if self.is_over(cx) { Poll::Ready(Err(io::ErrorKind::TimedOut.into())) } else { Poll::Pending }
    }

    /// To be asked whenever there is nothing: the time runs from the first ask after `reset`.
    pub fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        let limit = self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        if !std::mem::replace(&mut self.pending, true) {
            timer.as_mut().reset(Instant::now() + limit);
        }
        timer.as_mut().poll(cx).is_ready()
    }

    pub fn reset(&mut self) {
        self.pending = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const LONG: Duration = Duration::from_secs(3600);
    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    async fn through(bytes: &[u8], read_size: usize) -> Vec<u8> {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        client.write_all(bytes).await.unwrap();
        drop(client);
        let mut guard = HeadGuard::new(server, LONG, LONG);
        let mut seen = Vec::new();
        loop {
            let mut piece = vec![0; read_size];
            match guard.read(&mut piece).await.unwrap() {
                0 => return seen,
                size => seen.extend_from_slice(&piece[..size]),
            }
        }
    }

    #[tokio::test]
    async fn plain_requests_pass_unchanged() {
        let two = [GET, GET].concat();
        for size in [1, 7, 4096] {
            assert_eq!(through(&two, size).await, two);
        }
    }

    #[tokio::test]
    async fn what_follows_a_violation_is_replaced_by_poison_and_the_end() {
        let smuggled = b"PUT / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /secret";
        for size in [1, 7, 4096] {
            let seen = through(smuggled, size).await;
            assert!(seen.ends_with(POISON), "{seen:?}");
            assert!(!seen.windows(6).any(|window| window == b"secret"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_request_that_never_arrives_is_cut_off() {
        let (mut client, server) = tokio::io::duplex(64);
        client.write_all(b"P").await.unwrap();
        let mut guard = HeadGuard::new(server, Duration::from_secs(5), LONG);
        let mut piece = [0; 64];
        assert_eq!(guard.read(&mut piece).await.unwrap(), 1);
        assert_eq!(guard.read(&mut piece).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_cut_off_and_a_slow_one_is_not() {
        let (mut client, server) = tokio::io::duplex(8);
        let mut guard = HeadGuard::new(server, LONG, Duration::from_secs(5));
        let slow = tokio::spawn(async move {
            let mut seen = 0;
            while seen < 64 {
                tokio::time::sleep(Duration::from_secs(3)).await;
                seen += client.read(&mut [0; 8]).await.unwrap();
            }
            client
        });
        guard.write_all(&[0; 64]).await.unwrap();
        let _open = slow.await.unwrap();
        guard.write_all(&[0; 8]).await.unwrap();
        assert_eq!(guard.write_all(&[0; 64]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
