//! The blob API through real sockets: every form of a URL, what is kept, conditions, bad input, other nodes and datacenters.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{Method, StatusCode};
use meridian_tests::{Answer, Cluster, ClusterOptions, Rest, Shape, wait_until};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CROSSES: Duration = Duration::from_secs(60);

async fn dev(datacenters: u16) -> Result<Cluster> {
    Cluster::start(ClusterOptions { datacenters, ..ClusterOptions::new(Shape::Dev) }).await
}

fn rest(cluster: &Cluster, node: &str) -> Rest {
    Rest::new(&cluster.rest(node))
}

/// A fid, and its path.
async fn assign(rest: &Rest, query: &str) -> Result<String> {
    let assigned = rest.json(&format!("/dir/assign{query}")).await?;
    ensure!(assigned["url"] == rest.address() && assigned["publicUrl"] == rest.address(), "{assigned}");
    Ok(format!("/{}", assigned["fid"].as_str().context("a fid")?))
}

async fn put(rest: &Rest, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Result<Value> {
    let answer = rest.call(Method::PUT, path, headers, body).await?;
    ensure!(answer.status == StatusCode::CREATED, "{path}: {} {}", answer.status, answer.text());
    Ok(serde_json::from_slice(&answer.body)?)
}

async fn status(rest: &Rest, method: Method, path: &str, headers: &[(&str, &str)]) -> Result<u16> {
    Ok(rest.call(method, path, headers, Bytes::new()).await?.status.as_u16())
}

async fn wait_body(rest: &Rest, path: &str, body: &[u8]) -> Result<()> {
    wait_until("the blob there", CROSSES, async || {
        rest.get(path).await.is_ok_and(|answer| answer.status == 200 && answer.body == body)
    })
    .await
}

fn error(answer: &Answer) -> String {
    serde_json::from_slice::<Value>(&answer.body).map_or_else(|_| answer.text(), |json| json["error"].to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_is_written_read_and_deleted_in_every_form_of_its_url() -> Result<()> {
    let cluster = dev(1).await?;
    let a = rest(&cluster, "dc-a");
    let path = assign(&a, "").await?;
    let headers = [("content-type", "text/x-poem"), ("content-md5", "XUFAKrxLKna5cZ2REBfFkg==")]; // of "hello"
    let stored = put(&a, &format!("{path}?ts=784111777"), &headers, "hello").await?;
    let etag = stored["eTag"].as_str().context("an ETag")?.to_owned();
    assert_eq!(stored, json!({ "name": "", "size": 5, "eTag": etag }));

    let (volume, rest_of) = path[1..].split_once(',').context("a comma")?;
    for form in [
        path.clone(),
        format!("{path}.jpg"),
        format!("/{volume}%2C{rest_of}"),
        format!("/{volume}/{rest_of}"),
        format!("/{volume}/{rest_of}.txt"),
        format!("/{volume}/{rest_of}/name.jpg"),
        format!("{path}?x=y"),
    ] {
        let read = a.get(&form).await?;
        assert_eq!((read.status.as_u16(), &read.body[..]), (200, &b"hello"[..]), "{form}");
        assert_eq!(read.header("content-type"), Some("text/x-poem"), "{form}");
        assert_eq!(read.header("etag"), Some(format!("\"{etag}\"").as_str()));
        assert_eq!(read.header("last-modified"), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
    }
    let head = a.call(Method::HEAD, &path, &[], Bytes::new()).await?;
    assert_eq!((head.status.as_u16(), head.header("content-length"), head.body.len()), (200, Some("5"), 0));

    for (name, value, expected) in [
        ("if-none-match", format!("\"{etag}\""), 304),
        ("if-none-match", "\"other\"".to_owned(), 200),
        ("if-match", "\"other\"".to_owned(), 412),
        ("if-match", format!("\"{etag}\""), 200),
        ("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT".to_owned(), 304),
        ("if-modified-since", "Sun, 06 Nov 1994 08:49:36 GMT".to_owned(), 200),
        ("range", "bytes=9-".to_owned(), 416),
        ("range", "rows=1-2".to_owned(), 200),
    ] {
        assert_eq!(status(&a, Method::GET, &path, &[(name, &value)]).await?, expected, "{name}: {value}");
    }
    let part = a.call(Method::GET, &path, &[("range", "bytes=1-3")], Bytes::new()).await?;
    assert_eq!((part.status.as_u16(), &part.body[..]), (206, &b"ell"[..]));
    assert_eq!(part.header("content-range"), Some("bytes 1-3/5"));

    // The same write again is the same success; other bytes need another fid.
    put(&a, &path, &headers[..1], "hello").await?;
    let other = a.call(Method::PUT, &path, &[], "other").await?;
    assert_eq!(other.status, StatusCode::CONFLICT, "{}", other.text());
    let deleted = a.call(Method::DELETE, &path, &[], Bytes::new()).await?;
    assert_eq!((deleted.status.as_u16(), deleted.text()), (202, "{\"size\":5}".to_owned()));
    assert_eq!(status(&a, Method::GET, &path, &[]).await?, 404);
    assert_eq!(status(&a, Method::DELETE, &path, &[]).await?, 404);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_rows_of_fids_large_blobs_and_ends_of_life() -> Result<()> {
    let cluster = dev(1).await?;
    let a = rest(&cluster, "dc-a");
    // A row of three: the second and third by suffix, and none beyond the row's power of two.
    let assigned = a.json("/dir/assign?count=3&pretty=y").await?;
    assert_eq!(assigned["count"], 3);
    let first = assigned["fid"].as_str().context("a fid")?;
    for (index, suffix) in ["", "_1", "_2"].into_iter().enumerate() {
        put(&a, &format!("/{first}{suffix}"), &[], format!("number {index}")).await?;
    }
    for (index, suffix) in ["", "_1", "_2"].into_iter().enumerate() {
        let read = a.get(&format!("/{first}{suffix}")).await?.ok()?;
        assert_eq!(read.text(), format!("number {index}"));
        assert_eq!(read.header("content-type"), Some("application/octet-stream"));
    }
    assert_eq!(status(&a, Method::PUT, &format!("/{first}_4"), &[]).await?, 404);

    // A form keeps the name and the type of its file.
    let path = assign(&a, "").await?;
    let form = "--X\r\ncontent-disposition: form-data; name=\"note\"\r\n\r\nno file\r\n--X\r\ncontent-disposition: form-data; \
                name=\"file\"; filename=\"a cat.png\"\r\ncontent-type: image/png\r\n\r\nnot really\r\n--X--\r\n";
    let multipart = [("content-type", "multipart/form-data; boundary=X")];
    let answer = a.call(Method::POST, &path, &multipart, form).await?.ok()?;
    let stored: Value = serde_json::from_slice(&answer.body)?;
    assert_eq!((&stored["name"], &stored["size"]), (&json!("a cat.png"), &json!(10)));
    let read = a.get(&path).await?.ok()?;
    assert_eq!((read.text().as_str(), read.header("content-type")), ("not really", Some("image/png")));
    assert_eq!(read.header("content-disposition"), Some("inline; filename=\"a cat.png\""));
    let cut = a.call(Method::POST, &assign(&a, "").await?, &multipart, &form[..form.len() - 12]).await?;
    assert_eq!(cut.status, 400, "{}", cut.text());

    // Larger than what one read takes: pieces, and ranges across them.
    let large: Bytes = (0..5_000_000u32).map(|i| (i % 251) as u8).collect::<Vec<_>>().into();
    let path = assign(&a, "").await?;
    put(&a, &format!("{path}?fsync=true"), &[], large.clone()).await?;
    assert_eq!(a.get(&path).await?.ok()?.body, large);
    for (from, to) in [(0, 4_999_999), (131_000, 131_200), (1_048_500, 2_100_000), (4_999_990, 4_999_999)] {
        let range = format!("bytes={from}-{to}");
        let part = a.call(Method::GET, &path, &[("range", &range)], Bytes::new()).await?.ok()?;
        assert_eq!(part.body, large.slice(from..=to), "{range}");
    }

    // A blob of a minute is there, and one whose life ends is checked by its kept time (unit tests turn the clock).
    let path = assign(&a, "?ttl=1m").await?;
    put(&a, &format!("{path}?ttl=1m"), &[], "short").await?;
    assert_eq!(a.get(&path).await?.ok()?.text(), "short");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_by_its_kind() -> Result<()> {
    let cluster = dev(1).await?;
    let a = rest(&cluster, "dc-a");
    let path = assign(&a, "").await?;
    put(&a, &path, &[], "here").await?;
    let flipped = |text: &str| {
        let last = if text.ends_with('0') { "1" } else { "0" };
        format!("{}{last}", &text[..text.len() - 1])
    };
    for (method, path, expected) in [
        (Method::GET, flipped(&path), 404),
        (Method::DELETE, flipped(&path), 404),
        (Method::PUT, flipped(&path), 404),
        (Method::GET, "/3,zz".to_owned(), 404),
        (Method::GET, "/favicon.ico".to_owned(), 404),
        (Method::POST, "/no/such".to_owned(), 404),
        (Method::GET, "/a/b/c/d".to_owned(), 404),
        (Method::PATCH, path.clone(), 405),
        (Method::DELETE, "/dir/assign".to_owned(), 405),
        (Method::POST, "/dir/status".to_owned(), 405),
        (Method::GET, "/dir/assign?count=0".to_owned(), 400),
        (Method::GET, "/dir/assign?count=99999999".to_owned(), 400),
        (Method::GET, "/dir/assign?count=x".to_owned(), 400),
        (Method::GET, "/dir/assign?replication=1".to_owned(), 400),
        (Method::GET, "/dir/assign?ttl=3x".to_owned(), 400),
        (Method::GET, "/dir/lookup".to_owned(), 400),
        (Method::GET, "/dir/lookup?volumeId=0".to_owned(), 400),
        (Method::GET, "/dir/lookup?volumeId=999937".to_owned(), 404),
        (Method::GET, "/vol/vacuum".to_owned(), 501),
        (Method::GET, "/col/delete?collection=x".to_owned(), 501),
    ] {
        assert_eq!(status(&a, method.clone(), &path, &[]).await?, expected, "{method} {path}");
    }
    // What can't be met says what is missing.
    for (query, words) in [
        ("replication=100", "other datacenters"),
        ("replication=010", "a second rack in dc-a"),
        ("replication=001", "a second node in"),
        ("dataCenter=dc-z", "ask one of dc-z"),
        ("rack=nowhere", "no rack nowhere"),
        ("dataNode=nobody", "no node nobody"),
    ] {
        let answer = a.get(&format!("/dir/assign?{query}")).await?;
        assert_eq!(answer.status.as_u16(), 406, "{query}");
        assert!(error(&answer).contains(words), "{query}: {}", error(&answer));
    }
    let fresh = assign(&a, "").await?;
    let put = async |headers: &[(&str, &str)], body: Bytes| -> Result<u16> {
        Ok(a.call(Method::PUT, &fresh, headers, body).await?.status.as_u16())
    };
    let hello = || Bytes::from_static(b"hello");
    assert_eq!(put(&[("content-md5", "AAAAAAAAAAAAAAAAAAAAAA==")], hello()).await?, 400);
    assert_eq!(put(&[("content-md5", "x")], hello()).await?, 400);
    assert_eq!(put(&[("content-type", "multipart/mixed; boundary=x")], hello()).await?, 415);
    assert_eq!(put(&[("content-type", "multipart/form-data")], hello()).await?, 400);
    assert_eq!(put(&[("content-encoding", "gzip")], hello()).await?, 415);
    // By its length alone: the answer comes before the body, and the connection ends.
    let mut large = TcpStream::connect(a.address()).await?;
    let head = format!("PUT {fresh} HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n\r\n", a.address(), (16 << 20) + 1);
    large.write_all(head.as_bytes()).await?;
    let mut answer = [0; 12];
    large.read_exact(&mut answer).await?;
    assert_eq!(&answer, b"HTTP/1.1 413");
    assert_eq!(status(&a, Method::GET, &fresh, &[]).await?, 404, "a refused write left something");
    assert_eq!(put(&[], vec![7; 16_000_000].into()).await?, 201);
    let json = a.call(Method::POST, "/dir/assign", &[("content-type", "application/json")], "{}").await?;
    assert_eq!(json.status.as_u16(), 415);
    let form = [("content-type", "application/x-www-form-urlencoded")];
    assert_eq!(a.call(Method::POST, "/dir/assign", &form, "count=2").await?.ok()?.status, 200);
    let long = a.call(Method::POST, "/dir/assign", &form, "x=".to_owned() + &"y".repeat(9000)).await?;
    assert_eq!(long.status.as_u16(), 413);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_there_is_is_told_as_clients_expect_it() -> Result<()> {
    let cluster = dev(1).await?;
    let a = rest(&cluster, "dc-a");
    let path = assign(&a, "").await?;
    put(&a, &path, &[], "here").await?;
    let volume = path[1..].split_once(',').context("a comma")?.0;
    let place = json!([{ "url": a.address(), "publicUrl": a.address() }]);
    for query in [format!("volumeId={volume}"), format!("fileId={}", &path[1..]), format!("volumeId={}", &path[1..])] {
        let found = a.json(&format!("/dir/lookup?{query}")).await?;
        assert_eq!(found, json!({ "volumeId": volume, "locations": place }), "{query}");
    }
    let directory = a.json("/dir/status").await?;
    let datacenter = &directory["Topology"]["DataCenters"][0];
    assert_eq!(
        (&datacenter["Id"], &datacenter["Racks"][0]["DataNodes"][0]["Url"]),
        (&json!("dc-a"), &json!(a.address()))
    );
    let volumes = a.json("/vol/status?pretty=y").await?;
    let listed =
        volumes["Volumes"]["DataCenters"]["dc-a"]["rack-1"][a.address()].as_array().context("volumes")?.clone();
    let number: u64 = volume.parse().context("a volume's number")?;
    let written = listed.iter().find(|found| found["Id"] == number).context("the volume")?;
    assert_eq!((&written["FileCount"], &written["ReadOnly"]), (&json!(1), &json!(false)), "{written}");
    assert!(a.json("/vol/grow?count=1").await?["count"].as_u64() >= Some(1));
    assert_eq!(a.json("/cluster/status").await?["Leader"], json!(a.address()));
    let pretty = a.get("/dir/lookup?pretty=y&volumeId=".to_owned().as_str()).await?.text();
    assert!(pretty.contains("\n  \"error\""), "{pretty}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_and_datacenter_finds_a_blob_and_a_delete_reaches_them() -> Result<()> {
    let options = ClusterOptions { datacenters: 2, nodes: 2, ..ClusterOptions::new(Shape::Dev) };
    let cluster = Cluster::start(options).await?;
    let nodes: Vec<Rest> = cluster.nodes().iter().map(|node| rest(&cluster, node)).collect();
    let (a1, a2, b1) = (&nodes[0], &nodes[1], &nodes[2]);
    let large: Bytes = vec![5; 3_000_000].into();
    for body in [Bytes::from_static(b"small"), large] {
        let path = assign(a1, "").await?;
        // A node that is not the volume's takes the write all the same.
        put(a2, &path, &[("content-type", "text/plain")], body.clone()).await?;
        for node in &nodes {
            // Not mirrored yet, the bytes are fetched from where they are.
            let read = node.get(&path).await?;
            assert_eq!((read.status.as_u16(), read.body == body), (200, true), "{}", node.address());
        }
        let elsewhere = b1.call(Method::PUT, &path, &[], "x").await?;
        assert_eq!(elsewhere.status, StatusCode::CONFLICT, "{}", elsewhere.text());
        // Deleted where it is a mirror: its owner does it, and the others follow.
        let deleted = b1.call(Method::DELETE, &path, &[], Bytes::new()).await?;
        assert_eq!(deleted.status, StatusCode::ACCEPTED, "{}", deleted.text());
        for node in [a1, a2] {
            assert_eq!(status(node, Method::GET, &path, &[]).await?, 404, "{}", node.address());
        }
        for node in &nodes[2..] {
            let gone = async || status(node, Method::GET, &path, &[]).await.is_ok_and(|status| status == 404);
            wait_until("the delete at the mirror", CROSSES, gone).await?;
        }
    }
    // The other node of a rack is asked by a redirect, which clients follow.
    let name = cluster.nodes()[1].clone();
    let path = format!("/dir/assign?dataNode={name}&count=2");
    wait_until("gossip of the other node", CROSSES, async || {
        a1.get(&path).await.is_ok_and(|answer| answer.status == StatusCode::TEMPORARY_REDIRECT)
    })
    .await?;
    let sent = a1.get(&path).await?;
    let location = sent.header("location").context("a location")?.to_owned();
    let there = location.strip_prefix(&format!("http://{}", a2.address())).context("the other node")?;
    assert_eq!(a2.json(there).await?["url"], json!(a2.address()));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_serve_a_blob_when_its_datacenter_is_gone() -> Result<()> {
    let mut cluster = Cluster::start(ClusterOptions { datacenters: 2, ..ClusterOptions::new(Shape::Nodes) }).await?;
    let keys = (cluster.keys().0.to_owned(), cluster.keys().1.to_owned());
    let signed = rest(&cluster, "dc-a").signed((&keys.0, &keys.1));
    let path = assign(&signed, "").await?;
    put(&signed, &path, &[], "survives").await?;
    cluster.wait_replicated("dc-b", &[])?;
    cluster.kill("dc-a")?;
    let b = rest(&cluster, "dc-b");
    wait_body(&b, &path, b"survives").await?;
    // Its owner can't be asked: the delete is not done, and says so.
    let refused = b.signed((&keys.0, &keys.1)).call(Method::DELETE, &path, &[], Bytes::new()).await?;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{}", refused.text());
    let lost = format!("/{}", "257,ffffff01020304");
    assert_eq!(status(&b, Method::GET, &lost, &[]).await?, 503, "nobody knows whether it exists");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn outside_of_dev_a_write_needs_a_token_or_a_signature() -> Result<()> {
    let mut cluster = Cluster::start(ClusterOptions { datacenters: 1, ..ClusterOptions::new(Shape::Nodes) }).await?;
    let a = rest(&cluster, "dc-a");
    for path in ["/dir/assign", "/vol/grow"] {
        assert_eq!(status(&a, Method::GET, path, &[]).await?, 403, "{path}");
    }
    let signed = a.signed(cluster.keys());
    let assigned = signed.json("/dir/assign?count=2").await?;
    let (fid, token) = (assigned["fid"].as_str().context("a fid")?, assigned["auth"].as_str().context("a token")?);
    let (first, second) = (format!("/{fid}"), format!("/{fid}_1"));
    assert_eq!(status(&a, Method::PUT, &first, &[]).await?, 403);
    let bearer = format!("BEARER {token}");
    for wrong in ["Bearer x".to_owned(), format!("{bearer}0"), "Basic x".to_owned()] {
        assert_eq!(status(&a, Method::PUT, &first, &[("authorization", &wrong)]).await?, 403, "{wrong}");
    }
    put(&a, &first, &[("authorization", &bearer)], "by token").await?;
    put(&a, &format!("{second}?jwt={token}"), &[], "by query").await?;
    let other = signed.json("/dir/assign").await?;
    let other = format!("/{}", other["fid"].as_str().context("a fid")?);
    assert_eq!(status(&a, Method::PUT, &other, &[("authorization", &bearer)]).await?, 403, "a token of other fids");
    put(&signed, &other, &[], "by signature").await?;
    // Reads need nothing but the fid; deletes need what writes need.
    assert_eq!(a.get(&other).await?.ok()?.text(), "by signature");
    assert_eq!(status(&a, Method::DELETE, &other, &[]).await?, 403);
    assert_eq!(status(&signed, Method::DELETE, &other, &[]).await?, 202);
    assert_eq!(status(&a, Method::DELETE, &second, &[("authorization", &bearer)]).await?, 202);
    // What was acknowledged survives a kill.
    cluster.kill("dc-a")?;
    cluster.spawn("dc-a")?;
    cluster.wait_ready().await?;
    assert_eq!(a.get(&first).await?.ok()?.text(), "by token");
    assert_eq!(status(&a, Method::GET, &second, &[]).await?, 404);
    Ok(())
}

/// A png of one colour: stored blocks, no compression.
fn png(width: u32, height: u32) -> Vec<u8> {
    let crc = |bytes: &[u8]| {
        let step = |crc: u32, byte: &u8| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 })
        };
        !bytes.iter().fold(u32::MAX, step)
    };
    let chunk = |kind: &[u8], data: &[u8]| {
        let named = [kind, data].concat();
        [&(data.len() as u32).to_be_bytes()[..], &named, &crc(&named).to_be_bytes()].concat()
    };
    let head = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 0, 0, 0, 0]].concat();
    let rows: Vec<u8> = (0..height).flat_map(|_| std::iter::once(0).chain((0..width).map(|x| x as u8))).collect();
    let (mut a, mut b) = (1u32, 0u32);
    for byte in &rows {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    let mut data = vec![0x78, 1];
    for (index, block) in rows.chunks(65_535).enumerate() {
        let last = u8::from((index + 1) * 65_535 >= rows.len());
        let length = block.len() as u16;
        data.extend([&[last][..], &length.to_le_bytes(), &(!length).to_le_bytes(), block].concat());
    }
    data.extend(((b << 16) | a).to_be_bytes());
    [&b"\x89PNG\r\n\x1a\n"[..], &chunk(b"IHDR", &head), &chunk(b"IDAT", &data), &chunk(b"IEND", &[])].concat()
}

/// Width and height in the head of a png.
fn png_sizes(bytes: &[u8]) -> Option<(u32, u32)> {
    let side = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    bytes.starts_with(b"\x89PNG").then_some((side(16)?, side(20)?))
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_are_scaled_and_what_is_none_is_refused() -> Result<()> {
    let cluster = dev(1).await?;
    let a = rest(&cluster, "dc-a");
    let path = assign(&a, "").await?;
    put(&a, &path, &[("content-type", "image/png")], png(400, 200)).await?;
    for (query, sizes) in [
        ("width=100", (100, 50)),
        ("height=20", (40, 20)),
        ("width=100&height=100", (100, 50)),
        ("width=100&height=100&mode=fill", (100, 100)),
        ("width=4000", (400, 200)),
    ] {
        let read = a.get(&format!("{path}?{query}")).await?.ok()?;
        assert_eq!((png_sizes(&read.body), read.header("content-type")), (Some(sizes), Some("image/png")), "{query}");
        let etag = read.header("etag").context("an ETag")?.to_owned();
        let again = [("if-none-match", etag.as_str())];
        assert_eq!(status(&a, Method::GET, &format!("{path}?{query}"), &again).await?, 304, "{query}");
        assert_eq!(status(&a, Method::GET, &path, &again).await?, 200, "the picture itself has another tag");
    }
    let text = assign(&a, "").await?;
    put(&a, &text, &[], "no picture").await?;
    let large = assign(&a, "").await?;
    put(&a, &large, &[], png(5000, 3000)).await?;
    let mut bomb = png(8, 8);
    bomb[16..24].copy_from_slice(&[0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff]);
    let forged = assign(&a, "").await?;
    put(&a, &forged, &[], bomb).await?;
    for (path, query, expected) in [
        (&text, "width=10", 415),
        (&path, "width=x", 400),
        (&path, "width=10&mode=cut", 400),
        (&large, "width=10", 200),
        (&forged, "width=10", 415),
    ] {
        assert_eq!(status(&a, Method::GET, &format!("{path}?{query}"), &[]).await?, expected, "{path} {query}");
    }
    Ok(())
}
