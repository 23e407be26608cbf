"""Every exception that efsstate raises of its own; an `OSError` and the caller's own exceptions travel untouched."""

from __future__ import annotations


class EfsStateError(Exception):
    """The base of every error here. A message reads `<path>: <what>: <why>` and says what to do."""


class RootError(EfsStateError):
    """There is no usable root: none named, not a directory, not mounted, or not writable."""


class CorruptEntryError(EfsStateError):
    """The bytes at `path` are damaged: `reason` says how. They were not used."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: damaged: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[CorruptEntryError], tuple[str, str]]:
        """Two arguments, so that it survives pickling between processes."""
        return type(self), (self.path, self.reason)


class SignatureError(CorruptEntryError):
    """The bytes at `path` are not signed with this deployment's key, or were signed for another place."""


class UnknownFormatError(EfsStateError):
    """The file at `path` has format `version`, newer than this release knows. It was left as it is."""

    def __init__(self, path: str, version: int) -> None:
        super().__init__(
            f"{path}: format {version} is newer than this release of efsstate knows: upgrade efsstate"
        )
        self.path = path
        self.version = version

    def __reduce__(self) -> tuple[type[UnknownFormatError], tuple[str, int]]:
        """Two arguments, so that it survives pickling between processes."""
        return type(self), (self.path, self.version)


class ClaimedError(EfsStateError):
    """Somebody else holds the claim: `owner` is what they said of themselves (host, process, since, deadline)."""

    def __init__(self, message: str, owner: dict[str, object] | None = None) -> None:
        super().__init__(message)
        self.owner = owner or {}


class ClaimLost(EfsStateError):  # noqa: N818 - the contract's name
    """The claim was taken over; what was being saved counts only if the new owner started from it."""


class ShardsError(EfsStateError, ValueError):
    """The name is a job with another number of shards."""


class EncodeError(EfsStateError, ValueError):
    """A value can't be stored by its codec without changing it."""


class ModelNotFound(EfsStateError, LookupError):  # noqa: N818 - the contract's name
    """No model, or no such version of it, is below the root."""
