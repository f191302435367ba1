"""Buckets: names, creation, listing, deletion, and the answers about what is not configured."""

import datetime

import pytest
from conftest import fresh_name, headers, refused, status


@pytest.mark.parametrize("name", ["ab", "a" * 64, "1.2.3.4", "192.168.5.123"])
def test_a_name_of_bad_length_or_shape_is_refused(raw, name):
    answer = raw("PUT", f"/{name}")
    assert (answer.status, answer.code) == (400, "InvalidBucketName")


@pytest.mark.parametrize("name", ["Upper", "under_score", "-dash", "dash-", "dots..two", "dot.-dash", "dash-.dot", ".dot", "dot.", "a!b", "sp%20ace"])
def test_a_name_with_bad_characters_is_refused(raw, name):
    answer = raw("PUT", f"/{name}")
    assert (answer.status, answer.code) == (400, "InvalidBucketName")


@pytest.mark.parametrize("name", ["abc", "a.b.c", "0digit", "a" * 63, "with-dash-and.dot"])
def test_a_good_name_is_taken(s3, name):
    answer = s3.create_bucket(Bucket=name)
    assert status(answer) == 200 and answer["Location"] == f"/{name}"
    assert status(s3.head_bucket(Bucket=name)) == 200


def test_ones_own_bucket_exists_already(s3, bucket):
    with refused(409, "BucketAlreadyOwnedByYou"):
        s3.create_bucket(Bucket=bucket)


def test_anothers_bucket_exists_already(bob, bucket):
    with refused(409, "BucketAlreadyExists"):
        bob.create_bucket(Bucket=bucket)


def test_a_bucket_is_not_made_anonymously(nobody):
    with refused(403, "AccessDenied"):
        nobody.create_bucket(Bucket=fresh_name())


def test_the_location_that_was_asked_for_is_told(s3):
    name = fresh_name()
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "dc-a"})
    assert s3.get_bucket_location(Bucket=name)["LocationConstraint"] == "dc-a"


def test_a_malformed_configuration_makes_no_bucket(raw, s3):
    name = fresh_name()
    answer = raw("PUT", f"/{name}", body=b"<CreateBucketConfiguration><LocationCons")
    assert (answer.status, answer.code) == (400, "MalformedXML")
    with refused(404):
        s3.head_bucket(Bucket=name)


def test_a_head_of_no_bucket_has_no_body(raw):
    answer = raw("HEAD", f"/{fresh_name()}")
    assert (answer.status, answer.body) == (404, b"")


def test_a_head_tells_the_region(s3, bucket):
    assert headers(s3.head_bucket(Bucket=bucket))["x-amz-bucket-region"] == "dc-a"


@pytest.mark.parametrize("operation", ["list_objects", "list_objects_v2", "list_object_versions", "delete_bucket", "get_bucket_location",
    "get_bucket_acl", "get_bucket_policy", "get_bucket_versioning", "get_bucket_tagging", "get_bucket_cors", "get_bucket_lifecycle_configuration",
    "get_object_lock_configuration", "list_multipart_uploads", "get_public_access_block", "get_bucket_ownership_controls", "get_bucket_encryption"])
def test_what_is_asked_of_no_bucket(s3, operation):
    with refused(404, "NoSuchBucket"):
        getattr(s3, operation)(Bucket=fresh_name())


def test_writes_into_no_bucket(s3):
    with refused(404, "NoSuchBucket"):
        s3.put_object(Bucket=fresh_name(), Key="k", Body=b"x")
    with refused(404, "NoSuchBucket"):
        s3.create_multipart_upload(Bucket=fresh_name(), Key="k")
    with refused(404, "NoSuchBucket"):
        s3.delete_object(Bucket=fresh_name(), Key="k")
    with refused(404, "NoSuchBucket"):
        s3.get_object(Bucket=fresh_name(), Key="k")
    with refused(404, "NoSuchBucket"):
        s3.delete_objects(Bucket=fresh_name(), Delete={"Objects": [{"Key": "k"}]})


def test_an_error_names_its_resource_and_request(raw):
    name = fresh_name()
    answer = raw("GET", f"/{name}/k")
    assert answer.headers["content-type"].startswith("application/xml")
    assert answer.code == "NoSuchBucket" and answer.text("BucketName") == name
    assert answer.text("RequestId") == answer.headers["x-amz-request-id"] and answer.text("HostId")


def test_an_error_of_a_key_names_the_key(raw, bucket):
    answer = raw("GET", f"/{bucket}/nothing")
    assert (answer.status, answer.code, answer.text("Key")) == (404, "NoSuchKey", "nothing")


def test_every_answer_has_a_request_id(s3, bucket):
    first, second = headers(s3.head_bucket(Bucket=bucket)), headers(s3.head_bucket(Bucket=bucket))
    assert first["x-amz-request-id"] != second["x-amz-request-id"] and first["x-amz-id-2"]


def test_a_deleted_bucket_is_gone(s3, bucket):
    assert status(s3.delete_bucket(Bucket=bucket)) == 204
    with refused(404, "NoSuchBucket"):
        s3.delete_bucket(Bucket=bucket)


def test_a_bucket_with_an_object_stays(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k")
    with refused(409, "BucketNotEmpty"):
        s3.delete_bucket(Bucket=bucket)


def test_a_bucket_with_a_delete_marker_stays(s3, versioned):
    s3.delete_object(Bucket=versioned, Key="k")
    with refused(409, "BucketNotEmpty"):
        s3.delete_bucket(Bucket=versioned)


def test_anothers_bucket_is_not_deleted(bob, bucket):
    with refused(403, "AccessDenied"):
        bob.delete_bucket(Bucket=bucket)


def test_expected_owner(s3, bucket):
    assert status(s3.head_bucket(Bucket=bucket, ExpectedBucketOwner="ann")) == 200
    with refused(403, "AccessDenied"):
        s3.list_objects_v2(Bucket=bucket, ExpectedBucketOwner="bob")


class TestListBuckets:
    def test_own_buckets_are_listed_with_owner_and_date(self, s3, bucket):
        answer = s3.list_buckets()
        found = next(entry for entry in answer["Buckets"] if entry["Name"] == bucket)
        age = datetime.datetime.now(datetime.timezone.utc) - found["CreationDate"]
        assert age < datetime.timedelta(minutes=5) and answer["Owner"]["ID"] == "ann"

    def test_others_see_only_theirs(self, bob, bucket):
        assert bucket not in [entry["Name"] for entry in bob.list_buckets()["Buckets"]]

    def test_a_prefix_narrows(self, s3):
        prefix = fresh_name()
        for suffix in "abc":
            s3.create_bucket(Bucket=f"{prefix}-{suffix}")
        answer = s3.list_buckets(Prefix=prefix)
        assert [entry["Name"] for entry in answer["Buckets"]] == [f"{prefix}-{suffix}" for suffix in "abc"]
        assert answer["Prefix"] == prefix and "ContinuationToken" not in answer

    def test_pages_follow_each_other(self, s3):
        prefix = fresh_name()
        for suffix in "abc":
            s3.create_bucket(Bucket=f"{prefix}-{suffix}")
        first = s3.list_buckets(Prefix=prefix, MaxBuckets=2)
        assert len(first["Buckets"]) == 2
        second = s3.list_buckets(Prefix=prefix, MaxBuckets=2, ContinuationToken=first["ContinuationToken"])
        assert [entry["Name"] for entry in second["Buckets"]] == [f"{prefix}-c"] and "ContinuationToken" not in second

    @pytest.mark.parametrize("value", ["0", "10001", "-1", "x"])
    def test_a_bad_page_size_is_refused(self, raw, value):
        answer = raw("GET", f"/?max-buckets={value}")
        assert (answer.status, answer.code) == (400, "InvalidArgument")

    def test_a_bad_token_is_refused(self, raw):
        answer = raw("GET", "/?continuation-token=%21%21not-one")
        assert (answer.status, answer.code) == (400, "InvalidArgument")

    def test_nobody_lists(self, raw):
        answer = raw("GET", "/", user=None)
        assert answer.status in (307, 403)

    def test_the_region_filters(self, s3, bucket):
        assert bucket in [entry["Name"] for entry in s3.list_buckets(BucketRegion="dc-a")["Buckets"]]


class TestConfigurations:
    """What a bucket answers about what was never set: what tools ask when they refresh their view of it."""

    @pytest.mark.parametrize("operation, code", [
        ("get_bucket_policy", "NoSuchBucketPolicy"),
        ("get_bucket_tagging", "NoSuchTagSet"),
        ("get_bucket_cors", "NoSuchCORSConfiguration"),
        ("get_bucket_website", "NoSuchWebsiteConfiguration"),
        ("get_bucket_lifecycle_configuration", "NoSuchLifecycleConfiguration"),
        ("get_bucket_replication", "ReplicationConfigurationNotFoundError"),
        ("get_object_lock_configuration", "ObjectLockConfigurationNotFoundError"),
    ])
    def test_absent(self, s3, bucket, operation, code):
        with refused(404, code):
            getattr(s3, operation)(Bucket=bucket)

    @pytest.mark.parametrize("operation, code", [
        ("get_bucket_analytics_configuration", "NoSuchConfiguration"),
        ("get_bucket_inventory_configuration", "NoSuchConfiguration"),
        ("get_bucket_metrics_configuration", "NoSuchConfiguration"),
        ("get_bucket_intelligent_tiering_configuration", "NoSuchConfiguration"),
    ])
    def test_absent_by_id(self, s3, bucket, operation, code):
        with refused(404, code):
            getattr(s3, operation)(Bucket=bucket, Id="one")

    @pytest.mark.parametrize("operation", ["list_bucket_analytics_configurations", "list_bucket_inventory_configurations",
        "list_bucket_metrics_configurations", "list_bucket_intelligent_tiering_configurations"])
    def test_empty_lists(self, s3, bucket, operation):
        answer = getattr(s3, operation)(Bucket=bucket)
        assert status(answer) == 200 and not answer.get("IsTruncated")

    def test_defaults(self, s3, bucket):
        assert s3.get_bucket_request_payment(Bucket=bucket)["Payer"] == "BucketOwner"
        assert "LoggingEnabled" not in s3.get_bucket_logging(Bucket=bucket)
        assert "Status" not in s3.get_bucket_accelerate_configuration(Bucket=bucket)
        assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)
        assert not [name for name in s3.get_bucket_notification_configuration(Bucket=bucket) if name.endswith("Configurations")]

    def test_an_unknown_subresource_is_not_a_listing(self, s3, bucket):
        s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={})
        assert status(s3.put_bucket_request_payment(Bucket=bucket, RequestPaymentConfiguration={"Payer": "BucketOwner"})) == 200

    def test_versioning_is_told_back(self, s3, bucket):
        for wanted in ("Enabled", "Suspended", "Enabled"):
            s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": wanted})
            assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == wanted

    @pytest.mark.parametrize("document", [b"", b"<VersioningConfiguration><Status>Maybe</Status></VersioningConfiguration>", b"<Versioning"])
    def test_bad_versioning_is_malformed(self, raw, bucket, document):
        answer = raw("PUT", f"/{bucket}?versioning", body=document)
        assert (answer.status, answer.code) in [(400, "MalformedXML"), (400, "MissingRequestBodyError")]

    def test_lifecycle_is_told_back(self, s3, bucket):
        rules = [{"ID": "old", "Status": "Enabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 30}},
                 {"ID": "parts", "Status": "Disabled", "Filter": {"Prefix": ""}, "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 2}}]
        s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": rules})
        assert s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"] == rules
        assert status(s3.delete_bucket_lifecycle(Bucket=bucket)) == 204
        with refused(404, "NoSuchLifecycleConfiguration"):
            s3.get_bucket_lifecycle_configuration(Bucket=bucket)

    @pytest.mark.parametrize("rule, code", [
        ({"ID": "a" * 256, "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}, "InvalidArgument"),
        ({"ID": "a", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 0}}, "InvalidArgument"),
        ({"ID": "a", "Status": "enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}, "MalformedXML"),
        ({"ID": "a", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Date": "2017-09-27T13:14:15Z"}}, "InvalidArgument"),
    ])
    def test_a_bad_lifecycle_rule(self, s3, bucket, rule, code):
        with refused(400, code):
            s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [rule]})

    def test_rules_of_the_same_id(self, s3, bucket):
        rule = {"ID": "a", "Status": "Enabled", "Filter": {"Prefix": "x"}, "Expiration": {"Days": 1}}
        with refused(400, "InvalidArgument"):
            s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [rule, {**rule, "Filter": {"Prefix": "y"}}]})


def test_a_refresh_of_everything(s3, versioned):
    """What infrastructure tools ask of every bucket they know: nothing may be a 501 or a 500."""
    asked = [name for name in dir(s3) if name.startswith(("get_bucket_", "get_object_lock", "get_public")) and not name.endswith(("metadata_configuration", "metadata_table_configuration", "abac"))]
    for name in asked:
        shape = s3.meta.service_model.operation_model(s3.meta.method_to_api_mapping[name]).input_shape
        more = {"Id": "one"} if "Id" in shape.required_members else {}
        try:
            answer = getattr(s3, name)(Bucket=versioned, **more)
        except s3.exceptions.ClientError as failure:
            answer = failure.response
            assert answer["Error"]["Code"].startswith("NoSuch") or answer["Error"]["Code"].endswith("NotFoundError"), (name, answer)
        assert status(answer) in (200, 404), (name, answer)
    assert len(asked) > 15


def test_an_upload_tells_when_it_is_given_up(s3, bucket):
    rule = {"ID": "parts", "Status": "Enabled", "Filter": {"Prefix": "a/"}, "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 3}}
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [rule]})
    answer = s3.create_multipart_upload(Bucket=bucket, Key="a/k")
    assert answer["AbortRuleId"] == "parts" and (answer["AbortDate"].hour, answer["AbortDate"].minute) == (0, 0)
    assert "AbortDate" not in s3.create_multipart_upload(Bucket=bucket, Key="k")


def test_names_that_s3_keeps_for_itself(raw):
    for name in ("xn--name", "sthree-name", "amzn-s3-demo-name", "name-s3alias", "name--ol-s3", "name.mrap", "name--x-s3", "name--table-s3"):
        answer = raw("PUT", f"/{name}")
        assert (answer.status, answer.code) == (400, "InvalidBucketName"), name


def test_logs_go_to_a_bucket_that_is_there(s3, bob, bucket):
    def to(target):
        s3.put_bucket_logging(Bucket=bucket, BucketLoggingStatus={"LoggingEnabled": {"TargetBucket": target, "TargetPrefix": "l/"}})

    with refused(400, "InvalidTargetBucketForLogging"):
        to(fresh_name())
    others = fresh_name()
    bob.create_bucket(Bucket=others)
    with refused(400, "InvalidTargetBucketForLogging"):
        to(others)
    to(bucket)
    assert s3.get_bucket_logging(Bucket=bucket)["LoggingEnabled"]["TargetBucket"] == bucket


@pytest.mark.parametrize("kind", ["metrics", "analytics", "inventory", "intelligent-tiering"])
def test_a_delete_of_what_is_never_there(raw, bucket, kind):
    answer = raw("DELETE", f"/{bucket}?{kind}&id=x")
    assert (answer.status, answer.code) == (404, "NoSuchConfiguration")


def test_an_unfinished_upload_keeps_no_bucket(s3, bucket):
    s3.create_multipart_upload(Bucket=bucket, Key="k")
    assert status(s3.delete_bucket(Bucket=bucket)) == 204
