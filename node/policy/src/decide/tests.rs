//! The table of cases.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Need, Question, Target, decide};
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
