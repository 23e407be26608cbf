"""A `load` function's argument: the files of a version, as path, bytes, pages or a copy."""

from __future__ import annotations

import time

from efsstate import deadline, process
from efsstate.errors import CorruptEntryError, DeadlineExceeded, EfsStateError
from efsstate.modelstore import reader
from efsstate.modelstore.open_file import OpenFile
from efsstate.parallel import each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from efsstate.modelstore.manifest import Manifest
    from efsstate.modelstore.staging import StagedCopy
    from efsstate.mount.files import Mount

    T = TypeVar("T")
    Place = tuple[Mount, str]  # a mount and a folder below it
    Read = Callable[[reader.Switch | None], memoryview]


class ModelFiles:
    """The files of one version of a model, as `load` gets them.

    `version` is its id. `verify` is the check of each file that is used: "size" against the
    manifest, "digest" its SHA-256 too, None nothing. Damage raises `CorruptEntryError`, except
    damage of a local copy, which is copied again.

    With EFSSTATE_SIGNING_KEY it is always "digest", and `path` and `mmap` are of a local copy.
    """

    def __init__(
        self,
        mount: Mount,
        folder: str,
        manifest: Manifest,
        *,
        verify: str | None = "size",
        stage: bool = False,
        reserved: float | None = None,
    ) -> None:
        self.version = manifest.version
        self._manifest = manifest
        # A signature covers the digests. Bytes of the right size may be anybody's.
        # MUT: with-a-key-digests-and-not-sizes
        self._verify = verify if mount.key is None else "digest"
        self._is_checked = False
        self._staged: StagedCopy | None = None
        self._copying = process.lock()
        self._begun: tuple[str, memoryview] | None = None  # a file of which a part was read
        self._copies: frozenset[str] | None = None  # those of earlier attempts, once they matter
        self._load: reader.Load | None = None
        self._place = self._origin = mount, folder
        # Kept here too: the threads of a `load` have no context of their own.
        self._reserved = deadline.reserved.get() if reserved is None else reserved
        if stage:
            self._use_copy()

    def __repr__(self) -> str:
        count = len(self._manifest.files)
        return f"<{count} file{'' if count == 1 else 's'} at {self._path()}>"

    def end_load(self) -> None:
        """Release the reserved time, and the copy's open folders: only the load needed them."""
        self._reserved = 0.0
        if self._staged is not None:
            # The folders of several models are more descriptors than a function may have.
            # MUT: folders-of-a-copy-do-not-stay-open
            self._staged.mount.forget(self._staged.folder)

    @property
    def names(self) -> list[str]:
        """Return the paths of the files below the version's folder, sorted."""
        return sorted(self._manifest.files)

    @property
    def size(self) -> int:
        """Return the bytes of all files."""
        return self._manifest.size

    @property
    def meta(self) -> dict[str, Any]:
        """Return the publisher's own values."""
        return self._manifest.meta

    @property
    def path(self) -> str:
        """Return a path for any library: of the file if a single one was published, or the folder.

        If it is signed, the path is of a local copy: files on the mount could change between our
        check and the library's read.
        """
        return self._retry_damaged_copy(self._checked_path, local=self._is_signed)

    @property
    def _is_signed(self) -> bool:
        return self._origin[0].key is not None

    def read(self, name: str | None = None) -> memoryview:
        """Return all bytes of the file `name`, in one writable buffer of their own.

        `name` may be left out if there is only one file. Raises `KeyError` if there is no such
        file, `EfsStateError` if the file is larger than the free memory or the deadline comes,
        `CorruptEntryError`, `OSError`.
        """
        name = self._require_name(name)

        def read(switch: reader.Switch | None) -> memoryview:
            opened, digest = self._open(name)
            return reader.whole(opened, digest=digest, switch=switch)

        return self._read_or_keep(name, read, lambda files: files.read(name))

    def mmap(self, name: str | None = None) -> memoryview:
        """Return the pages of the file `name`, read only, pulled in by several threads first.

        Nothing is copied, and the processes of a machine share them. But the kernel may drop pages
        and read them again: if the file is removed or cut meanwhile, on any host, the process is
        killed by SIGBUS. Use `stage` where that may happen. Errors as in `read`.
        """
        name = self._require_name(name)

        def map_pages(switch: reader.Switch | None) -> memoryview:
            opened, digest = self._open(name, direct=False)
            return reader.mapped(opened, digest=digest, switch=switch)

        # A signed file is mapped from a copy: pages that the kernel reads again are not checked.
        return self._read_or_keep(
            name, map_pages, lambda files: files.mmap(name), local=self._is_signed
        )

    def _read_or_keep(
        self,
        name: str,
        read: Read,
        again: Callable[[ModelFiles], memoryview],
        *,
        local: bool = False,
    ) -> memoryview:
        """Read the file; keep it in a local copy if the load does not fit before the deadline.

        Many environments that start at once share the server's throughput. A load that is cut off
        starts again with nothing; a copy in /tmp outlives the timeout, and is continued. `again`
        reads the file of other `ModelFiles`, from their copy.
        """
        is_remote = deadline.remaining() is not None and self._place is self._origin and not local
        if not is_remote or not self._has_digests():
            return self._retry_damaged_copy(lambda: read(None), local=local)
        if self.is_begun(self._copies_before()):
            return self._retry_damaged_copy(lambda: read(None), local=True)
        load, alone = self._begin(name), self._alone(name)
        try:
            if alone is not self and alone.is_begun(self._copies_before()):
                return alone.keep(again)
            try:
                return self._retry_damaged_copy(lambda: read(reader.Switch(alone.has_room, load)))
            except reader.DoesNotFit as late:
                view, is_whole = late.view, late.is_whole
            if not is_whole:
                return alone.keep(again, (name, view))
            try:
                alone.keep(lambda _: view, (name, view))
            except CorruptEntryError:
                raise
            except (EfsStateError, OSError):
                pass  # the copy is for the next attempt, and this one has the file
            return view
        finally:
            if alone is not self:
                alone.end_load()

    def keep(
        self, work: Callable[[ModelFiles], T], begun: tuple[str, memoryview] | None = None
    ) -> T:
        """Do `work` with a local copy, made if need be; `begun` has a file's first bytes."""
        self._begun = begun if begun is not None and len(begun[1]) else None
        try:
            return self._retry_damaged_copy(lambda: work(self), local=True)
        finally:
            self._begun = None

    def is_begun(self, copies: frozenset[str]) -> bool:
        """Return True if an earlier attempt made the local copy, or a part of it."""
        return bool(copies) and self._copy_name() in copies

    def has_room(self) -> bool:
        """Return True if the local copy fits without removing any other."""
        from efsstate.modelstore import staging

        return staging.has_room(self._copy_name(), self._manifest)

    def _copies_before(self) -> frozenset[str]:
        if self._copies is None:
            from efsstate.modelstore import staging

            self._copies = staging.begun()
        return self._copies

    def _alone(self, name: str) -> ModelFiles:
        """Return the file as files of its own, so that it is kept without the others."""
        if len(self._manifest.files) == 1:
            return self
        return ModelFiles(
            *self._origin, self._manifest.only(name), verify=self._verify, reserved=self._reserved
        )

    def _begin(self, name: str) -> reader.Load:
        """Return the load, in which `name` is a file that is read now."""
        if self._load is None:
            sizes = {name: size for name, (size, _) in self._manifest.files.items()}
            self._load = reader.Load(sizes)
        self._load.begin(name)
        return self._load

    def _has_digests(self) -> bool:
        return all(digest for _, digest in self._manifest.files.values())

    def stage(self) -> str:
        """Return `path` of a copy on the local disk, which the environment's processes share.

        From then on `path`, `read` and `mmap` use the copy. It is complete, and its digests are
        checked when it is made (with "digest" always). It stays while the model is loaded, and is
        removed when another model needs the room after that. Raises `EfsStateError` if there is no
        room or the deadline comes, `CorruptEntryError`, `OSError`.
        """
        return self._retry_damaged_copy(self._checked_path, local=True)

    def _use_copy(self) -> None:
        """Use the local copy from here on; make it if need be."""
        self._one_at_a_time(self._copy)

    def _copy(self) -> None:
        if self._staged is not None:
            return
        from efsstate.modelstore import staging

        def open_file(name: str) -> OpenFile:
            return self._open(name, place=self._origin)[0]

        staged = staging.stage(self._copy_name(), self._manifest, open_file, self._begun)
        # Sizes were compared now. Bytes are compared when a copy is made, perhaps long ago.
        self._is_checked = staged.is_new or self._verify != "digest"
        self._staged, self._place = staged, (staged.mount, staged.folder)

    def _one_at_a_time(self, work: Callable[[], T]) -> T:
        """Do `work` while no other thread does any; wait for it until the deadline."""
        if not self._copying.acquire(timeout=max(0.0, deadline.until_done() - time.monotonic())):
            raise DeadlineExceeded(
                f"{self._path()}: another thread was still copying it when the deadline came"
            )
        try:
            return work()
        finally:
            self._copying.release()

    def _copy_name(self) -> str:
        from hashlib import blake2b

        mount, folder = self._origin
        identity = f"{mount.path_of(folder)}\0{self.version}\0{self._manifest.content}"
        return blake2b(identity.encode(), digest_size=16).hexdigest()

    def _retry_damaged_copy(self, work: Callable[[], T], *, local: bool = False) -> T:
        """Do `work`; if it meets a damaged local copy, make the copy again, and `work` once more.

        `local`: make a local copy first.
        """
        reserved = deadline.reserved.get()
        try:
            # MUT: the-threads-of-a-load-leave-time-too
            deadline.reserved.set(max(reserved, self._reserved))
            if local or self._place is not self._origin:
                self._use_copy()  # also if a damaged copy could not be made again before
            place = self._place
            try:
                return work()
            except (CorruptEntryError, FileNotFoundError):
                if place is self._origin:
                    raise
            is_discarded = self._one_at_a_time(lambda: self._copy_again(place))
            try:
                return work()
            except (CorruptEntryError, FileNotFoundError) as error:
                if is_discarded:
                    raise
                raise _in_use(error) from None
        finally:
            deadline.reserved.set(reserved)

    def _copy_again(self, place: Place) -> bool:
        """Replace the damaged copy at `place`; return False if another process still uses it."""
        from efsstate.modelstore import staging

        # MUT: a-damaged-copy-is-made-anew-for-all-threads
        if self._place is not place:
            return True  # another thread did
        self._staged = None  # ends our own use of it: only another's keeps it
        is_discarded = staging.discard(self._copy_name())
        self._copy()
        return is_discarded

    def _checked_path(self) -> str:
        if not self._is_checked:
            self._check()
            self._is_checked = True
        return self._path()

    def _path(self) -> str:
        mount, folder = self._place
        name = next(iter(self._manifest.files)) if self._manifest.single else ""
        return mount.path_of(folder, name)

    def _require_name(self, name: str | None) -> str:
        """Return the file's name; raise EfsStateError if it is ambiguous, KeyError if unknown."""
        files = self._manifest.files
        if name is None and len(files) == 1:
            return next(iter(files))
        if name in files:
            assert name is not None
            return name
        path = self._origin[0].path_of(self._origin[1])
        known = ", ".join(self.names[:10]) + (", …" if len(files) > 10 else "")
        if name is None:
            raise EfsStateError(f"{path}: it has {len(files)} files; name one: {known}")
        raise KeyError(f"{path}: it has no file {name!r}, but: {known}")

    def _open(
        self, name: str, *, place: Place | None = None, direct: bool = True
    ) -> tuple[OpenFile, str | None]:
        """Return the open file, its size compared, and the digest to compare it with."""
        size, digest = self._manifest.files[name]
        mount, folder = place or self._place
        folder, _, last = f"{folder}/{name}".strip("/").rpartition("/")
        opened = OpenFile(mount, folder, last, direct=direct)
        if self._verify is not None and opened.size != size:
            raise CorruptEntryError(
                opened.path,
                f"{opened.size} bytes, and not the {size} that were published; activate another"
                " version",
            )
        return opened, digest if self._verify == "digest" and digest else None

    def _check(self) -> None:
        """Check every file: code that knows no manifest is going to read them by their path."""
        if self._verify is None:
            return
        sizes = {name: size for name, (size, _) in self._manifest.files.items()}
        batch = reader.read_batch(self._path(), sum(sizes.values()))

        def check(name: str, advance: Callable[[int], None] | None = None) -> None:
            opened, digest = self._open(name)
            if digest is None:
                return
            if reader.copy(opened, None, late=batch.late, advance=advance) != digest:
                raise CorruptEntryError(opened.path, reader.WRONG_DIGEST)

        if self._verify == "digest":
            for _ in reader.every(sizes, check, batch):
                pass
        else:
            for _ in each(check, list(sizes), threads=reader.THREADS, late=batch.late):
                pass


def _in_use(error: CorruptEntryError | FileNotFoundError) -> CorruptEntryError:
    """Return the error for a damaged copy that another process still uses."""
    if isinstance(error, CorruptEntryError):
        path, why = error.path, error.reason
    else:
        path, why = str(error.filename), "missing"
    return CorruptEntryError(
        path, f"{why}; this local copy is not replaced while another model or process uses it"
    )
