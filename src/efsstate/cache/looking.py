"""Look at results for people: why there is one or none, and which keys have one."""

from __future__ import annotations

from efsstate.cache import disk
from efsstate.cache.namespace import ENDLESS, FAILURES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from efsstate.cache.tiers import TieredCache


def key_of(cache: TieredCache, digest: str) -> bytes | None:
    """Return the key of an entry that counts. It runs on the current thread; raise nothing."""
    try:
        item = cache.disk().read(digest, cache.codec_name)
    except (*FAILURES, ValueError) as error:
        cache.report_failure(error, "read a value")
        return None
    return None if item is None or cache.remaining(item) <= 0 else disk.key_of(item)


def explain(cache: TieredCache, digest: str) -> str:
    """Return why the mount has a result, or has none. Raise the mount's errors, ValueError."""
    tier = cache.disk()
    item = tier.read(digest, cache.codec_name, exact=True)
    if item is None:
        return f"miss: {tier.explain_miss(digest, cache.codec_name)}"
    remaining = cache.remaining(item)
    if remaining <= 0:
        text = f"miss: expired {-remaining:.0f} s ago"
        if -remaining < cache.stale:
            text += ", but may be given while it is recomputed"
        return text
    cache.take(item)  # it must decode, too
    return f"hit: on the mount, {describe_remaining(remaining)}"


def describe_remaining(seconds: float) -> str:
    """Return for how long a result counts, as text."""
    return "for ever" if seconds == ENDLESS else f"for {seconds:.0f} s more"
