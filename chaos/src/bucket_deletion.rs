//! Deletion of a bucket in two phases (rule 18), and the bucket that is created, written to and deleted again and again in
//! all datacenters (rule 17, fault 43); the simulation's counterpart of `bucket_delete` in `node/object`.
//!
//! Each incarnation of the bucket is a bucket of its own to the oracle, because it has an id of its own. The coordinator
//! lives in the driver of its datacenter: a crash there ends it, and leaves fences behind.
//!
//! Invariants: a deletion is proposed only when every member has its fence committed, is empty, and has its log up to the
//! fence applied here; fences are lifted only when the deletion provably was not committed.

use std::collections::{BTreeMap, BTreeSet};

use meridian_index::{Command, Condition, FenceAttempt, queries};
use meridian_replicator::OriginCursor;
use meridian_types::{DatacenterId, RequestId};

use crate::blob_lane::DRIVER;
use crate::datacenter::{Place, id_of};
use crate::group::Carries;
use crate::network::Message;
use crate::proposer::unreadable;
use crate::workload::{Kind, State};
use crate::world::{Event, World};
use crate::{Checked, DATACENTERS, Violation};

/// The first of the bucket's incarnations among the world's buckets, its name, and how many there can be.
pub const MORTAL: usize = 2;
pub const MORTAL_NAME: &str = "gamma";
pub const INCARNATIONS: u32 = 12;
/// Keys that are written in it.
const KEYS: usize = 3;
/// How long a deletion is tried, how often it looks, and when a member is asked again.
const DELETION_MS_MAX: u64 = 4_000;
const TICK_MS: u64 = 40;
const ASK_AGAIN_MS: u64 = 300;

/// What a member says once its fence is committed.
#[derive(Debug, Clone)]
pub struct FenceReport {
    pub empty: bool,
    /// The end of its own log, by group.
    pub heads: Vec<OriginCursor>,
}

/// A deletion whose coordinator lives.
#[derive(Debug)]
pub struct Deletion {
    datacenter: usize,
    bucket: usize,
    attempt: FenceAttempt,
    operation_index: usize,
    members: Vec<DatacenterId>,
    reports: BTreeMap<usize, FenceReport>,
    asked_ms: BTreeMap<usize, u64>,
    until_ms: u64,
    /// Of the driver's node.
    life: u32,
    agreed: bool,
}

/// A fence that is being committed in every partition of a datacenter.
#[derive(Debug)]
pub struct FenceJob {
    datacenter: usize,
    bucket: usize,
    left: BTreeSet<usize>,
    /// Who wants the report: a datacenter, and the call.
    asker: Option<(usize, u64)>,
}

impl World {
    /// Something happens to the bucket that comes and goes.
    pub fn start_in_mortal_bucket(&mut self, datacenter: usize) -> Checked {
        let catalog = &self.datacenters[datacenter].groups[self.partitions].kv;
        let name = MORTAL_NAME.parse().expect("a valid name");
        let row = queries::bucket(catalog, &name).map_err(unreadable)?;
        let deletions = row.as_ref().map_or(0, |row| row.deletions);
        if deletions + 1 >= INCARNATIONS {
            return Ok(());
        }
        let bucket = MORTAL + deletions as usize;
        if !row.is_some_and(|row| row.is_active()) {
            self.start(datacenter, Kind::CreateBucket, (bucket, 0));
            return Ok(());
        }
        let key = self.rng.index(KEYS);
        let visible = (0..KEYS).find(|key| self.oracle.visible(datacenter, (bucket, *key)).is_some());
        match (self.rng.below(100), visible) {
            (0..30, _) => self.start(datacenter, Kind::Put(Condition::None), (bucket, key)),
            (30..55, Some(key)) => self.start(datacenter, Kind::Delete(Condition::None), (bucket, key)),
            _ => self.start(datacenter, Kind::DeleteBucket, (bucket, 0)),
        };
        Ok(())
    }

    fn is_empty(&self, datacenter: usize, bucket: usize) -> Checked<bool> {
        for group in 0..self.partitions {
            let kv = &self.datacenters[datacenter].groups[group].kv;
            if !queries::bucket_is_empty(kv, self.buckets[bucket].id).map_err(unreadable)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The first phase begins, unless the bucket is plainly not empty or a deletion is under way here.
    pub fn begin_deletion(&mut self, operation_index: usize) -> Checked {
        let operation = &self.operations[operation_index];
        let (datacenter, bucket) = (operation.datacenter, operation.key.0);
        let is_busy = |deletion: &Deletion| deletion.datacenter == datacenter && deletion.bucket == bucket;
        let driver = &self.datacenters[datacenter].nodes[DRIVER];
        let (life, is_up) = (driver.life, driver.alive);
        if !is_up || self.deletions.values().any(is_busy) || !self.is_empty(datacenter, bucket)? {
            self.refused(operation_index);
            return Ok(());
        }
        let is_against = |other: &crate::workload::Operation| {
            let is_put = matches!(other.kind, Kind::Put(_)) && other.key.0 == bucket;
            is_put && other.state == State::Running && other.datacenter != datacenter
        };
        let against = self.operations.iter().rev().take(40).any(is_against);
        self.tally.add("bucket delete against a remote PUT", u64::from(against));
        let (call, attempt) = (self.name(), RequestId(self.rng.bytes()));
        let attempt = FenceAttempt { datacenter: self.datacenters[datacenter].id, attempt };
        let deletion = Deletion {
            datacenter,
            bucket,
            attempt,
            operation_index,
            members: self.datacenters[datacenter].members.clone(),
            reports: BTreeMap::new(),
            asked_ms: BTreeMap::new(),
            until_ms: self.now_ms + DELETION_MS_MAX,
            life,
            agreed: false,
        };
        self.deletions.insert(call, deletion);
        self.schedule(0, Event::DeletionTick { call });
        Ok(())
    }

    pub fn deletion_tick(&mut self, call: u64) -> Checked {
        let Some(deletion) = self.deletions.get(&call).filter(|deletion| !deletion.agreed) else { return Ok(()) };
        let (datacenter, bucket, operation_index) = (deletion.datacenter, deletion.bucket, deletion.operation_index);
        let driver = &self.datacenters[datacenter].nodes[DRIVER];
        if driver.life != deletion.life || !driver.alive {
            self.deletions.remove(&call); // and its fences stay
            self.refused(operation_index);
            return Ok(());
        }
        if self.now_ms > deletion.until_ms {
            return self.abort_deletion(call);
        }
        self.schedule(TICK_MS, Event::DeletionTick { call });
        let Some(deletion) = self.deletions.get_mut(&call) else { return Ok(()) };
        let (now_ms, attempt) = (self.now_ms, deletion.attempt);
        let members: Vec<usize> =
            (0..DATACENTERS).filter(|member| deletion.members.contains(&id_of(*member))).collect();
        let mut silent = Vec::new();
        for member in members.iter().copied().filter(|member| !deletion.reports.contains_key(member)) {
            let last = deletion.asked_ms.get(&member).copied();
            if last.is_none_or(|at_ms| at_ms + ASK_AGAIN_MS <= now_ms) {
                deletion.asked_ms.insert(member, now_ms);
                silent.push(member);
            }
        }
        // The own fence first: who is not empty at home need ask nobody.
        let here = deletion.reports.get(&datacenter).cloned();
        for member in silent {
            if member == datacenter {
                self.fence(datacenter, bucket, attempt, true, Some((datacenter, call)));
            } else if here.is_some() {
                self.send(datacenter, member, Message::Fence { call, bucket, attempt, raised: true });
            } else if let Some(deletion) = self.deletions.get_mut(&call) {
                deletion.asked_ms.remove(&member);
            }
        }
        let Some(deletion) = self.deletions.get_mut(&call) else { return Ok(()) };
        if here.is_some_and(|report| !report.empty) {
            return self.abort_deletion(call);
        }
        if members.iter().any(|member| !deletion.reports.contains_key(member)) {
            return Ok(());
        }
        for (member, report) in &deletion.reports {
            for (group, head) in report.heads.iter().enumerate().filter(|_| *member != datacenter) {
                let kv = &self.datacenters[datacenter].groups[group].kv;
                let applied = queries::cursor(kv, id_of(*member)).map_err(unreadable)?;
                if OriginCursor::from(applied.position) < *head {
                    return Ok(());
                }
            }
        }
        // Who still has objects will apply their deletes: asked again.
        let lagging: Vec<usize> =
            deletion.reports.iter().filter(|(_, r)| !r.empty).map(|(member, _)| *member).collect();
        let is_agreed = lagging.is_empty() && deletion.members == self.datacenters[datacenter].members;
        lagging.iter().for_each(|member| drop(deletion.reports.remove(member)));
        if !self.is_empty(datacenter, bucket)? {
            return self.abort_deletion(call); // what arrived meanwhile is here to stay
        }
        if is_agreed {
            if let Some(deletion) = self.deletions.get_mut(&call) {
                deletion.agreed = true;
            }
            self.operations[operation_index].step = 1;
            self.schedule(0, Event::Step { operation_index });
        }
        Ok(())
    }

    fn abort_deletion(&mut self, call: u64) -> Checked {
        let Some(operation_index) = self.deletions.get(&call).map(|deletion| deletion.operation_index) else {
            return Ok(());
        };
        self.tally.add("… bucket deletions given up", 1);
        self.refused(operation_index); // lifts the fences
        Ok(())
    }

    /// The operation that asked for a deletion has ended. `lifts`: it provably was not committed.
    pub fn deletion_ended(&mut self, operation_index: usize, lifts: bool) {
        let found = self.deletions.iter().find(|(_, deletion)| deletion.operation_index == operation_index);
        let Some(call) = found.map(|(call, _)| *call) else { return };
        let Some(deletion) = self.deletions.remove(&call) else { return };
        if !lifts {
            return;
        }
        let Deletion { datacenter, bucket, attempt, .. } = deletion;
        self.fence(datacenter, bucket, attempt, false, None);
        for member in (0..DATACENTERS).filter(|member| *member != datacenter) {
            self.send(datacenter, member, Message::Fence { call, bucket, attempt, raised: false });
        }
    }

    /// Raises or lifts a fence in every partition of a datacenter; where nobody leads, the asker asks again.
    pub fn fence(
        &mut self,
        datacenter: usize,
        bucket: usize,
        attempt: FenceAttempt,
        raised: bool,
        asker: Option<(usize, u64)>,
    ) {
        if (0..self.partitions).any(|group| self.datacenters[datacenter].groups[group].leader.is_none()) {
            return;
        }
        let job = self.name();
        let left = (0..self.partitions).collect();
        self.fence_jobs.insert(job, FenceJob { datacenter, bucket, left, asker });
        let command = Command::Fence { bucket: self.buckets[bucket].id, attempt, raised };
        for group in 0..self.partitions {
            self.append(Place { datacenter, group }, &command, Carries::Fence { job });
        }
    }

    /// A fence is committed in one partition. In the last one the asker is told.
    pub fn fence_applied(&mut self, place: Place, job: u64) -> Checked {
        let Some(found) = self.fence_jobs.get_mut(&job) else { return Ok(()) };
        found.left.remove(&place.group);
        if !found.left.is_empty() {
            return Ok(());
        }
        let Some(FenceJob { datacenter, bucket, asker, .. }) = self.fence_jobs.remove(&job) else { return Ok(()) };
        let Some((asker, call)) = asker else { return Ok(()) };
        let mut heads = Vec::new();
        for group in 0..self.partitions {
            heads.push(OriginCursor::from(self.head(Place { datacenter, group })?.position));
        }
        let report = FenceReport { empty: self.is_empty(datacenter, bucket)?, heads };
        if asker == datacenter {
            self.take_fence_report(datacenter, datacenter, call, report);
        } else {
            self.send(datacenter, asker, Message::FenceReply { call, report });
        }
        Ok(())
    }

    pub fn take_fence_report(&mut self, datacenter: usize, member: usize, call: u64, report: FenceReport) {
        if let Some(deletion) = self.deletions.get_mut(&call).filter(|deletion| deletion.datacenter == datacenter) {
            deletion.reports.insert(member, report);
        }
    }

    /// C4, rule 18: what was deleted holds nothing, anywhere; what was acknowledged in it, a deletion saw.
    pub fn check_deleted_buckets(&mut self) -> Checked {
        if self.datacenters.iter().any(|datacenter| datacenter.restored) {
            return Ok(()); // an old disk has forgotten its fences
        }
        let name = MORTAL_NAME.parse().expect("a valid name");
        for datacenter in 0..DATACENTERS {
            let catalog = &self.datacenters[datacenter].groups[self.partitions].kv;
            let deletions = queries::bucket(catalog, &name).map_err(unreadable)?.map_or(0, |row| row.deletions);
            for bucket in MORTAL..MORTAL + deletions as usize {
                self.tally.add("C4 a deleted bucket holds nothing (rule 18)", 1);
                if !self.is_empty(datacenter, bucket)? {
                    let what = format!(
                        "incarnation {} of {MORTAL_NAME} is deleted, and datacenter {datacenter} has an object of it",
                        bucket - MORTAL
                    );
                    return Err(Violation::new("C4 (rule 18)", what));
                }
            }
        }
        Ok(())
    }
}
