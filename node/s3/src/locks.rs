//! Object Lock: a bucket's configuration, retention and legal hold of a version.
//!
//! Whether a lock allows a change or a removal is decided where it is applied, not here.
//!
//! Source: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html>

use http::StatusCode;
use meridian_object::{
    Attributes, BucketRow, Change, ChangeRequest, DefaultRetention, ObjectLock, Retention, RetentionMode, Versioning,
};
use s3s::dto;
use s3s::{S3ErrorCode, S3Request, S3Response, S3Result};

use crate::errors::{error, error_with_status, invalid_argument, invalid_request, malformed_xml};
use crate::gateway::{Gateway, failed};
use crate::get::plain_read;
use crate::versioning::version_id;
use crate::wire_values::{object_key, timestamp, unix_ms};

/// Longest default retention (S3).
const RETENTION_DAYS_MAX: i32 = 36_500;
const RETENTION_YEARS_MAX: i32 = 100;

impl Gateway {
    pub(crate) async fn on_get_object_lock_configuration(
        &self,
        request: S3Request<dto::GetObjectLockConfigurationInput>,
    ) -> S3Result<S3Response<dto::GetObjectLockConfigurationOutput>> {
        let expected = request.input.expected_bucket_owner.as_deref();
        let row = self.bucket_row(&request.extensions, &request.input.bucket, expected).await?;
        let Some(lock) = row.settings.object_lock else {
            let text = "Object Lock configuration does not exist for this bucket";
            return Err(error_with_status("ObjectLockConfigurationNotFoundError", StatusCode::NOT_FOUND, text));
        };
        let object_lock_configuration = Some(dto::ObjectLockConfiguration {
            object_lock_enabled: Some(dto::ObjectLockEnabled::from_static(dto::ObjectLockEnabled::ENABLED)),
            rule: lock.default.map(rule),
        });
        Ok(S3Response::new(dto::GetObjectLockConfigurationOutput { object_lock_configuration }))
    }

    pub(crate) async fn on_put_object_lock_configuration(
        &self,
        request: S3Request<dto::PutObjectLockConfigurationInput>,
    ) -> S3Result<S3Response<dto::PutObjectLockConfigurationOutput>> {
        let S3Request { input, extensions, .. } = request;
        let row = self.bucket_row(&extensions, &input.bucket, input.expected_bucket_owner.as_deref()).await?;
        let lock = object_lock(input.object_lock_configuration.ok_or_else(malformed_xml)?)?;
        if row.settings.versioning != Versioning::Enabled {
            let text = "Versioning must be 'Enabled' on the bucket to apply a Object Lock configuration";
            return Err(error(S3ErrorCode::InvalidBucketState, text));
        }
        let mut settings = row.settings;
        settings.object_lock = Some(lock);
        self.objects.update_bucket(&row.name, settings).await.map_err(failed(&extensions))?;
        Ok(S3Response::new(dto::PutObjectLockConfigurationOutput::default()))
    }

    pub(crate) async fn on_get_object_retention(
        &self,
        request: S3Request<dto::GetObjectRetentionInput>,
    ) -> S3Result<S3Response<dto::GetObjectRetentionOutput>> {
        let S3Request { input, extensions, .. } = request;
        let row = self.bucket_row(&extensions, &input.bucket, input.expected_bucket_owner.as_deref()).await?;
        check_lockable(&row)?;
        let read = plain_read(row.name, &input.key, input.version_id.as_deref())?;
        let info = self.objects.head(read).await.map_err(failed(&extensions))?.info;
        let retention = info.attributes.retention.ok_or_else(not_locked)?;
        let retention = Some(dto::ObjectLockRetention {
            mode: Some(dto::ObjectLockRetentionMode::from_static(mode_name(retention.mode))),
            retain_until_date: Some(timestamp(retention.until_unix_ms)),
        });
        Ok(S3Response::new(dto::GetObjectRetentionOutput { retention }))
    }

    pub(crate) async fn on_put_object_retention(
        &self,
        request: S3Request<dto::PutObjectRetentionInput>,
    ) -> S3Result<S3Response<dto::PutObjectRetentionOutput>> {
        let S3Request { input, extensions, .. } = request;
        let row = self.bucket_row(&extensions, &input.bucket, input.expected_bucket_owner.as_deref()).await?;
        check_lockable(&row)?;
        let retention = input.retention.ok_or_else(malformed_xml)?;
        let retention = match (retention.mode, retention.retain_until_date) {
            (None, None) => None,
            (Some(mode), Some(until)) => {
                Some(Retention { mode: mode_named(mode.as_str())?, until_unix_ms: unix_ms(&until) })
            }
            _ => return Err(malformed_xml()),
        };
        check_future(retention, self.objects.now_unix_ms())?;
        let change = ChangeRequest {
            bucket: row.name,
            key: object_key(&input.key)?,
            version: version_id(input.version_id.as_deref())?,
            change: Change::Retention(retention),
            bypass_governance: input.bypass_governance_retention == Some(true),
        };
        self.objects.change(change).await.map_err(failed(&extensions))?;
        Ok(S3Response::new(dto::PutObjectRetentionOutput::default()))
    }

    pub(crate) async fn on_get_object_legal_hold(
        &self,
        request: S3Request<dto::GetObjectLegalHoldInput>,
    ) -> S3Result<S3Response<dto::GetObjectLegalHoldOutput>> {
        let S3Request { input, extensions, .. } = request;
        let row = self.bucket_row(&extensions, &input.bucket, input.expected_bucket_owner.as_deref()).await?;
        check_lockable(&row)?;
        let read = plain_read(row.name, &input.key, input.version_id.as_deref())?;
        let info = self.objects.head(read).await.map_err(failed(&extensions))?.info;
        let status = legal_hold_status(&info.attributes).ok_or_else(not_locked)?;
        let legal_hold = Some(dto::ObjectLockLegalHold { status: Some(status) });
        Ok(S3Response::new(dto::GetObjectLegalHoldOutput { legal_hold }))
    }

    pub(crate) async fn on_put_object_legal_hold(
        &self,
        request: S3Request<dto::PutObjectLegalHoldInput>,
    ) -> S3Result<S3Response<dto::PutObjectLegalHoldOutput>> {
        let S3Request { input, extensions, .. } = request;
        let row = self.bucket_row(&extensions, &input.bucket, input.expected_bucket_owner.as_deref()).await?;
        check_lockable(&row)?;
        let status = input.legal_hold.and_then(|hold| hold.status).ok_or_else(malformed_xml)?;
        let on = legal_hold(status.as_str()).map_err(|_| malformed_xml())?;
        let change = ChangeRequest {
            bucket: row.name,
            key: object_key(&input.key)?,
            version: version_id(input.version_id.as_deref())?,
            change: Change::LegalHold(on),
            bypass_governance: false,
        };
        self.objects.change(change).await.map_err(failed(&extensions))?;
        Ok(S3Response::new(dto::PutObjectLegalHoldOutput::default()))
    }
}

/// # Errors
/// `InvalidArgument` for a retention that is over before it begins.
pub(crate) fn check_future(retention: Option<Retention>, now_unix_ms: u64) -> S3Result<()> {
    if retention.is_some_and(|retention| retention.until_unix_ms <= now_unix_ms) {
        return Err(error(S3ErrorCode::InvalidArgument, "The retain until date must be in the future!"));
    }
    Ok(())
}

fn check_lockable(row: &BucketRow) -> S3Result<()> {
    let missing = || invalid_request("Bucket is missing Object Lock Configuration");
    row.settings.object_lock.map(|_| ()).ok_or_else(missing)
}

fn not_locked() -> s3s::S3Error {
    let text = "The specified object does not have a ObjectLock configuration";
    error_with_status("NoSuchObjectLockConfiguration", StatusCode::NOT_FOUND, text)
}

pub(crate) fn mode_name(mode: RetentionMode) -> &'static str {
    match mode {
        RetentionMode::Governance => "GOVERNANCE",
        RetentionMode::Compliance => "COMPLIANCE",
    }
}

fn mode_named(name: &str) -> S3Result<RetentionMode> {
    match name {
        "GOVERNANCE" => Ok(RetentionMode::Governance),
        "COMPLIANCE" => Ok(RetentionMode::Compliance),
        _ => Err(malformed_xml()),
    }
}

pub(crate) fn legal_hold_status(attributes: &Attributes) -> Option<dto::ObjectLockLegalHoldStatus> {
    let name = if attributes.legal_hold? { "ON" } else { "OFF" };
    Some(dto::ObjectLockLegalHoldStatus::from_static(name))
}

/// `x-amz-object-lock-legal-hold`
///
/// # Errors
/// `InvalidArgument` for anything but ON and OFF.
pub(crate) fn legal_hold(status: &str) -> S3Result<bool> {
    match status {
        "ON" => Ok(true),
        "OFF" => Ok(false),
        _ => Err(invalid_argument("x-amz-object-lock-legal-hold", "must be ON or OFF")),
    }
}

/// The retention that a write's headers ask for.
///
/// # Errors
/// `InvalidArgument` for one header without the other, and for an unknown mode.
pub(crate) fn retention_of_headers(mode: Option<&str>, until: Option<&dto::Timestamp>) -> S3Result<Option<Retention>> {
    match (mode, until) {
        (None, None) => Ok(None),
        (Some(mode), Some(until)) => {
            let unknown = |_| invalid_argument("x-amz-object-lock-mode", "Unknown wormMode directive.");
            let mode = mode_named(mode).map_err(unknown)?;
            Ok(Some(Retention { mode, until_unix_ms: unix_ms(until) }))
        }
        _ => Err(invalid_argument(
            "x-amz-object-lock-mode",
            "x-amz-object-lock-retain-until-date and x-amz-object-lock-mode must both be supplied",
        )),
    }
}

fn rule(default: DefaultRetention) -> dto::ObjectLockRule {
    let count = |count: u32| i32::try_from(count).ok().filter(|count| *count > 0);
    let default_retention = Some(dto::DefaultRetention {
        mode: Some(dto::ObjectLockRetentionMode::from_static(mode_name(default.mode))),
        days: count(default.days),
        years: count(default.years),
    });
    dto::ObjectLockRule { default_retention }
}

fn object_lock(configuration: dto::ObjectLockConfiguration) -> S3Result<ObjectLock> {
    let enabled = configuration.object_lock_enabled.as_ref().map(|enabled| enabled.as_str());
    if enabled != Some(dto::ObjectLockEnabled::ENABLED) {
        return Err(malformed_xml());
    }
    let Some(rule) = configuration.rule else { return Ok(ObjectLock::default()) };
    let given = rule.default_retention.ok_or_else(malformed_xml)?;
    let mode = mode_named(given.mode.as_ref().ok_or_else(malformed_xml)?.as_str())?;
    let period = |count: i32, max: i32| match u32::try_from(count) {
        Ok(count) if count > 0 && count <= max.unsigned_abs() => Ok(count),
        _ => {
            let text = "Default retention period must be a positive integer value within its limit.";
            Err(error_with_status("InvalidRetentionPeriod", StatusCode::BAD_REQUEST, text))
        }
    };
    let default = match (given.days, given.years) {
        (Some(days), None) => DefaultRetention { mode, days: period(days, RETENTION_DAYS_MAX)?, years: 0 },
        (None, Some(years)) => DefaultRetention { mode, days: 0, years: period(years, RETENTION_YEARS_MAX)? },
        _ => return Err(malformed_xml()),
    };
    Ok(ObjectLock { default: Some(default) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(mode: &'static str, days: Option<i32>, years: Option<i32>) -> dto::ObjectLockConfiguration {
        let mode = Some(dto::ObjectLockRetentionMode::from_static(mode));
        let default_retention = Some(dto::DefaultRetention { mode, days, years });
        dto::ObjectLockConfiguration {
            object_lock_enabled: Some(dto::ObjectLockEnabled::from_static("Enabled")),
            rule: Some(dto::ObjectLockRule { default_retention }),
        }
    }

    #[test]
    fn a_default_retention_is_of_days_or_of_years() {
        let read = |mode, days, years| object_lock(configuration(mode, days, years));
        let lock = read("GOVERNANCE", Some(3), None).unwrap();
        assert_eq!(lock.default, Some(DefaultRetention { mode: RetentionMode::Governance, days: 3, years: 0 }));
        assert_eq!(rule(lock.default.unwrap()).default_retention.unwrap().days, Some(3));
        for (mode, days, years, code) in [
            ("GOVERNANCE", Some(1), Some(1), "MalformedXML"),
            ("GOVERNANCE", None, None, "MalformedXML"),
            ("governance", Some(1), None, "MalformedXML"),
            ("COMPLIANCE", Some(0), None, "InvalidRetentionPeriod"),
            ("COMPLIANCE", None, Some(-1), "InvalidRetentionPeriod"),
            ("COMPLIANCE", Some(36_501), None, "InvalidRetentionPeriod"),
        ] {
            assert_eq!(read(mode, days, years).unwrap_err().code().as_str(), code);
        }
        let disabled = dto::ObjectLockConfiguration {
            object_lock_enabled: Some(dto::ObjectLockEnabled::from_static("Disabled")),
            rule: None,
        };
        assert_eq!(object_lock(disabled).unwrap_err().code().as_str(), "MalformedXML");
    }

    #[test]
    fn lock_headers_come_together() {
        let until = timestamp(5000);
        let retention = retention_of_headers(Some("COMPLIANCE"), Some(&until)).unwrap().unwrap();
        assert_eq!((retention.mode, retention.until_unix_ms), (RetentionMode::Compliance, 5000));
        assert_eq!(retention_of_headers(None, None).unwrap(), None);
        for (mode, until) in [(Some("COMPLIANCE"), None), (None, Some(&until)), (Some("x"), Some(&until))] {
            assert_eq!(retention_of_headers(mode, until).unwrap_err().code().as_str(), "InvalidArgument");
        }
        assert!(legal_hold("ON").unwrap() && !legal_hold("OFF").unwrap() && legal_hold("on").is_err());
    }
}
