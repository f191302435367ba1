//! What gateways do beside proposing: append needles to volumes, read, and merge the partitions' pages of a LIST.
//!
//! Invariants: a needle is stamped by its volume's primary above everything that was closed (rule 13); a volume takes no
//! append before the registry holds it; a page of LIST is merged from all partitions (rule 23).

use std::collections::BTreeMap;

use meridian_index::{ListQuery, list_planted, queries};
use meridian_replicator::ClockError;
use meridian_types::{Timestamp, VolumeId};

use crate::datacenter::Place;
use crate::oracle::KeyIndex;
use crate::proposer::unreadable;
use crate::replicas::{Replicas, Step};
use crate::volume::Volume;
use crate::world::{Event, World};
use crate::{Checked, DATACENTERS, NODES, Violation};

/// Open volumes that a datacenter keeps.
const OPEN_VOLUMES: usize = 2;
/// How often a volume has a second replica in its datacenter, in a thousand.
const REPLICATED_PER_MILLE: u64 = 500;
/// When a primary that has no room is asked again.
const REPLICA_BUSY_MS: u64 = 3;
/// The longest that a needle waits for its stamp.
const NEEDLE_WAIT_MS_MAX: u64 = 1_000;

impl World {
    /// Appends the next needle of an operation; it is synced later.
    pub fn append_needle(&mut self, operation_index: usize) -> Checked {
        let datacenter = self.operations[operation_index].datacenter;
        let stamped = match self.writable_volume(datacenter) {
            Ok(Some(volume)) => {
                if !self.has_room(datacenter, volume) {
                    self.schedule(REPLICA_BUSY_MS, Event::Step { operation_index });
                    return Ok(());
                }
                let primary = self.datacenters[datacenter].registry.volumes[&volume].primary;
                self.node_stamp(datacenter, primary).map(|stamp| (volume, primary, stamp))
            }
            Ok(None) => {
                self.refused(operation_index);
                return Ok(());
            }
            Err(error) => Err(error),
        };
        let (id, primary, stamp) = match stamped {
            Ok(stamped) => stamped,
            Err(ClockError::WaitForBound { wait_ms, .. } | ClockError::RestartWait { wait_ms, .. })
                if wait_ms <= NEEDLE_WAIT_MS_MAX =>
            {
                self.schedule(wait_ms.max(3), Event::Step { operation_index });
                return Ok(());
            }
            Err(_) => {
                self.refused(operation_index);
                return Ok(());
            }
        };
        self.check_stamp(stamp)?;
        let size = self.rng.between(400, 3_000);
        let life = self.datacenters[datacenter].nodes[primary].life;
        let Some(volume) = self.datacenters[datacenter].registry.volumes.get_mut(&id) else { return Ok(()) };
        let (from, has_replicas) = (volume.appended(), volume.replicas.is_some());
        let Some(end) = volume.append(size, stamp) else {
            return Err(Violation::new(
                "C11 (rule 13)",
                format!("needle stamp {stamp} in {id:?} is not above what was closed"),
            ));
        };
        self.operations[operation_index].needle = Some((end - size.next_multiple_of(8), stamp));
        if has_replicas {
            return self.place(datacenter, id, from, end, operation_index);
        }
        let after_ms = self.sync_ms(datacenter);
        self.schedule(after_ms, Event::NeedleSynced { datacenter, volume: id, end, life, operation_index });
        Ok(())
    }

    /// An open volume whose primary lives; made when there are too few.
    fn writable_volume(&mut self, datacenter: usize) -> Result<Option<VolumeId>, ClockError> {
        let (plant, wants_replica) = (self.plant(), self.rng.chance(REPLICATED_PER_MILLE));
        let preferred = self.rng.index(NODES);
        let subject = &self.datacenters[datacenter];
        let is_writable = |volume: &&Volume| volume.is_open() && subject.nodes[volume.primary].alive;
        let open: Vec<VolumeId> =
            subject.registry.volumes.values().filter(is_writable).map(|volume| volume.id).collect();
        if open.len() >= OPEN_VOLUMES {
            return Ok(Some(open[self.rng.index(open.len())]));
        }
        let Some(primary) = subject.live_node(preferred) else { return Ok(None) };
        let closed = subject.registry.closed;
        self.datacenters[datacenter].nodes[primary].guard.observe(closed);
        let created = self.node_stamp(datacenter, primary)?;
        let mut mirrored_to: Vec<usize> = (0..DATACENTERS).filter(|other| *other != datacenter).collect();
        if self.rng.chance(200) {
            mirrored_to.remove(self.rng.index(2)); // a code with one copy elsewhere
        }
        let subject = &mut self.datacenters[datacenter];
        subject.registry.made += 1;
        let id = VolumeId::new(subject.registry.made, subject.id).expect("a few volumes");
        let mut volume = Volume::new(id, primary, mirrored_to, created);
        let has_replica = wants_replica && subject.nodes.iter().all(|node| node.alive);
        volume.replicas = has_replica.then(|| Replicas::new(primary, plant));
        subject.registry.volumes.insert(id, volume);
        if has_replica {
            self.schedule_replicas(0, datacenter, id, Step::Start);
        }
        Ok(Some(id))
    }

    /// A sync has ended; the needle is durable unless its node died meanwhile.
    pub fn needle_synced(
        &mut self,
        datacenter: usize,
        volume: VolumeId,
        end: u64,
        life: u32,
        operation_index: usize,
    ) -> Checked {
        let subject = &mut self.datacenters[datacenter];
        let Some(found) = subject.registry.volumes.get_mut(&volume) else { return Ok(()) };
        if subject.nodes[found.primary].life != life {
            self.tally.add("… un-synced needles lost", 1);
            let after_ms = self.rng.between(20, 200); // another volume is taken
            self.schedule(after_ms, Event::Step { operation_index });
            return Ok(());
        }
        found.synced(end);
        if let Some((start, stamp)) = self.operations[operation_index].needle.take() {
            self.needle_stored(operation_index, volume, start..end, stamp);
        }
        Ok(())
    }

    /// A GET shows what the oracle demands.
    pub fn get(&mut self, datacenter: usize) -> Checked {
        let key = (usize::from(self.rng.chance(150)), self.rng.index(self.keys.len()));
        self.check_rows(datacenter, &[key])
    }

    pub fn group_of(&self, (bucket, key): KeyIndex) -> usize {
        let partitions = u16::try_from(self.partitions).expect("a few partitions");
        usize::from(meridian_types::partition_of(self.buckets[bucket].id, &self.keys[key], partitions).0)
    }

    /// A LIST over all its pages is what the oracle demands.
    pub fn list(&mut self, datacenter: usize) -> Checked {
        let bucket = usize::from(self.rng.chance(200));
        let prefix = ["", "", "", "a", "a/", "c/", "zz"][self.rng.index(7)];
        let delimiter = [None, Some("/")][self.rng.index(2)];
        let limit = 1 + self.rng.index(6);
        let listed = self.list_all(datacenter, bucket, prefix, delimiter, limit)?;
        self.check_list(datacenter, bucket, (prefix, delimiter), listed)
    }

    /// All items of a LIST: keys with their ETags, common prefixes without.
    pub fn list_all(
        &self,
        datacenter: usize,
        bucket: usize,
        prefix: &str,
        delimiter: Option<&str>,
        limit: usize,
    ) -> Checked<Vec<(String, Option<String>)>> {
        let mut all = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let query = ListQuery {
                prefix: prefix.to_owned(),
                delimiter: delimiter.map(str::to_owned),
                after: after.clone(),
                limit,
            };
            let (mut items, mut truncated) = (BTreeMap::new(), false);
            for group in 0..self.partitions {
                let kv = &self.datacenters[datacenter].groups[group].kv;
                let page = list_planted(self.plant(), kv, self.buckets[bucket].id, &query).map_err(unreadable)?;
                truncated |= page.truncated;
                for object in page.entries {
                    items.insert(object.key.as_str().to_owned(), Some(object.etag));
                }
                items.extend(page.common_prefixes.into_iter().map(|common_prefix| (common_prefix, None)));
            }
            truncated |= items.len() > limit;
            let page: Vec<_> = items.into_iter().take(limit).collect();
            after = page.last().map(|(item, _)| item.clone());
            all.extend(page);
            if !truncated {
                return Ok(all);
            }
            if all.len() > 10 * self.keys.len() {
                return Err(Violation::new("C7", format!("LIST of {prefix:?} does not end: {all:?}")));
            }
        }
    }

    /// The visible object of a key in a datacenter: its stamp and ETag.
    pub fn row(&self, datacenter: usize, key: KeyIndex) -> Checked<Option<meridian_index::ObjectVersion>> {
        let place = Place { datacenter, group: self.group_of(key) };
        let kv = &self.datacenters[place.datacenter].groups[place.group].kv;
        queries::object_row(kv, self.buckets[key.0].id, &self.keys[key.1]).map_err(unreadable)
    }
}

/// A needle on its way to the disk: where it starts, and its stamp.
pub type PendingNeedle = (u64, Timestamp);
