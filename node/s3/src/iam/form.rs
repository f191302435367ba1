//! A posted form: `Action=CreateUser&Version=2010-05-08&UserName=ann&Tags.member.1.Key=a`.
//!
//! Invariants: names stand once; a form has at most `FIELDS_MAX` fields.

use std::collections::BTreeMap;

use super::answer::IamError;
use crate::attributes::url_decode;

/// 50 tags of two fields each, and the rest.
const FIELDS_MAX: usize = 256;
/// Most tags of anything (IAM).
const TAGS_MAX: usize = 50;
const TAG_KEY_LENGTH_MAX: usize = 128;
const TAG_VALUE_LENGTH_MAX: usize = 256;
/// Longest path (IAM).
const PATH_LENGTH_MAX: usize = 512;

pub(super) struct Form(BTreeMap<String, String>);

impl Form {
    /// # Errors
    /// `MalformedInput` for what is no form.
    pub fn parse(body: &[u8]) -> Result<Self, IamError> {
        let malformed = || IamError::new("MalformedInput", 400, "The body is no form of distinct fields.");
        let text = std::str::from_utf8(body).map_err(|_| malformed())?;
        let mut fields = BTreeMap::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (url_decode(name).ok_or_else(malformed)?, url_decode(value).ok_or_else(malformed)?);
            if fields.insert(name, value).is_some() || fields.len() > FIELDS_MAX {
                return Err(malformed());
            }
        }
        Ok(Self(fields))
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// # Errors
    /// `ValidationError` when it is absent.
    pub fn required(&self, name: &str) -> Result<&str, IamError> {
        self.text(name).ok_or_else(|| IamError::invalid(name, "must not be null"))
    }

    /// A name that is given: letters, digits and `+=,.@-_`.
    ///
    /// # Errors
    /// `ValidationError`.
    pub fn name(&self, field: &str, length_max: usize) -> Result<&str, IamError> {
        let name = self.required(field)?;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+=,.@-_".contains(&byte);
        if name.is_empty() || name.len() > length_max {
            return Err(IamError::invalid(field, &format!("must have a length of 1 to {length_max}")));
        }
        match name.bytes().all(is_plain) {
            true => Ok(name),
            false => Err(IamError::invalid(field, "must hold only letters, digits and +=,.@-_")),
        }
    }

    /// A path, `/` when none is given.
    ///
    /// # Errors
    /// `ValidationError`.
    pub fn path(&self, field: &str) -> Result<String, IamError> {
        let path = self.text(field).unwrap_or("/");
        let printable = path.bytes().all(|byte| (0x21..=0x7f).contains(&byte));
        if !printable || path.len() > PATH_LENGTH_MAX || !path.starts_with('/') || !path.ends_with('/') {
            return Err(IamError::invalid(field, "must begin and end with a slash"));
        }
        Ok(path.to_owned())
    }

    /// The members of a list, `NAME.member.1` and so on.
    pub fn members(&self, name: &str) -> Vec<&str> {
        (1..).map_while(|number| self.text(&format!("{name}.member.{number}"))).collect()
    }

    /// # Errors
    /// `ValidationError`, `InvalidInput`, `LimitExceeded`.
    pub fn tags(&self) -> Result<BTreeMap<String, String>, IamError> {
        let mut tags = BTreeMap::new();
        for number in 1.. {
            let Some(key) = self.text(&format!("Tags.member.{number}.Key")) else { break };
            let value = self.text(&format!("Tags.member.{number}.Value")).unwrap_or_default();
            if key.is_empty() || key.chars().count() > TAG_KEY_LENGTH_MAX || key.to_lowercase().starts_with("aws:") {
                return Err(IamError::invalid("tags.key", "must have 1 to 128 characters and not begin with aws:"));
            }
            if value.chars().count() > TAG_VALUE_LENGTH_MAX {
                return Err(IamError::invalid("tags.value", "must have at most 256 characters"));
            }
            if tags.insert(key.to_owned(), value.to_owned()).is_some() {
                return Err(IamError::new("InvalidInput", 400, "Duplicate tag keys found."));
            }
        }
        Self::check_tag_count(tags.len())?;
        Ok(tags)
    }

    /// # Errors
    /// `LimitExceeded`.
    pub fn check_tag_count(count: usize) -> Result<(), IamError> {
        match count <= TAGS_MAX {
            true => Ok(()),
            false => Err(IamError::limit(format!("The number of tags must be at most {TAGS_MAX}."))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(text: &str) -> Form {
        Form::parse(text.as_bytes()).unwrap_or_else(|failure| panic!("{text}: {failure:?}"))
    }

    #[test]
    fn fields_are_decoded_and_stand_once() {
        let parsed = form("Action=CreateUser&UserName=a%40b+c&Path=%2Fx%2F&&Flag");
        assert_eq!(parsed.text("UserName"), Some("a@b c"));
        assert_eq!((parsed.text("Flag"), parsed.text("None")), (Some(""), None));
        assert_eq!(parsed.path("Path").unwrap(), "/x/");
        for bad in ["a=1&a=2", "a=%zz", "a=%", "%ff=1"] {
            assert!(Form::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_and_paths_have_their_form() {
        for (text, good) in [("N=ann.b%40c-_%2B%3D", true), ("N=", false), ("N=a%2Fb", false), ("M=a", false)] {
            assert_eq!(form(text).name("N", 64).is_ok(), good, "{text}");
        }
        assert!(form(&format!("N={}", "x".repeat(65))).name("N", 64).is_err());
        for (text, good) in [("", true), ("P=/", true), ("P=/a/b/", true), ("P=a/", false), ("P=/a", false)] {
            assert_eq!(form(text).path("P").is_ok(), good, "{text}");
        }
    }

    #[test]
    fn lists_and_tags_are_read_in_order() {
        let parsed = form("Tags.member.1.Key=a&Tags.member.1.Value=1&Tags.member.2.Key=b&TagKeys.member.1=x");
        assert_eq!(
            parsed.tags().unwrap().into_iter().collect::<Vec<_>>(),
            [("a".to_owned(), "1".to_owned()), ("b".to_owned(), String::new())]
        );
        assert_eq!(parsed.members("TagKeys"), ["x"]);
        assert!(form("Tags.member.1.Key=a&Tags.member.2.Key=a").tags().is_err());
    }
}
