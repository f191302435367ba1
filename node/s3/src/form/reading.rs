//! A browser form on its way in: its fields first, then its file as a stream.
//!
//! Invariants: the fields before the file take at most `FIELDS_SIZE_MAX`, and no more than `AHEAD_SIZE_MAX` is read in search of
//! the file; the file is never held whole; it ends only at the form's boundary.
//!
//! Source: <https://docs.aws.amazon.com/AmazonS3/latest/API/RESTObjectPOST.html>

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http::StatusCode;
use multer::{Field, Multipart};
use s3s::{S3Error, S3ErrorCode, S3Result, StdError};

use crate::context::RequestContext;
use crate::errors::{error, error_with_status, fault_error};

/// Most bytes of names and values before the file (S3: 20 KB).
const FIELDS_SIZE_MAX: usize = 20 << 10;
/// Most fields before the file.
const FIELDS_MAX: usize = 256;
/// Most bytes that are read while the file has not begun, but for the piece that is at hand.
const AHEAD_SIZE_MAX: u64 = 128 << 10;

/// A form whose file has begun.
pub(crate) struct Form {
    /// By lower-case name, in their order.
    pub fields: Vec<(String, String)>,
    /// As the browser calls it, without folders.
    pub file_name: String,
    pub file: FileStream,
}

/// The bytes of a form's file.
pub(crate) type FileStream = Pin<Box<dyn Stream<Item = Result<Bytes, StdError>> + Send>>;

impl Form {
    /// Reads up to the file.
    ///
    /// # Errors
    /// `MalformedPOSTRequest`, `MaxPostPreDataLengthExceededError`, `InvalidArgument` without a file, and what broke the body.
    pub async fn read<S>(body: S, content_type: &str, context: &Arc<RequestContext>) -> S3Result<Self>
    where
        S: Stream<Item = Result<Bytes, StdError>> + Send + Unpin + 'static,
    {
        let boundary = multer::parse_boundary(content_type).map_err(|_| malformed())?;
        let search = Arc::new(Search::default());
        let mut form = Multipart::new(Searched { body, search: Arc::clone(&search) }, boundary);
        let failed = |failure: &multer::Error| match context.body_fault() {
            Some(fault) => fault_error(fault),
            None if search.is_over() => too_large(),
            None => {
                tracing::debug!(%failure, "a form could not be read");
                malformed()
            }
        };
        let (mut fields, mut size) = (Vec::new(), 0);
        while let Some(mut field) = form.next_field().await.map_err(|failure| failed(&failure))? {
            let name = field.name().ok_or_else(malformed)?.to_ascii_lowercase();
            if name == "file" {
                search.found.store(true, Ordering::Relaxed);
                let file_name = base_name(field.file_name().unwrap_or_default()).to_owned();
                return Ok(Self { fields, file_name, file: file_stream(form, field) });
            }
            let mut value = Vec::new();
            while let Some(piece) = field.chunk().await.map_err(|failure| failed(&failure))? {
                if size + name.len() + value.len() + piece.len() > FIELDS_SIZE_MAX {
                    return Err(too_large());
                }
                value.extend_from_slice(&piece);
            }
            size += name.len() + value.len();
            if fields.len() == FIELDS_MAX {
                return Err(too_large());
            }
            fields.push((name, String::from_utf8(value).map_err(|_| malformed())?));
        }
        Err(error(S3ErrorCode::InvalidArgument, "POST requires exactly one file upload per request."))
    }

    /// The first value of a field.
    pub fn field(&self, wanted: &str) -> Option<&str> {
        field_of(&self.fields, wanted)
    }
}

/// The first value of a field.
pub(super) fn field_of<'f>(fields: &'f [(String, String)], wanted: &str) -> Option<&'f str> {
    fields.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str())
}

/// What follows the file is not read: S3 passes over it. The form is kept as long as its file is.
fn file_stream(form: Multipart<'static>, file: Field<'static>) -> FileStream {
    let pieces = stream::unfold(Some((form, file)), |state| async move {
        let (form, mut file) = state?;
        match file.chunk().await {
            Ok(Some(piece)) => Some((Ok(piece), Some((form, file)))),
            Ok(None) => None,
            Err(failure) => Some((Err(Box::new(failure) as StdError), None)),
        }
    });
    pieces.boxed()
}

/// Browsers may send a whole path.
fn base_name(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or_default()
}

pub(crate) fn malformed() -> S3Error {
    let text = "The body of your POST request is not well-formed multipart/form-data.";
    error(S3ErrorCode::MalformedPOSTRequest, text)
}

fn too_large() -> S3Error {
    let text = "Your POST request fields preceding the upload file were too large.";
    error_with_status("MaxPostPreDataLengthExceededError", StatusCode::BAD_REQUEST, text)
}

/// How far the search for the file has come.
#[derive(Default)]
struct Search {
    found: AtomicBool,
    read: AtomicU64,
}

impl Search {
    fn is_over(&self) -> bool {
        !self.found.load(Ordering::Relaxed) && self.read.load(Ordering::Relaxed) > AHEAD_SIZE_MAX
    }
}

/// A body of which no more is read than the search for the file may take.
struct Searched<S> {
    body: S,
    search: Arc<Search>,
}

#[derive(Debug, thiserror::Error)]
#[error("no file within the first {AHEAD_SIZE_MAX} bytes of a form")]
struct NoFile;

impl<S: Stream<Item = Result<Bytes, StdError>> + Unpin> Stream for Searched<S> {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.search.is_over() {
            return Poll::Ready(Some(Err(Box::new(NoFile))));
        }
        let polled = Pin::new(&mut self.body).poll_next(cx);
        if let Poll::Ready(Some(Ok(bytes))) = &polled {
            self.search.read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=xyz";

    fn field(name: &str, value: &str) -> String {
        format!("--xyz\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    }

    fn file(name: &str, content: &str) -> String {
        format!(
            "--xyz\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\nContent-Type: a/b\r\n\r\n\
             {content}\r\n"
        )
    }

    /// Reads a form that arrives in pieces of `step` bytes.
    async fn read(body: String, step: usize) -> S3Result<Form> {
        let pieces: Vec<Result<Bytes, StdError>> =
            body.as_bytes().chunks(step).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        Form::read(stream::iter(pieces), TYPE, &RequestContext::new("1".to_owned(), None)).await
    }

    async fn bytes_of(file: FileStream) -> Result<Vec<u8>, StdError> {
        let pieces: Vec<Result<Bytes, StdError>> = file.collect().await;
        Ok(pieces.into_iter().collect::<Result<Vec<_>, _>>()?.concat())
    }

    #[tokio::test]
    async fn fields_come_before_the_file_and_what_follows_is_passed_over() {
        let body =
            [field("kEy", "a/${filename}"), field("x", ""), file("C:\\d\\f.txt", "by\r\n--xytes"), field("y", "z")];
        for step in [1, 7, 10_000] {
            let form = read(format!("{}--xyz--\r\n", body.concat()), step).await.unwrap();
            assert_eq!(form.fields, [("key".to_owned(), "a/${filename}".to_owned()), ("x".to_owned(), String::new())]);
            assert_eq!(
                (form.file_name.as_str(), form.field("key"), form.field("y")),
                ("f.txt", Some("a/${filename}"), None)
            );
            assert_eq!(bytes_of(form.file).await.unwrap(), b"by\r\n--xytes");
        }
    }

    #[tokio::test]
    async fn a_file_that_does_not_end_is_an_error() {
        let form = read(format!("{}{}", field("key", "k"), file("f", "cut").trim_end()), 5).await.unwrap();
        assert!(bytes_of(form.file).await.is_err());
    }

    #[tokio::test]
    async fn forms_without_end_or_file_are_refused() {
        let code = |result: S3Result<Form>| result.err().map(|refused| refused.code().as_str().to_owned());
        let none = read(format!("{}--xyz--\r\n", field("key", "k")), 9).await;
        assert_eq!(code(none).as_deref(), Some("InvalidArgument"));
        assert_eq!(code(read("no form".to_owned(), 9).await).as_deref(), Some("MalformedPOSTRequest"));
        let large = read(format!("{}{}", field("key", &"k".repeat(30_000)), file("f", "")), 999).await;
        assert_eq!(code(large).as_deref(), Some("MaxPostPreDataLengthExceededError"));
        let headers = format!("--xyz\r\nContent-Disposition: {}", "a".repeat(1 << 20));
        assert_eq!(code(read(headers, 4096).await).as_deref(), Some("MaxPostPreDataLengthExceededError"));
        let many: String = (0..300).map(|number| field(&number.to_string(), "")).collect();
        assert_eq!(code(read(many, 999).await).as_deref(), Some("MaxPostPreDataLengthExceededError"));
        let context = RequestContext::new("1".to_owned(), None);
        let without = Form::read(stream::empty(), "multipart/form-data", &context).await;
        assert_eq!(code(without).as_deref(), Some("MalformedPOSTRequest"));
    }
}
