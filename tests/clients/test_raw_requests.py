"""Requests that no library would send: malformed headers, lengths, encodings and documents."""

import socket
import urllib.parse

import pytest
from conftest import body, fresh_name, refused, status


@pytest.mark.parametrize("value", ["", "nonsense", "text/plain; charset", "\x07"])
def test_any_content_type(raw, bucket, value):
    assert raw("PUT", f"/{bucket}/k", {"Content-Type": value}, b"x").status in ((400, 403) if value == "\x07" else (200,))


@pytest.mark.parametrize("value", ["", "-1", "one", "1.5", "1, 2"])
def test_a_length_that_is_none(raw, bucket, value):
    assert raw("PUT", f"/{bucket}/k", after={"Content-Length": value}).status == 400


def test_no_length(raw, bucket):
    answer = raw("PUT", f"/{bucket}/k", length=False)
    assert (answer.status, answer.code) == (411, "MissingContentLength")


def test_chunked_without_a_length(raw, bucket):
    answer = raw("PUT", f"/{bucket}/k", {"x-amz-content-sha256": "UNSIGNED-PAYLOAD"}, after={"Transfer-Encoding": "chunked"}, length=False, body=b"")
    assert answer.status in (200, 411)


@pytest.mark.parametrize("chunks, whole", [(b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n", True), (b"0\r\n\r\n", True), (b"3\r\none\r\n3\r\nt", False), (b"zz\r\none", False)])
def test_chunked_transfer(cluster, s3, bucket, chunks, whole):
    """AWS answers 411, here such a body may be taken: then whole, and one that breaks off is no object."""
    url = urllib.parse.urlsplit(s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "k"}))
    with socket.create_connection((url.hostname, url.port), 30) as connection:
        connection.sendall(f"PUT {url.path}?{url.query} HTTP/1.1\r\nHost: {url.netloc}\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + chunks)
        if not whole:
            connection.shutdown(socket.SHUT_WR)  # whoever has sent all of a body waits for the answer
        answer = connection.recv(4096)
    if whole:
        assert answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 411")), answer
    if whole and answer.startswith(b"HTTP/1.1 200"):
        assert body(s3.get_object(Bucket=bucket, Key="k")) == (b"onetwo" if b"two" in chunks else b"")
    else:
        with refused(404):
            s3.head_object(Bucket=bucket, Key="k")


def test_a_body_that_is_short(cluster, s3, bucket):
    url = urllib.parse.urlsplit(s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "k"}))
    with socket.create_connection((url.hostname, url.port), 30) as connection:
        connection.sendall(f"PUT {url.path}?{url.query} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Length: 10\r\n\r\nfour".encode())
        connection.shutdown(socket.SHUT_WR)
        connection.recv(65536)
    with refused(404):
        s3.head_object(Bucket=bucket, Key="k")


@pytest.mark.parametrize("value", ["", "200", "nonsense"])
def test_an_expectation_that_is_none(raw, bucket, value):
    assert raw("PUT", f"/{bucket}/k", after={"Expect": value}, body=b"x").status in (200, 417)


def test_100_continue(cluster, s3, bucket):
    url = urllib.parse.urlsplit(s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "k"}))
    with socket.create_connection((url.hostname, url.port), 30) as connection:
        connection.sendall(f"PUT {url.path}?{url.query} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n".encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 100")
        connection.sendall(b"four")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")


def test_a_refusal_comes_before_the_body(cluster, bucket, nobody):
    endpoint = urllib.parse.urlsplit(cluster.datacenters["dc-a"]["s3"])
    with socket.create_connection((endpoint.hostname, endpoint.port), 30) as connection:
        connection.sendall(f"PUT /{bucket}/k HTTP/1.1\r\nHost: {endpoint.netloc}\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n".encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 403")


@pytest.mark.parametrize("name, value", [("User-Agent", ""), ("User-Agent", "a\tb"), ("Date", "nonsense"), ("Accept", "nonsense"), ("Cookie", "a=b")])
def test_headers_that_mean_nothing_here(raw, bucket, name, value):
    assert raw("PUT", f"/{bucket}/k", after={name: value}, body=b"x").status == 200


def test_headers_that_are_too_many_bytes(raw, bucket):
    answer = raw("GET", f"/{bucket}", after={"X-Long": "a" * 10_000})
    assert answer.status in (400, 431)


@pytest.mark.parametrize("path", ["?policy", "?acl", "?versioning", "?tagging", "?cors", "?lifecycle", "?object-lock", "?publicAccessBlock", "?ownershipControls", "?encryption"])
@pytest.mark.parametrize("document", [b"<a>", b"not xml", b"<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", b"\xff\xfe"])
def test_bad_documents(raw, bucket, path, document):
    import base64
    import hashlib
    answer = raw("PUT", f"/{bucket}{path}", {"Content-MD5": base64.b64encode(hashlib.md5(document).digest()).decode()}, document)
    assert answer.status == 400 and answer.code in ("MalformedXML", "MalformedPolicy", "MalformedACLError", "InvalidRequest", "InvalidBucketState"), answer.body


@pytest.mark.parametrize("query", ["torrent", "restore"])
def test_what_is_not_offered(raw, s3, bucket, query):
    s3.put_object(Bucket=bucket, Key="k")
    answer = raw("GET" if query == "torrent" else "POST", f"/{bucket}/k?{query}", body=b"" if query == "torrent" else b"<RestoreRequest><Days>1</Days></RestoreRequest>")
    assert answer.status in (403, 405, 501)


@pytest.mark.parametrize("method, path", [("PATCH", "/{}/k"), ("POST", "/{}/k"), ("PUT", "/"), ("DELETE", "/"), ("TRACE", "/{}")])
def test_methods_that_are_none(raw, bucket, method, path):
    answer = raw(method, path.format(bucket))
    assert answer.status in (400, 405, 411, 412, 501) and answer.headers.get("content-type", "").startswith("application/xml"), answer.body


def test_virtual_hosts_where_no_domain_is_set_are_paths(raw, bucket):
    assert raw("GET", f"/{bucket}", {"Host": "example.com"}).status == 200


def test_parameters_that_are_unknown_are_passed_over(raw, s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert raw("GET", f"/{bucket}/k?x-id=GetObject&unknown=1").body == b"x"
    assert raw("GET", f"/{bucket}?unknown=1").status == 200
