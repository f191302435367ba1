//! STS: who a caller is, and temporary credentials.

use meridian_object::{ADMINISTRATOR, MemberKind, Session, SessionClaims, SessionOf, UserRow};
use meridian_policy::{DocumentKind, Policy, decide_assume};

use super::answer::{IamError, element, time};
use super::call::{Call, arn_of};
use super::form::Form;
use super::inline::checked_document;

/// Lives of sessions, in seconds (STS).
const SESSION_S_MIN: u32 = 900;
const ASSUMED_S_DEFAULT: u32 = 3600;
/// Of a session that a session asks for.
const CHAINED_S_MAX: u32 = 3600;
const OWN_S_DEFAULT: u32 = 12 * 3600;
const OWN_S_MAX: u32 = 36 * 3600;
/// Of an account's own.
const ROOT_S_MAX: u32 = 3600;
/// Characters of a session policy (STS).
const POLICY_SIZE_MAX: usize = 2048;
const SESSION_NAME_LENGTH_MAX: usize = 64;

impl Call<'_> {
    /// Needs no permission (STS).
    pub fn caller_identity(&self) -> String {
        let identity = &self.principal.identity;
        [element("Arn", &identity.arn()), element("UserId", &identity.id), element("Account", &identity.account)]
            .concat()
    }

    pub async fn assume_role(&self) -> Result<String, IamError> {
        let arn = self.form.required("RoleArn")?;
        let session = self.form.name("RoleSessionName", SESSION_NAME_LENGTH_MAX)?;
        if session.len() < 2 {
            return Err(IamError::invalid("roleSessionName", "must have a length of 2 to 64"));
        }
        for field in ["PolicyArns.member.1.arn", "TokenCode"] {
            if self.form.text(field).is_some() {
                return Err(IamError::new("NotImplemented", 501, format!("{field} is not implemented here.")));
            }
        }
        let policy = self.session_policy()?;
        let tags = self.form.tags()?;
        let denied = || {
            let who = self.principal.identity.arn();
            let text = format!("User: {who} is not authorized to perform: sts:AssumeRole on resource: {arn}");
            IamError::new("AccessDenied", 403, text)
        };
        let role = self.role_by_arn(arn).await?.ok_or_else(denied)?;
        let trust = role.profile.document.as_deref().and_then(|text| Policy::parse(text, DocumentKind::Trust).ok());
        let mut context = self.context.clone();
        context.add("sts:RoleSessionName", session);
        if let Some(id) = self.form.text("ExternalId") {
            context.add("sts:ExternalId", id);
        }
        for (key, value) in &tags {
            context.add(&format!("aws:RequestTag/{key}"), value.clone());
            context.add("aws:TagKeys", key.clone());
        }
        let may = |trust: &Policy| decide_assume(&self.caller, &arn_of(&role), role.account(), trust, &context);
        if !trust.is_some_and(|trust| may(&trust)) {
            return Err(denied());
        }
        let life_s_max = match self.principal.identity.role_session {
            Some(_) => role.profile.session_s_max.min(CHAINED_S_MAX),
            None => role.profile.session_s_max,
        };
        let life_s = self.life_s(ASSUMED_S_DEFAULT.min(life_s_max), life_s_max)?;
        let of = SessionOf::Role { role: role.name.clone(), session: session.to_owned() };
        let credentials = self.credentials(of, life_s, policy, tags);
        let (account, name) = (role.account(), &role.profile.display_name);
        let user = [
            element("Arn", &format!("arn:aws:sts::{account}:assumed-role/{name}/{session}")),
            element("AssumedRoleId", &format!("{}:{session}", role.profile.id)),
        ];
        Ok(format!("<AssumedRoleUser>{}</AssumedRoleUser>{credentials}", user.concat()))
    }

    pub async fn session_token(&self) -> Result<String, IamError> {
        let identity = &self.principal.identity;
        if identity.role_session.is_some() {
            return Err(IamError::new("AccessDenied", 403, "Cannot call GetSessionToken with session credentials"));
        }
        let name = match identity.id == ADMINISTRATOR {
            true => ADMINISTRATOR.to_owned(), // it has no row
            false => {
                let rows = self.objects.all_members().await?;
                let own = rows.into_iter().find(|row| row.profile.id == identity.id);
                own.ok_or_else(|| IamError::no_such("user", &identity.name))?.name
            }
        };
        let life_s_max = if identity.is_account() { ROOT_S_MAX } else { OWN_S_MAX };
        let life_s = self.life_s(OWN_S_DEFAULT.min(life_s_max), life_s_max)?;
        Ok(self.credentials(SessionOf::User { name }, life_s, None, Default::default()))
    }

    fn credentials(
        &self,
        of: SessionOf,
        life_s: u32,
        policy: Option<String>,
        tags: std::collections::BTreeMap<String, String>,
    ) -> String {
        let expires_unix_ms = self.objects.now_unix_ms() + u64::from(life_s) * 1000;
        let made = self.objects.create_session(&SessionClaims { of, expires_unix_ms, policy, tags });
        let Session { access_key, secret_key, token } = made;
        let parts = [
            element("AccessKeyId", &access_key),
            element("SecretAccessKey", &secret_key),
            element("SessionToken", &token),
            element("Expiration", &time(expires_unix_ms)),
        ];
        format!("<Credentials>{}</Credentials>", parts.concat())
    }

    /// A role of any account: whether the caller may is asked of its trust policy.
    async fn role_by_arn(&self, arn: &str) -> Result<Option<UserRow>, IamError> {
        let invalid = || IamError::invalid("roleArn", "must be the ARN of a role");
        let rest = arn.strip_prefix("arn:aws:iam::").ok_or_else(invalid)?;
        let (account, name) = rest.split_once(":role/").ok_or_else(invalid)?;
        let account = if account.is_empty() { self.account() } else { account };
        let wanted = format!("arn:aws:iam::{account}:role/{name}");
        let roles = self.objects.members(account, MemberKind::Role).await?;
        let named = |row: &UserRow| arn_of(row).eq_ignore_ascii_case(&wanted);
        Ok(roles.into_iter().find(named))
    }

    fn session_policy(&self) -> Result<Option<String>, IamError> {
        let Some(text) = self.form.text("Policy") else { return Ok(None) };
        if text.chars().count() > POLICY_SIZE_MAX {
            return Err(IamError::invalid("policy", "must have at most 2048 characters"));
        }
        checked_document(text, DocumentKind::Identity).map(Some)
    }

    fn life_s(&self, default: u32, max: u32) -> Result<u32, IamError> {
        life_s(&self.form, default, max)
    }
}

fn life_s(form: &Form, default: u32, max: u32) -> Result<u32, IamError> {
    let Some(text) = form.text("DurationSeconds") else { return Ok(default) };
    let life_s = text.parse().ok().filter(|life_s| (SESSION_S_MIN..=max).contains(life_s));
    life_s.ok_or_else(|| {
        let text = format!("must be between {SESSION_S_MIN} and {max}, the longest that this session may live");
        IamError::invalid("durationSeconds", &text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_stay_within_their_bounds() {
        let life = |text: &str| life_s(&Form::parse(text.as_bytes()).ok().unwrap(), 3600, 7200);
        assert_eq!(life("").unwrap(), 3600);
        assert_eq!(life("DurationSeconds=7200").unwrap(), 7200);
        for bad in ["899", "7201", "x", "-1"] {
            assert_eq!(life(&format!("DurationSeconds={bad}")).unwrap_err().code, "ValidationError", "{bad}");
        }
    }
}
