//! The bulk port: needles for proxied reads and ranges of volumes for mirrors, to nodes of the cluster only.
//!
//! ```text
//! GET /v1/needle/FID?from=N&to=N             bytes of a needle's data, verified before they leave
//! GET /v1/prefix/FID?size=N                  the size of a needle's data (u32, little-endian), then its first bytes, at most N
//! DELETE /v1/needle/FID                      deletes it on this node; 404 when it is not here
//! GET /v1/volume/ID/GENERATION?offset=N&length=N[&wait_ms=N]   bytes of the volume's file below its committed length
//!                                            (rule 2); at that length it waits for more, and may answer with nothing
//! ANY /v1/s3/…                                a request of a client of another datacenter: `forward`
//! POST /v1/replica/…                         between the replicas of a datacenter's volumes: `node/replica`
//! ```
//!
//! A range's answer says in `meridian-committed` how far the volume is committed.
//!
//! It reads only what lies on this node: a proxied request is never proxied again. 404: not here. 409: another
//! generation of the file. 416: past the committed length. 503: anything else, with the reason as text.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use meridian_replica::{PATH_PREFIX, PeerHandler};
use meridian_types::limits::NEEDLE_SIZE_MAX;
use meridian_types::{Fid, FileGeneration, VolumeId};
use meridian_volume::{VolumeError, VolumeSet, VolumeStatus};
use meridian_wire::Listener;
use meridian_wire::tls::{HANDSHAKE_TIMEOUT, Identity};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use crate::forward::{FORWARD_PREFIX, unwrapped};

/// Connections at the bulk port.
const CONNECTIONS_MAX: usize = 256;
/// How long a connection may take to send a request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long requests in flight may go on at shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
/// Longest time that a range waits for bytes, whatever is asked.
pub const RANGE_WAIT_MAX: Duration = Duration::from_secs(10);
/// How far the volume of a range is committed.
pub const COMMITTED_HEADER: &str = "meridian-committed";
/// Largest range of a volume in one answer.
pub const RANGE_BYTES_MAX: usize = NEEDLE_SIZE_MAX + (64 << 10);

/// Serves the bulk port until `shutdown`.
pub async fn serve_bulk(
    listener: impl Listener,
    identity: &Identity,
    volumes: Arc<VolumeSet>,
    replicas: PeerHandler,
    forwarded: ForwardHandler,
    shutdown: impl Future<Output = ()>,
) {
    let acceptor = TlsAcceptor::from(identity.rustls_server());
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    let (stop, _) = watch::channel(false);
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut shutdown => break,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "accept at the bulk port");
                tokio::time::sleep(Duration::from_millis(50)).await; // EMFILE: give others time to close
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            tracing::warn!(limit = CONNECTIONS_MAX, "the bulk port is full; a connection is refused");
            continue;
        };
        let (acceptor, volumes, watcher) = (acceptor.clone(), Arc::clone(&volumes), graceful.watcher());
        let stopping = stop.subscribe();
        let (replicas, forwarded) = (Arc::clone(&replicas), Arc::clone(&forwarded));
        tokio::spawn(async move {
            let _permit = permit;
            let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake at the bulk port failed"),
                Err(_) => return tracing::debug!("a TLS handshake at the bulk port took too long"),
            };
            let certificates = stream.get_ref().1.peer_certificates();
            let certificate = certificates.and_then(|chain| chain.first()).map(|leaf| leaf.clone().into_owned());
            let service = service_fn(move |request: Request<Incoming>| {
                let (volumes, stopping) = (Arc::clone(&volumes), stopping.clone());
                let (replicas, certificate) = (Arc::clone(&replicas), certificate.clone());
                let forwarded = Arc::clone(&forwarded);
                async move {
                    Ok::<_, Infallible>(if request.uri().path().starts_with(PATH_PREFIX) {
                        replicas(certificate, request).await
                    } else if request.uri().path().starts_with(FORWARD_PREFIX) {
                        answer_forwarded(&forwarded, request).await
                    } else {
                        answer(&volumes, &request, stopping).await
                    })
                }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = watcher.watch(connection).await {
                tracing::debug!(%error, "a bulk connection ended");
            }
        });
    }
    stop.send_replace(true); // ranges that wait end now
    let _ = tokio::time::timeout(SHUTDOWN_GRACE, graceful.shutdown()).await;
}

type Answer = Response<Full<Bytes>>;

/// Answers requests of other datacenters' clients.
pub type ForwardHandler = Arc<dyn Fn(Request<Incoming>, Option<IpAddr>) -> BoxFuture<'static, Answer> + Send + Sync>;

async fn answer_forwarded(handler: &ForwardHandler, request: Request<Incoming>) -> Answer {
    let (mut parts, body) = request.into_parts();
    match unwrapped(&parts.uri, &mut parts.headers) {
        Ok((uri, client)) => {
            parts.uri = uri;
            handler(Request::from_parts(parts, body), client).await
        }
        Err(reason) => refuse(StatusCode::BAD_REQUEST, reason),
    }
}

async fn answer(volumes: &VolumeSet, request: &Request<Incoming>, stopping: watch::Receiver<bool>) -> Answer {
    if request.method() == Method::DELETE {
        return delete(volumes, request.uri().path()).await;
    }
    if request.method() != Method::GET {
        return refuse(StatusCode::METHOD_NOT_ALLOWED, "only GET, and DELETE of a needle");
    }
    let Some(wanted) = Wanted::parse(request.uri().path(), request.uri().query().unwrap_or("")) else {
        return refuse(StatusCode::BAD_REQUEST, "no such path");
    };
    let read = match wanted {
        Wanted::Needle { fid, from, to } => volumes.read(fid, from..to).await.map(|bytes| (bytes, None)),
        Wanted::Prefix { fid, size } => volumes.read_prefix(fid, size).await.map(|(bytes, length)| {
            let mut answer = BytesMut::with_capacity(PREFIX_LENGTH_SIZE + bytes.len());
            answer.put_u32_le(length);
            answer.extend_from_slice(&bytes);
            (answer.freeze(), None)
        }),
        Wanted::Range { volume, generation, offset, length, wait } => {
            await_bytes(volumes, (volume, offset), wait, stopping).await;
            let length = length.min(RANGE_BYTES_MAX);
            let committed = volumes.state(volume).map(|state| state.committed);
            volumes.read_raw(volume, generation, offset, length).await.map(|bytes| (bytes, committed))
        }
    };
    match read {
        Ok((bytes, committed)) => {
            let mut response = Response::new(Full::new(bytes));
            if let Some(committed) = committed {
                response.headers_mut().insert(COMMITTED_HEADER, committed.into());
            }
            response
        }
        Err(error) => refuse(status_of(&error), &error.to_string()),
    }
}

/// Deletes a needle from what lies on this node; others are not asked.
async fn delete(volumes: &VolumeSet, path: &str) -> Answer {
    let Some(fid) = path.strip_prefix("/v1/needle/").and_then(|fid| fid.parse::<Fid>().ok()) else {
        return refuse(StatusCode::BAD_REQUEST, "no such path");
    };
    match volumes.delete(fid).await {
        Ok(()) => Response::new(Full::default()),
        Err(error) => refuse(status_of(&error), &error.to_string()),
    }
}

/// Waits until there are bytes at an offset of a volume, or will be none: the caller looks then.
async fn await_bytes(
    volumes: &VolumeSet,
    (volume, offset): (VolumeId, u64),
    wait: Duration,
    mut stopping: watch::Receiver<bool>,
) {
    let until = Instant::now() + wait.min(RANGE_WAIT_MAX);
    let mut changed = volumes.changed();
    loop {
        changed.borrow_and_update(); // before the look: what comes after it wakes us
        let grows =
            |state: VolumeStatus| state.committed == offset && !state.sealed && !state.fenced && state.failed.is_none();
        if !volumes.state(volume).is_some_and(grows) {
            return;
        }
        tokio::select! {
            changed = tokio::time::timeout_at(until, changed.changed()) => {
                if !matches!(changed, Ok(Ok(()))) {
                    return;
                }
            }
            _ = stopping.wait_for(|stopping| *stopping) => return,
        }
    }
}

fn refuse(status: StatusCode, reason: &str) -> Answer {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(reason.as_bytes())));
    *response.status_mut() = status;
    response
}

#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Needle { fid: Fid, from: u32, to: u32 },
    Prefix { fid: Fid, size: u32 },
    Range { volume: VolumeId, generation: FileGeneration, offset: u64, length: usize, wait: Duration },
}

impl Wanted {
    fn parse(path: &str, query: &str) -> Option<Self> {
        let query: HashMap<&str, &str> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
        let mut parts = path.strip_prefix("/v1/")?.split('/');
        let wanted = match (parts.next()?, parts.next()?, parts.next()) {
            ("needle", fid, None) => {
                let (from, to) = (query.get("from")?.parse().ok()?, query.get("to")?.parse().ok()?);
                if from > to || to as usize > NEEDLE_SIZE_MAX {
                    return None;
                }
                Self::Needle { fid: fid.parse().ok()?, from, to }
            }
            ("prefix", fid, None) => {
                let size: u32 = query.get("size")?.parse().ok()?;
                if size as usize > NEEDLE_SIZE_MAX {
                    return None;
                }
                Self::Prefix { fid: fid.parse().ok()?, size }
            }
            ("volume", volume, Some(generation)) => Self::Range {
                volume: VolumeId::from_raw(volume.parse().ok()?).ok()?,
                generation: FileGeneration(generation.parse().ok()?),
                offset: query.get("offset")?.parse().ok()?,
                length: query.get("length")?.parse().ok()?,
                wait: Duration::from_millis(query.get("wait_ms").map_or(Some(0), |wait| wait.parse().ok())?),
            },
            _ => return None,
        };
        parts.next().is_none().then_some(wanted)
    }
}

/// The path of a needle's bytes.
pub fn needle_path(fid: Fid, from: u32, to: u32) -> String {
    format!("/v1/needle/{fid}?from={from}&to={to}")
}

/// The path of a needle's size and first bytes.
pub fn prefix_path(fid: Fid, size: u32) -> String {
    format!("/v1/prefix/{fid}?size={size}")
}

/// The path of a needle to delete.
pub fn delete_path(fid: Fid) -> String {
    format!("/v1/needle/{fid}")
}

/// Bytes of the size in front of a prefix.
pub const PREFIX_LENGTH_SIZE: usize = 4;

/// Whether an answer has as many bytes as its size and `size_max` say.
pub fn is_prefix(answer: &Bytes, size_max: u32) -> bool {
    let Some((length, data)) = answer.split_first_chunk() else { return false };
    data.len() == u32::from_le_bytes(*length).min(size_max) as usize
}

/// The path of a range of a volume's file.
pub fn range_path(volume: VolumeId, generation: FileGeneration, offset: u64, length: usize, wait: Duration) -> String {
    let wait_ms = wait.as_millis();
    format!("/v1/volume/{volume}/{generation}?offset={offset}&length={length}&wait_ms={wait_ms}")
}

fn status_of(error: &VolumeError) -> StatusCode {
    match error {
        VolumeError::NoSuchNeedle(_) | VolumeError::NoSuchVolume(_) => StatusCode::NOT_FOUND,
        VolumeError::WrongGeneration { .. } => StatusCode::CONFLICT,
        VolumeError::RangeOutside { .. } | VolumeError::Gap { .. } => StatusCode::RANGE_NOT_SATISFIABLE,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_parse_back_to_what_was_wanted() {
        let fid: Fid = "769,0a0b0c0d0e".parse().unwrap();
        let path = needle_path(fid, 3, 9);
        let (path, query) = path.split_once('?').unwrap();
        assert_eq!(Wanted::parse(path, query), Some(Wanted::Needle { fid, from: 3, to: 9 }));
        let path = prefix_path(fid, 5);
        let (path, query) = path.split_once('?').unwrap();
        assert_eq!(Wanted::parse(path, query), Some(Wanted::Prefix { fid, size: 5 }));
        let wait = Duration::from_millis(700);
        let path = range_path(fid.volume, FileGeneration(2), 64, 4096, wait);
        let (path, query) = path.split_once('?').unwrap();
        let (volume, generation) = (fid.volume, FileGeneration(2));
        let wanted = Wanted::Range { volume, generation, offset: 64, length: 4096, wait };
        assert_eq!(Wanted::parse(path, query), Some(wanted));
        let unhurried = Wanted::Range { volume, generation, offset: 64, length: 4096, wait: Duration::ZERO };
        assert_eq!(Wanted::parse(path, "offset=64&length=4096"), Some(unhurried));
    }

    #[test]
    fn a_prefix_is_as_long_as_its_size_says() {
        let answer = |length: u32, data: &'static [u8]| Bytes::from([&length.to_le_bytes(), data].concat());
        assert!(
            is_prefix(&answer(3, b"abc"), 10) && is_prefix(&answer(30, b"abc"), 3) && is_prefix(&answer(0, b""), 3)
        );
        assert!(!is_prefix(&answer(3, b"ab"), 10) && !is_prefix(&answer(30, b"abc"), 4));
        assert!(!is_prefix(&Bytes::from_static(b"abc"), 4));
    }

    #[test]
    fn other_paths_are_refused() {
        for (path, query) in [
            ("/", ""),
            ("/v1/needle/769,0a0b0c0d0e", ""),
            ("/v1/needle/769,0a0b0c0d0e", "from=9&to=3"),
            ("/v1/needle/769,0a0b0c0d0e", "from=0&to=4294967295"),
            ("/v1/needle/../x", "from=0&to=1"),
            ("/v1/prefix/769,0a0b0c0d0e", ""),
            ("/v1/prefix/769,0a0b0c0d0e", "size=4294967295"),
            ("/v1/volume/769", "offset=0&length=1"),
            ("/v1/volume/0/0", "offset=0&length=1"),
            ("/v1/volume/769/0/x", "offset=0&length=1"),
            ("/v1/volume/769/0", "offset=-1&length=1"),
            ("/v1/volume/769/0", "offset=0&length=1&wait_ms=-1"),
        ] {
            assert_eq!(Wanted::parse(path, query), None, "{path}?{query}");
        }
    }
}
