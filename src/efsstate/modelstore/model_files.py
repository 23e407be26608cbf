"""What a `load` function gets: the files of one version, as a path, as bytes, as pages, or as a local copy."""

from __future__ import annotations

import time

from efsstate import deadline
from efsstate.errors import CorruptEntryError, DeadlineExceeded, EfsStateError
from efsstate.modelstore import reader
from efsstate.modelstore.gate import ThreadGate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from efsstate.modelstore.manifest import Manifest
    from efsstate.modelstore.staging import Staged
    from efsstate.mount.files import Mount

    T = TypeVar("T")


class ModelFiles:
    """The files of one version of a model, as `load` gets them.

    `version` is its id. With `verify="size"` every file that is used is checked against the size in the manifest, with
    "digest" against its SHA-256 too, with None not at all. Damage raises `CorruptEntryError`, but that of a local copy,
    which is made anew. With EFSSTATE_SIGNING_KEY it is always "digest", and `path` and `mmap` are of a local copy, as with
    `stage`.
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
        # What is signed is the digest: of a file with the right size somebody without the key may have made every byte.
        # MUT: with-a-key-digests-and-not-sizes
        self._verify = verify if mount.key is None else "digest"
        self._checked = False
        self._staged: Staged | None = None
        self._turn = ThreadGate()
        self._at = self._origin = mount, folder
        self._reserved = (
            deadline.reserved.get()
        )  # here too, for the threads of a `load`, which have no context
        if stage:
            self._go_local()

    def __repr__(self) -> str:
        return f"<{len(self._manifest.files)} files at {self._path()}>"

    def loaded(self) -> None:
        """The load is over: nothing is reserved any more."""
        self._reserved = 0.0
        if self._staged is not None:
            # The folders of several models are more descriptors than a function may have.
            # MUT: folders-of-a-copy-do-not-stay-open
            self._staged.mount.forget(self._staged.folder)

    @property
    def names(self) -> list[str]:
        """The paths of the files below the version's folder."""
        return sorted(self._manifest.files)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return self._manifest.size

    @property
    def path(self) -> str:
        """A path for any library: of the file where a single one was published, else of the folder."""
        # Local where it is signed, or it may be changed between our look and the library's.
        return self._sound(self._checked_path, local=self._is_signed)

    @property
    def _is_signed(self) -> bool:
        return self._origin[0].key is not None

    def read(self, name: str | None = None) -> memoryview:
        """All bytes of the file `name` (needless where there is only one), in one writable buffer of their own.

        Read in long ranges, or by several threads. Raises `KeyError` (no such file), `EfsStateError` (more than the memory that
        is free; the deadline came), `CorruptEntryError`, `OSError`.
        """
        name = self._name(name)

        def read() -> memoryview:
            opened, digest = self._open(name)
            return reader.whole(opened, digest=digest)

        return self._sound(read)

    def mmap(self, name: str | None = None) -> memoryview:
        """The pages of the file `name`, read only, all pulled in by several threads first; errors as `read`.

        Nothing is copied, and the processes of a machine share them. But the kernel may drop pages and get them anew: if
        the file is removed or cut meanwhile, on any host, the process is killed by SIGBUS. `stage` where that may happen.
        """
        name = self._name(name)

        def map_it() -> memoryview:
            opened, digest = self._open(name, direct=False)
            return reader.mapped(opened, digest=digest)

        return self._sound(
            map_it, local=self._is_signed
        )  # or pages that the kernel drops come anew, unchecked

    def stage(self) -> str:
        """`path` of a copy on the local disk, that the processes of this environment share; from then on all is of it.

        It is complete, its digests are checked when it is made (with "digest" always), and it stays as long as the model is
        loaded; then it goes when another model needs the room. Raises `EfsStateError` (no room; the deadline came),
        `CorruptEntryError`, `OSError`.
        """
        return self._sound(self._checked_path, local=True)

    def _go_local(self) -> None:
        """From here on everything is taken from the local copy."""
        self._alone(self._copy)

    def _copy(self) -> None:
        if self._staged is not None:
            return
        from efsstate.modelstore import staging

        def opened(name: str) -> reader.Opened:
            return self._open(name, at=self._origin)[0]

        files = {
            name: (size, digest or None) for name, (size, digest) in self._manifest.files.items()
        }
        staged = staging.stage(self._key(), files, self._manifest.folders, opened)
        # Sizes are compared there. Bytes are where it is made, and another process may have done that long ago.
        self._checked = staged.made or self._verify != "digest"
        self._staged, self._at = staged, (staged.mount, staged.folder)

    def _alone(self, work: Callable[[], T]) -> T:
        """`work`, by one thread at a time; `DeadlineExceeded` if another is at it until the deadline."""
        over = self._turn.over  # held on to: a forked child has another
        if not over.acquire(timeout=max(0.0, deadline.until_done() - time.monotonic())):
            raise DeadlineExceeded(
                f"{self._path()}: another thread was still copying it when the deadline came"
            )
        try:
            return work()
        finally:
            over.release()

    def _key(self) -> str:
        from hashlib import blake2b

        mount, folder = self._origin
        place = f"{mount.path_of(folder)}\0{self.version}\0{self._manifest.content}"
        return blake2b(place.encode(), digest_size=16).hexdigest()

    def _sound(self, work: Callable[[], T], *, local: bool = False) -> T:
        """What `work` gives; where it met a damaged local copy, once more after that was made anew."""
        kept = deadline.reserved.get()
        try:
            # MUT: the-threads-of-a-load-leave-time-too
            deadline.reserved.set(max(kept, self._reserved))
            if local or self._at is not self._origin:
                self._go_local()  # again, where a copy that was damaged could not be made anew
            at = self._at
            try:
                return work()
            except (CorruptEntryError, FileNotFoundError):
                if at is self._origin:
                    raise
            alone = self._alone(lambda: self._make_anew(at))
            try:
                return work()
            except (CorruptEntryError, FileNotFoundError) as error:
                if alone:
                    raise
                if isinstance(error, CorruptEntryError):
                    path, why = error.path, error.reason
                else:
                    path, why = error.filename, "missing"
                raise CorruptEntryError(
                    path,
                    f"{why}; this local copy is not made anew while another model or process uses it",
                ) from None
        finally:
            deadline.reserved.set(kept)

    def _make_anew(self, at: tuple[Mount, str]) -> bool:
        """Have the local copy that was used `at` made again; False if somebody else uses it."""
        from efsstate.modelstore import staging

        # MUT: a-damaged-copy-is-made-anew-for-all-threads
        if self._at is not at:
            return True  # another thread did it
        self._staged = None  # our use of it ends, so that only another's keeps it
        alone = staging.discard(self._key())
        self._copy()
        return alone

    def _checked_path(self) -> str:
        if not self._checked:
            self._check()
            self._checked = True
        return self._path()

    def _path(self) -> str:
        mount, folder = self._at
        return mount.path_of(
            folder, next(iter(self._manifest.files)) if self._manifest.single else ""
        )

    def _name(self, name: str | None) -> str:
        files = self._manifest.files
        if name is None and len(files) == 1:
            return next(iter(files))
        there = ", ".join(self.names[:10]) + (", …" if len(files) > 10 else "")
        if name is None:
            raise EfsStateError(
                f"{self._origin[0].path_of(self._origin[1])}: it has {len(files)} files: name one: {there}"
            )
        if name not in files:
            raise KeyError(
                f"{self._origin[0].path_of(self._origin[1])}: it has no file {name!r}, but: {there}"
            )
        return name

    def _open(
        self, name: str, *, at: tuple[Mount, str] | None = None, direct: bool = True
    ) -> tuple[reader.Opened, str | None]:
        """The file, and the digest to compare it with; its size is compared."""
        size, digest = self._manifest.files[name]
        mount, folder = at or self._at
        folder, _, last = f"{folder}/{name}".strip("/").rpartition("/")
        opened = reader.Opened(mount, folder, last, direct=direct)
        if self._verify is not None and opened.size != size:
            raise CorruptEntryError(
                opened.path,
                f"{opened.size} bytes, and not the {size} that were published: activate another version",
            )
        return opened, digest if self._verify == "digest" and digest else None

    def _check(self) -> None:
        """What is going to be read by its path, by code that knows of no manifest."""
        if self._verify is None:
            return
        sizes = {name: size for name, (size, _) in self._manifest.files.items()}
        total = sum(sizes.values())
        count, words = reader.late(self._path(), total)

        def check(name: str, done: Callable[[int], None] | None) -> None:
            opened, digest = self._open(name)
            if digest is not None and reader.copy(opened, None, late=words, done=done) != digest:
                raise CorruptEntryError(
                    opened.path,
                    "its SHA-256 is not the one in the manifest: activate another version",
                )

        if self._verify == "digest":
            for _ in reader.every(sizes, check, late=words, done=count):
                pass
        else:
            for _ in reader.each(
                lambda name: check(name, None), list(sizes), threads=reader.THREADS, late=words
            ):
                pass
