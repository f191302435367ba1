//! The bulk port's TLS over real loopback sockets, and identities on disk.

mod cluster;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use meridian_wire::tls::{BULK_ALPN, CA_FILE, CERTIFICATE_FILE, Identity, IdentityError, KEY_FILE, server_name};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use cluster::{Authority, NAME};

/// One connection: the client says "ping", the server "pong". Returns what each side saw.
async fn ping(
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    name: &str,
) -> (std::io::Result<Vec<u8>>, std::io::Result<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut tls = TlsAcceptor::from(server).accept(tcp).await?;
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(BULK_ALPN));
        let mut heard = vec![0; 4];
        tls.read_exact(&mut heard).await?;
        tls.write_all(b"pong").await?;
        tls.shutdown().await?;
        Ok(heard)
    });
    let asked = async {
        let tcp = TcpStream::connect(address).await?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut tls = TlsConnector::from(client).connect(name, tcp).await?;
        tls.write_all(b"ping").await?;
        let mut heard = Vec::new();
        tls.read_to_end(&mut heard).await?;
        Ok(heard)
    };
    let asked = asked.await;
    (served.await.unwrap(), asked)
}

#[tokio::test]
async fn nodes_of_one_cluster_speak_http_1_1_with_each_other() {
    let authority = Authority::new();
    let (server, client) = (authority.node(NAME), authority.node("n2.dc-b.meridian"));
    for _ in 0..2 {
        // The second connection resumes the session of the first.
        let (served, asked) = ping(server.rustls_server(), client.rustls_client(), NAME).await;
        assert_eq!((&served.unwrap()[..], &asked.unwrap()[..]), (&b"ping"[..], &b"pong"[..]));
    }
}

#[tokio::test]
async fn a_bulk_client_without_a_certificate_is_refused() {
    let authority = Authority::new();
    let server = authority.node(NAME);
    let mut roots = rustls::RootCertStore::empty();
    let pem = authority.ca_pem();
    roots.add(rustls::pki_types::pem::PemObject::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
    let mut anonymous = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    anonymous.alpn_protocols.push(BULK_ALPN.to_vec());
    let (served, asked) = ping(server.rustls_server(), Arc::new(anonymous), NAME).await;
    assert!(served.is_err() && asked.is_err());
}

#[tokio::test]
async fn bulk_peers_of_another_authority_or_name_are_refused() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    let ours = authority.node(NAME);
    let stranger = foreign.node_trusting("n2.dc-a.meridian", &authority.ca_pem());
    let (served, asked) = ping(ours.rustls_server(), stranger.rustls_client(), NAME).await;
    assert!(served.is_err() && asked.is_err(), "a stranger as client");

    let impostor = foreign.node_trusting(NAME, &authority.ca_pem());
    let (served, asked) = ping(impostor.rustls_server(), ours.rustls_client(), NAME).await;
    assert!(served.is_err() && asked.is_err(), "a stranger as server");

    let (served, asked) = ping(ours.rustls_server(), ours.rustls_client(), "n9.dc-a.meridian").await;
    assert!(served.is_err() && asked.is_err(), "another node than the one meant");
}

#[tokio::test]
async fn a_client_of_another_protocol_is_refused() {
    let authority = Authority::new();
    let server = authority.node(NAME);
    let mut other = ClientConfig::clone(&server.rustls_client());
    other.alpn_protocols = vec![b"h2".to_vec()];
    let (served, asked) = ping(server.rustls_server(), Arc::new(other), NAME).await;
    assert!(served.is_err() && asked.is_err());
}

fn write_identity(directory: &Path, ca: &str, certificate: &str, key: &str) {
    fs::write(directory.join(CA_FILE), ca).unwrap();
    fs::write(directory.join(CERTIFICATE_FILE), certificate).unwrap();
    fs::write(directory.join(KEY_FILE), key).unwrap();
    fs::set_permissions(directory.join(KEY_FILE), fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn an_identity_is_loaded_from_its_directory() {
    let (directory, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let (certificate, key) = authority.issue(NAME);
    write_identity(directory.path(), &authority.ca_pem(), &certificate, &key);
    let identity = Identity::load(directory.path()).unwrap();
    assert_eq!(format!("{identity:?}"), "Identity(..)");
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let (directory, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let (certificate, key) = authority.issue(NAME);
    write_identity(directory.path(), &authority.ca_pem(), &certificate, &key);
    for mode in [0o644, 0o640, 0o604] {
        fs::set_permissions(directory.path().join(KEY_FILE), fs::Permissions::from_mode(mode)).unwrap();
        let error = Identity::load(directory.path()).unwrap_err();
        assert!(matches!(error, IdentityError::KeyExposed { mode: m, .. } if m == mode), "{error}");
    }
}

#[test]
fn identities_that_can_not_work_are_refused_by_name() {
    let (directory, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let missing = Identity::load(directory.path()).unwrap_err();
    assert!(missing.to_string().contains(KEY_FILE), "{missing}");

    let (ca, (certificate, key)) = (authority.ca_pem(), authority.issue(NAME));
    let (_, other_key) = authority.issue(NAME);
    assert!(matches!(Identity::from_pem(&ca, &certificate, &other_key), Err(IdentityError::Rustls(_))));
    assert!(matches!(Identity::from_pem("", &certificate, &key), Err(IdentityError::Empty { .. })));
    assert!(matches!(Identity::from_pem(&ca, "", &key), Err(IdentityError::Empty { .. })));
    assert!(matches!(Identity::from_pem(&ca, &certificate, "garbage"), Err(IdentityError::Pem { .. })));
}

#[test]
fn a_server_name_is_node_then_datacenter() {
    assert_eq!(server_name(&"n1".parse().unwrap(), &"dc-a".parse().unwrap()), NAME);
}
