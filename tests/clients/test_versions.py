"""Versions: each write stays, delete markers hide, null versions are replaced, and the listing pages through all."""

import pytest
from conftest import body, headers, refused, status


def put(s3, bucket, data, key="k", **more):
    return s3.put_object(Bucket=bucket, Key=key, Body=data, **more)["VersionId"]


def versions(answer):
    return [(entry["Key"], entry["VersionId"], entry["IsLatest"]) for entry in answer.get("Versions", [])]


def markers(answer):
    return [(entry["Key"], entry["VersionId"], entry["IsLatest"]) for entry in answer.get("DeleteMarkers", [])]


def suspend(s3, bucket):
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})


def test_each_write_stays(s3, versioned):
    ids = [put(s3, versioned, str(n).encode()) for n in range(3)]
    assert len(set(ids)) == 3
    assert body(s3.get_object(Bucket=versioned, Key="k")) == b"2"
    for n, version in enumerate(ids):
        got = s3.get_object(Bucket=versioned, Key="k", VersionId=version)
        assert (body(got), got["VersionId"]) == (str(n).encode(), version)
        assert s3.head_object(Bucket=versioned, Key="k", VersionId=version)["VersionId"] == version
    listed = versions(s3.list_object_versions(Bucket=versioned))
    assert listed == [("k", ids[2], True), ("k", ids[1], False), ("k", ids[0], False)]


def test_a_delete_leaves_a_marker(s3, versioned):
    version = put(s3, versioned, b"1")
    deleted = s3.delete_object(Bucket=versioned, Key="k")
    assert deleted["DeleteMarker"] is True and deleted["VersionId"] != version
    with refused(404, "NoSuchKey") as caught:
        s3.get_object(Bucket=versioned, Key="k")
    seen = headers(caught.value.response)
    assert seen["x-amz-delete-marker"] == "true" and seen["x-amz-version-id"] == deleted["VersionId"]
    with refused(404):
        s3.head_object(Bucket=versioned, Key="k")
    assert body(s3.get_object(Bucket=versioned, Key="k", VersionId=version)) == b"1"
    answer = s3.list_object_versions(Bucket=versioned)
    assert versions(answer) == [("k", version, False)] and markers(answer) == [("k", deleted["VersionId"], True)]
    assert "Contents" not in s3.list_objects(Bucket=versioned)


def test_a_marker_is_no_object(s3, versioned):
    marker = s3.delete_object(Bucket=versioned, Key="k")["VersionId"]
    for operation in (s3.get_object, s3.head_object):
        with pytest.raises(s3.exceptions.ClientError) as caught:
            operation(Bucket=versioned, Key="k", VersionId=marker)
        assert status(caught.value.response) == 405
        seen = headers(caught.value.response)
        assert (seen["x-amz-delete-marker"], seen["allow"]) == ("true", "DELETE") and "last-modified" in seen


def test_a_deleted_marker_shows_the_object_again(s3, versioned):
    put(s3, versioned, b"1")
    marker = s3.delete_object(Bucket=versioned, Key="k")["VersionId"]
    answer = s3.delete_object(Bucket=versioned, Key="k", VersionId=marker)
    assert answer["DeleteMarker"] is True and answer["VersionId"] == marker
    assert body(s3.get_object(Bucket=versioned, Key="k")) == b"1"


def test_a_deleted_version_is_gone_for_good(s3, versioned):
    first, second = put(s3, versioned, b"1"), put(s3, versioned, b"2")
    answer = s3.delete_object(Bucket=versioned, Key="k", VersionId=second)
    assert answer["VersionId"] == second and "DeleteMarker" not in answer
    with refused(404, "NoSuchVersion"):
        s3.get_object(Bucket=versioned, Key="k", VersionId=second)
    assert body(s3.get_object(Bucket=versioned, Key="k")) == b"1"
    s3.delete_object(Bucket=versioned, Key="k", VersionId=first)
    with refused(404, "NoSuchKey"):
        s3.get_object(Bucket=versioned, Key="k")
    assert versions(s3.list_object_versions(Bucket=versioned)) == []


def test_a_delete_of_an_unknown_version_succeeds(s3, versioned):
    version = put(s3, versioned, b"1")
    s3.delete_object(Bucket=versioned, Key="k", VersionId=version)
    assert status(s3.delete_object(Bucket=versioned, Key="k", VersionId=version)) == 204


@pytest.mark.parametrize("version", ["nonsense", "0" * 32])
def test_a_version_that_is_none(s3, versioned, version):
    put(s3, versioned, b"1")
    with pytest.raises(s3.exceptions.ClientError) as caught:
        s3.get_object(Bucket=versioned, Key="k", VersionId=version)
    answer = caught.value.response
    assert (status(answer), answer["Error"]["Code"]) in [(400, "InvalidArgument"), (404, "NoSuchVersion")]


def test_an_empty_version_is_malformed(raw, versioned):
    answer = raw("GET", f"/{versioned}/k?versionId=")
    assert (answer.status, answer.code) == (400, "InvalidArgument")


class TestNull:
    def test_what_was_there_before_versioning(self, s3, bucket):
        s3.put_object(Bucket=bucket, Key="k", Body=b"old")
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        version = put(s3, bucket, b"new")
        assert body(s3.get_object(Bucket=bucket, Key="k", VersionId="null")) == b"old"
        assert versions(s3.list_object_versions(Bucket=bucket)) == [("k", version, True), ("k", "null", False)]
        s3.delete_object(Bucket=bucket, Key="k", VersionId="null")
        assert versions(s3.list_object_versions(Bucket=bucket)) == [("k", version, True)]

    def test_suspended_writes_replace_the_null_version(self, s3, versioned):
        version = put(s3, versioned, b"1")
        suspend(s3, versioned)
        answer = s3.put_object(Bucket=versioned, Key="k", Body=b"2")
        assert answer.get("VersionId", "null") == "null"
        s3.put_object(Bucket=versioned, Key="k", Body=b"3")
        assert versions(s3.list_object_versions(Bucket=versioned)) == [("k", "null", True), ("k", version, False)]
        assert body(s3.get_object(Bucket=versioned, Key="k", VersionId="null")) == b"3"
        assert s3.get_object(Bucket=versioned, Key="k")["VersionId"] == "null"

    def test_a_suspended_delete_leaves_a_null_marker(self, s3, versioned):
        version = put(s3, versioned, b"1")
        suspend(s3, versioned)
        s3.put_object(Bucket=versioned, Key="k", Body=b"2")
        deleted = s3.delete_object(Bucket=versioned, Key="k")
        assert (deleted["DeleteMarker"], deleted["VersionId"]) == (True, "null")
        answer = s3.list_object_versions(Bucket=versioned)
        assert versions(answer) == [("k", version, False)] and markers(answer) == [("k", "null", True)]
        s3.delete_object(Bucket=versioned, Key="k", VersionId="null")
        assert body(s3.get_object(Bucket=versioned, Key="k")) == b"1"

    def test_null_of_an_unversioned_bucket(self, s3, bucket):
        s3.put_object(Bucket=bucket, Key="k", Body=b"1")
        assert body(s3.get_object(Bucket=bucket, Key="k", VersionId="null")) == b"1"
        assert versions(s3.list_object_versions(Bucket=bucket)) == [("k", "null", True)]
        s3.delete_object(Bucket=bucket, Key="k", VersionId="null")
        with refused(404, "NoSuchKey"):
            s3.get_object(Bucket=bucket, Key="k")


class TestDeleteObjects:
    def test_versions_and_markers(self, s3, versioned):
        first, second = put(s3, versioned, b"1"), put(s3, versioned, b"2")
        answer = s3.delete_objects(Bucket=versioned, Delete={"Objects": [{"Key": "k", "VersionId": first}]})
        assert answer["Deleted"] == [{"Key": "k", "VersionId": first}]
        answer = s3.delete_objects(Bucket=versioned, Delete={"Objects": [{"Key": "k"}]})["Deleted"][0]
        marker = answer["DeleteMarkerVersionId"]
        assert answer["DeleteMarker"] is True and "VersionId" not in answer
        answer = s3.delete_objects(Bucket=versioned, Delete={"Objects": [{"Key": "k", "VersionId": marker}]})["Deleted"][0]
        assert answer == {"Key": "k", "VersionId": marker, "DeleteMarker": True, "DeleteMarkerVersionId": marker}
        assert body(s3.get_object(Bucket=versioned, Key="k", VersionId=second)) == b"2"

    def test_an_unknown_version(self, s3, versioned):
        answer = s3.delete_objects(Bucket=versioned, Delete={"Objects": [{"Key": "k", "VersionId": "nonsense"}]})
        assert answer["Errors"][0]["Code"] in ("NoSuchVersion", "InvalidArgument")


class TestListing:
    @pytest.fixture
    def several(self, s3, versioned):
        return versioned, {key: [put(s3, versioned, b"x", key) for _ in range(2)][::-1] for key in ("a", "b/1", "b/2", "c")}

    def test_pages_of_one(self, s3, several):
        bucket, ids = several
        wanted = [(key, version) for key in sorted(ids) for version in ids[key]]
        seen, at = [], {}
        for _ in range(20):
            page = s3.list_object_versions(Bucket=bucket, MaxKeys=1, **at)
            seen += [(key, version) for key, version, _ in versions(page)]
            if not page["IsTruncated"]:
                break
            assert (page["NextKeyMarker"], page["NextVersionIdMarker"]) == seen[-1]
            at = {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page["NextVersionIdMarker"]}
        assert seen == wanted

    def test_pages_by_the_paginator(self, s3, several):
        bucket, ids = several
        s3.delete_object(Bucket=bucket, Key="a")
        pages = s3.get_paginator("list_object_versions").paginate(Bucket=bucket, PaginationConfig={"PageSize": 3})
        entries = [entry for page in pages for entry in page.get("Versions", []) + page.get("DeleteMarkers", [])]
        assert len(entries) == 9 and len({(entry["Key"], entry["VersionId"]) for entry in entries}) == 9

    def test_a_key_marker_alone_skips_the_key(self, s3, several):
        bucket, ids = several
        answer = s3.list_object_versions(Bucket=bucket, KeyMarker="b/1")
        assert [key for key, _, _ in versions(answer)] == ["b/2", "b/2", "c", "c"] and answer["KeyMarker"] == "b/1"

    def test_a_version_marker_needs_a_key_marker(self, raw, several):
        answer = raw("GET", f"/{several[0]}?versions&version-id-marker=null")
        assert (answer.status, answer.code) == (400, "InvalidArgument")

    def test_prefix_and_delimiter(self, s3, several):
        bucket, ids = several
        answer = s3.list_object_versions(Bucket=bucket, Delimiter="/")
        assert [key for key, _, _ in versions(answer)] == ["a", "a", "c", "c"]
        assert [entry["Prefix"] for entry in answer["CommonPrefixes"]] == ["b/"]
        answer = s3.list_object_versions(Bucket=bucket, Prefix="b/")
        assert [key for key, _, _ in versions(answer)] == ["b/1", "b/1", "b/2", "b/2"]

    def test_pages_with_a_delimiter(self, s3, several):
        bucket, ids = several
        seen, at = [], {}
        for _ in range(20):
            page = s3.list_object_versions(Bucket=bucket, MaxKeys=1, Delimiter="/", **at)
            seen += [entry["Key"] for entry in page.get("Versions", [])] + [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]
            if not page["IsTruncated"]:
                break
            at = {"KeyMarker": page["NextKeyMarker"]}
            if "NextVersionIdMarker" in page:
                at["VersionIdMarker"] = page["NextVersionIdMarker"]
        assert seen == ["a", "a", "b/", "c", "c"]

    def test_entries_have_all_that_a_version_is(self, s3, several):
        bucket, _ = several
        entry = s3.list_object_versions(Bucket=bucket)["Versions"][0]
        assert entry["Owner"]["ID"] == "ann" and entry["Size"] == 1 and entry["StorageClass"] == "STANDARD" and entry["ETag"]


def test_tags_of_a_version(s3, versioned):
    first = put(s3, versioned, b"1", Tagging="v=1")
    second = put(s3, versioned, b"2", Tagging="v=2")
    for version, value in ((first, "1"), (second, "2")):
        answer = s3.get_object_tagging(Bucket=versioned, Key="k", VersionId=version)
        assert answer["TagSet"] == [{"Key": "v", "Value": value}] and answer["VersionId"] == version
    s3.put_object_tagging(Bucket=versioned, Key="k", VersionId=first, Tagging={"TagSet": [{"Key": "v", "Value": "3"}]})
    assert s3.get_object_tagging(Bucket=versioned, Key="k", VersionId=first)["TagSet"][0]["Value"] == "3"
    assert s3.get_object_tagging(Bucket=versioned, Key="k")["TagSet"][0]["Value"] == "2"
    s3.delete_object_tagging(Bucket=versioned, Key="k", VersionId=first)
    assert s3.get_object_tagging(Bucket=versioned, Key="k", VersionId=first)["TagSet"] == []


def test_tags_of_a_marker(s3, versioned):
    marker = s3.delete_object(Bucket=versioned, Key="k")["VersionId"]
    with refused(405, "MethodNotAllowed"):
        s3.get_object_tagging(Bucket=versioned, Key="k", VersionId=marker)


def test_lists_of_a_version(s3, versioned):
    first = put(s3, versioned, b"1", ACL="public-read")
    put(s3, versioned, b"2")
    assert len(s3.get_object_acl(Bucket=versioned, Key="k", VersionId=first)["Grants"]) == 2
    assert len(s3.get_object_acl(Bucket=versioned, Key="k")["Grants"]) == 1
