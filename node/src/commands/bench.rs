//! `meridian bench`: PUT, GET, mixed and LIST over S3 by many clients at once, with percentiles, server CPU per
//! operation where the server is ours, and verification of every byte that is read.
//!
//! Objects hold bytes that are derived from their number, so that a wrong, swapped or cut body is noticed.

mod load;
mod target;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::{short_bytes, table};
use crate::cli::{BenchArgs, ConnectionArgs};
use crate::client::UsageError;
use load::{Load, Measured};
use target::Target;

/// What one workload came to; field names are an interface.
#[derive(Debug, Serialize)]
struct Row {
    workload: String,
    operations: u64,
    errors: u64,
    seconds: f64,
    operations_per_second: f64,
    bytes_per_second: f64,
    p50_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    /// CPU of the server process an operation, in microseconds; none when the server is not ours.
    server_cpu_us: Option<f64>,
    verified: u64,
}

#[derive(Debug, Serialize)]
struct Report {
    endpoint: String,
    size_bytes: u64,
    objects: u64,
    clients: u32,
    cores: usize,
    /// Median time of an append of 4 KiB and its fdatasync in the temporary directory, by a probe in this run.
    fsync_p50_us: f64,
    rows: Vec<Row>,
}

pub async fn bench(connection: &ConnectionArgs, args: &BenchArgs) -> Result<ExitCode> {
    let known = ["put", "get", "mixed", "list"];
    if let Some(unknown) = args.workloads.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(UsageError(format!("--workloads {unknown}: choose from {}", known.join(", "))).into());
    }
    if args.clients == 0 || args.objects == 0 {
        return Err(UsageError("--clients and --objects must be above 0".to_owned()).into());
    }
    let target = Target::open(connection, args).await?;
    let fsync_p50_us = fsync_probe()?;
    let load = Load::new(target.client(), args.size, args.objects, args.clients);
    load.prepare().await?;
    let mut rows = Vec::new();
    for workload in &args.workloads {
        let progress = ProgressBar::new_spinner().with_message(workload.clone());
        progress.set_style(ProgressStyle::with_template("{spinner} {msg} ({elapsed})")?);
        progress.enable_steady_tick(Duration::from_millis(100));
        let cpu = target.server_cpu();
        let started = Instant::now();
        let measured = load.run(workload, args.duration).await?;
        let elapsed = started.elapsed();
        let used = target.server_cpu().zip(cpu).map(|(after, before)| after - before);
        progress.finish_and_clear();
        rows.push(row(workload, measured, elapsed, used));
    }
    let report = Report {
        endpoint: target.endpoint().to_owned(),
        size_bytes: args.size,
        objects: args.objects,
        clients: args.clients,
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        fsync_p50_us,
        rows,
    };
    target.close().await;
    if connection.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    let failed = report.rows.iter().any(|row| row.errors > 0);
    Ok(ExitCode::from(u8::from(failed)))
}

fn row(workload: &str, mut measured: Measured, elapsed: Duration, cpu: Option<Duration>) -> Row {
    measured.latencies_us.sort_unstable();
    let percentile = |share: f64| {
        let last = measured.latencies_us.len().saturating_sub(1);
        let index = (last as f64 * share).round() as usize;
        measured.latencies_us.get(index).map_or(0.0, |us| f64::from(*us) / 1e3)
    };
    let operations = measured.latencies_us.len() as u64;
    let seconds = elapsed.as_secs_f64();
    Row {
        workload: workload.to_owned(),
        operations,
        errors: measured.errors,
        seconds,
        operations_per_second: operations as f64 / seconds,
        bytes_per_second: measured.bytes as f64 / seconds,
        p50_ms: percentile(0.5),
        p90_ms: percentile(0.9),
        p99_ms: percentile(0.99),
        max_ms: percentile(1.0),
        server_cpu_us: cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / operations.max(1) as f64),
        verified: measured.verified,
    }
}

fn print(report: &Report) {
    println!(
        "{}   {} objects of {}, {} clients, {} cores, fsync p50 {:.0} µs\n",
        report.endpoint,
        report.objects,
        short_bytes(report.size_bytes),
        report.clients,
        report.cores,
        report.fsync_p50_us,
    );
    let mut table = table(&[
        "WORKLOAD",
        "OPS",
        "OPS/S",
        "BYTES/S",
        "P50 ms",
        "P90 ms",
        "P99 ms",
        "MAX ms",
        "CPU µs/op",
        "VERIFIED",
        "ERRORS",
    ]);
    for row in &report.rows {
        table.add_row(vec![
            row.workload.clone(),
            row.operations.to_string(),
            format!("{:.0}", row.operations_per_second),
            short_bytes(row.bytes_per_second as u64),
            format!("{:.2}", row.p50_ms),
            format!("{:.2}", row.p90_ms),
            format!("{:.2}", row.p99_ms),
            format!("{:.2}", row.max_ms),
            row.server_cpu_us.map_or("-".to_owned(), |us| format!("{us:.0}")),
            row.verified.to_string(),
            row.errors.to_string(),
        ]);
    }
    println!("{table}");
}

/// The median of 200 appends of 4 KiB, each with its fdatasync.
fn fsync_probe() -> Result<f64> {
    use std::io::Write;
    let mut file = tempfile::tempfile()?;
    let block = [7u8; 4096];
    let mut micros = Vec::new();
    for _ in 0..200 {
        let started = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        micros.push(started.elapsed().as_secs_f64() * 1e6);
    }
    micros.sort_by(f64::total_cmp);
    Ok(micros[micros.len() / 2])
}
