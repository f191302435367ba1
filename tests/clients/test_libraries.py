"""Libraries other than boto3, as they come: minio, obstore (the Rust crate object_store), pyseaweed for blobs."""

import io
import urllib.parse

import pytest
import requests
from conftest import KEYS, MIB, fresh_name

PART = 5 * MIB


def address(cluster, port, datacenter="dc-a"):
    return urllib.parse.urlsplit(cluster.datacenters[datacenter][port]).netloc


@pytest.fixture(scope="module")
def minio(cluster):
    minio = pytest.importorskip("minio")
    return minio.Minio(address(cluster, "s3"), access_key=KEYS["ann"][0], secret_key=KEYS["ann"][1], secure=False, region="dc-a")


@pytest.fixture(scope="module")
def store(cluster):
    obstore = pytest.importorskip("obstore.store")
    name = fresh_name()
    import boto3
    from botocore.config import Config
    endpoint = cluster.datacenters["dc-a"]["s3"]
    boto3.client("s3", endpoint_url=endpoint, region_name="dc-a", aws_access_key_id=KEYS["ann"][0], aws_secret_access_key=KEYS["ann"][1],
                 config=Config(s3={"addressing_style": "path"})).create_bucket(Bucket=name)
    return obstore.S3Store(name, endpoint=endpoint, region="dc-a", access_key_id=KEYS["ann"][0], secret_access_key=KEYS["ann"][1],
                           virtual_hosted_style_request=False, client_options={"allow_http": True})


@pytest.fixture(scope="module")
def weed(cluster):
    pyseaweed = pytest.importorskip("pyseaweed")
    host, port = address(cluster, "rest").split(":")
    return pyseaweed.SeaweedFS(host, int(port))


class TestMinio:
    @pytest.fixture
    def bucket(self, minio):
        name = fresh_name()
        minio.make_bucket(name)
        return name

    def test_objects(self, minio, bucket):
        assert minio.bucket_exists(bucket) and not minio.bucket_exists(fresh_name())
        done = minio.put_object(bucket, "a/ü b+c", io.BytesIO(b"bytes"), 5, content_type="text/x", metadata={"colour": "blue"})
        stat = minio.stat_object(bucket, "a/ü b+c")
        assert (stat.size, stat.etag, stat.content_type, stat.metadata["x-amz-meta-colour"]) == (5, done.etag, "text/x", "blue")
        assert minio.get_object(bucket, "a/ü b+c").read() == b"bytes"
        assert minio.get_object(bucket, "a/ü b+c", offset=1, length=2).read() == b"yt"
        assert [found.object_name for found in minio.list_objects(bucket, prefix="a/", recursive=True)] == ["a/ü b+c"]
        assert [found.object_name for found in minio.list_objects(bucket)] == ["a/"]
        from minio.deleteobjects import DeleteObject
        assert list(minio.remove_objects(bucket, [DeleteObject("a/ü b+c"), DeleteObject("none")])) == []
        assert list(minio.list_objects(bucket, recursive=True)) == []
        minio.remove_bucket(bucket)

    def test_parts_of_a_stream_without_a_length(self, minio, bucket):
        data = b"0123456789" * (PART // 5)
        minio.put_object(bucket, "large", io.BytesIO(data), -1, part_size=PART)
        assert minio.get_object(bucket, "large").read() == data

    def test_copies(self, minio, bucket):
        from minio.commonconfig import ComposeSource, CopySource
        minio.put_object(bucket, "one", io.BytesIO(b"1" * PART), PART)
        minio.put_object(bucket, "two", io.BytesIO(b"2"), 1)
        minio.copy_object(bucket, "copy", CopySource(bucket, "two"))
        minio.compose_object(bucket, "both", [ComposeSource(bucket, "one"), ComposeSource(bucket, "two")])
        assert minio.stat_object(bucket, "both").size == PART + 1 and minio.get_object(bucket, "copy").read() == b"2"

    def test_settings(self, minio, bucket):
        from minio.commonconfig import ENABLED, Filter, Tags
        from minio.lifecycleconfig import Expiration, LifecycleConfig, Rule
        from minio.sseconfig import Rule as SseRule, SSEConfig
        from minio.versioningconfig import VersioningConfig
        minio.set_bucket_versioning(bucket, VersioningConfig(ENABLED))
        assert minio.get_bucket_versioning(bucket).status == ENABLED
        tags = Tags.new_bucket_tags()
        tags["project"] = "x"
        minio.set_bucket_tags(bucket, tags)
        assert minio.get_bucket_tags(bucket) == {"project": "x"}
        minio.set_bucket_lifecycle(bucket, LifecycleConfig([Rule(ENABLED, rule_filter=Filter(prefix="logs/"), rule_id="r", expiration=Expiration(days=3))]))
        assert minio.get_bucket_lifecycle(bucket).rules[0].expiration.days == 3
        minio.set_bucket_encryption(bucket, SSEConfig(SseRule.new_sse_s3_rule()))
        assert minio.get_bucket_encryption(bucket).rule.sse_algorithm == "AES256"
        first = minio.put_object(bucket, "k", io.BytesIO(b"1"), 1)
        second = minio.put_object(bucket, "k", io.BytesIO(b"2"), 1)
        assert minio.get_object(bucket, "k", version_id=first.version_id).read() == b"1" and second.version_id != first.version_id
        minio.remove_object(bucket, "k")
        listed = list(minio.list_objects(bucket, include_version=True))
        assert len(listed) == 3 and sum(found.is_delete_marker for found in listed) == 1

    def test_presigned_and_forms(self, minio, bucket):
        from datetime import datetime, timedelta, timezone
        from minio.datatypes import PostPolicy
        assert requests.put(minio.presigned_put_object(bucket, "k"), data=b"x", timeout=30).status_code == 200
        assert requests.get(minio.presigned_get_object(bucket, "k"), timeout=30).content == b"x"
        policy = PostPolicy(bucket, datetime.now(timezone.utc) + timedelta(minutes=5))
        policy.add_starts_with_condition("key", "up/")
        policy.add_content_length_range_condition(1, 100)
        fields = minio.presigned_post_policy(policy)
        url = f"http://{address_of(minio)}/{bucket}"
        answer = requests.post(url, data={**fields, "key": "up/a"}, files={"file": b"x"}, timeout=30)
        assert answer.status_code == 204, answer.text

    def test_customer_keys(self, minio, bucket):
        from minio.sse import SseS3
        minio.put_object(bucket, "k", io.BytesIO(b"x"), 1, sse=SseS3())
        assert minio.get_object(bucket, "k").read() == b"x"


def address_of(minio):
    return urllib.parse.urlsplit(minio.presigned_get_object("b" * 3, "k")).netloc


class TestObjectStore:
    def test_objects(self, store):
        import obstore
        done = obstore.put(store, "a/ü b+c", b"bytes", attributes={"Content-Type": "text/x", "colour": "blue"})
        head = obstore.head(store, "a/ü b+c")
        assert (head["size"], head["e_tag"], head["path"]) == (5, done["e_tag"], "a/ü b+c")
        got = obstore.get(store, "a/ü b+c")
        assert got.attributes["Content-Type"] == "text/x" and bytes(got.bytes()) == b"bytes"
        assert bytes(obstore.get_range(store, "a/ü b+c", start=1, length=2)) == b"yt"
        assert [bytes(part) for part in obstore.get_ranges(store, "a/ü b+c", starts=[0, 4], lengths=[1, 1])] == [b"b", b"s"]
        assert [found["path"] for page in obstore.list(store, prefix="a") for found in page] == ["a/ü b+c"]
        assert obstore.list_with_delimiter(store)["common_prefixes"] == ["a"]
        obstore.copy(store, "a/ü b+c", "copy")
        obstore.rename(store, "copy", "renamed")
        assert bytes(obstore.get(store, "renamed").bytes()) == b"bytes"
        obstore.delete(store, ["a/ü b+c", "renamed"])
        with pytest.raises(FileNotFoundError):
            obstore.head(store, "renamed")

    def test_conditions(self, store):
        import obstore
        from obstore.exceptions import AlreadyExistsError, NotModifiedError, PreconditionError
        first = obstore.put(store, "once", b"1", mode="create")
        with pytest.raises(AlreadyExistsError):
            obstore.put(store, "once", b"2", mode="create")
        second = obstore.put(store, "once", b"3", mode={"e_tag": first["e_tag"]})
        with pytest.raises(PreconditionError):
            obstore.put(store, "once", b"4", mode={"e_tag": first["e_tag"]})
        with pytest.raises(PreconditionError):
            obstore.get(store, "once", options={"if_match": first["e_tag"]})
        with pytest.raises(NotModifiedError):
            obstore.get(store, "once", options={"if_none_match": second["e_tag"]})

    def test_parts(self, store):
        import obstore
        data = b"0123456789" * (PART // 4)
        obstore.put(store, "large", io.BytesIO(data), chunk_size=PART, max_concurrency=3)
        assert bytes(obstore.get(store, "large").bytes()) == data

    def test_signed_addresses(self, store):
        from datetime import timedelta
        import obstore
        obstore.put(store, "signed", b"x")
        assert requests.get(obstore.sign(store, "GET", "signed", timedelta(minutes=5)), timeout=30).content == b"x"


class TestSeaweed:
    """The client of a blob store of that kind: assign, write, look up, read, delete, by the REST port."""

    def test_a_blob_from_its_writing_to_its_end(self, weed, tmp_path):
        path = tmp_path / "picture.bin"
        path.write_bytes(bytes(range(256)) * 1000)
        fid = weed.upload_file(str(path))
        assert fid and weed.get_file(fid) == path.read_bytes()
        assert weed.get_file_size(fid) == 256_000 and weed.file_exists(fid)
        assert requests.get(weed.get_file_url(fid), timeout=30).content == path.read_bytes()
        assert weed.delete_file(fid)
        assert not weed.file_exists(fid) and weed.get_file(fid) is None

    def test_streams_and_parameters(self, weed):
        fid = weed.upload_file(stream=io.BytesIO(b"a stream"), name="s.txt", count=1)
        assert weed.get_file(fid) == b"a stream"
        assert weed.get_file(fid[:-8] + "00000000") is None
        assert weed.version.startswith("meridian")

    def test_sessions(self, cluster):
        pyseaweed = pytest.importorskip("pyseaweed")
        host, port = address(cluster, "rest").split(":")
        weed = pyseaweed.SeaweedFS(host, int(port), use_session=True, use_public_url=False)
        fids = [weed.upload_file(stream=io.BytesIO(b"%d" % number), name="n") for number in range(10)]
        assert [weed.get_file(fid) for fid in fids] == [b"%d" % number for number in range(10)]
