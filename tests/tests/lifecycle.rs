//! Lifecycle rules at work, with days of two seconds: what is due goes, in every datacenter, and nothing else does.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use http::Method;
use meridian_tests::{Cluster, ClusterOptions, S3, Shape, wait_until};

/// How long what is due in two days of two seconds may take on a busy machine.
const SOON: Duration = Duration::from_secs(40);

async fn cluster(datacenters: u16) -> Result<Cluster> {
    let options = ClusterOptions { datacenters, lifecycle_day_seconds: Some(2), ..ClusterOptions::new(Shape::Dev) };
    Cluster::start(options).await
}

async fn put(s3: &S3, path: &str, body: &str) -> Result<()> {
    s3.call(Method::PUT, path, &[], body.to_owned()).await?.ok().map(drop)
}

async fn keys(s3: &S3, bucket: &str) -> Vec<String> {
    let listed = s3.list(bucket, "").await.unwrap_or_default();
    listed.into_iter().map(|(key, _)| key).collect()
}

/// Version ids and delete markers of a bucket, as (versions, markers).
async fn versions(s3: &S3, bucket: &str) -> Result<(usize, usize)> {
    let listed = s3.call(Method::GET, &format!("/{bucket}?versions"), &[], Bytes::new()).await?.ok()?;
    Ok((listed.elements("Version").len(), listed.elements("DeleteMarker").len()))
}

fn rules(rules: &str) -> String {
    format!("<LifecycleConfiguration>{rules}</LifecycleConfiguration>")
}

const ON: &str = "<Status>Enabled</Status>";

#[tokio::test(flavor = "multi_thread")]
async fn objects_expire_by_prefix_tag_and_size_and_the_rest_stays() -> Result<()> {
    let cluster = cluster(1).await?;
    let s3 = cluster.s3("dc-a");
    s3.create_bucket("expiring").await?;
    let document = rules(&format!(
        "<Rule><ID>logs</ID><Filter><Prefix>logs/</Prefix></Filter>{ON}<Expiration><Days>1</Days></Expiration></Rule>\
         <Rule><ID>red</ID><Filter><Tag><Key>color</Key><Value>red</Value></Tag></Filter>{ON}\
         <Expiration><Days>1</Days></Expiration></Rule>\
         <Rule><ID>big</ID><Filter><ObjectSizeGreaterThan>10</ObjectSizeGreaterThan></Filter>{ON}\
         <Expiration><Date>2020-01-01T00:00:00Z</Date></Expiration></Rule>\
         <Rule><ID>off</ID><Filter><Prefix>kept/</Prefix></Filter><Status>Disabled</Status>\
         <Expiration><Days>1</Days></Expiration></Rule>\
         <Rule><ID>uploads</ID><Filter/>{ON}<AbortIncompleteMultipartUpload><DaysAfterInitiation>1</DaysAfterInitiation>\
         </AbortIncompleteMultipartUpload></Rule>"
    ));
    put(&s3, "/expiring?lifecycle", &document).await?;
    let tagged = s3.call(Method::PUT, "/expiring/tagged", &[("x-amz-tagging", "color=red")], "x").await?.ok()?;
    let told = tagged.header("x-amz-expiration").unwrap_or_default().to_owned();
    assert!(told.starts_with("expiry-date=\"") && told.ends_with("\", rule-id=\"red\""), "{told}");
    let plain = s3.call(Method::PUT, "/expiring/kept/1", &[], "x").await?.ok()?;
    assert_eq!(plain.header("x-amz-expiration"), None);
    for (path, body) in [("/expiring/logs/1", "x"), ("/expiring/big", "more than ten bytes"), ("/expiring/small", "x")]
    {
        put(&s3, path, body).await?;
    }
    s3.call(Method::POST, "/expiring/unfinished?uploads", &[], Bytes::new()).await?.ok()?;

    let left = async || keys(&s3, "expiring").await == ["kept/1", "small"];
    wait_until("what is due to expire", SOON, async || left().await).await?;
    let uploads = async || {
        let listed = s3.call(Method::GET, "/expiring?uploads", &[], Bytes::new()).await;
        listed.is_ok_and(|listed| listed.status.is_success() && listed.elements("UploadId").is_empty())
    };
    wait_until("the upload to be aborted", SOON, async || uploads().await).await?;
    assert!(left().await, "a disabled rule and no rule take nothing");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_expire_once_over_all_datacenters_and_locked_ones_stay() -> Result<()> {
    let cluster = cluster(2).await?;
    let (a, b) = (cluster.s3("dc-a"), cluster.s3("dc-b"));
    let lock = [("x-amz-bucket-object-lock-enabled", "true")];
    a.call(Method::PUT, "/versioned", &lock, Bytes::new()).await?.ok()?;
    let until =
        [("x-amz-object-lock-mode", "GOVERNANCE"), ("x-amz-object-lock-retain-until-date", "2100-01-01T00:00:00Z")];
    a.call(Method::PUT, "/versioned/locked", &until, "1").await?.ok()?;
    put(&a, "/versioned/locked", "2").await?;
    put(&a, "/versioned/plain", "1").await?;
    put(&a, "/versioned/plain", "2").await?;
    cluster.wait_replicated("dc-b", &[])?;
    assert_eq!(versions(&b, "versioned").await?, (4, 0));

    // Current versions get one delete marker each, whatever the number of datacenters.
    let expire = rules(&format!("<Rule><ID>x</ID><Filter/>{ON}<Expiration><Days>1</Days></Expiration></Rule>"));
    put(&a, "/versioned?lifecycle", &expire).await?;
    for s3 in [&a, &b] {
        wait_until("markers in both", SOON, async || versions(s3, "versioned").await.is_ok_and(|it| it == (4, 2)))
            .await?;
    }

    // Noncurrent versions go for good, but for the one that is locked; then the marker that stands alone.
    let remove = rules(&format!(
        "<Rule><ID>x</ID><Filter/>{ON}<NoncurrentVersionExpiration><NoncurrentDays>1</NoncurrentDays>\
         </NoncurrentVersionExpiration><Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration></Rule>"
    ));
    put(&a, "/versioned?lifecycle", &remove).await?;
    for s3 in [&a, &b] {
        wait_until("removal in both", SOON, async || versions(s3, "versioned").await.is_ok_and(|it| it == (1, 1)))
            .await?;
    }
    Ok(())
}
