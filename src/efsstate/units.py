"""Turn durations and sizes, as users write them, into seconds and bytes; and pace retries."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta

    Duration = float | str | timedelta
    Size = int | str

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_BYTES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_BYTES |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40, "": 1}
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _split(text: str) -> tuple[float, str]:
    """Return the number and the unit in `text`. Raise ValueError if there is no number."""
    text = text.strip()
    number = text.rstrip(_LETTERS + " ")
    return float(number), text[len(number) :].strip()


def _parse_duration(text: str) -> float:
    """Return the seconds in `text`: one number and unit, or several such as "1h30m".

    Raise ValueError or KeyError for anything else; units must fall from one part to the next.
    """
    total, last, start = 0.0, float("inf"), 0
    for end in range(1, len(text) + 1):
        is_end = end == len(text) or (text[end - 1] in _LETTERS and text[end] not in _LETTERS)
        if not is_end or not text[start:end].strip():
            continue
        number, unit = _split(text[start:end])
        size = _SECONDS[unit or ("s" if not start else "")]
        if size >= last or (start and not number >= 0):
            raise ValueError(text)
        total, last, start = total + number * size, size, end
    if not start:
        raise ValueError(text)
    return total


def seconds(value: Duration, what: str = "duration") -> float:
    """Return the seconds in `value`: a number, a `timedelta`, or a text such as "90s" or "1h30m".

    The units are ms, s, m, h, d, w. Raise ValueError (negative, not a number, unknown unit) or
    TypeError, with a message that begins with `what`.
    """
    if isinstance(value, str):
        try:
            result = _parse_duration(value)
        except (ValueError, KeyError):
            raise ValueError(
                f"{what}: {value!r} is not a duration; write seconds, or '90s', '15m', '1h30m',"
                " '7d'"
            ) from None
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        total = getattr(value, "total_seconds", None)
        if total is None:
            raise TypeError(
                f"{what}: a number of seconds, a timedelta or a text such as '15m' is needed, not"
                f" {value!r}"
            )
        result = total()
    else:
        try:
            result = float(value)
        except OverflowError:  # an int that no float holds
            result = float("inf")
    if not 0 <= result < float("inf"):
        raise ValueError(
            f"{what}: {value!r:.80} is not a length of time; it must be finite and not negative"
        )
    return float(result)


def size(value: Size, what: str = "size") -> int:
    """Return the bytes in `value`: an int, or a text such as "64MiB" or "1.5 GB".

    Raise ValueError (negative, not a number, unknown unit) or TypeError, with a message that begins
    with `what`.
    """
    if isinstance(value, str):
        try:
            number, unit = _split(value)
            result = int(number * _BYTES[unit.lower()])
        except (ValueError, KeyError, OverflowError):
            raise ValueError(
                f"{what}: {value!r} is not a size; write bytes, or '64MiB', '1.5GB'"
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


def backoff(first: float = 0.004, longest: float = 0.25) -> Iterator[float]:
    """Yield seconds to sleep before each further try: they grow, and two waiters do not meet.

    A pause is from a half to the whole of `first`, then of 1.6 times as much, up to `longest`.
    Jitter is from the kernel's random bytes; `random` would be an import on the first lock.
    """
    pause = first
    while True:
        yield pause * (0.5 + os.urandom(1)[0] / 512)
        pause = min(pause * 1.6, longest)
