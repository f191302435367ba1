//! `meridian replication status` and `wait`.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use meridian_replication::{LagState, ReplicationStatus, Verdict, WaitReport, WaitRequest};

use super::{short_bytes, short_duration, table};
use crate::cli::{ConnectionArgs, WaitArgs};
use crate::client::{AdminClient, CALL_DEADLINE, UsageError};
use crate::signals;

/// How often `--watch` draws.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// One screen, or one every second.
pub async fn replication_status(connection: &ConnectionArgs, watch: bool) -> Result<ExitCode> {
    let client = AdminClient::connect(connection)?;
    loop {
        let status: ReplicationStatus = client.get("/admin/v1/replication/status").await?;
        let text = if connection.json { serde_json::to_string_pretty(&status)? } else { screen(&status) };
        if !watch {
            println!("{text}");
            return Ok(exit_code(status.verdict));
        }
        if std::io::stdout().is_terminal() {
            print!("\x1b[H\x1b[2J"); // home, clear: the screen stands still
        }
        println!("{text}");
        tokio::select! {
            () = tokio::time::sleep(WATCH_INTERVAL) => {}
            stop = signals::stop_requested() => {
                stop?;
                return Ok(exit_code(status.verdict));
            }
        }
    }
}

fn exit_code(verdict: Verdict) -> ExitCode {
    ExitCode::from(match verdict {
        Verdict::Ok => 0,
        Verdict::Warn => 1,
        Verdict::Critical => 2,
    })
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

fn screen(status: &ReplicationStatus) -> String {
    let now = i64::try_from(status.now_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let now = now.map_or_else(String::new, |now| now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    let mut text = format!("cluster {}   {now}   {}   (asked {})\n\n", status.cluster, status.summary, status.asked);

    let mut datacenters = table(&["DC", "control leader", "nodes", "clock", "catalog", "conflicts", "report"]);
    for dc in &status.datacenters {
        let leader = dc.control_leader.map_or("none".to_owned(), |node| format!("{node} (term {})", dc.control_term));
        let clock = dc.clock_offset_ms.map_or("?".to_owned(), |ms| format!("{ms:+}ms"));
        let age = dc.report_age_ms.map_or("never".to_owned(), short_duration);
        datacenters.add_row(vec![
            dc.name.clone(),
            leader,
            format!("{}/{}", dc.nodes_live, dc.nodes_registered),
            clock,
            dc.catalog_sequence.to_string(),
            dc.conflicts.to_string(),
            if dc.stale { format!("{age} ago, stale") } else { "now".to_owned() },
        ]);
    }
    text.push_str(&format!("{datacenters}\n\n"));

    text.push_str("LAG  visible / durable     ok *  warn ~  crit !  down x  full sync F  clock C\n");
    let names: Vec<&str> = status.datacenters.iter().map(|dc| dc.name.as_str()).collect();
    let header: Vec<String> =
        std::iter::once(String::new()).chain(names.iter().map(|name| format!("→ {name}"))).collect();
    let mut lag = table(&header.iter().map(String::as_str).collect::<Vec<_>>());
    for from in &names {
        let mut row = vec![(*from).to_owned()];
        for to in &names {
            let cell = status.lag.iter().find(|cell| cell.from == *from && cell.to == *to);
            row.push(cell.map_or("-".to_owned(), |cell| {
                let show = |ms: Option<u64>| ms.map_or("?".to_owned(), short_duration);
                format!("{} {} / {}", mark(cell.state), show(cell.visible_ms), show(cell.durable_ms))
            }));
        }
        lag.add_row(row);
    }
    text.push_str(&format!("{lag}\n\n"));

    let mut links =
        table(&["LINK", "STATE", "APPLIED THROUGH", "SLOWEST", "PENDING ops / bytes", "PARKED", "RETRYING", "REASON"]);
    for link in &status.links {
        let through = i64::try_from(link.applied_through_ms).ok().filter(|ms| *ms > 0);
        let through = through.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        links.add_row(vec![
            format!("{}→{}", link.from, link.to),
            format!("{:?}", link.state).to_lowercase(),
            through.map_or("never".to_owned(), |at| at.strftime("%H:%M:%S%.3f").to_string()),
            link.slowest_partition.clone(),
            format!("{} / {}", link.pending_entries, short_bytes(link.pending_bytes)),
            link.parked.to_string(),
            link.retrying.to_string(),
            link.reason.clone(),
        ]);
    }
    text.push_str(&format!("{links}"));
    text
}

/// Blocks until the state is there; exit code 2 when the time is up.
pub async fn replication_wait(connection: &ConnectionArgs, args: &WaitArgs) -> Result<ExitCode> {
    if args.destinations.is_empty() {
        return Err(UsageError("--in names no datacenter".to_owned()).into());
    }
    let client = AdminClient::connect(connection)?;
    let request = WaitRequest {
        until: args.until.clone(),
        destinations: args.destinations.clone(),
        from: args.from.clone(),
        timeout_ms: args.timeout.as_millis() as u64,
    };
    let spinner = ProgressBar::new_spinner().with_message(format!("waiting for {}", args.destinations.join(", ")));
    spinner.set_style(ProgressStyle::with_template("{spinner} {msg} ({elapsed})")?);
    spinner.enable_steady_tick(Duration::from_millis(100));
    let report: Result<WaitReport> =
        client.post("/admin/v1/replication/wait", &request, args.timeout + CALL_DEADLINE).await;
    spinner.finish_and_clear();
    let report = report?;
    if connection.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else if report.met {
        println!("Everything until now is in {} ({}).", args.destinations.join(", "), short_duration(report.waited_ms));
    }
    for failure in &report.failures {
        eprintln!(
            "error: {}→{} did not get there in {}: {}",
            failure.from,
            failure.to,
            short_duration(report.waited_ms),
            failure.reason
        );
    }
    Ok(ExitCode::from(if report.met { 0 } else { 2 }))
}
