"""Terraform's resource types in CloudFormation's words: a table, and a function for each type that is built otherwise."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from efsstate.deploy.linting.hcl_blocks import Block, Body
from efsstate.deploy.linting.hcl_expressions import Scope
from efsstate.deploy.linting.values import Ref, Unknown, items, known

PLAIN = {
    "aws_vpc": ("AWS::EC2::VPC", {}),
    "aws_subnet": ("AWS::EC2::Subnet", {"vpc_id": "VpcId", "cidr_block": "CidrBlock", "availability_zone": "AvailabilityZone", "availability_zone_id": "AvailabilityZoneId"}),
    "aws_nat_gateway": ("AWS::EC2::NatGateway", {}),
    "aws_vpc_endpoint": ("AWS::EC2::VPCEndpoint", {"service_name": "ServiceName", "vpc_id": "VpcId"}),
    "aws_efs_mount_target": ("AWS::EFS::MountTarget", {"file_system_id": "FileSystemId", "subnet_id": "SubnetId", "security_groups": "SecurityGroups"}),
    "aws_backup_selection": ("AWS::Backup::BackupSelection", {}),
    "aws_s3files_access_point": ("AWS::S3Files::AccessPoint", {}),
}  # fmt: skip


def _function(body: Body) -> tuple[str, dict[str, Any], dict[str, str]]:
    names = {"timeout": "Timeout", "role": "Role"}
    made: dict[str, Any] = body.pick(names)
    for one in body.blocks("vpc_config")[:1]:
        made["VpcConfig"] = one.pick(
            {"subnet_ids": "SubnetIds", "security_group_ids": "SecurityGroupIds"}
        )
    mounts = [
        one.pick({"arn": "Arn", "local_mount_path": "LocalMountPath"})
        for one in body.blocks("file_system_config")
    ]
    for key, old in (("VpcConfig", "vpc_config"), ("FileSystemConfigs", "file_system_config")):
        if body.dynamic(old):
            made[key] = Unknown(f"dynamic {old}")
    if mounts:
        made["FileSystemConfigs"] = mounts
    for one in body.blocks("snap_start")[:1]:
        made["SnapStart"] = one.pick({"apply_on": "ApplyOn"})
    for one in body.blocks("environment")[:1]:
        made["Environment"] = {"Variables": one["variables"]}
    more = {
        "vpc_config": "VpcConfig",
        "file_system_config": "FileSystemConfigs",
        "snap_start": "SnapStart",
        "environment": "Environment",
    }
    return "AWS::Lambda::Function", made, {**names, **more}


def _file_system(body: Body) -> tuple[str, dict[str, Any], dict[str, str]]:
    names = {
        "encrypted": "Encrypted",
        "performance_mode": "PerformanceMode",
        "throughput_mode": "ThroughputMode",
        "provisioned_throughput_in_mibps": "ProvisionedThroughputInMibps",
        "availability_zone_name": "AvailabilityZoneName",
        "lifecycle_policy": "LifecyclePolicies",
    }
    made = body.pick({old: new for old, new in names.items() if new != "LifecyclePolicies"})
    policies: list[Any] = list(body.blocks("lifecycle_policy")) or (
        ["dynamic"] if body.dynamic("lifecycle_policy") else []
    )
    made["LifecyclePolicies"] = policies
    return "AWS::EFS::FileSystem", made, names


def _access_point(body: Body) -> tuple[str, dict[str, Any], dict[str, str]]:
    made = body.pick({"file_system_id": "FileSystemId"})
    for one in body.blocks("posix_user")[:1]:
        made["PosixUser"] = one.pick({"uid": "Uid", "gid": "Gid"})
    for one in body.blocks("root_directory")[:1]:
        root = one.pick({"path": "Path"})
        for info in one.blocks("creation_info")[:1]:
            root["CreationInfo"] = info.pick(
                {"owner_uid": "OwnerUid", "owner_gid": "OwnerGid", "permissions": "Permissions"}
            )
        made["RootDirectory"] = root
    for key, old in (("PosixUser", "posix_user"), ("RootDirectory", "root_directory")):
        if body.dynamic(old):
            made[key] = Unknown(f"dynamic {old}")
    return (
        "AWS::EFS::AccessPoint",
        made,
        {"posix_user": "PosixUser", "root_directory": "RootDirectory"},
    )


def _openings(body: Body, own: str | None = None) -> list[Block]:
    """A rule of Terraform names several peers; each becomes a rule."""
    base = {
        "IpProtocol": body["protocol"] or "-1",
        "FromPort": body["from_port"],
        "ToPort": body["to_port"],
    }
    found: list[Block] = []
    for old, new in (
        ("cidr_blocks", "CidrIp"),
        ("ipv6_cidr_blocks", "CidrIpv6"),
        ("security_groups", "SourceSecurityGroupId"),
        ("source_security_group_id", "SourceSecurityGroupId"),
        ("prefix_list_ids", "SourcePrefixListId"),
    ):
        found.extend(Block({**base, new: peer}) for peer in items(body[old]))
    if body["self"] == "true":
        found.append(Block({**base, "SourceSecurityGroupId": own or Unknown("self")}))
    for one in found:
        one.line = body.line
    return found


def _group(body: Body) -> tuple[str, dict[str, Any], dict[str, str]]:
    made: dict[str, Any] = {}
    own = Ref(body.raw.get("__name__", ""))
    for way in ("ingress", "egress"):
        key = f"SecurityGroup{way.capitalize()}"
        raw = body.raw.get(way)
        if body.dynamic(way) or (isinstance(raw, str) and isinstance(body[way], Unknown)):
            made[key] = Unknown(f"dynamic {way}")
        else:
            # Terraform takes away the default egress of a group that names none.
            made[key] = [rule for one in body.blocks(way) for rule in _openings(one, own)]
    return (
        "AWS::EC2::SecurityGroup",
        made,
        {"ingress": "SecurityGroupIngress", "egress": "SecurityGroupEgress"},
    )


def _group_rule(body: Body) -> tuple[str, dict[str, Any], dict[str, str]]:
    way = "Egress" if body["type"] == "egress" else "Ingress"
    group = body["security_group_id"]
    rules = _openings(body, group) or [Block()]
    # Of several address ranges in one rule the widest decides what the rules ask.
    widest = next((one for one in rules if one.get("CidrIp") == "0.0.0.0/0"), rules[0])
    return f"AWS::EC2::SecurityGroup{way}", {**widest, "GroupId": group}, {}


def _apart(way: str) -> Callable[[Body], tuple[str, dict[str, Any], dict[str, str]]]:
    def made(body: Body) -> tuple[str, dict[str, Any], dict[str, str]]:
        names = {
            "security_group_id": "GroupId",
            "ip_protocol": "IpProtocol",
            "from_port": "FromPort",
            "to_port": "ToPort",
            "cidr_ipv4": "CidrIp",
            "cidr_ipv6": "CidrIpv6",
            "referenced_security_group_id": "SourceSecurityGroupId",
            "prefix_list_id": "SourcePrefixListId",
        }
        return f"AWS::EC2::SecurityGroup{way}", body.pick(names), names

    return made


def _json(value: Any) -> Any:
    """A policy given as text, as the document that it is."""
    if (
        isinstance(value, str)
        and not isinstance(value, Ref | Unknown)
        and value.lstrip().startswith("{")
    ):
        try:
            return json.loads(value)
        except (json.JSONDecodeError, RecursionError):
            return Unknown(value[:200])
    return value


def _role(body: Body) -> tuple[str, dict[str, Any], dict[str, str]]:
    inline = [{"PolicyDocument": _json(one["policy"])} for one in body.blocks("inline_policy")]
    names = {"managed_policy_arns": "ManagedPolicyArns", "inline_policy": "Policies"}
    return (
        "AWS::IAM::Role",
        {"ManagedPolicyArns": items(body["managed_policy_arns"]), "Policies": inline},
        names,
    )


def _policy(kind: str) -> Callable[[Body], tuple[str, dict[str, Any], dict[str, str]]]:
    def made(body: Body) -> tuple[str, dict[str, Any], dict[str, str]]:
        return (
            kind,
            {"PolicyDocument": _json(body["policy"]), "Roles": items(body["role"])},
            {"policy": "PolicyDocument"},
        )

    return made


def _attachment(body: Body) -> tuple[str, dict[str, Any], dict[str, str]]:
    return (
        "attachment",
        {"Roles": items(body["role"]) + items(body["roles"]), "Arn": body["policy_arn"]},
        {},
    )


def _efs_policy(body: Body) -> tuple[str, dict[str, Any], dict[str, str]]:
    return (
        "AWS::EFS::FileSystemPolicy",
        {"FileSystemId": body["file_system_id"], "Policy": _json(body["policy"])},
        {},
    )


def _backup(body: Body) -> tuple[str, dict[str, Any], dict[str, str]]:
    status = next((one["status"] for one in body.blocks("backup_policy")), None)
    return (
        "AWS::EFS::BackupPolicy",
        {"FileSystemId": body["file_system_id"], "BackupPolicy": {"Status": status}},
        {},
    )


def _alarm(body: Body) -> tuple[str, dict[str, Any], dict[str, str]]:
    names = {"namespace": "Namespace", "metric_name": "MetricName"}
    made: dict[str, Any] = body.pick(names)
    made["Metrics"] = [
        {"MetricStat": {"Metric": metric.pick(names)}}
        for query in body.blocks("metric_query")
        for metric in query.blocks("metric")
    ]
    if isinstance(made.get("MetricName"), str) and not known(made["MetricName"]):
        made.pop("MetricName")
    return "AWS::CloudWatch::Alarm", made, names


def document(scope: Scope, raw: dict[str, Any]) -> Any:
    """The policy of an aws_iam_policy_document."""
    body = Body(scope, raw, [])
    if (
        body.dynamic("statement")
        or raw.get("source_policy_documents")
        or raw.get("override_policy_documents")
    ):
        return Unknown("aws_iam_policy_document")
    statements = []
    for one in body.blocks("statement"):
        conditions: dict[str, Any] = {}
        for test in one.blocks("condition"):
            conditions.setdefault(str(test["test"]), {})[str(test["variable"])] = test["values"]
        made = Block(
            {
                "Effect": one["effect"] or "Allow",
                "Action": one["actions"],
                "Resource": one["resources"],
                "Condition": conditions,
            }
        )
        made.line = one.line
        statements.append(made)
    return {"Statement": statements}


MAKERS: dict[str, Callable[[Body], tuple[str, dict[str, Any], dict[str, str]]]] = {
    "aws_lambda_function": _function,
    "aws_efs_file_system": _file_system,
    "aws_efs_access_point": _access_point,
    "aws_efs_file_system_policy": _efs_policy,
    "aws_efs_backup_policy": _backup,
    "aws_security_group": _group,
    "aws_security_group_rule": _group_rule,
    "aws_vpc_security_group_ingress_rule": _apart("Ingress"),
    "aws_vpc_security_group_egress_rule": _apart("Egress"),
    "aws_iam_role": _role,
    "aws_iam_role_policy": _policy("AWS::IAM::Policy"),
    "aws_iam_policy": _policy("AWS::IAM::ManagedPolicy"),
    "aws_iam_role_policy_attachment": _attachment,
    "aws_iam_policy_attachment": _attachment,
    "aws_cloudwatch_metric_alarm": _alarm,
}
