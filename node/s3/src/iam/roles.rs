//! Roles: what whoever their trust policy lets may take on for a while.

use meridian_object::{MemberKind, Profile, UserChange, UserRow, present};
use meridian_policy::DocumentKind;

use super::answer::{IamError, element, encoded_document};
use super::call::{Call, described};
use super::inline::{checked_document, counted};

/// Lives of sessions, in seconds (STS).
const SESSION_S_DEFAULT: u32 = 3600;
const SESSION_S_MAX: u32 = 12 * 3600;
/// Characters of a trust policy (IAM).
const TRUST_SIZE_MAX: usize = 2048;
/// Characters of a description (IAM).
const DESCRIPTION_LENGTH_MAX: usize = 1000;

impl Call<'_> {
    pub async fn create_role(&self) -> Result<String, IamError> {
        let profile = Profile {
            document: Some(self.trust_given("AssumeRolePolicyDocument")?),
            description: self.description_given()?,
            session_s_max: self.session_given()?.unwrap_or(SESSION_S_DEFAULT),
            ..Profile::default()
        };
        let row = self.create(MemberKind::Role, "iam:CreateRole", profile).await?;
        Ok(format!("<Role>{}</Role>", described(&row, true)))
    }

    pub async fn get_role(&self) -> Result<String, IamError> {
        let row = self.named(MemberKind::Role, "iam:GetRole").await?;
        Ok(format!("<Role>{}</Role>", described(&row, true)))
    }

    /// UpdateRole, UpdateRoleDescription.
    pub async fn update_role(&self, action: &str) -> Result<String, IamError> {
        let row = self.named(MemberKind::Role, &format!("iam:{action}")).await?;
        let mut profile = row.profile.clone();
        if let Some(description) = self.description_given()? {
            profile.description = Some(description);
        }
        if let Some(session_s) = self.session_given()? {
            profile.session_s_max = session_s;
        }
        let told = UserRow { profile: profile.clone(), ..row.clone() };
        self.change(&row, UserChange::Profile(profile)).await?;
        Ok(match action {
            "UpdateRoleDescription" => format!("<Role>{}</Role>", described(&told, true)),
            _ => String::new(),
        })
    }

    pub async fn update_trust(&self) -> Result<String, IamError> {
        let row = self.named(MemberKind::Role, "iam:UpdateAssumeRolePolicy").await?;
        let document = Some(self.trust_given("PolicyDocument")?);
        let profile = Profile { document, ..row.profile.clone() };
        self.change(&row, UserChange::Profile(profile)).await.map(|()| String::new())
    }

    pub async fn delete_role(&self) -> Result<String, IamError> {
        let row = self.named(MemberKind::Role, "iam:DeleteRole").await?;
        if present(&row.policies).next().is_some() {
            return Err(IamError::conflict("Cannot delete entity, must delete policies first."));
        }
        if present(&row.attached).next().is_some() {
            return Err(IamError::conflict("Cannot delete entity, must detach all policies first."));
        }
        self.change(&row, UserChange::Delete).await.map(|()| String::new())
    }

    /// There are none here; clients ask before they delete a role.
    pub async fn list_instance_profiles(&self) -> Result<String, IamError> {
        self.named(MemberKind::Role, "iam:ListInstanceProfilesForRole").await?;
        Ok(format!("<InstanceProfiles/>{}", element("IsTruncated", "false")))
    }

    fn trust_given(&self, field: &str) -> Result<String, IamError> {
        let document = checked_document(self.form.required(field)?, DocumentKind::Trust)?;
        if counted(&document) > TRUST_SIZE_MAX {
            return Err(IamError::limit(format!("Cannot exceed quota for ACLSizePerRole: {TRUST_SIZE_MAX}")));
        }
        Ok(document)
    }

    fn description_given(&self) -> Result<Option<String>, IamError> {
        match self.form.text("Description") {
            Some(text) if text.chars().count() > DESCRIPTION_LENGTH_MAX => {
                Err(IamError::invalid("description", "must have at most 1000 characters"))
            }
            text => Ok(text.map(str::to_owned)),
        }
    }

    fn session_given(&self) -> Result<Option<u32>, IamError> {
        let Some(text) = self.form.text("MaxSessionDuration") else { return Ok(None) };
        let session_s = text.parse().ok().filter(|session_s| (SESSION_S_DEFAULT..=SESSION_S_MAX).contains(session_s));
        session_s.map(Some).ok_or_else(|| IamError::invalid("maxSessionDuration", "must be between 3600 and 43200"))
    }
}

/// What of a role stands beside its name.
pub(super) fn role_elements(row: &UserRow) -> String {
    let profile = &row.profile;
    let mut text =
        element("AssumeRolePolicyDocument", &encoded_document(profile.document.as_deref().unwrap_or_default()));
    text.extend(profile.description.iter().map(|description| element("Description", description)));
    text.push_str(&element("MaxSessionDuration", &profile.session_s_max.to_string()));
    text
}
