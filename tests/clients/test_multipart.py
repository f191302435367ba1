"""Uploads in parts: sizes, order, resends, copies of parts, lists, and a Complete that may be repeated."""

import hashlib

import pytest
from conftest import MIB, body, fresh_name, headers, refused, status

PART = 5 * MIB


@pytest.fixture
def upload(s3, bucket):
    return Upload(s3, bucket, "k")


class Upload:
    def __init__(self, s3, bucket, key, **more):
        self.s3, self.named = s3, dict(Bucket=bucket, Key=key)
        self.id = s3.create_multipart_upload(**self.named, **more)["UploadId"]
        self.named["UploadId"] = self.id
        self.parts = []

    def part(self, number, data, **more):
        answer = self.s3.upload_part(**self.named, PartNumber=number, Body=data, **more)
        self.parts.append({"PartNumber": number, "ETag": answer["ETag"]})
        return answer

    def complete(self, parts=None, **more):
        return self.s3.complete_multipart_upload(**self.named, MultipartUpload={"Parts": self.parts if parts is None else parts}, **more)


def etag_of(*parts):
    return f'"{hashlib.md5(b"".join(hashlib.md5(part).digest() for part in parts)).hexdigest()}-{len(parts)}"'


def test_parts_become_one_object(s3, bucket):
    upload = Upload(s3, bucket, "k", ContentType="text/x", Metadata={"a": "b"}, Tagging="t=1", CacheControl="no-cache")
    data = [b"a" * PART, b"b" * PART, b"tail"]
    for number, part in enumerate(data, 1):
        assert upload.part(number, part)["ETag"] == f'"{hashlib.md5(part).hexdigest()}"'
    answer = upload.complete()
    assert (answer["ETag"], answer["Bucket"], answer["Key"]) == (etag_of(*data), bucket, "k") and answer["Location"].endswith(f"/{bucket}/k")
    got = s3.get_object(Bucket=bucket, Key="k")
    assert body(got) == b"".join(data) and got["ETag"] == etag_of(*data)
    assert (got["ContentType"], got["Metadata"], got["TagCount"], got["CacheControl"]) == ("text/x", {"a": "b"}, 1, "no-cache")
    assert s3.list_objects_v2(Bucket=bucket)["Contents"][0]["ETag"] == etag_of(*data)
    assert body(s3.get_object(Bucket=bucket, Key="k", Range=f"bytes={PART - 2}-{PART + 1}")) == b"aabb"


def test_an_upload_is_no_object_before_it_is_complete(s3, bucket, upload):
    upload.part(1, b"x")
    with refused(404, "NoSuchKey"):
        s3.get_object(Bucket=bucket, Key="k")


def test_one_small_part(upload):
    upload.part(1, b"x")
    assert upload.complete()["ETag"] == etag_of(b"x")


def test_a_small_part_before_the_last(upload):
    upload.part(1, b"small")
    upload.part(2, b"x" * PART)
    with refused(400, "EntityTooSmall"):
        upload.complete()


def test_no_parts(raw, upload):
    with refused(400, "MalformedXML"):
        upload.complete([])
    answer = raw("POST", f"/{upload.named['Bucket']}/k?uploadId={upload.id}", body=b"<CompleteMultipartUpload></CompleteMultipartUpload>")
    assert (answer.status, answer.code) == (400, "MalformedXML")


def test_a_part_that_was_never_sent(upload):
    upload.part(1, b"x")
    with refused(400, "InvalidPart"):
        upload.complete([{"PartNumber": 9999, "ETag": upload.parts[0]["ETag"]}])


def test_a_part_with_another_etag(upload):
    upload.part(1, b"x")
    with refused(400, "InvalidPart"):
        upload.complete([{"PartNumber": 1, "ETag": '"ffffffffffffffffffffffffffffffff"'}])


def test_parts_out_of_order(upload):
    upload.part(1, b"x" * PART)
    upload.part(2, b"y")
    with refused(400, "InvalidPartOrder"):
        upload.complete(upload.parts[::-1])


def test_parts_with_gaps_between_their_numbers(s3, bucket, upload):
    upload.part(10000, b"tail")
    upload.part(3, b"x" * PART)
    upload.complete(upload.parts[::-1])
    assert s3.head_object(Bucket=bucket, Key="k")["ContentLength"] == PART + 4


def test_a_part_that_is_sent_again_counts_last(s3, bucket, upload):
    upload.part(1, b"one")
    upload.part(1, b"two")
    with refused(400, "InvalidPart"):
        upload.complete(upload.parts[:1])
    upload.complete(upload.parts[1:])
    assert body(s3.get_object(Bucket=bucket, Key="k")) == b"two"


def test_parts_that_are_not_named_are_left_out(s3, bucket, upload):
    upload.part(1, b"one")
    upload.part(2, b"two")
    upload.complete(upload.parts[:1])
    assert body(s3.get_object(Bucket=bucket, Key="k")) == b"one"


def test_etags_without_quotes(upload):
    upload.part(1, b"x")
    upload.complete([{"PartNumber": 1, "ETag": upload.parts[0]["ETag"].strip('"')}])


@pytest.mark.parametrize("number", [0, 10001, -1])
def test_numbers_of_parts(upload, number):
    with refused(400, "InvalidArgument"):
        upload.part(number, b"x")


def test_a_number_that_is_none(raw, upload):
    answer = raw("PUT", f"/{upload.named['Bucket']}/k?partNumber=one&uploadId={upload.id}", body=b"x")
    assert (answer.status, answer.code) == (400, "InvalidArgument")


def test_an_unknown_upload(s3, bucket):
    named = dict(Bucket=bucket, Key="k", UploadId="nonsense")
    with refused(404, "NoSuchUpload"):
        s3.upload_part(**named, PartNumber=1, Body=b"x")
    with refused(404, "NoSuchUpload"):
        s3.complete_multipart_upload(**named, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": "x"}]})
    with refused(404, "NoSuchUpload"):
        s3.abort_multipart_upload(**named)
    with refused(404, "NoSuchUpload"):
        s3.list_parts(**named)


def test_an_upload_belongs_to_its_key(s3, bucket, upload):
    with refused(404, "NoSuchUpload"):
        s3.upload_part(Bucket=bucket, Key="other", UploadId=upload.id, PartNumber=1, Body=b"x")


def test_an_aborted_upload_is_gone(s3, bucket, upload):
    upload.part(1, b"x")
    assert status(s3.abort_multipart_upload(**upload.named)) == 204
    for operation in (lambda: upload.part(2, b"y"), upload.complete, lambda: s3.list_parts(**upload.named), lambda: s3.abort_multipart_upload(**upload.named)):
        with refused(404, "NoSuchUpload"):
            operation()
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)


def test_a_repeated_complete_gets_the_same_answer(s3, bucket, upload):
    upload.part(1, b"x")
    first, second = upload.complete(), upload.complete()
    assert first["ETag"] == second["ETag"] and body(s3.get_object(Bucket=bucket, Key="k")) == b"x"


def test_a_version_of_its_own(s3, versioned):
    s3.put_object(Bucket=versioned, Key="k", Body=b"old")
    upload = Upload(s3, versioned, "k")
    upload.part(1, b"new")
    version = upload.complete()["VersionId"]
    assert s3.list_object_versions(Bucket=versioned)["Versions"][0]["VersionId"] == version


def test_parts_overwrite_what_stands_there(s3, bucket, upload):
    s3.put_object(Bucket=bucket, Key="k", Body=b"old")
    upload.part(1, b"new")
    assert body(s3.get_object(Bucket=bucket, Key="k")) == b"old"
    upload.complete()
    assert body(s3.get_object(Bucket=bucket, Key="k")) == b"new"


@pytest.fixture(scope="module")
def parted(s3):
    name = fresh_name()
    s3.create_bucket(Bucket=name)
    upload = Upload(s3, name, "k", ChecksumAlgorithm="CRC32C")
    for number, data in ((1, b"a" * PART), (2, b"tail")):
        answer = upload.part(number, data, ChecksumAlgorithm="CRC32C")
        upload.parts[-1]["ChecksumCRC32C"] = answer["ChecksumCRC32C"]
    upload.complete()
    s3.put_object(Bucket=name, Key="plain", Body=b"plain")
    return name


class TestReads:
    def test_by_part(self, s3, parted):
        first = s3.get_object(Bucket=parted, Key="k", PartNumber=1)
        assert (status(first), first["ContentLength"], first["PartsCount"], first["ContentRange"]) == (206, PART, 2, f"bytes 0-{PART - 1}/{PART + 4}")
        second = s3.get_object(Bucket=parted, Key="k", PartNumber=2)
        assert body(second) == b"tail" and second["ContentRange"] == f"bytes {PART}-{PART + 3}/{PART + 4}"
        head = s3.head_object(Bucket=parted, Key="k", PartNumber=2)
        assert (head["ContentLength"], head["PartsCount"]) == (4, 2)

    def test_past_the_last(self, s3, parted):
        with refused(416, "InvalidPartNumber"):
            s3.get_object(Bucket=parted, Key="k", PartNumber=3)
        with refused(416):
            s3.head_object(Bucket=parted, Key="k", PartNumber=3)

    def test_of_an_object_without_parts(self, s3, parted):
        got = s3.get_object(Bucket=parted, Key="plain", PartNumber=1)
        assert (status(got), body(got)) == (206, b"plain") and "PartsCount" not in got
        with refused(416, "InvalidPartNumber"):
            s3.get_object(Bucket=parted, Key="plain", PartNumber=2)

    @pytest.mark.parametrize("number", ["0", "10001", "x"])
    def test_a_bad_number(self, raw, parted, number):
        answer = raw("GET", f"/{parted}/k?partNumber={number}")
        assert (answer.status, answer.code) == (400, "InvalidArgument")

    def test_not_together_with_a_range(self, s3, parted):
        with refused(400, "InvalidRequest"):
            s3.get_object(Bucket=parted, Key="k", PartNumber=1, Range="bytes=0-1")

    def test_attributes(self, s3, parted):
        wanted = ["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"]
        answer = s3.get_object_attributes(Bucket=parted, Key="k", ObjectAttributes=wanted)
        assert answer["ObjectSize"] == PART + 4 and answer["StorageClass"] == "STANDARD" and answer["ETag"].endswith("-2")
        assert answer["Checksum"]["ChecksumType"] == "COMPOSITE" and answer["Checksum"]["ChecksumCRC32C"].endswith("-2")
        parts = answer["ObjectParts"]
        assert parts["TotalPartsCount"] == 2 and [part["Size"] for part in parts["Parts"]] == [PART, 4]
        page = s3.get_object_attributes(Bucket=parted, Key="k", ObjectAttributes=["ObjectParts"], MaxParts=1)["ObjectParts"]
        assert page["IsTruncated"] and page["NextPartNumberMarker"] == 1 and page["MaxParts"] == 1
        page = s3.get_object_attributes(Bucket=parted, Key="k", ObjectAttributes=["ObjectParts"], PartNumberMarker=1)["ObjectParts"]
        assert [part["PartNumber"] for part in page["Parts"]] == [2] and not page["IsTruncated"]

    def test_attributes_that_are_not_asked_for(self, s3, parted):
        answer = s3.get_object_attributes(Bucket=parted, Key="plain", ObjectAttributes=["ObjectSize"])
        assert answer["ObjectSize"] == 5 and not {"ETag", "Checksum", "ObjectParts", "StorageClass"} & set(answer)
        assert "ObjectParts" not in s3.get_object_attributes(Bucket=parted, Key="plain", ObjectAttributes=["ObjectParts"])

    def test_attributes_need_names(self, raw, parted):
        assert raw("GET", f"/{parted}/k?attributes").status == 400
        answer = raw("GET", f"/{parted}/k?attributes", {"x-amz-object-attributes": "Nonsense"})
        assert (answer.status, answer.code) == (400, "InvalidArgument")

    def test_attributes_of_nothing(self, s3, parted):
        with refused(404, "NoSuchKey"):
            s3.get_object_attributes(Bucket=parted, Key="nothing", ObjectAttributes=["ETag"])


class TestCopiedParts:
    def test_whole_objects_and_ranges(self, s3, bucket, upload):
        data = bytes(range(256)) * (PART // 256)
        s3.put_object(Bucket=bucket, Key="source", Body=data)
        first = s3.upload_part_copy(**upload.named, PartNumber=1, CopySource=f"{bucket}/source")
        second = s3.upload_part_copy(**upload.named, PartNumber=2, CopySource={"Bucket": bucket, "Key": "source"}, CopySourceRange="bytes=10-19")
        parts = [{"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]} for number, answer in ((1, first), (2, second))]
        assert parts[1]["ETag"] == f'"{hashlib.md5(data[10:20]).hexdigest()}"' and "LastModified" in second["CopyPartResult"]
        upload.complete(parts)
        assert body(s3.get_object(Bucket=bucket, Key="k")) == data + data[10:20]

    def test_versions(self, s3, versioned):
        old = s3.put_object(Bucket=versioned, Key="source", Body=b"old")["VersionId"]
        s3.put_object(Bucket=versioned, Key="source", Body=b"new")
        upload = Upload(s3, versioned, "k")
        answer = s3.upload_part_copy(**upload.named, PartNumber=1, CopySource={"Bucket": versioned, "Key": "source", "VersionId": old})
        assert answer["CopySourceVersionId"] == old
        upload.complete([{"PartNumber": 1, "ETag": answer["CopyPartResult"]["ETag"]}])
        assert body(s3.get_object(Bucket=versioned, Key="k")) == b"old"

    def test_odd_keys(self, s3, bucket, upload):
        for number, key in enumerate([" ", "ü/é", "a?versionId=x", "a+b%20c", "_"], 1):
            s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
            s3.upload_part_copy(**upload.named, PartNumber=number, CopySource={"Bucket": bucket, "Key": key})

    @pytest.mark.parametrize("asked, code", [("bytes=0-100", "InvalidArgument"), ("bytes=5-2", "InvalidArgument"), ("bytes=0-", "InvalidArgument"), ("bytes=-5", "InvalidArgument"),
        ("0-2", "InvalidArgument"), ("bytes=a-b", "InvalidArgument"), ("bytes=0-1,2-3", "InvalidArgument"), ("bytes=10-12", "InvalidArgument")])
    def test_bad_ranges(self, s3, bucket, upload, asked, code):
        s3.put_object(Bucket=bucket, Key="source", Body=b"0123456789")
        with pytest.raises(s3.exceptions.ClientError) as caught:
            s3.upload_part_copy(**upload.named, PartNumber=1, CopySource=f"{bucket}/source", CopySourceRange=asked)
        seen = (status(caught.value.response), caught.value.response["Error"]["Code"])
        assert seen in [(400, code), (416, "InvalidRange")]

    def test_no_source(self, s3, bucket, upload):
        with refused(404, "NoSuchKey"):
            s3.upload_part_copy(**upload.named, PartNumber=1, CopySource=f"{bucket}/nothing")
        with refused(404, "NoSuchBucket"):
            s3.upload_part_copy(**upload.named, PartNumber=1, CopySource="no-such-bucket-at-all/nothing")

    def test_conditions(self, s3, bucket, upload):
        etag = s3.put_object(Bucket=bucket, Key="source", Body=b"x")["ETag"]
        call = dict(**upload.named, PartNumber=1, CopySource=f"{bucket}/source")
        s3.upload_part_copy(**call, CopySourceIfMatch=etag)
        with refused(412, "PreconditionFailed"):
            s3.upload_part_copy(**call, CopySourceIfNoneMatch=etag)

    def test_anothers_object(self, s3, bob, bucket):
        s3.put_object(Bucket=bucket, Key="source", Body=b"x")
        own = fresh_name()
        bob.create_bucket(Bucket=own)
        upload = Upload(bob, own, "k")
        with refused(403, "AccessDenied"):
            bob.upload_part_copy(**upload.named, PartNumber=1, CopySource=f"{bucket}/source")


class TestLists:
    def test_parts(self, s3, upload):
        for number in (1, 2, 3, 7):
            upload.part(number, str(number).encode())
        answer = s3.list_parts(**upload.named)
        assert [part["PartNumber"] for part in answer["Parts"]] == [1, 2, 3, 7] and not answer["IsTruncated"]
        assert answer["Parts"][0]["Size"] == 1 and answer["Parts"][0]["ETag"] == upload.parts[0]["ETag"] and "LastModified" in answer["Parts"][0]
        assert answer["Initiator"]["ID"] == answer["Owner"]["ID"] == "ann" and answer["StorageClass"] == "STANDARD"
        page = s3.list_parts(**upload.named, MaxParts=2)
        assert [part["PartNumber"] for part in page["Parts"]] == [1, 2] and page["IsTruncated"] and page["NextPartNumberMarker"] == 2
        page = s3.list_parts(**upload.named, MaxParts=2, PartNumberMarker=2)
        assert [part["PartNumber"] for part in page["Parts"]] == [3, 7] and not page["IsTruncated"]

    @pytest.mark.parametrize("query", ["max-parts=-1", "max-parts=x", "part-number-marker=x"])
    def test_bad_pages(self, raw, upload, query):
        answer = raw("GET", f"/{upload.named['Bucket']}/k?uploadId={upload.id}&{query}")
        assert (answer.status, answer.code) == (400, "InvalidArgument")

    def test_uploads(self, s3, bucket):
        ids = {key: [Upload(s3, bucket, key).id for _ in range(2)] for key in ("a", "b/1", "b/2")}
        answer = s3.list_multipart_uploads(Bucket=bucket)
        assert [entry["Key"] for entry in answer["Uploads"]] == ["a", "a", "b/1", "b/1", "b/2", "b/2"]
        assert {entry["UploadId"] for entry in answer["Uploads"]} == {upload for each in ids.values() for upload in each}
        entry = answer["Uploads"][0]
        assert entry["Owner"]["ID"] == "ann" and entry["Initiator"]["ID"] == "ann" and entry["StorageClass"] == "STANDARD" and entry["Initiated"]
        seen, at = [], {}
        for _ in range(10):
            page = s3.list_multipart_uploads(Bucket=bucket, MaxUploads=1, **at)
            seen += [entry["UploadId"] for entry in page["Uploads"]]
            if not page["IsTruncated"]:
                break
            at = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}
        assert seen == [entry["UploadId"] for entry in answer["Uploads"]]

    def test_uploads_by_prefix_and_delimiter(self, s3, bucket):
        for key in ("a", "b/1", "b/2", "c"):
            Upload(s3, bucket, key)
        answer = s3.list_multipart_uploads(Bucket=bucket, Delimiter="/")
        assert [entry["Key"] for entry in answer["Uploads"]] == ["a", "c"] and answer["CommonPrefixes"] == [{"Prefix": "b/"}]
        answer = s3.list_multipart_uploads(Bucket=bucket, Prefix="b/")
        assert [entry["Key"] for entry in answer["Uploads"]] == ["b/1", "b/2"] and answer["Prefix"] == "b/"
        answer = s3.list_multipart_uploads(Bucket=bucket, KeyMarker="a")
        assert [entry["Key"] for entry in answer["Uploads"]] == ["b/1", "b/2", "c"]

    def test_no_uploads(self, s3, bucket):
        answer = s3.list_multipart_uploads(Bucket=bucket)
        assert "Uploads" not in answer and answer["IsTruncated"] is False and answer["MaxUploads"] == 1000


class TestChecksums:
    @pytest.mark.parametrize("algorithm, kind", [("CRC32", "COMPOSITE"), ("CRC32C", "COMPOSITE"), ("SHA1", "COMPOSITE"), ("SHA256", "COMPOSITE"),
                                                  ("CRC32", "FULL_OBJECT"), ("CRC32C", "FULL_OBJECT"), ("CRC64NVME", "FULL_OBJECT")])
    def test_of_parts_and_of_the_whole(self, s3, bucket, algorithm, kind):
        name = f"Checksum{algorithm}"
        answer = s3.create_multipart_upload(Bucket=bucket, Key="k", ChecksumAlgorithm=algorithm, ChecksumType=kind)
        assert (answer["ChecksumAlgorithm"], answer["ChecksumType"]) == (algorithm, kind)
        named, parts, data = dict(Bucket=bucket, Key="k", UploadId=answer["UploadId"]), [], [b"a" * PART, b"b"]
        for number, part in enumerate(data, 1):
            sent = s3.upload_part(**named, PartNumber=number, Body=part, ChecksumAlgorithm=algorithm)
            parts.append({"PartNumber": number, "ETag": sent["ETag"], name: sent[name]})
        listed = s3.list_parts(**named)
        assert (listed["ChecksumAlgorithm"], listed["ChecksumType"]) == (algorithm, kind) and listed["Parts"][0][name] == parts[0][name]
        done = s3.complete_multipart_upload(**named, MultipartUpload={"Parts": parts}, ChecksumType=kind)
        assert done["ChecksumType"] == kind and done[name].endswith("-2") == (kind == "COMPOSITE")
        head = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
        assert (head[name], head["ChecksumType"]) == (done[name], kind)
        if kind == "FULL_OBJECT":
            s3.put_object(Bucket=bucket, Key="whole", Body=b"".join(data), ChecksumAlgorithm=algorithm)
            assert s3.head_object(Bucket=bucket, Key="whole", ChecksumMode="ENABLED")[name] == done[name]

    @pytest.mark.parametrize("algorithm, kind", [("SHA1", "FULL_OBJECT"), ("SHA256", "FULL_OBJECT"), ("CRC64NVME", "COMPOSITE")])
    def test_kinds_that_do_not_go_together(self, s3, bucket, algorithm, kind):
        with refused(400, "InvalidRequest"):
            s3.create_multipart_upload(Bucket=bucket, Key="k", ChecksumAlgorithm=algorithm, ChecksumType=kind)

    def test_a_part_that_does_not_match(self, s3, bucket):
        upload = Upload(s3, bucket, "k", ChecksumAlgorithm="SHA256")
        with refused(400, "BadDigest"):
            upload.part(1, b"x", ChecksumSHA256="AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")

    def test_a_complete_with_another_checksum(self, s3, bucket):
        upload = Upload(s3, bucket, "k", ChecksumAlgorithm="SHA256")
        upload.part(1, b"x", ChecksumAlgorithm="SHA256")
        with refused(400, "InvalidPart"):
            upload.complete([{**upload.parts[0], "ChecksumSHA256": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}])

    @pytest.mark.parametrize("algorithm, kind, refusal", [("SHA256", "COMPOSITE", True), ("CRC32", "COMPOSITE", True), ("CRC32", "FULL_OBJECT", False), ("CRC64NVME", "FULL_OBJECT", False)])
    def test_a_complete_without_the_checksums_of_its_parts(self, s3, bucket, algorithm, kind, refusal):
        upload = Upload(s3, bucket, "k", ChecksumAlgorithm=algorithm, ChecksumType=kind)
        upload.part(1, b"x", ChecksumAlgorithm=algorithm)
        bare = [{"PartNumber": 1, "ETag": upload.parts[0]["ETag"]}]
        if not refusal:
            assert upload.complete(bare)["ChecksumType"] == kind
            return
        with refused(400, "InvalidRequest"):
            upload.complete(bare)

    def test_a_part_of_another_algorithm(self, s3, bucket):
        upload = Upload(s3, bucket, "k", ChecksumAlgorithm="SHA256")
        with refused(400, "InvalidRequest"):
            upload.part(1, b"x", ChecksumAlgorithm="CRC32C")

    def test_the_size_that_was_announced(self, s3, bucket, upload):
        upload.part(1, b"12345")
        with refused(400, "InvalidRequest"):
            upload.complete(MpuObjectSize=6)
        upload.complete(MpuObjectSize=5)


@pytest.mark.parametrize("document", [b"", b"nonsense", b"<CompleteMultipartUpload><Part><PartNumber>x</PartNumber></Part></CompleteMultipartUpload>",
    b"<CompleteMultipartUpload><Part><ETag>a</ETag></Part></CompleteMultipartUpload>", b"<Other/>", b"<!DOCTYPE a [<!ENTITY b 'c'>]><CompleteMultipartUpload>&b;</CompleteMultipartUpload>"])
def test_a_malformed_complete(raw, upload, document):
    upload.part(1, b"x")
    answer = raw("POST", f"/{upload.named['Bucket']}/k?uploadId={upload.id}", body=document)
    assert answer.status == 400 and answer.code in ("MalformedXML", "InvalidRequest", "InvalidPart"), answer.body
