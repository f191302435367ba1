"""Cross-origin rules: told back, and what a browser is answered by them."""

import pytest
from conftest import refused, status

RULES = {"CORSRules": [
    {"AllowedMethods": ["GET", "PUT"], "AllowedOrigins": ["https://*.example.com"], "AllowedHeaders": ["x-amz-*", "content-type"], "ExposeHeaders": ["ETag"], "MaxAgeSeconds": 300, "ID": "one"},
    {"AllowedMethods": ["GET"], "AllowedOrigins": ["*"]},
]}


@pytest.fixture
def cors(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ACL="public-read")
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration=RULES)
    return bucket


def preflight(raw, bucket, origin="https://a.example.com", method="PUT", headers=None):
    named = {"Origin": origin, "Access-Control-Request-Method": method}
    if headers:
        named["Access-Control-Request-Headers"] = headers
    return raw("OPTIONS", f"/{bucket}/k", named, user=None)


def test_told_back_and_deleted(s3, cors):
    assert s3.get_bucket_cors(Bucket=cors)["CORSRules"] == RULES["CORSRules"]
    assert status(s3.delete_bucket_cors(Bucket=cors)) == 204
    with refused(404, "NoSuchCORSConfiguration"):
        s3.get_bucket_cors(Bucket=cors)


def test_a_preflight_that_is_allowed(raw, cors):
    answer = preflight(raw, cors, headers="Content-Type, x-amz-meta-a")
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == "https://a.example.com"
    assert answer.headers["access-control-allow-methods"] == "GET, PUT"
    assert answer.headers["access-control-allow-headers"].lower() == "content-type, x-amz-meta-a"
    assert answer.headers["access-control-max-age"] == "300" and answer.headers["access-control-expose-headers"] == "ETag"
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert "origin" in answer.headers["vary"].lower()


@pytest.mark.parametrize("origin, method, headers", [
    ("https://example.org", "PUT", None), ("https://a.example.com", "DELETE", None), ("https://a.example.com", "PUT", "x-other"), ("http://a.example.com", "PUT", None)])
def test_a_preflight_that_is_not(raw, cors, origin, method, headers):
    answer = preflight(raw, cors, origin, method, headers)
    assert (answer.status, answer.code) == (403, "AccessForbidden")
    assert "access-control-allow-origin" not in answer.headers


def test_a_preflight_where_nothing_is_set(raw, bucket):
    answer = preflight(raw, bucket)
    assert (answer.status, answer.code) == (403, "AccessForbidden")


def test_a_preflight_that_lacks_its_headers(raw, cors):
    answer = raw("OPTIONS", f"/{cors}/k", user=None)
    assert (answer.status, answer.code) == (400, "BadRequest")
    answer = raw("OPTIONS", f"/{cors}/k", {"Origin": "https://a.example.com"}, user=None)
    assert answer.status in (400, 403)


def test_a_request_from_an_origin(raw, cors):
    answer = raw("GET", f"/{cors}/k", {"Origin": "https://a.example.com"}, user=None)
    assert answer.status == 200 and answer.headers["access-control-allow-origin"] == "https://a.example.com"
    assert answer.headers["access-control-expose-headers"] == "ETag"
    answer = raw("GET", f"/{cors}/k", {"Origin": "http://anywhere"}, user=None)
    assert answer.headers["access-control-allow-origin"] == "*" and "access-control-allow-credentials" not in answer.headers


def test_an_error_has_the_headers_too(raw, cors):
    answer = raw("GET", f"/{cors}/closed", {"Origin": "https://a.example.com"}, user=None)
    assert answer.status == 403 and answer.headers["access-control-allow-origin"] == "https://a.example.com"


def test_a_request_without_an_origin(raw, cors):
    assert "access-control-allow-origin" not in raw("GET", f"/{cors}/k", user=None).headers


@pytest.mark.parametrize("rule", [{"AllowedMethods": ["PATCH"], "AllowedOrigins": ["*"]}, {"AllowedMethods": ["GET"], "AllowedOrigins": ["http://*.*.com"]},
                                  {"AllowedMethods": [], "AllowedOrigins": ["*"]}, {"AllowedMethods": ["GET"], "AllowedOrigins": []}])
def test_bad_rules(s3, bucket, rule):
    with pytest.raises(s3.exceptions.ClientError) as caught:
        s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": [rule]})
    assert status(caught.value.response) == 400 and caught.value.response["Error"]["Code"] in ("InvalidRequest", "MalformedXML")


def test_a_hundred_rules_and_no_more(s3, bucket):
    rule = RULES["CORSRules"][1]
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": [rule] * 100})
    with pytest.raises(s3.exceptions.ClientError):
        s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": [rule] * 101})
