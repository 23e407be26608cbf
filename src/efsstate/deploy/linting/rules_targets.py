"""Rules for mount targets, and the zones in which they and the functions are."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from efsstate.deploy.findings import Hit, Rule
from efsstate.deploy.linting.resource import Resource
from efsstate.deploy.linting.security_groups import opening
from efsstate.deploy.linting.stack import Stack, are_other_zones
from efsstate.deploy.linting.values import Unknown, target, text

_BETWEEN_VPCS = (
    "AWS::EC2::VPCPeeringConnection",
    "AWS::EC2::TransitGatewayAttachment",
    "AWS::EC2::TransitGatewayVpcAttachment",
    "AWS::NetworkManager::VpcAttachment",
)
_HOPS_BETWEEN_VPCS = ("VpcPeeringConnectionId", "TransitGatewayId", "CoreNetworkArn")


def _subnets_of(function: Resource) -> list[Any]:
    subnets = function.get("VpcConfig", "SubnetIds")
    return subnets if isinstance(subnets, list) else []


def _other_zone(stack: Stack) -> Iterator[Hit]:
    seen = set()
    for function, file_system, targets in stack.served():
        is_hidden = stack.is_partial or not targets or any(each.is_many for each in targets)
        if is_hidden or function.name in seen or text(file_system.get("AvailabilityZoneName")):
            continue  # EFS056 tells of a One Zone file system
        theirs = [mount_target.get("SubnetId") for mount_target in targets]
        if any(isinstance(subnet, Unknown) for subnet in theirs):
            continue
        seen.add(function.name)
        for evidence, severity in _far_subnets(stack, function, file_system, theirs):
            yield Hit.on(function, evidence, "VpcConfig", severity)


def _far_subnets(
    stack: Stack, function: Resource, file_system: Resource, theirs: list[Any]
) -> Iterator[tuple[str, str]]:
    """Yield (evidence, severity) of the subnets without a mount target in their zone."""
    zones = {stack.zone(subnet) for subnet in theirs}
    vpcs = {stack.vpc(subnet) for subnet in theirs} - {None}
    are_joined = bool(stack.of(*_BETWEEN_VPCS)) or any(
        route.get(hop) is not None for route in stack.routes() for hop in _HOPS_BETWEEN_VPCS
    )
    elsewhere, uncovered = [], []
    for subnet in _subnets_of(function):
        if subnet in theirs or isinstance(subnet, Unknown):
            continue
        name, zone, vpc = str(target(subnet) or subnet), stack.zone(subnet), stack.vpc(subnet)
        if vpc is not None and vpcs and vpc not in vpcs and not are_joined:
            elsewhere.append((name, vpc))
        elif all(are_other_zones(zone, place) for place in zones):
            uncovered.append(f"{name} is in {zone}")
    if elsewhere:
        names = ", ".join(name for name, _ in elsewhere)
        in_view = all(vpc in stack.resources for vpc in [*vpcs, *(vpc for _, vpc in elsewhere)])
        evidence = f"in another VPC than the mount targets, without a peering: {names}"
        yield evidence, "" if in_view else "warning"
    if uncovered:
        have = ", ".join(sorted(map(str, zones)))
        yield f"{', '.join(uncovered)}; {file_system.name} has mount targets only in {have}", ""


def _in_one_zone(stack: Stack) -> Iterator[Hit]:
    for function, file_system, _ in stack.served():
        subnets = _subnets_of(function)
        if not subnets or any(isinstance(subnet, Unknown) for subnet in subnets):
            continue
        if file_system.get("AvailabilityZoneName") is not None or _is_many(stack, subnets):
            continue
        zones = {stack.zone(subnet) for subnet in subnets}
        if len(subnets) == 1 or (None not in zones and len(zones) == 1):
            evidence = f"{len(subnets)} subnet{'s' if len(subnets) > 1 else ''}, one zone"
            yield Hit.on(function, evidence, "VpcConfig")


def _is_many(stack: Stack, subnets: list[Any]) -> bool:
    resources = [stack.subnet(subnet) for subnet in subnets]
    return any(resource is not None and resource.is_many for resource in resources)


def _no_mount_target(stack: Stack) -> Iterator[Hit]:
    targets = stack.of("AWS::EFS::MountTarget")
    if stack.is_partial or any(isinstance(each.get("FileSystemId"), Unknown) for each in targets):
        return
    for file_system in stack.used():
        if not stack.mount_targets(file_system):
            yield Hit.on(file_system, "a function mounts it, and no mount target names it")


def _no_order(stack: Stack) -> Iterator[Hit]:
    for function, _, targets in stack.served():
        if any(name.startswith("module.") and name.count(".") == 1 for name in function.depends):
            continue  # the module may be the one with the mount targets
        before = stack.created_before(function)
        missing = [each for each in targets if each.name not in before]
        certain = [each for each in missing if stack.is_created_with(each, function)]
        if missing:
            names = ", ".join(each.name for each in certain or missing)
            evidence = f"nothing makes it wait for {names}"
            yield Hit.on(function, evidence, "DependsOn", "" if certain else "note")


def _same_zone(stack: Stack) -> Iterator[Hit]:
    for file_system in stack.of("AWS::EFS::FileSystem"):
        seen: dict[str, list[Resource]] = {}
        for mount_target in stack.mount_targets(file_system):
            subnet = mount_target.get("SubnetId")
            if isinstance(subnet, Unknown | None) or _is_many(stack, [subnet]):
                continue
            place = str(stack.zone(subnet) or subnet)
            for other in seen.setdefault(place, []):
                together = stack.is_created_with(other, mount_target)
                if together or stack.is_created_with(mount_target, other):
                    yield Hit.on(mount_target, f"{place} has {other.name} already", "SubnetId")
                    break
            seen[place].append(mount_target)


def _one_zone_storage(stack: Stack) -> Iterator[Hit]:
    for file_system in stack.of("AWS::EFS::FileSystem"):
        zone = text(file_system.get("AvailabilityZoneName"))
        if zone:
            yield from _beyond_the_zone(stack, file_system, zone)


def _beyond_the_zone(stack: Stack, file_system: Resource, zone: str) -> Iterator[Hit]:
    targets = stack.mount_targets(file_system)
    for mount_target in targets:
        other = stack.zone(mount_target.get("SubnetId"))
        if are_other_zones(other, zone):
            evidence = f"it is in {other}; {file_system.name} is in {zone} only"
            yield Hit.on(mount_target, evidence, "SubnetId")
    places = {stack.zone(each.get("SubnetId")) for each in targets} - {None}
    if len(places) > 1 and all(
        stack.may_coexist(*pair) for pair in itertools.combinations(targets, 2)
    ):
        evidence = f"it has mount targets in {', '.join(sorted(map(str, places)))}"
        yield Hit.on(file_system, evidence, "AvailabilityZoneName")
    for function, used, _ in stack.served():
        zones = {stack.zone(subnet) for subnet in _subnets_of(function)}
        own = {stack.zone(each.get("SubnetId")) for each in targets}
        others = sorted(
            str(other)
            for other in zones
            if all(are_other_zones(other, place) for place in own or {zone})
        )
        if used is file_system and others:
            evidence = f"{file_system.name} is in {zone} only, {function.name} also in "
            yield Hit.on(file_system, evidence + ", ".join(others), "AvailabilityZoneName")


def _called_too_early(stack: Stack) -> Iterator[Hit]:
    """Find a custom resource that calls a mounting function before NFS is open."""
    openings = [
        rule
        for rule in stack.of("AWS::EC2::SecurityGroupIngress", "AWS::EC2::SecurityGroupEgress")
        if opening(rule.properties, rule, rule.line).covers_nfs()
    ]
    served = {function.name: function for function, _, _ in stack.served()}
    for resource in stack.resources.values():
        if not resource.type.startswith(("Custom::", "AWS::CloudFormation::CustomResource")):
            continue
        function = stack.find(resource.get("ServiceToken"), "AWS::Lambda::Function")
        if function is None or function.name not in served:
            continue
        before = stack.created_before(resource)
        missing = [
            rule.name
            for rule in openings
            if rule.name not in before and stack.may_coexist(rule, resource)
        ]
        if missing:
            evidence = f"it calls {function.name} and does not wait for {', '.join(missing)}"
            yield Hit.on(resource, evidence, "DependsOn")


RULES = (
    Rule(
        "EFS004",
        "error",
        "subnet",
        "A subnet of the function has no mount target in its zone",
        "Each environment mounts through the mount target of its own zone. Lambda checks that "
        "each zone of the function has one, and refuses the function otherwise; if one is lost "
        "later, environments in that zone fail and the others work. A peered VPC will do, if its "
        "zones have mount targets and its routes lead there.",
        "Add a mount target in that zone, or remove the subnet from the function's VpcConfig.",
        _other_zone,
    ),
    Rule(
        "EFS005",
        "note",
        "subnet",
        "The function runs in one zone",
        "If that zone fails, or its subnet runs out of addresses, no environment starts.",
        "Give the function subnets in at least two zones, each with a mount target.",
        _in_one_zone,
    ),
    Rule(
        "EFS006",
        "error",
        "mount target",
        "The file system has no mount target",
        "CloudFormation, SAM and Terraform do not create mount targets by themselves; only the "
        "console does. Without one there is no address to mount.",
        "Add a mount target for each zone of the function's subnets.",
        _no_mount_target,
    ),
    Rule(
        "EFS007",
        "error",
        "mount target",
        "The function does not wait for the mount targets",
        "The function refers to the access point and not to the mount targets, so they are "
        "created at the same time, and creating the function fails because its mount target is "
        "not in state `available`. A second try may pass, which hides the fault.",
        "Add every mount target to the function's DependsOn (Terraform: depends_on).",
        _no_order,
    ),
    Rule(
        "EFS009",
        "error",
        "mount target",
        "Two mount targets of a file system are in one zone",
        "EFS takes one mount target in each zone; creating the second fails.",
        "Keep one in each zone; the other subnets of the zone use it too.",
        _same_zone,
    ),
    Rule(
        "EFS048",
        "warning",
        "security group",
        "A custom resource calls the function before NFS is open",
        "CloudFormation calls a custom resource's function during the deployment, and Terraform "
        "that of an aws_lambda_invocation. Rules that are resources of their own may be created "
        "later, and the mount then ends with EFSMountConnectivityException.",
        "Add the rules for TCP 2049 to the custom resource's DependsOn (Terraform: depends_on).",
        _called_too_early,
    ),
    Rule(
        "EFS056",
        "error",
        "file system",
        "A One Zone file system is used beyond its zone",
        "A One Zone file system has one mount target, in its own zone. Creating another fails, "
        "and so do functions with subnets in other zones.",
        "Keep the mount target and the function's subnets in that zone, or use a Regional file "
        "system.",
        _one_zone_storage,
    ),
)
