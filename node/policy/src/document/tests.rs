//! What parses and what does not, and whom a document is about.

use serde_json::{Value, json};

use super::{DocumentKind, Effect, Policy, PolicyError};
use crate::caller::{Caller, Context, UserCaller};

fn parse(document: &Value) -> Result<Policy, PolicyError> {
    Policy::parse(&document.to_string(), DocumentKind::Bucket("photos"))
}

fn statement(change: impl FnOnce(&mut Value)) -> Value {
    let mut statement = json!({
        "Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::photos/*",
    });
    change(&mut statement);
    json!({ "Version": "2012-10-17", "Statement": [statement] })
}

#[test]
fn malformed_documents_are_refused_in_the_words_of_s3() {
    let without = |field: &'static str| {
        statement(|one| {
            one.as_object_mut().unwrap().remove(field);
        })
    };
    let with = |field: &'static str, value: Value| statement(|one| one[field] = value);
    for (document, expected) in [
        (json!([]), PolicyError::Json),
        (json!({ "Version": "2012-10-17" }), PolicyError::Missing("Statement")),
        (json!({ "Statement": [] }), PolicyError::Missing("Statement")),
        (json!({ "Statement": ["x"] }), PolicyError::Syntax),
        (json!({ "Version": "2020-01-01", "Statement": [] }), PolicyError::Version),
        (json!({ "Statements": [] }), PolicyError::Unknown("Statements".to_owned())),
        (without("Effect"), PolicyError::Missing("Effect")),
        (without("Principal"), PolicyError::Missing("Principal")),
        (without("Action"), PolicyError::Missing("Action")),
        (without("Resource"), PolicyError::Missing("Resource")),
        (with("Effect", json!("Maybe")), PolicyError::Effect("\"Maybe\"".to_owned())),
        (with("Principal", json!("ann")), PolicyError::Principal),
        (with("Principal", json!({})), PolicyError::Principal),
        (with("Principal", json!({ "GCP": "*" })), PolicyError::Principal),
        (with("Principal", json!({ "AWS": "arn:aws:iam::1:user/*" })), PolicyError::Principal),
        (with("Action", json!("ec2:Run")), PolicyError::Action),
        (with("Action", json!("GetObject")), PolicyError::Action),
        (with("Action", json!([])), PolicyError::Syntax),
        (with("Resource", json!("arn:aws:s3:::other/*")), PolicyError::Resource),
        (with("Resource", json!("photos/*")), PolicyError::Resource),
        (with("NotAction", json!("s3:*")), PolicyError::Syntax),
        (with("Color", json!("red")), PolicyError::Unknown("Color".to_owned())),
        (with("Condition", json!({ "Like": { "s3:prefix": "a" } })), PolicyError::ConditionOperator("Like".to_owned())),
    ] {
        assert_eq!(parse(&document).unwrap_err(), expected, "{document}");
    }
    assert_eq!(Policy::parse("{", DocumentKind::Identity).unwrap_err(), PolicyError::Json);
    let long = format!("{{\"Id\":\"{}\"}}", "x".repeat(30_000));
    assert_eq!(Policy::parse(&long, DocumentKind::Identity).unwrap_err(), PolicyError::TooLarge);
}

#[test]
fn resources_of_the_bucket_are_taken_with_wildcards_too() {
    for resource in [
        "arn:aws:s3:::photos",
        "arn:aws:s3:::photos/*",
        "arn:aws:s3:::*",
        "arn:aws:s3:::*/*",
        "arn:aws:s3:::ph*",
        "arn:aws:s3::tenant:photos/a",
        "*",
    ] {
        assert!(parse(&statement(|one| one["Resource"] = json!(resource))).is_ok(), "{resource}");
    }
    let identity = json!({ "Statement": { "Effect": "Allow", "Action": "*", "Resource": "*" } });
    assert!(Policy::parse(&identity.to_string(), DocumentKind::Identity).is_ok());
    assert!(Policy::parse(&statement(|_| ()).to_string(), DocumentKind::Identity).is_err(), "it names a principal");
}

#[test]
fn principals_are_named_in_many_ways() {
    let ann = UserCaller { id: "c1".into(), name: "ann".into(), account: "c1".into(), ..UserCaller::default() };
    let tenant = UserCaller { tenant: Some("t1".into()), ..ann.clone() };
    let worker = UserCaller { id: "c2".into(), name: "bob".into(), account: "c1".into(), ..UserCaller::default() };
    let says = |principal: Value, caller: Caller<'_>| {
        let policy = parse(&statement(|one| one["Principal"] = principal)).unwrap();
        policy.effect(Some(caller), "s3:GetObject", "arn:aws:s3:::photos/k", &Context::new()) == Some(Effect::Allow)
    };
    for (principal, is_ann, is_tenant, is_worker) in [
        (json!("*"), true, true, true),
        (json!({ "AWS": "*" }), true, true, true),
        (json!({ "AWS": ["c1", "other"] }), true, true, true),
        (json!({ "AWS": "arn:aws:iam::c1:root" }), true, true, true),
        (json!({ "AWS": "arn:aws:iam::t1:root" }), false, true, false),
        (json!({ "AWS": "arn:aws:iam:::user/ann" }), true, true, false),
        (json!({ "AWS": "arn:aws:iam::t1:user/ann" }), false, true, false),
        (json!({ "AWS": "arn:aws:iam::c1:user/bob" }), false, false, true),
        (json!({ "AWS": "arn:aws:iam::c1:user/team/bob" }), false, false, true),
        (json!({ "AWS": "arn:aws:iam::c9:user/ann" }), false, false, false),
        (json!({ "CanonicalUser": "c2" }), false, false, true),
        (json!({ "Service": "logging.s3.amazonaws.com" }), false, false, false),
    ] {
        let found = [&ann, &tenant, &worker].map(|user| says(principal.clone(), Caller::User(user)));
        assert_eq!(found, [is_ann, is_tenant, is_worker], "{principal}");
    }
    assert!(says(json!("*"), Caller::Anonymous) && !says(json!({ "AWS": "c1" }), Caller::Anonymous));
}

#[test]
fn not_forms_turn_a_rule_around() {
    let ann = UserCaller { id: "c1".into(), name: "ann".into(), account: "c1".into(), ..UserCaller::default() };
    let document = json!({ "Statement": {
        "Effect": "Deny", "NotPrincipal": { "AWS": "c1" }, "NotAction": "s3:Put*",
        "NotResource": "arn:aws:s3:::photos/public/*",
    } });
    let policy = parse(&document).unwrap();
    let effect = |caller, action, key: &str| {
        policy.effect(Some(caller), action, &format!("arn:aws:s3:::photos/{key}"), &Context::new())
    };
    assert_eq!(effect(Caller::Anonymous, "s3:GetObject", "a"), Some(Effect::Deny));
    assert_eq!(effect(Caller::User(&ann), "s3:GetObject", "a"), None);
    assert_eq!(effect(Caller::Anonymous, "s3:PutObject", "a"), None);
    assert_eq!(effect(Caller::Anonymous, "s3:GetObject", "public/a"), None);
}

#[test]
fn actions_ignore_case_and_take_wildcards() {
    let policy = parse(&statement(|one| one["Action"] = json!(["s3:get*", "s3:ListBucket"]))).unwrap();
    let allows = |action| {
        let (caller, resource) = (Some(Caller::Anonymous), "arn:aws:s3:::photos/k");
        policy.effect(caller, action, resource, &Context::new()).is_some()
    };
    assert!(allows("s3:GetObjectAcl") && allows("s3:LISTBUCKET") && !allows("s3:PutObject"));
}

#[test]
fn asked_for_keys_are_known() {
    let condition = json!({ "StringEquals": { "s3:ExistingObjectTag/color": "red" } });
    let policy = parse(&statement(|one| one["Condition"] = condition)).unwrap();
    assert!(policy.mentions("s3:existingobjecttag/") && !policy.mentions("s3:requestobjecttag/"));
}

#[test]
fn trust_policies_name_principals_and_no_resources() {
    let trust = |change: &dyn Fn(&mut Value)| {
        let mut one = json!({ "Effect": "Allow", "Principal": { "AWS": "c1" }, "Action": "sts:AssumeRole" });
        change(&mut one);
        Policy::parse(&json!({ "Statement": [one] }).to_string(), DocumentKind::Trust)
    };
    assert!(trust(&|_| ()).is_ok());
    assert!(trust(&|one| one["Principal"] = json!({ "Service": "ec2.amazonaws.com" })).is_ok());
    let resource = trust(&|one| one["Resource"] = json!("*"));
    assert_eq!(resource.unwrap_err(), PolicyError::Unknown("Resource".to_owned()));
    let nobody = trust(&|one| {
        one.as_object_mut().unwrap().remove("Principal");
    });
    assert_eq!(nobody.unwrap_err(), PolicyError::Missing("Principal"));
}

#[test]
fn statement_ids_are_unique_and_actions_of_users_name_any_service() {
    let two = |one: &str, other: &str| {
        let statement = |id: &str| json!({ "Sid": id, "Effect": "Allow", "Action": "s3:*", "Resource": "*" });
        let document = json!({ "Statement": [statement(one), statement(other)] });
        Policy::parse(&document.to_string(), DocumentKind::Identity)
    };
    assert!(two("a", "b").is_ok() && two("", "").is_ok());
    assert_eq!(two("a", "a").unwrap_err(), PolicyError::StatementId);
    let action = |action: &str| {
        let document = json!({ "Statement": { "Effect": "Allow", "Action": action, "Resource": "*" } });
        Policy::parse(&document.to_string(), DocumentKind::Identity)
    };
    for good in ["*", "kms:Decrypt", "S3:Get*", "s3-object-lambda:Get?bject"] {
        assert!(action(good).is_ok(), "{good}");
    }
    for bad in ["", "s3:", ":Get", "s3:Get Object", "s 3:Get", "GetObject"] {
        assert_eq!(action(bad).unwrap_err(), PolicyError::Action, "{bad}");
    }
}
