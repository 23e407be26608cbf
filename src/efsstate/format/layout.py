"""Build and parse every name on the disk: no other module knows how a path is made.

    <root>/cache/<namespace>/
        <1 hex>/<digest>               an entry
        <1 hex>/LOCK                   one byte for each entry that is being computed
        POLICY                         the limits that the sweep goes by
        LOCK                           held to change POLICY
        .tmp-<digest><random>          the result of a computation that is under way
        CLEARED.<number>.<signature>   the clear stamp: every clear writes a higher one
        CLEARED.<number>.<tag>.<signature>   the same for the entries with a tag
    <root>/checkpoints/<name>/
        e<epoch>                       a claim: a symbolic link that holds its claimant
        b<epoch>                       its base: a symbolic link that holds the save it starts from
        <epoch>-<number>               a save
        LOCK                           held to claim
        s<index>/...                   a shard, with the same names again
        d<index>.<signature>           a mark that the shard is finished
        SHARDS                         the number of shards
    <root>/models/<name>/versions/
        <id>/...                       its files as published, and .efsstate-manifest
        CURRENT                        the active version: a symbolic link that holds its manifest
                                       or id, and the id before
        @<label>                       the same, of the version that is active under the label
        CURRENT%, @<label>%            a canary beside it: its manifest or id, and its share
        .tmp-<content>/...             being published: parts/ (partly copied), files/ (whole)
        .tmp-<content>.lock            held to publish it
        .tmp-gone-<id>-<random>        a version being removed, or damaged and being replaced
        .tmp-gone--<content>-<random>  files/ of a killed publication, being removed
    <root>/shared-data/...             the users' own
    <root>/shared-data/.incoming-<digest>/...  a copy from S3: LOCK, PROGRESS, files/
    <root>/.efsstate/sweep/<kind>/
        <folder>                       when the folder was swept; also its sweeper's lock
    <root>/.efsstate/users/<model>/<digest>  a function that uses a version: a symbolic link
    .../.tmp-<random>                  being written; an abandoned one goes with the sweep

A user's name becomes one path component, by `component`: letters, digits, `.`, `_` and `-` stay,
every other byte is %XX, and a name that is long, or has capitals (two names may differ in nothing
else, and some file systems fold them), ends in `~` and a digest of the whole. Different names never
share a component, and none leaves its folder.
"""

from __future__ import annotations

from operator import methodcaller

from efsstate.format.entry import blake2b

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

CACHE, CHECKPOINTS, MODELS, SHARED = "cache", "checkpoints", "models", "shared-data"
POLICY, CLEARED, CURRENT, VERSIONS, LOCK = "POLICY", "CLEARED", "CURRENT", "versions", "LOCK"
MANIFEST = ".efsstate-manifest"  # beside the users' files: a name that theirs are unlikely to have
SHARDS = "SHARDS"
REMOVED = "REMOVED"
TEMPORARY = ".tmp-"
INCOMING = ".incoming-"
SWEEPS, ROUND = ".efsstate/sweep", "ROUND"
USERS = ".efsstate/users"
LOCK_SUFFIX = ".lock"
DIGEST_BYTES = 24

_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
_COMPONENT = frozenset([*map(chr, _PLAIN), "%", "~"])
_MODEL = _PLAIN | {ord("/")}
_LONGEST = 160  # leaves room below NAME_MAX (255) for the digest and for a suffix
_HEX = frozenset("0123456789abcdef")


def component(name: str, what: str = "name") -> str:
    """Return one path component for the user's `name`.

    Raise `ValueError` if it is empty, has a NUL, or is not valid Unicode (a lone surrogate).
    """
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
    """Return True if `component` can have made `name`."""
    return name[0] not in ".~" and len(name) <= _LONGEST + 33 and all(c in _COMPONENT for c in name)


def readable(safe: str) -> str:
    """Return the name that `component` was given, as far as the component tells: cut if long."""
    text = safe.partition("~")[0].encode(errors="surrogateescape")  # another program's may be any
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
    """Return the component of the model `name`: letters, digits and `._-` stay, `/` is `--`.

    Raise `ValueError` for any other name.
    """
    if not isinstance(name, str):
        raise TypeError(f"model name {name!r} can't be used: a string is needed")
    raw = name.encode(errors="replace")
    bounded = f"/{name}/"
    is_bad = not _MODEL.issuperset(raw) or "--" in name or len(raw) > _LONGEST
    if is_bad or "//" in bounded or "/." in bounded or "/-" in bounded or "-/" in bounded:
        raise ValueError(
            f"model name {name!r} can't be used; use letters, digits and '. _ -', with '/' between"
            " parts, none of them empty, beginning with '.' or '-', or ending with '-'; not '--',"
            f" which stands for '/' on the disk, and at most {_LONGEST} characters"
        )
    return name.replace("/", "--")


def model_name(safe: str) -> str:
    """Return the model's name, from its folder's."""
    return safe.replace("--", "/")


def model_folder(name: str) -> str:
    """Return the folder of the model `name`, below the root. Raise `ValueError` for a bad name."""
    return f"{MODELS}/{model_component(name)}"


def version_folder(model: str, version: str) -> str:
    """Return the folder of a version of the model in the folder `model`.

    `version` is a checked id, or "" for the versions' parent.
    """
    return f"{model}/{VERSIONS}/{version}".rstrip("/")


def pointer_name(label: str | None) -> str:
    """Return the link that tells which version is served, by default or under `label`."""
    return CURRENT if label is None else f"@{label}"


def users_folder(model: str) -> str:
    """Return the folder of the notes of who uses a version of the model in the folder `model`."""
    return f"{USERS}/{model.rpartition('/')[2]}"


def canary_name(label: str | None) -> str:
    """Return the link that tells of the canary beside `pointer_name`."""
    return f"{pointer_name(label)}%"


def labels(names: Iterable[str]) -> list[str]:
    """Return the labels among the names in a model's folder `versions`, sorted."""
    return sorted([name[1:] for name in names if name[0] == "@" and name[-1] != "%"])


def is_pointer(name: str) -> bool:
    """Return True if `name` is a link that tells which version is served."""
    return name.removesuffix("%") == CURRENT or name[0] == "@"


def staging_folder(model: str, content: str) -> str:
    """Return the folder in which a version with this content is put together."""
    return f"{model}/{VERSIONS}/{TEMPORARY}{content[:32]}"


def entry_folder(namespace: str, digest: str) -> str:
    """Return the folder of an entry, below the root; `namespace` is a component already."""
    return f"{CACHE}/{namespace}/{digest[0]}"


def entry_folders(namespace: str) -> list[str]:
    """Return all folders of the namespace's entries, below the root."""
    return [f"{CACHE}/{namespace}/{digit}" for digit in "0123456789abcdef"]


def drafts(digest: str, names: Iterable[str]) -> list[str]:
    """Return the temporaries of computations of `digest` among `names`, in the namespace's folder.

    Removing one keeps the result of its computation from being stored.
    """
    return list(filter(methodcaller("startswith", TEMPORARY + digest), names))


def cleared_mark(clear_stamp: int, tag: str = "") -> str:
    """Return the name of the mark of a clear stamp, of a tag (`tag_id`) or of all entries ("").

    It is without its signature.
    """
    return f"{CLEARED}.{clear_stamp}.{tag}" if tag else f"{CLEARED}.{clear_stamp}"


def tag_id(tag: str) -> str:
    """Return the 16 hex digits by which names and entries refer to `tag`."""
    return str(blake2b()(tag.encode(errors="surrogatepass"), digest_size=8).hexdigest())


def is_cleared(name: str) -> bool:
    """Return True if `name` is a mark of a clear stamp, of a tag or of all, in any signature."""
    kind, _, rest = name.partition(".")
    number, _, signature = rest.partition(".")
    tag, _, of_tag = signature.partition(".")
    if of_tag and len(tag) == 16 and _HEX.issuperset(tag):
        signature = of_tag
    is_number = (
        kind == CLEARED
        and len(number) <= 19
        and number.isascii()
        and number.isdigit()
        and str(int(number)) == number
    )
    return is_number and len(signature) == 32 and _HEX.issuperset(signature)


def cleared_marks(names: Iterable[str]) -> list[tuple[str, str, int]]:
    """Return the marks of clear stamps among `names`: (name, tag or "" for all entries, number)."""
    marks = []
    for name in names:
        if name.startswith(CLEARED) and is_cleared(name):
            _, number, *tag, _ = name.split(".")
            marks.append((name, tag[0] if tag else "", int(number)))
    return marks


def checkpoint_folder(name: str) -> str:
    """Return the folder of the checkpoint `name`, below the root."""
    return f"{CHECKPOINTS}/{component(name, 'checkpoint name')}"


def shard_folder(name: str, index: int) -> str:
    """Return the folder of shard `index` of the checkpoint `name`, below the root."""
    return f"{checkpoint_folder(name)}/s{index}"


def shard_mark(index: int) -> str:
    """Return the name of the mark that shard `index` is finished, without its signature.

    It lies beside the shards' folders.
    """
    return f"d{index}"


def parse_shard(name: str) -> tuple[str, int, str] | None:
    """Return `("s", index, "")` for a shard's folder, `("d", index, signature)` for its mark.

    Return None for any other name.
    """
    index, _, signature = name[1:].partition(".")
    if name[:1] not in ("s", "d") or not index.isascii() or not index.isdigit():
        return None
    return name[0], int(index), signature


def epoch_name(epoch: int) -> str:
    """Return the name of the link that makes `epoch`, and holds its claimant."""
    return f"e{epoch}"


def base_name(epoch: int) -> str:
    """Return the name of the link that decides which save `epoch` starts from."""
    return f"b{epoch}"


def generation_name(epoch: int, number: int) -> str:
    """Return the name of the save `number` (from 1) under `epoch`."""
    return f"{epoch}-{number}"


def parse_claim(name: str) -> tuple[str, int, int] | None:
    """Return `("e", epoch, 0)`, `("b", epoch, 0)` or `("g", epoch, number)` for a claim's name.

    The last is a save. Return None for any other name.
    """
    kind, first, second = (
        (name[0], name[1:], "0") if name[:1] in ("e", "b") else ("g", *name.partition("-")[::2])
    )
    if len(name) > 40:  # two numbers of 18 digits: ours have no more, nor would the next ones fit
        return None
    try:
        epoch, number = int(first), int(second)
    except ValueError:
        return None
    canonical = generation_name(epoch, number) if kind == "g" else f"{kind}{epoch}"
    is_ours = canonical == name and 0 < epoch < 10**18 and (kind != "g" or 0 < number < 10**18)
    return (kind, epoch, number) if is_ours else None


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


def removal_order(names: Iterable[str]) -> list[str]:
    """Return the names in one folder in the order in which a removal of the folder takes them.

    A removal may be killed after any name, and other processes then use what is left:

    - The lock file goes last, but for REMOVED: without it, another process may begin in the folder.
    - Of a namespace, the entries go first, then the marks of clears, then POLICY. An entry without
      the mark of its clear would count again.
    - Of a model's version, the manifest goes last: only the manifest lists the version's files.
    - Of a checkpoint, the older saves go first, then the links of claims, the latest claim first
      and each base before its epoch, then the newest save. So a load finds the newest save, or
      none. REMOVED goes last: without it, what is left would count.
    """
    names = list(names)
    newest = max(parse_claims(names)["g"], default=(0, 0)) if REMOVED in names else (0, 0)

    def rank(name: str) -> tuple[int, int, int]:
        # MUT: a-manifest-outlasts-its-files
        if name == MANIFEST:
            return 4, 0, 0
        if name in (LOCK, REMOVED):
            return (4 if name == LOCK else 5), 0, 0
        # MUT: a-clear-outlasts-its-entries
        if name == POLICY or is_cleared(name):
            return (3 if name == POLICY else 2), 0, 0
        claim = parse_claim(name) if newest[0] else None
        if claim is None:
            return 0, 0, 0
        kind, epoch, number = claim
        if kind == "g":
            return (3 if (epoch, number) == newest else 1), epoch, number
        return 2, -epoch, kind == "e"

    # MUT: a-killed-removal-leaves-nothing-that-counts
    return sorted(names, key=rank)


def sweep_marks(kind: str) -> str:
    """Return the folder of the marks of sweeps of one `kind`, i.e. with equal options."""
    return f"{SWEEPS}/{blake2b()(kind.encode(), digest_size=8).hexdigest()}"


def is_sweep_kind(name: str) -> bool:
    """Return True if `name` can be that of the folder of marks of one kind of sweep."""
    return len(name) == 16 and _HEX.issuperset(name)


def sweep_mark(folder: str) -> str:
    """Return the name of the mark of `folder`, in `sweep_marks`: one for any folder's name."""
    plain = folder.replace("%", "%25").replace("/", ",")
    raw = plain.encode(errors="surrogateescape")
    if len(raw) <= _LONGEST:
        return plain
    return f"~{blake2b()(raw, digest_size=16).hexdigest()}"


def is_digest(name: str) -> bool:
    """Return True if `name` is an entry's."""
    return len(name) == 2 * DIGEST_BYTES and _HEX.issuperset(name)


def is_temporary(name: str) -> bool:
    """Return True if `name` is that of a file being written, or of a draft: 24 or 64 hex digits.

    A user's file may begin with `.tmp-` too, and is not ours to remove.
    """
    random = name[len(TEMPORARY) :]
    is_random = len(random) in (24, 2 * DIGEST_BYTES + 16) and _HEX.issuperset(random)
    return is_random and name.startswith(TEMPORARY)


def is_being_published(name: str) -> bool:
    """Return True if `name`, beside a model's versions, is a publication's or of one put aside."""
    content = name[len(TEMPORARY) :].removesuffix(LOCK_SUFFIX)
    is_staging = len(content) == 32 and _HEX.issuperset(content)
    is_gone = content.startswith("gone-") and _HEX.issuperset(content[-8:]) and content[-9] == "-"
    return name.startswith(TEMPORARY) and (is_staging or is_gone or is_temporary(name))


def incoming_folder(digest: str) -> str:
    """Return the folder of a copy from S3 that is under way, below the root."""
    return f"{SHARED}/{INCOMING}{digest}"


def is_incoming(name: str) -> bool:
    """Return True if `name`, in `shared-data`, is the folder of a copy that is under way."""
    digest = name.removeprefix(INCOMING)
    return name.startswith(INCOMING) and len(digest) == 24 and _HEX.issuperset(digest)


def is_foreign_nfs(name: str) -> bool:
    """Return True if `name` is the NFS client's own: a removed file that a process has open."""
    return name.startswith(".nfs")
