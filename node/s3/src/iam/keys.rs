//! Access keys of users: the caller's own where no user is named.

use meridian_object::{AccessKey, NewKey, UserChange, UserRow, present};

use super::answer::{IamError, element, time};
use super::call::{Call, name_of};
use super::page::page;

/// Most access keys of one user (IAM). Administration may give more.
const KEYS_MAX: usize = 2;

impl Call<'_> {
    pub async fn create_access_key(&self) -> Result<String, IamError> {
        let row = self.named_or_self("iam:CreateAccessKey").await?;
        if present(&row.access_keys).count() >= KEYS_MAX {
            return Err(IamError::limit(format!("Cannot exceed quota for AccessKeysPerUser: {KEYS_MAX}")));
        }
        let key = self.objects.create_access_key(&row.name, NewKey::Generated).await?;
        let parts = [
            element("UserName", name_of(&row)),
            element("AccessKeyId", &key.access_key),
            element("Status", "Active"),
            element("SecretAccessKey", &key.secret_key),
            element("CreateDate", &time(self.objects.now_unix_ms())),
        ];
        Ok(format!("<AccessKey>{}</AccessKey>", parts.concat()))
    }

    pub async fn list_access_keys(&self) -> Result<String, IamError> {
        let row = self.named_or_self("iam:ListAccessKeys").await?;
        let item = |(access_key, key): (&str, &AccessKey)| {
            let parts = [
                element("UserName", name_of(&row)),
                element("AccessKeyId", access_key),
                element("Status", if key.active { "Active" } else { "Inactive" }),
                element("CreateDate", &time(key.created_unix_ms)),
            ];
            (access_key.to_owned(), format!("<member>{}</member>", parts.concat()))
        };
        page(&self.form, "AccessKeyMetadata", present(&row.access_keys).map(item).collect())
    }

    pub async fn update_access_key(&self) -> Result<String, IamError> {
        let row = self.named_or_self("iam:UpdateAccessKey").await?;
        let active = match self.form.required("Status")? {
            "Active" => true,
            "Inactive" => false,
            _ => return Err(IamError::invalid("status", "must be Active or Inactive")),
        };
        let access_key = self.named_key(&row)?;
        self.change(&row, UserChange::SetAccessKeyActive { access_key, active }).await.map(|()| String::new())
    }

    pub async fn delete_access_key(&self) -> Result<String, IamError> {
        let row = self.named_or_self("iam:DeleteAccessKey").await?;
        let access_key = self.named_key(&row)?;
        self.change(&row, UserChange::DeleteAccessKey { access_key }).await.map(|()| String::new())
    }

    /// # Errors
    /// `NoSuchEntity` unless it is one of this user's.
    fn named_key(&self, row: &UserRow) -> Result<String, IamError> {
        let access_key = self.form.required("AccessKeyId")?;
        if present(&row.access_keys).any(|(known, _)| known == access_key) {
            return Ok(access_key.to_owned());
        }
        Err(IamError::new("NoSuchEntity", 404, format!("The Access Key with id {access_key} cannot be found.")))
    }
}
