"""Rules for denials, and for the file system's own policy."""

from __future__ import annotations

from collections.abc import Iterator

from efsstate.deploy.findings import Hit, Rule
from efsstate.deploy.linting.iam import MOUNT, ROOT, Statement
from efsstate.deploy.linting.permissions import (
    denials,
    file_system_policies,
    is_open_to_all,
    permissions_of,
    place_of,
)
from efsstate.deploy.linting.resource import Resource
from efsstate.deploy.linting.stack import Stack
from efsstate.deploy.linting.values import items

_MOUNT_TARGET = "elasticfilesystem:accessedviamounttarget"
_NO_BOUNDS = {"aws:securetransport", _MOUNT_TARGET}


def _denied(stack: Stack) -> Iterator[Hit]:
    for function, mount in stack.mounted():
        place = place_of(stack, function, mount)
        file_system = place.file_system
        if file_system is None or stack.is_s3_files(mount):
            continue
        for policy in file_system_policies(stack, place.file_system):
            for statement in denials(policy, MOUNT, place):
                evidence = f"denies {statement.wording()} to {function.name}{_because(statement)}"
                yield from _if_beside(stack, function, statement, file_system.name, evidence)
        role = place.role
        for statement in permissions_of(stack, role).statements if role is not None else ():
            refuses = statement.effect == "deny" and statement.covers(MOUNT)
            if refuses and place.is_resource(statement) and place.is_met(statement):
                evidence = f"its role denies {statement.wording()}{_because(statement)}"
                yield from _if_beside(stack, function, statement, function.name, evidence)


def _if_beside(
    stack: Stack, function: Resource, statement: Statement, name: str, evidence: str
) -> Iterator[Hit]:
    """Yield a denial; as a warning if a condition decides whether its policy is created."""
    owner = statement.owner
    if stack.may_coexist(owner, function):
        severity = "" if stack.is_created_with(owner, function) else "warning"
        yield Hit(name, evidence, statement.line, severity, owner.file)


def _because(statement: Statement) -> str:
    tests = [
        f"{operator} {key} {', '.join(map(str, items(value)))}"
        for operator, pairs in statement.conditions.items()
        if isinstance(pairs, dict)
        for key, value in pairs.items()
    ]
    return f", by {' and '.join(tests)}" if tests else ", without a condition"


def _no_policy(stack: Stack) -> Iterator[Hit]:
    if stack.is_partial:
        return
    for file_system in stack.used():
        policies = file_system_policies(stack, file_system)
        if not all(policy.is_complete for policy in policies):
            continue
        if not policies:
            evidence = "no file-system policy: any client that reaches the port may mount it as"
            yield Hit.on(file_system, f"{evidence} root, without IAM")
        elif not any(
            statement.condition("aws:SecureTransport") is not None
            for policy in policies
            for statement in policy.statements
        ):
            evidence = "its policy does not ask for TLS"
            yield Hit.on(file_system, evidence, "FileSystemPolicy")


def _public(stack: Stack) -> Iterator[Hit]:
    for file_system in stack.of("AWS::EFS::FileSystem"):
        for policy in file_system_policies(stack, file_system):
            for statement in policy.statements:
                if not statement.is_allow or not is_open_to_all(statement):
                    continue
                keys = {key.lower() for pairs in statement.conditions.values() for key in pairs}
                if not statement.grants(ROOT) or keys - _NO_BOUNDS:
                    continue
                evidence = f"allows {statement.wording()} to every principal"
                severity = ""
                if _MOUNT_TARGET in keys:  # AWS does not call it public; CDK writes it by default
                    evidence += " that comes through a mount target"
                    severity = "note"
                file = statement.owner.file
                yield Hit(file_system.name, evidence, statement.line, severity, file)


RULES = (
    Rule(
        "EFS031",
        "note",
        "policy",
        "The file system does not ask for TLS and IAM",
        "A file system without a policy of its own may be mounted as root, without TLS, by any "
        "client that reaches TCP 2049. A policy that asks for both does not keep Lambda out.",
        "Add a file-system policy that denies mounts where aws:SecureTransport is false, and "
        "those without an access point.",
        _no_policy,
    ),
    Rule(
        "EFS032",
        "error",
        "policy",
        "A policy denies the function's mount",
        "A Deny outweighs every Allow, whether it stands in the file system's policy or in the "
        "role's. The mount ends with EFSMountFailureException.",
        "Change the Deny so that it does not meet this access point and role.",
        _denied,
    ),
    Rule(
        "EFS036",
        "warning",
        "policy",
        "The file system's policy gives everybody root access",
        "A policy that allows ClientRootAccess to every principal protects no better than none: "
        "any client that reaches the port may mount the file system as root.",
        "Allow only the roles that need it, without ClientRootAccess, or use Deny statements "
        "alone beside the roles' own permissions.",
        _public,
    ),
)
