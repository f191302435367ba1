//! Lists in pages: `MaxItems`, `Marker`, `IsTruncated`.

use super::answer::{IamError, element};
use super::form::Form;

const ITEMS_DEFAULT: usize = 100;
const ITEMS_MAX: usize = 1000;

/// One page of a list. An item is the key that it is sorted and continued by, and its XML; `more` are further elements of the
/// result.
///
/// # Errors
/// `ValidationError` for a `MaxItems` outside of 1 to 1000.
pub(super) fn page(form: &Form, list: &str, items: Vec<(String, String)>) -> Result<String, IamError> {
    let count = match form.text("MaxItems") {
        None => ITEMS_DEFAULT,
        Some(text) => {
            let count = text.parse().ok().filter(|count| (1..=ITEMS_MAX).contains(count));
            count.ok_or_else(|| IamError::invalid("maxItems", "must be between 1 and 1000"))?
        }
    };
    let mut items = items;
    items.sort();
    let marker = form.text("Marker").filter(|marker| !marker.is_empty());
    let rest = items.into_iter().filter(|(key, _)| marker.is_none_or(|marker| key.as_str() > marker));
    let mut rest = rest.peekable();
    let (mut inside, mut last) = (String::new(), String::new());
    for (key, xml) in rest.by_ref().take(count) {
        inside.push_str(&xml);
        last = key;
    }
    let next = rest.peek().is_some();
    let mut text = format!("<{list}>{inside}</{list}>");
    text.push_str(&element("IsTruncated", if next { "true" } else { "false" }));
    if next {
        text.push_str(&element("Marker", &last));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other() {
        let items = || ["b", "a", "c"].map(|key| (key.to_owned(), format!("<m>{key}</m>"))).to_vec();
        let get = |form: &str| page(&Form::parse(form.as_bytes()).ok().unwrap(), "L", items());
        assert_eq!(get("").unwrap(), "<L><m>a</m><m>b</m><m>c</m></L><IsTruncated>false</IsTruncated>");
        let first = get("MaxItems=2").unwrap();
        assert_eq!(first, "<L><m>a</m><m>b</m></L><IsTruncated>true</IsTruncated><Marker>b</Marker>");
        assert_eq!(get("MaxItems=2&Marker=b").unwrap(), "<L><m>c</m></L><IsTruncated>false</IsTruncated>");
        for bad in ["MaxItems=0", "MaxItems=1001", "MaxItems=x"] {
            assert_eq!(get(bad).unwrap_err().code, "ValidationError", "{bad}");
        }
    }
}
