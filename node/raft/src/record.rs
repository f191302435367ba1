//! The rows that raft keeps in the log column, and their codec: docs/formats/raft-log.md.
//!
//! ```text
//! a                 applied: last log id and membership, written with the machine's rows
//! c                 committed: how far the log was known to be committed
//! e index u64 BE    a log entry
//! p                 purged: the last entry that is no longer in the log
//! v                 the vote
//! ```
//!
//! The records are types of our own and not openraft's, so that another release of it reads the same bytes.
//!
//! Invariants: each record is framed with kind, version and checksum; a row that does not decode stops the group.

use std::io;
use std::ops::Range;

use bytes::Bytes;
use meridian_types::{RecordError, RecordKind, decode_record, encode_record};
use openraft::EntryPayload;
use serde::{Deserialize, Serialize};

use crate::types::{Command, Entry, LogId, Membership, StoredMembership, Vote, log_id};

pub(crate) const APPLIED_ROW: &[u8] = b"a";
pub(crate) const COMMITTED_ROW: &[u8] = b"c";
pub(crate) const PURGED_ROW: &[u8] = b"p";
pub(crate) const VOTE_ROW: &[u8] = b"v";
const ENTRY_TAG: u8 = b'e';
const ENTRY_ROW_LENGTH: usize = 9;

const ENTRY_VERSION: u8 = 1;
const VOTE_VERSION: u8 = 1;
const STATE_VERSION: u8 = 1;

pub(crate) fn entry_row(index: u64) -> [u8; ENTRY_ROW_LENGTH] {
    let mut row = [ENTRY_TAG; ENTRY_ROW_LENGTH];
    row[1..].copy_from_slice(&index.to_be_bytes());
    row
}

/// The rows of the entries at and above `index`.
pub(crate) fn entry_rows_from(index: u64) -> Range<Vec<u8>> {
    entry_row(index).to_vec()..vec![ENTRY_TAG + 1]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogIdRecord {
    term: u64,
    index: u64,
}

impl From<&LogId> for LogIdRecord {
    fn from(id: &LogId) -> Self {
        Self { term: id.leader_id.term, index: id.index }
    }
}

impl From<LogIdRecord> for LogId {
    fn from(id: LogIdRecord) -> Self {
        log_id(id.term, id.index)
    }
}

/// One set of voters, or two while membership changes, and the members without a vote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MembershipRecord {
    configurations: Vec<Vec<u64>>,
    learners: Vec<u64>,
}

impl From<&Membership> for MembershipRecord {
    fn from(membership: &Membership) -> Self {
        let configurations = membership.get_joint_config().iter().map(|voters| voters.iter().copied().collect());
        Self { configurations: configurations.collect(), learners: membership.learner_ids().collect() }
    }
}

impl From<MembershipRecord> for Membership {
    fn from(record: MembershipRecord) -> Self {
        let configurations = record.configurations.into_iter().map(|voters| voters.into_iter().collect()).collect();
        Membership::new_with_defaults(configurations, record.learners)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum PayloadRecord {
    Blank,
    Command(Bytes),
    Membership(MembershipRecord),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct EntryRecord {
    id: LogIdRecord,
    payload: PayloadRecord,
}

pub(crate) fn encode_entry(entry: &Entry) -> Vec<u8> {
    let payload = match &entry.payload {
        EntryPayload::Blank => PayloadRecord::Blank,
        EntryPayload::Normal(command) => PayloadRecord::Command(command.0.clone()),
        EntryPayload::Membership(membership) => PayloadRecord::Membership(membership.into()),
    };
    encode_record(RecordKind::RaftEntry, ENTRY_VERSION, &EntryRecord { id: (&entry.log_id).into(), payload })
}

pub(crate) fn decode_entry(bytes: &[u8]) -> Result<Entry, RecordError> {
    let record: EntryRecord = decode_record(RecordKind::RaftEntry, ENTRY_VERSION, bytes)?;
    let payload = match record.payload {
        PayloadRecord::Blank => EntryPayload::Blank,
        PayloadRecord::Command(command) => EntryPayload::Normal(Command(command)),
        PayloadRecord::Membership(membership) => EntryPayload::Membership(membership.into()),
    };
    Ok(Entry { log_id: record.id.into(), payload })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VoteRecord {
    term: u64,
    node: u64,
    committed: bool,
}

impl From<&Vote> for VoteRecord {
    fn from(vote: &Vote) -> Self {
        Self { term: vote.leader_id.term, node: vote.leader_id.voted_for, committed: vote.committed }
    }
}

impl From<VoteRecord> for Vote {
    fn from(record: VoteRecord) -> Self {
        Vote { committed: record.committed, ..Vote::new(record.term, record.node) }
    }
}

pub(crate) fn encode_vote(vote: &Vote) -> Vec<u8> {
    encode_record(RecordKind::RaftVote, VOTE_VERSION, &VoteRecord::from(vote))
}

pub(crate) fn decode_vote(bytes: &[u8]) -> Result<Vote, RecordError> {
    decode_record::<VoteRecord>(RecordKind::RaftVote, VOTE_VERSION, bytes).map(Vote::from)
}

/// How far the group is. The variants are never reordered: postcard writes their position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum StateRecord {
    Applied { last: Option<LogIdRecord>, membership: AppliedMembership },
    Committed(LogIdRecord),
    Purged(LogIdRecord),
}

/// A membership and the entry that brought it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AppliedMembership {
    id: Option<LogIdRecord>,
    membership: MembershipRecord,
}

impl From<&StoredMembership> for AppliedMembership {
    fn from(stored: &StoredMembership) -> Self {
        Self { id: stored.log_id().as_ref().map(LogIdRecord::from), membership: stored.membership().into() }
    }
}

impl From<AppliedMembership> for StoredMembership {
    fn from(record: AppliedMembership) -> Self {
        StoredMembership::new(record.id.map(LogId::from), record.membership.into())
    }
}

/// Up to where the state has been applied.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Applied {
    pub last: Option<LogId>,
    pub membership: StoredMembership,
}

fn encode_state(record: &StateRecord) -> Vec<u8> {
    encode_record(RecordKind::RaftState, STATE_VERSION, record)
}

fn decode_state(bytes: &[u8]) -> Result<StateRecord, RecordError> {
    decode_record(RecordKind::RaftState, STATE_VERSION, bytes)
}

fn wrong_state() -> RecordError {
    RecordError::Body { kind: RecordKind::RaftState, reason: "another mark stands in this row".to_owned() }
}

pub(crate) fn encode_applied(applied: &Applied) -> Vec<u8> {
    let last = applied.last.as_ref().map(LogIdRecord::from);
    encode_state(&StateRecord::Applied { last, membership: (&applied.membership).into() })
}

pub(crate) fn decode_applied(bytes: &[u8]) -> Result<Applied, RecordError> {
    match decode_state(bytes)? {
        StateRecord::Applied { last, membership } => {
            Ok(Applied { last: last.map(LogId::from), membership: membership.into() })
        }
        _ => Err(wrong_state()),
    }
}

pub(crate) fn encode_committed(id: &LogId) -> Vec<u8> {
    encode_state(&StateRecord::Committed(id.into()))
}

pub(crate) fn decode_committed(bytes: &[u8]) -> Result<LogId, RecordError> {
    match decode_state(bytes)? {
        StateRecord::Committed(id) => Ok(id.into()),
        _ => Err(wrong_state()),
    }
}

pub(crate) fn encode_purged(id: &LogId) -> Vec<u8> {
    encode_state(&StateRecord::Purged(id.into()))
}

pub(crate) fn decode_purged(bytes: &[u8]) -> Result<LogId, RecordError> {
    match decode_state(bytes)? {
        StateRecord::Purged(id) => Ok(id.into()),
        _ => Err(wrong_state()),
    }
}

/// Errors of ours as openraft takes them.
pub(crate) fn io_error(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

#[cfg(test)]
mod tests;
