//! The XML of answers and errors, and IAM's errors by their codes.
//!
//! Invariants: all text is escaped.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE};
use meridian_object::{ObjectError, UserRefusal};
use s3s::Body;
use s3s::dto::TimestampFormat;

use crate::wire_values::{format_timestamp, timestamp};

/// Whose words an answer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    Iam,
    Sts,
}

const STS_VERSION: &str = "2011-06-15";

impl Service {
    /// By the version that a form names.
    pub fn of(version: Option<&str>) -> Self {
        if version == Some(STS_VERSION) { Self::Sts } else { Self::Iam }
    }

    fn namespace(self) -> &'static str {
        match self {
            Self::Iam => "https://iam.amazonaws.com/doc/2010-05-08/",
            Self::Sts => "https://sts.amazonaws.com/doc/2011-06-15/",
        }
    }
}

/// An error in the words of IAM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IamError {
    pub code: &'static str,
    pub status: u16,
    pub message: String,
}

impl IamError {
    pub fn new(code: &'static str, status: u16, message: impl Into<String>) -> Self {
        Self { code, status, message: message.into() }
    }

    pub fn missing_token() -> Self {
        Self::new("MissingAuthenticationToken", 403, "Request is missing Authentication Token")
    }

    pub fn invalid(field: &str, constraint: &str) -> Self {
        let text =
            format!("1 validation error detected: Value at '{field}' failed to satisfy constraint: {constraint}");
        Self::new("ValidationError", 400, text)
    }

    pub fn no_such(what: &str, name: &str) -> Self {
        Self::new("NoSuchEntity", 404, format!("The {what} with name {name} cannot be found."))
    }

    pub fn exists(what: &str, name: &str) -> Self {
        Self::new("EntityAlreadyExists", 409, format!("{what} with name {name} already exists."))
    }

    pub fn conflict(message: &str) -> Self {
        Self::new("DeleteConflict", 409, message)
    }

    pub fn limit(message: impl Into<String>) -> Self {
        Self::new("LimitExceeded", 409, message)
    }

    pub fn malformed_policy(message: impl Into<String>) -> Self {
        Self::new("MalformedPolicyDocument", 400, message)
    }
}

impl From<ObjectError> for IamError {
    fn from(failure: ObjectError) -> Self {
        let text = failure.to_string();
        match failure {
            ObjectError::UserRefused { refusal, .. } => match refusal {
                UserRefusal::Exists | UserRefusal::AccessKeyTaken | UserRefusal::IdTaken | UserRefusal::EmailTaken => {
                    Self::new("EntityAlreadyExists", 409, text)
                }
                UserRefusal::NotFound
                | UserRefusal::NoSuchAccessKey
                | UserRefusal::NoSuchPolicy
                | UserRefusal::NoSuchGroup => Self::new("NoSuchEntity", 404, text),
                UserRefusal::TooMany => Self::limit(text),
                UserRefusal::Malformed => Self::new("ValidationError", 400, text),
            },
            ObjectError::InvalidArgument { .. } => Self::new("ValidationError", 400, text),
            ObjectError::Storage(reason) => {
                tracing::error!(reason, "a change of a user met damage");
                Self::new("ServiceFailure", 500, "We encountered an internal error. Please try again.")
            }
            _ => Self::new("ServiceUnavailable", 503, text),
        }
    }
}

pub(super) fn success_answer(service: Service, action: &str, result: &str, id: &str) -> Response<Body> {
    let namespace = service.namespace();
    let result = match result {
        "" => String::new(),
        result => format!("<{action}Result>{result}</{action}Result>"),
    };
    let text = format!(
        "<{action}Response xmlns=\"{namespace}\">{result}<ResponseMetadata><RequestId>{id}</RequestId>\
         </ResponseMetadata></{action}Response>"
    );
    answer(StatusCode::OK, text)
}

pub(super) fn failure_answer(service: Service, failure: &IamError, id: &str) -> Response<Body> {
    let namespace = service.namespace();
    let kind = if failure.status < 500 { "Sender" } else { "Receiver" };
    let (code, message) = (failure.code, escape(&failure.message));
    let text = format!(
        "<ErrorResponse xmlns=\"{namespace}\"><Error><Type>{kind}</Type><Code>{code}</Code><Message>{message}</Message>\
         </Error><RequestId>{id}</RequestId></ErrorResponse>"
    );
    answer(StatusCode::from_u16(failure.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), text)
}

fn answer(status: StatusCode, text: String) -> Response<Body> {
    let mut answer = Response::new(Body::from(Bytes::from(text)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/xml"));
    answer
}

/// `<name>text</name>`
pub(super) fn element(name: &str, text: &str) -> String {
    format!("<{name}>{}</{name}>", escape(text))
}

pub(super) fn time(unix_ms: u64) -> String {
    let whole_s = unix_ms / 1000 * 1000;
    let text = format_timestamp(&timestamp(whole_s), TimestampFormat::DateTime).unwrap_or_default();
    text.replace(".000Z", "Z")
}

/// A document as IAM writes it into answers: percent-encoded.
pub(super) fn encoded_document(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(answer: &Response<Body>) -> String {
        String::from_utf8(answer.body().bytes().unwrap().to_vec()).unwrap()
    }

    #[test]
    fn answers_have_the_form_of_their_service() {
        let made = success_answer(Service::Iam, "CreateUser", &element("A", "<&>"), "7");
        assert_eq!(
            text(&made),
            "<CreateUserResponse xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\"><CreateUserResult><A>&lt;&amp;&gt;\
             </A></CreateUserResult><ResponseMetadata><RequestId>7</RequestId></ResponseMetadata></CreateUserResponse>"
        );
        let failed = failure_answer(Service::of(Some(STS_VERSION)), &IamError::no_such("user", "ann"), "7");
        assert_eq!(failed.status().as_u16(), 404);
        assert_eq!(
            text(&failed),
            "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
             <Code>NoSuchEntity</Code><Message>The user with name ann cannot be found.</Message></Error>\
             <RequestId>7</RequestId></ErrorResponse>"
        );
    }

    #[test]
    fn times_are_to_the_second_and_documents_encoded() {
        assert_eq!(time(1_440_938_160_123), "2015-08-30T12:36:00Z");
        assert_eq!(encoded_document("{\"a\": 1}"), "%7B%22a%22%3A%201%7D");
    }
}
