//! One direction of one connection: takes bytes from a sender, lets them travel, and delivers them.
//!
//! Ends travel like bytes: a FIN or an RST reaches the other side after what was sent before it, and waits or is lost
//! with it.
//!
//! Invariants: at most `BUFFER_SIZE_MAX` bytes and `PIECES_MAX` pieces are on their way; nothing is delivered behind a
//! hole; a receiver that is gone does not stop the sender from being read.

use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::Instant;

use super::control::{Direction, Flow, Settings};
use super::counters::DirectionTally;
use super::pacer::Pacer;
use super::{BUFFER_SIZE_MAX, Link};

/// Most bytes of one piece: small enough that a slow line is shared fairly.
const PIECE_SIZE_MAX: usize = 16 << 10;
/// Most pieces on their way, so that a stream of single bytes is bounded too.
const PIECES_MAX: usize = 4096;

/// A connection that ends with RST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broken;

/// What travels.
enum Content {
    Bytes(Bytes),
    /// The sender will send no more.
    End,
    /// The sender has broken the connection.
    Reset,
}

struct Piece {
    due: Instant,
    content: Content,
    _room: Option<OwnedSemaphorePermit>,
}

enum Passage {
    Through,
    Lost,
}

/// See the module.
pub(super) struct Pump<'a> {
    direction: Direction,
    settings: watch::Receiver<Settings>,
    tally: &'a DirectionTally,
    pacer: &'a Pacer,
}

impl<'a> Pump<'a> {
    pub fn new(link: &'a Link, direction: Direction) -> Self {
        let pacer = match direction {
            Direction::Forward => &link.forward,
            Direction::Backward => &link.backward,
        };
        Self { direction, settings: link.settings.subscribe(), tally: link.tally.of(direction), pacer }
    }

    /// Carries what was sent before this, then everything to the sender's end.
    pub async fn carry(self, early: Vec<u8>, from: ReadHalf<'_>, to: WriteHalf<'_>) -> Result<(), Broken> {
        let (sender, receiver) = mpsc::channel(PIECES_MAX);
        let taker = Taker { direction: self.direction, settings: self.settings.clone(), tally: self.tally, sender };
        tokio::try_join!(taker.take(early, from), self.deliver(receiver, to)).map(|_| ())
    }

    async fn deliver(mut self, mut pieces: mpsc::Receiver<Piece>, mut to: WriteHalf<'_>) -> Result<(), Broken> {
        let mut has_hole = false;
        let mut is_receiver_gone = false;
        while let Some(piece) = pieces.recv().await {
            tokio::time::sleep_until(piece.due).await;
            let size = match &piece.content {
                Content::Bytes(bytes) => bytes.len(),
                Content::End | Content::Reset => 0,
            };
            if has_hole || matches!(self.pass(size).await, Passage::Lost) {
                has_hole = true;
                self.tally.lost(size);
                continue;
            }
            match piece.content {
                Content::Bytes(bytes) if !is_receiver_gone && to.write_all(&bytes).await.is_ok() => {
                    self.tally.delivered(size);
                }
                // Its own pump tells the sender, by way of the other direction.
                Content::Bytes(_) => {
                    is_receiver_gone = true;
                    self.tally.lost(size);
                }
                Content::End => drop(to.shutdown().await),
                Content::Reset => return Err(Broken),
            }
        }
        Ok(())
    }

    /// Waits for the link to let `size` bytes through.
    async fn pass(&mut self, size: usize) -> Passage {
        loop {
            let way = *self.settings.borrow_and_update().way(self.direction);
            let turn = match (way.flow, way.bytes_per_s_max) {
                (Flow::Lost, _) => return Passage::Lost,
                (Flow::Open, None) => return Passage::Through,
                (Flow::Open, Some(rate)) => Some(self.pacer.reserve(Instant::now(), size, rate)),
                (Flow::Held, _) => None,
            };
            tokio::select! {
                // Whatever has changed, it is looked at anew.
                _ = self.settings.changed() => {}
                () = async { tokio::time::sleep_until(turn.expect("guarded")).await }, if turn.is_some() => {
                    return Passage::Through;
                }
            }
        }
    }
}

/// The sender's side.
struct Taker<'a> {
    direction: Direction,
    settings: watch::Receiver<Settings>,
    tally: &'a DirectionTally,
    sender: mpsc::Sender<Piece>,
}

impl Taker<'_> {
    async fn take(self, early: Vec<u8>, mut from: ReadHalf<'_>) -> Result<(), Broken> {
        let room = Arc::new(Semaphore::new(BUFFER_SIZE_MAX));
        if !early.is_empty() {
            self.send(Content::Bytes(early.into()), None).await; // counted when it came; at most EARLY_SIZE_MAX more
        }
        let mut buffer = vec![0; PIECE_SIZE_MAX];
        loop {
            let place = Arc::clone(&room).acquire_many_owned(PIECE_SIZE_MAX as u32).await;
            let mut place = place.expect("the semaphore is never closed");
            match from.read(&mut buffer).await {
                Ok(0) => {
                    self.send(Content::End, None).await;
                    return Ok(());
                }
                Ok(length) => {
                    self.tally.took(length);
                    drop(place.split(PIECE_SIZE_MAX - length));
                    self.send(Content::Bytes(Bytes::copy_from_slice(&buffer[..length])), Some(place)).await;
                }
                Err(_) => {
                    self.send(Content::Reset, None).await;
                    return Ok(());
                }
            }
        }
    }

    async fn send(&self, content: Content, room: Option<OwnedSemaphorePermit>) {
        let due = Instant::now() + self.settings.borrow().way(self.direction).delay;
        let piece = Piece { due, content, _room: room };
        let sent = self.sender.send(piece).await;
        assert!(sent.is_ok(), "the deliverer takes pieces to the end");
    }
}
