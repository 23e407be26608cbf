"""The counters of a cache, as users see them; imported when asked for, as it needs `typing`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from efsstate.cache.tiers import TieredCache


class CacheInfo(NamedTuple):
    """Count calls of this process by their outcome, and bytes: as `functools` does, and more.

    hits: results that were there; the sum of `memory`, `mount` and `stale` (expired, and served
        while another caller computes).
    misses: results that were computed.
    maxsize, currsize: the most bytes in memory, and those there now.
    puts: results that were stored on the mount.
    waits: calls that waited for another's computation.
    errors: failures of the mount, without which the call went on.
    damaged: entries that were damaged, and computed again.
    unstored: results that could not be stored, and were only returned.
    """

    hits: int
    misses: int
    maxsize: int
    currsize: int
    memory: int
    mount: int
    stale: int
    puts: int
    waits: int
    errors: int
    damaged: int
    unstored: int

    def _repr_html_(self) -> str:
        from efsstate.notebook import table

        return table("CacheInfo", self._asdict().items())


def info_of(results: TieredCache) -> CacheInfo:
    """Return the counters of a cache."""
    counts, memory = results.counts, results.memory
    return CacheInfo(
        hits=counts.memory + counts.mount + counts.stale,
        misses=counts.computed,
        maxsize=0 if memory.limit == 0 else memory.maxsize,
        currsize=memory.size,
        memory=counts.memory,
        mount=counts.mount,
        stale=counts.stale,
        puts=counts.puts,
        waits=counts.waits,
        errors=counts.errors,
        damaged=counts.damaged,
        unstored=counts.unstored,
    )
