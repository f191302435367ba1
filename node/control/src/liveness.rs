//! What gossip advises about the nodes of the datacenter (only the control group decides).

use std::fmt;
use std::sync::Arc;

use meridian_types::NodeId;

/// What is known of the nodes at this moment; asked anew each time.
#[derive(Clone)]
pub struct Liveness {
    live: Arc<dyn Fn(NodeId) -> bool + Send + Sync>,
    free_bytes: Arc<dyn Fn(NodeId) -> Option<u64> + Send + Sync>,
}

impl Liveness {
    pub fn new(is_live: impl Fn(NodeId) -> bool + Send + Sync + 'static) -> Self {
        Self { live: Arc::new(is_live), free_bytes: Arc::new(|_| None) }
    }

    /// Adds what the nodes say is free on their disks, in bytes.
    #[must_use]
    pub fn with_free_bytes(self, free_bytes: impl Fn(NodeId) -> Option<u64> + Send + Sync + 'static) -> Self {
        Self { free_bytes: Arc::new(free_bytes), ..self }
    }

    pub fn is_live(&self, node: NodeId) -> bool {
        (self.live)(node)
    }

    /// What is free on a node's disks; `None` before it has said so.
    pub fn free_bytes(&self, node: NodeId) -> Option<u64> {
        (self.free_bytes)(node)
    }
}

impl Default for Liveness {
    /// Every node is taken to be live.
    fn default() -> Self {
        Self::new(|_| true)
    }
}

impl fmt::Debug for Liveness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Liveness(..)")
    }
}
