//! The last entries of a group's log in memory, so that applying what was just appended reads nothing back.
//!
//! It is no cache of the log at large: a replica that is far behind is served from the store.
//!
//! Invariants: what is held is the end of the log without a hole, entry for entry what the store holds; at most
//! `ENTRIES_MAX` entries and `BYTES_MAX` of commands, but for one larger entry.

use std::collections::VecDeque;

use openraft::EntryPayload;

use crate::types::Entry;

/// More than one group has in flight.
const ENTRIES_MAX: usize = 256;
/// Of commands, in bytes: a node has tens of groups.
const BYTES_MAX: usize = 512 << 10;

/// The end of one log.
#[derive(Default)]
pub(crate) struct RecentEntries {
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl RecentEntries {
    /// Takes over what was written to the end of the log.
    pub(crate) fn append(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            let follows = self.entries.back().is_none_or(|last| last.log_id.index + 1 == entry.log_id.index);
            if !follows {
                self.clear();
            }
            self.bytes += size_of(&entry);
            self.entries.push_back(entry);
            while self.entries.len() > 1 && (self.entries.len() > ENTRIES_MAX || self.bytes > BYTES_MAX) {
                self.bytes -= self.entries.pop_front().map_or(0, |first| size_of(&first));
            }
        }
    }

    /// The entries in `[start, end)`, if all that the log has of them is here.
    pub(crate) fn get(&self, start: u64, end: u64) -> Option<Vec<Entry>> {
        let first = self.entries.front()?.log_id.index;
        let behind = first + self.entries.len() as u64;
        if start < first || end > behind || start >= end {
            return None;
        }
        let range = (start - first) as usize..(end - first) as usize;
        Some(self.entries.range(range).cloned().collect())
    }

    /// Forgets all: the log was cut, or replaced.
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }

    /// Forgets what is purged: entries below `first`.
    pub(crate) fn drop_below(&mut self, first: u64) {
        while self.entries.front().is_some_and(|entry| entry.log_id.index < first) {
            self.bytes -= self.entries.pop_front().map_or(0, |entry| size_of(&entry));
        }
    }
}

fn size_of(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(command) => command.0.len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::types::{Command, log_id};

    fn entry(term: u64, index: u64, size: usize) -> Entry {
        Entry { log_id: log_id(term, index), payload: EntryPayload::Normal(Command(Bytes::from(vec![7; size]))) }
    }

    fn indexes(recent: &RecentEntries, start: u64, end: u64) -> Option<Vec<u64>> {
        recent.get(start, end).map(|entries| entries.iter().map(|entry| entry.log_id.index).collect())
    }

    #[test]
    fn only_whole_ranges_are_given() {
        let mut recent = RecentEntries::default();
        assert_eq!(indexes(&recent, 0, 1), None);
        recent.append((5..9).map(|index| entry(1, index, 10)).collect());
        assert_eq!(indexes(&recent, 5, 9), Some(vec![5, 6, 7, 8]));
        assert_eq!(indexes(&recent, 6, 7), Some(vec![6]));
        assert_eq!((indexes(&recent, 4, 6), indexes(&recent, 8, 10), indexes(&recent, 7, 7)), (None, None, None));
        recent.drop_below(7);
        assert_eq!((indexes(&recent, 6, 8), indexes(&recent, 7, 9)), (None, Some(vec![7, 8])));
    }

    #[test]
    fn what_does_not_follow_takes_the_place_of_all() {
        let mut recent = RecentEntries::default();
        recent.append((1..4).map(|index| entry(1, index, 10)).collect());
        recent.append(vec![entry(2, 3, 10)]); // the log was cut and written anew
        assert_eq!((indexes(&recent, 2, 4), recent.get(3, 4).unwrap()[0].log_id), (None, log_id(2, 3)));
        recent.append(vec![entry(2, 9, 10)]);
        assert_eq!((indexes(&recent, 3, 4), indexes(&recent, 9, 10)), (None, Some(vec![9])));
        recent.clear();
        assert_eq!(indexes(&recent, 9, 10), None);
    }

    #[test]
    fn it_holds_a_bounded_part() {
        let mut recent = RecentEntries::default();
        recent.append((0..1000).map(|index| entry(1, index, 10)).collect());
        assert_eq!((recent.entries.len(), recent.bytes), (ENTRIES_MAX, ENTRIES_MAX * 10));
        recent.append(vec![entry(1, 1000, 2 * BYTES_MAX)]);
        assert_eq!((recent.entries.len(), indexes(&recent, 1000, 1001)), (1, Some(vec![1000])));
        recent.append(vec![entry(1, 1001, 1)]);
        assert_eq!((recent.entries.len(), recent.bytes), (1, 1));
    }
}
