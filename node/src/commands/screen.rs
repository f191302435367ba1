//! The screen of `meridian replication status`: what the answer says, as one table below the other.
//!
//! It decides nothing: states, words and figures come as they are. Invariants: what is not known is `?`, what is not
//! there is `-`; a cell of a report that could not be renewed says how old it is.

use meridian_replication::{
    DatacenterStatus, Exposure, LagCell, LagState, LinkStatus, ReplicationStatus, short_bytes, short_count,
    short_duration,
};

use super::table;

/// The whole screen, without a line break at its end.
pub fn screen(status: &ReplicationStatus) -> String {
    let now = time(status.now_ms, "%Y-%m-%dT%H:%M:%SZ");
    let parts = [
        format!("cluster {}   {now}   {}   (asked {})", status.cluster, status.summary, status.asked),
        datacenters(&status.datacenters),
        lag(status),
        links(&status.links),
        totals(status),
    ];
    parts.join("\n\n")
}

fn time(unix_ms: u64, form: &str) -> String {
    let at = i64::try_from(unix_ms).ok().filter(|ms| *ms > 0);
    let at = at.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    at.map_or("never".to_owned(), |at| at.strftime(form).to_string())
}

fn mark(state: LagState) -> &'static str {
    match state {
        LagState::Ok => "*",
        LagState::Warn => "~",
        LagState::Critical | LagState::Held => "!",
        LagState::Down => "x",
        LagState::FullSync => "F",
        LagState::Clock => "C",
        LagState::Unknown => "?",
    }
}

fn datacenters(rows: &[DatacenterStatus]) -> String {
    let mut shown = table(&["DC", "control leader", "gossip", "clock", "log kept / oldest", "report"]);
    for row in rows {
        let leader = row.control_leader.map_or("none".to_owned(), |node| format!("{node} (term {})", row.control_term));
        let oldest = row.log_oldest_age_ms.map_or("-".to_owned(), short_duration);
        let age = row.report_age_ms.map_or("never".to_owned(), |ms| format!("{} ago", short_duration(ms)));
        shown.add_row(vec![
            row.name.clone(),
            leader,
            format!("{}/{}", row.nodes_live, row.nodes_registered),
            row.clock_offset_ms.map_or("?".to_owned(), |ms| format!("{ms:+}ms")),
            format!("{} / {oldest}", short_bytes(row.log_bytes)),
            if row.stale { format!("{age}, stale") } else { "now".to_owned() },
        ]);
    }
    shown.to_string()
}

fn lag(status: &ReplicationStatus) -> String {
    let names: Vec<&str> = status.datacenters.iter().map(|row| row.name.as_str()).collect();
    let header: Vec<String> =
        std::iter::once(String::new()).chain(names.iter().map(|name| format!("→ {name}"))).collect();
    let mut shown = table(&header.iter().map(String::as_str).collect::<Vec<_>>());
    for from in &names {
        let mut row = vec![(*from).to_owned()];
        for to in &names {
            let cell = status.lag.iter().find(|cell| cell.from == *from && cell.to == *to);
            row.push(cell.map_or("-".to_owned(), lag_cell));
        }
        shown.add_row(row);
    }
    format!("LAG  visible / durable     ok *  warn ~  crit !  down x  full sync F  clock C\n{shown}")
}

fn lag_cell(cell: &LagCell) -> String {
    let show = |ms: Option<u64>| ms.map_or("?".to_owned(), short_duration);
    let age = match (cell.stale, cell.age_ms) {
        (false, _) => String::new(),
        (true, None) => " (never heard)".to_owned(),
        (true, Some(ms)) => format!(" ({} old)", short_duration(ms)),
    };
    format!("{} {} / {}{age}", mark(cell.state), show(cell.visible_ms), show(cell.durable_ms))
}

fn links(rows: &[LinkStatus]) -> String {
    let mut shown = table(&[
        "LINK",
        "STATE",
        "APPLIED THROUGH",
        "SLOWEST",
        "PENDING ops / bytes",
        "IN",
        "OUT",
        "ETA",
        "PARKED",
        "RETRYING",
        "REASON",
    ]);
    for row in rows {
        let is_behind = row.pending_entries > 0 || row.pending_bytes > 0;
        let eta = match row.eta_ms {
            Some(_) if !is_behind => "-".to_owned(),
            Some(ms) => short_duration(ms),
            None => "?".to_owned(),
        };
        shown.add_row(vec![
            format!("{}→{}", row.from, row.to),
            state_word(row.state, is_behind).to_owned(),
            time(row.applied_through_ms, "%H:%M:%S%.3f"),
            row.slowest_partition.clone(),
            format!("{} / {}", short_count(row.pending_entries), short_bytes(row.pending_bytes)),
            format!("{}/s", short_count(row.in_per_s.round() as u64)),
            format!("{}/s", short_count(row.out_per_s.round() as u64)),
            eta,
            row.parked.to_string(),
            row.retrying.to_string(),
            row.reason.clone(),
        ]);
    }
    shown.to_string()
}

fn state_word(state: LagState, is_behind: bool) -> &'static str {
    match state {
        LagState::Ok if is_behind => "streaming",
        LagState::Ok => "ok",
        LagState::Warn | LagState::Critical => "catch-up",
        LagState::Unknown => "unknown",
        LagState::Down => "down",
        LagState::Clock => "clock",
        LagState::Held => "held",
        LagState::FullSync => "full-sync",
    }
}

fn totals(status: &ReplicationStatus) -> String {
    let rows = &status.datacenters;
    let mut lines: Vec<String> = rows.iter().filter_map(|row| exposure_of(&row.name, status)).collect();
    let catalog: Vec<String> = rows.iter().map(|row| format!("{} {}", row.name, row.catalog_position)).collect();
    lines.push(format!("Catalog: {}", catalog.join(", ")));
    let of_each = |figure: fn(&DatacenterStatus) -> u64| {
        rows.iter().map(|row| format!("{} {}", row.name, figure(row))).collect::<Vec<_>>().join(", ")
    };
    let sum = |figure: fn(&DatacenterStatus) -> u64| rows.iter().map(figure).sum::<u64>();
    lines.push(format!(
        "Conflicts 24h: {}     Proxied reads 1m: {} ok, {} failed",
        of_each(|row| row.conflicts_24h),
        sum(|row| row.proxied_ok_1m),
        sum(|row| row.proxied_failed_1m)
    ));
    lines.join("\n")
}

/// None where there is no other datacenter; one that never reported has no figures, and that is said.
fn exposure_of(name: &str, status: &ReplicationStatus) -> Option<String> {
    let known = status.exposure.iter().find(|row| row.datacenter == name);
    let unknown = || format!("If {name} were lost now: not known, {} never heard from it", status.asked);
    known.map(exposure).or_else(|| (status.datacenters.len() > 1).then(unknown))
}

fn exposure(row: &Exposure) -> String {
    let missing: Vec<String> =
        row.missing.iter().map(|to| format!("{} not in {}", short_bytes(to.bytes), to.datacenter)).collect();
    let writes = row.writes_without_copy;
    let mut line = format!(
        "If {} were lost now: {writes} acknowledged {} with no other copy; {}",
        row.datacenter,
        if writes == 1 { "write" } else { "writes" },
        missing.join(", ")
    );
    if row.unmirrored_bytes > 0 {
        line.push_str(&format!("; {} with no other copy by policy", short_bytes(row.unmirrored_bytes)));
    }
    if row.stale {
        line.push_str(" (as last heard: what it has acknowledged since is not known)");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(state: LagState, stale: bool) -> LagCell {
        LagCell {
            from: "dc-a".to_owned(),
            to: "dc-b".to_owned(),
            state,
            meta: 1,
            visible_ms: Some(372_000),
            data: 1,
            durable_ms: None,
            age_ms: Some(4_000),
            stale,
        }
    }

    #[test]
    fn a_cell_has_its_mark_and_says_when_it_is_old() {
        assert_eq!(lag_cell(&cell(LagState::Critical, false)), "! 6m12s / ?");
        assert_eq!(lag_cell(&cell(LagState::Down, true)), "x 6m12s / ? (4.0s old)");
    }

    #[test]
    fn what_would_be_lost_is_said_in_words() {
        let missing = vec![
            meridian_replication::MissingBytes { datacenter: "dc-b".to_owned(), bytes: 3 << 40 },
            meridian_replication::MissingBytes { datacenter: "dc-c".to_owned(), bytes: 0 },
        ];
        let mut row = Exposure {
            datacenter: "dc-a".to_owned(),
            writes_without_copy: 0,
            missing,
            unmirrored_bytes: 0,
            stale: false,
        };
        let line =
            "If dc-a were lost now: 0 acknowledged writes with no other copy; 3.0 TiB not in dc-b, 0 B not in dc-c";
        assert_eq!(exposure(&row), line);
        row.stale = true;
        assert!(exposure(&row).contains("as last heard"));
    }
}
