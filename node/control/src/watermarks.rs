//! From the reports of nodes to the watermarks of the datacenter. Pure: part of the state machine.
//!
//! W_meta of a source is the least over all partitions and the catalog of what their leaders have applied; W_data the
//! least of that and of what each node that holds mirrors of the source has complete.
//!
//! Invariants: a partition or a node with mirrors that has not reported counts as zero; both figures only move forward
//! (rule 13). A node's report is bounded by the list of volumes that it knows, and counts a volume that nobody was given
//! as zero, so that a mirror which another node was given meanwhile can't be passed over.

use meridian_index::kv::Overlay;
use meridian_types::{NodeId, PartitionId, Timestamp};

use crate::WatermarkReport;
use crate::records::{
    Applied, NodeProgress, NodeReport, Row, RowError, applied_key, progress_key, progress_prefix, watermark_key,
};

/// Merges one node's report of one source into the rows.
pub(crate) fn take_report(
    view: &mut Overlay<'_>,
    node: NodeId,
    partitions: u16,
    report: NodeReport,
) -> Result<(), RowError> {
    let NodeReport { source, applied: reported, data, reported_at, parked, held, moves } = report;
    let mut applied = match Row::read(view, &applied_key(source))? {
        Some(Row::Applied(applied)) => applied,
        _ => Applied { source, partitions: Default::default() },
    };
    for (partition, through) in reported {
        let known = applied.partitions.entry(partition).or_insert(Timestamp::ZERO);
        *known = (*known).max(through);
    }
    let known = match Row::read(view, &progress_key(source, node))? {
        Some(Row::Progress(known)) => Some(known),
        _ => None,
    };
    // A node without mirrors bounds only its own report: it must not hold the others back when it is gone.
    let (data, moves) = match &known {
        None => (data, 0),
        Some(known) if moves < known.moves => (known.data, known.moves), // it does not count what it was given since
        Some(known) => (known.data.max(data), known.moves),
    };
    let own = NodeProgress { source, node, data, parked, held, moves };
    let [prefix, id] = progress_prefix(source);
    let mut all = vec![own.clone()];
    for row in Row::read_between(view, &[prefix, id], &[prefix, id + 1])? {
        if let Row::Progress(progress) = row
            && progress.node != node
        {
            all.push(progress);
        }
    }

    let every = (0..partitions).map(PartitionId).chain([PartitionId::CATALOG]);
    let through = |partition| applied.partitions.get(&partition).copied().unwrap_or(Timestamp::ZERO);
    let meta = every.map(through).min().unwrap_or(Timestamp::ZERO);
    let data = all.iter().map(|progress| progress.data).fold(meta, Timestamp::min);
    let watermark = match Row::read(view, &watermark_key(source))? {
        Some(Row::Watermark(known)) => known,
        _ => WatermarkReport {
            source,
            meta: Timestamp::ZERO,
            data: Timestamp::ZERO,
            reported_at: Timestamp::ZERO,
            parked: 0,
            held: None,
        },
    };
    let watermark = WatermarkReport {
        source,
        meta: watermark.meta.max(meta),
        data: watermark.data.max(data),
        reported_at: watermark.reported_at.max(reported_at),
        parked: all.iter().map(|progress| progress.parked).sum(),
        held: all.iter().find_map(|progress| progress.held.clone()),
    };
    let mut put = |row: Row| view.put(row.key(), row.encode());
    put(Row::Applied(applied));
    if known.is_some() {
        put(Row::Progress(own));
    }
    put(Row::Watermark(watermark));
    Ok(())
}
