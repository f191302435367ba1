//! Channels to other nodes. The address that is dialled and the name that the peer must prove are two things, so
//! that a proxy can stand between.
//!
//! A channel is lazy: it connects at the first call and again after each failure, by itself. It does not retry
//! calls. Without the HTTP/2 keep-alive below, a channel never recovers from a partition that swallows packets.

use std::future::Future;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use crate::limits::{
    CONNECTION_WINDOW_BYTES, HEADER_LIST_SIZE_MAX, RAFT_MESSAGE_SIZE_MAX, REPLICATION_MESSAGE_SIZE_MAX,
    STREAM_WINDOW_BYTES,
};
use crate::raft::raft_client::RaftClient;
use crate::replication::replication_client::ReplicationClient;
use crate::tls::Identity;

/// How long a link may be silent before it is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkTimings {
    /// Name resolution, TCP and TLS together.
    pub connect_timeout: Duration,
    /// A ping goes out after this long without a frame, also while nothing is asked.
    pub keep_alive_interval: Duration,
    /// A ping without an answer for this long ends the connection.
    pub keep_alive_timeout: Duration,
    /// No call lasts longer, whatever deadline it names; a snapshot and a long poll are calls too.
    pub call_timeout_max: Duration,
}

impl Default for LinkTimings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(3),
            // A peer that a cut has hidden is missed within 6 s; what is asked of it after the heal finds a new connection.
            keep_alive_interval: Duration::from_secs(3),
            keep_alive_timeout: Duration::from_secs(3),
            call_timeout_max: Duration::from_secs(120),
        }
    }
}

/// Why a channel can't be set up. A peer that can't be reached is no such reason: that is an error of a call.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    #[error("{address:?} is not HOST:PORT: {source}")]
    Address { address: String, source: tonic::transport::Error },
    #[error("set up TLS to {server_name}: {source}")]
    Tls { server_name: String, source: tonic::transport::Error },
}

/// A lazy channel to `address` (`HOST:PORT`), where a node must prove to be `server_name` (`tls::server_name`). To be
/// called within a tokio runtime.
///
/// # Errors
/// `Address` or `Tls` when the arguments are not usable; nothing is dialled here.
pub fn channel(
    address: &str,
    identity: &Identity,
    server_name: &str,
    timings: &LinkTimings,
) -> Result<Channel, ChannelError> {
    Ok(endpoint(address, identity, server_name, timings)?.connect_lazy())
}

/// What `channel` and `Dialer::channel` connect to.
pub(crate) fn endpoint(
    address: &str,
    identity: &Identity,
    server_name: &str,
    timings: &LinkTimings,
) -> Result<Endpoint, ChannelError> {
    let bad_address = |source| ChannelError::Address { address: address.to_owned(), source };
    let bad_tls = |source| ChannelError::Tls { server_name: server_name.to_owned(), source };
    let endpoint = Endpoint::from_shared(format!("https://{address}"))
        .map_err(bad_address)?
        .tls_config(identity.tonic_client(server_name).timeout(timings.connect_timeout))
        .map_err(bad_tls)?
        .connect_timeout(timings.connect_timeout)
        .timeout(timings.call_timeout_max)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(timings.keep_alive_interval)
        .keep_alive_timeout(timings.keep_alive_timeout)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_max_header_list_size(HEADER_LIST_SIZE_MAX);
    Ok(endpoint)
}

/// A raft client with the raised message limit. What it sends is limited by the server, whose refusal is plain, while
/// tonic's own limit for a client's messages comes out as a broken connection.
pub fn raft_client(channel: Channel) -> RaftClient<Channel> {
    RaftClient::new(channel).max_decoding_message_size(RAFT_MESSAGE_SIZE_MAX)
}

/// A replication client with the raised message limit; as `raft_client`.
pub fn replication_client(channel: Channel) -> ReplicationClient<Channel> {
    ReplicationClient::new(channel).max_decoding_message_size(REPLICATION_MESSAGE_SIZE_MAX)
}

/// Makes one unary call with a deadline that the peer is told and that holds here in any case: also for a peer that
/// answers with headers and then goes on for ever.
///
/// ```text
/// let reply = call(deadline, message, async move |request| client.status(request).await).await?;
/// ```
///
/// # Errors
/// The call's own status, or DEADLINE_EXCEEDED.
pub async fn call<M, R, F>(deadline: Duration, message: M, make: impl FnOnce(Request<M>) -> F) -> Result<R, Status>
where
    F: Future<Output = Result<Response<R>, Status>>,
{
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    match tokio::time::timeout(deadline, make(request)).await {
        Ok(answer) => answer.map(Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded(format!("no answer within {} ms", deadline.as_millis()))),
    }
}
