"""An account's users, keys, groups, roles and policies by the IAM API, and what its users may then do in S3."""

import json

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from conftest import KEYS, body, fresh_name, refused, status


def client_of(cluster, service, keys, datacenter="dc-a"):
    return boto3.client(service, endpoint_url=cluster.datacenters[datacenter]["s3"], region_name=datacenter, aws_access_key_id=keys[0], aws_secret_access_key=keys[1],
                        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}))


@pytest.fixture(scope="module")
def iam(cluster):
    return client_of(cluster, "iam", KEYS["ann"])


def policy(action, resource="*", effect="Allow"):
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": effect, "Action": action, "Resource": resource}]})


@pytest.fixture
def user(cluster, iam):
    name = f"user-{fresh_name()}"
    iam.create_user(UserName=name)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return name, (key["AccessKeyId"], key["SecretAccessKey"])


def test_a_user_is_made_found_and_deleted(iam):
    name = f"User-{fresh_name()}"
    made = iam.create_user(UserName=name, Path="/team/")["User"]
    assert made["UserName"] == name and made["Path"] == "/team/" and made["Arn"].endswith(f":user/team/{name}")
    assert iam.get_user(UserName=name)["User"]["UserId"] == made["UserId"]
    assert name in [entry["UserName"] for entry in iam.list_users(PathPrefix="/team/")["Users"]]
    with refused(409, "EntityAlreadyExists"):
        iam.create_user(UserName=name)
    iam.delete_user(UserName=name)
    with refused(404, "NoSuchEntity"):
        iam.get_user(UserName=name)


def test_a_user_may_what_its_policies_allow(cluster, s3, iam, user, bucket):
    name, keys = user
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    client = client_of(cluster, "s3", keys)
    with refused(403, "AccessDenied"):
        client.get_object(Bucket=bucket, Key="k")
    iam.put_user_policy(UserName=name, PolicyName="read", PolicyDocument=policy("s3:GetObject", f"arn:aws:s3:::{bucket}/*"))
    assert body(client.get_object(Bucket=bucket, Key="k")) == b"x"
    with refused(403, "AccessDenied"):
        client.put_object(Bucket=bucket, Key="k")
    iam.delete_user_policy(UserName=name, PolicyName="read")
    with refused(403, "AccessDenied"):
        client.get_object(Bucket=bucket, Key="k")


def test_a_policy_reaches_other_datacenters(cluster, s3, iam, user, bucket):
    name, keys = user
    iam.attach_user_policy(UserName=name, PolicyArn="arn:aws:iam::aws:policy/AmazonS3FullAccess")
    cluster.settle()
    far = client_of(cluster, "s3", keys, "dc-b")
    far.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert status(far.delete_object(Bucket=bucket, Key="k")) == 204


def test_a_group_gives_its_policies(cluster, s3, iam, user, bucket):
    name, keys = user
    group = f"group-{fresh_name()}"
    iam.create_group(GroupName=group)
    iam.put_group_policy(GroupName=group, PolicyName="list", PolicyDocument=policy("s3:ListBucket"))
    iam.add_user_to_group(GroupName=group, UserName=name)
    assert status(client_of(cluster, "s3", keys).list_objects_v2(Bucket=bucket)) == 200
    assert [entry["UserName"] for entry in iam.get_group(GroupName=group)["Users"]] == [name]
    iam.remove_user_from_group(GroupName=group, UserName=name)
    with refused(403, "AccessDenied"):
        client_of(cluster, "s3", keys).list_objects_v2(Bucket=bucket)


def test_a_managed_policy(iam, user):
    name, _ = user
    arn = iam.create_policy(PolicyName=f"policy-{fresh_name()}", PolicyDocument=policy("s3:*"))["Policy"]["Arn"]
    iam.attach_user_policy(UserName=name, PolicyArn=arn)
    assert [entry["PolicyArn"] for entry in iam.list_attached_user_policies(UserName=name)["AttachedPolicies"]] == [arn]
    with refused(409, "DeleteConflict"):
        iam.delete_policy(PolicyArn=arn)
    iam.detach_user_policy(UserName=name, PolicyArn=arn)
    iam.delete_policy(PolicyArn=arn)


def test_a_key_that_is_off(cluster, s3, iam, user, bucket):
    name, keys = user
    iam.put_user_policy(UserName=name, PolicyName="all", PolicyDocument=policy("s3:*"))
    assert status(client_of(cluster, "s3", keys).list_objects_v2(Bucket=bucket)) == 200
    iam.update_access_key(UserName=name, AccessKeyId=keys[0], Status="Inactive")
    with pytest.raises(ClientError) as caught:
        client_of(cluster, "s3", keys).list_objects_v2(Bucket=bucket)
    assert status(caught.value.response) == 403
    iam.delete_access_key(UserName=name, AccessKeyId=keys[0])
    assert iam.list_access_keys(UserName=name)["AccessKeyMetadata"] == []


def test_a_malformed_policy(iam, user):
    with refused(400, "MalformedPolicyDocument"):
        iam.put_user_policy(UserName=user[0], PolicyName="bad", PolicyDocument="{}")


def test_who_asks(cluster, user):
    told = client_of(cluster, "sts", user[1]).get_caller_identity()
    assert told["Arn"].endswith(f":user/{user[0]}") and told["Account"] == "ann"


def test_a_role_is_taken_on(cluster, s3, iam, user, bucket):
    name, keys = user
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    trust = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": iam.get_user(UserName=name)["User"]["Arn"]}, "Action": "sts:AssumeRole"}]})
    role = iam.create_role(RoleName=f"role-{fresh_name()}", AssumeRolePolicyDocument=trust)["Role"]
    iam.put_role_policy(RoleName=role["RoleName"], PolicyName="read", PolicyDocument=policy("s3:GetObject"))
    sts = client_of(cluster, "sts", keys)
    taken = sts.assume_role(RoleArn=role["Arn"], RoleSessionName="session")
    given = taken["Credentials"]

    def session(token=given["SessionToken"], datacenter="dc-a"):
        return boto3.client("s3", endpoint_url=cluster.datacenters[datacenter]["s3"], region_name=datacenter, aws_access_key_id=given["AccessKeyId"], aws_secret_access_key=given["SecretAccessKey"],
                            aws_session_token=token, config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}))

    assert body(session().get_object(Bucket=bucket, Key="k")) == b"x"
    with refused(403, "AccessDenied"):
        session().put_object(Bucket=bucket, Key="k")
    for token in (None, given["SessionToken"][:-4] + "AAAA"):
        with pytest.raises(ClientError) as caught:
            session(token).get_object(Bucket=bucket, Key="k")
        assert status(caught.value.response) in (400, 403)
    cluster.settle()
    assert body(session(datacenter="dc-b").get_object(Bucket=bucket, Key="k")) == b"x"
    with refused(403, "AccessDenied"):
        client_of(cluster, "sts", KEYS["bob"]).assume_role(RoleArn=role["Arn"], RoleSessionName="session")
