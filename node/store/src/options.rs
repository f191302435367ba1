//! How RocksDB is set up.
//!
//! Invariants: the WAL is on for every write and is replayed with no tolerance at all (rule 8): `wal` has cut a torn
//! end before RocksDB looks. The WAL is written to the file at a sync, not at each write, so that a sync is one
//! write and one fdatasync for all groups.

use rocksdb::{BlockBasedOptions, DBCompressionType, DBRecoveryMode, Options};

use crate::SharedMemory;

pub(crate) const STATE_COLUMN: &str = "state";
pub(crate) const LOG_COLUMN: &str = "log";

const STATE_WRITE_BUFFER_BYTES: usize = 32 << 20;
const LOG_WRITE_BUFFER_BYTES: usize = 16 << 20;
/// Small, because a node has three columns and a process may run nine nodes.
const ARENA_BLOCK_BYTES: usize = 256 << 10;
/// Bounds the replay at start and the disk that idle columns pin.
const WAL_BYTES_MAX: u64 = 128 << 20;
const OPEN_FILES_MAX: i32 = 512;
const BACKGROUND_JOBS_MAX: i32 = 2;
/// Of a write buffer's size, what its filter of keys may take.
const MEMTABLE_FILTER_SHARE: f64 = 0.02;
const BLOOM_BITS_PER_KEY: f64 = 10.0;
const BLOCK_BYTES: usize = 8 << 10;
const INFO_LOG_BYTES: usize = 4 << 20;
const INFO_LOG_FILES: usize = 3;

pub(crate) fn database(memory: &SharedMemory) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_wal_recovery_mode(DBRecoveryMode::AbsoluteConsistency);
    options.set_paranoid_checks(true);
    options.set_manual_wal_flush(true);
    options.set_max_total_wal_size(WAL_BYTES_MAX);
    // A batch has a handful of rows: inserting them by several threads, and spinning until another thread's batch is in, cost
    // more CPU than they save.
    options.set_allow_concurrent_memtable_write(false);
    options.set_enable_write_thread_adaptive_yield(false);
    options.set_write_buffer_manager(&memory.buffers);
    options.set_max_open_files(OPEN_FILES_MAX);
    options.set_max_background_jobs(BACKGROUND_JOBS_MAX);
    options.set_bytes_per_sync(1 << 20);
    options.set_max_log_file_size(INFO_LOG_BYTES);
    options.set_keep_log_file_num(INFO_LOG_FILES);
    // No periodic work in an idle process.
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_skip_stats_update_on_db_open(true);
    options
}

fn column(memory: &SharedMemory, write_buffer_bytes: usize) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&memory.cache);
    table.set_block_size(BLOCK_BYTES);
    table.set_bloom_filter(BLOOM_BITS_PER_KEY, false);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(write_buffer_bytes);
    options.set_arena_block_size(ARENA_BLOCK_BYTES);
    options.set_compression_type(DBCompressionType::Lz4);
    options
}

pub(crate) fn own_column(memory: &SharedMemory) -> Options {
    column(memory, LOG_WRITE_BUFFER_BYTES)
}

pub(crate) fn state_column(memory: &SharedMemory) -> Options {
    let mut options = column(memory, STATE_WRITE_BUFFER_BYTES);
    // Each mutation looks for rows that are mostly not there (its request, a fence, the key): a filter over the write
    // buffer spares the walk through its skip list.
    options.set_memtable_whole_key_filtering(true);
    options.set_memtable_prefix_bloom_ratio(MEMTABLE_FILTER_SHARE);
    options.set_bottommost_compression_type(DBCompressionType::Zstd);
    options
}

pub(crate) fn log_column(memory: &SharedMemory) -> Options {
    column(memory, LOG_WRITE_BUFFER_BYTES)
}
