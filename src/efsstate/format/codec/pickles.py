"""Adapt the codecs that are not ours: pickle, and objects with `dumps` and `loads`."""

from __future__ import annotations

from efsstate.errors import EncodeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from efsstate.format.codec.wire import Buffer

    Dumps = Callable[[Any], Buffer | list[Buffer]]
    Loads = Callable[[Any], Any]


def resolve(codec: Any, *, signed: bool) -> tuple[str, Dumps, Loads]:
    """Return the codec's name, `dumps` and `loads`, as `resolve_codec` describes them."""
    if codec == "pickle":
        import pickle

        if not signed:
            from efsstate import events

            events.log(
                "warning",
                "codec='pickle' without EFSSTATE_SIGNING_KEY: any writer to the mount can run code"
                " in this process; set the key, or use codec='msgpack'",
                once="pickle unsigned",
                kind="cache",
                event="pickle_unsigned",
            )
        return (
            "pickle",
            _encoder(lambda value: pickle.dumps(value, 5), "pickle"),
            _decoder(pickle.loads),
        )
    encode, decode = codec.dumps, codec.loads
    name = getattr(codec, "name", None) or getattr(codec, "__name__", None) or type(codec).__name__
    name = "x-" + str(name).encode("ascii", "replace").decode()[:30]
    return name, _encoder(encode, name), _decoder(lambda payload: decode(bytes(payload)))


def _encoder(function: Callable[[Any], Any], name: str) -> Dumps:
    def encode(value: Any, *, is_again: bool = False) -> Buffer:
        try:
            payload = function(value)
            payload = payload.encode() if isinstance(payload, str) else payload
            return memoryview(payload).cast("B")
        except Exception as error:
            if not is_again:
                encode(value, is_again=True)
                raise  # the value can be stored: a signal handler raised
            kind = type(value)
            raise EncodeError(
                f"a {kind.__module__}.{kind.__qualname__} can't be stored by {name}: {error}"
            ) from error

    return encode


def _decoder(function: Callable[[Any], Any]) -> Loads:
    def decode(payload: Buffer, *, is_again: bool = False) -> Any:
        try:
            return function(payload)
        except Exception as error:
            if not is_again:
                decode(payload, is_again=True)
                raise  # the bytes are a value: a signal handler raised
            raise ValueError(
                f"its payload can't be read: {type(error).__name__}: {error}"
            ) from error

    return decode
