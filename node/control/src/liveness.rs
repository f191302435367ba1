//! What gossip advises about the nodes of the datacenter (only the control group decides).

use std::fmt;
use std::sync::Arc;

use meridian_types::NodeId;

/// Whether a node is heard of; asked anew each time.
#[derive(Clone)]
pub struct Liveness(Arc<dyn Fn(NodeId) -> bool + Send + Sync>);

impl Liveness {
    pub fn new(is_live: impl Fn(NodeId) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(is_live))
    }

    pub fn is_live(&self, node: NodeId) -> bool {
        (self.0)(node)
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
