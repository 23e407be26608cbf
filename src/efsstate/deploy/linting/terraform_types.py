"""Terraform's resource types in CloudFormation's vocabulary: a table, and functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from efsstate.deploy.linting.hcl_blocks import Block, Body, Converted, with_dynamic
from efsstate.deploy.linting.hcl_expressions import Scope
from efsstate.deploy.linting.policy_text import parse_json
from efsstate.deploy.linting.resource import Resource
from efsstate.deploy.linting.stack import Stack
from efsstate.deploy.linting.terraform_awscc import CLOUD_CONTROL, cloud_control
from efsstate.deploy.linting.terraform_network import NETWORK
from efsstate.deploy.linting.values import Ref, Unknown, is_known, items

PLAIN = {
    "aws_vpc": (
        "AWS::EC2::VPC",
        {},
    ),
    "aws_subnet": (
        "AWS::EC2::Subnet",
        {
            "vpc_id": "VpcId",
            "cidr_block": "CidrBlock",
            "availability_zone": "AvailabilityZone",
            "availability_zone_id": "AvailabilityZoneId",
        },
    ),
    "aws_default_subnet": (
        "AWS::EC2::Subnet",
        {"availability_zone": "AvailabilityZone"},
    ),
    "aws_nat_gateway": (
        "AWS::EC2::NatGateway",
        {"subnet_id": "SubnetId"},
    ),
    "aws_vpc_peering_connection": ("AWS::EC2::VPCPeeringConnection", {}),
    "aws_vpc_peering_connection_accepter": ("AWS::EC2::VPCPeeringConnection", {}),
    "aws_networkmanager_vpc_attachment": ("AWS::NetworkManager::VpcAttachment", {}),
    "aws_ec2_transit_gateway_vpc_attachment": (
        "AWS::EC2::TransitGatewayAttachment",
        {},
    ),
    "aws_egress_only_internet_gateway": (
        "AWS::EC2::EgressOnlyInternetGateway",
        {},
    ),
    "aws_vpc_endpoint": (
        "AWS::EC2::VPCEndpoint",
        {"service_name": "ServiceName", "vpc_id": "VpcId"},
    ),
    "aws_instance": (
        "AWS::EC2::Instance",
        {"source_dest_check": "SourceDestCheck"},
    ),
    "aws_efs_mount_target": (
        "AWS::EFS::MountTarget",
        {
            "file_system_id": "FileSystemId",
            "subnet_id": "SubnetId",
            "security_groups": "SecurityGroups",
        },
    ),
    "aws_lambda_invocation": (
        "AWS::CloudFormation::CustomResource",
        {"function_name": "ServiceToken"},
    ),
    "aws_backup_selection": (
        "AWS::Backup::BackupSelection",
        {},
    ),
    "aws_s3files_access_point": (
        "AWS::S3Files::AccessPoint",
        {},
    ),
    "aws_network_acl_association": (
        "AWS::EC2::SubnetNetworkAclAssociation",
        {"subnet_id": "SubnetId", "network_acl_id": "NetworkAclId"},
    ),
}
_LIFECYCLE = {
    "transition_to_ia": "TransitionToIA",
    "transition_to_archive": "TransitionToArchive",
    "transition_to_primary_storage_class": "TransitionToPrimaryStorageClass",
}


def _function(body: Body) -> Converted:
    names = {"timeout": "Timeout", "role": "Role"}
    properties: dict[str, Any] = body.pick(names)
    for network in body.blocks("vpc_config")[:1]:
        inner = {"subnet_ids": "SubnetIds", "security_group_ids": "SecurityGroupIds"}
        properties["VpcConfig"] = network.pick(inner)
    mounts = [
        mount.pick({"arn": "Arn", "local_mount_path": "LocalMountPath"})
        for mount in body.blocks("file_system_config")
    ]
    if mounts:
        properties["FileSystemConfigs"] = mounts
    for start in body.blocks("snap_start")[:1]:
        properties["SnapStart"] = start.pick({"apply_on": "ApplyOn"})
    for environment in body.blocks("environment")[:1]:
        properties["Environment"] = {"Variables": environment["variables"]}
    if body.blocks("capacity_provider_config"):
        properties["CapacityProviderConfig"] = {}
    more = {
        "vpc_config": "VpcConfig",
        "file_system_config": "FileSystemConfigs",
        "snap_start": "SnapStart",
        "environment": "Environment",
    }
    return Converted(
        "AWS::Lambda::Function", with_dynamic(body, properties, more), {**names, **more}
    )


def _file_system(body: Body) -> Converted:
    names = {
        "encrypted": "Encrypted",
        "performance_mode": "PerformanceMode",
        "throughput_mode": "ThroughputMode",
        "provisioned_throughput_in_mibps": "ProvisionedThroughputInMibps",
        "availability_zone_name": "AvailabilityZoneName",
    }
    properties: dict[str, Any] = body.pick(names)
    more = {"lifecycle_policy": "LifecyclePolicies"}
    properties["LifecyclePolicies"] = [
        policy.pick(_LIFECYCLE) for policy in body.blocks("lifecycle_policy")
    ]
    return Converted(
        "AWS::EFS::FileSystem", with_dynamic(body, properties, more), {**names, **more}
    )


def _access_point(body: Body) -> Converted:
    properties: dict[str, Any] = body.pick({"file_system_id": "FileSystemId"})
    for user in body.blocks("posix_user")[:1]:
        properties["PosixUser"] = user.pick(
            {"uid": "Uid", "gid": "Gid", "secondary_gids": "SecondaryGids"}
        )
    info_names = {"owner_uid": "OwnerUid", "owner_gid": "OwnerGid", "permissions": "Permissions"}
    for directory in body.blocks("root_directory")[:1]:
        root = directory.pick({"path": "Path"})
        for info in directory.blocks("creation_info")[:1]:
            root["CreationInfo"] = info.pick(info_names)
        if directory.is_dynamic("creation_info"):
            root["CreationInfo"] = Unknown("dynamic creation_info")
        properties["RootDirectory"] = root
    names = {"posix_user": "PosixUser", "root_directory": "RootDirectory"}
    return Converted("AWS::EFS::AccessPoint", with_dynamic(body, properties, names), names)


def _role(body: Body) -> Converted:
    inline: list[Any] = [
        {"PolicyDocument": parse_json(policy["policy"])} for policy in body.blocks("inline_policy")
    ]
    if body.is_dynamic("inline_policy"):
        inline.append(Unknown("dynamic inline_policy"))
    names = {"managed_policy_arns": "ManagedPolicyArns", "inline_policy": "Policies"}
    properties = {
        "RoleName": body["name"],
        "ManagedPolicyArns": items(body["managed_policy_arns"]),
        "Policies": inline,
    }
    boundary = body["permissions_boundary"]
    if boundary is not None:
        properties["PermissionsBoundary"] = boundary
    return Converted("AWS::IAM::Role", properties, names)


def _policy(kind: str) -> Callable[[Body], Converted]:
    def convert_policy(body: Body) -> Converted:
        properties = {"PolicyDocument": parse_json(body["policy"]), "Roles": items(body["role"])}
        return Converted(kind, properties, {"policy": "PolicyDocument"})

    return convert_policy


def _attachment(body: Body) -> Converted:
    roles = items(body["role"]) + items(body["roles"])
    return Converted("attachment", {"Roles": roles, "Arn": body["policy_arn"]}, {})


def _attachments(body: Body) -> Converted:
    properties = {"Roles": items(body["role_name"]), "Arn": body["policy_arns"]}
    return Converted("attachment", properties, {})


def _file_system_policy(body: Body) -> Converted:
    properties = {"FileSystemId": body["file_system_id"], "Policy": parse_json(body["policy"])}
    return Converted("AWS::EFS::FileSystemPolicy", properties, {"policy": "Policy"})


def _backup(body: Body) -> Converted:
    status = next((block["status"] for block in body.blocks("backup_policy")), None)
    properties = {"FileSystemId": body["file_system_id"], "BackupPolicy": {"Status": status}}
    return Converted("AWS::EFS::BackupPolicy", properties, {})


def _alarm(body: Body) -> Converted:
    names = {"namespace": "Namespace", "metric_name": "MetricName"}
    properties: dict[str, Any] = body.pick(names)
    properties["Metrics"] = [
        {"MetricStat": {"Metric": metric.pick(names)}}
        for query in body.blocks("metric_query")
        for metric in query.blocks("metric")
    ]
    if isinstance(properties.get("MetricName"), str) and not is_known(properties["MetricName"]):
        properties.pop("MetricName")
    return Converted("AWS::CloudWatch::Alarm", properties, names)


def document(scope: Scope, raw: dict[str, Any]) -> Any:
    """Return the policy of an aws_iam_policy_document."""
    body = Body(scope, raw, [])
    joined = raw.get("source_policy_documents") or raw.get("override_policy_documents")
    if body.is_dynamic("statement") or joined:
        return Unknown("aws_iam_policy_document")
    return {"Statement": [_statement(block) for block in body.blocks("statement")]}


def _statement(block: Body) -> Block:
    conditions: dict[str, Any] = {}
    for test in block.blocks("condition"):
        conditions.setdefault(str(test["test"]), {})[str(test["variable"])] = test["values"]
    if block.is_dynamic("condition"):
        conditions["?"] = {"?": Unknown("dynamic condition")}
    names = {
        "actions": "Action",
        "not_actions": "NotAction",
        "resources": "Resource",
        "not_resources": "NotResource",
    }
    statement = block.pick(names)
    statement["Effect"] = block["effect"] or "Allow"
    statement["Condition"] = conditions
    for old, new in (("principals", "Principal"), ("not_principals", "NotPrincipal")):
        principals: dict[str, list[Any]] = {}
        for principal in block.blocks(old):
            kind = "AWS" if principal["type"] == "*" else str(principal["type"])
            principals.setdefault(kind, []).extend(items(principal["identifiers"]))
        if block.is_dynamic(old):
            principals.setdefault("AWS", []).append(Unknown(f"dynamic {old}"))
        if principals:
            statement[new] = principals
    return statement


MAKERS: dict[str, Callable[[Body], Converted]] = {
    **NETWORK,
    "aws_lambda_function": _function,
    "aws_efs_file_system": _file_system,
    "aws_efs_access_point": _access_point,
    "aws_efs_file_system_policy": _file_system_policy,
    "aws_efs_backup_policy": _backup,
    "aws_iam_role": _role,
    "aws_iam_role_policy": _policy("AWS::IAM::Policy"),
    "aws_iam_policy": _policy("AWS::IAM::ManagedPolicy"),
    "aws_iam_role_policy_attachment": _attachment,
    "aws_iam_role_policy_attachments_exclusive": _attachments,
    "aws_iam_policy_attachment": _attachment,
    "aws_cloudwatch_metric_alarm": _alarm,
}


def attach_policies(stack: Stack) -> None:
    """Give each role the policies that attachments and inline policies give to it."""
    for attachment in stack.of("attachment"):
        for value in attachment.properties["Roles"]:
            role = _role_of(stack, value)
            # An attachment to a role that is not known may be to any of them.
            for each in [role] if role else stack.of("AWS::IAM::Role"):
                more = attachment.properties["Arn"] if role else Unknown(f"attached to {value}")
                arns = items(each.get("ManagedPolicyArns"))
                each.properties["ManagedPolicyArns"] = [*arns, *items(more)]
    for policy in stack.of("AWS::IAM::Policy"):
        roles = [(_role_of(stack, value), value) for value in items(policy.get("Roles"))]
        policy.properties["Roles"] = [Ref(role.name) if role else value for role, value in roles]


def _role_of(stack: Stack, value: Any) -> Resource | None:
    """Return the role that a value leads to, or that has it as its name."""
    role = stack.find(value, "AWS::IAM::Role")
    if role is not None or not is_known(value):
        return role
    named = (each for each in stack.of("AWS::IAM::Role") if each.get("RoleName") == value)
    return next(named, None)


def convert(kind: str, name: str, body: Body, file: str) -> Resource:
    """Return a resource of Terraform in CloudFormation's vocabulary."""
    if kind in PLAIN:
        cfn, names = PLAIN[kind]
        converted = Converted(cfn, body.pick(names), names)
    elif kind in CLOUD_CONTROL:
        converted = cloud_control(kind, body)
    elif kind in MAKERS:
        converted = MAKERS[kind](body)
    else:
        converted = Converted(kind, {}, {})
    lines = {new: body.at(old) for old, new in converted.names.items()}
    if "depends_on" in body.raw:
        lines["DependsOn"] = body.at("depends_on")
    return Resource(name, converted.type, converted.properties, body.line, file, lines)
