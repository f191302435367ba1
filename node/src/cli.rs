//! The command line: words, flags and defaults. What they do stands in `commands/`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use meridian_types::ReplicaCode;

pub use crate::cli_bench::BenchArgs;
pub use crate::cli_kms::{KeyPlace, KmsCommand};
pub use crate::cli_users::{BucketCommand, GroupCommand, KeyCommand, PolicyCommand, UserCommand};

/// Meridian: an object store that spans datacenters.
#[derive(Debug, Parser)]
#[command(name = "meridian", version, propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    pub connection: ConnectionArgs,
    #[command(subcommand)]
    pub command: Command,
}

/// How client commands reach a cluster; before or after their words.
#[derive(Debug, Clone, Args)]
pub struct ConnectionArgs {
    /// The ready.json of `meridian init` or `meridian dev`: endpoints and keys.
    #[arg(long, global = true, env = "MERIDIAN_READY_FILE", value_name = "F")]
    pub ready_file: Option<PathBuf>,
    /// Any REST endpoint of the cluster, such as http://127.0.0.1:9001; keys come from MERIDIAN_ACCESS_KEY and
    /// MERIDIAN_SECRET_KEY.
    #[arg(long, global = true, env = "MERIDIAN_ENDPOINT", value_name = "URL")]
    pub endpoint: Option<String>,
    /// The certificate of the CA that an https endpoint's own is checked by, where the ready file holds none.
    #[arg(long, global = true, env = "MERIDIAN_CA_FILE", value_name = "F")]
    pub ca_file: Option<PathBuf>,
    /// Print JSON with stable field names instead of a table.
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a cluster: configurations, certificates, keys.
    Init(InitArgs),
    /// Run one node, or look at the nodes of a datacenter.
    Node(NodeArgs),
    /// The volumes of the asked datacenter and where their copies are.
    #[command(subcommand)]
    Volume(VolumeCommand),
    /// Run a whole cluster in this process, for development.
    Dev(DevArgs),
    /// Nodes, partitions and volumes of every datacenter.
    Status,
    /// Whether the node at the endpoint serves: exit code 0, or 1 with what it lacks. Needs no keys.
    Ready,
    /// How far each datacenter is behind, and waiting for it.
    #[command(subcommand)]
    Replication(ReplicationCommand),
    /// Users, their access keys and policies.
    #[command(subcommand)]
    User(UserCommand),
    /// Groups of users.
    #[command(subcommand)]
    Group(GroupCommand),
    /// Buckets, as an administrator sees them.
    #[command(subcommand)]
    Bucket(BucketCommand),
    /// The keys that objects can be encrypted under (SSE-KMS).
    #[command(subcommand)]
    Kms(KmsCommand),
    /// Measure workloads over S3 and the blob API against a cluster, verifying what is read.
    Bench(BenchArgs),
    /// Print a completion script.
    Completion {
        /// The shell to complete for.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Clone, Args)]
pub struct InitArgs {
    /// Where to write the cluster.
    #[arg(long)]
    pub dir: PathBuf,
    /// The cluster's name.
    #[arg(long, default_value = "meridian")]
    pub name: String,
    #[arg(long, default_value_t = 3)]
    pub datacenters: u16,
    /// Nodes of each datacenter.
    #[arg(long, default_value_t = 1)]
    pub nodes: u16,
    /// Racks of each datacenter.
    #[arg(long, default_value_t = 1)]
    pub racks: u16,
    /// The first port; datacenter i (from 0) uses the hundred at 100 × i above it.
    #[arg(long, default_value_t = 9000)]
    pub port_base: u16,
    /// Shards of the object index; fixed for the life of the cluster.
    #[arg(long, default_value_t = 16)]
    pub partitions: u16,
    /// The cluster's default replica code; without it every datacenter holds every byte.
    #[arg(long, value_name = "XYZ")]
    pub replication: Option<ReplicaCode>,
    /// The host that nodes are reached at: an IP address, which they also bind, or a DNS name; `{node}` and
    /// `{datacenter}` stand for their names.
    #[arg(long, default_value = "127.0.0.1", value_name = "HOST")]
    pub address: String,
    /// The host that nodes of other datacenters reach them at, where it differs; with the same stand-ins.
    #[arg(long, value_name = "HOST")]
    pub wan_address: Option<String>,
    /// The host that ready.json names to clients, where it differs from the nodes' own.
    #[arg(long, value_name = "HOST")]
    pub public_address: Option<String>,
    /// Speak TLS with clients at the S3 and REST ports, by certificates of the cluster's own CA.
    #[arg(long)]
    pub tls: bool,
}

#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct NodeArgs {
    /// The node.toml of the node to run.
    #[arg(long, required = true)]
    pub config: Option<PathBuf>,
    /// Where this node keeps its data, instead of the place that node.toml names.
    #[arg(long, env = "MERIDIAN_DATA", value_name = "D")]
    pub data: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Option<NodeCommand>,
}

#[derive(Debug, Clone, Subcommand)]
pub enum NodeCommand {
    /// The nodes of the asked datacenter: racks, liveness, what they hold and lead.
    List,
    /// Let a node take no further volumes and mirrors; what it holds stays there.
    Drain {
        /// Its name or its number.
        node: String,
        /// Let it take them again.
        #[arg(long)]
        undo: bool,
    },
}

#[derive(Debug, Clone, Subcommand)]
pub enum VolumeCommand {
    /// Every volume of the asked datacenter with its copies.
    List,
    /// One volume.
    Show {
        /// Its number.
        volume: u32,
    },
}

#[derive(Debug, Clone, Args)]
pub struct DevArgs {
    /// Where the cluster lives; made at the first start, found again later.
    #[arg(long, value_name = "D")]
    pub dir: Option<PathBuf>,
    #[arg(long, default_value_t = 3)]
    pub datacenters: u16,
    /// Nodes of each datacenter.
    #[arg(long, default_value_t = 1)]
    pub nodes: u16,
    /// Racks of each datacenter.
    #[arg(long, default_value_t = 1)]
    pub racks: u16,
    #[arg(long, default_value_t = 9000)]
    pub port_base: u16,
    #[arg(long, default_value_t = 4)]
    pub partitions: u16,
    /// How long a day of lifecycle rules is, in seconds; for tests.
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub lifecycle_day_seconds: Option<u64>,
    /// Speak TLS with clients at the S3 and REST ports; decided when the cluster is made.
    #[arg(long)]
    pub tls: bool,
    /// Written when every datacenter answers, atomically.
    #[arg(long, value_name = "F")]
    pub ready_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum ReplicationCommand {
    /// One screen: how far each datacenter is behind. Exit code 0 ok, 1 warn, 2 critical.
    Status {
        /// Draw it again and again until Ctrl-C, every second or as often as said, such as --watch 5s.
        #[arg(long, value_name = "INTERVAL", num_args = 0..=1, default_missing_value = "1s", value_parser = parse_interval)]
        watch: Option<Duration>,
    },
    /// Block until a state is in other datacenters. Exit code 2 when the time is up.
    Wait(WaitArgs),
    /// Each datacenter's version of one object, where its bytes are, and which version wins.
    Explain {
        #[arg(value_name = "BUCKET/KEY")]
        object: String,
    },
    /// Concurrent writes that lost, as the asked datacenter recorded them.
    Conflicts(ConflictsArgs),
    /// Mirrors of the asked datacenter that stand still at a range they can't get.
    Parked {
        #[command(subcommand)]
        command: ParkedCommand,
    },
}

#[derive(Debug, Subcommand)]
pub enum ParkedCommand {
    /// The volumes with the reason; they are retried all the time.
    List,
    /// Let them try again at once, rather than when their pause is over.
    Retry {
        /// Only mirrors of this datacenter.
        #[arg(long, value_name = "DC")]
        from: Option<String>,
    },
}

#[derive(Debug, Clone, Args)]
pub struct ConflictsArgs {
    /// Only those of this bucket.
    #[arg(long)]
    pub bucket: Option<String>,
    /// Only those whose loser was written within this time, such as 30m or 24h.
    #[arg(long, value_name = "AGE", value_parser = parse_duration)]
    pub since: Option<Duration>,
    /// Where to go on, as an earlier call has told.
    #[arg(long, value_name = "TOKEN")]
    pub after: Option<String>,
    /// Most conflicts to show; the oldest come first.
    #[arg(long, default_value_t = CONFLICTS_SHOWN_MAX)]
    pub limit: usize,
}

/// Most conflicts that one call shows unless it is told otherwise.
const CONFLICTS_SHOWN_MAX: usize = 10_000;
/// The shortest pause of `--watch`: each drawing asks every datacenter.
const WATCH_INTERVAL_MIN: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Args)]
pub struct WaitArgs {
    /// `now`: everything acknowledged anywhere before this call. Or the `x-meridian-token` of an answer: what it showed.
    #[arg(long, default_value = "now")]
    pub until: String,
    /// The datacenters that must have it.
    #[arg(long = "in", value_delimiter = ',', value_name = "DC,DC", required = true)]
    pub destinations: Vec<String>,
    /// The origins to wait for; all members without it.
    #[arg(long, value_delimiter = ',', value_name = "DC,DC")]
    pub from: Vec<String>,
    /// How long to wait, such as 500ms, 30s or 2m.
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    pub timeout: Duration,
}

/// `500ms`, `30s`, `2m`, `1h`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let number: u64 = text[..digits].parse().map_err(|_| format!("{text:?}: write a number and ms, s, m or h"))?;
    match &text[digits..] {
        "ms" => Ok(Duration::from_millis(number)),
        "s" | "" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        "h" => Ok(Duration::from_secs(number.saturating_mul(3600))),
        unit => Err(format!("unknown unit {unit:?}: write ms, s, m or h")),
    }
}

/// A duration that `--watch` may pause for.
fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text)?;
    let too_short = format!("{text:?} is too short: at least {} ms", WATCH_INTERVAL_MIN.as_millis());
    if interval < WATCH_INTERVAL_MIN { Err(too_short) } else { Ok(interval) }
}

/// `1024`, `1KiB`, `4MiB`, `1GiB`.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let number: u64 = text[..digits].parse().map_err(|_| format!("{text:?}: write a number and KiB, MiB or GiB"))?;
    let shift = match &text[digits..] {
        "" | "B" => 0,
        "KiB" | "K" | "k" => 10,
        "MiB" | "M" => 20,
        "GiB" | "G" => 30,
        unit => return Err(format!("unknown unit {unit:?}: write KiB, MiB or GiB")),
    };
    number.checked_mul(1 << shift).ok_or_else(|| format!("{text:?} is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn connection_flags_stand_before_or_after_the_words() {
        for line in [
            ["meridian", "--json", "--ready-file", "r", "replication", "status"],
            ["meridian", "replication", "status", "--json", "--ready-file", "r"],
        ] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert!(cli.connection.json && cli.connection.ready_file.is_some());
        }
        let line = ["meridian", "replication", "wait", "--until", "now", "--in", "dc-b,dc-c", "--timeout", "5s"];
        let Command::Replication(ReplicationCommand::Wait(wait)) = Cli::try_parse_from(line).unwrap().command else {
            panic!("another command");
        };
        assert_eq!((wait.destinations.len(), wait.timeout), (2, Duration::from_secs(5)));
    }

    #[test]
    fn watch_takes_an_interval_or_none() {
        let watch = |words: &[&str]| {
            let line = ["meridian", "replication", "status"].iter().chain(words);
            match Cli::try_parse_from(line)?.command {
                Command::Replication(ReplicationCommand::Status { watch }) => Ok(watch),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(watch(&[]).map_err(|error: clap::Error| error.kind()), Ok(None));
        assert_eq!(watch(&["--watch"]).unwrap(), Some(Duration::from_secs(1)));
        assert_eq!(watch(&["--watch", "5s"]).unwrap(), Some(Duration::from_secs(5)));
        assert_eq!(watch(&["--watch", "--json"]).unwrap(), Some(Duration::from_secs(1)));
        assert!(watch(&["--watch", "1ms"]).is_err());
    }

    #[test]
    fn durations_and_sizes_parse_with_units() {
        assert_eq!(parse_duration("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(parse_duration("2m").unwrap(), Duration::from_secs(120));
        assert!(parse_duration("soon").is_err() && parse_duration("5 days").is_err());
        assert_eq!(parse_size("4MiB").unwrap(), 4 << 20);
        assert!(parse_size("99999999999GiB").is_err() && parse_size("x").is_err());
    }
}
