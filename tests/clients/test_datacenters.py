"""Each feature written through one datacenter and read through another."""

import contextlib
import datetime
import http.client
import json
import urllib.parse

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import pytest
from conftest import MIB, body, fresh_name, refused, status


@pytest.fixture(scope="module")
def far(clients):
    return clients("ann", "dc-b")


@pytest.fixture(scope="module")
def farther(clients):
    return clients("ann", "dc-c")


def test_bytes_headers_and_tags(cluster, s3, far, farther, bucket):
    data = bytes(range(256)) * (5 * MIB // 256)
    s3.put_object(Bucket=bucket, Key="a b/ü", Body=data, Metadata={"a": "1"}, ContentType="text/x", Tagging="t=1", StorageClass="STANDARD_IA", ChecksumAlgorithm="SHA256")
    cluster.settle()
    for client in (far, farther):
        got = client.get_object(Bucket=bucket, Key="a b/ü", ChecksumMode="ENABLED")
        assert body(got) == data and (got["Metadata"], got["ContentType"], got["TagCount"], got["StorageClass"]) == ({"a": "1"}, "text/x", 1, "STANDARD_IA")
        assert "ChecksumSHA256" in got and client.get_object_tagging(Bucket=bucket, Key="a b/ü")["TagSet"] == [{"Key": "t", "Value": "1"}]
        assert [entry["Key"] for entry in client.list_objects_v2(Bucket=bucket)["Contents"]] == ["a b/ü"]


def test_overwrites_and_deletes(cluster, s3, far, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"one")
    cluster.settle()
    far.put_object(Bucket=bucket, Key="k", Body=b"two")
    cluster.settle()
    assert body(s3.get_object(Bucket=bucket, Key="k")) == b"two"
    s3.delete_object(Bucket=bucket, Key="k")
    cluster.settle()
    with refused(404, "NoSuchKey"):
        far.get_object(Bucket=bucket, Key="k")


def test_versions(cluster, s3, far, versioned):
    first = s3.put_object(Bucket=versioned, Key="k", Body=b"1")["VersionId"]
    cluster.settle()
    second = far.put_object(Bucket=versioned, Key="k", Body=b"2")["VersionId"]
    marker = far.delete_object(Bucket=versioned, Key="k")["VersionId"]
    cluster.settle()
    for client in (s3, far):
        answer = client.list_object_versions(Bucket=versioned)
        assert [(entry["VersionId"], entry["IsLatest"]) for entry in answer["Versions"]] == [(second, False), (first, False)]
        assert [(entry["VersionId"], entry["IsLatest"]) for entry in answer["DeleteMarkers"]] == [(marker, True)]
        assert body(client.get_object(Bucket=versioned, Key="k", VersionId=first)) == b"1"
    s3.delete_object(Bucket=versioned, Key="k", VersionId=marker)
    cluster.settle()
    assert body(far.get_object(Bucket=versioned, Key="k")) == b"2"


def test_tags_of_a_version(cluster, s3, far, versioned):
    version = s3.put_object(Bucket=versioned, Key="k", Body=b"1")["VersionId"]
    cluster.settle()
    far.put_object_tagging(Bucket=versioned, Key="k", VersionId=version, Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    cluster.settle()
    assert s3.get_object_tagging(Bucket=versioned, Key="k", VersionId=version)["TagSet"] == [{"Key": "a", "Value": "b"}]


def test_locks(cluster, s3, far, locked):
    until = (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)).replace(microsecond=0)
    version = s3.put_object(Bucket=locked, Key="k", Body=b"x", ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=until)["VersionId"]
    held = s3.put_object(Bucket=locked, Key="held", Body=b"x", ObjectLockLegalHoldStatus="ON")["VersionId"]
    cluster.settle()
    assert far.get_object_retention(Bucket=locked, Key="k")["Retention"] == {"Mode": "COMPLIANCE", "RetainUntilDate": until}
    for key, named in (("k", version), ("held", held)):
        with refused(403, "AccessDenied"):
            far.delete_object(Bucket=locked, Key=key, VersionId=named, BypassGovernanceRetention=True)
    far.put_object_legal_hold(Bucket=locked, Key="held", LegalHold={"Status": "OFF"})
    cluster.settle()
    assert status(s3.delete_object(Bucket=locked, Key="held", VersionId=held)) == 204


def test_a_default_retention(cluster, s3, far, locked):
    rule = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}}
    s3.put_object_lock_configuration(Bucket=locked, ObjectLockConfiguration=rule)
    cluster.settle()
    far.put_object(Bucket=locked, Key="k", Body=b"x")
    assert far.head_object(Bucket=locked, Key="k")["ObjectLockMode"] == "GOVERNANCE"


def test_policies_lists_and_blocks(cluster, clients, s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    s3.put_object(Bucket=bucket, Key="listed", Body=b"x", ACL="public-read")
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "bob"}, "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket}/*"}]}
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(document))
    cluster.settle()
    bob, nobody = clients("bob", "dc-b"), clients(None, "dc-c")
    assert body(bob.get_object(Bucket=bucket, Key="k")) == b"x"
    with refused(403, "AccessDenied"):
        bob.put_object(Bucket=bucket, Key="k")
    assert body(nobody.get_object(Bucket=bucket, Key="listed")) == b"x"
    block = {"BlockPublicAcls": False, "IgnorePublicAcls": True, "BlockPublicPolicy": False, "RestrictPublicBuckets": False}
    clients("ann", "dc-b").put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=block)
    cluster.settle()
    with refused(403, "AccessDenied"):
        nobody.get_object(Bucket=bucket, Key="listed")


def test_configurations(cluster, s3, far, bucket):
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": [{"AllowedMethods": ["GET"], "AllowedOrigins": ["*"]}]})
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls={"Rules": [{"ObjectOwnership": "BucketOwnerPreferred"}]})
    rule = {"ID": "one", "Status": "Enabled", "Filter": {"Prefix": "x"}, "Expiration": {"Days": 100}}
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [rule]})
    cluster.settle()
    assert far.get_bucket_tagging(Bucket=bucket)["TagSet"] == [{"Key": "a", "Value": "b"}]
    assert far.get_bucket_cors(Bucket=bucket)["CORSRules"][0]["AllowedMethods"] == ["GET"]
    assert far.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    assert far.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"]["Rules"] == [{"ObjectOwnership": "BucketOwnerPreferred"}]
    assert far.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"] == [rule]


def test_an_upload_in_parts(cluster, s3, far, bucket):
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    parts = []
    for number, data in ((1, b"a" * 5 * MIB), (2, b"tail")):
        etag = s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=number, Body=data)["ETag"]
        parts.append({"PartNumber": number, "ETag": etag})
    etag = s3.complete_multipart_upload(Bucket=bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": parts})["ETag"]
    cluster.settle()
    got = far.get_object(Bucket=bucket, Key="k")
    assert got["ETag"] == etag and body(got) == b"a" * 5 * MIB + b"tail"
    assert body(far.get_object(Bucket=bucket, Key="k", PartNumber=2)) == b"tail"


def test_a_copy_of_what_came_from_afar(cluster, s3, far, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"bytes", Metadata={"a": "1"})
    cluster.settle()
    far.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/k")
    cluster.settle()
    got = s3.get_object(Bucket=bucket, Key="copy")
    assert (body(got), got["Metadata"]) == (b"bytes", {"a": "1"})


def test_a_bucket_is_made_here_and_deleted_there(cluster, s3, far):
    name = fresh_name()
    s3.create_bucket(Bucket=name)
    cluster.settle()
    with refused(409, "BucketAlreadyOwnedByYou"):
        far.create_bucket(Bucket=name)
    assert status(far.delete_bucket(Bucket=name)) == 204
    cluster.settle()
    with refused(404):
        s3.head_bucket(Bucket=name)


def test_an_upload_lives_where_it_was_begun(cluster, s3, far, bucket):
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    named = {"Bucket": bucket, "Key": "k", "UploadId": upload}
    first = s3.upload_part(**named, PartNumber=1, Body=b"a" * 5 * MIB)["ETag"]
    cluster.settle()
    assert [entry["UploadId"] for entry in s3.list_multipart_uploads(Bucket=bucket)["Uploads"]] == [upload]
    assert "Uploads" not in far.list_multipart_uploads(Bucket=bucket)
    # Asked elsewhere, the datacenter of the upload answers.
    second = far.upload_part(**named, PartNumber=2, Body=b"b")["ETag"]
    assert [entry["PartNumber"] for entry in far.list_parts(**named)["Parts"]] == [1, 2]
    parts = {"Parts": [{"PartNumber": 1, "ETag": first}, {"PartNumber": 2, "ETag": second}]}
    far.complete_multipart_upload(**named, MultipartUpload=parts)
    assert body(s3.get_object(Bucket=bucket, Key="k")) == b"a" * 5 * MIB + b"b"
    other = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    far.abort_multipart_upload(Bucket=bucket, Key="k", UploadId=other)
    with refused(404, "NoSuchUpload"):
        s3.list_parts(Bucket=bucket, Key="k", UploadId=other)


def test_a_condition_holds_against_what_has_arrived(cluster, s3, far, bucket):
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"one")["ETag"]
    cluster.settle()
    with refused(412, "PreconditionFailed"):
        far.put_object(Bucket=bucket, Key="k", Body=b"two", IfNoneMatch="*")
    with refused(412, "PreconditionFailed"):
        far.put_object(Bucket=bucket, Key="k", Body=b"two", IfMatch='"0"')
    far.put_object(Bucket=bucket, Key="k", Body=b"two", IfMatch=etag)
    cluster.settle()
    assert body(s3.get_object(Bucket=bucket, Key="k")) == b"two"
    with refused(412, "PreconditionFailed"):
        s3.put_object(Bucket=bucket, Key="k", Body=b"three", IfMatch=etag)
    with refused(412, "PreconditionFailed"):
        s3.delete_object(Bucket=bucket, Key="k", IfMatch=etag)
    assert body(far.get_object(Bucket=bucket, Key="k")) == b"two"
    s3.delete_object(Bucket=bucket, Key="k", IfMatch=s3.head_object(Bucket=bucket, Key="k")["ETag"])
    cluster.settle()
    with refused(404, "NoSuchKey"):
        far.get_object(Bucket=bucket, Key="k")


def test_files(cluster, s3, far, bucket):
    admin = botocore.credentials.Credentials(*cluster.admin)

    def ask(datacenter, method, path, data=b"", wanted=200):
        endpoint = urllib.parse.urlsplit(cluster.datacenters[datacenter]["rest"])
        url = f"{endpoint.scheme}://{endpoint.netloc}/buckets/{bucket}/{path}"
        request = botocore.awsrequest.AWSRequest(method, url, data=data)
        botocore.auth.S3SigV4Auth(admin, "meridian", datacenter).add_auth(request)
        connection = http.client.HTTPConnection(endpoint.netloc, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, url.removeprefix(f"{endpoint.scheme}://{endpoint.netloc}"), data, dict(request.headers))
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status == wanted, (method, path, answer.status, text)
            return text

    ask("dc-a", "PUT", "d/one", b"first", wanted=201)
    cluster.settle()
    assert ask("dc-b", "GET", "d/one") == b"first" == body(far.get_object(Bucket=bucket, Key="d/one"))
    ask("dc-b", "PUT", "d/one?op=append", b" second", wanted=201)
    ask("dc-b", "PUT", "d/two", b"2", wanted=201)
    cluster.settle()
    assert ask("dc-c", "GET", "d/one") == b"first second"
    names = [entry["FullPath"] for entry in json.loads(ask("dc-c", "GET", "d/"))["Entries"]]
    assert names == [f"/buckets/{bucket}/d/one", f"/buckets/{bucket}/d/two"]
    ask("dc-c", "PUT", "e/?mv.from=" + urllib.parse.quote(f"/buckets/{bucket}/d/", safe=""), wanted=201)
    cluster.settle()
    ask("dc-a", "GET", "d/", wanted=404)
    assert ask("dc-a", "GET", "e/two") == b"2" == body(s3.get_object(Bucket=bucket, Key="e/two"))
    ask("dc-a", "DELETE", "e/?recursive=true", wanted=204)
    cluster.settle()
    ask("dc-b", "GET", "e/one", wanted=404)
