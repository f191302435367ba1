//! The file API: the objects of buckets as files in directories. The same objects as S3 sees.
//!
//! ```text
//! GET              /buckets                        the buckets
//! GET              /buckets/B/DIRECTORY/           a listing: ?limit= &lastFileName= &namePattern=
//! GET HEAD         /buckets/B/PATH                 ?tagging for the tags
//! PUT POST         /buckets/B/PATH                 raw, or the first file of a form; ?op=append &mv.from= &cp.from=; ?tagging
//! DELETE           /buckets/B/PATH                 ?recursive=true; ?tagging
//! ```
//!
//! A path below `/buckets/B/` is the key. A directory is a common prefix that ends with a slash: it is there as long as
//! something is below it, or an empty object of that very key, which a PUT of the directory makes. Every request is signed
//! (service `meridian`) by a key with the admin policy.
//!
//! Invariants: nothing is done for a request whose signature does not hold; a body is committed only if it has the hash that
//! was signed.

mod answer;
mod listing;
mod moving;
mod path;
mod read;
mod session;
mod tagging;
mod write;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use axum::routing::get;
use meridian_object::ObjectError;

use crate::blob::{Authority, BlobState, argument, refuse};
use path::FilePath;

pub(crate) fn routes(state: BlobState) -> Router {
    Router::new()
        .route("/buckets", get(file))
        .route("/buckets/", get(file))
        .route("/buckets/{*path}", get(file).put(file).post(file).delete(file))
        .with_state(state)
}

async fn file(State(state): State<BlobState>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let uri = &parts.uri;
    let authority = match state.signed(&parts).await {
        Ok(authority) => authority,
        Err(_) => {
            let text =
                "sign the request with SigV4 (service `meridian`) by a key with the admin policy, within 15 minutes";
            return refuse(uri, StatusCode::FORBIDDEN, text);
        }
    };
    let path = match FilePath::parse(uri.path()) {
        Ok(path) => path,
        Err(reason) => return refuse(uri, StatusCode::BAD_REQUEST, &reason),
    };
    if let (FilePath::Root, &Method::PUT | &Method::POST | &Method::DELETE) = (&path, &parts.method) {
        let text = "buckets are made with `meridian bucket create` or by S3";
        return refuse(uri, StatusCode::METHOD_NOT_ALLOWED, text);
    }
    let asked = ask(&state, path, &parts, body, authority);
    session::in_session(&state.objects, &parts.method, uri, &parts.headers, asked).await
}

/// What a signed request asks for.
async fn ask(
    state: &BlobState,
    path: FilePath,
    parts: &Parts,
    body: Body,
    authority: Authority,
) -> Result<Response, ObjectError> {
    let uri = &parts.uri;
    let is_tagging = argument(uri, "tagging").is_some();
    match (&parts.method, path) {
        (&Method::GET | &Method::HEAD, FilePath::Root) => listing::buckets(&state.objects, uri).await,
        (&Method::GET | &Method::HEAD, FilePath::Directory(directory)) => {
            listing::list(&state.objects, &directory, uri).await
        }
        (&Method::GET, FilePath::File(file)) if is_tagging => tagging::get(&state.objects, &file, uri).await,
        (&Method::GET | &Method::HEAD, FilePath::File(file)) => read::read(&state.objects, file, parts).await,
        (&Method::PUT | &Method::POST, FilePath::File(file)) if is_tagging => {
            tagging::put(&state.objects, &file, parts, body, authority).await
        }
        (&Method::PUT | &Method::POST, path @ (FilePath::File(_) | FilePath::Directory(_))) => {
            write::write(&state.objects, path, parts, body, authority).await
        }
        (&Method::DELETE, FilePath::File(file)) if is_tagging => tagging::clear(&state.objects, &file).await,
        (&Method::DELETE, FilePath::File(file)) => moving::delete_file(&state.objects, file, uri).await,
        (&Method::DELETE, FilePath::Directory(directory)) => {
            moving::delete_directory(&state.objects, &directory, uri).await
        }
        _ => Ok(refuse(uri, StatusCode::METHOD_NOT_ALLOWED, "this path does not take that method")),
    }
}
