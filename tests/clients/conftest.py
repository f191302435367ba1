"""One cluster of three datacenters for the whole run, two users in it, and what every test leans on.

Nothing is cleaned up between tests: each takes buckets of its own, and the cluster is thrown away with its directory.
What a test expects is what the S3 API reference says, and where that is silent, what S3 answers.
"""

import contextlib
import http.client
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.parse
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import boto3
import botocore.auth
import botocore.awsrequest
import botocore.credentials
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

READY_DEADLINE_S = 120
MIB = 1024 * 1024
KEYS = {"ann": ("ANNANNANNANNANNANNAN", "ann-secret"), "bob": ("BOBBOBBOBBOBBOBBOBBO", "bob-secret")}
NAMES = itertools.count()


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: left out unless FULL=1")


def pytest_collection_modifyitems(config, items):
    if os.environ.get("FULL") == "1":
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="slow: run with FULL=1"))


class Cluster:
    """`meridian dev` with three datacenters on free ports."""

    def __init__(self):
        self.program = os.environ.get("MERIDIAN_BIN") or shutil.which("meridian")
        assert self.program, "MERIDIAN_BIN names the binary: run `make test-clients`"
        self.directory = Path(tempfile.mkdtemp(prefix="meridian-clients-"))
        self.ready_file = self.directory / "ready.json"
        self.log = open(self.directory / "log", "wb")
        port = free_ports()
        words = ["dev", "--dir", self.directory / "dev", "--port-base", port, "--partitions", 2]
        self.process = subprocess.Popen(
            [self.program, *map(str, words), "--ready-file", str(self.ready_file)], stdout=self.log, stderr=self.log
        )
        deadline = time.monotonic() + READY_DEADLINE_S
        while not self.ready_file.exists():
            assert self.process.poll() is None, (self.directory / "log").read_text()[-4000:]
            assert time.monotonic() < deadline, "the cluster did not get ready"
            time.sleep(0.05)
        ready = json.loads(self.ready_file.read_text())
        self.datacenters = {dc["name"]: dc for dc in ready["datacenters"]}
        self.admin = (ready["access_key"], ready["secret_key"])

    def cli(self, *words):
        done = subprocess.run([self.program, *words, "--ready-file", str(self.ready_file)], capture_output=True, text=True)
        assert done.returncode == 0, f"{words}: {done.stdout} {done.stderr}"
        return done.stdout

    def settle(self):
        """Until every datacenter has what any of them acknowledged before."""
        self.cli("replication", "wait", "--until", "now", "--in", ",".join(self.datacenters), "--timeout", "60s")

    def memory_peak(self):
        """Bytes of resident memory that the process had at most."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
        if os.environ.get("KEEP") == "1":
            print(f"kept: {self.directory}")
        else:
            shutil.rmtree(self.directory, ignore_errors=True)


def free_ports():
    for base in range(12_000, 31_000, 300):
        ports = [base + 100 * dc + port for dc in range(3) for port in range(5)]
        with contextlib.ExitStack() as stack:
            try:
                for port in ports:
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
                    stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)).bind(("127.0.0.1", port))
            except OSError:
                continue
            return base
    raise AssertionError("no free ports")


@pytest.fixture(scope="session")
def cluster():
    cluster = Cluster()
    try:
        for name, (access_key, secret_key) in KEYS.items():
            cluster.cli("user", "create", name, "--access-key", access_key, "--secret-key", secret_key,
                        "--id", name, "--display-name", name, "--email", f"{name}@example.com")
        cluster.settle()
        yield cluster
        assert cluster.process.poll() is None, "the cluster ended by itself"
        log = (cluster.directory / "log").read_text(errors="replace")
        assert "panicked" not in log, log[max(0, log.index("panicked") - 200):][:2000]
    finally:
        cluster.stop()


class Clients:
    """boto3 clients by user and datacenter, made once each."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.session = boto3.session.Session()
        self.made = {}

    def __call__(self, user="ann", datacenter="dc-a", **config):
        wanted = (user, datacenter, tuple(sorted((name, str(value)) for name, value in config.items())))
        if wanted not in self.made:
            settings = {"signature_version": "s3v4", "s3": {"addressing_style": "path"},
                        "retries": {"total_max_attempts": 1}, "read_timeout": 60, **config}
            keys = (None, None)
            if user is None:
                settings["signature_version"] = UNSIGNED
            else:
                keys = self.cluster.admin if user == "admin" else KEYS[user]
            self.made[wanted] = self.session.client(
                "s3", endpoint_url=self.cluster.datacenters[datacenter]["s3"], region_name=datacenter,
                aws_access_key_id=keys[0], aws_secret_access_key=keys[1], config=Config(**settings))
        return self.made[wanted]


@pytest.fixture(scope="session")
def clients(cluster):
    return Clients(cluster)


@pytest.fixture(scope="session")
def s3(clients):
    return clients()


@pytest.fixture(scope="session")
def bob(clients):
    return clients("bob")


@pytest.fixture(scope="session")
def nobody(clients):
    return clients(None)


def fresh_name():
    return f"bucket-{next(NAMES)}-{os.getpid()}"


@pytest.fixture
def bucket(s3):
    name = fresh_name()
    s3.create_bucket(Bucket=name)
    return name


@pytest.fixture
def versioned(s3, bucket):
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    return bucket


@pytest.fixture
def locked(s3):
    name = fresh_name()
    s3.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    return name


@contextlib.contextmanager
def refused(status, code=None):
    """The call inside is answered with this status and S3 code; a HEAD or a 304 has no code but its status."""
    with pytest.raises(ClientError) as caught:
        yield caught
    answer = caught.value.response
    seen = (answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"])
    assert seen == (status, str(status) if code is None else code), answer


def status(answer):
    return answer["ResponseMetadata"]["HTTPStatusCode"]


def headers(answer):
    return answer["ResponseMetadata"]["HTTPHeaders"]


def body(answer):
    return answer["Body"].read()


class Signer(botocore.auth.S3SigV4Auth):
    """Leaves a payload hash that the request has already as it is."""

    def add_auth(self, request):
        self.given = request.headers.get("x-amz-content-sha256")
        super().add_auth(request)

    def payload(self, request):
        return self.given or super().payload(request)


class Raw:
    """Requests below boto3: signed as told, changed after they were signed."""

    def __init__(self, cluster):
        self.cluster = cluster

    class Answer:
        def __init__(self, response):
            self.status = response.status
            self.headers = {name.lower(): value for name, value in response.getheaders()}
            self.body = response.read()

        @property
        def code(self):
            return self.text("Code")

        def text(self, name):
            if not self.body:
                return None
            for element in ElementTree.fromstring(self.body).iter():
                if element.tag.split("}")[-1] == name:
                    return element.text
            return None

    def endpoint(self, datacenter):
        return self.cluster.datacenters[datacenter]["s3"]

    def __call__(self, method, path, headers=None, body=b"", user="ann", datacenter="dc-a", after=None, drop=(),
                 length=True, presign=None):
        """`headers` are signed; `after` is added to the signed request, `drop` taken from it."""
        url = self.endpoint(datacenter) + path
        request = botocore.awsrequest.AWSRequest(method, url, headers=dict(headers or {}), data=body)
        if user is not None:
            keys = botocore.credentials.Credentials(*(self.cluster.admin if user == "admin" else KEYS.get(user, user)))
            if presign is not None:
                signer = botocore.auth.S3SigV4QueryAuth(keys, "s3", datacenter, expires=presign)
            else:
                signer = Signer(keys, "s3", datacenter)
            signer.add_auth(request)
        sent = {str(name): str(value) for name, value in request.headers.items()}
        sent.update(after or {})
        for name in drop:
            for known in [known for known in sent if known.lower() == name.lower()]:
                del sent[known]
        parsed = urllib.parse.urlsplit(request.url)
        target = parsed.path + (f"?{parsed.query}" if parsed.query else "")
        return self.send(method, target, sent, body, datacenter, length)

    def send(self, method, target, headers, body=b"", datacenter="dc-a", length=True):
        address = urllib.parse.urlsplit(self.endpoint(datacenter))
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=30)
        try:
            named = {name.lower() for name in headers}
            connection.putrequest(method, target, skip_host="host" in named, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value.encode())
            if length and "content-length" not in named and (body or method in ("PUT", "POST")):
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders()
            if body:
                connection.send(body)
            return self.Answer(connection.getresponse())
        finally:
            connection.close()


@pytest.fixture(scope="session")
def raw(cluster):
    return Raw(cluster)
