//! Groups of an account's users: policies that all of their members have.

use meridian_object::{MemberKind, Profile, UserChange, UserRow, present};

use super::answer::IamError;
use super::call::{Call, described, name_of};
use super::page::page;

/// Most groups of one user (IAM).
const GROUPS_MAX: usize = 10;

impl Call<'_> {
    pub async fn create_group(&self) -> Result<String, IamError> {
        let row = self.create(MemberKind::Group, "iam:CreateGroup", Profile::default()).await?;
        Ok(format!("<Group>{}</Group>", described(&row, false)))
    }

    pub async fn get_group(&self) -> Result<String, IamError> {
        let row = self.named(MemberKind::Group, "iam:GetGroup").await?;
        let users = self.users_of(&row).await?;
        let item =
            |user: &UserRow| (name_of(user).to_lowercase(), format!("<member>{}</member>", described(user, false)));
        let users = page(&self.form, "Users", users.iter().map(item).collect())?;
        Ok(format!("<Group>{}</Group>{users}", described(&row, false)))
    }

    pub async fn delete_group(&self) -> Result<String, IamError> {
        let row = self.named(MemberKind::Group, "iam:DeleteGroup").await?;
        if !self.users_of(&row).await?.is_empty() {
            return Err(IamError::conflict("Cannot delete entity, must remove users from group first."));
        }
        if present(&row.policies).next().is_some() {
            return Err(IamError::conflict("Cannot delete entity, must delete policies first."));
        }
        if present(&row.attached).next().is_some() {
            return Err(IamError::conflict("Cannot delete entity, must detach all policies first."));
        }
        self.change(&row, UserChange::Delete).await.map(|()| String::new())
    }

    /// AddUserToGroup, RemoveUserFromGroup.
    pub async fn set_membership(&self, member: bool) -> Result<String, IamError> {
        let action = if member { "iam:AddUserToGroup" } else { "iam:RemoveUserFromGroup" };
        let group = self.named(MemberKind::Group, action).await?;
        let name = self.form.name("UserName", super::call::USER_NAME_LENGTH_MAX)?;
        let user = self.find(MemberKind::User, name).await?;
        let user = user.filter(|user| user.account() == group.account());
        let user = user.ok_or_else(|| IamError::no_such("user", name))?;
        let groups: Vec<&str> = present(&user.groups).map(|(group, ())| group).collect();
        if groups.contains(&group.name.as_str()) == member {
            return Ok(String::new());
        }
        if member && groups.len() >= GROUPS_MAX {
            return Err(IamError::limit(format!("Cannot exceed quota for GroupsPerUser: {GROUPS_MAX}")));
        }
        let change = UserChange::Group { name: group.name.clone(), member };
        self.change(&user, change).await.map(|()| String::new())
    }

    pub async fn list_groups_for_user(&self) -> Result<String, IamError> {
        let user = self.named(MemberKind::User, "iam:ListGroupsForUser").await?;
        let groups = self.objects.members(user.account(), MemberKind::Group).await?;
        let of_user = groups.iter().filter(|group| present(&user.groups).any(|(name, ())| name == group.name));
        let item = |row: &UserRow| (name_of(row).to_lowercase(), format!("<member>{}</member>", described(row, false)));
        page(&self.form, "Groups", of_user.map(item).collect())
    }

    async fn users_of(&self, group: &UserRow) -> Result<Vec<UserRow>, IamError> {
        let mut users = self.objects.members(group.account(), MemberKind::User).await?;
        users.retain(|user| present(&user.groups).any(|(name, ())| name == group.name));
        Ok(users)
    }
}
