"""Make, read and forget snapshots: lists of parts that never change.

A snapshot is a link that only one writer can make. Its text is the list of parts, if that is short,
else the name of the file with the list. So:

1. List the parts, as the server has them now.
2. Write the list under a new name.
3. Make the link; if it is there already, read the other writer's list and remove one's own.
4. Look for the list once more, and write it again if the sweep took it: its writer may have been
   frozen for a day between 2 and 3.
"""

from __future__ import annotations

import errno

from efsstate import units
from efsstate.errors import CorruptEntryError, SnapshotNotFound
from efsstate.format import codec
from efsstate.format import dataset_layout as layout
from efsstate.mount import clock, links

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from efsstate.datasets.protocol import PartFolders
    from efsstate.units import Duration

_INLINE = "-"  # in place of the list's file: the names follow in the link itself
_MOST = 10_000_000  # parts of a snapshot; more would not fit in the memory of a function
_MAY_LINK = 900  # bytes of a link's text that every file system holds
_SURE_NAME = 800  # of these, bytes of a snapshot's name, with the rest of the text beside it
_SHORTEST = 67  # characters of a part's name, at least
_PIECE = 1000  # names; a list is written in pieces, so that it is in memory once


class Frozen:
    """A snapshot as it lies on the mount: its name, its parts' names, its expiry (seconds)."""

    __slots__ = ("expires", "list", "name", "names")

    def __init__(
        self, name: str, names: tuple[str, ...], *, expires: float = 0.0, list_name: str = _INLINE
    ) -> None:
        self.name, self.names, self.expires, self.list = name, names, expires, list_name

    def text(self) -> str:
        """Return the text of the link."""
        head = f"{self.list} {len(self.names)} {self.expires:.3f} {_quote(self.name)}"
        return "\n".join([head, *self.names]) if self.list == _INLINE else head


def freeze(
    folders: PartFolders, name: str, chosen: Sequence[str] | None, ttl: Duration | None
) -> Frozen:
    """Return the snapshot `name`, made of `chosen` or of all parts if there was none."""
    existing = _find(folders, name)
    if existing is not None:
        return existing
    expires = 0.0 if ttl is None else clock.now() + units.seconds(ttl, "ttl")
    names = tuple(folders.listing() if chosen is None else chosen)
    frozen = Frozen(name, names, expires=expires)
    if len(names) * _SHORTEST > _MAY_LINK or len(frozen.text().encode()) > _MAY_LINK:
        frozen.list = layout.list_name()
        _write_list(folders, frozen)
    try:
        links.create(folders.mount, folders.snapshots, layout.snapshot_name(name), frozen.text())
    except FileExistsError:
        return _yield_to_other(folders, frozen)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        if frozen.list != _INLINE:
            folders.mount.remove(folders.snapshots, frozen.list, quiet=True)
        raise ValueError(
            f"snapshot name {name[:40]!r}…: its {len(_quote(name)):,} bytes are too many; a letter"
            f" or digit of ASCII counts as 1, any other as up to 8, and {_SURE_NAME} always fit"
        ) from None
    if frozen.list != _INLINE:
        _keep_list(folders, frozen)
    return frozen


def _yield_to_other(folders: PartFolders, frozen: Frozen) -> Frozen:
    """Return the snapshot that another writer made, and remove our own list."""
    other = read(folders, frozen.name)
    if frozen.list not in (_INLINE, other.list):  # after a lost reply it is our own
        folders.mount.remove(folders.snapshots, frozen.list, quiet=True)
    return other


def _write_list(folders: PartFolders, frozen: Frozen) -> None:
    folders.mount.write_entry(
        folders.snapshots,
        frozen.list,
        codec.dump_pieces(_pieces(frozen.names)),
        codec="msgpack",
        durable=True,
    )


def _pieces(names: Sequence[str]) -> list[bytes]:
    """Return the text of a list, one name a line, in pieces."""
    pieces = []
    for start in range(0, len(names), _PIECE):
        text = "\n".join(names[start : start + _PIECE])
        pieces.append((f"\n{text}" if start else text).encode())
    return pieces


def _keep_list(folders: PartFolders, frozen: Frozen) -> None:
    # MUT: a-list-that-the-sweep-took-is-written-again
    folders.mount.refresh(folders.snapshots)
    try:
        folders.mount.stat(folders.snapshots, frozen.list)
    except FileNotFoundError:
        _write_list(folders, frozen)


def read(folders: PartFolders, name: str) -> Frozen:
    """Return the snapshot `name`; raise `SnapshotNotFound` if there is none."""
    frozen = _find(folders, name)
    if frozen is None:
        path = folders.mount.path_of(folders.snapshots, layout.snapshot_name(name))
        raise SnapshotNotFound(f"{path}: there is no snapshot {name!r}; freeze() makes one")
    return frozen


def _find(folders: PartFolders, name: str) -> Frozen | None:
    """Return the snapshot `name`, or None; a missing one is asked of the server."""
    return _find_file(folders, layout.snapshot_name(name))


def _find_file(folders: PartFolders, safe: str) -> Frozen | None:
    """Return the snapshot of the link `safe`, or None if the server has no such link.

    Raise `CorruptEntryError` if the link is there and its list is not.
    """
    # A link never changes, so the client's copy will do. That it is missing, or that its list is,
    # the client may remember for up to a minute.
    is_fresh, text_without_list = False, ""
    while True:
        try:
            text = links.read(folders.mount, folders.snapshots, safe)
        except FileNotFoundError:
            if is_fresh:
                return None
        else:
            # `forget` removes the link first, and then the list. A link that stays is damaged.
            # MUT: a-snapshot-without-its-list-is-not-a-forgotten-one
            if text == text_without_list:
                path = folders.mount.path_of(folders.snapshots, safe)
                raise CorruptEntryError(path, "its list of parts is missing; restore or forget it")
            try:
                return _parse(folders, safe, text)
            except FileNotFoundError:
                text_without_list = text if is_fresh else ""
        folders.mount.refresh(folders.snapshots)
        is_fresh = True


def _parse(folders: PartFolders, safe: str, text: str) -> Frozen:
    """Return the snapshot of a link's text; raise `FileNotFoundError` if its list is missing."""
    frozen, count = _parse_head(folders, safe, text)
    if frozen.list != _INLINE:
        frozen.names = _read_list(folders, frozen.list)
    if len(frozen.names) != count or not layout.are_parts(frozen.names):
        path = folders.mount.path_of(folders.snapshots, safe)
        raise CorruptEntryError(path, f"its list does not have {count} parts; forget it")
    return frozen


def _parse_head(folders: PartFolders, safe: str, text: str) -> tuple[Frozen, int]:
    """Return the snapshot of a link's text, with the number of its parts; its list is not read."""
    head, *inline = text.split("\n")
    try:
        list_name, count, expires, quoted = head.split(" ")
        frozen = Frozen(
            _unquote(quoted), tuple(inline), expires=float(expires), list_name=list_name
        )
        number = int(count)
        is_list = list_name == _INLINE or (layout.is_list(list_name) and not inline)
    except ValueError:
        is_list = False
    if not is_list or layout.snapshot_name(frozen.name) != safe:
        path = folders.mount.path_of(folders.snapshots, safe)
        raise CorruptEntryError(path, "its text is not that of a snapshot; forget it")
    return frozen, number


def read_head(folders: PartFolders, safe: str) -> Frozen:
    """Return the snapshot in the file `safe`, without its list if that is long."""
    try:
        text = links.read(folders.mount, folders.snapshots, safe)
    except FileNotFoundError:
        raise SnapshotNotFound(f"{folders.mount.path_of(folders.snapshots, safe)}: gone") from None
    return _parse_head(folders, safe, text)[0]


def _read_list(folders: PartFolders, list_name: str) -> tuple[str, ...]:
    item = folders.mount.read_entry(folders.snapshots, list_name, parted=True)
    text = codec.loads(item.payload)
    if not isinstance(text, bytes) or text.count(b"\n") > _MOST:
        path = folders.mount.path_of(folders.snapshots, list_name)
        raise CorruptEntryError(path, "it is not a list of parts")
    return tuple(text.decode().split("\n")) if text else ()


def snapshot_names(folders: PartFolders) -> list[str]:
    """Return the names of all snapshots, sorted.

    A damaged one is listed by the name that its file name gives back, else by its file name.
    """
    names = []
    for safe in _link_names(folders):
        try:
            names.append(read_head(folders, safe).name)
        except CorruptEntryError:
            names.append(layout.name_of_snapshot(safe) or safe)
        except SnapshotNotFound:
            continue  # forgotten since it was listed
    return sorted(names)


def _link_names(folders: PartFolders) -> list[str]:
    """Return the file names of all snapshots, as the server has them now."""
    return [safe for safe in folders.mount.names(folders.snapshots) if not safe.startswith(".")]


def forget(folders: PartFolders, name: str) -> bool:
    """Remove a snapshot and its list; return True if it was there."""
    safe = layout.snapshot_name(name)
    folders.mount.refresh(folders.snapshots)
    try:
        list_name = links.read(folders.mount, folders.snapshots, safe).split(" ")[0]
    except FileNotFoundError:
        return False
    except CorruptEntryError:
        list_name = _INLINE  # damaged: its list goes with the sweep
    # The link first: a snapshot that has lost its list would look damaged.
    was_there = folders.mount.remove(folders.snapshots, safe)
    if layout.is_list(list_name):
        folders.mount.remove(folders.snapshots, list_name, quiet=True)
    return was_there


def prune(folders: PartFolders, older_than: Duration, *, dry_run: bool) -> list[str]:
    """Remove the parts that no snapshot names and that are old enough; return their names.

    Raise `CorruptEntryError` or `OSError` for a snapshot that cannot be read; no part is removed.
    """
    limit = clock.now() - units.seconds(older_than, "older_than")
    kept: set[str] = set()
    for safe in _link_names(folders):
        # A snapshot that cannot be read may name any part, so its error ends the call here.
        # MUT: a-prune-reads-every-snapshot-that-is-there
        frozen = _find_file(folders, safe)
        if frozen is not None:  # else it was forgotten since it was listed
            kept.update(frozen.names)
    pruned = []
    for name, status in folders.mount.statuses(folders.parts):
        fields = layout.parse_part(name)
        if fields is None or name in kept:
            continue
        if status.st_mtime < limit:
            pruned.append(name)
            if not dry_run:
                folders.remove(fields[0], name)
    return sorted(pruned)


def _quote(text: str) -> str:
    return "".join(c if c.isalnum() and c.isascii() else f"%{ord(c):x};" for c in text)


def _unquote(text: str) -> str:
    out = []
    for piece in text.split("%"):
        number, mark, rest = piece.partition(";")
        out.append(chr(int(number, 16)) + rest if mark else piece)
    return "".join(out)
