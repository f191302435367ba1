"""A session ends when its time is over: temporary credentials against a node whose clock has gone on.

The node's clock is ahead of the client's by less than a signature may be off, and by nearly the shortest life of a session: the
token runs out within seconds, and everything else that the client signs is still taken.
"""

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from conftest import body, free_ports, fresh_name, refused

SHORTEST_LIFE_S = 900
AHEAD_S = 880
READY_DEADLINE_S = 120
EXPIRY_DEADLINE_S = 60


class Node:
    """The only node of a cluster, as `meridian init` writes it."""

    def __init__(self, directory):
        self.program = os.environ.get("MERIDIAN_BIN") or shutil.which("meridian")
        assert self.program, "MERIDIAN_BIN names the binary: run `make test-clients`"
        self.directory = directory
        words = ["init", "--dir", directory, "--datacenters", 1, "--port-base", free_ports(), "--partitions", 2]
        subprocess.run([self.program, *map(str, words)], check=True, capture_output=True)
        self.ready = json.loads((directory / "ready.json").read_text())
        (self.configuration,) = directory.glob("*/*/node.toml")
        self.process = None

    def start(self):
        self.log = open(self.directory / "log", "ab")
        words = [self.program, "node", "--config", str(self.configuration)]
        self.process = subprocess.Popen(words, stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + READY_DEADLINE_S
        while not self.is_ready():
            assert self.process.poll() is None, (self.directory / "log").read_text()[-4000:]
            assert time.monotonic() < deadline, "the node did not get ready"
            time.sleep(0.1)

    def is_ready(self):
        try:
            with urllib.request.urlopen(self.ready["datacenters"][0]["rest"] + "/readyz", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def stop(self):
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None
            self.log.close()

    def set_clock_ahead(self, seconds):
        text = self.configuration.read_text()
        assert text.count("clock_offset_ms = 0\n") == 1
        self.configuration.write_text(text.replace("clock_offset_ms = 0\n", f"clock_offset_ms = {seconds * 1000}\n"))

    def client(self, service, access_key, secret_key, token=None):
        return boto3.client(
            service, endpoint_url=self.ready["datacenters"][0]["s3"], region_name="dc-a", aws_access_key_id=access_key,
            aws_secret_access_key=secret_key, aws_session_token=token,
            config=Config(signature_version="s3v4" if service == "s3" else "v4", s3={"addressing_style": "path"},
                          retries={"total_max_attempts": 1}))


@pytest.fixture
def node(tmp_path):
    node = Node(Path(tmp_path) / "cluster")
    try:
        yield node
    finally:
        node.stop()


def test_a_session_ends_with_its_time(node):
    node.start()
    keys = (node.ready["access_key"], node.ready["secret_key"])
    name = fresh_name()
    s3 = node.client("s3", *keys)
    s3.create_bucket(Bucket=name)
    s3.put_object(Bucket=name, Key="k", Body=b"x")
    given = node.client("sts", *keys).get_session_token(DurationSeconds=SHORTEST_LIFE_S)["Credentials"]
    session_keys = (given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])
    session = node.client("s3", *session_keys)
    assert body(session.get_object(Bucket=name, Key="k")) == b"x"
    node.stop()

    node.set_clock_ahead(AHEAD_S)
    node.start()
    deadline = time.monotonic() + EXPIRY_DEADLINE_S
    with refused(400, "ExpiredToken"):
        while time.monotonic() < deadline:
            session.get_object(Bucket=name, Key="k")
            time.sleep(0.1)
    # Expiration is told in whole seconds.
    assert time.time() + AHEAD_S >= given["Expiration"].timestamp()
    with refused(400, "ExpiredToken"):
        session.put_object(Bucket=name, Key="k", Body=b"y")
    url = session.generate_presigned_url("get_object", Params={"Bucket": name, "Key": "k"}, ExpiresIn=3600)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(url, timeout=30)
    assert caught.value.code == 400 and b"<Code>ExpiredToken</Code>" in caught.value.read()
    with refused(403, "ExpiredToken"):
        node.client("sts", *session_keys).get_caller_identity()

    # It is the token that has ended: the keys that it came from work, and give a new one.
    assert body(s3.get_object(Bucket=name, Key="k")) == b"x"
    given = node.client("sts", *keys).get_session_token(DurationSeconds=SHORTEST_LIFE_S)["Credentials"]
    session = node.client("s3", given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])
    assert body(session.get_object(Bucket=name, Key="k")) == b"x"
