"""Who may do what: lists, policies, public access blocks, ownership; asked as another account and as nobody."""

import json

import pytest
from conftest import body, fresh_name, refused, status

ALL = "http://acs.amazonaws.com/groups/global/AllUsers"
KNOWN = "http://acs.amazonaws.com/groups/global/AuthenticatedUsers"
LOGS = "http://acs.amazonaws.com/groups/s3/LogDelivery"


def grants(answer):
    return sorted((grant["Grantee"].get("URI") or grant["Grantee"]["ID"], grant["Permission"]) for grant in answer["Grants"])


class TestLists:
    @pytest.mark.parametrize("canned, wanted", [
        ("private", []), ("public-read", [(ALL, "READ")]), ("public-read-write", [(ALL, "READ"), (ALL, "WRITE")]),
        ("authenticated-read", [(KNOWN, "READ")]), ("log-delivery-write", [(LOGS, "READ_ACP"), (LOGS, "WRITE")]),
    ])
    def test_canned_for_a_bucket(self, s3, bucket, canned, wanted):
        s3.put_bucket_acl(Bucket=bucket, ACL=canned)
        answer = s3.get_bucket_acl(Bucket=bucket)
        assert grants(answer) == sorted([("ann", "FULL_CONTROL"), *wanted]) and answer["Owner"]["ID"] == "ann"

    @pytest.mark.parametrize("canned, wanted", [
        ("private", []), ("public-read", [(ALL, "READ")]), ("public-read-write", [(ALL, "READ"), (ALL, "WRITE")]), ("authenticated-read", [(KNOWN, "READ")]),
        ("bucket-owner-read", []), ("bucket-owner-full-control", []),
    ])
    def test_canned_for_an_object(self, s3, bucket, canned, wanted):
        s3.put_object(Bucket=bucket, Key="k", ACL=canned)
        assert grants(s3.get_object_acl(Bucket=bucket, Key="k")) == sorted([("ann", "FULL_CONTROL"), *wanted])
        s3.put_object_acl(Bucket=bucket, Key="k", ACL="private")
        assert grants(s3.get_object_acl(Bucket=bucket, Key="k")) == [("ann", "FULL_CONTROL")]

    def test_canned_at_creation(self, s3, nobody):
        name = fresh_name()
        s3.create_bucket(Bucket=name, ACL="public-read")
        assert "Contents" not in nobody.list_objects_v2(Bucket=name)

    def test_an_unknown_canned_one(self, raw, bucket):
        answer = raw("PUT", f"/{bucket}?acl", {"x-amz-acl": "public"})
        assert (answer.status, answer.code) == (400, "InvalidArgument")

    def test_grants_by_headers(self, s3, bucket):
        s3.put_object(Bucket=bucket, Key="k", GrantRead='id="bob"', GrantReadACP=f'uri="{ALL}"', GrantFullControl='id="ann"')
        assert grants(s3.get_object_acl(Bucket=bucket, Key="k")) == sorted([("bob", "READ"), (ALL, "READ_ACP"), ("ann", "FULL_CONTROL")])
        s3.put_bucket_acl(Bucket=bucket, GrantWrite="id=bob", GrantFullControl="id=ann")
        assert grants(s3.get_bucket_acl(Bucket=bucket)) == [("ann", "FULL_CONTROL"), ("bob", "WRITE")]

    def test_a_canned_one_and_grants_do_not_go_together(self, s3, bucket):
        with refused(400, "InvalidRequest"):
            s3.put_bucket_acl(Bucket=bucket, ACL="private", GrantRead="id=bob")

    def test_grants_by_document(self, s3, bob, bucket):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x")
        policy = {"Owner": {"ID": "ann"}, "Grants": [{"Grantee": {"Type": "CanonicalUser", "ID": "bob"}, "Permission": "READ"}, {"Grantee": {"Type": "CanonicalUser", "ID": "ann"}, "Permission": "FULL_CONTROL"}]}
        s3.put_object_acl(Bucket=bucket, Key="k", AccessControlPolicy=policy)
        assert body(bob.get_object(Bucket=bucket, Key="k")) == b"x"
        with refused(403, "AccessDenied"):
            bob.get_object_acl(Bucket=bucket, Key="k")
        answer = s3.get_object_acl(Bucket=bucket, Key="k")
        assert {grant["Grantee"].get("DisplayName") for grant in answer["Grants"]} <= {"ann", "bob", None}

    def test_by_email(self, s3, bucket):
        policy = {"Owner": {"ID": "ann"}, "Grants": [{"Grantee": {"Type": "AmazonCustomerByEmail", "EmailAddress": "bob@example.com"}, "Permission": "READ"}]}
        s3.put_bucket_acl(Bucket=bucket, AccessControlPolicy=policy)
        assert grants(s3.get_bucket_acl(Bucket=bucket)) == [("bob", "READ")]
        policy["Grants"][0]["Grantee"]["EmailAddress"] = "nobody@example.com"
        with refused(400, "UnresolvableGrantByEmailAddress"):
            s3.put_bucket_acl(Bucket=bucket, AccessControlPolicy=policy)

    def test_an_unknown_grantee(self, s3, bucket):
        policy = {"Owner": {"ID": "ann"}, "Grants": [{"Grantee": {"Type": "CanonicalUser", "ID": "no-such-user"}, "Permission": "READ"}]}
        with refused(400, "InvalidArgument"):
            s3.put_bucket_acl(Bucket=bucket, AccessControlPolicy=policy)

    def test_a_document_without_an_owner_or_beside_headers(self, s3, raw, bucket):
        grants_of_bob = [{"Grantee": {"Type": "CanonicalUser", "ID": "bob"}, "Permission": "READ"}]
        with refused(400, "MalformedACLError"):
            s3.put_bucket_acl(Bucket=bucket, AccessControlPolicy={"Grants": grants_of_bob})
        document = b"<AccessControlPolicy><Owner><ID>ann</ID></Owner><AccessControlList/></AccessControlPolicy>"
        answer = raw("PUT", f"/{bucket}?acl", {"x-amz-acl": "private"}, document)
        assert (answer.status, answer.code) == (400, "UnexpectedContent")

    def test_an_unknown_permission(self, raw, bucket):
        document = (b'<AccessControlPolicy xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><Owner><ID>ann</ID></Owner><AccessControlList><Grant>'
                    b'<Grantee xsi:type="CanonicalUser"><ID>bob</ID></Grantee><Permission>EVERYTHING</Permission></Grant></AccessControlList></AccessControlPolicy>')
        answer = raw("PUT", f"/{bucket}?acl", body=document)
        assert (answer.status, answer.code) == (400, "MalformedACLError") or (answer.status, answer.code) == (400, "MalformedXML")

    @pytest.mark.parametrize("permission, may", [("READ", {"list"}), ("WRITE", {"put"}), ("READ_ACP", {"acl"}), ("WRITE_ACP", {"put_acl"}), ("FULL_CONTROL", {"list", "put", "acl", "put_acl"})])
    def test_what_a_grant_on_a_bucket_gives(self, s3, bob, bucket, permission, may):
        keyword = {"READ": "GrantRead", "WRITE": "GrantWrite", "READ_ACP": "GrantReadACP", "WRITE_ACP": "GrantWriteACP", "FULL_CONTROL": "GrantFullControl"}[permission]
        s3.put_bucket_acl(Bucket=bucket, **{keyword: "id=bob"})
        calls = {"list": lambda: bob.list_objects_v2(Bucket=bucket), "put": lambda: bob.put_object(Bucket=bucket, Key="k"),
                 "acl": lambda: bob.get_bucket_acl(Bucket=bucket), "put_acl": lambda: bob.put_bucket_acl(Bucket=bucket, **{keyword: "id=bob"})}
        for name, call in calls.items():
            if name in may:
                assert status(call()) == 200
            else:
                with refused(403, "AccessDenied"):
                    call()

    @pytest.mark.parametrize("bucket_list, object_list, may", [
        ("private", "private", set()), ("private", "public-read", {"get"}), ("public-read", "private", {"list"}), ("public-read-write", "private", {"list", "put", "delete"}),
        ("public-read-write", "public-read", {"get", "list", "put", "delete"}), ("authenticated-read", "authenticated-read", set()),
    ])
    def test_what_nobody_may(self, s3, nobody, bucket, bucket_list, object_list, may):
        s3.put_bucket_acl(Bucket=bucket, ACL=bucket_list)
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", ACL=object_list)
        calls = {"get": lambda: nobody.get_object(Bucket=bucket, Key="k"), "list": lambda: nobody.list_objects(Bucket=bucket),
                 "put": lambda: nobody.put_object(Bucket=bucket, Key="new"), "delete": lambda: nobody.delete_object(Bucket=bucket, Key="k")}
        for name, call in calls.items():
            if name in may:
                assert status(call()) in (200, 204)
            else:
                with refused(403, "AccessDenied"):
                    call()

    def test_what_another_account_writes_is_its_own(self, s3, bob, bucket):
        s3.put_bucket_acl(Bucket=bucket, ACL="public-read-write")
        bob.put_object(Bucket=bucket, Key="k", Body=b"x")
        assert s3.list_objects(Bucket=bucket)["Contents"][0]["Owner"]["ID"] == "bob"
        with refused(403, "AccessDenied"):
            s3.get_object(Bucket=bucket, Key="k")
        bob.put_object(Bucket=bucket, Key="k", Body=b"x", ACL="bucket-owner-full-control")
        assert body(s3.get_object(Bucket=bucket, Key="k")) == b"x"

    def test_of_nothing(self, s3, bucket):
        with refused(404, "NoSuchKey"):
            s3.get_object_acl(Bucket=bucket, Key="k")
        with refused(404, "NoSuchKey"):
            s3.put_object_acl(Bucket=bucket, Key="k", ACL="private")


def policy(bucket, *statements):
    filled = [{"Effect": "Allow", "Principal": "*", "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"], **each} for each in statements]
    return json.dumps({"Version": "2012-10-17", "Statement": filled})


class TestPolicies:
    def test_told_back_and_deleted(self, s3, bucket):
        document = policy(bucket, {"Action": "s3:GetObject", "Sid": "one"})
        assert status(s3.put_bucket_policy(Bucket=bucket, Policy=document)) in (200, 204)
        assert json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"]) == json.loads(document)
        assert status(s3.delete_bucket_policy(Bucket=bucket)) == 204
        assert status(s3.delete_bucket_policy(Bucket=bucket)) == 204
        with refused(404, "NoSuchBucketPolicy"):
            s3.get_bucket_policy(Bucket=bucket)

    def test_nobody_reads_where_all_may(self, s3, nobody, bucket):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x")
        s3.put_bucket_policy(Bucket=bucket, Policy=policy(bucket, {"Action": ["s3:GetObject", "s3:ListBucket"]}))
        assert body(nobody.get_object(Bucket=bucket, Key="k")) == b"x" and nobody.list_objects_v2(Bucket=bucket)["KeyCount"] == 1
        with refused(404, "NoSuchKey"):
            nobody.get_object(Bucket=bucket, Key="nothing")
        with refused(403, "AccessDenied"):
            nobody.put_object(Bucket=bucket, Key="k")

    @pytest.mark.parametrize("principal", [{"AWS": "arn:aws:iam::bob:root"}, {"AWS": "bob"}, {"AWS": ["arn:aws:iam::bob:root"]}, {"AWS": "*"}])
    def test_another_account(self, s3, bob, nobody, bucket, principal):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x")
        s3.put_bucket_policy(Bucket=bucket, Policy=policy(bucket, {"Action": "s3:GetObject", "Principal": principal}))
        assert body(bob.get_object(Bucket=bucket, Key="k")) == b"x"
        with refused(403, "AccessDenied"):
            bob.delete_object(Bucket=bucket, Key="k")

    def test_a_deny_wins(self, s3, bob, bucket):
        s3.put_object(Bucket=bucket, Key="a/k", Body=b"x")
        s3.put_object(Bucket=bucket, Key="b/k", Body=b"x")
        s3.put_bucket_policy(Bucket=bucket, Policy=policy(bucket, {"Action": "s3:*"}, {"Effect": "Deny", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket}/b/*"}))
        assert body(bob.get_object(Bucket=bucket, Key="a/k")) == b"x"
        with refused(403, "AccessDenied"):
            bob.get_object(Bucket=bucket, Key="b/k")
        with refused(403, "AccessDenied"):
            s3.get_object(Bucket=bucket, Key="b/k")

    def test_conditions_on_tags_and_prefix(self, s3, bob, bucket):
        s3.put_object(Bucket=bucket, Key="open/k", Body=b"x", Tagging="security=public")
        s3.put_object(Bucket=bucket, Key="closed", Body=b"x", Tagging="security=private")
        s3.put_bucket_policy(Bucket=bucket, Policy=policy(bucket,
            {"Action": "s3:GetObject", "Condition": {"StringEquals": {"s3:ExistingObjectTag/security": "public"}}},
            {"Action": "s3:ListBucket", "Condition": {"StringLike": {"s3:prefix": "open/*"}}}))
        assert body(bob.get_object(Bucket=bucket, Key="open/k")) == b"x"
        with refused(403, "AccessDenied"):
            bob.get_object(Bucket=bucket, Key="closed")
        assert bob.list_objects_v2(Bucket=bucket, Prefix="open/")["KeyCount"] == 1
        with refused(403, "AccessDenied"):
            bob.list_objects_v2(Bucket=bucket)

    def test_conditions_on_headers_of_a_put(self, s3, bob, bucket):
        s3.put_bucket_policy(Bucket=bucket, Policy=policy(bucket,
            {"Action": ["s3:PutObject", "s3:PutObjectAcl", "s3:PutObjectTagging"], "Condition": {"StringEquals": {"s3:x-amz-acl": "public-read"}}}))
        bob.put_object(Bucket=bucket, Key="k", ACL="public-read")
        with refused(403, "AccessDenied"):
            bob.put_object(Bucket=bucket, Key="k")

    def test_a_referer(self, s3, raw, bucket):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x")
        s3.put_bucket_policy(Bucket=bucket, Policy=policy(bucket, {"Action": "s3:GetObject", "Condition": {"StringLike": {"aws:Referer": "http://example.com/*"}}}))
        assert raw("GET", f"/{bucket}/k", {"Referer": "http://example.com/page"}, user=None).status == 200
        assert raw("GET", f"/{bucket}/k", user=None).status == 403

    def test_versions_have_an_action_of_their_own(self, s3, bob, versioned):
        version = s3.put_object(Bucket=versioned, Key="k", Body=b"1")["VersionId"]
        s3.put_bucket_policy(Bucket=versioned, Policy=policy(versioned, {"Action": "s3:GetObject"}))
        assert status(bob.get_object(Bucket=versioned, Key="k")) == 200
        with refused(403, "AccessDenied"):
            bob.get_object(Bucket=versioned, Key="k", VersionId=version)

    @pytest.mark.parametrize("action, of_keys", [("s3:Fly", True), (["s3:GetObject", "s3:Fly"], True), ("s3:ListBucket", True), ("s3:GetObject", False)])
    def test_actions_without_a_meaning(self, s3, bucket, action, of_keys):
        resource = f"arn:aws:s3:::{bucket}" + ("/*" if of_keys else "")
        with refused(400, "MalformedPolicy"):
            s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [
                {"Effect": "Allow", "Principal": "*", "Action": action, "Resource": resource}]}))

    @pytest.mark.parametrize("document", ["", "nonsense", "{}", json.dumps({"Version": "2012-10-17", "Statement": []}), json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Maybe", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::x/*"}]}),
        json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::some-other-bucket/*"}]})])
    def test_malformed(self, raw, bucket, document):
        answer = raw("PUT", f"/{bucket}?policy", body=document.encode())
        assert (answer.status, answer.code) in ([(400, "MalformedPolicy"), (400, "MissingRequestBodyError")] if not document else [(400, "MalformedPolicy")])

    def test_whether_it_is_public(self, s3, bucket):
        s3.put_bucket_policy(Bucket=bucket, Policy=policy(bucket, {"Action": "s3:GetObject"}))
        assert s3.get_bucket_policy_status(Bucket=bucket)["PolicyStatus"]["IsPublic"] is True
        s3.put_bucket_policy(Bucket=bucket, Policy=policy(bucket, {"Action": "s3:GetObject", "Principal": {"AWS": "arn:aws:iam::bob:root"}}))
        assert s3.get_bucket_policy_status(Bucket=bucket)["PolicyStatus"]["IsPublic"] is False

    def test_only_the_owner_sets_it(self, bob, bucket):
        with refused(403, "AccessDenied"):
            bob.put_bucket_policy(Bucket=bucket, Policy=policy(bucket, {"Action": "s3:*"}))


BLOCK = {"BlockPublicAcls": False, "IgnorePublicAcls": False, "BlockPublicPolicy": False, "RestrictPublicBuckets": False}


class TestPublicAccessBlock:
    def test_told_back_and_deleted(self, s3, bucket):
        with refused(404, "NoSuchPublicAccessBlockConfiguration"):
            s3.get_public_access_block(Bucket=bucket)
        wanted = {**BLOCK, "BlockPublicAcls": True}
        s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=wanted)
        assert s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"] == wanted
        assert status(s3.delete_public_access_block(Bucket=bucket)) == 204
        with refused(404, "NoSuchPublicAccessBlockConfiguration"):
            s3.get_public_access_block(Bucket=bucket)

    def test_public_lists_are_refused(self, s3, bucket):
        s3.put_object(Bucket=bucket, Key="k")
        s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration={**BLOCK, "BlockPublicAcls": True})
        for canned in ("public-read", "public-read-write", "authenticated-read"):
            with refused(403, "AccessDenied"):
                s3.put_bucket_acl(Bucket=bucket, ACL=canned)
            with refused(403, "AccessDenied"):
                s3.put_object_acl(Bucket=bucket, Key="k", ACL=canned)
            with refused(403, "AccessDenied"):
                s3.put_object(Bucket=bucket, Key="k", ACL=canned)
        s3.put_bucket_acl(Bucket=bucket, ACL="private")

    def test_public_lists_are_passed_over(self, s3, nobody, bucket):
        s3.put_bucket_acl(Bucket=bucket, ACL="public-read")
        s3.put_object(Bucket=bucket, Key="k", ACL="public-read")
        assert status(nobody.get_object(Bucket=bucket, Key="k")) == 200
        s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration={**BLOCK, "IgnorePublicAcls": True})
        with refused(403, "AccessDenied"):
            nobody.get_object(Bucket=bucket, Key="k")
        with refused(403, "AccessDenied"):
            nobody.list_objects(Bucket=bucket)

    def test_public_policies_are_refused(self, s3, bucket):
        s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration={**BLOCK, "BlockPublicPolicy": True})
        with refused(403, "AccessDenied"):
            s3.put_bucket_policy(Bucket=bucket, Policy=policy(bucket, {"Action": "s3:GetObject"}))
        s3.put_bucket_policy(Bucket=bucket, Policy=policy(bucket, {"Action": "s3:GetObject", "Principal": {"AWS": "arn:aws:iam::bob:root"}}))

    def test_public_buckets_are_restricted(self, s3, nobody, bob, bucket):
        s3.put_object(Bucket=bucket, Key="k")
        s3.put_bucket_policy(Bucket=bucket, Policy=policy(bucket, {"Action": "s3:GetObject"}))
        assert status(nobody.get_object(Bucket=bucket, Key="k")) == 200
        s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration={**BLOCK, "RestrictPublicBuckets": True})
        for client in (nobody, bob):
            with refused(403, "AccessDenied"):
                client.get_object(Bucket=bucket, Key="k")
        assert status(s3.get_object(Bucket=bucket, Key="k")) == 200


class TestOwnership:
    def controls(self, ownership):
        return {"Rules": [{"ObjectOwnership": ownership}]}

    @pytest.mark.parametrize("ownership", ["BucketOwnerEnforced", "BucketOwnerPreferred", "ObjectWriter"])
    def test_told_back(self, s3, ownership):
        name = fresh_name()
        s3.create_bucket(Bucket=name, ObjectOwnership=ownership)
        assert s3.get_bucket_ownership_controls(Bucket=name)["OwnershipControls"] == self.controls(ownership)
        assert status(s3.delete_bucket_ownership_controls(Bucket=name)) == 204
        with refused(404, "OwnershipControlsNotFoundError"):
            s3.get_bucket_ownership_controls(Bucket=name)

    def test_an_unknown_one(self, raw, bucket):
        document = b"<OwnershipControls><Rule><ObjectOwnership>Mine</ObjectOwnership></Rule></OwnershipControls>"
        answer = raw("PUT", f"/{bucket}?ownershipControls", body=document)
        assert (answer.status, answer.code) == (400, "MalformedXML")

    def test_enforced_buckets_have_no_lists(self, s3, bucket):
        s3.put_object(Bucket=bucket, Key="k")
        s3.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls=self.controls("BucketOwnerEnforced"))
        with refused(400, "AccessControlListNotSupported"):
            s3.put_object(Bucket=bucket, Key="k", ACL="public-read")
        with refused(400, "AccessControlListNotSupported"):
            s3.put_bucket_acl(Bucket=bucket, ACL="public-read")
        with refused(400, "AccessControlListNotSupported"):
            s3.put_object_acl(Bucket=bucket, Key="k", ACL="public-read")
        s3.put_object(Bucket=bucket, Key="k", ACL="bucket-owner-full-control")
        assert grants(s3.get_bucket_acl(Bucket=bucket)) == [("ann", "FULL_CONTROL")]

    def test_enforcing_needs_a_private_list(self, s3, bucket):
        s3.put_bucket_acl(Bucket=bucket, ACL="public-read")
        with refused(400, "InvalidBucketAclWithObjectOwnership"):
            s3.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls=self.controls("BucketOwnerEnforced"))

    def test_an_enforced_bucket_is_not_made_with_a_list(self, s3):
        with refused(400, "InvalidBucketAclWithObjectOwnership"):
            s3.create_bucket(Bucket=fresh_name(), ObjectOwnership="BucketOwnerEnforced", ACL="public-read")

    def test_a_preferring_bucket_takes_what_is_given(self, s3, bob, bucket):
        s3.put_bucket_acl(Bucket=bucket, ACL="public-read-write")
        s3.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls=self.controls("BucketOwnerPreferred"))
        bob.put_object(Bucket=bucket, Key="k", ACL="bucket-owner-full-control")
        bob.put_object(Bucket=bucket, Key="own")
        owners = {entry["Key"]: entry["Owner"]["ID"] for entry in s3.list_objects(Bucket=bucket)["Contents"]}
        assert owners == {"k": "ann", "own": "bob"}
