"""Save a checkpoint's state and progress, and finish it: the writing half of `Checkpoint`."""

from __future__ import annotations

import time

from efsstate import events
from efsstate.errors import ClaimLost, EfsStateError, NotClaimed
from efsstate.generic import Generic, TypeVar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from efsstate.checkpoints.attempts import Attempts
    from efsstate.checkpoints.claim import HeldClaim
    from efsstate.checkpoints.loops import Loops
    from efsstate.checkpoints.protocol import CheckpointFolder
    from efsstate.checkpoints.resume import Loop
    from efsstate.checkpoints.saves import Save, States
    from efsstate.mount.files import Buffer

S = TypeVar("S", default="Any")


class _State:
    """The state as it is, as the default of `save`: None is a state too."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<job.state>"


_AS_IT_IS: Any = _State()


class Saving(Generic[S]):
    """The saves of a checkpoint; see `Checkpoint`."""

    if TYPE_CHECKING:
        name: str
        finished: bool
        result: Any
        saves: int
        epoch: int | None
        skipped: list[dict[str, Any]]
        _guard: Any
        _newest: Save | None
        _state: Any
        _states: States
        _stored_name: str
        _schema: int
        _ttl: float | None
        _abandon_after: float | None
        _position: Any
        _items: int
        _moved: int
        _margin: float | None
        _claim: HeldClaim | None
        _loops: Loops | None
        _attempts: Attempts | None

        def _open_folder(self) -> CheckpointFolder: ...

    def _require_claim(self) -> HeldClaim:
        """Return the claim; raise `ClaimLost` unless this process holds it."""
        claim = self._claim
        if claim is None:
            raise NotClaimed(
                f"{self._open_folder().path()}: it is not claimed; use it inside"
                " `with checkpoint(...) as job:`"
            )
        claim.require()
        return claim

    def save(self, state: Any = _AS_IT_IS, *, done: bool = True) -> None:
        """Save `state`, by default `job.state`, with the position now.

        Once this returns, every later load or claim has it. In the body of `resume` it counts the
        current item as done, unless `done` is False.

        Raises `ClaimLost`: this save counts only if the new owner started from it. Raises
        `OSError`: it may or may not count, the claim is still held, and the next save decides.
        Raises `EncodeError`: nothing was written.
        """
        with self._guard:
            claim = self._require_claim()
            self._require_unfinished()
            new_state = self._state if state is _AS_IT_IS else state
            encoded = self._states.encode(new_state)
            self._state = new_state
            position, items = self._progress(done=done)
            self._write(claim, encoded, position, items)

    def finish(self, result: Any = None) -> None:
        """Save `job.state` and `result` as the last save.

        Once a load or claim has returned finished, it stays so.
        """
        with self._guard:
            claim = self._require_claim()
            self._require_unfinished()
            encoded = self._states.encode(self._state)
            position, items = self._progress()
            self._write(claim, encoded, position, items, finished=True, result=result)

    @property
    def _loop(self) -> Loop | None:
        return self._loops.current if self._loops is not None else None

    def _progress(self, *, done: bool = True) -> tuple[Any, int]:
        loop = self._loop
        if loop is None:
            return self._position, self._items
        position, items = loop.count_current() if done else (loop.position, loop.items)
        # A save in the body may have counted the item that is handed out: it stays done.
        return (position, items) if items >= loop.saved_items else (self._position, self._items)

    def _require_unfinished(self) -> None:
        # MUT: finished-stays-finished
        if self.finished:
            raise EfsStateError(
                f"{self._open_folder().path()}: it is finished, and stays so; use another name for"
                " another run, or reset()"
            )

    def _write(
        self,
        claim: HeldClaim,
        encoded: list[Buffer],
        position: Any,
        items: int,
        *,
        finished: bool = False,
        result: Any = None,
        empty: bool = False,
        at_rest: bool = False,
    ) -> None:
        started, loops = time.perf_counter(), self._loops
        save = claim.new_save()
        if empty or items != self._items or position != self._position:
            self._moved = claim.epoch
        save.moved, save.left = self._moved, at_rest or finished
        if self._stored_name:
            save.name = self._stored_name
        newest, attempts = self._newest, self._attempts
        has_names = loops is not None and loops.has_names
        if has_names or attempts or self.skipped or (newest is not None and newest.notes):
            self._add_notes(save, position, items)
        save.state, save.schema, save.empty = encoded, self._schema, empty
        save.position, save.items, save.saves = position, items, self.saves + 1
        save.finished, save.result = finished, result
        ttl = self._ttl if finished else self._abandon_after
        try:
            claim.save(save, codec=self._states.codec, ttl=ttl)
        except ClaimLost:
            events.emit("checkpoint", "lost", self.name, epoch=self.epoch)
            raise
        self._position, self._items, self.saves = position, items, save.saves
        self._newest = save
        self.finished, self.result = finished, result
        if loops is not None and loops.current is not None:
            loops.current.saved_items = items
        events.emit(
            "checkpoint",
            "save",
            self.name,
            seconds=time.perf_counter() - started,
            bytes=sum(map(len, encoded)),
            finished=finished,
        )

    def _add_notes(self, save: Save, position: Any, items: int) -> None:
        """Add to a save the loops with names, the skipped items and the tries of the next one."""
        if save.empty:
            return
        attempts = self._attempts
        phases = self._loops.note_phase(position, items) if self._loops is not None else {}
        if self._loops is None and self._newest is not None:
            phases = self._newest.notes.get("phases", {})
        notes: dict[str, Any] = {}
        if phases:
            notes["phases"] = phases
        if self.skipped:
            notes["skipped"] = self.skipped
        if attempts is not None and attempts.error:
            notes["error"] = attempts.error
        save.notes = notes
        save.skipped = len(self.skipped)
        save.tries = attempts.tries if attempts is not None else 0

    def _save_loop(self, is_at_rest: bool) -> None:
        """Save the progress of a loop; `is_at_rest`: no item was begun after it."""
        with self._guard:
            claim = self._require_claim()
            self._require_unfinished()
            encoded = self._states.encode(self._state)
            position, items = self._progress()
            self._write(claim, encoded, position, items, at_rest=is_at_rest)

    def _save_kept(self, encoded: list[Buffer], position: Any, items: int) -> None:
        """Save a state that a loop kept from an item's end, at the end of its block."""
        with self._guard:
            self._write(self._require_claim(), encoded, position, items, at_rest=True)
