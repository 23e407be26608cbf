"""Resources of the Terraform provider "awscc" in CloudFormation's spelling."""

from __future__ import annotations

from typing import Any

from efsstate.deploy.linting.hcl_blocks import Body, Converted
from efsstate.deploy.linting.policy_text import parse_json

CLOUD_CONTROL = {
    "awscc_ec2_security_group": "AWS::EC2::SecurityGroup",
    "awscc_ec2_security_group_egress": "AWS::EC2::SecurityGroupEgress",
    "awscc_ec2_security_group_ingress": "AWS::EC2::SecurityGroupIngress",
    "awscc_ec2_subnet": "AWS::EC2::Subnet",
    "awscc_ec2_vpc": "AWS::EC2::VPC",
    "awscc_efs_access_point": "AWS::EFS::AccessPoint",
    "awscc_efs_file_system": "AWS::EFS::FileSystem",
    "awscc_efs_mount_target": "AWS::EFS::MountTarget",
    "awscc_iam_role": "AWS::IAM::Role",
    "awscc_lambda_function": "AWS::Lambda::Function",
}
_DOCUMENTS = ("PolicyDocument", "FileSystemPolicy")


def cloud_control(kind: str, body: Body) -> Converted:
    """Return a resource of a kind in CLOUD_CONTROL."""
    written = {key.strip('"'): key for key in body.raw if not key.startswith("__")}
    names = {name: _pascal(name) for name in written}
    properties = {new: _respelled(new, body[written[old]]) for old, new in names.items()}
    return Converted(CLOUD_CONTROL[kind], properties, names)


def _respelled(name: str, value: Any) -> Any:
    """Return a value with its keys in CloudFormation's spelling, except those of a policy."""
    if name in _DOCUMENTS:
        return parse_json(value)
    if isinstance(value, dict):
        return {_pascal(key): _respelled(_pascal(key), part) for key, part in value.items()}
    return [_respelled("", part) for part in value] if isinstance(value, list) else value


def _pascal(name: str) -> str:
    if name == "transition_to_ia":
        return "TransitionToIA"
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))
