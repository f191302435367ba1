//! Limits with their names and units. A limit that only one crate knows stands there; these are shared.

/// Longest object key, in bytes of UTF-8 (S3).
pub const OBJECT_KEY_LENGTH_MAX: usize = 1024;
/// Largest piece of an object that becomes one needle.
pub const CHUNK_SIZE_MAX: usize = 4 << 20;
/// Largest needle that a volume takes.
pub const NEEDLE_SIZE_MAX: usize = 16 << 20;
/// Largest volume file: offsets count 8-byte units in 32 bits.
pub const VOLUME_SIZE_MAX: u64 = 32 << 30;
/// Largest part of a multipart upload, and largest single PUT (S3).
pub const PART_SIZE_MAX: u64 = 5 << 30;
/// Smallest part but the last (S3).
pub const PART_SIZE_MIN: u64 = 5 << 20;
/// Greatest part number (S3).
pub const PART_NUMBER_MAX: u16 = 10_000;
/// Most chunks whose references fit into one row; a chunk list beyond it needs a manifest.
pub const CHUNKS_IN_ROW_MAX: usize = 32_768;
/// Most user metadata of an object, in bytes of names and values (S3).
pub const USER_METADATA_SIZE_MAX: usize = 2048;
/// Most entries of one LIST page (S3).
pub const LIST_PAGE_MAX: usize = 1000;
/// Largest encoded mutation that a raft group takes.
pub const MUTATION_SIZE_MAX: usize = 3 << 20;
/// Most bytes of log entries in one pulled batch, before compression.
pub const LOG_BATCH_SIZE_MAX: usize = 2 << 20;
/// Most entries in one pulled batch of one partition.
pub const LOG_BATCH_ENTRIES_MAX: usize = 2048;
/// A remote stamp further ahead than this is held, not merged.
pub const CLOCK_SKEW_MS_MAX_DEFAULT: u64 = 500;
/// Most partitions of a cluster; the ids above are reserved (the catalog is one).
pub const PARTITIONS_MAX: u16 = 4096;
