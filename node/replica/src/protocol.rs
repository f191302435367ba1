//! The protocol between the replicas of a volume, pure: events in, effects out. No clock, no randomness, no I/O.
//!
//! The primary orders batches and sends each to every secondary at the same offset; a batch is committed when it is durable
//! on all of them. Nothing is agreed by majority: one replica that fails ends the volume, which is then sealed, and the
//! writer takes another one. That is why any complete replica has everything that was ever acknowledged.
//!
//! Fencing tokens: the epoch, durable on every replica, ends a volume's appends for good (rule 1); the session, the boot
//! counter of the primary's node, tells two lives of one primary apart, so that bytes of the earlier one that are still on
//! their way never meet those of the later one. So within an epoch every offset is written with one content only.

pub mod primary;
pub mod sealing;
pub mod secondary;

#[cfg(test)]
mod simulation;

use serde::{Deserialize, Serialize};

/// Batches that are under way to the secondaries at once.
pub const WINDOW_BATCHES_MAX: usize = 4;
/// A primary takes no further batch when so many bytes wait for their acknowledgement.
pub const WINDOW_BYTES_MAX: u64 = 32 << 20;
/// Times that a secondary is asked to begin anew in one session before it counts as failed.
pub const BEGIN_ATTEMPTS_MAX: u32 = 4;

/// One life of a primary: its node's boot counter. A later one is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Session(pub u64);
