//! The only access to clock, entropy and disk. Everything else in `node/` takes these by trait or by handle, so that
//! tests and simulations can stand in for the machine.
//!
//! It decides nothing about data: which stamp may be given is `ClockGuard`'s word, what a file means its owner's.
//!
//! Invariants: a disk whose sync failed takes nothing more (rule 6); no stamp above a durable bound (rule 10).

mod bound;
mod clock;
pub mod disk;
pub mod entropy;
mod hybrid;

pub use bound::BoundError;
pub use clock::{Clock, ManualClock, SystemClock};
pub use disk::{Disk, DiskError, DiskFile, RealDisk};
pub use hybrid::HybridClock;
pub use meridian_replicator::{ClockConfig, ClockError};
