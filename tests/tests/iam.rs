//! The IAM query API through a real socket: users that an account makes, what they may, and that nobody reaches over the
//! fence to another account.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{Method, StatusCode};
use meridian_tests::{Answer, Cluster, ClusterOptions, S3, Shape};
use serde_json::Value;

const ALLOW_ALL_S3: &str =
    r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}"#;

/// The S3 client of an account that administration makes, in a datacenter.
fn account(cluster: &Cluster, datacenter: &str, name: &str) -> Result<S3> {
    let (key, secret) = (format!("{}KEY", name.to_uppercase()), format!("{name}secret"));
    let words = ["user", "create", name, "--access-key", &key, "--secret-key", &secret, "--id", &format!("{name}-id")];
    let output = cluster.cli(&words)?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    client(cluster, datacenter, &key, &secret)
}

fn client(cluster: &Cluster, datacenter: &str, access_key: &str, secret_key: &str) -> Result<S3> {
    let ready: Value = serde_json::from_slice(&std::fs::read(cluster.directory().join("ready.json"))?)?;
    let found = ready["datacenters"].as_array().and_then(|all| all.iter().find(|one| one["name"] == datacenter));
    let endpoint = found.and_then(|found| found["s3"].as_str()).context("an endpoint")?;
    Ok(S3::new(endpoint, datacenter, access_key, secret_key))
}

/// Makes a key for a user and gives its client.
async fn key_of(cluster: &Cluster, datacenter: &str, iam: &S3, user: &str) -> Result<S3> {
    let made = iam.action("CreateAccessKey", &[("UserName", user)]).await?.ok()?;
    client(cluster, datacenter, &made.elements("AccessKeyId")[0], &made.elements("SecretAccessKey")[0])
}

fn refusal(answer: &Answer) -> (u16, String) {
    (answer.status.as_u16(), answer.elements("Code").pop().unwrap_or_default())
}

async fn refused(iam: &S3, action: &str, fields: &[(&str, &str)]) -> Result<(u16, String)> {
    Ok(refusal(&iam.action(action, fields).await?))
}

fn said(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_makes_users_that_may_what_their_policies_say_in_every_datacenter() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions { datacenters: 2, ..ClusterOptions::new(Shape::Dev) }).await?;
    let ann = account(&cluster, "dc-a", "ann")?;
    let iam = ann.for_service("iam");
    ann.create_bucket("anns-bucket").await?;
    ann.put("anns-bucket", "key", "body").await?;

    let made = iam.action("CreateUser", &[("UserName", "Bob"), ("Path", "/team/")]).await?.ok()?;
    assert_eq!(made.elements("Arn"), ["arn:aws:iam::ann-id:user/team/Bob"]);
    assert_eq!((made.elements("UserName"), made.elements("Path")), (vec!["Bob".into()], vec!["/team/".into()]));
    assert_eq!(refused(&iam, "CreateUser", &[("UserName", "bob")]).await?, said(409, "EntityAlreadyExists"));
    assert_eq!(refused(&iam, "GetUser", &[("UserName", "nobody")]).await?, said(404, "NoSuchEntity"));
    let bob = key_of(&cluster, "dc-a", &iam, "bob").await?;
    let status = async |s3: &S3, method, path: &str| anyhow::Ok(s3.call(method, path, &[], Bytes::new()).await?.status);
    assert_eq!(status(&bob, Method::GET, "/anns-bucket/key").await?, StatusCode::FORBIDDEN, "no policy, no right");
    assert_eq!(status(&bob, Method::PUT, "/bobs-bucket").await?, StatusCode::FORBIDDEN);

    let policy = [("UserName", "Bob"), ("PolicyName", "all"), ("PolicyDocument", ALLOW_ALL_S3)];
    let malformed = [("UserName", "Bob"), ("PolicyName", "bad"), ("PolicyDocument", "{}")];
    assert_eq!(refused(&iam, "PutUserPolicy", &malformed).await?, said(400, "MalformedPolicyDocument"));
    iam.action("PutUserPolicy", &policy).await?.ok()?;
    assert_eq!(status(&bob, Method::GET, "/anns-bucket/key").await?, StatusCode::OK);
    bob.create_bucket("bobs-bucket").await?;
    let buckets = ann.call(Method::GET, "/", &[], Bytes::new()).await?.ok()?;
    assert_eq!(buckets.elements("Name"), ["anns-bucket", "bobs-bucket"], "what a user makes is its account's");

    // The other datacenter knows the user, its key and its policy.
    cluster.wait_replicated("dc-b", &[])?;
    let key = iam.action("ListAccessKeys", &[("UserName", "Bob")]).await?.ok()?.elements("AccessKeyId");
    assert_eq!(key.len(), 1);
    let second = iam.action("CreateAccessKey", &[("UserName", "Bob")]).await?.ok()?;
    cluster.wait_replicated("dc-b", &[])?;
    let (second_key, secret) = (second.elements("AccessKeyId").remove(0), second.elements("SecretAccessKey").remove(0));
    let bob_b = client(&cluster, "dc-b", &second_key, &secret)?;
    assert_eq!(status(&bob_b, Method::GET, "/anns-bucket/key").await?, StatusCode::OK);
    assert_eq!(refused(&iam, "CreateAccessKey", &[("UserName", "Bob")]).await?, said(409, "LimitExceeded"));

    // A key that is put out of use works no more, and a user with anything left can't go.
    let off = [("UserName", "Bob"), ("AccessKeyId", &*second_key), ("Status", "Inactive")];
    iam.action("UpdateAccessKey", &off).await?.ok()?;
    let bob_2 = client(&cluster, "dc-a", &second_key, &secret)?;
    assert_eq!(status(&bob_2, Method::GET, "/anns-bucket/key").await?, StatusCode::FORBIDDEN);
    assert_eq!(refused(&iam, "DeleteUser", &[("UserName", "Bob")]).await?, said(409, "DeleteConflict"));
    for key in [&key[0], &second_key] {
        iam.action("DeleteAccessKey", &[("UserName", "Bob"), ("AccessKeyId", key)]).await?.ok()?;
    }
    assert_eq!(refused(&iam, "DeleteUser", &[("UserName", "Bob")]).await?, said(409, "DeleteConflict"));
    iam.action("DeleteUserPolicy", &[("UserName", "Bob"), ("PolicyName", "all")]).await?.ok()?;
    iam.action("DeleteUser", &[("UserName", "BOB")]).await?.ok()?;
    assert_eq!(refused(&iam, "GetUser", &[("UserName", "Bob")]).await?, said(404, "NoSuchEntity"));
    assert_eq!(status(&bob, Method::GET, "/anns-bucket/key").await?, StatusCode::FORBIDDEN);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_and_managed_policies_give_rights_and_accounts_stay_apart() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions { datacenters: 1, ..ClusterOptions::new(Shape::Dev) }).await?;
    let (ann, eve) = (account(&cluster, "dc-a", "ann")?, account(&cluster, "dc-a", "eve")?);
    let (iam, eves) = (ann.for_service("iam"), eve.for_service("iam"));
    ann.create_bucket("anns-bucket").await?;
    iam.action("CreateUser", &[("UserName", "bob")]).await?.ok()?;
    let bob = key_of(&cluster, "dc-a", &iam, "bob").await?;
    let may =
        async |method, path: &str| anyhow::Ok(bob.call(method, path, &[], Bytes::new()).await?.status.is_success());

    // A group's policies are its members'.
    iam.action("CreateGroup", &[("GroupName", "ops")]).await?.ok()?;
    let read_only = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess";
    iam.action("AttachGroupPolicy", &[("GroupName", "ops"), ("PolicyArn", read_only)]).await?.ok()?;
    assert!(!may(Method::GET, "/anns-bucket").await?);
    iam.action("AddUserToGroup", &[("GroupName", "ops"), ("UserName", "bob")]).await?.ok()?;
    assert!(may(Method::GET, "/anns-bucket").await? && !may(Method::PUT, "/anns-bucket/k").await?);
    let group = iam.action("GetGroup", &[("GroupName", "ops")]).await?.ok()?;
    assert_eq!(group.elements("UserName"), ["bob"]);
    assert_eq!(refused(&iam, "DeleteGroup", &[("GroupName", "ops")]).await?, said(409, "DeleteConflict"));

    // A policy of the account, attached to the user; it can't go while it is.
    let made = iam.action("CreatePolicy", &[("PolicyName", "all"), ("PolicyDocument", ALLOW_ALL_S3)]).await?.ok()?;
    let arn = made.elements("Arn").remove(0);
    assert_eq!(arn, "arn:aws:iam::ann-id:policy/all");
    iam.action("AttachUserPolicy", &[("UserName", "bob"), ("PolicyArn", &arn)]).await?.ok()?;
    assert!(may(Method::PUT, "/anns-bucket/k").await?);
    assert_eq!(refused(&iam, "DeletePolicy", &[("PolicyArn", &arn)]).await?, said(409, "DeleteConflict"));
    iam.action("DetachUserPolicy", &[("UserName", "bob"), ("PolicyArn", &arn)]).await?.ok()?;
    assert!(!may(Method::PUT, "/anns-bucket/k").await?);
    iam.action("DeletePolicy", &[("PolicyArn", &arn)]).await?.ok()?;
    let absent = [("UserName", "bob"), ("PolicyArn", "arn:aws:iam::aws:policy/Nothing")];
    assert_eq!(refused(&iam, "AttachUserPolicy", &absent).await?, said(404, "NoSuchEntity"));

    // Another account finds nobody of this one; this one's user manages nobody until it may.
    assert_eq!(refused(&eves, "GetUser", &[("UserName", "bob")]).await?, said(404, "NoSuchEntity"));
    assert_eq!(refused(&eves, "DeleteUser", &[("UserName", "ann")]).await?, said(404, "NoSuchEntity"));
    eves.action("CreateUser", &[("UserName", "bob")]).await?.ok()?;
    let bobs = bob.for_service("iam");
    assert_eq!(refused(&bobs, "ListUsers", &[]).await?, said(403, "AccessDenied"));
    let full = [("UserName", "bob"), ("PolicyArn", "arn:aws:iam::aws:policy/IAMFullAccess")];
    iam.action("AttachUserPolicy", &full).await?.ok()?;
    assert_eq!(bobs.action("ListUsers", &[]).await?.ok()?.elements("UserName"), ["bob"]);
    assert_eq!(refused(&bobs, "GetUser", &[("UserName", "eve")]).await?, said(404, "NoSuchEntity"));

    // An administrator sees the accounts, and finds a user by its id.
    let admin = cluster.s3("dc-a").for_service("iam");
    assert_eq!(admin.action("ListUsers", &[]).await?.ok()?.elements("UserName"), ["ann", "eve"]);
    assert_eq!(admin.action("GetUser", &[("UserName", "eve-id")]).await?.ok()?.elements("UserName"), ["eve"]);
    let policy = [("UserName", "eve-id"), ("PolicyName", "all"), ("PolicyDocument", ALLOW_ALL_S3)];
    admin.action("PutUserPolicy", &policy).await?.ok()?;
    assert_eq!(eves.action("ListUserPolicies", &[("UserName", "eve")]).await?.ok()?.elements("member"), ["all"]);

    // Pages, and signatures that are none.
    for name in ["carl", "dora"] {
        iam.action("CreateUser", &[("UserName", name), ("Path", "/x/")]).await?.ok()?;
    }
    let first = iam.action("ListUsers", &[("MaxItems", "2")]).await?.ok()?;
    assert_eq!(
        (first.elements("UserName"), first.elements("IsTruncated")),
        (vec!["bob".into(), "carl".into()], vec!["true".into()])
    );
    let marker = first.elements("Marker").remove(0);
    let rest = iam.action("ListUsers", &[("MaxItems", "2"), ("Marker", &marker)]).await?.ok()?;
    assert_eq!((rest.elements("UserName"), rest.elements("IsTruncated")), (vec!["dora".into()], vec!["false".into()]));
    assert_eq!(iam.action("ListUsers", &[("PathPrefix", "/x/")]).await?.ok()?.elements("UserName").len(), 2);
    let wrong = client(&cluster, "dc-a", "ANNKEY", "not-the-secret")?.for_service("iam");
    assert_eq!(refused(&wrong, "ListUsers", &[]).await?, said(403, "SignatureDoesNotMatch"));
    let unknown = client(&cluster, "dc-a", "NOKEY", "x")?.for_service("iam");
    assert_eq!(refused(&unknown, "ListUsers", &[]).await?, said(403, "InvalidClientTokenId"));
    assert_eq!(refused(&ann, "ListUsers", &[]).await?, said(403, "SignatureDoesNotMatch"), "signed for s3");
    assert_eq!(refused(&iam, "Fly", &[]).await?, said(400, "InvalidAction"));
    assert_eq!(refused(&iam, "AssumeRoleWithWebIdentity", &[]).await?, said(501, "NotImplemented"));
    let caller = bob.for_service("sts").action("GetCallerIdentity", &[]).await?.ok()?;
    assert_eq!(caller.elements("Arn"), ["arn:aws:iam::ann-id:user/bob"]);
    Ok(())
}

/// The client of a session: its token goes into every request.
struct SessionClient {
    s3: S3,
    token: String,
}

impl SessionClient {
    fn of(cluster: &Cluster, datacenter: &str, answer: &Answer) -> Result<Self> {
        let field = |name: &str| answer.elements(name).pop().context("temporary credentials are whole");
        let s3 = client(cluster, datacenter, &field("AccessKeyId")?, &field("SecretAccessKey")?)?;
        Ok(Self { s3, token: field("SessionToken")? })
    }

    async fn call(&self, method: Method, path: &str) -> Result<(u16, String)> {
        let token = [("x-amz-security-token", self.token.as_str())];
        Ok(refusal(&self.s3.call(method, path, &token, Bytes::new()).await?))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_is_taken_on_by_whom_it_trusts_and_its_session_works_everywhere_within_its_limits() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions { datacenters: 2, ..ClusterOptions::new(Shape::Dev) }).await?;
    let (ann, eve) = (account(&cluster, "dc-a", "ann")?, account(&cluster, "dc-a", "eve")?);
    let iam = ann.for_service("iam");
    ann.create_bucket("anns-bucket").await?;
    ann.put("anns-bucket", "key", "body").await?;
    iam.action("CreateUser", &[("UserName", "bob")]).await?.ok()?;
    let bob = key_of(&cluster, "dc-a", &iam, "bob").await?;

    let trust = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sts:AssumeRole",
        "Principal":{"AWS":"arn:aws:iam::ann-id:user/bob"}}]}"#;
    let role = [("RoleName", "reader"), ("AssumeRolePolicyDocument", trust)];
    let bad = [("RoleName", "reader"), ("AssumeRolePolicyDocument", ALLOW_ALL_S3)];
    assert_eq!(refused(&iam, "CreateRole", &bad).await?, said(400, "MalformedPolicyDocument"));
    let arn = iam.action("CreateRole", &role).await?.ok()?.elements("Arn").remove(0);
    let read = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:GetObject","s3:ListBucket"],
        "Resource":["arn:aws:s3:::anns-bucket","arn:aws:s3:::anns-bucket/*"]}]}"#;
    let policy = [("RoleName", "reader"), ("PolicyName", "read"), ("PolicyDocument", read)];
    iam.action("PutRolePolicy", &policy).await?.ok()?;

    let assume = [("RoleArn", &*arn), ("RoleSessionName", "job")];
    assert_eq!(refused(&eve.for_service("sts"), "AssumeRole", &assume).await?, said(403, "AccessDenied"));
    let short = [assume[0], assume[1], ("DurationSeconds", "60")];
    assert_eq!(refused(&bob.for_service("sts"), "AssumeRole", &short).await?, said(400, "ValidationError"));
    let made = bob.for_service("sts").action("AssumeRole", &assume).await?.ok()?;
    assert!(made.text().contains("arn:aws:sts::ann-id:assumed-role/reader/job"), "{}", made.text());
    cluster.wait_replicated("dc-b", &[])?;
    for datacenter in ["dc-a", "dc-b"] {
        let session = SessionClient::of(&cluster, datacenter, &made)?;
        assert_eq!(session.call(Method::GET, "/anns-bucket/key").await?.0, 200, "{datacenter}");
        assert_eq!(session.call(Method::PUT, "/anns-bucket/key").await?, said(403, "AccessDenied"));
    }

    // Without its token, with another's, or with a changed one, it is nobody.
    let session = SessionClient::of(&cluster, "dc-a", &made)?;
    let bare = session.s3.call(Method::GET, "/anns-bucket/key", &[], Bytes::new()).await?;
    assert_eq!(refusal(&bare), said(403, "InvalidAccessKeyId"));
    let other =
        SessionClient::of(&cluster, "dc-a", &bob.for_service("sts").action("AssumeRole", &assume).await?.ok()?)?;
    let crossed = SessionClient { s3: session.s3.clone(), token: other.token.clone() };
    assert_eq!(crossed.call(Method::GET, "/anns-bucket/key").await?, said(400, "InvalidToken"));
    let long_lived = SessionClient { s3: ann.clone(), token: other.token };
    assert_eq!(long_lived.call(Method::GET, "/anns-bucket/key").await?, said(400, "InvalidToken"));

    // A session policy narrows; it can't widen.
    let list = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:ListBucket","s3:PutObject"],
        "Resource":"*"}]}"#;
    let narrowed = [assume[0], assume[1], ("Policy", list)];
    let narrowed = bob.for_service("sts").action("AssumeRole", &narrowed).await?.ok()?;
    let narrowed = SessionClient::of(&cluster, "dc-a", &narrowed)?;
    assert_eq!(narrowed.call(Method::GET, "/anns-bucket").await?.0, 200);
    assert_eq!(narrowed.call(Method::GET, "/anns-bucket/key").await?, said(403, "AccessDenied"));
    assert_eq!(narrowed.call(Method::PUT, "/anns-bucket/new").await?, said(403, "AccessDenied"));

    // An own session has the user's rights: none here.
    let own = bob.for_service("sts").action("GetSessionToken", &[]).await?.ok()?;
    let own = SessionClient::of(&cluster, "dc-a", &own)?;
    assert_eq!(own.call(Method::GET, "/anns-bucket/key").await?, said(403, "AccessDenied"));

    // A role that is gone takes its sessions with it.
    iam.action("DeleteRolePolicy", &[("RoleName", "reader"), ("PolicyName", "read")]).await?.ok()?;
    assert_eq!(session.call(Method::GET, "/anns-bucket/key").await?, said(403, "AccessDenied"));
    iam.action("DeleteRole", &[("RoleName", "reader")]).await?.ok()?;
    assert_eq!(session.call(Method::GET, "/anns-bucket/key").await?, said(403, "InvalidAccessKeyId"));
    Ok(())
}
