//! Giving commands to the control group from this node.
//!
//! What it is for: one bounded attempt a call, errors in the words of `ControlError`, and the stamps that some commands
//! carry. Invariants: every call ends within the configured wait; a refused stamp is taken anew above what refused it
//! (rule 13).

use std::sync::Arc;
use std::time::Duration;

use meridian_env::HybridClock;
use meridian_raft::{Group, Leadership, ProposeError};
use meridian_types::Timestamp;
use tokio::sync::watch;

use crate::registry::RegistryCache;
use crate::{Command, ControlError, Refusal, Response, VolumeRecord};

/// Attempts to find a stamp above the registry's closed timestamp. Each refusal raises the clock above it, so that a
/// second one needs a close in between.
const STAMP_ATTEMPTS_MAX: usize = 8;

pub(crate) struct Proposing {
    pub(crate) group: Group,
    pub(crate) clock: Arc<HybridClock>,
    pub(crate) cache: RegistryCache,
    pub(crate) leadership: watch::Receiver<Leadership>,
    pub(crate) wait: Duration,
}

impl Proposing {
    /// One attempt. A refusal is an `Ok`: what it means is the caller's to say.
    pub(crate) async fn propose(&self, command: Command) -> Result<Response, ControlError> {
        let answer = tokio::time::timeout(self.wait, self.group.propose(command.encode())).await;
        self.cache.invalidate(); // also when the outcome is unknown: it may have been applied
        let bytes = match answer {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(ProposeError::NotLeader { leader })) => return Err(ControlError::NotLeader { leader }),
            Ok(Err(ProposeError::Busy)) => {
                return Err(ControlError::Unavailable { reason: "too many commands are in flight".to_owned() });
            }
            Ok(Err(ProposeError::Stopped)) => return Err(ControlError::Stopped),
            Ok(Err(ProposeError::Unknown)) | Err(_) => return Err(ControlError::Unknown),
        };
        Response::decode(&bytes).map_err(|error| ControlError::Damaged { reason: error.to_string() })
    }

    /// Proposes a command that answers with a volume's record.
    pub(crate) async fn propose_volume(&self, command: Command) -> Result<VolumeRecord, ControlError> {
        match self.propose(command).await? {
            Response::Volume(record) => Ok(record),
            other => Err(senseless(other)),
        }
    }

    /// Proposes what `command` makes of a fresh stamp, again with a later one while the registry is closed above it.
    pub(crate) async fn propose_stamped(
        &self,
        command: impl Fn(Timestamp) -> Command,
    ) -> Result<VolumeRecord, ControlError> {
        let mut above = Timestamp::ZERO;
        for _ in 0..STAMP_ATTEMPTS_MAX {
            let stamp = self.stamp().await?;
            match self.propose(command(stamp)).await? {
                Response::Volume(record) => return Ok(record),
                Response::Refused(Refusal::Restamp { above: closed }) => {
                    self.clock.observe(closed);
                    above = closed;
                }
                other => return Err(senseless(other)),
            }
        }
        Err(ControlError::Clock { reason: format!("no stamp above {above} after {STAMP_ATTEMPTS_MAX} attempts") })
    }

    pub(crate) async fn stamp(&self) -> Result<Timestamp, ControlError> {
        match tokio::time::timeout(self.wait, self.clock.next_waiting()).await {
            Ok(Ok(stamp)) => Ok(stamp),
            Ok(Err(error)) => Err(ControlError::Clock { reason: error.to_string() }),
            Err(_) => Err(ControlError::Clock { reason: "it waits for too long".to_owned() }),
        }
    }

    pub(crate) fn is_serving(&self) -> bool {
        self.leadership.borrow().serving
    }

    /// Waits until this node leads the group and may act on its state.
    pub(crate) async fn serving(&self) -> Result<(), ControlError> {
        let mut leadership = self.leadership.clone();
        let waited = tokio::time::timeout(self.wait, leadership.wait_for(|leadership| leadership.serving)).await;
        match waited {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ControlError::Stopped),
            Err(_) => Err(ControlError::Unavailable { reason: "this node does not lead it in time".to_owned() }),
        }
    }
}

/// An answer that the command can't have.
pub(crate) fn senseless(response: Response) -> ControlError {
    match response {
        Response::Refused(Refusal::IdsExhausted) => ControlError::IdsExhausted,
        Response::Refused(refusal) => ControlError::Refused(refusal),
        other => ControlError::Damaged { reason: format!("a command was answered with {other:?}") },
    }
}
