"""The meaning of AWS's answers: metrics, values in a template's form, errors in one line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import botocore.exceptions  # type: ignore[import-untyped]

from efsstate.deploy.aws_facts import quote
from efsstate.deploy.findings import Hit
from efsstate.deploy.linting.values import Unknown, items

_THROTTLED = (
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
    "RequestLimitExceeded",
)
_LOW_CREDITS = 2**38  # bytes
_MANY_CONNECTIONS = 20_000


def judge(
    name: str, metrics: dict[str, list[float]], *, is_elastic: bool = False
) -> Iterator[tuple[str, Hit]]:
    """Yield the faults that an hour's metrics show of a file system or a function.

    In elastic mode PermittedThroughput is the limit of writes, and reads have one of their own.
    """

    def worst(metric: str, pick: Callable[[list[float]], float]) -> float | None:
        return pick(metrics[metric]) if metrics.get(metric) else None

    burst, limit = worst("BurstCreditBalance", min), worst("PercentIOLimit", max)
    if burst is not None and burst < _LOW_CREDITS:
        evidence = f"BurstCreditBalance fell to {burst / 2**30:,.1f} GiB"
        yield "EFS205", Hit(name, f"{evidence} (a new file system has {quote('credits-new')})")
    if limit is not None and limit > 90:
        yield "EFS206", Hit(name, f"PercentIOLimit reached {limit:.0f}")
    counted = "DataWriteIOBytes" if is_elastic else "MeteredIOBytes"
    used, permitted = worst(counted, max), worst("PermittedThroughput", min)
    if used and permitted and used / 60 > 0.8 * permitted:
        rates = f"{used / 60 / 2**20:,.1f} MiB/s used of {permitted / 2**20:,.1f} permitted"
        yield "EFS207", Hit(name, rates)
    connections = worst("ClientConnections", max)
    if connections is not None and connections > _MANY_CONNECTIONS:
        yield "EFS208", Hit(name, f"{connections:,.0f} connections of {quote('connections')}")
    failed = sum(metrics.get("Errors", ()))
    if failed:
        yield "EFS210", Hit(name, f"{failed:.0f} failed invocations in the last hour")


def document(policy: Any) -> Any:
    """Return a policy that the API gives as text; one that is not JSON is unknown."""
    if isinstance(policy, dict):
        return policy
    try:
        return json.loads(policy)
    except (TypeError, ValueError):
        return Unknown("a policy that is not JSON")


def text(value: Any) -> str | None:
    """Return a number or text of the API as a template has it."""
    if value is None:
        return None
    return f"{value:g}" if isinstance(value, float) else str(value)


def strings(value: Any) -> Any:
    """Return lists and dicts of the API with each value as a template has it."""
    if isinstance(value, dict):
        return {key: strings(part) for key, part in value.items()}
    return [strings(part) for part in items(value)] if isinstance(value, list) else text(value)


def reason(error: Exception) -> str:
    """Return an error of AWS as one line."""
    if not isinstance(error, botocore.exceptions.ClientError):
        return " ".join(str(error).split())
    details = error.response.get("Error", {})
    code = details.get("Code", "error")
    if code in _THROTTLED:
        return f"{code}: AWS is limiting the calls of this account; try again in a minute"
    if "AccessDenied" in code or "Unauthorized" in code:
        return f"{code}: not allowed: {details.get('Message', '')}"
    return f"{code}: {details.get('Message', '')}"
