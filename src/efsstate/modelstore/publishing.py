"""How a file or folder becomes a version: put together in a staging folder named by its content, then renamed, whole."""

from __future__ import annotations

import errno
import os
import stat
import time

from efsstate import deadline, events
from efsstate.errors import ClaimedError, EfsStateError
from efsstate.eviction import removal
from efsstate.format import entry, grammar, layout
from efsstate.modelstore import checking, reader
from efsstate.modelstore import manifest as manifests
from efsstate.modelstore.manifest import Manifest
from efsstate.mount import lock
from efsstate.mount.drafts import PartialFile
from efsstate.mount.files import Mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Progress = Callable[[int, int], object]

_MOVING = "{}: can't be published: it changes meanwhile: publish it again when it is still"
_PARTS, _FILES = "parts", "files"


class Source:
    """A file or folder to be published: `files` maps its paths to their stats.

    It may be the folder of the model itself, which somebody put there by hand: our versions are none of its own.
    """

    def __init__(self, path: str | os.PathLike[str], mount: Mount, model: str) -> None:
        given = os.path.abspath(os.fspath(path))
        self._is_store = os.path.realpath(given) == os.path.realpath(
            mount.path_of(model)
        ) and manifests.ours(mount, model)
        if self._is_store:
            _demand_only_ours(mount, model)
        found = os.stat(given)
        self.path, self.single = given, stat.S_ISREG(found.st_mode)
        self.files: dict[str, os.stat_result] = {}
        self.folders: list[str] = []
        if self.single:
            above, name = os.path.split(os.path.realpath(given))
            self.mount, self._named = Mount(above), {os.path.basename(given): name}
            self._take(os.path.basename(given), found)
        elif stat.S_ISDIR(found.st_mode):
            self.mount, self._named = Mount(given), {}
            self._walk("")
            if not self.files:
                raise EfsStateError(f"{given}: can't be published: no file is in it")
        else:
            raise EfsStateError(f"{given}: can't be published: neither a file nor a folder")

    def _walk(self, folder: str) -> None:
        empty = True
        for found in self.mount.scan(folder):
            name = f"{folder}/{found.name}" if folder else found.name
            if name == layout.MANIFEST and found.is_file(follow_symlinks=False):
                continue  # of the version that this folder was copied from
            # MUT: a-published-folder-takes-nothing-of-the
            if self._is_store and name == layout.VERSIONS and found.is_dir(follow_symlinks=False):
                continue
            empty = False
            if found.is_symlink():
                raise EfsStateError(
                    f"{self.path}/{name}: can't be published: a symbolic link: copy what it leads to (cp -rL), so that the"
                    " version has it"
                )
            if found.is_dir():
                if why := _bad_name(name):
                    raise EfsStateError(f"{self.path}/{name!r}: can't be published: {why}")
                self._walk(name)
            else:
                self._take(name, self.mount.stat(folder, found.name))
        if empty and folder:
            self.folders.append(folder)

    def _take(self, name: str, found: os.stat_result) -> None:
        if why := _bad_name(name):
            raise EfsStateError(f"{self.path}: can't be published: its file name {name!r}: {why}")
        if not stat.S_ISREG(found.st_mode):
            raise EfsStateError(
                f"{self.path}/{name}: can't be published: a device, socket or pipe, not a regular file"
            )
        self.files[name] = found

    def open(self, name: str) -> reader.Opened:
        """The file, if it still is what was found."""
        folder, _, last = self._named.get(name, name).rpartition("/")
        opened = reader.Opened(self.mount, folder, last)
        if _moment(opened.stat) != _moment(self.files[name]):
            raise EfsStateError(
                f"{opened.path}: can't be published: it changes meanwhile: publish again when it is still"
            )
        return opened

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum([found.st_size for found in self.files.values()])


def _demand_only_ours(mount: Mount, model: str) -> None:
    """An error for what is among the model's versions and none of them: it would be left out unseen."""
    above = layout.version_folder(model, "")
    for name in mount.names(above):
        if not (manifests.is_ours(mount, model, name) or layout.is_foreign_nfs(name)):
            raise EfsStateError(
                f"{mount.path_of(above, name)}: can't be published: it is among the versions of this model, and none of them:"
                " move it away, or publish a copy of the folder from elsewhere"
            )


def _bad_name(name: str) -> str:
    """Why what is at `name` can't be a part of a version; empty if it can."""
    return (
        "a version's manifest is called so: rename it"
        if name == layout.MANIFEST
        else manifests.bad_name(name)
    )


def _moment(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_ino, found.st_size, found.st_mtime_ns


class _Told:
    """How far a publication is, for whoever wants to know: each byte is digested, then copied."""

    def __init__(self, path: str, total: int, progress: Progress | None) -> None:
        self.path, self.done, self.total, self._progress = path, 0, 2 * total, progress
        self.started = time.monotonic()

    def add(self, amount: int) -> None:
        self.done += amount
        if self._progress is not None:
            self._progress(self.done, self.total)

    def late(self) -> str:
        return (
            f"{self.path}: {100 * self.done // max(1, self.total)} % published when the deadline came, after"
            f" {time.monotonic() - self.started:.1f} s: publish it again, and it goes on from there"
        )


def run(
    mount: Mount, model: str, source: Source, version: str | None, progress: Progress | None
) -> Manifest:
    """Make a version of `source`, unless there is one with that content; its manifest. It is not activated."""
    told = _Told(source.path, source.size, progress)

    def digest(name: str, done: Callable[[int], None] | None) -> str:
        return reader.copy(source.open(name), None, late=told.late, done=done)

    sizes = {name: found.st_size for name, found in source.files.items()}
    files = {
        name: (sizes[name], found)
        for name, found in reader.every(sizes, digest, late=told.late, done=told.add)
    }
    made = Manifest("", files, source.folders, single=source.single)
    content = made.content
    made.version = version or content[:16]
    staging = layout.staging_folder(model, content)
    if _exists(mount, model, made, told):
        told.add(told.total - told.done)
        if (
            mount.refresh(staging) is not None
        ):  # left by one that was killed between the rename and the end
            clear(mount, *staging.rsplit("/", 1))
        return made
    held = _claim(mount, staging)
    try:
        if not _exists(
            mount, model, made, told
        ):  # another publisher may have finished while we waited
            _fill(mount, staging, source, made, told)
            _finish(mount, model, staging, made, told)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            removal.remove_tree(
                mount, staging, grammar.staging
            )  # what can't be finished must not keep a disk full
        raise
    else:
        _tidy(mount, staging)
    finally:
        held.release(remove=True)
    if told.done < told.total:
        told.add(told.total - told.done)
    return made


def _exists(mount: Mount, model: str, made: Manifest, told: _Told) -> bool:
    """Whether the version is there already, and not damaged as far as sizes tell; an error if it has other content."""
    final = layout.version_folder(model, made.version)
    try:
        found = manifests.look(mount, model, made.version)
    except FileNotFoundError:
        known = {
            *made.files,
            layout.MANIFEST,
        }  # another publisher may have finished since that look
        others = [
            name for name in checking.walk(mount, final) if name[-1] != "/" and name not in known
        ]
        if others:
            raise EfsStateError(
                f"{mount.path_of(final, min(others))}: not of the content that is published, and the folder has no"
                " manifest, so it may be somebody's own: move it away, or publish under another id"
            ) from None
        return False
    if found is None:
        return False
    if found.content != made.content:
        raise EfsStateError(
            f"{mount.path_of(final)}: this version exists, with other content, and versions never change: publish under"
            " another id, or without one"
        )
    return checking.lacking(mount, final, made, told.late) is None


def _claim(mount: Mount, staging: str) -> lock.Lock:
    """The staging folder for ourselves: two publishers of the same content do the work once, not twice."""
    until = deadline.until_done()
    while True:
        held = lock.acquire(mount, *_lock(staging), until=until)
        if held is None:
            raise ClaimedError(
                f"{mount.path_of(staging)}: somebody else still publishes the same content: try again later"
            )
        if held.is_current():
            return held
        held.release()  # the one before us finished, and removed it


def _lock(staging: str) -> tuple[str, str]:
    """The folder and name of its lock: beside it, for an NFS client can't remove a folder with a file that is open."""
    above, _, name = staging.rpartition("/")
    return above, name + layout.LOCK_SUFFIX


def clear(mount: Mount, above: str, name: str) -> None:
    """Remove a staging folder in which nobody works, or a link that a killed activation left."""
    staging = f"{above}/{name}"
    held = lock.attempt(mount, *_lock(staging))
    if isinstance(held, lock.Lock):
        try:
            remove(mount, above, name)
        except OSError as error:
            _left(mount, staging, error)
        held.release(remove=True)
    else:
        os.close(held)


def _fill(mount: Mount, staging: str, source: Source, made: Manifest, told: _Told) -> None:
    parts, files = f"{staging}/{_PARTS}", f"{staging}/{_FILES}"
    mount.make(parts)

    def fill(name: str, done: Callable[[int], None] | None) -> None:
        size, digest = made.files[name]
        folder, _, last = f"{files}/{name}".rpartition("/")
        # A file gets its name here only when all of it is on disk: what a killed publisher left needs no second look.
        if _size(mount, folder, last) == size:
            if done is not None:
                done(size)
            return
        opened, part = source.open(name), sha256(name.encode()).hexdigest()
        target = PartialFile(mount, parts, part)
        try:
            copied = reader.copy(opened, target, late=told.late, done=done)
            target.finish(size)
        finally:
            target.close()
        # MUT: what-moves-is-not-published
        if copied != digest or _moment(opened.look()) != _moment(opened.stat):
            mount.remove(parts, part, quiet=True)
            raise EfsStateError(_MOVING.format(opened.path))
        mount.make(folder)
        mount.rename(parts, part, folder, last, durable=True)

    from hashlib import sha256

    sizes = {name: size for name, (size, _) in made.files.items()}
    for _ in reader.every(sizes, fill, late=told.late, done=told.add):
        pass
    for name in made.folders:
        mount.make(f"{files}/{name}")


def _size(mount: Mount, folder: str, name: str) -> int | None:
    try:
        return mount.stat(folder, name).st_size
    except FileNotFoundError:
        return None


def _finish(mount: Mount, model: str, staging: str, made: Manifest, told: _Told) -> None:
    """Manifest, then rename: there is no version before, or a damaged one, and a whole one after."""
    final = layout.version_folder(model, made.version)

    def build(created: float) -> list[bytes | bytearray | memoryview]:
        place = f"{final}/{layout.MANIFEST}"
        payload = made.encode()
        return entry.encode(
            payload, place=place, codec=manifests.CODEC, created=created, ttl=None, key=mount.key
        )

    files, parts = f"{staging}/{_FILES}", f"{staging}/{_PARTS}"
    mount.replace(
        parts, layout.MANIFEST, build, durable=True
    )  # here, so that a kill leaves nothing among the files
    mount.rename(parts, layout.MANIFEST, files, layout.MANIFEST, durable=True)
    inode = mount.stat(staging, _FILES).st_ino
    mount.forget(files)
    above = layout.version_folder(model, "")
    while True:
        try:
            mount.rename(staging, _FILES, above, made.version, inode=inode, durable=True)
        except OSError as error:
            judged = _inode(mount, above, made.version)
            if _exists(mount, model, made, told):  # another publisher was faster
                return
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            _make_room(mount, model, made.version, judged)
        else:
            return


def _make_room(mount: Mount, model: str, version: str, judged: int | None) -> None:
    """Put aside the damaged version, whose folder is `judged`; and nothing else that has come in its place."""
    above = layout.version_folder(model, "")
    try:
        gone = put_aside(mount, model, version)
    except FileNotFoundError:
        return  # another publisher did
    mount.names(above)  # or this host's client may take it for the folder that had the name before
    if _inode(mount, above, gone) == judged:
        # Somebody may be reading what is whole of it: it goes with a prune, when nothing was done to it for the grace.
        mount.stamp(above, gone)
        return
    # Another publisher has mended the version since we judged it.
    try:
        mount.rename(above, gone, above, version, durable=True)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # else a third one has
            raise
        mount.stamp(above, gone)


def _inode(mount: Mount, above: str, name: str) -> int | None:
    try:
        return mount.stat(above, name).st_ino
    except FileNotFoundError:
        return None


def put_aside(mount: Mount, model: str, version: str) -> str:
    """Rename the version to a temporary, of which nobody takes a half for the whole while it is removed; its name."""
    above, gone = (
        layout.version_folder(model, ""),
        f"{layout.TEMPORARY}gone-{version}-{os.urandom(4).hex()}",
    )
    mount.forget(f"{above}/{version}")
    mount.rename(above, version, above, gone)
    return gone


def remove(mount: Mount, above: str, name: str) -> None:
    """Remove what is at `name`, if anything: a folder with all that is in it, or a file or link that is no version."""
    if name not in mount.names(above):
        return
    if stat.S_ISDIR(mount.stat(above, name).st_mode):
        removal.remove_tree(mount, f"{above}/{name}", grammar.anything)
    else:
        mount.remove(above, name)


def _tidy(mount: Mount, staging: str) -> None:
    try:
        removal.remove_tree(mount, staging, grammar.staging)
    except OSError as error:
        _left(mount, staging, error)


def _left(mount: Mount, staging: str, error: OSError) -> None:
    events.log(
        "warning",
        "%s: what is left of a publication could not be removed: %s",
        mount.path_of(staging),
        error,
    )
