//! The lifecycle worker of a node: what it is given, and its figures.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use meridian_object::{LifecycleConfig, LifecycleCounts};
use meridian_rest::NodeMetrics;
use metrics::Label;

use crate::config::LifecycleSection;

pub fn config(section: LifecycleSection) -> LifecycleConfig {
    LifecycleConfig { day: Duration::from_secs(section.day_seconds), parse: Arc::new(meridian_s3::lifecycle_rules) }
}

/// Brings the counters of `/metrics` up to date.
pub fn show(counts: &LifecycleCounts, metrics: &NodeMetrics) {
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    metrics.counter("meridian_lifecycle_rounds_total", Vec::new()).absolute(count(&counts.rounds));
    metrics.counter("meridian_lifecycle_scanned_total", Vec::new()).absolute(count(&counts.scanned));
    for (action, counter) in [
        ("expire", &counts.expired),
        ("remove", &counts.removed),
        ("abort", &counts.aborted),
        ("refused", &counts.refused),
    ] {
        let labels = vec![Label::new("action", action)];
        metrics.counter("meridian_lifecycle_actions_total", labels).absolute(count(counter));
    }
}
