//! Buckets: list, create, head, delete, location.

use http::HeaderMap;
use meridian_object::{BucketRow, BucketSettings, DocumentKind, ObjectError, ObjectLock, Objects, Versioning};
use meridian_types::ReplicaCode;
use meridian_types::limits::LIST_PAGE_MAX;
use s3s::dto;
use s3s::{S3ErrorCode, S3Request, S3Response, S3Result};

use crate::auth::{authorized_bucket, principal_of};
use crate::config::Principal;
use crate::errors::{already_owned, error, invalid_argument, object_error};
use crate::gateway::{Gateway, failed, refuse_subresources};
use crate::wire_values::{bucket_name, open_token, timestamp, token};

/// Beginnings and ends of names that S3 keeps for itself.
///
/// Source: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html>
const RESERVED_PREFIXES: [&str; 3] = ["xn--", "sthree-", "amzn-s3-demo-"];
const RESERVED_SUFFIXES: [&str; 5] = ["-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"];

/// No label of a name begins or ends with a dash: such a bucket could have no host of its own.
///
/// # Errors
/// `InvalidBucketName`.
fn check_new_name(name: &str) -> S3Result<()> {
    let is_reserved = RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || RESERVED_SUFFIXES.iter().any(|suffix| name.ends_with(suffix));
    if is_reserved || name.contains(".-") || name.contains("-.") {
        return Err(error(S3ErrorCode::InvalidBucketName, "The specified bucket is not valid."));
    }
    Ok(())
}

/// A bucket's own replica code, at its creation.
const REPLICATION_HEADER: &str = "x-meridian-replication";

impl Gateway {
    /// The buckets of the account that asks; every bucket for an admin.
    pub(crate) async fn on_list_buckets(
        &self,
        request: S3Request<dto::ListBucketsInput>,
    ) -> S3Result<S3Response<dto::ListBucketsOutput>> {
        let principal = principal_of(&request.extensions)?;
        let input = request.input;
        let rows = self.objects.list_buckets().await.map_err(failed(&request.extensions))?;
        let after =
            input.continuation_token.as_deref().filter(|token| !token.is_empty()).map(open_token).transpose()?;
        let limit = match input.max_buckets {
            None => usize::MAX,
            Some(0 | 10_001..) => return Err(invalid_argument("max-buckets", "must be between 1 and 10000")),
            Some(count) => {
                usize::try_from(count).map_err(|_| invalid_argument("max-buckets", "must not be negative"))?
            }
        };
        let page = bucket_page(rows, &principal, input.prefix.as_deref(), after.as_deref(), limit);
        let region = |row: &BucketRow| self.region_of(row);
        let bucket = |row: &BucketRow| dto::Bucket {
            name: Some(row.name.to_string()),
            creation_date: Some(timestamp(row.created.timestamp.unix_ms())),
            bucket_region: Some(region(row)),
        };
        Ok(S3Response::new(dto::ListBucketsOutput {
            buckets: Some(page.rows.iter().map(bucket).collect()),
            continuation_token: page.next.as_deref().map(token),
            owner: Some(owner(&principal)),
            prefix: input.prefix,
        }))
    }

    pub(crate) async fn on_create_bucket(
        &self,
        request: S3Request<dto::CreateBucketInput>,
    ) -> S3Result<S3Response<dto::CreateBucketOutput>> {
        refuse_subresources(&request.uri, &[])?;
        let principal = principal_of(&request.extensions)?;
        let input = request.input;
        let name = bucket_name(&input.bucket)?;
        check_new_name(&input.bucket)?;
        // Every region takes every constraint: the bucket is everywhere, and the name is only told back.
        let configuration = input.create_bucket_configuration.as_ref();
        let constraint = configuration.and_then(|configuration| configuration.location_constraint.as_ref());
        let region = constraint.and_then(|constraint| constraint.as_str().parse().ok());
        let code = replica_code(&self.objects, &request.headers)?;
        // What may be locked has versions, from the first write on.
        let locks = input.object_lock_enabled_for_bucket == Some(true);
        let mut settings = BucketSettings {
            region,
            code,
            versioning: if locks { Versioning::Enabled } else { Versioning::Off },
            object_lock: locks.then(ObjectLock::default),
            ..BucketSettings::default()
        };
        self.set_access(&input, principal.owner(), &mut settings)?;
        let access = settings.documents.get(&DocumentKind::Acl).cloned();
        let outcome = self.objects.create_bucket(&name, settings, principal.owner()).await;
        let outcome = outcome.map_err(failed(&request.extensions))?;
        if outcome.existed {
            // Asked for with other grants than it has, it is not the bucket that is there.
            let same = outcome.bucket.settings.document(DocumentKind::Acl) == access.as_deref();
            let taken = || object_error(ObjectError::BucketAlreadyExists(name.clone()), None);
            return Err(if same { already_owned() } else { taken() });
        }
        Ok(S3Response::new(dto::CreateBucketOutput { location: Some(format!("/{name}")) }))
    }

    pub(crate) async fn on_head_bucket(
        &self,
        request: S3Request<dto::HeadBucketInput>,
    ) -> S3Result<S3Response<dto::HeadBucketOutput>> {
        let expected = request.input.expected_bucket_owner.as_deref();
        let row = self.bucket_row(&request.extensions, &request.input.bucket, expected).await?;
        let bucket_region = Some(self.region_of(&row));
        Ok(S3Response::new(dto::HeadBucketOutput { bucket_region, ..Default::default() }))
    }

    pub(crate) async fn on_delete_bucket(
        &self,
        request: S3Request<dto::DeleteBucketInput>,
    ) -> S3Result<S3Response<dto::DeleteBucketOutput>> {
        refuse_subresources(&request.uri, &[])?;
        let expected = request.input.expected_bucket_owner.as_deref();
        let bucket = self.bucket(&request.extensions, &request.input.bucket, expected).await?;
        self.objects.delete_bucket(&bucket).await.map_err(failed(&request.extensions))?;
        Ok(S3Response::new(dto::DeleteBucketOutput {}))
    }

    pub(crate) async fn on_get_bucket_location(
        &self,
        request: S3Request<dto::GetBucketLocationInput>,
    ) -> S3Result<S3Response<dto::GetBucketLocationOutput>> {
        let expected = request.input.expected_bucket_owner.as_deref();
        let row = self.bucket_row(&request.extensions, &request.input.bucket, expected).await?;
        let location_constraint = Some(self.region_of(&row).into());
        Ok(S3Response::new(dto::GetBucketLocationOutput { location_constraint }))
    }

    /// The row of a bucket that the request may use.
    pub(crate) async fn bucket_row(
        &self,
        extensions: &http::Extensions,
        name: &str,
        expected_owner: Option<&str>,
    ) -> S3Result<BucketRow> {
        let bucket = bucket_name(name)?;
        authorized_bucket(&self.objects, extensions, &bucket, expected_owner).await
    }

    /// The region that the bucket's creation named, else this one.
    pub(crate) fn region_of(&self, row: &BucketRow) -> String {
        row.settings.region.as_ref().unwrap_or_else(|| self.objects.region()).to_string()
    }
}

/// `x-meridian-replication: 110`, as the bucket's own code.
///
/// # Errors
/// `InvalidArgument` that says what is missing (rule 24).
fn replica_code(objects: &Objects, headers: &HeaderMap) -> S3Result<Option<ReplicaCode>> {
    let Some(value) = headers.get(REPLICATION_HEADER) else { return Ok(None) };
    let code = value.to_str().ok().and_then(|text| text.parse().ok());
    let code = code.ok_or_else(|| invalid_argument(REPLICATION_HEADER, "must be three digits, such as 110"))?;
    objects.check_code(code).map_err(|failure| object_error(failure, None))?;
    Ok(Some(code))
}

/// S3's form of an account.
pub(crate) fn owner(principal: &Principal) -> dto::Owner {
    dto::Owner { id: Some(principal.owner().to_owned()), display_name: Some(principal.identity.display_name.clone()) }
}

struct BucketPage {
    rows: Vec<BucketRow>,
    /// The last name of a page that is not the last.
    next: Option<String>,
}

fn bucket_page(
    mut rows: Vec<BucketRow>,
    principal: &Principal,
    prefix: Option<&str>,
    after: Option<&str>,
    limit: usize,
) -> BucketPage {
    rows.retain(|row| principal.is_admin() || row.owner == principal.owner());
    rows.retain(|row| prefix.is_none_or(|prefix| row.name.as_str().starts_with(prefix)));
    rows.retain(|row| after.is_none_or(|after| row.name.as_str() > after));
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    let truncated = rows.len() > limit;
    rows.truncate(limit);
    let next = if truncated { rows.last().map(|row| row.name.to_string()) } else { None };
    BucketPage { rows, next }
}

/// Pages of objects hold at most this many keys and prefixes.
pub(crate) const PAGE_MAX: usize = LIST_PAGE_MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::principal;
    use meridian_object::BucketState;
    use meridian_types::{BucketId, BucketName, DatacenterId, Stamp, Timestamp};

    fn row(name: &str, owner: &str) -> BucketRow {
        let name: BucketName = name.parse().unwrap();
        let stamp = Stamp::new(Timestamp::ZERO, DatacenterId::new(1).unwrap());
        BucketRow {
            id: BucketId::derive(&name, 0),
            name,
            deletions: 0,
            created: stamp,
            updated: stamp,
            owner: owner.to_owned(),
            state: BucketState::Active,
            settings: BucketSettings::default(),
            changes: Default::default(),
        }
    }

    fn names(page: &BucketPage) -> Vec<&str> {
        page.rows.iter().map(|row| row.name.as_str()).collect()
    }

    #[test]
    fn an_account_sees_its_own_buckets_in_pages() {
        let rows = || vec![row("ccc", "ann"), row("aaa", "ann"), row("bbb", "bob"), row("abc", "ann")];
        let (ann, admin) = (principal("ann", false), principal("root", true));
        let all = bucket_page(rows(), &ann, None, None, usize::MAX);
        assert_eq!((names(&all), all.next.clone()), (vec!["aaa", "abc", "ccc"], None));
        assert_eq!(names(&bucket_page(rows(), &admin, None, None, 10)).len(), 4);
        assert_eq!(names(&bucket_page(rows(), &ann, Some("a"), None, 10)), ["aaa", "abc"]);
        let first = bucket_page(rows(), &ann, None, None, 2);
        assert_eq!((names(&first), first.next.as_deref()), (vec!["aaa", "abc"], Some("abc")));
        assert_eq!(names(&bucket_page(rows(), &ann, None, first.next.as_deref(), 2)), ["ccc"]);
    }
}
