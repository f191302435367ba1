//! The state machine trait of a raft group, and the object index's and catalog's form of it.
//!
//! Raft, the disk and the clock are the shells' business. Invariants: equal views and equal commands give equal writes
//! and equal answers on every node; bad input is an answer, and an error means damage and stops the group.

use bytes::Bytes;
use meridian_types::{DatacenterId, PartitionId, Plant, RecordError, Sound};

use crate::apply;
use crate::command::Command;
use crate::error::IndexError;
use crate::kv::{KvError, Overlay};

/// Requests whose outcome a partition remembers (rule 11). At 5,000 mutations a second in one partition it covers 13 s,
/// which is longer than a proposal of unknown outcome is retried.
pub const REQUESTS_REMEMBERED_MAX: u64 = 65_536;
/// Completed uploads whose answer a partition remembers (rule 22).
pub const UPLOADS_REMEMBERED_MAX: u64 = 65_536;
/// Conflict rows that a partition keeps; the oldest go first.
pub const CONFLICTS_KEPT_MAX: u64 = 65_536;

/// A raft group's state machine. Deterministic: depends only on the view and the command.
pub trait Machine: Send + Sync + 'static {
    /// Applies one committed command: reads and writes through `view` and returns the encoded answer. The caller
    /// commits the view's writes together with `last_applied`, or, on an error, none of them.
    ///
    /// # Errors
    /// Damage or a failed store; the group stops. What a client or a peer sent never causes it.
    fn apply(&self, view: &mut Overlay<'_>, command: &[u8]) -> Result<Bytes, MachineError>;
}

/// Why a group can't go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MachineError {
    #[error(transparent)]
    Kv(#[from] KvError),
    #[error("command: {0}")]
    Command(#[source] RecordError),
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A row or a state that no apply can have left behind.
    #[error("state machine: {0}")]
    Invariant(String),
}

/// The object index of one partition in one datacenter, or, as `PartitionId::CATALOG`, the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexMachine {
    pub datacenter: DatacenterId,
    pub partition: PartitionId,
}

impl Machine for IndexMachine {
    fn apply(&self, view: &mut Overlay<'_>, command: &[u8]) -> Result<Bytes, MachineError> {
        PlantedMachine { machine: *self, plant: Sound }.apply(view, command)
    }
}

/// An `IndexMachine` with mistakes for a simulation to find.
#[derive(Debug, Clone, Copy)]
pub struct PlantedMachine<P: Plant> {
    pub machine: IndexMachine,
    pub plant: P,
}

impl<P: Plant> Machine for PlantedMachine<P> {
    fn apply(&self, view: &mut Overlay<'_>, command: &[u8]) -> Result<Bytes, MachineError> {
        let command = Command::decode(command).map_err(MachineError::Command)?;
        Ok(apply::apply(&self.machine, self.plant, view, command)?.encode())
    }
}
