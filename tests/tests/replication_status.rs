//! A bucket's replication configuration as the face of the store's own replication: PENDING while a datacenter lacks an
//! object, COMPLETED when all have it, REPLICA elsewhere.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use http::Method;
use meridian_tests::{Cluster, ClusterOptions, S3, Shape, wait_until};

const CONFIGURATION: &str = "<ReplicationConfiguration><Role>arn:aws:iam::admin:role/replication</Role><Rule><ID>all</ID>\
    <Status>Enabled</Status><Priority>1</Priority><Filter><Prefix>told/</Prefix></Filter><DeleteMarkerReplication>\
    <Status>Disabled</Status></DeleteMarkerReplication><Destination><Bucket>arn:aws:s3:::photos</Bucket></Destination>\
    </Rule></ReplicationConfiguration>";

async fn status(s3: &S3, path: &str) -> Result<Option<String>> {
    let head = s3.call(Method::HEAD, path, &[], Bytes::new()).await?.ok()?;
    Ok(head.header("x-amz-replication-status").map(str::to_owned))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_pending_until_every_datacenter_has_it() -> Result<()> {
    let mut cluster = Cluster::start(ClusterOptions { datacenters: 2, ..ClusterOptions::new(Shape::Nodes) }).await?;
    let (a, b) = (cluster.s3("dc-a"), cluster.s3("dc-b"));
    let put = async |path: &str, body: &str| a.call(Method::PUT, path, &[], body.to_owned()).await;
    a.create_bucket("photos").await?;
    let absent = a.call(Method::GET, "/photos?replication", &[], Bytes::new()).await?;
    assert_eq!(absent.elements("Code"), ["ReplicationConfigurationNotFoundError"]);
    let refused = put("/photos?replication", CONFIGURATION).await?;
    assert_eq!((refused.status.as_u16(), refused.elements("Code")), (400, vec!["InvalidRequest".into()]));
    let versioning = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
    put("/photos?versioning", versioning).await?.ok()?;
    put("/photos?replication", CONFIGURATION).await?.ok()?;
    let told = a.call(Method::GET, "/photos?replication", &[], Bytes::new()).await?.ok()?;
    assert_eq!(told.elements("ID"), ["all"]);
    cluster.wait_replicated("dc-b", &[])?;

    cluster.stop("dc-b")?;
    put("/photos/told/1", "x").await?.ok()?;
    put("/photos/other", "x").await?.ok()?;
    assert_eq!(status(&a, "/photos/told/1").await?.as_deref(), Some("PENDING"), "dc-b is down");
    assert_eq!(status(&a, "/photos/other").await?, None, "no rule is about it");
    cluster.spawn("dc-b")?;
    cluster.wait_ready().await?;
    let is =
        async |s3: &S3, wanted: &str| status(s3, "/photos/told/1").await.is_ok_and(|it| it.as_deref() == Some(wanted));
    wait_until("the replica in dc-b", Duration::from_secs(60), async || is(&b, "REPLICA").await).await?;
    wait_until("completion in dc-a", Duration::from_secs(60), async || is(&a, "COMPLETED").await).await?;

    a.call(Method::DELETE, "/photos?replication", &[], Bytes::new()).await?.ok()?;
    assert_eq!(status(&a, "/photos/told/1").await?, None);
    Ok(())
}
