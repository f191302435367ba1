//! `meridian bench`: workloads over S3 and the blob API by many clients at once, with percentiles, CPU per operation by
//! process, memory, disk, and verification of every byte that is read.
//!
//! Invariants: the server is never the process that makes the load, so that its CPU can be told; each workload runs at
//! every target right after another, so that their ratio says something on a machine that others use too.

mod connection;
mod content;
mod load;
mod probe;
mod process;
mod report;
mod target;
mod workload;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::{BenchArgs, ConnectionArgs};
use crate::client::UsageError;
use load::{Load, Measured, Volume};
use report::{ProcessMemory, Report, Row, Skipped, Storage};
use target::Target;
pub use workload::Workload;

pub async fn bench(connection: &ConnectionArgs, args: &BenchArgs) -> Result<ExitCode> {
    if [args.clients, args.large_clients].contains(&0) || [args.objects, args.large_objects].contains(&0) {
        return Err(UsageError("clients and objects must be above 0".to_owned()).into());
    }
    let compared = Target::compared(args)?;
    let first = Target::open(connection, args).await?;
    let targets: Vec<Target> = [first].into_iter().chain(compared).collect();
    let report = measure(&targets, args).await;
    for target in targets {
        target.close().await;
    }
    let report = report?;
    let json = serde_json::to_string_pretty(&report)?;
    if let Some(path) = &args.report {
        std::fs::write(path, &json).with_context(|| format!("write {}", path.display()))?;
    }
    if let Some(path) = &args.markdown {
        std::fs::write(path, report.markdown()).with_context(|| format!("write {}", path.display()))?;
    }
    if connection.json {
        println!("{json}");
    } else {
        report.print();
    }
    let failed = report.rows.iter().any(|row| row.errors > 0);
    Ok(ExitCode::from(u8::from(failed)))
}

async fn measure(targets: &[Target], args: &BenchArgs) -> Result<Report> {
    let mut report = Report::begin(&targets[0].endpoints().s3, args, probe::probe()?);
    let mut loads = Vec::new();
    for target in targets {
        let load = Load::new(target.endpoints().clone());
        load.prepare().await?;
        loads.push((target, load));
    }
    let before = targets[0].disk()?;
    for workload in &args.workloads {
        for (target, load) in &loads {
            if workload.is_blob()
                && let Some(reason) = load.lacks_blobs().await
            {
                let (target, workload) = (target.name(), workload.name());
                report.skipped.push(Skipped { target, workload, reason });
                continue;
            }
            let row = measure_one(target, load, *workload, args).await?;
            report.add(row);
        }
    }
    for process in targets.iter().flat_map(Target::processes) {
        report.memory.push(ProcessMemory { process: *process, memory: process::memory_of(*process)? });
    }
    if let Some((before, after)) = before.zip(targets[0].disk()?) {
        report.storage = Some(Storage::of(before, after, &report.rows));
    }
    Ok(report)
}

async fn measure_one(target: &Target, load: &Arc<Load>, workload: Workload, args: &BenchArgs) -> Result<Row> {
    let (size, objects, clients) = match workload.is_large() {
        true => (args.large_size, args.large_objects, args.large_clients),
        false => (args.size, args.objects, args.clients),
    };
    let volume = Volume { size, objects, clients, duration: args.duration };
    let progress = ProgressBar::new_spinner().with_message(format!("{} {}", target.name(), workload.name()));
    progress.set_style(ProgressStyle::with_template("{spinner} {msg} ({elapsed})")?);
    progress.enable_steady_tick(Duration::from_millis(100));
    let own = std::process::id();
    let processes: Vec<u32> = target.processes().iter().copied().chain([own]).collect();
    let cpu = |processes: &[u32]| processes.iter().map(|process| process::cpu_of(*process)).collect::<Result<Vec<_>>>();
    let (before, started) = (cpu(&processes)?, Instant::now());
    let measured: Measured = load.run(workload, volume).await?;
    let (elapsed, after) = (started.elapsed(), cpu(&processes)?);
    progress.finish_and_clear();
    let used = processes.into_iter().zip(after.into_iter().zip(before).map(|(after, before)| after - before));
    Ok(Row::of(target.name(), workload, measured, elapsed, used.collect()))
}
