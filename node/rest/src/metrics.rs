//! The metrics of one node, in Prometheus' text format. Each node of a process has a recorder of its own, so that
//! `meridian dev` shows on each REST port what that node did.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

/// Upper bounds of the latency buckets, in seconds.
const LATENCY_BUCKETS_SECONDS: [f64; 14] =
    [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

static METADATA: Metadata<'static> = Metadata::new("meridian", Level::INFO, None);

/// Which gateway a request came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestKind {
    S3,
    Rest,
}

impl RequestKind {
    fn label(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Rest => "rest",
        }
    }
}

/// Counters, gauges and histograms of one node.
pub struct NodeMetrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

impl Default for NodeMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl NodeMetrics {
    pub fn new() -> Self {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(
                Matcher::Full("meridian_request_duration_seconds".to_owned()),
                &LATENCY_BUCKETS_SECONDS,
            )
            .expect("the buckets are not empty")
            .build_recorder();
        let handle = recorder.handle();
        let metrics = Self { recorder, handle };
        metrics.describe();
        metrics
    }

    fn describe(&self) {
        let name = KeyName::from_const_str;
        let recorder = &self.recorder;
        recorder.describe_counter(
            name("meridian_requests_total"),
            None,
            "Requests answered, by gateway, operation and status.".into(),
        );
        recorder.describe_histogram(
            name("meridian_request_duration_seconds"),
            Some(Unit::Seconds),
            "Time until an answer's head was sent, by gateway and operation.".into(),
        );
        recorder.describe_gauge(
            name("meridian_replication_visible_lag_seconds"),
            Some(Unit::Seconds),
            "How far behind this datacenter's metadata of a source is (W_meta).".into(),
        );
        recorder.describe_gauge(
            name("meridian_replication_durable_lag_seconds"),
            Some(Unit::Seconds),
            "How far behind this datacenter's bytes of a source are (W_data).".into(),
        );
        recorder.describe_gauge(
            name("meridian_replication_backpressure_seconds"),
            Some(Unit::Seconds),
            "What each chunk waits because a destination that can be reached does not keep up.".into(),
        );
    }

    /// Counts one answered request.
    pub fn request(&self, kind: RequestKind, operation: &str, status: u16, duration: Duration) {
        let gateway = Label::from_static_parts("gateway", kind.label());
        let operation = Label::new("operation", operation.to_owned());
        let labels = vec![gateway.clone(), operation.clone(), Label::new("status", status.to_string())];
        self.counter("meridian_requests_total", labels).increment(1);
        self.histogram("meridian_request_duration_seconds", vec![gateway, operation]).record(duration.as_secs_f64());
    }

    pub fn counter(&self, name: &'static str, labels: Vec<Label>) -> Counter {
        self.recorder.register_counter(&Key::from_parts(name, labels), &METADATA)
    }

    pub fn gauge(&self, name: &'static str, labels: Vec<Label>) -> Gauge {
        self.recorder.register_gauge(&Key::from_parts(name, labels), &METADATA)
    }

    pub fn histogram(&self, name: &'static str, labels: Vec<Label>) -> Histogram {
        self.recorder.register_histogram(&Key::from_parts(name, labels), &METADATA)
    }

    /// The text of `/metrics`.
    pub fn render(&self) -> String {
        self.handle.run_upkeep();
        self.handle.render()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_nodes_of_a_process_count_apart() {
        let (a, b) = (NodeMetrics::new(), NodeMetrics::new());
        a.request(RequestKind::S3, "PutObject", 200, Duration::from_millis(3));
        a.request(RequestKind::S3, "PutObject", 200, Duration::from_millis(3));
        let text = a.render();
        let line = "meridian_requests_total{gateway=\"s3\",operation=\"PutObject\",status=\"200\"} 2";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("meridian_request_duration_seconds_bucket"), "{text}");
        assert!(!b.render().contains("PutObject"));
    }
}
