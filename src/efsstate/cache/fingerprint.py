"""The fingerprint of a function's code, which its entries carry, to notice other code's results.

    0xd8 0x7f   Python's major and minor version, a byte each   14 bytes of a digest of the code

It stands in the place of a `Cache`'s key, and is none: the first two bytes begin a msgpack value of
16 bytes with an extension type that the codec does not use. Code is known as the running Python has
compiled it, so the fingerprints of two versions are not compared.
"""

from __future__ import annotations

import sys

from efsstate import events
from efsstate.cache.captured import describe_code
from efsstate.cache.key_encoding import encode, new_hash
from efsstate.callables import code_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MARK = b"\xd8\x7f"
_HEAD = MARK + bytes(sys.version_info[:2])
_LENGTH = 14
_MAX_WRAPPED = 50


def of_function(function: Any) -> bytes:
    """Return the fingerprint of `function` and of those that it wraps; b"" if none has code."""
    pieces: list[bytes] = []
    for _ in range(_MAX_WRAPPED):
        code = code_of(function)
        if code is not None:
            encode(describe_code(code, docstring=False), pieces.append)
        function = getattr(function, "__wrapped__", None)
        if function is None:
            break
    return _HEAD + new_hash(b"".join(pieces)).digest()[:_LENGTH] if pieces else b""


def warn_of_other_code(cache: str, own: bytes, stored: bytes) -> None:
    """Log once for each cache that a result was made by other code of this version of Python."""
    if stored.startswith(_HEAD) and stored != own:
        events.log(
            "warning",
            "cache %s: served a result that other code of the function has made; if results may"
            " differ, raise version=, or use version='source'",
            cache,
            once=f"code {cache}",
            kind="cache",
            event="other_code",
            name=cache,
        )
