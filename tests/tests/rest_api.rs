//! The OpenAPI document against a server: what is documented is there, and answers as it is documented; other methods are not.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::Method;
use meridian_tests::{Cluster, ClusterOptions, Rest, Shape};
use serde_json::Value;

const METHODS: [Method; 6] = [Method::GET, Method::HEAD, Method::PUT, Method::POST, Method::DELETE, Method::PATCH];

/// A path with something in the place of each parameter: nobody and nothing that is there.
fn example(path: &str) -> String {
    if path.starts_with("/{") {
        return path
            .replace("{fid}", if path == "/{fid}" { "257,0a0b0c0d0e" } else { "0a0b0c0d0e" })
            .replace("{volume}", "257")
            .replace("{name}", "x.jpg");
    }
    let mut example = path.replace("{path}", "docs/nothing");
    for name in ["user", "key", "policy", "group", "bucket"] {
        example = example.replace(&format!("{{{name}}}"), "nobody");
    }
    example
}

fn documented(path: &Value, method: &Method) -> Option<Vec<u16>> {
    let operation = path.get(method.as_str().to_lowercase())?;
    Some(operation["responses"].as_object()?.keys().filter_map(|status| status.parse().ok()).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_is_what_the_server_does() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions { datacenters: 1, ..ClusterOptions::new(Shape::Nodes) }).await?;
    let plain = Rest::new(&cluster.rest("dc-a"));
    let signed = plain.signed(cluster.keys());
    let document = plain.json("/openapi.json").await?;
    ensure!(document["openapi"].as_str().context("a version")?.starts_with("3."));
    let mut asked = 0;
    for (path, operations) in document["paths"].as_object().context("paths")? {
        let example = example(path);
        for method in &METHODS {
            // A HEAD is there wherever a GET is, documented or not.
            let expected = documented(operations, method);
            if expected.is_none() && *method == Method::HEAD && operations.get("get").is_some() {
                continue;
            }
            let what = format!("{method} {example}");
            for (who, rest) in [("anybody", &plain), ("the administrator", &signed)] {
                let answer = rest.call(method.clone(), &example, &[], Bytes::new()).await?;
                let status = answer.status.as_u16();
                match &expected {
                    // Nobody is told of an admin path's methods either.
                    None if status == 403 && who == "anybody" && path.starts_with("/admin/") => {}
                    None => ensure!(status == 405, "{what} by {who} is not documented and answers {status}"),
                    Some(expected) => {
                        ensure!(expected.contains(&status), "{what} by {who} answers {status}: {}", answer.text());
                        ensure!(
                            path == "/openapi.json" || !answer.text().contains("there is no such path"),
                            "{what} by {who} is not there"
                        );
                    }
                }
                let needs_admin =
                    operations[method.as_str().to_lowercase()]["security"] == serde_json::json!([{ "sigv4": [] }]);
                ensure!(!needs_admin || who != "anybody" || status == 403, "{what} is open to anybody: {status}");
                asked += 1;
            }
        }
    }
    ensure!(asked > 300, "only {asked} requests were made");
    for path in
        ["/admin", "/admin/v1", "/admin/v2/status", "/admin/v1/nothing", "/dir", "/dir/", "/buckets2/a", "/api/v1/x/y"]
    {
        for method in [Method::GET, Method::POST] {
            let answer = signed.call(method.clone(), path, &[], Bytes::new()).await?;
            ensure!(answer.status.as_u16() == 404, "{method} {path} answers {}", answer.status);
        }
    }
    Ok(())
}
