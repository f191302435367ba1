//! The state file of a volume: what must outlive a restart and is not in its bytes.
//!
//! One record (`RecordKind::VolumeState`, version 1), replaced as a whole: at creation, when the volume is fenced and
//! sealed, and at a clean shutdown. See docs/formats/volume.md.

use std::path::Path;

use meridian_env::disk::{read_file, replace_file};
use meridian_env::{Disk, DiskError};
use meridian_types::{
    Epoch, FileGeneration, RecordError, RecordKind, ReplicaCode, VolumeId, decode_record, encode_record,
};
use serde::{Deserialize, Serialize};

use crate::ReplicaRole;

const VERSION: u8 = 1;

/// How far the volume's life has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    /// Takes appends.
    Open,
    /// Takes none any more; its sealed length is not agreed yet (rule 1).
    Fenced,
    /// Ends at this length for ever.
    Sealed { length: u64 },
    /// A copy of a sealed volume is being made from another replica; it counts for nothing until it is sealed too.
    Filling,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VolumeState {
    pub(crate) volume: VolumeId,
    pub(crate) generation: FileGeneration,
    pub(crate) epoch: Epoch,
    pub(crate) code: ReplicaCode,
    pub(crate) role: ReplicaRole,
    pub(crate) phase: Phase,
    /// Bytes known to be committed when this was written; more may be.
    pub(crate) committed: u64,
}

impl VolumeState {
    pub(crate) fn encode(&self) -> Vec<u8> {
        encode_record(RecordKind::VolumeState, VERSION, self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        decode_record(RecordKind::VolumeState, VERSION, bytes)
    }

    /// Durable on return.
    pub(crate) fn write(&self, disk: &dyn Disk, path: &Path) -> Result<(), DiskError> {
        replace_file(disk, path, &self.encode())
    }

    pub(crate) fn read(disk: &dyn Disk, path: &Path) -> Result<Result<Self, RecordError>, DiskError> {
        Ok(Self::decode(&read_file(disk, path)?))
    }
}

#[cfg(test)]
mod tests {
    use meridian_types::DatacenterId;

    use super::*;

    fn state() -> VolumeState {
        VolumeState {
            volume: VolumeId::new(3, DatacenterId::new(1).unwrap()).unwrap(),
            generation: FileGeneration(2),
            epoch: Epoch(4),
            code: "200".parse().unwrap(),
            role: ReplicaRole::Mirror,
            phase: Phase::Sealed { length: 300 },
            committed: 300,
        }
    }

    #[test]
    fn golden_bytes() {
        let bytes = state().encode();
        let (content, _crc) = bytes.split_at(bytes.len() - 4);
        assert_eq!(content, b"\x17\x01\x81\x06\x02\x04\x03200\x01\x02\xac\x02\xac\x02");
        assert_eq!(VolumeState::decode(&bytes).unwrap(), state());
    }

    #[test]
    fn golden_numbers_of_roles_and_phases() {
        let roles = [ReplicaRole::Sole, ReplicaRole::Mirror, ReplicaRole::Primary, ReplicaRole::Secondary];
        for (number, role) in roles.into_iter().enumerate() {
            assert_eq!(VolumeState { role, ..state() }.encode()[10], number as u8);
        }
        let phases = [Phase::Open, Phase::Fenced, Phase::Sealed { length: 300 }, Phase::Filling];
        for (number, phase) in phases.into_iter().enumerate() {
            assert_eq!(VolumeState { phase, ..state() }.encode()[11], number as u8);
        }
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let bytes = state().encode();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(VolumeState::decode(&flipped).is_err(), "bit {bit} passed");
        }
    }
}
