"""The options of a cached function or a `Cache`: checked once, in plain units, in one object."""

from __future__ import annotations

from functools import partial

from efsstate import units
from efsstate.format import codec as codecs
from efsstate.format import layout
from efsstate.mount.root import absolute

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable
    from typing import Any

    from efsstate.units import Duration, Size


MOST_TAGS = 64  # of one result


class Options:
    """The options as `cached` and `Cache` take them; durations in seconds, sizes in bytes.

    Raises `ValueError` or `TypeError` for a bad one, with its name.
    """

    __slots__ = (
        "cache_if",
        "codec",
        "ignore",
        "io_timeout",
        "keeps_unused",
        "key",
        "lock_timeout",
        "max_bytes",
        "max_entries",
        "memory",
        "name",
        "on_unstored",
        "root",
        "stale",
        "tags",
        "ttl",
        "ttl_of",
        "version",
    )

    def __init__(
        self,
        *,
        name: str | None = None,
        version: object = None,
        ttl: Duration | Callable[[Any], Duration | None] | None = None,
        stale: Duration | None = None,
        key: Callable[..., object] | None = None,
        ignore: str | Iterable[str] = (),
        tags: Callable[..., Iterable[str]] | Iterable[str] | None = None,
        cache_if: Callable[[Any], bool] | None = None,
        codec: Any = "msgpack",
        memory: Size | None = None,
        max_bytes: Size | None = None,
        max_entries: int | None = None,
        root: str | os.PathLike[str] | None = None,
        lock_timeout: Duration | None = None,
        io_timeout: Duration | None = None,
        on_unstored: str = "warn",
    ) -> None:
        self.name, self.version = name, version
        self.ignore = _names(ignore)
        self.key = _function(key, "key")
        self.cache_if = _function(cache_if, "cache_if")
        self.tags = tags if tags is None or callable(tags) else tag_ids(tags)
        self.ttl_of = partial(_life, ttl) if callable(ttl) else None  # of a result, in seconds
        self.ttl = None if callable(ttl) else _seconds(ttl, "ttl")
        self.stale = _seconds(stale, "stale") or 0.0
        self.lock_timeout = _seconds(lock_timeout, "lock_timeout")
        self.io_timeout = _seconds(io_timeout, "io_timeout")
        if self.io_timeout == 0:
            raise ValueError("io_timeout: 0 leaves the mount no time; leave it out to wait")
        self.memory = _size(memory, "memory")
        self.max_bytes = _size(max_bytes, "max_bytes")
        self.max_entries = _count(max_entries, "max_entries")
        codecs.require_codec(codec)
        self.codec = codec
        if root is not None and not isinstance(root, str) and not hasattr(root, "__fspath__"):
            raise TypeError(f"root: expected a path, not {root!r}")
        # A relative root is below the working directory of now, whatever `chdir` comes later.
        self.root = absolute(root)
        if on_unstored not in ("warn", "raise"):
            raise ValueError(f"on_unstored: expected 'warn' or 'raise', not {on_unstored!r}")
        self.on_unstored = on_unstored
        self.keeps_unused = False  # by the sweep, whatever its `unused_for`; an adapter sets it

    def life_of(self, value: Any) -> float | None:
        """Return the seconds for which a result is kept; None if it does not expire."""
        return self.ttl if self.ttl_of is None else self.ttl_of(value)


def _seconds(value: Duration | None, option: str) -> float | None:
    return None if value is None else units.seconds(value, option)


def _life(ttl: Callable[[Any], Duration | None], value: Any) -> float | None:
    return _seconds(ttl(value), "ttl")


def _size(value: Size | None, option: str) -> int | None:
    return None if value is None else units.size(value, option)


def _names(value: str | Iterable[str]) -> frozenset[str]:
    try:
        return frozenset([value] if isinstance(value, str) else value)
    except TypeError:
        raise TypeError(
            f"ignore: expected a parameter's name, or several names, not {value!r}"
        ) from None


def tag_ids(tags: Iterable[str]) -> tuple[str, ...]:
    """Return the ids of tags, sorted; raise `TypeError` for tags that are no strings."""
    names = list(tags) if hasattr(tags, "__iter__") and not isinstance(tags, str) else None
    if names is None or not all(isinstance(tag, str) for tag in names):
        raise TypeError(f"tags: expected a list of strings, not {tags!r:.80}")
    if len(names) > MOST_TAGS:
        raise ValueError(f"tags: {len(names)} are too many; a result has at most {MOST_TAGS}")
    return tuple(sorted({layout.tag_id(tag) for tag in names}))


def _count(value: int | None, option: str) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise ValueError(f"{option}: expected a number of entries, not {value!r}")
    return value


def _function(value: Any, option: str) -> Any:
    if value is not None and not callable(value):
        raise TypeError(f"{option}: expected a function, not {value!r}")
    return value
