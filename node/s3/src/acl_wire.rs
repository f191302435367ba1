//! Access control lists between the wire and `meridian-policy`: canned names, `x-amz-grant-*` headers, XML.
//!
//! Invariants: a grant names an account that exists, or a group of S3's; an e-mail address becomes the account's id.

use http::StatusCode;
use meridian_object::{Attributes, BucketRow, Objects};
use meridian_policy::{Acl, CannedAcl, Grant, Grantee, Ownership, Permission};
use s3s::dto;
use s3s::{S3Error, S3ErrorCode, S3Result};

use crate::errors::{access_denied, error, error_with_status, invalid_argument, invalid_request, object_error};
use crate::guard::{access_block, ownership};

/// What a request says of access, before it is understood.
#[derive(Default)]
pub(crate) struct AclRequest<'a> {
    pub canned: Option<&'a str>,
    /// Values of `x-amz-grant-full-control`, `-read`, `-read-acp`, `-write`, `-write-acp`.
    pub headers: [Option<&'a str>; 5],
    pub document: Option<&'a dto::AccessControlPolicy>,
}

const HEADER_PERMISSIONS: [Permission; 5] =
    [Permission::FullControl, Permission::Read, Permission::ReadAcp, Permission::Write, Permission::WriteAcp];

impl<'a> AclRequest<'a> {
    /// From the headers of a write.
    pub fn of_headers(headers: &'a http::HeaderMap) -> Self {
        let value = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        Self {
            canned: value("x-amz-acl"),
            headers: [
                "x-amz-grant-full-control",
                "x-amz-grant-read",
                "x-amz-grant-read-acp",
                "x-amz-grant-write",
                "x-amz-grant-write-acp",
            ]
            .map(value),
            document: None,
        }
    }

    /// The list that it asks for; `None` when it asks for none.
    ///
    /// # Errors
    /// `InvalidArgument`, `InvalidRequest`, `UnresolvableGrantByEmailAddress`, `MalformedACLError`.
    pub fn resolve(&self, objects: &Objects, owner: &str, bucket_owner: &str) -> S3Result<Option<Acl>> {
        let by_headers = self.headers.iter().any(Option::is_some);
        if self.document.is_some() && (by_headers || self.canned.is_some()) {
            return Err(error_with_status(
                "UnexpectedContent",
                StatusCode::BAD_REQUEST,
                "This request does not support content",
            ));
        }
        if by_headers && self.canned.is_some() {
            return Err(invalid_request("Specifying both Canned ACLs and Header Grants is not allowed"));
        }
        if let Some(name) = self.canned {
            let canned = CannedAcl::from_name(name).ok_or_else(|| error(S3ErrorCode::InvalidArgument, ""))?;
            return Ok(Some(Acl::canned(canned, owner, bucket_owner)));
        }
        if by_headers {
            let mut grants = Vec::new();
            for (header, permission) in self.headers.iter().zip(HEADER_PERMISSIONS) {
                for grantee in header_grantees(header.unwrap_or_default())? {
                    grants.push(Grant { grantee: grantee.resolve(objects)?, permission });
                }
            }
            return Acl::new(grants).map(Some).map_err(|failure| malformed(&failure.to_string()));
        }
        let Some(document) = self.document else { return Ok(None) };
        let named_owner = document.owner.as_ref().and_then(|owner| owner.id.as_deref());
        if named_owner.ok_or_else(|| malformed("a list names its owner"))? != owner {
            return Err(access_denied());
        }
        let grants = document.grants.iter().flatten().map(|grant| {
            let permission = grant.permission.as_ref().and_then(|permission| permission.as_str().parse().ok());
            let permission = permission.ok_or_else(|| malformed("a grant has no permission that S3 knows"))?;
            let grantee = grant.grantee.as_ref().ok_or_else(|| malformed("a grant has no grantee"))?;
            Ok(Grant { grantee: named(grantee)?.resolve(objects)?, permission })
        });
        let grants = grants.collect::<S3Result<Vec<_>>>()?;
        Acl::new(grants).map(Some).map_err(|failure| malformed(&failure.to_string()))
    }
}

/// A grantee as a client names one.
enum Named<'a> {
    Id(&'a str),
    Email(&'a str),
    Uri(&'a str),
}

impl Named<'_> {
    fn resolve(&self, objects: &Objects) -> S3Result<Grantee> {
        let failed = |failure| object_error(failure, None);
        match self {
            Named::Uri(uri) => Grantee::from_uri(uri).ok_or_else(|| invalid_argument("URI", "Invalid group uri")),
            Named::Email(email) => match objects.identity_by_email(email).map_err(failed)? {
                Some(identity) => Ok(Grantee::User(identity.account.clone())),
                None => Err(error_with_status(
                    "UnresolvableGrantByEmailAddress",
                    StatusCode::BAD_REQUEST,
                    "The e-mail address you provided does not match any account on record.",
                )),
            },
            Named::Id(id) => match objects.identity_by_id(id).map_err(failed)? {
                Some(_) => Ok(Grantee::User((*id).to_owned())),
                None => Err(error(S3ErrorCode::InvalidArgument, "Invalid id")),
            },
        }
    }
}

fn named(grantee: &dto::Grantee) -> S3Result<Named<'_>> {
    let named = match grantee.type_.as_str() {
        "CanonicalUser" => grantee.id.as_deref().map(Named::Id),
        "AmazonCustomerByEmail" => grantee.email_address.as_deref().map(Named::Email),
        "Group" => grantee.uri.as_deref().map(Named::Uri),
        _ => None,
    };
    named.ok_or_else(|| malformed("a grantee is neither a user, an e-mail address nor a group"))
}

/// `id="…", emailAddress="…", uri="…"`
fn header_grantees(header: &str) -> S3Result<Vec<Named<'_>>> {
    let parts = header.split(',').map(str::trim).filter(|part| !part.is_empty());
    let grantee = |part| {
        let (kind, value): (&str, &str) = str::split_once(part, '=').unwrap_or((part, ""));
        let value = value.trim().trim_matches('"');
        match kind.trim().to_ascii_lowercase().as_str() {
            "id" => Ok(Named::Id(value)),
            "emailaddress" => Ok(Named::Email(value)),
            "uri" => Ok(Named::Uri(value)),
            _ => Err(error(S3ErrorCode::InvalidArgument, "Argument format not recognized")),
        }
    };
    parts.map(grantee).collect()
}

fn malformed(reason: &str) -> S3Error {
    error_with_status(
        "MalformedACLError",
        StatusCode::BAD_REQUEST,
        format!("The XML you provided was not well-formed or did not validate against our published schema: {reason}"),
    )
}

/// A list for the wire, with the display names of accounts that still are.
pub(crate) fn grants(objects: &Objects, acl: &Acl) -> Vec<dto::Grant> {
    let grant = |grant: &Grant| {
        let grantee = match &grant.grantee {
            Grantee::User(id) => dto::Grantee {
                display_name: Some(display_name(objects, id)),
                id: Some(id.clone()),
                type_: dto::Type::from_static(dto::Type::CANONICAL_USER),
                email_address: None,
                uri: None,
            },
            group => dto::Grantee {
                display_name: None,
                id: None,
                type_: dto::Type::from_static(dto::Type::GROUP),
                email_address: None,
                uri: group.uri().map(str::to_owned),
            },
        };
        let permission = dto::Permission::from_static(grant.permission.as_str());
        dto::Grant { grantee: Some(grantee), permission: Some(permission) }
    };
    acl.grants.iter().map(grant).collect()
}

/// An account for the wire.
pub(crate) fn owner_of(objects: &Objects, id: &str) -> dto::Owner {
    dto::Owner { id: Some(id.to_owned()), display_name: Some(display_name(objects, id)) }
}

fn display_name(objects: &Objects, id: &str) -> String {
    let identity = objects.identity_by_id(id).ok().flatten();
    identity.map_or_else(|| id.to_owned(), |identity| identity.display_name.clone())
}

/// Whether a bucket takes a list at all.
///
/// # Errors
/// `AccessControlListNotSupported` where ownership is enforced, `AccessDenied` for a public list that is blocked.
pub(crate) fn check_acl(row: &BucketRow, acl: &Acl) -> S3Result<()> {
    if ownership(row)?.is_enforced() {
        return Err(acls_off());
    }
    if access_block(row)?.block_public_acls && acl.is_public() {
        return Err(access_denied());
    }
    Ok(())
}

pub(crate) fn acls_off() -> S3Error {
    error_with_status("AccessControlListNotSupported", StatusCode::BAD_REQUEST, "The bucket does not allow ACLs")
}

/// Owner and list of a new object, as its attributes keep them: nothing for a private one of the bucket's owner.
///
/// # Errors
/// Those of `resolve` and `check_acl`.
pub(crate) fn written_access(
    objects: &Objects,
    row: &BucketRow,
    writer: Option<&str>,
    request: &AclRequest<'_>,
) -> S3Result<(Option<String>, Option<String>)> {
    let ownership = ownership(row)?;
    if ownership.is_enforced() {
        return match (request.canned, request.headers.iter().any(Option::is_some)) {
            (None | Some("bucket-owner-full-control"), false) => Ok((None, None)),
            _ => Err(acls_off()),
        };
    }
    // What nobody writes belongs to the bucket's owner.
    let mut owner = writer.unwrap_or(&row.owner);
    if ownership == Ownership::BucketOwnerPreferred && request.canned == Some("bucket-owner-full-control") {
        owner = &row.owner;
    }
    let acl = request.resolve(objects, owner, &row.owner)?;
    if let Some(acl) = &acl {
        check_acl(row, acl)?;
    }
    let acl = acl.filter(|acl| *acl != Acl::private(owner)).map(|acl| acl.to_text());
    Ok(((owner != row.owner).then(|| owner.to_owned()), acl))
}

/// Owner and list of an object.
///
/// # Errors
/// `InternalError` for a list at rest that can't be read.
pub(crate) fn object_acl(row: &BucketRow, attributes: &Attributes) -> S3Result<(String, Acl)> {
    let owner = attributes.owner.as_deref().unwrap_or(&row.owner).to_owned();
    let acl = match attributes.acl.as_deref() {
        None => Acl::private(&owner),
        Some(text) => Acl::from_text(text).map_err(|failure| {
            tracing::error!(%failure, "an object's access control list can't be read");
            error(S3ErrorCode::InternalError, "We encountered an internal error. Please try again.")
        })?,
    };
    Ok((owner, acl))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grant_headers_name_their_grantees() {
        let header = "id=\"abc\", emailAddress=\"a@b\",uri=\"http://acs.amazonaws.com/groups/global/AllUsers\"";
        let found = header_grantees(header).unwrap();
        assert!(matches!(found[..], [Named::Id("abc"), Named::Email("a@b"), Named::Uri(_)]));
        assert!(matches!(header_grantees("id=abc").unwrap()[..], [Named::Id("abc")]));
        assert_eq!(header_grantees("name=\"x\"").err().unwrap().code().as_str(), "InvalidArgument");
        assert!(header_grantees("").unwrap().is_empty());
    }
}
