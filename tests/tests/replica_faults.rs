//! The named faults of volumes with copies on other nodes, over real processes under load. After each of them nothing that
//! was acknowledged is lost, every key's history is linearizable, and a byte comparison of all replicas of all volumes is
//! clean.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use meridian_tests::{
    Cluster, ClusterOptions, Ledger, Load, LoadClient, Random, Scope, Shape, SyncAnswer, SyncFault, files_ending,
    read_back, replicas_become_equal, skipped, volumes, wait_until,
};
use serde_json::Value;

const BUCKET: &str = "copied";
const CLIENTS: u64 = 4;
const NODES: [&str; 3] = ["dc-a-1", "dc-a-2", "dc-a-3"];
/// How long the others may take to miss a node and end its volumes.
const MISSED: Duration = Duration::from_secs(60);

/// One datacenter of three nodes whose volumes have two copies, with clients whose nodes it spares and their ledger.
struct Scene {
    cluster: Cluster,
    ledger: Arc<Ledger>,
    random: Random,
    clients: Vec<LoadClient>,
}

impl Scene {
    async fn start(test: &str) -> Result<Self> {
        let options = ClusterOptions {
            datacenters: 1,
            nodes: 3,
            partitions: 2,
            code: Some("001"),
            ..ClusterOptions::new(Shape::Nodes)
        };
        let cluster = Cluster::start(options).await?;
        cluster.s3(NODES[0]).create_bucket(BUCKET).await?;
        let random = Random::of_test(test);
        let client = |number| {
            let node = NODES[number as usize % NODES.len()];
            LoadClient::new(cluster.s3(node), BUCKET, "dc-a", number, random.split())
        };
        let clients = (0..CLIENTS).map(client).collect();
        Ok(Self { cluster, ledger: Arc::new(Ledger::default()), random, clients })
    }

    fn load(&mut self) -> Load {
        Load::start(std::mem::take(&mut self.clients), &self.ledger)
    }

    fn any_node(&self) -> &'static str {
        NODES[self.random.below(NODES.len() as u64) as usize]
    }

    /// Ends the load and judges everything.
    async fn judge(&mut self, load: Load, fault: &str) -> Result<()> {
        self.clients = load.finish().await.with_context(|| fault.to_owned())?;
        self.cluster.wait_ready().await?;
        let compared = replicas_become_equal(&self.cluster, NODES[0]).await.with_context(|| fault.to_owned())?;
        ensure!(compared > 0, "{fault}: no volume has a second replica");
        let replicated = self.ledger.now();
        for node in NODES {
            let s3 = self.cluster.s3(node);
            let found = read_back(&s3, BUCKET, "dc-a", &self.ledger, replicated, Scope::Everything);
            found.await.with_context(|| format!("{fault}: read back at {node}"))?;
        }
        let keys = self.ledger.check_linearizable("dc-a").map_err(anyhow::Error::msg)?;
        println!(
            "{fault}: {} acknowledged, {keys} keys linearizable, {compared} replicas equal",
            self.ledger.acknowledged()
        );
        Ok(())
    }

    /// The volumes that `node` holds, with their states, as `asked` lists them.
    fn states_of(&self, asked: &str, node: &str) -> Result<Vec<Value>> {
        let holds =
            |volume: &Value| volume["copies"].as_array().is_some_and(|all| all.iter().any(|c| c["node"] == node));
        Ok(volumes(&self.cluster, asked)?.into_iter().filter(holds).collect())
    }
}

fn others(node: &str) -> [&'static str; 2] {
    let mut left = NODES.into_iter().filter(|other| *other != node);
    [left.next().expect("three nodes"), left.next().expect("three nodes")]
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_of_appends() -> Result<()> {
    let mut scene = Scene::start("killed-mid-append").await?;
    let load = scene.load();
    load.acknowledged(40).await?;
    let victim = scene.any_node();
    scene.cluster.kill(victim)?;
    load.acknowledged(40).await?;
    scene.cluster.spawn(victim)?;
    load.acknowledged(20).await?;
    scene.judge(load, "killed mid-append").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_is_cut_off_and_comes_back() -> Result<()> {
    let mut scene = Scene::start("cut-off-primary").await?;
    let load = scene.load();
    load.acknowledged(40).await?;
    // With appends of its own in flight: after the thaw it must not acknowledge what the seal has left out.
    let primary = NODES[1];
    scene.cluster.freeze(primary)?;
    load.acknowledged(30).await?;
    wait_until("its volumes being sealed without it", MISSED, async || {
        let Ok(held) = scene.states_of(NODES[0], primary) else { return false };
        let own = held.iter().filter(|volume| volume["copies"][0]["node"] == primary);
        own.clone().count() > 0 && own.clone().all(|volume| volume["state"] == "sealed")
    })
    .await?;
    scene.cluster.thaw(primary)?;
    load.acknowledged(30).await?;
    scene.judge(load, "cut-off primary").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_volume_files_are_gone() -> Result<()> {
    let mut scene = Scene::start("wiped-secondary").await?;
    let load = scene.load();
    load.acknowledged(60).await?;
    let wiped = scene.any_node();
    scene.cluster.kill(wiped)?;
    let directory = scene.cluster.node_directory(wiped).join("data").join("volumes");
    std::fs::remove_dir_all(&directory)?;
    std::fs::create_dir(&directory)?;
    scene.cluster.spawn(wiped)?;
    load.acknowledged(40).await?;
    scene.judge(load, "wiped secondary").await
}

/// A node under strace, whose calls on its volumes' data files fail from some moment on, and who is started anew then.
async fn a_failing_disk(
    test: &'static str,
    wrapper: impl FnOnce(Vec<std::path::PathBuf>) -> Result<Vec<String>>,
) -> Result<()> {
    if let Err(why) = SyncFault::check() {
        skipped(test, &why);
        return Ok(());
    }
    let mut scene = Scene::start(test).await?;
    let load = scene.load();
    load.acknowledged(30).await?;
    let victim = NODES[2];
    scene.cluster.kill(victim)?;
    let directory = scene.cluster.node_directory(victim).join("data").join("volumes").canonicalize()?;
    let words = wrapper(files_ending(&directory, ".data")?)?;
    scene.cluster.set_wrapper(Some((victim.to_owned(), words)));
    scene.cluster.spawn(victim)?;
    load.acknowledged(40).await?;
    // Some of its volumes have failed by now, and are written no more.
    let [asked, _] = others(victim);
    wait_until("a volume of it being ended", MISSED, async || {
        let Ok(held) = scene.states_of(asked, victim) else { return false };
        held.iter().any(|volume| volume["state"] == "sealed" || volume["state"] == "sealing")
    })
    .await?;
    scene.cluster.kill(victim)?;
    scene.cluster.set_wrapper(None);
    scene.cluster.spawn(victim)?;
    load.acknowledged(20).await?;
    scene.judge(load, test).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_fails() -> Result<()> {
    let mut fault = None;
    a_failing_disk("failed-fdatasync", |files| {
        let planned = SyncFault::new(SyncAnswer::Failure, "3+", files)?;
        let words = planned.wrapper();
        fault = Some(planned);
        Ok(words)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full() -> Result<()> {
    a_failing_disk("full-disk", |files| {
        let inject = "inject=pwritev,pwrite64:error=ENOSPC:when=3+";
        let words = ["strace", "-f", "--seccomp-bpf", "-qq", "-e", "trace=pwritev,pwrite64", "-e", inject];
        let mut words: Vec<String> = words.map(str::to_owned).into();
        files.iter().for_each(|file| words.extend(["-P".to_owned(), file.display().to_string()]));
        words.extend(["-o".to_owned(), "/dev/null".to_owned()]);
        Ok(words)
    })
    .await
}
