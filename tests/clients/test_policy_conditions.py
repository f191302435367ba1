"""Bucket policies by what they may ask about: headers, tags, sources of copies, addresses, versions, principals."""

import json

import pytest
from conftest import body, fresh_name, refused, status


def allow(s3, bucket, action, condition=None, effect="Allow", principal=None, extra=(), **more):
    resources = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    statement = {"Effect": effect, "Principal": principal or {"AWS": "bob"}, "Action": action, "Resource": resources, **more}
    if condition:
        statement["Condition"] = condition
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement, *extra]}))


def test_tags_of_the_request(s3, bob, bucket):
    allow(s3, bucket, ["s3:PutObject", "s3:PutObjectTagging"], {"StringEquals": {"s3:RequestObjectTag/team": "red"}})
    bob.put_object(Bucket=bucket, Key="k", Tagging="team=red")
    for tagging in ({}, {"Tagging": "team=blue"}):
        with refused(403, "AccessDenied"):
            bob.put_object(Bucket=bucket, Key="k", **tagging)


def test_tags_that_an_object_has(s3, bob, bucket):
    s3.put_object(Bucket=bucket, Key="open", Body=b"x", Tagging="level=open")
    s3.put_object(Bucket=bucket, Key="closed", Body=b"x", Tagging="level=closed")
    allow(s3, bucket, ["s3:GetObject", "s3:GetObjectTagging", "s3:PutObjectTagging", "s3:GetObjectAcl"], {"StringEquals": {"s3:ExistingObjectTag/level": "open"}})
    for call in (bob.get_object, bob.get_object_tagging, bob.head_object, bob.get_object_acl):
        assert status(call(Bucket=bucket, Key="open")) == 200
    for call, code in ((bob.get_object, "AccessDenied"), (bob.get_object_tagging, "AccessDenied"), (bob.head_object, None), (bob.get_object_acl, "AccessDenied")):
        with refused(403, code):
            call(Bucket=bucket, Key="closed")


def test_the_source_of_a_copy(s3, bob, bucket):
    source = fresh_name()
    s3.create_bucket(Bucket=source)
    for key in ("public/a", "private/a"):
        s3.put_object(Bucket=source, Key=key, Body=b"x")
    allow(s3, source, "s3:GetObject")
    allow(s3, bucket, "s3:PutObject", {"StringLike": {"s3:x-amz-copy-source": f"{source}/public/*"}})
    bob.copy_object(Bucket=bucket, Key="k", CopySource=f"{source}/public/a", TaggingDirective="REPLACE")
    with refused(403, "AccessDenied"):
        bob.copy_object(Bucket=bucket, Key="k", CopySource=f"{source}/private/a", TaggingDirective="REPLACE")
    with refused(403, "AccessDenied"):
        bob.put_object(Bucket=bucket, Key="k")


def test_the_directive_of_a_copy(s3, bob, bucket):
    s3.put_object(Bucket=bucket, Key="a", Body=b"x")
    allow(s3, bucket, ["s3:GetObject", "s3:PutObject"], extra=[
        {"Effect": "Deny", "Principal": "*", "Action": "s3:PutObject", "Resource": f"arn:aws:s3:::{bucket}/*", "Condition": {"StringEquals": {"s3:x-amz-metadata-directive": "REPLACE"}}}])
    bob.copy_object(Bucket=bucket, Key="b", CopySource=f"{bucket}/a", TaggingDirective="REPLACE")
    with refused(403, "AccessDenied"):
        bob.copy_object(Bucket=bucket, Key="b", CopySource=f"{bucket}/a", MetadataDirective="REPLACE", TaggingDirective="REPLACE")


@pytest.mark.parametrize("condition, passes", [
    ({"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}}, True), ({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, False), ({"NotIpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, True),
    ({"Bool": {"aws:SecureTransport": "false"}}, True), ({"Bool": {"aws:SecureTransport": "true"}}, False),
    ({"StringEquals": {"aws:username": "someone"}}, False), ({"StringNotEquals": {"s3:prefix": "x"}}, True), ({"StringEqualsIfExists": {"s3:x-amz-acl": "private"}}, True),
    ({"Null": {"s3:x-amz-acl": "true"}}, True), ({"Null": {"s3:x-amz-acl": "false"}}, False), ({"DateGreaterThan": {"aws:CurrentTime": "2020-01-01T00:00:00Z"}}, True),
    ({"DateLessThan": {"aws:CurrentTime": "2020-01-01T00:00:00Z"}}, False), ({"StringLike": {"aws:UserAgent": "*otocore*"}}, True), ({"StringLike": {"aws:UserAgent": "curl*"}}, False),
    ({"NumericLessThanEquals": {"s3:max-keys": "10"}}, False),
])
def test_conditions_on_the_request(s3, bob, bucket, condition, passes):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    allow(s3, bucket, "s3:GetObject", condition)
    if passes:
        assert body(bob.get_object(Bucket=bucket, Key="k")) == b"x"
    else:
        with refused(403, "AccessDenied"):
            bob.get_object(Bucket=bucket, Key="k")


@pytest.mark.parametrize("keys, passes", [(5, True), (10, True), (11, False), (None, False)])
def test_the_size_of_a_page(s3, bob, bucket, keys, passes):
    allow(s3, bucket, "s3:ListBucket", {"NumericLessThanEquals": {"s3:max-keys": "10"}})
    asked = {} if keys is None else {"MaxKeys": keys}
    if passes:
        assert status(bob.list_objects_v2(Bucket=bucket, **asked)) == 200
    else:
        with refused(403, "AccessDenied"):
            bob.list_objects_v2(Bucket=bucket, **asked)


def test_the_version_that_is_asked_for(s3, bob, versioned):
    first = s3.put_object(Bucket=versioned, Key="k", Body=b"1")["VersionId"]
    second = s3.put_object(Bucket=versioned, Key="k", Body=b"2")["VersionId"]
    allow(s3, versioned, "s3:GetObjectVersion", {"StringEquals": {"s3:VersionId": first}})
    assert body(bob.get_object(Bucket=versioned, Key="k", VersionId=first)) == b"1"
    with refused(403, "AccessDenied"):
        bob.get_object(Bucket=versioned, Key="k", VersionId=second)


def test_lists_that_are_demanded_by_grant(s3, bob, bucket):
    allow(s3, bucket, ["s3:PutObject", "s3:PutObjectAcl"], {"StringEquals": {"s3:x-amz-grant-full-control": "id=ann"}})
    bob.put_object(Bucket=bucket, Key="k", GrantFullControl="id=ann")
    with refused(403, "AccessDenied"):
        bob.put_object(Bucket=bucket, Key="k")


def test_everything_but_an_action(s3, bob, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    statement = {"Effect": "Allow", "Principal": {"AWS": "bob"}, "NotAction": "s3:DeleteObject", "Resource": f"arn:aws:s3:::{bucket}/*"}
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": statement}))
    assert body(bob.get_object(Bucket=bucket, Key="k")) == b"x"
    with refused(403, "AccessDenied"):
        bob.delete_object(Bucket=bucket, Key="k")


def test_everybody_but_a_principal(s3, bob, nobody, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    allow(s3, bucket, "s3:GetObject", principal="*", extra=[
        {"Effect": "Deny", "Principal": {"AWS": "bob"}, "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket}/*"}])
    assert body(nobody.get_object(Bucket=bucket, Key="k")) == b"x"
    with refused(403, "AccessDenied"):
        bob.get_object(Bucket=bucket, Key="k")


def test_wildcards_in_actions_and_resources(s3, bob, bucket):
    for key in ("a/1", "b/1"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    statement = {"Effect": "Allow", "Principal": {"AWS": "bob"}, "Action": "s3:Get*", "Resource": f"arn:aws:s3:::{bucket}/?/*"}
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:*Object", "Resource": f"arn:aws:s3:::{bucket}/b*"}
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement, deny]}))
    assert body(bob.get_object(Bucket=bucket, Key="a/1")) == b"x"
    with refused(403, "AccessDenied"):
        bob.get_object(Bucket=bucket, Key="b/1")


def test_uploads_in_parts(s3, bob, bucket):
    allow(s3, bucket, ["s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"])
    named = dict(Bucket=bucket, Key="k", UploadId=bob.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"])
    bob.upload_part(**named, PartNumber=1, Body=b"x")
    assert len(bob.list_parts(**named)["Parts"]) == 1
    with refused(403, "AccessDenied"):
        bob.list_multipart_uploads(Bucket=bucket)
    assert status(bob.abort_multipart_upload(**named)) == 204


@pytest.mark.parametrize("action, call", [
    ("s3:GetBucketLocation", lambda c, b: c.get_bucket_location(Bucket=b)), ("s3:GetBucketAcl", lambda c, b: c.get_bucket_acl(Bucket=b)),
    ("s3:GetBucketVersioning", lambda c, b: c.get_bucket_versioning(Bucket=b)), ("s3:ListBucketVersions", lambda c, b: c.list_object_versions(Bucket=b)),
    ("s3:ListBucketMultipartUploads", lambda c, b: c.list_multipart_uploads(Bucket=b)), ("s3:GetBucketPolicy", lambda c, b: c.get_bucket_policy(Bucket=b)),
    ("s3:PutBucketVersioning", lambda c, b: c.put_bucket_versioning(Bucket=b, VersioningConfiguration={"Status": "Enabled"})),
    ("s3:PutBucketTagging", lambda c, b: c.put_bucket_tagging(Bucket=b, Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})),
    ("s3:PutBucketCORS", lambda c, b: c.put_bucket_cors(Bucket=b, CORSConfiguration={"CORSRules": [{"AllowedMethods": ["GET"], "AllowedOrigins": ["*"]}]})),
    ("s3:PutLifecycleConfiguration", lambda c, b: c.put_bucket_lifecycle_configuration(Bucket=b, LifecycleConfiguration={"Rules": [{"ID": "a", "Status": "Enabled", "Filter": {"Prefix": "x"}, "Expiration": {"Days": 1}}]})),
    ("s3:PutBucketPublicAccessBlock", lambda c, b: c.put_public_access_block(Bucket=b, PublicAccessBlockConfiguration={"BlockPublicAcls": True})),
    ("s3:PutBucketOwnershipControls", lambda c, b: c.put_bucket_ownership_controls(Bucket=b, OwnershipControls={"Rules": [{"ObjectOwnership": "ObjectWriter"}]})),
    ("s3:ListBucket", lambda c, b: c.head_bucket(Bucket=b)), ("s3:DeleteBucket", lambda c, b: c.delete_bucket(Bucket=b)),
])
def test_each_action_by_its_name(s3, bob, bucket, action, call):
    allow(s3, bucket, "s3:GetObject")
    with pytest.raises(bob.exceptions.ClientError) as caught:
        call(bob, bucket)
    assert status(caught.value.response) == 403
    allow(s3, bucket, action)
    assert status(call(bob, bucket)) in (200, 204)
