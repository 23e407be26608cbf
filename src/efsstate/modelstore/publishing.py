"""Publication: a version is put together in a staging folder named by its content, then renamed."""

from __future__ import annotations

import errno
from functools import partial

from efsstate import deadline, process
from efsstate.errors import ClaimedError, EfsStateError
from efsstate.format import entry, layout
from efsstate.modelstore import checking, disposal, reader
from efsstate.modelstore import manifest as manifests
from efsstate.modelstore.disposal import FILES, PARTS
from efsstate.modelstore.manifest import Manifest
from efsstate.modelstore.open_file import OpenFile
from efsstate.mount import lock
from efsstate.mount.drafts import PartialFile
from efsstate.parallel import Batch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    from efsstate.modelstore.hub_source import HubSource
    from efsstate.modelstore.source import Source as Folder
    from efsstate.mount.files import Mount

    Source: TypeAlias = Folder | HubSource
    Meta = dict[str, Any] | None
    Progress = Callable[[int, int], object]


def run(
    mount: Mount,
    model: str,
    source: Source,
    version: str | None = None,
    meta: Meta = None,
    progress: Progress | None = None,
) -> Manifest:
    """Make a version of `source`, unless one has that content; return its manifest, not active."""
    advice = "publish it again, and it continues from there"
    batch = Batch(source.path, source.size, "published", advice, passes=2, progress=progress)
    manifest, content = _describe(source, version, meta, batch)
    staging = layout.staging_folder(model, content)
    above, _, name = staging.rpartition("/")
    names = mount.names(above)
    if manifest.version in names and _exists(mount, model, manifest, batch):
        # A publisher may have been killed between its rename and its end.
        if name in names:
            disposal.remove_staging(mount, above, name)
        batch.complete()
        return manifest
    is_known = name in names
    for is_last in (False, False, True):
        try:
            _make_version(mount, model, staging, source, manifest, batch, is_known=is_known)
            break
        except FileNotFoundError as error:
            # Frozen for longer than a lease, we lost the claim without notice, and its next holder
            # has renamed the staging folder's files to its own version, of another id.
            if not str(error.filename).startswith(mount.path_of(staging)):
                raise
            if is_last:
                raise _claimed_error(mount, staging) from error
            mount.forget(staging)
            is_known = True
            batch.done = source.size  # the bytes that were copied are copied again
    batch.complete()
    return manifest


def _make_version(
    mount: Mount,
    model: str,
    staging: str,
    source: Source,
    manifest: Manifest,
    batch: Batch,
    *,
    is_known: bool,
) -> None:
    """Make the version; `is_known`: its staging folder may exist.

    Raise FileNotFoundError if another publisher took the files of the staging folder.
    """
    claim, has_waited = _claim(mount, staging)
    may_be_lost = False
    try:
        # Another publisher may have finished while we waited for the claim.
        if not (has_waited and _exists(mount, model, manifest, batch)):
            is_new = not is_known and not has_waited
            files = f"{staging}/{FILES}"
            inode = mount.identify(mount.handle(files, make=True), files)[1]
            _copy(mount, staging, source, manifest, batch, is_new=is_new)
            _require_same_files(mount, staging, inode)
            _write_manifest(mount, staging, manifest, inode)
            _rename_into_place(mount, model, staging, manifest, batch, inode)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            # It cannot be finished, and must not keep the disk full.
            disposal.remove_rest(mount, staging)
        # MUT: a-publisher-leaves-the-lock-of-another
        may_be_lost = isinstance(error, FileNotFoundError)
        raise
    else:
        _remove_rest(mount, staging)
    finally:
        claim.release(remove=not may_be_lost)


def _describe(
    source: Source, version: str | None, meta: Meta, batch: Batch
) -> tuple[Manifest, str]:
    """Return the manifest of `source`, and the digest of its content.

    Every file is read, except those whose digest the source knows: these are compared with it when
    they are copied.
    """

    def digest(name: str, advance: Callable[[int], None] | None) -> str:
        if known := source.digests.get(name):
            if advance is not None:
                advance(sizes[name])
            return known
        return reader.copy(source.open(name), None, late=batch.late, advance=advance)

    sizes = source.sizes
    files = {}
    for name, sha256 in reader.every(sizes, digest, batch):
        files[name] = sizes[name], sha256
    manifest = Manifest(
        "",
        files,
        source.folders,
        executables=frozenset(source.executables),
        single=source.single,
        meta=meta,
    )
    content = manifest.content
    manifest.version = version or content[:16]
    return manifest, content


def _exists(mount: Mount, model: str, manifest: Manifest, batch: Batch) -> bool:
    """Return True if the version exists and is whole as far as sizes tell.

    Raise EfsStateError if its id has other content.
    """
    if manifest.version not in mount.names(layout.version_folder(model, "")):
        return False
    final = layout.version_folder(model, manifest.version)
    try:
        existing = manifests.read_or_none(mount, model, manifest.version)
    except FileNotFoundError:
        _require_no_foreign_files(mount, final, manifest)
        return False
    if existing is None:
        return False
    if existing.content != manifest.content:
        raise EfsStateError(
            f"{mount.path_of(final)}: this version exists, with other content, and versions never"
            " change; publish under another id, or without one"
        )
    return checking.find_damage(mount, final, manifest, batch.late) is None


def _require_no_foreign_files(mount: Mount, final: str, manifest: Manifest) -> None:
    """Raise EfsStateError if a folder without a manifest has files that are not this content's."""
    # The manifest is among them: another publisher may have finished since it was looked for.
    known = {*manifest.files, layout.MANIFEST}
    foreign = [
        name for name in checking.walk(mount, final) if name[-1] != "/" and name not in known
    ]
    if foreign:
        raise EfsStateError(
            f"{mount.path_of(final, min(foreign))}: not part of the published content, and the"
            " folder has no manifest, so it may be somebody's own; move it away, or publish under"
            " another id"
        )


def _claim(mount: Mount, staging: str) -> tuple[lock.Lock, bool]:
    """Lock the staging folder; also return True if another publisher had it.

    Two publishers of the same content do the work once, not twice.
    """
    until, has_waited = deadline.until_done(), False
    while True:
        claim = lock.acquire(mount, *disposal.staging_lock(staging), until=until)
        if claim is None:
            raise _claimed_error(mount, staging)
        if claim.is_current():
            return claim, has_waited or claim.waited
        claim.release()  # the publisher before us finished, and removed the lock's file
        has_waited = True


def _claimed_error(mount: Mount, staging: str) -> ClaimedError:
    return ClaimedError(
        f"{mount.path_of(staging)}: another process still publishes the same content; try again"
        " later"
    )


def _copy(
    mount: Mount,
    staging: str,
    source: Source,
    manifest: Manifest,
    batch: Batch,
    *,
    is_new: bool,
) -> None:
    """Copy the files that the staging folder lacks; `is_new`: it does not exist yet."""

    def copy_file(name: str, advance: Callable[[int], None] | None) -> None:
        size = manifest.files[name][0]
        folder, _, last = f"{staging}/{FILES}/{name}".rpartition("/")
        # A file gets its name here only once it is whole and on disk; one that a killed publisher
        # left needs no second look.
        if is_new or _size(mount, folder, last) != size:
            _copy_file(mount, staging, source, manifest, name, batch, advance)
        elif advance is not None:
            advance(size)

    for _ in reader.every(source.sizes, copy_file, batch):
        pass
    for name in manifest.folders:
        # MUT: an-empty-folder-is-looked-at-again
        source.require_empty(name)
        mount.make(f"{staging}/{FILES}/{name}")


def _copy_file(
    mount: Mount,
    staging: str,
    source: Source,
    manifest: Manifest,
    name: str,
    batch: Batch,
    advance: Callable[[int], None] | None,
) -> None:
    from hashlib import sha256

    size, digest = manifest.files[name]
    parts, part = f"{staging}/{PARTS}", sha256(name.encode()).hexdigest()
    opened, target = (
        source.open(name),
        PartialFile(mount, parts, part, executable=name in manifest.executables),
    )
    try:
        prefix, present = None, min(target.present, size)
        if source.in_flight is not None and present > source.in_flight:
            # All that an earlier publisher had in flight lies in the part's last bytes.
            prefix = OpenFile(mount, parts, part), present - source.in_flight
        copied = reader.copy(opened, target, late=batch.late, advance=advance, prefix=prefix)
        # MUT: a-continued-part-is-compared-as-a-whole
        if prefix is not None and copied != digest:
            batch.add(-size)
            copied = reader.copy(opened, target, late=batch.late, advance=advance)
        target.finish(size)
    except BaseException:
        target.close()
        raise
    # MUT: what-moves-is-not-published
    if copied != digest or opened.has_moved():
        mount.remove(parts, part, quiet=True)
        raise source.changed(opened.path)
    folder, _, last = f"{staging}/{FILES}/{name}".rpartition("/")
    mount.rename(parts, part, folder, last, durable=True)


def _size(mount: Mount, folder: str, name: str) -> int | None:
    try:
        return mount.stat(folder, name).st_size
    except FileNotFoundError:
        return None


def _require_same_files(mount: Mount, staging: str, inode: int) -> None:
    """Raise FileNotFoundError unless the folder of the files that we copied still is there."""
    # MUT: files-that-another-took-are-copied-again
    if mount.stat(staging, FILES).st_ino != inode:
        raise _files_are_gone(mount, staging)


def _files_are_gone(mount: Mount, staging: str) -> OSError:
    gone = FileNotFoundError(errno.ENOENT, "another process has taken or removed it")
    return mount.with_path(gone, staging, FILES)


def _write_manifest(mount: Mount, staging: str, manifest: Manifest, inode: int) -> None:
    """Put the manifest among the files of the staging folder: it comes last."""
    above = staging.rpartition("/")[0]  # the folder of the versions
    place = f"{above}/{manifest.version}/{layout.MANIFEST}"
    build = partial(
        entry.encode, manifest.encoded,
        place=place, codec=manifests.CODEC, ttl=None, key=mount.key,
    )  # fmt: skip
    # If it is half written, the next try overwrites it, and the version is not renamed before.
    files = f"{staging}/{FILES}"
    mount.create(files, layout.MANIFEST, build)
    # The folder with our files may have been removed meanwhile: then `create` has made another one,
    # with the manifest alone. This check takes no request.
    # MUT: a-manifest-without-its-files-is-not-published
    if mount.identify(mount.handle(files), files)[1] != inode:
        raise _files_are_gone(mount, staging)


def _rename_into_place(
    mount: Mount, model: str, staging: str, manifest: Manifest, batch: Batch, inode: int
) -> None:
    """Rename: before, there is no version or a damaged one; after, a whole one."""
    above, version = staging.rpartition("/")[0], manifest.version
    mount.forget(f"{staging}/{FILES}", above=False)
    while True:
        try:
            mount.rename(staging, FILES, above, version, inode=inode, durable=True)
        except OSError as error:
            process.raise_of_handler(error)
            judged = _inode(mount, above, version)
            if _exists(mount, model, manifest, batch):  # another publisher was faster
                return
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            _put_damaged_aside(mount, model, version, judged)
        else:
            return


def _put_damaged_aside(mount: Mount, model: str, version: str, judged: int | None) -> None:
    """Put the damaged version aside: the folder with the inode `judged`, and no other."""
    above = layout.version_folder(model, "")
    try:
        aside = disposal.put_aside(mount, model, version)
    except FileNotFoundError:
        return  # another publisher did
    mount.names(above)  # else this host's client may take it for the folder that had the name
    if _inode(mount, above, aside) == judged:
        # Environments may be reading its whole files: a prune removes it after the grace.
        mount.stamp(above, aside)
    else:  # another publisher has mended the version since we judged it
        disposal.put_back(mount, model, aside, version)


def _inode(mount: Mount, above: str, name: str) -> int | None:
    try:
        return mount.stat(above, name).st_ino
    except FileNotFoundError:
        return None


def _remove_rest(mount: Mount, staging: str) -> None:
    try:
        mount.remove_folder(f"{staging}/{PARTS}")
        if not mount.remove_folder(staging):
            disposal.remove_rest(mount, staging)
    except OSError as error:
        disposal.log_remains(mount, staging, error)
