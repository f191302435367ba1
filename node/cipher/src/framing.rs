//! Where the blocks of a chunk stand: lengths and ranges, without any key.
//!
//! ```text
//! block 0: up to 65,536 bytes, tag 16 | block 1 | … | the last block: the rest, tag 16
//! ```
//!
//! Blocks are small enough that a small range costs little, and large enough that tags cost nothing (0.02 %).
//!
//! Invariants: every block but the last is full; no block is empty; lengths of both kinds determine each other.

use std::ops::Range;

/// Plain bytes of one block.
pub const BLOCK_SIZE: u32 = 64 << 10;
/// What each block takes more than its plain bytes.
pub const TAG_SIZE: u32 = 16;
const FRAME_SIZE: u32 = BLOCK_SIZE + TAG_SIZE;

/// Bytes of a stored chunk with `plain` plain bytes. `None` if it would be longer than a chunk can be.
pub fn stored_length(plain: u32) -> Option<u32> {
    plain.checked_add(plain.div_ceil(BLOCK_SIZE).checked_mul(TAG_SIZE)?)
}

/// Plain bytes of a stored chunk of `stored` bytes. `None` for a length that no chunk has.
pub fn plain_length(stored: u32) -> Option<u32> {
    let blocks = stored.div_ceil(FRAME_SIZE);
    let last = stored % FRAME_SIZE;
    if last > 0 && last <= TAG_SIZE {
        return None;
    }
    Some(stored - blocks * TAG_SIZE)
}

/// The stored bytes that hold a range of plain ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Whole blocks of the stored chunk.
    pub stored: Range<u32>,
    /// The number of the first of them.
    pub first_block: u32,
    /// Plain bytes of the first block that are not asked for.
    pub skip: u32,
    /// Plain bytes that are asked for.
    pub take: u32,
}

/// The blocks that hold `range` of a chunk with `plain` plain bytes. `None` for an empty range and for one past its end.
pub fn window(range: Range<u32>, plain: u32) -> Option<Window> {
    if range.start >= range.end || range.end > plain {
        return None;
    }
    let stored = stored_length(plain)?;
    let first_block = range.start / BLOCK_SIZE;
    let behind = range.end.div_ceil(BLOCK_SIZE); // the block behind the last one
    let start = first_block * FRAME_SIZE;
    let end = behind.checked_mul(FRAME_SIZE).map_or(stored, |end| end.min(stored));
    Some(Window {
        stored: start..end,
        first_block,
        skip: range.start - first_block * BLOCK_SIZE,
        take: range.end - range.start,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::*;

    #[test]
    fn lengths_are_those_of_the_format() {
        for (plain, stored) in
            [(0, 0), (1, 17), (65_535, 65_551), (65_536, 65_552), (65_537, 65_569), (4 << 20, (4 << 20) + 1024)]
        {
            assert_eq!((stored_length(plain), plain_length(stored)), (Some(stored), Some(plain)));
        }
        for none in [1, 16, FRAME_SIZE + 1, FRAME_SIZE + 16, u32::MAX / FRAME_SIZE * FRAME_SIZE + 1] {
            assert_eq!(plain_length(none), None, "{none}");
        }
        assert_eq!(stored_length(u32::MAX), None);
    }

    #[test]
    fn a_window_has_the_blocks_that_are_needed() {
        let chunk = 3 * BLOCK_SIZE + 5;
        let of = |start, end| window(start..end, chunk).unwrap();
        assert_eq!(of(0, 1), Window { stored: 0..FRAME_SIZE, first_block: 0, skip: 0, take: 1 });
        let edge = of(BLOCK_SIZE - 1, BLOCK_SIZE + 1);
        assert_eq!(edge, Window { stored: 0..2 * FRAME_SIZE, first_block: 0, skip: BLOCK_SIZE - 1, take: 2 });
        let last = of(3 * BLOCK_SIZE + 1, chunk);
        assert_eq!(last, Window { stored: 3 * FRAME_SIZE..3 * FRAME_SIZE + 21, first_block: 3, skip: 1, take: 4 });
        assert_eq!(window(0..chunk + 1, chunk), None);
        assert_eq!(window(7..7, chunk), None);
    }

    proptest! {
        #[test]
        fn lengths_determine_each_other(plain in 0u32..=(16 << 20)) {
            prop_assert_eq!(plain_length(stored_length(plain).unwrap()), Some(plain));
        }

        #[test]
        fn a_window_holds_its_range_and_at_most_two_blocks_more(plain in 1u32..=(4 << 20), a: u32, b: u32) {
            let (a, b) = (a % (plain + 1), b % (plain + 1));
            let range = a.min(b)..a.max(b);
            match window(range.clone(), plain) {
                None => prop_assert!(range.is_empty()),
                Some(window) => {
                    let held = plain_length(window.stored.end - window.stored.start).unwrap();
                    prop_assert!(window.skip < BLOCK_SIZE && window.skip + window.take <= held);
                    prop_assert!(held < window.take + 2 * BLOCK_SIZE);
                    prop_assert_eq!(window.first_block * BLOCK_SIZE + window.skip, range.start);
                }
            }
        }
    }
}
