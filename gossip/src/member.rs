//! What gossip knows about a node, and the trait that the rest of the program sees: the real form is chitchat, a
//! simulation brings its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use meridian_types::{DatacenterId, NodeId, NodeName};
use tokio::sync::watch;

/// Longest key that a node may set, in bytes.
pub const KEY_LENGTH_MAX: usize = 64;
/// Longest value that a node may set, in bytes.
pub const VALUE_LENGTH_MAX: usize = 1024;
/// Most keys of a node. What a node says travels to every other one, so keep it small.
pub const KEYS_MAX: usize = 64;

/// A node as gossip knows it, in its latest life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub datacenter: DatacenterId,
    pub node: NodeId,
    pub name: NodeName,
    /// Which life of the node this is.
    pub boot_counter: u64,
    /// Where it gossips.
    pub gossip: SocketAddr,
    /// Whether it has been heard of lately. Ourselves always.
    pub live: bool,
    /// What it says about itself.
    pub values: BTreeMap<String, String>,
}

/// Why a value was not set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    #[error("a gossip key has 1 to {KEY_LENGTH_MAX} bytes, {key:?} has {got}")]
    KeyLength { key: String, got: usize },
    #[error("a gossip value has at most {VALUE_LENGTH_MAX} bytes, that of {key} has {got}")]
    ValueLength { key: String, got: usize },
    #[error("a node has at most {KEYS_MAX} gossip keys, {key} is one too many")]
    TooManyKeys { key: String },
}

/// Who is there. It advises: nothing may be decided by it alone.
pub trait Membership: Send + Sync + 'static {
    /// All known members, ourselves among them, one entry a node, ordered by (datacenter, node).
    fn members(&self) -> Vec<Member>;

    /// Those heard of lately, ourselves among them.
    fn live(&self) -> Vec<Member> {
        self.members().into_iter().filter(|member| member.live).collect()
    }

    /// Follows `members`: changes with each member that comes, goes, or says something new.
    fn watch(&self) -> watch::Receiver<Vec<Member>>;

    /// Says something about ourselves; the others hear it within a few gossip intervals.
    ///
    /// # Errors
    /// What exceeds a limit.
    fn set(&self, key: &str, value: &str) -> Result<(), ValueError>;
}

/// What this node says about itself, within the limits.
#[derive(Debug, Clone, Default)]
pub(crate) struct OwnValues(BTreeMap<String, String>);

impl OwnValues {
    /// Whether anything changed.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Result<bool, ValueError> {
        if key.is_empty() || key.len() > KEY_LENGTH_MAX {
            let shown = key.chars().take(KEY_LENGTH_MAX).collect();
            return Err(ValueError::KeyLength { key: shown, got: key.len() });
        }
        if value.len() > VALUE_LENGTH_MAX {
            return Err(ValueError::ValueLength { key: key.to_owned(), got: value.len() });
        }
        if self.0.len() >= KEYS_MAX && !self.0.contains_key(key) {
            return Err(ValueError::TooManyKeys { key: key.to_owned() });
        }
        if self.0.get(key).map(String::as_str) == Some(value) {
            return Ok(false);
        }
        self.0.insert(key.to_owned(), value.to_owned());
        Ok(true)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_says_is_bounded() {
        let mut values = OwnValues::default();
        assert!(matches!(values.set("", "v"), Err(ValueError::KeyLength { got: 0, .. })));
        assert!(matches!(values.set(&"k".repeat(65), "v"), Err(ValueError::KeyLength { got: 65, .. })));
        assert!(matches!(values.set("k", &"v".repeat(1025)), Err(ValueError::ValueLength { got: 1025, .. })));
        for i in 0..KEYS_MAX {
            assert_eq!(values.set(&format!("k{i}"), "v"), Ok(true));
        }
        assert!(matches!(values.set("one more", "v"), Err(ValueError::TooManyKeys { .. })));
        assert_eq!(values.set("k0", &"w".repeat(VALUE_LENGTH_MAX)), Ok(true), "a known key may change");
        assert_eq!(values.iter().count(), KEYS_MAX);
    }

    #[test]
    fn saying_the_same_again_changes_nothing() {
        let mut values = OwnValues::default();
        assert_eq!(values.set("disk", "7"), Ok(true));
        assert_eq!(values.set("disk", "7"), Ok(false));
        assert_eq!(values.set("disk", "8"), Ok(true));
    }
}
