"""Codecs: "msgpack" (see `msgpack`), "pickle", or an object with `dumps` and `loads`.

Each is imported with the first value.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from efsstate.format.codec.wire import Buffer

    Dumps = Callable[[Any], Buffer | list[Buffer]]
    Loads = Callable[[Any], Any]


def require_codec(codec: Any) -> None:
    """Raise `TypeError` if `codec` is none."""
    if isinstance(codec, str) and codec in ("msgpack", "pickle"):
        return
    if not callable(getattr(codec, "dumps", None)) or not callable(getattr(codec, "loads", None)):
        raise TypeError(
            f"codec: {codec!r} is none; use 'msgpack', 'pickle' or an object with dumps and loads"
        )


def resolve_codec(codec: Any, *, signed: bool = False) -> tuple[str, Dumps, Loads]:
    """Return the name that goes into the entry, `dumps` and `loads`.

    `dumps` raises `EncodeError`, `loads` `ValueError`. `signed`: the root has a key, so that only
    this deployment's bytes ever reach pickle; without one, pickle is worth a warning.
    """
    require_codec(codec)
    if codec == "msgpack":
        from efsstate.format.codec import msgpack

        return "msgpack", msgpack.dumps, msgpack.loads
    from efsstate.format.codec import pickles

    return pickles.resolve(codec, signed=signed)


def dumps(value: Any) -> Buffer | list[Buffer]:
    """Return `value` as a payload of the codec "msgpack". Raise `EncodeError`."""
    from efsstate.format.codec import msgpack

    return msgpack.dumps(value)


def dump_pieces(pieces: list[bytes]) -> list[Buffer]:
    """Return the payload of the `bytes` value that `pieces` are together, without joining them."""
    from efsstate.format.codec import msgpack

    return [msgpack.bytes_head(sum(map(len, pieces))), *pieces]


def loads(payload: Any) -> Any:
    """Return the value in a payload of the codec "msgpack". Raise `ValueError`."""
    from efsstate.format.codec import msgpack

    return msgpack.loads(payload)
