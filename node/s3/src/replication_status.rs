//! `x-amz-replication-status`: how far an object's own replication has come, for buckets that have a replication
//! configuration. Replication itself is the store's and asks no configuration; the configuration says of which objects its
//! owner wants to be told.
//!
//! Invariants: COMPLETED is said only when every datacenter of the cluster has the entry and, where the bucket's code gives
//! it a copy, the bytes (stable-data); an object that was written elsewhere is a REPLICA; a bucket without copies in other
//! datacenters tells nothing.

use meridian_object::{BucketRow, DocumentKind, ObjectInfo, Objects};
use meridian_types::Timestamp;
use s3s::dto;

use crate::document_xml::from_text;

/// What every datacenter has: all that is stamped at or below it, bytes included.
pub type DurableEverywhere = std::sync::Arc<dyn Fn() -> Timestamp + Send + Sync>;

pub(crate) fn replication_status(
    objects: &Objects,
    durable: Option<&DurableEverywhere>,
    bucket: Option<&BucketRow>,
    info: &ObjectInfo,
) -> Option<dto::ReplicationStatus> {
    let (bucket, durable) = (bucket?, durable?);
    let text = bucket.settings.document(DocumentKind::Replication)?;
    if !objects.keeps_copies_elsewhere(bucket) || !covers(text, info) {
        return None;
    }
    let status = if info.stamp.datacenter != objects.datacenter() {
        dto::ReplicationStatus::REPLICA
    } else if info.stamp.timestamp <= durable() {
        dto::ReplicationStatus::COMPLETED
    } else {
        dto::ReplicationStatus::PENDING
    };
    Some(dto::ReplicationStatus::from_static(status))
}

/// Whether any enabled rule is about an object.
fn covers(text: &str, info: &ObjectInfo) -> bool {
    let Ok(document) = from_text::<dto::ReplicationConfiguration>(text) else { return false };
    let rules = document.rules.iter().filter(|rule| rule.status.as_str() == "Enabled");
    rules.into_iter().any(|rule| {
        let tag = |tag: &dto::Tag| (tag.key.clone().unwrap_or_default(), tag.value.clone().unwrap_or_default());
        let (prefix, tags): (Option<String>, Vec<_>) = match &rule.filter {
            Some(filter) => match &filter.and {
                Some(and) => (and.prefix.clone(), and.tags.iter().flatten().map(tag).collect()),
                None => (filter.prefix.clone(), filter.tag.iter().map(tag).collect()),
            },
            None => (rule.prefix.clone(), Vec::new()),
        };
        let has = |tag: &(String, String)| info.attributes.tags.contains(tag);
        info.key.as_str().starts_with(prefix.as_deref().unwrap_or_default()) && tags.iter().all(has)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use meridian_object::{Attributes, VersionId};
    use meridian_types::{DatacenterId, Stamp};

    #[test]
    fn enabled_rules_cover_by_prefix_and_tag() {
        let info = |key: &str, tags: &[(&str, &str)]| ObjectInfo {
            key: key.parse().unwrap(),
            size: 0,
            etag: "e".to_owned(),
            attributes: Attributes {
                tags: tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
                ..Attributes::default()
            },
            stamp: Stamp::new(Timestamp::ZERO, DatacenterId::new(1).unwrap()),
            version: VersionId::Null,
            shown_version: None,
            last_modified_unix_ms: 0,
            parts: Vec::new(),
            checksums: Vec::new(),
        };
        let document = |rule: &str| {
            format!(
                "<ReplicationConfiguration><Role>r</Role><Rule>{rule}<Destination><Bucket>arn:aws:s3:::b</Bucket>\
                 </Destination></Rule></ReplicationConfiguration>"
            )
        };
        let on = "<Status>Enabled</Status>";
        let tag = "<Filter><Tag><Key>k</Key><Value>v</Value></Tag></Filter>";
        for (rule, expected) in [
            (format!("{on}<Prefix>a/</Prefix>"), true),
            (format!("{on}<Prefix>b/</Prefix>"), false),
            (format!("{on}<Filter><Prefix/></Filter>"), true),
            ("<Status>Disabled</Status><Prefix/>".to_owned(), false),
            (format!("{on}{tag}"), true),
            (format!("{on}{}", tag.replace(">v<", ">w<")), false),
        ] {
            assert_eq!(covers(&document(&rule), &info("a/x", &[("k", "v")])), expected, "{rule}");
        }
        assert!(!covers("<", &info("a/x", &[])));
    }
}
