//! Why a placement is refused, in words that an operator can act on: what is needed, where, and what is there.

use std::fmt;

use meridian_types::{DatacenterId, DatacenterName, NodeId, ReplicaCode};

/// What is missing for a replica code, or wrong with a tree or a set of replicas.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    #[error("{code} needs {} in other datacenters; the cluster has {} besides {owner}", Copies(*needed), Word(*has))]
    Datacenters { code: ReplicaCode, owner: DatacenterId, needed: usize, has: usize },
    #[error("{code} needs a {} rack in {datacenter}; it has {}", Ordinal(*needed), Usable { has: *has, of: *of })]
    Racks { code: ReplicaCode, datacenter: DatacenterName, needed: usize, has: usize, of: usize },
    #[error("{code} needs a {} node in {}; it has {}", Ordinal(*needed), Place { datacenter, rack }, Usable { has: *has, of: *of })]
    Nodes { code: ReplicaCode, datacenter: DatacenterName, rack: Option<String>, needed: usize, has: usize, of: usize },
    #[error("node {node} of {datacenter} can't hold a copy: it {reason}")]
    NodeUnusable { datacenter: DatacenterName, node: NodeId, reason: &'static str },
    #[error("the set names node {0} twice")]
    NodeTwice(NodeId),
    #[error("{code} puts {} on nodes of the primary's rack and {} in other racks, this set has {same_rack} and {other_racks}",
        Copies(usize::from(code.same_rack())), Copies(usize::from(code.other_racks())))]
    Letters { code: ReplicaCode, same_rack: usize, other_racks: usize },
    #[error("{code}: rack {rack} would hold two of the copies that belong in different racks")]
    RackTwice { code: ReplicaCode, rack: String },
    #[error("datacenter {0} can't hold a mirror: it is no member, the owner itself, or named twice")]
    Mirror(DatacenterId),
    #[error("datacenter {0} is not in the tree")]
    UnknownDatacenter(DatacenterId),
    #[error("node {node} is in {datacenter} already")]
    NodeKnown { datacenter: DatacenterName, node: NodeId },
}

const WORDS: [&str; 11] = ["none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];
const ORDINALS: [&str; 11] =
    ["zeroth", "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"];

struct Word(usize);

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match WORDS.get(self.0) {
            Some(word) => f.write_str(word),
            None => write!(f, "{}", self.0),
        }
    }
}

struct Ordinal(usize);

impl fmt::Display for Ordinal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match ORDINALS.get(self.0) {
            Some(word) => f.write_str(word),
            None => write!(f, "{}th", self.0),
        }
    }
}

struct Copies(usize);

impl fmt::Display for Copies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", Word(self.0), if self.0 == 1 { "copy" } else { "copies" })
    }
}

/// How many can be used, and of how many where that differs.
struct Usable {
    has: usize,
    of: usize,
}

impl fmt::Display for Usable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Word(self.has))?;
        if self.has < self.of { write!(f, " live with room, of {}", Word(self.of)) } else { Ok(()) }
    }
}

struct Place<'a> {
    datacenter: &'a DatacenterName,
    rack: &'a Option<String>,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rack {
            Some(rack) => write!(f, "rack {rack} of {}", self.datacenter),
            None => write!(f, "any one rack of {}", self.datacenter),
        }
    }
}
