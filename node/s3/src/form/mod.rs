//! POST of an object by a browser's form: the form is read, its policy and signature are checked, and its file is stored
//! as a PUT would store it.
//!
//! s3s knows such forms, but holds the whole file in memory; so they never reach it.
//!
//! Invariants: no byte of the file is taken before policy, signature and access have been checked; a file that is larger or
//! smaller than the policy allows is not stored; what a PUT says in headers, a form says in fields, with the same meaning.
//!
//! Source: <https://docs.aws.amazon.com/AmazonS3/latest/API/RESTObjectPOST.html>

mod answer;
mod fields;
mod policy;
mod reading;
mod signature;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{Extensions, Method, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use meridian_object::{BodyFinish, Condition, ObjectError, PutRequest};
use s3s::{Body, S3ErrorCode, S3Result, StdError};

use crate::checksums::{promised, verified, with_default};
use crate::config::CredentialsProvider;
use crate::context::RequestContext;
use crate::errors::{error, invalid_argument, object_error};
use crate::form::answer::{Stored, answer};
use crate::form::fields::{attributes, headers};
use crate::form::policy::PostPolicy;
use crate::form::reading::{FileStream, Form};
use crate::form::signature::signer;
use crate::gateway::Gateway;
use crate::guard::Guard;
use crate::question::Asked;
use crate::wire_values::{bucket_name, object_key};

const OPERATION: &str = "PostObject";
/// Stands for the name of the file in a form's key.
const FILE_NAME_VARIABLE: &str = "${filename}";

/// Takes the forms of one gateway.
pub(crate) struct Forms {
    pub gateway: Gateway,
    pub guard: Arc<Guard>,
    pub credentials: Arc<dyn CredentialsProvider>,
}

/// Whether a request is a form.
pub(crate) fn is_form(parts: &Parts) -> bool {
    const TYPE: &[u8] = b"multipart/form-data";
    let given = parts.headers.get(CONTENT_TYPE).map(|value| value.as_bytes()).unwrap_or_default();
    let is_type = given.len() >= TYPE.len() && given[..TYPE.len()].eq_ignore_ascii_case(TYPE);
    parts.method == Method::POST && is_type && parts.uri.query().is_none_or(str::is_empty)
}

impl Forms {
    /// Stores the file of a form that was sent to `bucket`.
    ///
    /// # Errors
    /// What S3 answers to a form that is malformed, not allowed, or can't be stored.
    pub async fn post<S>(
        &self,
        parts: &Parts,
        bucket: &str,
        body: S,
        context: &Arc<RequestContext>,
    ) -> S3Result<Response<Body>>
    where
        S: Stream<Item = Result<Bytes, StdError>> + Send + Unpin + 'static,
    {
        context.set_operation(OPERATION);
        let content_type = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let mut form = Form::read(body, content_type, context).await?;
        let key = key_of(&mut form)?;
        let objects = &self.gateway.objects;
        if let Some(principal) = signer(&form.fields, &*self.credentials).await? {
            context.set_principal(Arc::new(principal));
        }
        let (min, max) = match form.field("policy") {
            Some(policy) => {
                let policy = PostPolicy::parse(policy)?;
                policy.check(&form.fields, bucket, objects.now_unix_ms())?;
                policy.length_range()
            }
            None => (0, u64::MAX),
        };
        let headers = headers(&form, &parts.headers)?;
        let asked = Asked {
            operation: OPERATION,
            uri: &parts.uri,
            headers: &headers,
            peer: context.peer,
            secure: context.secure,
            now_unix_ms: objects.now_unix_ms(),
            body: None,
            principal: context.principal().map(Arc::as_ref),
        };
        self.guard.check(asked, Some((bucket, Some(&key))), context).await?;
        let mut extensions = Extensions::new();
        extensions.insert(Arc::clone(context));
        let wish = self.gateway.sse.over(context.secure).wish(&headers)?;
        let attributes = self.gateway.with_access(&extensions, &headers, attributes(&form)?).await?;
        let (file, size) = counted(form.file, max);
        let blob = Body::http_body_unsync(StreamBody::new(file)).into();
        let body = with_default(verified(Some(blob), promised(&headers)?, None, Some(Arc::clone(context))));
        let put = PutRequest {
            bucket: bucket_name(bucket)?,
            key: object_key(&key)?,
            attributes,
            body: body.stream,
            length: None,
            content_md5: None,
            condition: Condition::None,
            finish: Some(within(min, max, size, body.finish)),
        };
        let stored = objects.put_with_key(put, wish).await;
        let outcome = stored.map_err(|failure| object_error(failure, Some(context)))?;
        let stored = Stored { outcome: &outcome, bucket, key: &key };
        answer(&stored, &form.fields, &headers, &parts.headers, &parts.uri)
    }
}

/// The form's key, with the name of its file in it; the policy sees it as it will be.
fn key_of(form: &mut Form) -> S3Result<String> {
    let Some((_, key)) = form.fields.iter_mut().find(|(name, _)| name == "key") else {
        let text =
            "Bucket POST must contain a field named 'key'.  If it is specified, please check the order of the fields.";
        return Err(error(S3ErrorCode::InvalidArgument, text));
    };
    *key = key.replace(FILE_NAME_VARIABLE, &form.file_name);
    if key.is_empty() {
        return Err(invalid_argument("key", "User key must have a length greater than 0."));
    }
    Ok(key.clone())
}

/// The file, cut off once it is larger than allowed, and how much of it has come.
fn counted(
    file: FileStream,
    max: u64,
) -> (impl Stream<Item = Result<Frame<Bytes>, StdError>> + Send + 'static, Arc<AtomicU64>) {
    let size = Arc::new(AtomicU64::new(0));
    let counting = Arc::clone(&size);
    let pieces = stream::unfold(file, move |mut file| {
        let size = Arc::clone(&counting);
        async move {
            if size.load(Ordering::Relaxed) > max {
                return None;
            }
            let piece = file.next().await?;
            if let Ok(bytes) = &piece {
                size.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
            Some((piece.map(Frame::data), file))
        }
    });
    (pieces, size)
}

/// Lets the file be stored when it has a size that the policy allows and the checksum that the form promises.
fn within(min: u64, max: u64, size: Arc<AtomicU64>, checksum: Option<BodyFinish>) -> BodyFinish {
    Box::new(move || {
        let size = size.load(Ordering::Relaxed);
        let refused = |code, message: &str| Err(ObjectError::Refused { code, message: message.to_owned() });
        if size > max {
            return refused("EntityTooLarge", "Your proposed upload exceeds the maximum allowed size");
        }
        if size < min {
            return refused("EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size");
        }
        checksum.map_or(Ok(Vec::new()), |checksum| checksum())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(fields: &[(&str, &str)], file_name: &str) -> Form {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Form { fields, file_name: file_name.to_owned(), file: stream::empty().boxed() }
    }

    #[test]
    fn forms_are_posts_of_their_type_without_a_query() {
        let parts = |method: Method, uri: &str, content_type: &str| {
            http::Request::builder()
                .method(method)
                .uri(uri)
                .header(CONTENT_TYPE, content_type)
                .body(())
                .unwrap()
                .into_parts()
                .0
        };
        let typed = "Multipart/Form-Data; boundary=x";
        assert!(is_form(&parts(Method::POST, "/b", typed)) && is_form(&parts(Method::POST, "/b/?", typed)));
        assert!(!is_form(&parts(Method::PUT, "/b", typed)));
        assert!(!is_form(&parts(Method::POST, "/b?delete", typed)));
        assert!(!is_form(&parts(Method::POST, "/b", "application/xml")));
    }

    #[test]
    fn a_key_may_hold_the_name_of_the_file() {
        let mut named = form(&[("key", "a/${filename}.${filename}")], "f.txt");
        assert_eq!(key_of(&mut named).unwrap(), "a/f.txt.f.txt");
        assert_eq!(named.field("key"), Some("a/f.txt.f.txt"));
        assert_eq!(key_of(&mut form(&[], "f")).unwrap_err().code().as_str(), "InvalidArgument");
        assert_eq!(key_of(&mut form(&[("key", "${filename}")], "")).unwrap_err().code().as_str(), "InvalidArgument");
    }

    #[tokio::test]
    async fn a_file_outside_of_its_limits_is_cut_off_and_not_stored() {
        for (min, max, refused) in
            [(0, 6, None), (6, 6, None), (7, 9, Some("EntityTooSmall")), (0, 5, Some("EntityTooLarge"))]
        {
            let pieces: [Result<Bytes, StdError>; 4] =
                ["ab", "cd", "ef", ""].map(|piece| Ok(Bytes::from_static(piece.as_bytes())));
            let (file, size) = counted(stream::iter(pieces).boxed(), max);
            let taken: Vec<_> = file.collect().await;
            assert!(taken.iter().all(Result::is_ok));
            let code = match within(min, max, size, None)() {
                Err(ObjectError::Refused { code, .. }) => Some(code),
                other => other.map(|_| None).unwrap(),
            };
            assert_eq!(code, refused);
        }
        let pieces = (0..100).map(|_| Ok(Bytes::from_static(b"abc")));
        let (file, _) = counted(stream::iter(pieces).boxed(), 10);
        assert_eq!(file.count().await, 4, "no more is read than shows that it is too much");
    }
}
