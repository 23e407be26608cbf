"""SAM's functions as CloudFormation sees them: Globals joined in, and the role that SAM creates."""

from __future__ import annotations

from typing import Any

from efsstate.deploy.linting.iam import MOUNT, WRITE
from efsstate.deploy.linting.located_yaml import Map, Seq
from efsstate.deploy.linting.resource import Resource, references
from efsstate.deploy.linting.values import Ref, Unknown, is_known, items

_NETWORK = "arn:aws:iam::aws:policy/service-role/AWSLambdaVPCAccessExecutionRole"
# SAM's policy templates are named by their service.
_TEMPLATES = {
    "S3": "s3",
    "DynamoDB": "dynamodb",
    "SQS": "sqs",
    "SNS": "sns",
    "SSM": "ssm",
    "AWSSecretsManager": "secretsmanager",
    "Kinesis": "kinesis",
    "StepFunctions": "states",
}


def with_globals(raw: Map, common: Any, ignored: Any = None) -> Map:
    """Join a function's properties with those in Globals, as SAM does.

    Mappings are merged and lists are concatenated, the Globals' part first; all else is replaced.
    `ignored` is the function's IgnoreGlobals: the names to leave out, or "*".
    """
    common = common.get("Function") if isinstance(common, dict) else None
    if not isinstance(common, Map) or ignored == "*":
        return raw
    wanted = Map(common.line)
    wanted.lines = common.lines
    wanted.update({key: value for key, value in common.items() if key not in items(ignored)})
    return _merged(wanted, raw)


def _merged(common: Map, own: Map) -> Map:
    merged = Map(own.line)
    for source in (common, own):
        for key, value in source.items():
            merged[key] = _joined(merged[key], value) if key in merged else value
            merged.lines[key] = source.lines.get(key, source.line)
    return merged


def _joined(common: Any, own: Any) -> Any:
    if isinstance(common, Seq) and isinstance(own, Seq):
        sequence = Seq(own.line)
        sequence.extend([*common, *own])
        return sequence
    if isinstance(common, Map) and isinstance(own, Map):
        is_plain = not any(key == "Ref" or key.startswith("Fn::") for key in [*common, *own])
        return _merged(common, own) if is_plain else own
    return own


def unfold(function: Resource) -> list[Resource]:
    """Return the function as CloudFormation's, with the role that SAM creates if none is named."""
    function.type = "AWS::Lambda::Function"
    if function.get("Role") is not None:
        return [function]
    policies, managed = Seq(), Seq()
    for policy in items(function.get("Policies")):
        document = _document(policy)
        if document is not None:
            policies.append({"PolicyDocument": document})
        elif is_known(policy) and not policy.startswith("arn:"):
            managed.append(f"arn:aws:iam::aws:policy/{policy}")
        else:
            managed.append(Unknown("a policy") if isinstance(policy, dict) else policy)
    if function.get("VpcConfig") is not None:
        managed.append(_NETWORK)
    line = function.at("Policies")
    role = Resource(
        f"{function.name}Role",
        "AWS::IAM::Role",
        {"Policies": policies, "ManagedPolicyArns": managed},
        line,
        function.file,
        {"Policies": line, "ManagedPolicyArns": line},
    )
    role.condition = function.condition
    role.depends = references(policies) | references(managed)
    boundary = function.get("PermissionsBoundary")
    if boundary is not None:
        role.properties["PermissionsBoundary"] = boundary
    function.properties["Role"] = Ref(role.name, "Arn")
    function.depends.add(role.name)
    return [function, role]


def _document(policy: Any) -> dict[str, Any] | None:
    """Return the document of a policy written in place, or of one of SAM's policy templates."""
    if not isinstance(policy, dict):
        return None
    if "Statement" in policy:
        return policy
    if len(policy) != 1:
        return None
    ((name, arguments),) = policy.items()
    if name == "EFSWriteAccessPolicy" and isinstance(arguments, dict):
        return _file_system_access(arguments)
    if name == "VPCAccessPolicy":
        return {"Statement": [_allow(["ec2:*NetworkInterface*"], "*")]}
    if "Policy" not in name:
        return None
    if "Poller" in name or "StreamRead" in name:
        return {"Statement": []}  # Lambda's own pollers use it, outside of the VPC
    service = next((value for key, value in _TEMPLATES.items() if name.startswith(key)), None)
    actions = [f"{service}:*"] if service else []
    return {"Statement": [_allow(actions, Unknown(name))]}  # none of the others is about EFS


def _file_system_access(arguments: dict[str, Any]) -> dict[str, Any]:
    # The template takes ids, and puts ARNs together from them.
    file_system, access_point = (
        Ref(value, "Arn") if isinstance(value := arguments.get(name), Ref) else Unknown(str(value))
        for name in ("FileSystem", "AccessPoint")
    )
    statement = _allow([MOUNT, WRITE], file_system)
    statement["Condition"] = {"StringEquals": {"elasticfilesystem:AccessPointArn": access_point}}
    return {"Statement": [statement]}


def _allow(actions: list[str], resource: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": actions, "Resource": resource}
