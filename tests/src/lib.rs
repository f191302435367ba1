//! The end-to-end harness: starts real clusters of real processes on free loopback ports, talks to them as clients
//! do, kills them, and cleans up. Every later test of the whole stands on it.
//!
//! It knows the binary only from outside: the command line, the configuration files, the ports.
//!
//! Invariants: ports come from a locked range below the kernel's own, so that tests of several processes never meet;
//! every wait has a deadline and polls a condition; processes die with the test.

mod cluster;
mod ports;
mod s3;

pub use cluster::{Cluster, ClusterOptions, Shape, plain_get, program, wait_until};
pub use ports::PortRange;
pub use s3::{Answer, S3, object_path};
