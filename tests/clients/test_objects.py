"""One object: what is put comes back, whole and in ranges, with its headers, under every name."""

import datetime
import hashlib

import pytest
from conftest import MIB, body, fresh_name, headers, refused, status


def test_bytes_and_etag(s3, bucket):
    put = s3.put_object(Bucket=bucket, Key="k", Body=b"hello")
    assert put["ETag"] == f'"{hashlib.md5(b"hello").hexdigest()}"'
    got = s3.get_object(Bucket=bucket, Key="k")
    assert (body(got), got["ETag"], got["ContentLength"]) == (b"hello", put["ETag"], 5)
    assert got["ContentType"] == "binary/octet-stream" and got["AcceptRanges"] == "bytes"
    assert "VersionId" not in got and "StorageClass" not in got


def test_an_empty_object(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"")
    got = s3.get_object(Bucket=bucket, Key="k")
    assert (body(got), got["ContentLength"], got["ETag"]) == (b"", 0, '"d41d8cd98f00b204e9800998ecf8427e"')


def test_an_object_of_several_chunks(s3, bucket):
    data = bytes(range(256)) * (9 * MIB // 256) + b"tail"
    s3.put_object(Bucket=bucket, Key="k", Body=data)
    assert body(s3.get_object(Bucket=bucket, Key="k")) == data


def test_an_overwrite_replaces_everything(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"one", Metadata={"a": "1"}, ContentType="text/plain")
    s3.put_object(Bucket=bucket, Key="k", Body=b"two!")
    got = s3.get_object(Bucket=bucket, Key="k")
    assert (body(got), got["Metadata"], got["ContentType"]) == (b"two!", {}, "binary/octet-stream")


def test_nothing_is_there(s3, bucket):
    with refused(404, "NoSuchKey"):
        s3.get_object(Bucket=bucket, Key="k")
    with refused(404):
        s3.head_object(Bucket=bucket, Key="k")


def test_a_delete_of_nothing_succeeds(s3, bucket):
    answer = s3.delete_object(Bucket=bucket, Key="nothing")
    assert status(answer) == 204 and "DeleteMarker" not in answer and "VersionId" not in answer


def test_a_deleted_object_is_gone(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert status(s3.delete_object(Bucket=bucket, Key="k")) == 204
    with refused(404, "NoSuchKey"):
        s3.get_object(Bucket=bucket, Key="k")


def test_last_modified(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    got = s3.head_object(Bucket=bucket, Key="k")
    age = datetime.datetime.now(datetime.timezone.utc) - got["LastModified"]
    assert abs(age) < datetime.timedelta(minutes=1)
    listed = s3.list_objects_v2(Bucket=bucket)["Contents"][0]["LastModified"]
    assert listed.replace(microsecond=0) == got["LastModified"]


@pytest.mark.parametrize("key", ["ключ", "日本語/鍵", "emoji-😀", "a b", "a+b", "a%2Fb", "a%b", "//", "/leading", "trailing/", "a//b", "..", "../x", "a/./b", ".",
    "a?b=c", "a#b", "a&b", "a=b", "a\\b", "a'b", 'a"b', "a<b>", "a|b", "{a}", "[a]", "~a", "!*()", "a:b", "a;b", "a@b", "a$b", "a,b", "\t", "a\nb", "\x01", "\x7f", "k" * 1024, " ", "é" * 500])
def test_a_key_is_kept_as_it_is(s3, bucket, key):
    s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    assert body(s3.get_object(Bucket=bucket, Key=key)) == key.encode()
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]] == [key]
    deleted = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key}]}) if "\x01" not in key else s3.delete_object(Bucket=bucket, Key=key)
    assert "Errors" not in deleted
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


@pytest.mark.parametrize("key, code", [("k" * 1025, "KeyTooLongError"), ("é" * 513, "KeyTooLongError")])
def test_a_key_that_is_too_long(s3, bucket, key, code):
    with refused(400, code):
        s3.put_object(Bucket=bucket, Key=key, Body=b"")


@pytest.mark.parametrize("path", ["a%00b", "%ff%fe", "a%zz"])
def test_a_key_that_is_no_text(raw, bucket, path):
    assert raw("PUT", f"/{bucket}/{path}", body=b"x").status == 400


def test_system_headers_come_back(s3, bucket):
    when = datetime.datetime(2035, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)
    system = dict(ContentType="text/x-test; charset=utf-8", CacheControl="public, max-age=14400", ContentDisposition='attachment; filename="a b.txt"',
                  ContentEncoding="gzip", ContentLanguage="de, en", Expires=when, WebsiteRedirectLocation="/other")
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", **system)
    for got in (s3.get_object(Bucket=bucket, Key="k"), s3.head_object(Bucket=bucket, Key="k")):
        assert {name: got[name] for name in system} == system


def test_aws_chunked_is_no_encoding_of_the_object(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ContentEncoding="aws-chunked")
    assert not s3.head_object(Bucket=bucket, Key="k").get("ContentEncoding")
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ContentEncoding="gzip,aws-chunked")
    assert s3.head_object(Bucket=bucket, Key="k")["ContentEncoding"] == "gzip"


@pytest.mark.parametrize("metadata", [{"one": "1", "two": "Zwei"}, {"dashed-name": "a"}, {"space": "a  b"}, {"punct": "!@#$%^&*()_+={}[]:;<>,.?/"}])
def test_metadata_comes_back(s3, bucket, metadata):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", Metadata=metadata)
    assert s3.head_object(Bucket=bucket, Key="k")["Metadata"] == metadata


def test_names_of_metadata_are_lower_case(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", Metadata={"Mixed-Case": "Value"})
    assert s3.head_object(Bucket=bucket, Key="k")["Metadata"] == {"mixed-case": "Value"}


def test_metadata_may_be_empty(raw, s3, bucket):
    assert raw("PUT", f"/{bucket}/k", {"x-amz-meta-empty": ""}, b"x").status == 200
    assert s3.head_object(Bucket=bucket, Key="k")["Metadata"] == {"empty": ""}


def test_metadata_in_utf8(raw, bucket):
    assert raw("PUT", f"/{bucket}/k", {"x-amz-meta-name": "Grüße"}, b"x").status == 200
    assert raw("GET", f"/{bucket}/k").status == 200


def test_metadata_up_to_two_kilobytes(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", Metadata={"a": "v" * 2047})
    with refused(400, "MetadataTooLarge"):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", Metadata={"a": "v" * 2048})


@pytest.mark.parametrize("given, told", [("STANDARD", None), ("REDUCED_REDUNDANCY", "REDUCED_REDUNDANCY"), ("STANDARD_IA", "STANDARD_IA"), ("GLACIER_IR", "GLACIER_IR"), ("INTELLIGENT_TIERING", "INTELLIGENT_TIERING"), ("ONEZONE_IA", "ONEZONE_IA")])
def test_storage_classes_are_told_back(s3, bucket, given, told):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", StorageClass=given)
    assert s3.head_object(Bucket=bucket, Key="k").get("StorageClass") == told
    assert s3.list_objects_v2(Bucket=bucket)["Contents"][0]["StorageClass"] == given


def test_an_unknown_storage_class(s3, bucket):
    with refused(400, "InvalidStorageClass"):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", StorageClass="MADE_UP")


RANGED = b"0123456789"


@pytest.fixture(scope="module")
def ranged(s3):
    name = fresh_name()
    s3.create_bucket(Bucket=name)
    s3.put_object(Bucket=name, Key="k", Body=RANGED)
    s3.put_object(Bucket=name, Key="empty", Body=b"")
    return name


class TestRanges:
    @pytest.mark.parametrize("asked, first, last", [("bytes=0-0", 0, 0), ("bytes=2-4", 2, 4), ("bytes=5-", 5, 9), ("bytes=-3", 7, 9), ("bytes=-100", 0, 9), ("bytes=8-100", 8, 9), ("bytes=0-9", 0, 9)])
    def test_a_range(self, s3, ranged, asked, first, last):
        got = s3.get_object(Bucket=ranged, Key="k", Range=asked)
        assert status(got) == 206 and body(got) == RANGED[first:last + 1]
        assert got["ContentRange"] == f"bytes {first}-{last}/10" and got["ContentLength"] == last - first + 1
        assert status(s3.head_object(Bucket=ranged, Key="k", Range=asked)) == 206

    @pytest.mark.parametrize("asked", ["bytes=10-", "bytes=10-20", "bytes=100-200", "bytes=-0"])
    def test_a_range_past_the_end(self, s3, ranged, asked):
        with refused(416, "InvalidRange") as caught:
            s3.get_object(Bucket=ranged, Key="k", Range=asked)
        assert caught.value.response["ResponseMetadata"]["HTTPHeaders"]["content-range"] == "bytes */10"

    @pytest.mark.parametrize("asked", ["bytes=0-", "bytes=0-0", "bytes=-1"])
    def test_a_range_of_an_empty_object(self, s3, ranged, asked):
        with refused(416, "InvalidRange"):
            s3.get_object(Bucket=ranged, Key="empty", Range=asked)

    @pytest.mark.parametrize("asked", ["bytes=5-2", "bytes=x", "lines=0-1", "bytes=0-1,3-4", "bytes", "bytes=--1"])
    def test_what_is_no_range_is_passed_over(self, s3, ranged, asked):
        got = s3.get_object(Bucket=ranged, Key="k", Range=asked)
        assert status(got) == 200 and body(got) == RANGED

    def test_if_range(self, raw, s3, ranged):
        etag = s3.head_object(Bucket=ranged, Key="k")["ETag"]
        assert raw("GET", f"/{ranged}/k", {"Range": "bytes=1-2", "If-Range": etag}).status == 206


class TestResponseOverrides:
    OVERRIDES = dict(ResponseContentType="foo/bar", ResponseCacheControl="no-cache", ResponseContentDisposition="bla", ResponseContentEncoding="aaa", ResponseContentLanguage="esperanto",
                     ResponseExpires=datetime.datetime(2035, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc))

    def test_the_answer_is_changed_and_the_object_is_not(self, s3, bucket):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", ContentType="text/plain")
        for got in (s3.get_object(Bucket=bucket, Key="k", **self.OVERRIDES), s3.head_object(Bucket=bucket, Key="k", **self.OVERRIDES)):
            seen = headers(got)
            assert (seen["content-type"], seen["cache-control"], seen["content-disposition"]) == ("foo/bar", "no-cache", "bla")
            assert (seen["content-encoding"], seen["content-language"]) == ("aaa", "esperanto")
            assert seen["expires"] == "Tue, 02 Jan 2035 03:04:05 GMT"
        assert s3.head_object(Bucket=bucket, Key="k")["ContentType"] == "text/plain"

    @pytest.mark.parametrize("method", ["get_object", "head_object"])
    @pytest.mark.parametrize("value", ["a\nb", "a\r\nX-Injected: b", "\x00"])
    def test_what_no_header_can_hold(self, s3, bucket, method, value):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x")
        with refused(400, None if method == "head_object" else "InvalidRequest"):
            getattr(s3, method)(Bucket=bucket, Key="k", ResponseContentDisposition=value)

    def test_nobody_overrides(self, s3, nobody, bucket):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", ACL="public-read")
        assert status(nobody.get_object(Bucket=bucket, Key="k")) == 200
        with refused(400, "InvalidRequest"):
            nobody.get_object(Bucket=bucket, Key="k", ResponseContentType="foo/bar")


class TestDeleteObjects:
    def test_each_key_is_answered(self, s3, bucket):
        for key in "ab":
            s3.put_object(Bucket=bucket, Key=key)
        answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in "abc"]})
        assert sorted(entry["Key"] for entry in answer["Deleted"]) == ["a", "b", "c"] and "Errors" not in answer
        assert "Contents" not in s3.list_objects(Bucket=bucket)

    def test_quiet_tells_nothing(self, s3, bucket):
        s3.put_object(Bucket=bucket, Key="a")
        answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "a"}], "Quiet": True})
        assert "Deleted" not in answer and "Errors" not in answer

    def test_a_thousand_and_no_more(self, s3, bucket):
        assert len(s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": str(n)} for n in range(1000)]})["Deleted"]) == 1000
        with refused(400, "MalformedXML"):
            s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": str(n)} for n in range(1001)]})

    def test_none_is_malformed(self, raw, bucket):
        import base64
        document = b"<Delete></Delete>"
        digest = base64.b64encode(hashlib.md5(document).digest()).decode()
        answer = raw("POST", f"/{bucket}?delete", {"Content-MD5": digest}, document)
        assert (answer.status, answer.code) == (400, "MalformedXML")

    def test_a_key_too_long_is_an_error_of_that_key(self, s3, bucket):
        answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k" * 1025}, {"Key": "b"}]})
        assert [entry["Key"] for entry in answer["Deleted"]] == ["b"]
        assert answer["Errors"][0]["Code"] == "KeyTooLongError"

    def test_by_etag(self, s3, bucket):
        etag = s3.put_object(Bucket=bucket, Key="a", Body=b"1")["ETag"]
        s3.put_object(Bucket=bucket, Key="b", Body=b"2")
        answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "a", "ETag": etag}, {"Key": "b", "ETag": etag}]})
        assert [entry["Key"] for entry in answer["Deleted"]] == ["a"]
        assert (answer["Errors"][0]["Key"], answer["Errors"][0]["Code"]) == ("b", "PreconditionFailed")

    def test_anothers_objects_are_refused_one_by_one(self, s3, bob, bucket):
        s3.put_object(Bucket=bucket, Key="a")
        answer = bob.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "a"}]})
        assert answer["Errors"][0]["Code"] == "AccessDenied"
        assert status(s3.head_object(Bucket=bucket, Key="a")) == 200


class TestTags:
    TAGS = {"TagSet": [{"Key": "a", "Value": "1"}, {"Key": "b c", "Value": "ü +-=._:/@"}]}

    def test_tags_are_set_read_and_deleted(self, s3, bucket):
        s3.put_object(Bucket=bucket, Key="k")
        assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == []
        assert status(s3.put_object_tagging(Bucket=bucket, Key="k", Tagging=self.TAGS)) == 200
        assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == self.TAGS["TagSet"]
        assert s3.head_object(Bucket=bucket, Key="k").get("TagCount", 2) == 2
        assert s3.get_object(Bucket=bucket, Key="k")["TagCount"] == 2
        assert status(s3.delete_object_tagging(Bucket=bucket, Key="k")) == 204
        assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == []
        assert "TagCount" not in s3.get_object(Bucket=bucket, Key="k")

    def test_tags_come_with_a_put(self, s3, bucket):
        s3.put_object(Bucket=bucket, Key="k", Tagging="a=1&b%20c=%C3%BC&empty=&bare")
        tags = {tag["Key"]: tag["Value"] for tag in s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"]}
        assert tags == {"a": "1", "b c": "ü", "empty": "", "bare": ""}

    def test_their_count_is_told(self, s3, bucket):
        s3.put_object(Bucket=bucket, Key="k", Tagging="a=1&b=2")
        assert s3.head_object(Bucket=bucket, Key="k")["TagCount"] == s3.get_object(Bucket=bucket, Key="k")["TagCount"] == 2

    def test_an_overwrite_drops_them(self, s3, bucket):
        s3.put_object(Bucket=bucket, Key="k", Tagging="a=1")
        s3.put_object(Bucket=bucket, Key="k")
        assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == []

    def test_ten_tags_with_the_longest_names(self, s3, bucket):
        tags = [{"Key": f"{n:0128}", "Value": "v" * 256} for n in range(10)]
        s3.put_object(Bucket=bucket, Key="k")
        s3.put_object_tagging(Bucket=bucket, Key="k", Tagging={"TagSet": tags})
        assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == tags

    @pytest.mark.parametrize("tags, code", [
        ([{"Key": str(n), "Value": ""} for n in range(11)], "BadRequest"),
        ([{"Key": "k" * 129, "Value": "v"}], "InvalidTag"),
        ([{"Key": "k", "Value": "v" * 257}], "InvalidTag"),
        ([{"Key": "a", "Value": "1"}, {"Key": "a", "Value": "2"}], "InvalidTag"),
        ([{"Key": "aws:a", "Value": "1"}], "InvalidTag"),
        ([{"Key": "a|b", "Value": "1"}], "InvalidTag"),
    ])
    def test_bad_tags(self, s3, bucket, tags, code):
        s3.put_object(Bucket=bucket, Key="k")
        with refused(400, code):
            s3.put_object_tagging(Bucket=bucket, Key="k", Tagging={"TagSet": tags})
        assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == []

    @pytest.mark.parametrize("header, code", [("&".join(f"{n}=" for n in range(11)), "BadRequest"), ("a=1&a=2", "InvalidArgument"), ("k" * 129 + "=v", "InvalidTag")])
    def test_bad_tags_in_a_header(self, s3, bucket, header, code):
        with refused(400, code):
            s3.put_object(Bucket=bucket, Key="k", Tagging=header)

    def test_tags_of_nothing(self, s3, bucket):
        with refused(404, "NoSuchKey"):
            s3.get_object_tagging(Bucket=bucket, Key="k")
        with refused(404, "NoSuchKey"):
            s3.put_object_tagging(Bucket=bucket, Key="k", Tagging=self.TAGS)

    def test_tags_of_a_bucket(self, s3, bucket):
        s3.put_bucket_tagging(Bucket=bucket, Tagging=self.TAGS)
        assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == self.TAGS["TagSet"]
        assert status(s3.delete_bucket_tagging(Bucket=bucket)) == 204
        with refused(404, "NoSuchTagSet"):
            s3.get_bucket_tagging(Bucket=bucket)

    def test_fifty_tags_of_a_bucket(self, s3, bucket):
        s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": [{"Key": str(n), "Value": "v"} for n in range(50)]})
        with refused(400, "InvalidTag"):
            s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": [{"Key": str(n), "Value": "v"} for n in range(51)]})
        with refused(400, "InvalidTag"):
            s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": [{"Key": "a", "Value": "v"}] * 2})
