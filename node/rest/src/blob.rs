//! The blob API: fids are handed out, and written, read and deleted by URL.
//!
//! ```text
//! GET POST              /dir/assign    ?count= &collection= &replication= &ttl= &dataCenter= &rack= &dataNode=
//! GET POST              /dir/lookup    ?volumeId= or ?fileId=
//! GET                   /dir/status, /vol/status, /cluster/status
//! GET POST              /vol/grow      ?replication= &count=
//! GET POST              /vol/vacuum, /col/delete    not there yet: 501 that says so
//! GET HEAD POST PUT DELETE   /3,01637037d6  /3,01637037d6_1  /3,01637037d6.jpg  /3/01637037d6  /3/01637037d6/name.jpg
//! ```
//!
//! Every answer but a blob is JSON, indented with `?pretty=y`. Reads need the fid and nothing else, for its cookie is a secret;
//! writes need what `authority` says.

mod address;
mod answer;
mod assign;
mod authority;
mod media;
mod picture;
mod read;
mod status;
mod upload;
mod write;

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use meridian_object::Objects;
use meridian_sigv4::Verifier;

use crate::admin::{AdminKeys, SIGV4_SERVICE};
pub(crate) use address::percent_decoded;
pub(crate) use answer::{argument, json_answer, refuse};
pub(crate) use authority::Authority;
pub use authority::BlobAuth;
pub(crate) use media::type_of;
pub(crate) use upload::{Refused as UploadRefused, Upload};

/// What the handlers stand on.
#[derive(Clone)]
pub(crate) struct BlobState {
    pub(crate) objects: Objects,
    pub(crate) keys: Arc<dyn AdminKeys>,
    pub(crate) verifier: Arc<Verifier>,
    pub(crate) auth: BlobAuth,
    /// Of this port and, since they are set up alike, of the other nodes' too: `http` or `https`.
    pub(crate) scheme: &'static str,
    pictures: picture::Pictures,
}

impl BlobState {
    pub(crate) fn new(objects: Objects, keys: Arc<dyn AdminKeys>, auth: BlobAuth, secure: bool) -> Self {
        // A body that is not signed is guarded by Content-MD5 where the client wants it guarded.
        let verifier = Arc::new(Verifier::new(SIGV4_SERVICE).allow_unsigned_payload());
        let scheme = if secure { "https" } else { "http" };
        Self { objects, keys, verifier, auth, scheme, pictures: picture::Pictures::default() }
    }
}

pub(crate) fn routes(state: BlobState) -> Router {
    let blob = || get(read::read).post(write::write).put(write::write).delete(write::delete);
    Router::new()
        .route("/dir/assign", get(assign::assign).post(assign::assign))
        .route("/dir/lookup", get(assign::lookup).post(assign::lookup))
        .route("/dir/status", get(status::directory))
        .route("/vol/status", get(status::volumes))
        .route("/vol/grow", get(assign::grow).post(assign::grow))
        .route("/vol/vacuum", get(status::vacuum).post(status::vacuum))
        .route("/col/delete", get(status::delete_collection).post(status::delete_collection))
        .route("/cluster/status", get(status::cluster))
        .route("/{fid}", blob())
        .route("/{volume}/{fid}", blob())
        .route("/{volume}/{fid}/{name}", blob())
        .with_state(state)
}
