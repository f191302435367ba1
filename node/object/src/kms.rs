//! Which named keys there are: asked of whoever keeps their list.
//!
//! The list holds no key. A key's versions are derived from the cluster's key (`encryption`), so that a list which has
//! not reached a node yet never keeps it from reading.
//!
//! Invariants: a key that is not in the list seals nothing; only a disabled one is not opened.

use std::fmt;

/// Why a key is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KmsRefusal {
    #[error("Invalid keyId {0}")]
    NotFound(String),
    #[error("{0} is disabled.")]
    Disabled(String),
    /// The list can't be kept now.
    #[error("the list of keys can't be used: {0}")]
    Unavailable(String),
}

/// The list of a node.
pub trait KmsKeys: fmt::Debug + Send + Sync + 'static {
    /// The newest version of a key.
    ///
    /// # Errors
    /// `NotFound`, `Disabled`, `Unavailable`.
    fn version_to_seal(&self, name: &str) -> Result<u32, KmsRefusal>;

    /// Whether what was sealed under a key may be opened.
    ///
    /// # Errors
    /// `Disabled`.
    fn check_open(&self, name: &str) -> Result<(), KmsRefusal>;
}

/// Every key there could be, at its first version: for stores without a list.
#[derive(Debug, Clone, Copy, Default)]
pub struct EveryKey;

impl KmsKeys for EveryKey {
    fn version_to_seal(&self, _name: &str) -> Result<u32, KmsRefusal> {
        Ok(1)
    }

    fn check_open(&self, _name: &str) -> Result<(), KmsRefusal> {
        Ok(())
    }
}
