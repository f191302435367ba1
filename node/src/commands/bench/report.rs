//! The report of a benchmark: JSON with stable field names, Markdown, a table. It computes and shows; it measures nothing.

use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use super::load::Measured;
use super::probe::DiskProbe;
use super::process::{Disk, Memory};
use super::workload::Workload;
use crate::cli::BenchArgs;
use crate::commands::{short_bytes, table};

/// What one workload came to at one target; field names are an interface.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub target: &'static str,
    pub workload: String,
    pub operations: u64,
    pub errors: u64,
    pub first_error: Option<String>,
    pub seconds: f64,
    pub operations_per_second: f64,
    pub bytes: u64,
    pub bytes_per_second: f64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    /// CPU of the server's processes together an operation, in microseconds; none when no process of it is known.
    pub server_cpu_us: Option<f64>,
    /// The same, process by process.
    pub server_cpu_us_by_process: Vec<ProcessCpu>,
    /// CPU of the load generator an operation.
    pub client_cpu_us: f64,
    pub verified: u64,
    /// At a compared target: operations a second of the first target divided by this one's.
    pub first_to_this: Option<f64>,
}

#[derive(Debug, Clone, Serialize)]
pub struct ProcessCpu {
    pub process: u32,
    pub cpu_us: f64,
}

#[derive(Debug, Clone, Serialize)]
pub struct ProcessMemory {
    pub process: u32,
    #[serde(flatten)]
    pub memory: Memory,
}

/// A workload that a target can't have.
#[derive(Debug, Clone, Serialize)]
pub struct Skipped {
    pub target: &'static str,
    pub workload: String,
    pub reason: String,
}

/// What the run left on the disk of a server of our own.
#[derive(Debug, Clone, Serialize)]
pub struct Storage {
    #[serde(flatten)]
    pub disk: Disk,
    /// Bytes of objects that were written, those overwritten since included.
    pub data_bytes: u64,
    pub objects_written: u64,
    /// Disk beyond the data an object written, write-ahead logs apart.
    pub beyond_data_bytes_per_object: f64,
}

impl Storage {
    pub fn of(before: Disk, after: Disk, rows: &[Row]) -> Self {
        let of_us = |row: &&Row| row.target == rows[0].target;
        let written = |row: &&Row| ["put", "large-put", "blob-put"].contains(&row.workload.as_str());
        let (mut data_bytes, mut objects_written) = (0, 0);
        for row in rows.iter().filter(of_us).filter(written) {
            data_bytes += row.bytes;
            objects_written += row.operations;
        }
        let grown = (after.bytes - after.wal_bytes) as f64 - (before.bytes - before.wal_bytes) as f64;
        let beyond = (grown - data_bytes as f64) / objects_written.max(1) as f64;
        Self { disk: after, data_bytes, objects_written, beyond_data_bytes_per_object: beyond }
    }
}

#[derive(Debug, Serialize)]
pub struct Report {
    pub endpoint: String,
    pub compared_endpoint: Option<String>,
    pub version: &'static str,
    /// `optimised`, or `debug` where assertions are compiled in: figures of such a build are upper bounds.
    pub build: &'static str,
    pub machine: String,
    pub cores: usize,
    /// Runnable tasks of the machine at the start, over a minute: above `cores`, others wanted the CPU too.
    pub load_average: f64,
    pub size_bytes: u64,
    pub objects: u64,
    pub clients: u32,
    pub large_size_bytes: u64,
    pub large_objects: u64,
    pub large_clients: u32,
    #[serde(flatten)]
    pub disk: DiskProbe,
    pub rows: Vec<Row>,
    pub skipped: Vec<Skipped>,
    pub memory: Vec<ProcessMemory>,
    pub storage: Option<Storage>,
}

impl Row {
    /// `used`: CPU of each process of the server, and last that of this one.
    pub fn of(
        target: &'static str,
        workload: Workload,
        mut measured: Measured,
        elapsed: Duration,
        used: Vec<(u32, Duration)>,
    ) -> Self {
        measured.latencies_us.sort_unstable();
        let percentile = |share: f64| {
            let last = measured.latencies_us.len().saturating_sub(1);
            let index = (last as f64 * share).round() as usize;
            measured.latencies_us.get(index).map_or(0.0, |us| f64::from(*us) / 1e3)
        };
        let operations = measured.latencies_us.len() as u64;
        let seconds = elapsed.as_secs_f64();
        let an_operation = |cpu: Duration| cpu.as_secs_f64() * 1e6 / operations.max(1) as f64;
        let (own, servers) = used.split_last().expect("this process is the last one");
        let by_process: Vec<ProcessCpu> =
            servers.iter().map(|(process, cpu)| ProcessCpu { process: *process, cpu_us: an_operation(*cpu) }).collect();
        let together = by_process.iter().map(|of| of.cpu_us).sum();
        Self {
            target,
            workload: workload.name(),
            operations,
            errors: measured.errors,
            first_error: measured.error,
            seconds,
            operations_per_second: operations as f64 / seconds,
            bytes: measured.bytes,
            bytes_per_second: measured.bytes as f64 / seconds,
            p50_ms: percentile(0.5),
            p90_ms: percentile(0.9),
            p99_ms: percentile(0.99),
            max_ms: percentile(1.0),
            server_cpu_us: (!by_process.is_empty()).then_some(together),
            server_cpu_us_by_process: by_process,
            client_cpu_us: an_operation(own.1),
            verified: measured.verified,
            first_to_this: None,
        }
    }
}

impl Report {
    pub fn begin(endpoint: &str, args: &BenchArgs, disk: DiskProbe) -> Self {
        let line = |path: &str, name: &str| {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let found = text.lines().find(|line| line.starts_with(name)).and_then(|line| line.split_once(':'));
            found.map_or("unknown", |(_, value)| value.trim()).to_owned()
        };
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            endpoint: endpoint.to_owned(),
            compared_endpoint: args.compare.clone(),
            version: env!("CARGO_PKG_VERSION"),
            build: if cfg!(debug_assertions) { "debug" } else { "optimised" },
            machine: format!("{}, Linux {}", line("/proc/cpuinfo", "model name"), kernel.trim()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            load_average: load.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or_default(),
            size_bytes: args.size,
            objects: args.objects,
            clients: args.clients,
            large_size_bytes: args.large_size,
            large_objects: args.large_objects,
            large_clients: args.large_clients,
            disk,
            rows: Vec::new(),
            skipped: Vec::new(),
            memory: Vec::new(),
            storage: None,
        }
    }

    /// Adds a row; a compared target's comes right behind the first one's.
    pub fn add(&mut self, mut row: Row) {
        let first = self.rows.iter().rfind(|first| first.workload == row.workload && first.target != row.target);
        row.first_to_this = first.map(|first| first.operations_per_second / row.operations_per_second);
        self.rows.push(row);
    }

    pub fn print(&self) {
        println!("{}\n{}\n", self.endpoint, self.conditions());
        let mut table = table(&COLUMNS);
        for row in &self.rows {
            table.add_row(cells(row));
        }
        println!("{table}");
        println!("{}", self.remarks());
    }

    pub fn markdown(&self) -> String {
        let mut text = format!("# {}\n\n{}\n\n", self.endpoint, self.conditions());
        let rule: Vec<&str> = COLUMNS.iter().map(|_| "---").collect();
        for line in [COLUMNS.join(" | "), rule.join(" | ")]
            .into_iter()
            .chain(self.rows.iter().map(|row| cells(row).join(" | ")))
        {
            let _ = writeln!(text, "| {line} |"); // a string takes everything
        }
        text + "\n" + &self.remarks()
    }

    fn conditions(&self) -> String {
        format!(
            "{}, {} cores, load {:.1}; {} build {}. {} objects of {}, {} clients; {} of {}, {} clients. fdatasync of 4 KiB: {:.0} µs (p50); \
             4 MiB appends with fdatasync: {}/s.",
            self.machine,
            self.cores,
            self.load_average,
            self.build,
            self.version,
            self.objects,
            short_bytes(self.size_bytes),
            self.clients,
            self.large_objects,
            short_bytes(self.large_size_bytes),
            self.large_clients,
            self.disk.fsync_p50_us,
            short_bytes(self.disk.synced_bytes_per_second as u64),
        )
    }

    fn remarks(&self) -> String {
        let mut text = String::new();
        for ProcessMemory { process, memory } in &self.memory {
            let (now, most) = (short_bytes(memory.resident_bytes), short_bytes(memory.resident_bytes_max));
            let _ = writeln!(text, "Process {process}: {now} resident, {most} at most.");
        }
        if let Some(storage) = &self.storage {
            let _ = writeln!(
                text,
                "Disk: {} and {} of write-ahead logs; {:.0} bytes beyond the data an object.",
                short_bytes(storage.disk.bytes - storage.disk.wal_bytes),
                short_bytes(storage.disk.wal_bytes),
                storage.beyond_data_bytes_per_object,
            );
        }
        for row in self.rows.iter().filter(|row| row.errors > 0) {
            let error = row.first_error.as_deref().unwrap_or_default();
            let _ = writeln!(text, "{} {}: {} errors, the first: {error}", row.target, row.workload, row.errors);
        }
        for Skipped { target, workload, reason } in &self.skipped {
            let _ = writeln!(text, "{target} {workload}: skipped: {reason}");
        }
        text
    }
}

const COLUMNS: [&str; 13] = [
    "TARGET",
    "WORKLOAD",
    "OPS",
    "OPS/S",
    "BYTES/S",
    "P50 ms",
    "P90 ms",
    "P99 ms",
    "MAX ms",
    "CPU µs/op",
    "CLIENT µs/op",
    "RATIO",
    "ERRORS",
];

fn cells(row: &Row) -> Vec<String> {
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let by_process: Vec<String> = row.server_cpu_us_by_process.iter().map(|of| format!("{:.0}", of.cpu_us)).collect();
    vec![
        row.target.to_owned(),
        row.workload.clone(),
        row.operations.to_string(),
        format!("{:.0}", row.operations_per_second),
        short_bytes(row.bytes_per_second as u64),
        format!("{:.2}", row.p50_ms),
        format!("{:.2}", row.p90_ms),
        format!("{:.2}", row.p99_ms),
        format!("{:.2}", row.max_ms),
        or_dash((!by_process.is_empty()).then(|| by_process.join(" + "))),
        format!("{:.0}", row.client_cpu_us),
        or_dash(row.first_to_this.map(|ratio| format!("{ratio:.2}"))),
        row.errors.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(target: &'static str, operations: u32, seconds: u64) -> Row {
        let latencies_us = (1..=operations).rev().collect();
        let measured = Measured { latencies_us, bytes: u64::from(operations) * 1024, ..Measured::default() };
        let used =
            vec![(7, Duration::from_millis(100)), (8, Duration::from_millis(300)), (9, Duration::from_millis(50))];
        Row::of(target, Workload::Put, measured, Duration::from_secs(seconds), used)
    }

    #[test]
    fn a_row_tells_percentiles_and_cpu_by_process() {
        let row = row("meridian", 1000, 2);
        assert_eq!((row.operations, row.operations_per_second, row.max_ms), (1000, 500.0, 1.0));
        assert!((row.p50_ms - 0.5).abs() < 0.01 && (row.p99_ms - 0.99).abs() < 0.01);
        assert_eq!(row.server_cpu_us, Some(400.0));
        assert_eq!(row.server_cpu_us_by_process.iter().map(|of| of.cpu_us).collect::<Vec<_>>(), [100.0, 300.0]);
        assert_eq!(row.client_cpu_us, 50.0);
    }

    #[test]
    fn disk_beyond_the_data_leaves_logs_out() {
        let disk = |bytes, wal_bytes| Disk { bytes, wal_bytes };
        let storage = Storage::of(
            disk(1000, 500),
            disk(1_205_500 + 9000, 9000),
            &[row("meridian", 1000, 2), row("compared", 9, 1)],
        );
        assert_eq!((storage.objects_written, storage.data_bytes), (1000, 1_024_000));
        assert_eq!(storage.beyond_data_bytes_per_object, 181.0);
    }
}
