//! `host:port` as it stands in `node.toml`: where a node is reached, and from that what it binds.
//!
//! The host is an IP address or a DNS name. A name is resolved anew at each connection, so that a machine or container
//! that comes back under another address is found again.
//!
//! Invariants: the host is an IP address or letters, digits, `-`, `_` and `.`; the port is not 0.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest DNS name (RFC 1035, section 2.3.4).
const HOST_LENGTH_MAX: usize = 253;

/// Where a port of a node is reached.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    host: Host,
    port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Host {
    Ip(IpAddr),
    Name(String),
}

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no address: write host:port, such as 127.0.0.1:9000, [::1]:9000 or node-1.example:9000")]
pub struct AddressError {
    text: String,
}

impl Address {
    /// # Errors
    /// When `host` is neither an IP address nor a DNS name, or `port` is 0.
    pub fn new(host: &str, port: u16) -> Result<Self, AddressError> {
        let refused = || AddressError { text: format!("{host}:{port}") };
        let host = match host.parse::<IpAddr>() {
            Ok(ip) => Host::Ip(ip),
            Err(_) if is_name(host) => Host::Name(host.to_owned()),
            Err(_) => return Err(refused()),
        };
        if port == 0 { Err(refused()) } else { Ok(Self { host, port }) }
    }

    /// What the node itself listens on: the address, or every interface when it is known by name.
    pub fn bind(&self) -> SocketAddr {
        match self.host {
            Host::Ip(ip) => SocketAddr::new(ip, self.port),
            Host::Name(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, self.port)),
        }
    }

    /// The address to connect to, and for a name the first that it stands for now.
    ///
    /// # Errors
    /// When the name can't be resolved.
    pub async fn resolve(&self) -> std::io::Result<SocketAddr> {
        match &self.host {
            Host::Ip(ip) => Ok(SocketAddr::new(*ip, self.port)),
            Host::Name(name) => tokio::net::lookup_host((name.as_str(), self.port))
                .await?
                .next()
                .ok_or_else(|| std::io::Error::other(format!("{name} stands for no address"))),
        }
    }

    /// The same for a client on this machine: an address that is bound on every interface is reached by loopback.
    pub fn reachable(&self) -> Self {
        let host = match &self.host {
            Host::Ip(IpAddr::V4(ip)) if ip.is_unspecified() => Host::Ip(Ipv4Addr::LOCALHOST.into()),
            Host::Ip(IpAddr::V6(ip)) if ip.is_unspecified() => Host::Ip(Ipv6Addr::LOCALHOST.into()),
            other => other.clone(),
        };
        Self { host, port: self.port }
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

fn is_name(host: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    // A last label of digits alone would be a mistyped IP address.
    let last = host.rsplit('.').next().unwrap_or_default();
    host.len() <= HOST_LENGTH_MAX && host.split('.').all(label) && !last.bytes().all(|byte| byte.is_ascii_digit())
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(ip) => SocketAddr::new(*ip, self.port).fmt(f),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let refused = || AddressError { text: text.to_owned() };
        let (host, port) = text.rsplit_once(':').ok_or_else(refused)?;
        let port = port.parse().map_err(|_| refused())?;
        let unbracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        Self::new(unbracketed.unwrap_or(host), port).map_err(|_| refused())
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> String {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_survive_their_text_form() {
        for text in ["127.0.0.1:9000", "[::1]:9000", "dc-a-1:9002", "node_1.dc-a.example:65535"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["", "9000", ":9000", "dc-a-1", "dc-a-1:0", "dc-a-1:70000", "a b:1", "1.2.3:9000", "a..b:1", "-:x"]
        {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains("write host:port"), "{text}: {error}");
        }
    }

    #[test]
    fn a_node_known_by_name_listens_on_every_interface() {
        let address = |text: &str| text.parse::<Address>().unwrap();
        assert_eq!(address("dc-a-1:9000").bind().to_string(), "0.0.0.0:9000");
        assert_eq!(address("127.0.0.1:9000").bind().to_string(), "127.0.0.1:9000");
        assert_eq!(address("0.0.0.0:9000").reachable().to_string(), "127.0.0.1:9000");
    }

    #[tokio::test]
    async fn a_name_resolves_when_it_is_asked_for() {
        let resolved = "localhost:9000".parse::<Address>().unwrap().resolve().await.unwrap();
        assert!(resolved.ip().is_loopback() && resolved.port() == 9000);
    }
}
