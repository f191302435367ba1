"""Listings: order, prefixes, delimiters, markers, pages, encodings."""

import pytest
from conftest import fresh_name, refused, status

KEYS = ["asdf", "boo/bar", "boo/baz/xyzzy", "cquux/thud", "cquux/bla"]


@pytest.fixture(scope="module")
def filled(s3):
    made = {}

    def fill(*keys):
        if keys not in made:
            name = fresh_name()
            s3.create_bucket(Bucket=name)
            for key in keys:
                s3.put_object(Bucket=name, Key=key, Body=b"x")
            made[keys] = name
        return made[keys]
    return fill


def keys(answer):
    return [entry["Key"] for entry in answer.get("Contents", [])]


def prefixes(answer):
    return [entry["Prefix"] for entry in answer.get("CommonPrefixes", [])]


@pytest.fixture(params=["list_objects", "list_objects_v2"])
def listed(s3, request):
    return getattr(s3, request.param)


def test_an_empty_bucket(listed, bucket):
    answer = listed(Bucket=bucket)
    assert keys(answer) == [] and answer["IsTruncated"] is False and answer["Name"] == bucket and answer["MaxKeys"] == 1000


def test_order_is_that_of_bytes(listed, filled):
    names = ["a", "B", "é", "z", "a/b", "a-b", "日本", "\U0001f600", "\uff5e"]
    assert keys(listed(Bucket=filled(*names))) == sorted(names, key=str.encode)


@pytest.mark.parametrize("prefix, delimiter, wanted, common", [
    ("", "/", ["asdf"], ["boo/", "cquux/"]),
    ("boo/", "/", ["boo/bar"], ["boo/baz/"]),
    ("boo", "/", [], ["boo/"]),
    ("boo/b", "", ["boo/bar", "boo/baz/xyzzy"], []),
    ("", "z/", ["asdf", "boo/bar", "cquux/bla", "cquux/thud"], ["boo/baz/"]),
    ("", "uu", ["asdf", "boo/bar", "boo/baz/xyzzy"], ["cquu"]),
    ("", "none", sorted(KEYS), []),
    ("", "\n", sorted(KEYS), []),
    ("\x0a", "/", [], []),
    ("nothing", "/", [], []),
    ("asdf", "/", ["asdf"], []),
])
def test_prefixes_and_delimiters(listed, filled, prefix, delimiter, wanted, common):
    answer = listed(Bucket=filled(*KEYS), Prefix=prefix, Delimiter=delimiter)
    assert (keys(answer), prefixes(answer)) == (wanted, common)
    assert answer.get("Prefix", "") in (prefix, "%0A") and answer.get("Delimiter", "") == delimiter


@pytest.mark.parametrize("delimiter", ["%", " ", ".", "\x0a", "\x07", "ü"])
def test_odd_delimiters(listed, filled, delimiter):
    names = [f"b{delimiter}ar", f"b{delimiter}az", f"c{delimiter}ab", "foo"]
    answer = listed(Bucket=filled(*names), Delimiter=delimiter)
    assert (keys(answer), prefixes(answer)) == (["foo"], [f"b{delimiter}", f"c{delimiter}"])


def test_a_delimiter_within_the_prefix_does_not_count(listed, filled):
    answer = listed(Bucket=filled("a/b/c", "a/b/d/e"), Prefix="a/b/", Delimiter="/")
    assert (keys(answer), prefixes(answer)) == (["a/b/c"], ["a/b/d/"])


def test_a_key_that_is_the_prefix(listed, filled):
    answer = listed(Bucket=filled("a/", "a/b"), Prefix="a/", Delimiter="/")
    assert (keys(answer), prefixes(answer)) == (["a/", "a/b"], [])


@pytest.mark.parametrize("value", ["abc", "-1", "1.5"])
@pytest.mark.parametrize("form", ["", "list-type=2&"])
def test_bad_page_sizes(raw, filled, form, value):
    answer = raw("GET", f"/{filled(*KEYS)}?{form}max-keys={value}")
    assert (answer.status, answer.code) == (400, "InvalidArgument")


def test_an_empty_page_size_is_none(raw, filled):
    assert raw("GET", f"/{filled(*KEYS)}?max-keys=").status in (200, 400)


def test_no_keys_are_asked_for(listed, filled):
    answer = listed(Bucket=filled(*KEYS), MaxKeys=0)
    assert keys(answer) == [] and answer["IsTruncated"] is False and answer["MaxKeys"] == 0


def test_a_huge_page_is_cut_to_a_thousand(listed, filled):
    answer = listed(Bucket=filled(*KEYS), MaxKeys=2_000_000)
    assert keys(answer) == sorted(KEYS) and answer["MaxKeys"] == 1000


def test_more_than_a_thousand_keys(s3, bucket):
    import concurrent.futures
    names = [f"{n:04}" for n in range(1005)]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: s3.put_object(Bucket=bucket, Key=key), names))
    first = s3.list_objects_v2(Bucket=bucket)
    assert len(first["Contents"]) == first["KeyCount"] == 1000 and first["IsTruncated"]
    seen = [entry["Key"] for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, PaginationConfig={"PageSize": 300}) for entry in page["Contents"]]
    assert seen == names


class TestV1:
    def test_a_marker(self, s3, filled):
        name = filled(*KEYS)
        answer = s3.list_objects(Bucket=name, Marker="boo/bar")
        assert keys(answer) == ["boo/baz/xyzzy", "cquux/bla", "cquux/thud"] and answer["Marker"] == "boo/bar"
        assert keys(s3.list_objects(Bucket=name, Marker="b")) == sorted(KEYS)[1:]
        assert keys(s3.list_objects(Bucket=name, Marker="zzz")) == []
        assert keys(s3.list_objects(Bucket=name, Marker="")) == sorted(KEYS)

    def test_pages(self, s3, filled):
        name = filled(*KEYS)
        first = s3.list_objects(Bucket=name, MaxKeys=2)
        assert keys(first) == ["asdf", "boo/bar"] and first["IsTruncated"]
        assert "NextMarker" not in first  # told only with a delimiter
        second = s3.list_objects(Bucket=name, MaxKeys=2, Marker="boo/bar")
        assert keys(second) == ["boo/baz/xyzzy", "cquux/bla"]

    def test_pages_with_a_delimiter(self, s3, filled):
        name = filled(*KEYS)
        first = s3.list_objects(Bucket=name, Delimiter="/", MaxKeys=1)
        assert (keys(first), prefixes(first), first["NextMarker"]) == (["asdf"], [], "asdf")
        second = s3.list_objects(Bucket=name, Delimiter="/", MaxKeys=1, Marker="asdf")
        assert (keys(second), prefixes(second), second["NextMarker"]) == ([], ["boo/"], "boo/")
        third = s3.list_objects(Bucket=name, Delimiter="/", MaxKeys=1, Marker="boo/")
        assert (keys(third), prefixes(third), third["IsTruncated"]) == ([], ["cquux/"], False)
        assert "NextMarker" not in third

    def test_a_marker_inside_a_common_prefix(self, s3, filled):
        answer = s3.list_objects(Bucket=filled(*KEYS), Delimiter="/", Marker="boo/bar")
        assert prefixes(answer) == ["boo/", "cquux/"] or prefixes(answer) == ["cquux/"]

    def test_owners(self, s3, filled):
        entry = s3.list_objects(Bucket=filled(*KEYS))["Contents"][0]
        assert entry["Owner"]["ID"] == "ann" and entry["Size"] == 1 and entry["StorageClass"] == "STANDARD"
        assert entry["ETag"] == '"9dd4e461268c8034f5c8564e155c67a6"'


class TestV2:
    def test_start_after(self, s3, filled):
        name = filled(*KEYS)
        answer = s3.list_objects_v2(Bucket=name, StartAfter="boo/bar")
        assert keys(answer) == ["boo/baz/xyzzy", "cquux/bla", "cquux/thud"] and answer["StartAfter"] == "boo/bar"
        assert keys(s3.list_objects_v2(Bucket=name, StartAfter="zzz")) == []

    def test_pages(self, s3, filled):
        name, seen, token = filled(*KEYS), [], {}
        for count in (2, 2, 1):
            answer = s3.list_objects_v2(Bucket=name, MaxKeys=2, **token)
            assert answer["KeyCount"] == count
            if token:
                assert answer["ContinuationToken"] == token["ContinuationToken"]
            token = {"ContinuationToken": answer.get("NextContinuationToken")}
            seen += keys(answer)
        assert seen == sorted(KEYS) and token["ContinuationToken"] is None

    def test_a_token_goes_before_start_after(self, s3, filled):
        name = filled(*KEYS)
        first = s3.list_objects_v2(Bucket=name, MaxKeys=1, StartAfter="asdf")
        second = s3.list_objects_v2(Bucket=name, MaxKeys=1, StartAfter="asdf", ContinuationToken=first["NextContinuationToken"])
        assert keys(second) == ["boo/baz/xyzzy"]

    def test_common_prefixes_count(self, s3, filled):
        name = filled(*KEYS)
        first = s3.list_objects_v2(Bucket=name, Delimiter="/", MaxKeys=2)
        assert (keys(first), prefixes(first), first["KeyCount"]) == (["asdf"], ["boo/"], 2)
        second = s3.list_objects_v2(Bucket=name, Delimiter="/", MaxKeys=2, ContinuationToken=first["NextContinuationToken"])
        assert (keys(second), prefixes(second), second["IsTruncated"]) == ([], ["cquux/"], False)

    def test_owners_on_request(self, s3, filled):
        name = filled(*KEYS)
        assert "Owner" not in s3.list_objects_v2(Bucket=name)["Contents"][0]
        assert s3.list_objects_v2(Bucket=name, FetchOwner=True)["Contents"][0]["Owner"]["ID"] == "ann"

    @pytest.mark.parametrize("token", ["%21not-base64%21", "bm9uc2Vuc2U"])
    def test_bad_tokens(self, raw, filled, token):
        answer = raw("GET", f"/{filled(*KEYS)}?list-type=2&continuation-token={token}")
        assert (answer.status, answer.code) == (400, "InvalidArgument")

    def test_checksum_algorithms_are_told(self, s3, bucket):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", ChecksumAlgorithm="SHA256")
        entry = s3.list_objects_v2(Bucket=bucket)["Contents"][0]
        assert entry["ChecksumAlgorithm"] == ["SHA256"] and entry["ChecksumType"] == "FULL_OBJECT"


class TestEncoding:
    def test_url(self, raw, filled):
        name = filled("a b/c+d", "a b/%", "ü/\x01")
        for form in ("", "list-type=2&"):
            answer = raw("GET", f"/{name}?{form}encoding-type=url&prefix=a%20b%2F")
            text = answer.body.decode()
            assert "<EncodingType>url</EncodingType>" in text and "<Key>a+b/c%2Bd</Key>" in text and "<Key>a+b/%25</Key>" in text
            assert "<Prefix>a+b/</Prefix>" in text
            answer = raw("GET", f"/{name}?{form}encoding-type=url&delimiter=%2F")
            assert "<Prefix>%C3%BC/</Prefix>" in answer.body.decode()

    @pytest.mark.parametrize("form", ["", "list-type=2&", "versions&", "uploads&"])
    def test_an_unknown_encoding(self, raw, filled, form):
        answer = raw("GET", f"/{filled(*KEYS)}?{form}encoding-type=base64")
        assert (answer.status, answer.code) == (400, "InvalidArgument")

    def test_what_xml_cannot_say_is_a_reference(self, raw, filled):
        answer = raw("GET", f"/{filled('plain', 'tab' + chr(9), 'nl' + chr(10))}")
        assert answer.status == 200 and keys_of(answer) == ["nl\n", "plain", "tab\t"]


def keys_of(answer):
    import xml.etree.ElementTree as ElementTree
    return [element.text for element in ElementTree.fromstring(answer.body).iter() if element.tag.endswith("}Key")]


class TestAnonymous:
    @pytest.mark.parametrize("operation", ["list_objects", "list_objects_v2", "list_object_versions"])
    def test_a_private_bucket(self, nobody, bucket, operation):
        with refused(403, "AccessDenied"):
            getattr(nobody, operation)(Bucket=bucket)

    @pytest.mark.parametrize("operation", ["list_objects", "list_objects_v2"])
    def test_a_public_bucket(self, s3, nobody, bucket, operation):
        s3.put_bucket_acl(Bucket=bucket, ACL="public-read")
        s3.put_object(Bucket=bucket, Key="k")
        assert keys(getattr(nobody, operation)(Bucket=bucket)) == ["k"]
