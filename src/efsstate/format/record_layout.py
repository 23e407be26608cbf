"""Build and parse every name of the records on the mount.

    <root>/records/<name>.<width>/<window>/<digest>.<n>   revision n of a key's record: a link
    <root>/records/<name>.<width>/<window>/<digest>-<16 hex>   a value that is too long for a link
    <root>/records/<name>.<width>/<window>.<reach>.<signature>   a mark: how long after the window's
                                                          end its records may count, in seconds

`width` is the length of a window in seconds, and `window` its number: its start divided by that.
"""

from __future__ import annotations

from efsstate.format.entry import blake2b
from efsstate.format.layout import DIGEST_BYTES, component, is_component, is_digest, is_temporary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

RECORDS = "records"
_HEX = frozenset("0123456789abcdef")
_DIGITS = 2 * DIGEST_BYTES


def namespace(name: str, width: int) -> str:
    """Return the folder of the records `name` with windows of `width` seconds, below the root."""
    return f"{RECORDS}/{component(name, 'records name')}.{width}"


def parse_namespace(base: str) -> tuple[str, int] | None:
    """Return (component, width) of a folder's name in `records`; None if it is not ours."""
    name, _, width = base.rpartition(".")
    return (name, int(width)) if name and is_component(name) and is_number(width) else None


def is_number(text: str) -> bool:
    """Return True if `text` is a decimal number of ours, without a leading zero."""
    return text.isascii() and text.isdigit() and len(text) < 16 and str(int(text)) == text


def key_digest(key: str) -> str:
    """Return the 48 hex digits that stand for `key`.

    They do not depend on the signing key: after a change of that, records are refused until they
    expire, and not overlooked.
    """
    raw = key.encode(errors="surrogatepass")
    return str(blake2b()(raw, digest_size=DIGEST_BYTES).hexdigest())


def mark_name(window: int, reach: int) -> str:
    """Return the name of the mark of a window, without its signature."""
    return f"{window}.{reach}"


def parse_mark(name: str) -> tuple[int, int, str] | None:
    """Return (window, reach, signature) of a mark's name; None for any other name."""
    window, _, rest = name.partition(".")
    reach, _, signature = rest.partition(".")
    is_signature = len(signature) == 32 and _HEX.issuperset(signature)
    if not (is_signature and is_number(window) and is_number(reach)):
        return None
    return int(window), int(reach), signature


def windows(names: Iterable[str]) -> list[int]:
    """Return the numbers of the windows among `names`, the newest first."""
    return sorted(map(int, filter(is_number, names)), reverse=True)


def revision_name(digest: str, number: int) -> str:
    """Return the name of a revision."""
    return f"{digest}.{number}"


def value_name(digest: str, writer: str) -> str:
    """Return the name of the file with the value of a revision by `writer`."""
    return f"{digest}-{writer}"


def is_revision(name: str) -> bool:
    """Return True if `name` is that of a revision."""
    return (
        name[_DIGITS : _DIGITS + 1] == "."
        and is_digest(name[:_DIGITS])
        and is_number(name[_DIGITS + 1 :])
    )


def is_value(name: str) -> bool:
    """Return True if `name` is that of a value, or of one that is being written."""
    if is_temporary(name):
        return True
    writer = name[_DIGITS + 1 :]
    is_named = name[_DIGITS : _DIGITS + 1] == "-" and is_digest(name[:_DIGITS])
    return is_named and len(writer) == 16 and _HEX.issuperset(writer)
