//! Who may do what over real sockets: lists, policies, blocks, and a bucket's configuration.

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use md5::{Digest, Md5};
use meridian_tests::{Answer, Cluster, ClusterOptions, S3, Shape};
use serde_json::{Value, json};

struct World {
    cluster: Cluster,
    endpoint: String,
    ann: S3,
    bob: S3,
}

impl World {
    async fn start() -> Result<Self> {
        let cluster = Cluster::start(ClusterOptions { datacenters: 1, ..ClusterOptions::new(Shape::Dev) }).await?;
        let ready: Value = serde_json::from_slice(&std::fs::read(cluster.directory().join("ready.json"))?)?;
        let endpoint = ready["datacenters"][0]["s3"].as_str().expect("an endpoint").to_owned();
        let user = |name: &str| -> Result<S3> {
            let words =
                ["user", "create", name, "--access-key", name, "--secret-key", "secret", "--id", name, "--json"];
            let email = format!("{name}@example.com");
            let output = cluster.cli(&[&words[..], &["--email", &email]].concat())?;
            anyhow::ensure!(output.status.success(), "{output:?}");
            Ok(S3::new(&endpoint, "dc-a", name, "secret"))
        };
        let (ann, bob) = (user("ann")?, user("bob")?);
        Ok(Self { endpoint: endpoint.clone(), ann, bob, cluster })
    }

    /// Without a signature.
    async fn nobody(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Result<Answer> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.endpoint));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let (head, body) = client.request(request.body(Full::default())?).await?.into_parts();
        Ok(Answer { status: head.status, headers: head.headers, body: body.collect().await?.to_bytes() })
    }
}

async fn get(s3: &S3, path: &str) -> Result<Answer> {
    s3.call(Method::GET, path, &[], Bytes::new()).await
}

async fn put(s3: &S3, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Result<Answer> {
    s3.call(Method::PUT, path, headers, body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_policies_and_blocks_decide_and_configuration_is_told_back() -> Result<()> {
    let world = World::start().await?;
    let (ann, bob) = (&world.ann, &world.bob);
    ann.create_bucket("photos").await?;
    ann.put("photos", "private", "x").await?;
    put(ann, "/photos/open", &[("x-amz-acl", "public-read")], "y").await?.ok()?;

    // Lists.
    assert_eq!(get(bob, "/photos/private").await?.status, StatusCode::FORBIDDEN);
    assert_eq!(get(bob, "/photos/absent").await?.status, StatusCode::FORBIDDEN, "absence is not told");
    assert_eq!(get(ann, "/photos/absent").await?.status, StatusCode::NOT_FOUND);
    assert_eq!(world.nobody(Method::GET, "/photos/open", &[]).await?.body, "y");
    assert_eq!(world.nobody(Method::GET, "/photos/private", &[]).await?.status, StatusCode::FORBIDDEN);
    assert_eq!(world.nobody(Method::GET, "/nowhere/k", &[]).await?.elements("Code"), ["NoSuchBucket"]);
    assert_eq!(get(bob, "/photos").await?.status, StatusCode::FORBIDDEN);
    put(ann, "/photos?acl", &[("x-amz-acl", "public-read-write")], "").await?.ok()?;
    get(bob, "/photos").await?.ok()?;
    bob.put("photos", "of-bob", "z").await?;
    let acl = get(bob, "/photos/of-bob?acl").await?.ok()?;
    assert_eq!((acl.elements("ID"), acl.elements("Permission")), (vec!["bob".into(); 2], vec!["FULL_CONTROL".into()]));
    assert_eq!(get(ann, "/photos/of-bob").await?.status, StatusCode::FORBIDDEN, "its writer owns it");
    put(bob, "/photos/of-bob?acl", &[("x-amz-grant-read", "emailAddress=\"ann@example.com\"")], "").await?.ok()?;
    get(ann, "/photos/of-bob").await?.ok()?;
    let unknown = put(ann, "/photos?acl", &[("x-amz-grant-read", "id=nobody")], "").await?;
    assert_eq!((unknown.status, unknown.elements("Code")), (StatusCode::BAD_REQUEST, vec!["InvalidArgument".into()]));

    // A block shuts public lists off; a policy opens one prefix; a deny wins.
    let block =
        "<PublicAccessBlockConfiguration><IgnorePublicAcls>true</IgnorePublicAcls></PublicAccessBlockConfiguration>";
    put(ann, "/photos?publicAccessBlock", &[], block).await?.ok()?;
    assert_eq!(world.nobody(Method::GET, "/photos/open", &[]).await?.status, StatusCode::FORBIDDEN);
    let statement = |effect: &str, action: &str, resource: &str, condition: Value| json!({ "Effect": effect, "Principal": "*", "Action": action, "Resource": resource, "Condition": condition });
    let policy = json!({ "Version": "2012-10-17", "Statement": [
        statement("Allow", "s3:GetObject", "arn:aws:s3:::photos/*", json!({})),
        statement("Allow", "s3:ListBucket", "arn:aws:s3:::photos", json!({ "StringLike": { "s3:prefix": "pub*" } })),
        statement("Deny", "s3:GetObject", "arn:aws:s3:::photos/priv*", json!({})),
    ] })
    .to_string();
    assert_eq!(get(ann, "/photos?policy").await?.elements("Code"), ["NoSuchBucketPolicy"]);
    assert_eq!(put(ann, "/photos?policy", &[], "{}").await?.elements("Code"), ["MalformedPolicy"]);
    assert_eq!(put(bob, "/photos?policy", &[], policy.clone()).await?.status, StatusCode::FORBIDDEN);
    put(ann, "/photos?policy", &[], policy.clone()).await?.ok()?;
    assert_eq!(get(ann, "/photos?policy").await?.text(), policy);
    assert_eq!(get(ann, "/photos?policyStatus").await?.elements("IsPublic"), ["true"]);
    assert_eq!(world.nobody(Method::GET, "/photos/open", &[]).await?.body, "y");
    assert_eq!(get(ann, "/photos/private").await?.status, StatusCode::FORBIDDEN, "a deny binds the owner");
    get(bob, "/photos?prefix=pub").await?.ok()?;
    assert_eq!(get(bob, "/photos?prefix=x").await?.status, StatusCode::FORBIDDEN);
    ann.call(Method::DELETE, "/photos?policy", &[], Bytes::new()).await?.ok()?;
    get(ann, "/photos/private").await?.ok()?;

    // Cross-origin requests.
    let cors = "<CORSConfiguration><CORSRule><AllowedMethod>GET</AllowedMethod><AllowedOrigin>*.example.com</AllowedOrigin>\
                </CORSRule></CORSConfiguration>";
    put(ann, "/photos?cors", &[], cors).await?.ok()?;
    let asks = |origin| [("origin", origin), ("access-control-request-method", "GET")];
    let granted = world.nobody(Method::OPTIONS, "/photos/open", &asks("a.example.com")).await?;
    assert_eq!(
        (granted.status, granted.header("access-control-allow-origin")),
        (StatusCode::OK, Some("a.example.com"))
    );
    assert_eq!(world.nobody(Method::OPTIONS, "/photos/open", &asks("evil.org")).await?.status, StatusCode::FORBIDDEN);
    assert_eq!(world.nobody(Method::OPTIONS, "/photos/open", &[]).await?.status, StatusCode::BAD_REQUEST);
    let actual = ann.call(Method::GET, "/photos/open", &[("origin", "a.example.com")], Bytes::new()).await?;
    assert_eq!(actual.header("access-control-allow-methods"), Some("GET"));

    // Configuration comes back as it was, until it is removed.
    let tagging = "<Tagging><TagSet><Tag><Key>team</Key><Value>red</Value></Tag></TagSet></Tagging>";
    put(ann, "/photos?tagging", &[], tagging).await?.ok()?;
    assert_eq!(get(ann, "/photos?tagging").await?.elements("Value"), ["red"]);
    ann.call(Method::DELETE, "/photos?tagging", &[], Bytes::new()).await?.ok()?;
    assert_eq!(get(ann, "/photos?tagging").await?.elements("Code"), ["NoSuchTagSet"]);
    let lifecycle = "<LifecycleConfiguration><Rule><ID>one</ID><Prefix>a/</Prefix><Status>Enabled</Status>\
                     <Expiration><Days>3</Days></Expiration></Rule></LifecycleConfiguration>";
    put(ann, "/photos?lifecycle", &[], lifecycle).await?.ok()?;
    assert_eq!(get(ann, "/photos?lifecycle").await?.elements("Days"), ["3"]);
    let refused = put(ann, "/photos?lifecycle", &[], lifecycle.replace("Enabled", "enabled")).await?;
    assert_eq!(refused.elements("Code"), ["MalformedXML"]);

    // Enforced ownership turns lists off.
    put(ann, "/photos?acl", &[("x-amz-acl", "private")], "").await?.ok()?;
    let enforced =
        "<OwnershipControls><Rule><ObjectOwnership>BucketOwnerEnforced</ObjectOwnership></Rule></OwnershipControls>";
    put(ann, "/photos?ownershipControls", &[], enforced).await?.ok()?;
    get(ann, "/photos/of-bob").await?.ok()?;
    let off = put(ann, "/photos?acl", &[("x-amz-acl", "public-read")], "").await?;
    assert_eq!(off.elements("Code"), ["AccessControlListNotSupported"]);

    // Of many deletes each is decided on by itself.
    let deny = json!({ "Statement": statement("Deny", "s3:DeleteObject", "arn:aws:s3:::photos/open", json!({})) });
    put(ann, "/photos?policy", &[], deny.to_string()).await?.ok()?;
    let names = "<Delete><Object><Key>open</Key></Object><Object><Key>private</Key></Object></Delete>";
    let digest = BASE64.encode(Md5::digest(names));
    let deleted = ann.call(Method::POST, "/photos?delete", &[("content-md5", &digest)], names).await?.ok()?;
    assert_eq!(
        (deleted.elements("Key"), deleted.elements("Code")),
        (vec!["private".into(), "open".into()], vec!["AccessDenied".into()])
    );
    drop(world.cluster);
    Ok(())
}
