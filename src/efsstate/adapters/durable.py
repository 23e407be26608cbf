"""A serialiser for AWS durable functions that keeps large payloads on the mount.

    @durable_execution
    def handler(event, context):
        config = StepConfig(serdes=EfsSerDes())
        rows = context.step(lambda _: extract(event), config=config)

A checkpoint then holds one of three envelopes:

    {"efsstate": 1, "value": …}      small, and JSON gives it back exactly
    {"efsstate": 1, "packed": "…"}   small: efsstate's codec, in base64
    {"efsstate": 1, "entry": "…"}    large: the digest of the bytes of an entry on the mount

The entry's name is a digest of the execution's ARN, the operation and the bytes. So no entry is
ever written with other bytes, and an envelope of another execution or operation names none.
"""

from __future__ import annotations

import base64
import json
from errno import EACCES, EPERM, EROFS
from functools import partial

from aws_durable_execution_sdk_python.exceptions import RetryableSerDesError, SerDesError
from aws_durable_execution_sdk_python.serdes import SerDes

from efsstate import process, units
from efsstate.cache import disk, io_threads
from efsstate.cache.keys import KeyBuilder
from efsstate.cache.options import Options
from efsstate.cache.tiers import TieredCache
from efsstate.errors import EfsStateError
from efsstate.format import codec as codecs
from efsstate.format.entry import blake2b

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from typing import Any

    from aws_durable_execution_sdk_python.serdes import SerDesContext

    from efsstate.units import Duration, Size

_FORMAT = 1
_PERMANENT = (EACCES, EPERM, EROFS)  # a retry of the invocation meets them again


class EfsSerDes(SerDes):
    """Serialise operations' results: small ones inline, large ones as entries on the mount.

    It takes the same values as `cached`: arrays, sets and dataclasses come back as they were.

    - `name`: the namespace of the entries, which no cache may use.
    - `ttl`: how long an entry is kept. It must outlast any execution and any look at its history.
    - `inline`: the most bytes of a payload that stays in the checkpoint. With 32 KiB, the 3,000
      operations of an execution stay below its 100 MB.
    - `root`, `io_timeout`: as of `Cache`.

    Raise `RetryableSerDesError` if the mount fails, and `SerDesError` for a value that can't be
    stored and for an entry that is damaged, missing, or of another execution.
    """

    def __init__(
        self,
        name: str = "durable",
        *,
        ttl: Duration = "456d",
        inline: Size = "32KiB",
        root: str | os.PathLike[str] | None = None,
        io_timeout: Duration | None = None,
    ) -> None:
        self._ttl, self._inline = units.seconds(ttl, "ttl"), units.size(inline, "inline")
        options = Options(ttl=self._ttl, memory=0, root=root, io_timeout=io_timeout)
        # A wait of the execution may be longer than the janitor's `unused_for`.
        options.keeps_unused = True
        self._results, self._keys = TieredCache(name, options), KeyBuilder(name, None)
        self._name = name

    def __repr__(self) -> str:
        return f"EfsSerDes({self._name!r})"

    def serialize(self, value: Any, serdes_context: SerDesContext) -> str:
        """Return the envelope of `value`, once its entry, if it has one, is on the mount."""
        operation = serdes_context.operation_id
        try:
            packed = _pack(value)
        except EfsStateError as error:
            raise SerDesError(f"operation {operation}: the value can't be kept: {error}") from error
        if len(packed) > self._inline:
            content = _digest(packed)
            self._ask(operation, partial(self._write, self._place(serdes_context, content), packed))
            return json.dumps({"efsstate": _FORMAT, "entry": content})
        if _is_exact_in_json(value, packed):
            return json.dumps({"efsstate": _FORMAT, "value": value})
        return json.dumps({"efsstate": _FORMAT, "packed": base64.b64encode(packed).decode()})

    def deserialize(self, data: str, serdes_context: SerDesContext) -> Any:
        """Return the value of an envelope that `serialize` returned for the same operation."""
        operation = serdes_context.operation_id
        try:
            envelope = json.loads(data)
            version = envelope["efsstate"]
        except (ValueError, TypeError, KeyError):
            raise SerDesError(
                f"operation {operation}: {data!r:.80} is no envelope of EfsSerDes; pass another"
                " serdes for what other programs send, such as a callback's result"
            ) from None
        if version != _FORMAT:
            raise SerDesError(
                f"operation {operation}: its envelope has format {version!r}; update efsstate"
            )
        if "value" in envelope:
            return envelope["value"]
        try:
            if "packed" in envelope:
                return codecs.loads(base64.b64decode(envelope["packed"], validate=True))
            place = self._place(serdes_context, envelope["entry"])
            payload = self._ask(operation, partial(self._read, place))
            # MUT: a-durable-payload-is-the-one-that-was-named
            if payload is None or _digest(payload) != envelope["entry"]:
                raise SerDesError(
                    f"operation {operation}: its entry {place} is not on the mount; it was removed,"
                    " or the envelope is another execution's or operation's"
                )
            return codecs.loads(payload)
        except (ValueError, KeyError, TypeError) as error:
            raise SerDesError(
                f"operation {operation}: its payload can't be read: {error}"
            ) from error

    def _place(self, context: SerDesContext, content: str) -> str:
        """Return the entry's name."""
        # MUT: a-durable-entry-is-bound-to-its-execution
        return self._keys.digest((context.durable_execution_arn, context.operation_id, content))

    def _write(self, place: str, packed: bytes) -> None:
        results = self._results
        tier, upkeep = results.disk(), results.upkeep
        # First, because a sweep between the two would judge the entry by another policy.
        if not upkeep.shortest <= self._ttl <= upkeep.longest:
            upkeep.widen(tier.mount, self._ttl)
        meta = disk.pack_meta(tier.clear_stamp(), b"", results.codec_name, own_ttl=True, tags=())
        tier.write(place, packed, results.codec_name, self._ttl, meta)

    def _read(self, place: str) -> bytes | None:
        results = self._results
        item = results.disk().read(place, results.codec_name, fresh=True)
        if item is None:
            return None
        return b"".join(item.payload) if type(item.payload) is tuple else bytes(item.payload)

    def _ask(self, operation: str, function: Callable[[], Any]) -> Any:
        """Return `function()`, with the SDK's errors in place of the mount's."""
        results = self._results
        try:
            return io_threads.call(results.root_path, function, results.io_timeout)
        except OSError as error:
            process.raise_of_handler(error)
            kind = SerDesError if error.errno in _PERMANENT else RetryableSerDesError
            raise kind(f"operation {operation}: the mount failed: {error}") from error
        except EfsStateError as error:
            raise SerDesError(f"operation {operation}: {error}") from error


def _pack(value: Any) -> bytes:
    payload = codecs.dumps(value)
    return b"".join(payload) if isinstance(payload, list) else bytes(payload)


def _digest(packed: bytes) -> str:
    return str(blake2b()(packed, digest_size=24).hexdigest())


def _is_exact_in_json(value: Any, packed: bytes) -> bool:
    """Return True if JSON gives back `value` itself, with all its types."""
    try:
        return _pack(json.loads(json.dumps(value, allow_nan=False))) == packed
    except (ValueError, TypeError, RecursionError):
        return False
