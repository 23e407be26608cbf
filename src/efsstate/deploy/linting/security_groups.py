"""Rules of security groups: which ports they open, and to which peer."""

from __future__ import annotations

from typing import Any, NamedTuple

from efsstate.deploy.linting.resource import Resource
from efsstate.deploy.linting.values import Unknown, is_known, number

NFS = 2049
_PEERS = (
    "SourceSecurityGroupId",
    "DestinationSecurityGroupId",
    "CidrIp",
    "CidrIpv6",
    "SourcePrefixListId",
    "DestinationPrefixListId",
    "SourceSecurityGroupName",
)


class Opening(NamedTuple):
    """A rule of a security group."""

    protocol: str
    low: float | None
    high: float | None
    peer: Any
    """A group, a CIDR, a prefix list, or something unknown."""
    owner: Resource
    line: int = 0

    def covers_nfs(self) -> bool | None:
        """Return True if the rule covers TCP 2049, or None if a value is not known."""
        if self.protocol in ("-1", "all"):
            return True
        if self.protocol not in ("tcp", "6"):
            return None if self.protocol == "?" else False
        if self.low is None or self.high is None:
            return None
        return self.low <= NFS <= self.high

    def span(self) -> str:
        """Return the protocol and ports in words."""
        if self.protocol in ("-1", "all"):
            return "all traffic"
        low, high = (f"{end:.0f}" if end is not None else "?" for end in (self.low, self.high))
        return f"{self.protocol} {low}" if low == high else f"{self.protocol} {low} to {high}"


def opening(rule: dict[str, Any], owner: Resource, line: int) -> Opening:
    """Parse a rule of a security group, inline or a resource of its own."""
    peer = next((rule[name] for name in _PEERS if rule.get(name)), Unknown("no peer given"))
    protocol = rule.get("IpProtocol", "-1")
    return Opening(
        str(protocol).lower() if is_known(protocol) else "?",
        number(rule.get("FromPort")),
        number(rule.get("ToPort")),
        peer,
        owner,
        getattr(rule, "line", 0) or line,
    )
