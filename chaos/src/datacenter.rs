//! One datacenter: its nodes, the groups of its object index and catalog, its volumes, its mirrors, and what it knows of
//! each other datacenter. The parts are in their own modules; here they stand together, and here is the copy of all
//! disks that a restore puts back.
//!
//! Invariant: the last group is the catalog.

use std::collections::BTreeMap;

use meridian_index::kv::MemoryKv;
use meridian_replicator::{DataWatermark, StableTimes, StableView, Stream};
use meridian_types::{DatacenterId, Incarnation, PartitionId, Timestamp, VolumeId};

use crate::group::Group;
use crate::node::Node;
use crate::oracle::DatacenterModel;
use crate::planted::Sown;
use crate::volume::{Mirror, Registry, Volume};
use crate::{DATACENTERS, NODES};

/// A group of a datacenter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub datacenter: usize,
    pub group: usize,
}

/// The id of the datacenter with an index.
pub fn id_of(datacenter: usize) -> DatacenterId {
    let id = u8::try_from(datacenter + 1).expect("a handful of datacenters");
    DatacenterId::new(id).expect("ids start at one")
}

pub struct Datacenter {
    pub id: DatacenterId,
    pub nodes: Vec<Node>,
    pub groups: Vec<Group>,
    pub registry: Registry,
    pub mirrors: BTreeMap<VolumeId, Mirror>,
    /// By datacenter; the own one is unused.
    pub sources: Vec<Source>,
    /// The longest that a sync takes.
    pub sync_ms_max: u64,
    pub incarnation: Incarnation,
    /// Its disks were restored once.
    pub restored: bool,
    /// The members that this datacenter counts; none while it is not one itself.
    pub members: Vec<DatacenterId>,
    /// It has joined and takes no client's operations before it has all that was written until then.
    pub joined_at: Option<Timestamp>,
    /// What all of them have, as far as is known here.
    pub stable: StableView<Sown>,
    plant: Sown,
}

/// What a datacenter knows of another.
pub struct Source {
    /// By group.
    pub lanes: Vec<Lane>,
    pub watermark: DataWatermark<Sown>,
    /// The last reports: W_meta and W_data.
    pub reported: (Timestamp, Timestamp),
    /// The call for volumes under way, and when it is given up.
    pub volumes_call: Option<(u64, u64)>,
}

/// The metadata stream of one group from one source.
#[derive(Default)]
pub struct Lane {
    pub stream: Stream,
    /// The pull that is not answered yet.
    pub call: Option<u64>,
}

/// All disks of a datacenter at one moment.
pub struct DiskCopy {
    pub rows: Vec<MemoryKv>,
    pub volumes: BTreeMap<VolumeId, Volume>,
    pub mirrors: BTreeMap<VolumeId, Mirror>,
    pub bounds: Vec<Timestamp>,
    pub reported: Vec<(Timestamp, Timestamp)>,
    pub model: DatacenterModel,
}

impl Datacenter {
    pub fn new(index: usize, partitions: usize, offsets_ms: [i64; NODES], plant: Sown) -> Self {
        let id = id_of(index);
        let partition = |group| {
            if group == partitions {
                PartitionId::CATALOG
            } else {
                PartitionId(u16::try_from(group).expect("a few partitions"))
            }
        };
        let source = || Source {
            lanes: (0..=partitions).map(|_| Lane::default()).collect(),
            watermark: DataWatermark::planted(plant, Timestamp::ZERO),
            reported: (Timestamp::ZERO, Timestamp::ZERO),
            volumes_call: None,
        };
        Self {
            id,
            nodes: offsets_ms.into_iter().map(|offset_ms| Node::new(offset_ms, plant)).collect(),
            groups: (0..=partitions).map(|group| Group::new(id, partition(group), plant)).collect(),
            registry: Registry::default(),
            mirrors: BTreeMap::new(),
            sources: (0..DATACENTERS).map(|_| source()).collect(),
            sync_ms_max: SYNC_MS_MAX,
            incarnation: Incarnation(0),
            restored: false,
            joined_at: None,
            members: (0..DATACENTERS).map(id_of).collect(),
            stable: StableView::planted(plant, (0..DATACENTERS).map(id_of), StableTimes::default()),
            plant,
        }
    }

    pub fn live_node(&self, preferred: usize) -> Option<usize> {
        (0..NODES).map(|step| (preferred + step) % NODES).find(|node| self.nodes[*node].alive)
    }

    pub fn is_down(&self) -> bool {
        self.live_node(0).is_none()
    }

    pub fn copy_disks(&self, model: &DatacenterModel) -> DiskCopy {
        DiskCopy {
            rows: self.groups.iter().map(|group| group.kv.clone()).collect(),
            volumes: self.registry.volumes.clone(),
            mirrors: self.mirrors.clone(),
            bounds: self.nodes.iter().map(|node| node.bound_on_disk).collect(),
            reported: self.sources.iter().map(|source| source.reported).collect(),
            model: model.clone(),
        }
    }

    /// Puts a copy of all disks in place. Old volumes take no further append (rule 7).
    pub fn restore(&mut self, copy: &DiskCopy) {
        for (group, rows) in self.groups.iter_mut().zip(&copy.rows) {
            group.restore(rows.clone());
        }
        self.registry.volumes = copy.volumes.clone();
        for volume in self.registry.volumes.values_mut() {
            volume.crash(true);
        }
        self.mirrors = copy.mirrors.clone();
        for mirror in self.mirrors.values_mut() {
            mirror.crash();
        }
        for (node, bound) in self.nodes.iter_mut().zip(&copy.bounds) {
            node.bound_on_disk = *bound;
        }
        for (source, reported) in self.sources.iter_mut().zip(&copy.reported) {
            source.reported = *reported;
            source.watermark = DataWatermark::planted(self.plant, reported.1);
        }
        self.restored = true;
    }
}

/// The longest that a sync takes on a healthy disk.
pub const SYNC_MS_MAX: u64 = 5;
