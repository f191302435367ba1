//! GetBucketAcl, PutBucketAcl, and the access of new buckets.

use meridian_object::{Attributes, BucketSettings, Change, ChangeRequest, DocumentKind, SettingChange};
use meridian_policy::{Acl, Ownership};
use s3s::dto;
use s3s::{S3Request, S3Response, S3Result};

use crate::acl_wire::{AclRequest, acls_off, check_acl, grants, object_acl, owner_of, written_access};
use crate::auth::{context_of, principal_of};
use crate::bucket_policy::acl_with_ownership;
use crate::errors::{error_with_status, invalid_argument};
use crate::gateway::{Gateway, failed};
use crate::get::plain_read;
use crate::guard::{bucket_acl, ownership};
use crate::locks::check_future;
use crate::versioning::version_id;
use crate::wire_values::object_key;

impl Gateway {
    pub(crate) async fn on_get_bucket_acl(
        &self,
        request: S3Request<dto::GetBucketAclInput>,
    ) -> S3Result<S3Response<dto::GetBucketAclOutput>> {
        let expected = request.input.expected_bucket_owner.as_deref();
        let row = self.bucket_row(&request.extensions, &request.input.bucket, expected).await?;
        let acl = if ownership(&row)?.is_enforced() { Acl::private(&row.owner) } else { bucket_acl(&row)? };
        let owner = Some(owner_of(&self.objects, &row.owner));
        Ok(S3Response::new(dto::GetBucketAclOutput { grants: Some(grants(&self.objects, &acl)), owner }))
    }

    pub(crate) async fn on_put_bucket_acl(
        &self,
        request: S3Request<dto::PutBucketAclInput>,
    ) -> S3Result<S3Response<dto::PutBucketAclOutput>> {
        let S3Request { input, extensions, .. } = request;
        let row = self.bucket_row(&extensions, &input.bucket, input.expected_bucket_owner.as_deref()).await?;
        let asked = AclRequest {
            canned: input.acl.as_ref().map(|acl| acl.as_str()),
            headers: [
                input.grant_full_control.as_deref(),
                input.grant_read.as_deref(),
                input.grant_read_acp.as_deref(),
                input.grant_write.as_deref(),
                input.grant_write_acp.as_deref(),
            ],
            document: input.access_control_policy.as_ref(),
        };
        if ownership(&row)?.is_enforced() {
            return Err(acls_off());
        }
        let Some(acl) = asked.resolve(&self.objects, &row.owner, &row.owner)? else {
            let text = "Your request was missing a required header: x-amz-acl";
            return Err(error_with_status("MissingSecurityHeader", http::StatusCode::BAD_REQUEST, text));
        };
        check_acl(&row, &acl)?;
        self.set_document(&extensions, &row.name, DocumentKind::Acl, Some(acl.to_text())).await?;
        Ok(S3Response::new(dto::PutBucketAclOutput::default()))
    }

    /// Adds what CreateBucket says of access to a new bucket's settings.
    ///
    /// # Errors
    /// `InvalidArgument`, `InvalidBucketAclWithObjectOwnership`.
    pub(crate) fn set_access(
        &self,
        input: &dto::CreateBucketInput,
        owner: &str,
        settings: &mut BucketSettings,
    ) -> S3Result<()> {
        let asked = AclRequest {
            canned: input.acl.as_ref().map(|acl| acl.as_str()),
            headers: [
                input.grant_full_control.as_deref(),
                input.grant_read.as_deref(),
                input.grant_read_acp.as_deref(),
                input.grant_write.as_deref(),
                input.grant_write_acp.as_deref(),
            ],
            document: None,
        };
        let acl = asked.resolve(&self.objects, owner, owner)?.filter(|acl| *acl != Acl::private(owner));
        if let Some(name) = input.object_ownership.as_ref().map(|ownership| ownership.as_str()) {
            let ownership = Ownership::from_name(name)
                .ok_or_else(|| invalid_argument("x-amz-object-ownership", "Invalid x-amz-object-ownership header"))?;
            if ownership.is_enforced() && acl.is_some() {
                return Err(acl_with_ownership());
            }
            settings.documents.insert(DocumentKind::OwnershipControls, ownership.name().to_owned());
        }
        if let Some(acl) = acl {
            settings.documents.insert(DocumentKind::Acl, acl.to_text());
        }
        Ok(())
    }

    /// A new object's attributes with its owner and its list.
    ///
    /// # Errors
    /// Those of `written_access`.
    pub(crate) async fn with_access(
        &self,
        extensions: &http::Extensions,
        headers: &http::HeaderMap,
        mut attributes: Attributes,
    ) -> S3Result<Attributes> {
        check_future(attributes.retention, self.objects.now_unix_ms())?;
        let context = context_of(extensions);
        let Some(row) = context.and_then(|context| context.bucket()) else { return Ok(attributes) };
        let writer = principal_of(extensions).ok().filter(|principal| !principal.is_admin());
        let writer = writer.as_ref().map(|principal| principal.owner());
        let asked = AclRequest::of_headers(headers);
        (attributes.owner, attributes.acl) = written_access(&self.objects, row, writer, &asked)?;
        Ok(attributes)
    }

    pub(crate) async fn on_put_object_acl(
        &self,
        request: S3Request<dto::PutObjectAclInput>,
    ) -> S3Result<S3Response<dto::PutObjectAclOutput>> {
        let S3Request { input, extensions, .. } = request;
        let row = self.bucket_row(&extensions, &input.bucket, input.expected_bucket_owner.as_deref()).await?;
        if ownership(&row)?.is_enforced() {
            return Err(acls_off());
        }
        let version = version_id(input.version_id.as_deref())?;
        let read = plain_read(row.name.clone(), &input.key, input.version_id.as_deref())?;
        let found = self.objects.head(read).await.map_err(failed(&extensions))?;
        let (owner, _) = object_acl(&row, &found.info.attributes)?;
        let asked = AclRequest {
            canned: input.acl.as_ref().map(|acl| acl.as_str()),
            headers: [
                input.grant_full_control.as_deref(),
                input.grant_read.as_deref(),
                input.grant_read_acp.as_deref(),
                input.grant_write.as_deref(),
                input.grant_write_acp.as_deref(),
            ],
            document: input.access_control_policy.as_ref(),
        };
        let Some(acl) = asked.resolve(&self.objects, &owner, &row.owner)? else {
            let text = "Your request was missing a required header: x-amz-acl";
            return Err(error_with_status("MissingSecurityHeader", http::StatusCode::BAD_REQUEST, text));
        };
        check_acl(&row, &acl)?;
        let change = Change::Acl(Some(acl.to_text()));
        let (bucket, key) = (row.name, object_key(&input.key)?);
        let change = ChangeRequest { bucket, key, version, change, bypass_governance: false };
        self.objects.change(change).await.map_err(failed(&extensions))?;
        Ok(S3Response::new(dto::PutObjectAclOutput::default()))
    }

    /// Sets or removes one document of a bucket's configuration.
    pub(crate) async fn set_document(
        &self,
        extensions: &http::Extensions,
        bucket: &meridian_types::BucketName,
        kind: DocumentKind,
        text: Option<String>,
    ) -> S3Result<()> {
        let change = SettingChange::Document(kind, text);
        self.objects.change_bucket(bucket, change).await.map_err(failed(extensions))
    }
}
