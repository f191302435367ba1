//! Policy documents: parsed once, checked as S3 and IAM check them.
//!
//! Invariants: a document that parses is understood whole; unknown elements are refused, never passed over.

use std::collections::HashSet;

use serde_json::{Map, Value};

use crate::caller::{Caller, Context, UserCaller};
use crate::condition::Condition;
use crate::pattern::{Pattern, matches};

/// Longest bucket policy, in bytes (S3).
const DOCUMENT_SIZE_MAX: usize = 20 << 10;
/// What S3's ARNs start with; region and account are empty.
const S3_ARN: &str = "arn:aws:s3:";

/// Why a document was refused; the texts are S3's where it has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    #[error("Policies must be valid JSON and the first byte must be '{{'")]
    Json,
    #[error("Policy exceeds the maximum allowed document size.")]
    TooLarge,
    #[error("Invalid policy syntax.")]
    Syntax,
    #[error("The policy must contain a valid version string")]
    Version,
    #[error("Missing required field {0}")]
    Missing(&'static str),
    #[error("Unknown field {0}")]
    Unknown(String),
    #[error("Invalid effect: {0}")]
    Effect(String),
    #[error("Invalid principal in policy")]
    Principal,
    #[error("Policy has invalid action")]
    Action,
    #[error("Policy has invalid resource")]
    Resource,
    #[error("Invalid Condition type : {0}")]
    ConditionOperator(String),
    #[error("Policy has an invalid condition key : {0}")]
    ConditionKey(String),
    #[error("Statement IDs (SID) in a single policy must be unique.")]
    StatementId,
}

/// What a document hangs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentKind<'a> {
    /// A bucket of this name: it names principals, and resources of this bucket only.
    Bucket(&'a str),
    /// A user, group or session: it names no principals.
    Identity,
    /// A role: it names those who may take it on, and no resources.
    Trust,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    Allow,
    Deny,
}

/// A document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Whether `${…}` stands for something: since version 2012-10-17.
    variables: bool,
    pub(crate) statements: Vec<Statement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statement {
    pub effect: Effect,
    pub principals: Option<Rule<Principals>>,
    actions: Rule<Vec<String>>,
    resources: Rule<Vec<String>>,
    pub conditions: Vec<Condition>,
}

/// An element or its `Not` form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rule<T> {
    Is(T),
    IsNot(T),
}

/// Who a statement is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Principals {
    /// `"*"` or `{"AWS": "*"}`.
    pub everyone: bool,
    /// ARNs, account ids, canonical ids.
    aws: Vec<String>,
    canonical: Vec<String>,
    /// Services and federated users, whom this store does not have.
    pub others: bool,
}

impl Policy {
    /// # Errors
    /// `PolicyError` that says what is wrong, in the words of S3.
    pub fn parse(text: &str, kind: DocumentKind<'_>) -> Result<Self, PolicyError> {
        if text.len() > DOCUMENT_SIZE_MAX {
            return Err(PolicyError::TooLarge);
        }
        let document: Value = serde_json::from_str(text).map_err(|_| PolicyError::Json)?;
        let document = document.as_object().ok_or(PolicyError::Json)?;
        known_fields(document, &["Version", "Id", "Statement"])?;
        let variables = match document.get("Version") {
            None => false,
            Some(Value::String(version)) if version == "2008-10-17" => false,
            Some(Value::String(version)) if version == "2012-10-17" => true,
            Some(_) => return Err(PolicyError::Version),
        };
        let statements = match document.get("Statement") {
            None => return Err(PolicyError::Missing("Statement")),
            Some(Value::Array(statements)) if statements.is_empty() => return Err(PolicyError::Missing("Statement")),
            Some(Value::Array(statements)) => statements.iter().map(|one| Statement::parse(one, kind)).collect(),
            Some(statement) => Statement::parse(statement, kind).map(|one| vec![one]),
        }?;
        check_statement_ids(document.get("Statement"))?;
        Ok(Self { variables, statements })
    }

    /// What the document says of a request: a deny if any statement denies, else an allow if any allows.
    /// `caller` is `None` for a document of the caller's own.
    pub(crate) fn effect(
        &self,
        caller: Option<Caller<'_>>,
        action: &str,
        resource: &str,
        context: &Context,
    ) -> Option<Effect> {
        let mut found = None;
        for statement in &self.statements {
            if found == Some(statement.effect) || !statement.applies(caller, action, resource, context, self.variables)
            {
                continue;
            }
            if statement.effect == Effect::Deny {
                return Some(Effect::Deny);
            }
            found = Some(Effect::Allow);
        }
        found
    }

    /// Whether an allow names the caller itself or everybody, and not only its account: that leaves it to the account's
    /// own policies who of its users may.
    pub(crate) fn allows_itself(&self, user: &UserCaller, action: &str, resource: &str, context: &Context) -> bool {
        let caller = Some(Caller::User(user));
        self.statements.iter().any(|statement| {
            let itself = match &statement.principals {
                Some(Rule::Is(principals)) => principals.name(user),
                Some(Rule::IsNot(_)) => true,
                None => false,
            };
            itself
                && statement.effect == Effect::Allow
                && statement.applies(caller, action, resource, context, self.variables)
        })
    }

    /// Whether any condition asks for keys that start so, such as `s3:existingobjecttag/`; lower case.
    pub fn mentions(&self, key_prefix: &str) -> bool {
        self.statements.iter().flat_map(|one| &one.conditions).any(|one| one.key.starts_with(key_prefix))
    }
}

impl Statement {
    fn parse(element: &Value, kind: DocumentKind<'_>) -> Result<Self, PolicyError> {
        let fields = element.as_object().ok_or(PolicyError::Syntax)?;
        known_fields(
            fields,
            &[
                "Sid",
                "Effect",
                "Principal",
                "NotPrincipal",
                "Action",
                "NotAction",
                "Resource",
                "NotResource",
                "Condition",
            ],
        )?;
        let effect = match fields.get("Effect") {
            None => return Err(PolicyError::Missing("Effect")),
            Some(Value::String(effect)) if effect == "Allow" => Effect::Allow,
            Some(Value::String(effect)) if effect == "Deny" => Effect::Deny,
            Some(other) => return Err(PolicyError::Effect(other.to_string())),
        };
        let principals = match (kind, rule(fields, "Principal", "NotPrincipal")?) {
            (DocumentKind::Bucket(_) | DocumentKind::Trust, None) => return Err(PolicyError::Missing("Principal")),
            (DocumentKind::Identity, Some(_)) => return Err(PolicyError::Unknown("Principal".to_owned())),
            (_, None) => None,
            (_, Some(rule)) => Some(rule.try_map(Principals::parse)?),
        };
        let actions = rule(fields, "Action", "NotAction")?.ok_or(PolicyError::Missing("Action"))?.try_map(texts)?;
        let is_bucket = matches!(kind, DocumentKind::Bucket(_));
        if actions.inner().iter().any(|action| !is_action(action, is_bucket)) {
            return Err(PolicyError::Action);
        }
        let resources = match (kind, rule(fields, "Resource", "NotResource")?) {
            (DocumentKind::Trust, None) => Rule::Is(vec!["*".to_owned()]),
            (DocumentKind::Trust, Some(_)) => return Err(PolicyError::Unknown("Resource".to_owned())),
            (_, resources) => resources.ok_or(PolicyError::Missing("Resource"))?.try_map(texts)?,
        };
        if resources.inner().iter().any(|resource| !is_resource(resource, kind)) {
            return Err(PolicyError::Resource);
        }
        let conditions = fields.get("Condition").map_or_else(|| Ok(Vec::new()), Condition::parse_all)?;
        Ok(Self { effect, principals, actions, resources, conditions })
    }

    fn applies(
        &self,
        caller: Option<Caller<'_>>,
        action: &str,
        resource: &str,
        context: &Context,
        variables: bool,
    ) -> bool {
        let is_about = match (&self.principals, caller) {
            (None, None) => true,
            (Some(Rule::Is(principals)), Some(caller)) => principals.hold(caller),
            (Some(Rule::IsNot(principals)), Some(caller)) => !principals.hold(caller),
            (None, Some(_)) | (Some(_), None) => false,
        };
        let names =
            |actions: &Vec<String>| actions.iter().any(|one| matches(&one.to_lowercase(), &action.to_lowercase()));
        let variables = variables.then_some(context);
        let holds = |resources: &Vec<String>| resources.iter().any(|one| covers(one, resource, variables));
        is_about
            && self.actions.holds(names)
            && self.resources.holds(holds)
            && self.conditions.iter().all(|condition| condition.holds(context, variables.is_some()))
    }
}

impl<T> Rule<T> {
    pub fn inner(&self) -> &T {
        match self {
            Rule::Is(inner) | Rule::IsNot(inner) => inner,
        }
    }

    fn holds(&self, test: impl FnOnce(&T) -> bool) -> bool {
        match self {
            Rule::Is(inner) => test(inner),
            Rule::IsNot(inner) => !test(inner),
        }
    }

    fn try_map<U>(self, map: impl FnOnce(T) -> Result<U, PolicyError>) -> Result<Rule<U>, PolicyError> {
        Ok(match self {
            Rule::Is(inner) => Rule::Is(map(inner)?),
            Rule::IsNot(inner) => Rule::IsNot(map(inner)?),
        })
    }
}

impl Principals {
    fn parse(element: &Value) -> Result<Self, PolicyError> {
        let mut found = Self::default();
        match element {
            Value::String(text) if text == "*" => found.everyone = true,
            Value::Object(kinds) if !kinds.is_empty() => {
                for (kind, values) in kinds {
                    let values = texts(values).map_err(|_| PolicyError::Principal)?;
                    match kind.as_str() {
                        "AWS" => {
                            found.everyone |= values.iter().any(|value| value == "*");
                            if values.iter().any(|value| value != "*" && !is_principal(value)) {
                                return Err(PolicyError::Principal);
                            }
                            found.aws.extend(values.into_iter().filter(|value| value != "*"));
                        }
                        "CanonicalUser" => found.canonical.extend(values),
                        "Service" | "Federated" => found.others = true,
                        _ => return Err(PolicyError::Principal),
                    }
                }
            }
            _ => return Err(PolicyError::Principal),
        }
        Ok(found)
    }

    fn hold(&self, caller: Caller<'_>) -> bool {
        let Caller::User(user) = caller else { return self.everyone };
        self.everyone
            || self.canonical.iter().any(|id| *id == user.id || *id == user.account)
            || self.aws.iter().any(|principal| is_named(principal, user))
    }

    /// Whether they name everybody or this very user.
    fn name(&self, user: &UserCaller) -> bool {
        let is_of_account = |text: &str| text == user.account || text.ends_with(":root");
        self.everyone
            || self.canonical.contains(&user.id)
            || self.aws.iter().any(|principal| !is_of_account(principal) && is_named(principal, user))
    }
}

/// # Errors
/// `StatementId` when two statements have one `Sid`; `Syntax` for one that is no text.
fn check_statement_ids(statements: Option<&Value>) -> Result<(), PolicyError> {
    let mut seen = HashSet::new();
    for statement in statements.and_then(Value::as_array).into_iter().flatten() {
        let Some(id) = statement.get("Sid") else { continue };
        let id = id.as_str().ok_or(PolicyError::Syntax)?;
        if !id.is_empty() && !seen.insert(id) {
            return Err(PolicyError::StatementId);
        }
    }
    Ok(())
}

/// An ARN, or the id of an account.
fn is_principal(text: &str) -> bool {
    !text.is_empty() && !text.contains('*') && !text.contains(char::is_whitespace)
}

/// Whether `AWS` names a user: by its account (`arn:aws:iam::ACCOUNT:root` or the bare id), or itself
/// (`arn:aws:iam::ACCOUNT:user/NAME`). An account goes by its canonical id, its tenant or its name.
fn is_named(principal: &str, user: &UserCaller) -> bool {
    let is_account = |text: &str| {
        text == user.account || (user.is_account() && (text == user.name || user.tenant.as_deref() == Some(text)))
    };
    if let Some(rest) = principal.strip_prefix("arn:aws:sts::") {
        let session = user.role_session.as_ref().map(|session| format!("assumed-role/{}/{session}", user.name));
        return rest.split_once(':').is_some_and(|(account, resource)| {
            is_account(account) && session.is_some_and(|session| session == resource)
        });
    }
    let Some(rest) = principal.strip_prefix("arn:aws:iam::") else {
        return is_account(principal) || principal == user.id;
    };
    let Some((account, resource)) = rest.split_once(':') else { return false };
    let belongs = account.is_empty() || is_account(account) || user.tenant.as_deref() == Some(account);
    match resource.split_once('/') {
        None => resource == "root" && !account.is_empty() && belongs,
        // The path of a user or role, such as `/division/`, tells nothing here.
        Some(("user" | "role", path)) => {
            let name = path.rsplit('/').next().unwrap_or(path);
            let is_kind = resource.starts_with("role/") == user.role_session.is_some();
            belongs && is_kind && (name == user.name || name == user.id)
        }
        Some(_) => false,
    }
}

fn known_fields(fields: &Map<String, Value>, known: &[&str]) -> Result<(), PolicyError> {
    match fields.keys().find(|field| !known.contains(&field.as_str())) {
        Some(field) => Err(PolicyError::Unknown(field.clone())),
        None => Ok(()),
    }
}

fn rule<'a>(fields: &'a Map<String, Value>, is: &str, is_not: &str) -> Result<Option<Rule<&'a Value>>, PolicyError> {
    match (fields.get(is), fields.get(is_not)) {
        (Some(_), Some(_)) => Err(PolicyError::Syntax),
        (Some(value), None) => Ok(Some(Rule::Is(value))),
        (None, Some(value)) => Ok(Some(Rule::IsNot(value))),
        (None, None) => Ok(None),
    }
}

/// A text or a list of texts.
fn texts(value: &Value) -> Result<Vec<String>, PolicyError> {
    match value {
        Value::String(text) => Ok(vec![text.clone()]),
        Value::Array(values) if !values.is_empty() => {
            let text = |value: &Value| value.as_str().map(str::to_owned).ok_or(PolicyError::Syntax);
            values.iter().map(text).collect()
        }
        _ => Err(PolicyError::Syntax),
    }
}

fn is_action(action: &str, of_bucket: bool) -> bool {
    match action.split_once(':') {
        None => action == "*",
        Some((service, name)) => {
            let is_service = service.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'*' | b'?' | b'-' | b'_');
            !name.is_empty()
                && name.bytes().all(is_name)
                && if of_bucket { service.eq_ignore_ascii_case("s3") } else { is_service && !service.is_empty() }
        }
    }
}

/// Whether a document may name this resource: that of a bucket its own ones only.
fn is_resource(resource: &str, kind: DocumentKind<'_>) -> bool {
    let DocumentKind::Bucket(bucket) = kind else { return resource == "*" || resource.starts_with("arn:") };
    if resource == "*" {
        return true;
    }
    let Some(path) = resource.strip_prefix(S3_ARN).and_then(after_account) else { return false };
    let named = path.split_once('/').map_or(path, |(named, _)| named);
    // A wildcard may reach over the slash: `arn:aws:s3:::b*` covers the keys too.
    matches(named, bucket) || Pattern::new(path, None).is_some_and(|pattern| pattern.matches(&format!("{bucket}/")))
}

/// Behind `region:account:`.
fn after_account(rest: &str) -> Option<&str> {
    let (_region, rest) = rest.split_once(':')?;
    rest.split_once(':').map(|(_account, path)| path)
}

/// Whether a resource pattern covers a resource; both are ARNs of S3, whose region and account tell nothing.
fn covers(pattern: &str, resource: &str, variables: Option<&Context>) -> bool {
    if pattern == "*" {
        return true;
    }
    let path = |arn: &str| arn.strip_prefix(S3_ARN).and_then(after_account).map(str::to_owned);
    match (path(pattern), path(resource)) {
        (Some(pattern), Some(path)) => Pattern::new(&pattern, variables).is_some_and(|one| one.matches(&path)),
        _ => Pattern::new(pattern, variables).is_some_and(|one| one.matches(resource)),
    }
}

#[cfg(test)]
mod tests;
