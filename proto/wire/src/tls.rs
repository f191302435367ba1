//! The identity of a node and the mutual TLS made of it, for gRPC (tonic) and for the bulk port (hyper, HTTP/1.1).
//!
//! Each side shows a certificate of the cluster's own authority and refuses a peer that does not. A client also
//! demands the name of the node that it means, `NODE.DC.meridian`, whatever address it dials: a proxy or an address
//! translation may stand between. It does not issue certificates; `meridian init` does.
//!
//! Invariants: aws-lc-rs is the only provider; there is no way to build a configuration without client
//! certificates; a private key is never printed, and one that others can read is refused.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use meridian_types::{DatacenterName, NodeName};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tonic::transport::{Certificate, ClientTlsConfig, ServerTlsConfig};

/// The authority's certificate, or several while one replaces another, in a node's directory.
pub const CA_FILE: &str = "ca.pem";
/// The node's certificate, with `NODE.DC.meridian` among its names, for both server and client use.
pub const CERTIFICATE_FILE: &str = "node.pem";
/// The node's private key; only its owner may read it.
pub const KEY_FILE: &str = "node.key";

/// The bulk port speaks this protocol and no other.
pub const BULK_ALPN: &[u8] = b"http/1.1";
/// A peer that accepts and then says nothing has this long to finish its handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why an identity can't be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} has mode {mode:04o}: others can read this private key; chmod 600 it")]
    KeyExposed { path: PathBuf, mode: u32 },
    #[error("{what} is not PEM: {reason}")]
    Pem { what: &'static str, reason: String },
    #[error("{what} holds no certificate")]
    Empty { what: &'static str },
    #[error("the identity is not usable: {0}")]
    Rustls(#[from] rustls::Error),
    #[error("the authority's certificate is not usable: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// The name in a node's certificate: `NODE.DC.meridian`.
pub fn server_name(node: &NodeName, datacenter: &DatacenterName) -> String {
    format!("{node}.{datacenter}.meridian")
}

/// Makes aws-lc-rs the process's provider, which tonic takes; to be called first in `main`. Calling it again is
/// harmless.
pub fn install_provider() {
    // An error says that one is installed already: then this is not the first call.
    let _ = aws_lc_rs::default_provider().install_default();
}

/// A node's certificate and key, and the authority that it trusts. Cheap to clone.
#[derive(Clone)]
pub struct Identity {
    ca_pem: Arc<str>,
    certificate_pem: Arc<str>,
    key_pem: Arc<str>,
    bulk_server: Arc<ServerConfig>,
    bulk_client: Arc<ClientConfig>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(..)") // holds a private key: never in a log
    }
}

impl Identity {
    /// Reads `ca.pem`, `node.pem` and `node.key` of a node's directory.
    ///
    /// # Errors
    /// `Read` names the file; `KeyExposed` when group or others may read the key; else those of `from_pem`.
    pub fn load(directory: &Path) -> Result<Self, IdentityError> {
        let read = |file: &str| {
            let path = directory.join(file);
            fs::read_to_string(&path).map_err(|source| IdentityError::Read { path, source })
        };
        check_key_mode(&directory.join(KEY_FILE))?;
        Self::from_pem(&read(CA_FILE)?, &read(CERTIFICATE_FILE)?, &read(KEY_FILE)?)
    }

    /// From PEM texts. Checks that they parse and that key and certificate belong together.
    ///
    /// # Errors
    /// `Pem`, `Empty`, or rustls's own reason.
    pub fn from_pem(ca_pem: &str, certificate_pem: &str, key_pem: &str) -> Result<Self, IdentityError> {
        install_provider();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let roots = Arc::new(authority(ca_pem)?);
        let chain = certificates("the node's certificate", certificate_pem)?;
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
            .map_err(|error| IdentityError::Pem { what: "the node's key", reason: error.to_string() })?;
        Ok(Self {
            ca_pem: ca_pem.into(),
            certificate_pem: certificate_pem.into(),
            key_pem: key_pem.into(),
            bulk_server: Arc::new(bulk_server(&provider, &roots, chain.clone(), key.clone_key())?),
            bulk_client: Arc::new(bulk_client(&provider, &roots, chain, key)?),
        })
    }

    /// For a gRPC server: client certificates are demanded.
    pub fn tonic_server(&self) -> ServerTlsConfig {
        ServerTlsConfig::new()
            .identity(self.tonic_identity())
            .client_ca_root(Certificate::from_pem(&*self.ca_pem))
            .client_auth_optional(false)
            .timeout(HANDSHAKE_TIMEOUT)
    }

    /// For a gRPC client that means the node with this name (`server_name`).
    pub fn tonic_client(&self, server_name: &str) -> ClientTlsConfig {
        ClientTlsConfig::new()
            .identity(self.tonic_identity())
            .ca_certificate(Certificate::from_pem(&*self.ca_pem))
            .domain_name(server_name)
            .timeout(HANDSHAKE_TIMEOUT)
    }

    /// For the bulk port: TLS 1.3, HTTP/1.1, client certificates demanded. The acceptor bounds the handshake itself
    /// (`HANDSHAKE_TIMEOUT`).
    pub fn rustls_server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.bulk_server)
    }

    /// For clients of the bulk port: TLS 1.3, HTTP/1.1. The name (`server_name`) is given to the connector. One
    /// configuration serves all connections, so that sessions are resumed.
    pub fn rustls_client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.bulk_client)
    }

    fn tonic_identity(&self) -> tonic::transport::Identity {
        tonic::transport::Identity::from_pem(&*self.certificate_pem, &*self.key_pem)
    }
}

fn bulk_server(
    provider: &Arc<CryptoProvider>,
    roots: &Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, IdentityError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider)).build()?;
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.alpn_protocols.push(BULK_ALPN.to_vec());
    Ok(config)
}

fn bulk_client(
    provider: &Arc<CryptoProvider>,
    roots: &Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ClientConfig, IdentityError> {
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(Arc::clone(roots))
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols.push(BULK_ALPN.to_vec());
    Ok(config)
}

fn authority(ca_pem: &str) -> Result<RootCertStore, IdentityError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("the authority's certificate", ca_pem)? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

fn certificates(what: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| IdentityError::Pem { what, reason: error.to_string() })?;
    if chain.is_empty() { Err(IdentityError::Empty { what }) } else { Ok(chain) }
}

/// Refuses a key that group or others may read.
fn check_key_mode(path: &Path) -> Result<(), IdentityError> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = fs::metadata(path).map_err(|source| IdentityError::Read { path: path.into(), source })?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(IdentityError::KeyExposed { path: path.into(), mode }) }
}
