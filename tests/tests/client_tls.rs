//! TLS at the ports for clients, over real processes: who is trusted, which HTTP is spoken, a certificate that changes while
//! requests run, customers' keys, and what policies know of the way.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::{Method, StatusCode};
use md5::{Digest, Md5};
use meridian_tests::{Cluster, ClusterOptions, S3, Shape, program, wait_until};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

const DEADLINE: Duration = Duration::from_secs(30);

fn options() -> ClusterOptions {
    ClusterOptions { datacenters: 1, tls: true, ..ClusterOptions::new(Shape::Nodes) }
}

/// `host:port` of an endpoint.
fn address(endpoint: &str) -> &str {
    endpoint.strip_prefix("https://").expect("the endpoint is https")
}

/// Runs curl with the cluster's CA; its standard output, if it succeeds.
fn curl(cluster: &Cluster, words: &[&str]) -> Result<String> {
    let (access_key, secret_key) = cluster.keys();
    let output = std::process::Command::new("curl")
        .args(["-sS", "--max-time", "30", "--aws-sigv4", "aws:amz:dc-a:s3"])
        .args(["-u", &format!("{access_key}:{secret_key}"), "-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD"])
        .arg("--cacert")
        .arg(cluster.directory().join("ca/ca.pem"))
        .args(words)
        .output()
        .context("run curl")?;
    ensure!(output.status.success(), "curl {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// The certificate that a server shows to whoever trusts `ca_pem`; an error when it is not trusted.
fn shown_certificate(address: &str, ca_pem: &str) -> Result<Vec<u8>> {
    use std::io::{Read, Write};
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes())?)?;
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connection = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost")?)?;
    let socket = std::net::TcpStream::connect(address)?;
    socket.set_read_timeout(Some(DEADLINE))?;
    let mut stream = StreamOwned::new(connection, socket);
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    ensure!(answer.starts_with(b"HTTP/1.1 "), "no answer");
    Ok(stream.conn.peer_certificates().and_then(|chain| chain.first()).context("a certificate")?.to_vec())
}

/// A CA of its own and a certificate of it for localhost: the CA's PEM, the certificate's, its key's.
fn another_identity() -> Result<(String, String, String)> {
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    let (issuer, key) = (Issuer::new(ca, ca_key), KeyPair::generate()?);
    let made =
        CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?.signed_by(&key, &issuer)?;
    Ok((ca_pem, made.pem(), key.serialize_pem()))
}

fn write_identity(directory: &Path, certificate: &str, key: &str) -> Result<()> {
    for (name, text) in [("cert.pem", certificate), ("key.pem", key)] {
        // In its place at once, as tools that renew certificates do it.
        let partial = directory.join("partial");
        std::fs::write(&partial, text)?;
        std::fs::set_permissions(&partial, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        std::fs::rename(&partial, directory.join(name))?;
    }
    Ok(())
}

async fn metric(cluster: &Cluster, line: &str) -> Option<f64> {
    let (_, text) = cluster.get("dc-a", "/metrics").await.ok()?;
    text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_trust_the_cluster_speak_either_http_over_tls_and_others_get_nothing() -> Result<()> {
    let cluster = Cluster::start(options()).await?;
    let s3 = cluster.s3("dc-a");
    s3.create_bucket("safe").await?;
    s3.put("safe", "a", "over TLS").await?;
    assert_eq!(s3.get("safe", "a").await?.as_deref(), Some(&b"over TLS"[..]));

    let url = format!("{}/safe/a", s3.endpoint());
    for (flag, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let seen = curl(&cluster, &[flag, "-w", " %{http_version} %{ssl_verify_result}", &url])?;
        assert_eq!(seen, format!("over TLS {version} 0"));
    }
    let upload = format!("{}/safe/big", s3.endpoint());
    let body = tempfile::NamedTempFile::new()?;
    let bytes: Vec<u8> = (0..3_000_000).map(|at| (at * 31 + at / 251) as u8).collect();
    std::fs::write(body.path(), &bytes)?;
    curl(&cluster, &["--http2", "-f", "-T", body.path().to_str().context("a path")?, &upload])?;
    assert_eq!(s3.get("safe", "big").await?.context("it is there")?, bytes);
    for version in ["1.2", "1.3"] {
        curl(&cluster, &["-f", &format!("--tlsv{version}"), "--tls-max", version, &url])?;
    }
    // An older TLS, a stranger's trust, plain HTTP.
    assert!(curl(&cluster, &["--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0", &url]).is_err());
    let (strange_ca, ..) = another_identity()?;
    assert!(shown_certificate(address(s3.endpoint()), &strange_ca).is_err());
    assert!(curl(&cluster, &[&url.replace("https:", "http:")]).is_err());

    // The REST port and the commands, which find the CA in the ready file or are told it.
    assert_eq!(cluster.get("dc-a", "/healthz").await?.0, 200);
    let listed = cluster.cli(&["bucket", "list"])?;
    ensure!(String::from_utf8_lossy(&listed.stdout).contains("safe"), "{listed:?}");
    let status = |ca_file: Option<&Path>| {
        let mut command = std::process::Command::new(program());
        command.args(["ready", "--endpoint", &cluster.rest("dc-a")]);
        command.args(ca_file.iter().flat_map(|path| [Path::new("--ca-file"), path])).output()
    };
    assert!(status(Some(&cluster.directory().join("ca/ca.pem")))?.status.success());
    let refused = status(None)?;
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--ca-file"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_served_without_a_restart_and_a_bad_one_is_not() -> Result<()> {
    let cluster = Cluster::start(options()).await?;
    let s3 = cluster.s3("dc-a");
    s3.create_bucket("safe").await?;
    s3.put("safe", "a", "kept").await?;
    let at = address(s3.endpoint()).to_owned();
    let directory = cluster.node_directory("dc-a").join("client-tls");
    let cluster_ca = std::fs::read_to_string(cluster.directory().join("ca/ca.pem"))?;
    let first = shown_certificate(&at, &cluster_ca)?;
    let old_files = [directory.join("cert.pem"), directory.join("key.pem")].map(std::fs::read_to_string);
    let [old_certificate, old_key] = old_files;
    let (old_certificate, old_key) = (old_certificate?, old_key?);

    // A key of another certificate changes nothing, and is told.
    let (_, _, other_key) = another_identity()?;
    write_identity(&directory, &old_certificate, &other_key)?;
    let failed = "meridian_tls_reloads_total{outcome=\"failed\"}";
    wait_until("the bad key being seen", DEADLINE, async || metric(&cluster, failed).await > Some(0.0)).await?;
    assert!(cluster.log("dc-a").contains("the changed certificate is of no use"));
    assert_eq!(shown_certificate(&at, &cluster_ca)?, first);
    let taken = "meridian_tls_reloads_total{outcome=\"ok\"}";
    let before = metric(&cluster, taken).await;
    write_identity(&directory, &old_certificate, &old_key)?;
    wait_until("the good key being seen", DEADLINE, async || metric(&cluster, taken).await > before).await?;

    // The connections of `s3` are open and stay so: it trusts the old CA alone.
    assert!(s3.get("safe", "a").await?.is_some());
    let (new_ca, new_certificate, new_key) = another_identity()?;
    write_identity(&directory, &new_certificate, &new_key)?;
    cluster.hang_up("dc-a")?;
    wait_until("the new certificate", DEADLINE, async || shown_certificate(&at, &new_ca).is_ok()).await?;
    assert!(shown_certificate(&at, &cluster_ca).is_err(), "the old one is gone");
    assert!(s3.get("safe", "a").await?.is_some(), "a connection from before goes on");
    assert!(cluster.s3("dc-a").get("safe", "a").await.is_err(), "and a new one of that client is not made");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn customers_keys_and_policies_know_the_way_of_a_request() -> Result<()> {
    let secure = Cluster::start(options()).await?;
    let plain = Cluster::start(ClusterOptions { tls: false, ..options() }).await?;
    let key: [u8; 32] = std::array::from_fn(|at| (at * 7 + 13) as u8);
    let (text, md5) = (BASE64.encode(key), BASE64.encode(Md5::digest(key)));
    let headers = [
        ("x-amz-server-side-encryption-customer-algorithm", "AES256"),
        ("x-amz-server-side-encryption-customer-key", text.as_str()),
        ("x-amz-server-side-encryption-customer-key-md5", md5.as_str()),
    ];
    let put = async |s3: &S3| s3.call(Method::PUT, "/safe/sealed", &headers, "secret").await;
    let get = async |s3: &S3| s3.call(Method::GET, "/safe/sealed", &headers, Bytes::new()).await;
    for (cluster, is_secure) in [(&secure, true), (&plain, false)] {
        let s3 = cluster.s3("dc-a");
        s3.create_bucket("safe").await?;
        let answer = put(&s3).await?;
        if is_secure {
            answer.ok()?;
            assert_eq!(get(&s3).await?.ok()?.text(), "secret");
            assert_eq!(s3.call(Method::GET, "/safe/sealed", &[], Bytes::new()).await?.status, StatusCode::BAD_REQUEST);
        } else {
            assert_eq!(answer.status, StatusCode::BAD_REQUEST);
            assert!(answer.text().contains("must be made over a secure connection"), "{}", answer.text());
        }
        // S3's own example of a policy that demands TLS.
        let policy = r#"{"Version":"2012-10-17","Statement":[
            {"Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::safe/*"},
            {"Effect":"Deny","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::safe/*",
             "Condition":{"Bool":{"aws:SecureTransport":"false"}}}]}"#;
        s3.put("safe", "open", "for all").await?;
        s3.call(Method::PUT, "/safe?policy", &[], policy).await?.ok()?;
        let anonymous = cluster.anonymous(&format!("{}/safe/open", s3.endpoint())).await?;
        assert_eq!(anonymous.0, if is_secure { 200 } else { 403 }, "{}", anonymous.1);
    }
    Ok(())
}
