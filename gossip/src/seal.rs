//! The sealed datagram: what travels, and the checks on what comes (rule 28; docs/formats/gossip.md).
//!
//! ```text
//! nonce 12 | AES-256-GCM( header 48 | a part of the message ) | tag 16
//!
//! header: version u8 | part u8 | parts u8 | datacenter u8 | node u32 | cluster 16 | boot counter u64
//!         | sequence u64 | sent at u64                                     (all numbers little-endian)
//! ```
//!
//! Everything but the nonce is under the seal: a stranger learns neither who talks nor how often a node has started.
//! The version comes first in the header so that a later one may order the rest anew. A message that does not fit
//! one datagram goes in parts, each with its own seal and sequence.
//!
//! It reads no clock: the time comes in. Invariants: the checks stand in the order of `DropReason`, the cheap ones
//! first and nothing trusted before the seal; a sequence is never used twice in one life of a node.

use std::collections::BTreeMap;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use meridian_types::{ClusterId, DatacenterId, NodeId, Timestamp};

use crate::counters::DropReason;
use crate::key::GossipKey;
use crate::replay::ReplayWindow;

const VERSION: u8 = 1;
const TAG_LENGTH: usize = 16;
const HEADER_LENGTH: usize = 48;
/// What the seal adds to a part of a message.
const OVERHEAD: usize = NONCE_LEN + HEADER_LENGTH + TAG_LENGTH;
/// Largest datagram, sent or taken. Half of what UDP carries: it is cut into IP fragments anyway, and one that claims
/// more costs no decryption.
pub(crate) const DATAGRAM_SIZE_MAX: usize = 32 << 10;
const PART_SIZE_MAX: usize = DATAGRAM_SIZE_MAX - OVERHEAD;
/// Most parts of a message: chitchat's own limit is 65,507 bytes.
const PARTS_MAX: u8 = 3;
/// Largest message.
pub(crate) const MESSAGE_SIZE_MAX: usize = PART_SIZE_MAX * PARTS_MAX as usize;
/// Senders whose windows are kept; beyond it the one that has been silent longest is forgotten.
const SENDERS_MAX: usize = 4096;

/// A node in one of its lives, as it signs its datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sender {
    pub datacenter: DatacenterId,
    pub node: NodeId,
    pub boot_counter: u64,
}

impl Sender {
    fn id(&self) -> (DatacenterId, NodeId) {
        (self.datacenter, self.node)
    }
}

/// What stands under the seal before the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    part: u8,
    parts: u8,
    sender: Sender,
    cluster: ClusterId,
    sequence: u64,
    sent_at: Timestamp,
}

impl Header {
    fn encode(&self) -> [u8; HEADER_LENGTH] {
        let mut bytes = [0; HEADER_LENGTH];
        bytes[..4].copy_from_slice(&[VERSION, self.part, self.parts, self.sender.datacenter.get()]);
        bytes[4..8].copy_from_slice(&self.sender.node.0.to_le_bytes());
        bytes[8..24].copy_from_slice(&self.cluster.0);
        bytes[24..32].copy_from_slice(&self.sender.boot_counter.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.sent_at.raw().to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; HEADER_LENGTH]) -> Result<Self, DropReason> {
        if bytes[0] != VERSION {
            return Err(DropReason::Version);
        }
        let (part, parts) = (bytes[1], bytes[2]);
        if parts == 0 || parts > PARTS_MAX || part >= parts {
            return Err(DropReason::Malformed);
        }
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        Ok(Self {
            part,
            parts,
            sender: Sender {
                datacenter: DatacenterId::new(bytes[3]).map_err(|_| DropReason::Malformed)?,
                node: NodeId(u32::from_le_bytes(bytes[4..8].try_into().expect("four bytes"))),
                boot_counter: u64_at(24),
            },
            cluster: ClusterId(bytes[8..24].try_into().expect("sixteen bytes")),
            sequence: u64_at(32),
            sent_at: Timestamp::from_raw(u64_at(40)),
        })
    }
}

fn aead(key: &GossipKey) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.bytes()).expect("a GossipKey has the length of an AES-256 key"))
}

/// Why a message could not be sealed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SealError {
    #[error("a gossip message of {size_bytes} bytes is above the limit of {MESSAGE_SIZE_MAX}")]
    TooLarge { size_bytes: usize },
    #[error("the system gives no randomness")]
    Randomness,
}

/// Seals the messages of this node in this life.
pub(crate) struct Sealer {
    aead: LessSafeKey,
    cluster: ClusterId,
    sender: Sender,
    last_sequence: u64,
}

impl Sealer {
    pub(crate) fn new(key: &GossipKey, cluster: ClusterId, sender: Sender) -> Self {
        Self { aead: aead(key), cluster, sender, last_sequence: 0 }
    }

    /// The datagrams of a message, to be sent in order.
    ///
    /// # Errors
    /// `TooLarge` above `MESSAGE_SIZE_MAX`, `Randomness`.
    pub(crate) fn seal(&mut self, now: Timestamp, message: &[u8]) -> Result<Vec<Vec<u8>>, SealError> {
        if message.len() > MESSAGE_SIZE_MAX {
            return Err(SealError::TooLarge { size_bytes: message.len() });
        }
        let parts = message.len().div_ceil(PART_SIZE_MAX).max(1) as u8;
        (0..parts)
            .map(|part| {
                let start = usize::from(part) * PART_SIZE_MAX;
                let end = message.len().min(start + PART_SIZE_MAX);
                let mut nonce = [0; NONCE_LEN];
                rand::fill(&mut nonce).map_err(|_| SealError::Randomness)?;
                self.last_sequence += 1;
                let header = Header {
                    part,
                    parts,
                    sender: self.sender,
                    cluster: self.cluster,
                    sequence: self.last_sequence,
                    sent_at: now,
                };
                Ok(self.seal_part(nonce, &header, &message[start..end]))
            })
            .collect()
    }

    fn seal_part(&self, nonce: [u8; NONCE_LEN], header: &Header, part: &[u8]) -> Vec<u8> {
        let mut datagram = Vec::with_capacity(part.len() + OVERHEAD);
        datagram.extend_from_slice(&nonce);
        datagram.extend_from_slice(&header.encode());
        datagram.extend_from_slice(part);
        let tag = self
            .aead
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut datagram[NONCE_LEN..])
            .expect("a datagram is far below the limit of AES-GCM");
        datagram.extend_from_slice(tag.as_ref());
        datagram
    }
}

/// What is known of a sender: its window, and a message of which parts are still to come.
struct Heard {
    window: ReplayWindow,
    /// Counts datagrams, for finding the sender that has been silent longest.
    last: u64,
    pending: Option<Pending>,
}

struct Pending {
    next_sequence: u64,
    next_part: u8,
    parts: u8,
    message: Vec<u8>,
}

/// Opens the datagrams that come to this node.
pub(crate) struct Opener {
    aead: LessSafeKey,
    cluster: ClusterId,
    own: (DatacenterId, NodeId),
    clock_difference_ms_max: u64,
    heard: BTreeMap<(DatacenterId, NodeId), Heard>,
    taken: u64,
}

impl Opener {
    pub(crate) fn new(key: &GossipKey, cluster: ClusterId, own: Sender, clock_difference_ms_max: u64) -> Self {
        Self { aead: aead(key), cluster, own: own.id(), clock_difference_ms_max, heard: BTreeMap::new(), taken: 0 }
    }

    /// The message of a datagram; `None` for a part that is not the last. Overwrites `datagram`.
    ///
    /// # Errors
    /// Why the datagram is dropped.
    pub(crate) fn open(&mut self, now: Timestamp, datagram: &mut [u8]) -> Result<Option<Vec<u8>>, DropReason> {
        if datagram.len() > DATAGRAM_SIZE_MAX {
            return Err(DropReason::Oversize);
        }
        if datagram.len() < OVERHEAD {
            return Err(DropReason::Truncated);
        }
        let (nonce, sealed) = datagram.split_at_mut(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(nonce).expect("twelve bytes are a nonce");
        let plain = self.aead.open_in_place(nonce, Aad::empty(), sealed).map_err(|_| DropReason::Unsealed)?;
        let (header, part) = plain.split_first_chunk::<HEADER_LENGTH>().ok_or(DropReason::Truncated)?;
        let header = Header::decode(header)?;
        if header.cluster != self.cluster {
            return Err(DropReason::WrongCluster);
        }
        if header.sent_at.ms_since(now) > self.clock_difference_ms_max {
            return Err(DropReason::Future);
        }
        if now.ms_since(header.sent_at) > self.clock_difference_ms_max {
            return Err(DropReason::Stale);
        }
        if header.sender.id() == self.own {
            return Err(DropReason::Replayed); // our own, sent back to us
        }
        let heard = self.heard_of(header.sender.id());
        if !heard.window.take(header.sender.boot_counter, header.sequence) {
            return Err(DropReason::Replayed);
        }
        assemble(&mut heard.pending, &header, part)
    }

    fn heard_of(&mut self, id: (DatacenterId, NodeId)) -> &mut Heard {
        if self.heard.len() >= SENDERS_MAX && !self.heard.contains_key(&id) {
            let silent = self.heard.iter().min_by_key(|(_, heard)| heard.last).map(|(id, _)| *id);
            silent.map(|id| self.heard.remove(&id));
        }
        self.taken += 1;
        let heard =
            self.heard.entry(id).or_insert_with(|| Heard { window: ReplayWindow::new(), last: 0, pending: None });
        heard.last = self.taken;
        heard
    }
}

/// Puts a part where it belongs. Parts come in order or the message is lost, as any datagram may be: the next round of
/// gossip brings it again.
fn assemble(pending: &mut Option<Pending>, header: &Header, part: &[u8]) -> Result<Option<Vec<u8>>, DropReason> {
    if header.parts == 1 {
        return Ok(Some(part.to_vec()));
    }
    let mut message = match pending.take() {
        _ if header.part == 0 => Vec::with_capacity(part.len() * usize::from(header.parts)),
        Some(before)
            if (before.next_sequence, before.next_part, before.parts)
                == (header.sequence, header.part, header.parts) =>
        {
            before.message
        }
        _ => return Err(DropReason::Incomplete),
    };
    message.extend_from_slice(part);
    if header.part + 1 == header.parts {
        return Ok(Some(message));
    }
    *pending = Some(Pending {
        next_sequence: header.sequence.saturating_add(1),
        next_part: header.part + 1,
        parts: header.parts,
        message,
    });
    Ok(None)
}

#[cfg(test)]
mod tests;
