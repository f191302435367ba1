//! The command line as operators and scripts use it: exit codes, JSON fields, errors with their mend.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;
use meridian_tests::{Cluster, ClusterOptions, PortRange, Shape, program};
use serde_json::Value;

fn run(words: &[&str]) -> Result<(Option<i32>, String, String)> {
    let output = Command::new(program()).args(words).output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status.code(), text(&output.stdout), text(&output.stderr)))
}

#[test]
fn bad_configuration_is_one_line_that_names_the_field_and_exit_2() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let cluster = directory.path().join("c");
    let ports = PortRange::take()?;
    let (dir, base) = (cluster.to_str().unwrap(), ports.base().to_string());
    let init = ["init", "--dir", dir, "--datacenters", "2", "--port-base", &base];
    assert_eq!(run(&init)?.0, Some(0));
    assert_eq!(run(&init)?.0, Some(2), "a cluster is never overwritten");
    let node = cluster.join("dc-a/dc-a-1/node.toml");
    let good = std::fs::read_to_string(&node)?;
    let refusals = [
        (good.replace("[cluster]", "[cluster]\nshards = 3"), "shards"),
        (good.replace("partitions = 16", "partitions = 0"), "cluster.partitions"),
        (good.replace("replication = \"100\"", "replication = \"900\""), "cluster.replication"),
        (good.replace("version = 1", "version = 2"), "version"),
        (good.replacen("name = \"dc-b\"", "name = \"dc-a\"", 1), "stands twice"),
    ];
    for (text, named) in refusals {
        assert_ne!(text, good, "{named}: the replacement changed nothing");
        std::fs::write(&node, text)?;
        let (code, _, error) = run(&["node", "--config", node.to_str().unwrap()])?;
        assert_eq!(code, Some(2), "{error}");
        assert!(error.lines().count() == 1 && error.contains(named), "{error}");
    }
    std::fs::write(&node, good)?;
    use std::os::unix::fs::PermissionsExt;
    let secrets = cluster.join("dc-a/dc-a-1/secrets.toml");
    std::fs::set_permissions(&secrets, std::fs::Permissions::from_mode(0o644))?;
    let (code, _, error) = run(&["node", "--config", node.to_str().unwrap()])?;
    assert!(code == Some(2) && error.contains("chmod 600"), "{error}");
    Ok(())
}

#[test]
fn codes_that_can_not_be_met_are_refused_with_what_is_missing() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let dir = directory.path().join("c");
    let missing = [
        ("300", "300 needs three copies in other datacenters; the cluster has two"),
        ("310", "310 needs a second rack in dc-a; it has one"),
        ("001", "001 needs a second node in any one rack of dc-a; it has one"),
    ];
    for (code, named) in missing {
        let words = ["init", "--dir", dir.to_str().unwrap(), "--datacenters", "3", "--replication", code];
        let (exit, _, error) = run(&words)?;
        assert!(exit == Some(2) && error.contains(named), "{error}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn wait_names_the_link_and_the_member_that_can_not_be_asked() -> Result<()> {
    let mut cluster = Cluster::start(ClusterOptions { datacenters: 2, ..ClusterOptions::new(Shape::Nodes) }).await?;
    cluster.s3("dc-a").create_bucket("photos").await?;
    cluster.wait_replicated("dc-b", &[])?;
    let unknown = cluster.cli(&["replication", "wait", "--in", "dc-x"])?;
    assert_ne!(unknown.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("dc-a, dc-b"), "{unknown:?}");

    cluster.kill("dc-b")?;
    let started = Instant::now();
    let origin = cluster.cli(&["replication", "wait", "--in", "dc-b", "--timeout", "60s"])?;
    assert_ne!(origin.status.code(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(20), "an unreachable member fails the call at once");
    assert!(String::from_utf8_lossy(&origin.stderr).contains("--from"), "{origin:?}");
    let wait = ["replication", "wait", "--in", "dc-b", "--from", "dc-a", "--timeout", "1s"];
    let destination = cluster.cli(&wait)?;
    assert_eq!(destination.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&destination.stderr).contains("dc-a→dc-b"), "{destination:?}");
    let status = cluster.cli(&["replication", "status", "--json"])?;
    let screen: Value = serde_json::from_slice(&status.stdout)?;
    assert_eq!((status.status.code(), screen["verdict"].as_str()), (Some(2), Some("critical")), "{screen:#}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bench_verifies_what_it_reads() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions { datacenters: 1, ..ClusterOptions::new(Shape::Dev) }).await?;
    let words = ["bench", "--objects", "300", "--duration", "500ms", "--clients", "4", "--json"];
    let output = cluster.cli(&words)?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let rows = report["rows"].as_array().expect("rows");
    let names: Vec<&str> = rows.iter().filter_map(|row| row["workload"].as_str()).collect();
    assert_eq!(names, ["put", "get", "mixed", "list"]);
    assert_eq!(rows[0]["operations"], 300);
    for row in rows {
        assert_eq!(row["errors"], 0, "{row:#}");
        assert!(row["workload"] == "put" || row["verified"].as_u64() > Some(0), "{row:#}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_stop_and_a_new_start_keep_everything() -> Result<()> {
    let mut cluster = Cluster::start(ClusterOptions::new(Shape::Dev)).await?;
    let a = cluster.s3("dc-a");
    a.create_bucket("kept").await?;
    a.put("kept", "key", "value").await?;
    cluster.stop("dev")?;
    cluster.spawn("dev")?;
    cluster.wait_ready().await?;
    assert_eq!(a.get("kept", "key").await?.as_deref(), Some(&b"value"[..]));
    cluster.wait_replicated("dc-b,dc-c", &[])?;
    assert_eq!(cluster.s3("dc-c").get("kept", "key").await?.as_deref(), Some(&b"value"[..]));
    Ok(())
}
