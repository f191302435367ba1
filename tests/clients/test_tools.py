"""The tools that people point at an S3 endpoint, as they come: aws CLI, s3cmd, rclone, restic, curl. A tool that is not
installed is skipped, and says so."""

import filecmp
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import KEYS, MIB, fresh_name

GIB = 1024 * MIB


def tool(name):
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if not found:
        pytest.skip(f"{name} is not installed")
    return found


def clean_environment():
    """Without what this machine tells AWS clients: keys, profiles, a certificate bundle."""
    return {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}


def run(*words, env=None, check=True, timeout=170):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, env={**clean_environment(), **(env or {})}, timeout=timeout)
    if check:
        assert done.returncode == 0, f"{words}: {done.stdout[-2000:]} {done.stderr[-2000:]}"
    return done


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "tree"
    for name, size in (("a.txt", 10), ("empty", 0), ("sub/ü b+c.bin", 100_000), ("sub/deep/large.bin", 17 * MIB), ("sub/%41", 5)):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((name.encode() * (size // len(name.encode()) + 1))[:size])
    return root


def same(left, right):
    names = {path.relative_to(left) for path in Path(left).rglob("*") if path.is_file()}
    assert names == {path.relative_to(right) for path in Path(right).rglob("*") if path.is_file()}
    assert all(filecmp.cmp(Path(left) / name, Path(right) / name, shallow=False) for name in names)


@pytest.fixture(scope="module")
def keys():
    return {"AWS_ACCESS_KEY_ID": KEYS["ann"][0], "AWS_SECRET_ACCESS_KEY": KEYS["ann"][1], "AWS_DEFAULT_REGION": "dc-a", "AWS_CONFIG_FILE": "/nonexistent",
            "AWS_EC2_METADATA_DISABLED": "true"}


class TestAws:
    def aws(self, cluster, keys, *words, datacenter="dc-a", **more):
        return run(tool("aws"), "--endpoint-url", cluster.datacenters[datacenter]["s3"], *words, env=keys, **more)

    def test_a_tree_goes_there_and_back(self, cluster, keys, tree, tmp_path):
        name = fresh_name()
        self.aws(cluster, keys, "s3", "mb", f"s3://{name}")
        self.aws(cluster, keys, "s3", "sync", tree, f"s3://{name}/tree")
        cluster.settle()
        self.aws(cluster, keys, "s3", "sync", f"s3://{name}/tree", tmp_path / "back", datacenter="dc-b")
        same(tree, tmp_path / "back")
        assert not self.aws(cluster, keys, "s3", "sync", tree, f"s3://{name}/tree", "--dryrun").stdout.strip()
        self.aws(cluster, keys, "s3", "mv", f"s3://{name}/tree/a.txt", f"s3://{name}/moved")
        listed = self.aws(cluster, keys, "s3", "ls", f"s3://{name}", "--recursive").stdout
        assert "moved" in listed and "tree/a.txt" not in listed
        self.aws(cluster, keys, "s3", "rb", "--force", f"s3://{name}")

    def test_api_calls(self, cluster, keys, bucket):
        self.aws(cluster, keys, "s3api", "put-object", "--bucket", bucket, "--key", "k", "--metadata", "a=1")
        assert '"a": "1"' in self.aws(cluster, keys, "s3api", "head-object", "--bucket", bucket, "--key", "k").stdout
        failed = self.aws(cluster, keys, "s3api", "head-object", "--bucket", bucket, "--key", "nothing", check=False)
        assert failed.returncode != 0 and "404" in failed.stderr

    @pytest.mark.slow
    def test_five_gibibytes(self, cluster, keys, bucket, tmp_path):
        """Multipart up through dc-a, back through dc-b; the whole cluster stays under a gibibyte of memory."""
        source, digest, block = tmp_path / "large", hashlib.sha256(), os.urandom(MIB)
        with open(source, "wb") as file:
            for number in range(5 * 1024):
                piece = number.to_bytes(8, "big") + block[8:]
                digest.update(piece)
                file.write(piece)
        started = time.monotonic()
        self.aws(cluster, keys, "s3", "cp", source, f"s3://{bucket}/large", "--only-show-errors", timeout=3000)
        up = time.monotonic()
        source.unlink()
        cluster.cli("replication", "wait", "--until", "now", "--in", "dc-b", "--timeout", "1200s")
        settled = time.monotonic()
        self.aws(cluster, keys, "s3", "cp", f"s3://{bucket}/large", source, "--only-show-errors", datacenter="dc-b", timeout=3000)
        down = time.monotonic()
        back = hashlib.sha256()
        with open(source, "rb") as file:
            while piece := file.read(8 * MIB):
                back.update(piece)
        peak = cluster.memory_peak()
        print(f"up {up - started:.0f} s, replicated after {settled - up:.0f} s more, back {down - settled:.0f} s, peak {peak / MIB:.0f} MiB")
        assert back.digest() == digest.digest() and peak < GIB


class TestS3cmd:
    def s3cmd(self, cluster, *words, datacenter="dc-a", **more):
        host = cluster.datacenters[datacenter]["s3"].removeprefix("http://")
        return run(tool("s3cmd"), "--no-ssl", f"--host={host}", f"--host-bucket={host}", f"--access_key={KEYS['ann'][0]}", f"--secret_key={KEYS['ann'][1]}",
                   "--config=/dev/null", f"--region={datacenter}", "--multipart-chunk-size-mb=5", *words, **more)

    def test_a_tree_goes_there_and_back(self, cluster, tree, tmp_path):
        name = fresh_name()
        self.s3cmd(cluster, "mb", f"s3://{name}")
        self.s3cmd(cluster, "sync", f"{tree}/", f"s3://{name}/tree/")
        cluster.settle()
        (tmp_path / "back").mkdir()
        self.s3cmd(cluster, "sync", f"s3://{name}/tree/", f"{tmp_path / 'back'}/", datacenter="dc-b")
        same(tree, tmp_path / "back")
        assert "ann" in self.s3cmd(cluster, "info", f"s3://{name}/tree/a.txt").stdout
        self.s3cmd(cluster, "cp", f"s3://{name}/tree/a.txt", f"s3://{name}/copy")
        self.s3cmd(cluster, "setacl", "--acl-public", f"s3://{name}/copy")
        self.s3cmd(cluster, "del", "--recursive", "--force", f"s3://{name}")
        self.s3cmd(cluster, "rb", f"s3://{name}")


class TestRclone:
    def rclone(self, cluster, *words, datacenter="dc-a", **more):
        env = {"RCLONE_CONFIG": "/nonexistent", "RCLONE_CONFIG_M_TYPE": "s3", "RCLONE_CONFIG_M_PROVIDER": "Other", "RCLONE_CONFIG_M_ENDPOINT": cluster.datacenters[datacenter]["s3"],
               "RCLONE_CONFIG_M_ACCESS_KEY_ID": KEYS["ann"][0], "RCLONE_CONFIG_M_SECRET_ACCESS_KEY": KEYS["ann"][1], "RCLONE_CONFIG_M_REGION": datacenter,
               "RCLONE_CONFIG_M_UPLOAD_CUTOFF": "5M", "RCLONE_CONFIG_M_CHUNK_SIZE": "5M"}
        return run(tool("rclone"), *words, env=env, **more)

    def test_a_tree_is_synced_and_checked(self, cluster, tree, tmp_path):
        name = fresh_name()
        self.rclone(cluster, "mkdir", f"m:{name}")
        self.rclone(cluster, "sync", tree, f"m:{name}/tree")
        self.rclone(cluster, "check", tree, f"m:{name}/tree")
        cluster.settle()
        self.rclone(cluster, "check", tree, f"m:{name}/tree", datacenter="dc-b")
        self.rclone(cluster, "check", "--download", tree, f"m:{name}/tree", datacenter="dc-c")
        (tree / "a.txt").unlink()
        self.rclone(cluster, "sync", tree, f"m:{name}/tree")
        self.rclone(cluster, "copy", f"m:{name}/tree", tmp_path / "back")
        same(tree, tmp_path / "back")
        self.rclone(cluster, "purge", f"m:{name}")


class TestRestic:
    def restic(self, cluster, name, *words, datacenter="dc-a", cache, **more):
        env = {"AWS_ACCESS_KEY_ID": KEYS["ann"][0], "AWS_SECRET_ACCESS_KEY": KEYS["ann"][1], "RESTIC_PASSWORD": "password", "AWS_DEFAULT_REGION": datacenter,
               "RESTIC_REPOSITORY": f"s3:{cluster.datacenters[datacenter]['s3']}/{name}", "RESTIC_CACHE_DIR": str(cache)}
        return run(tool("restic"), *words, env=env, **more)

    def test_a_backup_here_is_restored_there(self, cluster, tree, tmp_path):
        name, cache = fresh_name(), tmp_path / "cache"
        self.restic(cluster, name, "init", cache=cache)
        self.restic(cluster, name, "backup", tree, cache=cache)
        (tree / "more").write_bytes(b"more")
        self.restic(cluster, name, "backup", tree, cache=cache)
        self.restic(cluster, name, "check", "--read-data", cache=cache)
        cluster.settle()
        self.restic(cluster, name, "check", "--read-data", datacenter="dc-b", cache=tmp_path / "other")
        self.restic(cluster, name, "restore", "latest", "--target", tmp_path / "back", datacenter="dc-b", cache=tmp_path / "other")
        same(tree, tmp_path / "back" / tree.relative_to("/"))
        self.restic(cluster, name, "forget", "--keep-last", "1", "--prune", datacenter="dc-b", cache=tmp_path / "other")
        cluster.settle()
        self.restic(cluster, name, "check", cache=cache)


class TestCurl:
    def test_signed_requests(self, cluster, bucket, tmp_path):
        curl = [tool("curl"), "-fsS", "--aws-sigv4", "aws:amz:dc-a:s3", "-u", ":".join(KEYS["ann"]), "-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD"]
        (tmp_path / "file").write_bytes(b"by curl" * 1000)
        url = f"{cluster.datacenters['dc-a']['s3']}/{bucket}/k"
        run(*curl, "-T", tmp_path / "file", url)
        run(*curl, "-o", tmp_path / "back", url)
        assert filecmp.cmp(tmp_path / "file", tmp_path / "back", shallow=False)
        failed = run(*curl[:1], "-s", "-o", "/dev/null", "-w", "%{http_code}", url)
        assert failed.stdout == "403"

    def test_presigned_urls(self, s3, bucket, tmp_path):
        put = s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "k"})
        (tmp_path / "file").write_bytes(b"presigned")
        run(tool("curl"), "-fsS", "-T", tmp_path / "file", put)
        assert run(tool("curl"), "-fsS", s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"})).stdout == "presigned"
