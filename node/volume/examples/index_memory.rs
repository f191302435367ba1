//! Prints what the index of one volume costs: bytes of memory a live needle while it is open and once it is sealed, and how
//! long a start takes from the index journal and from the data alone.
//!
//! ```text
//! cargo run -p meridian-volume --example index_memory -- [NEEDLES] [DIRECTORY]
//! ```
//!
//! 10 million needles of 8 bytes by default, some 560 MB of files in DIRECTORY (or a temporary one). Memory is measured as
//! the process's resident set. Invariants: none; it measures.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use meridian_env::{ClockConfig, HybridClock, RealDisk, SystemClock};
use meridian_types::{Cookie, DatacenterId, Epoch, FileGeneration, NeedleKey, VolumeId};
use meridian_volume::{NewNeedle, VolumeHeader, VolumeSet};

/// Needles that are written with one sync.
const BATCH_NEEDLES: u64 = 20_000;
const PAGE_SIZE: u64 = 4096;

/// Resident bytes of this process.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux tells of its processes");
    statm.split(' ').nth(1).expect("the second field").parse::<u64>().expect("a number") * PAGE_SIZE
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let needles: u64 = arguments.next().map_or(10_000_000, |count| count.parse().expect("a number of needles"));
    let directory = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = directory.join(format!("index-memory-{}", std::process::id()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(measure(&directory, needles));
    std::fs::remove_dir_all(&directory).expect("remove what was made here");
}

async fn measure(directory: &Path, needles: u64) {
    std::fs::create_dir_all(directory).expect("make the directory");
    let config = ClockConfig { skew_ms_max: 500 };
    let clock = HybridClock::open(&directory.join("clock.bound"), Arc::new(SystemClock::new()), config);
    let clock = clock.expect("open a clock");
    let volume = VolumeId::new(1, DatacenterId::new(1).expect("1 is one")).expect("1 is one");
    let header = VolumeHeader {
        volume,
        generation: FileGeneration(0),
        epoch: Epoch(1),
        code: "001".parse().expect("a code"), // a primary: its file takes batches of any size
    };
    let open =
        || VolumeSet::open(&directory.join("volumes"), RealDisk::new(), clock.clone()).expect("open the volumes");

    let set = open();
    set.create(header).expect("create a volume");
    let file = set.replica(volume).expect("it is a primary");
    let before = resident();
    for first in (0..needles).step_by(BATCH_NEEDLES as usize) {
        let keys = first..needles.min(first + BATCH_NEEDLES);
        let needle = |key| NewNeedle::new(NeedleKey(key), Cookie(7), Bytes::from_static(b"8 bytes."));
        let batch: Vec<NewNeedle> = keys.map(|key| needle(key).expect("it is small")).collect();
        let batch = file.place(&batch).batch.expect("there is room");
        let end = file.write(&batch).expect("write a batch");
        file.commit(end).expect("commit a batch");
    }
    let grown = resident().saturating_sub(before);
    println!("{needles} needles, open:   {:5.1} bytes a needle", grown as f64 / needles as f64);
    drop(file);
    set.seal(volume, Epoch(2)).await.expect("seal the volume");
    drop(set);

    let started = |what: &str| {
        let (before, begun) = (resident(), Instant::now());
        let set = open();
        let took = begun.elapsed();
        let grown = resident().saturating_sub(before);
        assert_eq!(set.state(volume).expect("it is there").needles, needles);
        println!(
            "{needles} needles, sealed: {:5.1} bytes a needle, started from {what} in {:.1} s",
            grown as f64 / needles as f64,
            took.as_secs_f64()
        );
    };
    started("the index journal");
    let index = directory.join("volumes").join(format!("{volume}-0.index"));
    std::fs::remove_file(index).expect("remove the index journal");
    started("the data alone");
}
