//! Users over real datacenters: made in one, valid in all, and gone from all.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use http::{Method, StatusCode};
use meridian_tests::{Cluster, ClusterOptions, S3, Shape, wait_until};
use serde_json::Value;

fn cli(cluster: &Cluster, words: &[&str]) -> Result<Value> {
    let output = cluster.cli(words)?;
    anyhow::ensure!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The S3 client of another user in a datacenter, at the same endpoint as the administrator's.
fn s3_of(cluster: &Cluster, datacenter: &str, access_key: &str, secret_key: &str) -> Result<S3> {
    let ready: Value = serde_json::from_slice(&std::fs::read(cluster.directory().join("ready.json"))?)?;
    let datacenters = ready["datacenters"].as_array().expect("datacenters");
    let found = datacenters.iter().find(|entry| entry["name"] == datacenter).expect("the datacenter");
    Ok(S3::new(found["s3"].as_str().expect("an endpoint"), datacenter, access_key, secret_key))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_made_in_one_datacenter_works_in_the_other_and_goes_from_both() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions { datacenters: 2, ..ClusterOptions::new(Shape::Dev) }).await?;
    let words = ["user", "create", "ann", "--access-key", "ANNKEY", "--secret-key", "annsecret", "--id", "ann-id"];
    let made =
        cli(&cluster, &[&words[..], &["--display-name", "Ann", "--email", "ann@example.com", "--json"]].concat())?;
    assert_eq!((made["id"].as_str(), made["secret_key"].as_str()), (Some("ann-id"), Some("annsecret")));
    let again = cluster.cli(&["user", "create", "ann"])?;
    assert!(String::from_utf8_lossy(&again.stderr).contains("choose another name"), "{again:?}");
    let bob = cli(&cluster, &["user", "create", "bob", "--json"])?;
    let (bob_key, bob_secret) = (bob["access_key"].as_str().unwrap(), bob["secret_key"].as_str().unwrap());

    let ann = s3_of(&cluster, "dc-a", "ANNKEY", "annsecret")?;
    ann.create_bucket("anns-bucket").await?;
    cluster.wait_replicated("dc-b", &[])?;
    let ann_b = s3_of(&cluster, "dc-b", "ANNKEY", "annsecret")?;
    ann_b.put("anns-bucket", "key", "written in b").await?;
    let buckets = ann_b.call(Method::GET, "/", &[], Bytes::new()).await?.ok()?;
    assert_eq!((buckets.elements("ID"), buckets.elements("DisplayName")), (vec!["ann-id".into()], vec!["Ann".into()]));
    assert_eq!(buckets.elements("Name"), ["anns-bucket"]);

    // Another account sees none of it, and can't take the name.
    let bob_b = s3_of(&cluster, "dc-b", bob_key, bob_secret)?;
    assert!(bob_b.call(Method::GET, "/", &[], Bytes::new()).await?.ok()?.elements("Name").is_empty());
    let taken = bob_b.call(Method::PUT, "/anns-bucket", &[], Bytes::new()).await?;
    assert_eq!((taken.status, taken.elements("Code")), (StatusCode::CONFLICT, vec!["BucketAlreadyExists".into()]));
    let own = ann_b.call(Method::PUT, "/anns-bucket", &[], Bytes::new()).await?;
    assert_eq!((own.status, own.elements("Code")), (StatusCode::CONFLICT, vec!["BucketAlreadyOwnedByYou".into()]));
    let denied = bob_b.call(Method::GET, "/anns-bucket/key", &[], Bytes::new()).await?;
    assert_eq!(denied.status, StatusCode::FORBIDDEN);

    // A second key works beside the first, until it is put out of use, and the user until it is deleted.
    let second = cli(&cluster, &["user", "key", "create", "ann", "--json"])?;
    let (key, secret) = (second["access_key"].as_str().unwrap(), second["secret_key"].as_str().unwrap());
    cluster.wait_replicated("dc-b", &[])?;
    let second_b = s3_of(&cluster, "dc-b", key, secret)?;
    assert!(second_b.get("anns-bucket", "key").await?.is_some());
    cli(&cluster, &["user", "key", "disable", "ann", key, "--json"])?;
    let status = async |s3: &S3| Ok::<_, anyhow::Error>(s3.call(Method::GET, "/", &[], Bytes::new()).await?.status);
    let refused = async |s3: &S3| matches!(status(s3).await, Ok(StatusCode::FORBIDDEN));
    wait_until("the second key to stop in dc-b", Duration::from_secs(20), async || refused(&second_b).await).await?;
    assert_eq!(status(&ann_b).await?, StatusCode::OK, "the first key still works");
    let shown = cli(&cluster, &["user", "show", "ann", "--json"])?;
    let keys: Vec<_> = shown["access_keys"].as_array().unwrap().iter().map(|key| key["active"].as_bool()).collect();
    assert_eq!(keys.len(), 2);
    assert!(keys.contains(&Some(false)) && !shown.to_string().contains("annsecret"), "{shown:#}");
    cli(&cluster, &["user", "delete", "ann", "--json"])?;
    wait_until("ann to be gone from dc-b", Duration::from_secs(20), async || refused(&ann_b).await).await?;
    let names: Vec<String> = cli(&cluster, &["user", "list", "--json"])?
        .as_array()
        .unwrap()
        .iter()
        .map(|user| user["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["bob"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn users_and_their_secrets_outlive_a_restart_and_stand_nowhere_in_the_clear() -> Result<()> {
    let mut cluster = Cluster::start(ClusterOptions { datacenters: 1, ..ClusterOptions::new(Shape::Dev) }).await?;
    let secret = "a-secret-that-must-not-be-on-disk";
    cli(&cluster, &["user", "create", "ann", "--access-key", "ANNKEY", "--secret-key", secret, "--json"])?;
    cli(&cluster, &["bucket", "create", "anns-bucket", "--owner", "ann", "--json"])?;
    cluster.stop("dev")?;
    let mut files = vec![cluster.directory().to_owned()];
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(
                std::fs::read_dir(&path)?
                    .map(|entry| entry.map(|entry| entry.path()))
                    .collect::<Result<Vec<_>, _>>()?,
            );
        } else {
            let bytes = std::fs::read(&path)?;
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{}", path.display());
        }
    }
    cluster.spawn("dev")?;
    cluster.wait_ready().await?;
    let ann = s3_of(&cluster, "dc-a", "ANNKEY", secret)?;
    ann.put("anns-bucket", "key", "x").await?;
    let refused = cluster.cli(&["bucket", "set", "anns-bucket", "--replication", "110"])?;
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("110 needs one copy in other datacenters; the cluster has none besides"), "{text}");
    let changed = cli(&cluster, &["bucket", "set", "anns-bucket", "--replication", "000", "--json"])?;
    assert_eq!((changed["replication"].as_str(), changed["owner"].is_string()), (Some("000"), true));
    Ok(())
}
