//! The URL forms of a fid.
//!
//! ```text
//! /3,01637037d6   /3,01637037d6_2   /3,01637037d6.jpg   /3/01637037d6   /3/01637037d6.jpg   /3/01637037d6/name.jpg
//! ```
//!
//! Invariants: what is none of these forms is no blob; a name is text without slashes.

use meridian_object::BlobAddress;
use meridian_types::Fid;

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NamedBlob {
    pub(super) address: BlobAddress,
    /// What stands behind the fid's last dot, or the whole last segment: only for the media type and the name.
    pub(super) name: Option<String>,
}

impl NamedBlob {
    /// `path` as it stands in the request, with its leading slash.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let decoded = if path.contains('%') { percent_decoded(path)? } else { path.to_owned() };
        let mut segments = decoded.strip_prefix('/')?.split('/');
        let (first, second, third) = (segments.next()?, segments.next(), segments.next());
        if segments.next().is_some() {
            return None;
        }
        let (volume, rest) = match second {
            None => first.split_once(',')?,
            Some(second) => (first, second),
        };
        // An extension may follow the fid only where no name does.
        let (rest, extension) = match (rest.split_once('.'), third) {
            (Some((rest, extension)), None) => (rest, Some(extension)),
            (None, _) => (rest, None),
            (Some(_), Some(_)) => return None,
        };
        let (rest, delta) = match rest.split_once('_') {
            Some((rest, delta)) if delta.bytes().all(|byte| byte.is_ascii_digit()) => (rest, delta.parse().ok()?),
            Some(_) => return None,
            None => (rest, 0),
        };
        let first: Fid = format!("{volume},{rest}").parse().ok()?;
        let name = match (third, extension) {
            (Some(""), _) => None,
            (Some(name), _) => Some(name.to_owned()),
            (None, extension) => extension.map(|extension| format!(".{extension}")),
        };
        Some(Self { address: BlobAddress { first, delta }, name })
    }

    /// The name that the URL gives, if it gives more than an extension.
    pub(super) fn file_name(&self) -> Option<&str> {
        self.name.as_deref().filter(|name| !name.starts_with('.'))
    }
}

/// None for what is no UTF-8.
pub(crate) fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        if *byte == b'%' {
            let (digits, behind) = rest.split_first_chunk::<2>()?;
            let mut decoded = [0];
            hex::decode_to_slice(digits, &mut decoded).ok()?;
            bytes.extend(decoded);
            rest = behind;
        } else {
            bytes.push(*byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(path: &str) -> Option<(String, u32, Option<String>)> {
        let blob = NamedBlob::parse(path)?;
        Some((blob.address.first.to_string(), blob.address.delta, blob.name))
    }

    #[test]
    fn every_form_names_the_same_fid() {
        let fid = || "3,01637037d6".to_owned();
        for (path, delta, name) in [
            ("/3,01637037d6", 0, None),
            ("/3%2C01637037d6", 0, None),
            ("/3,01637037d6.jpg", 0, Some(".jpg")),
            ("/3/01637037d6", 0, None),
            ("/3/01637037d6.jpg", 0, Some(".jpg")),
            ("/3/01637037d6/", 0, None),
            ("/3/01637037d6/name.jpg", 0, Some("name.jpg")),
            ("/3/01637037d6/a%20b", 0, Some("a b")),
            ("/3,01637037d6_2", 2, None),
            ("/3/01637037d6_12/x", 12, Some("x")),
        ] {
            assert_eq!(parsed(path), Some((fid(), delta, name.map(str::to_owned))), "{path}");
        }
    }

    #[test]
    fn anything_else_is_no_blob() {
        for path in [
            "",
            "/",
            "/favicon.ico",
            "/3",
            "/3,",
            "/3,zz",
            "/0,01637037d6",
            "/3,01637037d6_",
            "/3,01637037d6_x",
            "/3,01637037d6_-1",
            "/3,01637037d6_99999999999",
            "/3/01637037d6/a/b",
            "/3/01637037d6.jpg/a",
            "/3,01637037d6/a/b",
            "/admin/v1/nothing",
            "/3,01637037d%",
            "/3,01637037d6%ff",
        ] {
            assert_eq!(parsed(path), None, "{path}");
        }
    }
}
