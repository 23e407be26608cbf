"""Rules for who may do what: IAM, access points, file-system policy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from efsstate.deploy.findings import Hit, Rule
from efsstate.deploy.linting.iam import Statement, covers, statements_of
from efsstate.deploy.linting.resource import Resource
from efsstate.deploy.linting.stack import Stack
from efsstate.deploy.linting.values import Joined, Unknown, items, text

CLIENT = (
    "elasticfilesystem:ClientMount",
    "elasticfilesystem:ClientWrite",
    "elasticfilesystem:ClientRootAccess",
)


def _all_statements(stack: Stack) -> Iterator[Statement]:
    """Every statement that identities are given, each once."""
    for one in stack.of("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy", "AWS::IAM::RolePolicy"):
        yield from statements_of(one.get("PolicyDocument"), one, one.at("PolicyDocument"))
    for role in stack.of("AWS::IAM::Role"):
        for policy in items(role.get("Policies")):
            if isinstance(policy, dict):
                yield from statements_of(policy.get("PolicyDocument"), role, role.at("Policies"))


def _client(one: Statement) -> list[str]:
    """The actions of a statement that are about mounting."""
    return [
        action for action in one.actions if action.lower().startswith("elasticfilesystem:client")
    ]


def _is_access_point(stack: Stack, value: Any) -> bool:
    if stack.find(value, "AWS::EFS::AccessPoint") is not None and not (
        isinstance(value, Joined) and "file-system/" in value
    ):
        return True
    return isinstance(value, str) and ":access-point/" in value


def _wrong_resource(stack: Stack) -> Iterator[Hit]:
    for one in _all_statements(stack):
        if one.allow and _client(one):
            wrong = [value for value in one.resources if _is_access_point(stack, value)]
            if wrong and len(wrong) == len(one.resources):
                yield Hit(
                    one.owner.name,
                    f"{', '.join(_client(one))} on {wrong[0]}",
                    one.line,
                    file=one.owner.file,
                )


def _root_access(stack: Stack) -> Iterator[Hit]:
    for one in _all_statements(stack):
        if one.allow and _client(one) and one.grants("elasticfilesystem:ClientRootAccess"):
            yield Hit(
                one.owner.name, f"allows {', '.join(_client(one))}", one.line, file=one.owner.file
            )
    for function in stack.functions():
        for one in stack.statements(function)[0]:
            if one.managed == "AmazonElasticFileSystemClientFullAccess":
                evidence = f"its role has {one.managed}, which allows ClientRootAccess on every file system of the account"
                yield Hit(function.name, evidence, one.line, "note", one.owner.file)


def _may_not_mount(stack: Stack) -> Iterator[Hit]:
    for function, mount in stack.mounted():
        if "s3files" in str(mount.get("Arn")):
            continue
        statements, whole = stack.statements(function)
        if not whole:
            continue
        if not any(one.grants("elasticfilesystem:ClientMount") for one in statements):
            file_system = stack.file_system(stack.access_point(mount))
            if file_system is not None and _let_in(stack, file_system):
                continue
            # Without a policy of its own a file system lets everybody mount: it works until one is added.
            severity = (
                "warning"
                if file_system is None
                else ""
                if _policies(stack, file_system)
                else "note"
            )
            evidence = "its role allows no elasticfilesystem:ClientMount"
            yield Hit(function.name, evidence, function.at("Role"), severity, function.file)
        elif not any(one.grants("elasticfilesystem:ClientWrite") for one in statements):
            evidence = "its role allows ClientMount and not ClientWrite: the mount is read-only"
            yield Hit(function.name, evidence, function.at("Role"), "note", function.file)


def _any_access_point(stack: Stack) -> Iterator[Hit]:
    for one in _all_statements(stack):
        if one.allow and _client(one) and one.condition("elasticfilesystem:AccessPointArn") is None:
            # With the bare file system as the resource, a policy is at least no wider than that one.
            if all(_is_access_point(stack, value) for value in one.resources):
                continue  # EFS020: it allows nothing at all
            everywhere = any(text(value) == "*" for value in one.resources)
            writes = one.grants("elasticfilesystem:ClientMount")
            where = "every file system" if everywhere else "the file system"
            if everywhere or writes:
                evidence = f"{', '.join(_client(one))} on {where} through any access point, or none"
                yield Hit(
                    one.owner.name, evidence, one.line, "" if everywhere else "note", one.owner.file
                )


def _no_access_point(stack: Stack) -> Iterator[Hit]:
    for function, mount in stack.mounted():
        value = mount.get("Arn")
        line = getattr(mount, "line", 0) or function.at("FileSystemConfigs")
        file_system, arn = stack.find(value, "AWS::EFS::FileSystem"), text(value)
        if isinstance(value, Unknown) and value.strip().startswith("aws_efs_file_system."):
            yield Hit(function.name, f"Arn is {value.strip()}", line, file=function.file)
        elif file_system is not None and ":access-point/" not in str(value):
            yield Hit(
                function.name,
                f"Arn leads to the file system {file_system.name}",
                line,
                file=function.file,
            )
        elif (
            arn is not None
            and "s3files" not in arn
            and not re.search(r":access-point/fsap-[0-9a-f]+$", arn)
        ):
            yield Hit(function.name, f"Arn is {arn or 'empty'}", line, file=function.file)


def _used(stack: Stack) -> list[Resource]:
    return stack.of("AWS::EFS::AccessPoint")


def _root_directory(stack: Stack) -> Iterator[Hit]:
    for one in _used(stack):
        root = one.get("RootDirectory")
        path = one.get("RootDirectory", "Path")
        if isinstance(root, Unknown) or isinstance(path, Unknown):
            continue
        if path is None or text(path) == "/":
            evidence = (
                "RootDirectory is /"
                if path
                else "no RootDirectory.Path: the root of the file system"
            )
            yield Hit(one.name, evidence, one.at("RootDirectory"), file=one.file)


def _open_to_all(stack: Stack) -> Iterator[Hit]:
    for one in _used(stack):
        mode = text(one.get("RootDirectory", "CreationInfo", "Permissions"))
        if mode and re.fullmatch(r"[0-7]{3,4}", mode) and int(mode[-1]) & 2:
            yield Hit(
                one.name,
                f"Permissions {mode}: every user of the file system may write there",
                one.at("RootDirectory"),
                file=one.file,
            )


def _no_user(stack: Stack) -> Iterator[Hit]:
    for one in _used(stack):
        user = one.get("PosixUser")
        if user is None:
            yield Hit(
                one.name, "no PosixUser: the client's own number counts", one.line, file=one.file
            )
        elif isinstance(user, dict) and text(user.get("Uid")) == "0":
            yield Hit(one.name, "PosixUser.Uid is 0", one.at("PosixUser"), file=one.file)


def _not_made(stack: Stack) -> Iterator[Hit]:
    for one in _used(stack):
        path = text(one.get("RootDirectory", "Path"))
        if path and path != "/" and one.get("RootDirectory", "CreationInfo") is None:
            yield Hit(
                one.name,
                f"RootDirectory {path} without CreationInfo",
                one.at("RootDirectory"),
                file=one.file,
            )


def _other_owner(stack: Stack) -> Iterator[Hit]:
    for one in _used(stack):
        info = one.get("RootDirectory", "CreationInfo")
        mode = text(one.get("RootDirectory", "CreationInfo", "Permissions"))
        user, group = (text(one.get("PosixUser", name)) for name in ("Uid", "Gid"))
        if (
            not isinstance(info, dict)
            or not mode
            or not re.fullmatch(r"[0-7]{3,4}", mode)
            or None in (user, group)
            or user == "0"
        ):
            continue
        owner, owners = text(info.get("OwnerUid")), text(info.get("OwnerGid"))
        if owner is None or owners is None:
            continue
        digit = (
            int(mode[-3]) if user == owner else int(mode[-2]) if group == owners else int(mode[-1])
        )
        if digit & 3 != 3:
            evidence = f"user {user}:{group} gets {digit} of {mode} on a directory of {owner}:{owners}: it cannot write there"
            yield Hit(one.name, evidence, one.at("RootDirectory"), file=one.file)


def _unencrypted(stack: Stack) -> Iterator[Hit]:
    for one in stack.of("AWS::EFS::FileSystem"):
        value = one.get("Encrypted")
        if value is None or text(value) in ("false", "False"):
            evidence = (
                "Encrypted is false"
                if value
                else "Encrypted is not given, and the default is false"
            )
            yield Hit(one.name, evidence, one.at("Encrypted"), "" if value else "note", one.file)


def _policies(stack: Stack, file_system: Resource) -> list[Any]:
    apart = [
        one.get("Policy")
        for one in stack.of("AWS::EFS::FileSystemPolicy")
        if stack.file_system(one) is file_system
    ]
    return [one for one in [file_system.get("FileSystemPolicy"), *apart] if one]


def _let_in(stack: Stack, file_system: Resource) -> bool:
    """Whether the file system's own policy allows the mount, or cannot be read."""
    policies = _policies(stack, file_system)
    return any(
        not isinstance(policy, dict)
        or any(
            one.grants("elasticfilesystem:ClientMount")
            for one in statements_of(policy, file_system)
        )
        for policy in policies
    )


def _denied(stack: Stack) -> Iterator[Hit]:
    for function, mount in stack.mounted():
        mine = stack.access_point(mount)
        file_system = stack.file_system(mine)
        if mine is None or file_system is None:
            continue
        for policy in _policies(stack, file_system):
            for one in statements_of(policy, file_system, file_system.at("FileSystemPolicy")):
                if one.allow or not any(
                    covers(action, "elasticfilesystem:ClientMount") for action in one.actions
                ):
                    continue
                for test, pairs in one.conditions.items():
                    values = items(
                        next(
                            (
                                v
                                for k, v in (pairs.items() if isinstance(pairs, dict) else ())
                                if k.lower() == "elasticfilesystem:accesspointarn"
                            ),
                            None,
                        )
                    )
                    others = values and not any(
                        isinstance(v, Unknown)
                        or (isinstance(v, Joined) and not v.refs)
                        or "*" in str(v)
                        for v in values
                    )
                    if (
                        "NotEquals" in test
                        and others
                        and all(stack.find(v) is not mine for v in values)
                        and len(one.conditions) == 1
                    ):
                        evidence = f"denies every access point but {', '.join(map(str, values))}; {function.name} mounts {mine.name}"
                        yield Hit(file_system.name, evidence, one.line, file=file_system.file)


def _no_tls(stack: Stack) -> Iterator[Hit]:
    if stack.partial:
        return
    for one in stack.used():
        policies = _policies(stack, one)
        if any(not isinstance(policy, dict) for policy in policies):
            continue
        if not policies:
            yield Hit(
                one.name,
                "no file-system policy: whoever reaches the port may mount it, as root, without IAM",
                one.line,
                file=one.file,
            )
        elif not any(
            s.condition("aws:SecureTransport") is not None
            for policy in policies
            for s in statements_of(policy, one)
        ):
            yield Hit(
                one.name,
                "its policy does not ask for TLS",
                one.at("FileSystemPolicy"),
                file=one.file,
            )


RULES = (
    Rule(
        "EFS020", "error", "policy", "The permission to mount is on the access point instead of the file system",
        "For ClientMount, ClientWrite and ClientRootAccess the resource is the file system. A statement whose resource is an access point "
        "allows nothing, and the mount ends with EFSMountFailureException: access denied. Many examples have it wrong.",
        "Set Resource to the file system's ARN, and put the access point's ARN into the condition "
        "StringEquals: {elasticfilesystem:AccessPointArn: …}.",
        _wrong_resource,
    ),
    Rule(
        "EFS021", "warning", "policy", "The function is given root access to the file system",
        "ClientRootAccess turns off the squashing of root. Behind an access point with a user it gives nothing that a function needs; "
        "without one the function may read and change everything.",
        "Allow elasticfilesystem:ClientMount and elasticfilesystem:ClientWrite alone.",
        _root_access,
    ),
    Rule(
        "EFS022", "error", "policy", "The function's role may not mount",
        "Lambda mounts as the function's role, which needs elasticfilesystem:ClientMount, and elasticfilesystem:ClientWrite to write. Only a "
        "file system without a policy of its own lets in whoever reaches it; the day it gets one, every mount ends with EFSMountFailureException.",
        "Give the role both on the file system's ARN, with the access point as the condition.",
        _may_not_mount,
    ),
    Rule(
        "EFS023", "warning", "policy", "The permission to mount is for any access point",
        "Access points keep applications apart only if each role may use its own alone. On `*` the role may mount every file system of the account.",
        "Name the file system's ARN as the resource, and add the condition StringEquals: {elasticfilesystem:AccessPointArn: …}.",
        _any_access_point,
    ),
    Rule(
        "EFS024", "error", "access point", "The function's file system is not an access point",
        "FileSystemConfigs takes the ARN of an access point, arn:aws:elasticfilesystem:REGION:ACCOUNT:access-point/fsap-…, and Lambda refuses others.",
        "Make an access point, and give its ARN.",
        _no_access_point,
    ),
    Rule(
        "EFS025", "warning", "access point", "The access point's directory is the root of the file system",
        "The function then sees, and may fill or delete, what every other application keeps there. And CreationInfo has no effect on `/`: it "
        "belongs to root, and the function's user cannot write to it.",
        "Give the access point a directory of its own, RootDirectory.Path: /name, with CreationInfo.",
        _root_directory,
    ),
    Rule(
        "EFS026", "warning", "access point", "The access point's directory is writable by everyone",
        "0777 appears in many examples to get rid of `Permission denied`. It lets every user of the file system replace cached results and models.",
        "Use 0750 with OwnerUid and OwnerGid equal to PosixUser's.",
        _open_to_all,
    ),
    Rule(
        "EFS027", "warning", "access point", "The access point has no user of its own, or root",
        "Without PosixUser the number of the client's process counts, which for a Lambda function is nothing to rely on; with 0 every permission is void.",
        "Set PosixUser to a number above 0, the same as CreationInfo's owner.",
        _no_user,
    ),
    Rule(
        "EFS028", "error", "access point", "The access point's directory is not made when it is missing",
        "EFS makes the directory at the first mount only with CreationInfo. Without it, and without the directory, the mount ends with EFSMountFailureException.",
        "Add CreationInfo with OwnerUid, OwnerGid and Permissions.",
        _not_made,
    ),
    Rule(
        "EFS029", "error", "access point", "The access point's user cannot write to its directory",
        "The mount succeeds, and the first write ends with `PermissionError: [Errno 13]`. CreationInfo counts only when the directory is made: "
        "to change it later, change the directory, or take a new path.",
        "Make OwnerUid and OwnerGid those of PosixUser, with Permissions 0750.",
        _other_owner,
    ),
    Rule(
        "EFS030", "warning", "file system", "The file system is not encrypted at rest",
        "Encryption can be chosen only when the file system is made; it costs nothing.",
        "Set Encrypted: true.",
        _unencrypted,
    ),
    Rule(
        "EFS031", "note", "policy", "The file system does not ask for TLS and IAM",
        "Without a policy of its own a file system lets whoever reaches TCP 2049 mount it as root, without TLS. Lambda itself always uses TLS and IAM.",
        "Add a file-system policy that denies mounts where aws:SecureTransport is false, and those without an access point.",
        _no_tls,
    ),
    Rule(
        "EFS032", "error", "policy", "The file system's policy denies this access point",
        "A Deny outweighs every Allow. The mount ends with EFSMountFailureException.",
        "Add the access point's ARN to the condition of the Deny.",
        _denied,
    ),
)  # fmt: skip
