//! Ordered walks over one group's rows, with the steps of `kv::Step`.
//!
//! Invariants: both bounds are always set on the RocksDB iterator, so that it never walks over tombstones or rows of
//! a neighbouring group; a visitor gets rows without the group's prefix.

use meridian_index::kv::{Step, Visit};
use rocksdb::{DB, DBRawIteratorWithThreadMode, ReadOptions};

use crate::engine::key;

const PREFIX_LENGTH: usize = 4;

/// Read options for a walk over `[start, end)`.
pub(crate) fn bounded(prefix: [u8; 4], start: &[u8], end: &[u8]) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(key(prefix, start));
    options.set_iterate_upper_bound(key(prefix, end));
    options
}

pub(crate) fn forward(
    mut rows: DBRawIteratorWithThreadMode<'_, DB>,
    prefix: [u8; 4],
    visit: &mut Visit<'_>,
) -> Result<(), rocksdb::Error> {
    rows.seek_to_first();
    while let Some((found, value)) = rows.item() {
        let row = &found[PREFIX_LENGTH..];
        match visit(row, value) {
            Step::Seek(target) if target.as_slice() > row => rows.seek(key(prefix, &target)),
            Step::Next | Step::Seek(_) => rows.next(),
            Step::Stop => return Ok(()),
        }
    }
    rows.status()
}

pub(crate) fn backward(
    mut rows: DBRawIteratorWithThreadMode<'_, DB>,
    prefix: [u8; 4],
    visit: &mut Visit<'_>,
) -> Result<(), rocksdb::Error> {
    rows.seek_to_last();
    while let Some((found, value)) = rows.item() {
        let row = &found[PREFIX_LENGTH..];
        match visit(row, value) {
            Step::Seek(target) if target.as_slice() < row => rows.seek_for_prev(key(prefix, &target)),
            Step::Next | Step::Seek(_) => rows.prev(),
            Step::Stop => return Ok(()),
        }
    }
    rows.status()
}
