"""Offer a checkpoint to its user: load, claim, save, finish, and the errors of each."""

from __future__ import annotations

import os
import time

from efsstate import deadline, events, process
from efsstate.checkpoints import claimant, protocol
from efsstate.checkpoints.claim import HeldClaim
from efsstate.checkpoints.looping import Looping
from efsstate.checkpoints.protocol import CheckpointFolder
from efsstate.checkpoints.saves import States
from efsstate.errors import ClaimedError, ClaimLost, EfsStateError, NotClaimed
from efsstate.format import layout
from efsstate.format.codec import resolve_codec
from efsstate.generic import TypeVar
from efsstate.mount.root import absolute, resolve
from efsstate.units import seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any

    from efsstate.checkpoints.attempts import Attempts
    from efsstate.checkpoints.claimant import Status
    from efsstate.checkpoints.loops import Loops
    from efsstate.checkpoints.saves import Save
    from efsstate.checkpoints.shards import Shards
    from efsstate.mount.files import Buffer
    from efsstate.units import Duration

S = TypeVar("S", default="Any")
T = TypeVar("T")

_AS_IT_IS: Any = object()  # the state as it is: None is a state too


def checkpoint(
    name: str,
    *,
    context: object = None,
    wait: Duration = 0,
    keep: int = 3,
    ttl: Duration | None = None,
    codec: Any = "msgpack",
    schema: int = 1,
    migrate: Callable[[Any, int], Any] | None = None,
    margin: Duration | None = None,
    accept_older: bool = False,
    initial: Any = None,
    abandon_after: Duration | None = None,
    root: str | os.PathLike[str] | None = None,
) -> Checkpoint[Any]:
    """Return the checkpoint `name`: one run's progress, kept on the mount.

    `.load()` reads it from anywhere; in a `with` it is claimed, and can be saved.

    context: the Lambda context, whose deadline holds inside the `with`.
    wait: how long to wait for another owner, as seconds or "30s".
    keep: how many valid saves stay.
    ttl: how long after it finished the sweep may remove it; None for never.
    codec: "msgpack", "pickle" or an object with dumps and loads.
    schema, migrate(state, old_schema): for states that outlive a deployment.
    margin: seconds before the deadline at which `resume` stops.
    accept_older: go on from an older state if the newest acknowledged one is damaged.
    initial: the state of a job that saved nothing yet; each claim gets a copy.
    abandon_after: how long after its last save the sweep may remove an unfinished job.

    Nothing touches the mount before the first use. Raises `ValueError` or `TypeError` for a bad
    option.
    """
    return Checkpoint(
        name,
        context=context,
        wait=wait,
        keep=keep,
        ttl=ttl,
        codec=codec,
        schema=schema,
        migrate=migrate,
        margin=margin,
        accept_older=accept_older,
        initial=initial,
        abandon_after=abandon_after,
        root=root,
    )


class Checkpoint(Looping[S]):
    """One run's progress; see `checkpoint`.

    A claim belongs to this object: any thread may save through it, one at a time; a forked child
    holds nothing. `state`, `position`, `finished`, `result` and `saves` are as last loaded, claimed
    or saved; `epoch` is the fencing number of the claim; `unsettled` is True if the last load may
    yet turn out to have returned a save that does not count.
    """

    def __init__(self, name: str, **options: Any) -> None:
        self.name = name
        # A relative root is below the working directory of now, whatever `chdir` comes later.
        self._options = {**options, "root": absolute(options.get("root"))}
        self._folder_name = layout.checkpoint_folder(name)
        # The name as a whole, if the folder's cannot give it back.
        readable = layout.readable(self._folder_name.removeprefix(f"{layout.CHECKPOINTS}/"))
        self._stored_name = "" if readable == name else name
        self._check_options(**options)
        self._guard = process.lock()
        self._folder: CheckpointFolder | None = None
        self._states: States = None  # type: ignore[assignment]  # with the folder
        self._state: Any = None
        self._newest: Save | None = None
        self._loops: Loops | None = None
        self._attempts: Attempts | None = None
        self._moved = 0  # the epoch in which the position last moved
        self._claim: HeldClaim | None = None
        self._outer: deadline.Invocation | None = None  # the invocation that ends the claim
        self._own: deadline.Invocation | None = None  # the one of `context`
        self._position: Any = None
        self._items = 0
        self.skipped: list[dict[str, Any]] = []
        self.epoch: int | None = None
        self.finished = False
        self.result: Any = None
        self.saves = 0
        self.unsettled = False

    def _check_options(
        self,
        *,
        context: object,
        wait: Duration,
        keep: int,
        ttl: Duration | None,
        codec: Any,
        migrate: object,
        schema: int,
        margin: Duration | None,
        abandon_after: Duration | None,
        **_others: object,
    ) -> None:
        if context is not None:
            deadline.demand_context(context, "context")
        self._wait = seconds(wait, "wait")
        self._keep = _whole_number(keep, "keep", 100)
        self._ttl = None if ttl is None else seconds(ttl, "ttl")
        self._schema = _whole_number(schema, "schema", 2**31)
        self._margin = None if margin is None else seconds(margin, "margin")
        self._abandon_after = (
            None if abandon_after is None else seconds(abandon_after, "abandon_after")
        )
        if migrate is not None:
            _require_function(migrate, "migrate")
        if codec not in ("msgpack", "pickle"):
            resolve_codec(codec)  # refuse a bad codec now, not at the first save

    def __repr__(self) -> str:
        claimed = self._claim is not None and self._claim.is_held()
        return f"<{type(self).__name__} {self.name!r} {'claimed' if claimed else 'not claimed'}>"

    def _open_folder(self) -> CheckpointFolder:
        if self._folder is None:
            options = self._options
            mount = resolve(options["root"])
            if not mount.named:
                resolve(options["root"], durable=True)  # raises: a throw-away disk is no place
            self._folder = CheckpointFolder(mount, self._folder_name, self._stored_name)
            self._states = States(
                options["codec"], self._schema, options["migrate"], signed=mount.key is not None
            )
        return self._folder

    def _adopt(self, save: Save | None) -> None:
        """Take over what was saved."""
        folder = self._open_folder()
        self._state = self._states.decode(save, folder.path(save.key)) if save else None
        self._newest = save
        blank = save is None or save.empty
        self._position = None if blank or save is None else save.position
        self._items = 0 if blank or save is None else save.items
        notes = {} if blank or save is None else save.notes
        self.skipped = list(notes.get("skipped", ()))
        if blank and self._options["initial"] is not None:
            self._state = self._states.copy(self._options["initial"])
        self.finished = save is not None and save.finished
        self.result = save.result if save else None
        self.saves = save.saves if save else 0

    # Reading

    def load(self, default: Any = None) -> Any:
        """Return the newest saved state, from any host, without a claim; else `default`.

        A damaged save is passed over for the one before it, with a warning. Raises
        `CorruptEntryError` if all are damaged, `EfsStateError` for a state of a newer schema, and
        `OSError`.
        """
        with self._guard:
            started = time.perf_counter()
            folder = self._open_folder()
            newest, settled = folder.newest()
            save = newest.save
            self.unsettled = not settled
            if not settled:
                text = "checkpoint %s: the state that was loaded is not settled yet"
                events.log(
                    "warning", text, self.name, kind="checkpoint", event="unsettled", name=self.name
                )
            if self._claim is None:
                self._adopt(save)
                state = self._state
            else:  # the owner's own state stays as it is
                state = self._states.decode(save, folder.path(save.key)) if save else None
            events.emit("checkpoint", "load", self.name, seconds=time.perf_counter() - started)
            return default if save is None or save.empty else state

    @property
    def state(self) -> Any:
        """The state as loaded, claimed, or assigned since; the next save stores it."""
        return self._state

    @state.setter
    def state(self, value: Any) -> None:
        if self._claim is None or self._claim.ended:
            self._require_claim()
        self._state = value

    # Claiming

    def __enter__(self) -> Checkpoint[S]:
        return self._enter(None)

    def _enter(self, until: float | None) -> Checkpoint[S]:
        own = self._new_invocation()
        if own is not None:
            own.__enter__()
        try:
            self._begin_claim(until, accept_older=self._options["accept_older"])
        except BaseException:
            if own is not None:
                own.__exit__(None, None, None)
            raise
        self._own = own
        return self

    def _begin_claim(self, until: float | None, *, accept_older: bool) -> None:
        resolve(self._options["root"], durable=True)  # refuse a root that can't be written
        folder, started = self._open_folder(), time.perf_counter()
        claim = HeldClaim(folder, self._keep)
        until = deadline.until(self._wait) if until is None else until
        try:
            waited = claim.acquire(until, accept_older=accept_older)
        except ClaimedError:
            elapsed = time.perf_counter() - started
            events.emit("checkpoint", "refused", self.name, seconds=elapsed)
            raise
        try:
            self._adopt(claim.newest)
        except BaseException:
            claim.release()
            raise
        self._claim, self.epoch, self._moved = claim, claim.epoch, claim.moved
        self._loops, self._attempts, self.unsettled = None, None, False
        self._outer = deadline.current()
        if self._outer is not None:
            self._outer.hold(self, self._release)
        elapsed = time.perf_counter() - started
        events.emit(
            "checkpoint", "claim", self.name, epoch=self.epoch, waited=waited, seconds=elapsed
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            claim = self._claim
            if claim is not None and claim.is_valid():
                self._leave_loops(error)
        finally:
            self._release()
            self._loops = None
            self._leave_invocation()

    async def __aenter__(self) -> Checkpoint[S]:
        """Claim it; while another owner has it, wait without holding up the event loop."""
        import asyncio

        until = deadline.until(self._wait)
        while True:
            try:
                return self._enter(time.monotonic())
            except ClaimedError:
                if time.monotonic() >= until:
                    raise
            await asyncio.sleep(0.05)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, trace)

    def _release(self) -> None:
        """End the claim."""
        outer, self._outer = self._outer, None
        if outer is not None:
            outer.drop(self)
        if self._claim is not None:
            self._claim.release()

    def _new_invocation(self) -> deadline.Invocation | None:
        context = self._options["context"]
        return None if context is None else deadline.Invocation(context)

    def _leave_invocation(self) -> None:
        own, self._own = self._own, None
        if own is not None:
            own.__exit__(None, None, None)

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

    # Saving

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

    # The rest

    def update(self, function: Callable[[Any], T], default: Any = None) -> T:
        """Claim, load, save the new state `function(state)`, release, and return it.

        `default` stands for the state if nothing was saved.
        """
        _require_function(function, "function")
        with self:
            blank = self._newest is None or self._newest.empty
            self.save(function(default if blank else self._state))
            return self._state  # type: ignore[no-any-return]

    def reset(self) -> None:
        """Start over: nothing that was saved or finished before counts any more.

        Inside the `with` it uses its claim, elsewhere a claim of its own. A job with shards starts
        over with each of them. Raises `ClaimedError` if another process holds one.
        """
        folder = self._open_folder()
        if layout.SHARDS in folder.list().names:
            for index in self.shards().begun():
                Shard(self.name, index, self._options).reset()
        if self._claim is not None and not self._claim.ended:
            with self._guard:
                self._reset()
            return
        self._begin_claim(None, accept_older=True)
        try:
            self._reset()
        finally:
            self._release()

    def _reset(self) -> None:
        claim = self._require_claim()
        self._before_reset()
        self._loops, self._attempts, self.skipped = None, None, []
        self.finished, self._state = False, self._states.copy(self._options["initial"])
        self._write(claim, self._states.encode(None), None, 0, empty=True)

    def _before_reset(self) -> None:
        """Prepare a subclass's own state before its reset is saved."""

    def break_claim(self) -> dict[str, Any]:
        """Fence the claim's holder: none of its later saves counts, and others may claim at once.

        Returns the record of the last claimant; {} for a name that does not exist, and then nothing
        is made.
        """
        folder = self._open_folder()
        listing = folder.list()
        if not listing.names:
            return {}  # a mistyped name must not become a checkpoint
        record = claimant.read(folder, listing.top)
        try:
            folder.claim(claimant.describe(folder.name, broke_the_claim=True))
        except (protocol.Superseded, protocol.BeingRemoved):
            pass  # it has an epoch all the same, which fences
        # A hung holder has the lock file locked: the next claimant makes its own.
        folder.mount.remove(folder.folder, layout.LOCK, quiet=True)
        return record

    def status(self) -> Status:
        """Return the holder, since when, how far it is and where, without a claim or the state.

        claimed: True if some process holds it now.
        owner: the record of the last claimant.
        epoch, finished, items, saves: as of the newest save.
        position: as text.
        saved: seconds since the epoch by the server's clock, or None.
        bytes, path: of the newest save.
        attempts: the count of claims since the position last moved; 0 if there was none.
        skipped: the count of skipped items.
        shards: counts of all, done and claimed shards, or None.
        """
        from efsstate.checkpoints.status import read_status

        return read_status(self._open_folder(), self.name)

    def shards(self, n: int | None = None) -> Shards[Shard[S]]:
        """Return `n` checkpoints that any number of workers share, for a `with`.

        Without `n` the job's number is read from the mount. Raises `ShardsError` if the job has
        another number, or none.
        """
        from efsstate.checkpoints.shards import ShardFolder, Shards

        return Shards(
            n,
            open_folder=lambda n, **how: ShardFolder(self._open_folder(), n, **how),
            make_shard=lambda index: Shard(self.name, index, self._options),
            invocation=self._new_invocation(),
            margin=self._margin,
        )


class Shard(Checkpoint[S]):
    """One of the shards of a checkpoint, a checkpoint of its own; `index` is its number from 0."""

    def __init__(self, parent: str, index: int, options: dict[str, Any]) -> None:
        super().__init__(f"{parent}[{index}]", **{**options, "context": None, "wait": 0})
        self.index = index
        self.on_finished: Callable[[], None] | None = None
        """Marks the shard as finished, for the other workers."""
        self._parent = parent
        self._folder_name = layout.shard_folder(parent, index)

    def _leave_loops(self, error: BaseException | None) -> None:
        super()._leave_loops(error)
        # While the claim is held, so no reset comes between the last save and the mark: a shard
        # that is marked is never looked into again.
        if self.finished and self.on_finished is not None:
            try:
                self.on_finished()
            except OSError:
                if error is None:
                    raise

    def _before_reset(self) -> None:
        """Remove the mark that the shard is finished, so that workers look into it again.

        It goes before the reset: a worker that finds a finished shard without its mark makes it.
        """
        from efsstate.checkpoints.shards import ShardFolder

        parent = CheckpointFolder(self._open_folder().mount, layout.checkpoint_folder(self._parent))
        ShardFolder(parent, None).unmark(self.index)


def _require_function(value: object, what: str) -> None:
    if not callable(value):
        raise TypeError(f"{what}: a function is needed, not {value!r}")


def _whole_number(value: Any, what: str, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ValueError(f"{what}: a whole number from 1 to {most} is needed, not {value!r}")
    return value
