"""Digests of what is sent: every algorithm, in headers and trailers, and what happens when one is wrong."""

import base64
import hashlib
import zlib

import pytest
from conftest import body, headers, refused, status

ALGORITHMS = ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"]
# Of b"123456789": the check values of the CRC catalogue, and the digests.
CHECKS = {"CRC32": b"\xcb\xf4\x39\x26", "CRC32C": b"\xe3\x06\x92\x83", "CRC64NVME": b"\xae\x8b\x14\x86\x0a\x79\x98\x88",
          "SHA1": hashlib.sha1(b"123456789").digest(), "SHA256": hashlib.sha256(b"123456789").digest()}


def base64_of(algorithm):
    return base64.b64encode(CHECKS[algorithm]).decode()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_trailer(s3, bucket, algorithm):
    import io
    answer = s3.put_object(Bucket=bucket, Key="k", Body=io.BytesIO(b"123456789"), ChecksumAlgorithm=algorithm)
    assert answer[f"Checksum{algorithm}"] == base64_of(algorithm) and answer["ChecksumType"] == "FULL_OBJECT"
    got = s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert (body(got), got[f"Checksum{algorithm}"], got["ChecksumType"]) == (b"123456789", base64_of(algorithm), "FULL_OBJECT")
    head = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert head[f"Checksum{algorithm}"] == base64_of(algorithm)
    attributes = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=["Checksum"])["Checksum"]
    assert attributes[f"Checksum{algorithm}"] == base64_of(algorithm)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_header(s3, bucket, algorithm):
    answer = s3.put_object(Bucket=bucket, Key="k", Body=b"123456789", **{f"Checksum{algorithm}": base64_of(algorithm)})
    assert answer[f"Checksum{algorithm}"] == base64_of(algorithm)
    assert f"x-amz-checksum-{algorithm.lower()}" not in headers(s3.head_object(Bucket=bucket, Key="k"))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_wrong_header(s3, bucket, algorithm):
    wrong = base64.b64encode(bytes(len(CHECKS[algorithm]))).decode()
    with refused(400, "BadDigest"):
        s3.put_object(Bucket=bucket, Key="k", Body=b"123456789", **{f"Checksum{algorithm}": wrong})
    with refused(404):
        s3.head_object(Bucket=bucket, Key="k")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("value", ["bad", "!!!!", "AAAA"])
def test_a_header_that_is_no_checksum(raw, bucket, algorithm, value):
    answer = raw("PUT", f"/{bucket}/k", {f"x-amz-checksum-{algorithm.lower()}": value}, b"123456789")
    assert (answer.status, answer.code) == (400, "InvalidRequest")


def trailer(data, name, value):
    return f"{len(data):x}\r\n".encode() + data + b"\r\n0\r\n" + f"{name}:{value}\r\n\r\n".encode()


def streamed(raw, bucket, document, length=9, trailers="x-amz-checksum-crc32", **more):
    named = {"x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "x-amz-decoded-content-length": str(length),
             "x-amz-trailer": trailers, "Content-Encoding": "aws-chunked"}
    return raw("PUT", f"/{bucket}/k", named, document, **more)


def test_a_trailer_by_hand(raw, s3, bucket):
    assert streamed(raw, bucket, trailer(b"123456789", "x-amz-checksum-crc32", base64_of("CRC32"))).status == 200
    assert body(s3.get_object(Bucket=bucket, Key="k")) == b"123456789"
    assert not s3.head_object(Bucket=bucket, Key="k").get("ContentEncoding")


def test_a_wrong_trailer(raw, s3, bucket):
    answer = streamed(raw, bucket, trailer(b"123456789", "x-amz-checksum-crc32", "AAAAAA=="))
    assert (answer.status, answer.code) == (400, "BadDigest")
    with refused(404):
        s3.head_object(Bucket=bucket, Key="k")


@pytest.mark.parametrize("document, length", [
    (trailer(b"123456789", "x-amz-checksum-crc32", "nonsense"), 9),
    (trailer(b"12345", "x-amz-checksum-crc32", "AAAAAA=="), 9),
    (b"nonsense", 9),
    (b"9\r\n12345", 9),
    (trailer(b"123456789", "x-amz-checksum-sha1", base64_of("SHA1")), 9),
])
def test_a_bad_stream(raw, s3, bucket, document, length):
    assert streamed(raw, bucket, document, length).status == 400
    with refused(404):
        s3.head_object(Bucket=bucket, Key="k")


def test_a_stream_without_its_length(raw, bucket):
    document = trailer(b"123456789", "x-amz-checksum-crc32", base64_of("CRC32"))
    named = {"x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "x-amz-trailer": "x-amz-checksum-crc32"}
    answer = raw("PUT", f"/{bucket}/k", named, document)
    assert (answer.status, answer.code) == (411, "MissingContentLength")


def test_two_checksums(raw, bucket):
    named = {f"x-amz-checksum-{name.lower()}": base64_of(name) for name in ("CRC32", "SHA1")}
    answer = raw("PUT", f"/{bucket}/k", named, b"123456789")
    assert (answer.status, answer.code) == (400, "InvalidRequest")


def test_a_client_without_checksums(clients, bucket):
    plain = clients(request_checksum_calculation="when_required", response_checksum_validation="when_required")
    put = plain.put_object(Bucket=bucket, Key="k", Body=b"123456789")
    assert body(plain.get_object(Bucket=bucket, Key="k")) == b"123456789"
    head = plain.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    for answer in (put, head):
        assert (answer["ChecksumCRC64NVME"], answer["ChecksumType"]) == (base64_of("CRC64NVME"), "FULL_OBJECT")
    assert plain.list_objects_v2(Bucket=bucket)["Contents"][0]["ChecksumAlgorithm"] == ["CRC64NVME"]
    copied = plain.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "k"})["CopyObjectResult"]
    assert copied["ChecksumCRC64NVME"] == base64_of("CRC64NVME")


def test_parts_without_checksums(clients, bucket):
    plain = clients(request_checksum_calculation="when_required", response_checksum_validation="when_required")
    named = {"Bucket": bucket, "Key": "k"}
    named["UploadId"] = plain.create_multipart_upload(**named)["UploadId"]
    data, parts = [b"a" * (5 << 20), b"123456789"], []
    for number, part in enumerate(data, 1):
        sent = plain.upload_part(**named, PartNumber=number, Body=part)
        parts.append({"PartNumber": number, "ETag": sent["ETag"]})
    assert sent["ChecksumCRC64NVME"] == base64_of("CRC64NVME")
    done = plain.complete_multipart_upload(**named, MultipartUpload={"Parts": parts})
    whole = plain.put_object(Bucket=bucket, Key="whole", Body=b"".join(data))
    assert (done["ChecksumCRC64NVME"], done["ChecksumType"]) == (whole["ChecksumCRC64NVME"], "FULL_OBJECT")


@pytest.mark.parametrize("said, more", [("CRC32", {}), ("CRC32", {"x-amz-checksum-sha1": "SHA1"}), ("MD4", {"x-amz-checksum-sha1": "SHA1"}), ("MD4", {})])
def test_an_announced_checksum_that_does_not_come(raw, bucket, said, more):
    more = {name: base64_of(algorithm) for name, algorithm in more.items()}
    answer = raw("PUT", f"/{bucket}/k", {"x-amz-sdk-checksum-algorithm": said, **more}, b"123456789")
    assert (answer.status, answer.code) == (400, "InvalidRequest")


def test_a_list_of_deletes_needs_a_digest(raw, s3, bucket):
    s3.put_object(Bucket=bucket, Key="k")
    document = b"<Delete><Object><Key>k</Key></Object></Delete>"
    answer = raw("POST", f"/{bucket}?delete", body=document)
    assert (answer.status, answer.code) == (400, "InvalidRequest")
    digest = base64.b64encode(hashlib.md5(document).digest()).decode()
    assert raw("POST", f"/{bucket}?delete", {"Content-MD5": digest}, document).status == 200
    with refused(404):
        s3.head_object(Bucket=bucket, Key="k")


class TestContentMd5:
    def test_the_right_one(self, s3, bucket):
        digest = base64.b64encode(hashlib.md5(b"bar").digest()).decode()
        assert status(s3.put_object(Bucket=bucket, Key="k", Body=b"bar", ContentMD5=digest)) == 200

    def test_a_wrong_one(self, s3, bucket):
        with refused(400, "BadDigest"):
            s3.put_object(Bucket=bucket, Key="k", Body=b"bar", ContentMD5="rL0Y20xC+Fzt72VPzMSk2A==")

    @pytest.mark.parametrize("value", ["", "YWJyYWNhZGFicmE=", "not base64", "\x07"])
    def test_what_is_no_digest(self, raw, bucket, value):
        answer = raw("PUT", f"/{bucket}/k", {"Content-MD5": value}, b"bar")
        assert (answer.status, answer.code) == (400, "InvalidDigest")


class TestPayloadHash:
    def test_a_wrong_one(self, raw, s3, bucket):
        answer = raw("PUT", f"/{bucket}/k", {"x-amz-content-sha256": hashlib.sha256(b"other").hexdigest()}, b"bar")
        assert answer.code in ("XAmzContentSHA256Mismatch",) and answer.status == 400
        with refused(404):
            s3.head_object(Bucket=bucket, Key="k")

    @pytest.mark.parametrize("path", ["", "?acl", "?tagging", "/k", "/k?tagging"])
    def test_of_a_body_that_does_not_come(self, raw, bucket, path):
        answer = raw("PUT", f"/{bucket}{path}", {"x-amz-content-sha256": hashlib.sha256(b"other").hexdigest()})
        assert (answer.status, answer.code) == (400, "XAmzContentSHA256Mismatch")

    @pytest.mark.parametrize("kind", ["STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "STREAMING-X"])
    @pytest.mark.parametrize("path", ["", "?acl", "?tagging", "/k?tagging"])
    def test_documents_do_not_come_in_chunks(self, raw, bucket, path, kind):
        answer = raw("PUT", f"/{bucket}{path}", {"x-amz-content-sha256": kind, "x-amz-decoded-content-length": "3"}, b"3\r\nabc\r\n0\r\n\r\n")
        assert answer.status in (400, 403) and answer.code in ("InvalidArgument", "InvalidRequest"), answer.body

    def test_what_is_none(self, raw, bucket):
        answer = raw("PUT", f"/{bucket}/k", {"x-amz-content-sha256": "nonsense"}, b"bar")
        assert answer.status in (400, 403)

    def test_unsigned(self, raw, bucket):
        assert raw("PUT", f"/{bucket}/k", {"x-amz-content-sha256": "UNSIGNED-PAYLOAD"}, b"bar").status == 200
