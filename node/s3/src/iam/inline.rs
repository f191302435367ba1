//! Policies that stand in a user, group or role, and managed ones that are attached to it.

use meridian_object::{MemberKind, UserChange, UserRow, managed_policy, present};
use meridian_policy::{DocumentKind, Policy};

use super::answer::{IamError, element, encoded_document};
use super::call::{Call, NAME_LENGTH_MAX, name_of, words};
use super::page::page;

/// Most managed policies that are attached to one (IAM).
const ATTACHED_MAX: usize = 10;

impl Call<'_> {
    pub async fn put_inline(&self, kind: MemberKind) -> Result<String, IamError> {
        let policy = self.form.name("PolicyName", NAME_LENGTH_MAX)?.to_owned();
        let row = self.named(kind, &format!("iam:Put{}Policy", words(kind).element)).await?;
        let document = checked_document(self.form.required("PolicyDocument")?, DocumentKind::Identity)?;
        let others = present(&row.policies).filter(|(name, _)| *name != policy).map(|(_, text)| counted(text));
        let (size, size_max) = (others.sum::<usize>() + counted(&document), inline_size_max(kind));
        if size > size_max {
            let (word, name) = (words(kind).word, name_of(&row));
            return Err(IamError::limit(format!("Maximum policy size of {size_max} bytes exceeded for {word} {name}")));
        }
        let change = UserChange::Policy { name: policy, document: Some(document) };
        self.change(&row, change).await.map(|()| String::new())
    }

    pub async fn get_inline(&self, kind: MemberKind) -> Result<String, IamError> {
        let row = self.named(kind, &format!("iam:Get{}Policy", words(kind).element)).await?;
        let (name, document) = self.inline_named(&row)?;
        Ok([
            element(&format!("{}Name", words(kind).element), name_of(&row)),
            element("PolicyName", name),
            element("PolicyDocument", &encoded_document(document)),
        ]
        .concat())
    }

    pub async fn list_inline(&self, kind: MemberKind) -> Result<String, IamError> {
        let row = self.named(kind, &format!("iam:List{}Policies", words(kind).element)).await?;
        let item = |(name, _): (&str, &String)| (name.to_owned(), element("member", name));
        page(&self.form, "PolicyNames", present(&row.policies).map(item).collect())
    }

    pub async fn delete_inline(&self, kind: MemberKind) -> Result<String, IamError> {
        let row = self.named(kind, &format!("iam:Delete{}Policy", words(kind).element)).await?;
        let name = self.inline_named(&row)?.0.to_owned();
        self.change(&row, UserChange::Policy { name, document: None }).await.map(|()| String::new())
    }

    fn inline_named<'r>(&self, row: &'r UserRow) -> Result<(&'r str, &'r str), IamError> {
        let wanted = self.form.name("PolicyName", NAME_LENGTH_MAX)?;
        let found = present(&row.policies).find(|(name, _)| *name == wanted);
        found.map(|(name, text)| (name, text.as_str())).ok_or_else(|| {
            let (word, name) = (words(row.profile.kind).word, name_of(row));
            IamError::new(
                "NoSuchEntity",
                404,
                format!("The {word} policy with name {wanted} of {name} cannot be found."),
            )
        })
    }

    pub async fn set_attached(&self, kind: MemberKind, attached: bool) -> Result<String, IamError> {
        let verb = if attached { "Attach" } else { "Detach" };
        let row = self.named(kind, &format!("iam:{verb}{}Policy", words(kind).element)).await?;
        let arn = self.policy_arn_given()?.to_owned();
        let absent =
            || IamError::new("NoSuchEntity", 404, format!("Policy {arn} does not exist or is not attachable."));
        let has = present(&row.attached).any(|(known, ())| known == arn);
        match (attached, has) {
            (true, true) => return Ok(String::new()),
            (true, false) if present(&row.attached).count() >= ATTACHED_MAX => {
                let text = format!("Cannot exceed quota for PoliciesPer{}: {ATTACHED_MAX}", words(kind).element);
                return Err(IamError::limit(text));
            }
            (true, false)
                if managed_policy(&arn).is_none() && self.find_policy(row.account(), &arn).await?.is_none() =>
            {
                return Err(absent());
            }
            (false, false) => return Err(IamError::new("NoSuchEntity", 404, format!("Policy {arn} was not found."))),
            _ => {}
        }
        self.change(&row, UserChange::Attach { arn, attached }).await.map(|()| String::new())
    }

    pub async fn list_attached(&self, kind: MemberKind) -> Result<String, IamError> {
        let row = self.named(kind, &format!("iam:ListAttached{}Policies", words(kind).element)).await?;
        let prefix = self.form.text("PathPrefix").unwrap_or("/");
        let item = |(arn, ()): (&str, &())| {
            let (path, name) = path_and_name(arn);
            let xml = [element("PolicyName", name), element("PolicyArn", arn)].concat();
            path.starts_with(prefix).then(|| (arn.to_owned(), format!("<member>{xml}</member>")))
        };
        page(&self.form, "AttachedPolicies", present(&row.attached).filter_map(item).collect())
    }
}

/// `/path/` and the name of a policy's ARN.
pub(super) fn path_and_name(arn: &str) -> (&str, &str) {
    let resource = arn.split_once(":policy").map_or(arn, |(_, resource)| resource);
    resource.rfind('/').map_or(("/", resource), |at| (&resource[..=at], &resource[at + 1..]))
}

/// # Errors
/// `MalformedPolicyDocument`.
pub(super) fn checked_document(text: &str, kind: DocumentKind<'_>) -> Result<String, IamError> {
    Policy::parse(text, kind).map_err(|failure| IamError::malformed_policy(failure.to_string()))?;
    Ok(text.to_owned())
}

/// White space does not count (IAM).
pub(super) fn counted(document: &str) -> usize {
    document.chars().filter(|one| !one.is_whitespace()).count()
}

/// Characters of all inline policies together (IAM).
fn inline_size_max(kind: MemberKind) -> usize {
    match kind {
        MemberKind::User => 2048,
        MemberKind::Group => 5120,
        MemberKind::Role | MemberKind::Policy => 10240,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arns_tell_path_and_name() {
        assert_eq!(path_and_name("arn:aws:iam::aws:policy/IAMFullAccess"), ("/", "IAMFullAccess"));
        assert_eq!(path_and_name("arn:aws:iam::1:policy/a/b/c"), ("/a/b/", "c"));
    }

    #[test]
    fn malformed_documents_are_refused() {
        let good = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}"#;
        assert_eq!(checked_document(good, DocumentKind::Identity).unwrap(), good);
        for bad in ["", "{}", r#"{"Version":"2010-10-17","Statement":[]}"#] {
            assert_eq!(checked_document(bad, DocumentKind::Identity).unwrap_err().code, "MalformedPolicyDocument");
        }
        assert_eq!(counted("{ \n\"a\" }"), 5);
    }
}
