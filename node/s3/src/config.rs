//! What the gateway is given: limits with their defaults, and who its users are.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use meridian_edge::{ClientTls, ListenerCounts};
use meridian_object::{Identity, SessionError};
use meridian_sigv4::SecretKey;

use crate::forward::{Door, Forward};
use crate::observe::RequestObserver;
use crate::replication_status::DurableEverywhere;

/// Configuration of one gateway.
#[derive(Clone)]
pub struct S3Config {
    pub credentials: Arc<dyn CredentialsProvider>,
    /// Domains whose subdomains are bucket names (virtual-host style), without ports. Other hosts mean path style.
    pub domains: Vec<String>,
    pub limits: GatewayLimits,
    pub observer: Option<Arc<dyn RequestObserver>>,
    /// What every datacenter has; without it no replication status is told.
    pub durable_everywhere: Option<DurableEverywhere>,
    /// Takes keys of customers (SSE-C) over plain HTTP: only where nobody can listen.
    pub customer_keys_over_http: bool,
    /// What clients see of this server; without it plain HTTP is spoken.
    pub tls: Option<Arc<ClientTls>>,
    pub counts: Arc<ListenerCounts>,
    /// Answers what other datacenters have to; without it such requests are refused.
    pub forward: Option<Arc<dyn Forward>>,
    /// Where requests of their clients come in.
    pub door: Door,
}

impl S3Config {
    pub fn new(credentials: Arc<dyn CredentialsProvider>) -> Self {
        Self {
            credentials,
            domains: Vec::new(),
            limits: GatewayLimits::default(),
            observer: None,
            durable_everywhere: None,
            customer_keys_over_http: false,
            tls: None,
            counts: Arc::default(),
            forward: None,
            door: Door::default(),
        }
    }
}

/// Limits of one gateway. Past each of them a client is told to slow down or is cut off; nothing grows without end.
#[derive(Debug, Clone)]
pub struct GatewayLimits {
    /// Connections open at once; the next one gets 503 and is closed.
    pub connections_max: usize,
    /// TLS handshakes in progress at once.
    pub handshakes_max: usize,
    /// From a connection's start to the end of its handshake.
    pub handshake_timeout: Duration,
    /// Requests in progress at once, over all connections (an HTTP/2 connection carries many).
    pub requests_max: usize,
    /// Streams of one HTTP/2 connection.
    pub streams_per_connection_max: u32,
    /// From the first wait for a request to the end of its headers; also how long an idle connection is kept.
    pub header_timeout: Duration,
    /// The longest silence in the middle of a request's body.
    pub body_idle_timeout: Duration,
    /// The longest time that a client may refuse to take any byte of an answer.
    pub write_stall_timeout: Duration,
    /// Names and values of one request's headers, in bytes (S3: 8 KiB).
    pub headers_size_max: usize,
    /// Bytes of one XML body (10,000 parts with checksums, or 1,000 escaped keys, fit).
    pub xml_body_size_max: usize,
    /// Bytes of all XML bodies that are held at once.
    pub xml_bodies_size_max: usize,
    /// How long running requests may go on after a shutdown was asked for.
    pub shutdown_timeout: Duration,
}

impl Default for GatewayLimits {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            handshakes_max: 256,
            handshake_timeout: Duration::from_secs(10),
            requests_max: 4096,
            streams_per_connection_max: 128,
            header_timeout: Duration::from_secs(60),
            body_idle_timeout: Duration::from_secs(20),
            write_stall_timeout: Duration::from_secs(60),
            headers_size_max: 8 << 10,
            xml_body_size_max: 8 << 20,
            xml_bodies_size_max: 64 << 20,
            shutdown_timeout: Duration::from_secs(20),
        }
    }
}

/// Who an access key belongs to.
#[derive(Debug, Clone)]
pub struct Principal {
    pub secret_key: SecretKey,
    pub identity: Arc<Identity>,
    /// What a session may do at most; `None` outside of one, or in one that was not narrowed.
    pub session_policy: Option<Arc<str>>,
}

impl Principal {
    /// The canonical id of the account that owns what it creates; stored as the owner of buckets.
    pub fn owner(&self) -> &str {
        &self.identity.account
    }

    /// May use every bucket, whatever policies say.
    pub fn is_admin(&self) -> bool {
        self.identity.admin
    }
}

/// The users could not be asked; the request is answered 503.
#[derive(Debug, Clone, thiserror::Error)]
#[error("look up an access key: {0}")]
pub struct CredentialsError(pub String);

/// Looks up access keys. Asked twice a request, so it should answer from memory.
#[async_trait]
pub trait CredentialsProvider: Send + Sync + 'static {
    /// `None` for a key that does not exist or may not be used.
    ///
    /// # Errors
    /// Only when it can't be known.
    async fn principal(&self, access_key: &str) -> Result<Option<Principal>, CredentialsError>;

    /// The secret key of a session's access key, whose token is still to be seen; `None` for any other key.
    fn session_secret(&self, _access_key: &str) -> Option<SecretKey> {
        None
    }

    /// Who a session's request is from.
    ///
    /// # Errors
    /// `SessionError`; `Invalid` where there are no sessions.
    async fn session(&self, _access_key: &str, _token: &str) -> Result<Principal, SessionError> {
        Err(SessionError::Invalid)
    }
}
