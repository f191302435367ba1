//! TLS for clients: the certificate and the key of two files, and what happens when they change.
//!
//! The files are looked at every few seconds and at SIGHUP; connections made from then on get the new certificate, those
//! that are open go on. A pair that can't be used (one file written before the other, a key of another certificate, a key
//! that others can read) changes nothing: it is logged and counted once, and looked at again when a file changes again.
//!
//! Invariants: a handshake sees one certificate with its own key; the files are read whole within `FILE_SIZE_MAX`.

use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;

use crate::counts::{TlsCounts, add_one};

/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Largest file that is read: a chain of certificates has a few KiB.
const FILE_SIZE_MAX: u64 = 1 << 20;
/// What HTTP is spoken inside, the first that a client knows (RFC 7301).
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why the files are of no use.
#[derive(Debug, thiserror::Error)]
pub enum TlsFileError {
    #[error("read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} has more than {FILE_SIZE_MAX} bytes, which no certificate has", path.display())]
    TooLarge { path: PathBuf },
    #[error("{} can be read by others; chmod 600 it", path.display())]
    Exposed { path: PathBuf },
    #[error("{} is not {expected} in PEM form", path.display())]
    Pem { path: PathBuf, expected: &'static str },
    #[error("{} and {} do not make a server's identity: {source}", certificate.display(), key.display())]
    Pair { certificate: PathBuf, key: PathBuf, source: rustls::Error },
}

/// What tells one content of a file from the next, without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: (i64, i64),
    size: u64,
    inode: u64,
}

/// The identity that clients see, as it is now.
#[derive(Debug)]
pub struct ClientTls {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<ServerConfig>>,
    /// The files that were read last, of use or not.
    seen: Mutex<[Option<Stamp>; 2]>,
    pub counts: TlsCounts,
}

impl ClientTls {
    /// Reads a chain of certificates, the server's own first, and its key.
    ///
    /// # Errors
    /// `TlsFileError`, which names the file.
    pub fn open(certificate: PathBuf, key: PathBuf) -> Result<Self, TlsFileError> {
        let seen = [&certificate, &key].map(|path| stamp(path));
        let config = Arc::new(load(&certificate, &key)?);
        let (current, seen) = (RwLock::new(config), Mutex::new(seen));
        Ok(Self { certificate, key, current, seen, counts: TlsCounts::default() })
    }

    /// For the next connection.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.current.read()))
    }

    /// Takes the files as they are now, if they are other ones than last time or if `anyway`. Returns whether they are served.
    pub fn look(&self, anyway: bool) -> bool {
        let mut seen = self.seen.lock();
        // Before they are read: whatever is written while they are is seen the next time.
        let now = [&self.certificate, &self.key].map(|path| stamp(path));
        if *seen == now && !anyway {
            return false;
        }
        *seen = now;
        match load(&self.certificate, &self.key) {
            Ok(config) => {
                *self.current.write() = Arc::new(config);
                add_one(&self.counts.reloaded);
                tracing::info!(certificate = %self.certificate.display(), "clients get a new certificate");
                true
            }
            Err(failure) => {
                add_one(&self.counts.reload_failed);
                tracing::error!(%failure, "the changed certificate is of no use; the one before is served on");
                false
            }
        }
    }

    /// Looks at the files for as long as it is polled: every `LOOK_INTERVAL`, and at SIGHUP whatever their times say.
    pub async fn follow(self: Arc<Self>) {
        let mut hangups = match signal(SignalKind::hangup()) {
            Ok(hangups) => Some(hangups),
            Err(failure) => {
                tracing::warn!(%failure, "SIGHUP is not heard; certificate files are looked at by their times alone");
                None
            }
        };
        let mut ticks = tokio::time::interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let hangup = async {
                match &mut hangups {
                    Some(hangups) => hangups.recv().await,
                    None => std::future::pending().await,
                }
            };
            let anyway = tokio::select! {
                _ = ticks.tick() => false,
                _ = hangup => true,
            };
            let tls = Arc::clone(&self);
            let _ = tokio::task::spawn_blocking(move || tls.look(anyway)).await;
        }
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    let modified = (metadata.mtime(), metadata.mtime_nsec());
    Some(Stamp { modified, size: metadata.size(), inode: metadata.ino() })
}

fn load(certificate: &Path, key: &Path) -> Result<ServerConfig, TlsFileError> {
    let pem = read(certificate, false)?;
    let not_pem = |path: &Path, expected| TlsFileError::Pem { path: path.to_owned(), expected };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(|| not_pem(certificate, "a certificate"))?;
    let private = PrivateKeyDer::from_pem_slice(&read(key, true)?).map_err(|_| not_pem(key, "a private key"))?;
    let pair = |source| TlsFileError::Pair { certificate: certificate.to_owned(), key: key.to_owned(), source };
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(pair)?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(pair)?;
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).into();
    Ok(config)
}

fn read(path: &Path, is_secret: bool) -> Result<Vec<u8>, TlsFileError> {
    let failed = |source| TlsFileError::Read { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    if is_secret && file.metadata().map_err(failed)?.mode() & 0o077 != 0 {
        return Err(TlsFileError::Exposed { path: path.to_owned() });
    }
    let mut bytes = Vec::new();
    file.take(FILE_SIZE_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_SIZE_MAX {
        return Err(TlsFileError::TooLarge { path: path.to_owned() });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::Ordering;

    struct Files {
        _directory: tempfile::TempDir,
        certificate: PathBuf,
        key: PathBuf,
    }

    impl Files {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let (certificate, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
            let files = Self { _directory: directory, certificate, key };
            let (certificate, key) = pair();
            files.write(&certificate, &key);
            files
        }

        fn write(&self, certificate: &str, key: &str) {
            for (path, text) in [(&self.certificate, certificate), (&self.key, key)] {
                // Another file under the name: two writes within one tick of the clock would look the same.
                let partial = path.with_extension("partial");
                std::fs::write(&partial, text).unwrap();
                std::fs::rename(&partial, path).unwrap();
            }
            self.set_mode(0o600);
        }

        fn set_mode(&self, mode: u32) {
            std::fs::set_permissions(&self.key, std::fs::Permissions::from_mode(mode)).unwrap();
        }

        fn open(&self) -> Result<ClientTls, TlsFileError> {
            ClientTls::open(self.certificate.clone(), self.key.clone())
        }
    }

    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    fn config(tls: &ClientTls) -> Arc<ServerConfig> {
        Arc::clone(&tls.current.read())
    }

    #[test]
    fn files_that_are_of_no_use_are_named() {
        let files = Files::new();
        files.set_mode(0o640);
        assert!(matches!(files.open(), Err(TlsFileError::Exposed { .. })));
        let (certificate, key) = pair();
        let (_, other) = pair();
        for (certificate, key, wanted) in [
            (certificate.as_str(), other.as_str(), "do not make a server's identity"),
            ("", key.as_str(), "cert.pem is not a certificate"),
            (certificate.as_str(), "-----BEGIN", "key.pem is not a private key"),
            (&"a".repeat(FILE_SIZE_MAX as usize + 1), key.as_str(), "more than"),
        ] {
            files.write(certificate, key);
            let failure = files.open().unwrap_err().to_string();
            assert!(failure.contains(wanted), "{failure}");
        }
        std::fs::remove_file(&files.key).unwrap();
        std::fs::write(&files.certificate, certificate).unwrap();
        assert!(files.open().unwrap_err().to_string().starts_with("read "));
    }

    #[test]
    fn changed_files_are_taken_and_bad_ones_change_nothing() {
        let files = Files::new();
        let tls = files.open().unwrap();
        let first = config(&tls);
        assert!(!tls.look(false) && Arc::ptr_eq(&first, &config(&tls)), "nothing changed");
        let (certificate, key) = pair();
        let (_, other) = pair();
        files.write(&certificate, &other); // half of a renewal
        assert!(!tls.look(false) && Arc::ptr_eq(&first, &config(&tls)));
        assert!(!tls.look(false));
        let failed = || tls.counts.reload_failed.load(Ordering::Relaxed);
        assert_eq!(failed(), 1, "it is told once");
        files.write(&certificate, &key);
        assert!(tls.look(false) && !Arc::ptr_eq(&first, &config(&tls)));
        assert!(tls.look(true), "SIGHUP asks for it");
        assert_eq!((tls.counts.reloaded.load(Ordering::Relaxed), failed()), (2, 1));
        std::fs::remove_file(&files.certificate).unwrap();
        assert!(!tls.look(false));
        assert_eq!(failed(), 2);
    }
}
