//! What the ports for clients (S3, REST) share: accepting connections within limits, TLS with certificates that change
//! while it serves, and the guard over a connection's bytes.
//!
//! The way of a connection: `listener` (accept, limits) → `tls` (handshake, where there is one) → `head_guard` (framing
//! on the wire) → hyper (HTTP/1.1 and HTTP/2) → the gateway's handler.
//!
//! It knows no gateway, no request's meaning and no configuration file; ports between nodes (mutual TLS) are not its own.

mod counts;
mod framing;
mod head_guard;
mod listener;
mod peer;
mod tls;

pub use counts::{ListenerCounts, TlsCounts};
pub use head_guard::Stall;
pub use listener::{Listener, ListenerLimits};
pub use peer::{Peer, TlsVersion};
pub use tls::{ClientTls, TlsFileError};
