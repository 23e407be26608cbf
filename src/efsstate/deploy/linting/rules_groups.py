"""Rules for security groups between a function and its mount targets."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

from efsstate.deploy.findings import Hit, Rule
from efsstate.deploy.linting.resource import Resource
from efsstate.deploy.linting.security_groups import NFS, Opening
from efsstate.deploy.linting.stack import Stack
from efsstate.deploy.linting.values import all_of, any_of, is_known, items, target, text

WORLD = ("0.0.0.0/0", "::/0")


def _peers(stack: Stack, rule: Opening, groups: list[Resource], subnet: Any) -> bool | None:
    """Return True if a rule's other side is one of the groups, or holds the whole subnet."""
    peer = stack.find(rule.peer, "AWS::EC2::SecurityGroup")
    if peer is not None:
        return peer in groups
    if not is_known(rule.peer) or "/" not in rule.peer:
        return None
    if rule.peer == WORLD[0]:
        return True
    try:
        cidr = ipaddress.ip_network(rule.peer, strict=False)
        if cidr.version != 4:
            return False  # Lambda mounts over IPv4
        place = ipaddress.IPv4Network(str(stack.range(subnet)), strict=False)
    except ValueError:
        return None
    if not cidr.overlaps(place):
        return False
    return True if cidr.prefixlen <= place.prefixlen else None


def _passes(
    stack: Stack, rules: list[Opening], groups: list[Resource], subnets: list[Any]
) -> bool | None:
    """Return True if the rules let TCP 2049 through for every subnet of the other side."""
    return all_of(
        any_of(all_of([rule.covers_nfs(), _peers(stack, rule, groups, subnet)]) for rule in rules)
        for subnet in subnets or [None]
    )


def _subnets_beside(stack: Stack, function: Resource, mount_target: Resource) -> list[Any]:
    """Return the function's subnets that use a mount target: those of its zone, if it is known."""
    subnets = function.get("VpcConfig", "SubnetIds")
    subnets = subnets if isinstance(subnets, list) else []
    zone = stack.zone(mount_target.get("SubnetId"))
    zones = [stack.zone(subnet) for subnet in subnets]
    if zone is None or None in zones or zone not in zones:
        return subnets
    return [subnet for subnet, place in zip(subnets, zones, strict=True) if place == zone]


def _closed(stack: Stack) -> Iterator[Hit]:
    seen = set()
    reported: set[tuple[str, str, int]] = set()
    for function, _, targets in stack.served():
        mine = stack.groups(function.get("VpcConfig", "SecurityGroupIds"))
        for mount_target in targets if mine is not None else ():
            key = (mount_target.name, tuple(group.name for group in mine or ()))
            if key not in seen:
                seen.add(key)
                for hit in _closed_at(stack, function, mine or [], mount_target):
                    place = (function.name, hit.resource, hit.line)
                    if place not in reported:  # the same rule fails in each zone
                        reported.add(place)
                        yield hit


def _closed_at(
    stack: Stack, function: Resource, mine: list[Resource], mount_target: Resource
) -> Iterator[Hit]:
    if mount_target.get("SecurityGroups") is None:
        yield from _default_group(stack, mine, mount_target)
        return
    theirs = stack.groups(mount_target.get("SecurityGroups"))
    rules = [stack.openings(group, "Ingress") for group in theirs or ()]
    if theirs is None or None in rules:
        return
    flat = [rule for some in rules for rule in some or ()]
    subnets = _subnets_beside(stack, function, mount_target)
    if _passes(stack, flat, mine, subnets) is False:
        yield _explain(stack, function, mine, theirs, flat, subnets)


def _explain(
    stack: Stack,
    function: Resource,
    mine: list[Resource],
    theirs: list[Resource],
    rules: list[Opening],
    subnets: list[Any],
) -> Hit:
    names = ", ".join(group.name for group in theirs)
    near = [rule for rule in rules if any(_peers(stack, rule, mine, each) for each in subnets)]
    near = [rule for rule in near if rule.covers_nfs() is False]
    nfs = next((rule for rule in rules if rule.covers_nfs()), None)
    if nfs is not None:
        peer = target(nfs.peer) or nfs.peer
        groups = ", ".join(group.name for group in mine)
        where = ", ".join(str(stack.range(subnet) or target(subnet)) for subnet in subnets)
        place = groups if "/" not in str(peer) else f"{groups}, in {where}"
        evidence = f"opens tcp {NFS} to {peer}; {function.name} is in {place}"
        return Hit(names, evidence, nfs.line, file=nfs.owner.file)
    if near:
        spans = ", ".join(rule.span() for rule in near)
        evidence = f"lets {function.name} in on {spans}, not on tcp {NFS}"
        return Hit(names, evidence, near[0].line, file=near[0].owner.file)
    evidence = f"lets nothing in on tcp {NFS} from {function.name}"
    return Hit(names, evidence, theirs[0].line, file=theirs[0].file)


def _default_group(stack: Stack, mine: list[Resource], mount_target: Resource) -> Iterator[Hit]:
    """Find a mount target without groups: its VPC's default group admits only its own members."""
    defaults = [group for group in mine if group.get("IsDefault")]
    if defaults or stack.is_partial or mount_target.is_many:
        return
    for group in stack.of("AWS::EC2::SecurityGroup"):
        if group.get("IsDefault"):
            return  # its rules are the stack's own
    vpc = stack.vpc(mount_target.get("SubnetId"))
    severity = "" if vpc in stack.resources else "warning"
    names = ", ".join(group.name for group in mine)
    evidence = (
        "it names no security group, so it has the VPC's default group, which lets in only its own"
        f" members; the function is in {names}"
    )
    yield Hit.on(mount_target, evidence, severity=severity)


def _open_to_the_world(stack: Stack) -> Iterator[Hit]:
    behind = {
        group.name
        for mount_target in stack.of("AWS::EFS::MountTarget")
        for group in stack.groups(mount_target.get("SecurityGroups")) or ()
    }
    for name in sorted(behind):
        for rule in stack.openings(stack.resources[name], "Ingress") or ():
            if rule.covers_nfs() and text(rule.peer) in WORLD:
                evidence = f"opens {rule.span()} to {rule.peer}"
                yield Hit(name, evidence, rule.line, file=rule.owner.file)


def _no_way_out(stack: Stack) -> Iterator[Hit]:
    seen = set()
    for function, _, targets in stack.served():
        mine = stack.groups(function.get("VpcConfig", "SecurityGroupIds"))
        rules = [stack.openings(group, "Egress") for group in mine or ()]
        if mine is None or None in rules:
            continue
        flat = [rule for some in rules for rule in some or ()]
        for mount_target in targets:
            theirs = stack.groups(mount_target.get("SecurityGroups"))
            subnets = items(mount_target.get("SubnetId"))
            if theirs is None or function.name in seen:
                continue
            if _passes(stack, flat, theirs, subnets) is False:
                seen.add(function.name)
                out = ", ".join(
                    f"{rule.span()} to {target(rule.peer) or rule.peer}" for rule in flat
                )
                names = ", ".join(group.name for group in theirs)
                evidence = f"its groups let out {out or 'nothing'}, and not tcp {NFS} to {names}"
                yield Hit(function.name, evidence, mine[0].line, file=mine[0].file)


RULES = (
    Rule(
        "EFS001",
        "error",
        "security group",
        "The mount target's security group does not let the function in on TCP 2049",
        "NFS is TCP 2049. A security group drops a packet without an answer, so Lambda waits, and "
        "the invocation ends with EFSMountConnectivityException. Being in the same group is not "
        "enough: a group lets its own members in only if a rule says so. A mount target that "
        "names no group has the VPC's default group.",
        "On the mount target's group allow ingress, protocol tcp, port 2049 to 2049, from the "
        "function's group. If the function's group names the mount target's too, write one of the "
        "two rules as a resource of its own (AWS::EC2::SecurityGroupIngress): written inside both "
        "groups they are a circular dependency.",
        _closed,
    ),
    Rule(
        "EFS002",
        "warning",
        "security group",
        "NFS is open to every address",
        "Anything that reaches the port of a file system without a policy may mount it as root. "
        "With a rule for 0.0.0.0/0 only the VPC's routing stands between.",
        "Name the function's security group as the source instead of the address range.",
        _open_to_the_world,
    ),
    Rule(
        "EFS003",
        "error",
        "security group",
        "The function's security group does not let it out to TCP 2049",
        "A group with egress rules allows those alone. The mount then ends with "
        "EFSMountConnectivityException, as with a closed ingress.",
        "On the function's group allow egress, protocol tcp, port 2049, to the mount target's "
        "group. Write it as a resource of its own (AWS::EC2::SecurityGroupEgress) if the mount "
        "target's group names the function's: rules inside both are a circular dependency.",
        _no_way_out,
    ),
)
