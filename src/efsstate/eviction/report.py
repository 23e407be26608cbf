"""Count the results of a sweep; each worker has a report of its own, and they are added up."""

from __future__ import annotations

_MOST_LISTED = 20  # paths and errors: a sweep of a broken tree must not need memory for each
_COUNTS = (
    *("looked", "kept", "kept_bytes", "opened", "removed", "removed_bytes", "foreign", "newer"),
    *("damaged", "errors", "folders", "elsewhere", "left", "seconds"),
)


class SweepReport:
    """The results of a sweep; with `dry_run`, those that it would have had.

    finished      everything has been swept; if False, the next call goes on
    looked        cache entries that were judged
    opened        cache entries of which the header had to be read
    kept          cache entries that stay, and `kept_bytes`
    removed       files of every kind that went, and `removed_bytes`
    reasons       how many went for each reason: "expired", "cleared", "old", "unused", "limit",
                  "temporary", "generation", "checkpoint", "version", "snapshot", "record"
    foreign       files and folders that stay because efsstate did not make them
    newer         files and folders that stay because a newer release wrote them
    damaged       files that stay because they cannot be read
    foreign_paths the first 20 of these three
    errors        how much could not be swept, and `error_texts`: the first 20 reasons
    folders       folders of entries, groups of checkpoints, models, datasets and records,
                  swept by this call
    elsewhere     those that another sweeper has at this moment
    left          those that were not reached
    seconds       how long it took
    """

    __slots__ = (
        "damaged",
        "dry_run",
        "elsewhere",
        "error_texts",
        "errors",
        "finished",
        "folders",
        "foreign",
        "foreign_paths",
        "kept",
        "kept_bytes",
        "left",
        "looked",
        "newer",
        "opened",
        "reasons",
        "removed",
        "removed_bytes",
        "seconds",
    )

    def __init__(self, *, dry_run: bool = False) -> None:
        self.dry_run, self.finished, self.seconds = dry_run, True, 0.0
        self.looked = self.kept = self.kept_bytes = self.opened = 0
        self.removed = self.removed_bytes = 0
        self.reasons: dict[str, int] = {}
        self.foreign = self.newer = self.damaged = self.errors = 0
        self.foreign_paths: list[str] = []
        self.error_texts: list[str] = []
        self.folders = self.elsewhere = self.left = 0

    def keep(self, size: int) -> None:
        """Count a cache entry that stays."""
        self.kept += 1
        self.kept_bytes += size

    def note_removed(self, reason: str, size: int = 0) -> None:
        """Count a file that was removed."""
        self.removed += 1
        self.removed_bytes += size
        self.reasons[reason] = self.reasons.get(reason, 0) + 1

    def leave(self, kind: str, path: str) -> None:
        """Count and name a file that stays: it is "foreign", "newer" or "damaged" (`kind`)."""
        setattr(self, kind, getattr(self, kind) + 1)
        if len(self.foreign_paths) < _MOST_LISTED:
            self.foreign_paths.append(path)

    def note_error(self, error: BaseException, path: str = "") -> None:
        """Count and name an error of sweeping."""
        self.errors += 1
        if len(self.error_texts) < _MOST_LISTED:
            self.error_texts.append(_text(error, path))

    def add(self, other: SweepReport) -> None:
        """Add another worker's report."""
        for name in _COUNTS:
            if count := getattr(other, name):
                setattr(self, name, getattr(self, name) + count)
        for reason, count in other.reasons.items():
            self.reasons[reason] = self.reasons.get(reason, 0) + count
        self.foreign_paths += other.foreign_paths[: _MOST_LISTED - len(self.foreign_paths)]
        self.error_texts += other.error_texts[: _MOST_LISTED - len(self.error_texts)]

    def as_dict(self) -> dict[str, object]:
        """Return all fields as plain values, for a log or a reply."""
        return {name: getattr(self, name) for name in self.__slots__}

    def __repr__(self) -> str:
        reasons = [f"{count} {reason}" for reason, count in sorted(self.reasons.items())]
        tail = "" if self.finished else f", {self.left} folders left"
        removed = ", ".join(reasons) or "nothing"
        return (
            f"<SweepReport removed {removed} ({self.removed_bytes:,} bytes),"
            f" kept {self.kept:,} {'entry' if self.kept == 1 else 'entries'}{tail}>"
        )

    def _repr_html_(self) -> str:
        from efsstate.notebook import table

        texts = {"reasons", "foreign_paths", "error_texts"}
        rows = [(name, getattr(self, name)) for name in self.__slots__ if name not in texts]
        rows += [(f"removed: {reason}", count) for reason, count in self.reasons.items()]
        rows += [("foreign", path) for path in self.foreign_paths]
        rows += [("error", text) for text in self.error_texts]
        return table("SweepReport" + (" of a dry run" if self.dry_run else ""), rows)


def _text(error: BaseException, path: str) -> str:
    """Return the error's path and text."""
    from efsstate.errors import EfsStateError

    reason = getattr(error, "strerror", None)
    if reason:
        return f"{getattr(error, 'filename', None) or path}: {reason}"
    if isinstance(error, EfsStateError):
        return str(error)
    return f"{path}: {type(error).__name__}: {error}"
