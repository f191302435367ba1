//! Who is at the other end of a connection, and how safe the way there is.

use std::net::SocketAddr;

use rustls::ProtocolVersion;

/// The versions of TLS that are spoken with clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    V1_2,
    V1_3,
}

impl TlsVersion {
    pub(crate) fn of(version: Option<ProtocolVersion>) -> Self {
        if version == Some(ProtocolVersion::TLSv1_3) { Self::V1_3 } else { Self::V1_2 }
    }

    /// As S3's access logs name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::V1_2 => "TLSv1.2",
            Self::V1_3 => "TLSv1.3",
        }
    }
}

/// The other end of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    pub address: SocketAddr,
    /// None over plain HTTP.
    pub tls: Option<TlsVersion>,
}

impl Peer {
    /// Whether nobody between the client and this process can listen.
    pub fn is_secure(&self) -> bool {
        self.tls.is_some()
    }
}
