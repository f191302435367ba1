//! The S3 gateway: parses, authenticates and authorises S3 requests and turns them into operations of
//! `meridian-object`. S3's own protocol (signatures, XML, routing) is s3s's; this crate adds what s3s leaves to its
//! users: limits, time-outs, checks before a request is believed, bodies in bounded memory, and the answers' words.
//!
//! It knows nothing of volumes, partitions or raft.
//!
//! The way of a request: `meridian-edge` (connections, TLS, framing on the wire) → `respond` (ids, access log,
//! panics) → `admission` (checks that s3s lacks) → s3s (signature, parsing) → `auth` (who may) → `gateway` (the
//! operation) → `meridian-object`.
//!
//! Invariants: no request acts before its signature is verified; memory per request and for the whole gateway is
//! bounded; bad input is a 4xx and never a panic; no secret, signature or body is logged by this crate. s3s itself
//! logs whole requests: a log filter must silence `LOG_TARGET_SILENCED`.

mod acl_wire;
mod actions;
mod admission;
mod attributes;
mod auth;
mod body_in;
mod bucket_acl;
mod bucket_defaults;
mod bucket_documents;
mod bucket_policy;
mod buckets;
mod catalog_users;
mod checksums;
mod chunked;
mod conditions;
mod config;
mod context;
mod copy;
mod cors;
mod delete;
mod document_xml;
mod errors;
mod extra_rules;
mod form;
mod forward;
mod gateway;
mod get;
mod guard;
mod host;
mod iam;
mod lenient;
mod lifecycle;
mod lifecycle_rules;
mod listing;
mod listing_versions;
mod locks;
mod methods;
mod multipart;
mod multipart_lists;
mod object_attributes;
mod observe;
mod policy_actions;
mod put;
mod question;
mod remote_ack;
mod replication_status;
mod respond;
mod server;
mod sse;
mod tagging;
#[cfg(test)]
mod testing;
mod versioning;
mod wire_values;
mod xml_body;

pub use catalog_users::CatalogUsers;
pub use config::{CredentialsError, CredentialsProvider, GatewayLimits, Principal, S3Config};
pub use forward::{Door, Forward};
pub use lifecycle_rules::lifecycle_rules;
pub use observe::{RequestObserver, RequestReport};
pub use replication_status::DurableEverywhere;
pub use server::{ServeError, serve};

/// The tracing target whose events hold whole requests with their signatures: never let it through a filter.
pub const LOG_TARGET_SILENCED: &str = "s3s";
