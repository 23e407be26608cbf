"""Terraform's network resources in CloudFormation's vocabulary: groups, network ACLs, routes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from efsstate.deploy.linting.hcl_blocks import Block, Body, Converted, with_dynamic
from efsstate.deploy.linting.values import Ref, Unknown, items

_RULE = {
    "security_group_id": "GroupId",
    "ip_protocol": "IpProtocol",
    "from_port": "FromPort",
    "to_port": "ToPort",
    "cidr_ipv4": "CidrIp",
    "cidr_ipv6": "CidrIpv6",
    "referenced_security_group_id": "SourceSecurityGroupId",
    "prefix_list_id": "SourcePrefixListId",
}
_PEERS = (
    ("cidr_blocks", "CidrIp"),
    ("ipv6_cidr_blocks", "CidrIpv6"),
    ("security_groups", "SourceSecurityGroupId"),
    ("source_security_group_id", "SourceSecurityGroupId"),
    ("prefix_list_ids", "SourcePrefixListId"),
)
_ROUTE = {
    "destination_cidr_block": "DestinationCidrBlock",
    "nat_gateway_id": "NatGatewayId",
    "network_interface_id": "NetworkInterfaceId",
    "transit_gateway_id": "TransitGatewayId",
    "vpc_peering_connection_id": "VpcPeeringConnectionId",
    "gateway_id": "GatewayId",
    "core_network_arn": "CoreNetworkArn",
}


def _rules(body: Body, own: str | None = None) -> list[Block]:
    """Return one rule for each peer that a rule of Terraform names."""
    base = {
        "IpProtocol": body["protocol"] or "-1",
        "FromPort": body["from_port"],
        "ToPort": body["to_port"],
    }
    rules = [Block({**base, new: peer}) for old, new in _PEERS for peer in items(body[old])]
    if body["self"] == "true":
        rules.append(Block({**base, "SourceSecurityGroupId": own or Unknown("self")}))
    for rule in rules:
        rule.line = body.line
    return rules


def _group(body: Body) -> Converted:
    properties: dict[str, Any] = {}
    own = Ref(body.raw.get("__name__", ""))
    names = {"ingress": "SecurityGroupIngress", "egress": "SecurityGroupEgress"}
    for old, new in names.items():
        # Terraform removes the default egress of a group that names none.
        properties[new] = [rule for block in body.blocks(old) for rule in _rules(block, own)]
    return Converted("AWS::EC2::SecurityGroup", with_dynamic(body, properties, names), names)


def _default_group(body: Body) -> Converted:
    kind, properties, names = _group(body)
    return Converted(kind, {**properties, "IsDefault": "true"}, names)


def _group_rule(body: Body) -> Converted:
    way = "Egress" if body["type"] == "egress" else "Ingress"
    group = body["security_group_id"]
    properties = {"GroupId": group, "Rules": _rules(body, group) or [Block()]}
    return Converted(f"AWS::EC2::SecurityGroup{way}", properties, {})


def _rule_apart(way: str) -> Callable[[Body], Converted]:
    return lambda body: Converted(f"AWS::EC2::SecurityGroup{way}", body.pick(_RULE), _RULE)


def _acl_entry(body: Body, *, outward: Any) -> dict[str, Any]:
    number = body["rule_number"] or body["rule_no"]
    return {
        "RuleNumber": number,
        "Egress": outward,
        "RuleAction": body["rule_action"] or body["action"],
        "Protocol": body["protocol"],
        "CidrBlock": body["cidr_block"],
        "PortRange": {"From": body["from_port"], "To": body["to_port"]},
    }


def _acl(body: Body) -> Converted:
    entries = [
        _acl_entry(block, outward=str(name == "egress").lower())
        for name in ("ingress", "egress")
        for block in body.blocks(name)
    ]
    properties: dict[str, Any] = {"Entries": entries, "SubnetIds": items(body["subnet_ids"])}
    if body.is_dynamic("ingress") or body.is_dynamic("egress"):
        properties["Entries"] = Unknown("dynamic entries")
    return Converted("AWS::EC2::NetworkAcl", properties, {})


def _acl_rule(body: Body) -> Converted:
    entry = _acl_entry(body, outward=body["egress"] or "false")
    properties = {**entry, "NetworkAclId": body["network_acl_id"]}
    return Converted("AWS::EC2::NetworkAclEntry", properties, {})


def _route_table(body: Body) -> Converted:
    names = {"cidr_block": "DestinationCidrBlock", **_ROUTE}
    return Converted(
        "AWS::EC2::RouteTable",
        {"Routes": [route.pick(names) for route in body.blocks("route")]},
        {},
    )


def _route(body: Body) -> Converted:
    return Converted("AWS::EC2::Route", body.pick(_ROUTE), _ROUTE)


NETWORK: dict[str, Callable[[Body], Converted]] = {
    "aws_security_group": _group,
    "aws_default_security_group": _default_group,
    "aws_security_group_rule": _group_rule,
    "aws_vpc_security_group_ingress_rule": _rule_apart("Ingress"),
    "aws_vpc_security_group_egress_rule": _rule_apart("Egress"),
    "aws_network_acl": _acl,
    "aws_network_acl_rule": _acl_rule,
    "aws_route": _route,
    "aws_route_table": _route_table,
}
