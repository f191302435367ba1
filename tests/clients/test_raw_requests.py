"""Requests that no library would send: malformed headers, lengths, encodings and documents."""

import socket
import urllib.parse

import pytest
from conftest import body, fresh_name, refused


@pytest.mark.parametrize("value", ["", "nonsense", "text/plain; charset", "\x07"])
def test_any_content_type(raw, bucket, value):
    assert raw("PUT", f"/{bucket}/k", {"Content-Type": value}, b"x").status in ((400, 403) if value == "\x07" else (200,))


@pytest.mark.parametrize("value", ["", "-1", "one", "1.5", "1, 2"])
def test_a_length_that_is_none(raw, bucket, value):
    assert raw("PUT", f"/{bucket}/k", after={"Content-Length": value}).status == 400


def test_no_length(raw, bucket):
    answer = raw("PUT", f"/{bucket}/k", length=False)
    assert (answer.status, answer.code) == (411, "MissingContentLength")


@pytest.mark.parametrize("chunks", [b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n", b"0\r\n\r\n", b"3\r\none\r\n3\r\nt", b"zz\r\none"])
def test_chunked_without_a_length(s3, bucket, chunks):
    url = urllib.parse.urlsplit(s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "k"}))
    with socket.create_connection((url.hostname, url.port), 30) as connection:
        connection.sendall(f"PUT {url.path}?{url.query} HTTP/1.1\r\nHost: {url.netloc}\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + chunks)
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 411") and b"<Code>MissingContentLength</Code>" in answer, answer
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


METHODS = {
    "": {"accelerate": "GP", "acl": "GP", "analytics": "GPD", "cors": "GPD", "delete": "O", "encryption": "GPD", "intelligent-tiering": "GPD",
         "inventory": "GPD", "lifecycle": "GPD", "location": "G", "logging": "GP", "metrics": "GPD", "notification": "GP", "object-lock": "GP",
         "ownershipControls": "GPD", "policy": "GPD", "policyStatus": "G", "publicAccessBlock": "GPD", "replication": "GPD",
         "requestPayment": "GP", "tagging": "GPD", "uploads": "G", "versioning": "GP", "versions": "G", "website": "GPD"},
    "/k": {"acl": "GP", "attributes": "G", "legal-hold": "GP", "retention": "GP", "tagging": "GPD", "torrent": "G", "uploads": "O", "restore": "O"},
}


@pytest.mark.parametrize("key, name", [(key, name) for key, names in METHODS.items() for name in names])
def test_methods_that_a_subresource_does_not_have(raw, bucket, key, name):
    for letter, method in {"G": "GET", "P": "PUT", "D": "DELETE", "O": "POST", "-": "PATCH"}.items():
        if letter not in METHODS[key][name]:
            answer = raw(method, f"/{bucket}{key}?{name}", body=b"<a/>" if method in ("PUT", "POST") else b"")
            assert (answer.status, answer.code) == (405, "MethodNotAllowed"), (method, answer.body)
            assert method not in answer.headers["allow"]


def test_a_post_to_a_bucket_is_a_form(raw, bucket):
    answer = raw("POST", f"/{bucket}", body=b"x")
    assert (answer.status, answer.code) == (412, "PreconditionFailed")


@pytest.mark.parametrize("path, headers, status", [
    ("/{}/k", {}, 403), ("/{}/k", {"Authorization": "AWS4-HMAC-SHA256 nonsense"}, 400), ("/absent-bucket-of-nobody/k", {}, 404),
    ("/{}/" + "k" * 1025, {}, 400)])
def test_a_refusal_is_read_by_who_sends_on(cluster, bucket, path, headers, status):
    """A client that sends a large body without a look at its answer reads that answer, and no broken pipe."""
    import http.client
    endpoint = urllib.parse.urlsplit(cluster.datacenters["dc-a"]["s3"])
    for _ in range(3):
        connection = http.client.HTTPConnection(endpoint.hostname, endpoint.port, timeout=60)
        connection.request("PUT", path.format(bucket), body=b"x" * (24 << 20), headers=headers)
        answer = connection.getresponse()
        assert answer.status == status and b"<Error>" in answer.read()
        connection.close()


def test_a_refusal_at_the_rest_port_is_read_too(cluster):
    import http.client
    endpoint = urllib.parse.urlsplit(cluster.datacenters["dc-a"]["rest"])
    for path, status in [("/admin/v1/users", (401, 403, 413)), ("/3,zz", (400, 401, 404)), ("/nowhere/at/all", (404, 405))]:
        connection = http.client.HTTPConnection(endpoint.hostname, endpoint.port, timeout=60)
        connection.request("POST", path, body=b"x" * (24 << 20))
        answer = connection.getresponse()
        assert answer.status in status and answer.read(), path
        connection.close()
