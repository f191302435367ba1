//! Which object or directory a path means.
//!
//! Invariants: a key is the text behind the bucket, as it is: `..`, `//` and `.` in it mean nothing.

use meridian_types::{BucketName, ObjectKey};

use crate::blob::percent_decoded;

/// An object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileName {
    pub(super) bucket: BucketName,
    pub(super) key: ObjectKey,
}

/// Everything below a prefix, which is empty or ends with a slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directory {
    pub(super) bucket: BucketName,
    pub(super) prefix: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FilePath {
    /// `/buckets`
    Root,
    Directory(Directory),
    File(FileName),
}

impl FilePath {
    /// `path` as it stands in a request or in an argument, encoded.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(path: &str) -> Result<Self, String> {
        let decoded = percent_decoded(path).ok_or_else(|| "the path is no percent-encoded UTF-8".to_owned())?;
        Self::of_text(&decoded)
    }

    /// `path` as it reads.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn of_text(path: &str) -> Result<Self, String> {
        let below = path.strip_prefix("/buckets").ok_or_else(|| "a path begins with /buckets/".to_owned())?;
        let below = match below.strip_prefix('/') {
            Some(below) => below,
            None if below.is_empty() => below,
            None => return Err("a path begins with /buckets/".to_owned()),
        };
        if below.is_empty() {
            return Ok(Self::Root);
        }
        let (bucket, key) = below.split_once('/').unwrap_or((below, ""));
        let bucket: BucketName = bucket.parse().map_err(|error| format!("{error}"))?;
        if key.is_empty() || key.ends_with('/') {
            return Ok(Self::Directory(Directory { bucket, prefix: key.to_owned() }));
        }
        let key: ObjectKey = key.parse().map_err(|error| format!("{error}"))?;
        Ok(Self::File(FileName { bucket, key }))
    }
}

impl FileName {
    /// The last part of the key.
    pub(super) fn name(&self) -> &str {
        let key = self.key.as_str();
        key.rsplit_once('/').map_or(key, |(_, name)| name)
    }
}

impl Directory {
    /// As a path of this API.
    pub(super) fn path(&self) -> String {
        format!("/buckets/{}/{}", self.bucket, self.prefix)
    }

    /// What lies in it under a name.
    ///
    /// # Errors
    /// What is wrong with the key.
    pub(super) fn file(&self, name: &str) -> Result<FileName, String> {
        let key = format!("{}{name}", self.prefix).parse().map_err(|error| format!("{error}"))?;
        Ok(FileName { bucket: self.bucket.clone(), key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(path: &str) -> Option<String> {
        Some(match FilePath::parse(path).ok()? {
            FilePath::Root => "root".to_owned(),
            FilePath::Directory(directory) => format!("directory {} {:?}", directory.bucket, directory.prefix),
            FilePath::File(file) => format!("file {} {:?}", file.bucket, file.key.as_str()),
        })
    }

    #[test]
    fn paths_mean_buckets_directories_and_files() {
        for (path, expected) in [
            ("/buckets", "root"),
            ("/buckets/", "root"),
            ("/buckets/photos", "directory photos \"\""),
            ("/buckets/photos/", "directory photos \"\""),
            ("/buckets/photos/a/", "directory photos \"a/\""),
            ("/buckets/photos/a/b.jpg", "file photos \"a/b.jpg\""),
            ("/buckets/photos/..//a", "file photos \"..//a\""),
            ("/buckets/photos/a%20%C3%A9", "file photos \"a é\""),
        ] {
            assert_eq!(shown(path).as_deref(), Some(expected), "{path}");
        }
        for path in ["/bucketsx", "/buckets/A/b", "/buckets/photos/%ff", "/buckets/photos/%", "/x", ""] {
            assert_eq!(shown(path), None, "{path}");
        }
    }
}
