//! chitchat's transport over one UDP socket, every datagram sealed.
//!
//! Invariants: neither `send` nor `recv` ever returns an error, because one from `recv` ends the gossip task for good
//! and one from `send` fills the log each second while a peer is away; both count instead. `recv` may be dropped
//! at its await without losing a datagram that it has taken from the socket.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use chitchat::transport::{Socket, Transport};
use chitchat::{ChitchatMessage, Deserializable, Serializable};
use parking_lot::Mutex;
use tokio::net::UdpSocket;
use tracing::debug;

use crate::counters::{DropReason, GossipCounters};
use crate::membership::WallClock;
use crate::seal::{DATAGRAM_SIZE_MAX, Opener, Sealer};

/// A socket that fails is asked again after this long, so that a broken one does not cost a core.
const RECEIVE_BACKOFF: Duration = Duration::from_millis(100);

/// Hands one bound socket to chitchat. It is bound before, so that its port is known when chitchat starts.
pub(crate) struct SealedTransport(Mutex<Option<SealedSocket>>);

impl SealedTransport {
    pub(crate) fn new(
        socket: UdpSocket,
        sealer: Sealer,
        opener: Opener,
        clock: WallClock,
        counters: Arc<GossipCounters>,
    ) -> Self {
        // One byte more than the largest datagram, so that one cut by the socket is told from one that fits.
        let buffer = vec![0; DATAGRAM_SIZE_MAX + 1];
        Self(Mutex::new(Some(SealedSocket { socket, sealer, opener, clock, counters, buffer, plain: Vec::new() })))
    }
}

#[async_trait]
impl Transport for SealedTransport {
    async fn open(&self, _listen: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let socket = self.0.lock().take().context("the gossip socket is opened once")?;
        Ok(Box::new(socket))
    }
}

struct SealedSocket {
    socket: UdpSocket,
    sealer: Sealer,
    opener: Opener,
    clock: WallClock,
    counters: Arc<GossipCounters>,
    buffer: Vec<u8>,
    plain: Vec<u8>,
}

impl SealedSocket {
    fn take(&mut self, length: usize) -> Result<Option<ChitchatMessage>, DropReason> {
        let Some(message) = self.opener.open((self.clock)(), &mut self.buffer[..length])? else {
            return Ok(None);
        };
        let mut rest = &message[..];
        let message = ChitchatMessage::deserialize(&mut rest).map_err(|_| DropReason::Malformed)?;
        if rest.is_empty() { Ok(Some(message)) } else { Err(DropReason::Malformed) }
    }
}

#[async_trait]
impl Socket for SealedSocket {
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        self.plain.clear();
        message.serialize(&mut self.plain);
        let datagrams = match self.sealer.seal((self.clock)(), &self.plain) {
            Ok(datagrams) => datagrams,
            Err(error) => {
                self.counters.count_send_failed();
                debug!(%to, %error, "gossip message not sealed");
                return Ok(());
            }
        };
        for datagram in datagrams {
            match self.socket.send_to(&datagram, to).await {
                Ok(_) => self.counters.count_sent(),
                Err(error) => {
                    self.counters.count_send_failed();
                    debug!(%to, %error, "gossip datagram not sent");
                }
            }
        }
        Ok(())
    }

    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        loop {
            let (length, from) = match self.socket.recv_from(&mut self.buffer).await {
                Ok(received) => received,
                Err(error) => {
                    // An ICMP "port unreachable" of a peer that is away comes out here too.
                    self.counters.count_receive_failed();
                    debug!(%error, "gossip socket failed to receive");
                    tokio::time::sleep(RECEIVE_BACKOFF).await;
                    continue;
                }
            };
            self.counters.count_received();
            match self.take(length) {
                Ok(Some(message)) => return Ok((from, message)),
                Ok(None) => {}
                Err(reason) => {
                    self.counters.count_dropped(reason);
                    debug!(%from, reason = reason.name(), length, "gossip datagram dropped");
                }
            }
        }
    }
}
