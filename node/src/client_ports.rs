//! The ports for clients, as `node.toml` describes them: their certificate, and their figures in `/metrics`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use meridian_edge::{ClientTls, ListenerCounts};
use meridian_rest::NodeMetrics;
use metrics::Label;

use crate::config::{ClientTlsSection, ConfigError, field};

/// What the S3 and the REST port of a node share and count.
#[derive(Debug, Clone, Default)]
pub struct ClientPorts {
    pub tls: Option<Arc<ClientTls>>,
    pub s3: Arc<ListenerCounts>,
    pub rest: Arc<ListenerCounts>,
}

impl ClientPorts {
    /// Reads the certificate and its key, if there shall be TLS.
    ///
    /// # Errors
    /// One line that names the file and the mend.
    pub fn open(section: Option<&ClientTlsSection>) -> Result<Self, ConfigError> {
        let open = |section: &ClientTlsSection| ClientTls::open(section.certificate.clone(), section.key.clone());
        let tls = section.map(open).transpose().map_err(|failure| {
            let mend = "name a chain of certificates and its key, both in PEM form";
            field("client_tls", failure.to_string(), mend)
        })?;
        Ok(Self { tls: tls.map(Arc::new), ..Self::default() })
    }

    /// Follows changes of the certificate's files for as long as it is polled.
    pub async fn follow(self) {
        match self.tls {
            Some(tls) => tls.follow().await,
            None => std::future::pending().await,
        }
    }

    /// Brings the figures of `/metrics` up to date.
    pub fn show(&self, metrics: &NodeMetrics) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        for (port, counts) in [("s3", &self.s3), ("rest", &self.rest)] {
            let port = Label::new("port", port);
            metrics.gauge("meridian_connections", vec![port.clone()]).set(count(&counts.connections) as f64);
            let refused = metrics.counter("meridian_connections_refused_total", vec![port.clone()]);
            refused.absolute(count(&counts.connections_refused));
            for (outcome, counter) in [
                ("ok", &counts.handshakes_ok),
                ("failed", &counts.handshakes_failed),
                ("late", &counts.handshakes_late),
                ("refused", &counts.handshakes_refused),
            ] {
                let labels = vec![port.clone(), Label::new("outcome", outcome)];
                metrics.counter("meridian_tls_handshakes_total", labels).absolute(count(counter));
            }
        }
        if let Some(tls) = &self.tls {
            for (outcome, counter) in [("ok", &tls.counts.reloaded), ("failed", &tls.counts.reload_failed)] {
                let labels = vec![Label::new("outcome", outcome)];
                metrics.counter("meridian_tls_reloads_total", labels).absolute(count(counter));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_is_not_there_is_a_matter_of_the_configuration() {
        let section = ClientTlsSection { certificate: "/nowhere/cert.pem".into(), key: "/nowhere/key.pem".into() };
        let failure = ClientPorts::open(Some(&section)).unwrap_err().to_string();
        assert!(failure.starts_with("client_tls: read /nowhere/cert.pem"), "{failure}");
        assert!(ClientPorts::open(None).unwrap().tls.is_none());
    }

    #[test]
    fn figures_of_both_ports_are_shown() {
        let (ports, metrics) = (ClientPorts::default(), NodeMetrics::new());
        ports.rest.handshakes_late.fetch_add(3, Ordering::Relaxed);
        ports.show(&metrics);
        let text = metrics.render();
        assert!(text.contains("meridian_tls_handshakes_total{port=\"rest\",outcome=\"late\"} 3"), "{text}");
        assert!(text.contains("meridian_connections{port=\"s3\"} 0"), "{text}");
    }
}
