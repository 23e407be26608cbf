"""The permission to mount: a role's policies and a file system's own, together."""

from __future__ import annotations

import fnmatch
from typing import Any, NamedTuple

from efsstate.deploy.linting.iam import Policy, Statement, managed_statements, parse_policy
from efsstate.deploy.linting.resource import Resource
from efsstate.deploy.linting.stack import Stack
from efsstate.deploy.linting.values import (
    Joined,
    Unknown,
    all_of,
    any_of,
    is_known,
    items,
    negated,
    text,
)

ACCESS_POINT_KEY = "elasticfilesystem:AccessPointArn"
_KEYS = (
    ACCESS_POINT_KEY.lower(),
    "elasticfilesystem:accessedviamounttarget",
    "aws:securetransport",
    "aws:principalarn",
    "aws:principalaccount",
)
_POLICIES = ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy", "AWS::IAM::RolePolicy")


def role_of(stack: Stack, function: Resource) -> Resource | None:
    """Return the role of a function, if it is in view."""
    return stack.find(function.get("Role"), "AWS::IAM::Role")


def permissions_of(stack: Stack, role: Resource | None) -> Policy:
    """Return all policies of a role as one."""
    if role is None:
        return Policy([], is_complete=False)
    parts = [
        parse_policy(inline.get("PolicyDocument"), role, role.at("Policies"))
        if isinstance(inline, dict)
        else Policy([], is_complete=False)
        for inline in items(role.get("Policies"))
    ]
    parts += [_attached(stack, arn, role) for arn in items(role.get("ManagedPolicyArns"))]
    for policy in stack.of(*_POLICIES):
        roles = items(policy.get("Roles")) + items(policy.get("RoleName"))
        if any(_leads_to(stack, value, role) for value in roles):
            parts.append(_document_of(policy))
        elif any(isinstance(value, Unknown | Joined) for value in roles):
            parts.append(Policy([], is_complete=False))
    statements = [statement for part in parts for statement in part.statements]
    whole = all(part.is_complete for part in parts) and not stack.is_partial
    has_boundary = role.get("PermissionsBoundary") is not None
    return Policy(statements, is_complete=whole and not has_boundary)


def _leads_to(stack: Stack, value: Any, role: Resource) -> bool:
    """Return True if a value leads to a role, or is the role's name."""
    return stack.find(value) is role or (is_known(value) and role.get("RoleName") == value)


def _attached(stack: Stack, arn: Any, role: Resource) -> Policy:
    own = stack.find(arn, "AWS::IAM::ManagedPolicy")
    if own is not None:
        return _document_of(own)
    if ":aws:policy/" in str(arn) and not isinstance(arn, Unknown):
        name = str(arn).rpartition("/")[2]
        statements = managed_statements(name, role, role.at("ManagedPolicyArns"))
        if statements is not None:
            return Policy(statements, is_complete=True)
    return Policy([], is_complete=False)


def _document_of(policy: Resource) -> Policy:
    return parse_policy(policy.get("PolicyDocument"), policy, policy.at("PolicyDocument"))


def mounting_roles(stack: Stack) -> dict[str, Resource]:
    """Return the roles of the functions that mount EFS, by name."""
    roles = {}
    for function, mount in stack.mounted():
        role = role_of(stack, function)
        if role is not None and not stack.is_s3_files(mount):
            roles[role.name] = role
    return roles


def file_system_policies(stack: Stack, file_system: Resource | None) -> list[Policy]:
    """Return the file system's own policy, from itself or from a resource of its own."""
    if file_system is None:
        return []
    owners = [
        policy
        for policy in stack.of("AWS::EFS::FileSystemPolicy")
        if stack.file_system(policy) is file_system
    ]
    written = [(file_system, "FileSystemPolicy"), *((owner, "Policy") for owner in owners)]
    return [
        parse_policy(owner.get(name), owner, owner.at(name))
        for owner, name in written
        if owner.get(name)
    ]


def is_policed(stack: Stack, function: Resource, file_system: Resource | None) -> bool:
    """Return True if a file system has a policy in every deployment with the function."""
    if file_system is None:
        return False
    return bool(file_system.get("FileSystemPolicy")) or any(
        stack.file_system(policy) is file_system and stack.is_created_with(policy, function)
        for policy in stack.of("AWS::EFS::FileSystemPolicy")
    )


class Place(NamedTuple):
    """A mount, as far as it is in view: role, access point, file system."""

    stack: Stack
    access_point: Resource | None
    file_system: Resource | None
    role: Resource | None

    def is_resource(self, statement: Statement) -> bool | None:
        """Return True if a statement is about the file system; None if that is not known."""
        return any_of(self._is_file_system(value) for value in statement.resources)

    def _is_file_system(self, value: Any) -> bool | None:
        if is_access_point(self.stack, value):
            return False
        resource = self.stack.find(value, "AWS::EFS::FileSystem")
        if resource is not None and self.file_system is not None:
            return resource is self.file_system
        if str(value) == "*" or str(value).endswith("file-system/*"):
            return True
        literal = text(value)
        if literal is None:
            return None
        whole = self._file_system_arn()
        if whole is not None:
            return fnmatch.fnmatchcase(whole, literal)
        _, separator, pattern = literal.rpartition(":file-system/")
        identity = self._file_system_id()
        if not separator:
            return None if "elasticfilesystem" in literal else False
        if identity is not None:
            return fnmatch.fnmatchcase(identity, pattern)
        # The id of a file system that this template creates is not known when it is written.
        return False if self.file_system is not None and "*" not in pattern else None

    def _file_system_arn(self) -> str | None:
        """Return the file system's ARN, if that of its access point is known."""
        if self.access_point is None or self.file_system is None:
            return None
        prefix, separator, _ = self.access_point.name.rpartition(":access-point/")
        return f"{prefix}:file-system/{self.file_system.name}" if separator else None

    def _file_system_id(self) -> str | None:
        if self.file_system is not None:
            name = self.file_system.name
            return name if name.startswith("fs-") else None
        identity = None if self.access_point is None else self.access_point.get("FileSystemId")
        return text(identity)

    def is_met(self, statement: Statement) -> bool | None:
        """Return True if a statement's conditions hold for this mount; None if unknown."""
        return all_of(
            self._compare(operator, key, value)
            for operator, pairs in statement.conditions.items()
            if isinstance(pairs, dict)
            for key, value in pairs.items()
        )

    def _compare(self, operator: str, key: str, value: Any) -> bool | None:
        low, name = operator.lower(), key.lower()
        if low.startswith("null"):
            # A mount by Lambda has all keys that are known here.
            return negated(_truth(value)) if name in _KEYS else None
        is_exact = "stringequals" in low or "stringnotequals" in low
        if name == ACCESS_POINT_KEY.lower():
            verdict = any_of(
                self.is_mine(each, self.access_point, exact=is_exact) for each in items(value)
            )
        elif name == "aws:principalarn":
            verdict = any_of(self.is_mine(each, self.role, exact=is_exact) for each in items(value))
        elif name == "aws:principalaccount":
            verdict = any_of(self._is_account(each) for each in items(value))
        elif name in ("aws:securetransport", "elasticfilesystem:accessedviamounttarget"):
            verdict = _truth(value)
        elif name.startswith("elasticfilesystem:"):  # a mount has no other key of EFS
            is_of_all = low.startswith("forallvalues") or low.endswith("ifexists")
            return is_of_all or ("not" in low and not low.startswith("foranyvalue"))
        else:
            return None
        return negated(verdict) if "not" in low else verdict

    def _is_account(self, value: Any) -> bool | None:
        """Return True if a value is the number of the role's account; None if unknown."""
        account = self.account()
        literal = text(value)
        return None if account is None or literal is None else literal == account

    def account(self) -> str | None:
        """Return the number of the role's account, if its ARN is known."""
        parts = self.role.name.split(":") if self.role is not None else []
        return parts[4] if len(parts) > 5 else None

    def is_mine(self, value: Any, resource: Resource | None, *, exact: bool = False) -> bool | None:
        """Return True if a value is a resource's ARN, or a pattern of it; None if unknown.

        With `exact` a wildcard is a plain character, as StringEquals takes it.
        """
        if exact and is_known(value) and ("*" in value or "?" in value):
            return False
        if text(value) == "*":
            return True
        if resource is None:
            return None
        if is_known(value) and resource.name.startswith("arn:"):
            return fnmatch.fnmatchcase(resource.name, value)
        other = self.stack.find(value)
        if other is not None:
            return other is resource
        literal = text(value)
        if literal is None or "*" in literal or "?" in literal:
            return None
        if ":role/" in literal:
            name = text(resource.get("RoleName"))
            return None if name is None else literal.endswith(f"/{name}")
        # The id of a resource that this template creates is not known when it is written.
        return False if ":access-point/" in literal else None


def _truth(value: Any) -> bool | None:
    """Return the truth value of a condition, or of a list with one; None if it is not known."""
    words = {"true": True, "false": False}
    verdicts = {words.get(str(text(each)).lower()) for each in items(value)}
    return verdicts.pop() if len(verdicts) == 1 else None


def is_access_point(stack: Stack, value: Any) -> bool:
    """Return True if a policy's resource is an access point."""
    if stack.find(value, "AWS::EFS::AccessPoint") is not None:
        return not (isinstance(value, Joined) and "file-system/" in value)
    return is_known(value) and ":access-point/" in value


def place_of(stack: Stack, function: Resource, mount: dict[str, Any]) -> Place:
    """Return where a function's mount leads."""
    access_point = stack.access_point(mount)
    role = role_of(stack, function)
    return Place(stack, access_point, stack.file_system(access_point), role)


def allows(policy: Policy, action: str, place: Place) -> bool | None:
    """Return True if a role's policy allows an action on the file system; None if unknown."""
    verdict = any_of(
        all_of([statement.grants(action), place.is_resource(statement), place.is_met(statement)])
        for statement in policy.statements
    )
    return verdict if verdict or policy.is_complete else None


def admits(policy: Policy, action: str, place: Place) -> bool | None:
    """Return True if a file-system policy allows an action to the function; None if unknown."""
    verdict = any_of(
        all_of([statement.grants(action), _is_principal(statement, place), place.is_met(statement)])
        for statement in policy.statements
    )
    return verdict if verdict or policy.is_complete else None


def denials(policy: Policy, action: str, place: Place) -> list[Statement]:
    """Return the statements of a file-system policy that certainly deny an action."""
    return [
        statement
        for statement in policy.statements
        if statement.effect == "deny"
        and statement.covers(action)
        and _is_principal(statement, place)
        and place.is_met(statement)
    ]


def denies(policy: Policy, action: str, place: Place, *, is_own: bool = False) -> bool | None:
    """Return True if a policy denies an action on the file system; None if unknown.

    `is_own` is True for the file system's own policy, which names principals and no resources.
    """
    verdict = any_of(
        all_of(
            [
                {"deny": True, "allow": False}.get(statement.effect),
                statement.covers(action),
                _is_principal(statement, place) if is_own else place.is_resource(statement),
                place.is_met(statement),
            ]
        )
        for statement in policy.statements
    )
    return verdict if verdict or policy.is_complete else None


def _is_principal(statement: Statement, place: Place) -> bool | None:
    """Return True if a statement of a file-system policy is about the role; None if unknown."""
    is_denial = statement.effect == "deny"
    verdict = any_of(
        _is_role(kind, value, place, is_denial=is_denial)
        for kind, values in _principals(statement.principals)
        for value in values
    )
    if not statement.excludes_principals:
        return verdict
    return True if verdict is False else None  # a session of the role must be named, too


def _principals(written: Any) -> list[tuple[str, list[Any]]]:
    if isinstance(written, dict):
        return [(str(kind), items(values)) for kind, values in written.items()]
    return [("AWS", items(written))]


def _is_role(kind: str, value: Any, place: Place, *, is_denial: bool) -> bool | None:
    if kind != "AWS" and not kind.startswith("Fn::"):
        return False  # a service or a federated user: Lambda mounts as the function's role
    if is_known(value) and (value.isdigit() or value.endswith(":root")):
        # A Deny meets the whole account. An Allow delegates: the role's own policy decides.
        account = place.account()
        is_other = account is not None and account not in value
        return False if is_other else True if is_denial and account is not None else None
    if is_known(value) and not value.startswith("arn:") and "*" not in value:
        return None  # an id
    if is_known(value) and ":assumed-role/" in value:
        return None  # a session of some role
    if str(value).endswith(":root"):
        return None
    return place.is_mine(value, place.role)


def is_open_to_all(statement: Statement) -> bool:
    """Return True if a statement's principal is everybody."""
    principals = statement.principals
    values = list(principals.values()) if isinstance(principals, dict) else [principals]
    return any(text(value) == "*" for some in values for value in items(some))
