"""What a sweep did, in numbers; several are added up, for each worker has its own."""

from __future__ import annotations

_MOST_TOLD = 20  # paths and errors: a sweep of a broken tree must not need memory for each


class SweepReport:
    """What a sweep found and removed (with `dry_run`, would have removed).

    `finished`: whether everything has been swept; if not, the next call goes on. `looked`, `kept`, `kept_bytes`: cache
    entries, and those that stay; `opened`: those that had to be opened to tell. `removed`, `removed_bytes`: files of every
    kind; `reasons`: how many of them for each reason ("expired", "cleared", "old", "unused", "limit",
    "temporary", "generation", "checkpoint", "version"). `foreign`, `newer`, `damaged`: files and folders that were left
    alone, because they are not ours, a newer release's, or unreadable; `foreign_paths` has the first 20 of all three.
    `errors`, `error_texts`: what could not be swept, and why. `folders`: swept by this call; `elsewhere`: those that another
    sweeper has at this moment; `left`: not reached. `seconds`: how long it took.
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

    def gone(self, reason: str, size: int = 0, count: int = 1) -> None:
        """Note what was removed."""
        self.removed += count
        self.removed_bytes += size
        self.reasons[reason] = self.reasons.get(reason, 0) + count

    def stranger(self, kind: str, path: str) -> None:
        """Note what was left alone: `kind` is "foreign", "newer" or "damaged"."""
        setattr(self, kind, getattr(self, kind) + 1)
        if len(self.foreign_paths) < _MOST_TOLD:
            self.foreign_paths.append(path)

    def problem(self, error: BaseException, path: str = "") -> None:
        """Note what could not be swept."""
        self.errors += 1
        if len(self.error_texts) < _MOST_TOLD:
            why = getattr(error, "strerror", None)
            self.error_texts.append(
                f"{getattr(error, 'filename', None) or path}: {why}" if why else str(error)
            )

    def add(self, other: SweepReport) -> None:
        """Add what another worker did."""
        for name in self.__slots__:
            mine, theirs = getattr(self, name), getattr(other, name)
            if isinstance(mine, dict):
                for reason, count in theirs.items():
                    mine[reason] = mine.get(reason, 0) + count
            elif isinstance(mine, list):
                mine.extend(theirs[: _MOST_TOLD - len(mine)])
            elif not isinstance(mine, bool):
                setattr(self, name, mine + theirs)

    def as_dict(self) -> dict[str, object]:
        """All of it as plain values, for a log or a reply."""
        return {name: getattr(self, name) for name in self.__slots__}

    def __repr__(self) -> str:
        what = (
            ", ".join([f"{count} {reason}" for reason, count in sorted(self.reasons.items())])
            or "nothing"
        )
        tail = "" if self.finished else f", {self.left} folders left"
        return f"<SweepReport removed {what} ({self.removed_bytes} bytes), kept {self.kept} entries{tail}>"
