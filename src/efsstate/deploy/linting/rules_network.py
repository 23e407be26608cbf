"""Rules for the way over the network: VPC, subnets, security groups, mount targets."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

from efsstate.deploy.findings import Hit, Rule
from efsstate.deploy.linting.resource import Resource
from efsstate.deploy.linting.security_groups import NFS, Opening
from efsstate.deploy.linting.stack import Stack
from efsstate.deploy.linting.values import Unknown, items, known, target, text

WORLD = ("0.0.0.0/0", "::/0")


def _pairs(stack: Stack) -> Iterator[tuple[Resource, list[Resource], Resource, list[Resource]]]:
    """Each function with its groups, and each mount target that it uses with its groups; only what is all in view."""
    for function, _, targets in stack.served():
        mine = stack.groups(function.get("VpcConfig", "SecurityGroupIds"))
        if mine is None:
            continue
        for mount_target in targets:
            theirs = stack.groups(mount_target.get("SecurityGroups"))
            if theirs is not None:
                yield function, mine, mount_target, theirs


def _meets(stack: Stack, rule: Opening, groups: list[Resource], subnets: list[Any]) -> bool:
    """Whether a rule's other side is one of the groups or holds one of the subnets, or cannot be told from them."""
    peer = stack.find(rule.peer, "AWS::EC2::SecurityGroup")
    if peer is not None:
        return peer in groups
    places = [stack.range(one) for one in subnets]
    if not known(rule.peer) or "/" not in rule.peer or None in places:
        return True
    try:
        other = ipaddress.ip_network(rule.peer, strict=False)
        return any(
            other.version == 4 and other.overlaps(ipaddress.IPv4Network(str(one), strict=False))
            for one in places
        )
    except ValueError:
        return True


def _span(rule: Opening) -> str:
    if rule.protocol in ("-1", "all"):
        return "all traffic"
    low, high = (f"{one:.0f}" if one is not None else "?" for one in (rule.low, rule.high))
    return f"{rule.protocol} {low}" if low == high else f"{rule.protocol} {low} to {high}"


def _no_vpc(stack: Stack) -> Iterator[Hit]:
    for function in stack.functions():
        mounts = function.get("FileSystemConfigs")
        if items(mounts) and not isinstance(mounts, Unknown):
            vpc = function.get("VpcConfig")
            if vpc is None or (isinstance(vpc, dict) and not items(vpc.get("SubnetIds"))):
                line = function.at("FileSystemConfigs")
                yield Hit(
                    function.name,
                    "FileSystemConfigs, and no VpcConfig with subnets",
                    line,
                    file=function.file,
                )


def _no_mount_target(stack: Stack) -> Iterator[Hit]:
    if stack.partial:
        return
    for file_system in stack.used():
        if not stack.mount_targets(file_system) and not any(
            isinstance(one.get("FileSystemId"), Unknown)
            for one in stack.of("AWS::EFS::MountTarget")
        ):
            yield Hit(
                file_system.name,
                "a function mounts it, and no mount target names it",
                file_system.line,
                file=file_system.file,
            )


def _blocked(stack: Stack) -> Iterator[Hit]:
    seen = set()
    for function, mine, mount_target, theirs in _pairs(stack):
        rules = [stack.openings(one, "Ingress") for one in theirs]
        if None in rules or (mount_target.name, tuple(one.name for one in mine)) in seen:
            continue
        seen.add((mount_target.name, tuple(one.name for one in mine)))
        flat = [rule for some in rules for rule in some or ()]
        places = items(function.get("VpcConfig", "SubnetIds"))
        if any(
            rule.covers_nfs() is not False and _meets(stack, rule, mine, places) for rule in flat
        ):
            continue
        near = [rule for rule in flat if _meets(stack, rule, mine, places)]
        groups = ", ".join(one.name for one in theirs)
        if near:
            yield Hit(
                groups,
                f"lets {function.name} in on {', '.join(map(_span, near))}, not on tcp {NFS}",
                near[0].line,
                file=near[0].owner.file,
            )
        elif any(rule.covers_nfs() for rule in flat):
            rule = next(rule for rule in flat if rule.covers_nfs())
            names = ", ".join(one.name for one in mine)
            yield Hit(
                groups,
                f"opens tcp {NFS} to {target(rule.peer) or rule.peer}; {function.name} is in {names}",
                rule.line,
                file=rule.owner.file,
            )
        else:
            yield Hit(
                groups,
                f"lets nothing in on tcp {NFS} from {function.name}",
                theirs[0].line,
                file=theirs[0].file,
            )


def _world(stack: Stack) -> Iterator[Hit]:
    behind = {
        one.name
        for target_ in stack.of("AWS::EFS::MountTarget")
        for one in stack.groups(target_.get("SecurityGroups")) or ()
    }
    for name in sorted(behind):
        for rule in stack.openings(stack.resources[name], "Ingress") or ():
            if rule.covers_nfs() and text(rule.peer) in WORLD:
                yield Hit(
                    name, f"opens {_span(rule)} to {rule.peer}", rule.line, file=rule.owner.file
                )


def _no_way_out(stack: Stack) -> Iterator[Hit]:
    seen = set()
    for function, mine, mount_target, theirs in _pairs(stack):
        rules = [stack.openings(one, "Egress") for one in mine]
        if None in rules or function.name in seen:
            continue
        flat = [rule for some in rules for rule in some or ()]
        if not any(
            rule.covers_nfs() is not False
            and _meets(stack, rule, theirs, items(mount_target.get("SubnetId")))
            for rule in flat
        ):
            seen.add(function.name)
            out = ", ".join(map(_span, flat)) or "nothing"
            yield Hit(
                function.name,
                f"its groups let out {out}; the mount target is on tcp {NFS}",
                mine[0].line,
                file=mine[0].file,
            )


def _other_zone(stack: Stack) -> Iterator[Hit]:
    seen = set()
    for function, file_system, targets in stack.served():
        subnets = function.get("VpcConfig", "SubnetIds")
        if (
            stack.partial
            or function.name in seen
            or not isinstance(subnets, list)
            or not targets
            or any(one.many for one in targets)
        ):
            continue
        theirs = [one.get("SubnetId") for one in targets]
        if any(isinstance(one, Unknown) for one in theirs):
            continue
        have = {stack.zone(one) for one in theirs}
        for subnet in subnets:
            if subnet in theirs or isinstance(subnet, Unknown):
                continue
            zone = stack.zone(subnet)
            name = target(subnet) or subnet
            far = {stack.vpc(one) for one in theirs} - {None}
            if stack.vpc(subnet) is not None and far and stack.vpc(subnet) not in far:
                evidence = f"{name} is in another VPC than the mount targets"
            elif zone is not None and None not in have and zone not in have:
                evidence = f"{name} is in {zone}; {file_system.name} has mount targets in {', '.join(sorted(map(str, have)))} alone"
            else:
                continue
            seen.add(function.name)
            yield Hit(function.name, evidence, function.at("VpcConfig"), file=function.file)


def _one_zone(stack: Stack) -> Iterator[Hit]:
    for function, _, _ in stack.served():
        subnets = function.get("VpcConfig", "SubnetIds")
        if isinstance(subnets, list) and not any(isinstance(one, Unknown) for one in subnets):
            zones = {stack.zone(one) for one in subnets}
            if len(subnets) == 1 or (None not in zones and len(zones) == 1):
                evidence = f"{len(subnets)} subnet{'s' if len(subnets) > 1 else ''}, one zone"
                yield Hit(function.name, evidence, function.at("VpcConfig"), file=function.file)


def _same_zone(stack: Stack) -> Iterator[Hit]:
    for file_system in stack.of("AWS::EFS::FileSystem"):
        seen: dict[str, Resource] = {}
        for one in stack.mount_targets(file_system):
            subnet = one.get("SubnetId")
            place = stack.zone(subnet) or (None if isinstance(subnet, Unknown) else subnet)
            if place is None:
                continue
            first = seen.setdefault(str(place), one)
            if first is not one:
                yield Hit(
                    one.name, f"{place} has {first.name} already", one.at("SubnetId"), file=one.file
                )


def _order(stack: Stack) -> Iterator[Hit]:
    for function, _, targets in stack.served():
        if any(name.startswith("module.") for name in function.depends):
            continue
        missing = [one.name for one in targets if one.name not in stack.before(function)]
        if missing:
            evidence = f"nothing makes it wait for {', '.join(missing)}"
            yield Hit(
                function.name,
                evidence,
                function.lines.get("DependsOn", function.line),
                file=function.file,
            )


def _stranded(stack: Stack) -> Iterator[Hit]:
    if stack.partial or not stack.of("AWS::EC2::VPC"):
        return
    services = " ".join(
        str(one.get("ServiceName")) for one in stack.of("AWS::EC2::VPCEndpoint")
    ).lower()
    if stack.of(
        "AWS::EC2::NatGateway",
        "AWS::EC2::EgressOnlyInternetGateway",
        "AWS::EC2::TransitGatewayAttachment",
    ):
        return
    if not all(
        stack.find(subnet, "AWS::EC2::Subnet")
        for one in stack.functions()
        for subnet in items(one.get("VpcConfig", "SubnetIds"))
    ):
        return
    for function, _, _ in stack.served():
        statements, _ = stack.statements(function)
        for service in ("s3", "dynamodb"):
            uses = [
                one
                for one in statements
                if one.allow
                and any(action.lower().startswith(f"{service}:") for action in one.actions)
            ]
            if uses and service not in services and "each." not in services:
                evidence = f"may call {service}; the VPC has neither a {service} gateway endpoint nor a NAT gateway"
                yield Hit(function.name, evidence, uses[0].line, file=uses[0].owner.file)


def _closed_acl(stack: Stack) -> Iterator[Hit]:
    """Entries by number, the first that matches decides; only on a list that is all in view."""
    for acl in stack.of("AWS::EC2::NetworkAcl"):
        entries = [
            one
            for one in stack.of("AWS::EC2::NetworkAclEntry")
            if stack.find(one.get("NetworkAclId")) is acl
        ]
        for outward in (False, True):
            deny = _denied(entries, outward=outward)
            if deny is not None:
                way = "outbound" if outward else "inbound"
                yield Hit(
                    acl.name,
                    f"{way} rule {deny.get('RuleNumber')} denies tcp {NFS}",
                    deny.line,
                    file=deny.file,
                )


def _denied(entries: list[Resource], *, outward: bool) -> Resource | None:
    def rank(one: Resource) -> int:
        value = str(one.get("RuleNumber"))
        return int(value) if value.isdigit() else 1 << 20

    for one in sorted(entries, key=rank):
        if (
            str(
                one.get(
                    "Egress",
                )
            ).lower()
            == "true"
        ) != outward:
            continue
        ports = one.get("PortRange")
        low, high = (
            (str(ports.get(end, "")) for end in ("From", "To"))
            if isinstance(ports, dict)
            else ("", "")
        )
        everything = str(one.get("Protocol")) == "-1"
        covered = everything or (
            str(one.get("Protocol")) in ("6", "tcp")
            and low.isdigit()
            and high.isdigit()
            and int(low) <= NFS <= int(high)
        )
        whole = text(one.get("CidrBlock")) in WORLD
        if covered and str(one.get("RuleAction")).lower() == "deny" and whole:
            return one if rank(one) < 32767 else None
        if covered and not known(one.get("RuleAction")):
            return None
        if covered and str(one.get("RuleAction")).lower() == "allow":
            return None
    return None


RULES = (
    Rule(
        "EFS001", "error", "security group", "The mount target's security group does not let the function in on TCP 2049",
        "NFS is TCP 2049. A packet that a security group drops gets no answer, so Lambda waits, and the invocation ends with "
        "EFSMountConnectivityException. Being in the same group is not enough: a group lets its own members in only if a rule says so.",
        "On the mount target's group allow ingress, protocol tcp, port 2049 to 2049, from the function's group.",
        _blocked,
    ),
    Rule(
        "EFS002", "warning", "security group", "NFS is open to every address",
        "A file system without a policy lets whoever reaches the port mount it as root. A rule for 0.0.0.0/0 leaves only the VPC's routing between.",
        "Name the function's security group as the source instead of the address range.",
        _world,
    ),
    Rule(
        "EFS003", "error", "security group", "The function's security group does not let it out to TCP 2049",
        "A group with egress rules allows those alone. The mount then ends with EFSMountConnectivityException, as with a closed ingress.",
        "On the function's group allow egress, protocol tcp, port 2049, to the mount target's group.",
        _no_way_out,
    ),
    Rule(
        "EFS004", "error", "subnet", "A subnet of the function has no mount target in its zone",
        "Lambda starts environments in any of the function's subnets, and each mounts through the mount target of its own zone. Those in "
        "the other zones fail, so it works or not by chance.",
        "Add a mount target in that zone, or take the subnet out of the function's VpcConfig.",
        _other_zone,
    ),
    Rule(
        "EFS005", "note", "subnet", "The function runs in one zone",
        "When that zone has trouble, or its subnet runs out of addresses, no environment starts.",
        "Give the function subnets in at least two zones, each with a mount target.",
        _one_zone,
    ),
    Rule(
        "EFS006", "error", "mount target", "The file system has no mount target",
        "CloudFormation, SAM and Terraform make none by themselves; only the console does. Without one there is no address to mount.",
        "Add a mount target for each zone of the function's subnets.",
        _no_mount_target,
    ),
    Rule(
        "EFS007", "error", "mount target", "The function does not wait for the mount targets",
        "The function refers to the access point, not to the mount targets, so both are made at the same time, and creating the function "
        "fails: its mount target is not in state `available`. It may pass on the second try, which hides it.",
        "Add every mount target to the function's DependsOn (Terraform: depends_on).",
        _order,
    ),
    Rule(
        "EFS008", "error", "function", "The function has a file system and is in no VPC",
        "EFS is reached inside a VPC only. Lambda refuses the configuration.",
        "Give the function a VpcConfig with the subnets and a security group.",
        _no_vpc,
    ),
    Rule(
        "EFS009", "error", "mount target", "Two mount targets of a file system are in one zone",
        "EFS takes one mount target a zone; creating the second fails.",
        "Keep one for each zone; the other subnets of the zone use it too.",
        _same_zone,
    ),
    Rule(
        "EFS010", "error", "network ACL", "A network ACL denies TCP 2049",
        "Network ACLs have no memory: the request to 2049 must pass, and so must the answer to a high port (1024 to 65535). The rule with "
        "the lowest number that matches decides.",
        "Allow TCP 2049 between the function's and the mount target's subnets, and TCP 1024 to 65535 back, before any rule that denies.",
        _closed_acl,
    ),
    Rule(
        "EFS011", "warning", "function", "The function may call S3 or DynamoDB and has no way to them",
        "A function in a VPC has no internet, whatever its subnet's route table says of an internet gateway. Its call hangs until the timeout.",
        "Add a gateway endpoint for the service to the subnets' route tables: it costs nothing. Or a NAT gateway, which does.",
        _stranded,
    ),
)  # fmt: skip
