//! `meridian replication status` and `wait`.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use meridian_replication::{ReplicationStatus, Verdict, WaitReport, WaitRequest, short_duration};

use super::screen::screen;
use crate::cli::{ConnectionArgs, WaitArgs};
use crate::client::{AdminClient, CALL_DEADLINE, UsageError};
use crate::signals;

/// One screen, or one every `watch` until Ctrl-C.
pub async fn replication_status(connection: &ConnectionArgs, watch: Option<Duration>) -> Result<ExitCode> {
    let client = AdminClient::connect(connection)?;
    loop {
        let status: ReplicationStatus = client.get("/admin/v1/replication/status").await?;
        let text = if connection.json { serde_json::to_string_pretty(&status)? } else { screen(&status) };
        let Some(interval) = watch else {
            println!("{text}");
            return Ok(exit_code(status.verdict));
        };
        if std::io::stdout().is_terminal() {
            print!("\x1b[H\x1b[2J"); // home, clear: the screen stands still
        }
        println!("{text}");
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
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
        let what = if args.until == "now" { "Everything until now" } else { "What the token names" };
        println!("{what} is in {} ({}).", args.destinations.join(", "), short_duration(report.waited_ms));
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
