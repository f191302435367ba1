//! Replica codes `xyz`: copies beyond the first — x in other datacenters, y in other racks, z on other nodes of
//! the rack. Which codes a tree of machines can meet is for `topology` to say.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReplicaCode {
    other_datacenters: u8,
    other_racks: u8,
    same_rack: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a replica code is three digits such as 000, 010 or 200, got {0:?}")]
pub struct ParseCodeError(String);

impl ReplicaCode {
    /// One copy.
    pub const NONE: ReplicaCode = ReplicaCode { other_datacenters: 0, other_racks: 0, same_rack: 0 };

    /// x: copies in other datacenters (mirrors), one a datacenter.
    pub const fn other_datacenters(self) -> u8 {
        self.other_datacenters
    }

    /// y: copies in other racks of the owning datacenter.
    pub const fn other_racks(self) -> u8 {
        self.other_racks
    }

    /// z: copies on other nodes of the primary's rack.
    pub const fn same_rack(self) -> u8 {
        self.same_rack
    }

    /// All copies: x + y + z + 1.
    pub const fn copies(self) -> u8 {
        self.other_datacenters + self.other_racks + self.same_rack + 1
    }

    /// The code with every datacenter of a cluster of `datacenters` holding a copy.
    pub fn every_datacenter(datacenters: u8) -> Self {
        Self { other_datacenters: datacenters.saturating_sub(1).min(9), other_racks: 0, same_rack: 0 }
    }
}

impl fmt::Display for ReplicaCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.other_datacenters, self.other_racks, self.same_rack)
    }
}

impl fmt::Debug for ReplicaCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReplicaCode({self})")
    }
}

impl FromStr for ReplicaCode {
    type Err = ParseCodeError;

    fn from_str(text: &str) -> Result<Self, ParseCodeError> {
        match text.as_bytes() {
            [x, y, z] if [x, y, z].iter().all(|digit| digit.is_ascii_digit()) => {
                Ok(Self { other_datacenters: x - b'0', other_racks: y - b'0', same_rack: z - b'0' })
            }
            _ => Err(ParseCodeError(text.chars().take(16).collect())),
        }
    }
}

impl TryFrom<String> for ReplicaCode {
    type Error = ParseCodeError;
    fn try_from(text: String) -> Result<Self, ParseCodeError> {
        text.parse()
    }
}

impl From<ReplicaCode> for String {
    fn from(code: ReplicaCode) -> String {
        code.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_parse_and_count_copies() {
        let code: ReplicaCode = "110".parse().unwrap();
        assert_eq!((code.other_datacenters(), code.other_racks(), code.same_rack(), code.copies()), (1, 1, 0, 3));
        assert_eq!(code.to_string(), "110");
        assert_eq!(ReplicaCode::every_datacenter(3).to_string(), "200");
        for text in ["", "1", "0000", "0x0", "-10", "１10"] {
            assert!(text.parse::<ReplicaCode>().is_err(), "{text:?} parsed");
        }
    }
}
