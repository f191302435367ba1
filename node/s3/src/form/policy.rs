//! The policy of a browser form: until when it may be used, and what its fields and its file must be.
//!
//! Invariants: a form says nothing that its policy does not speak of; what can't be read allows nothing.
//!
//! Source: <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-HTTPPOSTConstructPolicy.html>

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use s3s::dto::{Timestamp, TimestampFormat};
use s3s::{S3Error, S3ErrorCode, S3Result};
use serde_json::Value;

use crate::errors::error;
use crate::wire_values::unix_ms;

/// Fields that a policy need not speak of.
const EXEMPT: [&str; 5] = ["x-amz-signature", "policy", "file", "awsaccesskeyid", "signature"];
const EXEMPT_PREFIX: &str = "x-ignore-";
/// Most conditions of one policy.
const CONDITIONS_MAX: usize = 1000;

/// A policy that could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PostPolicy {
    expires_unix_ms: u64,
    conditions: Vec<Condition>,
}

/// What one field must be; names are in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    Equal {
        field: String,
        value: String,
    },
    StartsWith {
        field: String,
        prefix: String,
    },
    /// Of the file, in bytes; both ends are allowed.
    Length {
        min: u64,
        max: u64,
    },
}

impl PostPolicy {
    /// Reads a policy as the form carries it.
    ///
    /// # Errors
    /// `InvalidPolicyDocument`.
    pub fn parse(encoded: &str) -> S3Result<Self> {
        // Browsers may send it in lines.
        let joined: String = encoded.chars().filter(|letter| !letter.is_ascii_whitespace()).collect();
        let bytes = BASE64.decode(joined).map_err(|_| invalid("Invalid Policy: not valid Base64."))?;
        let text = String::from_utf8(bytes).map_err(|_| invalid("Invalid Policy: not valid UTF-8."))?;
        let document: Value = serde_json::from_str(&without_escaped_dollars(&text))
            .map_err(|_| invalid("Invalid Policy: Invalid JSON."))?;
        let members = document.as_object().ok_or_else(|| invalid("Invalid Policy: Invalid JSON."))?;
        let member = |wanted: &str| members.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|it| it.1);
        let expiration = member("expiration").ok_or_else(|| invalid("Invalid Policy: Policy missing expiration."))?;
        let odd_time = || invalid("Invalid Policy: Invalid 'expiration' value.");
        let expiration = expiration.as_str().ok_or_else(odd_time)?;
        let expires = Timestamp::parse(TimestampFormat::DateTime, expiration).map_err(|_| odd_time())?;
        let conditions = member("conditions").ok_or_else(|| invalid("Invalid Policy: Policy missing conditions."))?;
        let conditions = conditions.as_array().ok_or_else(|| invalid("Invalid Policy: Invalid 'conditions' value."))?;
        if conditions.len() > CONDITIONS_MAX {
            return Err(invalid("Invalid Policy: too many conditions."));
        }
        let mut read = Vec::with_capacity(conditions.len());
        for condition in conditions {
            condition_of(condition, &mut read)?;
        }
        Ok(Self { expires_unix_ms: unix_ms(&expires), conditions: read })
    }

    /// Whether a form may be used: `fields` by lower-case name, `bucket` as the request names it.
    ///
    /// # Errors
    /// `AccessDenied`, which says what does not hold.
    pub fn check(&self, fields: &[(String, String)], bucket: &str, now_unix_ms: u64) -> S3Result<()> {
        if now_unix_ms >= self.expires_unix_ms {
            return Err(denied("Policy expired."));
        }
        // A field that comes twice must be allowed twice, whichever of them is used.
        let all = |wanted: &str, holds: &dyn Fn(&str) -> bool| {
            let named = fields.iter().filter(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
            let mut values = named.chain((wanted == "bucket").then_some(bucket)).peekable();
            values.peek().is_some() && values.all(holds)
        };
        for condition in &self.conditions {
            let (holds, words) = match condition {
                Condition::Equal { field, value: wanted } => {
                    (all(field, &|value| value == wanted), ["eq", field.as_str(), wanted.as_str()])
                }
                Condition::StartsWith { field, prefix } => {
                    let holds = all(field, &|value| value.starts_with(prefix.as_str()));
                    (holds, ["starts-with", field.as_str(), prefix.as_str()])
                }
                Condition::Length { .. } => continue,
            };
            if !holds {
                let [operator, field, value] = words;
                return Err(denied(&format!("Policy Condition failed: [\"{operator}\", \"${field}\", \"{value}\"]")));
            }
        }
        let names = fields.iter().map(|(name, _)| name.as_str()).chain(["bucket"]);
        let mut extra = names.filter(|name| !EXEMPT.contains(name) && !name.starts_with(EXEMPT_PREFIX));
        match extra.find(|name| !self.speaks_of(name)) {
            None => Ok(()),
            Some(name) => Err(denied(&format!("Extra input fields: {name}"))),
        }
    }

    /// The sizes that the file may have, in bytes; both ends are allowed.
    pub fn length_range(&self) -> (u64, u64) {
        self.conditions.iter().fold((0, u64::MAX), |(from, to), condition| match condition {
            Condition::Length { min, max } => (from.max(*min), to.min(*max)),
            _ => (from, to),
        })
    }

    fn speaks_of(&self, name: &str) -> bool {
        self.conditions.iter().any(|condition| match condition {
            Condition::Equal { field, .. } | Condition::StartsWith { field, .. } => field == name,
            Condition::Length { .. } => false,
        })
    }
}

fn condition_of(condition: &Value, read: &mut Vec<Condition>) -> S3Result<()> {
    let odd = || invalid("Invalid Policy: Invalid Simple-Condition: value must be a string.");
    match condition {
        Value::Object(members) if !members.is_empty() => {
            for (name, value) in members {
                let value = value.as_str().ok_or_else(odd)?.to_owned();
                read.push(Condition::Equal { field: name.to_ascii_lowercase(), value });
            }
            Ok(())
        }
        Value::Array(items) => {
            read.push(listed(items)?);
            Ok(())
        }
        _ => Err(invalid("Invalid Policy: Invalid Condition: must be an object or a list.")),
    }
}

fn listed(items: &[Value]) -> S3Result<Condition> {
    let odd = || invalid("Invalid Policy: Invalid Condition: a list has an operator and two values.");
    let [operator, first, second] = items else { return Err(odd()) };
    let operator = operator.as_str().ok_or_else(odd)?.to_ascii_lowercase();
    if operator == "content-length-range" {
        let number = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
        let odd_range = || invalid("Invalid Policy: Invalid content-length-range.");
        let (min, max) = (number(first).ok_or_else(odd_range)?, number(second).ok_or_else(odd_range)?);
        return if min <= max { Ok(Condition::Length { min, max }) } else { Err(odd_range()) };
    }
    let field = first.as_str().and_then(|name| name.strip_prefix('$')).ok_or_else(odd)?.to_ascii_lowercase();
    let value = second.as_str().ok_or_else(odd)?.to_owned();
    match operator.as_str() {
        "eq" => Ok(Condition::Equal { field, value }),
        "starts-with" => Ok(Condition::StartsWith { field, prefix: value }),
        _ => Err(invalid("Invalid Policy: Invalid Condition: unknown operation.")),
    }
}

/// S3 lets a policy write `\$` for a dollar sign, which JSON does not know.
fn without_escaped_dollars(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            plain.push(letter);
            continue;
        }
        match letters.next() {
            Some('$') => plain.push('$'),
            Some(escaped) => plain.extend(['\\', escaped]),
            None => plain.push('\\'),
        }
    }
    plain
}

fn invalid(message: &str) -> S3Error {
    error(S3ErrorCode::InvalidPolicyDocument, message)
}

fn denied(what: &str) -> S3Error {
    error(S3ErrorCode::AccessDenied, format!("Invalid according to Policy: {what}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const LATER: &str = "2040-01-01T12:00:00.000Z";
    const NOW: u64 = 1_800_000_000_000;

    fn encode(document: &str) -> String {
        BASE64.encode(document)
    }

    fn policy(conditions: Value) -> PostPolicy {
        PostPolicy::parse(&encode(&json!({"expiration": LATER, "conditions": conditions}).to_string())).unwrap()
    }

    fn fields(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn refusal(policy: &PostPolicy, pairs: &[(&str, &str)]) -> String {
        let refused = policy.check(&fields(pairs), "photos", NOW).unwrap_err();
        assert_eq!(refused.code().as_str(), "AccessDenied");
        refused.message().unwrap_or_default().to_owned()
    }

    #[test]
    fn every_condition_must_hold_whatever_the_case_of_its_words() {
        let policy = policy(json!([
            {"bUcKeT": "photos"}, ["StArTs-WiTh", "$KeY", "foo"], {"AcL": "private"}, ["eq", "$Content-Type", "a/b"],
            ["content-length-range", 1, "1024"]
        ]));
        let good =
            [("key", "foo.txt"), ("acl", "private"), ("content-type", "a/b"), ("policy", "x"), ("x-ignore-a", "b")];
        policy.check(&fields(&good), "photos", NOW).unwrap();
        assert_eq!(policy.length_range(), (1, 1024));
        assert!(policy.check(&fields(&good), "other", NOW).is_err());
        for (place, bad) in [(0, ("key", "bar")), (1, ("acl", "public-read")), (2, ("content-type", "a"))] {
            let mut pairs = good;
            pairs[place] = bad;
            assert!(refusal(&policy, &pairs).contains("Policy Condition failed"), "{bad:?}");
        }
        assert!(refusal(&policy, &good[1..]).contains("[\"starts-with\", \"$key\", \"foo\"]"));
        let twice = [&good[..], &[("acl", "public-read")]].concat();
        assert!(refusal(&policy, &twice).contains("$acl"), "both of them must be allowed");
        let extra = [&good[..], &[("x-amz-meta-a", "b")]].concat();
        assert!(refusal(&policy, &extra).ends_with("Extra input fields: x-amz-meta-a"));
    }

    #[test]
    fn a_policy_must_speak_of_the_bucket_and_ends() {
        let silent = policy(json!([["starts-with", "$key", ""]]));
        assert!(refusal(&silent, &[("key", "k")]).ends_with("Extra input fields: bucket"));
        let policy = policy(json!([{"bucket": "photos"}]));
        let expired = policy.check(&[], "photos", 2_300_000_000_000).unwrap_err();
        assert_eq!(expired.message(), Some("Invalid according to Policy: Policy expired."));
    }

    #[test]
    fn what_is_no_policy_is_refused_as_such() {
        let conditions = |list: &str| format!("{{\"expiration\":\"{LATER}\",\"conditions\":{list}}}");
        let bad = [
            String::new(),
            "[]".to_owned(),
            "{\"conditions\":[]}".to_owned(),
            format!("{{\"expiration\":\"{LATER}\"}}"),
            "{\"expiration\":\"tomorrow\",\"conditions\":[]}".to_owned(),
            conditions("{}"),
            conditions("[7]"),
            conditions("[{}]"),
            conditions("[{\"acl\":7}]"),
            conditions("[[\"eq\",\"key\",\"a\"]]"),
            conditions("[[\"ends-with\",\"$key\",\"a\"]]"),
            conditions("[[\"eq\",\"$key\"]]"),
            conditions("[[\"content-length-range\",-1,5]]"),
            conditions("[[\"content-length-range\",0]]"),
            conditions("[[\"content-length-range\",6,5]]"),
        ];
        for document in bad {
            let refused = PostPolicy::parse(&encode(&document)).unwrap_err();
            assert_eq!(refused.code().as_str(), "InvalidPolicyDocument", "{document}");
        }
        assert!(PostPolicy::parse("!").is_err());
    }

    #[test]
    fn a_dollar_sign_may_be_escaped() {
        let text = format!(
            "{{\"expiration\":\"{LATER}\",\"conditions\":[{{\"bucket\":\"photos\"}},[\"eq\",\"$key\",\"\\$a\"]]}}"
        );
        let policy = PostPolicy::parse(&encode(&text)).unwrap();
        policy.check(&fields(&[("key", "$a")]), "photos", NOW).unwrap();
        assert_eq!(without_escaped_dollars(r#""\\$a\n""#), r#""\\$a\n""#);
    }
}
