"""Conditions on reads and writes, and which of two wins."""

import datetime

import pytest
from conftest import MIB, body, headers, refused, status

PAST = datetime.datetime(2000, 1, 1, tzinfo=datetime.timezone.utc)
LATER = datetime.datetime(2100, 1, 1, tzinfo=datetime.timezone.utc)
OTHER = '"00000000000000000000000000000000"'


@pytest.fixture
def etag(s3, bucket):
    return s3.put_object(Bucket=bucket, Key="k", Body=b"bytes", CacheControl="no-cache")["ETag"]


def given(etag, **conditions):
    return {name: etag if value == "same" else value for name, value in conditions.items()}


READS = [
    (dict(IfMatch="same"), 200), (dict(IfMatch=OTHER), 412), (dict(IfMatch="*"), 200),
    (dict(IfNoneMatch="same"), 304), (dict(IfNoneMatch=OTHER), 200), (dict(IfNoneMatch="*"), 304),
    (dict(IfModifiedSince=PAST), 200), (dict(IfUnmodifiedSince=PAST), 412), (dict(IfUnmodifiedSince=LATER), 200),
    # A condition on the ETag decides, whatever the one on the date says.
    (dict(IfMatch="same", IfUnmodifiedSince=PAST), 200), (dict(IfMatch=OTHER, IfUnmodifiedSince=LATER), 412),
    (dict(IfNoneMatch="same", IfModifiedSince=PAST), 304), (dict(IfNoneMatch=OTHER, IfModifiedSince=PAST), 200),
    # 412 goes before 304.
    (dict(IfMatch=OTHER, IfNoneMatch="same"), 412), (dict(IfMatch="same", IfNoneMatch="same"), 304),
]


@pytest.mark.parametrize("conditions, wanted", READS)
def test_reads(s3, bucket, etag, conditions, wanted):
    conditions = given(etag, **conditions)
    if wanted == 200:
        assert body(s3.get_object(Bucket=bucket, Key="k", **conditions)) == b"bytes"
        assert status(s3.head_object(Bucket=bucket, Key="k", **conditions)) == 200
        return
    with refused(wanted, "PreconditionFailed" if wanted == 412 else None) as caught:
        s3.get_object(Bucket=bucket, Key="k", **conditions)
    if wanted == 304:
        assert headers(caught.value.response)["etag"] == etag
    with refused(wanted):
        s3.head_object(Bucket=bucket, Key="k", **conditions)


def test_not_modified_since_it_was_written(s3, bucket, etag):
    when = s3.head_object(Bucket=bucket, Key="k")["LastModified"]
    with refused(304):
        s3.get_object(Bucket=bucket, Key="k", IfModifiedSince=when)
    assert status(s3.get_object(Bucket=bucket, Key="k", IfUnmodifiedSince=when)) == 200


def test_etags_without_quotes(s3, bucket, etag):
    assert status(s3.get_object(Bucket=bucket, Key="k", IfMatch=etag.strip('"'))) == 200
    with refused(304):
        s3.get_object(Bucket=bucket, Key="k", IfNoneMatch=etag.strip('"'))


def test_a_failed_condition_says_which(raw, bucket, etag):
    answer = raw("GET", f"/{bucket}/k", {"If-Match": OTHER})
    assert (answer.status, answer.code, answer.text("Condition")) == (412, "PreconditionFailed", "If-Match")
    answer = raw("GET", f"/{bucket}/k", {"If-Unmodified-Since": "Sat, 01 Jan 2000 00:00:00 GMT"})
    assert (answer.status, answer.text("Condition")) == (412, "If-Unmodified-Since")


def test_a_304_has_no_body(raw, bucket, etag):
    answer = raw("GET", f"/{bucket}/k", {"If-None-Match": etag})
    assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", etag)


def test_conditions_on_nothing(s3, bucket):
    with refused(404, "NoSuchKey"):
        s3.get_object(Bucket=bucket, Key="k", IfMatch=OTHER)
    with refused(404, "NoSuchKey"):
        s3.get_object(Bucket=bucket, Key="k", IfNoneMatch="*")


def test_a_range_under_a_condition(s3, bucket, etag):
    assert body(s3.get_object(Bucket=bucket, Key="k", Range="bytes=1-2", IfMatch=etag)) == b"yt"
    with refused(412, "PreconditionFailed"):
        s3.get_object(Bucket=bucket, Key="k", Range="bytes=100-", IfMatch=OTHER)


class TestPut:
    def test_only_where_nothing_is(self, s3, bucket):
        s3.put_object(Bucket=bucket, Key="k", Body=b"1", IfNoneMatch="*")
        with refused(412, "PreconditionFailed"):
            s3.put_object(Bucket=bucket, Key="k", Body=b"2", IfNoneMatch="*")
        assert body(s3.get_object(Bucket=bucket, Key="k")) == b"1"
        s3.delete_object(Bucket=bucket, Key="k")
        s3.put_object(Bucket=bucket, Key="k", Body=b"3", IfNoneMatch="*")

    def test_only_over_what_was_seen(self, s3, bucket, etag):
        with refused(412, "PreconditionFailed"):
            s3.put_object(Bucket=bucket, Key="k", Body=b"2", IfMatch=OTHER)
        s3.put_object(Bucket=bucket, Key="k", Body=b"2", IfMatch=etag)
        with refused(412, "PreconditionFailed"):
            s3.put_object(Bucket=bucket, Key="k", Body=b"3", IfMatch=etag)
        assert body(s3.get_object(Bucket=bucket, Key="k")) == b"2"

    def test_nothing_matches_no_etag(self, s3, bucket):
        with refused(404, "NoSuchKey"):
            s3.put_object(Bucket=bucket, Key="k", Body=b"2", IfMatch=OTHER)

    def test_only_star_is_offered(self, s3, bucket):
        with refused(501, "NotImplemented"):
            s3.put_object(Bucket=bucket, Key="k", Body=b"2", IfNoneMatch=OTHER)

    def test_over_a_delete_marker(self, s3, versioned):
        s3.put_object(Bucket=versioned, Key="k", Body=b"1")
        s3.delete_object(Bucket=versioned, Key="k")
        s3.put_object(Bucket=versioned, Key="k", Body=b"2", IfNoneMatch="*")
        with refused(412, "PreconditionFailed"):
            s3.put_object(Bucket=versioned, Key="k", Body=b"2", IfNoneMatch="*")


class TestDelete:
    def test_by_etag(self, s3, bucket, etag):
        with refused(412, "PreconditionFailed"):
            s3.delete_object(Bucket=bucket, Key="k", IfMatch=OTHER)
        assert status(s3.delete_object(Bucket=bucket, Key="k", IfMatch=etag)) == 204

    def test_nothing_is_no_object(self, s3, bucket):
        with refused(412, "PreconditionFailed"):
            s3.delete_object(Bucket=bucket, Key="none", IfMatch="*")
        answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "none", "ETag": "*"}, {"Key": "other"}]})
        assert ([error["Code"] for error in answer["Errors"]], [gone["Key"] for gone in answer["Deleted"]]) == (["PreconditionFailed"], ["other"])

    def test_star_is_any_object(self, s3, bucket, etag):
        assert status(s3.delete_object(Bucket=bucket, Key="k", IfMatch="*")) == 204
        with refused(404):
            s3.head_object(Bucket=bucket, Key="k")


class TestComplete:
    def complete(self, s3, bucket, **conditions):
        upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
        part = s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=b"part")
        parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
        return s3.complete_multipart_upload(Bucket=bucket, Key="k", UploadId=upload, MultipartUpload=parts, **conditions)

    def test_only_where_nothing_is(self, s3, bucket):
        self.complete(s3, bucket, IfNoneMatch="*")
        with refused(412, "PreconditionFailed"):
            self.complete(s3, bucket, IfNoneMatch="*")

    def test_only_over_what_was_seen(self, s3, bucket, etag):
        with refused(412, "PreconditionFailed"):
            self.complete(s3, bucket, IfMatch=OTHER)
        self.complete(s3, bucket, IfMatch=etag)

    def test_nothing_matches_no_etag(self, s3, bucket):
        with refused(404, "NoSuchKey"):
            self.complete(s3, bucket, IfMatch=OTHER)


class TestCopy:
    CASES = [(dict(CopySourceIfMatch="same"), True), (dict(CopySourceIfMatch=OTHER), False), (dict(CopySourceIfNoneMatch="same"), False),
             (dict(CopySourceIfNoneMatch=OTHER), True), (dict(CopySourceIfModifiedSince=PAST), True), (dict(CopySourceIfUnmodifiedSince=PAST), False),
             (dict(CopySourceIfMatch="same", CopySourceIfUnmodifiedSince=PAST), True), (dict(CopySourceIfNoneMatch="same", CopySourceIfModifiedSince=PAST), False)]

    @pytest.mark.parametrize("conditions, taken", CASES)
    def test_of_the_source(self, s3, bucket, etag, conditions, taken):
        call = dict(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "k"}, **given(etag, **conditions))
        if taken:
            assert s3.copy_object(**call)["CopyObjectResult"]["ETag"] == etag
        else:
            with refused(412, "PreconditionFailed"):
                s3.copy_object(**call)

    def test_of_the_destination(self, s3, bucket, etag):
        call = dict(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "k"})
        s3.copy_object(**call, IfNoneMatch="*")
        with refused(412, "PreconditionFailed"):
            s3.copy_object(**call, IfNoneMatch="*")
        s3.copy_object(**call, IfMatch=etag)
        with refused(412, "PreconditionFailed"):
            s3.copy_object(**call, IfMatch=OTHER)
