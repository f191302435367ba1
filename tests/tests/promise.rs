//! The promise: two sides of a cut serve all the time and mutate the same keys; after the heal every datacenter holds the
//! same, of each key the greatest stamp won, no deleted key is back, and `conflicts` lists exactly what lost.
//!
//! What must come of it is computed by the test alone, from what its clients were told (`Rivalry`). The short form runs
//! until the cut is shown; `MERIDIAN_TEST_FULL=1` cuts for 60 s and sends 10,000 requests at least.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use meridian_chaos::link_proxy::LinkControl;
use meridian_tests::{
    ALL, Cluster, ClusterOptions, Journal, LinkedCluster, Loss, Random, ReplicationScreen, Rivalry, Rivals, Shape,
    Traffic, TrafficPlan, command_at, contented, converge, is_down, is_ok, number_of_body, replicate, served, shown,
    wait_until,
};
use serde_json::Value;

/// What the rivals fight for, and where other clients work meanwhile, also across the heal.
const FOUGHT_FOR: &str = "fought-for";
const BESIDE: &str = "beside";
const PLAN: TrafficPlan = TrafficPlan { bucket: BESIDE, clients_per_datacenter: 1, pause: Duration::from_millis(25) };

/// Conflicts that one call of the command shows: it is asked again from there.
const CONFLICTS_AT_ONCE: &str = "700";

struct Form {
    keys: usize,
    requests: u64,
    cut: Duration,
    /// Between two requests of one rival.
    pause: Duration,
}

/// Rivals in each datacenter.
const RIVALS: usize = 2;

impl Form {
    fn of_environment() -> Self {
        match std::env::var("MERIDIAN_TEST_FULL").as_deref() {
            Ok("1") => {
                Self { keys: 300, requests: 10_000, cut: Duration::from_secs(60), pause: Duration::from_millis(20) }
            }
            _ => Self { keys: 40, requests: 600, cut: Duration::ZERO, pause: Duration::from_millis(10) },
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sides_of_a_cut_serve_on_and_converge_and_exactly_the_losers_are_listed() -> Result<()> {
    let form = Form::of_environment();
    let random = Random::of_test("promise");
    let linked = LinkedCluster::start(ClusterOptions::new(Shape::Nodes)).await?;
    let cluster = &linked.cluster;
    for bucket in [FOUGHT_FOR, BESIDE] {
        cluster.s3("dc-b").create_bucket(bucket).await?;
    }
    replicate(cluster, "dc-b", &ALL, &ALL).await?;
    let rivalry = Rivalry::prepare(cluster, FOUGHT_FOR, "dc-a", &["dc-b", "dc-c"], form.keys).await?;
    replicate(cluster, "dc-b", &ALL, &ALL).await?;
    let journal = Arc::new(Journal::default());
    let traffic = Traffic::start(cluster, &ALL, PLAN, &journal, &random);
    served(&traffic, &journal, 100).await?;

    linked.around("dc-a").for_each(LinkControl::cut);
    let cut = Instant::now();
    let before = rivalry.answered();
    let rivals = Rivals::start(cluster, &rivalry, RIVALS, form.pause, &random);
    let cut_is_shown = |screen: &ReplicationScreen| {
        Ok(rivals.have_failed() || is_down(screen, "dc-a", "dc-b")? && is_down(screen, "dc-b", "dc-a")?)
    };
    let first = shown(cluster, "dc-b", &traffic, cut_is_shown).await?;
    let target = before + form.requests;
    let fought = async || {
        let is_done = rivalry.answered() >= target && cut.elapsed() >= form.cut;
        rivals.have_failed() || traffic.has_failed() || is_done
    };
    wait_until("the rivals' requests", form.cut + Duration::from_secs(120), fought).await?;
    let second = ReplicationScreen::of(cluster, "dc-b").await?;
    let cut_for = cut.elapsed();
    rivals.finish().await?;
    for to in ["dc-b", "dc-c"] {
        let (earlier, later) = (first.lag("dc-a", to)?, second.lag("dc-a", to)?);
        ensure!((earlier.meta, earlier.data) == (later.meta, later.data), "a watermark moved: {earlier:?}, {later:?}");
        ensure!(is_ok(&second, "dc-b", "dc-c")?, "{second}");
    }
    ensure!(second.verdict() == "critical", "{second}");
    // Both of the other side have all of that side, so it is known what the heal brings to what.
    replicate(cluster, "dc-b", &["dc-b", "dc-c"], &["dc-b", "dc-c"]).await?;

    linked.heal();
    let healed = Instant::now();
    replicate(cluster, "dc-b", &ALL, &ALL).await?;
    let took = healed.elapsed();
    served(&traffic, &journal, 100).await?;
    traffic.finish().await?;
    converge(cluster, BESIDE, &journal).await?;
    check_winners(cluster, &rivalry).await?;
    let screens = contented(cluster).await?;
    for screen in &screens {
        for to in ["dc-b", "dc-c"] {
            let (during, after) = (second.lag("dc-a", to)?, screen.lag("dc-a", to)?);
            ensure!(after.meta > during.meta && after.data > during.data, "dc-a→{to} did not pass: {screen}");
        }
    }
    let losses = rivalry.losses(&ALL);
    for datacenter in ALL {
        let seen = rivalry.losses_seen_in(datacenter).len();
        ensure!(seen > 0 && seen <= losses.len(), "{datacenter} saw {seen} of {} writes lose", losses.len());
        check_conflicts(cluster, datacenter, &losses).await.with_context(|| format!("conflicts in {datacenter}"))?;
    }
    println!(
        "cut for {cut_for:?}: {} requests of rivals ({:?} the slowest), {} beside; all was everywhere {took:?} after \
         the heal; {} losers listed",
        rivalry.answered() - before,
        rivalry.slowest(),
        journal.answered(),
        losses.len()
    );
    Ok(())
}

/// All datacenters list and hold of each key its last mutation, and nothing else.
async fn check_winners(cluster: &Cluster, rivalry: &Rivalry) -> Result<()> {
    let winners = rivalry.winners();
    let (deleted, kept): (Vec<_>, Vec<_>) = winners.into_iter().partition(|(_, winner)| winner.value.is_none());
    ensure!(!deleted.is_empty() && !kept.is_empty(), "{} deleted, {} kept", deleted.len(), kept.len());
    let expected: BTreeMap<&str, &str> = kept.iter().map(|(key, won)| (key.as_str(), won.etag.as_str())).collect();
    for datacenter in ALL {
        let s3 = cluster.s3(datacenter);
        let listed = s3.list(FOUGHT_FOR, "").await?;
        let plain = |etag: &str| etag.replace("&quot;", "").replace('"', "");
        let listed: BTreeMap<String, String> = listed.into_iter().map(|(key, etag)| (key, plain(&etag))).collect();
        let listed: BTreeMap<&str, &str> = listed.iter().map(|(key, etag)| (key.as_str(), etag.as_str())).collect();
        ensure!(listed == expected, "{datacenter} lists {listed:?}\nof {expected:?}");
        for (key, winner) in &kept {
            let body = s3.get(FOUGHT_FOR, key).await?.with_context(|| format!("{key} is missing in {datacenter}"))?;
            let number = number_of_body(key, &body).map_err(anyhow::Error::msg)?;
            ensure!(Some(number) == winner.value, "{key} in {datacenter} is write {number}, not {winner:?}");
        }
        for (key, winner) in &deleted {
            let found = s3.get(FOUGHT_FOR, key).await?;
            ensure!(found.is_none(), "{key} is back in {datacenter}; it was deleted by {winner:?}");
        }
    }
    Ok(())
}

/// What a datacenter lists is what any of them saw lose, one by one: key, kind, bytes, and the stamps of both.
async fn check_conflicts(cluster: &Cluster, asked: &str, losses: &[Loss]) -> Result<()> {
    let mut listed = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let mut words =
            vec!["replication", "conflicts", "--bucket", FOUGHT_FOR, "--limit", CONFLICTS_AT_ONCE, "--json"];
        words.extend(after.iter().flat_map(|after| ["--after", after]));
        let output = command_at(cluster, asked, &words).await?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{said}");
        listed.extend(serde_json::from_slice::<Vec<Value>>(&output.stdout)?);
        after = said.split_once("--after ").map(|(_, token)| token.trim().to_owned());
        if after.is_none() {
            break;
        }
    }
    let at = |conflict: &Value| conflict["loser"]["timestamp"].as_u64();
    ensure!(listed.is_sorted_by_key(at) && listed.iter().all(|conflict| conflict["bucket"] == FOUGHT_FOR));
    for loss in losses {
        let is_it = |conflict: &Value| {
            let at = |side: &str, mutation: &meridian_tests::Mutation| {
                let written = &conflict[side];
                let datacenter = written["datacenter"].as_str().unwrap_or_default();
                mutation.was_at(datacenter, written["at_ms"].as_u64().unwrap_or(0))
            };
            let lost = if loss.loser.value.is_some() { "write" } else { "delete" };
            let etag = conflict["lost_etag"].as_str().unwrap_or_default();
            conflict["key"] == loss.key.as_str()
                && conflict["lost"] == lost
                && etag == loss.loser.etag
                && at("loser", &loss.loser)
                && at("winner", &loss.winner)
        };
        let place = listed.iter().position(is_it).with_context(|| {
            let of_key: Vec<&Value> = listed.iter().filter(|conflict| conflict["key"] == loss.key.as_str()).collect();
            format!("not listed: {loss:?}\nof this key there is {of_key:#?}")
        })?;
        listed.swap_remove(place);
    }
    ensure!(listed.is_empty(), "{} are listed and are no losers, such as {:#}", listed.len(), listed[0]);
    Ok(())
}
