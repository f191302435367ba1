//! The table of cases.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Need, Question, Target, decide, decide_assume, decide_own};
use crate::access_block::{Ownership, PublicAccessBlock};
use crate::acl::{Acl, CannedAcl, Permission};
use crate::caller::{Caller, Context, UserCaller};
use crate::document::{DocumentKind, Policy};

fn account(id: &str) -> UserCaller {
    UserCaller { id: id.into(), name: id.into(), account: id.into(), ..UserCaller::default() }
}

fn identity_policy(effect: &str, action: &str, resource: &str) -> Arc<Policy> {
    let document = json!({ "Version": "2012-10-17", "Statement": {
        "Effect": effect, "Action": action, "Resource": resource,
    } });
    Arc::new(Policy::parse(&document.to_string(), DocumentKind::Identity).unwrap())
}

fn bucket_policy(effect: &str, principal: Value, action: &str) -> Policy {
    let document = json!({ "Version": "2012-10-17", "Statement": {
        "Effect": effect, "Principal": principal, "Action": action,
        "Resource": ["arn:aws:s3:::b", "arn:aws:s3:::b/*"],
    } });
    Policy::parse(&document.to_string(), DocumentKind::Bucket("b")).unwrap()
}

/// A bucket of `own`, with an object of `writer` in it.
struct Case {
    policy: Option<Policy>,
    acl: CannedAcl,
    object_acl: CannedAcl,
    block: PublicAccessBlock,
    ownership: Ownership,
}

impl Default for Case {
    fn default() -> Self {
        let (block, ownership) = Default::default();
        Self { policy: None, acl: CannedAcl::Private, object_acl: CannedAcl::Private, block, ownership }
    }
}

impl Case {
    fn ask(&self, caller: Caller<'_>, action: &str, need: Need) -> bool {
        let (acl, object_acl) = (Acl::canned(self.acl, "own", "own"), Acl::canned(self.object_acl, "writer", "own"));
        let target = Target {
            bucket_owner: "own",
            policy: self.policy.as_ref(),
            acl: &acl,
            object: Some(("writer", &object_acl)),
            block: self.block,
            ownership: self.ownership,
        };
        let resource =
            if matches!(need, Need::Bucket(_) | Need::Owner) { "arn:aws:s3:::b" } else { "arn:aws:s3:::b/k" };
        decide(caller, Question { action, resource, context: &Context::new(), need }, target)
    }

    /// Whether own, writer, other and nobody may.
    fn table(&self, action: &str, need: Need) -> [bool; 4] {
        let [own, writer, other] = ["own", "writer", "other"].map(account);
        [Caller::User(&own), Caller::User(&writer), Caller::User(&other), Caller::Anonymous]
            .map(|caller| self.ask(caller, action, need))
    }
}

const GET: (&str, Need) = ("s3:GetObject", Need::Object(Permission::Read));
const LIST: (&str, Need) = ("s3:ListBucket", Need::Bucket(Permission::Read));
const PUT: (&str, Need) = ("s3:PutObject", Need::Bucket(Permission::Write));

#[test]
fn without_a_policy_lists_decide_on_data_and_owners_on_the_rest() {
    let plain = Case::default();
    for ((action, need), expected) in [
        (GET, [false, true, false, false]),
        (LIST, [true, false, false, false]),
        (PUT, [true, false, false, false]),
        (("s3:GetBucketAcl", Need::Bucket(Permission::ReadAcp)), [true, false, false, false]),
        (("s3:PutObjectAcl", Need::Object(Permission::WriteAcp)), [false, true, false, false]),
        (("s3:PutBucketCORS", Need::Owner), [true, false, false, false]),
        (("s3:GetObjectTagging", Need::ObjectOwner), [true, true, false, false]),
    ] {
        assert_eq!(plain.table(action, need), expected, "{action}");
    }
    let public = Case { acl: CannedAcl::PublicReadWrite, object_acl: CannedAcl::PublicRead, ..Case::default() };
    for (action, need) in [GET, LIST, PUT] {
        assert_eq!(public.table(action, need), [true; 4], "{action}");
    }
    assert_eq!(public.table("s3:GetBucketAcl", Need::Bucket(Permission::ReadAcp)), [true, false, false, false]);
    assert_eq!(public.table("s3:GetObjectTagging", Need::ObjectOwner), [true, true, false, false]);
    let authenticated = Case { acl: CannedAcl::AuthenticatedRead, ..Case::default() };
    assert_eq!(authenticated.table(LIST.0, LIST.1), [true, true, true, false]);
}

#[test]
fn an_owner_without_grants_keeps_the_list_itself() {
    let (own, none) = (account("own"), Acl::default());
    let may = |action, permission| {
        let target = Target {
            bucket_owner: "own",
            policy: None,
            acl: &none,
            object: None,
            block: PublicAccessBlock::default(),
            ownership: Ownership::ObjectWriter,
        };
        let need = Need::Bucket(permission);
        let question = Question { action, resource: "arn:aws:s3:::b", context: &Context::new(), need };
        decide(Caller::User(&own), question, target)
    };
    assert!(!may("s3:PutObject", Permission::Write) && !may("s3:ListBucket", Permission::Read));
    assert!(may("s3:GetBucketAcl", Permission::ReadAcp) && may("s3:PutBucketAcl", Permission::WriteAcp));
}

#[test]
fn a_bucket_policy_allows_and_an_explicit_deny_wins() {
    let allow = Case { policy: Some(bucket_policy("Allow", json!("*"), "s3:GetObject")), ..Case::default() };
    assert_eq!(allow.table(GET.0, GET.1), [true; 4]);
    assert_eq!(allow.table(PUT.0, PUT.1), [true, false, false, false]);
    let named = bucket_policy("Allow", json!({ "AWS": "arn:aws:iam:::user/other" }), "s3:*");
    let named = Case { policy: Some(named), ..Case::default() };
    assert_eq!(named.table(PUT.0, PUT.1), [true, false, true, false]);
    let deny = Case {
        policy: Some(bucket_policy("Deny", json!("*"), "s3:*")),
        acl: CannedAcl::PublicReadWrite,
        object_acl: CannedAcl::PublicRead,
        ..Case::default()
    };
    for (action, need) in [GET, LIST, PUT] {
        assert_eq!(deny.table(action, need), [false; 4], "{action}");
    }
    assert_eq!(deny.table("s3:DeleteBucketPolicy", Need::Owner), [true, false, false, false], "never locked out");
    let admin = UserCaller { admin: true, ..account("root") };
    assert!(deny.ask(Caller::User(&admin), GET.0, GET.1));
}

#[test]
fn public_access_blocks_shut_lists_and_policies() {
    let block = PublicAccessBlock { ignore_public_acls: true, ..PublicAccessBlock::default() };
    let public = Case { acl: CannedAcl::PublicRead, block, ..Case::default() };
    assert_eq!(public.table(LIST.0, LIST.1), [true, false, false, false]);
    let block = PublicAccessBlock { restrict_public_buckets: true, ..PublicAccessBlock::default() };
    let policy = Some(bucket_policy("Allow", json!("*"), "s3:GetObject"));
    let restricted = Case { policy, block, ..Case::default() };
    assert_eq!(restricted.table(GET.0, GET.1), [true, true, false, false], "the writer has its list");
    let policy = Some(bucket_policy("Allow", json!({ "AWS": "other" }), "s3:GetObject"));
    assert_eq!(Case { policy, block, ..Case::default() }.table(GET.0, GET.1), [false, true, true, false]);
}

#[test]
fn enforced_ownership_turns_lists_off() {
    let enforced = Case {
        ownership: Ownership::BucketOwnerEnforced,
        acl: CannedAcl::PublicReadWrite,
        object_acl: CannedAcl::PublicRead,
        ..Case::default()
    };
    for (action, need) in [GET, LIST, PUT] {
        assert_eq!(enforced.table(action, need), [true, false, false, false], "{action}");
    }
}

#[test]
fn users_of_an_account_need_policies_and_accounts_do_not() {
    let worker = |policies: Vec<Arc<Policy>>| UserCaller {
        id: "w".into(),
        name: "worker".into(),
        account: "own".into(),
        policies,
        ..UserCaller::default()
    };
    let case = Case::default();
    let put = |user: &UserCaller, case: &Case| case.ask(Caller::User(user), PUT.0, PUT.1);
    assert!(!put(&worker(vec![]), &case));
    let allow = identity_policy("Allow", "s3:PutObject", "*");
    assert!(put(&worker(vec![allow.clone()]), &case));
    let elsewhere = identity_policy("Allow", "s3:PutObject", "arn:aws:s3:::other/*");
    assert!(!put(&worker(vec![elsewhere]), &case));
    let deny = identity_policy("Deny", "s3:Put*", "*");
    assert!(!put(&worker(vec![allow.clone(), deny.clone()]), &case));
    assert!(!put(&UserCaller { policies: vec![deny], ..account("own") }, &case), "a deny binds an account too");
    // The bucket policy alone is enough inside the account, and not across accounts.
    let policy = Some(bucket_policy("Allow", json!("*"), "s3:PutObject"));
    let open = Case { policy, ..Case::default() };
    assert!(put(&worker(vec![]), &open));
    assert!(!put(&UserCaller { account: "other".into(), ..worker(vec![]) }, &open));
    assert!(put(&UserCaller { account: "other".into(), ..worker(vec![allow]) }, &open));
}

#[test]
fn a_session_may_do_no_more_than_its_policy() {
    let session = |action| UserCaller { session: Some(identity_policy("Allow", action, "*")), ..account("own") };
    let case = Case::default();
    assert!(case.ask(Caller::User(&session("s3:PutObject")), PUT.0, PUT.1));
    assert!(!case.ask(Caller::User(&session("s3:PutObject")), LIST.0, LIST.1));
    let foreign = UserCaller { id: "x".into(), account: "x".into(), ..session("s3:*") };
    assert!(!case.ask(Caller::User(&foreign), PUT.0, PUT.1), "a session policy gives nothing");
}

fn worker(name: &str, policies: Vec<Arc<Policy>>) -> UserCaller {
    let id = format!("id-{name}");
    UserCaller { id, name: name.into(), account: "own".into(), policies, ..UserCaller::default() }
}

/// A session in which a role of `own` is taken on.
fn role(policies: Vec<Arc<Policy>>) -> UserCaller {
    UserCaller { id: "AROA1:job".into(), role_session: Some("job".into()), ..worker("reader", policies) }
}

#[test]
fn a_bucket_policy_for_the_account_leaves_it_to_the_account_which_users_may() {
    let with = |principal: Value| Case {
        policy: Some(bucket_policy("Allow", json!({ "AWS": principal }), "s3:PutObject")),
        ..Case::default()
    };
    let allow = identity_policy("Allow", "s3:PutObject", "*");
    let put = |user: &UserCaller, case: &Case| case.ask(Caller::User(user), PUT.0, PUT.1);
    for (principal, alone, allowed) in [
        (json!("own"), false, true),
        (json!("arn:aws:iam::own:root"), false, true),
        (json!("arn:aws:iam::own:user/worker"), true, true),
        (json!(["arn:aws:iam::own:root", "arn:aws:iam::own:user/x/worker"]), true, true),
        (json!("*"), true, true),
    ] {
        let case = with(principal.clone());
        assert_eq!(put(&worker("worker", vec![]), &case), alone, "{principal}");
        assert_eq!(put(&worker("worker", vec![allow.clone()]), &case), allowed, "{principal}");
    }
}

#[test]
fn a_role_is_named_as_a_role_and_by_its_session_and_not_as_a_user() {
    for (principal, expected) in [
        ("arn:aws:iam::own:role/reader", true),
        ("arn:aws:iam::own:role/path/reader", true),
        ("arn:aws:sts::own:assumed-role/reader/job", true),
        ("arn:aws:sts::own:assumed-role/reader/other", false),
        ("arn:aws:sts::other:assumed-role/reader/job", false),
        ("arn:aws:iam::own:user/reader", false),
        ("arn:aws:iam::own:role/writer", false),
        ("arn:aws:iam::other:role/reader", false),
    ] {
        let policy = Some(bucket_policy("Allow", json!({ "AWS": principal }), "s3:PutObject"));
        let case = Case { policy, ..Case::default() };
        assert_eq!(case.ask(Caller::User(&role(vec![])), PUT.0, PUT.1), expected, "{principal}");
    }
    let user = worker("reader", vec![]);
    let case = Case {
        policy: Some(bucket_policy("Allow", json!({ "AWS": "arn:aws:iam::own:role/reader" }), "s3:PutObject")),
        ..Case::default()
    };
    assert!(!case.ask(Caller::User(&user), PUT.0, PUT.1), "a user of the role's name is not the role");
}

#[test]
fn a_role_is_taken_on_by_whom_it_trusts() {
    const ARN: &str = "arn:aws:iam::own:role/reader";
    let trust = |effect: &str, principal: Value, condition: Value| {
        let statement = json!({
            "Effect": effect, "Principal": principal, "Action": "sts:AssumeRole", "Condition": condition,
        });
        let document = json!({ "Version": "2012-10-17", "Statement": statement });
        Policy::parse(&document.to_string(), DocumentKind::Trust).unwrap()
    };
    let allow = identity_policy("Allow", "sts:AssumeRole", ARN);
    let deny = identity_policy("Deny", "sts:*", "*");
    let foreign = |policies| UserCaller { account: "other".into(), ..worker("ann", policies) };
    let to = |principal: &str| trust("Allow", json!({ "AWS": principal }), json!({}));
    let none = || json!({});
    for (case, trust, caller, expected) in [
        ("named user", to("arn:aws:iam::own:user/ann"), worker("ann", vec![]), true),
        ("named user, denied by itself", to("arn:aws:iam::own:user/ann"), worker("ann", vec![deny]), false),
        ("another user", to("arn:aws:iam::own:user/bob"), worker("ann", vec![]), false),
        ("its account, without a right", to("arn:aws:iam::own:root"), worker("ann", vec![]), false),
        ("its account, with a right", to("arn:aws:iam::own:root"), worker("ann", vec![allow.clone()]), true),
        ("a right without trust", to("arn:aws:iam::own:user/bob"), worker("ann", vec![allow.clone()]), false),
        ("another account's user, without", to("arn:aws:iam::other:user/ann"), foreign(vec![]), false),
        ("another account's user, with", to("arn:aws:iam::other:user/ann"), foreign(vec![allow]), true),
        ("an account", to("own"), account("own"), true),
        ("a service", trust("Allow", json!({ "Service": "ec2.amazonaws.com" }), none()), account("own"), false),
        ("a deny", trust("Deny", json!("*"), none()), account("own"), false),
        (
            "an external id that is missing",
            trust("Allow", json!("*"), json!({ "StringEquals": { "sts:ExternalId": "7" } })),
            worker("ann", vec![]),
            false,
        ),
    ] {
        assert_eq!(decide_assume(&caller, ARN, "own", &trust, &Context::new()), expected, "{case}");
    }
}

#[test]
fn what_concerns_no_bucket_needs_a_right_of_users_and_none_of_accounts() {
    let may = |user: &UserCaller, action: &str| decide_own(user, action, "arn:aws:iam::own:user/bob", &Context::new());
    let deny = || identity_policy("Deny", "iam:DeleteUser", "*");
    assert!(may(&account("own"), "iam:CreateUser"));
    assert!(!may(&UserCaller { policies: vec![deny()], ..account("own") }, "iam:DeleteUser"));
    assert!(!may(&worker("ann", vec![]), "iam:CreateUser"));
    let all = identity_policy("Allow", "iam:*", "arn:aws:iam::own:user/*");
    assert!(may(&worker("ann", vec![all.clone()]), "iam:CreateUser"));
    assert!(!may(&worker("ann", vec![all, deny()]), "iam:DeleteUser"));
    let admin = UserCaller { admin: true, ..account("root") };
    assert!(may(&admin, "iam:DeleteUser"));
    let narrowed = UserCaller { session: Some(identity_policy("Allow", "s3:*", "*")), ..admin };
    assert!(!may(&narrowed, "iam:DeleteUser"), "a session narrows an administrator too");
}
