//! Whether a policy is public: whether it allows anything to people whom it does not name.
//!
//! Source: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/access-control-block-public-access.html>

use crate::condition::Condition;
use crate::document::{Effect, Policy, Rule, Statement};

/// Keys that name a fixed group of callers, lower case.
const FIXING_KEYS: [&str; 11] = [
    "aws:principalorgid",
    "aws:principalorgpaths",
    "aws:principalarn",
    "aws:principalaccount",
    "aws:sourceaccount",
    "aws:sourcearn",
    "aws:sourcevpc",
    "aws:sourcevpce",
    "aws:userid",
    "aws:username",
    "s3:x-amz-server-side-encryption-aws-kms-key-id",
];
/// A wider block of addresses than these is everybody.
const SOURCE_PREFIX_BITS_MIN: u32 = 8;

impl Policy {
    /// Whether any statement allows something to everybody without fixing who that is.
    pub fn is_public(&self) -> bool {
        self.statements.iter().any(Statement::is_public)
    }
}

impl Statement {
    fn is_public(&self) -> bool {
        let everybody = match &self.principals {
            Some(Rule::Is(principals)) => principals.everyone,
            Some(Rule::IsNot(_)) => true,
            None => false,
        };
        self.effect == Effect::Allow && everybody && !self.conditions.iter().any(fixes_callers)
    }
}

fn fixes_callers(condition: &Condition) -> bool {
    if !condition.is_positive() || condition.values.is_empty() {
        return false;
    }
    if condition.key == "aws:sourceip" {
        let blocks = condition.address_blocks().unwrap_or_default();
        let narrow = |bits: u32| bits >= SOURCE_PREFIX_BITS_MIN;
        return !blocks.is_empty() && blocks.iter().all(|block| block.is_some_and(|block| narrow(block.prefix_bits)));
    }
    let is_fixed = |value: &String| !value.contains(['*', '?']) && !value.contains("${");
    FIXING_KEYS.contains(&condition.key.as_str()) && condition.values.iter().all(is_fixed)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::document::{DocumentKind, Policy};

    fn is_public(effect: &str, principal: Value, condition: Value) -> bool {
        let document = json!({ "Version": "2012-10-17", "Statement": {
            "Effect": effect, "Principal": principal, "Action": "s3:GetObject", "Resource": "arn:aws:s3:::b/*",
            "Condition": condition,
        } });
        Policy::parse(&document.to_string(), DocumentKind::Bucket("b")).unwrap().is_public()
    }

    #[test]
    fn a_policy_is_public_unless_it_fixes_who_it_is_about() {
        for (effect, principal, condition, expected) in [
            ("Allow", json!("*"), json!({}), true),
            ("Allow", json!({ "AWS": "*" }), json!({}), true),
            ("Deny", json!("*"), json!({}), false),
            ("Allow", json!({ "AWS": "arn:aws:iam::1:root" }), json!({}), false),
            ("Allow", json!("*"), json!({ "IpAddress": { "aws:SourceIp": "10.0.0.0/32" } }), false),
            ("Allow", json!("*"), json!({ "IpAddress": { "aws:SourceIp": "0.0.0.0/0" } }), true),
            ("Allow", json!("*"), json!({ "NotIpAddress": { "aws:SourceIp": "10.0.0.0/8" } }), true),
            ("Allow", json!("*"), json!({ "StringEquals": { "aws:PrincipalAccount": "1" } }), false),
            ("Allow", json!("*"), json!({ "StringLike": { "aws:PrincipalAccount": "1*" } }), true),
            ("Allow", json!("*"), json!({ "StringEquals": { "s3:prefix": "a" } }), true),
            ("Allow", json!("*"), json!({ "StringEqualsIfExists": { "aws:SourceVpc": "v" } }), true),
        ] {
            assert_eq!(is_public(effect, principal.clone(), condition.clone()), expected, "{principal} {condition}");
        }
    }
}
