//! Appends to a mirror the bytes that its source has committed.
//!
//! The source's bytes are taken as they are, so that both files are the same byte for byte; every needle is verified first.
//! Bytes may be cut anywhere: only whole needles are kept, and the caller goes on from the end that is returned.
//!
//! Invariants: what is returned as the mirror's end is durable, in the data and in the index journal, so that a start
//! knows what was answered; no byte that fails its checksum is written.

use bytes::Bytes;
use meridian_types::Timestamp;
use meridian_types::limits::VOLUME_SIZE_MAX;

use crate::VolumeError;
use crate::index::Place;
use crate::journal::Entry;
use crate::needle::{FileIdentity, NeedleError, span, verify};
use crate::volume::{Journal, Volume};

/// The whole needles at the start of some bytes.
struct Verified {
    needles: Vec<Entry>,
    /// Where the last of them ends.
    end: u64,
    last: Timestamp,
    /// Where a needle starts that fails its checksum.
    corrupt: Option<u64>,
    /// More needles came than fit into any volume.
    full: bool,
}

/// Appends the source's bytes from `offset` on; what is here already is passed over. Returns the durable end. Blocks.
pub(crate) fn append(volume: &Volume, offset: u64, data: &Bytes) -> Result<u64, VolumeError> {
    let mut journal = volume.journal.lock(); // one append at a time
    volume.check_takes_copies()?;
    let committed = volume.committed();
    if offset > committed {
        return Err(VolumeError::Gap { volume: volume.id(), offset, committed });
    }
    let known = (committed - offset).min(data.len() as u64);
    let fresh = data.slice(known as usize..);
    let verified = verify_all(volume.identity, committed, &fresh);
    if verified.end > committed {
        let bytes = &fresh[..(verified.end - committed) as usize];
        write(volume, &mut journal, committed, bytes, &verified)?;
    }
    match verified.corrupt {
        Some(offset) => Err(VolumeError::CorruptNeedle { volume: volume.id(), offset }),
        None if verified.full => Err(VolumeError::Full(volume.id())),
        None => Ok(verified.end),
    }
}

fn verify_all(identity: FileIdentity, start: u64, bytes: &[u8]) -> Verified {
    let mut verified = Verified { needles: Vec::new(), end: start, last: Timestamp::ZERO, corrupt: None, full: false };
    let mut rest = bytes;
    while !rest.is_empty() {
        match verify(identity, verified.end, rest) {
            Ok(header) if verified.end + span(header.length) > VOLUME_SIZE_MAX => {
                verified.full = true;
                break;
            }
            Ok(header) => {
                verified.needles.push((header.key, Place::new(verified.end, header.length)));
                verified.last = verified.last.max(header.stamp);
                let size = span(header.length);
                verified.end += size;
                rest = &rest[size as usize..];
            }
            Err(NeedleError::Short { .. }) => break,
            Err(_) => {
                verified.corrupt = Some(verified.end);
                break;
            }
        }
    }
    verified
}

fn write(
    volume: &Volume,
    journal: &mut Journal,
    committed: u64,
    bytes: &[u8],
    verified: &Verified,
) -> Result<(), VolumeError> {
    if let Err(error) = volume.data.write_at(&[std::io::IoSlice::new(bytes)], committed) {
        return Err(if error.is_no_space() { volume.undo_write() } else { volume.fail(&error) });
    }
    volume.data.sync_data().map_err(|error| volume.fail(&error))?;
    let told = journal.blocks.append(&verified.needles, verified.end, verified.last);
    if !told.map_err(|error| volume.fail(&error))? {
        journal.blocks.forget();
        return Err(volume.undo_write());
    }
    // Synced each time: a mirror's file does not mark where an answered append ended, so the journal must.
    journal.blocks.sync().map_err(|error| volume.fail(&error))?;
    journal.synced_through = verified.end;
    volume.publish(&verified.needles, verified.end, verified.last);
    Ok(())
}
