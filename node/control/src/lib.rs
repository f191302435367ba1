//! The control group of a datacenter: node and volume registries, leases, watermark reports.
//!
//! What it is for: the few facts of a datacenter that must be agreed before anybody acts on them. What it does not do:
//! carry object metadata (`meta`), bytes (`volume`), or liveness (gossip advises; only this group decides).
//!
//! Invariants: a volume takes no append before its registration is committed (rule 13); volume ids and needle keys are
//! never issued twice (rule 3); watermarks only move forward; a boot counter that went back is refused (rule 7).

mod command;
mod directory;
mod error;
mod keys;
mod liveness;
mod machine;
mod mirrors;
mod place;
mod proposing;
mod records;
mod registry;
mod renewal;
mod shell;
mod watermarks;
mod writable;

pub use command::{Command, KEYS_IN_LEASE_MAX, MIRRORS_IN_COMMAND_MAX, Refusal, Response};
pub use error::ControlError;
pub use liveness::Liveness;
pub use machine::ControlMachine;
pub use records::{
    ControlState, HELD_REASON_LENGTH_MAX, MirrorRecord, NodeInfo, NodeRecord, NodeReport, PeerRecord, VolumeRecord,
    VolumeState, WatermarkReport,
};
pub use renewal::{RememberedBoot, remembered_boot};
pub use shell::{Control, ControlConfig, KEYS_IN_ROW_MAX, REPAIR_AFTER_DEFAULT, WAIT_MS_MAX_DEFAULT};
pub use writable::VOLUMES_OPEN_TARGET;
