//! The flags of `meridian bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::cli::{parse_duration, parse_size};
use crate::commands::Workload;

#[derive(Debug, Clone, Args)]
pub struct BenchArgs {
    /// Start a cluster of one datacenter in a process and a temporary directory of its own and measure that.
    #[arg(long)]
    pub self_hosted: bool,
    /// Measure another S3 endpoint instead; keys come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
    #[arg(long, value_name = "URL", conflicts_with = "self_hosted")]
    pub s3_endpoint: Option<String>,
    /// Run the workloads over S3 at this S3 endpoint too, in turn with the first; with the same keys as --s3-endpoint.
    #[arg(long, value_name = "URL")]
    pub compare: Option<String>,
    /// Processes on this machine whose CPU and memory are told too, such as the nodes of other datacenters.
    #[arg(long, value_delimiter = ',', value_name = "PID,PID")]
    pub server_pid: Vec<u32>,
    /// The same of the server at --compare.
    #[arg(long, value_delimiter = ',', value_name = "PID,PID", requires = "compare")]
    pub compare_pid: Vec<u32>,
    /// Which workloads, in this order.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "put,get,mixed,list")]
    pub workloads: Vec<Workload>,
    /// Object size, such as 1KiB or 4MiB.
    #[arg(long, default_value = "1KiB", value_parser = parse_size)]
    pub size: u64,
    /// Objects to write, and to read from.
    #[arg(long, default_value_t = 10_000)]
    pub objects: u64,
    /// Clients at once.
    #[arg(long, default_value_t = 16)]
    pub clients: u32,
    /// Size of the objects of large-put and large-get.
    #[arg(long, default_value = "4MiB", value_parser = parse_size)]
    pub large_size: u64,
    /// How many of them.
    #[arg(long, default_value_t = 64)]
    pub large_objects: u64,
    /// Clients at once that write and read them.
    #[arg(long, default_value_t = 8)]
    pub large_clients: u32,
    /// How long each of the reads and the mix runs.
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub duration: Duration,
    /// Write the report as Markdown there.
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
    /// Write the report as JSON there.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}
