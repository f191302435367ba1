"""Who signs how: what is wrong with a signature is told, and nothing else is."""

import datetime
import http.client
import urllib.parse
import urllib.request

import pytest
from conftest import KEYS, body, fresh_name, refused, status


@pytest.fixture
def thing(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"bytes")
    return f"/{bucket}/k"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_a_wrong_secret(raw, thing, method):
    answer = raw(method, thing, user=("ANNANNANNANNANNANNAN", "wrong"))
    assert (answer.status, answer.code) == (403, "SignatureDoesNotMatch")


def test_an_unknown_key(raw, thing):
    answer = raw("GET", thing, user=("NOSUCHKEYNOSUCHKEYXX", "wrong"))
    assert (answer.status, answer.code) == (403, "InvalidAccessKeyId")


def test_a_head_has_no_body_but_its_status(raw, thing):
    answer = raw("HEAD", thing, user=("ANNANNANNANNANNANNAN", "wrong"))
    assert (answer.status, answer.body) == (403, b"")


def test_a_changed_path(raw, thing, bucket):
    answer = raw("GET", thing)
    assert answer.status == 200
    answer = raw("GET", thing, after={"Authorization": "AWS4-HMAC-SHA256 Credential=ANNANNANNANNANNANNAN/20990101/dc-a/s3/aws4_request, SignedHeaders=host, Signature=" + "0" * 64})
    assert answer.status in (400, 403)


def test_an_added_header_that_changes_meaning(raw, thing):
    answer = raw("PUT", thing, body=b"x", after={"x-amz-acl": "public-read"})
    assert (answer.status, answer.code) == (403, "AccessDenied")


@pytest.mark.parametrize("value, statuses", [("", (403,)), ("AWS4-HMAC-SHA256", (400, 403)), ("nonsense", (400,)), ("AWS AKIA:signature", (400,)), ("Bearer token", (400,)),
    ("AWS4-HMAC-SHA256 Credential=a", (400, 403)), ("AWS4-HMAC-SHA256 Credential=a/b/c, SignedHeaders=host, Signature=x", (400, 403)), ("\x07", (400, 403)), ("Basic YTpi", (400,))])
def test_an_authorization_that_is_none(raw, thing, value, statuses):
    answer = raw("GET", thing, after={"Authorization": value})
    assert answer.status in statuses and answer.code in ("AccessDenied", "InvalidArgument", "InvalidRequest", "AuthorizationHeaderMalformed"), answer.body


def test_no_authorization(raw, thing):
    answer = raw("GET", thing, drop=["Authorization"])
    assert (answer.status, answer.code) == (403, "AccessDenied")


def test_no_date(raw, thing):
    answer = raw("GET", thing, drop=["X-Amz-Date"])
    assert (answer.status, answer.code) == (403, "AccessDenied")


@pytest.mark.parametrize("value", ["", "Bad Date", "\x07", "20200101", "-1"])
def test_a_date_that_is_none(raw, thing, value):
    answer = raw("GET", thing, after={"X-Amz-Date": value})
    assert answer.status == 403, answer.body


@pytest.mark.parametrize("shift", [datetime.timedelta(hours=-1), datetime.timedelta(hours=1), datetime.timedelta(days=-3650), datetime.timedelta(days=3650)])
def test_a_clock_that_is_wrong(cluster, raw, thing, monkeypatch, shift):
    import botocore.auth
    moment = datetime.datetime.now(datetime.timezone.utc) + shift
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_, **__: moment.replace(tzinfo=None))
    answer = raw("GET", thing)
    assert (answer.status, answer.code) == (403, "RequestTimeTooSkewed")


def test_any_region_is_taken(clients, thing, cluster):
    import boto3
    from botocore.config import Config
    client = boto3.client("s3", endpoint_url=cluster.datacenters["dc-a"]["s3"], region_name="us-east-1", aws_access_key_id=KEYS["ann"][0],
                          aws_secret_access_key=KEYS["ann"][1], config=Config(s3={"addressing_style": "path"}))
    assert status(client.get_object(Bucket=thing.split("/")[1], Key="k")) == 200


class TestPresigned:
    def url(self, s3, operation="get_object", expires=100, **named):
        return s3.generate_presigned_url(operation, Params=named, ExpiresIn=expires)

    def fetch(self, url, method="GET", data=None, headers=None):
        parsed = urllib.parse.urlsplit(url)
        connection = http.client.HTTPConnection(parsed.hostname, parsed.port, timeout=30)
        connection.request(method, f"{parsed.path}?{parsed.query}", data, headers or {})
        response = connection.getresponse()
        return response.status, response.read()

    def test_get_head_put_delete(self, s3, bucket):
        assert self.fetch(self.url(s3, "put_object", Bucket=bucket, Key="a b/ü"), "PUT", b"bytes")[0] == 200
        assert self.fetch(self.url(s3, Bucket=bucket, Key="a b/ü")) == (200, b"bytes")
        assert self.fetch(self.url(s3, "head_object", Bucket=bucket, Key="a b/ü"), "HEAD") == (200, b"")
        assert self.fetch(self.url(s3, "delete_object", Bucket=bucket, Key="a b/ü"), "DELETE")[0] == 204
        assert self.fetch(self.url(s3, Bucket=bucket, Key="a b/ü"))[0] == 404

    def test_overrides(self, s3, thing, bucket):
        parsed = urllib.parse.urlsplit(self.url(s3, Bucket=bucket, Key="k", ResponseContentType="text/z"))
        with urllib.request.urlopen(parsed.geturl()) as answer:
            assert answer.headers["content-type"] == "text/z"

    def test_a_signed_content_type(self, s3, bucket):
        url = self.url(s3, "put_object", Bucket=bucket, Key="k", ContentType="text/plain")
        assert self.fetch(url, "PUT", b"x", {"Content-Type": "text/other"})[0] == 403
        assert self.fetch(url, "PUT", b"x", {"Content-Type": "text/plain"})[0] == 200

    def test_signed_metadata(self, s3, bucket):
        url = self.url(s3, "put_object", Bucket=bucket, Key="k", Metadata={"a": "1"})
        assert self.fetch(url, "PUT", b"x", {"x-amz-meta-a": "1"})[0] == 200
        assert s3.head_object(Bucket=bucket, Key="k")["Metadata"] == {"a": "1"}

    def test_expired(self, raw, thing, monkeypatch):
        import botocore.auth
        moment = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=120)
        monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_, **__: moment.replace(tzinfo=None))
        answer = raw("GET", thing, presign=60)
        assert (answer.status, answer.code, answer.text("Message")) == (403, "AccessDenied", "Request has expired")
        assert raw("GET", thing, presign=600).status == 200

    @pytest.mark.parametrize("expires", [604801, 0, -7, 10**12])
    def test_a_life_that_is_none(self, raw, thing, expires):
        answer = raw("GET", thing, presign=expires)
        assert answer.status in (400, 403) and answer.code in ("AuthorizationQueryParametersError", "AccessDenied")

    def test_a_changed_method_key_or_query(self, s3, thing, bucket):
        s3.put_object(Bucket=bucket, Key="other", Body=b"secret")
        url = self.url(s3, Bucket=bucket, Key="k")
        assert self.fetch(url, "PUT", b"x")[0] == 403
        assert self.fetch(url, "DELETE")[0] == 403
        assert self.fetch(url.replace("/k?", "/other?"))[0] == 403
        assert self.fetch(url + "&versionId=null")[0] == 403
        assert self.fetch(url.replace("X-Amz-Expires=100", "X-Amz-Expires=1000"))[0] == 403
        assert self.fetch(url[:-1] + ("0" if url[-1] != "0" else "1"))[0] == 403

    def test_a_missing_parameter(self, s3, thing, bucket):
        url = self.url(s3, Bucket=bucket, Key="k")
        for name in ("X-Amz-Expires", "X-Amz-Date", "X-Amz-Credential", "X-Amz-SignedHeaders", "X-Amz-Algorithm"):
            parsed = urllib.parse.urlsplit(url)
            query = "&".join(pair for pair in parsed.query.split("&") if not pair.startswith(name + "="))
            code, document = self.fetch(parsed._replace(query=query).geturl())
            assert code in (400, 403) and b"bytes" not in document, name

    def test_what_the_signer_may_not_do(self, bob, thing, bucket):
        assert self.fetch(self.url(bob, Bucket=bucket, Key="k"))[0] == 403


def test_a_failed_signature_does_not_tell_what_exists(raw, thing, bucket):
    wrong = ("ANNANNANNANNANNANNAN", "wrong")
    seen = {(answer.status, answer.code) for answer in (raw("GET", thing, user=wrong), raw("GET", f"/{bucket}/nothing", user=wrong), raw("GET", f"/{fresh_name()}/nothing", user=wrong))}
    assert seen == {(403, "SignatureDoesNotMatch")}


def test_nothing_is_told_to_those_who_may_not_list(bob, nobody, thing, bucket):
    for client in (bob, nobody):
        for key in ("k", "nothing"):
            with refused(403, "AccessDenied"):
                client.get_object(Bucket=bucket, Key=key)
            with refused(403):
                client.head_object(Bucket=bucket, Key=key)


def test_a_signature_dated_by_the_date_header(raw, thing):
    import email.utils
    answer = raw("GET", thing, {"Date": email.utils.formatdate(usegmt=True)})
    assert answer.status == 200 and answer.body == b"bytes"
    assert raw("GET", thing, {"Date": email.utils.formatdate(usegmt=True)}, after={"Date": "Sat, 01 Jan 2000 00:00:00 GMT"}).status == 403
