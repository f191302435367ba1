//! What would be lost with a datacenter: its acknowledged writes that nobody else has whole, and its bytes that are not
//! elsewhere.
//!
//! Read from reports alone: the datacenter's own says what it has acknowledged, each destination's what is whole there
//! (rule 27: the source never counts more). Pure. Invariants: both figures are upper bounds of what was acknowledged
//! before the datacenter's report was made; a destination without a report has nothing.

use std::collections::BTreeMap;

use meridian_types::DatacenterId;
use meridian_wire::replication::{PartitionSequence, StatusReply};

/// The figures for one datacenter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exposed {
    pub writes_without_copy: u64,
    /// Bytes of its volumes that shall be in a datacenter, and are not.
    pub missing_bytes: Vec<(DatacenterId, u64)>,
    pub unmirrored_bytes: u64,
}

/// `own` is the report of the datacenter in question, `others` those of the other members.
pub(crate) fn exposed(own: &StatusReply, others: &BTreeMap<DatacenterId, &StatusReply>) -> Exposed {
    let towards = |reply: &StatusReply| reply.sources.iter().find(|source| source.source == own.datacenter).cloned();
    let sources: Vec<(DatacenterId, _)> =
        others.iter().map(|(id, reply)| (*id, towards(reply).unwrap_or_default())).collect();
    let shall_have = |id: &DatacenterId| {
        let to = own.mirrored_to.iter().find(|to| to.datacenter == u32::from(id.get()));
        to.map_or(0, |to| to.bytes)
    };
    // W_data covers the bytes that shall be there. Where all shall have the same, the furthest one decides; where they
    // shall not, a write is whole elsewhere only once it has passed everybody.
    let most = sources.iter().map(|(id, _)| shall_have(id)).max().unwrap_or(0);
    let is_uniform = sources.iter().all(|(id, _)| shall_have(id) == most);
    let whole = |partition: u32| {
        let at = |durable: &[PartitionSequence]| {
            durable.iter().find(|at| at.partition == partition).map_or(0, |at| at.sequence)
        };
        let sequences = sources.iter().map(|(_, source)| at(&source.durable));
        if is_uniform { sequences.max() } else { sequences.min() }.unwrap_or(0)
    };
    let without_copy = own.heads.iter().map(|head| head.sequence.saturating_sub(whole(head.partition)));
    Exposed {
        writes_without_copy: without_copy.fold(0, u64::saturating_add),
        missing_bytes: sources
            .iter()
            .map(|(id, source)| (*id, shall_have(id).saturating_sub(source.mirrored_bytes)))
            .collect(),
        unmirrored_bytes: own.unmirrored_bytes,
    }
}

#[cfg(test)]
mod tests {
    use meridian_wire::replication::{DatacenterBytes, SourceStatus};

    use super::*;

    fn dc(id: u8) -> DatacenterId {
        DatacenterId::new(id).unwrap()
    }

    fn at(sequences: [u64; 2]) -> Vec<PartitionSequence> {
        (0..).zip(sequences).map(|(partition, sequence)| PartitionSequence { partition, sequence }).collect()
    }

    fn own(mirrored: [u64; 2]) -> StatusReply {
        let bytes = |(datacenter, bytes)| DatacenterBytes { datacenter, bytes };
        let mirrored_to = [2, 3].into_iter().zip(mirrored).map(bytes).collect();
        StatusReply { datacenter: 1, heads: at([10, 20]), mirrored_to, unmirrored_bytes: 5, ..StatusReply::default() }
    }

    fn destination(durable: [u64; 2], mirrored_bytes: u64) -> StatusReply {
        let source = SourceStatus { source: 1, durable: at(durable), mirrored_bytes, ..SourceStatus::default() };
        StatusReply { sources: vec![source], ..StatusReply::default() }
    }

    #[test]
    fn the_furthest_destination_decides_where_all_shall_have_everything() {
        let (b, c) = (destination([7, 20], 600), destination([9, 3], 1000));
        let exposed = exposed(&own([1000, 1000]), &[(dc(2), &b), (dc(3), &c)].into());
        assert_eq!(exposed.writes_without_copy, 1);
        assert_eq!(exposed.missing_bytes, [(dc(2), 400), (dc(3), 0)]);
        assert_eq!(exposed.unmirrored_bytes, 5);
    }

    #[test]
    fn a_write_counts_until_it_has_passed_everybody_where_mirrors_differ() {
        let (b, c) = (destination([7, 20], 600), destination([9, 3], 0));
        let exposed = exposed(&own([1000, 0]), &[(dc(2), &b), (dc(3), &c)].into());
        assert_eq!(exposed.writes_without_copy, 3 + 17);
    }

    #[test]
    fn who_has_not_reported_has_nothing() {
        let silent = StatusReply::default();
        let exposed = exposed(&own([1000, 1000]), &[(dc(2), &silent), (dc(3), &silent)].into());
        assert_eq!((exposed.writes_without_copy, exposed.missing_bytes[0].1), (30, 1000));
    }
}
