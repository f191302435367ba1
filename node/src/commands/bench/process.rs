//! What server processes on this machine cost: CPU time, memory, disk.
//!
//! Source: proc(5).

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

/// A tick of `/proc/PID/stat` on Linux.
const TICK_MS: u64 = 10;
/// Bytes of one of `stat`'s blocks.
const BLOCK_BYTES: u64 = 512;

/// User and system time of a process so far; in steps of 10 ms.
pub fn cpu_of(process: u32) -> Result<Duration> {
    let path = format!("/proc/{process}/stat");
    let stat = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    // Fields 14 and 15, counted behind the command's closing bracket.
    let behind = stat.rsplit_once(')').context("a process has a command")?.1;
    let fields: Vec<&str> = behind.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok()).context("read its ticks");
    Ok(Duration::from_millis((ticks(11)? + ticks(12)?) * TICK_MS))
}

/// Memory of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Memory {
    pub resident_bytes: u64,
    pub resident_bytes_max: u64,
}

pub fn memory_of(process: u32) -> Result<Memory> {
    let path = format!("/proc/{process}/status");
    let status = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context("read its memory")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        anyhow::Ok(kib * 1024)
    };
    Ok(Memory { resident_bytes: of("VmRSS:")?, resident_bytes_max: of("VmHWM:")? })
}

/// Disk that a directory takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// Of it all, in blocks that are in use.
    pub bytes: u64,
    /// Of write-ahead logs: bounded, whatever is stored.
    pub wal_bytes: u64,
}

pub fn disk_of(directory: &Path) -> Result<Disk> {
    let mut disk = Disk::default();
    for entry in std::fs::read_dir(directory).with_context(|| format!("read {}", directory.display()))? {
        let path = entry?.path();
        let Ok(metadata) = path.symlink_metadata() else { continue }; // the server has just removed it
        if metadata.is_dir() {
            let below = disk_of(&path)?;
            disk.bytes += below.bytes;
            disk.wal_bytes += below.wal_bytes;
            continue;
        }
        let bytes = metadata.blocks() * BLOCK_BYTES;
        disk.bytes += bytes;
        if path.extension().is_some_and(|extension| extension == "log") {
            disk.wal_bytes += bytes;
        }
    }
    Ok(disk)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_cpu_and_memory() {
        let before = cpu_of(std::process::id()).unwrap();
        let until = std::time::Instant::now() + Duration::from_secs(20);
        while cpu_of(std::process::id()).unwrap() == before {
            assert!(std::time::Instant::now() < until, "no tick of CPU is told");
        }
        let memory = memory_of(std::process::id()).unwrap();
        assert!(memory.resident_bytes > 0 && memory.resident_bytes_max >= memory.resident_bytes);
        assert!(cpu_of(u32::MAX).is_err());
    }

    #[test]
    fn write_ahead_logs_are_counted_apart() {
        let directory = tempfile::tempdir().unwrap();
        let below = directory.path().join("store");
        std::fs::create_dir(&below).unwrap();
        std::fs::write(below.join("000007.log"), vec![1; 9000]).unwrap();
        std::fs::write(directory.path().join("a.data"), vec![1; 100_000]).unwrap();
        let disk = disk_of(directory.path()).unwrap();
        assert!(disk.wal_bytes >= 9000 && disk.bytes >= disk.wal_bytes + 100_000, "{disk:?}");
    }
}
