//! Listings of buckets and directories: JSON, page by page.
//!
//! Invariants: entries come in the byte order of their names; `lastFileName` of one page begins the next, and no entry is left out
//! or told twice by it; a page reads a bounded number of keys, so that a pattern that matches little makes short pages.

use axum::http::{StatusCode, Uri};
use axum::response::Response;
use meridian_object::{ListRequest, ListedObject, ObjectError, Objects};
use serde::Serialize;

use super::answer::invalid;
use super::path::Directory;
use crate::blob::{argument, json_answer};
use crate::conditions::http_date;

/// Entries of a page, without and with `limit`.
const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1000;
/// Keys that one page of a pattern looks at.
const LOOKED_AT_MAX: usize = 10_000;

/// One file or directory; field names are an interface.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    full_path: String,
    is_directory: bool,
    file_size: u64,
    mtime: Option<String>,
    mime: Option<String>,
    etag: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Page {
    path: String,
    entries: Vec<Entry>,
    limit: usize,
    last_file_name: String,
    should_display_load_more: bool,
}

fn directory_entry(full_path: String) -> Entry {
    Entry { full_path, is_directory: true, file_size: 0, mtime: None, mime: None, etag: None }
}

fn limit(uri: &Uri) -> Result<usize, ObjectError> {
    let Some(text) = argument(uri, "limit") else { return Ok(LIMIT_DEFAULT) };
    let limit = text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
    limit.ok_or_else(|| invalid("limit", format!("a number in 1..={LIMIT_MAX} is expected")))
}

pub(super) async fn buckets(objects: &Objects, uri: &Uri) -> Result<Response, ObjectError> {
    let (limit, after) = (limit(uri)?, argument(uri, "lastFileName").unwrap_or_default());
    let names = objects.list_buckets().await?.into_iter().map(|bucket| bucket.name.to_string());
    let mut names: Vec<String> = names.filter(|name| *name > after).take(limit + 1).collect();
    let more = names.len() > limit;
    names.truncate(limit);
    let page = Page {
        path: "/buckets/".to_owned(),
        limit,
        last_file_name: names.last().cloned().unwrap_or_default(),
        should_display_load_more: more,
        entries: names.into_iter().map(|name| directory_entry(format!("/buckets/{name}/"))).collect(),
    };
    Ok(json_answer(uri, StatusCode::OK, &page))
}

pub(super) async fn list(objects: &Objects, directory: &Directory, uri: &Uri) -> Result<Response, ObjectError> {
    let limit = limit(uri)?;
    let pattern = argument(uri, "namePattern").filter(|pattern| !pattern.is_empty());
    let mut after = argument(uri, "lastFileName").filter(|name| !name.is_empty());
    let (mut entries, mut looked_at, mut more) = (Vec::new(), 0, true);
    let mut is_there = directory.prefix.is_empty();
    while more && entries.len() < limit && looked_at < LOOKED_AT_MAX {
        let request = ListRequest {
            bucket: directory.bucket.clone(),
            prefix: directory.prefix.clone(),
            delimiter: Some("/".to_owned()),
            after: after.as_ref().map(|name| format!("{}{name}", directory.prefix)),
            limit: limit - entries.len(),
        };
        let page = objects.list(request).await?;
        looked_at += (page.entries.len() + page.common_prefixes.len()).max(1);
        more = page.truncated;
        let mut found: Vec<(String, Entry)> = Vec::new();
        for object in page.entries {
            is_there = true;
            let name = object.key.as_str()[directory.prefix.len()..].to_owned();
            if !name.is_empty() {
                found.push((name, file_entry(directory, *object))); // the directory's own object is not in it
            }
        }
        for prefix in page.common_prefixes {
            is_there = true;
            let path = format!("/buckets/{}/{prefix}", directory.bucket);
            found.push((prefix[directory.prefix.len()..].to_owned(), directory_entry(path)));
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        after = page.next.map(|next| next[directory.prefix.len()..].to_owned()).or(after);
        let wanted = |name: &str| pattern.as_deref().is_none_or(|pattern| matches(pattern, name.trim_end_matches('/')));
        entries.extend(found.into_iter().filter(|(name, _)| wanted(name)));
    }
    if !is_there && after.is_none() {
        // Like a key that is not there: an empty directory leaves nothing behind.
        let key = directory.prefix.parse().map_err(|error| invalid("path", format!("{error}")))?;
        return Err(ObjectError::NoSuchKey { bucket: directory.bucket.clone(), key });
    }
    let last = if more { after } else { entries.last().map(|(name, _)| name.clone()) };
    let page = Page {
        path: directory.path(),
        limit,
        last_file_name: last.unwrap_or_default(),
        should_display_load_more: more,
        entries: entries.into_iter().map(|(_, entry)| entry).collect(),
    };
    Ok(json_answer(uri, StatusCode::OK, &page))
}

fn file_entry(directory: &Directory, object: ListedObject) -> Entry {
    Entry {
        full_path: format!("/buckets/{}/{}", directory.bucket, object.key),
        is_directory: false,
        file_size: object.size,
        mtime: Some(http_date(object.stamp.timestamp.unix_ms())),
        mime: object.content_type,
        etag: Some(object.etag),
    }
}

/// Whether a name is of a pattern: `*` stands for anything, `?` for one character. Takes time in the product of both lengths.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => (p, n) = (p + 1, n + 1),
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, n) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_have_stars_and_question_marks() {
        for (pattern, name) in
            [("*", ""), ("*.jpg", "a.jpg"), ("a?c", "abc"), ("*b*", "abc"), ("é*", "éa"), ("a**", "a")]
        {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("*.jpg", "a.png"), ("a?c", "ac"), ("", "a"), ("a", ""), ("*b", "abc"), ("a", "ab")] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
        assert!(!matches(&"*a".repeat(50), &"a".repeat(1000).replace("aa", "ab")), "it ends soon");
    }
}
