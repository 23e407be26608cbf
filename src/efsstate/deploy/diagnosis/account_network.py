"""The network of a function in an account: subnets, security groups, network ACLs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from efsstate.deploy.diagnosis.account_facts import text
from efsstate.deploy.diagnosis.account_reader import Reader
from efsstate.deploy.linting.values import Unknown

_MIN_ADDRESSES = 8


def read_subnets(reader: Reader, names: list[str]) -> None:
    """Add the subnets, and report those that are nearly out of addresses."""
    wanted = sorted(set(names))
    answer = reader.ask("ec2", "describe_subnets", SubnetIds=wanted) if wanted else None
    for subnet in (answer or {}).get("Subnets", []):
        name, zone = subnet["SubnetId"], subnet.get("AvailabilityZone", "")
        reader.add(
            name,
            "AWS::EC2::Subnet",
            VpcId=subnet.get("VpcId"),
            AvailabilityZone=zone,
            CidrBlock=subnet.get("CidrBlock"),
        )
        reader.seen["subnet"].append(f"{name} in {zone}")
        free = subnet.get("AvailableIpAddressCount", _MIN_ADDRESSES)
        if free < _MIN_ADDRESSES:
            reader.report("EFS211", name, f"{free} free addresses")
    _read_peerings(reader, {str(each.get("VpcId")) for each in _subnets(reader)})


def _subnets(reader: Reader) -> list[Any]:
    return [each for each in reader.resources.values() if each.type == "AWS::EC2::Subnet"]


def _read_peerings(reader: Reader, vpcs: set[str]) -> None:
    """Add the peerings and transit gateways between VPCs, if the way leads through several."""
    if len(vpcs) < 2:
        return
    noted = len(reader.unseen)
    peerings = reader.ask("ec2", "describe_vpc_peering_connections")
    for peering in (peerings or {}).get("VpcPeeringConnections", []):
        ends = {
            peering.get(end, {}).get("VpcId") for end in ("AccepterVpcInfo", "RequesterVpcInfo")
        }
        if ends <= vpcs and peering.get("Status", {}).get("Code", "active") == "active":
            reader.add(peering["VpcPeeringConnectionId"], "AWS::EC2::VPCPeeringConnection")
    filters = [{"Name": "vpc-id", "Values": sorted(vpcs)}]
    gateways = reader.ask("ec2", "describe_transit_gateway_vpc_attachments", Filters=filters)
    for gateway in (gateways or {}).get("TransitGatewayVpcAttachments", []):
        name = gateway.get("TransitGatewayAttachmentId", "transit gateway")
        reader.add(name, "AWS::EC2::TransitGatewayAttachment")
    reader.mark_partial("subnet", noted)


def read_groups(reader: Reader, names: list[str]) -> None:
    """Add the security groups, with one rule for each peer."""
    noted = len(reader.unseen)
    wanted = sorted(set(names) - set(reader.resources))
    answer = reader.ask("ec2", "describe_security_groups", GroupIds=wanted) if wanted else None
    for group in (answer or {}).get("SecurityGroups", []):
        ways = {
            f"SecurityGroup{way}": [
                rule for permission in group.get(key, []) for rule in _openings(reader, permission)
            ]
            for way, key in (("Ingress", "IpPermissions"), ("Egress", "IpPermissionsEgress"))
        }
        reader.add(group["GroupId"], "AWS::EC2::SecurityGroup", **ways)
        reader.seen["security group"].append(group["GroupId"])
    reader.mark_partial("security group", noted)


def _openings(reader: Reader, permission: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a permission of a security group as one rule for each peer."""
    base = {
        "IpProtocol": str(permission.get("IpProtocol", "-1")),
        "FromPort": text(permission.get("FromPort")),
        "ToPort": text(permission.get("ToPort")),
    }
    for key, inner, new in (
        ("UserIdGroupPairs", "GroupId", "SourceSecurityGroupId"),
        ("IpRanges", "CidrIp", "CidrIp"),
        ("Ipv6Ranges", "CidrIpv6", "CidrIpv6"),
    ):
        for peer in permission.get(key) or ():
            yield {**base, new: peer.get(inner)}
    for prefix_list in permission.get("PrefixListIds") or ():
        for cidr in _ranges(reader, str(prefix_list.get("PrefixListId"))):
            yield {**base, "CidrIp": cidr}


def _ranges(reader: Reader, prefix_list: str) -> list[str]:
    """Return the ranges of a prefix list, or an unknown one if it may not be read."""
    operation = "get_managed_prefix_list_entries"
    answer = reader.ask("ec2", operation, PrefixListId=prefix_list)
    if answer is None:
        return [Unknown(prefix_list)]
    return [str(entry["Cidr"]) for entry in answer.get("Entries", [])]


def read_acls(reader: Reader, subnets: list[str]) -> None:
    """Add the network ACLs of the subnets, with their entries."""
    known = sorted({name for name in subnets if name in reader.resources})
    if not known:
        return
    filters = [{"Name": "association.subnet-id", "Values": known}]
    answer = reader.ask("ec2", "describe_network_acls", Filters=filters)
    for acl in (answer or {}).get("NetworkAcls", []):
        associated = [each.get("SubnetId") for each in acl.get("Associations", [])]
        reader.add(
            acl["NetworkAclId"],
            "AWS::EC2::NetworkAcl",
            Entries=[_entry(entry) for entry in acl.get("Entries", [])],
            SubnetIds=[name for name in associated if name],
        )
        reader.seen["network ACL"].append(acl["NetworkAclId"])


def _entry(entry: dict[str, Any]) -> dict[str, Any]:
    ports = entry.get("PortRange") or {}
    span = {end: value for end, value in ports.items() if value is not None}
    return {**entry, "PortRange": span}
