"""What the answers of AWS's APIs mean: network ACLs, security groups, metrics, errors."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Iterator
from typing import Any

import botocore.exceptions  # type: ignore[import-untyped]

from efsstate.deploy.findings import Hit
from efsstate.deploy.linting.values import Unknown, items


def judge(name: str, given: dict[str, list[float]]) -> Iterator[tuple[str, Hit]]:
    """What the values of an hour, by metric, say of a file system or a function."""

    def worst(metric: str, pick: Callable[[list[float]], float]) -> float | None:
        return pick(given[metric]) if given.get(metric) else None

    burst, limit = worst("BurstCreditBalance", min), worst("PercentIOLimit", max)
    if burst is not None and burst < 2**38:
        yield (
            "EFS205",
            Hit(
                name,
                f"BurstCreditBalance fell to {burst / 2**30:,.1f} GiB (a new file system has 2,150)",
            ),
        )
    if limit is not None and limit > 90:
        yield "EFS206", Hit(name, f"PercentIOLimit reached {limit:.0f}")
    used, permitted = worst("MeteredIOBytes", max), worst("PermittedThroughput", min)
    if used and permitted and used / 60 > 0.8 * permitted:
        yield (
            "EFS207",
            Hit(name, f"{used / 60 / 2**20:,.1f} MiB/s used of {permitted / 2**20:,.1f} permitted"),
        )
    connections = worst("ClientConnections", max)
    if connections is not None and connections > 20_000:
        yield "EFS208", Hit(name, f"{connections:,.0f} connections of 25,000")
    if sum(given.get("Errors", ())):
        yield "EFS210", Hit(name, f"{sum(given['Errors']):.0f} failed invocations in the last hour")


def decides(
    rules: list[dict[str, Any]], *, outward: bool, ports: tuple[int, int], peer: str
) -> dict[str, Any] | None:
    """The first rule of a network ACL that takes in all of the ports and the peer's range; its end, which denies, if none does.

    None where a rule takes in a part of the range, so that it depends on the address.
    """
    for one in sorted(rules, key=lambda rule: rule.get("RuleNumber", 0)):
        if (
            bool(one.get("Egress")) != outward
            or str(one.get("Protocol")) not in ("-1", "6")
            or "CidrBlock" not in one
        ):
            continue
        span = one.get("PortRange") or {"From": 0, "To": 65535}
        if str(one.get("Protocol")) == "6" and not (
            span["From"] <= ports[0] and ports[1] <= span["To"]
        ):
            # A denial of a part of the ports breaks the way too: of the high ports the client takes any.
            part = span["From"] <= ports[1] and ports[0] <= span["To"]
            if not (part and one.get("RuleAction") == "deny"):
                continue
        try:
            place, range_ = (
                ipaddress.IPv4Network(peer),
                ipaddress.IPv4Network(one.get("CidrBlock", "")),
            )
        except ValueError:
            return None
        if place.subnet_of(range_):
            return one
        if place.overlaps(range_):
            return None
    return {"RuleNumber": 32767, "RuleAction": "deny"}


def openings(given: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A permission of a security group, as one rule for each peer, in CloudFormation's words."""
    base = {
        "IpProtocol": str(given.get("IpProtocol", "-1")),
        "FromPort": text(given.get("FromPort")),
        "ToPort": text(given.get("ToPort")),
    }
    for key, inner, new in (
        ("UserIdGroupPairs", "GroupId", "SourceSecurityGroupId"),
        ("IpRanges", "CidrIp", "CidrIp"),
        ("Ipv6Ranges", "CidrIpv6", "CidrIpv6"),
        ("PrefixListIds", "PrefixListId", "SourcePrefixListId"),
    ):
        for one in given.get(key) or ():
            yield {**base, new: one.get(inner)}


def document(given: Any) -> Any:
    """A policy that the API gives as text."""
    try:
        return json.loads(given)
    except (TypeError, ValueError):
        return Unknown("a policy that is not JSON")


def text(value: Any) -> str | None:
    """A number or text of the API as a template would have it."""
    return None if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def strings(value: Any) -> Any:
    """The same, all through lists and dicts."""
    if isinstance(value, dict):
        return {key: strings(one) for key, one in value.items()}
    return [strings(one) for one in items(value)] if isinstance(value, list) else text(value)


def reason(error: Exception) -> str:
    """An error of AWS as one line."""
    if isinstance(error, botocore.exceptions.ClientError):
        told = error.response.get("Error", {})
        code = told.get("Code", "error")
        if code in (
            "Throttling",
            "ThrottlingException",
            "TooManyRequestsException",
            "RequestLimitExceeded",
        ):
            return f"{code}: AWS is limiting the calls of this account: try again in a minute"
        if "AccessDenied" in code or "Unauthorized" in code:
            return f"{code}: not allowed: {told.get('Message', '')}"
        return f"{code}: {told.get('Message', '')}"
    return " ".join(str(error).split())
