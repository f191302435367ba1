"""Virtual-host style: the bucket stands in the host. `dev` takes the subdomains of localhost."""

import socket
import subprocess
import urllib.parse

import boto3
import pytest
import requests
from botocore.config import Config
from conftest import KEYS, body, fresh_name, refused, status


@pytest.fixture(scope="module", autouse=True)
def localhost_has_subdomains():
    """Browsers and systemd's resolver know it (RFC 6761), other resolvers do not."""
    resolve = socket.getaddrinfo
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", lambda host, *more, **named: resolve(
            "127.0.0.1" if str(host).endswith(".localhost") else host, *more, **named))
        yield


@pytest.fixture(scope="module")
def virtual(cluster):
    port = urllib.parse.urlsplit(cluster.datacenters["dc-a"]["s3"]).port
    return boto3.client("s3", endpoint_url=f"http://localhost:{port}", region_name="dc-a", aws_access_key_id=KEYS["ann"][0],
                        aws_secret_access_key=KEYS["ann"][1],
                        config=Config(signature_version="s3v4", s3={"addressing_style": "virtual"}, retries={"total_max_attempts": 1}))


def test_a_bucket_from_its_creation_to_its_end(virtual):
    bucket = fresh_name()
    virtual.create_bucket(Bucket=bucket)
    seen = []
    virtual.meta.events.register("before-send.s3", lambda request, **_: seen.append(urllib.parse.urlsplit(request.url).netloc))
    virtual.put_object(Bucket=bucket, Key="a/b c", Body=b"x")
    assert seen and seen[0].startswith(f"{bucket}.localhost:")
    assert body(virtual.get_object(Bucket=bucket, Key="a/b c")) == b"x"
    assert [found["Key"] for found in virtual.list_objects_v2(Bucket=bucket)["Contents"]] == ["a/b c"]
    virtual.copy_object(Bucket=bucket, Key="c", CopySource={"Bucket": bucket, "Key": "a/b c"})
    upload = virtual.create_multipart_upload(Bucket=bucket, Key="m")["UploadId"]
    part = virtual.upload_part(Bucket=bucket, Key="m", UploadId=upload, PartNumber=1, Body=b"part")
    done = virtual.complete_multipart_upload(Bucket=bucket, Key="m", UploadId=upload,
                                             MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]})
    assert done["Location"] == f"http://{seen[0]}/m"
    names = [{"Key": found["Key"]} for found in virtual.list_objects_v2(Bucket=bucket)["Contents"]]
    assert len(virtual.delete_objects(Bucket=bucket, Delete={"Objects": names})["Deleted"]) == 3
    virtual.delete_bucket(Bucket=bucket)
    with refused(404):
        virtual.head_bucket(Bucket=bucket)


def test_presigned(virtual, bucket):
    url = virtual.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "k"})
    assert f"//{bucket}.localhost" in url
    host = urllib.parse.urlsplit(url).netloc
    here = url.replace(host, f"127.0.0.1:{host.split(':')[1]}")
    assert requests.put(here, data=b"x", headers={"Host": host}, timeout=30).status_code == 200
    assert body(virtual.get_object(Bucket=bucket, Key="k")) == b"x"


def test_curl_by_host(cluster, s3, bucket):
    s3.put_object(Bucket=bucket, Key="a/k", Body=b"public", ACL="public-read")
    endpoint = cluster.datacenters["dc-a"]["s3"]
    done = subprocess.run(["curl", "-sS", "-H", f"Host: {bucket.upper()}.LOCALHOST", f"{endpoint}/a/k"], capture_output=True, timeout=30)
    assert done.stdout == b"public"


def test_forms(virtual, bucket, s3):
    signed = virtual.generate_presigned_post(bucket, "k")
    host = urllib.parse.urlsplit(signed["url"]).netloc
    url = signed["url"].replace(host, f"127.0.0.1:{host.split(':')[1]}")
    answer = requests.post(url, data=signed["fields"], files={"file": b"x"}, headers={"Host": host}, timeout=30)
    assert (answer.status_code, answer.headers["Location"]) == (204, f"http://{host}/k"), answer.text
    assert status(s3.head_object(Bucket=bucket, Key="k")) == 200
