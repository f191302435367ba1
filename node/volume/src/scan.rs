//! Reads needles straight from a volume file, where no journal tells of them: after a crash, or to rebuild the index.
//!
//! `scan` says what is there; `cut_at` decides which part of it a crash tore. Neither changes anything.
//!
//! Invariants: everything in the examined range is either a whole needle or in a damaged range; only bytes that were never
//! acknowledged are cut, everything else that fails its checksum is damage to report.

use std::sync::Arc;

use meridian_env::{DiskError, DiskFile};
use meridian_types::{NeedleKey, Timestamp};

use crate::DamagedRange;
use crate::needle::{
    ALIGNMENT, FileIdentity, NEEDLE_HEADER_SIZE, NeedleHeader, claimed, front_size, span, verify, verify_front,
};
use crate::window::Window;

/// A scan says how far it is each time it has read this many bytes more.
const PROGRESS_EVERY_BYTES: u64 = 1 << 30;

/// A needle that stands at `offset`; of a damaged one only place and key are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) offset: u64,
    pub(crate) key: NeedleKey,
    pub(crate) length: u32,
    pub(crate) stamp: Timestamp,
    pub(crate) batch_first: bool,
    pub(crate) whole: bool,
}

impl Found {
    fn new(offset: u64, header: &NeedleHeader, whole: bool) -> Self {
        let NeedleHeader { key, length, stamp, batch_first, .. } = *header;
        Self { offset, key, length, stamp, batch_first, whole }
    }
}

/// What a range of a volume file holds, in the order of the offsets.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    pub(crate) needles: Vec<Found>,
    pub(crate) damaged: Vec<DamagedRange>,
}

enum Seen {
    Whole(NeedleHeader),
    /// The header passes, the data does not.
    Front(NeedleHeader),
    Nothing,
}

/// Examines the bytes `from..to`; `from` is where a needle starts.
pub(crate) fn scan(file: &Arc<dyn DiskFile>, identity: FileIdentity, from: u64, to: u64) -> Result<Scan, DiskError> {
    let mut window = Window::new(file.clone(), to);
    let mut scan = Scan::default();
    let mut offset = from;
    let mut told = from;
    while offset < to {
        if offset - told >= PROGRESS_EVERY_BYTES {
            told = offset;
            let percent = (offset - from) * 100 / (to - from);
            tracing::info!(volume = %identity.volume, percent, bytes = offset - from, of = to - from, "scanning a volume");
        }
        offset = match look(&mut window, identity, offset)? {
            Seen::Whole(header) => {
                scan.needles.push(Found::new(offset, &header, true));
                offset + span(header.length)
            }
            Seen::Front(header) => {
                let end = (offset + span(header.length)).min(to);
                scan.damaged.push(DamagedRange { offset, length: end - offset, key: Some(header.key) });
                scan.needles.push(Found::new(offset, &header, false));
                end
            }
            // A header that fails its checksum names no needle, however much it looks like one: what is flipped may be
            // the key.
            Seen::Nothing => {
                let next = next_whole(&mut window, identity, offset + ALIGNMENT)?;
                scan.damaged.push(DamagedRange { offset, length: next - offset, key: None });
                next
            }
        };
    }
    Ok(scan)
}

fn look(window: &mut Window, identity: FileIdentity, offset: u64) -> Result<Seen, DiskError> {
    let Some(header) = claimed(window.get(offset, NEEDLE_HEADER_SIZE)?) else { return Ok(Seen::Nothing) };
    let bytes = window.get(offset, span(header.length) as usize)?;
    Ok(if verify(identity, offset, bytes).is_ok() {
        Seen::Whole(header)
    } else if front_size(header.length) > NEEDLE_HEADER_SIZE && verify_front(identity, offset, bytes).is_ok() {
        Seen::Front(header)
    } else {
        Seen::Nothing
    })
}

/// Where the next whole needle starts, at or behind `offset`; the end of the window when there is none.
fn next_whole(window: &mut Window, identity: FileIdentity, offset: u64) -> Result<u64, DiskError> {
    const STRETCH: usize = 64 << 10;
    let mut offset = offset;
    while offset < window.end() {
        let stretch = window.get(offset, STRETCH + NEEDLE_HEADER_SIZE)?;
        let candidates: Vec<u64> = (0..stretch.len().min(STRETCH))
            .step_by(ALIGNMENT as usize)
            .filter(|at| claimed(&stretch[*at..]).is_some())
            .map(|at| offset + at as u64)
            .collect();
        for candidate in candidates {
            if let Seen::Whole(_) | Seen::Front(_) = look(window, identity, candidate)? {
                return Ok(candidate);
            }
        }
        offset += STRETCH as u64;
    }
    Ok(window.end())
}

/// What is known of the range that is examined for a torn end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// An own volume whose index journal proves that everything before the range was acknowledged, and which was
    /// written in group commits.
    Own,
    /// A mirror whose index journal is synced with each append: nothing in the range was acknowledged.
    Mirror,
    /// The journal is lost: anything in the range may have been acknowledged.
    None,
}

/// From where the file is to be cut, if its end is torn. `scan` is of the range behind everything that is known to be
/// committed; `end` is where it stops.
///
/// A group commit is written as one piece and acknowledged only when all of it is durable, so a power cut may leave its
/// last needles whole and its first ones not. It is such a torn commit, and not damage, if no needle behind marks the start
/// of a later commit: that one would prove that this one was durable.
pub(crate) fn cut_at(scan: &Scan, end: u64, evidence: Evidence) -> Option<u64> {
    let proven = match evidence {
        Evidence::Own => scan.needles.iter().rfind(|found| found.whole && found.batch_first).map(|found| found.offset),
        Evidence::Mirror => None,
        // Whole needles are never cut: only what stands behind the last of them.
        Evidence::None => scan.needles.iter().rfind(|found| found.whole).map(|found| found.offset),
    };
    let torn = scan.damaged.iter().find(|range| proven.is_none_or(|proven| range.offset > proven))?;
    assert!(torn.offset < end, "damage lies in the examined range");
    Some(torn.offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(offset: u64, batch_first: bool) -> Found {
        let (key, stamp) = (NeedleKey(offset), Timestamp::from_raw(offset));
        Found { offset, key, length: 8, stamp, batch_first, whole: true }
    }

    fn damage(offset: u64) -> DamagedRange {
        DamagedRange { offset, length: 40, key: None }
    }

    #[test]
    fn damage_with_a_later_commit_behind_it_is_never_cut() {
        let scan =
            Scan { needles: vec![found(64, true), found(144, true), found(184, false)], damaged: vec![damage(104)] };
        assert_eq!(cut_at(&scan, 224, Evidence::Own), None);
        assert_eq!(cut_at(&scan, 224, Evidence::None), None);
        assert_eq!(cut_at(&scan, 224, Evidence::Mirror), Some(104));
    }

    #[test]
    fn a_torn_commit_is_cut_from_its_first_hole_on() {
        let scan = Scan {
            needles: vec![found(64, true), found(104, true), found(184, false)],
            damaged: vec![damage(144), damage(224)],
        };
        assert_eq!(cut_at(&scan, 264, Evidence::Own), Some(144));
        assert_eq!(cut_at(&scan, 264, Evidence::None), Some(224), "without proof no whole needle is cut");
    }

    #[test]
    fn a_torn_tail_is_cut_behind_the_last_whole_needle() {
        for evidence in [Evidence::Own, Evidence::Mirror, Evidence::None] {
            let scan = Scan { needles: vec![found(64, true)], damaged: vec![damage(104)] };
            assert_eq!(cut_at(&scan, 144, evidence), Some(104));
            assert_eq!(cut_at(&Scan { damaged: vec![damage(64)], ..Scan::default() }, 104, evidence), Some(64));
            assert_eq!(cut_at(&Scan { needles: vec![found(64, true)], ..Scan::default() }, 104, evidence), None);
        }
    }
}
