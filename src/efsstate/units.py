"""Durations and sizes as users write them, turned into seconds and bytes."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import timedelta

    Duration = float | str | timedelta
    Size = int | str

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_BYTES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_BYTES |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40, "": 1}


def _split(text: str) -> tuple[float, str]:
    text = text.strip()
    number = text.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
    return float(number), text[len(number) :].strip()


def seconds(value: Duration, what: str = "duration") -> float:
    """Seconds in `value`: a number of seconds, a `timedelta`, or a text such as "90s", "15m", "6h", "7d".

    Raises `ValueError` (negative, not a number, unknown unit) or `TypeError`, naming `what`.
    """
    if isinstance(value, str):
        try:
            number, unit = _split(value)
            result = number * _SECONDS[unit or "s"]
        except (ValueError, KeyError):
            raise ValueError(
                f"{what}: {value!r} is not a duration: write seconds, or '90s', '15m', '6h', '7d'"
            ) from None
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        total = getattr(value, "total_seconds", None)
        if total is None:
            raise TypeError(
                f"{what}: a number of seconds, a timedelta or a text such as '15m' is needed, not {value!r}"
            )
        result = total()
    else:
        try:
            result = float(value)
        except OverflowError:  # an int that no float holds
            result = float("inf")
    if not 0 <= result < float("inf"):
        raise ValueError(
            f"{what}: {value!r:.80} is not a length of time: it must be finite and not negative"
        )
    return float(result)


def size(value: Size, what: str = "size") -> int:
    """Bytes in `value`: an int, or a text such as "64MiB" or "1.5 GB".

    Raises `ValueError` (negative, not a number, unknown unit) or `TypeError`, naming `what`.
    """
    if isinstance(value, str):
        try:
            number, unit = _split(value)
            result = int(number * _BYTES[unit.lower()])
        except (ValueError, KeyError, OverflowError):
            raise ValueError(
                f"{what}: {value!r} is not a size: write bytes, or '64MiB', '1.5GB'"
            ) from None
    elif isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(
            f"{what}: a number of bytes or a text such as '64MiB' is needed, not {value!r}"
        )
    else:
        result = value
    if result < 0:
        raise ValueError(f"{what}: {value!r} is negative")
    return result
