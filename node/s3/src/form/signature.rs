//! Who signed a form: the credential, date and signature among its fields.
//!
//! Invariants: a form with any sign of a signature is no anonymous one; nobody learns whether a key exists before its
//! signature holds, but that it does not.
//!
//! Source: <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-authentication-HTTPPOST.html>

use meridian_sigv4::{ALGORITHM, Scope, verify_policy};
use s3s::{S3Error, S3ErrorCode, S3Result};

use crate::auth::{TOKEN_HEADER, principal_of_key, secret_of};
use crate::config::{CredentialsProvider, Principal};
use crate::errors::{error, invalid_argument, invalid_request};
use crate::form::reading::field_of;

/// Of the old signature, which is not offered.
const OLD_FIELDS: [&str; 2] = ["signature", "awsaccesskeyid"];
const FIELDS: [&str; 5] = ["policy", "x-amz-signature", "x-amz-credential", "x-amz-algorithm", "x-amz-date"];

/// Where a credential is good for.
struct Credential<'f> {
    access_key: &'f str,
    day: &'f str,
    scope: Scope,
}

/// The signer of a form; nobody for one without policy and signature.
///
/// # Errors
/// `InvalidArgument` for a field that is missing or odd, `InvalidAccessKeyId`, `SignatureDoesNotMatch`.
pub(super) async fn signer(
    fields: &[(String, String)],
    credentials: &dyn CredentialsProvider,
) -> S3Result<Option<Principal>> {
    let field = |wanted: &str| field_of(fields, wanted);
    let is_signed = field("x-amz-signature").is_some();
    if !is_signed && OLD_FIELDS.iter().any(|name| field(name).is_some()) {
        let text = "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.";
        return Err(invalid_request(text));
    }
    if FIELDS.iter().all(|name| field(name).is_none()) {
        return Ok(None);
    }
    let [policy, signature, credential, algorithm, date] = FIELDS.map(|name| field(name).ok_or_else(|| missing(name)));
    let (policy, signature, credential) = (policy?, signature?, parse(credential?)?);
    if algorithm? != ALGORITHM {
        return Err(invalid_argument("X-Amz-Algorithm", "only supports AWS4-HMAC-SHA256"));
    }
    if !date?.starts_with(credential.day) {
        return Err(invalid_argument("X-Amz-Date", "must be of the credential's day"));
    }
    let secret = secret_of(credentials, credential.access_key).await?;
    if !verify_policy(&secret, credential.day, &credential.scope, policy, signature) {
        return Err(S3Error::new(S3ErrorCode::SignatureDoesNotMatch));
    }
    let token = field(TOKEN_HEADER).filter(|token| !token.is_empty());
    principal_of_key(credentials, credential.access_key, token).await.map(Some)
}

fn missing(name: &str) -> S3Error {
    let text = format!(
        "Bucket POST must contain a field named '{name}'.  If it is specified, please check the order of the fields."
    );
    error(S3ErrorCode::InvalidArgument, text)
}

/// `ACCESSKEY/20151229/us-east-1/s3/aws4_request`
fn parse(text: &str) -> S3Result<Credential<'_>> {
    let odd = || invalid_argument("X-Amz-Credential", "must be ACCESSKEY/DAY/REGION/s3/aws4_request");
    let mut fields = text.rsplitn(5, '/');
    let mut next = || fields.next().ok_or_else(odd);
    let (terminator, service, region, day, access_key) = (next()?, next()?, next()?, next()?, next()?);
    let is_day = day.len() == 8 && day.bytes().all(|byte| byte.is_ascii_digit());
    if terminator != "aws4_request" || service != "s3" || !is_day || access_key.is_empty() {
        return Err(odd());
    }
    Ok(Credential { access_key, day, scope: Scope::new(region, service) })
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use meridian_sigv4::{SecretKey, sign_policy};

    use super::*;
    use crate::config::CredentialsError;
    use crate::testing::principal;

    struct Ann;

    #[async_trait]
    impl CredentialsProvider for Ann {
        async fn principal(&self, access_key: &str) -> Result<Option<Principal>, CredentialsError> {
            Ok((access_key == "AK/1").then(|| principal("ann", false)))
        }
    }

    fn signed() -> Vec<(String, String)> {
        let signature = sign_policy(&SecretKey::new("s"), "20151229", &Scope::new("dc-a", "s3"), "cG9saWN5");
        let own = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        vec![
            own("policy", "cG9saWN5"),
            own("x-amz-credential", "AK/1/20151229/dc-a/s3/aws4_request"),
            own("x-amz-algorithm", ALGORITHM),
            own("x-amz-date", "20151229T000000Z"),
            own("x-amz-signature", &signature),
        ]
    }

    async fn ask(fields: Vec<(String, String)>) -> Result<Option<String>, String> {
        let signer = signer(&fields, &Ann).await;
        signer.map(|it| it.map(|it| it.identity.name.clone())).map_err(|refused| refused.code().as_str().to_owned())
    }

    #[tokio::test]
    async fn a_signature_tells_who_it_is_and_none_tells_nobody() {
        assert_eq!(ask(signed()).await, Ok(Some("ann".to_owned())));
        assert_eq!(ask(vec![("key".to_owned(), "k".to_owned())]).await, Ok(None));
    }

    #[tokio::test]
    async fn what_is_missing_odd_or_forged_is_refused() {
        for place in 0..5 {
            let mut fields = signed();
            fields.remove(place);
            assert_eq!(ask(fields).await, Err("InvalidArgument".to_owned()), "field {place}");
        }
        for (place, value, code) in [
            (0, "b3RoZXI=", "SignatureDoesNotMatch"),
            (1, "AK/2/20151229/dc-a/s3/aws4_request", "InvalidAccessKeyId"),
            (1, "AK/1/20151230/dc-a/s3/aws4_request", "InvalidArgument"),
            (1, "AK/1/20151229/dc-b/s3/aws4_request", "SignatureDoesNotMatch"),
            (1, "AK/1/20151229/dc-a/iam/aws4_request", "InvalidArgument"),
            (1, "AK", "InvalidArgument"),
            (2, "AWS4-HMAC-SHA1", "InvalidArgument"),
            (4, "00", "SignatureDoesNotMatch"),
        ] {
            let mut fields = signed();
            fields[place].1 = value.to_owned();
            assert_eq!(ask(fields).await, Err(code.to_owned()), "{value}");
        }
        let old = ["awsaccesskeyid", "signature", "policy"].map(|name| (name.to_owned(), "x".to_owned()));
        assert_eq!(ask(old.to_vec()).await, Err("InvalidRequest".to_owned()));
    }
}
