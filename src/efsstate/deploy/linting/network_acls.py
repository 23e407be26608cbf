"""Network ACLs: which entry decides about a range of ports and a peer's addresses."""

from __future__ import annotations

import ipaddress
from typing import Any, NamedTuple

from efsstate.deploy.linting.values import is_known, number, text

LAST = 32767  # the number of the implicit entry that denies the rest
HIGH_PORTS = (1024, 65535)
EPHEMERAL_PORTS = (32768, 60999)  # those that Linux gives to a client by default


class Entry(NamedTuple):
    """An entry of a network ACL; a field is None if it is not known."""

    number: int
    is_outward: bool | None
    allows: bool | None
    protocol: str | None
    low: int | None
    high: int | None
    cidr: str | None


IMPLICIT_DENY = Entry(
    LAST, is_outward=None, allows=False, protocol="-1", low=0, high=65535, cidr="0.0.0.0/0"
)


def parse_entry(written: dict[str, Any]) -> Entry:
    """Parse an entry in the vocabulary of CloudFormation or of EC2's API."""
    span = written.get("PortRange")
    span = span if isinstance(span, dict) else {}
    low, high = number(span.get("From", 0)), number(span.get("To", 65535))
    rank = number(written.get("RuleNumber"))
    egress = written.get("Egress", False)
    action = text(written.get("RuleAction"))
    protocol = written.get("Protocol")
    cidr = written.get("CidrBlock")
    return Entry(
        LAST - 1 if rank is None else int(rank),
        egress if isinstance(egress, bool) else _truth(egress),
        None if action is None else action.lower() == "allow",
        _PROTOCOLS.get(str(protocol).lower(), str(protocol)) if _is_plain(protocol) else None,
        None if low is None else int(low),
        None if high is None else int(high),
        "::/0" if cidr is None and "Ipv6CidrBlock" in written else text(cidr),
    )


_PROTOCOLS = {"tcp": "6", "all": "-1", "udp": "17", "icmp": "1"}


def _is_plain(value: Any) -> bool:
    return isinstance(value, int | float) or is_known(value)


def _truth(value: Any) -> bool | None:
    return {"true": True, "false": False}.get(str(value).lower()) if is_known(value) else None


def decide(
    entries: list[Entry], *, outward: bool, ports: tuple[int, int], peer: str
) -> Entry | None:
    """Return the entry that decides for TCP on all of `ports` with the whole range `peer`.

    That is the one with the lowest number that matches, or the implicit denial at the end. Return
    None if an entry before it may or may not match.
    """
    for entry in sorted(entries, key=lambda entry: entry.number):
        if entry.is_outward is None:
            return None
        if entry.is_outward != outward:
            continue
        matched = _matches(entry, ports, peer)
        if matched:
            return entry if entry.allows is not None else None
        if matched is None:
            return None
    return IMPLICIT_DENY


def _matches(entry: Entry, ports: tuple[int, int], peer: str) -> bool | None:
    """Return True if an entry takes in the whole traffic, None if a part of it or unknown."""
    if entry.protocol is None or entry.cidr is None:
        return None
    if entry.protocol not in ("-1", "6"):
        return False
    covered = _covers_ports(entry, ports) if entry.protocol == "6" else True
    if covered is False:
        return False
    try:
        place = ipaddress.ip_network(peer, strict=False)
        cidr = ipaddress.ip_network(entry.cidr, strict=False)
    except ValueError:
        return None
    if place.version != cidr.version or not place.overlaps(cidr):
        return False
    inside = cidr.prefixlen <= place.prefixlen
    return covered if inside else None


def _covers_ports(entry: Entry, ports: tuple[int, int]) -> bool | None:
    """Return True if an entry takes in all of the ports that a client may use."""
    if entry.low is None or entry.high is None:
        return None
    if not (entry.low <= ports[1] and ports[0] <= entry.high):
        return False
    # The client picks any of its ports: a denial of some of them breaks the way too.
    if entry.allows is False or (entry.low <= ports[0] and ports[1] <= entry.high):
        return True
    low, high = EPHEMERAL_PORTS
    if entry.low <= low and high <= entry.high:
        return True
    return None if entry.low <= high and low <= entry.high else False
