//! What a bucket's owner may shut off at once: public access, and access control lists.

/// S3's four switches against public access.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PublicAccessBlock {
    /// Refuse lists that grant public access.
    pub block_public_acls: bool,
    /// Pass over public grants of lists.
    pub ignore_public_acls: bool,
    /// Refuse public policies.
    pub block_public_policy: bool,
    /// Let a public policy allow nothing to other accounts.
    pub restrict_public_buckets: bool,
}

/// Who owns what others write, and whether lists count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ownership {
    #[default]
    ObjectWriter,
    /// The bucket's owner owns what was written with `bucket-owner-full-control`.
    BucketOwnerPreferred,
    /// The bucket's owner owns everything, and lists are off.
    BucketOwnerEnforced,
}

impl Ownership {
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "ObjectWriter" => Self::ObjectWriter,
            "BucketOwnerPreferred" => Self::BucketOwnerPreferred,
            "BucketOwnerEnforced" => Self::BucketOwnerEnforced,
            _ => return None,
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::ObjectWriter => "ObjectWriter",
            Self::BucketOwnerPreferred => "BucketOwnerPreferred",
            Self::BucketOwnerEnforced => "BucketOwnerEnforced",
        }
    }

    pub fn is_enforced(self) -> bool {
        self == Self::BucketOwnerEnforced
    }
}
