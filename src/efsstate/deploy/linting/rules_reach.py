"""Rules for the network between the function, the mount target and other services."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from efsstate.deploy.findings import Hit, Rule
from efsstate.deploy.linting.iam import Statement
from efsstate.deploy.linting.network_acls import HIGH_PORTS, LAST, Entry, decide, parse_entry
from efsstate.deploy.linting.permissions import permissions_of, role_of
from efsstate.deploy.linting.resource import Resource
from efsstate.deploy.linting.security_groups import NFS
from efsstate.deploy.linting.stack import Stack, are_other_zones
from efsstate.deploy.linting.values import Unknown, items

# Service, its name in an endpoint, the severity, and the actions of Lambda's own pollers, which run
# outside of the VPC. So do destinations and dead-letter queues, hence the notes.
_SERVICES = (
    ("s3", "s3", "", ""),
    ("dynamodb", "dynamodb", "", r"dynamodb:(getrecords|getsharditerator|\w*stream\w*)"),
    ("ssm", "ssm", "", ""),
    ("secretsmanager", "secretsmanager", "", ""),
    ("sqs", "sqs", "note", r"sqs:(receive|delete|changemessage|getqueue)\w*"),
    ("sns", "sns", "note", ""),
    ("kinesis", "kinesis-streams", "note", r"kinesis:(get|describe|list|subscribe)\w*"),
)
_WAYS_OUT = (
    "AWS::EC2::EgressOnlyInternetGateway",
    "AWS::EC2::TransitGatewayAttachment",
    "AWS::EC2::TransitGatewayVpcAttachment",
    "AWS::EC2::VPCPeeringConnection",
    "AWS::NetworkManager::VpcAttachment",
)
_NEXT_HOPS = (
    "InstanceId",
    "NatGatewayId",
    "NetworkInterfaceId",
    "TransitGatewayId",
    "VpcPeeringConnectionId",
    "EgressOnlyInternetGatewayId",
    "CoreNetworkArn",
    "LocalGatewayId",
)


def _no_vpc(stack: Stack) -> Iterator[Hit]:
    for function in stack.functions():
        mounts = function.get("FileSystemConfigs")
        if not items(mounts) or isinstance(mounts, Unknown):
            continue
        if function.get("CapacityProviderConfig") is not None:
            continue  # AWS does not document whether Managed Instances can mount
        network = function.get("VpcConfig")
        if network is None or (isinstance(network, dict) and not items(network.get("SubnetIds"))):
            evidence = "FileSystemConfigs, and no VpcConfig with subnets"
            yield Hit.on(function, evidence, "FileSystemConfigs")


# ---- network ACLs ----


class _Crossing(NamedTuple):
    """A check of one side's network ACL: at `subnet`, in one direction, towards `peer`."""

    subnet: Any
    outward: bool
    ports: tuple[int, int]
    peer: Any


def _closed_acl(stack: Stack) -> Iterator[Hit]:
    if not stack.of("AWS::EC2::NetworkAcl"):
        return
    for function, _, targets in stack.served():
        for mount_target in targets:
            there = mount_target.get("SubnetId")
            for here in items(function.get("VpcConfig", "SubnetIds")):
                if _are_neighbours(stack, here, there, alone=len(targets) == 1):
                    yield from _crossings(stack, here, there, (function, mount_target))


def _are_neighbours(stack: Stack, here: Any, there: Any, *, alone: bool) -> bool:
    """Return True if environments in one subnet use the mount target in the other."""
    if stack.subnet(here) is None or stack.subnet(there) is None:
        return False
    zones = stack.zone(here), stack.zone(there)
    return zones[0] == zones[1] is not None or (alone and not are_other_zones(*zones))


def _crossings(stack: Stack, here: Any, there: Any, users: tuple[Resource, ...]) -> Iterator[Hit]:
    for crossing in (
        _Crossing(here, True, (NFS, NFS), there),
        _Crossing(there, False, (NFS, NFS), here),
        _Crossing(there, True, HIGH_PORTS, here),
        _Crossing(here, False, HIGH_PORTS, there),
    ):
        peer = stack.range(crossing.peer)
        for acl, severity in _acls_of(stack, crossing.subnet, users) if peer else ():
            entry = _deciding_entry(stack, acl, crossing, str(peer))
            if entry is None or entry.allows is not False:
                continue
            if entry.number == LAST and stack.is_partial:
                continue  # an entry may be made out of view
            evidence = describe(entry, crossing.ports, str(peer), outward=crossing.outward)
            if stack.subnet(here) is stack.subnet(there):
                within = "; it does not apply within the subnet that both are in"
                yield Hit.on(acl, evidence + within, severity="note")
            else:
                yield Hit.on(acl, evidence, severity=severity)


def _deciding_entry(stack: Stack, acl: Resource, crossing: _Crossing, peer: str) -> Entry | None:
    entries = _entries(stack, acl)
    if entries is None:
        return None
    return decide(entries, outward=crossing.outward, ports=crossing.ports, peer=peer)


def describe(entry: Entry, ports: tuple[int, int], peer: str, *, outward: bool) -> str:
    """Return the evidence that an entry of a network ACL denies a range of ports."""
    number = "*" if entry.number == LAST else entry.number
    span = f"{ports[0]}" if ports[0] == ports[1] else f"{ports[0]} to {ports[1]}"
    way = "outbound to" if outward else "inbound from"
    return f"rule {number} denies tcp {span} {way} {peer}"


def _acls_of(
    stack: Stack, subnet: Any, users: tuple[Resource, ...]
) -> Iterator[tuple[Resource, str]]:
    """Yield the network ACL of a subnet, with a severity, if it is not the VPC's default one.

    If a condition decides whether the users have it, the severity is lower, and others may follow.
    """
    resource = stack.subnet(subnet)
    for acl, parts in _associated(stack, resource):
        if all(stack.may_coexist(part, user) for part in parts for user in users):
            is_sure = all(
                any(stack.is_created_with(part, user) for user in users) for part in parts
            )
            yield acl, "" if is_sure else "warning"
            if is_sure:
                return


def _associated(stack: Stack, subnet: Resource | None) -> Iterator[tuple[Resource, list[Resource]]]:
    """Yield each network ACL that names a subnet, with the resources by which it has it."""
    for acl in stack.of("AWS::EC2::NetworkAcl"):
        if any(stack.subnet(each) is subnet for each in items(acl.get("SubnetIds"))):
            yield acl, [acl]
    for association in stack.of("AWS::EC2::SubnetNetworkAclAssociation"):
        own = stack.find(association.get("NetworkAclId"), "AWS::EC2::NetworkAcl")
        if own is not None and stack.subnet(association.get("SubnetId")) is subnet:
            yield own, [own, association]


def _entries(stack: Stack, acl: Resource) -> list[Entry] | None:
    """Return the entries of a network ACL, or None if one of them is not known."""
    inline = acl.get("Entries")
    apart = [
        entry
        for entry in stack.of("AWS::EC2::NetworkAclEntry")
        if stack.find(entry.get("NetworkAclId")) is acl
    ]
    is_sure = all(stack.is_created_with(entry, acl) for entry in apart)
    if isinstance(inline, Unknown) or any(entry.is_many for entry in apart) or not is_sure:
        return None
    written = [*items(inline), *(entry.properties for entry in apart)]
    if not all(isinstance(entry, dict) for entry in written):
        return None
    return [parse_entry(entry) for entry in written]


# ---- other services ----


def _stranded(stack: Stack) -> Iterator[Hit]:
    if stack.is_partial or not stack.of("AWS::EC2::VPC"):
        return
    for function in {function.name: function for function, _, _ in stack.served()}.values():
        subnets = items(function.get("VpcConfig", "SubnetIds"))
        if not subnets or not all(stack.subnet(subnet) for subnet in subnets):
            continue
        vpcs = {stack.vpc(subnet) for subnet in subnets}
        if len(vpcs) != 1 or _has_way_out(stack, str(*vpcs)):
            continue
        statements = permissions_of(stack, role_of(stack, function)).statements
        for service, endpoint, severity, elsewhere in _SERVICES:
            uses = [use for use in statements if _calls(use, service, elsewhere)]
            if uses and not _has_endpoint(stack, endpoint, str(*vpcs)):
                kind = "gateway" if service in ("s3", "dynamodb") else "interface"
                evidence = f"may call {service}; the VPC has no {kind} endpoint for it, and no NAT"
                owner = uses[0].owner
                yield Hit(function.name, evidence, uses[0].line, severity, owner.file)


def _calls(statement: Statement, service: str, elsewhere: str) -> bool:
    """Return True if a statement allows calls of a service that the function itself makes."""
    names = [str(action).lower() for action in statement.actions]
    own = [name for name in names if name.startswith(f"{service}:")]
    own = [name for name in own if not (elsewhere and re.fullmatch(elsewhere, name))]
    return statement.is_allow and not statement.excludes and bool(own)


def _has_endpoint(stack: Stack, service: str, vpc: str) -> bool:
    for endpoint in stack.of("AWS::EC2::VPCEndpoint"):
        value = endpoint.get("ServiceName")
        name = str(value).lower()
        is_open = isinstance(value, Unknown) or name.endswith("}")
        place = endpoint.get("VpcId")
        elsewhere = place is not None and not isinstance(place, Unknown) and str(place) != vpc
        if not elsewhere and (is_open or name.endswith(f".{service}")):
            return True
    return False


def _has_way_out(stack: Stack, vpc: str) -> bool:
    """Return True if something in the stack may lead out of the VPC, other than endpoints."""
    if stack.of(*_WAYS_OUT):
        return True
    for gateway in stack.of("AWS::EC2::NatGateway"):
        if stack.vpc(gateway.get("SubnetId")) in (None, vpc):
            return True
    for instance in stack.of("AWS::EC2::Instance"):
        if str(instance.get("SourceDestCheck")).lower() == "false":
            return True
    return any(route.get(hop) is not None for route in stack.routes() for hop in _NEXT_HOPS)


RULES = (
    Rule(
        "EFS008",
        "error",
        "function",
        "The function has a file system and is in no VPC",
        "EFS is reached only inside a VPC. Lambda refuses the configuration.",
        "Give the function a VpcConfig with the subnets and a security group.",
        _no_vpc,
    ),
    Rule(
        "EFS010",
        "error",
        "network ACL",
        "A network ACL denies NFS between the function and the mount target",
        "Network ACLs keep no state: the request to TCP 2049 must pass, and so must the answer to "
        "a high port (1024 to 65535). The matching rule with the lowest number decides, and an "
        "ACL without a matching rule denies. Within one subnet no ACL applies.",
        "Allow TCP 2049 between the function's and the mount target's subnets, and TCP 1024 to "
        "65535 back, before any rule that denies.",
        _closed_acl,
    ),
    Rule(
        "EFS011",
        "warning",
        "function",
        "The function may call an AWS service and has no way to it",
        "A function in a VPC has no internet, even if its subnet's route table names an internet "
        "gateway. Its call hangs until the timeout.",
        "Add an endpoint for the service to the function's VPC: for S3 and DynamoDB a gateway "
        "endpoint, which costs nothing. Or add a NAT gateway, which is billed by the hour.",
        _stranded,
    ),
)
