"""Rules of security groups: which ports they open, to whom."""

from __future__ import annotations

from typing import Any, NamedTuple

from efsstate.deploy.linting.resource import Resource
from efsstate.deploy.linting.values import Unknown, known, number

NFS = 2049


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
        """Whether TCP 2049 is in it; None where a value is not known."""
        if self.protocol in ("-1", "all"):
            return True
        if self.protocol not in ("tcp", "6"):
            return None if self.protocol == "?" else False
        if self.low is None or self.high is None:
            return None
        return self.low <= NFS <= self.high


def opening(rule: dict[str, Any], owner: Resource, line: int) -> Opening:
    """The rule of a security group, inline or a resource of its own."""
    peer = next(
        (
            rule[name]
            for name in (
                "SourceSecurityGroupId",
                "DestinationSecurityGroupId",
                "CidrIp",
                "CidrIpv6",
                "SourcePrefixListId",
                "DestinationPrefixListId",
                "SourceSecurityGroupName",
            )
            if rule.get(name)
        ),
        Unknown("a peer that is not given"),
    )
    protocol = rule.get("IpProtocol", "-1")
    return Opening(
        str(protocol).lower() if known(protocol) else "?",
        number(rule.get("FromPort")),
        number(rule.get("ToPort")),
        peer,
        owner,
        getattr(rule, "line", 0) or line,
    )
