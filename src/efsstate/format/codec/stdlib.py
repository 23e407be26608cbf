"""Decimals, UUIDs, dates, times and paths, to what the codec keeps and back."""

from __future__ import annotations

import sys

from efsstate.format.codec import DATE, DATETIME, DECIMAL, PATH, TIME, TIMEDELTA, UUID, refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from efsstate.format.codec import Encoder, In, Out

_PATHS = ("PurePath", "PurePosixPath", "PureWindowsPath", "Path", "PosixPath", "WindowsPath")


# Encoding


def _decimal(value: Any, out: Out) -> object:
    return out.carry(DECIMAL, str(value).encode())


def _uuid(value: Any, out: Out) -> object:
    safety = value.is_safe.value  # None where it is not known, as nearly always
    return out.carry(UUID, value.bytes if safety is None else value.bytes + bytes([safety & 255]))


def _date(value: Any, out: Out) -> object:
    return out.mark(DATE, value.year, value.month, value.day)


def _zone(value: Any, zone: Any) -> Any:
    """None, [seconds, microseconds, name or None] of a fixed offset, or the name of a zone."""
    import datetime as dt

    if zone is None:
        return None
    if type(zone) is dt.timezone:
        offset, *name = zone.__getinitargs__()  # type: ignore[attr-defined]
        return [offset.days * 86400 + offset.seconds, offset.microseconds, *name]
    module = sys.modules.get("zoneinfo")
    if module is not None and type(zone) is module.ZoneInfo and zone.key is not None:
        return zone.key
    raise refusal(
        value,
        f"its time zone is a {type(zone).__qualname__}; use datetime.timezone or zoneinfo.ZoneInfo",
    )


def _time(value: Any, out: Out) -> object:
    zone = _zone(value, value.tzinfo)
    return out.mark(
        TIME, value.hour, value.minute, value.second, value.microsecond, value.fold, zone
    )


def _datetime(value: Any, out: Out) -> object:
    zone = _zone(value, value.tzinfo)
    day = value.year, value.month, value.day
    return out.mark(
        DATETIME, *day, value.hour, value.minute, value.second, value.microsecond, value.fold, zone
    )


def _timedelta(value: Any, out: Out) -> object:
    return out.mark(TIMEDELTA, value.days, value.seconds, value.microseconds)


def _path(value: Any, out: Out) -> object:
    import os

    return out.mark(PATH, _PATHS.index(type(value).__name__), os.fsencode(str(value)))


_ENCODERS: tuple[tuple[str, str, Encoder], ...] = (
    ("decimal", "Decimal", _decimal),
    ("uuid", "UUID", _uuid),
    ("datetime", "date", _date),
    ("datetime", "time", _time),
    ("datetime", "datetime", _datetime),
    ("datetime", "timedelta", _timedelta),
    *(("pathlib", name, _path) for name in _PATHS),
)


def encoder(_value: Any, kind: type) -> tuple[Encoder | None, bool]:
    """The encoder of `kind`, and that it is one for all its values; a value's module is imported by whoever made it."""
    for module, name, encode in _ENCODERS:
        if module in sys.modules and kind is getattr(sys.modules[module], name, None):
            return encode, True
    return None, False


# Decoding


def _to_decimal(data: bytes) -> Any:
    from decimal import Decimal

    return Decimal(data.decode("ascii"))


def _to_uuid(data: bytes) -> Any:
    from uuid import UUID, SafeUUID

    safety = SafeUUID.unknown if len(data) == 16 else SafeUUID(0 if data[16:] == b"\0" else -1)
    return UUID(bytes=data[:16], is_safe=safety)


def _to_zone(zone: Any) -> Any:
    import datetime as dt

    if zone is None:
        return None
    if isinstance(zone, str):
        from zoneinfo import ZoneInfo

        return ZoneInfo(zone)
    seconds, microseconds, *name = zone
    offset = dt.timedelta(seconds=seconds, microseconds=microseconds)
    return dt.timezone(offset, *name) if name or offset else dt.UTC


def _to_date(_: In, year: int, month: int, day: int) -> Any:
    import datetime as dt

    return dt.date(year, month, day)


def _to_time(
    _: In, hour: int, minute: int, second: int, microsecond: int, fold: int, zone: Any
) -> Any:
    import datetime as dt

    return dt.time(hour, minute, second, microsecond, _to_zone(zone), fold=fold)


def _to_datetime(
    _: In,
    year: int,
    month: int,
    day: int,
    hour: int,
    minute: int,
    second: int,
    microsecond: int,
    fold: int,
    zone: Any,
) -> Any:
    import datetime as dt

    return dt.datetime(
        year, month, day, hour, minute, second, microsecond, _to_zone(zone), fold=fold
    )


def _to_timedelta(_: In, days: int, seconds: int, microseconds: int) -> Any:
    import datetime as dt

    return dt.timedelta(days, seconds, microseconds)


def _to_path(_: In, kind: int, text: bytes) -> Any:
    import os
    import pathlib

    return getattr(pathlib, _PATHS[kind])(os.fsdecode(text))


CARRIERS: dict[int, Callable[[bytes], Any]] = {DECIMAL: _to_decimal, UUID: _to_uuid}
DECODERS: dict[int, Callable[..., Any]] = {
    DATE: _to_date,
    TIME: _to_time,
    DATETIME: _to_datetime,
    TIMEDELTA: _to_timedelta,
    PATH: _to_path,
}
