//! The end-to-end harness: starts real clusters of real processes on free loopback ports, talks to them as clients
//! do, kills them, and cleans up. Every later test of the whole stands on it.
//!
//! It knows the binary only from outside: the command line, the configuration files, the ports.
//!
//! Invariants: ports come from a locked range below the kernel's own, so that tests of several processes never meet;
//! every wait has a deadline and polls a condition; processes die with the test.

mod body;
mod cluster;
mod converging;
mod ledger;
mod linearizable;
mod links;
mod load;
mod machine;
mod ports;
mod power_disk;
mod random;
mod reading;
mod replicas;
mod replication;
mod rest;
mod rivals;
mod s3;
mod sync_fault;
mod tls;
mod traffic;

pub use body::{BODY_SIZE_MIN, describing_body, number_of_body};
pub use cluster::{Cluster, ClusterOptions, Shape, plain_get, program, wait_until};
pub use converging::{
    ALL, CONVERGE_DEADLINE, NOTICE_DEADLINE, contented, converge, is_down, is_ok, replicate, served, shown,
};
pub use ledger::{Ledger, Moment, Outcome, Reader, Ticket};
pub use linearizable::{Action, Operation, Value, check_linearizable};
pub use links::{LinkedCluster, set_timing, sever};
pub use load::{Load, LoadClient, found_in, outcome_of};
pub use machine::{Lacking, skipped};
pub use ports::PortRange;
pub use power_disk::PowerDisk;
pub use random::Random;
pub use reading::{Found, Scope, read_back};
pub use replicas::{replicas_become_equal, volumes};
pub use replication::{Exposure, Lag, ReplicationScreen, command_at};
pub use rest::Rest;
pub use rivals::{Loss, Mutation, Rivalry, Rivals};
pub use s3::{Answer, S3, object_path};
pub use sync_fault::{SyncAnswer, SyncFault, files_ending};
pub use traffic::{Journal, Traffic, TrafficPlan};
