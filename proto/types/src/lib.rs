//! The words of Meridian as types: ids, stamps, fids, replica codes, validated names, limits, and the frame
//! that every small durable record is written in.
//!
//! This crate does no I/O and knows no clock and no randomness. Everything is parsed at the edge of the
//! program into these types; inside, only valid values exist.

mod code;
mod fid;
mod ids;
pub mod limits;
mod names;
mod placement;
mod plant;
mod position;
mod record;
mod seen;
mod stamp;

pub use code::{ParseCodeError, ReplicaCode};
pub use fid::{Fid, ParseFidError};
pub use ids::{
    BucketId, ClusterId, Cookie, DatacenterId, Epoch, FileGeneration, IdError, Incarnation, NeedleKey, NodeId,
    PartitionId, RequestId, UploadId, VolumeId,
};
pub use names::{BucketName, DatacenterName, NameError, NodeName, ObjectKey};
pub use placement::partition_of;
pub use plant::{Plant, Planted, Sound};
pub use position::{EntryHash, LogPosition, Sequence};
pub use record::{RecordError, RecordKind, decode_front, decode_record, encode_record};
pub use seen::{Seen, SeenError};
pub use stamp::{Stamp, Timestamp};
