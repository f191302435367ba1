//! What requests say of encryption, and how S3 answers what they must not say.

use super::*;

const SAFE: Sse = Sse { takes_customer_keys: true };

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let parse = |(name, value): &(&str, &str)| {
        (HeaderName::try_from(format!("{PREFIX}{name}")).unwrap(), HeaderValue::from_str(value).unwrap())
    };
    pairs.iter().map(parse).collect()
}

fn customer(key: &[u8]) -> [(&'static str, String); 3] {
    [
        ("-customer-algorithm", AES256.to_owned()),
        ("-customer-key", BASE64.encode(key)),
        ("-customer-key-md5", BASE64.encode(Md5::digest(key))),
    ]
}

fn code(result: S3Result<EncryptionWish>) -> String {
    result.unwrap_err().code().as_str().to_owned()
}

#[test]
fn wishes_are_read_from_headers() {
    let wish = |pairs: &[(&str, &str)]| SAFE.wish(&headers(pairs)).unwrap();
    assert!(matches!(wish(&[]), EncryptionWish::BucketDefault));
    assert!(matches!(wish(&[("", "AES256")]), EncryptionWish::Managed));
    let kms = wish(&[("", "aws:kms"), ("-aws-kms-key-id", "k"), ("-context", "e30="), ("-bucket-key-enabled", "true")]);
    let EncryptionWish::Kms { key_id, context, bucket_key } = kms else { panic!("{kms:?}") };
    assert_eq!((key_id.as_deref(), context.as_deref(), bucket_key), (Some("k"), Some("e30="), Some(true)));
    assert!(matches!(wish(&[("", "aws:kms")]), EncryptionWish::Kms { key_id: None, bucket_key: None, .. }));
    let key = customer(&[7; 32]);
    let pairs: Vec<(&str, &str)> = key.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert!(matches!(wish(&pairs), EncryptionWish::Customer(_)));
}

#[test]
fn what_makes_no_sense_is_refused_in_the_words_of_s3() {
    let refusal = |pairs: &[(&str, &str)]| code(SAFE.wish(&headers(pairs)));
    assert_eq!(refusal(&[("", "ROT13")]), "InvalidEncryptionAlgorithmError");
    assert_eq!(refusal(&[("", "aws:kms:dsse")]), "NotImplemented");
    assert_eq!(refusal(&[("-aws-kms-key-id", "k")]), "InvalidArgument");
    assert_eq!(refusal(&[("", "AES256"), ("-aws-kms-key-id", "k")]), "InvalidArgument");
    assert_eq!(refusal(&[("", "aws:kms"), ("-context", "{}")]), "InvalidArgument");
    assert_eq!(refusal(&[("", "aws:kms"), ("-bucket-key-enabled", "yes")]), "InvalidArgument");
    assert_eq!(refusal(&[("", "aws:kms"), ("-aws-kms-key-id", "a b")]), "KMS.NotFoundException");
}

#[test]
fn customer_keys_are_checked_and_need_a_safe_way() {
    let key = customer(&[7; 32]);
    let pairs: Vec<(&str, &str)> = key.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let refusal = |pairs: &[(&str, &str)]| code(SAFE.wish(&headers(pairs)));
    let plain = Sse { takes_customer_keys: false };
    assert_eq!(code(plain.wish(&headers(&pairs))), "InvalidRequest");
    assert!(plain.wish(&headers(&[("", "AES256")])).is_ok());
    for lacking in 0..3 {
        let mut pairs = pairs.clone();
        pairs.remove(lacking);
        assert_eq!(refusal(&pairs), "InvalidArgument");
    }
    let changed = |at: usize, value: &str| {
        let mut pairs: Vec<(&str, String)> = key.to_vec();
        pairs[at].1 = value.to_owned();
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (*name, value.as_str())).collect();
        refusal(&pairs)
    };
    assert_eq!(changed(0, "AES128"), "InvalidEncryptionAlgorithmError");
    assert_eq!(changed(1, "not base64"), "InvalidArgument");
    assert_eq!(changed(2, &BASE64.encode([0; 16])), "InvalidArgument");
    let short = customer(&[7; 16]);
    let pairs: Vec<(&str, &str)> = short.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(refusal(&pairs), "InvalidArgument");
    let both: Vec<(&str, &str)> =
        key.iter().map(|(name, value)| (*name, value.as_str())).chain([("", "aws:kms")]).collect();
    assert_eq!(refusal(&both), "InvalidArgument");
}

#[test]
fn reads_say_nothing_but_a_key() {
    assert!(SAFE.key_alone(&headers(&[])).unwrap().is_none());
    for name in ["", "-aws-kms-key-id", "-context", "-bucket-key-enabled"] {
        assert_eq!(SAFE.key_alone(&headers(&[(name, "x")])).unwrap_err().code().as_str(), "InvalidArgument");
    }
}

#[test]
fn answers_tell_what_was_done() {
    let tell = |method, asked: &HeaderMap| {
        let encryption = Encryption { method, sealed_key: vec![1] };
        told(S3Response::new(()), Some(&encryption), asked).headers
    };
    let none = HeaderMap::new();
    assert!(told(S3Response::new(()), None, &none).headers.is_empty());
    assert_eq!(tell(EncryptionMethod::Managed { version: 1 }, &none), headers(&[("", "AES256")]));
    let kms = || EncryptionMethod::Kms {
        key_id: "k".to_owned(),
        version: 3,
        context: Some("e30=".to_owned()),
        bucket_key: true,
    };
    let mut expected = headers(&[("", "aws:kms"), ("-aws-kms-key-id", "k"), ("-bucket-key-enabled", "true")]);
    assert_eq!(tell(kms(), &none), expected);
    expected.extend(headers(&[("-context", "e30=")]));
    assert_eq!(tell(kms(), &headers(&[("-context", "e30=")])), expected);
    let asked = headers(&[("-customer-key-md5", "m")]);
    let expected = headers(&[("-customer-algorithm", "AES256"), ("-customer-key-md5", "m")]);
    assert_eq!(tell(EncryptionMethod::Customer, &asked), expected);
}

#[test]
fn defaults_of_buckets_come_back_as_they_were_set() {
    let rule = |algorithm: &str, key_id: Option<&str>, bucket_key| {
        let by_default = dto::ServerSideEncryptionByDefault {
            kms_master_key_id: key_id.map(str::to_owned),
            sse_algorithm: algorithm.to_owned().into(),
        };
        let rule = dto::ServerSideEncryptionRule {
            apply_server_side_encryption_by_default: Some(by_default),
            bucket_key_enabled: bucket_key,
        };
        dto::ServerSideEncryptionConfiguration { rules: vec![rule] }
    };
    let malformed = || error(S3ErrorCode::MalformedXML, "");
    for configuration in [
        rule("AES256", None, Some(false)),
        rule("aws:kms", None, Some(true)),
        rule("aws:kms", Some("arn:aws:kms:a:1:key/k"), Some(false)),
    ] {
        let default = default_of(&configuration, malformed).unwrap();
        assert_eq!(configuration_of(default), configuration);
    }
    let refusal = |configuration| default_of(&configuration, malformed).unwrap_err().code().as_str().to_owned();
    assert_eq!(refusal(rule("ROT13", None, None)), "MalformedXML");
    assert_eq!(refusal(rule("AES256", Some("k"), None)), "InvalidArgument");
    assert_eq!(refusal(rule("aws:kms:dsse", None, None)), "NotImplemented");
    assert_eq!(refusal(dto::ServerSideEncryptionConfiguration { rules: vec![] }), "MalformedXML");
}
