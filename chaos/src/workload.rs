//! The clients: every operation with its steps and what its client was told.
//!
//! All datacenters write the same few keys, also while they are cut off. Invariants: an operation is acknowledged with
//! the stamp that it was committed under; one that was refused has not happened; one of unknown outcome may have.

use std::ops::Range;

use meridian_index::{
    Attributes, BucketSettings, ChunkRef, Condition, ObjectBody, Operation as IndexOperation, Outcome, Part,
    PartChoice, VersionMode,
};
use meridian_types::limits::PART_SIZE_MIN;
use meridian_types::{Cookie, Fid, NeedleKey, RequestId, Stamp, Timestamp, UploadId, VolumeId, partition_of};

use crate::datacenter::Place;
use crate::group::Request;
use crate::oracle::KeyIndex;
use crate::planted::ShellMistake;
use crate::run::SAFETY_MS;
use crate::world::{Event, World};
use crate::{Checked, DATACENTERS};

/// The keys that all write, in the order of their bytes. Some share prefixes; a `0` sorts right behind a `/`.
pub const KEYS: [&str; 14] =
    ["a", "a/1", "a/2", "a/b/1", "a/b/2", "a/b0", "a0", "b", "c/1", "c/2", "c/x/1", "c0", "e e", "\u{e9}/\u{1f600}"];
/// What a run comes to at least, where clients can do anything at all.
const OPERATIONS_AIMED_AT: u64 = 260;
/// How long a proposal may wait for its stamp.
const PROPOSAL_DEADLINE_MS: u64 = 1_500;
/// Retries of an outcome that nobody knows.
const RETRIES_MAX: u32 = 3;

#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    Put(Condition),
    Delete(Condition),
    Multipart {
        abort: bool,
    },
    CreateBucket,
    UpdateBucket,
    /// Of the bucket that comes and goes, in two phases.
    DeleteBucket,
}

/// What the client knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Running,
    Acknowledged(Stamp),
    /// It has not happened, or has changed nothing.
    Refused,
    Unknown,
}

#[derive(Debug, Clone)]
pub struct Operation {
    pub datacenter: usize,
    pub group: usize,
    pub kind: Kind,
    pub key: KeyIndex,
    pub state: State,
    pub step: u32,
    pub chunks: Vec<ChunkRef>,
    /// Where the chunks lie in their volumes.
    pub spans: Vec<(VolumeId, Range<u64>)>,
    /// The needle that is being synced.
    pub needle: Option<crate::gateway::PendingNeedle>,
    pub upload: UploadId,
    pub request: Option<RequestId>,
    /// A try of unknown outcome has been made.
    pub uncertain: bool,
    pub retries: u32,
    /// Its datacenter has forgotten it with a restored disk.
    pub forgotten: bool,
    pub after_heal: bool,
}

/// What an operation does next.
enum Action {
    Needle,
    AgreeOnDeletion,
    Propose(Box<IndexOperation>),
}

impl World {
    /// Some clients of one datacenter start something at once.
    pub fn next_operation(&mut self) -> Checked {
        let datacenter = self.rng.index(DATACENTERS);
        let operations = if self.serves(datacenter) { self.rng.between(1, 3) } else { 0 };
        for _ in 0..operations {
            self.tally.add("… operations", 1);
            match self.rng.below(100) {
                0..10 => self.get(datacenter)?,
                10..22 => self.list(datacenter)?,
                22..31 => self.start_in_mortal_bucket(datacenter)?,
                _ => self.start_mutation(datacenter),
            }
        }
        if self.healed_at_ms.is_none() {
            // Whoever was away a while leaves less to the rest of the run.
            let is_behind = self.tally.count("… operations") * SAFETY_MS < OPERATIONS_AIMED_AT * self.now_ms;
            let after_ms = if is_behind { self.rng.between(2, 25) } else { self.rng.between(10, 140) };
            self.schedule(after_ms, Event::NextOperation);
        }
        Ok(())
    }

    fn start_mutation(&mut self, datacenter: usize) {
        let key = (usize::from(self.rng.chance(150)), self.rng.index(KEYS.len()));
        let kind = match self.rng.below(100) {
            0..58 => Kind::Put(Condition::None),
            58..70 => Kind::Put(self.condition(datacenter, key)),
            70..86 => Kind::Delete(Condition::None),
            86..90 => Kind::Delete(self.condition(datacenter, key)),
            90..95 => Kind::Multipart { abort: self.rng.chance(200) },
            95..97 => Kind::CreateBucket,
            _ => Kind::UpdateBucket,
        };
        self.start(datacenter, kind, key);
    }

    pub fn start(&mut self, datacenter: usize, kind: Kind, key: KeyIndex) -> usize {
        let partitions = u16::try_from(self.partitions).expect("a few partitions");
        let group = match kind {
            Kind::CreateBucket | Kind::UpdateBucket | Kind::DeleteBucket => self.partitions,
            _ => usize::from(partition_of(self.buckets[key.0].id, &self.keys[key.1], partitions).0),
        };
        let operation_index = self.operations.len();
        self.operations.push(Operation {
            datacenter,
            group,
            kind,
            key,
            state: State::Running,
            step: 0,
            chunks: Vec::new(),
            spans: Vec::new(),
            needle: None,
            upload: UploadId::new(self.datacenters[datacenter].id, self.rng.bytes()),
            request: None,
            uncertain: false,
            retries: 0,
            forgotten: false,
            after_heal: self.healed_at_ms.is_some(),
        });
        self.schedule(0, Event::Step { operation_index });
        operation_index
    }

    fn condition(&mut self, datacenter: usize, key: KeyIndex) -> Condition {
        match (self.rng.below(3), self.oracle.visible(datacenter, key)) {
            (0, Some(mutation)) => Condition::Etag(mutation.etag.clone().unwrap_or_default()),
            (1, _) => Condition::Etag("*".to_owned()),
            _ => Condition::Absent,
        }
    }

    /// Takes the next step of an operation.
    pub fn step_operation(&mut self, operation_index: usize) -> Checked {
        let operation = &self.operations[operation_index];
        if operation.state != State::Running {
            return Ok(());
        }
        match self.action(operation_index) {
            Action::Needle => self.append_needle(operation_index),
            Action::AgreeOnDeletion => self.begin_deletion(operation_index),
            Action::Propose(operation) => {
                let fresh = RequestId(self.rng.bytes());
                let forgetful = self.has_bug(ShellMistake::FreshRequestOnRetry);
                let subject = &mut self.operations[operation_index];
                let request = *subject.request.get_or_insert(fresh);
                let request = if forgetful && subject.uncertain { fresh } else { request };
                let seen = subject.chunks.iter().map(|chunk| chunk.stamp).max().unwrap_or(Timestamp::ZERO);
                let place = Place { datacenter: subject.datacenter, group: subject.group };
                let deadline_ms = self.now_ms + PROPOSAL_DEADLINE_MS;
                self.submit(place, Request { operation_index, request, operation: *operation, seen, deadline_ms });
                Ok(())
            }
        }
    }

    fn action(&self, operation_index: usize) -> Action {
        let subject = &self.operations[operation_index];
        let (bucket, key, upload) = (self.buckets[subject.key.0].id, self.keys[subject.key.1].clone(), subject.upload);
        let mode = if self.buckets[subject.key.0].versioned { VersionMode::Versioned } else { VersionMode::Null };
        Action::Propose(Box::new(match (&subject.kind, subject.step) {
            (Kind::Put(_), 0) | (Kind::Multipart { .. }, 1 | 3) => return Action::Needle,
            (Kind::DeleteBucket, 0) => return Action::AgreeOnDeletion,
            (Kind::DeleteBucket, _) => {
                let name = self.buckets[subject.key.0].name.parse().expect("a valid name");
                IndexOperation::DeleteBucket { name, bucket }
            }
            (Kind::Put(condition), _) => {
                let size = subject.chunks.iter().map(|chunk| u64::from(chunk.length)).sum();
                let (etag, chunks) = (etag_of(operation_index, 0), subject.chunks.clone());
                let body = ObjectBody { size, etag, chunks, ..ObjectBody::default() };
                IndexOperation::Put { bucket, key, mode, body, condition: condition.clone() }
            }
            (Kind::Delete(condition), _) => IndexOperation::Delete { bucket, key, mode, condition: condition.clone() },
            (Kind::Multipart { .. }, 0) => {
                let (attributes, initiated) = (Attributes::default(), self.true_time());
                IndexOperation::CreateUpload { bucket, key, upload, attributes, initiated, checksum: None }
            }
            (Kind::Multipart { .. }, step @ (2 | 4)) => {
                let (number, size) = (if step == 2 { 1 } else { 2 }, PART_SIZE_MIN);
                let chunks = subject.chunks.last().copied().into_iter().collect();
                let (etag, stored, checksums) = (etag_of(operation_index, number), self.true_time(), Vec::new());
                let part = Part { size, etag, chunks, stored, checksums };
                IndexOperation::PutPart { bucket, key, upload, number, part }
            }
            (Kind::Multipart { abort: true }, _) => IndexOperation::AbortUpload { bucket, key, upload },
            (Kind::Multipart { abort: false }, _) => {
                let choice = |number| PartChoice { number, etag: etag_of(operation_index, number) };
                let (parts, condition, checksums) = (vec![choice(1), choice(2)], Condition::None, Vec::new());
                IndexOperation::CompleteUpload { bucket, key, upload, parts, mode, condition, checksums }
            }
            (Kind::CreateBucket, _) => IndexOperation::CreateBucket {
                name: self.buckets[subject.key.0].name.parse().expect("a valid name"),
                settings: BucketSettings::default(),
                owner: format!("owner-{}", subject.datacenter),
            },
            (Kind::UpdateBucket, _) => {
                let region = format!("region-{operation_index}").parse().ok();
                let settings = BucketSettings { region, ..BucketSettings::default() };
                IndexOperation::UpdateBucket { bucket, settings }
            }
        }))
    }

    /// A needle of an operation is durable.
    pub fn needle_stored(&mut self, operation_index: usize, volume: VolumeId, span: Range<u64>, stamp: Timestamp) {
        let length = u32::try_from(span.end - span.start).expect("small needles");
        let fid = Fid { volume, key: NeedleKey(operation_index as u64), cookie: Cookie(7) };
        let operation = &mut self.operations[operation_index];
        operation.chunks.push(ChunkRef { fid, length, end_offset: span.end, stamp });
        operation.spans.push((volume, span));
        self.advance(operation_index);
    }

    fn advance(&mut self, operation_index: usize) {
        let operation = &mut self.operations[operation_index];
        operation.step += 1;
        operation.request = None;
        operation.uncertain = false; // the last step's outcome is known now
        self.schedule(0, Event::Step { operation_index });
    }

    /// A proposal has its outcome.
    pub fn finished(&mut self, operation_index: usize, outcome: &Outcome) {
        if self.operations[operation_index].state != State::Running {
            return;
        }
        match outcome {
            Outcome::UploadCreated | Outcome::PartStored => self.advance(operation_index),
            Outcome::Deleted { existed: false, .. } if self.is_conditional(operation_index) => {
                self.operations[operation_index].state = State::Refused; // it had nothing to do
            }
            Outcome::Stored { stamp, .. } | Outcome::Deleted { stamp, .. } => self.acknowledge(operation_index, *stamp),
            Outcome::Completed { stamp, .. } => {
                self.tally.add("… multipart uploads completed", 1);
                self.acknowledge(operation_index, *stamp);
            }
            Outcome::BucketCreated { existed: false, .. } | Outcome::BucketUpdated | Outcome::BucketDeleted => {
                self.deletion_ended(operation_index, false);
                let stamps = self.oracle.commits.get(&operation_index);
                match stamps.and_then(|stamps| stamps.first()).copied() {
                    Some(stamp) => self.acknowledge(operation_index, stamp),
                    None => self.operations[operation_index].state = State::Unknown,
                }
            }
            // A bucket that is gone keeps its fences: they guard against late mutations under its id.
            Outcome::BucketGone | Outcome::NoSuchBucket => {
                self.deletion_ended(operation_index, false);
                self.operations[operation_index].state = State::Refused;
            }
            outcome => {
                self.tally.add("… mutations refused by a fence", u64::from(*outcome == Outcome::Fenced));
                self.operations[operation_index].state = State::Refused;
            }
        }
    }

    fn is_conditional(&self, operation_index: usize) -> bool {
        matches!(&self.operations[operation_index].kind, Kind::Delete(condition) if *condition != Condition::None)
    }

    fn acknowledge(&mut self, operation_index: usize, stamp: Stamp) {
        self.operations[operation_index].state = State::Acknowledged(stamp);
        self.note(stamp.timestamp.raw(), operation_index as u64);
        self.tally.add("… operations acknowledged", 1);
        self.tally.add("C8 acknowledged during a cut", u64::from(self.network.is_any_cut()));
    }

    /// Of a planted bug: told to the client before anything is committed.
    pub fn acknowledge_early(&mut self, operation_index: usize, stamp: Stamp) {
        let operation = &self.operations[operation_index];
        let is_plain = matches!(operation.kind, Kind::Put(Condition::None) | Kind::Delete(Condition::None));
        if is_plain && operation.state == State::Running {
            self.acknowledge(operation_index, stamp);
        }
    }

    /// An operation's step was refused before it was proposed.
    pub fn refused(&mut self, operation_index: usize) {
        let operation = &mut self.operations[operation_index];
        if operation.state == State::Running {
            operation.state = if operation.uncertain { State::Unknown } else { State::Refused };
            let is_certain = !operation.uncertain;
            self.deletion_ended(operation_index, is_certain);
        }
    }

    /// Nobody knows whether a step was committed: it is retried (rule 11) or given up.
    pub fn outcome_unknown(&mut self, operation_index: usize) {
        let is_retried = self.rng.chance(750);
        let operation = &mut self.operations[operation_index];
        if operation.state != State::Running {
            return;
        }
        operation.uncertain = true;
        operation.retries += 1;
        if operation.retries > RETRIES_MAX || !is_retried {
            operation.state = State::Unknown;
            self.deletion_ended(operation_index, false);
            return;
        }
        let after_ms = self.rng.between(50, 500);
        self.schedule(after_ms, Event::Step { operation_index });
    }
}

/// An ETag that names its operation; `part` is zero for an object of one piece.
pub fn etag_of(operation_index: usize, part: u16) -> String {
    format!("{operation_index:024x}{part:08x}")
}
