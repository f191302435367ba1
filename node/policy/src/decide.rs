//! The decision: policies of the caller, the bucket's policy and the lists, put together.
//!
//! A caller of the bucket's own account needs one allow: its own (an account has all of them), or the bucket policy's that
//! names the caller itself; one that names only the account leaves it to the account's own policies.
//! One of another account, or nobody, needs an allow of the bucket: its policy, or a list. Lists decide on what they
//! grant: reading and writing. Whatever else there is belongs to the bucket's owner.

use crate::access_block::{Ownership, PublicAccessBlock};
use crate::acl::{Acl, Permission};
use crate::caller::{Caller, Context, UserCaller};
use crate::document::{Effect, Policy};

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Such as `s3:GetObject`.
    pub action: &'a str,
    /// Such as `arn:aws:s3:::bucket/key`.
    pub resource: &'a str,
    pub context: &'a Context,
    pub need: Need,
}

/// Which grant of a list stands for an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// None: the bucket's owner may, and whom policies allow.
    Owner,
    /// None: as `Owner`, and the object's owner too.
    ObjectOwner,
    /// On the bucket.
    Bucket(Permission),
    /// On the object.
    Object(Permission),
}

/// What it is asked of.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Canonical id.
    pub bucket_owner: &'a str,
    pub policy: Option<&'a Policy>,
    pub acl: &'a Acl,
    /// The object's owner and list, where there is an object.
    pub object: Option<(&'a str, &'a Acl)>,
    pub block: PublicAccessBlock,
    pub ownership: Ownership,
}

/// What the account of a bucket's owner can always do, so that nobody locks himself out.
const NEVER_LOCKED_OUT: [&str; 3] = ["s3:GetBucketPolicy", "s3:PutBucketPolicy", "s3:DeleteBucketPolicy"];

/// Whether the caller may.
pub fn decide(caller: Caller<'_>, question: Question<'_>, target: Target<'_>) -> bool {
    let Question { action, resource, context, .. } = question;
    if let Some(user) = caller.user().filter(|user| user.admin) {
        return session_allows(user, action, resource, context);
    }
    let is_own = caller.is_of(target.bucket_owner);
    let is_rescue = is_own && caller.user().is_some_and(UserCaller::is_account) && NEVER_LOCKED_OUT.contains(&action);
    let said = match target.policy.and_then(|policy| policy.effect(Some(caller), action, resource, context)) {
        Some(Effect::Deny) if !is_rescue => return false,
        Some(Effect::Allow) => !(target.block.restrict_public_buckets && !is_own && is_public(target)),
        Some(Effect::Deny) | None => false,
    };
    let own_allows = match caller {
        Caller::Anonymous => true,
        Caller::User(user) => match of_identity(user, action, resource, context) {
            Some(Effect::Deny) => return false,
            Some(Effect::Allow) => true,
            None => user.is_account(),
        },
    };
    if caller.user().is_some_and(|user| !session_allows(user, action, resource, context)) {
        return false;
    }
    let resource_allows = said || owns_or_is_granted(caller, question.need, target);
    // Inside one account a bucket policy that names the caller is enough; across accounts both sides must allow.
    let names_caller = || match (caller, target.policy) {
        (Caller::User(user), Some(policy)) => policy.allows_itself(user, action, resource, context),
        _ => false,
    };
    resource_allows && (own_allows || (said && is_own && names_caller()))
}

/// Whether a caller may do something in its own account that concerns no bucket.
pub fn decide_own(user: &UserCaller, action: &str, resource: &str, context: &Context) -> bool {
    (user.admin || own_allows(user, action, resource, context)) && session_allows(user, action, resource, context)
}

/// Whether a caller may take on a role of `account` whose trust policy is `trust`. As for buckets: inside one account a
/// trust policy that names the caller is enough, else both sides must allow.
pub fn decide_assume(caller: &UserCaller, role: &str, account: &str, trust: &Policy, context: &Context) -> bool {
    const ACTION: &str = "sts:AssumeRole";
    if trust.effect(Some(Caller::User(caller)), ACTION, role, context) != Some(Effect::Allow) {
        return false;
    }
    let own = of_identity(caller, ACTION, role, context);
    let names_caller = caller.account == account && trust.allows_itself(caller, ACTION, role, context);
    own != Some(Effect::Deny)
        && (names_caller || own == Some(Effect::Allow) || caller.is_account() || caller.admin)
        && session_allows(caller, ACTION, role, context)
}

fn own_allows(user: &UserCaller, action: &str, resource: &str, context: &Context) -> bool {
    match of_identity(user, action, resource, context) {
        Some(effect) => effect == Effect::Allow,
        None => user.is_account(),
    }
}

fn session_allows(user: &UserCaller, action: &str, resource: &str, context: &Context) -> bool {
    let allows = |policy: &Policy| policy.effect(None, action, resource, context) == Some(Effect::Allow);
    user.session.as_ref().is_none_or(|policy| allows(policy))
}

fn is_public(target: Target<'_>) -> bool {
    target.policy.is_some_and(Policy::is_public)
}

fn of_identity(user: &UserCaller, action: &str, resource: &str, context: &Context) -> Option<Effect> {
    let effects = user.policies.iter().filter_map(|policy| policy.effect(None, action, resource, context));
    effects.reduce(|one, other| if one == Effect::Deny { one } else { other })
}

fn owns_or_is_granted(caller: Caller<'_>, need: Need, target: Target<'_>) -> bool {
    let owns_bucket = caller.is_of(target.bucket_owner);
    if target.ownership.is_enforced() {
        return owns_bucket; // lists are off
    }
    let ignore_public = target.block.ignore_public_acls;
    let always = |permission| matches!(permission, Permission::ReadAcp | Permission::WriteAcp);
    let owns_object = || target.object.is_some_and(|(owner, _)| caller.is_of(owner));
    match need {
        Need::Owner => owns_bucket,
        Need::ObjectOwner => owns_bucket || owns_object(),
        Need::Bucket(permission) => {
            (owns_bucket && always(permission)) || target.acl.permits(caller, permission, ignore_public)
        }
        Need::Object(permission) => {
            let granted = |(_, acl): (&str, &Acl)| acl.permits(caller, permission, ignore_public);
            (owns_object() && always(permission)) || target.object.is_some_and(granted)
        }
    }
}

#[cfg(test)]
mod tests;
