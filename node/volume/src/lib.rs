//! Append-only volumes: files of needles, with an index in memory, group commit, mirrors, seals and deletes.
//!
//! A volume knows bytes and stamps, not objects: which needle belongs to what, where volumes are placed, who mirrors them and
//! when they are sealed is decided above. The formats are in docs/formats/volume.md and docs/formats/volume-index.md.
//!
//! Invariants:
//! - An append is answered when it and all before it are durable, and never after a failed sync (rules 1, 6).
//! - Readers and mirrors see only committed bytes (rule 2), addressed by volume, generation and offset (rule 4).
//! - A mirror's file is the same as its source's, byte for byte, up to the mirror's committed length.
//! - No bytes leave unverified; what fails its checksum is reported and stays, only the torn end of a crash is cut.

mod appender;
mod deletes;
mod error;
mod file_header;
mod index;
mod journal;
mod mirror;
mod needle;
mod open;
mod placing;
mod reader;
mod repair;
mod replica_file;
mod scan;
mod set;
mod state;
mod status;
mod volume;
mod window;

pub use error::VolumeError;
pub use file_header::VOLUME_HEADER_SIZE;
pub use needle::{BLOCK_SIZE, NEEDLE_HEADER_SIZE, NEEDLE_SPAN_MAX};
pub use replica_file::{Batch, NewNeedle, PlacedNeedles, ReplicaFile};
pub use set::VolumeSet;
pub use status::{Appended, DamagedRange, FenceReport, ReplicaRole, VolumeHeader, VolumeOptions, VolumeStatus};
