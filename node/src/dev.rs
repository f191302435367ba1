//! `meridian dev`: a whole cluster in one process, over the same sockets, raft, gossip, mTLS and RocksDB as
//! `meridian node`. Only memory is shared: one block cache and one write-buffer budget for all nodes.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::future::try_join_all;

use crate::cli::DevArgs;
use crate::config::{BlobAuthSetting, LimitsSection, NodeConfig, RestSection};
use crate::init::{ClusterPlan, ReadyFile, node_files, read_ready, write_atomically};
use crate::server::{ProcessMemory, RunningNode};
use crate::signals;

/// How long the datacenters may take until all of them answer.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// Where `meridian dev` keeps its cluster when `--dir` does not say.
pub fn default_directory() -> PathBuf {
    let base = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).unwrap_or_else(|| {
        std::env::var_os("HOME").map_or_else(|| PathBuf::from("."), |home| Path::new(&home).join(".local/share"))
    });
    base.join("meridian/dev")
}

/// Runs the cluster until it is told to stop.
pub async fn run(args: &DevArgs, ready_file: Option<&Path>) -> Result<ExitCode> {
    let started = Instant::now();
    let directory = args.dir.clone().unwrap_or_else(default_directory);
    let ready = open_or_create(args, &directory)?;
    let mut configs: Vec<NodeConfig> =
        node_files(&directory)?.iter().map(|path| Ok(NodeConfig::load(path)?)).collect::<Result<_>>()?;
    for config in &mut configs {
        config.lifecycle.day_seconds = args.lifecycle_day_seconds.unwrap_or(config.lifecycle.day_seconds);
        config.encryption.make_keys = true;
        config.encryption.customer_keys_over_http = !args.tls; // it listens on this machine alone
        config.s3.domains.push("localhost".to_owned()); // every system resolves its subdomains to itself
    }
    let memory = ProcessMemory::new(&configs[0].limits);
    eprintln!("Starting {} datacenters from {} ...", ready.datacenters.len(), directory.display());
    let nodes = try_join_all(configs.into_iter().map(|config| RunningNode::start(config, memory.clone()))).await?;
    tokio::time::timeout(READY_TIMEOUT, async {
        for node in &nodes {
            node.wait_ready().await;
        }
    })
    .await
    .with_context(|| format!("the datacenters were not ready within {} s", READY_TIMEOUT.as_secs()))?;

    if let Some(path) = args.ready_file.as_deref().or(ready_file) {
        write_atomically(path, &serde_json::to_vec_pretty(&ready)?, true)?;
    }
    print_welcome(&ready, &directory, started.elapsed());
    signals::stop_requested().await?;
    eprintln!("Stopping ...");
    for node in nodes {
        node.stop().await;
    }
    Ok(ExitCode::SUCCESS)
}

fn open_or_create(args: &DevArgs, directory: &Path) -> Result<ReadyFile> {
    let stored = directory.join("ready.json");
    if stored.exists() {
        let ready = read_ready(&stored)?;
        let port_base = ready.datacenters.first().and_then(|dc| dc.s3.rsplit(':').next()?.parse::<u16>().ok());
        if port_base != Some(args.port_base) || ready.datacenters.len() != usize::from(args.datacenters) {
            bail!(
                "{} holds a cluster of {} datacenters from port {}; start it with those, or choose another --dir",
                directory.display(),
                ready.datacenters.len(),
                port_base.unwrap_or(0),
            );
        }
        if ready.ca_pem.is_some() != args.tls {
            let (with, mend) = if args.tls { ("without", "leave out --tls") } else { ("with", "start it with --tls") };
            let directory = directory.display();
            bail!("{directory} holds a cluster that was made {with} --tls; {mend}, or choose another --dir");
        }
        return Ok(ready);
    }
    let plan = ClusterPlan {
        directory: directory.to_owned(),
        name: "dev".into(),
        datacenters: args.datacenters,
        nodes: args.nodes,
        racks: args.racks,
        port_base: args.port_base,
        partitions: args.partitions,
        code: None,
        address: "127.0.0.1".into(),
        wan_address: None,
        public_address: None,
        limits: LimitsSection::default(),
        // It binds to loopback, and the cookie of a fid is a secret.
        rest: RestSection { blob_auth: BlobAuthSetting::Open },
        tls: args.tls,
    };
    plan.write()
}

fn print_welcome(ready: &ReadyFile, directory: &Path, elapsed: Duration) {
    println!("Ready after {:.1} s.\n", elapsed.as_secs_f64());
    for dc in &ready.datacenters {
        println!("  {}   S3 {}   REST {}", dc.name, dc.s3, dc.rest);
    }
    let ca_file = directory.join("ca/ca.pem");
    let (mut cacert, mut bundle) = (String::new(), String::new());
    if ready.ca_pem.is_some() {
        cacert = format!(" --cacert {}", ca_file.display());
        bundle = format!(" AWS_CA_BUNDLE={}", ca_file.display());
    }
    let first = &ready.datacenters[0];
    let last = ready.datacenters.last().expect("a cluster has a datacenter");
    let curl = |region: &str| {
        let keys = format!("{}:{}", ready.access_key, ready.secret_key);
        format!(
            "curl -fsS{cacert} --aws-sigv4 aws:amz:{region}:s3 -u {keys} -H 'x-amz-content-sha256: UNSIGNED-PAYLOAD'"
        )
    };
    println!(
        "\nTry it: write in {}, read in {} (Ctrl-C stops the cluster, {} keeps it):\n",
        first.name,
        last.name,
        directory.display()
    );
    println!("  {} -X PUT {}/hello", curl(&first.region), first.s3);
    println!("  {} -X PUT --data-binary 'one write crosses' {}/hello/world", curl(&first.region), first.s3);
    println!("  {} --retry 5 --retry-all-errors {}/hello/world\n", curl(&last.region).replace("-fsS", "-fs"), last.s3);
    println!("Or with any S3 client:\n");
    println!("  export AWS_ACCESS_KEY_ID={} AWS_SECRET_ACCESS_KEY={}{bundle}", ready.access_key, ready.secret_key);
    println!("  aws --endpoint-url {} s3 ls\n", first.s3);
}
