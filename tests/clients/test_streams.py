"""Bodies in signed chunks, as the SDKs for Java, Go and others send them: made by hand here, because boto3 does not."""

import binascii
import base64
import datetime
import hashlib
import hmac

import pytest
from conftest import KEYS, body, refused

EMPTY = hashlib.sha256(b"").hexdigest()


class SignedStream:
    """One PUT whose chunks are signed one upon the other, after the reference of SigV4's streaming form."""

    def __init__(self, raw, path, chunks, trailer=None, datacenter="dc-a"):
        self.raw, self.path, self.chunks, self.trailer, self.region = raw, path, chunks, trailer, datacenter
        self.kind = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" + ("-TRAILER" if trailer else "")
        now = datetime.datetime.now(datetime.timezone.utc)
        self.date, self.day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
        self.scope = f"{self.day}/{datacenter}/s3/aws4_request"
        key = ("AWS4" + KEYS["ann"][1]).encode()
        for part in (self.day, datacenter, "s3", "aws4_request"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        self.key = key

    def sign(self, *lines):
        return hmac.new(self.key, "\n".join(lines).encode(), hashlib.sha256).hexdigest()

    def send(self, change=lambda document: document, announced=None):
        length = sum(map(len, self.chunks)) if announced is None else announced
        host = self.raw.endpoint(self.region).removeprefix("http://")
        headers = {"content-encoding": "aws-chunked", "host": host, "x-amz-content-sha256": self.kind, "x-amz-date": self.date, "x-amz-decoded-content-length": str(length)}
        if self.trailer:
            headers["x-amz-trailer"] = self.trailer[0]
        names = ";".join(sorted(headers))
        canonical = "\n".join(["PUT", self.path, "", *[f"{name}:{headers[name]}" for name in sorted(headers)], "", names, self.kind])
        signature = self.sign("AWS4-HMAC-SHA256", self.date, self.scope, hashlib.sha256(canonical.encode()).hexdigest())
        headers["Authorization"] = f"AWS4-HMAC-SHA256 Credential={KEYS['ann'][0]}/{self.scope}, SignedHeaders={names}, Signature={signature}"
        document = b""
        for chunk in [*self.chunks, b""]:
            signature = self.sign("AWS4-HMAC-SHA256-PAYLOAD", self.date, self.scope, signature, EMPTY, hashlib.sha256(chunk).hexdigest())
            document += f"{len(chunk):x};chunk-signature={signature}\r\n".encode() + chunk
            document += b"" if self.trailer and not chunk else b"\r\n"
        if self.trailer:
            line = f"{self.trailer[0]}:{self.trailer[1]}\n"
            signature = self.sign("AWS4-HMAC-SHA256-TRAILER", self.date, self.scope, signature, hashlib.sha256(line.encode()).hexdigest())
            document += f"{line.rstrip()}\r\nx-amz-trailer-signature:{signature}\r\n\r\n".encode()
        return self.raw.send("PUT", self.path, headers, change(document))


CHUNKS = [b"a" * 65536, b"b" * 65536, b"tail"]
CRC32 = ("x-amz-checksum-crc32", base64.b64encode(binascii.crc32(b"".join(CHUNKS)).to_bytes(4, "big")).decode())


@pytest.mark.parametrize("trailer", [None, CRC32])
def test_chunks_become_the_object(raw, s3, bucket, trailer):
    answer = SignedStream(raw, f"/{bucket}/k", CHUNKS, trailer).send()
    assert answer.status == 200, answer.body
    got = s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert body(got) == b"".join(CHUNKS) and not got.get("ContentEncoding")
    if trailer:
        assert got["ChecksumCRC32"] == CRC32[1]


def test_no_chunks(raw, s3, bucket):
    assert SignedStream(raw, f"/{bucket}/k", []).send().status == 200
    assert body(s3.get_object(Bucket=bucket, Key="k")) == b""


@pytest.mark.parametrize("change, statuses", [
    (lambda document: document.replace(b"tail", b"TAIL"), (403,)),  # bytes of a chunk
    (lambda document: document.replace(b"chunk-signature=", b"chunk-signature=0", 1), (400, 403)),
    (lambda document: document[: len(document) // 2], (400, 403)),  # cut off
    (lambda document: document.replace(b"4;chunk", b"5;chunk"), (400, 403)),
    (lambda document: b"nonsense", (400, 403)),
])
def test_a_changed_stream_is_refused(raw, s3, bucket, change, statuses):
    answer = SignedStream(raw, f"/{bucket}/k", CHUNKS).send(change)
    assert answer.status in statuses, answer.body
    with refused(404):
        s3.head_object(Bucket=bucket, Key="k")


def test_a_changed_trailer_is_refused(raw, s3, bucket):
    wrong = SignedStream(raw, f"/{bucket}/k", CHUNKS, ("x-amz-checksum-crc32", "AAAAAA=="))
    answer = wrong.send()
    assert (answer.status, answer.code) == (400, "BadDigest")
    changed = SignedStream(raw, f"/{bucket}/k", CHUNKS, CRC32)
    answer = changed.send(lambda document: document.replace(CRC32[1].encode(), b"AAAAAA=="))
    assert answer.status in (400, 403)
    with refused(404):
        s3.head_object(Bucket=bucket, Key="k")


@pytest.mark.parametrize("announced", [1, 10_000_000])
def test_a_length_that_is_wrong(raw, s3, bucket, announced):
    assert SignedStream(raw, f"/{bucket}/k", CHUNKS).send(announced=announced).status == 400
    with refused(404):
        s3.head_object(Bucket=bucket, Key="k")
