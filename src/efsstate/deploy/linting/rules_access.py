"""Rules for the policies of the function's role and of the file system."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from efsstate.deploy.findings import Hit, Rule
from efsstate.deploy.linting.iam import (
    CLIENT,
    MOUNT,
    ROOT,
    S3_MOUNT,
    WRITE,
    Policy,
    Statement,
    parse_statements,
)
from efsstate.deploy.linting.permissions import (
    ACCESS_POINT_KEY,
    Place,
    admits,
    allows,
    file_system_policies,
    is_access_point,
    is_policed,
    mounting_roles,
    permissions_of,
    place_of,
    role_of,
)
from efsstate.deploy.linting.resource import Resource
from efsstate.deploy.linting.stack import Stack
from efsstate.deploy.linting.values import Ref, Unknown, items

_INTERFACES = (
    "ec2:CreateNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DeleteNetworkInterface",
)


def _all_statements(stack: Stack) -> Iterator[Statement]:
    """Yield every statement that identities are given, each once."""
    for policy in stack.of("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy", "AWS::IAM::RolePolicy"):
        document = policy.get("PolicyDocument")
        yield from parse_statements(document, policy, policy.at("PolicyDocument"))
    for role in stack.of("AWS::IAM::Role"):
        for policy in items(role.get("Policies")):
            if isinstance(policy, dict):
                yield from parse_statements(policy.get("PolicyDocument"), role, role.at("Policies"))


def _mounting_statements(stack: Stack) -> Iterator[Statement]:
    """Yield each statement that lets a role mount EFS, by name or, for functions, by wildcard."""
    seen = set()
    for role in mounting_roles(stack).values():
        for statement in permissions_of(stack, role).statements:
            key = (statement.owner.name, statement.line, str(statement.actions))
            if key not in seen and statement.is_allow and any(map(statement.covers, CLIENT)):
                seen.add(key)
                yield statement
    for statement in _all_statements(stack):
        key = (statement.owner.name, statement.line, str(statement.actions))
        if key not in seen and statement.is_allow and _client(statement):
            seen.add(key)
            yield statement


def _client(statement: Statement) -> list[str]:
    """Return the actions of a statement that name mounting."""
    prefix = "elasticfilesystem:client"
    actions = [str(action) for action in statement.actions]
    return [action for action in actions if action.lower().startswith(prefix)]


def _wrong_resource(stack: Stack) -> Iterator[Hit]:
    for statement in _all_statements(stack):
        if not statement.is_allow or not _client(statement):
            continue
        if _is_on_access_points(stack, statement):
            access_point = statement.resources[0]
            severity = "" if _is_needed(stack, statement, access_point) else "warning"
            evidence = f"{', '.join(_client(statement))} on {access_point}"
            owner = statement.owner
            yield Hit(owner.name, evidence, statement.line, severity, owner.file)


def _is_on_access_points(stack: Stack, statement: Statement) -> bool:
    """Return True if all resources of a statement are access points: it then allows nothing."""
    resources = statement.resources
    return bool(resources) and all(is_access_point(stack, value) for value in resources)


def _is_needed(stack: Stack, statement: Statement, access_point: Any) -> bool:
    """Return True if the mount fails without the statement: the file system has a policy."""
    file_system = stack.file_system(stack.find(access_point, "AWS::EFS::AccessPoint"))
    for function, mount in stack.mounted():
        if not is_policed(stack, function, file_system):
            continue
        place = place_of(stack, function, mount)
        if place.file_system is file_system and place.role is not None:
            policy = permissions_of(stack, place.role)
            if statement in policy.statements and _is_refused(stack, policy, place):
                return True
    return False


def _is_refused(stack: Stack, policy: Policy, place: Place) -> bool:
    """Return True if neither the role nor the file system's policy allows the mount."""
    if allows(policy, MOUNT, place) is not False:
        return False
    return all(
        admits(own, MOUNT, place) is False for own in file_system_policies(stack, place.file_system)
    )


def _root_access(stack: Stack) -> Iterator[Hit]:
    for statement in _mounting_statements(stack):
        if statement.grants(ROOT):
            owner = statement.owner
            if statement.managed:
                evidence = f"has {statement.managed}, which allows ClientRootAccess everywhere"
            else:
                evidence = f"allows {statement.wording()}"
            yield Hit(owner.name, evidence, statement.line, file=owner.file)


def _may_not_mount(stack: Stack) -> Iterator[Hit]:
    for function, mount in stack.mounted():
        if stack.is_s3_files(mount):
            continue
        place = place_of(stack, function, mount)
        policy = permissions_of(stack, place.role)
        own = file_system_policies(stack, place.file_system)
        verdict = allows(policy, MOUNT, place)
        if verdict is False:
            yield from _refused(function, policy, place, own)
        elif verdict and _is_read_only(policy, place, own):
            evidence = "its role allows ClientMount and not ClientWrite: the mount is read-only"
            yield Hit.on(function, evidence, "Role", "note")


def _is_read_only(policy: Policy, place: Place, own: list[Policy]) -> bool:
    """Return True if nothing allows ClientWrite, and the file system has a policy."""
    if allows(policy, WRITE, place) is not False:
        return False
    return bool(own) and all(admits(part, WRITE, place) is False for part in own)


def _refused(function: Resource, policy: Policy, place: Place, own: list[Policy]) -> Iterator[Hit]:
    if any(admits(part, MOUNT, place) is not False for part in own):
        if _is_read_only(policy, place, own):
            evidence = "the file system's policy allows ClientMount and not ClientWrite: the mount"
            yield Hit.on(function, f"{evidence} is read-only", "Role", "note")
        return
    # Without a policy of its own a file system admits everybody: it works until one is added.
    is_policed_always = is_policed(place.stack, function, place.file_system)
    severity = "" if is_policed_always else "warning" if own or not place.file_system else "note"
    granted = [each for each in policy.statements if each.grants(MOUNT)]
    if any(_is_on_access_points(place.stack, each) for each in granted):
        return  # EFS020 tells
    evidence = "its role allows no elasticfilesystem:ClientMount"
    if granted:
        evidence = "its role allows elasticfilesystem:ClientMount elsewhere, not on this mount"
    yield Hit.on(function, evidence, "Role", severity)


def _may_not_mount_s3(stack: Stack) -> Iterator[Hit]:
    for function, mount in stack.mounted():
        if len(stack.mounts(function)) > 1:
            continue  # EFS044 tells
        policy = permissions_of(stack, role_of(stack, function))
        verdicts = [statement.grants(S3_MOUNT) for statement in policy.statements]
        if stack.is_s3_files(mount) and policy.is_complete and not {True, None} & set(verdicts):
            yield Hit.on(function, f"its role allows no {S3_MOUNT}", "Role")


def _any_access_point(stack: Stack) -> Iterator[Hit]:
    for statement in _mounting_statements(stack):
        if any(statement.comparisons(ACCESS_POINT_KEY)):
            continue
        resources = statement.resources
        if _is_on_access_points(stack, statement):
            continue  # EFS020 tells
        is_wide = any(_is_every_file_system(value) for value in resources)
        if not is_wide and statement.grants(MOUNT) is not True:
            continue
        where = "every file system" if is_wide else ", ".join(str(each)[:100] for each in resources)
        name = statement.managed or statement.wording()
        evidence = f"{name} on {where} through any access point, or none"
        owner = statement.owner
        yield Hit(owner.name, evidence, statement.line, "" if is_wide else "note", owner.file)


def _is_every_file_system(value: Any) -> bool:
    """Return True if a policy's resource is every file system there is."""
    if isinstance(value, Unknown | Ref):
        return False
    return str(value) == "*" or str(value).endswith((":file-system/*", ":elasticfilesystem:*"))


_IDS = ("", "FileSystemId", "AccessPointId")  # attributes that are an id


def _wrong_kind_of_name(stack: Stack) -> Iterator[Hit]:
    """Find an id where a policy names, or compares with, an ARN; and a role's name for its ARN."""
    yield from _role_by_name(stack)
    for statement in _all_statements(stack):
        owner = statement.owner
        for value in statement.resources:
            if isinstance(value, Ref) and value.attribute in _IDS and _is_efs(stack, value):
                evidence = f"Resource is the id of {value}, not its ARN"
                yield Hit(owner.name, evidence, statement.line, file=owner.file)
        for _, value in statement.comparisons(ACCESS_POINT_KEY):
            for part in items(value):
                if isinstance(part, Ref) and part.attribute in _IDS and _is_efs(stack, part):
                    evidence = f"{ACCESS_POINT_KEY} is compared with the id of {part}, not its ARN"
                    yield Hit(owner.name, evidence, statement.line, file=owner.file)


def _role_by_name(stack: Stack) -> Iterator[Hit]:
    for function in stack.functions():
        value = function.get("Role")
        role = role_of(stack, function)
        if isinstance(value, Ref) and value.attribute in ("", "name") and role is not None:
            yield Hit.on(function, f"Role is the name of {role.name}, not its ARN", "Role")


def _is_efs(stack: Stack, value: Any) -> bool:
    return stack.find(value, "AWS::EFS::AccessPoint", "AWS::EFS::FileSystem") is not None


def _no_interfaces(stack: Stack) -> Iterator[Hit]:
    for function in stack.functions():
        network = function.get("VpcConfig")
        if not isinstance(network, dict) or not items(network.get("SubnetIds")):
            continue
        policy = permissions_of(stack, role_of(stack, function))
        if not policy.is_complete:
            continue
        missing = [
            action
            for action in _INTERFACES
            if not any(each.grants(action) is not False for each in policy.statements)
        ]
        if missing:
            yield Hit.on(function, f"its role does not allow {', '.join(missing)}", "Role")


RULES = (
    Rule(
        "EFS020",
        "error",
        "policy",
        "The permission to mount is on the access point instead of the file system",
        "For ClientMount, ClientWrite and ClientRootAccess the resource is the file system. A "
        "statement whose resource is an access point allows nothing. If the file system has a "
        "policy, the mount ends with EFSMountFailureException: access denied; without one it "
        "mounts until a policy is added. Many examples have it wrong, and the Serverless "
        "Framework writes this very statement.",
        "Set Resource to the file system's ARN, and put the access point's ARN into the condition "
        "StringEquals: {elasticfilesystem:AccessPointArn: …}.",
        _wrong_resource,
    ),
    Rule(
        "EFS021",
        "warning",
        "policy",
        "A role is given root access to the file system",
        "ClientRootAccess turns off the squashing of root. Behind an access point with a user it "
        "adds nothing that a function needs; without one the client may read and change "
        "everything.",
        "Allow only elasticfilesystem:ClientMount and elasticfilesystem:ClientWrite.",
        _root_access,
    ),
    Rule(
        "EFS022",
        "error",
        "policy",
        "The function's role may not mount",
        "Lambda mounts as the function's role, which needs elasticfilesystem:ClientMount, and "
        "elasticfilesystem:ClientWrite to write. Only a file system without a policy of its own "
        "admits every client that reaches it; once it gets one, every mount ends with "
        "EFSMountFailureException. AWS's AmazonElasticFileSystemFullAccess does not allow it: it "
        "is for managing file systems.",
        "Give the role both on the file system's ARN, with the access point as the condition.",
        _may_not_mount,
    ),
    Rule(
        "EFS023",
        "warning",
        "policy",
        "The permission to mount is for any access point",
        "Access points keep applications apart only if each role may use its own alone. On `*` "
        "the role may mount every file system of the account.",
        "Name the file system's ARN as the resource, and add the condition StringEquals: "
        "{elasticfilesystem:AccessPointArn: …}.",
        _any_access_point,
    ),
    Rule(
        "EFS033",
        "error",
        "policy",
        "An id or a name stands where an ARN belongs",
        "In CloudFormation `Ref` of a file system or an access point is its id, as is `.id` in "
        "Terraform. IAM refuses an id as a Resource, and a condition on the access point's ARN "
        "never equals one. A function's Role is an ARN too.",
        "Use `!GetAtt NAME.Arn` (Terraform: `.arn`).",
        _wrong_kind_of_name,
    ),
    Rule(
        "EFS035",
        "error",
        "policy",
        "The function's role may not create network interfaces",
        "Lambda creates the interfaces of a function in a VPC as the function's role. Without the "
        "permission creating the function fails: `The provided execution role does not have "
        "permissions to call CreateNetworkInterface on EC2`.",
        "Attach the AWS managed policy service-role/AWSLambdaVPCAccessExecutionRole to the role, "
        "or allow ec2:CreateNetworkInterface, ec2:DescribeNetworkInterfaces and "
        "ec2:DeleteNetworkInterface.",
        _no_interfaces,
    ),
    Rule(
        "EFS037",
        "warning",
        "policy",
        "The function's role may not mount S3 Files",
        "S3 Files has actions of its own: s3files:ClientMount, and s3files:ClientWrite to write. A "
        "permission for elasticfilesystem does not cover them.",
        "Allow s3files:ClientMount and s3files:ClientWrite to the role, or attach "
        "AmazonS3FilesClientReadWriteAccess.",
        _may_not_mount_s3,
    ),
)
