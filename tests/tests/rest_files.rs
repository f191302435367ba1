//! The file API through real sockets, side by side with S3: the same objects.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{Method, StatusCode};
use meridian_tests::{Answer, Cluster, ClusterOptions, Rest, Shape};
use serde_json::{Value, json};

async fn start() -> Result<(Cluster, Rest)> {
    let cluster = Cluster::start(ClusterOptions { datacenters: 1, ..ClusterOptions::new(Shape::Dev) }).await?;
    cluster.s3("dc-a").create_bucket("docs").await?;
    let rest = Rest::new(&cluster.rest("dc-a")).signed(cluster.keys());
    Ok((cluster, rest))
}

async fn put(rest: &Rest, path: &str, body: &str) -> Result<Value> {
    let answer = rest.call(Method::PUT, path, &[], body.to_owned()).await?;
    ensure!(answer.status == StatusCode::CREATED, "{path}: {} {}", answer.status, answer.text());
    Ok(serde_json::from_slice(&answer.body)?)
}

async fn call(rest: &Rest, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Result<Answer> {
    rest.call(method, path, headers, body.to_owned()).await
}

async fn names(rest: &Rest, path: &str) -> Result<Vec<String>> {
    let page = rest.json(path).await?;
    let entries = page["Entries"].as_array().context("entries")?;
    Ok(entries.iter().filter_map(|entry| entry["FullPath"].as_str()).map(str::to_owned).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_the_objects_that_s3_sees() -> Result<()> {
    let (cluster, rest) = start().await?;
    let s3 = cluster.s3("dc-a");
    let headers = [("content-type", "text/markdown"), ("x-amz-meta-colour", "blue")];
    let answer = call(&rest, Method::PUT, "/buckets/docs/a/b%20c.md", &headers, "# one").await?.ok()?;
    let stored: Value = serde_json::from_slice(&answer.body)?;
    assert_eq!((&stored["name"], &stored["size"]), (&json!("b c.md"), &json!(5)));
    let by_s3 = s3.call(Method::GET, "/docs/a/b%20c.md", &[], Bytes::new()).await?.ok()?;
    assert_eq!((by_s3.text().as_str(), by_s3.header("x-amz-meta-colour")), ("# one", Some("blue")));
    assert_eq!(by_s3.header("content-type"), Some("text/markdown"));

    s3.put("docs", "a/by-s3.txt", "by S3").await?;
    let read = rest.get("/buckets/docs/a/by-s3.txt").await?.ok()?;
    assert_eq!(read.text(), "by S3");
    let etag = read.header("etag").context("an ETag")?.to_owned();
    let path = "/buckets/docs/a/by-s3.txt";
    for (name, value, expected) in [
        ("if-none-match", etag.as_str(), 304),
        ("if-match", "\"0\"", 412),
        ("range", "bytes=9-", 416),
        ("range", "bytes=0-1", 206),
    ] {
        let answer = call(&rest, Method::GET, path, &[(name, value)], "").await?;
        assert_eq!(answer.status.as_u16(), expected, "{name}: {value}");
    }
    let head = call(&rest, Method::HEAD, path, &[], "").await?;
    assert_eq!((head.status.as_u16(), head.header("content-length")), (200, Some("5")));

    // Conditions of writes are atomic, as with S3.
    assert_eq!(call(&rest, Method::PUT, path, &[("if-none-match", "*")], "x").await?.status.as_u16(), 412);
    assert_eq!(call(&rest, Method::PUT, path, &[("if-match", "\"0\"")], "x").await?.status.as_u16(), 412);
    call(&rest, Method::PUT, path, &[("if-match", &etag)], "changed").await?.ok()?;
    assert_eq!(s3.get("docs", "a/by-s3.txt").await?, Some(Bytes::from("changed")));

    // Appended bytes stand behind what is there, its type and metadata stay; a file that is not there begins.
    put(&rest, "/buckets/docs/a/b%20c.md?op=append", " two").await?;
    put(&rest, "/buckets/docs/a/b%20c.md?op=append", " three").await?;
    let read = rest.get("/buckets/docs/a/b%20c.md").await?.ok()?;
    assert_eq!((read.text().as_str(), read.header("content-type")), ("# one two three", Some("text/markdown")));
    put(&rest, "/buckets/docs/log?op=append", "first").await?;
    assert_eq!(s3.get("docs", "log").await?, Some(Bytes::from("first")));

    // Tags.
    let json = [("content-type", "application/json")];
    let tagged = call(&rest, Method::PUT, &format!("{path}?tagging"), &json, "{\"team\":\"a\",\"x\":\"\"}").await?;
    assert_eq!(tagged.status.as_u16(), 204, "{}", tagged.text());
    assert_eq!(rest.json(&format!("{path}?tagging")).await?, json!({ "team": "a", "x": "" }));
    let by_s3 = s3.call(Method::GET, "/docs/a/by-s3.txt?tagging", &[], Bytes::new()).await?.ok()?;
    assert_eq!(by_s3.elements("Key"), ["team", "x"]);
    assert_eq!(call(&rest, Method::DELETE, &format!("{path}?tagging"), &[], "").await?.status.as_u16(), 204);
    assert_eq!(rest.json(&format!("{path}?tagging")).await?, json!({}));

    assert_eq!(call(&rest, Method::DELETE, path, &[], "").await?.status.as_u16(), 204);
    assert_eq!(s3.get("docs", "a/by-s3.txt").await?, None);
    assert_eq!(rest.get(path).await?.status.as_u16(), 404);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_are_listed_paged_moved_copied_and_deleted() -> Result<()> {
    let (cluster, rest) = start().await?;
    for name in ["a.txt", "b.jpg", "c.txt", "sub/one", "sub/two", "sub/deep/three", "z.txt"] {
        put(&rest, &format!("/buckets/docs/dir/{name}"), name).await?;
    }
    let all = ["a.txt", "b.jpg", "c.txt", "sub/", "z.txt"].map(|name| format!("/buckets/docs/dir/{name}"));
    assert_eq!(names(&rest, "/buckets/docs/dir/").await?, all);
    assert_eq!(names(&rest, "/buckets/").await?, ["/buckets/docs/"]);
    assert_eq!(names(&rest, "/buckets/docs").await?, ["/buckets/docs/dir/"]);
    // Page by page: nothing is left out, nothing comes twice.
    for limit in 1..=3 {
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let path = format!("/buckets/docs/dir/?limit={limit}&lastFileName={after}");
            let page = rest.json(&path).await?;
            found.extend(names(&rest, &path).await?);
            if page["ShouldDisplayLoadMore"] == false {
                break;
            }
            after = page["LastFileName"].as_str().context("a last name")?.to_owned();
        }
        assert_eq!(found, all, "limit {limit}");
    }
    let texts = names(&rest, "/buckets/docs/dir/?namePattern=*.txt&limit=2").await?;
    assert_eq!(texts, ["/buckets/docs/dir/a.txt", "/buckets/docs/dir/c.txt"]);

    // A form sent to a directory makes a file of its name; an empty PUT makes the directory itself.
    let (access_key, secret_key) = cluster.keys();
    let sent = std::process::Command::new("curl")
        .args(["-fsS", "--aws-sigv4", "aws:amz:dc-a:meridian", "-u", &format!("{access_key}:{secret_key}")])
        .args(["-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD", "-F", "file=by form;filename=f.txt"])
        .arg(format!("{}/buckets/docs/forms/", cluster.rest("dc-a")))
        .output()?;
    ensure!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    assert_eq!(rest.get("/buckets/docs/forms/f.txt").await?.ok()?.text(), "by form");
    put(&rest, "/buckets/docs/empty/", "").await?;
    assert_eq!(names(&rest, "/buckets/docs/empty/").await?, [""; 0]);
    assert_eq!(call(&rest, Method::PUT, "/buckets/docs/empty/", &[], "bytes").await?.status.as_u16(), 400);

    put(&rest, "/buckets/docs/copy.txt?cp.from=/buckets/docs/dir/a.txt", "").await?;
    put(&rest, "/buckets/docs/moved/?mv.from=/buckets/docs/dir/b.jpg", "").await?;
    put(&rest, "/buckets/docs/other/?mv.from=/buckets/docs/dir/sub/", "").await?;
    assert_eq!(rest.get("/buckets/docs/copy.txt").await?.ok()?.text(), "a.txt");
    assert_eq!(rest.get("/buckets/docs/moved/b.jpg").await?.ok()?.text(), "b.jpg");
    assert_eq!(rest.get("/buckets/docs/other/deep/three").await?.ok()?.text(), "sub/deep/three");
    assert_eq!(rest.get("/buckets/docs/dir/sub/").await?.status.as_u16(), 404);
    assert_eq!(rest.get("/buckets/docs/dir/b.jpg").await?.status.as_u16(), 404);
    for (path, expected) in [
        ("/buckets/docs/x/?mv.from=/buckets/docs/nothing/", 404),
        ("/buckets/docs/x?cp.from=/buckets/docs/nothing", 404),
        ("/buckets/docs/x?mv.from=/buckets/docs/other/", 400),
        ("/buckets/docs/other/in/?mv.from=/buckets/docs/other/", 400),
        ("/buckets/docs/x?mv.from=nowhere", 400),
        ("/buckets/nowhere/x", 404),
        ("/buckets/docs/x?op=prepend", 400),
    ] {
        assert_eq!(call(&rest, Method::PUT, path, &[], "").await?.status.as_u16(), expected, "{path}");
    }

    assert_eq!(call(&rest, Method::DELETE, "/buckets/docs/other/", &[], "").await?.status.as_u16(), 409);
    assert_eq!(call(&rest, Method::DELETE, "/buckets/docs/other/?recursive=true", &[], "").await?.status.as_u16(), 204);
    assert_eq!(call(&rest, Method::DELETE, "/buckets/docs/dir?recursive=true", &[], "").await?.status.as_u16(), 204);
    assert_eq!(call(&rest, Method::DELETE, "/buckets/docs/empty/", &[], "").await?.status.as_u16(), 204);
    let mut left: Vec<_> = cluster.s3("dc-a").list("docs", "").await?.into_iter().map(|(key, _)| key).collect();
    left.sort();
    assert_eq!(left, ["copy.txt", "forms/f.txt", "moved/b.jpg"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_refused_by_their_kind() -> Result<()> {
    let (cluster, rest) = start().await?;
    put(&rest, "/buckets/docs/k", "here").await?;
    // Unsigned, or signed by nobody's key.
    let plain = Rest::new(&cluster.rest("dc-a"));
    assert_eq!(plain.get("/buckets/docs/k").await?.status.as_u16(), 403);
    let stranger = plain.signed(("AKNOBODY", "secret"));
    assert_eq!(stranger.get("/buckets/docs/k").await?.status.as_u16(), 403);
    let json = [("content-type", "application/json")];
    let deep = format!("{}1{}", "{\"a\":".repeat(1000), "}".repeat(1000));
    for body in ["{", "[1]", "{\"a\":1}", deep.as_str()] {
        let answer = call(&rest, Method::PUT, "/buckets/docs/k?tagging", &json, body).await?;
        assert_eq!(answer.status.as_u16(), 400, "{}", &body[..body.len().min(20)]);
    }
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(70_000));
    for (method, path, headers, body, expected) in [
        (Method::PUT, "/buckets/docs/k?tagging", &[("content-type", "text/plain")][..], "{}", 415),
        (Method::PUT, "/buckets/docs/k?tagging", &json[..], large.as_str(), 413),
        (Method::PATCH, "/buckets/docs/k", &[][..], "", 405),
        (Method::PUT, "/buckets", &[][..], "", 405),
        (Method::GET, "/buckets/docs/?limit=0", &[][..], "", 400),
        (Method::GET, "/buckets/docs/?limit=1001", &[][..], "", 400),
        (Method::GET, "/buckets/UPPER/k", &[][..], "", 400),
        (Method::GET, "/buckets/docs/%ff", &[][..], "", 400),
        (Method::GET, "/buckets/docs/none", &[][..], "", 404),
        (Method::GET, "/buckets/docs/none/", &[][..], "", 404),
        (Method::PUT, "/buckets/docs/m", &[("content-md5", "AAAAAAAAAAAAAAAAAAAAAA==")][..], "x", 400),
        (Method::PUT, "/buckets/docs/m", &[("content-type", "multipart/mixed; boundary=x")][..], "x", 415),
    ] {
        let answer = call(&rest, method.clone(), path, headers, body).await?;
        assert_eq!(answer.status.as_u16(), expected, "{method} {path}: {}", answer.text());
    }
    Ok(())
}
