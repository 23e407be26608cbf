"""Write durations, sizes and dollars as people say them."""

from __future__ import annotations

from efsstate.planning.rates import GIB, KIB, MIB, TIB

_DAY = 86_400.0


def duration(seconds: float) -> str:
    """Return a duration as people say it: "82 minutes"."""
    for unit, length in (("days", _DAY), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def size(value: float) -> str:
    """Return a size as people say it: "6.8 KiB"."""
    for unit, length in (("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if value >= length:
            return f"{value / length:.1f} {unit}"
    return f"{value:.0f} bytes"


def dollars(value: float) -> str:
    """Return an amount to the cent, or "unknown" if a price was missing."""
    return "unknown" if value == float("inf") else f"${value:,.2f}"
