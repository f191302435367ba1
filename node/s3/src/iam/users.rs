//! Users of an account.

use meridian_object::{MemberKind, NewMember, Profile, UserChange, present};

use super::answer::{IamError, element, time};
use super::call::{Call, USER_NAME_LENGTH_MAX, described, words};

impl Call<'_> {
    pub async fn create_user(&self) -> Result<String, IamError> {
        let row = self.create(MemberKind::User, "iam:CreateUser", Profile::default()).await?;
        Ok(format!("<User>{}</User>", described(&row, true)))
    }

    /// Makes what the form names in the caller's account.
    ///
    /// # Errors
    /// `ValidationError`, `AccessDenied`, `EntityAlreadyExists`.
    pub async fn create(
        &self,
        kind: MemberKind,
        action: &str,
        profile: Profile,
    ) -> Result<meridian_object::UserRow, IamError> {
        let words = words(kind);
        let name = self.form.name(&format!("{}Name", words.element), words.name_length_max)?.to_owned();
        let path = self.form.path("Path")?;
        self.may(action, &format!("arn:aws:iam::{}:{}{path}{name}", self.account(), words.word))?;
        if kind == MemberKind::User && self.find(kind, &name).await?.is_some_and(|row| row.account() == self.account())
        {
            return Err(IamError::exists(words.element, &name));
        }
        let profile = Profile { display_name: name.clone(), path, tags: self.form.tags()?, ..profile };
        let new = NewMember { account: self.account().to_owned(), kind, profile };
        match self.objects.create_member(new).await.map_err(IamError::from) {
            Err(failure) if failure.code == "EntityAlreadyExists" => Err(IamError::exists(words.element, &name)),
            made => made,
        }
    }

    /// Without a name: the caller. An account is told as IAM tells of a root user.
    pub async fn get_user(&self) -> Result<String, IamError> {
        if self.form.text("UserName").is_none() {
            let identity = &self.principal.identity;
            self.may("iam:GetUser", &identity.arn())?;
            if identity.is_account() {
                let created = time(identity.created_unix_ms);
                let parts = [
                    element("Path", "/"),
                    element("UserName", &identity.name),
                    element("UserId", &identity.id),
                    element("Arn", &identity.arn()),
                    element("CreateDate", &created),
                ];
                return Ok(format!("<User>{}</User>", parts.concat()));
            }
        }
        let row = self.named_or_self("iam:GetUser").await?;
        Ok(format!("<User>{}</User>", described(&row, true)))
    }

    pub async fn delete_user(&self) -> Result<String, IamError> {
        self.form.name("UserName", USER_NAME_LENGTH_MAX)?;
        let row = self.named(MemberKind::User, "iam:DeleteUser").await?;
        if row.account() == row.profile.id {
            return Err(IamError::new(
                "UnmodifiableEntity",
                400,
                "An account is deleted by the cluster's administration.",
            ));
        }
        for (held, text) in [
            (present(&row.access_keys).count(), "Cannot delete entity, must delete access keys first."),
            (present(&row.policies).count(), "Cannot delete entity, must delete policies first."),
            (present(&row.attached).count(), "Cannot delete entity, must detach all policies first."),
            (present(&row.groups).count(), "Cannot delete entity, must remove users from group first."),
        ] {
            if held > 0 {
                return Err(IamError::conflict(text));
            }
        }
        self.change(&row, UserChange::Delete).await.map(|()| String::new())
    }
}
