//! The overlay against the map that holds the same rows.

use bytes::Bytes;
use proptest::prelude::{Strategy, any, prop_assert_eq, prop_oneof, proptest};

use super::{KvRead, MemoryKv, Overlay, Step, WriteSet};

type Writes = Vec<(Vec<u8>, Option<u8>)>;

fn short_key() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(0u8..4, 0..4)
}

fn writes() -> impl Strategy<Value = Writes> {
    proptest::collection::vec((short_key(), any::<Option<u8>>()), 0..24)
}

/// How a visitor answers to the n-th key it sees.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![6 => proptest::strategy::Just(Step::Next), 4 => short_key().prop_map(Step::Seek),
        1 => proptest::strategy::Just(Step::Stop)];
    proptest::collection::vec(step, 0..12)
}

fn write_set(writes: &Writes) -> WriteSet {
    writes.iter().map(|(key, value)| (key.clone(), value.map(|byte| Bytes::from(vec![byte])))).collect()
}

fn visited(kv: &dyn KvRead, up: bool, start: &[u8], end: &[u8], steps: &[Step]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut seen = Vec::new();
    let mut visit = |key: &[u8], value: &[u8]| {
        seen.push((key.to_vec(), value.to_vec()));
        steps.get(seen.len() - 1).cloned().unwrap_or(Step::Next)
    };
    if up { kv.scan(start, end, &mut visit) } else { kv.scan_reverse(start, end, &mut visit) }.unwrap();
    seen
}

/// What a scan must visit, by definition.
fn expected(kv: &MemoryKv, up: bool, start: &[u8], end: &[u8], steps: &[Step]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows: Vec<_> =
        kv.rows().iter().filter(|(key, _)| start <= key.as_slice() && key.as_slice() < end).collect();
    if !up {
        rows.reverse();
    }
    let mut seen: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut target: Option<Vec<u8>> = None;
    for (key, value) in rows {
        if target.as_ref().is_some_and(|target| if up { key < target } else { key > target }) {
            continue;
        }
        seen.push((key.clone(), value.to_vec()));
        match steps.get(seen.len() - 1) {
            Some(Step::Stop) => break,
            Some(Step::Seek(key)) => target = Some(key.clone()),
            _ => target = None,
        }
    }
    seen
}

proptest! {
    #[test]
    fn an_overlay_reads_like_its_base_with_the_writes_applied(
        base in writes(), own in writes(), start in short_key(), end in short_key(), steps in steps(), up: bool,
    ) {
        let mut below = MemoryKv::new();
        below.apply(write_set(&base));
        let mut overlay = Overlay::new(&below);
        for (key, value) in &own {
            match value {
                Some(byte) => overlay.put(key.clone(), vec![*byte]),
                None => overlay.delete(key.clone()),
            }
        }
        let mut both = below.clone();
        both.apply(write_set(&own));

        let wanted = expected(&both, up, &start, &end, &steps);
        prop_assert_eq!(&visited(&both, up, &start, &end, &steps), &wanted);
        prop_assert_eq!(&visited(&overlay, up, &start, &end, &steps), &wanted);
        for (key, _) in base.iter().chain(&own) {
            prop_assert_eq!(overlay.get(key).unwrap(), both.get(key).unwrap());
        }
        prop_assert_eq!(overlay.into_writes(), write_set(&own));
    }
}

#[test]
fn an_inverted_range_is_empty() {
    let mut kv = MemoryKv::new();
    kv.apply(write_set(&vec![(vec![1], Some(1)), (vec![2], Some(2))]));
    let mut overlay = Overlay::new(&kv);
    overlay.put(vec![1, 1], vec![3]);
    for up in [true, false] {
        assert!(visited(&overlay, up, &[3], &[1], &[]).is_empty());
        assert_eq!(visited(&overlay, up, &[1], &[3], &[]).len(), 3);
    }
}
