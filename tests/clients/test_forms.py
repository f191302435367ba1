"""Uploads by browser forms (POST policy), as boto3 signs them and requests or curl send them."""

import base64
import datetime
import hashlib
import json
import subprocess
import urllib.parse

import boto3
import pytest
import requests
from botocore.config import Config
from conftest import KEYS, body, fresh_name, headers, refused

TAGS = "<Tagging><TagSet><Tag><Key>colour</Key><Value>blue</Value></Tag></TagSet></Tagging>"


class Form:
    """A form that ann signed for a bucket of hers."""

    def __init__(self, s3, bucket):
        self.s3, self.bucket = s3, bucket

    def __call__(self, key="k", content=b"bytes", fields=None, conditions=None, name="f.txt", after=None, drop=(), expires=60):
        fields = dict(fields or {})
        conditions = [{name: value} for name, value in fields.items()] if conditions is None else conditions
        signed = self.s3.generate_presigned_post(self.bucket, key, Fields=fields, Conditions=list(conditions), ExpiresIn=expires)
        sent = {**signed["fields"], **(after or {})}
        for field in drop:
            del sent[field]
        return requests.post(signed["url"], data=sent, files={"file": (name, content)}, timeout=30, allow_redirects=False)


def code(answer):
    text = answer.text
    return (answer.status_code, text.split("<Code>")[1].split("</Code>")[0] if "<Code>" in text else None)


@pytest.fixture
def form(s3, bucket):
    return Form(s3, bucket)


def test_a_file_is_stored(s3, bucket, form):
    answer = form()
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["ETag"] == f'"{hashlib.md5(b"bytes").hexdigest()}"'
    assert answer.headers["Location"].endswith(f"/{bucket}/k")
    assert body(s3.get_object(Bucket=bucket, Key="k")) == b"bytes"


def test_the_name_of_the_file_in_the_key(s3, bucket, form):
    assert form(key="user/ann/${filename}", name="a picture.png").status_code == 204
    assert body(s3.get_object(Bucket=bucket, Key="user/ann/a picture.png")) == b"bytes"


@pytest.mark.parametrize("wanted, status", [("200", 200), ("201", 201), ("204", 204), ("404", 204), ("", 204)])
def test_the_form_chooses_its_status(form, bucket, wanted, status):
    answer = form(fields={"success_action_status": wanted})
    assert answer.status_code == status
    if status == 201:
        assert f"<Bucket>{bucket}</Bucket><Key>k</Key><ETag>" in answer.text and answer.headers["Content-Type"] == "application/xml"
    else:
        assert answer.content == b""


def test_the_form_chooses_another_page(form, bucket):
    answer = form(key="a b", fields={"success_action_redirect": "http://example.com/done?x=1"})
    assert answer.status_code == 303
    place = urllib.parse.urlsplit(answer.headers["Location"])
    query = urllib.parse.parse_qs(place.query)
    assert (place.netloc, place.path) == ("example.com", "/done")
    assert (query["x"], query["bucket"], query["key"]) == (["1"], [bucket], ["a b"])
    assert query["etag"] == [f'"{hashlib.md5(b"bytes").hexdigest()}"']


def test_fields_say_what_headers_say(s3, bucket, form):
    fields = {"Content-Type": "text/x", "Cache-Control": "no-store", "Content-Disposition": "inline", "Content-Encoding": "x",
              "x-amz-meta-colour": "blue", "tagging": TAGS, "acl": "public-read", "x-amz-storage-class": "STANDARD_IA",
              "x-amz-server-side-encryption": "AES256"}
    answer = form(fields=fields)
    assert answer.status_code == 204, answer.text
    assert answer.headers["x-amz-server-side-encryption"] == "AES256"
    head = s3.head_object(Bucket=bucket, Key="k")
    seen = [head[name] for name in ("ContentType", "CacheControl", "ContentDisposition", "ContentEncoding", "StorageClass")]
    assert seen == ["text/x", "no-store", "inline", "x", "STANDARD_IA"]
    assert (head["Metadata"], head["ServerSideEncryption"]) == ({"colour": "blue"}, "AES256")
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == [{"Key": "colour", "Value": "blue"}]
    assert requests.get(f"{s3.meta.endpoint_url}/{bucket}/k", timeout=30).content == b"bytes"


def test_a_checksum_is_compared(s3, bucket, form):
    right = base64.b64encode(hashlib.sha256(b"bytes").digest()).decode()
    answer = form(fields={"x-amz-checksum-sha256": right})
    assert (answer.status_code, answer.headers["x-amz-checksum-sha256"]) == (204, right)
    assert s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")["ChecksumSHA256"] == right
    wrong = base64.b64encode(hashlib.sha256(b"others").digest()).decode()
    assert code(form(key="other", fields={"x-amz-checksum-sha256": wrong})) == (400, "BadDigest")
    with refused(404):
        s3.head_object(Bucket=bucket, Key="other")


def test_versions(s3, versioned):
    answer = Form(s3, versioned)()
    assert answer.headers["x-amz-version-id"] == s3.head_object(Bucket=versioned, Key="k")["VersionId"]


@pytest.mark.parametrize("content, expected", [
    (b"x" * 9, (400, "EntityTooSmall")), (b"x" * 10, (204, None)), (b"x" * 20, (204, None)), (b"x" * 21, (400, "EntityTooLarge"))])
def test_the_policy_limits_the_size(form, content, expected):
    assert code(form(content=content, conditions=[["content-length-range", 10, 20]])) == expected


def test_starts_with(form):
    conditions = [["starts-with", "$Content-Type", "image/"], ["starts-with", "$x-amz-meta-any", ""]]
    fields = {"Content-Type": "image/png", "x-amz-meta-any": "thing"}
    assert form(fields=fields, conditions=conditions).status_code == 204
    assert code(form(fields={**fields, "Content-Type": "text/x"}, conditions=conditions)) == (403, "AccessDenied")


@pytest.mark.parametrize("after", [{"acl": "public-read"}, {"x-amz-meta-a": "b"}, {"key": "other"}, {"Content-Type": "x/y"}])
def test_what_the_policy_does_not_speak_of_is_denied(s3, bucket, form, after):
    assert code(form(after=after)) == (403, "AccessDenied")
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


@pytest.mark.parametrize("name", ["Content-Type", "Cache-Control", "x-amz-meta-a"])
def test_values_that_no_header_can_hold(s3, bucket, form, name):
    assert code(form(fields={name: "two\r\nlines"})) == (400, "InvalidArgument")
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


def test_what_begins_with_ignore_is_passed_over(form):
    assert form(after={"x-ignore-this": "anything"}).status_code == 204


def test_the_policy_names_the_bucket(s3, bucket, form):
    signed = s3.generate_presigned_post(bucket, "k")
    other = fresh_name()
    s3.create_bucket(Bucket=other)
    url = signed["url"].replace(bucket, other)
    assert code(requests.post(url, data=signed["fields"], files={"file": b"x"}, timeout=30)) == (403, "AccessDenied")


def test_an_expired_policy(form):
    assert code(form(expires=-1)) == (403, "AccessDenied")


@pytest.mark.parametrize("drop, expected", [
    (["key"], (400, "InvalidArgument")), (["x-amz-signature"], (400, "InvalidArgument")), (["policy"], (400, "InvalidArgument")),
    (["x-amz-credential"], (400, "InvalidArgument")), (["x-amz-date"], (400, "InvalidArgument"))])
def test_fields_that_are_missing(form, drop, expected):
    assert code(form(drop=drop)) == expected


@pytest.mark.parametrize("after, expected", [
    ({"x-amz-signature": "0" * 64}, (403, "SignatureDoesNotMatch")),
    ({"policy": base64.b64encode(b"{}").decode()}, (403, "SignatureDoesNotMatch")),
    ({"x-amz-credential": "NOBODY/20260101/dc-a/s3/aws4_request", "x-amz-date": "20260101T000000Z"}, (403, "InvalidAccessKeyId")),
    ({"x-amz-algorithm": "AWS4-HMAC-MD5"}, (400, "InvalidArgument"))])
def test_signatures_that_do_not_hold(form, after, expected):
    assert code(form(after=after)) == expected


def signed_by_hand(s3, bucket, policy):
    """A form whose policy is any text."""
    import botocore.auth
    import botocore.awsrequest
    import botocore.credentials
    request = botocore.awsrequest.AWSRequest("POST", f"{s3.meta.endpoint_url}/{bucket}", data=b"")
    auth = botocore.auth.S3SigV4Auth(botocore.credentials.Credentials(*KEYS["ann"]), "s3", "dc-a")
    date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    request.context["timestamp"] = date
    text = base64.b64encode(policy.encode()).decode()
    fields = {"key": "k", "policy": text, "x-amz-algorithm": "AWS4-HMAC-SHA256", "x-amz-credential": auth.scope(request), "x-amz-date": date}
    fields["x-amz-signature"] = auth.signature(text, request)
    return requests.post(request.url, data=fields, files={"file": b"x"}, timeout=30)


@pytest.mark.parametrize("policy", ["", "not json", "{}", '{"conditions": []}', '{"expiration": "2100-01-01T00:00:00Z"}',
                                    '{"expiration": "soon", "conditions": []}', '{"expiration": "2100-01-01T00:00:00Z", "conditions": {}}',
                                    '{"expiration": "2100-01-01T00:00:00Z", "conditions": [["eq", "$key"]]}',
                                    '{"expiration": "2100-01-01T00:00:00Z", "conditions": [["like", "$key", "k"]]}',
                                    '{"expiration": "2100-01-01T00:00:00Z", "conditions": [["content-length-range", "a", 2]]}'])
def test_policies_that_are_none(s3, bucket, policy):
    assert code(signed_by_hand(s3, bucket, policy))[0] in (400, 403)
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


def test_anonymous_forms_to_buckets_that_anybody_may_write_to(s3, bucket):
    url = f"{s3.meta.endpoint_url}/{bucket}"
    assert code(requests.post(url, data={"key": "k"}, files={"file": b"x"}, timeout=30)) == (403, "AccessDenied")
    s3.put_bucket_acl(Bucket=bucket, ACL="public-read-write")
    answer = requests.post(url, data={"key": "k"}, files={"file": ("f", b"by anybody")}, timeout=30)
    assert answer.status_code == 204, answer.text
    answer = requests.get(f"{url}/k", timeout=30)
    assert answer.status_code in (200, 403)
    assert [found["Key"] for found in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["k"]


def test_another_user_may_not(bob, bucket):
    assert code(Form(bob, bucket)()) == (403, "AccessDenied")


def test_a_session_signs_forms(cluster, s3, bucket):
    endpoint = cluster.datacenters["dc-a"]["s3"]
    sts = boto3.client("sts", endpoint_url=endpoint, region_name="dc-a", aws_access_key_id=KEYS["ann"][0], aws_secret_access_key=KEYS["ann"][1])
    given = sts.get_session_token()["Credentials"]
    session = boto3.client("s3", endpoint_url=endpoint, region_name="dc-a", aws_access_key_id=given["AccessKeyId"],
                           aws_secret_access_key=given["SecretAccessKey"], aws_session_token=given["SessionToken"],
                           config=Config(signature_version="s3v4", s3={"addressing_style": "path"}))
    signed = session.generate_presigned_post(bucket, "k")
    assert "x-amz-security-token" in signed["fields"]
    assert requests.post(signed["url"], data=signed["fields"], files={"file": b"x"}, timeout=30).status_code == 204
    without = {name: value for name, value in signed["fields"].items() if name != "x-amz-security-token"}
    assert code(requests.post(signed["url"], data=without, files={"file": b"x"}, timeout=30))[0] == 403
    assert body(s3.get_object(Bucket=bucket, Key="k")) == b"x"


def test_what_follows_the_file_is_passed_over(s3, bucket):
    signed = s3.generate_presigned_post(bucket, "k")
    parts = [(name, (None, value)) for name, value in signed["fields"].items()]
    answer = requests.post(signed["url"], files=[*parts, ("file", ("f", b"x")), ("acl", (None, "public-read"))], timeout=30)
    assert answer.status_code == 204, answer.text


@pytest.mark.parametrize("given, expected", [
    ({"headers": {"Content-Type": "multipart/form-data"}, "data": b"x"}, (400, "MalformedPOSTRequest")),
    ({"headers": {"Content-Type": "multipart/form-data; boundary=b"}, "data": b"no form"}, (400, "MalformedPOSTRequest")),
    ({"files": {"key": (None, "k")}}, (400, "InvalidArgument")),
    ({"files": {"key": (None, "k" * 30_000), "file": b"x"}}, (400, "MaxPostPreDataLengthExceededError")),
    ({"data": b"x"}, (412, "PreconditionFailed"))])
def test_posts_that_are_no_forms(s3, bucket, given, expected):
    assert code(requests.post(f"{s3.meta.endpoint_url}/{bucket}", timeout=30, **given)) == expected


def test_curl(s3, bucket, tmp_path):
    (tmp_path / "f.bin").write_bytes(b"of curl" * 100_000)
    signed = s3.generate_presigned_post(bucket, "by-${filename}", Fields={"success_action_status": "201"}, Conditions=[{"success_action_status": "201"}])
    words = [word for name, value in signed["fields"].items() for word in ("-F", f"{name}={value}")]
    done = subprocess.run(["curl", "-sS", "-o", "-", "-w", "%{http_code}", *words, "-F", f"file=@{tmp_path}/f.bin", signed["url"]],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.endswith("201"), done
    assert s3.head_object(Bucket=bucket, Key="by-f.bin")["ContentLength"] == 700_000
