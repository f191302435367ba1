//! The time form of SigV4, `20150830T123600Z`: to the second, always UTC.

use std::fmt;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

const FORMAT: &str = "%Y%m%dT%H%M%SZ";
const LENGTH: usize = 16;
const DAY_LENGTH: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the time of a signature has the form 20150830T123600Z")]
pub struct DateError;

/// A time of signing: its text and its value.
#[derive(Clone, PartialEq, Eq)]
pub struct AmzDate {
    text: String,
    unix_ms: i64,
}

impl AmzDate {
    /// The second that holds `unix_ms`.
    ///
    /// # Errors
    /// `DateError` for times that no calendar of ours holds (past the year 9999).
    pub fn from_unix_ms(unix_ms: u64) -> Result<Self, DateError> {
        let second_ms = i64::try_from(unix_ms - unix_ms % 1000).map_err(|_| DateError)?;
        let timestamp = jiff::Timestamp::from_millisecond(second_ms).map_err(|_| DateError)?;
        Ok(Self { text: timestamp.strftime(FORMAT).to_string(), unix_ms: second_ms })
    }

    /// # Errors
    /// `DateError` for any other form, and for days that do not exist.
    pub fn parse(text: &str) -> Result<Self, DateError> {
        let bytes = text.as_bytes();
        let digits = |range: std::ops::Range<usize>| bytes[range].iter().all(u8::is_ascii_digit);
        if bytes.len() != LENGTH || !digits(0..8) || bytes[8] != b'T' || !digits(9..15) || bytes[15] != b'Z' {
            return Err(DateError);
        }
        // By hand, for each request has one or two of them and the general way costs a microsecond.
        let two = |at: usize| ((bytes[at] - b'0') * 10 + (bytes[at + 1] - b'0')) as i8;
        let year = i16::from(two(0)) * 100 + i16::from(two(2));
        let second = if two(13) == 60 { 59 } else { two(13) }; // a leap second
        let civil = DateTime::new(year, two(4), two(6), two(9), two(11), second, 0).map_err(|_| DateError)?;
        let timestamp = TimeZone::UTC.to_timestamp(civil).map_err(|_| DateError)?;
        Ok(Self { text: text.to_owned(), unix_ms: timestamp.as_millisecond() })
    }

    /// `20150830T123600Z`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// `20150830`, as the credential scope carries it.
    pub fn day(&self) -> &str {
        &self.text[..DAY_LENGTH]
    }

    /// Milliseconds between this time and `unix_ms`, in either direction.
    pub fn distance_ms(&self, unix_ms: u64) -> u64 {
        i128::from(self.unix_ms).abs_diff(i128::from(unix_ms)).try_into().unwrap_or(u64::MAX)
    }
}

impl fmt::Debug for AmzDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_value_agree() {
        let date = AmzDate::from_unix_ms(1_440_938_160_999).unwrap();
        assert_eq!((date.as_str(), date.day()), ("20150830T123600Z", "20150830"));
        assert_eq!(AmzDate::parse("20150830T123600Z").unwrap(), date);
        assert_eq!(date.distance_ms(1_440_938_161_000), 1000);
        assert_eq!(date.distance_ms(1_440_938_159_000), 1000);
    }

    #[test]
    fn other_forms_are_refused() {
        for text in [
            "",
            "20150830",
            "20150830T123600",
            "20150830T123600z",
            "20151330T123600Z",
            "2015083OT123600Z",
            "+0150830T123600Z",
        ] {
            assert!(AmzDate::parse(text).is_err(), "{text:?} parsed");
        }
        assert!(AmzDate::from_unix_ms(u64::MAX).is_err());
    }
}
