//! Why a row can't be read. Clients can't cause it: it is the store's failure or damage.

use meridian_types::RecordError;

use crate::kv::KvError;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    #[error(transparent)]
    Kv(#[from] KvError),
    #[error("row {key}: {source}")]
    Row {
        /// The row's key, with bytes that are not printable ASCII escaped.
        key: String,
        #[source]
        source: RecordError,
    },
    /// A key that our own layout can't have written.
    #[error("key {key} has no place in the layout")]
    Key { key: String },
}

impl IndexError {
    pub(crate) fn row(key: &[u8], source: RecordError) -> Self {
        Self::Row { key: key.escape_ascii().to_string(), source }
    }

    pub(crate) fn key(key: &[u8]) -> Self {
        Self::Key { key: key.escape_ascii().to_string() }
    }
}
