//! From reports to a word: how bad a link is, and which one makes the headline.
//!
//! Pure. Invariants: lag is judged by what is durable; the worst link decides, and its words say which way it goes.

use meridian_wire::replication::{LinkState, SourceStatus};
use serde::{Deserialize, Serialize};

use crate::ReplicationLimits;
use crate::status::LinkStatus;
use crate::words::short_duration;

/// Also the exit code: 0, 1, 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    Warn,
    Critical,
}

/// The state of one link, from good to bad.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LagState {
    Ok,
    Warn,
    /// Nothing was reported yet.
    #[default]
    Unknown,
    Critical,
    Down,
    Clock,
    Held,
    FullSync,
}

pub(crate) fn lag_state(
    status: &SourceStatus,
    durable_ms: Option<u64>,
    stale: bool,
    limits: &ReplicationLimits,
) -> LagState {
    match status.state() {
        _ if stale => LagState::Down,
        LinkState::Down => LagState::Down,
        LinkState::Held => LagState::Held,
        LinkState::ClockSkewed => LagState::Clock,
        LinkState::NeedsFullSync => LagState::FullSync,
        _ => match durable_ms.map(std::time::Duration::from_millis) {
            None => LagState::Unknown,
            Some(lag) if lag >= limits.lag_critical => LagState::Critical,
            Some(lag) if lag >= limits.lag_warn => LagState::Warn,
            Some(_) => LagState::Ok,
        },
    }
}

/// The verdict over all links, and the headline.
pub(crate) fn verdict(links: &[LinkStatus]) -> (Verdict, String) {
    let Some(worst) = links.iter().max_by_key(|link| (link.state, link.durable_ms)) else {
        return (Verdict::Ok, "OK: one datacenter, nothing to replicate".to_owned());
    };
    let pair = format!("{}→{}", worst.from, worst.to);
    let behind = worst.durable_ms.map_or_else(|| "an unknown time".to_owned(), short_duration);
    match worst.state {
        LagState::Ok => (Verdict::Ok, format!("OK: no datacenter is more than {behind} behind")),
        LagState::Warn => (Verdict::Warn, format!("WARN: {pair} is {behind} behind and {}", trend(worst))),
        LagState::Unknown => (Verdict::Warn, format!("WARN: {pair} has reported nothing yet")),
        LagState::Critical => (Verdict::Critical, format!("DEGRADED: {pair} is {behind} behind and {}", trend(worst))),
        LagState::Down => (Verdict::Critical, format!("DEGRADED: {pair} is down, {behind} behind")),
        LagState::Clock => (Verdict::Critical, format!("DEGRADED: {pair} is held by a wrong clock")),
        LagState::Held => (Verdict::Critical, format!("DEGRADED: {pair} is held, {behind} behind")),
        LagState::FullSync => (Verdict::Critical, format!("DEGRADED: {pair} needs full sync, {behind} behind")),
    }
}

fn trend(link: &LinkStatus) -> &'static str {
    let is_moving = link.out_per_s > 0.0 || link.bytes_per_s > 0.0;
    match (is_moving, link.out_per_s < link.in_per_s) {
        (false, _) => "not moving",
        (true, true) => "falling further behind",
        (true, false) => "catching up",
    }
}

/// How long a link takes to catch up as things go, in milliseconds; None when it doesn't, 0 when it has.
pub(crate) fn eta_ms(status: &SourceStatus) -> Option<u64> {
    let entries = until_empty(status.pending_entries, status.entries_out_per_s - status.entries_in_per_s);
    let bytes = until_empty(status.pending_bytes, status.bytes_out_per_s);
    Some(entries?.max(bytes?))
}

fn until_empty(pending: u64, shrinks_per_s: f64) -> Option<u64> {
    match pending {
        0 => Some(0),
        _ if shrinks_per_s > 0.0 => Some((pending as f64 / shrinks_per_s * 1e3) as u64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(state: LagState, durable_ms: Option<u64>) -> LinkStatus {
        let (from, to) = ("dc-a".to_owned(), "dc-b".to_owned());
        LinkStatus { from, to, state, durable_ms, ..LinkStatus::default() }
    }

    #[test]
    fn the_worst_link_decides_the_verdict() {
        assert_eq!(verdict(&[]).0, Verdict::Ok);
        assert_eq!(verdict(&[link(LagState::Ok, Some(3))]).0, Verdict::Ok);
        let (worst, words) = verdict(&[link(LagState::Ok, Some(3)), link(LagState::Warn, Some(12_000))]);
        assert!(worst == Verdict::Warn && words.contains("dc-a→dc-b is 12.0s behind"), "{words}");
        assert_eq!(verdict(&[link(LagState::Warn, Some(12_000)), link(LagState::Down, None)]).0, Verdict::Critical);
    }

    #[test]
    fn the_headline_says_which_way_it_goes() {
        let late = |in_per_s, out_per_s| {
            let link = LinkStatus { in_per_s, out_per_s, ..link(LagState::Critical, Some(372_000)) };
            verdict(&[link]).1
        };
        assert_eq!(late(10.0, 90.0), "DEGRADED: dc-a→dc-b is 6m12s behind and catching up");
        assert_eq!(late(90.0, 10.0), "DEGRADED: dc-a→dc-b is 6m12s behind and falling further behind");
        assert_eq!(late(90.0, 0.0), "DEGRADED: dc-a→dc-b is 6m12s behind and not moving");
    }

    #[test]
    fn lag_is_judged_by_what_is_durable_and_by_the_configured_thresholds() {
        let limits = ReplicationLimits::default();
        let judged = |state: LinkState, durable_ms, stale| {
            let status = SourceStatus { state: state as i32, ..SourceStatus::default() };
            lag_state(&status, durable_ms, stale, &limits)
        };
        let (warn, critical) = (limits.lag_warn.as_millis() as u64, limits.lag_critical.as_millis() as u64);
        assert_eq!(judged(LinkState::Ok, Some(warn - 1), false), LagState::Ok);
        assert_eq!(judged(LinkState::CatchingUp, Some(warn), false), LagState::Warn);
        assert_eq!(judged(LinkState::Ok, Some(critical), false), LagState::Critical);
        assert_eq!(judged(LinkState::Ok, None, false), LagState::Unknown);
        assert_eq!(judged(LinkState::ClockSkewed, Some(1), false), LagState::Clock);
        assert_eq!(judged(LinkState::Ok, Some(1), true), LagState::Down);
    }

    #[test]
    fn the_time_to_catch_up_is_that_of_the_slower_lane() {
        let status = SourceStatus {
            pending_entries: 100,
            entries_in_per_s: 10.0,
            entries_out_per_s: 60.0,
            pending_bytes: 5000,
            bytes_out_per_s: 500.0,
            ..SourceStatus::default()
        };
        assert_eq!(eta_ms(&status), Some(10_000));
        assert_eq!(eta_ms(&SourceStatus { pending_bytes: 0, ..status.clone() }), Some(2_000));
        assert_eq!(eta_ms(&SourceStatus { entries_in_per_s: 60.0, ..status }), None);
        assert_eq!(eta_ms(&SourceStatus::default()), Some(0));
    }
}
