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

    def __init__(self, job: Job, phases: dict[str, Phase]) -> None:
        self._job = job
        self.phases = {name: list(phase) for name, phase in phases.items()}
        self.has_names = bool(phases)
        self.current: Loop | None = None
        self._begun: list[Loop] = []

    def begin(self, source: Any, pace: Pace, options: Options, position: Any, items: int) -> Loop:
        """Return a new loop, which starts where the last one of its name stopped.

        `position` and `items` are the job's, which may be ahead of the last save. Raises
        `EfsStateError` if another loop is running, or is at its end and has no name, or if some
        loops have names and others have none.
        """
        before, path = self.current, self._job.name
        if before is not None:
            before.require_rest()
        if options.name is None and (self.phases or self._is_named(before)):
            names = ", ".join(sorted(self.phases)) or "one"
            raise EfsStateError(
                f"{path}: it has loops with names ({names}); give this resume a name=, too"
            )
        is_unnamed = items > 0 if before is None else before.options.name is None
        # MUT: a-name-beside-a-loop-without-one
        if options.name is not None and not self.phases and is_unnamed:
            raise EfsStateError(
                f"{path}: it has a loop without a name, which did {items:,} items; leave out name="
                " here, or give each loop a name from the start (reset() starts over)"
            )
        # MUT: a-second-loop-needs-a-name
        if options.name is None and before is not None and before.exhausted:
            raise EfsStateError(
                f"{path}: resume came to its source's end already, and a second one would begin in"
                " the middle of its own; give each a name=, for a position of its own"
            )
        if before is not None and before.may_count:
            if before.options.name != options.name:
                self._job.save(True)  # that loop is over: its end counts
            # MUT: a-second-loop-of-a-name-goes-on
            self.note_phase(position, items)
        loop = Loop(self._job, source, pace, options, self._begun)
        if options.name is None:
            loop.begin(position, items)
        else:
            loop.begin(*self.phases.get(options.name, (None, 0, False))[:2])
        self.current = loop
        self.has_names = self.has_names or options.name is not None
        self._begun.append(loop)
        return loop

    @staticmethod
    def _is_named(loop: Loop | None) -> bool:
        return loop is not None and loop.options.name is not None

    def end(self, reason: EfsStateError) -> None:
        """Give no further items: raise `reason` for the next one."""
        for loop in self._begun:
            loop.ended = reason

    def has_ended(self, name: str | None) -> bool:
        """Return True if the loop of that name came to its end before."""
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
