//! A linearizable state to read: of the replica here, or pinned at the leader when this node has none.
//!
//! Reading is synchronous, as the queries over it are. A read of a remote state blocks the calling thread for a round
//! trip inside the datacenter; on a thread that drives the runtime it first hands the others to another thread.
//!
//! Invariants: one value never mixes two moments; each round trip has a deadline; a state that was let go of is an
//! error, never an empty answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use meridian_index::kv::{KvError, KvRead, Step, Visit};
use meridian_store::GroupView;
use meridian_types::NodeId;
use meridian_wire::raft::read_view_request::Read;
use meridian_wire::raft::{ReadViewReply, ReadViewRequest, RowRange};
use meridian_wire::{LocalNode, call, raft_client};
use tokio::runtime::Handle;
use tonic::transport::Channel;

/// Deadline of one round trip to a remote state.
const READ_DEADLINE: Duration = Duration::from_secs(3);
/// Rows of the first piece of a scan; each further piece asks for twice as many.
const ROWS_FIRST: u32 = 32;
/// Rows of one piece.
pub(crate) const ROWS_MAX: u32 = 512;

/// A state that holds everything acknowledged before it was asked for.
#[derive(Clone)]
pub enum ReadView {
    Here(GroupView),
    There(RemoteView),
}

/// A state pinned at another node; let go of when the last clone is dropped.
#[derive(Clone)]
pub struct RemoteView {
    inner: Arc<Inner>,
}

struct Inner {
    local: LocalNode,
    channel: Channel,
    node: NodeId,
    view: u64,
    runtime: Handle,
}

impl RemoteView {
    /// To be called within a tokio runtime.
    pub(crate) fn new(local: LocalNode, channel: Channel, node: NodeId, view: u64) -> Self {
        Self { inner: Arc::new(Inner { local, channel, node, view, runtime: Handle::current() }) }
    }

    fn read(&self, read: Read) -> Result<ReadViewReply, KvError> {
        let inner = &self.inner;
        let request = inner.request(false, Some(read));
        let mut client = raft_client(inner.channel.clone());
        let exchange =
            async { call(READ_DEADLINE, request, |request| async move { client.read_view(request).await }).await };
        let reply = match Handle::try_current() {
            // The other tasks of this thread go on elsewhere meanwhile.
            Ok(runtime) => tokio::task::block_in_place(|| runtime.block_on(exchange)),
            Err(_) => inner.runtime.block_on(exchange),
        };
        reply.map_err(|status| KvError(format!("read the state at node {}: {}", inner.node, status.message())))
    }

    fn walk(&self, start: &[u8], end: &[u8], reverse: bool, visit: &mut Visit<'_>) -> Result<(), KvError> {
        let (mut start, mut end) = (start.to_vec(), end.to_vec());
        let mut rows_max = ROWS_FIRST;
        while start < end {
            let range = RowRange { start: start.clone().into(), end: end.clone().into(), reverse, rows_max };
            let reply = self.read(Read::Range(range))?;
            let mut target: Option<Vec<u8>> = None;
            for row in &reply.rows {
                let ahead = target
                    .as_ref()
                    .is_some_and(|target| if reverse { row.key[..] > target[..] } else { row.key[..] < target[..] });
                if ahead {
                    continue; // the visitor has asked to skip it
                }
                target = None;
                match visit(&row.key, &row.value) {
                    Step::Next => {}
                    Step::Seek(key) => target = Some(key),
                    Step::Stop => return Ok(()),
                }
            }
            let Some(last) = reply.rows.last().filter(|_| reply.more) else { return Ok(()) };
            if reverse {
                // `end` is exclusive, and a sought key is inclusive: its successor is itself and a zero.
                end = last.key.to_vec();
                if let Some(key) = target {
                    end = end.min([key.as_slice(), &[0]].concat());
                }
            } else {
                start = [&last.key[..], &[0]].concat();
                if let Some(key) = target {
                    start = start.max(key);
                }
            }
            rows_max = (rows_max * 2).min(ROWS_MAX);
        }
        Ok(())
    }
}

impl Inner {
    fn request(&self, close: bool, read: Option<Read>) -> ReadViewRequest {
        ReadViewRequest { caller: self.local.caller(), to: self.node.0, view: self.view, close, read }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let request = self.request(true, None);
        let mut client = raft_client(self.channel.clone());
        self.runtime.spawn(async move {
            // One that does not get through is let go of for its age.
            let _ = call(READ_DEADLINE, request, |request| async move { client.read_view(request).await }).await;
        });
    }
}

impl KvRead for RemoteView {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        let reply = self.read(Read::Key(Bytes::copy_from_slice(key)))?;
        Ok(reply.rows.into_iter().next().map(|row| row.value))
    }

    fn scan(&self, start: &[u8], end: &[u8], visit: &mut Visit<'_>) -> Result<(), KvError> {
        self.walk(start, end, false, visit)
    }

    fn scan_reverse(&self, start: &[u8], end: &[u8], visit: &mut Visit<'_>) -> Result<(), KvError> {
        self.walk(start, end, true, visit)
    }
}

impl KvRead for ReadView {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        match self {
            ReadView::Here(view) => view.get(key),
            ReadView::There(view) => view.get(key),
        }
    }

    fn scan(&self, start: &[u8], end: &[u8], visit: &mut Visit<'_>) -> Result<(), KvError> {
        match self {
            ReadView::Here(view) => view.scan(start, end, visit),
            ReadView::There(view) => view.scan(start, end, visit),
        }
    }

    fn scan_reverse(&self, start: &[u8], end: &[u8], visit: &mut Visit<'_>) -> Result<(), KvError> {
        match self {
            ReadView::Here(view) => view.scan_reverse(start, end, visit),
            ReadView::There(view) => view.scan_reverse(start, end, visit),
        }
    }
}
