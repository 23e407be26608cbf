"""Encode decimals, UUIDs, dates, times and paths, and decode them."""

from __future__ import annotations

import sys

from efsstate.format.codec.inspection import own_dict
from efsstate.format.codec.wire import (
    DATE,
    DATETIME,
    DECIMAL,
    PATH,
    TIME,
    TIMEDELTA,
    UUID,
    refusal,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from efsstate.format.codec.wire import Encoder, In, Out

_ZONE_LETTERS = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-+/")
_PATHS = ("PurePath", "PurePosixPath", "PureWindowsPath", "Path", "PosixPath", "WindowsPath")


# Encoding


def _encode_decimal(value: Any, out: Out) -> object:
    return out.extension(DECIMAL, str(value).encode())


def _encode_uuid(value: Any, out: Out) -> object:
    safety = value.is_safe.value  # None where it is not known, as nearly always
    return out.extension(
        UUID, value.bytes if safety is None else value.bytes + bytes([safety & 255])
    )


def _encode_date(value: Any, out: Out) -> object:
    return out.mark(DATE, value.year, value.month, value.day)


def _describe_zone(value: Any, zone: Any) -> Any:
    """Return a zone as None, [seconds, microseconds, name or nothing] if fixed, or its name."""
    import datetime as dt

    if zone is None:
        return None
    if type(zone) is dt.timezone:
        offset, *name = zone.__getinitargs__()  # type: ignore[attr-defined]
        return [offset.days * 86400 + offset.seconds, offset.microseconds, *name]
    module = sys.modules.get("zoneinfo")
    if module is not None and type(zone) is module.ZoneInfo:
        key = zone_key(zone)
        if key is None:
            raise refusal(value, "its time zone is read from a file; use a zone's name")
        return key
    described = describe_dateutil(zone)
    if described is not None:
        return ["dateutil", *described]
    raise refusal(
        value,
        f"its time zone is a {type(zone).__qualname__}; use datetime.timezone or zoneinfo.ZoneInfo",
    )


def zone_key(zone: Any) -> str | None:
    """Return the name by which any process gets this ZoneInfo; None if it is read from a file.

    `from_file` takes a name, too, which says nothing about the file.
    """
    try:
        zone.__reduce__()
    except Exception:  # a PicklingError, of a module that need not be loaded
        return None
    return zone.key  # type: ignore[no-any-return]


def describe_dateutil(zone: Any) -> list[Any] | None:
    """Return the function of `dateutil.tz` that makes the zone, and its arguments; None if none."""
    tz = sys.modules.get("dateutil.tz")
    if tz is None:
        return None
    kind, own = type(zone), own_dict(zone)
    if kind is tz.tzutc:
        return ["tzutc"]
    if kind is tz.tzlocal:
        return ["tzlocal", *_local_offsets(zone)]
    if kind is tz.tzoffset:
        return ["tzoffset", own["_name"], round(own["_offset"].total_seconds() * 1_000_000)]
    if kind is tz.tzfile:
        path = str(own["_filename"] or "")
        name = path.partition("zoneinfo/")[2] or path
        return ["gettz", name] if _is_zone_name(name) and tz.gettz(name) == zone else None
    return None


def _local_offsets(zone: Any) -> list[Any]:
    """Return the name of this host's local zone, which another host may not share."""
    own = own_dict(zone)
    seconds = [round(own[name].total_seconds()) for name in ("_std_offset", "_dst_offset")]
    return [*seconds, list(own["_tznames"])]


def _is_zone_name(name: str) -> bool:
    """Return True if `name` can only be that of a zone: a path would have `gettz` open its file."""
    parts = name.split("/")
    return all(part.strip("._-") and part[0] not in "._-" for part in parts) and not (
        set(name) - _ZONE_LETTERS
    )


def _decode_dateutil(library: str, function: str, *arguments: Any) -> Any:
    tz = sys.modules.get("dateutil.tz")
    if library != "dateutil" or tz is None:
        raise ValueError("dateutil is not imported")
    if function == "tzutc" and not arguments:
        return tz.tzutc()
    if function == "tzlocal" and _local_offsets(tz.tzlocal()) == list(arguments):
        return tz.tzlocal()
    if function == "tzoffset":
        import datetime as dt

        name, offset = arguments
        return tz.tzoffset(name, dt.timedelta(microseconds=offset))
    # MUT: a-zones-name-is-no-path
    if function == "gettz" and _is_zone_name(*arguments):
        zone = tz.gettz(*arguments)
        if type(zone) is tz.tzfile:
            return zone
    raise ValueError("a time zone of dateutil's that is not known here")


def _encode_time(value: Any, out: Out) -> object:
    zone = _describe_zone(value, value.tzinfo)
    return out.mark(
        TIME, value.hour, value.minute, value.second, value.microsecond, value.fold, zone
    )


def _encode_datetime(value: Any, out: Out) -> object:
    zone = _describe_zone(value, value.tzinfo)
    day = value.year, value.month, value.day
    return out.mark(
        DATETIME, *day, value.hour, value.minute, value.second, value.microsecond, value.fold, zone
    )


def _encode_timedelta(value: Any, out: Out) -> object:
    return out.mark(TIMEDELTA, value.days, value.seconds, value.microseconds)


def _encode_path(value: Any, out: Out) -> object:
    import os

    return out.mark(PATH, _PATHS.index(type(value).__name__), os.fsencode(str(value)))


ENCODERS: dict[int, Encoder] = {
    DECIMAL: _encode_decimal,
    UUID: _encode_uuid,
    DATE: _encode_date,
    TIME: _encode_time,
    DATETIME: _encode_datetime,
    TIMEDELTA: _encode_timedelta,
    PATH: _encode_path,
}


# Decoding


def _decode_decimal(data: bytes) -> Any:
    from decimal import Decimal

    return Decimal(data.decode("ascii"))


def _decode_uuid(data: bytes) -> Any:
    from uuid import UUID, SafeUUID

    safety = SafeUUID.unknown if len(data) == 16 else SafeUUID(0 if data[16:] == b"\0" else -1)
    return UUID(bytes=data[:16], is_safe=safety)


def _decode_zone(zone: Any) -> Any:
    import datetime as dt

    if zone is None:
        return None
    if isinstance(zone, str):
        from zoneinfo import ZoneInfo

        return ZoneInfo(zone)
    if isinstance(zone[0], str):
        return _decode_dateutil(*zone)
    seconds, microseconds, *name = zone
    offset = dt.timedelta(seconds=seconds, microseconds=microseconds)
    return dt.timezone(offset, *name) if name or offset else dt.UTC


def _decode_date(_: In, year: int, month: int, day: int) -> Any:
    import datetime as dt

    return dt.date(year, month, day)


def _decode_time(
    _: In, hour: int, minute: int, second: int, microsecond: int, fold: int, zone: Any
) -> Any:
    import datetime as dt

    return dt.time(hour, minute, second, microsecond, _decode_zone(zone), fold=fold)


def _decode_datetime(
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
        year, month, day, hour, minute, second, microsecond, _decode_zone(zone), fold=fold
    )


def _decode_timedelta(_: In, days: int, seconds: int, microseconds: int) -> Any:
    import datetime as dt

    return dt.timedelta(days, seconds, microseconds)


def _decode_path(_: In, kind: int, text: bytes) -> Any:
    import os
    import pathlib

    return getattr(pathlib, _PATHS[kind])(os.fsdecode(text))


DECODERS: dict[int, Callable[..., Any]] = {
    DECIMAL: _decode_decimal,
    UUID: _decode_uuid,
    DATE: _decode_date,
    TIME: _decode_time,
    DATETIME: _decode_datetime,
    TIMEDELTA: _decode_timedelta,
    PATH: _decode_path,
}
