//! Closes a connection whose client may still be sending, so that the client reads its answer.
//!
//! A gateway that refuses a request early answers and closes. If bytes of the client's arrive after that, its kernel is
//! told that nobody wants them, and throws away the answer that it had received: the client sees a broken pipe. So the
//! sending half is closed first, and what still arrives is read and thrown away for a while (RFC 9112 §9.6).
//!
//! It does not decide when to do so: whoever answers says through `Owed` that a body was left unread.
//!
//! Invariants: after `LINGER_TIME_MAX` or `LINGER_SIZE_MAX` bytes the connection ends, whatever the client does; nothing
//! is kept of what is read; a connection that owes no body ends at once.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// How long a connection is kept for a client that goes on sending or does not close.
pub const LINGER_TIME_MAX: Duration = Duration::from_secs(10);
/// Most bytes that are thrown away: more than any client sends ahead of an answer that it looks for.
pub const LINGER_SIZE_MAX: u64 = 64 << 20;
/// Bytes read at once.
const PIECE_SIZE: usize = 16 << 10;
/// Pieces of one turn, after which others get theirs.
const PIECES_PER_TURN: u32 = 16;

/// Whether the client of a connection may still be sending a body that nobody will read.
#[derive(Debug, Clone, Default)]
pub struct Owed(Arc<AtomicBool>);

impl Owed {
    /// The answer that is being given leaves a body unread: the connection ends with it.
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// `S`, closed with patience when it must be.
#[derive(Debug)]
pub struct Linger<S> {
    stream: S,
    owed: Owed,
    end: End,
}

#[derive(Debug)]
enum End {
    NotYet,
    /// Our half is closed; the client's is read until then, and for so many bytes more.
    Draining {
        until: Pin<Box<Sleep>>,
        left: u64,
    },
    Done,
}

impl<S> Linger<S> {
    /// Gives what says through `owed` that there is something to wait for.
    pub fn new(stream: S, owed: Owed) -> Self {
        Self { stream, owed, end: End::NotYet }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Linger<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Linger<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if matches!(this.end, End::NotYet) {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            let until = Box::pin(tokio::time::sleep(LINGER_TIME_MAX));
            this.end = if this.owed.is_set() { End::Draining { until, left: LINGER_SIZE_MAX } } else { End::Done };
        }
        if let End::Draining { until, left } = &mut this.end {
            ready!(drain(&mut this.stream, until.as_mut(), left, cx));
            this.end = End::Done;
        }
        Poll::Ready(Ok(()))
    }
}

/// Ready when the client has closed, or has had its time or bytes.
fn drain<S: AsyncRead + Unpin>(
    stream: &mut S,
    until: Pin<&mut Sleep>,
    left: &mut u64,
    cx: &mut Context<'_>,
) -> Poll<()> {
    if until.poll(cx).is_ready() {
        return Poll::Ready(());
    }
    let mut piece = [std::mem::MaybeUninit::uninit(); PIECE_SIZE];
    for _ in 0..PIECES_PER_TURN {
        let mut buffer = ReadBuf::uninit(&mut piece);
        match ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer)) {
            Ok(()) if !buffer.filled().is_empty() => *left = left.saturating_sub(buffer.filled().len() as u64),
            Ok(()) | Err(_) => return Poll::Ready(()), // it has closed, or is gone
        }
        if *left == 0 {
            return Poll::Ready(());
        }
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::Instant;

    use super::*;

    /// A client that sends `size` bytes and then reads its answer, and how long the other side took to close.
    async fn exchange(size: usize, owed: bool, closes: bool) -> (io::Result<Vec<u8>>, Duration) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let client = tokio::spawn(async move {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(&vec![0; size]).await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            if !closes {
                std::future::pending::<()>().await;
            }
            Ok(answer)
        });
        let (stream, _) = listener.accept().await.unwrap();
        let flag = Owed::default();
        let mut stream = Linger::new(stream, flag.clone());
        let mut head = [0; 1];
        stream.read_exact(&mut head).await.unwrap();
        if owed {
            flag.set();
        }
        stream.write_all(b"refused").await.unwrap();
        let started = Instant::now();
        stream.shutdown().await.unwrap();
        drop(stream);
        let took = started.elapsed();
        let answer = if closes { client.await.unwrap() } else { Ok(Vec::new()) };
        (answer, took)
    }

    #[tokio::test]
    async fn a_client_that_sends_on_still_reads_its_answer() {
        let (answer, _) = exchange(32 << 20, true, true).await;
        assert_eq!(answer.unwrap(), b"refused");
    }

    #[tokio::test]
    async fn without_patience_such_a_client_reads_nothing() {
        let (answer, _) = exchange(32 << 20, false, true).await;
        assert!(answer.is_err(), "this test shows what the patience is for");
    }

    #[tokio::test]
    async fn too_many_bytes_end_it() {
        let (answer, took) = exchange(LINGER_SIZE_MAX as usize + (32 << 20), true, true).await;
        assert!(answer.is_err() && took < LINGER_TIME_MAX, "{answer:?} after {took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn time_ends_it_and_what_owes_nothing_ends_at_once() {
        let (client, server) = tokio::io::duplex(64);
        let owed = Owed::default();
        let mut waiting = Linger::new(server, owed.clone());
        owed.set();
        let started = Instant::now();
        waiting.shutdown().await.unwrap();
        assert_eq!(started.elapsed(), LINGER_TIME_MAX);
        drop(client);
        let (_client, server) = tokio::io::duplex(64);
        let started = Instant::now();
        Linger::new(server, Owed::default()).shutdown().await.unwrap();
        assert_eq!(started.elapsed(), Duration::ZERO);
    }
}
