//! A cluster of real processes: `meridian dev` as one, or a `meridian node` for each node.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::ports::PortRange;
use crate::s3::S3;
use crate::tls::{HttpClient, http_client};

/// What `dev` is asked to write once everything answers, in the cluster's directory.
const DEV_READY_FILE: &str = "dev-ready.json";
/// How long a cluster may take to serve. Generous: the machine may be busy with other tests.
const READY_DEADLINE: Duration = Duration::from_secs(90);

/// Which processes make up a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// All datacenters in one `meridian dev`.
    Dev,
    /// One `meridian node` for each.
    Nodes,
}

#[derive(Debug, Clone)]
pub struct ClusterOptions {
    pub shape: Shape,
    pub datacenters: u16,
    /// Nodes and racks of each datacenter.
    pub nodes: u16,
    pub racks: u16,
    pub partitions: u16,
    /// The cluster's default code; without it every datacenter holds every byte.
    pub code: Option<&'static str>,
    /// Put before the program, such as `strace` and its arguments, by datacenter name; for `Shape::Nodes`.
    pub wrapper: Option<(String, Vec<String>)>,
    /// How long a day of lifecycle rules is; for `Shape::Dev`.
    pub lifecycle_day_seconds: Option<u64>,
    /// Whether clients speak TLS, with the cluster's own CA.
    pub tls: bool,
    /// Where the cluster lives; a directory of its own without it.
    pub directory: Option<PathBuf>,
    /// Where the processes log to; beside the data without it.
    pub logs: Option<PathBuf>,
}

impl ClusterOptions {
    pub fn new(shape: Shape) -> Self {
        Self {
            shape,
            datacenters: 3,
            nodes: 1,
            racks: 1,
            partitions: 2,
            code: None,
            wrapper: None,
            lifecycle_day_seconds: None,
            tls: false,
            directory: None,
            logs: None,
        }
    }
}

/// A running cluster; its processes are killed when it is dropped.
pub struct Cluster {
    directory: PathBuf,
    ready: Value,
    processes: Vec<Process>,
    options: ClusterOptions,
    ports: PortRange,
    _own_directory: Option<TempDir>,
}

struct Process {
    /// The datacenter's name, the node's where a datacenter has several, or "dev".
    name: String,
    child: Option<Child>,
    /// Whether the child is a wrapper, which runs the node as a child of its own or becomes it.
    wrapped: bool,
}

impl Process {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), child: None, wrapped: false }
    }

    /// The process id of the node itself, whatever wraps it.
    fn pid(&self) -> Option<u32> {
        let pid = self.child.as_ref()?.id();
        if !self.wrapped {
            return Some(pid);
        }
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        // One without a child has become the node itself, as env does.
        children.split_whitespace().next().map_or(Some(pid), |child| child.parse().ok())
    }

    /// Signals the node. A wrapper is not signalled: it ends with what it runs, and would leave it running.
    fn signal(&self, signal: Signal) -> Result<()> {
        let Some(pid) = self.pid() else { return Ok(()) };
        let pid = Pid::from_raw(i32::try_from(pid)?).context("a process id is above 0")?;
        let _ = kill_process(pid, signal); // it may have ended by itself
        Ok(())
    }

    /// Whether it was started and has ended by itself.
    fn has_ended(&self) -> bool {
        let Some(child) = &self.child else { return false };
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, state)| state.trim_start().starts_with('Z'))
    }

    fn wait(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.wait()?;
        }
        Ok(())
    }
}

/// The binary under test: `MERIDIAN_BIN`, or the one built beside this test.
pub fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("MERIDIAN_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().expect("a test has a path");
    let profile = test.ancestors().nth(2).expect("a test lies in deps/ of its profile");
    let program = profile.join("meridian");
    assert!(program.exists(), "{} is missing: run `cargo build` first, or `make test`", program.display());
    program
}

/// Polls `condition` until it holds.
///
/// # Errors
/// When it did not within `deadline`.
pub async fn wait_until<F>(what: &str, deadline: Duration, mut condition: F) -> Result<()>
where
    F: AsyncFnMut() -> bool,
{
    let until = Instant::now() + deadline;
    while !condition().await {
        if Instant::now() >= until {
            bail!("{what} did not happen within {} s", deadline.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    Ok(())
}

impl Cluster {
    /// Makes a cluster, starts it and waits until every datacenter serves.
    pub async fn start(options: ClusterOptions) -> Result<Self> {
        let mut cluster = Self::take_place(options)?;
        if cluster.options.shape == Shape::Nodes {
            cluster.initialise()?;
        }
        cluster.run().await?;
        Ok(cluster)
    }

    /// Writes the files of a cluster of nodes and starts none of them: they can still be changed before `run`.
    ///
    /// # Errors
    /// When `meridian init` fails.
    pub fn create(options: ClusterOptions) -> Result<Self> {
        let mut cluster = Self::take_place(ClusterOptions { shape: Shape::Nodes, ..options })?;
        cluster.initialise()?;
        Ok(cluster)
    }

    fn take_place(options: ClusterOptions) -> Result<Self> {
        let ports = PortRange::take()?;
        let own = if options.directory.is_none() { Some(tempfile::tempdir()?) } else { None };
        let directory = match (&options.directory, &own) {
            (Some(directory), _) => directory.clone(),
            (None, Some(own)) => own.path().join("cluster"),
            (None, None) => unreachable!("one of the two is there"),
        };
        Ok(Self { directory, ready: Value::Null, processes: Vec::new(), options, ports, _own_directory: own })
    }

    fn initialise(&mut self) -> Result<()> {
        let (datacenters, base) = (self.options.datacenters.to_string(), self.ports.base().to_string());
        let partitions = self.options.partitions.to_string();
        let (nodes, racks) = (self.options.nodes.to_string(), self.options.racks.to_string());
        let output = Command::new(program())
            .args(["init", "--datacenters", &datacenters, "--port-base", &base, "--partitions", &partitions])
            .args(["--nodes", &nodes, "--racks", &racks])
            .args(self.options.code.iter().flat_map(|code| ["--replication", code]))
            .args(self.options.tls.then_some("--tls"))
            .arg("--dir")
            .arg(&self.directory)
            .output()?;
        check(&output)?;
        self.read_ready_file()
    }

    fn read_ready_file(&mut self) -> Result<()> {
        self.ready = serde_json::from_slice(&std::fs::read(self.directory.join("ready.json"))?)?;
        Ok(())
    }

    /// Starts every process and waits until every datacenter serves.
    ///
    /// # Errors
    /// When one of them does not in time; its log is part of the error.
    pub async fn run(&mut self) -> Result<()> {
        let names = match self.options.shape {
            Shape::Dev => vec!["dev".to_owned()],
            Shape::Nodes => self.nodes(),
        };
        for name in names {
            self.processes.push(Process::new(&name));
            self.spawn(&name)?;
        }
        if self.options.shape == Shape::Dev {
            let ready_file = self.directory.join(DEV_READY_FILE);
            wait_until("the ready file", READY_DEADLINE, async || ready_file.exists()).await?;
            self.read_ready_file()?;
        }
        self.wait_ready().await
    }

    /// The names of the datacenters.
    pub fn datacenters(&self) -> Vec<String> {
        let entries = self.ready["datacenters"].as_array().expect("a ready file lists datacenters");
        entries.iter().map(|dc| dc["name"].as_str().expect("a datacenter has a name").to_owned()).collect()
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The names of the processes: the datacenters' where each has one node, else the nodes'.
    pub fn nodes(&self) -> Vec<String> {
        if self.options.nodes == 1 {
            return self.datacenters();
        }
        let text = |value: &Value| value.as_str().expect("ready files hold texts").to_owned();
        let entries = self.ready["datacenters"].as_array().expect("a ready file lists datacenters");
        let nodes = entries.iter().flat_map(|dc| dc["nodes"].as_array().expect("a datacenter lists nodes"));
        nodes.map(|node| text(&node["name"])).collect()
    }

    /// The home of a node, or of a datacenter's first one: node.toml, data, log.
    pub fn node_directory(&self, name: &str) -> PathBuf {
        let (datacenter, node) = self.entry(name);
        self.directory.join(datacenter).join(node["name"].as_str().expect("a node has a name"))
    }

    /// The datacenter and the node that a name stands for; a datacenter's stands for its first node.
    fn entry(&self, name: &str) -> (&str, &Value) {
        let entries = self.ready["datacenters"].as_array().expect("a ready file lists datacenters");
        let mut found = entries.iter().flat_map(|dc| {
            let datacenter = dc["name"].as_str().expect("a datacenter has a name");
            let nodes = dc["nodes"].as_array().expect("a datacenter lists nodes");
            nodes.iter().map(move |node| (datacenter, node))
        });
        found.find(|(dc, node)| *dc == name || node["name"] == name).expect("a datacenter or a node of this cluster")
    }

    /// A client of the S3 endpoint of a node, or of a datacenter's first one.
    pub fn s3(&self, name: &str) -> S3 {
        let (datacenter, entry) = self.entry(name);
        let text = |value: &Value| value.as_str().expect("ready files hold texts").to_owned();
        let (access_key, secret_key) = (text(&self.ready["access_key"]), text(&self.ready["secret_key"]));
        S3::trusting(self.ca_pem(), &text(&entry["s3"]), datacenter, &access_key, &secret_key)
    }

    /// Whom clients trust, where they speak TLS.
    fn ca_pem(&self) -> Option<&str> {
        self.ready["ca_pem"].as_str()
    }

    /// An unsigned GET at the REST port of a node; the status and the body.
    pub async fn get(&self, name: &str, path: &str) -> Result<(u16, String)> {
        self.anonymous(&format!("{}{path}", self.rest(name))).await
    }

    /// An unsigned GET of a URL of this cluster; the status and the body.
    pub async fn anonymous(&self, url: &str) -> Result<(u16, String)> {
        get_url(&http_client(self.ca_pem()), url).await
    }

    /// The first user's access key and secret key.
    pub fn keys(&self) -> (&str, &str) {
        let text = |name: &str| self.ready[name].as_str().expect("a ready file has keys");
        (text("access_key"), text("secret_key"))
    }

    /// The REST endpoint of a node, or of a datacenter's first one.
    pub fn rest(&self, name: &str) -> String {
        self.entry(name).1["rest"].as_str().expect("ready files hold texts").to_owned()
    }

    /// Starts the process of a datacenter (or "dev") again.
    pub fn spawn(&mut self, name: &str) -> Result<()> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_path(name)?)?;
        let mut command = self.command(name);
        if self.options.shape == Shape::Dev {
            std::fs::create_dir_all(&self.directory)?;
            // A bare name, as a user types it.
            command.current_dir(&self.directory).args(["dev", "--ready-file", DEV_READY_FILE]);
            command.args(["--datacenters", &self.options.datacenters.to_string()]);
            command.args(["--nodes", &self.options.nodes.to_string(), "--racks", &self.options.racks.to_string()]);
            command.args(["--port-base", &self.ports.base().to_string()]);
            command.args(["--partitions", &self.options.partitions.to_string()]);
            if let Some(day_seconds) = self.options.lifecycle_day_seconds {
                command.args(["--lifecycle-day-seconds", &day_seconds.to_string()]);
            }
            command.args(self.options.tls.then_some("--tls"));
            command.arg("--dir").arg(&self.directory);
        } else {
            command.arg("node").arg("--config").arg(self.node_directory(name).join("node.toml"));
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?;
        let wrapped = self.wrapper(name).is_some();
        let process = self.process(name);
        (process.child, process.wrapped) = (Some(child), wrapped);
        Ok(())
    }

    /// Starts the processes of all datacenters again.
    pub fn spawn_all(&mut self) -> Result<()> {
        let names: Vec<String> = self.processes.iter().map(|process| process.name.clone()).collect();
        names.iter().try_for_each(|name| self.spawn(name))
    }

    fn wrapper(&self, name: &str) -> Option<&[String]> {
        self.options.wrapper.as_ref().filter(|(wrapped, _)| wrapped == name).map(|(_, words)| words.as_slice())
    }

    /// What the process of a datacenter runs under from its next `spawn` on.
    pub fn set_wrapper(&mut self, wrapper: Option<(String, Vec<String>)>) {
        self.options.wrapper = wrapper;
    }

    fn command(&self, name: &str) -> Command {
        match self.wrapper(name) {
            Some(words) => {
                let mut command = Command::new(&words[0]);
                command.args(&words[1..]).arg(program());
                command
            }
            None => Command::new(program()),
        }
    }

    fn log_path(&self, name: &str) -> Result<PathBuf> {
        let directory = match (&self.options.logs, self.options.shape) {
            (Some(logs), _) => logs.join(name),
            (None, Shape::Dev) => self.directory.clone(),
            (None, Shape::Nodes) => self.node_directory(name),
        };
        std::fs::create_dir_all(&directory)?;
        Ok(directory.join("log"))
    }

    /// What the process of a datacenter has logged.
    pub fn log(&self, name: &str) -> String {
        let mut text = String::new();
        if let Ok(path) = self.log_path(name)
            && let Ok(mut file) = std::fs::File::open(path)
        {
            let _ = file.read_to_string(&mut text);
        }
        text
    }

    fn process(&mut self, name: &str) -> &mut Process {
        self.processes.iter_mut().find(|process| process.name == name).expect("a process of this cluster")
    }

    /// The process id of a datacenter's node (or of "dev").
    pub fn pid(&self, name: &str) -> Option<u32> {
        self.processes.iter().find(|process| process.name == name)?.pid()
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(&mut self, name: &str) -> Result<()> {
        self.end(name, Signal::KILL)
    }

    /// Sends SIGTERM and waits for the end.
    pub fn stop(&mut self, name: &str) -> Result<()> {
        self.end(name, Signal::TERM)
    }

    /// Sends SIGSTOP: its ports still accept, and nobody answers.
    pub fn freeze(&self, name: &str) -> Result<()> {
        self.running(name)?.signal(Signal::STOP)
    }

    /// Sends SIGCONT.
    pub fn thaw(&self, name: &str) -> Result<()> {
        self.running(name)?.signal(Signal::CONT)
    }

    /// Sends SIGHUP.
    pub fn hang_up(&self, name: &str) -> Result<()> {
        self.running(name)?.signal(Signal::HUP)
    }

    fn running(&self, name: &str) -> Result<&Process> {
        let process = self.processes.iter().find(|process| process.name == name && process.child.is_some());
        process.with_context(|| format!("{name} does not run"))
    }

    /// Sends SIGKILL to every process at once, then waits for all ends.
    pub fn kill_all(&mut self) -> Result<()> {
        self.processes.iter().try_for_each(|process| process.signal(Signal::KILL))?;
        self.processes.iter_mut().try_for_each(Process::wait)
    }

    fn end(&mut self, name: &str, signal: Signal) -> Result<()> {
        let process = self.process(name);
        process.signal(signal)?;
        process.wait()
    }

    /// Waits until every running process answers /readyz for all its datacenters.
    pub async fn wait_ready(&self) -> Result<()> {
        let running: Vec<String> = match self.options.shape {
            Shape::Dev => self.datacenters(),
            Shape::Nodes => self.processes.iter().filter(|p| p.child.is_some()).map(|p| p.name.clone()).collect(),
        };
        for datacenter in running {
            let url = self.rest(&datacenter);
            let name = if self.options.shape == Shape::Dev { "dev" } else { &datacenter };
            let process = self.processes.iter().find(|process| process.name == name).expect("it is running");
            let what = format!("{datacenter} being ready");
            let (mut is_ready, mut last) = (false, None);
            let waited = wait_until(&what, READY_DEADLINE, async || {
                let answer = self.anonymous(&format!("{url}/readyz")).await;
                is_ready = answer.as_ref().is_ok_and(|(status, _)| *status == 200);
                last = Some(answer);
                is_ready || process.has_ended()
            });
            let outcome = waited.await.and_then(|()| match is_ready {
                true => Ok(()),
                false => bail!("the process of {datacenter} has ended by itself"),
            });
            if let Err(error) = outcome {
                let log = self.log(name);
                let tail: Vec<&str> = log.lines().rev().take(30).collect();
                bail!(
                    "{error}; /readyz: {last:?}; its log ends with:\n{}",
                    tail.into_iter().rev().collect::<Vec<_>>().join("\n")
                );
            }
        }
        Ok(())
    }

    /// Runs `meridian` with the cluster's ready file.
    pub fn cli(&self, words: &[&str]) -> Result<Output> {
        Ok(Command::new(program()).args(words).arg("--ready-file").arg(self.directory.join("ready.json")).output()?)
    }

    /// Runs `meridian` against the REST endpoint of one node.
    pub fn cli_at(&self, node: &str, words: &[&str]) -> Result<Output> {
        let (access_key, secret_key) = self.keys();
        let mut command = Command::new(program());
        command.args(words).args(["--endpoint", &self.rest(node)]);
        Ok(command.env("MERIDIAN_ACCESS_KEY", access_key).env("MERIDIAN_SECRET_KEY", secret_key).output()?)
    }

    /// `replication wait --until now --in ...`, which must succeed.
    pub fn wait_replicated(&self, destinations: &str, more: &[&str]) -> Result<()> {
        let mut words = vec!["replication", "wait", "--until", "now", "--in", destinations, "--timeout", "60s"];
        words.extend(more);
        check(&self.cli(&words)?)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.signal(Signal::KILL);
            if let Some(mut child) = process.child.take() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        if std::thread::panicking() {
            for process in &self.processes {
                let log = self.log(&process.name);
                let tail: Vec<&str> = log.lines().rev().take(20).collect();
                eprintln!("== log of {}\n{}", process.name, tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
            }
        }
    }
}

fn check(output: &Output) -> Result<()> {
    if output.status.success() {
        return Ok(());
    }
    bail!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr))
}

/// An unsigned GET over plain HTTP; the status and the body.
pub async fn plain_get(endpoint: &str, path: &str) -> Result<(u16, String)> {
    get_url(&http_client(None), &format!("{endpoint}{path}")).await
}

async fn get_url(client: &HttpClient, url: &str) -> Result<(u16, String)> {
    use http_body_util::BodyExt;
    let exchange = async {
        let answer = client.get(url.parse()?).await?;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await?.to_bytes();
        anyhow::Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    tokio::time::timeout(Duration::from_secs(5), exchange).await.context("no answer in time")?
}
