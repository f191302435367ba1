"""Object lock: configuration, retention in both modes, legal holds, and what they keep from being deleted."""

import datetime
import time

import pytest
from conftest import body, fresh_name, refused, status


def later(**delta):
    return (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(**delta)).replace(microsecond=0)


def put(s3, bucket, **more):
    return s3.put_object(Bucket=bucket, Key="k", Body=b"x", **more)["VersionId"]


def configuration(mode="GOVERNANCE", enabled="Enabled", **period):
    return {"ObjectLockEnabled": enabled, "Rule": {"DefaultRetention": {"Mode": mode, **period}}}


class TestConfiguration:
    def test_a_locked_bucket_is_versioned(self, s3, locked):
        assert s3.get_object_lock_configuration(Bucket=locked)["ObjectLockConfiguration"] == {"ObjectLockEnabled": "Enabled"}
        assert s3.get_bucket_versioning(Bucket=locked)["Status"] == "Enabled"
        with refused(409, "InvalidBucketState"):
            s3.put_bucket_versioning(Bucket=locked, VersioningConfiguration={"Status": "Suspended"})

    @pytest.mark.parametrize("period", [{"Days": 1}, {"Years": 1}])
    @pytest.mark.parametrize("mode", ["GOVERNANCE", "COMPLIANCE"])
    def test_told_back(self, s3, locked, mode, period):
        wanted = configuration(mode, **period)
        s3.put_object_lock_configuration(Bucket=locked, ObjectLockConfiguration=wanted)
        assert s3.get_object_lock_configuration(Bucket=locked)["ObjectLockConfiguration"] == wanted

    @pytest.mark.parametrize("wanted, status_code, code", [
        (configuration(Days=0), 400, "InvalidRetentionPeriod"), (configuration(Years=-1), 400, "InvalidRetentionPeriod"),
        (configuration(Days=1, Years=1), 400, "MalformedXML"), (configuration(mode="governance", Days=1), 400, "MalformedXML"), (configuration(mode="other", Days=1), 400, "MalformedXML"),
        (configuration(enabled="Disabled", Days=1), 400, "MalformedXML"), (configuration(), 400, "MalformedXML"), (configuration(Days=36501), 400, "InvalidRetentionPeriod"),
    ])
    def test_bad(self, s3, locked, wanted, status_code, code):
        with pytest.raises(s3.exceptions.ClientError) as caught:
            s3.put_object_lock_configuration(Bucket=locked, ObjectLockConfiguration=wanted)
        seen = (status(caught.value.response), caught.value.response["Error"]["Code"])
        assert seen in [(status_code, code), (400, "InvalidArgument")] if code == "InvalidRetentionPeriod" else seen == (status_code, code)

    def test_a_bucket_without_versions_has_no_lock(self, s3, bucket):
        with refused(409, "InvalidBucketState"):
            s3.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=configuration(Days=1))

    def test_a_versioned_bucket_may_get_one_later(self, s3, versioned):
        s3.put_object_lock_configuration(Bucket=versioned, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"})
        assert s3.get_object_lock_configuration(Bucket=versioned)["ObjectLockConfiguration"]["ObjectLockEnabled"] == "Enabled"

    def test_a_default_holds_for_new_objects(self, s3, locked):
        s3.put_object_lock_configuration(Bucket=locked, ObjectLockConfiguration=configuration("COMPLIANCE", Days=1))
        version = put(s3, locked)
        head = s3.head_object(Bucket=locked, Key="k")
        assert head["ObjectLockMode"] == "COMPLIANCE" and abs(head["ObjectLockRetainUntilDate"] - later(days=1)) < datetime.timedelta(minutes=2)
        with refused(403, "AccessDenied"):
            s3.delete_object(Bucket=locked, Key="k", VersionId=version)


class TestRetention:
    @pytest.mark.parametrize("mode", ["GOVERNANCE", "COMPLIANCE"])
    def test_a_kept_version_stays(self, s3, locked, mode):
        version, until = put(s3, locked), later(hours=1)
        s3.put_object_retention(Bucket=locked, Key="k", Retention={"Mode": mode, "RetainUntilDate": until})
        assert s3.get_object_retention(Bucket=locked, Key="k")["Retention"] == {"Mode": mode, "RetainUntilDate": until}
        head = s3.head_object(Bucket=locked, Key="k")
        assert (head["ObjectLockMode"], head["ObjectLockRetainUntilDate"]) == (mode, until)
        with refused(403, "AccessDenied"):
            s3.delete_object(Bucket=locked, Key="k", VersionId=version)
        marker = s3.delete_object(Bucket=locked, Key="k")  # hides it, which loses nothing
        assert marker["DeleteMarker"] is True
        assert body(s3.get_object(Bucket=locked, Key="k", VersionId=version)) == b"x"
        assert status(s3.delete_object(Bucket=locked, Key="k", VersionId=marker["VersionId"])) == 204

    def test_governance_is_bypassed(self, s3, locked):
        version = put(s3, locked, ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=later(hours=1))
        assert status(s3.delete_object(Bucket=locked, Key="k", VersionId=version, BypassGovernanceRetention=True)) == 204

    def test_compliance_is_not(self, s3, locked):
        version = put(s3, locked, ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=later(hours=1))
        with refused(403, "AccessDenied"):
            s3.delete_object(Bucket=locked, Key="k", VersionId=version, BypassGovernanceRetention=True)

    def test_only_those_who_may_bypass(self, s3, bob, locked):
        import json
        version = put(s3, locked, ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=later(hours=1))
        document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "bob"}, "Action": ["s3:DeleteObjectVersion", "s3:DeleteObject"], "Resource": f"arn:aws:s3:::{locked}/*"}]}
        s3.put_bucket_policy(Bucket=locked, Policy=json.dumps(document))
        with refused(403, "AccessDenied"):
            bob.delete_object(Bucket=locked, Key="k", VersionId=version, BypassGovernanceRetention=True)

    def test_longer_is_always_allowed(self, s3, locked):
        put(s3, locked, ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=later(hours=1))
        s3.put_object_retention(Bucket=locked, Key="k", Retention={"Mode": "COMPLIANCE", "RetainUntilDate": later(hours=2)})

    @pytest.mark.parametrize("mode, changed", [("COMPLIANCE", {"Mode": "COMPLIANCE", "RetainUntilDate": later(minutes=30)}), ("COMPLIANCE", {"Mode": "GOVERNANCE", "RetainUntilDate": later(hours=2)}),
                                               ("GOVERNANCE", {"Mode": "GOVERNANCE", "RetainUntilDate": later(minutes=30)})])
    def test_less_is_refused(self, s3, locked, mode, changed):
        put(s3, locked, ObjectLockMode=mode, ObjectLockRetainUntilDate=later(hours=1))
        with refused(403, "AccessDenied"):
            s3.put_object_retention(Bucket=locked, Key="k", Retention=changed)
        if mode == "GOVERNANCE":
            s3.put_object_retention(Bucket=locked, Key="k", Retention=changed, BypassGovernanceRetention=True)

    def test_governance_ends_by_a_bypass(self, s3, locked):
        version = put(s3, locked, ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=later(hours=1))
        s3.put_object_retention(Bucket=locked, Key="k", Retention={}, BypassGovernanceRetention=True)
        assert status(s3.delete_object(Bucket=locked, Key="k", VersionId=version)) == 204

    def test_of_one_version(self, s3, locked):
        first, second = put(s3, locked), put(s3, locked)
        s3.put_object_retention(Bucket=locked, Key="k", VersionId=first, Retention={"Mode": "GOVERNANCE", "RetainUntilDate": later(hours=1)})
        with refused(404, "NoSuchObjectLockConfiguration"):
            s3.get_object_retention(Bucket=locked, Key="k")
        with refused(403, "AccessDenied"):
            s3.delete_object(Bucket=locked, Key="k", VersionId=first)
        assert status(s3.delete_object(Bucket=locked, Key="k", VersionId=second)) == 204

    def test_it_ends(self, s3, locked):
        until = later(seconds=5)  # room for a busy machine to be refused in
        version = put(s3, locked, ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=until)
        with refused(403, "AccessDenied"):
            s3.delete_object(Bucket=locked, Key="k", VersionId=version)
        while datetime.datetime.now(datetime.timezone.utc) < until + datetime.timedelta(milliseconds=300):
            time.sleep(0.1)
        assert status(s3.delete_object(Bucket=locked, Key="k", VersionId=version)) == 204

    def test_deletes_of_many(self, s3, locked):
        kept = put(s3, locked, ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=later(hours=1))
        free = put(s3, locked)
        answer = s3.delete_objects(Bucket=locked, Delete={"Objects": [{"Key": "k", "VersionId": version} for version in (kept, free)]})
        assert [entry["VersionId"] for entry in answer["Deleted"]] == [free]
        assert [(entry["VersionId"], entry["Code"]) for entry in answer["Errors"]] == [(kept, "AccessDenied")]
        answer = s3.delete_objects(Bucket=locked, Delete={"Objects": [{"Key": "k", "VersionId": kept}]}, BypassGovernanceRetention=True)
        assert "Errors" not in answer

    @pytest.mark.parametrize("document, code", [
        (b"<Retention><Mode>governance</Mode><RetainUntilDate>2100-01-01T00:00:00Z</RetainUntilDate></Retention>", "MalformedXML"),
        (b"<Retention><Mode>OTHER</Mode><RetainUntilDate>2100-01-01T00:00:00Z</RetainUntilDate></Retention>", "MalformedXML"),
        (b"<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>tomorrow</RetainUntilDate></Retention>", "MalformedXML"),
        (b"<Retention><Mode>GOVERNANCE</Mode></Retention>", "MalformedXML"),
        (b"<Retention><RetainUntilDate>2100-01-01T00:00:00Z</RetainUntilDate></Retention>", "MalformedXML"),
        (b"<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>2000-01-01T00:00:00Z</RetainUntilDate></Retention>", "InvalidArgument"),
    ])
    def test_bad(self, raw, s3, locked, document, code):
        import base64
        import hashlib
        put(s3, locked)
        answer = raw("PUT", f"/{locked}/k?retention", {"Content-MD5": base64.b64encode(hashlib.md5(document).digest()).decode()}, document)
        assert (answer.status, answer.code) == (400, code)

    @pytest.mark.parametrize("more", [{"x-amz-object-lock-mode": "GOVERNANCE"}, {"x-amz-object-lock-retain-until-date": "2100-01-01T00:00:00Z"},
        {"x-amz-object-lock-mode": "OTHER", "x-amz-object-lock-retain-until-date": "2100-01-01T00:00:00Z"}, {"x-amz-object-lock-mode": "GOVERNANCE", "x-amz-object-lock-retain-until-date": "2000-01-01T00:00:00Z"},
        {"x-amz-object-lock-mode": "GOVERNANCE", "x-amz-object-lock-retain-until-date": "tomorrow"}, {"x-amz-object-lock-legal-hold": "MAYBE"}])
    def test_bad_headers(self, raw, locked, more):
        answer = raw("PUT", f"/{locked}/k", more, b"x")
        assert (answer.status, answer.code) == (400, "InvalidArgument")

    def test_a_bucket_without_a_lock(self, s3, bucket):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x")
        with refused(400, "InvalidRequest"):
            s3.put_object_retention(Bucket=bucket, Key="k", Retention={"Mode": "GOVERNANCE", "RetainUntilDate": later(hours=1)})
        with refused(400, "InvalidRequest"):
            s3.get_object_retention(Bucket=bucket, Key="k")
        with refused(400, "InvalidRequest"):
            s3.put_object(Bucket=bucket, Key="k", Body=b"x", ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=later(hours=1))

    def test_an_upload_in_parts(self, s3, locked):
        upload = s3.create_multipart_upload(Bucket=locked, Key="k", ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=later(hours=1), ObjectLockLegalHoldStatus="ON")["UploadId"]
        etag = s3.upload_part(Bucket=locked, Key="k", UploadId=upload, PartNumber=1, Body=b"x")["ETag"]
        s3.complete_multipart_upload(Bucket=locked, Key="k", UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]})
        head = s3.head_object(Bucket=locked, Key="k")
        assert (head["ObjectLockMode"], head["ObjectLockLegalHoldStatus"]) == ("GOVERNANCE", "ON")

    def test_a_copy(self, s3, locked):
        put(s3, locked, ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=later(hours=1))
        s3.copy_object(Bucket=locked, Key="copy", CopySource=f"{locked}/k")
        assert "ObjectLockMode" not in s3.head_object(Bucket=locked, Key="copy")
        s3.copy_object(Bucket=locked, Key="copy", CopySource=f"{locked}/k", ObjectLockLegalHoldStatus="ON")
        assert s3.head_object(Bucket=locked, Key="copy")["ObjectLockLegalHoldStatus"] == "ON"


class TestLegalHold:
    def test_on_and_off(self, s3, locked):
        version = put(s3, locked)
        s3.put_object_legal_hold(Bucket=locked, Key="k", LegalHold={"Status": "ON"})
        assert s3.get_object_legal_hold(Bucket=locked, Key="k")["LegalHold"] == {"Status": "ON"}
        assert s3.head_object(Bucket=locked, Key="k")["ObjectLockLegalHoldStatus"] == "ON"
        with refused(403, "AccessDenied"):
            s3.delete_object(Bucket=locked, Key="k", VersionId=version, BypassGovernanceRetention=True)
        s3.put_object_legal_hold(Bucket=locked, Key="k", LegalHold={"Status": "OFF"})
        assert s3.get_object_legal_hold(Bucket=locked, Key="k")["LegalHold"] == {"Status": "OFF"}
        assert status(s3.delete_object(Bucket=locked, Key="k", VersionId=version)) == 204

    def test_never_set(self, s3, locked):
        put(s3, locked)
        with refused(404, "NoSuchObjectLockConfiguration"):
            s3.get_object_legal_hold(Bucket=locked, Key="k")

    def test_an_unknown_state(self, raw, s3, locked):
        import base64
        import hashlib
        put(s3, locked)
        document = b"<LegalHold><Status>on</Status></LegalHold>"
        answer = raw("PUT", f"/{locked}/k?legal-hold", {"Content-MD5": base64.b64encode(hashlib.md5(document).digest()).decode()}, document)
        assert (answer.status, answer.code) == (400, "MalformedXML")

    def test_a_bucket_without_a_lock(self, s3, bucket):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x")
        with refused(400, "InvalidRequest"):
            s3.put_object_legal_hold(Bucket=bucket, Key="k", LegalHold={"Status": "ON"})
        with refused(400, "InvalidRequest"):
            s3.get_object_legal_hold(Bucket=bucket, Key="k")
