"""Every name on the disk, built and parsed: nothing else knows how a path is made.

    <root>/cache/<namespace>/<1 hex>/<digest>             an entry
    <root>/cache/<namespace>/<1 hex>/LOCK                 one byte for each entry that is computed now
    <root>/cache/<namespace>/POLICY                       what the sweep may judge by
    <root>/cache/<namespace>/LOCK                         who may change POLICY
    <root>/cache/<namespace>/CLEARED.<number>.<signature> the generation: every clear makes a higher one
    <root>/checkpoints/<name>/e<epoch>                    a claim: a symbolic link that holds who made it
    <root>/checkpoints/<name>/b<epoch>                    its base: a symbolic link that holds what it starts from
    <root>/checkpoints/<name>/<epoch>-<number>            a generation: one save
    <root>/checkpoints/<name>/LOCK                        who may try to claim
    <root>/checkpoints/<name>/s<index>/...                a shard, the same again
    <root>/checkpoints/<name>/d<index>.<signature>        that the shard is finished
    <root>/checkpoints/<name>/SHARDS                      how many there are
    <root>/models/<name>/versions/<id>/...                its files as published, and .efsstate-manifest
    <root>/models/<name>/versions/CURRENT                 the active version: a symbolic link that holds its manifest or id
    <root>/models/<name>/versions/.tmp-<content>/...      being published: parts/ (files half copied), files/ (whole)
    <root>/models/<name>/versions/.tmp-<content>.lock     who publishes it
    <root>/models/<name>/versions/.tmp-gone-<id>-<random> a version that is being removed, or was damaged and is replaced
    <root>/shared-data/...                                the users' own
    <root>/.efsstate/sweep/<kind>/<folder>                which folder was swept when; also its sweeper's lock
    .../.tmp-<random>                                     being written; an abandoned one goes with the sweep

A user's name becomes one path component, by `component`: letters, digits, `.`, `_` and `-` stay, every other byte is
%XX, and a name that is long, or has capitals (two names may differ in nothing else, and some file systems fold them),
ends in `~` and a digest of the whole. Different names never share a component, and none leaves its folder.
"""

from __future__ import annotations

from efsstate.format.entry import blake2b

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

CACHE, CHECKPOINTS, MODELS, SHARED = "cache", "checkpoints", "models", "shared-data"
POLICY, CLEARED, CURRENT, VERSIONS, LOCK = "POLICY", "CLEARED", "CURRENT", "versions", "LOCK"
MANIFEST = ".efsstate-manifest"  # beside the users' files, so a name of theirs must not be likely to meet it
SHARDS = "SHARDS"
TEMPORARY = ".tmp-"
SWEEPS, ROUND = ".efsstate/sweep", "ROUND"
LOCK_SUFFIX = ".lock"
DIGEST_BYTES = 24

_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
_COMPONENT = frozenset([*map(chr, _PLAIN), "%", "~"])
_MODEL = _PLAIN | {ord("/")}
_LONGEST = 160  # leaves room below NAME_MAX (255) for the digest and for a suffix
_HEX = frozenset("0123456789abcdef")


def component(name: str, what: str = "name") -> str:
    """One path component for the user's `name`; `ValueError` for an empty name or one with a NUL or half a surrogate."""
    if not isinstance(name, str):
        raise TypeError(f"{what}: a string is needed, not {name!r}")
    if not name or "\0" in name:
        raise ValueError(f"{what}: {name!r} can't be used: it is empty or has a NUL character")
    try:
        raw = name.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what}: {name!r} can't be used: it is not valid Unicode") from None
    safe = "".join([chr(c) if c in _PLAIN else f"%{c:02x}" for c in raw])
    if safe[0] == ".":  # "..", ".nfs…" and our own temporaries stay out of reach
        safe = "%2e" + safe[1:]
    if len(safe) > _LONGEST or name != name.lower():
        safe = f"{safe[:_LONGEST]}~{blake2b()(raw, digest_size=16).hexdigest()}"
    return safe


def is_component(name: str) -> bool:
    """Whether `component` can have made `name`."""
    return name[0] not in ".~" and len(name) <= _LONGEST + 33 and all(c in _COMPONENT for c in name)


def readable(safe: str) -> str:
    """What `component` was given, as nearly as the component alone can tell (a long name comes back cut)."""
    text = safe.partition("~")[0].encode(
        errors="surrogateescape"
    )  # a stranger's name may be anything
    out, i = bytearray(), 0
    while i < len(text):
        if text[i] == 0x25 and len(text) >= i + 3:
            try:
                out.append(int(text[i + 1 : i + 3], 16))
            except ValueError:
                out.append(text[i])
            else:
                i += 3
                continue
        else:
            out.append(text[i])
        i += 1
    return out.decode(errors="replace")


def model_component(name: str) -> str:
    """The folder of the model `name`: letters, digits and `._-` as they are, `/` as `--`; else `ValueError`."""
    if not isinstance(name, str):
        raise TypeError(f"model name {name!r} can't be used: a string is needed")
    raw = name.encode(errors="replace")
    parts = name.split("/")
    bad = not all(c in _MODEL for c in raw) or "--" in name or len(raw) > _LONGEST
    if bad or any(not part or part[0] in ".-" or part[-1] == "-" for part in parts):
        raise ValueError(
            f"model name {name!r} can't be used: letters, digits and '. _ -', with '/' between parts; no part may be"
            f" empty, begin with '.' or '-', or end with '-', '--' is how '/' is stored, and {_LONGEST} characters are"
            " the most"
        )
    return name.replace("/", "--")


def model_name(safe: str) -> str:
    """The model's name from its folder's."""
    return safe.replace("--", "/")


def model_folder(name: str) -> str:
    """The folder of the model `name`, below the root; `ValueError` for a name that can't be one."""
    return f"{MODELS}/{model_component(name)}"


def version_folder(model: str, version: str) -> str:
    """The folder of a version of the model in the folder `model`; `version` is a checked id, or "" for their parent."""
    return f"{model}/{VERSIONS}/{version}".rstrip("/")


def staging_folder(model: str, content: str) -> str:
    """Where a version with this content is put together."""
    return f"{model}/{VERSIONS}/{TEMPORARY}{content[:32]}"


def entry_folder(namespace: str, digest: str) -> str:
    """The folder of an entry, below the root; `namespace` is a component already."""
    return f"{CACHE}/{namespace}/{digest[0]}"


def entry_folders(namespace: str) -> list[str]:
    """All folders that hold entries of the namespace, below the root."""
    return [f"{CACHE}/{namespace}/{digit}" for digit in "0123456789abcdef"]


def draft(digest: str) -> str:
    """The temporary of who computes an entry, from the beginning on: who removes it keeps what is computed from being kept."""
    return TEMPORARY + digest


def cleared_mark(generation: int) -> str:
    """What the mark of this generation is called, without its signature."""
    return f"{CLEARED}.{generation}"


def is_cleared(name: str) -> bool:
    """Whether `name` is a mark of a generation, whoever signed it."""
    kind, _, rest = name.partition(".")
    number, _, signature = rest.partition(".")
    well = (
        kind == CLEARED
        and len(number) <= 19
        and number.isascii()
        and number.isdigit()
        and str(int(number)) == number
    )
    return well and len(signature) == 32 and _HEX.issuperset(signature)


def cleared_marks(names: Iterable[str]) -> list[tuple[str, int]]:
    """The marks of generations among the `names`, each with its number."""
    return [(name, int(name.split(".")[1])) for name in names if is_cleared(name)]


def checkpoint_folder(name: str) -> str:
    """The folder of the checkpoint `name`, below the root."""
    return f"{CHECKPOINTS}/{component(name, 'checkpoint name')}"


def shard_folder(name: str, index: int) -> str:
    """The folder of shard `index` of the checkpoint `name`, below the root."""
    return f"{checkpoint_folder(name)}/s{index}"


def shard_mark(index: int) -> str:
    """What the mark that shard `index` is finished is called, without its signature; it lies beside the shards' folders."""
    return f"d{index}"


def parse_shard(name: str) -> tuple[str, int, str] | None:
    """`("s", index, "")` for a shard's folder, `("d", index, signature)` for its mark; else None."""
    index, _, signature = name[1:].partition(".")
    if name[:1] not in ("s", "d") or not index.isascii() or not index.isdigit():
        return None
    return name[0], int(index), signature


def epoch_name(epoch: int) -> str:
    """The symbolic link that makes `epoch`; it holds who claimed it."""
    return f"e{epoch}"


def base_name(epoch: int) -> str:
    """The symbolic link that decides which generation `epoch` starts from."""
    return f"b{epoch}"


def generation_name(epoch: int, number: int) -> str:
    """The save `number` (from 1) under `epoch`."""
    return f"{epoch}-{number}"


def parse_claim(name: str) -> tuple[str, int, int] | None:
    """`("e", epoch, 0)`, `("b", epoch, 0)` or `("g", epoch, number)` for a name in a checkpoint's folder; else None."""
    kind, first, second = (
        (name[0], name[1:], "0") if name[:1] in ("e", "b") else ("g", *name.partition("-")[::2])
    )
    if (
        len(name) > 40
    ):  # two numbers of 18 digits: more are not ours, and would not fit with those that follow them
        return None
    try:
        found = kind, int(first), int(second)
    except ValueError:
        return None
    made = generation_name(*found[1:]) if kind == "g" else f"{kind}{found[1]}"
    return (
        found
        if made == name and 0 < found[1] < 10**18 and (kind != "g" or 0 < found[2] < 10**18)
        else None
    )


def parse_claims(names: Iterable[str]) -> dict[str, set[Any]]:
    """Return the epochs `"e"`, the bases `"b"` and the saves `"g"` among `names`, by kind.

    It reads each name as `parse_claim` does, in one call for a whole listing.
    """
    parsed: dict[str, set[Any]] = {"e": set(), "b": set(), "g": set()}
    for name in names:
        kind = name[:1]
        number, dash, second = name.partition("-")
        if kind in ("e", "b"):
            if dash:
                continue
            number = name[1:]
        elif not dash or second[:1] in ("", "0") or not second.isdigit() or len(second) > 18:
            continue
        # A number is ASCII, without a leading zero, and below 10**18: no two names are one number.
        if number[:1] in ("", "0") or not number.isdigit() or len(number) > 18:
            continue
        if not name.isascii():
            continue
        if dash:
            parsed["g"].add((int(number), int(second)))
        else:
            parsed[kind].add(int(number))
    return parsed


def sweep_marks(kind: str) -> str:
    """The folder of the marks of sweeps that were asked for the same (`kind` tells what), below the root."""
    return f"{SWEEPS}/{blake2b()(kind.encode(), digest_size=8).hexdigest()}"


def sweep_mark(folder: str) -> str:
    """The mark of the folder `folder`, in `sweep_marks`: a name for each, whatever names strangers gave their folders."""
    plain = folder.replace("%", "%25").replace("/", ",")
    raw = plain.encode(errors="surrogateescape")
    if len(raw) <= _LONGEST:
        return plain

    return f"~{blake2b()(raw, digest_size=16).hexdigest()}"


def is_digest(name: str) -> bool:
    """Whether `name` is an entry's."""
    return len(name) == 2 * DIGEST_BYTES and _HEX.issuperset(name)


def is_temporary(name: str) -> bool:
    """Return True if `name` is that of a file being written, or of a draft: 24 or 48 hex digits.

    A user's file may begin with `.tmp-` too, and is not ours to remove.
    """
    random = name[len(TEMPORARY) :]
    is_random = len(random) in (24, 2 * DIGEST_BYTES) and _HEX.issuperset(random)
    return is_random and name.startswith(TEMPORARY)


def is_being_published(name: str) -> bool:
    """Return True if `name`, beside a model's versions, is a publication's or of one put aside."""
    content = name[len(TEMPORARY) :].removesuffix(LOCK_SUFFIX)
    is_staging = len(content) == 32 and _HEX.issuperset(content)
    is_gone = content.startswith("gone-") and _HEX.issuperset(content[-8:]) and content[-9] == "-"
    return name.startswith(TEMPORARY) and (is_staging or is_gone or is_temporary(name))


def is_foreign_nfs(name: str) -> bool:
    """Whether `name` is the NFS client's own (a removed file that somebody still has open)."""
    return name.startswith(".nfs")
