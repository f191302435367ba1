//! Access control lists: who was granted what on a bucket or an object.
//!
//! ```text
//! {"version":1,"grants":[["user:ID","FULL_CONTROL"],["group:AllUsers","READ"]]}      the form at rest
//! ```
//!
//! Invariants: an owner can always read and write the list itself, whatever it grants.
//!
//! Source: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/acl-overview.html>

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::caller::Caller;

/// Most grants of one list (S3).
const GRANTS_MAX: usize = 100;
const VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AclError {
    #[error("an ACL at rest does not parse: {0}")]
    Form(String),
    #[error("an ACL at rest has version {0}, newest known {VERSION}")]
    Version(u32),
    #[error("an ACL has at most {GRANTS_MAX} grants")]
    TooMany,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Permission {
    Read,
    Write,
    ReadAcp,
    WriteAcp,
    FullControl,
}

impl Permission {
    pub fn as_str(self) -> &'static str {
        match self {
            Permission::Read => "READ",
            Permission::Write => "WRITE",
            Permission::ReadAcp => "READ_ACP",
            Permission::WriteAcp => "WRITE_ACP",
            Permission::FullControl => "FULL_CONTROL",
        }
    }
}

impl FromStr for Permission {
    type Err = AclError;

    fn from_str(text: &str) -> Result<Self, AclError> {
        let all = [Self::Read, Self::Write, Self::ReadAcp, Self::WriteAcp, Self::FullControl];
        let found = all.into_iter().find(|permission| permission.as_str() == text);
        found.ok_or_else(|| AclError::Form(format!("permission {text:?}")))
    }
}

/// Who a grant is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grantee {
    /// The canonical id of an account.
    User(String),
    AllUsers,
    AuthenticatedUsers,
    LogDelivery,
}

const GROUPS: [(Grantee, &str); 3] = [
    (Grantee::AllUsers, "http://acs.amazonaws.com/groups/global/AllUsers"),
    (Grantee::AuthenticatedUsers, "http://acs.amazonaws.com/groups/global/AuthenticatedUsers"),
    (Grantee::LogDelivery, "http://acs.amazonaws.com/groups/s3/LogDelivery"),
];

impl Grantee {
    /// The URI of a group.
    pub fn uri(&self) -> Option<&'static str> {
        GROUPS.iter().find(|(group, _)| group == self).map(|(_, uri)| *uri)
    }

    /// The group with a URI.
    pub fn from_uri(uri: &str) -> Option<Self> {
        GROUPS.iter().find(|(_, known)| *known == uri).map(|(group, _)| group.clone())
    }

    pub fn is_public(&self) -> bool {
        matches!(self, Grantee::AllUsers | Grantee::AuthenticatedUsers)
    }

    fn is(&self, caller: Caller<'_>) -> bool {
        match self {
            Grantee::AllUsers => true,
            Grantee::AuthenticatedUsers => caller.user().is_some(),
            Grantee::LogDelivery => false,
            Grantee::User(id) => caller.user().is_some_and(|user| *id == user.account || *id == user.id),
        }
    }
}

impl fmt::Display for Grantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Grantee::User(id) => write!(f, "user:{id}"),
            Grantee::AllUsers => f.write_str("group:AllUsers"),
            Grantee::AuthenticatedUsers => f.write_str("group:AuthenticatedUsers"),
            Grantee::LogDelivery => f.write_str("group:LogDelivery"),
        }
    }
}

impl FromStr for Grantee {
    type Err = AclError;

    fn from_str(text: &str) -> Result<Self, AclError> {
        match text.split_once(':') {
            Some(("user", id)) => Ok(Grantee::User(id.to_owned())),
            Some(("group", "AllUsers")) => Ok(Grantee::AllUsers),
            Some(("group", "AuthenticatedUsers")) => Ok(Grantee::AuthenticatedUsers),
            Some(("group", "LogDelivery")) => Ok(Grantee::LogDelivery),
            _ => Err(AclError::Form(format!("grantee {text:?}"))),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    pub grantee: Grantee,
    pub permission: Permission,
}

/// The names of S3's ready-made lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CannedAcl {
    Private,
    PublicRead,
    PublicReadWrite,
    AuthenticatedRead,
    AwsExecRead,
    BucketOwnerRead,
    BucketOwnerFullControl,
    LogDeliveryWrite,
}

impl CannedAcl {
    /// `None` for a name that S3 does not know.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "private" => Self::Private,
            "public-read" => Self::PublicRead,
            "public-read-write" => Self::PublicReadWrite,
            "authenticated-read" => Self::AuthenticatedRead,
            "aws-exec-read" => Self::AwsExecRead,
            "bucket-owner-read" => Self::BucketOwnerRead,
            "bucket-owner-full-control" => Self::BucketOwnerFullControl,
            "log-delivery-write" => Self::LogDeliveryWrite,
            _ => return None,
        })
    }
}

/// The grants on a bucket or an object. Its owner stands beside it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Acl {
    pub grants: Vec<Grant>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    grants: Vec<(String, String)>,
}

impl Acl {
    /// Full control for the owner and nothing for anybody else.
    pub fn private(owner: &str) -> Self {
        Self::canned(CannedAcl::Private, owner, owner)
    }

    pub fn canned(canned: CannedAcl, owner: &str, bucket_owner: &str) -> Self {
        let user = |id: &str| Grantee::User(id.to_owned());
        let mut acl = Acl { grants: vec![Grant { grantee: user(owner), permission: Permission::FullControl }] };
        let mut grant = |grantee, permission| acl.grants.push(Grant { grantee, permission });
        match canned {
            CannedAcl::Private | CannedAcl::AwsExecRead => {}
            CannedAcl::PublicRead => grant(Grantee::AllUsers, Permission::Read),
            CannedAcl::PublicReadWrite => {
                grant(Grantee::AllUsers, Permission::Read);
                grant(Grantee::AllUsers, Permission::Write);
            }
            CannedAcl::AuthenticatedRead => grant(Grantee::AuthenticatedUsers, Permission::Read),
            CannedAcl::BucketOwnerRead if bucket_owner != owner => grant(user(bucket_owner), Permission::Read),
            CannedAcl::BucketOwnerFullControl if bucket_owner != owner => {
                grant(user(bucket_owner), Permission::FullControl);
            }
            CannedAcl::BucketOwnerRead | CannedAcl::BucketOwnerFullControl => {}
            CannedAcl::LogDeliveryWrite => {
                grant(Grantee::LogDelivery, Permission::Write);
                grant(Grantee::LogDelivery, Permission::ReadAcp);
            }
        }
        acl
    }

    /// # Errors
    /// `TooMany`.
    pub fn new(grants: Vec<Grant>) -> Result<Self, AclError> {
        if grants.len() > GRANTS_MAX { Err(AclError::TooMany) } else { Ok(Self { grants }) }
    }

    pub fn permits(&self, caller: Caller<'_>, permission: Permission, ignore_public: bool) -> bool {
        self.grants.iter().any(|grant| {
            (grant.permission == permission || grant.permission == Permission::FullControl)
                && !(ignore_public && grant.grantee.is_public())
                && grant.grantee.is(caller)
        })
    }

    /// Whether it grants anything to everybody, or to everybody with an account anywhere.
    pub fn is_public(&self) -> bool {
        self.grants.iter().any(|grant| grant.grantee.is_public())
    }

    /// The form at rest.
    pub fn to_text(&self) -> String {
        let pair = |grant: &Grant| (grant.grantee.to_string(), grant.permission.as_str().to_owned());
        let stored = Stored { version: VERSION, grants: self.grants.iter().map(pair).collect() };
        serde_json::to_string(&stored).expect("texts become JSON")
    }

    /// # Errors
    /// `AclError` when the text is no list, or a newer one.
    pub fn from_text(text: &str) -> Result<Self, AclError> {
        let stored: Stored = serde_json::from_str(text).map_err(|error| AclError::Form(error.to_string()))?;
        if stored.version != VERSION {
            return Err(AclError::Version(stored.version));
        }
        let grant = |(grantee, permission): (String, String)| {
            Ok(Grant { grantee: grantee.parse()?, permission: permission.parse()? })
        };
        Self::new(stored.grants.into_iter().map(grant).collect::<Result<_, AclError>>()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::UserCaller;

    fn user(id: &str) -> UserCaller {
        UserCaller { id: id.to_owned(), account: id.to_owned(), ..UserCaller::default() }
    }

    #[test]
    fn canned_lists_grant_what_s3_says() {
        let (owner, bucket_owner, other) = (user("o"), user("b"), user("x"));
        let callers = [Caller::User(&owner), Caller::User(&bucket_owner), Caller::User(&other), Caller::Anonymous];
        for (name, read, write) in [
            ("private", [true, false, false, false], [true, false, false, false]),
            ("public-read", [true, true, true, true], [true, false, false, false]),
            ("public-read-write", [true, true, true, true], [true, true, true, true]),
            ("authenticated-read", [true, true, true, false], [true, false, false, false]),
            ("bucket-owner-read", [true, true, false, false], [true, false, false, false]),
            ("bucket-owner-full-control", [true, true, false, false], [true, true, false, false]),
            ("log-delivery-write", [true, false, false, false], [true, false, false, false]),
        ] {
            let acl = Acl::canned(CannedAcl::from_name(name).unwrap(), "o", "b");
            let may = |permission| callers.map(|caller| acl.permits(caller, permission, false));
            assert_eq!((may(Permission::Read), may(Permission::Write)), (read, write), "{name}");
            assert_eq!(Acl::from_text(&acl.to_text()).unwrap(), acl);
        }
        assert_eq!(CannedAcl::from_name("public-ready"), None);
        assert_eq!(Acl::canned(CannedAcl::BucketOwnerFullControl, "o", "o").grants.len(), 1);
    }

    #[test]
    fn public_grants_can_be_passed_over() {
        let acl = Acl::canned(CannedAcl::PublicRead, "o", "o");
        assert!(acl.is_public() && !acl.permits(Caller::Anonymous, Permission::Read, true));
        assert!(acl.permits(Caller::User(&user("o")), Permission::Read, true));
    }

    /// A form on disk: this text never changes; a new form gets a new version.
    #[test]
    fn golden_text() {
        let acl = Acl::canned(CannedAcl::PublicRead, "o", "o");
        let golden = r#"{"version":1,"grants":[["user:o","FULL_CONTROL"],["group:AllUsers","READ"]]}"#;
        assert_eq!(acl.to_text(), golden);
        assert_eq!(Acl::from_text(golden).unwrap(), acl);
        assert_eq!(Acl::from_text(&golden.replace(":1,", ":2,")).unwrap_err(), AclError::Version(2));
        for damaged in [golden.replace("READ", "REED"), golden.replace("group", "grope"), golden[1..].to_owned()] {
            assert!(Acl::from_text(&damaged).is_err(), "{damaged}");
        }
    }
}
