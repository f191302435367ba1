//! One call: who asks, for what, and what several actions have in common: finding members, asking whether the caller may,
//! names and paths, tags.

use meridian_object::{MemberKind, Objects, Profile, UserChange, UserRow, policy_arn};
use meridian_policy::{Context, UserCaller, decide_own};

use super::answer::{IamError, element, time};
use super::form::Form;
use super::page::page;
use crate::config::Principal;

/// Longest names (IAM).
pub(super) const USER_NAME_LENGTH_MAX: usize = 64;
pub(super) const NAME_LENGTH_MAX: usize = 128;

pub(super) struct Call<'a> {
    pub objects: &'a Objects,
    pub form: Form,
    pub principal: &'a Principal,
    pub caller: UserCaller,
    pub context: Context,
}

/// What IAM calls a kind.
#[derive(Debug, Clone, Copy)]
pub(super) struct Words {
    /// As in `UserName`.
    pub element: &'static str,
    /// As in ARNs and sentences.
    pub word: &'static str,
    pub name_length_max: usize,
}

pub(super) fn words(kind: MemberKind) -> Words {
    let (element, word, name_length_max) = match kind {
        MemberKind::User => ("User", "user", USER_NAME_LENGTH_MAX),
        MemberKind::Group => ("Group", "group", NAME_LENGTH_MAX),
        MemberKind::Role => ("Role", "role", USER_NAME_LENGTH_MAX),
        MemberKind::Policy => ("Policy", "policy", NAME_LENGTH_MAX),
    };
    Words { element, word, name_length_max }
}

/// The name that IAM knows a row by: administration's users go by their own.
pub(super) fn name_of(row: &UserRow) -> &str {
    if row.profile.is_member() { &row.profile.display_name } else { &row.name }
}

pub(super) fn path_of(row: &UserRow) -> &str {
    if row.profile.is_member() { &row.profile.path } else { "/" }
}

pub(super) fn arn_of(row: &UserRow) -> String {
    match row.profile.kind {
        MemberKind::Policy => policy_arn(row),
        _ if row.account() == row.profile.id => format!("arn:aws:iam::{}:root", row.account()),
        kind => format!("arn:aws:iam::{}:{}{}{}", row.account(), words(kind).word, path_of(row), name_of(row)),
    }
}

impl Call<'_> {
    pub fn account(&self) -> &str {
        &self.principal.identity.account
    }

    /// # Errors
    /// `AccessDenied`.
    pub fn may(&self, action: &str, resource: &str) -> Result<(), IamError> {
        if decide_own(&self.caller, action, resource, &self.context) {
            return Ok(());
        }
        let who = self.principal.identity.arn();
        let text = format!("User: {who} is not authorized to perform: {action} on resource: {resource}");
        Err(IamError::new("AccessDenied", 403, text))
    }

    /// The member that the form names, once the caller may do `action` with it.
    ///
    /// # Errors
    /// `ValidationError`, `AccessDenied`, `NoSuchEntity`.
    pub async fn named(&self, kind: MemberKind, action: &str) -> Result<UserRow, IamError> {
        let Words { element, word, name_length_max } = words(kind);
        let name = self.form.name(&format!("{element}Name"), name_length_max)?;
        let found = self.find(kind, name).await?;
        let arn = match &found {
            Some(row) => arn_of(row),
            None => format!("arn:aws:iam::{}:{word}/{name}", self.account()),
        };
        self.may(action, &arn)?;
        found.ok_or_else(|| IamError::no_such(word, name))
    }

    /// As `named`, or the caller itself where no user is named.
    ///
    /// # Errors
    /// As `named`.
    pub async fn named_or_self(&self, action: &str) -> Result<UserRow, IamError> {
        if self.form.text("UserName").is_some() {
            return self.named(MemberKind::User, action).await;
        }
        let identity = &self.principal.identity;
        let rows = self.objects.all_members().await?;
        let own = rows.into_iter().find(|row| row.profile.id == identity.id);
        self.may(action, &identity.arn())?;
        own.ok_or_else(|| IamError::no_such("user", &identity.name))
    }

    /// What the caller's account has by a name. An account finds itself too, and administrators every user, by name or id.
    pub async fn find(&self, kind: MemberKind, name: &str) -> Result<Option<UserRow>, IamError> {
        let rows = self.objects.all_members().await?;
        let of_kind = |row: &&UserRow| row.profile.kind == kind;
        let is_called = |row: &&UserRow| name_of(row).eq_ignore_ascii_case(name);
        let is_own = |row: &&UserRow| row.profile.account.as_deref() == Some(self.account());
        let own = rows.iter().filter(of_kind).filter(is_own).find(is_called);
        let found = own.or_else(|| {
            let is_it = |row: &&UserRow| row.name == name || row.profile.id == name;
            let reaches = |row: &&UserRow| self.caller.admin || row.profile.id == self.account();
            rows.iter().filter(of_kind).find(|row| is_it(row) && reaches(row))
        });
        Ok(found.cloned())
    }

    pub async fn change(&self, row: &UserRow, change: UserChange) -> Result<(), IamError> {
        Ok(self.objects.change_user(&row.name, change).await?)
    }

    /// ListUsers, ListGroups, ListRoles. Administrators see the accounts among their users.
    pub async fn list(&self, kind: MemberKind) -> Result<String, IamError> {
        let Words { element, word, .. } = words(kind);
        let prefix = self.form.text("PathPrefix").unwrap_or("/");
        self.may(&format!("iam:List{element}s"), &format!("arn:aws:iam::{}:{word}{prefix}", self.account()))?;
        let mut rows = self.objects.members(self.account(), kind).await?;
        if self.caller.admin && kind == MemberKind::User {
            let all = self.objects.all_members().await?;
            rows.extend(all.into_iter().filter(|row| row.profile.kind == kind && row.account() == row.profile.id));
        }
        let wanted = rows.iter().filter(|row| path_of(row).starts_with(prefix));
        let items =
            wanted.map(|row| (name_of(row).to_lowercase(), format!("<member>{}</member>", described(row, false))));
        page(&self.form, &format!("{element}s"), items.collect())
    }

    /// UpdateUser, UpdateGroup.
    pub async fn rename(&self, kind: MemberKind) -> Result<String, IamError> {
        let Words { element, word, name_length_max } = words(kind);
        let action = format!("iam:Update{element}");
        let row = self.named(kind, &action).await?;
        let mut profile = self.changeable(&row)?;
        let new_name = format!("New{element}Name");
        if self.form.text(&new_name).is_some() {
            profile.display_name = self.form.name(&new_name, name_length_max)?.to_owned();
        }
        if self.form.text("NewPath").is_some() {
            profile.path = self.form.path("NewPath")?;
        }
        self.may(&action, &format!("arn:aws:iam::{}:{word}{}{}", row.account(), profile.path, profile.display_name))?;
        let name = profile.display_name.clone();
        match self.change(&row, UserChange::Profile(profile)).await {
            Err(failure) if failure.code == "EntityAlreadyExists" => Err(IamError::exists(element, &name)),
            done => done.map(|()| String::new()),
        }
    }

    /// The profile of a row that IAM may change: not one of administration's.
    ///
    /// # Errors
    /// `UnmodifiableEntity`.
    pub fn changeable(&self, row: &UserRow) -> Result<Profile, IamError> {
        if row.profile.is_member() {
            return Ok(row.profile.clone());
        }
        Err(IamError::new("UnmodifiableEntity", 400, "This user was made by the cluster's administration."))
    }

    /// # Errors
    /// `AccessDenied`, `NoSuchEntity`.
    async fn tagged(&self, kind: MemberKind, action: &str) -> Result<UserRow, IamError> {
        match kind {
            MemberKind::Policy => self.own_policy(action).await,
            kind => self.named(kind, action).await,
        }
    }

    pub async fn tag(&self, kind: MemberKind) -> Result<String, IamError> {
        let row = self.tagged(kind, &format!("iam:Tag{}", words(kind).element)).await?;
        let mut profile = self.changeable(&row)?;
        profile.tags.extend(self.form.tags()?);
        Form::check_tag_count(profile.tags.len())?;
        self.change(&row, UserChange::Profile(profile)).await.map(|()| String::new())
    }

    pub async fn untag(&self, kind: MemberKind) -> Result<String, IamError> {
        let row = self.tagged(kind, &format!("iam:Untag{}", words(kind).element)).await?;
        let mut profile = self.changeable(&row)?;
        for key in self.form.members("TagKeys") {
            profile.tags.remove(key);
        }
        self.change(&row, UserChange::Profile(profile)).await.map(|()| String::new())
    }

    pub async fn list_tags(&self, kind: MemberKind) -> Result<String, IamError> {
        let row = self.tagged(kind, &format!("iam:List{}Tags", words(kind).element)).await?;
        let item = |(key, value): (&String, &String)| (key.clone(), member_tag(key, value));
        page(&self.form, "Tags", row.profile.tags.iter().map(item).collect())
    }
}

fn member_tag(key: &str, value: &str) -> String {
    format!("<member>{}{}</member>", element("Key", key), element("Value", value))
}

pub(super) fn tags_element(row: &UserRow) -> String {
    if row.profile.tags.is_empty() {
        return String::new();
    }
    let members: String = row.profile.tags.iter().map(|(key, value)| member_tag(key, value)).collect();
    format!("<Tags>{members}</Tags>")
}

/// What IAM tells of a user, group or role; `whole`: with its tags.
pub(super) fn described(row: &UserRow, whole: bool) -> String {
    let Words { element: kind, .. } = words(row.profile.kind);
    let mut text = [
        element("Path", path_of(row)),
        element(&format!("{kind}Name"), name_of(row)),
        element(&format!("{kind}Id"), &row.profile.id),
        element("Arn", &arn_of(row)),
        element("CreateDate", &time(row.profile.created_unix_ms)),
    ]
    .concat();
    if row.profile.kind == MemberKind::Role {
        text.push_str(&super::roles::role_elements(row));
    }
    if whole {
        text.push_str(&tags_element(row));
    }
    text
}
