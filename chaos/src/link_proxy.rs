//! A link between datacenters that a test can cut, slow down and break: a TCP proxy on loopback, scripted at run time.
//!
//! It stands between one node and one address of another: the node's configuration names the proxy's address in its
//! place. Each accepted connection gets one of its own to the target, and whatever happens to the link happens to both
//! directions apart. The proxy knows TCP only, so TLS passes through it untouched. It needs no privileges. It loses no
//! single packets and reorders none: TCP would hide that, and the simulation has it.
//!
//! ```text
//!   who connects ──▶ [ take ─▶ pieces, due ─▶ flow? ─▶ pace ─▶ deliver ] ──▶ target      forward
//!                ◀── [ deliver ◀─ pace ◀─ flow? ◀─ pieces, due ◀─ take ] ◀──             backward
//! ```
//!
//! Invariants: a direction of a connection buffers at most `BUFFER_SIZE_MAX` bytes, a proxy has at most
//! `CONNECTIONS_MAX` connections; bytes come out in order and unchanged or not at all, and nothing follows a hole;
//! no connection is established while a direction is cut, because TCP's handshake needs both; dropping the proxy ends
//! everything it has started.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

mod control;
mod counters;
mod pacer;
mod pump;
#[cfg(test)]
mod tests;

pub use control::{Direction, Flow, LinkControl};
pub use counters::{DirectionCounters, LinkCounters};

use control::Settings;
use counters::Tally;
use pacer::Pacer;
use pump::{Broken, Pump};

/// Bytes on their way in one direction of one connection. Above the bandwidth-delay product of 50 Mbit/s and 150 ms.
pub const BUFFER_SIZE_MAX: usize = 1 << 20;
/// Connections of one proxy, those that nobody answers included. Past it, new ones wait unaccepted.
pub const CONNECTIONS_MAX: usize = 1024;
/// What a client may send before its connection is established; the rest waits in its socket.
const EARLY_SIZE_MAX: usize = 16 << 10;
/// After a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// A running proxy.
pub struct LinkProxy {
    address: SocketAddr,
    control: LinkControl,
    accepting: JoinHandle<()>,
}

/// What all connections of a proxy share.
struct Link {
    target: SocketAddr,
    settings: watch::Sender<Settings>,
    tally: Tally,
    forward: Pacer,
    backward: Pacer,
}

impl LinkProxy {
    /// Listens on a free port of 127.0.0.1 and passes everything on to `target`; it need not be there yet.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let link = Arc::new(Link {
            target,
            settings: watch::Sender::new(Settings::default()),
            tally: Tally::default(),
            forward: Pacer::default(),
            backward: Pacer::default(),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&link)));
        Ok(Self { address, control: LinkControl::new(link), accepting })
    }

    /// Where to connect to instead of the target.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the link; clones of it may be kept, and do nothing once the proxy is gone.
    pub fn control(&self) -> &LinkControl {
        &self.control
    }
}

impl Drop for LinkProxy {
    fn drop(&mut self) {
        self.accepting.abort(); // and with it the set of its connections
    }
}

async fn accept(listener: TcpListener, link: Arc<Link>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
        let Ok((client, _)) = listener.accept().await else {
            // The connection was gone before it was accepted, or the process is out of descriptors: others end first.
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let link = Arc::clone(&link);
        connections.spawn(async move {
            let _open = link.tally.opened();
            serve(client, &link).await;
            drop(place);
        });
    }
}

/// Carries one connection to its end.
async fn serve(mut client: TcpStream, link: &Link) {
    let _ = client.set_nodelay(true);
    let settings = link.settings.subscribe();
    let (resets, is_blackhole) = {
        let now = settings.borrow();
        (now.resets, now.is_blackhole)
    };
    let mut reset = settings.clone();
    let mut server = None;
    let is_broken = tokio::select! {
        _ = reset.wait_for(|now| now.resets != resets) => true,
        ended = async {
            if is_blackhole {
                swallow(&mut client, link).await;
                return Ok(());
            }
            let Some(early) = establish(&mut client, link, settings).await else { return Ok(()) };
            let connected = match TcpStream::connect(link.target).await {
                Ok(connected) => server.insert(connected),
                Err(_) => {
                    link.tally.unreachable();
                    return Err(Broken);
                }
            };
            let _ = connected.set_nodelay(true);
            let (client_read, client_write) = client.split();
            let (server_read, server_write) = connected.split();
            let forward = Pump::new(link, Direction::Forward).carry(early, client_read, server_write);
            let backward = Pump::new(link, Direction::Backward).carry(Vec::new(), server_read, client_write);
            tokio::try_join!(forward, backward).map(|_| ())
        } => ended.is_err(),
    };
    if is_broken {
        for stream in [Some(&client), server.as_ref()].into_iter().flatten() {
            let _ = stream.set_zero_linger(); // closing it sends RST
        }
    }
}

/// Reads and forgets until the client goes.
async fn swallow(client: &mut TcpStream, link: &Link) {
    let mut rest = vec![0; EARLY_SIZE_MAX];
    loop {
        match read_some(client, &mut rest).await {
            Ok(0) | Err(_) => return,
            Ok(length) => {
                link.tally.of(Direction::Forward).took(length);
                link.tally.of(Direction::Forward).lost(length);
            }
        }
    }
}

/// Waits until both directions are open and the handshake's round trip is over. Returns what the client has sent by
/// then, or None when it is gone.
async fn establish(client: &mut TcpStream, link: &Link, mut settings: watch::Receiver<Settings>) -> Option<Vec<u8>> {
    let mut early = vec![0; EARLY_SIZE_MAX];
    let mut length = 0;
    let handshake = async {
        loop {
            let now = *settings.wait_for(Settings::is_open).await.ok()?;
            tokio::time::sleep(now.forward.delay + now.backward.delay).await;
            if settings.borrow().is_open() {
                return Some(());
            }
        }
    };
    tokio::pin!(handshake);
    loop {
        tokio::select! {
            done = &mut handshake => {
                done?;
                early.truncate(length);
                return Some(early);
            }
            read = read_some(client, &mut early[length..]), if length < EARLY_SIZE_MAX => match read {
                Ok(0) | Err(_) => return None,
                Ok(more) => {
                    link.tally.of(Direction::Forward).took(more);
                    length += more;
                }
            }
        }
    }
}

/// Reads what is there; loses nothing when it is cancelled.
async fn read_some(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        stream.ready(Interest::READABLE).await?;
        match stream.try_read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => return read,
        }
    }
}
