//! An upload lives in the datacenter that began it, and is used from any (rule 22), over real processes and links that can be
//! cut.

use anyhow::{Context, Result, ensure};
use http::{Method, StatusCode};
use meridian_tests::{ALL, ClusterOptions, LinkedCluster, S3, Shape, object_path, replicate, sever};

const BUCKET: &str = "elsewhere";

async fn begin(s3: &S3, key: &str) -> Result<String> {
    let began = s3.call(Method::POST, &format!("{}?uploads", object_path(BUCKET, key)), &[], "").await?.ok()?;
    began.elements("UploadId").pop().context("an upload")
}

fn complete(parts: &[(u16, &str)]) -> String {
    let parts =
        parts.iter().map(|(number, etag)| format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"));
    format!("<CompleteMultipartUpload>{}</CompleteMultipartUpload>", parts.collect::<String>())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_used_from_every_datacenter_and_refused_by_name_when_its_own_is_cut_off() -> Result<()> {
    let linked = LinkedCluster::start(ClusterOptions::new(Shape::Nodes)).await?;
    let [a, b, c] = ["dc-a", "dc-b", "dc-c"].map(|datacenter| linked.cluster.s3(datacenter));
    a.create_bucket(BUCKET).await?;
    replicate(&linked.cluster, "dc-a", &ALL, &ALL).await?;

    let key = "spread over all";
    let path = object_path(BUCKET, key);
    let upload = begin(&a, key).await?;
    let bodies = [vec![1u8; 5 << 20], vec![2; 5 << 20], b"the last".to_vec()];
    let mut etags = Vec::new();
    for (number, (s3, body)) in (1u16..).zip([&a, &b, &c].into_iter().zip(&bodies)) {
        let part = format!("{path}?partNumber={number}&uploadId={upload}");
        let stored = s3.call(Method::PUT, &part, &[], body.clone()).await?.ok().context(format!("part {number}"))?;
        etags.push(stored.header("etag").context("an ETag")?.to_owned());
    }
    let listing = format!("{path}?uploadId={upload}");
    for s3 in [&a, &b, &c] {
        let listed = s3.call(Method::GET, &listing, &[], "").await?.ok()?;
        ensure!(listed.elements("PartNumber") == ["1", "2", "3"], "{}", listed.text());
    }
    let chosen: Vec<(u16, &str)> = (1..).zip(etags.iter().map(String::as_str)).collect();
    // What is wrong is refused there as here, and once.
    let wrong = c.call(Method::POST, &listing, &[], complete(&[(1, etags[1].as_str())])).await?;
    ensure!(wrong.elements("Code") == ["InvalidPart"] && wrong.elements("RequestId").len() == 1, "{}", wrong.text());
    let forged = S3::new(c.endpoint(), "dc-c", "nobody", "nothing");
    let forged = forged.call(Method::POST, &listing, &[], complete(&chosen)).await?;
    ensure!(forged.status == StatusCode::FORBIDDEN, "{} {}", forged.status, forged.text());

    let completed = c.call(Method::POST, &listing, &[], complete(&chosen)).await?.ok()?;
    let again = b.call(Method::POST, &listing, &[], complete(&chosen)).await?.ok()?;
    ensure!(completed.elements("ETag") == again.elements("ETag"), "a repeated Complete has another answer");
    // Its token is that of the datacenter that did it: a session goes on anywhere.
    let token = completed.header("x-meridian-token").context("a token")?.to_owned();
    let read = b.call(Method::GET, &path, &[("x-meridian-after", &token)], "").await?.ok()?;
    ensure!(read.body == bodies.concat(), "{} bytes came", read.body.len());

    let aborted = begin(&a, "aborted").await?;
    let one = format!("{}?uploadId={aborted}", object_path(BUCKET, "aborted"));
    ensure!(b.call(Method::DELETE, &one, &[], "").await?.status == StatusCode::NO_CONTENT);
    for s3 in [&a, &c] {
        let gone = s3.call(Method::GET, &one, &[], "").await?;
        ensure!(gone.elements("Code") == ["NoSuchUpload"], "{} {}", gone.status, gone.text());
    }

    let cut = begin(&a, "cut").await?;
    sever(linked.around("dc-a"));
    let part = format!("{}?partNumber=1&uploadId={cut}", object_path(BUCKET, "cut"));
    let refused = b.call(Method::PUT, &part, &[], "x").await?;
    ensure!(refused.status == StatusCode::SERVICE_UNAVAILABLE, "{} {}", refused.status, refused.text());
    ensure!(refused.text().contains("datacenter dc-a") && refused.header("retry-after").is_some(), "{refused:?}");
    a.call(Method::PUT, &part, &[], "x").await?.ok().context("at its own datacenter it goes on")?;
    linked.heal();
    let stored = b.call(Method::PUT, &part, &[], "y").await?.ok()?;
    let etag = stored.header("etag").context("an ETag")?.to_owned();
    let done = format!("{}?uploadId={cut}", object_path(BUCKET, "cut"));
    b.call(Method::POST, &done, &[], complete(&[(1, &etag)])).await?.ok()?;
    ensure!(a.get(BUCKET, "cut").await?.as_deref() == Some(&b"y"[..]));
    Ok(())
}
