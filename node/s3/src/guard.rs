//! The decision on a request: what it asks for, of which bucket and object, and whether its caller may.
//!
//! Invariants: nothing of a bucket's content is told to those who may not list it: an object that is not there is denied
//! to them like one that is; a policy that can't be read allows nothing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use http::HeaderMap;
use meridian_object::{AFTER_HEADER, BucketRow, DocumentKind as Setting, ObjectError, Objects};
use meridian_policy::{
    Acl, Caller, Context, DocumentKind, Need, Ownership, Permission, Policy, PublicAccessBlock, Question, Target,
    UserCaller, decide,
};
use parking_lot::Mutex;
use s3s::dto;
use s3s::{S3ErrorCode, S3Result};

use crate::acl_wire::object_acl;
use crate::actions::{Rule, rule_of};
use crate::config::Principal;
use crate::context::RequestContext;
use crate::document_xml::from_text;
use crate::errors::{access_denied, error, object_error};
use crate::extra_rules::rules_of_headers;
use crate::get::plain_read;
use crate::question::Asked;
use crate::wire_values::bucket_name;

/// Most parsed policies that are remembered; past it all are forgotten at once.
const POLICIES_MAX: usize = 1024;
/// Keys that ask for the tags of an object that is there, lower case.
const EXISTING_TAG: &str = "s3:existingobjecttag/";

/// Asks for a governance retention to be passed over, which is a right of its own.
const BYPASS_HEADER: &str = "x-amz-bypass-governance-retention";
const BYPASS_RULE: Rule = Rule { action: "s3:BypassGovernanceRetention", need: Need::Owner };

/// A bucket's name (none for a policy of a user) and the document.
type PolicyId = (String, Arc<str>);

/// Decides on requests.
pub(crate) struct Guard {
    objects: Objects,
    policies: Mutex<HashMap<PolicyId, Arc<Policy>>>,
}

/// What a bucket's configuration says of access.
pub(crate) struct BucketAccess {
    pub owner: String,
    pub policy: Option<Arc<Policy>>,
    pub acl: Acl,
    pub block: PublicAccessBlock,
    pub ownership: Ownership,
}

/// What an object says of access.
pub(crate) struct ObjectAccess {
    pub owner: String,
    pub acl: Acl,
    pub tags: Vec<(String, String)>,
}

impl Guard {
    pub fn new(objects: Objects) -> Self {
        Self { objects, policies: Mutex::new(HashMap::new()) }
    }

    pub fn now_unix_ms(&self) -> u64 {
        self.objects.now_unix_ms()
    }

    /// Waits for what the client has seen in other datacenters, the catalog included: before anything is decided.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no token, `ServiceUnavailable` when it is not here within the bound.
    pub async fn await_session(&self, headers: &HeaderMap, context: &RequestContext) -> S3Result<()> {
        let Some(token) = headers.get(AFTER_HEADER) else { return Ok(()) };
        // What is not even text is no token either.
        let awaited = self.objects.await_seen(token.to_str().unwrap_or_default()).await;
        awaited.map_err(|failure| object_error(failure, Some(context)))
    }

    /// Lets a request pass, or says why not. What was read on the way stays in `context`.
    ///
    /// # Errors
    /// `AccessDenied`, `NoSuchBucket`, `InvalidBucketName`.
    pub async fn check(
        &self,
        asked: Asked<'_>,
        path: Option<(&str, Option<&str>)>,
        context: &RequestContext,
    ) -> S3Result<()> {
        let caller = self.caller(asked.principal)?;
        let Some((bucket, key)) = path else {
            return self.check_account(asked, &caller, "s3:ListAllMyBuckets", "arn:aws:s3:::*");
        };
        let name = bucket_name(bucket)?;
        if asked.operation == "CreateBucket" {
            return self.check_account(asked, &caller, "s3:CreateBucket", &format!("arn:aws:s3:::{name}"));
        }
        let row = self.objects.head_bucket(&name).await.map_err(|failure| object_error(failure, Some(context)))?;
        let checked = self.check_bucket(asked, &caller, &row, key, context).await;
        context.set_bucket(row);
        checked
    }

    async fn check_bucket(
        &self,
        asked: Asked<'_>,
        caller: &Option<UserCaller>,
        row: &BucketRow,
        key: Option<&str>,
        context: &RequestContext,
    ) -> S3Result<()> {
        if caller.as_ref().is_some_and(|user| user.admin && user.session.is_none()) {
            return Ok(());
        }
        let access = self.bucket_access(row)?;
        let keys = asked.context();
        let version = asked.version();
        let rule = rule_of(asked.operation, version.is_some());
        let rule = rule.unwrap_or(Rule { action: "s3:Unknown", need: Need::Owner });
        let who = as_caller(caller);
        if asked.operation == "DeleteObjects" {
            context.set_denied(self.denied_deletes(asked, who, row, &access, &keys));
            return Ok(());
        }
        let may_bypass = self.may_bypass(asked, who, row, key.unwrap_or_default(), &keys, &access);
        let allowed = match key {
            None => ask(who, rule, &bucket_arn(row), &keys, &access, None),
            Some(key) => self.may_use_object(who, rule, row, key, version.as_deref(), keys, &access).await?,
        };
        let also = match (key, who.user()) {
            (Some(key), Some(user)) if !user.is_account() => {
                let arn = format!("{}/{key}", bucket_arn(row));
                let keys = asked.context();
                rules_of_headers(asked.operation, asked.headers)
                    .into_iter()
                    .all(|rule| ask(who, rule, &arn, &keys, &access, None))
            }
            _ => true,
        };
        if !allowed || !may_bypass || !also {
            return Err(access_denied());
        }
        match asked.operation {
            "CopyObject" | "UploadPartCopy" => self.check_source(asked, caller).await,
            _ => Ok(()),
        }
    }

    /// Whether a request that asks for a bypass of governance retention may have it; `true` for every other.
    fn may_bypass(
        &self,
        asked: Asked<'_>,
        who: Caller<'_>,
        row: &BucketRow,
        key: &str,
        keys: &Context,
        access: &BucketAccess,
    ) -> bool {
        let asks = asked.headers.get(BYPASS_HEADER).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));
        !asks || ask(who, BYPASS_RULE, &format!("{}/{key}", bucket_arn(row)), keys, access, None)
    }

    async fn may_use_object(
        &self,
        who: Caller<'_>,
        rule: Rule,
        row: &BucketRow,
        key: &str,
        version: Option<&str>,
        mut keys: Context,
        access: &BucketAccess,
    ) -> S3Result<bool> {
        let arn = format!("{}/{key}", bucket_arn(row));
        let asks_for_tags = access.policy.as_ref().is_some_and(|policy| policy.mentions(EXISTING_TAG))
            || who.user().is_some_and(|user| {
                user.policies.iter().chain(&user.session).any(|policy| policy.mentions(EXISTING_TAG))
            });
        if !asks_for_tags && !matches!(rule.need, Need::Object(_) | Need::ObjectOwner) {
            return Ok(ask(who, rule, &arn, &keys, access, None));
        }
        let object = self.object_access(row, key, version).await?;
        for (name, value) in object.iter().flat_map(|object| &object.tags) {
            keys.add(&format!("s3:ExistingObjectTag/{name}"), value.clone());
        }
        if object.is_some() || !matches!(rule.need, Need::Object(_) | Need::ObjectOwner) {
            return Ok(ask(who, rule, &arn, &keys, access, object.as_ref()));
        }
        // It is not there, and only those hear so who may list the bucket and would have been let in.
        let list = Rule { action: "s3:ListBucket", need: Need::Bucket(Permission::Read) };
        let need = if rule.need == Need::ObjectOwner { Need::Owner } else { list.need };
        Ok(ask(who, list, &bucket_arn(row), &keys, access, None)
            && ask(who, Rule { need, ..rule }, &arn, &keys, access, None))
    }

    async fn check_source(&self, asked: Asked<'_>, caller: &Option<UserCaller>) -> S3Result<()> {
        let source = asked.headers.get("x-amz-copy-source").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let Ok(dto::CopySource::Bucket { bucket, key, version_id }) = dto::CopySource::parse(source) else {
            return Ok(()); // the operation itself says what is wrong
        };
        let row =
            self.objects.head_bucket(&bucket_name(&bucket)?).await.map_err(|failure| object_error(failure, None))?;
        let access = self.bucket_access(&row)?;
        let version = version_id.as_deref();
        let Some(rule) = rule_of("GetObject", version.is_some()) else { return Err(access_denied()) };
        let keys = Asked { operation: "GetObject", ..asked }.context();
        let who = as_caller(caller);
        match self.may_use_object(who, rule, &row, &key, version, keys, &access).await? {
            true => Ok(()),
            false => Err(access_denied()),
        }
    }

    /// Of a DeleteObjects the places of the keys that may not be deleted.
    fn denied_deletes(
        &self,
        asked: Asked<'_>,
        who: Caller<'_>,
        row: &BucketRow,
        access: &BucketAccess,
        keys: &Context,
    ) -> HashSet<usize> {
        let body = asked.body.and_then(|body| std::str::from_utf8(body).ok()).unwrap_or_default();
        let Ok(delete) = from_text::<dto::Delete>(body) else { return HashSet::new() }; // s3s answers it
        let denied = |object: &dto::ObjectIdentifier| {
            let rule = rule_of("DeleteObject", object.version_id.is_some());
            let arn = format!("{}/{}", bucket_arn(row), object.key);
            !rule.is_some_and(|rule| ask(who, rule, &arn, keys, access, None))
                || !self.may_bypass(asked, who, row, &object.key, keys, access)
        };
        let objects = delete.objects.iter().enumerate();
        objects.filter(|(_, object)| denied(object)).map(|(place, _)| place).collect()
    }

    /// What concerns the caller's own account and no bucket.
    fn check_account(
        &self,
        asked: Asked<'_>,
        caller: &Option<UserCaller>,
        action: &str,
        resource: &str,
    ) -> S3Result<()> {
        let Some(user) = caller else { return Err(access_denied()) };
        let (context, acl) = (asked.context(), Acl::default());
        let target = Target {
            bucket_owner: &user.account,
            policy: None,
            acl: &acl,
            object: None,
            block: PublicAccessBlock::default(),
            ownership: Ownership::default(),
        };
        let question = Question { action, resource, context: &context, need: Need::Owner };
        if decide(Caller::User(user), question, target) { Ok(()) } else { Err(access_denied()) }
    }

    /// # Errors
    /// `AccessDenied` when a policy of the caller's can't be read.
    pub fn caller(&self, principal: Option<&Principal>) -> S3Result<Option<UserCaller>> {
        let Some(principal) = principal else { return Ok(None) };
        let identity = &principal.identity;
        let parse = |text: &Arc<str>| self.policy(text, DocumentKind::Identity);
        Ok(Some(UserCaller {
            id: identity.id.clone(),
            name: identity.name.clone(),
            account: identity.account.clone(),
            tenant: identity.tenant.clone(),
            admin: identity.admin,
            policies: identity.policies.iter().map(parse).collect::<S3Result<_>>()?,
            session: principal.session_policy.as_ref().map(parse).transpose()?,
            role_session: identity.role_session.clone(),
        }))
    }

    /// # Errors
    /// `AccessDenied` when the configuration can't be read.
    pub fn bucket_access(&self, row: &BucketRow) -> S3Result<BucketAccess> {
        let policy = row.settings.document(Setting::Policy);
        let policy = policy.map(|text| self.policy(&Arc::from(text), DocumentKind::Bucket(row.name.as_str())));
        Ok(BucketAccess {
            owner: row.owner.clone(),
            policy: policy.transpose()?,
            acl: bucket_acl(row)?,
            block: access_block(row)?,
            ownership: ownership(row)?,
        })
    }

    async fn object_access(&self, row: &BucketRow, key: &str, version: Option<&str>) -> S3Result<Option<ObjectAccess>> {
        let read = plain_read(row.name.clone(), key, version)?;
        let info = match self.objects.head(read).await {
            Ok(outcome) => outcome.info,
            Err(failure) if is_absence(&failure) => return Ok(None),
            Err(failure) => return Err(object_error(failure, None)),
        };
        let (owner, acl) = object_acl(row, &info.attributes)?;
        Ok(Some(ObjectAccess { owner, acl, tags: info.attributes.tags }))
    }

    fn policy(&self, text: &Arc<str>, kind: DocumentKind<'_>) -> S3Result<Arc<Policy>> {
        let bucket = match kind {
            DocumentKind::Bucket(name) => name.to_owned(),
            DocumentKind::Identity | DocumentKind::Trust => String::new(),
        };
        let id = (bucket, Arc::clone(text));
        if let Some(found) = self.policies.lock().get(&id) {
            return Ok(Arc::clone(found));
        }
        let policy = Policy::parse(text, kind).map_err(|failure| {
            tracing::error!(%failure, "a policy at rest can't be read, and so allows nothing");
            access_denied()
        })?;
        let policy = Arc::new(policy);
        let mut policies = self.policies.lock();
        if policies.len() >= POLICIES_MAX {
            policies.clear();
        }
        policies.insert(id, Arc::clone(&policy));
        Ok(policy)
    }
}

fn is_absence(failure: &ObjectError) -> bool {
    matches!(
        failure,
        ObjectError::NoSuchKey { .. } | ObjectError::NoSuchVersion { .. } | ObjectError::DeleteMarker { .. }
    )
}

fn as_caller(caller: &Option<UserCaller>) -> Caller<'_> {
    caller.as_ref().map_or(Caller::Anonymous, Caller::User)
}

fn ask(
    who: Caller<'_>,
    rule: Rule,
    resource: &str,
    context: &Context,
    access: &BucketAccess,
    object: Option<&ObjectAccess>,
) -> bool {
    let question = Question { action: rule.action, resource, context, need: rule.need };
    let target = Target {
        bucket_owner: &access.owner,
        policy: access.policy.as_deref(),
        acl: &access.acl,
        object: object.map(|object| (object.owner.as_str(), &object.acl)),
        block: access.block,
        ownership: access.ownership,
    };
    decide(who, question, target)
}

fn bucket_arn(row: &BucketRow) -> String {
    format!("arn:aws:s3:::{}", row.name)
}

/// # Errors
/// `InternalError` for a list at rest that can't be read.
pub(crate) fn bucket_acl(row: &BucketRow) -> S3Result<Acl> {
    match row.settings.document(Setting::Acl) {
        None => Ok(Acl::private(&row.owner)),
        Some(text) => Acl::from_text(text).map_err(|failure| unreadable(&failure.to_string())),
    }
}

pub(crate) fn access_block(row: &BucketRow) -> S3Result<PublicAccessBlock> {
    let Some(text) = row.settings.document(Setting::PublicAccessBlock) else { return Ok(PublicAccessBlock::default()) };
    let block: dto::PublicAccessBlockConfiguration = from_text(text)?;
    Ok(PublicAccessBlock {
        block_public_acls: block.block_public_acls == Some(true),
        ignore_public_acls: block.ignore_public_acls == Some(true),
        block_public_policy: block.block_public_policy == Some(true),
        restrict_public_buckets: block.restrict_public_buckets == Some(true),
    })
}

pub(crate) fn ownership(row: &BucketRow) -> S3Result<Ownership> {
    let Some(text) = row.settings.document(Setting::OwnershipControls) else { return Ok(Ownership::default()) };
    Ok(Ownership::from_name(text).unwrap_or_default())
}

fn unreadable(failure: &str) -> s3s::S3Error {
    tracing::error!(failure, "an access control list at rest can't be read");
    error(S3ErrorCode::InternalError, "We encountered an internal error. Please try again.")
}
