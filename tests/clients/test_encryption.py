"""Encryption as clients ask for it: with their own keys (SSE-C), with the server's (SSE-S3, SSE-KMS), and by a bucket's default."""

import base64
import hashlib
import os

import pytest
from conftest import MIB, body, refused, status

KEY, OTHER = os.urandom(32), os.urandom(32)


def own(key=KEY):
    return {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": key}


def own_source(key=KEY):
    return {"CopySourceSSECustomerAlgorithm": "AES256", "CopySourceSSECustomerKey": key}


class TestOwnKeys:
    @pytest.mark.parametrize("size", [0, 1, 1000, 9 * MIB + 7])
    def test_the_key_opens_the_object(self, s3, bucket, size):
        data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
        put = s3.put_object(Bucket=bucket, Key="k", Body=data, **own())
        assert put["SSECustomerAlgorithm"] == "AES256" and put["SSECustomerKeyMD5"] == base64.b64encode(hashlib.md5(KEY).digest()).decode()
        got = s3.get_object(Bucket=bucket, Key="k", **own())
        assert body(got) == data and got["SSECustomerAlgorithm"] == "AES256"
        assert s3.head_object(Bucket=bucket, Key="k", **own())["ContentLength"] == size

    def test_a_range(self, s3, bucket):
        data = bytes(range(256)) * (5 * MIB // 256)
        s3.put_object(Bucket=bucket, Key="k", Body=data, **own())
        for first, last in ((0, 0), (65_535, 65_537), (4 * MIB - 3, 4 * MIB + 3), (5 * MIB - 2, 5 * MIB - 1)):
            assert body(s3.get_object(Bucket=bucket, Key="k", Range=f"bytes={first}-{last}", **own())) == data[first : last + 1]

    def test_no_key_or_another(self, s3, bucket):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", **own())
        for operation in (s3.get_object, s3.head_object):
            with pytest.raises(s3.exceptions.ClientError) as caught:
                operation(Bucket=bucket, Key="k")
            assert status(caught.value.response) == 400
            with pytest.raises(s3.exceptions.ClientError) as caught:
                operation(Bucket=bucket, Key="k", **own(OTHER))
            assert status(caught.value.response) in (400, 403)

    def test_a_key_for_what_has_none(self, s3, bucket):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x")
        with pytest.raises(s3.exceptions.ClientError) as caught:
            s3.get_object(Bucket=bucket, Key="k", **own())
        assert status(caught.value.response) == 400

    @pytest.mark.parametrize("drop, change", [("key", None), ("key-MD5", None), ("algorithm", None), (None, {"key-MD5": "AAAAAAAAAAAAAAAAAAAAAA=="}), (None, {"algorithm": "AES128"}), (None, {"key": "c2hvcnQ="})])
    def test_malformed_headers(self, raw, s3, bucket, drop, change):
        prefix = "x-amz-server-side-encryption-customer-"
        given = {"algorithm": "AES256", "key": base64.b64encode(KEY).decode(), "key-MD5": base64.b64encode(hashlib.md5(KEY).digest()).decode(), **(change or {})}
        answer = raw("PUT", f"/{bucket}/k", {prefix + name: value for name, value in given.items() if name != drop}, b"x")
        assert answer.status == 400 and answer.code in ("InvalidArgument", "InvalidRequest", "InvalidEncryptionAlgorithmError"), answer.body
        with refused(404):
            s3.head_object(Bucket=bucket, Key="k")

    def test_in_parts(self, s3, bucket):
        upload = s3.create_multipart_upload(Bucket=bucket, Key="k", **own())["UploadId"]
        named, parts = dict(Bucket=bucket, Key="k", UploadId=upload), []
        with pytest.raises(s3.exceptions.ClientError):
            s3.upload_part(**named, PartNumber=1, Body=b"x")
        for number, data in ((1, b"a" * 5 * MIB), (2, b"tail")):
            parts.append({"PartNumber": number, "ETag": s3.upload_part(**named, PartNumber=number, Body=data, **own())["ETag"]})
        s3.complete_multipart_upload(**named, MultipartUpload={"Parts": parts}, **own())
        assert body(s3.get_object(Bucket=bucket, Key="k", Range=f"bytes={5 * MIB - 2}-{5 * MIB + 1}", **own())) == b"aata"

    def test_copies(self, s3, bucket):
        s3.put_object(Bucket=bucket, Key="k", Body=b"bytes", **own())
        with pytest.raises(s3.exceptions.ClientError):
            s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/k")
        s3.copy_object(Bucket=bucket, Key="plain", CopySource=f"{bucket}/k", **own_source())
        assert body(s3.get_object(Bucket=bucket, Key="plain")) == b"bytes"
        s3.copy_object(Bucket=bucket, Key="other", CopySource=f"{bucket}/k", **own_source(), **own(OTHER))
        assert body(s3.get_object(Bucket=bucket, Key="other", **own(OTHER))) == b"bytes"

    def test_through_another_datacenter(self, cluster, clients, s3, bucket):
        s3.put_object(Bucket=bucket, Key="k", Body=b"bytes", **own())
        cluster.settle()
        assert body(clients("ann", "dc-b").get_object(Bucket=bucket, Key="k", **own())) == b"bytes"


class TestServerKeys:
    @pytest.mark.parametrize("asked", [{"ServerSideEncryption": "AES256"}, {"ServerSideEncryption": "aws:kms"}, {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "some-key"}])
    def test_asked_for_and_told(self, cluster, clients, s3, bucket, asked):
        put = s3.put_object(Bucket=bucket, Key="k", Body=b"bytes", **asked)
        assert put["ServerSideEncryption"] == asked["ServerSideEncryption"]
        cluster.settle()
        for client in (s3, clients("ann", "dc-b")):
            got = client.get_object(Bucket=bucket, Key="k")
            assert body(got) == b"bytes" and got["ServerSideEncryption"] == asked["ServerSideEncryption"]
        assert ("SSEKMSKeyId" in got) == (asked["ServerSideEncryption"] == "aws:kms")

    def test_an_unknown_kind(self, raw, bucket):
        answer = raw("PUT", f"/{bucket}/k", {"x-amz-server-side-encryption": "rot13"}, b"x")
        assert answer.status == 400 and answer.code in ("InvalidArgument", "InvalidEncryptionAlgorithmError"), answer.body

    def test_a_key_id_without_kms(self, raw, bucket):
        answer = raw("PUT", f"/{bucket}/k", {"x-amz-server-side-encryption": "AES256", "x-amz-server-side-encryption-aws-kms-key-id": "a"}, b"x")
        assert answer.status == 400

    def test_own_and_server_keys_exclude_each_other(self, s3, bucket):
        with pytest.raises(s3.exceptions.ClientError) as caught:
            s3.put_object(Bucket=bucket, Key="k", Body=b"x", ServerSideEncryption="AES256", **own())
        assert status(caught.value.response) == 400

    def test_a_default_of_the_bucket(self, s3, bucket):
        rule = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}
        s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration=rule)
        told = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"][0]
        assert told["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
        assert s3.put_object(Bucket=bucket, Key="k", Body=b"bytes")["ServerSideEncryption"] == "AES256"
        got = s3.get_object(Bucket=bucket, Key="k")
        assert body(got) == b"bytes" and got["ServerSideEncryption"] == "AES256"
        assert status(s3.delete_bucket_encryption(Bucket=bucket)) == 204
