//! A fid names one needle: volume id, needle key and cookie, with the text form `3,01637037d6`.
//!
//! Text: volume id in decimal, a comma, the key in hex without leading zero bytes, the cookie as 8 hex digits.
//! A `/` is accepted in the comma's place, and a file extension behind the cookie is ignored by the REST gateway.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Cookie, IdError, NeedleKey, VolumeId};

#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fid {
    pub volume: VolumeId,
    pub key: NeedleKey,
    pub cookie: Cookie,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseFidError {
    #[error("a fid is VOLUME,KEYCOOKIE such as 3,01637037d6")]
    Form,
    #[error("fid: {0}")]
    Volume(#[from] IdError),
}

const COOKIE_DIGITS: usize = 8;
const KEY_DIGITS_MAX: usize = 16;

impl fmt::Display for Fid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.key.0.to_be_bytes();
        let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(7);
        write!(f, "{},{}{:08x}", self.volume, hex::encode(&bytes[first..]), self.cookie.0)
    }
}

impl fmt::Debug for Fid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fid({},{:x},..)", self.volume, self.key.0) // the cookie is a capability: never in a log
    }
}

impl FromStr for Fid {
    type Err = ParseFidError;

    fn from_str(text: &str) -> Result<Self, ParseFidError> {
        let (volume, rest) = text.split_once([',', '/']).ok_or(ParseFidError::Form)?;
        if !rest.is_ascii() || rest.len() <= COOKIE_DIGITS || rest.len() > KEY_DIGITS_MAX + COOKIE_DIGITS {
            return Err(ParseFidError::Form);
        }
        if volume.is_empty() || !volume.bytes().all(|b| b.is_ascii_digit()) || rest.contains('+') {
            return Err(ParseFidError::Form); // `parse` would take a sign
        }
        let (key, cookie) = rest.split_at(rest.len() - COOKIE_DIGITS);
        Ok(Self {
            volume: VolumeId::from_raw(volume.parse().map_err(|_| ParseFidError::Form)?)?,
            key: NeedleKey(u64::from_str_radix(key, 16).map_err(|_| ParseFidError::Form)?),
            cookie: Cookie(u32::from_str_radix(cookie, 16).map_err(|_| ParseFidError::Form)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_form_is_the_published_one() {
        let fid: Fid = "3,01637037d6".parse().unwrap();
        assert_eq!((fid.volume.get(), fid.key.0, fid.cookie.0), (3, 1, 0x6370_37d6));
        assert_eq!(fid.to_string(), "3,01637037d6");
        assert_eq!("3/01637037d6".parse::<Fid>().unwrap(), fid);
    }

    #[test]
    fn bad_texts_are_refused() {
        for text in [
            "",
            "3",
            "3,",
            "3,637037d6",
            "x,01637037d6",
            "3,+1637037d6",
            "-3,01637037d6",
            "0,01637037d6",
            "3,é1637037d6",
        ] {
            assert!(text.parse::<Fid>().is_err(), "{text:?} parsed");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(counter in 0u32..(1 << 24), dc in 1u8..=254, key: u64, cookie: u32) {
            let volume = VolumeId::new(counter, crate::DatacenterId::new(dc).unwrap()).unwrap();
            let fid = Fid { volume, key: NeedleKey(key), cookie: Cookie(cookie) };
            prop_assert_eq!(fid.to_string().parse::<Fid>().unwrap(), fid);
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in ".{0,40}") {
            let _ = text.parse::<Fid>();
        }
    }
}
