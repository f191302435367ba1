//! The served side of gRPC: one builder for the whole node, and the services with their message limits.
//!
//! It does not bind or spawn; the node does. Invariant: a request above its limit is answered RESOURCE_EXHAUSTED, where
//! tonic says OUT_OF_RANGE, which no service of ours says.

use http::{HeaderValue, Response};
use tonic::body::Body;
use tonic::transport::Server;
use tonic::{Code, Status};
use tower::layer::util::{Identity as NoLayer, Stack};
use tower::util::MapResponseLayer;

use crate::channel::{ChannelError, LinkTimings};
use crate::limits::{
    CONNECTION_WINDOW_BYTES, HEADER_LIST_SIZE_MAX, RAFT_MESSAGE_SIZE_MAX, REPLICATION_MESSAGE_SIZE_MAX,
    STREAM_WINDOW_BYTES, STREAMS_PER_CONNECTION_MAX,
};
use crate::raft::raft_server::{Raft, RaftServer};
use crate::replication::replication_server::{Replication, ReplicationServer};
use crate::tls::Identity;

/// Renames tonic's answer to a request above its limit.
type Renaming = MapResponseLayer<fn(Response<Body>) -> Response<Body>>;

/// A gRPC server that demands client certificates and gives up silent peers. Add services, then serve it on
/// `incoming(listener)`.
///
/// # Errors
/// `Tls` when the identity is not usable.
pub fn server(identity: &Identity, timings: &LinkTimings) -> Result<Server<Stack<Renaming, NoLayer>>, ChannelError> {
    let server = Server::builder()
        .tls_config(identity.tonic_server())
        .map_err(|source| ChannelError::Tls { server_name: "this node".to_owned(), source })?;
    Ok(server
        .timeout(timings.call_timeout_max)
        .http2_keepalive_interval(Some(timings.keep_alive_interval))
        .http2_keepalive_timeout(Some(timings.keep_alive_timeout))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .http2_max_header_list_size(HEADER_LIST_SIZE_MAX)
        .layer(MapResponseLayer::new(name_the_exhausted as fn(_) -> _)))
}

fn name_the_exhausted(mut answer: Response<Body>) -> Response<Body> {
    let is_oversize =
        answer.headers().get(Status::GRPC_STATUS).is_some_and(|code| *code == code_value(Code::OutOfRange));
    if is_oversize {
        answer.headers_mut().insert(Status::GRPC_STATUS, code_value(Code::ResourceExhausted));
    }
    answer
}

fn code_value(code: Code) -> HeaderValue {
    HeaderValue::from(i32::from(code))
}

/// The raft service with the raised message limits.
pub fn raft_server<T: Raft>(service: T) -> RaftServer<T> {
    RaftServer::new(service)
        .max_decoding_message_size(RAFT_MESSAGE_SIZE_MAX)
        .max_encoding_message_size(RAFT_MESSAGE_SIZE_MAX)
}

/// The replication service with the raised message limits.
pub fn replication_server<T: Replication>(service: T) -> ReplicationServer<T> {
    ReplicationServer::new(service)
        .max_decoding_message_size(REPLICATION_MESSAGE_SIZE_MAX)
        .max_encoding_message_size(REPLICATION_MESSAGE_SIZE_MAX)
}
