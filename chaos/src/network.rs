//! The links between the datacenters: delay, loss, duplication, reordering, and cuts in either direction.
//!
//! It carries what the shells would: pulls of logs, reports of volumes, ranges of mirrors. It knows no content.
//! Invariant: whether a message arrives, when, and how often depends on the run's numbers alone; a link that is cut
//! when a message would arrive loses it.

use meridian_index::FenceAttempt;
use meridian_replicator::{Batch, Cursor, MemberReport, RegistryReport};
use meridian_types::{Timestamp, VolumeId};

use crate::DATACENTERS;
use crate::bucket_deletion::FenceReport;
use crate::rng::Rng;

/// The way of a message on a quiet link, in milliseconds.
const DELAY_MS: (u64, u64) = (4, 40);
/// What a reordering link adds at most.
const REORDERED_DELAY_MS_MAX: u64 = 1_200;

#[derive(Debug, Clone)]
pub enum Message {
    Pull {
        group: usize,
        cursor: Cursor,
        call: u64,
    },
    PullReply {
        group: usize,
        call: u64,
        answer: PullAnswer,
        /// The source's wall clock, and when it was read.
        wall: Timestamp,
        sent_ms: u64,
    },
    /// What its sender has of the others.
    Member(MemberReport),
    /// Raises or lifts a bucket's fence (rule 18).
    Fence {
        call: u64,
        bucket: usize,
        attempt: FenceAttempt,
        raised: bool,
    },
    FenceReply {
        call: u64,
        report: FenceReport,
    },
    Volumes {
        call: u64,
    },
    VolumesReply {
        call: u64,
        report: RegistryReport,
    },
    Range {
        volume: VolumeId,
        from: u64,
        to: u64,
        call: u64,
    },
    RangeReply {
        volume: VolumeId,
        from: u64,
        to: u64,
        call: u64,
        corrupt: bool,
    },
}

/// What a source says to a pull.
#[derive(Debug, Clone)]
pub enum PullAnswer {
    News(Batch),
    /// The long poll ended without any.
    NoNews,
    NotServing,
    Refused(String),
    NeedsFullSync,
}

/// All links.
#[derive(Debug, Default)]
pub struct Network {
    /// How many cuts hold the way from one to another.
    cuts: [[u32; DATACENTERS]; DATACENTERS],
    pub loss_per_mille: u64,
    pub duplicate_per_mille: u64,
    pub reorder_per_mille: u64,
    pub corrupt_per_mille: u64,
}

/// What became of a message.
#[derive(Debug, Default)]
pub struct Fate {
    /// When it arrives; empty when it is lost.
    pub arrivals_ms: Vec<u64>,
    pub reordered: bool,
}

impl Network {
    pub fn cut(&mut self, from: usize, to: usize) {
        self.cuts[from][to] += 1;
    }

    pub fn mend(&mut self, from: usize, to: usize) {
        self.cuts[from][to] = self.cuts[from][to].saturating_sub(1);
    }

    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts[from][to] > 0
    }

    pub fn is_any_cut(&self) -> bool {
        self.cuts.iter().flatten().any(|cuts| *cuts > 0)
    }

    /// Draws what becomes of a message sent now.
    pub fn send(&self, rng: &mut Rng, now_ms: u64) -> Fate {
        let mut fate = Fate::default();
        let copies = 1 + u64::from(rng.chance(self.duplicate_per_mille));
        for _ in 0..copies {
            let mut delay_ms = rng.between(DELAY_MS.0, DELAY_MS.1);
            if rng.chance(self.reorder_per_mille) {
                fate.reordered = true;
                delay_ms += rng.below(REORDERED_DELAY_MS_MAX);
            }
            if !rng.chance(self.loss_per_mille) {
                fate.arrivals_ms.push(now_ms + delay_ms);
            }
        }
        fate
    }

    /// Every link as good as new.
    pub fn heal(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_cuts_end_with_the_last_one() {
        let mut network = Network::default();
        network.cut(0, 2);
        network.cut(0, 2);
        network.mend(0, 2);
        assert!(network.is_cut(0, 2) && !network.is_cut(2, 0));
        network.mend(0, 2);
        assert!(!network.is_any_cut());
    }

    #[test]
    fn a_lossy_link_loses_and_a_doubling_one_doubles() {
        let mut rng = Rng::new(3);
        let lossy = Network { loss_per_mille: 1000, ..Network::default() };
        assert!(lossy.send(&mut rng, 5).arrivals_ms.is_empty());
        let doubling = Network { duplicate_per_mille: 1000, ..Network::default() };
        assert_eq!(doubling.send(&mut rng, 5).arrivals_ms.len(), 2);
    }
}
