"""Copies: within and across buckets, with the source's headers or new ones, of versions, and onto itself."""

import pytest
from conftest import MIB, body, fresh_name, headers, refused, status


@pytest.fixture
def source(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"bytes", Metadata={"a": "1"}, ContentType="text/x", CacheControl="no-cache", Tagging="t=1", StorageClass="STANDARD_IA")
    return {"Bucket": bucket, "Key": "k"}


def test_within_a_bucket(s3, bucket, source):
    answer = s3.copy_object(Bucket=bucket, Key="copy", CopySource=source)
    assert answer["CopyObjectResult"]["ETag"] == s3.head_object(**source)["ETag"] and "LastModified" in answer["CopyObjectResult"]
    got = s3.get_object(Bucket=bucket, Key="copy")
    assert (body(got), got["Metadata"], got["ContentType"], got["CacheControl"], got["TagCount"]) == (b"bytes", {"a": "1"}, "text/x", "no-cache", 1)
    assert "StorageClass" not in got  # the class is not the source's, but what the request says


def test_across_buckets(s3, source):
    other = fresh_name()
    s3.create_bucket(Bucket=other)
    s3.copy_object(Bucket=other, Key="copy", CopySource=source)
    s3.delete_object(**source)
    assert body(s3.get_object(Bucket=other, Key="copy")) == b"bytes"


def test_an_empty_and_a_large_object(s3, bucket):
    for data in (b"", b"0123456789abcdef" * (9 * MIB // 16)):
        s3.put_object(Bucket=bucket, Key="k", Body=data)
        s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/k")
        assert body(s3.get_object(Bucket=bucket, Key="copy")) == data


def test_an_object_of_parts_becomes_one(s3, bucket):
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    etag = s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=b"part")["ETag"]
    s3.complete_multipart_upload(Bucket=bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]})
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/k")
    assert s3.head_object(Bucket=bucket, Key="copy")["ETag"] == etag


def test_new_metadata(s3, bucket, source):
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=source, MetadataDirective="REPLACE", Metadata={"b": "2"}, ContentType="text/y")
    got = s3.head_object(Bucket=bucket, Key="copy")
    assert (got["Metadata"], got["ContentType"]) == ({"b": "2"}, "text/y") and "CacheControl" not in got


def test_headers_without_the_directive_are_passed_over(s3, bucket, source):
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=source, Metadata={"b": "2"}, ContentType="text/y")
    got = s3.head_object(Bucket=bucket, Key="copy")
    assert (got["Metadata"], got["ContentType"]) == ({"a": "1"}, "text/x")


def test_new_tags(s3, bucket, source):
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=source, TaggingDirective="REPLACE", Tagging="n=2")
    assert s3.get_object_tagging(Bucket=bucket, Key="copy")["TagSet"] == [{"Key": "n", "Value": "2"}]
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=source, TaggingDirective="REPLACE")
    assert s3.get_object_tagging(Bucket=bucket, Key="copy")["TagSet"] == []


@pytest.mark.parametrize("name", ["x-amz-metadata-directive", "x-amz-tagging-directive"])
def test_a_directive_that_is_none(raw, bucket, source, name):
    answer = raw("PUT", f"/{bucket}/copy", {"x-amz-copy-source": f"/{bucket}/k", name: "MAYBE"})
    assert (answer.status, answer.code) == (400, "InvalidArgument")


def test_onto_itself(s3, bucket, source):
    with refused(400, "InvalidRequest"):
        s3.copy_object(**source, CopySource=source)
    s3.copy_object(**source, CopySource=source, MetadataDirective="REPLACE", Metadata={"b": "2"})
    assert s3.head_object(**source)["Metadata"] == {"b": "2"} and body(s3.get_object(**source)) == b"bytes"
    s3.copy_object(**source, CopySource=source, StorageClass="GLACIER_IR")
    assert s3.head_object(**source)["StorageClass"] == "GLACIER_IR"


def test_of_versions(s3, versioned):
    first = s3.put_object(Bucket=versioned, Key="k", Body=b"1")["VersionId"]
    second = s3.put_object(Bucket=versioned, Key="k", Body=b"2")["VersionId"]
    answer = s3.copy_object(Bucket=versioned, Key="copy", CopySource={"Bucket": versioned, "Key": "k", "VersionId": first})
    assert answer["CopySourceVersionId"] == first and answer["VersionId"]
    assert body(s3.get_object(Bucket=versioned, Key="copy")) == b"1"
    assert s3.copy_object(Bucket=versioned, Key="copy", CopySource=f"{versioned}/k")["CopySourceVersionId"] == second
    # An old version over the current one is how a version is restored.
    s3.copy_object(Bucket=versioned, Key="k", CopySource={"Bucket": versioned, "Key": "k", "VersionId": first})
    assert body(s3.get_object(Bucket=versioned, Key="k")) == b"1"


def test_of_a_delete_marker(s3, versioned):
    s3.put_object(Bucket=versioned, Key="k", Body=b"1")
    marker = s3.delete_object(Bucket=versioned, Key="k")["VersionId"]
    with refused(404, "NoSuchKey"):
        s3.copy_object(Bucket=versioned, Key="copy", CopySource=f"{versioned}/k")
    with refused(400, "InvalidRequest"):
        s3.copy_object(Bucket=versioned, Key="copy", CopySource={"Bucket": versioned, "Key": "k", "VersionId": marker})


@pytest.mark.parametrize("key", ["a b", "a+b", "ü", "a?b", "a%20b", "a/b/c", "=&"])
def test_of_odd_keys(s3, bucket, key):
    s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": key})
    assert body(s3.get_object(Bucket=bucket, Key="copy")) == key.encode()


@pytest.mark.parametrize("leading", ["", "/", "%2F"])
def test_forms_of_the_source(raw, bucket, source, leading):
    assert raw("PUT", f"/{bucket}/copy", {"x-amz-copy-source": f"{leading}{bucket}/k"}).status == 200


@pytest.mark.parametrize("value", ["nothing", "", "/", "bucket/"])
def test_a_source_that_is_none(raw, bucket, value):
    answer = raw("PUT", f"/{bucket}/copy", {"x-amz-copy-source": value})
    assert answer.status in (400, 404), answer.body


def test_a_source_that_is_not_there(s3, bucket):
    with refused(404, "NoSuchKey"):
        s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/nothing")
    with refused(404, "NoSuchBucket"):
        s3.copy_object(Bucket=bucket, Key="copy", CopySource="no-such-bucket-at-all/k")
    with refused(400, "InvalidArgument"):
        s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "k", "VersionId": "no-version"})


def test_anothers_object(s3, bob, bucket, source):
    own = fresh_name()
    bob.create_bucket(Bucket=own)
    with refused(403, "AccessDenied"):
        bob.copy_object(Bucket=own, Key="copy", CopySource=source)
    s3.put_object_acl(**source, ACL="public-read")
    bob.copy_object(Bucket=own, Key="copy", CopySource=source, TaggingDirective="REPLACE")
    with refused(403, "AccessDenied"):
        bob.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": own, "Key": "copy"})


def test_lists_are_not_copied(s3, nobody, bucket, source):
    s3.put_object_acl(**source, ACL="public-read")
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=source)
    with refused(403, "AccessDenied"):
        nobody.get_object(Bucket=bucket, Key="copy")
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=source, ACL="public-read")
    assert body(nobody.get_object(Bucket=bucket, Key="copy")) == b"bytes"


def test_checksums(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ChecksumAlgorithm="SHA256")
    kept = s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/k")["CopyObjectResult"]
    assert kept["ChecksumSHA256"] == s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")["ChecksumSHA256"]
    other = s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/k", ChecksumAlgorithm="CRC32C")["CopyObjectResult"]
    assert "ChecksumCRC32C" in other
