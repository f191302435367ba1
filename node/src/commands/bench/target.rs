//! What a benchmark measures: a cluster that was named, another S3 endpoint, or a cluster of one datacenter started
//! for the run.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use meridian_sigv4::{Credentials, SecretKey};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::load::Endpoints;
use super::process::{Disk, disk_of};
use crate::cli::{BenchArgs, ConnectionArgs};
use crate::client::{UsageError, find_ready};
use crate::init::read_ready;

/// How long a cluster of its own may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(60);

pub struct Target {
    /// How the report calls it.
    name: &'static str,
    endpoints: Endpoints,
    /// The server's processes, where they are known.
    processes: Vec<u32>,
    hosted: Option<Hosted>,
}

struct Hosted {
    process: Child,
    directory: TempDir,
}

impl Target {
    /// The cluster that is measured.
    pub async fn open(connection: &ConnectionArgs, args: &BenchArgs) -> Result<Self> {
        let processes = args.server_pid.clone();
        if let Some(endpoint) = &args.s3_endpoint {
            return Ok(Self { processes, ..Self::elsewhere("s3", endpoint)? });
        }
        let (ready, hosted) = if args.self_hosted {
            let (hosted, ready_file) = Hosted::start().await?;
            (read_ready(&ready_file)?, Some(hosted))
        } else {
            (find_ready(connection.ready_file.as_deref())?, None)
        };
        let first = ready.datacenters.first().context("the ready file names no datacenter")?;
        let secret_key = SecretKey::new(ready.secret_key.clone());
        let credentials = Credentials { access_key: ready.access_key.clone(), secret_key };
        let endpoints = Endpoints { s3: first.s3.clone(), credentials, rest: Some(first.rest.clone()) };
        let own = hosted.as_ref().and_then(|hosted| hosted.process.id());
        Ok(Self { name: "meridian", endpoints, processes: own.into_iter().chain(processes).collect(), hosted })
    }

    /// What it is compared with, if anything.
    pub fn compared(args: &BenchArgs) -> Result<Option<Self>> {
        let Some(endpoint) = &args.compare else { return Ok(None) };
        Ok(Some(Self { processes: args.compare_pid.clone(), ..Self::elsewhere("compared", endpoint)? }))
    }

    fn elsewhere(name: &'static str, endpoint: &str) -> Result<Self> {
        let key = |name: &str| {
            std::env::var(name).map_err(|_| UsageError(format!("another S3 endpoint needs {name} in the environment")))
        };
        let (access_key, secret) = (key("AWS_ACCESS_KEY_ID")?, key("AWS_SECRET_ACCESS_KEY")?);
        let credentials = Credentials { access_key, secret_key: SecretKey::new(secret) };
        let endpoints = Endpoints { s3: endpoint.trim_end_matches('/').to_owned(), credentials, rest: None };
        Ok(Self { name, endpoints, processes: Vec::new(), hosted: None })
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    pub fn processes(&self) -> &[u32] {
        &self.processes
    }

    /// What the server keeps on disk, where it is ours.
    pub fn disk(&self) -> Result<Option<Disk>> {
        self.hosted.as_ref().map(|hosted| disk_of(hosted.directory.path())).transpose()
    }

    pub async fn close(mut self) {
        if let Some(hosted) = &mut self.hosted {
            let _ = hosted.process.start_kill();
            let _ = hosted.process.wait().await;
        }
    }
}

impl Hosted {
    async fn start() -> Result<(Self, PathBuf)> {
        let directory = tempfile::tempdir()?;
        let ready_file = directory.path().join("ready-now.json");
        let program = std::env::current_exe().context("find this program")?;
        let mut process = Command::new(program)
            .args(["dev", "--datacenters", "1", "--port-base", &free_port_base()?.to_string(), "--dir"])
            .arg(directory.path().join("cluster"))
            .arg("--ready-file")
            .arg(&ready_file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("start a cluster")?;
        let waited = tokio::time::timeout(START_TIMEOUT, async {
            while !ready_file.exists() {
                if let Some(status) = process.try_wait()? {
                    anyhow::bail!("the cluster ended with {status}");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok(())
        });
        waited.await.context("the cluster was not ready in time")??;
        Ok((Self { process, directory }, ready_file))
    }
}

/// A base whose first ports are free now; below the range that the kernel gives to outgoing connections.
fn free_port_base() -> Result<u16> {
    for base in (10_000..32_000).step_by(100).rev() {
        let free = (0..5).all(|offset| std::net::TcpListener::bind(("127.0.0.1", base + offset)).is_ok());
        if free {
            return Ok(base);
        }
    }
    anyhow::bail!("no free ports between 10000 and 32000")
}
