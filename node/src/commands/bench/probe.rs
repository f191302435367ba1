//! What the disk below gives in the same run: figures to hold the server's against.

use std::fs::File;
use std::io::Write;
use std::time::Instant;

use anyhow::Result;
use serde::Serialize;

const SYNCS: usize = 200;
const LARGE_BYTES: usize = 4 << 20;
const LARGE_WRITES: usize = 16;

#[derive(Debug, Clone, Copy, Serialize)]
pub struct DiskProbe {
    /// Median time of an append of 4 KiB and its fdatasync.
    pub fsync_p50_us: f64,
    /// Appends of 4 MiB, each with its fdatasync, by one writer: what `dd oflag=dsync` does.
    pub synced_bytes_per_second: f64,
}

/// Measures in the temporary directory.
pub fn probe() -> Result<DiskProbe> {
    let mut file = tempfile::tempfile()?;
    let mut micros = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        micros.push(append(&mut file, &[7; 4096])? * 1e6);
    }
    micros.sort_by(f64::total_cmp);
    let block = vec![7; LARGE_BYTES];
    let mut seconds = 0.0;
    for _ in 0..LARGE_WRITES {
        seconds += append(&mut file, &block)?;
    }
    let synced_bytes_per_second = (LARGE_BYTES * LARGE_WRITES) as f64 / seconds;
    Ok(DiskProbe { fsync_p50_us: micros[SYNCS / 2], synced_bytes_per_second })
}

/// Seconds of one durable append.
fn append(file: &mut File, block: &[u8]) -> Result<f64> {
    let started = Instant::now();
    file.write_all(block)?;
    file.sync_data()?;
    Ok(started.elapsed().as_secs_f64())
}
