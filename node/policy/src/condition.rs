//! Conditions: `{"StringLike": {"s3:prefix": ["home/*"]}}`.
//!
//! Invariants: several operators and keys must all hold, several values of one key are alternatives; a key that is absent
//! fulfils only negated operators, `…IfExists`, `ForAllValues:` and `Null`.
//!
//! Source: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html>

use serde_json::Value;

use crate::caller::Context;
use crate::document::PolicyError;
use crate::pattern::{Pattern, expanded};
use crate::values::{AddressBlock, arn_matches, date_seconds};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Test {
    Text,
    TextIgnoringCase,
    TextPattern,
    Number(Order),
    Date(Order),
    Bool,
    Address,
    Arn,
    Null,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quantifier {
    None,
    ForAny,
    ForAll,
}

/// One operator on one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Condition {
    test: Test,
    /// The operator is one of the `Not` forms.
    negated: bool,
    if_exists: bool,
    quantifier: Quantifier,
    /// Lower case.
    pub key: String,
    pub values: Vec<String>,
}

impl Condition {
    /// All conditions of a `Condition` element.
    pub fn parse_all(element: &Value) -> Result<Vec<Self>, PolicyError> {
        let operators = element.as_object().ok_or(PolicyError::Syntax)?;
        let mut conditions = Vec::new();
        for (operator, keys) in operators {
            for (key, values) in keys.as_object().ok_or(PolicyError::Syntax)? {
                if !key.contains(':') {
                    return Err(PolicyError::ConditionKey(key.clone()));
                }
                conditions.push(Self::parse(operator, key, values)?);
            }
        }
        Ok(conditions)
    }

    fn parse(operator: &str, key: &str, values: &Value) -> Result<Self, PolicyError> {
        let unknown = || PolicyError::ConditionOperator(operator.to_owned());
        let (quantifier, rest) = match operator.split_once(':') {
            None => (Quantifier::None, operator),
            Some(("ForAnyValue", rest)) => (Quantifier::ForAny, rest),
            Some(("ForAllValues", rest)) => (Quantifier::ForAll, rest),
            Some(_) => return Err(unknown()),
        };
        let (rest, if_exists) = rest.strip_suffix("IfExists").map_or((rest, false), |rest| (rest, true));
        let (test, negated) = test_of(rest).ok_or_else(unknown)?;
        if test == Test::Null && if_exists {
            return Err(unknown());
        }
        let text = |value: &Value| match value {
            Value::String(text) => Ok(text.clone()),
            Value::Number(number) => Ok(number.to_string()),
            Value::Bool(flag) => Ok(flag.to_string()),
            _ => Err(PolicyError::Syntax),
        };
        let values = match values {
            Value::Array(values) => values.iter().map(text).collect::<Result<_, _>>()?,
            value => vec![text(value)?],
        };
        Ok(Self { test, negated, if_exists, quantifier, key: key.to_lowercase(), values })
    }

    /// Whether it names addresses; their blocks.
    pub fn address_blocks(&self) -> Option<Vec<Option<AddressBlock>>> {
        let blocks = || self.values.iter().map(|value| AddressBlock::parse(value)).collect();
        (self.test == Test::Address && !self.negated).then(blocks)
    }

    /// Whether it fixes its key to values that it names.
    pub fn is_positive(&self) -> bool {
        !self.negated && !self.if_exists && self.quantifier != Quantifier::ForAll && self.test != Test::Null
    }

    /// `variables`: whether the document's version knows policy variables.
    pub fn holds(&self, context: &Context, variables: bool) -> bool {
        let found = context.get(&self.key);
        if self.test == Test::Null {
            return self.values.iter().any(|value| value.eq_ignore_ascii_case("true") == found.is_none());
        }
        let Some(found) = found else {
            return self.if_exists || self.quantifier == Quantifier::ForAll || self.absent_holds();
        };
        let variables = variables.then_some(context);
        let matches = |value: &String| self.values.iter().any(|wanted| self.matches(wanted, value, variables));
        match self.quantifier {
            Quantifier::None if self.negated => !found.iter().any(matches),
            Quantifier::None | Quantifier::ForAny => found.iter().any(|value| matches(value) != self.negated),
            Quantifier::ForAll => found.iter().all(|value| matches(value) != self.negated),
        }
    }

    fn absent_holds(&self) -> bool {
        self.negated && self.quantifier == Quantifier::None
    }

    fn matches(&self, wanted: &str, found: &str, variables: Option<&Context>) -> bool {
        match self.test {
            Test::Text => expanded(wanted, variables).is_some_and(|wanted| wanted == found),
            Test::TextIgnoringCase => {
                expanded(wanted, variables).is_some_and(|wanted| wanted.to_lowercase() == found.to_lowercase())
            }
            Test::TextPattern => Pattern::new(wanted, variables).is_some_and(|pattern| pattern.matches(found)),
            Test::Number(order) => holds(order, found.parse().ok(), wanted.parse().ok()),
            Test::Date(order) => holds(order, date_seconds(found), date_seconds(wanted)),
            Test::Bool => wanted.eq_ignore_ascii_case(found),
            Test::Address => AddressBlock::parse(wanted).is_some_and(|block| block.contains(found)),
            Test::Arn => arn_matches(wanted, found, variables),
            Test::Null => false, // answered before
        }
    }
}

fn holds(order: Order, found: Option<f64>, wanted: Option<f64>) -> bool {
    let (Some(found), Some(wanted)) = (found, wanted) else { return false };
    match order {
        Order::Equal => found == wanted,
        Order::Less => found < wanted,
        Order::LessOrEqual => found <= wanted,
        Order::Greater => found > wanted,
        Order::GreaterOrEqual => found >= wanted,
    }
}

/// The test of an operator, and whether it is negated.
fn test_of(operator: &str) -> Option<(Test, bool)> {
    let ordered = |rest: &str| {
        Some(match rest {
            "Equals" => (Order::Equal, false),
            "NotEquals" => (Order::Equal, true),
            "LessThan" => (Order::Less, false),
            "LessThanEquals" => (Order::LessOrEqual, false),
            "GreaterThan" => (Order::Greater, false),
            "GreaterThanEquals" => (Order::GreaterOrEqual, false),
            _ => return None,
        })
    };
    if let Some(rest) = operator.strip_prefix("Numeric") {
        return ordered(rest).map(|(order, negated)| (Test::Number(order), negated));
    }
    if let Some(rest) = operator.strip_prefix("Date") {
        return ordered(rest).map(|(order, negated)| (Test::Date(order), negated));
    }
    Some(match operator {
        "StringEquals" | "BinaryEquals" => (Test::Text, false),
        "StringNotEquals" => (Test::Text, true),
        "StringEqualsIgnoreCase" => (Test::TextIgnoringCase, false),
        "StringNotEqualsIgnoreCase" => (Test::TextIgnoringCase, true),
        "StringLike" => (Test::TextPattern, false),
        "StringNotLike" => (Test::TextPattern, true),
        "Bool" => (Test::Bool, false),
        "IpAddress" => (Test::Address, false),
        "NotIpAddress" => (Test::Address, true),
        "ArnEquals" | "ArnLike" => (Test::Arn, false),
        "ArnNotEquals" | "ArnNotLike" => (Test::Arn, true),
        "Null" => (Test::Null, false),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn context(pairs: &[(&str, &str)]) -> Context {
        let mut context = Context::new();
        for (key, value) in pairs {
            context.add(key, *value);
        }
        context
    }

    #[test]
    fn each_operator_holds_as_iam_says() {
        let cases = [
            ("StringEquals", json!("a"), vec!["a"], true),
            ("StringEquals", json!("a"), vec!["A"], false),
            ("StringEquals", json!(["b", "a"]), vec!["a"], true),
            ("StringEquals", json!("a*"), vec!["ab"], false),
            ("StringEquals", json!("a"), vec![], false),
            ("StringNotEquals", json!("a"), vec!["b"], true),
            ("StringNotEquals", json!(["a", "b"]), vec!["b"], false),
            ("StringNotEquals", json!("a"), vec![], true),
            ("StringEqualsIgnoreCase", json!("a"), vec!["A"], true),
            ("StringNotEqualsIgnoreCase", json!("a"), vec!["A"], false),
            ("StringLike", json!("a*"), vec!["ab"], true),
            ("StringNotLike", json!("a*"), vec!["ab"], false),
            ("StringLikeIfExists", json!("a*"), vec![], true),
            ("StringLikeIfExists", json!("a*"), vec!["b"], false),
            ("NumericLessThanEquals", json!("10"), vec!["10"], true),
            ("NumericLessThan", json!(10), vec!["10"], false),
            ("NumericGreaterThan", json!(10), vec!["11"], true),
            ("NumericGreaterThanEquals", json!(10), vec!["9"], false),
            ("NumericEquals", json!("2"), vec!["2.0"], true),
            ("NumericNotEquals", json!("2"), vec!["3"], true),
            ("NumericEquals", json!("x"), vec!["x"], false),
            ("DateLessThan", json!("2030-01-01T00:00:00Z"), vec!["2029-12-31T23:59:59Z"], true),
            ("DateGreaterThan", json!("2030-01-01"), vec!["2029-12-31T23:59:59Z"], false),
            ("Bool", json!(true), vec!["true"], true),
            ("Bool", json!("false"), vec!["true"], false),
            ("BoolIfExists", json!("false"), vec![], true),
            ("IpAddress", json!(["10.0.0.0/8", "::1"]), vec!["10.2.3.4"], true),
            ("NotIpAddress", json!("10.0.0.0/8"), vec!["10.2.3.4"], false),
            ("NotIpAddress", json!("10.0.0.0/8"), vec!["11.2.3.4"], true),
            ("ArnLike", json!("arn:aws:iam::*:user/x*"), vec!["arn:aws:iam::1:user/xy"], true),
            ("ArnNotEquals", json!("arn:aws:iam::1:user/x"), vec!["arn:aws:iam::1:user/x"], false),
            ("Null", json!("true"), vec![], true),
            ("Null", json!(true), vec!["a"], false),
            ("Null", json!("false"), vec!["a"], true),
            ("ForAnyValue:StringEquals", json!(["a", "b"]), vec!["c", "b"], true),
            ("ForAnyValue:StringEquals", json!(["a", "b"]), vec!["c"], false),
            ("ForAnyValue:StringEquals", json!(["a"]), vec![], false),
            ("ForAllValues:StringEquals", json!(["a", "b"]), vec!["a", "b"], true),
            ("ForAllValues:StringEquals", json!(["a", "b"]), vec!["a", "c"], false),
            ("ForAllValues:StringEquals", json!(["a"]), vec![], true),
            ("ForAllValues:StringLike", json!("a*"), vec!["ab", "ac"], true),
            ("ForAnyValue:StringNotEquals", json!("a"), vec!["a", "b"], true),
            ("BinaryEquals", json!("QQ=="), vec!["QQ=="], true),
        ];
        for (operator, wanted, found, expected) in cases {
            let condition = &Condition::parse_all(&json!({ operator: { "s3:Key": wanted } })).unwrap()[0];
            let found: Vec<(&str, &str)> = found.iter().map(|value| ("S3:key", *value)).collect();
            assert_eq!(condition.holds(&context(&found), true), expected, "{operator} {wanted} {found:?}");
        }
    }

    #[test]
    fn variables_stand_for_the_caller() {
        let condition =
            &Condition::parse_all(&json!({ "StringLike": { "s3:prefix": "${aws:username}/*" } })).unwrap()[0];
        let context = context(&[("aws:username", "ann"), ("s3:prefix", "ann/x")]);
        assert!(condition.holds(&context, true) && !condition.holds(&context, false));
    }

    #[test]
    fn unknown_operators_keys_and_values_are_malformed() {
        for bad in [
            json!({ "StringMatches": { "s3:prefix": "a" } }),
            json!({ "ForSome:StringEquals": { "s3:prefix": "a" } }),
            json!({ "NullIfExists": { "s3:prefix": "true" } }),
            json!({ "StringEquals": { "prefix": "a" } }),
            json!({ "StringEquals": { "s3:prefix": { "a": 1 } } }),
            json!({ "StringEquals": "a" }),
            json!([]),
        ] {
            assert!(Condition::parse_all(&bad).is_err(), "{bad}");
        }
    }
}
