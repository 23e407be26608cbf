"""The files of a manifest: where they were published, or in a copy on the local disk."""

from __future__ import annotations

import time

from efsstate import deadline, process
from efsstate.errors import CorruptEntryError, DeadlineExceeded
from efsstate.modelstore.open_file import OpenFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from efsstate.modelstore.manifest import Manifest
    from efsstate.modelstore.staging import Begun, StagedCopy
    from efsstate.mount.files import Mount

    T = TypeVar("T")
    Place = tuple[Mount, str]  # a mount and a folder below it


class CopiedFiles:
    """The files of `manifest` in `folder`, or in a local copy once one was asked for.

    `verify` is the check of each file, as `ModelFiles` has it. `is_checked`: all of them were
    checked. `reserved` is the time (s) to be left before the deadline, kept here because the
    threads of a `load` have no context of their own.
    """

    def __init__(
        self, mount: Mount, folder: str, manifest: Manifest, verify: str | None, reserved: float
    ) -> None:
        self.manifest, self.verify, self.is_checked = manifest, verify, False
        self._reserved = reserved
        self._staged: StagedCopy | None = None
        self._copying = process.lock()
        self._begun: Begun | None = None  # a file of which a part was read
        self._place = self._origin = mount, folder

    @property
    def is_local(self) -> bool:
        """Return True if the files are read from a local copy."""
        return self._place is not self._origin

    @property
    def has_digests(self) -> bool:
        """Return True if the manifest has the digest of every file."""
        return all(digest for _, digest in self.manifest.files.values())

    def end_load(self) -> None:
        """Release the reserved time, and the copy's open folders: only the load needed them."""
        self._reserved = 0.0
        if self._staged is not None:
            # The folders of several models are more descriptors than a function may have.
            # MUT: folders-of-a-copy-do-not-stay-open
            self._staged.mount.forget(self._staged.folder)

    def path(self, *, of_origin: bool = False) -> str:
        """Return the path of the file if a single one was published, or of the folder."""
        mount, folder = self._origin if of_origin else self._place
        is_file = self.manifest.single and not of_origin
        return mount.path_of(folder, next(iter(self.manifest.files)) if is_file else "")

    def open(self, name: str, *, direct: bool = True) -> tuple[OpenFile, str | None]:
        """Return the open file, its size compared, and the digest to compare it with."""
        return self._open(name, self._place, direct=direct)

    def _open(self, name: str, place: Place, *, direct: bool = True) -> tuple[OpenFile, str | None]:
        size, digest = self.manifest.files[name]
        mount, folder = place
        folder, _, last = f"{folder}/{name}".strip("/").rpartition("/")
        opened = OpenFile(mount, folder, last, direct=direct)
        if self.verify is not None and opened.size != size:
            raise CorruptEntryError(
                opened.path,
                f"{opened.size} bytes, and not the {size} that were published; activate another"
                " version",
            )
        return opened, digest if self.verify == "digest" and digest else None

    def only(self, name: str) -> CopiedFiles:
        """Return the file `name` as files of its own, with a copy of its own."""
        if len(self.manifest.files) == 1:
            return self
        mount, folder = self._origin
        manifest = self.manifest.only(name)
        return CopiedFiles(mount, folder, manifest, self.verify, self._reserved)

    # The copy

    def is_begun(self, copies: frozenset[str]) -> bool:
        """Return True if the copy, or a part of it, is among these: see `staging.begun`."""
        return bool(copies) and self._copy_name() in copies

    def has_room(self) -> bool:
        """Return True if the copy fits on the local disk without removing any other."""
        from efsstate.modelstore import staging

        return staging.has_room(self._copy_name(), self.manifest)

    def use_copy(self) -> None:
        """Read the files from the local copy from here on; make it if need be."""
        self._one_at_a_time(self._copy)

    def with_copy(self, work: Callable[[], T], begun: Begun | None = None) -> T:
        """Do `work` with the local copy; `begun` is a file's name and the first bytes of it."""
        self._begun = begun if begun is not None and len(begun[1]) else None
        try:
            return self.do(work, local=True)
        finally:
            self._begun = None

    def do(self, work: Callable[[], T], *, local: bool = False) -> T:
        """Do `work`; if it meets a damaged local copy, make the copy again, and `work` once more.

        `local`: make a local copy first.
        """
        reserved = deadline.reserved.get()
        try:
            # MUT: the-threads-of-a-load-leave-time-too
            deadline.reserved.set(max(reserved, self._reserved))
            if local or self.is_local:
                self.use_copy()  # also if a damaged copy could not be made again before
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

    def _copy(self) -> None:
        if self._staged is not None:
            return
        from efsstate.modelstore import staging

        def open_file(name: str) -> OpenFile:
            return self._open(name, self._origin)[0]

        staged = staging.stage(self._copy_name(), self.manifest, open_file, self._begun)
        # Sizes were compared now. Bytes are compared when a copy is made, perhaps long ago.
        self.is_checked = staged.is_new or self.verify != "digest"
        self._staged, self._place = staged, (staged.mount, staged.folder)

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

    def _copy_name(self) -> str:
        from hashlib import blake2b

        mount, folder = self._origin
        version, content = self.manifest.version, self.manifest.content
        identity = f"{mount.path_of(folder)}\0{version}\0{content}"
        return blake2b(identity.encode(), digest_size=16).hexdigest()

    def _one_at_a_time(self, work: Callable[[], T]) -> T:
        """Do `work` while no other thread does any; wait for it until the deadline."""
        acquired: list[bool] = []
        try:
            # In C, so that no signal handler comes between the acquisition and its record.
            seconds = max(0.0, deadline.until_done() - time.monotonic())
            # MUT: an-alarm-leaves-no-copy-locked
            acquired.extend(map(self._copying.acquire, (True,), (seconds,)))
            if acquired != [True]:
                raise DeadlineExceeded(
                    f"{self.path()}: another thread was still copying it when the deadline came"
                )
            return work()
        finally:
            if acquired == [True]:
                self._copying.release()


def _in_use(error: CorruptEntryError | FileNotFoundError) -> CorruptEntryError:
    """Return the error for a damaged copy that another process still uses."""
    if isinstance(error, CorruptEntryError):
        path, why = error.path, error.reason
    else:
        path, why = str(error.filename), "missing"
    return CorruptEntryError(
        path, f"{why}; this local copy is not replaced while another model or process uses it"
    )
