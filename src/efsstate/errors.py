"""Define every exception of the package that a caller can meet.

An `OSError` and the caller's own exceptions travel untouched. A message reads
`<path or name>: <what happened>; <what to do>`.
"""

from __future__ import annotations

import errno


class EfsStateError(Exception):
    """Base of the errors that tell about the root, its files, and claims on them."""


class RootError(EfsStateError):
    """No usable root: none is named, or it is not a directory, not mounted, or not writable."""


class CorruptEntryError(EfsStateError):
    """The bytes at `path` are damaged in the way that `reason` says, and were not used."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: damaged: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[CorruptEntryError], tuple[str, str]]:
        """Return how to rebuild it from two arguments, so that it can be pickled."""
        return type(self), (self.path, self.reason)


class SignatureError(CorruptEntryError):
    """The bytes at `path` are unsigned, or signed with another key or for another place."""


class UnknownFormatError(EfsStateError):
    """The file at `path` has format `version`, newer than this release; it was left as it is."""

    def __init__(self, path: str, version: int) -> None:
        super().__init__(
            f"{path}: format {version} is newer than this release of efsstate knows:"
            " upgrade efsstate"
        )
        self.path = path
        self.version = version

    def __reduce__(self) -> tuple[type[UnknownFormatError], tuple[str, int]]:
        """Return how to rebuild it from two arguments, so that it can be pickled."""
        return type(self), (self.path, self.version)


class ForeignFilesError(EfsStateError):
    """A folder that was to be removed holds `paths` that efsstate did not make; nothing was."""

    def __init__(self, folder: str, paths: list[str]) -> None:
        more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
        super().__init__(
            f"{folder}: it holds files that are not efsstate's: {', '.join(paths[:3])}{more}; move"
            " them elsewhere first"
        )
        self.folder = folder
        self.paths = paths

    def __reduce__(self) -> tuple[type[ForeignFilesError], tuple[str, list[str]]]:
        """Return how to rebuild it from two arguments, so that it can be pickled."""
        return type(self), (self.folder, self.paths)


class ClaimedError(EfsStateError):
    """Another holder has the claim; `owner` is its own record: host, process, since, deadline."""

    def __init__(self, message: str, owner: dict[str, object] | None = None) -> None:
        super().__init__(message)
        self.owner = owner or {}


class ClaimLost(EfsStateError):  # noqa: N818 - the contract's name
    """The claim was taken over.

    A save that was under way counts only if the new holder started from it.
    """


class NotClaimed(ClaimLost):
    """Nothing is claimed: the block was not entered, or was left, or its invocation ended.

    Nothing was written.
    """


class SourceChanged(EfsStateError):  # noqa: N818 - the contract's name
    """The source of `resume` no longer gives the items that were done; nothing was finished."""


class DeadlineExceeded(EfsStateError):  # noqa: N818 - the contract's name
    """The deadline came before the work was done; the message tells how far it had come."""


class ShardsError(EfsStateError, ValueError):
    """The name is a job with another number of shards."""


class EncodeError(EfsStateError, ValueError):
    """The codec cannot store the value without changing it."""


class ModelNotFound(EfsStateError, LookupError):  # noqa: N818 - the contract's name
    """The root has no such model, or no such version of it."""


class SnapshotNotFound(EfsStateError, LookupError):  # noqa: N818 - the contract's name
    """The dataset has no snapshot of that name."""


class PartRemoved(EfsStateError, LookupError):  # noqa: N818 - a state, not a fault
    """The part of a snapshot was removed on purpose, after the snapshot was made."""


class MountTimeout(TimeoutError):  # noqa: N818 - a state of the mount, which the cache forgives
    """The mount did not answer within `io_timeout`, or the circuit is open because it did not.

    Or a lock of the cache was not free in time.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        # An OSError that has no errno is taken for a signal handler's.
        self.errno = errno.ETIMEDOUT


class UnstableError(TypeError):
    """A value that cannot be part of a key.

    Its arguments are a description, the reason, and the type to teach by `register`, or "".
    """

    def located(self, where: str, *, ignore: bool = False) -> TypeError:
        """Return the error for the caller, which names the place `where` and the ways out.

        `ignore` says that the place can be left out of the key by the option `ignore=`.
        """
        what, why, teachable = self.args
        ways = ["pass plain values"]
        if ignore:
            ways.append("leave it out with ignore=")
        if teachable:
            ways.append(f"teach it once with efsstate.register({teachable}, to_parts)")
        return TypeError(f"{where}: {what} can't be part of a key: {why}; {', or '.join(ways)}")


class TemplateError(Exception):
    """An infrastructure template cannot be checked; its text is one line that says why."""


class AccountError(EfsStateError):
    """The AWS account could not be looked at; its text is one line that says why."""
