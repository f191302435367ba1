//! What the words of the command line do. Client commands only talk to REST or S3 endpoints.

mod bench;
mod bucket;
mod cluster;
mod inspect;
mod inventory;
mod kms;
mod replication;
mod screen;
mod user;

pub use bench::{Workload, bench};
pub use bucket::bucket;
pub use cluster::{init, node, ready, status};
pub use inspect::{replication_conflicts, replication_explain, replication_parked, replication_retry};
pub use inventory::{node_command, volumes};
pub use kms::kms;
pub use replication::{replication_status, replication_wait};
pub use user::{group, user};

use meridian_replication::short_bytes;

/// A table with Unicode rules on a terminal and plain columns in a pipe.
fn table(header: &[&str]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(header.iter().copied());
    table
}
