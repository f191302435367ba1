//! Membership inside a datacenter: who is alive, where, and what each node says about itself. chitchat carries it,
//! over datagrams of our own that are sealed with the cluster's gossip key.
//!
//! Gossip advises; only the control group decides. Nothing here is durable and nothing durable may rest on it.
//!
//! Invariants:
//! - Nothing of a datagram is looked at before its seal has been opened with our key, and a datagram is taken at most
//!   once (rule 28).
//! - A bad datagram is dropped and counted by its reason. It never ends the gossip task.
//! - What a node may say about itself is bounded, and so is the memory for senders and half-received messages.

mod counters;
mod key;
mod member;
mod membership;
mod replay;
mod seal;
mod transport;

pub use counters::{DropReason, GossipCounters};
pub use key::GossipKey;
pub use member::{KEY_LENGTH_MAX, KEYS_MAX, Member, Membership, VALUE_LENGTH_MAX, ValueError};
pub use membership::{ChitchatMembership, GossipConfig, GossipError, WallClock};
