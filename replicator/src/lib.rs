//! Replication between datacenters as pure logic: the log and its positions, cursors, pulled batches, who wins a
//! conflict, the metadata stream as a state machine, the watermarks, and the guard over the hybrid logical clock.
//!
//! This crate does no I/O and knows no clock, no randomness and no runtime: shells pass in `now` and events and
//! perform the effects. Which object a mutation changes is the index's business; here a mutation is bytes.
//!
//! Invariants:
//! - A cursor moves only over a batch that names it as its start, is dense, and extends its hash (rules 7, 12).
//! - A watermark moves only forward, and whatever is unknown holds it back (rule 13).
//! - No stamp is given above the persisted bound, nor at or below the bound of an earlier life (rule 10).

mod batch;
mod clock;
mod conflict;
mod cursors;
mod log;
mod pressure;
mod pull;
mod range_size;
mod rate;
mod stable;
mod stream;
mod watermark;

pub use batch::{Batch, BatchError, CheckedBatch, check_batch};
pub use clock::{ClockConfig, ClockError, ClockGuard};
pub use conflict::{Precedence, is_concurrent, precedence};
pub use cursors::{Cursor, CursorVector, CursorVectorError, OriginCursor};
pub use log::{LogEntry, LogHead};
pub use pressure::{WriteDelay, WritePressure};
pub use pull::{PullDecision, PullRefusal, decide_pull, decide_pull_planted};
pub use range_size::RangeSize;
pub use rate::RateCap;
pub use stable::{MemberReport, SourceReport, StableTimes, StableView};
pub use stream::{Effect, Event, HoldReason, Stream, StreamState};
pub use watermark::{DataWatermark, RegistryReport, VolumeReport, WatermarkHold, meta_watermark};
