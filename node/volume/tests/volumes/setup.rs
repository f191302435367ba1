//! What the tests here start from: a clock, a set of volumes on some disk, needles with predictable content.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use meridian_env::disk::SimulatedDisk;
use meridian_env::{ClockConfig, Disk, HybridClock, SystemClock};
use meridian_types::{Cookie, DatacenterId, Epoch, Fid, FileGeneration, NeedleKey, VolumeId};
use meridian_volume::{Appended, VolumeError, VolumeHeader, VolumeOptions, VolumeSet};

pub const DIRECTORY: &str = "/volumes";
pub const COOKIE: Cookie = Cookie(0x00c0_ffee);
pub const GENERATION: FileGeneration = FileGeneration(0);

/// A clock whose bound is on a disk of its own.
pub fn clock() -> Arc<HybridClock> {
    let config = ClockConfig { skew_ms_max: 500 };
    HybridClock::open_on(&*SimulatedDisk::new(), Path::new("/clock.bound"), Arc::new(SystemClock::new()), config)
        .unwrap()
}

pub fn volume(counter: u32) -> VolumeId {
    VolumeId::new(counter, DatacenterId::new(1).unwrap()).unwrap()
}

pub fn header(counter: u32) -> VolumeHeader {
    VolumeHeader { volume: volume(counter), generation: GENERATION, epoch: Epoch(1), code: "100".parse().unwrap() }
}

pub fn open(disk: &Arc<impl Disk>, clock: &Arc<HybridClock>) -> Arc<VolumeSet> {
    open_limited(disk, clock, u64::MAX)
}

pub fn open_limited(disk: &Arc<impl Disk>, clock: &Arc<HybridClock>, size_max: u64) -> Arc<VolumeSet> {
    let options = VolumeOptions { size_max };
    let set = VolumeSet::open_with(Path::new(DIRECTORY), disk.clone(), clock.clone(), options).unwrap();
    assert_eq!(set.unopened(), []);
    set
}

pub fn path(counter: u32, ending: &str) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{}-{GENERATION}.{ending}", volume(counter)))
}

pub fn fid(counter: u32, key: u64) -> Fid {
    Fid { volume: volume(counter), key: NeedleKey(key), cookie: COOKIE }
}

/// `length` bytes that only `key` has.
pub fn content(key: u64, length: usize) -> Bytes {
    (0..length).map(|at| (key.wrapping_mul(0x9e37_79b9).wrapping_add(at as u64 * 131) >> 3) as u8).collect()
}

pub async fn append(set: &VolumeSet, counter: u32, key: u64, length: usize) -> Result<Appended, VolumeError> {
    set.append(volume(counter), NeedleKey(key), COOKIE, content(key, length)).await
}

/// Reads a needle and demands that it is what `append` wrote.
pub async fn assert_reads(set: &VolumeSet, counter: u32, key: u64, length: usize) {
    let read = set.read(fid(counter, key), 0..length as u32).await;
    let read = read.unwrap_or_else(|error| panic!("needle {key} of {length} bytes: {error}"));
    assert!(read == content(key, length), "needle {key} of {length} bytes has other content");
}

/// SplitMix64, seeded: prints nothing by itself, so name the seed in assertions.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}
