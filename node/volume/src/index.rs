//! Where each live needle of a volume is: key → offset and length, in memory.
//!
//! An open volume uses a hash table (at most 39 bytes a needle: 16 of entry and 1 of control, at worst 7/16 full); a
//! sealed one a sorted array (16 bytes a needle), in which a deleted needle leaves a hole.
//!
//! Invariants: an entry names a committed needle; offsets are multiples of 8 and fit 32 bits of 8-byte units.

use std::collections::HashMap;

use meridian_types::NeedleKey;

use crate::needle::ALIGNMENT;

/// Where a needle starts, and how much data it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// In units of 8 bytes; 0 is the file header and so no needle.
    unit: u32,
    pub(crate) length: u32,
}

impl Place {
    /// `offset` is a needle's: a multiple of 8 below 32 GiB.
    pub(crate) fn new(offset: u64, length: u32) -> Self {
        assert!(offset.is_multiple_of(ALIGNMENT) && offset > 0, "needles are aligned and behind the file header");
        Self { unit: u32::try_from(offset / ALIGNMENT).expect("a volume ends at VOLUME_SIZE_MAX"), length }
    }

    pub(crate) fn offset(self) -> u64 {
        u64::from(self.unit) * ALIGNMENT
    }
}

#[derive(Debug)]
enum Form {
    Open(HashMap<u64, Place>),
    /// On the way to `Sealed`, at a start: in the order in which they were added.
    Gathering(Vec<(u64, Place)>),
    Sealed(Box<[(u64, Place)]>),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Index {
    form: Form,
    needles: u64,
    bytes: u64,
}

impl Default for Index {
    fn default() -> Self {
        Self { form: Form::Open(HashMap::new()), needles: 0, bytes: 0 }
    }
}

impl Index {
    /// The index of a volume that is sealed already, being read at a start: it takes needles until `seal`, and answers
    /// only then. It never has more than that form's memory, but for the growth of an array.
    pub(crate) fn gathering() -> Self {
        Self { form: Form::Gathering(Vec::new()), needles: 0, bytes: 0 }
    }

    pub(crate) fn get(&self, key: NeedleKey) -> Option<Place> {
        match &self.form {
            Form::Open(places) => places.get(&key.0).copied(),
            Form::Gathering(_) => panic!("an index is sealed before it is asked"),
            Form::Sealed(places) => {
                let found = places.binary_search_by_key(&key.0, |(key, _)| *key).ok()?;
                Some(places[found].1).filter(|place| place.unit != 0)
            }
        }
    }

    /// Adds a needle of an open volume; the later of two with one key counts.
    pub(crate) fn insert(&mut self, key: NeedleKey, place: Place) {
        let places = match &mut self.form {
            Form::Open(places) => places,
            Form::Gathering(places) => return places.push((key.0, place)),
            Form::Sealed(_) => panic!("a sealed volume takes no needle"),
        };
        self.bytes += u64::from(place.length);
        match places.insert(key.0, place) {
            Some(before) => self.bytes -= u64::from(before.length),
            None => self.needles += 1,
        }
    }

    /// Adds a needle that a repair has brought back, in either form, unless its key is there. Copies a sealed index.
    pub(crate) fn restore(&mut self, key: NeedleKey, place: Place) {
        if self.get(key).is_some() {
            return;
        }
        match &mut self.form {
            Form::Open(places) => {
                places.insert(key.0, place);
            }
            Form::Gathering(_) => panic!("an index is sealed before it is mended"),
            Form::Sealed(places) => {
                let mut sorted = std::mem::take(places).into_vec();
                match sorted.binary_search_by_key(&key.0, |(key, _)| *key) {
                    Ok(hole) => sorted[hole].1 = place,
                    Err(before) => sorted.insert(before, (key.0, place)),
                }
                *places = sorted.into_boxed_slice();
            }
        }
        self.needles += 1;
        self.bytes += u64::from(place.length);
    }

    /// Drops the needle if it is the one at `offset`; false when there is none such.
    pub(crate) fn remove(&mut self, key: NeedleKey, offset: u64) -> bool {
        let Some(place) = self.get(key).filter(|place| place.offset() == offset) else { return false };
        match &mut self.form {
            Form::Open(places) => {
                places.remove(&key.0);
            }
            Form::Gathering(_) => panic!("an index is sealed before deletes are applied"),
            Form::Sealed(places) => {
                let found = places.binary_search_by_key(&key.0, |(key, _)| *key).expect("it was found above");
                places[found].1.unit = 0;
            }
        }
        self.needles -= 1;
        self.bytes -= u64::from(place.length);
        true
    }

    /// Drops the needles at and behind `end`.
    pub(crate) fn truncate(&mut self, end: u64) {
        let Form::Open(places) = &mut self.form else { panic!("a sealed volume is not cut") };
        places.retain(|_, place| place.offset() < end);
        self.needles = places.len() as u64;
        self.bytes = places.values().map(|place| u64::from(place.length)).sum();
    }

    /// Takes the smaller form for good.
    pub(crate) fn seal(&mut self) {
        match &mut self.form {
            Form::Open(places) => {
                let mut sorted: Vec<(u64, Place)> = std::mem::take(places).into_iter().collect();
                sorted.sort_unstable_by_key(|(key, _)| *key);
                self.form = Form::Sealed(sorted.into_boxed_slice());
            }
            Form::Gathering(places) => {
                let mut sorted = std::mem::take(places);
                // Of one key the last in the file counts, and offsets rise with the order.
                sorted.sort_unstable_by_key(|(key, place)| (*key, std::cmp::Reverse(place.unit)));
                sorted.dedup_by_key(|(key, _)| *key);
                self.needles = sorted.len() as u64;
                self.bytes = sorted.iter().map(|(_, place)| u64::from(place.length)).sum();
                self.form = Form::Sealed(sorted.into_boxed_slice());
            }
            Form::Sealed(_) => {}
        }
    }

    /// Live needles.
    pub(crate) fn needles(&self) -> u64 {
        self.needles
    }

    /// Bytes of data in live needles.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(count: u64) -> Index {
        let mut index = Index::default();
        for n in 0..count {
            index.insert(NeedleKey(n * 7919 % 1_000_003), Place::new((n + 8) * 40, n as u32));
        }
        index
    }

    #[test]
    fn both_forms_answer_alike() {
        let (open, mut sealed) = (filled(1000), filled(1000));
        sealed.seal();
        for key in 0..1_000_003 {
            assert_eq!(open.get(NeedleKey(key)), sealed.get(NeedleKey(key)));
        }
        let place = sealed.get(NeedleKey(7919)).unwrap();
        assert!(!sealed.remove(NeedleKey(7919), place.offset() + 8));
        assert!(sealed.remove(NeedleKey(7919), place.offset()));
        assert!(!sealed.remove(NeedleKey(7919), place.offset()));
        assert_eq!(sealed.get(NeedleKey(7919)), None);
        assert_eq!((sealed.needles(), sealed.bytes()), (999, open.bytes() - u64::from(place.length)));
    }

    #[test]
    fn a_gathered_index_is_the_same_as_one_that_was_sealed() {
        let (mut gathered, mut open) = (Index::gathering(), Index::default());
        for n in 0..3000u64 {
            for index in [&mut gathered, &mut open] {
                index.insert(NeedleKey(n * 7919 % 2003), Place::new((n + 8) * 40, n as u32)); // some keys twice
            }
        }
        gathered.seal();
        open.seal();
        assert_eq!((gathered.needles(), gathered.bytes()), (open.needles(), open.bytes()));
        for key in 0..2100 {
            assert_eq!(gathered.get(NeedleKey(key)), open.get(NeedleKey(key)));
        }
    }

    #[test]
    fn memory_stays_below_40_bytes_a_needle_open_and_20_sealed() {
        assert_eq!(size_of::<(u64, Place)>(), 16);
        for count in [10_000u64, 14_336, 14_337, 57_344, 57_345, 90_000, 1_000_000] {
            let mut index = filled(count);
            let Form::Open(places) = &index.form else { unreachable!() };
            let buckets = (places.capacity() as u64 * 8).div_ceil(7); // the table is at most 7/8 full
            assert!(buckets * 17 <= count * 40, "{buckets} buckets for {count} needles");
            index.seal();
            let Form::Sealed(places) = &index.form else { unreachable!() };
            assert_eq!(places.len() as u64, count);
        }
    }

    #[test]
    fn the_later_needle_of_a_key_counts() {
        let mut index = Index::default();
        index.insert(NeedleKey(1), Place::new(64, 10));
        index.insert(NeedleKey(1), Place::new(128, 30));
        assert_eq!((index.get(NeedleKey(1)).unwrap().offset(), index.needles(), index.bytes()), (128, 1, 30));
    }
}
