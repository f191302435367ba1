//! The front of a row against the whole row.

use proptest::prelude::{Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};

use super::{ListedKind, ListedVersion};
use crate::attributes::{Attributes, Change, Retention, RetentionMode};
use crate::encryption::{Encryption, EncryptionMethod};
use crate::rows::{Checksum, ChecksumAlgorithm, ObjectBody, ObjectVersion, PartSize, Row, VersionId, VersionKind};
use crate::testing::{chunk, key, place, seen, stamp};

fn text() -> impl Strategy<Value = Option<String>> {
    proptest::option::of("[a-zé]{0,6}")
}

fn pairs() -> impl Strategy<Value = Vec<(String, String)>> {
    proptest::collection::vec(("[a-z]{1,4}", "[a-zé]{0,4}"), 0..3)
}

fn attributes() -> impl Strategy<Value = Attributes> {
    let texts = (text(), text(), text(), text(), text(), text());
    let more = (text(), text(), text(), text(), proptest::option::of(any::<bool>()), any::<bool>());
    (texts, pairs(), pairs(), more).prop_map(|(texts, user_metadata, tags, more)| Attributes {
        content_type: texts.0,
        cache_control: texts.1,
        content_disposition: texts.2,
        content_encoding: texts.3,
        content_language: texts.4,
        expires: texts.5,
        user_metadata,
        tags,
        website_redirect: more.0,
        storage_class: more.1,
        owner: more.2,
        acl: more.3,
        retention: more.4.map(|_| Retention { mode: RetentionMode::Governance, until_unix_ms: 1 << 40 }),
        legal_hold: more.4,
        encryption: more.5.then(|| {
            let method = EncryptionMethod::Managed { version: 3 };
            Box::new(Encryption { method, sealed_key: vec![5; 61] })
        }),
    })
}

fn body() -> impl Strategy<Value = ObjectBody> {
    let etag = prop_oneof![Just("ab".repeat(16)), Just(format!("{}-12", "0d".repeat(16))), Just("odd".to_owned())];
    let part = (1u16..9, any::<u64>(), proptest::option::of(proptest::collection::vec(any::<u8>(), 0..9)))
        .prop_map(|(number, size, checksum)| PartSize { number, size, checksum });
    let algorithm = prop_oneof![Just(ChecksumAlgorithm::Crc32), Just(ChecksumAlgorithm::Sha256)];
    let checksum = (algorithm, proptest::collection::vec(any::<u8>(), 0..33), any::<bool>())
        .prop_map(|(algorithm, value, composite)| Checksum { algorithm, value, composite });
    let lists = (0u64..4, proptest::collection::vec(part, 0..3), proptest::collection::vec(checksum, 0..3));
    (any::<u64>(), etag, attributes(), lists, any::<bool>()).prop_map(
        |(size, etag, attributes, (chunks, parts, checksums), annotated)| {
            let chunks = (0..chunks).map(|number| chunk(number, 9)).collect();
            let mut body = ObjectBody { size, etag, attributes, chunks, parts, checksums, annotations: None };
            if annotated {
                body.annotations.get_or_insert_default().set(stamp(7, 1), Change::LegalHold(true));
            }
            body
        },
    )
}

fn version() -> impl Strategy<Value = ObjectVersion> {
    let kind = prop_oneof![
        8 => body().prop_map(VersionKind::Object),
        1 => Just(VersionKind::DeleteMarker),
        1 => Just(VersionKind::Tombstone),
    ];
    (any::<u32>(), any::<bool>(), kind).prop_map(|(raw, is_null, kind)| {
        let stamp = stamp(u64::from(raw), 2);
        let version = if is_null { VersionId::Null } else { VersionId::Stamp(stamp) };
        ObjectVersion { stamp, version, kind, origin: place(3), cursors: seen(&[(1, 2)]) }
    })
}

proptest! {
    #[test]
    fn a_front_says_what_the_whole_row_says(version in version(), flip in any::<proptest::sample::Index>()) {
        let row = version.to_record();
        let front = ListedVersion::from_row(&row).unwrap();
        prop_assert_eq!(front.stamp, version.stamp);
        match (front.kind, &version.kind) {
            (ListedKind::Object(front), VersionKind::Object(body)) => {
                let told = front.told(key("k"), version.stamp);
                let of = &body.attributes;
                prop_assert_eq!((told.size, &told.etag), (body.size, &body.etag));
                prop_assert_eq!(
                    (&told.content_type, &told.storage_class, &told.owner),
                    (&of.content_type, &of.storage_class, &of.owner)
                );
                let checksums: Vec<_> = body.checksums.iter().map(|of| (of.algorithm, of.composite)).collect();
                let listed: Vec<_> = told.checksums.iter().map(|of| (of.algorithm, of.composite)).collect();
                prop_assert_eq!(listed, checksums);
            }
            (ListedKind::DeleteMarker, VersionKind::DeleteMarker) | (ListedKind::Tombstone, VersionKind::Tombstone) => {}
            (_, whole) => panic!("{whole:?} is listed as another kind"),
        }
        // Damage anywhere is seen, behind the front as well.
        let mut damaged = row;
        let bit = flip.index(damaged.len() * 8);
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(ListedVersion::from_row(&damaged).is_err());
    }
}
