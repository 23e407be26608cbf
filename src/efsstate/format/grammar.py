"""Tell the package's own names from all others, folder by folder, for removals.

A *level* describes the names in a folder of ours. It is a function of a name, and of whether it is
a folder, that returns the level below (`nothing` for a file), or None if the name is not ours.
docs/format.md has the same as text.
"""

from __future__ import annotations

from efsstate.format import layout, record_layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Level = Callable[[str, bool], "Level" | None]

_HEX = "0123456789abcdef"
_SIGNATURE = 32  # hexadecimal digits


def nothing(_name: str, _is_folder: bool) -> Level | None:
    """Return None: a file holds no names."""
    return None


def anything(_name: str, is_folder: bool) -> Level | None:
    """Return the level of a folder that we filled with copies of a user's own names."""
    return anything if is_folder else nothing


def namespace(name: str, is_folder: bool) -> Level | None:
    """Return the level of `name` in `cache/<namespace>`."""
    if is_folder:
        return entries if len(name) == 1 and name in _HEX else None
    is_ours = name in (layout.POLICY, layout.LOCK) or layout.is_cleared(name)
    return nothing if is_ours or layout.is_temporary(name) else None


def entries(name: str, is_folder: bool) -> Level | None:
    """Return the level of `name` in `cache/<namespace>/<digit>`."""
    is_ours = name == layout.LOCK or layout.is_digest(name) or layout.is_temporary(name)
    return nothing if is_ours and not is_folder else None


def checkpoint(name: str, is_folder: bool) -> Level | None:
    """Return the level of `name` in `checkpoints/<name>`."""
    if is_folder:
        return shard if _is_shard(name) else None
    is_ours = name == layout.SHARDS or _is_shard_mark(name)
    return nothing if is_ours else shard(name, is_folder)


def shard(name: str, is_folder: bool) -> Level | None:
    """Return the level of `name` in `checkpoints/<name>/s<index>`."""
    is_ours = name in (layout.LOCK, layout.REMOVED) or layout.parse_claim(name) is not None
    return nothing if not is_folder and (is_ours or layout.is_temporary(name)) else None


def record_window(name: str, is_folder: bool) -> Level | None:
    """Return the level of `name` in `records/<name>/<window>`."""
    is_ours = record_layout.is_revision(name) or record_layout.is_value(name)
    return nothing if is_ours and not is_folder else None


def staging(name: str, is_folder: bool) -> Level | None:
    """Return the level of `name` in `models/<name>/versions/.tmp-<content>`."""
    return anything if is_folder and name in ("parts", "files") else None


def incoming(name: str, is_folder: bool) -> Level | None:
    """Return the level of `name` in `shared-data/.incoming-<digest>`."""
    if is_folder:
        return anything if name == "files" else None
    is_ours = name in (layout.LOCK, "PROGRESS") or layout.is_temporary(name)
    return nothing if is_ours else None


def listed(paths: Iterable[str]) -> Level:
    """Return the level of a folder that holds the files `paths`, given relative to it.

    A path that ends in "/" is an empty folder's.
    """
    tree: dict[str, dict[str, object]] = {}
    for path in paths:
        here = tree
        for part in path.split("/"):
            here = here.setdefault(part, {})  # type: ignore[assignment]
    return _level_of(tree)


def _level_of(tree: dict[str, dict[str, object]]) -> Level:
    def level(name: str, is_folder: bool) -> Level | None:
        inside = tree.get(name)
        if inside is None or is_folder != bool(inside):
            return None
        return _level_of(inside) if is_folder else nothing  # type: ignore[arg-type]

    return level


def _is_shard(name: str) -> bool:
    kind, index, rest = layout.parse_shard(name) or ("", 0, "")
    return kind == "s" and name == f"s{index}" and not rest


def _is_shard_mark(name: str) -> bool:
    kind, index, signature = layout.parse_shard(name) or ("", 0, "")
    is_signed = len(signature) == _SIGNATURE and all(digit in _HEX for digit in signature)
    return kind == "d" and is_signed and name == f"{layout.shard_mark(index)}.{signature}"
