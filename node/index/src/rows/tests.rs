//! The durable forms of rows: sizes, golden bytes, damage.

use meridian_replicator::{Cursor, StableTimes};
use meridian_types::{BucketId, BucketName};
use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

use super::{
    Checksum, ChecksumAlgorithm, ConflictRow, FenceRow, LostWrite, ObjectVersion, Part, PartSize, PartitionState,
    ReclaimRow, Row, StableRow, UploadChecksum, UploadRow, VersionId, VersionKind,
};
use crate::attributes::{Change, Retention, RetentionMode};
use crate::catalog_rows::{
    BucketRow, BucketSettings, BucketState, DefaultRetention, DocumentKind, ObjectLock, SettingName, SettingStamp,
    StoredBucket, Versioning,
};
use crate::encryption::{Encryption, EncryptionMethod};
use crate::testing::{BUCKET, attempt, body, chunk, key, place, seen, stamp, time, upload_id, version};
use crate::user_rows::{AccessKey, GroupRow, MemberKind, Profile, Register, Secret, UserRow, UserState};

fn simple_object() -> ObjectVersion {
    let now = meridian_types::Timestamp::from_unix_ms(1_790_000_000_123);
    let stamp = meridian_types::Stamp::new(now, crate::testing::dc(2));
    version(stamp, 1 << 40, &[(1, 1 << 40), (3, 1 << 40)], VersionKind::Object(body(7)))
}

fn full_object() -> ObjectVersion {
    let mut body = body(7);
    body.etag = format!("{}-2", "ab".repeat(16));
    body.attributes.content_type = Some("text/plain".to_owned());
    body.attributes.user_metadata = vec![("a".to_owned(), "é".to_owned())];
    body.attributes.tags = vec![("k".to_owned(), String::new())];
    let part = |number, size| PartSize { number, size, checksum: Some(vec![9; 8]) };
    body.parts = vec![part(1, 6 << 20), part(10_000, 1)];
    body.attributes.retention = Some(Retention { mode: RetentionMode::Compliance, until_unix_ms: 1 << 40 });
    body.annotations.get_or_insert_default().set(stamp(1 << 60, 3), Change::LegalHold(true));
    let (key_id, context) = ("reports".to_owned(), Some("e30=".to_owned()));
    let method = EncryptionMethod::Kms { key_id, version: 2, context, bucket_key: true };
    body.attributes.encryption = Some(Box::new(Encryption { method, sealed_key: vec![5; 61] }));
    body.checksums = vec![Checksum { algorithm: ChecksumAlgorithm::Crc64Nvme, value: vec![1; 8], composite: true }];
    let stamp = stamp(1 << 60, 254);
    let version = VersionId::Stamp(stamp);
    ObjectVersion { stamp, version, kind: VersionKind::Object(body), origin: place(3), cursors: seen(&[(1, 2)]) }
}

fn bucket_row() -> BucketRow {
    let name: BucketName = "photos".parse().unwrap();
    let settings = BucketSettings {
        versioning: Versioning::Enabled,
        code: Some("200".parse().unwrap()),
        region: Some("dc-a".parse().unwrap()),
        object_lock: Some(ObjectLock {
            default: Some(DefaultRetention { mode: RetentionMode::Governance, days: 7, years: 0 }),
        }),
        documents: [(DocumentKind::Policy, "{}".to_owned())].into(),
    };
    let change = SettingStamp { stamp: stamp(9, 2), origin: place(3), cursors: seen(&[(1, 7)]) };
    let changes = [(SettingName::Document(DocumentKind::Policy), change)].into();
    let (id, state) = (BucketId::derive(&name, 1), BucketState::Active);
    let (created, updated, owner) = (stamp(4, 1), stamp(9, 2), "alice".to_owned());
    BucketRow { name, id, deletions: 1, created, updated, owner, state, settings, changes }
}

fn stable_row() -> StableRow {
    let times = StableTimes { meta: time(300), data: time(200), settled: time(100) };
    StableRow { times, released: seen(&[(1, 7), (2, 5)]) }
}

fn user_row() -> UserRow {
    let key = AccessKey { secret_key: Secret("hush".to_owned()), active: true, created_unix_ms: 5 };
    let changed = stamp(3, 1);
    UserRow {
        name: "alice".to_owned(),
        profile: Profile {
            id: "a1".to_owned(),
            display_name: "Alice".to_owned(),
            email: Some("a@b".to_owned()),
            tenant: None,
            account: Some("acc".to_owned()),
            admin: true,
            state: UserState::Active,
            created_unix_ms: 4,
            kind: MemberKind::Role,
            path: "/x/".to_owned(),
            tags: [("k".to_owned(), "v".to_owned())].into(),
            description: None,
            document: Some("{}".to_owned()),
            session_s_max: 3600,
        },
        profile_changed: stamp(2, 1),
        access_keys: [("AK".to_owned(), Register { value: Some(key), changed })].into(),
        policies: [("p".to_owned(), Register { value: None, changed })].into(),
        attached: [("arn".to_owned(), Register { value: Some(()), changed })].into(),
        groups: [("g".to_owned(), Register { value: Some(()), changed })].into(),
        updated: changed,
    }
}

fn group_row() -> GroupRow {
    let policy = Register { value: Some("{}".to_owned()), changed: stamp(2, 1) };
    let (state, state_changed, updated) = (UserState::Deleted, stamp(1, 1), stamp(2, 1));
    let policies = [("p".to_owned(), policy)].into();
    GroupRow { name: "g".to_owned(), state, state_changed, policies, updated }
}

#[test]
fn a_simple_object_takes_at_most_150_bytes_beside_its_key() {
    let mut version = simple_object();
    assert!(version.encode().len() <= 130, "{} bytes without headers", version.encode().len());
    let VersionKind::Object(body) = &mut version.kind else { unreachable!() };
    body.attributes.content_type = Some("binary/octet-stream".to_owned());
    assert!(version.encode().len() <= 150, "{} bytes with a content type", version.encode().len());
}

/// A format on disk: these bytes never change; a new form gets a new version.
#[test]
fn golden_bytes() {
    let golden = [
        (simple_object().to_record(), GOLDEN_OBJECT),
        (version(stamp(300, 1), 1, &[], VersionKind::Tombstone).to_record(), GOLDEN_TOMBSTONE),
        (full_object().to_record(), GOLDEN_FULL_OBJECT),
        (PartitionState { greatest: time(9), ..PartitionState::default() }.to_record(), GOLDEN_STATE),
        (FenceRow { attempts: vec![attempt(2, 9)] }.to_record(), GOLDEN_FENCE),
        (stable_row().to_record(), GOLDEN_STABLE),
        (StoredBucket { row: bucket_row(), origin: place(3), cursors: seen(&[(2, 7)]) }.to_record(), GOLDEN_BUCKET),
        (user_row().to_record(), GOLDEN_USER),
        (group_row().to_record(), GOLDEN_GROUP),
    ];
    let found: Vec<String> = golden.iter().map(|(record, _)| hex::encode(record)).collect();
    let wanted: Vec<&str> = golden.iter().map(|(_, wanted)| *wanted).collect();
    assert_eq!(found, wanted);
}

const GOLDEN_OBJECT: &str = "0101808080f6e1f39f8005020000ef0701000000000000000000000000000000070000000000000000000000000000000181\
     068780c0c4e78a8d09a18695bb08ef07878080804480808080e0f39f80050000000080808080802002010080808080802003\
     008080808080203518e017";
const GOLDEN_TOMBSTONE: &str = "0101ac02010002000100b3a16115";
const GOLDEN_FULL_OBJECT: &str = "0101808080808080808010fe01808080808080808010fe00ef0702abababababababababababababababab02010a74657874\
     2f706c61696e000000000001016102c3a901016b00000000000101808080808020000101077265706f727473020104653330\
     3d013d0505050505050505050505050505050505050505050505050505050505050505050505050505050505050505050505\
     05050505050505050505050505050181068780c0c4e78a8d09a18695bb08ef07878080804480808080e0f39f800502018080\
     800301080909090909090909904e010108090909090909090901020801010101010101010101000001808080808080808010\
     03010000000301010002c3ffbc0c";
const GOLDEN_STATE: &str = "040109000001000000000000000000000000000000000000000000000000c0c7eac7";
const GOLDEN_FENCE: &str = "1401010200000000000000000000000000000009b745e86a";
const GOLDEN_STABLE: &str = "1e01ac02c80164020100070200056e557a46";
const GOLDEN_BUCKET: &str = "0a010670686f746f73ab9511d9bc38190579d0abbc1badbe96010401090205616c69636501010103323030010464632d6101\
    010007000100027b7d01030009020003010100070003010200077140f7af";
const GOLDEN_USER: &str = "150105616c69636502613105416c696365010361406200010361636301000402032f782f01016b01760001027b7d901c02010102\
    414b01046875736801050301010170000301010361726e010301010167010301030143ae7f79";
const GOLDEN_GROUP: &str = "2801016701010101017001027b7d02010201fbcd362a";

fn check_round_trip<R: Row + PartialEq + std::fmt::Debug>(row: &R) {
    let bytes = row.to_record();
    assert_eq!(&R::from_record(&bytes).unwrap(), row);
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(R::from_record(&flipped).is_err(), "bit {bit} flipped unseen");
    }
    for length in 0..bytes.len() {
        assert!(R::from_record(&bytes[..length]).is_err(), "cut at {length} unseen");
    }
}

#[test]
fn every_row_comes_back_and_every_flip_and_cut_is_refused() {
    let checksums = full_object().body().unwrap().checksums.clone();
    let part = Part { size: 5, etag: "00".repeat(16), chunks: vec![chunk(1, 5)], stored: time(8), checksums };
    check_round_trip(&simple_object());
    check_round_trip(&full_object());
    check_round_trip(&part);
    check_round_trip(&UploadRow {
        key: key("a/b"),
        upload: upload_id(1, 9),
        attributes: full_object().body().unwrap().attributes.clone(),
        initiated: time(77),
        checksum: Some(UploadChecksum { algorithm: ChecksumAlgorithm::Sha1, composite: true }),
    });
    check_round_trip(&ReclaimRow::Version(full_object()));
    check_round_trip(&ReclaimRow::Part { upload: upload_id(1, 9), number: 3, part });
    let (winner, loser, bucket) = (stamp(5, 2), stamp(4, 1), BUCKET);
    let lost = LostWrite::Object { size: 4, etag: "x".to_owned() };
    check_round_trip(&ConflictRow::Object { bucket, key: key("k"), winner, loser, lost });
    let (name, lost) = (bucket_row().name, Box::new(bucket_row()));
    check_round_trip(&ConflictRow::Bucket { name: name.clone(), winner, loser, lost });
    check_round_trip(&ConflictRow::Setting { name, setting: SettingName::Versioning, winner, loser });
    check_round_trip(&FenceRow { attempts: vec![attempt(1, 3), attempt(2, 9)] });
    check_round_trip(&stable_row());
    check_round_trip(&PartitionState { cursors: seen(&[(2, 5)]), ..PartitionState::default() });
    check_round_trip(&StoredBucket { row: bucket_row(), origin: place(1), cursors: seen(&[]) });
    check_round_trip(&user_row());
    check_round_trip(&group_row());
    check_round_trip(&Cursor::start(crate::testing::dc(3)));
}

#[test]
fn version_ids_come_back_and_nothing_else_is_one() {
    for version in [VersionId::Null, VersionId::Stamp(stamp(1 << 60, 254)), VersionId::Stamp(stamp(3, 1))] {
        assert_eq!(version.to_string().parse(), Ok(version));
    }
    assert_eq!(VersionId::Stamp(stamp(0xab, 2)).to_string(), "00000000000000ab02");
    for text in
        ["", "Null", "00", "00000000000000AB02", "00000000000000ab00", "00000000000000ab0203", "x0000000000000ab02"]
    {
        assert!(text.parse::<VersionId>().is_err(), "{text:?}");
    }
}

#[test]
fn a_secret_is_not_printed() {
    assert!(!format!("{:?}", user_row()).contains("hush"));
}

proptest! {
    #[test]
    fn damaged_bytes_never_panic(bytes: Vec<u8>) {
        // A right frame around a wrong body: the checksum holds, so the body's own decoding must refuse it or not.
        let framed = meridian_types::encode_record(ObjectVersion::KIND, ObjectVersion::VERSION, &Raw(bytes.clone()));
        if let Ok(version) = ObjectVersion::decode(&framed) {
            prop_assert_eq!(ObjectVersion::decode(&version.encode()).unwrap(), version);
        }
        prop_assert!(ObjectVersion::decode(&bytes).is_err() || bytes.len() > 6);
    }
}

/// Bytes that serialise as themselves.
struct Raw(Vec<u8>);

impl serde::Serialize for Raw {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeTuple;
        let mut tuple = serializer.serialize_tuple(self.0.len())?;
        for byte in &self.0 {
            tuple.serialize_element(byte)?;
        }
        tuple.end()
    }
}
