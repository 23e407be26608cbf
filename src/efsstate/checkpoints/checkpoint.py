"""Offer a checkpoint to its user: load, claim, save, finish, and the errors of each."""

from __future__ import annotations

import os
import time

from efsstate import deadline, events, process
from efsstate.checkpoints import claimant, protocol
from efsstate.checkpoints.claim import HeldClaim
from efsstate.checkpoints.protocol import CheckpointFolder
from efsstate.checkpoints.saves import States
from efsstate.errors import ClaimedError, ClaimLost, EfsStateError
from efsstate.format import layout
from efsstate.format.codec import resolve_codec
from efsstate.generic import Generic, TypeVar
from efsstate.mount.root import resolve
from efsstate.units import seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType
    from typing import Any, overload

    from efsstate.checkpoints.claimant import Status
    from efsstate.checkpoints.resume import Loop
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
        root=root,
    )


class Checkpoint(Generic[S]):
    """One run's progress; see `checkpoint`.

    A claim belongs to this object: any thread may save through it, one at a time; a forked child
    holds nothing. `state`, `position`, `finished`, `result` and `saves` are as last loaded, claimed
    or saved; `epoch` is the fencing number of the claim; `unsettled` is True if the last load may
    yet turn out to have returned a save that does not count.
    """

    def __init__(self, name: str, **options: Any) -> None:
        self.name = name
        self._options = options
        self._folder_name = layout.checkpoint_folder(name)
        self._check_options(**options)
        self._guard = process.lock()
        self._folder: CheckpointFolder | None = None
        self._states: States = None  # type: ignore[assignment]  # with the folder
        self._state: Any = None
        self._newest: Save | None = None
        self._loop: Loop | None = None
        self._claim: HeldClaim | None = None
        self._outer: deadline.Invocation | None = None  # the invocation that ends the claim
        self._own: deadline.Invocation | None = None  # the one of `context`
        self.epoch: int | None = None
        self.position: Any = None
        self.items = 0
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
        **_others: object,
    ) -> None:
        if context is not None:
            deadline.demand_context(context, "context")
        self._wait = seconds(wait, "wait")
        self._keep = _whole_number(keep, "keep", 100)
        self._ttl = None if ttl is None else seconds(ttl, "ttl")
        self._schema = _whole_number(schema, "schema", 2**31)
        self._margin = None if margin is None else seconds(margin, "margin")
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
            self._folder = CheckpointFolder(mount, self._folder_name)
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
        self.position = None if blank or save is None else save.position
        self.items = 0 if blank or save is None else save.items
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
                events.log("warning", text, self.name)
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

    @property
    def token(self) -> tuple[str, Any]:
        """(name, position): equal when an item is done again, so a key for idempotent effects."""
        return self.name, self._loop.current() if self._loop else self.position

    # Claiming

    def __enter__(self) -> Checkpoint[S]:
        self._own = self._new_invocation()
        if self._own is not None:
            self._own.__enter__()
        try:
            self._begin_claim(accept_older=self._options["accept_older"])
        except BaseException:
            self._leave_invocation()
            raise
        return self

    def _begin_claim(self, *, accept_older: bool) -> None:
        resolve(self._options["root"], durable=True)  # refuse a root that can't be written
        folder, started = self._open_folder(), time.perf_counter()
        claim = HeldClaim(folder, self._keep, self.name)
        try:
            waited = claim.acquire(deadline.until(self._wait), accept_older=accept_older)
        except ClaimedError:
            elapsed = time.perf_counter() - started
            events.emit("checkpoint", "refused", self.name, seconds=elapsed)
            raise
        try:
            self._adopt(claim.newest)
        except BaseException:
            claim.release()
            raise
        self._claim, self.epoch = claim, claim.epoch
        self._loop, self.unsettled = None, False
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
            if self._loop is not None and claim is not None and claim.is_valid():
                self._leave_loop(self._loop, error)
        finally:
            self._release()
            self._leave_invocation()

    def _leave_loop(self, loop: Loop, error: BaseException | None) -> None:
        """Save the progress of `resume`, and finish if its source came to its end.

        A failure here never hides the error of the block.
        """
        try:
            if loop.exhausted and error is None:
                if not self.finished:
                    self.finish()
            else:
                loop.save_done()
        except Exception as problem:
            if error is None:
                raise
            error.add_note(f"efsstate: the progress before this could not be saved: {problem!r}")

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
            raise ClaimLost(
                f"{self._open_folder().path()}: it is not claimed; use it inside"
                " `with checkpoint(...) as job:`"
            )
        claim.require()
        return claim

    # Saving

    def save(self, state: Any = _AS_IT_IS) -> None:
        """Save `state`, by default `job.state`, with the position now.

        Once this returns, every later load or claim has it. In the body of `resume` it counts the
        current item as done. Raises `ClaimLost`: this save counts only if the new owner started
        from it. Raises `OSError`: it may or may not count, the claim is still held, and the next
        save decides. Raises `EncodeError`: nothing was written.
        """
        with self._guard:
            claim = self._require_claim()
            self._require_unfinished()
            new_state = self._state if state is _AS_IT_IS else state
            encoded = self._states.encode(new_state)
            self._state = new_state
            position, items = self._progress()
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

    def _progress(self) -> tuple[Any, int]:
        if self._loop is not None:
            return self._loop.count_current()
        return self.position, self.items

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
    ) -> None:
        started = time.perf_counter()
        save = claim.new_save()
        save.state, save.schema, save.empty = encoded, self._schema, empty
        save.position, save.items, save.saves = position, items, self.saves + 1
        save.finished, save.result = finished, result
        try:
            claim.save(save, codec=self._states.codec, ttl=self._ttl if finished else None)
        except ClaimLost:
            events.emit("checkpoint", "lost", self.name, epoch=self.epoch)
            raise
        self.position, self.items, self.saves = position, items, save.saves
        self.finished, self.result = finished, result
        if self._loop is not None:
            self._loop.saved_items = items
        events.emit(
            "checkpoint",
            "save",
            self.name,
            seconds=time.perf_counter() - started,
            bytes=sum(map(len, encoded)),
            finished=finished,
        )

    def _save_progress(self, encoded: list[Buffer], position: Any, items: int) -> None:
        """Save a state that `resume` kept from an item's end."""
        with self._guard:
            self._write(self._require_claim(), encoded, position, items)

    # Looping

    if TYPE_CHECKING:

        @overload
        def resume(
            self,
            source: Callable[[Any], Iterable[T]],
            *,
            every: Duration | int = "10s",
            position: Callable[[T], Any] | None = None,
        ) -> Iterator[T]: ...
        @overload
        def resume(
            self,
            source: Iterable[T],
            *,
            every: Duration | int = "10s",
            position: Callable[[T], Any] | None = None,
        ) -> Iterator[T]: ...

    def resume(
        self,
        source: Any,
        *,
        every: Duration | int = "10s",
        position: Callable[[Any], Any] | None = None,
    ) -> Iterator[Any]:
        """Return the items of `source` that are not done yet.

        An item is done when the next one is asked for. Within the margin of the deadline the loop
        saves and ends: look at `finished`. Coming to its end finishes the checkpoint when the
        `with` is left.

        source: an iterable that gives the same items in the same order, or a function of the last
            position (None at first).
        every: how often to save, an int of items, or a time ("10s", a timedelta).
        position: a function of an item that gives its position, such as its id; without it,
            positions count items.

        Raises `TypeError` or `ValueError` for a bad argument at once.
        """
        from efsstate.checkpoints.resume import Job, Loop, Pace

        self._require_claim()
        before = self._loop
        if before is not None and before.running:
            raise EfsStateError(
                f"{self._open_folder().path()}: resume is running already; one loop at a time in a"
                " claim"
            )
        job = Job(lambda: self._state, self._states.encode, self.save, self._save_progress)
        loop = Loop(job, source, Pace(every, self._margin), position)
        if before is None:
            loop.begin(self.position, self.items, self.items)
        else:  # it may be ahead of the last save
            loop.begin(before.position, before.items, before.saved_items)
        self._loop = loop
        return iter(()) if self.finished else loop.run()

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
        self._begin_claim(accept_older=True)
        try:
            self._reset()
        finally:
            self._release()

    def _reset(self) -> None:
        claim = self._require_claim()
        self._before_reset()
        self._loop = None
        self.finished, self._state = False, None
        self._write(claim, self._states.encode(None), None, 0, empty=True)

    def _before_reset(self) -> None:
        """Do what a subclass needs before its reset is saved."""

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
            folder.claim(claimant.describe(self.name, broke_the_claim=True))
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
        """
        return claimant.status(self._open_folder(), self.name)

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
        self._parent = parent
        self._folder_name = layout.shard_folder(parent, index)

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
