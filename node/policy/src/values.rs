//! Values of conditions: numbers, dates, addresses, ARNs.

use std::net::IpAddr;

use crate::caller::Context;
use crate::pattern::Pattern;

/// Parts of an ARN: `arn:partition:service:region:account:resource`.
const ARN_PARTS: usize = 6;

/// Seconds since the Unix epoch of an ISO 8601 date or time, or of a number of seconds.
pub(crate) fn date_seconds(text: &str) -> Option<f64> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Some(seconds);
    }
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Some(time.as_millisecond() as f64 / 1e3);
    }
    let date: jiff::civil::Date = text.parse().ok()?;
    let midnight = date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    Some(midnight.as_millisecond() as f64 / 1e3)
}

/// An address block such as `10.0.0.0/8`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AddressBlock {
    address: IpAddr,
    pub prefix_bits: u32,
}

impl AddressBlock {
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.trim().parse().ok()?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = prefix.map_or(Some(bits_max), |bits| bits.trim().parse().ok())?;
        (prefix_bits <= bits_max).then_some(Self { address, prefix_bits })
    }

    pub fn contains(&self, text: &str) -> bool {
        let Ok(address) = text.parse::<IpAddr>() else { return false };
        let same = |a: u128, b: u128, bits: u32| {
            let shift = bits - self.prefix_bits;
            shift >= 128 || a >> shift == b >> shift
        };
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => same(own.to_bits().into(), other.to_bits().into(), 32),
            (IpAddr::V6(own), IpAddr::V6(other)) => same(own.to_bits(), other.to_bits(), 128),
            _ => false,
        }
    }
}

/// Whether an ARN matches a pattern, part by part: a wildcard does not reach over a colon, except in the resource.
pub(crate) fn arn_matches(pattern: &str, arn: &str, context: Option<&Context>) -> bool {
    let (wanted, found): (Vec<&str>, Vec<&str>) =
        (pattern.splitn(ARN_PARTS, ':').collect(), arn.splitn(ARN_PARTS, ':').collect());
    wanted.len() == found.len()
        && wanted
            .iter()
            .zip(&found)
            .all(|(wanted, found)| Pattern::new(wanted, context).is_some_and(|pattern| pattern.matches(found)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_have_three_forms() {
        assert_eq!(date_seconds("1970-01-02T00:00:00Z"), Some(86_400.0));
        assert_eq!(date_seconds("1970-01-02"), Some(86_400.0));
        assert_eq!(date_seconds("86400"), Some(86_400.0));
        assert_eq!(date_seconds("tomorrow"), None);
    }

    #[test]
    fn address_blocks_hold_their_addresses() {
        let contains = |block: &str, address| AddressBlock::parse(block).is_some_and(|block| block.contains(address));
        assert!(contains("10.0.0.0/8", "10.1.2.3") && !contains("10.0.0.0/8", "11.0.0.0"));
        assert!(contains("0.0.0.0/0", "1.2.3.4") && contains("1.2.3.4", "1.2.3.4") && !contains("1.2.3.4", "1.2.3.5"));
        assert!(contains("fd00::/8", "fd12::1") && contains("::/0", "::1") && !contains("::/0", "1.2.3.4"));
        assert!(AddressBlock::parse("1.2.3.4/33").is_none() && AddressBlock::parse("x").is_none());
    }

    #[test]
    fn arns_match_part_by_part() {
        let hit = |pattern, arn| arn_matches(pattern, arn, None);
        assert!(hit("arn:aws:iam::*:user/*", "arn:aws:iam::12:user/a:b"));
        assert!(!hit("arn:aws:iam::*", "arn:aws:iam::12:user/a") && !hit("arn:*", "arn:aws:s3:::b"));
    }
}
