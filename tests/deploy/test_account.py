"""The doctor for an account: AWS by moto on loopback, the function itself by a stub."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import boto3
import pytest
from botocore.stub import Stubber
from moto.server import ThreadedMotoServer

from efsstate.deploy.diagnosis.account import examine
from efsstate.deploy.diagnosis.account_facts import judge

REGION = "eu-west-1"


@pytest.fixture(scope="module")
def server():
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


class Account:
    """A stack that is right, made by API; each test breaks one thing."""

    def __init__(self, url):
        self.url = url
        self.made = []
        ec2, efs, iam = (self.client(name) for name in ("ec2", "efs", "iam"))
        self.ec2, self.efs, self.iam = ec2, efs, iam
        self.vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        self.function_subnets = [self.subnet("10.0.1.0/24", "a"), self.subnet("10.0.2.0/24", "b")]
        self.mount_subnets = [self.subnet("10.0.11.0/24", "a"), self.subnet("10.0.12.0/24", "b")]
        self.function_group, self.mount_group = self.group("function"), self.group("mount")
        self.opening = {
            "IpProtocol": "tcp",
            "FromPort": 2049,
            "ToPort": 2049,
            "UserIdGroupPairs": [{"GroupId": self.function_group}],
        }
        ec2.authorize_security_group_ingress(GroupId=self.mount_group, IpPermissions=[self.opening])
        self.fs = efs.create_file_system(
            CreationToken=self.vpc, Encrypted=True, ThroughputMode="elastic"
        )["FileSystemId"]
        self.targets = [
            efs.create_mount_target(
                FileSystemId=self.fs, SubnetId=subnet, SecurityGroups=[self.mount_group]
            )["MountTargetId"]
            for subnet in self.mount_subnets
        ]
        point = efs.create_access_point(
            ClientToken=self.vpc,
            FileSystemId=self.fs,
            PosixUser={"Uid": 1001, "Gid": 1001},
            RootDirectory={
                "Path": "/app",
                "CreationInfo": {"OwnerUid": 1001, "OwnerGid": 1001, "Permissions": "0750"},
            },
        )
        self.point = point["AccessPointArn"]
        self.fs_arn = f"arn:aws:elasticfilesystem:{REGION}:123456789012:file-system/{self.fs}"
        self.role_name = f"role-{self.vpc}"
        self.role = iam.create_role(RoleName=self.role_name, AssumeRolePolicyDocument="{}")["Role"][
            "Arn"
        ]
        self.allow(self.fs_arn, ["elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite"])
        interfaces = {"Effect": "Allow", "Action": "ec2:*NetworkInterface*", "Resource": "*"}
        document = {"Version": "2012-10-17", "Statement": [interfaces]}
        iam.put_role_policy(
            RoleName=self.role_name, PolicyName="network", PolicyDocument=json.dumps(document)
        )
        self.function = {}

    def client(self, service):
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
        made = boto3.client(service, region_name=REGION, endpoint_url=self.url, **keys)
        self.made.append(made)
        return made

    def subnet(self, cidr, zone):
        return self.ec2.create_subnet(
            VpcId=self.vpc, CidrBlock=cidr, AvailabilityZone=f"{REGION}{zone}"
        )["Subnet"]["SubnetId"]

    def group(self, name):
        return self.ec2.create_security_group(
            GroupName=f"{name}-{self.vpc}", Description=name, VpcId=self.vpc
        )["GroupId"]

    def allow(self, resource, actions, condition=True):
        statement = {"Effect": "Allow", "Action": actions, "Resource": resource}
        if condition:
            statement["Condition"] = {
                "StringEquals": {"elasticfilesystem:AccessPointArn": self.point}
            }
        document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        self.iam.put_role_policy(
            RoleName=self.role_name, PolicyName="mount", PolicyDocument=document
        )

    def acl(self, subnet, *entries):
        """A list of its own for a subnet: (number, egress, action, low, high, cidr)."""
        name = self.ec2.create_network_acl(VpcId=self.vpc)["NetworkAcl"]["NetworkAclId"]
        for number, egress, action, low, high, cidr in entries:
            ports = (
                {"Protocol": "-1"}
                if low is None
                else {"Protocol": "6", "PortRange": {"From": low, "To": high}}
            )
            self.ec2.create_network_acl_entry(
                NetworkAclId=name,
                RuleNumber=number,
                Egress=egress,
                RuleAction=action,
                CidrBlock=cidr,
                **ports,
            )
        lists = self.ec2.describe_network_acls(
            Filters=[{"Name": "association.subnet-id", "Values": [subnet]}]
        )["NetworkAcls"]
        own = next(one for acl in lists for one in acl["Associations"] if one["SubnetId"] == subnet)
        self.ec2.replace_network_acl_association(
            AssociationId=own["NetworkAclAssociationId"], NetworkAclId=name
        )
        return name

    def examine(self, fail=None, simulated=None, answers=(), **changes):
        """Examine the function.

        `fail` is a (service, operation, error code) that answers with an error. `simulated` are the
        policy simulator's decisions by action; without them it may not be called. `answers` are
        (service, operation, answer) of what moto lacks. `changes` are the function's.
        """
        configuration = {
            "FunctionName": "app",
            "State": "Active",
            "Timeout": 60,
            "Role": self.role,
            "VpcConfig": {
                "SubnetIds": self.function_subnets,
                "SecurityGroupIds": [self.function_group],
                "VpcId": self.vpc,
            },
            "FileSystemConfigs": [{"Arn": self.point, "LocalMountPath": "/mnt/efs"}],
            **changes,
        }

        def client(service):
            made = self.client(service)
            stub = Stubber(made)
            if service == "lambda":
                stub.add_response("get_function_configuration", configuration)
                stub.activate()
            if service == "iam" and simulated is None:
                refuse(made, "SimulatePrincipalPolicy", "AccessDenied")
            elif service == "iam":
                results = [
                    {"EvalActionName": f"elasticfilesystem:{action}", "EvalDecision": decision}
                    for action, decision in simulated.items()
                ]
                respond(made, "SimulatePrincipalPolicy", {"EvaluationResults": results})
            for other, operation, answer in answers:
                if other == service:
                    respond(made, operation, answer)
            if fail and fail[0] == service:
                refuse(made, fail[1], fail[2])
            return made

        return examine("app", REGION, client)


def refuse(client, operation, code):
    """Let the service answer an operation with an error, and the others as ever."""
    error = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {}}
    respond(client, operation, error, 403)


def respond(client, operation, content, status=200):
    """Let the service answer an operation with `content`, as the Stubber does."""
    from botocore.awsrequest import AWSResponse

    def answer(**_):
        return AWSResponse(None, status, {}, None), content

    client.meta.events.register(
        f"before-call.{client.meta.service_model.service_id.hyphenize()}.{operation}", answer
    )


@pytest.fixture
def account(server):
    made = Account(server)
    yield made
    for client in made.made:
        client.close()


def worst(result):
    return {one.code for one in result.findings if one.severity != "note"}


def test_a_right_account_gives_no_finding_and_an_unbroken_way(account):
    result = account.examine()
    assert worst(result) == set(), result.findings
    assert result.unseen == []
    assert all(state.startswith("ok") for link, state in result.way.items() if link != "metrics"), (
        result.way
    )
    assert account.fs in result.way["file system"]


def test_the_wrong_port_is_the_security_groups(account):
    account.ec2.revoke_security_group_ingress(
        GroupId=account.mount_group, IpPermissions=[account.opening]
    )
    wrong = {**account.opening, "FromPort": 2094, "ToPort": 2094}
    account.ec2.authorize_security_group_ingress(GroupId=account.mount_group, IpPermissions=[wrong])
    result = account.examine()
    assert worst(result) == {"EFS001"}
    assert result.way["security group"].startswith("BROKEN (EFS001)")
    assert result.way["subnet"].startswith("ok")


def test_an_opening_for_a_range_without_the_function_in_it(account):
    account.ec2.revoke_security_group_ingress(
        GroupId=account.mount_group, IpPermissions=[account.opening]
    )
    one = {
        "IpProtocol": "tcp",
        "FromPort": 2049,
        "ToPort": 2049,
        "IpRanges": [{"CidrIp": "192.168.0.0/16"}],
    }
    account.ec2.authorize_security_group_ingress(GroupId=account.mount_group, IpPermissions=[one])
    assert worst(account.examine()) == {"EFS001"}
    right = {**one, "IpRanges": [{"CidrIp": "10.0.0.0/20"}]}
    account.ec2.authorize_security_group_ingress(GroupId=account.mount_group, IpPermissions=[right])
    assert worst(account.examine()) == set()


def test_no_way_out_of_the_functions_group(account):
    everything = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    account.ec2.revoke_security_group_egress(
        GroupId=account.function_group, IpPermissions=everything
    )
    assert worst(account.examine()) == {"EFS003"}


def test_a_zone_without_a_mount_target(account):
    account.efs.delete_mount_target(MountTargetId=account.targets[1])
    result = account.examine()
    assert worst(result) == {"EFS004"}
    assert result.way["subnet"].startswith("BROKEN")


def test_network_acls_in_both_directions(account):
    """The request, and the answer to a high port: the second is what people forget."""
    open_to_all = [
        (200, False, "allow", None, None, "0.0.0.0/0"),
        (200, True, "allow", None, None, "0.0.0.0/0"),
    ]
    account.acl(account.mount_subnets[0], *open_to_all)
    assert worst(account.examine()) == set()
    denied = account.acl(
        account.mount_subnets[0], (100, False, "deny", 2049, 2049, "10.0.0.0/8"), *open_to_all
    )
    result = account.examine()
    assert worst(result) == {"EFS010"}
    assert [one.resource for one in result.findings if one.code == "EFS010"] == [denied]
    account.acl(
        account.mount_subnets[0],
        (100, False, "allow", 2049, 2049, "10.0.0.0/8"),
        (100, True, "allow", 2049, 2049, "10.0.0.0/8"),
    )
    result = account.examine()
    assert worst(result) == {"EFS010"}
    assert "1024 to 65535 outbound" in next(
        one.evidence for one in result.findings if one.code == "EFS010"
    )


def test_the_permission_on_the_access_point_alone(account):
    account.allow(
        account.point,
        ["elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite"],
        condition=False,
    )
    assert [each.severity for each in account.examine().findings if each.code == "EFS020"] == [
        "warning"
    ]
    deny = {"Effect": "Deny", "Principal": "*", "Action": "*", "Resource": "*"}
    deny["Condition"] = {"Bool": {"aws:SecureTransport": "false"}}
    account.efs.put_file_system_policy(
        FileSystemId=account.fs, Policy=json.dumps({"Version": "2012-10-17", "Statement": [deny]})
    )
    result = account.examine()
    assert worst(result) == {"EFS020"}
    assert result.way["policy"].startswith("BROKEN")


def test_no_permission_counts_once_the_file_system_has_a_policy(account):
    account.iam.delete_role_policy(RoleName=account.role_name, PolicyName="mount")
    assert worst(account.examine()) == set()  # a note: without a policy everybody may mount
    deny = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "*",
        "Resource": "*",
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    account.efs.put_file_system_policy(
        FileSystemId=account.fs, Policy=json.dumps({"Version": "2012-10-17", "Statement": [deny]})
    )
    assert worst(account.examine()) == {"EFS022"}


def test_a_policy_that_denies_this_access_point(account):
    other = account.point[:-5] + "00000"
    deny = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "elasticfilesystem:Client*",
        "Resource": "*",
        "Condition": {"StringNotEquals": {"elasticfilesystem:AccessPointArn": other}},
    }
    account.efs.put_file_system_policy(
        FileSystemId=account.fs, Policy=json.dumps({"Version": "2012-10-17", "Statement": [deny]})
    )
    assert worst(account.examine()) == {"EFS032"}


def test_a_managed_policy_of_the_customer_is_read(account):
    account.iam.delete_role_policy(RoleName=account.role_name, PolicyName="mount")
    statement = {
        "Effect": "Allow",
        "Action": "elasticfilesystem:ClientMount",
        "Resource": account.point,
    }
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    arn = account.iam.create_policy(PolicyName=f"p-{account.vpc}", PolicyDocument=document)[
        "Policy"
    ]["Arn"]
    account.iam.attach_role_policy(RoleName=account.role_name, PolicyArn=arn)
    assert worst(account.examine()) == {"EFS020"}


def test_a_deleted_access_point(account):
    account.efs.delete_access_point(AccessPointId=account.point.rpartition("/")[2])
    result = account.examine()
    assert worst(result) == {"EFS204"}
    assert result.way["mount target"] == "not looked at"


def test_what_the_function_says_of_itself(account):
    assert worst(account.examine(FileSystemConfigs=[])) == {"EFS201"}
    arn = "arn:aws:lambda:ca-west-1:123456789012:function:app"
    calgary = account.examine(FileSystemConfigs=[], FunctionArn=arn)
    assert "Lambda cannot mount EFS in this region" in calgary.findings[0].evidence
    assert worst(account.examine(Timeout=3)) == {"EFS041"}
    assert worst(account.examine(SnapStart={"ApplyOn": "PublishedVersions"})) == {"EFS042"}
    failed = account.examine(State="Failed", StateReasonCode="EFSMountFailure", StateReason="no")
    assert worst(failed) == {"EFS202"}
    assert "EFSMountFailureException" in failed.findings[0].evidence


def test_metrics_of_the_last_hour(account):
    import datetime as dt

    now = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=5)
    dimensions = [{"Name": "FileSystemId", "Value": account.fs}]
    data = [
        ("BurstCreditBalance", 1e9),
        ("PercentIOLimit", 97),
        ("DataWriteIOBytes", 60 * 95 * 2**20),
        ("PermittedThroughput", 100 * 2**20),
        ("ClientConnections", 24_000),
    ]
    account.client("cloudwatch").put_metric_data(
        Namespace="AWS/EFS",
        MetricData=[
            {"MetricName": name, "Dimensions": dimensions, "Timestamp": now, "Value": value}
            for name, value in data
        ],
    )
    assert worst(account.examine()) == {"EFS205", "EFS206", "EFS207", "EFS208"}


def test_reads_in_elastic_mode_do_not_use_up_the_permitted_throughput():
    """There it is the limit of writes; reads have one of their own."""
    metrics = {
        "MeteredIOBytes": [60 * 95 * 2.0**20],
        "DataWriteIOBytes": [60 * 2.0**20],
        "PermittedThroughput": [100 * 2.0**20],
    }
    assert [code for code, _ in judge("fs-0", metrics)] == ["EFS207"]
    assert [code for code, _ in judge("fs-0", metrics, is_elastic=True)] == []


@pytest.mark.parametrize(
    ("service", "operation", "code"),
    [
        ("efs", "DescribeMountTargets", "AccessDeniedException"),
        ("iam", "ListRolePolicies", "AccessDenied"),
        ("ec2", "DescribeSecurityGroups", "UnauthorizedOperation"),
        ("efs", "DescribeAccessPoints", "AccessDeniedException"),
        ("cloudwatch", "GetMetricData", "AccessDenied"),
    ],
)
def test_what_may_not_be_read_is_said_and_proves_nothing(account, service, operation, code):
    result = account.examine(fail=(service, operation, code))
    assert [one for one in result.findings if one.severity == "error"] == []
    assert any("not allowed" in text for text in result.unseen), result.unseen


def test_a_link_that_was_read_in_part_is_not_ok(account):
    """The function's group was read, and the mount target's was not."""
    fail = ("efs", "DescribeMountTargetSecurityGroups", "AccessDeniedException")
    way = account.examine(fail=fail).way
    assert way["security group"] == f"partly looked at: {account.function_group}"
    assert way["mount target"].startswith("ok")


def test_throttling_is_one_line(account):
    result = account.examine(fail=("ec2", "DescribeSubnets", "RequestLimitExceeded"))
    assert any("try again in a minute" in text for text in result.unseen)
    assert [one for one in result.findings if one.severity == "error"] == []


ALLOWED = {"ClientMount": "allowed", "ClientWrite": "allowed"}


def own_policy(account, *statements):
    """Give the file system a policy."""
    document = {"Version": "2012-10-17", "Statement": list(statements)}
    account.efs.put_file_system_policy(FileSystemId=account.fs, Policy=json.dumps(document))


TLS = {
    "Effect": "Deny",
    "Principal": {"AWS": "*"},
    "Action": "*",
    "Condition": {"Bool": {"aws:SecureTransport": "false"}},
}
BOTH = ["elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite"]
ANOTHER = "arn:aws:iam::123456789012:role/another"


def deny(**condition):
    """Return a statement that denies the mount."""
    statement = {"Effect": "Deny", "Principal": {"AWS": "*"}, "Action": "elasticfilesystem:*"}
    return {**statement, "Condition": condition} if condition else statement


def role_for_another_file_system(account):
    own_policy(account, TLS)
    account.allow(account.fs_arn[:-4] + "ffff", BOTH, condition=False)


def role_for_another_access_point(account):
    own_policy(account, TLS)
    point, account.point = account.point, account.point[:-4] + "ffff"
    account.allow(account.fs_arn, BOTH)
    account.point = point


def role_that_denies(account):
    statement = {"Effect": "Deny", "Action": "elasticfilesystem:*", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    account.iam.put_role_policy(
        RoleName=account.role_name, PolicyName="no", PolicyDocument=document
    )


def boundary_without_efs(account):
    own_policy(account, TLS)
    statement = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    policy = account.iam.create_policy(PolicyName=f"b-{account.vpc}", PolicyDocument=document)
    arn = policy["Policy"]["Arn"]
    account.iam.put_role_permissions_boundary(RoleName=account.role_name, PermissionsBoundary=arn)


def policy_that_denies_all(account):
    own_policy(account, TLS, deny())


def policy_that_denies_by_principal(account):
    own_policy(account, TLS, deny(StringNotEquals={"aws:PrincipalArn": ANOTHER}))


def policy_that_denies_by_pattern(account):
    pattern = "arn:aws:iam::123456789012:role/other-*"
    own_policy(account, TLS, deny(ArnNotLike={"aws:PrincipalArn": pattern}))


def policy_for_another_role(account):
    account.iam.delete_role_policy(RoleName=account.role_name, PolicyName="mount")
    allow = {"Effect": "Allow", "Principal": {"AWS": ANOTHER}, "Action": BOTH}
    own_policy(account, TLS, allow)


DENIED = [
    (role_for_another_file_system, "EFS022"),
    (role_for_another_access_point, "EFS022"),
    (role_that_denies, "EFS032"),
    (boundary_without_efs, "EFS214"),
    (policy_that_denies_all, "EFS032"),
    (policy_that_denies_by_principal, "EFS032"),
    (policy_that_denies_by_pattern, "EFS032"),
    (policy_for_another_role, "EFS022"),
]


@pytest.mark.parametrize(
    ("change", "code"), DENIED, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_policy_that_denies_the_mount_is_no_ok(account, change, code):
    change(account)
    result = account.examine()
    assert result.way["policy"].startswith("BROKEN"), result.way["policy"]
    assert code in {each.code for each in result.findings if each.severity == "error"}


def test_policies_that_allow_the_mount(account):
    """An Allow by NotAction, a Deny for others, and a file-system policy that names the role."""
    own_policy(account, TLS, deny(ArnNotLike={"aws:PrincipalArn": "arn:aws:iam::*:role/role-*"}))
    statement = {"Effect": "Allow", "NotAction": "iam:*", "Resource": account.fs_arn}
    statement["Condition"] = {"StringEquals": {"elasticfilesystem:AccessPointArn": account.point}}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    account.iam.put_role_policy(
        RoleName=account.role_name, PolicyName="mount", PolicyDocument=document
    )
    result = account.examine()
    assert result.way["policy"].startswith("ok (by the policies read")
    assert not [each for each in result.findings if each.severity == "error"]
    account.iam.delete_role_policy(RoleName=account.role_name, PolicyName="mount")
    allow = {"Effect": "Allow", "Principal": {"AWS": account.role}, "Action": BOTH}
    own_policy(account, TLS, allow)
    assert account.examine().way["policy"].startswith("ok")


def test_the_simulator_decides_where_it_may_be_called(account):
    """Its verdict on the role comes first; the file system's policy is judged beside it."""
    own_policy(account, TLS)
    result = account.examine(simulated=ALLOWED)
    assert result.way["policy"].startswith("ok (by the policy simulator)")
    denied = dict.fromkeys(ALLOWED, "implicitDeny")
    state = account.examine(simulated=denied).way["policy"]
    assert state.startswith("BROKEN (no permission to mount, by the policy simulator)")
    state = account.examine(simulated={**ALLOWED, "ClientWrite": "implicitDeny"}).way["policy"]
    assert state.startswith("read-only")
    own_policy(account, TLS, deny())
    assert account.examine(simulated=ALLOWED).way["policy"].startswith("BROKEN")


def test_a_policy_that_was_not_read_is_not_evaluated(account):
    result = account.examine(fail=("iam", "ListRolePolicies", "AccessDenied"))
    assert result.way["policy"] == "not evaluated (the role was not read)"


def test_an_inactive_function_is_reported(account):
    assert "EFS213" in worst(account.examine(State="Inactive"))


def test_the_destination_of_a_replication_is_an_error(account):
    answer = account.efs.describe_file_systems(FileSystemId=account.fs)
    protection = {"ReplicationOverwriteProtection": "REPLICATING"}
    answer["FileSystems"][0]["FileSystemProtection"] = protection
    result = account.examine(answers=[("efs", "DescribeFileSystems", answer)])
    assert worst(result) == {"EFS212"}
    assert result.way["file system"].startswith("BROKEN")


@pytest.mark.parametrize(("cidr", "codes"), [("10.0.0.0/16", set()), ("10.9.0.0/16", {"EFS001"})])
def test_prefix_lists_are_followed(account, cidr, codes):
    """A rule for a prefix list lets in the ranges of its entries."""
    account.ec2.revoke_security_group_ingress(
        GroupId=account.mount_group, IpPermissions=[account.opening]
    )
    prefix_list = account.ec2.create_managed_prefix_list(
        PrefixListName="p", MaxEntries=5, AddressFamily="IPv4", Entries=[{"Cidr": cidr}]
    )["PrefixList"]["PrefixListId"]
    rule = {"IpProtocol": "tcp", "FromPort": 2049, "ToPort": 2049}
    rule["PrefixListIds"] = [{"PrefixListId": prefix_list}]
    account.ec2.authorize_security_group_ingress(GroupId=account.mount_group, IpPermissions=[rule])
    assert worst(account.examine()) == codes


def test_storage_that_cannot_be_looked_at_is_not_ok(account):
    """S3 Files and another account's access point are named, and no fault is concluded."""
    for arn, words in (
        (account.point.replace("123456789012", "210987654321"), "account 210987654321"),
        ("arn:aws:s3files:us-east-1:123456789012:file-system/x/access-point/y", "S3 Files"),
    ):
        arns = [{"Arn": arn, "LocalMountPath": "/mnt/efs"}]
        function = f"arn:aws:lambda:{REGION}:123456789012:function:app"
        result = account.examine(FileSystemConfigs=arns, FunctionArn=function)
        assert any(words in text for text in result.unseen)
        assert not [each for each in result.findings if each.severity == "error"]
        assert result.way["policy"].startswith("not evaluated")


def command(url, *arguments, **variables):
    clean = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    program = "import sys; from efsstate.cli.main import main; sys.exit(main())"
    alone = {
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
        "AWS_MAX_ATTEMPTS": "1",
    }
    return subprocess.run(
        [sys.executable, "-c", program, "doctor", "--aws", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**clean, **alone, "AWS_ENDPOINT_URL": url, **variables},
    )


def test_the_command_says_in_one_line_what_it_cannot_do(server):
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    cases = [
        (command(server, "--function", "app"), "no region"),
        (command(server, "--function", "app", "--region", REGION), "no AWS credentials"),
        (
            command(server, "--function", "app", "--region", REGION, **keys),
            "ResourceNotFoundException",
        ),
        (
            command("http://127.0.0.1:9", "--function", "app", "--region", REGION, **keys),
            "Could not connect",
        ),
    ]
    for done, words in cases:
        assert done.returncode == 3, done
        assert words in done.stderr
        assert "Traceback" not in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


def test_the_command_through_the_real_api(account, server):
    """Without a stub: moto keeps the function but not its file systems, and the doctor says so."""
    lambda_ = account.client("lambda")
    lambda_.create_function(
        FunctionName=f"f-{account.vpc}", Runtime="python3.13", Role=account.role, Handler="a.b",
        Code={"ZipFile": zip_of("a.py")},
    )  # fmt: skip
    done = command(
        server,
        "--function",
        f"f-{account.vpc}",
        "--json",
        AWS_REGION=REGION,
        AWS_ACCESS_KEY_ID="t",
        AWS_SECRET_ACCESS_KEY="t",
    )
    told = json.loads(done.stdout)
    assert done.returncode == 1, done.stderr
    assert [one["code"] for one in told["findings"]] == ["EFS201"]
    assert told["schema"] == "efsstate.doctor"


def zip_of(name):
    import io
    import zipfile

    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as made:
        made.writestr(name, "def b(e, c): pass\n")
    return data.getvalue()


def test_no_boto3_is_one_line(tmp_path):
    (tmp_path / "boto3.py").write_text("raise ImportError('No module named boto3')\n")
    done = command("http://127.0.0.1:9", "--function", "x", PYTHONPATH=str(tmp_path))
    assert (done.returncode, "pip install 'efsstate[aws]'" in done.stderr) == (3, True)
