"""Set values: encode each on the caller's thread, store many at once, and report each outcome."""

from __future__ import annotations

import time
from functools import partial

from efsstate import events, process
from efsstate.cache import io_threads
from efsstate.cache.namespace import FAILURES
from efsstate.cache.tiers import TieredCache
from efsstate.errors import EncodeError, MountTimeout
from efsstate.format import codec as codecs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from efsstate.cache.flight import Flight
    from efsstate.cache.memory import Item
    from efsstate.cache.tiers import Encoded

    # A digest, a value, and the bytes that the entry stores of its key.
    Entry = tuple[str, Any, bytes]
    Outcome = tuple[Item | None, Exception | None]

_LONGEST_KEY = 2**14  # bytes of a key that is stored, for `keys()`
_BATCH, _BATCH_BYTES = 256, 2**26  # values that are encoded before the first of them is stored


def pack_key(key: object) -> bytes:
    """Return the bytes that an entry stores of its key, for `keys()`; b"" if it can't be listed."""
    try:
        packed = codecs.dumps(key)
    except (EncodeError, ImportError, OSError) as error:
        process.raise_of_handler(error)
        return b""
    return bytes(packed) if not isinstance(packed, list) and len(packed) <= _LONGEST_KEY else b""


class Write:
    """A value to be set: encoded, or the error; and the flights that it makes stale."""

    __slots__ = ("encoded", "error", "stale")

    def __init__(self, stale: list[Flight]) -> None:
        self.stale = stale
        self.encoded: Encoded | None = None
        self.error: Exception | None = None


def put(
    results: TieredCache,
    entries: list[Entry],
    seconds: float | None,
    *,
    own_ttl: bool,
    tags: tuple[str, ...] = (),
) -> list[bool]:
    """Set values that count for `seconds`; raise the first `EncodeError` after storing the others.

    `own_ttl`: the cache's ttl does not shorten that. `tags` are ids. Failures of the mount are
    counted and logged. Return for each entry, in order, if it was stored.
    """
    if seconds == 0:
        return [_attempt_removal(results, digest) is not None for digest, _, _ in entries]
    began = time.monotonic()
    outcomes: list[Outcome | None] = []
    if len(entries) == 1 and results.io_timeout is None:
        # On this thread, while the caller waits: there is nothing to hand over.
        write = encode(results, entries[0], seconds, own_ttl=own_ttl, detach=False, tags=tags)
        outcome = store(results, write)
        report(results, [outcome], began)
        return [outcome[1] is None]
    encode_one = partial(encode, results, seconds=seconds, own_ttl=own_ttl, detach=True, tags=tags)
    store_one = partial(store, results)
    for batch in _batches(map(encode_one, entries)):
        outcomes += io_threads.spread(results.root_path, store_one, batch, results.io_timeout)
    report(results, outcomes, began)
    return [outcome is not None and outcome[1] is None for outcome in outcomes]


def remove(results: TieredCache, digest: str) -> bool:
    """Remove a value; return True if there was one."""
    return bool(_attempt_removal(results, digest))


def _attempt_removal(results: TieredCache, digest: str) -> bool | None:
    """Remove a value; return True if there was one, and None if the mount failed."""
    results.begin_change(digest)
    was_there: bool | None = results.attempt("remove a value", lambda: results.remove(digest))
    return was_there


def encode(
    results: TieredCache,
    entry: Entry,
    seconds: float | None,
    *,
    own_ttl: bool,
    detach: bool,
    tags: tuple[str, ...] = (),
) -> Write:
    """Return the entry encoded, or the error of that; call it on the caller's thread."""
    digest, value, key = entry
    write = Write(results.begin_change(digest))
    try:
        write.encoded = results.encode(
            digest, value, seconds, key=key, own_ttl=own_ttl, detach=detach
        )
        write.encoded.tags = tags
    except (EncodeError, *FAILURES) as error:
        process.raise_of_handler(error)
        write.error = error
    return write


def store(results: TieredCache, write: Write) -> Outcome:
    """Store an encoded value; return its item, or the error."""
    if write.encoded is None:
        return None, write.error
    try:
        # The computations of this process must not replace the value in their last moment.
        results.end_drafts(write.stale)
        results.store(write.encoded)
    except FAILURES as error:
        # MUT: a-time-limit-ends-a-put-of-many
        process.raise_of_handler(error)
        return None, error
    return write.encoded.item, None


def report(results: TieredCache, outcomes: Iterable[Outcome | None], began: float) -> None:
    """Count and report each outcome (None: the mount did not answer); raise a refused one."""
    refused: EncodeError | None = None
    for outcome in outcomes:
        item, error = outcome or (None, _timeout(results))
        if isinstance(error, EncodeError):
            refused = refused or error
        elif error is not None:
            results.report_failure(error, "keep a value")
        elif events.listeners:
            results.emit("put", began, bytes=0 if item is None else item.cost)
    if refused is not None:
        raise refused


def _timeout(results: TieredCache) -> MountTimeout:
    return MountTimeout(f"{results.root_path}: the mount did not answer in time, or is not asked")


def _batches(writes: Iterable[Write]) -> Iterator[list[Write]]:
    """Yield `writes` in lists that are bounded in their number, and in the bytes that they hold."""
    batch: list[Write] = []
    size = 0
    for write in writes:
        batch.append(write)
        size += 0 if write.encoded is None else write.encoded.item.cost
        if size >= _BATCH_BYTES or len(batch) >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
