"""A `load` function's argument: the files of a version, as path, bytes, pages or a copy."""

from __future__ import annotations

from efsstate import deadline, process
from efsstate.errors import CorruptEntryError, EfsStateError
from efsstate.modelstore import reader
from efsstate.modelstore.copied_files import CopiedFiles
from efsstate.parallel import each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from efsstate.modelstore.manifest import Manifest
    from efsstate.mount.files import Mount

    Read = Callable[[CopiedFiles, reader.Switch | None], memoryview]


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
    ) -> None:
        self.version = manifest.version
        self._manifest = manifest
        self._is_signed = mount.key is not None
        # A signature covers the digests. Bytes of the right size may be anybody's.
        # MUT: with-a-key-digests-and-not-sizes
        check = verify if mount.key is None else "digest"
        self._files = CopiedFiles(mount, folder, manifest, check, deadline.reserved.get())
        self._load = reader.Load()
        self._copies: frozenset[str] | None = None  # those of earlier attempts, once they matter
        if stage:
            self._files.use_copy()

    def __repr__(self) -> str:
        count = len(self._manifest.files)
        return f"<{count} file{'' if count == 1 else 's'} at {self._files.path()}>"

    def end_load(self) -> None:
        """Release the reserved time, and the copy's open folders: only the load needed them."""
        self._files.end_load()

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
        return self._files.do(self._checked_path, local=self._is_signed)

    def read(self, name: str | None = None) -> memoryview:
        """Return all bytes of the file `name`, in one writable buffer of their own.

        `name` may be left out if there is only one file. Raises `KeyError` if there is no such
        file, `EfsStateError` if the file is larger than the free memory or the deadline comes,
        `CorruptEntryError`, `OSError`.
        """
        name = self._require_name(name)

        def read(files: CopiedFiles, switch: reader.Switch | None) -> memoryview:
            opened, digest = files.open(name)
            return reader.whole(opened, digest=digest, switch=switch)

        return self._read_or_keep(name, read)

    def mmap(self, name: str | None = None) -> memoryview:
        """Return the pages of the file `name`, read only, pulled in by several threads first.

        Nothing is copied, and the processes of a machine share them. But the kernel may drop pages
        and read them again: if the file is removed or cut meanwhile, on any host, the process is
        killed by SIGBUS. Use `stage` where that may happen. Errors as in `read`.
        """
        name = self._require_name(name)

        def map_pages(files: CopiedFiles, switch: reader.Switch | None) -> memoryview:
            opened, digest = files.open(name, direct=False)
            return reader.mapped(opened, digest=digest, switch=switch)

        # A signed file is mapped from a copy: pages that the kernel reads again are not checked.
        return self._read_or_keep(name, map_pages, local=self._is_signed)

    def stage(self) -> str:
        """Return `path` of a copy on the local disk, which the environment's processes share.

        From then on `path`, `read` and `mmap` use the copy. It is complete, and its digests are
        checked when it is made (with "digest" always). It stays while the model is loaded, and is
        removed when another model needs the room after that. Raises `EfsStateError` if there is no
        room or the deadline comes, `CorruptEntryError`, `OSError`.
        """
        return self._files.do(self._checked_path, local=True)

    def _read_or_keep(self, name: str, read: Read, *, local: bool = False) -> memoryview:
        """Read the file; keep it in a local copy if the load does not fit before the deadline.

        Many environments that start at once share the server's throughput. A load that is cut off
        starts again with nothing; a copy in /tmp outlives the timeout, and is continued.
        """
        files = self._files
        is_remote = deadline.remaining() is not None and not (files.is_local or local)
        if not is_remote or not files.has_digests:
            return files.do(lambda: read(files, None), local=local)
        if files.is_begun(self._copies_before()):
            return files.do(lambda: read(files, None), local=True)
        alone = files.only(name)
        try:
            return self._read_or_keep_alone(name, read, alone)
        finally:
            if alone is not files:
                alone.end_load()

    def _read_or_keep_alone(self, name: str, read: Read, alone: CopiedFiles) -> memoryview:
        """Read the file; keep it, without the others, in the copy of `alone`."""
        files, load, size = self._files, self._load, self._manifest.files[name][0]
        is_first = load.begin(name, self._manifest.files)
        if alone is not files and alone.is_begun(self._copies_before()):
            load.skip(size if is_first else 0)
            return alone.with_copy(lambda: read(alone, None))
        switch = reader.Switch(alone.has_room, load, is_first=is_first)
        try:
            return files.do(lambda: read(files, switch))
        except reader.DoesNotFit as late:
            view, is_whole = late.view, late.is_whole
        load.skip(size - len(view) if is_first else 0)
        if not is_whole:
            return alone.with_copy(lambda: read(alone, None), (name, view))
        try:
            return alone.with_copy(lambda: view, (name, view))
        except CorruptEntryError:
            raise
        except (EfsStateError, OSError) as error:
            process.raise_of_handler(error)
            return view  # the copy is for the next attempt, and this one has the file

    def _copies_before(self) -> frozenset[str]:
        """Return the names of the local copies that earlier attempts made or began."""
        if self._copies is None:
            from efsstate.modelstore import staging

            self._copies = staging.begun()
        return self._copies

    def _require_name(self, name: str | None) -> str:
        """Return the file's name; raise EfsStateError if it is ambiguous, KeyError if unknown."""
        files = self._manifest.files
        if name is None and len(files) == 1:
            return next(iter(files))
        if name in files:
            assert name is not None
            return name
        path = self._files.path(of_origin=True)
        known = ", ".join(self.names[:10]) + (", …" if len(files) > 10 else "")
        if name is None:
            raise EfsStateError(f"{path}: it has {len(files)} files; name one: {known}")
        raise KeyError(f"{path}: it has no file {name!r}, but: {known}")

    def _checked_path(self) -> str:
        if not self._files.is_checked:
            self._check()
            self._files.is_checked = True
        return self._files.path()

    def _check(self) -> None:
        """Check every file: code that knows no manifest is going to read them by their path."""
        files = self._files
        if files.verify is None:
            return
        sizes = {name: size for name, (size, _) in self._manifest.files.items()}
        batch = reader.read_batch(files.path(), sum(sizes.values()))

        def check(name: str, advance: Callable[[int], None] | None = None) -> None:
            opened, digest = files.open(name)
            if digest is None:
                return
            if reader.copy(opened, None, late=batch.late, advance=advance) != digest:
                raise CorruptEntryError(opened.path, reader.WRONG_DIGEST)

        if files.verify == "digest":
            for _ in reader.every(sizes, check, batch):
                pass
        else:
            for _ in each(check, list(sizes), threads=reader.THREADS, late=batch.late):
                pass
