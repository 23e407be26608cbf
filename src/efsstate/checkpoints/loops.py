"""Keep the loops of one claim: which may run, where each begins, and if the job is finished."""

from __future__ import annotations

from efsstate.checkpoints.resume import Items, Loop
from efsstate.errors import EfsStateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from efsstate.checkpoints.pace import Job, Pace
    from efsstate.checkpoints.resume import Options

    Phase = list[Any]  # position, items, exhausted


class Loops:
    """The loops of one claim; `current` is the last one that began.

    `phases` has the position, the count of items and the end of each loop that has a name.
    """

    def __init__(self, job: Job, position: Any, items: int, phases: dict[str, Phase]) -> None:
        self._job = job
        self._position, self._items = position, items
        self.phases = {name: list(phase) for name, phase in phases.items()}
        self.has_names = bool(phases)
        self.current: Loop | None = None
        self._begun: list[Loop] = []

    def begin(self, source: Any, pace: Pace, options: Options) -> Loop:
        """Return a new loop, which starts where the last one of its name stopped.

        Raises `EfsStateError` if another one is running, or is at its end and has no name.
        """
        before, path = self.current, self._job.name
        if before is not None and before.running:
            raise EfsStateError(f"{path}: resume is running already; one loop at a time in a claim")
        if options.name is None and (self.phases or self._is_named(before)):
            names = ", ".join(sorted(self.phases)) or "one"
            raise EfsStateError(
                f"{path}: it has loops with names ({names}); give this resume a name=, too"
            )
        # MUT: a-second-loop-needs-a-name
        if options.name is None and before is not None and before.exhausted:
            raise EfsStateError(
                f"{path}: resume came to its source's end already, and a second one would begin in"
                " the middle of its own; give each a name=, for a position of its own"
            )
        if before is not None and before.options.name != options.name:
            self._job.save(True)  # that loop is over: its end counts
        loop = Loop(self._job, source, pace, options)
        loop.begin(*self._start_of(options.name))
        self.current = loop
        self.has_names = self.has_names or options.name is not None
        self._begun.append(loop)
        return loop

    @staticmethod
    def _is_named(loop: Loop | None) -> bool:
        return loop is not None and loop.options.name is not None

    def _start_of(self, name: str | None) -> tuple[Any, int]:
        if name is not None:
            position, items, _ = self.phases.get(name, (None, 0, False))
            return position, items
        if self.current is not None:  # it may be ahead of the last save
            return self.current.position, self.current.items
        return self._position, self._items

    def has_ended(self, name: str | None) -> bool:
        """Return True if the loop of that name came to its end in an earlier claim."""
        return name is not None and bool(self.phases.get(name, (None, 0, False))[2])

    def note_phase(self, position: Any, items: int) -> dict[str, Phase]:
        """Return the phases as a save at this position stores them."""
        loop = self.current
        if loop is not None and loop.options.name is not None:
            self.phases[loop.options.name] = [position, items, loop.exhausted]
        return self.phases

    @property
    def is_running(self) -> bool:
        """True if a loop began and did not end yet."""
        return self.current is not None and self.current.running

    @property
    def is_complete(self) -> bool:
        """True if every loop of this claim came to its source's end."""
        return bool(self._begun) and all(loop.exhausted for loop in self._begun_last())

    def _begun_last(self) -> list[Loop]:
        """Return the last loop of each name."""
        return list({loop.options.name: loop for loop in self._begun}.values())

    @property
    def may_finish(self) -> bool:
        """True if the job is finished once the block ends in order."""
        return self.is_complete and all(loop.options.finish for loop in self._begun)


__all__ = ["Items", "Loop", "Loops"]
