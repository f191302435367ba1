//! What can be measured, by name.

use clap::ValueEnum;

/// One workload. Those over blobs need a cluster with the blob API at its REST port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// S3 PUT of every object of `--size` once.
    Put,
    /// S3 GET of them.
    Get,
    /// Three PUTs to seven GETs.
    Mixed,
    /// S3 LIST pages of 1,000.
    List,
    /// S3 PUT of `--large-size`, by `--large-clients`.
    LargePut,
    /// S3 GET of them.
    LargeGet,
    /// `/dir/assign` and POST of every blob of `--size` once, without an S3 index row.
    BlobPut,
    /// GET of them by fid.
    BlobGet,
}

impl Workload {
    pub fn name(self) -> String {
        self.to_possible_value().expect("none is hidden").get_name().to_owned()
    }

    pub fn is_large(self) -> bool {
        matches!(self, Self::LargePut | Self::LargeGet)
    }

    pub fn is_blob(self) -> bool {
        matches!(self, Self::BlobPut | Self::BlobGet)
    }

    /// Writes each object once, however long that takes; the others run for a time.
    pub fn writes_once(self) -> bool {
        matches!(self, Self::Put | Self::LargePut | Self::BlobPut)
    }
}
