//! This node's view of the others: who is where, and one pool of connections to each.
//!
//! Invariants: appends and reads have connections of their own, so that reads never hold up an append; every call names
//! this node and the one that is meant.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use meridian_types::{NodeId, VolumeId};
use meridian_wire::LocalNode;
use meridian_wire::tls::Identity;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::call::{Call, Verb};
use crate::client::{PeerClient, Pieces, SharedClient};
use crate::directory::{Placement, ReplicaDirectory};
use crate::error::PeerError;

/// Largest answer that is no needle.
pub(crate) const SMALL_ANSWER_SIZE_MAX: usize = 64 << 10;

/// How long a node that failed is passed over for new bytes, and asked last; by then gossip knows.
const SUSPECT_FOR: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Lane {
    Appends,
    Others,
}

/// See the module.
pub(crate) struct Peers {
    pub(crate) local: LocalNode,
    identity: Option<Identity>,
    directory: OnceLock<Arc<dyn ReplicaDirectory>>,
    clients: Mutex<HashMap<(NodeId, Lane), (String, SharedClient)>>,
    /// Nodes that lately left a call unanswered or failed an append, and when that was; one a node of the datacenter.
    suspects: Mutex<HashMap<NodeId, Instant>>,
}

impl Peers {
    pub(crate) fn new(local: LocalNode, identity: Option<Identity>) -> Self {
        Self { local, identity, directory: OnceLock::new(), clients: Mutex::default(), suspects: Mutex::default() }
    }

    pub(crate) fn attach(&self, directory: Arc<dyn ReplicaDirectory>) {
        if self.directory.set(directory).is_err() {
            tracing::error!("the directory of replicas was set before");
        }
    }

    /// None before the control group has started.
    pub(crate) fn directory(&self) -> Option<&Arc<dyn ReplicaDirectory>> {
        self.directory.get()
    }

    pub(crate) fn placement(&self, volume: VolumeId) -> Option<Placement> {
        self.directory()?.volume(volume)
    }

    fn client(&self, node: NodeId, lane: Lane) -> Result<SharedClient, PeerError> {
        let address = self.directory().and_then(|directory| directory.node(node));
        let address = address.ok_or(PeerError::UnknownNode(node))?;
        let identity = self.identity.as_ref().ok_or(PeerError::NoIdentity)?;
        let mut clients = self.clients.lock();
        if let Some((server_name, client)) = clients.get(&(node, lane))
            && *server_name == address.server_name
            && client.address() == address.bulk
        {
            return Ok(Arc::clone(client));
        }
        let client = Arc::new(PeerClient::new(address.bulk, address.server_name.clone(), identity)?);
        clients.insert((node, lane), (address.server_name, Arc::clone(&client)));
        Ok(client)
    }

    /// Whether a node left a call unanswered or failed an append a short while ago. Gossip needs longer to miss it.
    pub(crate) fn is_suspect(&self, node: NodeId) -> bool {
        self.suspects.lock().get(&node).is_some_and(|at| at.elapsed() < SUSPECT_FOR)
    }

    /// The node answered that it can't append.
    pub(crate) fn suspect(&self, node: NodeId) {
        self.suspects.lock().insert(node, Instant::now());
    }

    fn note(&self, node: NodeId, answer: &Result<Bytes, PeerError>) {
        match answer {
            Err(PeerError::Connect { .. } | PeerError::Deadline { .. } | PeerError::Exchange { .. }) => {
                self.suspect(node);
            }
            Ok(_) => {
                self.suspects.lock().remove(&node);
            }
            Err(_) => {}
        }
    }

    /// Asks `node` about a volume; the answer has at most `size_max` bytes.
    pub(crate) async fn ask(
        &self,
        node: NodeId,
        placement: &Placement,
        verb: Verb,
        body: &[Bytes],
        (size_max, deadline): (usize, Duration),
    ) -> Result<Bytes, PeerError> {
        let lane = match verb {
            Verb::Begin { .. } | Verb::Write { .. } | Verb::Tell { .. } | Verb::Fence => Lane::Appends,
            _ => Lane::Others,
        };
        let client = self.client(node, lane)?;
        let call = Call {
            cluster: self.local.cluster,
            datacenter: self.local.datacenter,
            from: self.local.node,
            to: node,
            volume: placement.volume,
            generation: placement.generation,
            epoch: placement.epoch,
            verb,
        };
        let answer = client.call(&call.path(), Pieces::new(body), size_max, deadline).await;
        self.note(node, &answer);
        answer
    }

    /// As `ask`, for answers in JSON.
    pub(crate) async fn ask_for<T: DeserializeOwned>(
        &self,
        node: NodeId,
        placement: &Placement,
        verb: Verb,
        body: &[Bytes],
        deadline: Duration,
    ) -> Result<T, PeerError> {
        let answer = self.ask(node, placement, verb, body, (SMALL_ANSWER_SIZE_MAX, deadline)).await?;
        serde_json::from_slice(&answer)
            .map_err(|error| PeerError::Answer { address: format!("node {node}"), reason: error.to_string() })
    }
}
