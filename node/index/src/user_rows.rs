//! What the catalog's rows of users and groups hold.
//!
//! A user is a set of registers: the profile, each access key, each policy, each attachment, each membership. Every
//! register has the stamp of its last change, and two rows merge register by register, so that keys made in two
//! datacenters at once both stay. What an account makes by the IAM API (users, groups, roles, policies) are rows of the same
//! form, told apart by `MemberKind`; such a row goes by its unique id, so that a new name moves nothing.
//!
//! Invariants: a row is never removed, because absence is never read as deletion; a secret stands here only as the
//! gateway sealed it, and never appears in a `Debug` output.

use std::collections::BTreeMap;
use std::fmt;

use meridian_types::Stamp;
use serde::{Deserialize, Serialize};

use crate::rows::row;

/// Most registers of one kind (keys, policies, memberships) in a row, removed ones included.
pub const REGISTERS_MAX: usize = 256;

/// Sealed key material. It prints as dots.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A value with the stamp of its last change; `None` is a removed one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register<T> {
    pub value: Option<T>,
    pub changed: Stamp,
}

/// Registers by name.
pub type Registers<T> = BTreeMap<String, Register<T>>;

/// The registers that hold a value.
pub fn present<T>(registers: &Registers<T>) -> impl Iterator<Item = (&str, &T)> {
    registers.iter().filter_map(|(name, register)| Some((name.as_str(), register.value.as_ref()?)))
}

/// Takes over from `other` whatever was changed later there.
pub(crate) fn join<T: Clone>(registers: &mut Registers<T>, other: &Registers<T>) {
    for (name, theirs) in other {
        if registers.get(name).is_none_or(|ours| ours.changed < theirs.changed) {
            registers.insert(name.clone(), theirs.clone());
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessKey {
    pub secret_key: Secret,
    pub active: bool,
    pub created_unix_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum UserState {
    #[default]
    Active,
    /// The row stays: absence is never read as deletion.
    Deleted,
}

/// What a row stands for. Discriminants are on disk: never reuse one, add new ones at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum MemberKind {
    #[default]
    User,
    /// Of an account; has policies and no keys. Its members name its row in their `groups`.
    Group,
    /// Of an account; whoever its trust policy lets may take it on.
    Role,
    /// A policy that an account manages.
    Policy,
}

/// Who a user is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// The canonical id that S3 shows as the owner.
    pub id: String,
    pub display_name: String,
    pub email: Option<String>,
    pub tenant: Option<String>,
    /// The canonical id of the account that it belongs to; `None`: it is an account of its own.
    pub account: Option<String>,
    /// May use the admin API.
    pub admin: bool,
    pub state: UserState,
    pub created_unix_ms: u64,
    pub kind: MemberKind,
    /// Where an account keeps it: begins and ends with a slash. Empty for what administration made.
    pub path: String,
    pub tags: BTreeMap<String, String>,
    /// Of roles and managed policies.
    pub description: Option<String>,
    /// The trust policy of a role, and what a managed policy says.
    pub document: Option<String>,
    /// The longest life of a role's sessions; 0 for others.
    pub session_s_max: u32,
}

impl Profile {
    /// The name that its account calls it by; equal without regard to case.
    pub fn is_called(&self, name: &str) -> bool {
        self.display_name.to_lowercase() == name.to_lowercase()
    }

    /// Whether an account made it by the IAM API.
    pub fn is_member(&self) -> bool {
        !self.path.is_empty()
    }
}

/// A user. The greater stamp wins for each register; `updated` is the greatest of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRow {
    pub name: String,
    pub profile: Profile,
    /// The last change of the profile.
    pub profile_changed: Stamp,
    pub access_keys: Registers<AccessKey>,
    /// Policy documents by name.
    pub policies: Registers<String>,
    /// ARNs of managed policies.
    pub attached: Registers<()>,
    /// Names of groups, or ids of an account's groups.
    pub groups: Registers<()>,
    pub updated: Stamp,
}

impl UserRow {
    pub fn is_active(&self) -> bool {
        self.profile.state == UserState::Active
    }

    /// The canonical id of the account that owns what it creates.
    pub fn account(&self) -> &str {
        self.profile.account.as_deref().unwrap_or(&self.profile.id)
    }
}

/// A group of users: policies that all of its members have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRow {
    pub name: String,
    pub state: UserState,
    pub state_changed: Stamp,
    pub policies: Registers<String>,
    pub updated: Stamp,
}

impl GroupRow {
    pub fn is_active(&self) -> bool {
        self.state == UserState::Active
    }
}

/// A change of one user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum UserChange {
    /// Refused while an active user has the name, the id or the e-mail. A user of that name that was deleted gives up
    /// all that it had.
    Create {
        profile: Profile,
        access_key: Option<(String, AccessKey)>,
    },
    /// Keeps id, state and time of creation.
    Profile(Profile),
    /// Refused while another user has the access key.
    PutAccessKey {
        access_key: String,
        key: AccessKey,
    },
    SetAccessKeyActive {
        access_key: String,
        active: bool,
    },
    DeleteAccessKey {
        access_key: String,
    },
    /// `None` removes it.
    Policy {
        name: String,
        document: Option<String>,
    },
    Group {
        name: String,
        member: bool,
    },
    Delete,
    Attach {
        arn: String,
        attached: bool,
    },
}

/// A change of one group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupChange {
    Create,
    /// `None` removes it.
    Policy {
        name: String,
        document: Option<String>,
    },
    Delete,
}

/// Why a change of a user or group was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UserRefusal {
    Exists,
    NotFound,
    AccessKeyTaken,
    NoSuchAccessKey,
    IdTaken,
    EmailTaken,
    NoSuchPolicy,
    NoSuchGroup,
    /// More registers than a row may have.
    TooMany,
    /// A name, id or access key is empty or holds a NUL byte.
    Malformed,
}

row!(UserRow, UserRow, 1);
row!(GroupRow, GroupRow, 1);
