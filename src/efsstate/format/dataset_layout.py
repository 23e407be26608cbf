"""Build and parse every name of a dataset on the mount.

    <root>/datasets/<name>/parts/<key>-<size>-<digest><suffix>   a part: whole, never replaced
    <root>/datasets/<name>/keys/<key>[.<slot>]        the claim of a key: a link that names the
                                                      staged file and its part
    <root>/datasets/<name>/keys/<key>.gone            the key was removed on purpose
    <root>/datasets/<name>/staging/<process>/.tmp-<key>-<random><suffix>   a part being written;
                                                      with more behind it, what its library left
    <root>/datasets/<name>/snapshots/<snapshot>       a link: a list of parts, or the list's file
    <root>/datasets/<name>/snapshots/.list-<random>   an entry: a long list of parts

The name of a part carries its key, size and digest, so a listing of `parts` is a manifest. Nothing
else lies in `parts`, so that other programs can read the folder as it is.
"""

from __future__ import annotations

import os
import re

from efsstate.format.entry import blake2b
from efsstate.format.layout import TEMPORARY, component, readable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

DATASETS = "datasets"
LIST = ".list-"
GONE = ".gone"
LONGEST_NAME = 160  # bytes; a folder's name is at most 255, with a suffix
LONGEST_SUFFIX = 16
_HEX = frozenset("0123456789abcdef")
# A suffix: points, each with letters and digits after it, of at most 16 characters.
_ENDS = rf"(?=.{{0,{LONGEST_SUFFIX}}}\Z)(?:\.[A-Za-z0-9]+)*"
_SUFFIX = re.compile(_ENDS)
_PART = re.compile(rf"([0-9a-f]{{32}})-(0|[1-9][0-9]{{0,17}})-([0-9a-f]{{32}})({_ENDS})")
# A line for each part. Possessive, so that the search keeps no state of the parts before.
_PARTS = re.compile(
    rf"(?:[0-9a-f]{{32}}-(?:0|[1-9][0-9]{{0,17}})-[0-9a-f]{{32}}"
    rf"(?=.{{0,{LONGEST_SUFFIX}}}\n)(?:\.[A-Za-z0-9]+)*+\n)*+"
)
_CHUNK = 1000  # names that are looked at in one go
_OF_STAGED = re.compile(r"\.tmp-[0-9a-f]{32}-[0-9a-f]{16}")
_STAGED = re.compile(_OF_STAGED.pattern + _ENDS)
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/")


def folder(name: str) -> str:
    """Return the folder of the dataset `name`; raise `ValueError` if it cannot be a name."""
    if not isinstance(name, str):
        raise TypeError(f"dataset name {name!r}: a string is needed")
    parts = name.split("/")
    if (
        not _PLAIN.issuperset(name)
        or "--" in name
        or len(name) > LONGEST_NAME
        or any(not part or part[0] in ".-" or part[-1] == "-" for part in parts)
    ):
        raise ValueError(
            f"dataset name {name!r}: it may have letters, digits and '. _ -', with '/' between"
            " parts; a part may not be empty, begin with '.' or '-', or end with '-', the name may"
            f" not contain '--', and {LONGEST_NAME} characters are the most; choose another name"
        )
    return f"{DATASETS}/{name.replace('/', '--')}"


def dataset_name(base: str) -> str:
    """Return the name of the dataset with the folder `base`."""
    return base.replace("--", "/")


def check_suffix(suffix: str) -> str:
    """Return `suffix`; raise `ValueError` unless it is empty or a point with letters and digits.

    Raise `TypeError` if it is no string.
    """
    if not isinstance(suffix, str):
        raise TypeError(f"suffix: a string is needed, not {suffix!r:.80}")
    if not _SUFFIX.fullmatch(suffix):
        raise ValueError(
            f"suffix {suffix!r}: a point with letters and digits is needed, such as '.parquet' or"
            f" '.tar.gz', of at most {LONGEST_SUFFIX} characters"
        )
    return suffix


def key_digest(key: str | bytes, secret: bytes | None) -> str:
    """Return the 32 hex digits that stand for `key`: keyed if there is a signing key.

    Keys may be personal, so only their digests are on the mount.
    """
    if isinstance(key, str):
        raw = b"s" + key.encode(errors="surrogatepass")
    elif isinstance(key, bytes):
        raw = b"b" + key
    else:
        raise TypeError(f"key {key!r}: a string or bytes are needed")
    return str(blake2b()(raw, digest_size=16, key=secret or b"").hexdigest())


def random_key() -> str:
    """Return the key of a part that was added without one."""
    return os.urandom(16).hex()


def part_name(key: str, size: int, digest: str, suffix: str) -> str:
    """Return the name of a part."""
    return f"{key}-{size}-{digest}{suffix}"


def parse_part(name: str) -> tuple[str, int, str, str] | None:
    """Return (key, size, digest, suffix) of a part's name; None if it is not such a name."""
    match = _PART.fullmatch(name)
    return None if match is None else (match[1], int(match[2]), match[3], match[4])


def is_part(name: str) -> bool:
    """Return True if `name` is that of a part."""
    return _PART.fullmatch(name) is not None


def are_parts(names: Sequence[str]) -> bool:
    """Return True if every one of `names` is that of a part; a thousand are one match."""
    for start in range(0, len(names), _CHUNK):
        chunk = names[start : start + _CHUNK]
        text = "\n".join(chunk) + "\n"
        # A name with a line break in it could look like two parts.
        if text.count("\n") != len(chunk) or _PARTS.fullmatch(text) is None:
            return False
    return True


def is_key(text: str) -> bool:
    """Return True if `text` is the digest of a key, or another 32 hex digits."""
    return len(text) == 32 and _HEX.issuperset(text)


def claim_name(key: str, slot: int) -> str:
    """Return the name of the claim of `key` in `slot`: slot n is used after n dead claims."""
    return f"{key}.{slot}" if slot else key


def gone_name(key: str) -> str:
    """Return the name of the mark that `key` was removed."""
    return key + GONE


def parse_key(name: str) -> tuple[str, int | None] | None:
    """Return (key, slot) of a claim, (key, None) of a mark of removal; None for another name."""
    key, _, rest = name.partition(".")
    if not is_key(key):
        return None
    if f".{rest}" == GONE:
        return key, None
    if not rest and name == key:
        return key, 0
    well = rest.isascii() and rest.isdigit() and rest[0] != "0" and len(rest) < 10
    return (key, int(rest)) if well else None


def staged_name(key: str, suffix: str) -> str:
    """Return a new name for a part of `key` that is being written; it is never used twice."""
    return f"{TEMPORARY}{key}-{os.urandom(8).hex()}{suffix}"


def is_staged(name: str) -> bool:
    """Return True if `name` is that of a part being written."""
    return _STAGED.fullmatch(name) is not None


def is_of_staged(name: str) -> bool:
    """Return True for a part being written, and for files that its library writes beside it."""
    return _OF_STAGED.match(name) is not None


def is_process(name: str) -> bool:
    """Return True if `name` is that of a process's staging folder."""
    return len(name) == 16 and _HEX.issuperset(name)


def snapshot_name(name: str) -> str:
    """Return the file name of the snapshot `name`, which may be any text, such as an event's id."""
    return component(name, "snapshot name")


def name_of_snapshot(safe: str) -> str:
    """Return the name of the snapshot with the file name `safe`, or "" if that does not tell it."""
    name = readable(safe)
    try:
        return name if snapshot_name(name) == safe else ""
    except ValueError:
        return ""


def list_name() -> str:
    """Return a new name for a list of parts."""
    return LIST + os.urandom(8).hex()


def is_list(name: str) -> bool:
    """Return True if `name` is that of a list of parts."""
    rest = name.removeprefix(LIST)
    return name.startswith(LIST) and len(rest) == 16 and _HEX.issuperset(rest)
