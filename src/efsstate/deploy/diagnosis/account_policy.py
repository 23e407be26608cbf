"""The permission to mount in an account, by AWS's policy simulator or by the policies read."""

from __future__ import annotations

from typing import Any, NamedTuple

from efsstate.deploy.diagnosis.account_facts import document
from efsstate.deploy.diagnosis.account_reader import Reader
from efsstate.deploy.linting.iam import MOUNT, WRITE, Policy, parse_policy
from efsstate.deploy.linting.permissions import (
    Place,
    admits,
    allows,
    denies,
    file_system_policies,
    permissions_of,
    place_of,
    role_of,
)
from efsstate.deploy.linting.resource import Resource
from efsstate.deploy.linting.stack import Stack
from efsstate.deploy.linting.values import Unknown, all_of, any_of, negated


def read_role(reader: Reader, arn: str) -> None:
    """Add the role with its policies, its own and the attached, and its boundary."""
    name = arn.rpartition("/")[2]
    noted = len(reader.unseen)
    inline, managed = [], []
    for policy in reader.pages("iam", "list_role_policies", "PolicyNames", RoleName=name):
        answer = reader.ask("iam", "get_role_policy", RoleName=name, PolicyName=policy)
        written = answer["PolicyDocument"] if answer else Unknown(str(policy))
        inline.append({"PolicyDocument": written})
    operation = "list_attached_role_policies"
    for policy in reader.pages("iam", operation, "AttachedPolicies", RoleName=name):
        if ":aws:policy/" in policy["PolicyArn"]:
            managed.append(policy["PolicyArn"])
        else:
            inline.append({"PolicyDocument": _read_policy(reader, policy["PolicyArn"])})
    if len(reader.unseen) > noted:
        return  # half a role says nothing
    reader.add(arn, "AWS::IAM::Role", Policies=inline, ManagedPolicyArns=managed)
    reader.seen["policy"].append(name)


def _read_policy(reader: Reader, arn: str) -> Any:
    policy = reader.ask("iam", "get_policy", PolicyArn=arn)
    version = policy and policy["Policy"]["DefaultVersionId"]
    answer = version and reader.ask("iam", "get_policy_version", PolicyArn=arn, VersionId=version)
    return answer["PolicyVersion"]["Document"] if answer else Unknown(arn)


def read_boundary(reader: Reader, arn: str) -> Policy | None:
    """Return the permissions boundary of a role, or None if it has none."""
    answer = reader.ask("iam", "get_role", RoleName=arn.rpartition("/")[2])
    boundary = (answer or {}).get("Role", {}).get("PermissionsBoundary", {})
    name = boundary.get("PermissionsBoundaryArn")
    owner = Resource(arn, "AWS::IAM::Role", {})
    if answer is None:
        return Policy([], is_complete=False)
    return None if name is None else parse_policy(document(_read_policy(reader, name)), owner)


class Decision(NamedTuple):
    """Whether a role may mount; None if that could not be evaluated."""

    mounts: bool | None
    writes: bool | None
    source: str


class _Verdict(NamedTuple):
    """The decision of a role's policies about an action; None if they leave it open."""

    allowed: bool | None
    denied: bool | None

    @property
    def is_decided(self) -> bool:
        """True if both are known, or one decides alone."""
        return bool(self.denied) or None not in self


def decide(reader: Reader, stack: Stack, function: Resource, boundary: Policy | None) -> Decision:
    """Decide whether the function may mount, and report a limit that the rules do not see."""
    mount = next(iter(stack.mounts(function)), None)
    role = role_of(stack, function)
    if mount is None or stack.is_s3_files(mount):
        return Decision(None, None, "no EFS access point")
    place = place_of(stack, function, mount)
    if place.file_system is None:
        return Decision(None, None, "the file system was not read")
    own = file_system_policies(stack, place.file_system)
    simulation = _simulate(reader, str(function.get("Role")), str(mount.get("Arn")), place)
    if simulation is None and role is None:
        return Decision(None, None, "the role was not read")
    verdicts, source = _role_verdicts(stack, role, boundary, place, simulation)
    limit = _limit_of(boundary, place)
    if limit:
        reader.report("EFS214", str(function.get("Role")), f"its permissions boundary {limit}")
    mounts, writes = (_with_own(verdicts[action], own, action, place) for action in (MOUNT, WRITE))
    return Decision(mounts, writes, source)


def _role_verdicts(
    stack: Stack,
    role: Resource | None,
    boundary: Policy | None,
    place: Place,
    simulation: _Simulation | None,
) -> tuple[dict[str, _Verdict], str]:
    """Return the verdicts of a role by action, and where they come from.

    The simulator's come first. One that needs keys which it was not given decides nothing: the
    policies that were read do, if they can.
    """
    if simulation is not None and not simulation.missing:
        return simulation.verdicts, "by the policy simulator"
    read = dict.fromkeys((MOUNT, WRITE), _Verdict(None, None))
    if role is not None:
        read = {action: _by_policies(stack, role, boundary, place, action) for action in read}
    if simulation is None or all(verdict.is_decided for verdict in read.values()):
        return read, "by the policies read, without those of the organization"
    keys = ", ".join(sorted(simulation.missing))
    return read, f"it depends on {keys}, which only a request has"


def _by_policies(
    stack: Stack, role: Resource, boundary: Policy | None, place: Place, action: str
) -> _Verdict:
    limits = [permissions_of(stack, role), *([] if boundary is None else [boundary])]
    allowed = all_of(allows(policy, action, place) for policy in limits)
    return _Verdict(allowed, any_of(denies(policy, action, place) for policy in limits))


def _limit_of(boundary: Policy | None, place: Place) -> str:
    """Return how a permissions boundary keeps the role from mounting, or ""."""
    if boundary is None:
        return ""
    if denies(boundary, MOUNT, place):
        return f"denies {MOUNT}"
    return f"does not allow {MOUNT}" if allows(boundary, MOUNT, place) is False else ""


def _with_own(verdict: _Verdict, own: list[Policy], action: str, place: Place) -> bool | None:
    """Return the verdict with the file system's own policy; without one it admits everybody."""
    denied = any_of(
        [verdict.denied, *(denies(policy, action, place, is_own=True) for policy in own)]
    )
    allowed: bool | None = True
    if own:
        allowed = any_of([verdict.allowed, *(admits(policy, action, place) for policy in own)])
    return all_of([negated(denied), allowed])


class _Simulation(NamedTuple):
    """The policy simulator's answer."""

    verdicts: dict[str, _Verdict]
    missing: set[str]
    """The condition keys that the role's policies ask for, and that it was not given."""


def _simulate(reader: Reader, role: str, access_point: str, place: Place) -> _Simulation | None:
    """Ask AWS's policy simulator about the role alone; None if it may not be called.

    The simulator takes a file-system policy only for IAM users, so that one is judged apart.
    """
    file_system = place.file_system
    if file_system is None or access_point.count(":") < 5:
        return None
    prefix = ":".join(access_point.split(":")[:5])
    noted = len(reader.unseen)
    answer = reader.ask(
        "iam",
        "simulate_principal_policy",
        PolicySourceArn=role,
        ActionNames=[MOUNT, WRITE],
        ResourceArns=[f"{prefix}:file-system/{file_system.name}"],
        ContextEntries=[
            _context("elasticfilesystem:AccessPointArn", access_point, "string"),
            _context("elasticfilesystem:AccessedViaMountTarget", "true", "boolean"),
            _context("aws:SecureTransport", "true", "boolean"),
            _context("aws:PrincipalArn", role, "string"),
            _context("aws:PrincipalAccount", "".join(role.split(":")[4:5]), "string"),
        ],
    )
    if answer is None:
        del reader.unseen[noted:]  # the policies themselves are judged instead
        return None
    verdicts = dict.fromkeys((MOUNT, WRITE), _Verdict(None, None))
    missing = set()
    for result in answer.get("EvaluationResults", []):
        action, decision = result.get("EvalActionName", ""), result.get("EvalDecision")
        verdicts[action] = _Verdict(decision == "allowed", decision == "explicitDeny")
        for part in [result, *result.get("ResourceSpecificResults", [])]:
            missing.update(part.get("MissingContextValues", []))
        if action == MOUNT and decision != "allowed":
            _report_limits(reader, role, result)
    return _Simulation(verdicts, missing)


def _report_limits(reader: Reader, role: str, result: dict[str, Any]) -> None:
    organization = result.get("OrganizationsDecisionDetail") or {}
    if organization.get("AllowedByOrganizations") is False:
        evidence = "a policy of the organization does not allow elasticfilesystem:ClientMount"
        reader.report("EFS214", role, evidence)


def _context(key: str, value: str, kind: str) -> dict[str, Any]:
    return {"ContextKeyName": key, "ContextKeyValues": [value], "ContextKeyType": kind}
