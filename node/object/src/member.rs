//! What an account makes for itself by the IAM API: users, groups, roles and policies of its own. They belong to the
//! account that made them and own nothing.
//!
//! Who may ask is the gateway's business, and so are the words of IAM. Invariants: a member's row goes by its unique id, which
//! never comes back; its name is unique in its account and kind without regard to case, as far as this datacenter knows.

use meridian_index::{MemberKind, Profile, UserChange, UserRow, queries};
use meridian_types::PartitionId;

use crate::read_row::index_error;
use crate::user::random;
use crate::{ObjectError, Objects};

/// Letters and digits of unique ids.
const ID_ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/// Behind the four letters that tell the kind.
const ID_RANDOM_LENGTH: usize = 17;

/// A member to be made.
#[derive(Debug, Clone)]
pub struct NewMember {
    pub account: String,
    pub kind: MemberKind,
    /// What `Profile` says of the rest; its id, account, kind and creation are made here.
    pub profile: Profile,
}

impl Objects {
    /// # Errors
    /// `UserRefused` when the account has one of that name; `Busy`, `Unavailable`.
    pub async fn create_member(&self, new: NewMember) -> Result<UserRow, ObjectError> {
        let id = unique_id(new.kind);
        let profile = Profile {
            id: id.clone(),
            account: Some(new.account),
            kind: new.kind,
            created_unix_ms: self.now_unix_ms(),
            ..new.profile
        };
        self.change_user(&id, UserChange::Create { profile, access_key: None }).await?;
        self.existing_user(&id).await
    }

    /// What an account has of one kind, by name. Users that administration made for it count as its users.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn members(&self, account: &str, kind: MemberKind) -> Result<Vec<UserRow>, ObjectError> {
        let mut rows = self.all_members().await?;
        rows.retain(|row| row.profile.account.as_deref() == Some(account) && row.profile.kind == kind);
        rows.sort_by_cached_key(|row| row.profile.display_name.to_lowercase());
        Ok(rows)
    }

    /// Every active row of users, groups of accounts, roles and policies.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn all_members(&self) -> Result<Vec<UserRow>, ObjectError> {
        let view = self.inner.read(PartitionId::CATALOG).await?;
        queries::all_members(&view).map_err(index_error)
    }
}

/// Such as `AIDAQ3EGRVBLJ4DJ5C7RG`: four letters for the kind, as IAM has them.
fn unique_id(kind: MemberKind) -> String {
    let letters = match kind {
        MemberKind::User => "AIDA",
        MemberKind::Group => "AGPA",
        MemberKind::Role => "AROA",
        MemberKind::Policy => "ANPA",
    };
    format!("{letters}{}", unique_digits::<ID_RANDOM_LENGTH>())
}

/// Random letters and digits.
pub(crate) fn unique_digits<const N: usize>() -> String {
    random::<N>().iter().map(|byte| char::from(ID_ALPHABET[usize::from(byte % 32)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unique_ids_tell_their_kind_and_differ() {
        let (one, other) = (unique_id(MemberKind::User), unique_id(MemberKind::User));
        assert!(one.starts_with("AIDA") && one.len() == 21 && one != other, "{one} {other}");
        assert!(unique_id(MemberKind::Role).starts_with("AROA"));
    }
}
