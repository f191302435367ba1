//! The HTTP client of the command line: plain, or over TLS with the authority that the ready file or `--ca-file` names.
//!
//! Invariant: no certificate is trusted that was not named: the machine's own list of authorities plays no part.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::client::UsageError;

pub type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A client that trusts the authorities of a PEM text, and over plain HTTP everybody.
///
/// # Errors
/// `UsageError` where an `https` endpoint is meant and no authority is known, or the text holds none.
pub fn http_client(endpoint: &str, ca_pem: Option<&str>) -> Result<HttpClient> {
    let mut roots = RootCertStore::empty();
    if let Some(pem) = ca_pem {
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let certificate = certificate.map_err(|_| UsageError("the CA's certificate is not in PEM form".into()))?;
            roots.add(certificate).context("take the CA's certificate")?;
        }
    }
    if roots.is_empty() && endpoint.starts_with("https:") {
        let mend = "whom to trust? Give the CA's certificate by --ca-file, or a --ready-file that holds it";
        return Err(UsageError(format!("{endpoint}: {mend}")).into());
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .context("choose versions of TLS")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().build();
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}

/// The text of `--ca-file`.
///
/// # Errors
/// When it can't be read.
pub fn read_ca(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}
