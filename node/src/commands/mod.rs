//! What the words of the command line do. Client commands only talk to REST or S3 endpoints.

mod bench;
mod bucket;
mod cluster;
mod inspect;
mod inventory;
mod replication;
mod user;

pub use bench::bench;
pub use bucket::bucket;
pub use cluster::{init, node, ready, status};
pub use inspect::{replication_conflicts, replication_explain, replication_parked};
pub use inventory::{node_command, volumes};
pub use replication::{replication_status, replication_wait};
pub use user::{group, user};

/// A table with Unicode rules on a terminal and plain columns in a pipe.
fn table(header: &[&str]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(header.iter().copied());
    table
}

/// `1.5s`, `2m05s`, `3h07m`: at most two units.
fn short_duration(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..60 => format!("{:.1}s", ms as f64 / 1e3),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
    }
}

/// `512 B`, `1.5 KiB`, `3.1 TiB`.
fn short_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short_and_have_units() {
        assert_eq!(short_duration(1_540), "1.5s");
        assert_eq!(short_duration(125_000), "2m05s");
        assert_eq!(short_duration(11_220_000), "3h07m");
        assert_eq!(short_bytes(512), "512 B");
        assert_eq!(short_bytes(1536), "1.5 KiB");
        assert_eq!(short_bytes(3 << 40), "3.0 TiB");
    }
}
