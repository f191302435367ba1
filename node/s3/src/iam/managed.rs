//! Managed policies: those that an account makes, and those that every account finds made.
//!
//! A policy has one version, `v1`.

use meridian_object::{
    MANAGED_ARN, MANAGED_POLICIES, ManagedPolicy, MemberKind, Profile, UserChange, UserRow, managed_policy, policy_arn,
    present,
};
use meridian_policy::DocumentKind;

use super::answer::{IamError, element, encoded_document, time};
use super::call::{Call, arn_of, name_of, path_of, tags_element, words};
use super::inline::{checked_document, counted};
use super::page::page;

/// Characters of a managed policy (IAM).
const DOCUMENT_SIZE_MAX: usize = 6144;
/// When the policies that are there from the start are said to have been made.
const MANAGED_SINCE_UNIX_MS: u64 = 1_423_242_000_000;
const VERSION: &str = "v1";

/// Either kind, as answers tell of it.
struct Told {
    name: String,
    id: String,
    arn: String,
    path: String,
    description: Option<String>,
    created_unix_ms: u64,
    document: String,
    tags: String,
}

impl Told {
    fn of_row(row: &UserRow) -> Self {
        Self {
            name: name_of(row).to_owned(),
            id: row.profile.id.clone(),
            arn: policy_arn(row),
            path: path_of(row).to_owned(),
            description: row.profile.description.clone(),
            created_unix_ms: row.profile.created_unix_ms,
            document: row.profile.document.clone().unwrap_or_default(),
            tags: tags_element(row),
        }
    }

    fn of_managed(policy: &ManagedPolicy) -> Self {
        Self {
            name: policy.name.to_owned(),
            id: policy.id.to_owned(),
            arn: format!("{MANAGED_ARN}{}", policy.name),
            path: "/".to_owned(),
            description: Some(policy.description.to_owned()),
            created_unix_ms: MANAGED_SINCE_UNIX_MS,
            document: policy.document.to_owned(),
            tags: String::new(),
        }
    }

    fn elements(&self, attachments: usize, whole: bool) -> String {
        let mut text = [
            element("PolicyName", &self.name),
            element("PolicyId", &self.id),
            element("Arn", &self.arn),
            element("Path", &self.path),
            element("DefaultVersionId", VERSION),
            element("AttachmentCount", &attachments.to_string()),
            element("PermissionsBoundaryUsageCount", "0"),
            element("IsAttachable", "true"),
            element("CreateDate", &time(self.created_unix_ms)),
            element("UpdateDate", &time(self.created_unix_ms)),
        ]
        .concat();
        if whole {
            text.extend(self.description.iter().map(|description| element("Description", description)));
            text.push_str(&self.tags);
        }
        text
    }

    fn version(&self, with_document: bool) -> String {
        let document =
            if with_document { element("Document", &encoded_document(&self.document)) } else { String::new() };
        let default = element("IsDefaultVersion", "true");
        [document, element("VersionId", VERSION), default, element("CreateDate", &time(self.created_unix_ms))].concat()
    }
}

impl Call<'_> {
    /// # Errors
    /// `InvalidInput` for what is no ARN of a policy.
    pub fn policy_arn_given(&self) -> Result<&str, IamError> {
        let arn = self.form.required("PolicyArn")?;
        if arn.starts_with("arn:aws:iam::") && arn.contains(":policy/") {
            return Ok(arn);
        }
        Err(IamError::new("InvalidInput", 400, format!("ARN {arn} is not valid.")))
    }

    /// The policy of an account with this ARN.
    pub async fn find_policy(&self, account: &str, arn: &str) -> Result<Option<UserRow>, IamError> {
        let rows = self.objects.members(account, MemberKind::Policy).await?;
        Ok(rows.into_iter().find(|row| policy_arn(row) == arn))
    }

    /// The policy of the caller's account that the form names.
    ///
    /// # Errors
    /// `AccessDenied`, `NoSuchEntity`; `AccessDenied` also for one that nobody may change.
    pub async fn own_policy(&self, action: &str) -> Result<UserRow, IamError> {
        let arn = self.policy_arn_given()?;
        self.may(action, arn)?;
        if managed_policy(arn).is_some() {
            return Err(IamError::new("AccessDenied", 403, format!("{action} can't be done with {arn}.")));
        }
        self.find_policy(self.account(), arn).await?.ok_or_else(|| no_such_policy(arn))
    }

    async fn told(&self, action: &str) -> Result<Told, IamError> {
        let arn = self.policy_arn_given()?;
        self.may(action, arn)?;
        if let Some(policy) = managed_policy(arn) {
            return Ok(Told::of_managed(policy));
        }
        let found = self.find_policy(self.account(), arn).await?;
        found.as_ref().map(Told::of_row).ok_or_else(|| no_such_policy(arn))
    }

    pub async fn create_policy(&self) -> Result<String, IamError> {
        let document = checked_document(self.form.required("PolicyDocument")?, DocumentKind::Identity)?;
        if counted(&document) > DOCUMENT_SIZE_MAX {
            return Err(IamError::limit(format!("Cannot exceed quota for PolicySize: {DOCUMENT_SIZE_MAX}")));
        }
        let description = self.form.text("Description").map(str::to_owned);
        let profile = Profile { document: Some(document), description, ..Profile::default() };
        let row = self.create(MemberKind::Policy, "iam:CreatePolicy", profile).await?;
        Ok(format!("<Policy>{}</Policy>", Told::of_row(&row).elements(0, true)))
    }

    pub async fn get_policy(&self) -> Result<String, IamError> {
        let told = self.told("iam:GetPolicy").await?;
        let attachments = self.attachments(&told.arn).await?.len();
        Ok(format!("<Policy>{}</Policy>", told.elements(attachments, true)))
    }

    pub async fn get_policy_version(&self) -> Result<String, IamError> {
        let told = self.told("iam:GetPolicyVersion").await?;
        let version = self.form.required("VersionId")?;
        if version != VERSION {
            let text = format!("Policy {} version {version} does not exist or is not attachable.", told.arn);
            return Err(IamError::new("NoSuchEntity", 404, text));
        }
        Ok(format!("<PolicyVersion>{}</PolicyVersion>", told.version(true)))
    }

    pub async fn list_policy_versions(&self) -> Result<String, IamError> {
        let told = self.told("iam:ListPolicyVersions").await?;
        page(&self.form, "Versions", vec![(VERSION.to_owned(), format!("<member>{}</member>", told.version(false)))])
    }

    pub async fn list_policies(&self) -> Result<String, IamError> {
        self.may("iam:ListPolicies", &format!("arn:aws:iam::{}:policy/", self.account()))?;
        let scope = self.form.text("Scope").unwrap_or("All");
        let prefix = self.form.text("PathPrefix").unwrap_or("/");
        let only_attached = self.form.text("OnlyAttached") == Some("true");
        let own = self.objects.members(self.account(), MemberKind::Policy).await?;
        let mut told: Vec<Told> = Vec::new();
        if matches!(scope, "All" | "Local") {
            told.extend(own.iter().map(Told::of_row));
        }
        if matches!(scope, "All" | "AWS") {
            told.extend(MANAGED_POLICIES.iter().map(Told::of_managed));
        }
        if !matches!(scope, "All" | "Local" | "AWS") {
            return Err(IamError::invalid("scope", "must be All, AWS or Local"));
        }
        let attached = self.all_attached().await?;
        let count = |told: &Told| attached.iter().filter(|arn| **arn == told.arn).count();
        let wanted = told.iter().filter(|told| told.path.starts_with(prefix) && (!only_attached || count(told) > 0));
        let item = |told: &Told| (told.arn.clone(), format!("<member>{}</member>", told.elements(count(told), false)));
        page(&self.form, "Policies", wanted.map(item).collect())
    }

    pub async fn delete_policy(&self) -> Result<String, IamError> {
        let row = self.own_policy("iam:DeletePolicy").await?;
        if !self.attachments(&arn_of(&row)).await?.is_empty() {
            return Err(IamError::conflict("Cannot delete a policy attached to entities."));
        }
        self.change(&row, UserChange::Delete).await.map(|()| String::new())
    }

    pub async fn list_entities_for_policy(&self) -> Result<String, IamError> {
        let told = self.told("iam:ListEntitiesForPolicy").await?;
        let rows = self.attachments(&told.arn).await?;
        let list = |kind: MemberKind| {
            let label = words(kind).element;
            let of_kind = rows.iter().filter(|row| row.profile.kind == kind);
            let one = |row: &UserRow| {
                let parts =
                    [element(&format!("{label}Name"), name_of(row)), element(&format!("{label}Id"), &row.profile.id)];
                format!("<member>{}</member>", parts.concat())
            };
            format!("<Policy{label}s>{}</Policy{label}s>", of_kind.map(one).collect::<String>())
        };
        let lists = [list(MemberKind::Group), list(MemberKind::User), list(MemberKind::Role)].concat();
        Ok(format!("{lists}{}", element("IsTruncated", "false")))
    }

    /// What of the caller's account a policy is attached to.
    async fn attachments(&self, arn: &str) -> Result<Vec<UserRow>, IamError> {
        let mut rows = self.objects.all_members().await?;
        rows.retain(|row| row.account() == self.account() && present(&row.attached).any(|(known, ())| known == arn));
        Ok(rows)
    }

    async fn all_attached(&self) -> Result<Vec<String>, IamError> {
        let rows = self.objects.all_members().await?;
        let own = rows.iter().filter(|row| row.account() == self.account());
        Ok(own.flat_map(|row| present(&row.attached).map(|(arn, ())| arn.to_owned())).collect())
    }
}

fn no_such_policy(arn: &str) -> IamError {
    IamError::new("NoSuchEntity", 404, format!("Policy {arn} was not found."))
}
