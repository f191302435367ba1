//! Giving commands to the control group from this node.
//!
//! What it is for: finding the leader, errors in the words of `ControlError`, and the stamps that some commands carry.
//! Invariants: every call ends within the configured wait; a command of unknown outcome is given again only because each
//! is safe to give again (see `command`); who was answered finds it in this node's own view; a refused stamp is taken anew
//! above what refused it (rule 13).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use meridian_env::HybridClock;
use meridian_raft::{
    ForwardError, ForwardHandler, Group, Leadership, ProposeError, Route, decode_forwarded, encode_forwarded,
};
use meridian_types::{NodeId, Timestamp};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::registry::RegistryCache;
use crate::{Command, ControlError, Refusal, Response, VolumeRecord};

/// Attempts to find a stamp above the registry's closed timestamp. Each refusal raises the clock above it, so that a
/// second one needs a close in between.
const STAMP_ATTEMPTS_MAX: usize = 8;

/// How long one attempt at the leader may take, so that one that is gone does not use up the whole wait.
const ATTEMPT_DEADLINE: Duration = Duration::from_millis(1500);
/// The pause before the leader is looked for again.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(100);

pub(crate) struct Proposing {
    pub(crate) group: Group,
    pub(crate) route: Route,
    pub(crate) clock: Arc<HybridClock>,
    pub(crate) cache: RegistryCache,
    pub(crate) leadership: watch::Receiver<Leadership>,
    pub(crate) node: NodeId,
    pub(crate) wait: Duration,
}

impl Proposing {
    /// Gives a command to the leader, through elections until the wait is over. A refusal is an `Ok`: what it means is
    /// the caller's to say.
    pub(crate) async fn propose(&self, command: Command) -> Result<Response, ControlError> {
        let (bytes, until) = (command.encode(), Instant::now() + self.wait);
        let mut is_unknown = false;
        loop {
            // Rule 6, said at once: the group has stopped here, and waiting brings nothing.
            if let Some(reason) = self.group.disk_failure() {
                let reason = format!("the disk of this node has failed: {reason}");
                return Err(if is_unknown { ControlError::Unknown } else { ControlError::Unavailable { reason } });
            }
            let error = match self.attempt(bytes.clone(), until).await {
                Ok(bytes) => {
                    return Response::decode(&bytes)
                        .map_err(|error| ControlError::Damaged { reason: error.to_string() });
                }
                Err(error) => error,
            };
            is_unknown |= matches!(error, ControlError::Unknown);
            let again = matches!(error, ControlError::Unknown | ControlError::NotLeader { .. });
            if !again || Instant::now() + ATTEMPT_PAUSE >= until {
                return Err(if is_unknown { ControlError::Unknown } else { error });
            }
            tokio::time::sleep(ATTEMPT_PAUSE).await;
        }
    }

    /// One attempt: here if this node leads, else at the leader.
    async fn attempt(&self, command: Bytes, until: Instant) -> Result<Bytes, ControlError> {
        let Leadership { leader, serving, .. } = *self.leadership.borrow();
        let answer = if serving || leader.is_none() {
            let answer = tokio::time::timeout_at(until, self.group.propose(command)).await;
            answer.unwrap_or(Err(ProposeError::Unknown))
        } else {
            self.forward(command, until).await?
        };
        self.cache.invalidate(); // also when the outcome is unknown: it may have been applied
        answer.map_err(|error| match error {
            ProposeError::NotLeader { leader } => ControlError::NotLeader { leader },
            ProposeError::Busy => ControlError::Unavailable { reason: "too many commands are in flight".to_owned() },
            ProposeError::Stopped => ControlError::Stopped,
            ProposeError::Unknown => ControlError::Unknown,
        })
    }

    async fn forward(&self, command: Bytes, until: Instant) -> Result<Result<Bytes, ProposeError>, ControlError> {
        let left = until.saturating_duration_since(Instant::now());
        let answer = match self.route.forward(command, ATTEMPT_DEADLINE.min(left)).await {
            Ok(answer) => answer,
            Err(ForwardError::NoLeader) => return Ok(Err(ProposeError::NotLeader { leader: None })),
            Err(ForwardError::Unknown { node, reason }) => {
                tracing::debug!(%node, reason, "a command to the control group has no answer");
                return Ok(Err(ProposeError::Unknown));
            }
        };
        let answered = decode_forwarded::<Result<Vec<u8>, ProposeError>>(&answer.body)
            .map_err(|reason| ControlError::Damaged { reason })?;
        if answered.is_ok() {
            let left = until.saturating_duration_since(Instant::now());
            let applied = self.route.applied(answer.index, left).await;
            applied.map_err(|error| ControlError::Unavailable { reason: error.to_string() })?;
        }
        Ok(answered.map(Bytes::from))
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

    /// Whether somebody takes commands, as far as this node knows.
    pub(crate) fn is_led(&self) -> bool {
        let Leadership { leader, serving, .. } = *self.leadership.borrow();
        serving || leader.is_some_and(|leader| leader != self.node)
    }

    /// Waits until the group is led, by this node or another one.
    pub(crate) async fn led(&self, wait: Duration) -> Result<(), ControlError> {
        let (mut leadership, node) = (self.leadership.clone(), self.node);
        let is_led = |now: &Leadership| now.serving || now.leader.is_some_and(|leader| leader != node);
        let waited = tokio::time::timeout(wait, leadership.wait_for(is_led)).await;
        match waited {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ControlError::Stopped),
            Err(_) => Err(ControlError::Unavailable { reason: "nobody leads it in time".to_owned() }),
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

/// Takes the commands of nodes that do not lead the group. A command is answered as it would be here; who leads no more
/// says so, and never passes it on.
pub(crate) struct CommandsOfOthers {
    pub(crate) group: Group,
    pub(crate) wait: Duration,
}

#[async_trait]
impl ForwardHandler for CommandsOfOthers {
    async fn answer(&self, body: Bytes) -> Result<Bytes, String> {
        Command::decode(&body).map_err(|error| error.to_string())?;
        let answer = tokio::time::timeout(self.wait, self.group.propose(body)).await;
        let answer = answer.unwrap_or(Err(ProposeError::Unknown));
        Ok(encode_forwarded(&answer.map(|bytes| bytes.to_vec())))
    }
}
