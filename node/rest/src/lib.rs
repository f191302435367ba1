//! The REST gateway of a node: health, metrics, the admin interface that `meridian`'s own commands use, and blobs.
//!
//! ```text
//! GET  /healthz                        the process answers
//! GET  /readyz                         leaders are known and volumes are writable, else 503 with what is missing
//! GET  /metrics                        Prometheus text
//! GET  /openapi.json                   what is here, as OpenAPI 3
//! GET  /admin/v1/status                nodes, partitions, volumes of this datacenter       signed (service `meridian`)
//! GET  /admin/v1/replication/status    how far each datacenter is behind                   signed
//! GET  /admin/v1/replication/conflicts concurrent writes that lost                         signed
//! GET  /admin/v1/replication/parked    mirrors that stand still                            signed
//! GET  /admin/v1/replication/explain   each datacenter's version of ?bucket=&key=          signed
//! POST /admin/v1/replication/wait      blocks until a state is elsewhere                   signed
//! .../admin/v1/users, /groups, /buckets  what `meridian user`, `group` and `bucket` do     signed
//! /dir, /vol, /col, /cluster, /FID     the blob API: see `blob`
//! /buckets/B/PATH                      the file API: see `files`                          signed
//! ```
//!
//! It decides nothing: figures come from `meridian-replication`, `meridian-meta` and `meridian-control` through the
//! `NodeView` that the binary gives. Errors are JSON: `{"error": "..."}` with what to do next.

mod admin;
mod blob;
mod buckets;
mod conditions;
mod files;
mod metrics;
mod openapi;
mod server;
mod unread;
mod users;

pub use admin::{AdminKeys, DrainRequest, NodeView, Readiness};
pub use blob::BlobAuth;
pub use buckets::{BucketChangeRequest, BucketInfo, BucketRequest};
pub use metrics::{NodeMetrics, RequestKind};
pub use server::{RestConfig, serve};
pub use users::{Created, GroupInfo, KeyInfo, KeyRequest, UserInfo, UserRequest};
