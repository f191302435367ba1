//! The documents of a bucket's configuration: CORS, tagging, lifecycle, encryption, replication, and those that are only kept
//! (notification, logging, website, accelerate, request payment). All but encryption are kept as S3's XML.
//!
//! Invariants: a document is kept only when S3 would take it; one that is absent is answered with S3's own default or
//! its own error.

use http::StatusCode;
use meridian_object::{BucketRow, DefaultEncryption, DocumentKind, ObjectError};
use s3s::dto;
use s3s::xml::{Deserialize, Serialize};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use crate::document_xml::{from_text, to_text};
use crate::errors::{error, error_with_status, invalid_request, object_error};
use crate::gateway::Gateway;
use crate::lifecycle::checked_lifecycle;
use crate::sse::{configuration_of, default_of};
use crate::wire_values::bucket_name;

/// Most rules of a CORS configuration (S3).
const CORS_RULES_MAX: usize = 100;
/// Longest tag name and value, in characters (S3).
const TAG_NAME_LENGTH_MAX: usize = 128;
const TAG_VALUE_LENGTH_MAX: usize = 256;
/// Most tags of a bucket (S3).
const BUCKET_TAGS_MAX: usize = 50;

macro_rules! documents {
    ($($method:ident, $input:ident, $output:ident, $kind:ident, |$document:ident, $row:ident| $take:expr;)*) => {
        impl Gateway {
            $(
                pub(crate) async fn $method(
                    &self,
                    request: S3Request<dto::$input>,
                ) -> S3Result<S3Response<dto::$output>> {
                    let S3Request { input: $document, extensions, .. } = request;
                    let expected = $document.expected_bucket_owner.as_deref();
                    let $row = self.bucket_row(&extensions, &$document.bucket, expected).await?;
                    let text: Option<String> = $take;
                    self.set_document(&extensions, &$row.name, DocumentKind::$kind, text).await?;
                    Ok(S3Response::new(dto::$output::default()))
                }
            )*
        }
    };
}

documents! {
    on_put_bucket_cors, PutBucketCorsInput, PutBucketCorsOutput, Cors,
        |input, row| Some(to_text(&checked_cors(input.cors_configuration)?)?);
    on_delete_bucket_cors, DeleteBucketCorsInput, DeleteBucketCorsOutput, Cors, |input, row| None;
    on_put_bucket_tagging, PutBucketTaggingInput, PutBucketTaggingOutput, Tagging,
        |input, row| Some(to_text(&checked_tagging(input.tagging)?)?);
    on_delete_bucket_tagging, DeleteBucketTaggingInput, DeleteBucketTaggingOutput, Tagging, |input, row| None;
    on_put_bucket_encryption, PutBucketEncryptionInput, PutBucketEncryptionOutput, Encryption,
        |input, row| Some(default_of(&input.server_side_encryption_configuration, malformed)?.to_text());
    on_delete_bucket_encryption, DeleteBucketEncryptionInput, DeleteBucketEncryptionOutput, Encryption,
        |input, row| None;
    on_put_bucket_lifecycle_configuration, PutBucketLifecycleConfigurationInput,
        PutBucketLifecycleConfigurationOutput, Lifecycle,
        |input, row| Some(to_text(&checked_lifecycle(input.lifecycle_configuration.ok_or_else(malformed)?)?)?);
    on_delete_bucket_lifecycle, DeleteBucketLifecycleInput, DeleteBucketLifecycleOutput, Lifecycle, |input, row| None;
    on_put_bucket_replication, PutBucketReplicationInput, PutBucketReplicationOutput, Replication,
        |input, row| Some(to_text(&checked_replication(&row, input.replication_configuration)?)?);
    on_delete_bucket_replication, DeleteBucketReplicationInput, DeleteBucketReplicationOutput, Replication,
        |input, row| None;
    on_put_bucket_notification_configuration, PutBucketNotificationConfigurationInput,
        PutBucketNotificationConfigurationOutput, Notification,
        |input, row| kept_unless_empty(&checked_notification(input.notification_configuration)?)?;
    on_put_bucket_website, PutBucketWebsiteInput, PutBucketWebsiteOutput, Website,
        |input, row| Some(to_text(&checked_website(input.website_configuration)?)?);
    on_delete_bucket_website, DeleteBucketWebsiteInput, DeleteBucketWebsiteOutput, Website, |input, row| None;
    on_put_bucket_accelerate_configuration, PutBucketAccelerateConfigurationInput,
        PutBucketAccelerateConfigurationOutput, Accelerate,
        |input, row| Some(to_text(&checked_accelerate(input.accelerate_configuration)?)?);
    on_put_bucket_request_payment, PutBucketRequestPaymentInput, PutBucketRequestPaymentOutput, RequestPayment,
        |input, row| Some(to_text(&checked_payment(input.request_payment_configuration)?)?);
}

impl Gateway {
    /// Logs go to a bucket that is there and belongs to the same account (S3).
    pub(crate) async fn on_put_bucket_logging(
        &self,
        request: S3Request<dto::PutBucketLoggingInput>,
    ) -> S3Result<S3Response<dto::PutBucketLoggingOutput>> {
        let S3Request { input, extensions, .. } = request;
        let row = self.bucket_row(&extensions, &input.bucket, input.expected_bucket_owner.as_deref()).await?;
        if let Some(enabled) = &input.bucket_logging_status.logging_enabled {
            let absent = "The target bucket for logging does not exist";
            let refused = |text| error(S3ErrorCode::InvalidTargetBucketForLogging, text);
            let target = bucket_name(&enabled.target_bucket).map_err(|_| refused(absent))?;
            let target = self.objects.head_bucket(&target).await.map_err(|failure| match failure {
                ObjectError::NoSuchBucket(_) => refused(absent),
                failure => object_error(failure, None),
            })?;
            if target.owner != row.owner {
                return Err(refused("The owner for the bucket to be logged and the target bucket must be the same."));
            }
        }
        let text = to_text(&input.bucket_logging_status)?;
        self.set_document(&extensions, &row.name, DocumentKind::Logging, Some(text)).await?;
        Ok(S3Response::new(dto::PutBucketLoggingOutput::default()))
    }
}

macro_rules! answers {
    ($($method:ident, $input:ident, $output:ident, |$row:ident| $answer:expr;)*) => {
        impl Gateway {
            $(
                pub(crate) async fn $method(
                    &self,
                    request: S3Request<dto::$input>,
                ) -> S3Result<S3Response<dto::$output>> {
                    let expected = request.input.expected_bucket_owner.as_deref();
                    let $row = self.bucket_row(&request.extensions, &request.input.bucket, expected).await?;
                    let answer: dto::$output = $answer;
                    Ok(S3Response::new(answer))
                }
            )*
        }
    };
}

answers! {
    on_get_bucket_cors, GetBucketCorsInput, GetBucketCorsOutput, |row| {
        let absent = || error(S3ErrorCode::NoSuchCORSConfiguration, "The CORS configuration does not exist");
        let cors: dto::CORSConfiguration = kept(&row, DocumentKind::Cors)?.ok_or_else(absent)?;
        dto::GetBucketCorsOutput { cors_rules: Some(cors.cors_rules) }
    };
    on_get_bucket_tagging, GetBucketTaggingInput, GetBucketTaggingOutput, |row| {
        let absent = || error(S3ErrorCode::NoSuchTagSet, "The TagSet does not exist");
        let tagging: dto::Tagging = kept(&row, DocumentKind::Tagging)?.ok_or_else(absent)?;
        dto::GetBucketTaggingOutput { tag_set: tagging.tag_set }
    };
    on_get_bucket_encryption, GetBucketEncryptionInput, GetBucketEncryptionOutput, |row| {
        let absent = || {
            absent(
                "ServerSideEncryptionConfigurationNotFoundError",
                "The server side encryption configuration was not found",
            )
        };
        let default = DefaultEncryption::of(&row).map_err(|failure| object_error(failure, None))?.ok_or_else(absent)?;
        dto::GetBucketEncryptionOutput { server_side_encryption_configuration: Some(configuration_of(default)) }
    };
    on_get_bucket_lifecycle_configuration, GetBucketLifecycleConfigurationInput,
        GetBucketLifecycleConfigurationOutput, |row| {
        let absent =
            || error(S3ErrorCode::NoSuchLifecycleConfiguration, "The lifecycle configuration does not exist");
        let lifecycle: dto::BucketLifecycleConfiguration = kept(&row, DocumentKind::Lifecycle)?.ok_or_else(absent)?;
        dto::GetBucketLifecycleConfigurationOutput { rules: Some(lifecycle.rules), ..Default::default() }
    };
    on_get_bucket_replication, GetBucketReplicationInput, GetBucketReplicationOutput, |row| {
        let absent =
            || absent("ReplicationConfigurationNotFoundError", "The replication configuration was not found");
        let replication_configuration = Some(kept(&row, DocumentKind::Replication)?.ok_or_else(absent)?);
        dto::GetBucketReplicationOutput { replication_configuration }
    };
    on_get_bucket_website, GetBucketWebsiteInput, GetBucketWebsiteOutput, |row| {
        let absent = || {
            let text = "The specified bucket does not have a website configuration";
            error(S3ErrorCode::NoSuchWebsiteConfiguration, text)
        };
        let website: dto::WebsiteConfiguration = kept(&row, DocumentKind::Website)?.ok_or_else(absent)?;
        dto::GetBucketWebsiteOutput {
            error_document: website.error_document,
            index_document: website.index_document,
            redirect_all_requests_to: website.redirect_all_requests_to,
            routing_rules: website.routing_rules,
        }
    };
    on_get_bucket_logging, GetBucketLoggingInput, GetBucketLoggingOutput, |row| {
        let logging: Option<dto::BucketLoggingStatus> = kept(&row, DocumentKind::Logging)?;
        dto::GetBucketLoggingOutput { logging_enabled: logging.and_then(|logging| logging.logging_enabled) }
    };
    on_get_bucket_notification_configuration, GetBucketNotificationConfigurationInput,
        GetBucketNotificationConfigurationOutput, |row| {
        let found: Option<dto::NotificationConfiguration> = kept(&row, DocumentKind::Notification)?;
        let found = found.unwrap_or_default();
        dto::GetBucketNotificationConfigurationOutput {
            event_bridge_configuration: found.event_bridge_configuration,
            lambda_function_configurations: found.lambda_function_configurations,
            queue_configurations: found.queue_configurations,
            topic_configurations: found.topic_configurations,
        }
    };
    on_get_bucket_accelerate_configuration, GetBucketAccelerateConfigurationInput,
        GetBucketAccelerateConfigurationOutput, |row| {
        let found: Option<dto::AccelerateConfiguration> = kept(&row, DocumentKind::Accelerate)?;
        dto::GetBucketAccelerateConfigurationOutput { status: found.and_then(|found| found.status), ..Default::default() }
    };
    on_get_bucket_request_payment, GetBucketRequestPaymentInput, GetBucketRequestPaymentOutput, |row| {
        let found: Option<dto::RequestPaymentConfiguration> = kept(&row, DocumentKind::RequestPayment)?;
        let owner = || dto::Payer::from_static(dto::Payer::BUCKET_OWNER);
        dto::GetBucketRequestPaymentOutput { payer: Some(found.map_or_else(owner, |found| found.payer)) }
    };
}

fn kept<T: for<'xml> Deserialize<'xml>>(row: &BucketRow, kind: DocumentKind) -> S3Result<Option<T>> {
    row.settings.document(kind).map(from_text).transpose()
}

fn kept_unless_empty<T: Serialize + Default + PartialEq>(document: &T) -> S3Result<Option<String>> {
    if *document == T::default() { Ok(None) } else { to_text(document).map(Some) }
}

/// 404s that s3s has under another status or not at all.
fn absent(code: &'static str, message: &'static str) -> S3Error {
    error_with_status(code, StatusCode::NOT_FOUND, message)
}

pub(crate) fn malformed() -> S3Error {
    let text = "The XML you provided was not well-formed or did not validate against our published schema";
    error(S3ErrorCode::MalformedXML, text)
}

fn checked_cors(cors: dto::CORSConfiguration) -> S3Result<dto::CORSConfiguration> {
    if cors.cors_rules.is_empty() || cors.cors_rules.len() > CORS_RULES_MAX {
        return Err(malformed());
    }
    for rule in &cors.cors_rules {
        if rule.allowed_methods.is_empty() || rule.allowed_origins.is_empty() {
            return Err(malformed());
        }
        if let Some(method) = rule
            .allowed_methods
            .iter()
            .find(|method| !["GET", "PUT", "POST", "DELETE", "HEAD"].contains(&method.as_str()))
        {
            let text = format!("Found unsupported HTTP method in CORS config. Unsupported method is {method}");
            return Err(invalid_request(text));
        }
        if let Some(origin) = rule.allowed_origins.iter().find(|origin| origin.matches('*').count() > 1) {
            return Err(invalid_request(format!("AllowedOrigin \"{origin}\" can not have more than one wildcard.")));
        }
        let headers = rule.allowed_headers.iter().flatten();
        if let Some(header) = headers.into_iter().find(|header| header.matches('*').count() > 1) {
            return Err(invalid_request(format!("AllowedHeader \"{header}\" can not have more than one wildcard.")));
        }
        if let Some(header) = rule.expose_headers.iter().flatten().find(|header| header.contains('*')) {
            let text = format!(
                "ExposeHeader \"{header}\" contains wildcard. We currently do not support wildcard for ExposeHeader."
            );
            return Err(invalid_request(text));
        }
    }
    Ok(cors)
}

/// # Errors
/// `InvalidTag`, `MalformedXML` for more than `count_max`.
pub(crate) fn check_tag_texts(tags: &[(String, String)], count_max: usize) -> S3Result<()> {
    let invalid = |text: &str| Err(error(S3ErrorCode::InvalidTag, text));
    if tags.len() > count_max {
        return invalid(&format!("There can be at most {count_max} tags"));
    }
    for (place, (name, value)) in tags.iter().enumerate() {
        if name.is_empty() || name.chars().count() > TAG_NAME_LENGTH_MAX {
            return invalid("The TagKey you have provided is invalid");
        }
        if value.chars().count() > TAG_VALUE_LENGTH_MAX {
            return invalid("The TagValue you have provided is invalid");
        }
        if name.starts_with("aws:") {
            return invalid("System tags cannot be added/updated by requester");
        }
        if tags[..place].iter().any(|(other, _)| other == name) {
            return invalid("Cannot provide multiple Tags with the same key");
        }
    }
    Ok(())
}

fn checked_tagging(tagging: dto::Tagging) -> S3Result<dto::Tagging> {
    let pair = |tag: &dto::Tag| Some((tag.key.clone()?, tag.value.clone()?));
    let pairs: Option<Vec<(String, String)>> = tagging.tag_set.iter().map(pair).collect();
    check_tag_texts(&pairs.ok_or_else(malformed)?, BUCKET_TAGS_MAX)?;
    Ok(tagging)
}

/// S3's rules stand for our own replication, which carries every bucket to every datacenter that its code names.
fn checked_replication(
    row: &BucketRow,
    replication: dto::ReplicationConfiguration,
) -> S3Result<dto::ReplicationConfiguration> {
    if replication.rules.is_empty() || replication.rules.len() > 1000 {
        return Err(malformed());
    }
    if row.settings.versioning != meridian_object::Versioning::Enabled {
        let text = "Versioning must be 'Enabled' on the bucket to apply a replication configuration";
        return Err(invalid_request(text));
    }
    let is_status = |status: &str| status == "Enabled" || status == "Disabled";
    if replication.rules.iter().any(|rule| !is_status(rule.status.as_str())) {
        return Err(malformed());
    }
    Ok(replication)
}

/// Nobody is told of events yet, and a configuration that would be broken in silence is refused.
fn checked_notification(notification: dto::NotificationConfiguration) -> S3Result<dto::NotificationConfiguration> {
    let is_empty = notification.lambda_function_configurations.as_ref().is_none_or(Vec::is_empty)
        && notification.queue_configurations.as_ref().is_none_or(Vec::is_empty)
        && notification.topic_configurations.as_ref().is_none_or(Vec::is_empty);
    if is_empty {
        return Ok(dto::NotificationConfiguration::default());
    }
    Err(error(S3ErrorCode::InvalidArgument, "Unable to validate the following destination configurations"))
}

fn checked_website(website: dto::WebsiteConfiguration) -> S3Result<dto::WebsiteConfiguration> {
    match (&website.index_document, &website.redirect_all_requests_to) {
        (Some(index), None) if !index.suffix.is_empty() && !index.suffix.contains('/') => Ok(website),
        (None, Some(_)) if website.error_document.is_none() && website.routing_rules.is_none() => Ok(website),
        (Some(_), None) => Err(error(S3ErrorCode::InvalidArgument, "The IndexDocument Suffix is not well formed")),
        _ => Err(error(
            S3ErrorCode::InvalidArgument,
            "A value for IndexDocument Suffix must be provided if RedirectAllRequestsTo is empty",
        )),
    }
}

fn checked_accelerate(accelerate: dto::AccelerateConfiguration) -> S3Result<dto::AccelerateConfiguration> {
    match accelerate.status.as_ref().map(|status| status.as_str()) {
        Some("Enabled" | "Suspended") => Ok(accelerate),
        _ => Err(malformed()),
    }
}

fn checked_payment(payment: dto::RequestPaymentConfiguration) -> S3Result<dto::RequestPaymentConfiguration> {
    match payment.payer.as_str() {
        "BucketOwner" | "Requester" => Ok(payment),
        _ => Err(malformed()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(method: &str, origin: &str) -> S3Result<dto::CORSConfiguration> {
        let text = format!(
            "<CORSConfiguration><CORSRule><AllowedMethod>{method}</AllowedMethod><AllowedOrigin>{origin}</AllowedOrigin>\
             </CORSRule></CORSConfiguration>"
        );
        checked_cors(from_text(&text)?)
    }

    #[test]
    fn cors_rules_are_checked_as_s3_does() {
        assert!(cors("GET", "*").is_ok());
        assert_eq!(cors("TRACE", "*").unwrap_err().code().as_str(), "InvalidRequest");
        assert_eq!(cors("GET", "*.*").unwrap_err().code().as_str(), "InvalidRequest");
        assert!(checked_cors(dto::CORSConfiguration { cors_rules: vec![] }).is_err());
    }

    #[test]
    fn tags_of_buckets_are_checked() {
        let tagging = |names: &[&str]| {
            let tag = |name: &&str| dto::Tag { key: Some((*name).to_owned()), value: Some("v".to_owned()) };
            checked_tagging(dto::Tagging { tag_set: names.iter().map(tag).collect() })
        };
        assert!(tagging(&["a", "b"]).is_ok());
        assert_eq!(tagging(&["a", "a"]).unwrap_err().code().as_str(), "InvalidTag");
        let many: Vec<String> = (0..51).map(|number| number.to_string()).collect();
        assert!(tagging(&many.iter().map(String::as_str).collect::<Vec<_>>()).is_err());
    }
}
