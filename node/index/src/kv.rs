//! The small ordered key-value trait that every state machine is written over: RocksDB in a node, an ordered map in
//! simulation. Keys and values are bytes and are ordered bytewise; a value is read whole.
//!
//! It knows nothing of transactions: an apply reads through an [`Overlay`], which gathers the writes, and the owner
//! commits them as one atomic batch together with `last_applied`.
//!
//! Invariants: a scan visits each key of its range at most once and in order; an overlay shows its own writes, and
//! nothing reaches its base.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::ops::Bound;

use bytes::Bytes;

/// The store below failed: an I/O error or damage that it noticed. Nothing that a client sends causes it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("key-value store: {0}")]
pub struct KvError(pub String);

/// What a visitor wants next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Next,
    /// Go on at the first key at or above this one; in a reverse scan at the last key at or below it. A key that
    /// does not lie ahead is the same as `Next`.
    Seek(Vec<u8>),
    Stop,
}

/// Called with each key and value of a scan.
pub type Visit<'v> = dyn FnMut(&[u8], &[u8]) -> Step + 'v;

/// A consistent view of one group's keys.
pub trait KvRead: Send + Sync {
    /// # Errors
    /// `KvError` when the store below fails.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError>;

    /// Visits the keys in `[start, end)` in ascending order. An empty or inverted range visits nothing.
    ///
    /// # Errors
    /// `KvError` when the store below fails.
    fn scan(&self, start: &[u8], end: &[u8], visit: &mut Visit<'_>) -> Result<(), KvError>;

    /// Visits the keys in `[start, end)` in descending order. An empty or inverted range visits nothing.
    ///
    /// # Errors
    /// `KvError` when the store below fails.
    fn scan_reverse(&self, start: &[u8], end: &[u8], visit: &mut Visit<'_>) -> Result<(), KvError>;
}

/// Writes by key; `None` deletes.
pub type WriteSet = BTreeMap<Vec<u8>, Option<Bytes>>;

/// A view with writes on top, which it reads back. Nothing is written to `base`.
pub struct Overlay<'a> {
    base: &'a dyn KvRead,
    writes: WriteSet,
}

impl<'a> Overlay<'a> {
    pub fn new(base: &'a dyn KvRead) -> Self {
        Self { base, writes: WriteSet::new() }
    }

    pub fn put(&mut self, key: Vec<u8>, value: impl Into<Bytes>) {
        self.writes.insert(key, Some(value.into()));
    }

    pub fn delete(&mut self, key: Vec<u8>) {
        self.writes.insert(key, None);
    }

    pub fn into_writes(self) -> WriteSet {
        self.writes
    }

    pub fn writes(&self) -> &WriteSet {
        &self.writes
    }
}

/// Which way a scan goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

impl Direction {
    /// Whether a scan meets `key` later than `current`.
    fn is_ahead(self, key: &[u8], current: &[u8]) -> bool {
        match self {
            Direction::Up => key > current,
            Direction::Down => key < current,
        }
    }
}

type OwnWrites<'w> = Peekable<Box<dyn Iterator<Item = (&'w Vec<u8>, &'w Option<Bytes>)> + 'w>>;

/// The writes of `[start, end)` in scan order, from `target` on when the visitor has jumped.
fn own_writes<'w>(
    writes: &'w WriteSet,
    direction: Direction,
    start: &[u8],
    end: &[u8],
    target: Option<&[u8]>,
) -> OwnWrites<'w> {
    let (low, high) = match (direction, target) {
        (Direction::Up, Some(target)) => (target, Bound::Excluded(end)),
        (Direction::Down, Some(target)) => (start, Bound::Included(target)),
        (_, None) => (start, Bound::Excluded(end)),
    };
    let inverted = match high {
        Bound::Excluded(high) => low >= high,
        Bound::Included(high) => low > high,
        Bound::Unbounded => false,
    };
    let found: Box<dyn Iterator<Item = (&'w Vec<u8>, &'w Option<Bytes>)> + 'w> = if inverted {
        Box::new(std::iter::empty()) // `BTreeMap::range` panics on an inverted range
    } else {
        let range = writes.range::<[u8], _>((Bound::Included(low), high));
        if direction == Direction::Up { Box::new(range) } else { Box::new(range.rev()) }
    };
    found.peekable()
}

/// A scan of an overlay under way: where the visitor jumped to, and whether it has stopped.
struct Merging<'w, 'v, 'f> {
    writes: &'w WriteSet,
    own: OwnWrites<'w>,
    direction: Direction,
    range: (&'v [u8], &'v [u8]),
    visit: &'v mut Visit<'f>,
    target: Option<Vec<u8>>,
    stopped: bool,
}

impl<'w, 'v, 'f> Merging<'w, 'v, 'f> {
    fn new(writes: &'w WriteSet, direction: Direction, range: (&'v [u8], &'v [u8]), visit: &'v mut Visit<'f>) -> Self {
        let own = own_writes(writes, direction, range.0, range.1, None);
        Self { writes, own, direction, range, visit, target: None, stopped: false }
    }

    fn visit(&mut self, key: &[u8], value: &[u8]) {
        match (self.visit)(key, value) {
            Step::Next => {}
            Step::Stop => self.stopped = true,
            Step::Seek(target) => {
                if self.direction.is_ahead(&target, key) {
                    self.own = own_writes(self.writes, self.direction, self.range.0, self.range.1, Some(&target));
                    self.target = Some(target);
                }
            }
        }
    }

    /// What the base does after `key`, as far as the visitor has decided.
    fn step_after(&self, key: &[u8]) -> Step {
        match &self.target {
            _ if self.stopped => Step::Stop,
            Some(target) if self.direction.is_ahead(target, key) => Step::Seek(target.clone()),
            _ => Step::Next,
        }
    }

    /// The base has come to `key`: our own writes up to it come first, and one of the same key shadows it.
    fn base_at(&mut self, key: &[u8], value: &[u8]) -> Step {
        let step = self.step_after(key);
        if step != Step::Next {
            return step; // a jump from one of our own keys went beyond the base's next one
        }
        let direction = self.direction;
        while let Some((own_key, written)) = self.own.next_if(|(own_key, _)| !direction.is_ahead(own_key, key)) {
            if let Some(value) = written {
                self.visit(own_key, value);
            }
            let step = self.step_after(key);
            if step != Step::Next || own_key.as_slice() == key {
                return step;
            }
        }
        self.visit(key, value);
        self.step_after(key)
    }

    /// The base has no more keys.
    fn finish(mut self) {
        while !self.stopped {
            let Some((key, written)) = self.own.next() else { return };
            if let Some(value) = written {
                self.visit(key, value);
            }
        }
    }
}

impl KvRead for Overlay<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        match self.writes.get(key) {
            Some(written) => Ok(written.clone()),
            None => self.base.get(key),
        }
    }

    fn scan(&self, start: &[u8], end: &[u8], visit: &mut Visit<'_>) -> Result<(), KvError> {
        let mut merging = Merging::new(&self.writes, Direction::Up, (start, end), visit);
        self.base.scan(start, end, &mut |key, value| merging.base_at(key, value))?;
        merging.finish();
        Ok(())
    }

    fn scan_reverse(&self, start: &[u8], end: &[u8], visit: &mut Visit<'_>) -> Result<(), KvError> {
        let mut merging = Merging::new(&self.writes, Direction::Down, (start, end), visit);
        self.base.scan_reverse(start, end, &mut |key, value| merging.base_at(key, value))?;
        merging.finish();
        Ok(())
    }
}

/// The ordered map that simulation and tests run on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryKv {
    rows: BTreeMap<Vec<u8>, Bytes>,
}

impl MemoryKv {
    pub fn new() -> Self {
        Self::default()
    }

    /// Commits a write set, whole.
    pub fn apply(&mut self, writes: WriteSet) {
        for (key, written) in writes {
            match written {
                Some(value) => self.rows.insert(key, value),
                None => self.rows.remove(&key),
            };
        }
    }

    /// All rows in order.
    pub fn rows(&self) -> &BTreeMap<Vec<u8>, Bytes> {
        &self.rows
    }
}

impl KvRead for MemoryKv {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        Ok(self.rows.get(key).cloned())
    }

    fn scan(&self, start: &[u8], end: &[u8], visit: &mut Visit<'_>) -> Result<(), KvError> {
        let mut from = start.to_vec();
        while from.as_slice() < end {
            let jump = self.rows.range::<[u8], _>((Bound::Included(from.as_slice()), Bound::Excluded(end))).find_map(
                |(key, value)| match visit(key, value) {
                    Step::Next => None,
                    Step::Stop => Some(None),
                    Step::Seek(target) => Direction::Up.is_ahead(&target, key).then_some(Some(target)),
                },
            );
            match jump {
                Some(Some(target)) => from = target,
                Some(None) | None => return Ok(()),
            }
        }
        Ok(())
    }

    fn scan_reverse(&self, start: &[u8], end: &[u8], visit: &mut Visit<'_>) -> Result<(), KvError> {
        let mut from: Option<Vec<u8>> = None; // inclusive once the visitor has jumped
        loop {
            let high = from.as_deref().map_or(Bound::Excluded(end), Bound::Included);
            if from.as_deref().map_or(start >= end, |from| start > from) {
                return Ok(());
            }
            let jump = self.rows.range::<[u8], _>((Bound::Included(start), high)).rev().find_map(|(key, value)| {
                match visit(key, value) {
                    Step::Next => None,
                    Step::Stop => Some(None),
                    Step::Seek(target) => Direction::Down.is_ahead(&target, key).then_some(Some(target)),
                }
            });
            match jump {
                Some(Some(target)) => from = Some(target),
                Some(None) | None => return Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests;
