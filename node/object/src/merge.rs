//! Merges the ordered lanes of the partitions into one page. Pure but for what a lane fetches.
//!
//! A lane fetches a little more than its share of the page and comes back for more only when it runs dry, so that a
//! page of a thousand keys does not read a thousand rows of every partition.
//!
//! Invariants: lanes are in ascending order of `at`; the page is too, without an `at` twice (a common prefix comes out
//! of many lanes); a page is truncated exactly when an item follows its last one.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};

/// Rows that a lane reads beyond its share, in square roots of that: keys are spread by a hash, so that three are more than
/// all but one page in a few hundred needs.
const SHARE_EXTRA_ROOTS: usize = 3;

/// An entry, or a common prefix when `value` is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item<K, T> {
    pub(crate) at: K,
    pub(crate) value: Option<T>,
}

/// The next items of a lane, in order, and whether more follow them.
pub(crate) type Fetched<K, T> = (Vec<Item<K, T>>, bool);

/// One partition's items, fetched piece by piece.
pub(crate) struct Lane<K, T, F> {
    items: VecDeque<Item<K, T>>,
    more: bool,
    fetch: F,
}

impl<K: Ord, T, F, E> Lane<K, T, F>
where
    F: FnMut() -> Result<Fetched<K, T>, E>,
{
    pub(crate) fn new(fetch: F) -> Self {
        Self { items: VecDeque::new(), more: true, fetch }
    }

    fn pop(&mut self) -> Result<Option<Item<K, T>>, E> {
        while self.items.is_empty() && self.more {
            let (items, more) = (self.fetch)()?;
            debug_assert!(items.is_sorted_by(|a, b| a.at <= b.at), "a lane is in order");
            (self.items, self.more) = (items.into(), more);
        }
        Ok(self.items.pop_front())
    }
}

/// How many rows each of `lanes` lanes reads at a time for a page of `limit`.
pub(crate) fn share_of(limit: usize, lanes: usize) -> usize {
    let all = limit + 1; // one more, to know whether the page is truncated
    let share = all.div_ceil(lanes.max(1));
    (share + SHARE_EXTRA_ROOTS * (share.isqrt() + 1)).min(all)
}

/// The next item of a lane; the least one is the greatest of a heap.
struct Head<K, T> {
    item: Item<K, T>,
    lane: usize,
}

impl<K: Ord, T> Ord for Head<K, T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (&other.item.at, other.lane).cmp(&(&self.item.at, self.lane))
    }
}

impl<K: Ord, T> PartialOrd for Head<K, T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<K: Ord, T> PartialEq for Head<K, T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<K: Ord, T> Eq for Head<K, T> {}

/// The first `limit` items of all lanes, and whether more follow. A limit of 0 fetches nothing and is not truncated.
///
/// # Errors
/// The first error of a lane: never a page with a lane missing (rule 23).
pub(crate) fn merge<K: Ord, T, F, E>(lanes: &mut [Lane<K, T, F>], limit: usize) -> Result<(Vec<Item<K, T>>, bool), E>
where
    F: FnMut() -> Result<Fetched<K, T>, E>,
{
    let mut page: Vec<Item<K, T>> = Vec::new();
    if limit == 0 {
        return Ok((page, false));
    }
    let mut heads = BinaryHeap::with_capacity(lanes.len());
    for (index, lane) in lanes.iter_mut().enumerate() {
        heads.extend(lane.pop()?.map(|item| Head { item, lane: index }));
    }
    while let Some(Head { item, lane }) = heads.pop() {
        if page.last().is_none_or(|last| last.at < item.at) {
            if page.len() == limit {
                return Ok((page, true));
            }
            page.push(item);
        }
        heads.extend(lanes[lane].pop()?.map(|item| Head { item, lane }));
    }
    Ok((page, false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    type Keys = Item<String, u32>;

    fn item(at: &str) -> Keys {
        Item { at: at.to_owned(), value: (!at.ends_with('/')).then_some(0) }
    }

    /// Merges lanes that come in pieces of `piece` items.
    fn merged(lanes: &[&[&str]], piece: usize, limit: usize) -> (Vec<String>, bool) {
        let mut lanes: Vec<_> = lanes
            .iter()
            .map(|keys| {
                let mut left: VecDeque<Keys> = keys.iter().map(|key| item(key)).collect();
                Lane::new(move || {
                    let items: Vec<_> = left.drain(..piece.min(left.len())).collect();
                    Ok::<_, Infallible>((items, !left.is_empty()))
                })
            })
            .collect();
        let Ok((page, truncated)) = merge(&mut lanes, limit);
        (page.into_iter().map(|item| item.at).collect(), truncated)
    }

    #[test]
    fn lanes_come_out_in_order_whatever_their_pieces() {
        let lanes: &[&[&str]] = &[&["a", "d", "e"], &[], &["b", "c", "f"]];
        for piece in 1..5 {
            assert_eq!(merged(lanes, piece, 10), (["a", "b", "c", "d", "e", "f"].map(String::from).to_vec(), false));
            assert!(!merged(lanes, piece, 6).1);
            assert_eq!(merged(lanes, piece, 5), (["a", "b", "c", "d", "e"].map(String::from).to_vec(), true));
        }
    }

    #[test]
    fn a_common_prefix_of_many_lanes_counts_once() {
        let lanes: &[&[&str]] = &[&["a/", "b"], &["a/", "c/"], &["a/", "c/"]];
        assert_eq!(merged(lanes, 1, 10), (["a/", "b", "c/"].map(String::from).to_vec(), false));
        assert_eq!(merged(lanes, 1, 3), (["a/", "b", "c/"].map(String::from).to_vec(), false));
        assert!(merged(lanes, 1, 2).1);
        assert_eq!(merged(&[&["a/"], &["a/"]], 1, 1), (vec!["a/".to_owned()], false));
    }

    #[test]
    fn a_limit_of_zero_is_an_empty_page_that_is_not_truncated() {
        assert_eq!(merged(&[&["a"]], 1, 0), (vec![], false));
    }

    #[test]
    fn an_error_of_one_lane_fails_the_page() {
        let mut calls = 0;
        let mut lanes = [Lane::new(move || {
            calls += 1;
            if calls == 1 { Ok((vec![item("a")], true)) } else { Err("gone") }
        })];
        assert_eq!(merge(&mut lanes, 10), Err("gone"));
    }

    #[test]
    fn shares_cover_a_page() {
        assert_eq!(share_of(1000, 1), 1001);
        assert_eq!(share_of(1, 16), 2);
        assert!(share_of(1000, 16) * 16 > 1000);
    }
}
