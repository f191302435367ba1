//! Mirrors that stand still at a range that fails its checks, and trying them again at once (rule 5).
//!
//! Nothing is ever given up here: a parked range holds W_data back until its bytes are durable (rule 13). Invariants: a
//! retry changes no figure by itself, it only ends the pause that the range is in.

use serde::{Deserialize, Serialize};

use crate::ReplicationError;
use crate::driver::Replication;

/// A mirror that stands still at a range that fails its checks; field names are an interface.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ParkedVolume {
    pub source: String,
    pub volume: u32,
    /// Where the mirror stands, in bytes.
    pub offset: u64,
    pub reason: String,
}

/// Which mirrors to try again; without a word all of them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryRequest {
    /// Only those of this datacenter.
    #[serde(default)]
    pub source: Option<String>,
}

impl Replication {
    /// The mirrors of this datacenter that stand still.
    pub fn parked(&self) -> Vec<ParkedVolume> {
        let mut parked = Vec::new();
        for source in self.inner.sources.values() {
            for (volume, reason) in &source.facts.lock().parked {
                parked.push(ParkedVolume {
                    source: source.peer.name.to_string(),
                    volume: volume.get(),
                    offset: self.inner.volumes.state(*volume).map_or(0, |state| state.committed),
                    reason: reason.clone(),
                });
            }
        }
        parked
    }

    /// Ends the pauses of all mirrors of the asked sources, so that they try again at once; returns those that were
    /// parked before.
    ///
    /// # Errors
    /// An unknown name.
    pub fn retry_parked(&self, request: &RetryRequest) -> Result<Vec<ParkedVolume>, ReplicationError> {
        let named: Vec<String> = request.source.iter().cloned().collect();
        let named = self.resolve(&named)?;
        let mut parked = self.parked();
        for source in self.inner.sources.values() {
            if named.is_empty() || named.iter().any(|(id, _)| *id == source.id()) {
                source.retry_now();
            }
        }
        parked.retain(|volume| named.is_empty() || named.iter().any(|(_, name)| *name == volume.source));
        Ok(parked)
    }
}
