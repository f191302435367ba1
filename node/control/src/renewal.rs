//! What control does when the disks of this datacenter went back in time, and what it remembers of others' boots (rule 7).
//!
//! A registry that went back would issue volume ids and needle keys a second time, and its volumes would take appends at
//! offsets that mirrors elsewhere hold with other bytes. So every volume that could take appends is given up, and both
//! counters jump above anything that the forgotten time can have issued.
//!
//! Invariants: an incarnation renews once, however often it is asked for; nothing here goes back (rule 3).

use meridian_index::kv::{KvRead, Overlay};
use meridian_types::{DatacenterId, Epoch, Incarnation, NodeId, VolumeId};

use crate::command::{Refusal, Response};
use crate::machine::put;
use crate::records::{ControlState, Row, RowError, VOLUMES, node_key, peer_key};
use crate::{ControlError, VolumeState};

/// Volumes that the forgotten time can't have made: 2 PiB of them.
const VOLUMES_SKIPPED: u32 = 1 << 16;
/// Needle keys that it can't have leased: a thousand million a day for eight hundred years.
const KEYS_SKIPPED: u64 = 1 << 48;

/// Why a renewal was not done.
pub(crate) enum RenewalFailure {
    Refused(Refusal),
    Row(RowError),
}

impl From<RowError> for RenewalFailure {
    fn from(error: RowError) -> Self {
        Self::Row(error)
    }
}

pub(crate) fn renew(
    view: &mut Overlay<'_>,
    mut state: ControlState,
    node: NodeId,
    incarnation: Incarnation,
) -> Result<Response, RenewalFailure> {
    if incarnation <= state.renewed {
        return Ok(Response::Renewed);
    }
    let volume = state.next_volume.checked_add(VOLUMES_SKIPPED).filter(|next| *next <= VolumeId::COUNTER_MAX);
    let key = state.next_key.checked_add(KEYS_SKIPPED);
    let (Some(next_volume), Some(next_key)) = (volume, key) else {
        return Err(RenewalFailure::Refused(Refusal::IdsExhausted));
    };
    for row in Row::read_all(&*view, VOLUMES)? {
        let Row::Volume(mut record) = row else { continue };
        if record.primary == node && matches!(record.state, VolumeState::Creating | VolumeState::Open) {
            record.epoch = Epoch(record.epoch.0 + 1); // rule 1: nothing under the old one is taken any more
            record.state = VolumeState::Sealing;
            put(view, Row::Volume(record));
        }
    }
    state.renewed = incarnation;
    (state.next_volume, state.next_key) = (next_volume, next_key);
    state.registry_version += 1;
    put(view, Row::State(state));
    Ok(Response::Renewed)
}

/// What a datacenter's control group remembers of a node: its last boot, and the last incarnation of its datacenter's logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RememberedBoot {
    pub boot_counter: u64,
    pub incarnation: Incarnation,
}

/// What the control group of `own`, whose rows are in `view`, remembers of a node of its own or of another datacenter.
///
/// # Errors
/// `Damaged` when a row can't be read.
pub fn remembered_boot(
    view: &dyn KvRead,
    own: DatacenterId,
    (datacenter, node): (DatacenterId, NodeId),
) -> Result<Option<RememberedBoot>, ControlError> {
    let key = if datacenter == own { node_key(node) } else { peer_key(datacenter, node) };
    let row = Row::read(view, &key).map_err(|error| ControlError::Damaged { reason: error.to_string() })?;
    Ok(match row {
        Some(Row::Node(node)) => Some(RememberedBoot { boot_counter: node.boot_counter, incarnation: Incarnation(0) }),
        Some(Row::Peer(peer)) => {
            Some(RememberedBoot { boot_counter: peer.boot_counter, incarnation: peer.incarnation })
        }
        _ => None,
    })
}
