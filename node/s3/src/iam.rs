//! The query API of IAM and STS at the S3 endpoint: a form posted to `/` under a signature for `iam` or `sts`, answered in
//! the XML of those services. An account manages its own users, groups, roles and policies by it; administrators manage all.
//!
//! Whether a caller may is asked of the same policies as everything else, under `iam:…` and `sts:…` names. Invariants: no
//! action runs before its signature is verified; an answer tells a secret key only to who has just made it; a caller who
//! may not is told so before it is told whether the thing exists.
//!
//! Source: <https://docs.aws.amazon.com/IAM/latest/APIReference/Welcome.html>,
//! <https://docs.aws.amazon.com/STS/latest/APIReference/welcome.html>

mod answer;
mod call;
mod form;
mod groups;
mod inline;
mod keys;
mod managed;
mod page;
mod roles;
mod sts;
mod users;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http::{Method, Response};
use meridian_object::{MemberKind, Objects, SessionError};
use meridian_sigv4::{Claim, PayloadHash, Verifier, VerifyError};
use s3s::Body;

use crate::auth::session_token;
use crate::config::{CredentialsProvider, Principal};
use crate::context::RequestContext;
use crate::guard::Guard;
use crate::question::Asked;

pub(crate) use answer::IamError;
use answer::{Service, failure_answer, success_answer};
use call::Call;
use form::Form;

/// Largest form: two policy documents, escaped, fit.
const FORM_SIZE_MAX: u64 = 256 << 10;
const FORM_TYPE: &str = "application/x-www-form-urlencoded";

/// Answers the requests of IAM and STS of one gateway.
pub(crate) struct Iam {
    objects: Objects,
    credentials: Arc<dyn CredentialsProvider>,
    guard: Arc<Guard>,
    iam: Verifier,
    sts: Verifier,
}

impl Iam {
    pub fn new(objects: Objects, credentials: Arc<dyn CredentialsProvider>, guard: Arc<Guard>) -> Self {
        Self { objects, credentials, guard, iam: Verifier::new("iam"), sts: Verifier::new("sts") }
    }

    /// Whether a request is one of theirs: S3 has no form that is posted to `/`.
    pub fn is_query(parts: &Parts) -> bool {
        let content_type = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let content_type = content_type.split(';').next().unwrap_or_default().trim();
        parts.method == Method::POST && parts.uri.path() == "/" && content_type.eq_ignore_ascii_case(FORM_TYPE)
    }

    /// Whether a form is too long to be read.
    pub fn is_too_long(parts: &Parts) -> bool {
        let length = parts.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        length.is_none_or(|length| length > FORM_SIZE_MAX)
    }

    pub fn too_long(context: &RequestContext) -> Response<Body> {
        failure_answer(Service::Iam, &IamError::new("RequestEntityTooLarge", 413, "The form is too long."), &context.id)
    }

    /// Answers a request whose body has been read.
    pub async fn answer(&self, parts: &Parts, body: &Bytes, context: &RequestContext) -> Response<Body> {
        let form = Form::parse(body);
        let service = Service::of(form.as_ref().ok().and_then(|form| form.text("Version")));
        let answer = match form {
            Ok(form) => self.run(parts, body, form, context).await,
            Err(failure) => Err(failure),
        };
        match answer {
            Ok((action, result)) => success_answer(service, action, &result, &context.id),
            Err(failure) => failure_answer(service, &failure, &context.id),
        }
    }

    async fn run(
        &self,
        parts: &Parts,
        body: &Bytes,
        form: Form,
        context: &RequestContext,
    ) -> Result<(&'static str, String), IamError> {
        let name = form.required("Action")?.to_owned();
        if UNSIGNED.contains(&name.as_str()) {
            return Err(IamError::new("NotImplemented", 501, format!("{name} is not implemented here.")));
        }
        let principal = Arc::new(self.authenticate(parts, body).await?);
        context.set_principal(Arc::clone(&principal));
        let Some(action) = ACTIONS.iter().find(|action| **action == name) else {
            return match KNOWN_ELSEWHERE.contains(&name.as_str()) {
                true => Err(IamError::new("NotImplemented", 501, format!("{name} is not implemented here."))),
                false => Err(IamError::new("InvalidAction", 400, format!("Could not find operation {name}."))),
            };
        };
        context.set_operation(action);
        let asked = Asked {
            operation: action,
            uri: &parts.uri,
            headers: &parts.headers,
            peer: context.peer,
            secure: context.secure,
            now_unix_ms: self.guard.now_unix_ms(),
            body: None,
            principal: Some(&principal),
        };
        let denied = |_| IamError::new("AccessDenied", 403, "A policy of the caller can't be read.");
        let caller = self.guard.caller(Some(&principal)).map_err(denied)?.ok_or_else(IamError::missing_token)?;
        let call = Call { objects: &self.objects, form, principal: &principal, caller, context: asked.context() };
        Ok((action, dispatch(&call, action).await?))
    }

    async fn authenticate(&self, parts: &Parts, body: &Bytes) -> Result<Principal, IamError> {
        let claim = Claim::parse(parts).map_err(signature_error)?;
        let verifier = match claim.scope().service.as_str() {
            "sts" => &self.sts,
            _ => &self.iam, // says what it expected
        };
        let principal = self.claimed(claim.access_key(), session_token(&parts.headers, &parts.uri)).await?;
        let (hash, now_unix_ms) = (PayloadHash::of(body), self.guard.now_unix_ms());
        verifier.verify(parts, &claim, &principal.secret_key, Some(&hash), now_unix_ms).map_err(signature_error)?;
        Ok(principal)
    }

    /// Who the request says that it is from.
    async fn claimed(&self, access_key: &str, token: Option<String>) -> Result<Principal, IamError> {
        let is_session = self.credentials.session_secret(access_key).is_some();
        match (is_session, token) {
            (false, None) => {
                let found = self.credentials.principal(access_key).await;
                found.map_err(|failure| users_unknown(&failure))?.ok_or_else(unknown_key)
            }
            (true, Some(token)) => {
                self.credentials.session(access_key, &token).await.map_err(|failure| match failure {
                    SessionError::Invalid | SessionError::Gone => unknown_key(),
                    SessionError::Expired => {
                        IamError::new("ExpiredToken", 403, "The security token included in the request is expired")
                    }
                    SessionError::Unknown(failure) => users_unknown(&failure),
                })
            }
            (true, None) | (false, Some(_)) => Err(unknown_key()),
        }
    }
}

fn unknown_key() -> IamError {
    IamError::new("InvalidClientTokenId", 403, "The security token included in the request is invalid.")
}

fn users_unknown(failure: &dyn std::fmt::Display) -> IamError {
    tracing::warn!(%failure, "the users can't be asked");
    IamError::new("ServiceUnavailable", 503, "The users can't be asked now. Please try again.")
}

fn signature_error(failure: VerifyError) -> IamError {
    match failure {
        VerifyError::Missing => IamError::missing_token(),
        VerifyError::Malformed | VerifyError::Date | VerifyError::Unsigned(_) => {
            IamError::new("IncompleteSignature", 400, failure.to_string())
        }
        VerifyError::Skewed { .. } | VerifyError::Service { .. } | VerifyError::Payload => {
            IamError::new("SignatureDoesNotMatch", 403, failure.to_string())
        }
        VerifyError::Mismatch => IamError::new(
            "SignatureDoesNotMatch",
            403,
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret \
             Access Key and signing method.",
        ),
    }
}

/// What is offered.
const ACTIONS: [&str; 65] = [
    "AddUserToGroup",
    "AssumeRole",
    "AttachGroupPolicy",
    "AttachRolePolicy",
    "AttachUserPolicy",
    "CreateAccessKey",
    "CreateGroup",
    "CreatePolicy",
    "CreateRole",
    "CreateUser",
    "DeleteAccessKey",
    "DeleteGroup",
    "DeleteGroupPolicy",
    "DeletePolicy",
    "DeleteRole",
    "DeleteRolePolicy",
    "DeleteUser",
    "DeleteUserPolicy",
    "DetachGroupPolicy",
    "DetachRolePolicy",
    "DetachUserPolicy",
    "GetCallerIdentity",
    "GetGroup",
    "GetGroupPolicy",
    "GetPolicy",
    "GetPolicyVersion",
    "GetRole",
    "GetRolePolicy",
    "GetSessionToken",
    "GetUser",
    "GetUserPolicy",
    "ListAccessKeys",
    "ListAttachedGroupPolicies",
    "ListAttachedRolePolicies",
    "ListAttachedUserPolicies",
    "ListEntitiesForPolicy",
    "ListGroupPolicies",
    "ListGroups",
    "ListGroupsForUser",
    "ListInstanceProfilesForRole",
    "ListPolicies",
    "ListPolicyVersions",
    "ListRolePolicies",
    "ListRoleTags",
    "ListRoles",
    "ListUserPolicies",
    "ListUserTags",
    "ListUsers",
    "PutGroupPolicy",
    "PutRolePolicy",
    "PutUserPolicy",
    "RemoveUserFromGroup",
    "TagPolicy",
    "TagRole",
    "TagUser",
    "UntagPolicy",
    "UntagRole",
    "UntagUser",
    "ListPolicyTags",
    "UpdateAccessKey",
    "UpdateAssumeRolePolicy",
    "UpdateGroup",
    "UpdateRole",
    "UpdateRoleDescription",
    "UpdateUser",
];

/// Actions that bring a proof of another kind than a signature; none is taken yet.
const UNSIGNED: [&str; 2] = ["AssumeRoleWithSAML", "AssumeRoleWithWebIdentity"];

/// Actions of these services that are answered 501 and not as unknown.
const KNOWN_ELSEWHERE: [&str; 15] = [
    "CreateInstanceProfile",
    "CreateLoginProfile",
    "CreateOpenIDConnectProvider",
    "CreatePolicyVersion",
    "CreateSAMLProvider",
    "CreateServiceLinkedRole",
    "DecodeAuthorizationMessage",
    "DeletePolicyVersion",
    "GetAccessKeyLastUsed",
    "GetAccountSummary",
    "GetFederationToken",
    "ListMFADevices",
    "PutUserPermissionsBoundary",
    "SetDefaultPolicyVersion",
    "SimulatePrincipalPolicy",
];

/// Runs one of `ACTIONS`; the answer is the inside of its result element.
async fn dispatch(call: &Call<'_>, action: &str) -> Result<String, IamError> {
    use MemberKind::{Group, Policy, Role, User};
    match action {
        "CreateUser" => call.create_user().await,
        "GetUser" => call.get_user().await,
        "ListUsers" => call.list(User).await,
        "UpdateUser" => call.rename(User).await,
        "DeleteUser" => call.delete_user().await,
        "CreateAccessKey" => call.create_access_key().await,
        "ListAccessKeys" => call.list_access_keys().await,
        "UpdateAccessKey" => call.update_access_key().await,
        "DeleteAccessKey" => call.delete_access_key().await,
        "CreateGroup" => call.create_group().await,
        "GetGroup" => call.get_group().await,
        "ListGroups" => call.list(Group).await,
        "UpdateGroup" => call.rename(Group).await,
        "DeleteGroup" => call.delete_group().await,
        "AddUserToGroup" => call.set_membership(true).await,
        "RemoveUserFromGroup" => call.set_membership(false).await,
        "ListGroupsForUser" => call.list_groups_for_user().await,
        "CreateRole" => call.create_role().await,
        "GetRole" => call.get_role().await,
        "ListRoles" => call.list(Role).await,
        "UpdateRole" | "UpdateRoleDescription" => call.update_role(action).await,
        "UpdateAssumeRolePolicy" => call.update_trust().await,
        "DeleteRole" => call.delete_role().await,
        "ListInstanceProfilesForRole" => call.list_instance_profiles().await,
        "CreatePolicy" => call.create_policy().await,
        "GetPolicy" => call.get_policy().await,
        "GetPolicyVersion" => call.get_policy_version().await,
        "ListPolicyVersions" => call.list_policy_versions().await,
        "ListPolicies" => call.list_policies().await,
        "DeletePolicy" => call.delete_policy().await,
        "ListEntitiesForPolicy" => call.list_entities_for_policy().await,
        "PutUserPolicy" => call.put_inline(User).await,
        "GetUserPolicy" => call.get_inline(User).await,
        "ListUserPolicies" => call.list_inline(User).await,
        "DeleteUserPolicy" => call.delete_inline(User).await,
        "PutGroupPolicy" => call.put_inline(Group).await,
        "GetGroupPolicy" => call.get_inline(Group).await,
        "ListGroupPolicies" => call.list_inline(Group).await,
        "DeleteGroupPolicy" => call.delete_inline(Group).await,
        "PutRolePolicy" => call.put_inline(Role).await,
        "GetRolePolicy" => call.get_inline(Role).await,
        "ListRolePolicies" => call.list_inline(Role).await,
        "DeleteRolePolicy" => call.delete_inline(Role).await,
        "AttachUserPolicy" => call.set_attached(User, true).await,
        "DetachUserPolicy" => call.set_attached(User, false).await,
        "ListAttachedUserPolicies" => call.list_attached(User).await,
        "AttachGroupPolicy" => call.set_attached(Group, true).await,
        "DetachGroupPolicy" => call.set_attached(Group, false).await,
        "ListAttachedGroupPolicies" => call.list_attached(Group).await,
        "AttachRolePolicy" => call.set_attached(Role, true).await,
        "DetachRolePolicy" => call.set_attached(Role, false).await,
        "ListAttachedRolePolicies" => call.list_attached(Role).await,
        "TagUser" => call.tag(User).await,
        "UntagUser" => call.untag(User).await,
        "ListUserTags" => call.list_tags(User).await,
        "TagRole" => call.tag(Role).await,
        "UntagRole" => call.untag(Role).await,
        "ListRoleTags" => call.list_tags(Role).await,
        "TagPolicy" => call.tag(Policy).await,
        "UntagPolicy" => call.untag(Policy).await,
        "ListPolicyTags" => call.list_tags(Policy).await,
        "GetCallerIdentity" => Ok(call.caller_identity()),
        "AssumeRole" => call.assume_role().await,
        "GetSessionToken" => call.session_token().await,
        _ => Err(IamError::new("InvalidAction", 400, "Could not find operation.")), // never: they are all of `ACTIONS`
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_forms_posted_to_the_root_are_theirs() {
        let parts = |method: Method, uri: &str, content_type: &str| {
            let request = http::Request::builder().method(method).uri(uri).header(CONTENT_TYPE, content_type);
            request.body(()).unwrap().into_parts().0
        };
        assert!(Iam::is_query(&parts(Method::POST, "/", "application/x-www-form-urlencoded; charset=utf-8")));
        assert!(!Iam::is_query(&parts(Method::POST, "/b", FORM_TYPE)));
        assert!(!Iam::is_query(&parts(Method::PUT, "/", FORM_TYPE)));
        assert!(!Iam::is_query(&parts(Method::POST, "/", "multipart/form-data; boundary=x")));
        assert!(Iam::is_too_long(&parts(Method::POST, "/", FORM_TYPE)));
    }
}
