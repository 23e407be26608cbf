"""The user's checkpoint: load, claim, save, finish, and what each refuses."""

from __future__ import annotations

import os
import threading
import time

from efsstate import deadline, events
from efsstate.checkpoints import claimant, protocol
from efsstate.checkpoints import saves as generations
from efsstate.checkpoints.state import States
from efsstate.errors import ClaimedError, ClaimLost, EfsStateError
from efsstate.format import layout
from efsstate.format.codec import resolve_codec
from efsstate.mount import lock
from efsstate.mount.root import resolve
from efsstate.units import seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType
    from typing import Any

    from efsstate.checkpoints.resume import Loop
    from efsstate.checkpoints.saves import Save
    from efsstate.checkpoints.shards import Shards
    from efsstate.mount.files import Mount
    from efsstate.units import Duration

_KEEP: Any = object()  # "the state as it is": None is a state too
_held: dict[
    tuple[str, str], tuple[int, int]
] = {}  # what this process claims: by which process and thread


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
) -> Checkpoint:
    """One run's progress on the mount, under `name`: `.load()` it from anywhere, or claim it in a `with` and save.

    `context`: the Lambda context, whose deadline holds inside the `with`. `wait`: seconds (or "30s") to wait for another
    owner. `keep`: how many valid saves stay. `ttl`: how long after it finished the sweep may remove it (None: never).
    `schema`, `migrate(state, old_schema)`: for states that outlive a deployment. `margin`: seconds before the deadline at
    which `resume` stops. `accept_older`: go on from an older state where the newest acknowledged one is damaged.

    Nothing touches the mount before the first use. Raises `ValueError` or `TypeError` for a bad option.
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


class Checkpoint:
    """See `checkpoint`. A claim belongs to this object: any thread may save through it, one at a time; a fork holds nothing.

    `state`, `position`, `finished`, `result`, `saves` are what was last loaded, claimed or saved; `epoch` the fencing number
    of the claim; `unsettled` whether the last load may yet turn out to have shown a save that does not count.
    """

    def __init__(self, name: str, **options: Any) -> None:
        self.name = name
        self.index: int | None = None
        self._options = options
        self._folder_name = layout.checkpoint_folder(name)
        self._context = options["context"]
        if self._context is not None:
            deadline.demand_context(self._context, "context")
        self._wait = seconds(options["wait"], "wait")
        self._ttl = None if options["ttl"] is None else seconds(options["ttl"], "ttl")
        self._margin = None if options["margin"] is None else seconds(options["margin"], "margin")
        self._keep = _whole_number(options["keep"], "keep", 100)
        self._schema = _whole_number(options["schema"], "schema", 2**31)
        self._root = options["root"]
        if options["migrate"] is not None:
            _demand_function(options["migrate"], "migrate")
        if options["codec"] not in ("msgpack", "pickle"):
            resolve_codec(options["codec"])  # a bad codec is told here, not at the first save
        self._guard = threading.RLock()
        self._folder: protocol.Folder | None = None
        self._states: States = None  # type: ignore[assignment]  # with the folder
        self._state: Any = None
        self._seen: Save | None = None
        self._number = 0
        self._kept: list[tuple[int, int]] = []
        self._loop: Loop | None = None
        self._lock: lock.Lock | None = None
        self._run: deadline.Invocation | None = None
        self._own_run: deadline.Invocation | None = None
        self._pid = 0
        self._ended = "it is not claimed"
        self.epoch: int | None = None
        self.position: Any = None
        self.items = 0
        self.finished = False
        self.result: Any = None
        self.saves = 0
        self.unsettled = False

    def __repr__(self) -> str:
        return f"<Checkpoint {self.name!r} {'claimed' if self._lock else 'not claimed'}>"

    # What it rests on

    def _at(self) -> protocol.Folder:
        if self._folder is None:
            mount: Mount = resolve(self._root)
            if not mount.named:
                resolve(
                    self._root, durable=True
                )  # raises: this state must not land on a throw-away disk
            self._folder = protocol.Folder(mount, self._folder_name)
            options = self._options
            self._states = States(
                options["codec"], self._schema, options["migrate"], signed=mount.key is not None
            )
        return self._folder

    def _adopt(self, found: Save | None) -> None:
        """Take over what was saved."""
        state = self._states.decode(found, self._at().path(found.key)) if found else None
        self._seen, self._state = found, state
        blank = found is None or found.empty
        self.position = None if blank or found is None else found.position
        self.items = 0 if blank or found is None else found.items
        self.finished = found.finished if found else False
        self.result = found.result if found else None
        self.saves = found.saves if found else 0

    # Reading

    def load(self, default: Any = None) -> Any:
        """The newest saved state, from any host, without a claim; `default` where nothing was saved.

        A torn or damaged save is passed over for the one before it, with a warning. Raises `CorruptEntryError` where
        all are damaged, `EfsStateError` for a state of a newer schema, `OSError`.
        """
        with self._guard:
            started = time.perf_counter()
            found, settled = self._at().newest()
            self.unsettled = not settled
            if not settled:
                events.log(
                    "warning",
                    "checkpoint %s: the state that was loaded is not settled yet",
                    self.name,
                )
            if self._lock is None:
                self._adopt(found.generation)
                state = self._state
            else:  # the owner's own state stays what it is
                newest = found.generation
                state = self._states.decode(newest, self._at().path(newest.key)) if newest else None
            events.emit("load", self.name, seconds=time.perf_counter() - started)
            return default if found.generation is None or found.generation.empty else state

    @property
    def state(self) -> Any:
        """The state: what was loaded or claimed, or assigned since; it is stored by the next save."""
        return self._state

    @state.setter
    def state(self, value: Any) -> None:
        if self._lock is None:
            self._demand()
        self._state = value

    @property
    def token(self) -> tuple[str, Any]:
        """(name, position): the same when an item is done again, so a key for making outside effects idempotent."""
        return self.name, self._loop.current() if self._loop else self.position

    # Claiming

    def __enter__(self) -> Checkpoint:  # noqa: PYI034 - not made to be subclassed
        self._enter_run()
        try:
            self._claim(accept_older=self._options["accept_older"])
        except BaseException:
            self._leave_run()
            raise
        return self

    def _claim(self, *, accept_older: bool) -> None:
        resolve(
            self._root, durable=True
        )  # a clear error where the root can't be written; a load needs no more than to read
        folder = self._at()
        mount, here = folder.mount, (folder.mount.path, folder.folder)
        if self._lock is not None or _held.get(here) == (os.getpid(), threading.get_ident()):
            raise ClaimedError(
                f"{folder.path((0, 0))}: already claimed by this thread, in an enclosing block: use that claim, or leave it"
                " first"
            )
        started, until = time.perf_counter(), deadline.until(self._wait)
        while True:
            held = lock.acquire(mount, folder.folder, layout.LOCK, until=until)
            if held is None:
                raise self._claimed(folder)
            try:
                epoch, found = folder.claim(claimant.describe(), accept_older=accept_older)
                self._adopt(found.generation)
            except protocol.Superseded:
                held.release()
                if time.monotonic() >= until:
                    raise self._claimed(folder) from None
                continue
            except BaseException:
                folder.release()
                held.release()
                raise
            break
        self._lock, self._pid, self.epoch, self._number = held, os.getpid(), epoch, 0
        self._kept = [self._seen.key, *self._seen.behind][: self._keep] if self._seen else []
        self._loop, self.unsettled, self._ended = None, False, ""
        _held[here] = (self._pid, threading.get_ident())
        self._run = deadline.current()
        if self._run is not None:
            self._run.hold(self, self._release)
        events.emit(
            "claim",
            self.name,
            epoch=epoch,
            waited=held.waited,
            seconds=time.perf_counter() - started,
        )

    def _claimed(self, folder: protocol.Folder) -> ClaimedError:
        told = claimant.of(folder, folder.look().top)
        return ClaimedError(
            f"{folder.path((0, 0))}: claimed by {claimant.sentence(told)}: wait for it (wait=), or fence it with break_claim()",
            told,
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._loop is not None and not self._ended and self._pid == os.getpid():
                self._leave_loop(error)
        finally:
            self._release()
            self._leave_run()

    def _leave_loop(self, error: BaseException | None) -> None:
        """Save what `resume` has done; finish if it came to its end. A failure here never hides the error of the block."""
        assert self._loop is not None
        try:
            if self._loop.exhausted and error is None:
                if not self.finished:
                    self.finish()
            else:
                self._loop.save_done()
        except Exception as problem:
            if error is None:
                raise
            error.add_note(f"efsstate: what was done before this could not be saved: {problem!r}")

    def _release(self) -> None:
        """End the claim."""
        held, self._lock = self._lock, None
        if held is None:
            return
        self._ended = self._ended or "its claim has ended"
        if self._run is not None:
            self._run.drop(self)
            self._run = None
        folder = self._at()
        folder.release()
        if self._pid == os.getpid():
            _held.pop((folder.mount.path, folder.folder), None)
        try:
            held.release()
        except OSError:
            pass  # the server took the lock back long ago: there is nothing to give back

    def _enter_run(self) -> None:
        if self._context is not None:
            self._own_run = deadline.Invocation(self._context).__enter__()

    def _leave_run(self) -> None:
        run, self._own_run = self._own_run, None
        if run is not None:
            run.__exit__(None, None, None)

    def _demand(self) -> None:
        """Raise unless this process holds the claim."""
        where = self._at().path((0, 0))
        if self._lock is not None and self._pid != os.getpid():
            raise ClaimLost(
                f"{where}: claimed by process {self._pid}, before a fork: a child holds nothing; claim in it"
            )
        if self._ended:
            raise ClaimLost(f"{where}: {self._ended}: use it inside `with checkpoint(...) as job:`")

    # Saving

    def save(self, state: Any = _KEEP) -> None:
        """Save `state` (else `job.state`) with the position now. Once this returns, every later load or claim has it.

        In the body of `resume` it counts the current item as done. Raises `ClaimLost`: this save counts only if the new owner
        started from it. Raises `OSError`: it may or may not count, the claim is still held, and the next save decides.
        Raises `EncodeError`: nothing was written.
        """
        with self._guard:
            self._demand()
            self._demand_unfinished()
            given = self._state if state is _KEEP else state
            encoded = self._states.encode(given)
            self._state = given
            position, items = (
                self._loop.count_current() if self._loop else (self.position, self.items)
            )
            self._write(encoded, position, items)

    def finish(self, result: Any = None) -> None:
        """Save `job.state` and `result` as the last save: once a load or claim has returned finished, it stays so."""
        with self._guard:
            self._demand()
            self._demand_unfinished()
            position, items = (
                self._loop.count_current() if self._loop else (self.position, self.items)
            )
            self._write(
                self._states.encode(self._state), position, items, finished=True, result=result
            )

    def _demand_unfinished(self) -> None:
        # MUT: finished-stays-finished
        if self.finished:
            raise EfsStateError(
                f"{self._at().path((0, 0))}: it is finished, and stays so: use another name for another run, or reset()"
            )

    def _write(
        self,
        encoded: list[bytes],
        position: Any,
        items: int,
        *,
        finished: bool = False,
        result: Any = None,
        empty: bool = False,
    ) -> None:
        folder, started = self._at(), time.perf_counter()
        assert self.epoch is not None
        behind = self._kept[: self._keep - 1]
        key = (self.epoch, self._number + 1)
        meta, payload = generations.pack(
            folder.mount,
            folder.folder,
            key,
            state=list(encoded),
            position=position,
            result=result,
            finished=finished,
            empty=empty,
            schema=self._schema,
            saves=self.saves + 1,
            items=items,
            behind=behind,
        )
        # MUT: a-saves-name-is-never-used-twice
        self._number += 1  # a name is never used twice, whatever happens to this save
        ttl = self._ttl if finished else None
        try:
            at = folder.save(key, meta, payload, codec=self._states.codec, ttl=ttl)
        except ClaimLost:
            self._ended = "its claim was lost to another"
            raise
        self.position, self.items, self.saves = position, items, self.saves + 1
        self.finished, self.result = finished, result
        self._kept = [key, *behind]
        if self._loop is not None:
            self._loop.saved(items)
        folder.prune(
            at, key[0], self._kept[-1] if len(self._kept) == self._keep else protocol.NOTHING
        )
        events.emit(
            "save",
            self.name,
            seconds=time.perf_counter() - started,
            bytes=sum(map(len, encoded)),
            finished=finished,
        )

    def resume(
        self,
        source: Iterable[Any] | Callable[[Any], Iterable[Any]],
        *,
        every: Duration | int = "10s",
        position: Callable[[Any], Any] | None = None,
    ) -> Iterator[Any]:
        """The items of `source` that are not done yet; an item is done when the next one is asked for.

        `source`: an iterable that gives the same items in the same order, or a function of the last position (None at first).
        `every`: how often to save, an int of items, or a time ("10s", a timedelta). `position`: a function of an item that
        gives its position, such as its id; without it, positions count items. Within the margin of the deadline it saves
        and ends: look at `finished`. Coming to its end finishes the checkpoint when the `with` is left.
        Raises `TypeError` or `ValueError` for a bad argument at once.
        """
        from efsstate.checkpoints.resume import Loop

        self._demand()
        if self._loop is not None and self._loop.running:
            raise EfsStateError(
                f"{self._at().path((0, 0))}: resume is running already: one loop at a time in a claim"
            )
        self._loop = Loop(self, source, every, position, self._margin)
        return self._loop.run()

    # The rest

    def update(self, function: Callable[[Any], Any], default: Any = None) -> Any:
        """Claim, load, save what `function(state)` returns (`default` where nothing was saved), release; returns it."""
        _demand_function(function, "function")
        with self:
            blank = self._seen is None or self._seen.empty
            self.save(function(default if blank else self._state))
            return self._state

    def reset(self) -> None:
        """Start over: what was saved or finished no longer counts. Inside the `with` under its claim, else with one."""
        if self._lock is not None:
            with self._guard:
                self._demand()
                self._reset()
            return
        self._claim(accept_older=True)
        try:
            self._reset()
        finally:
            self._release()

    def _reset(self) -> None:
        self._loop = None
        self.finished, self._state = False, None
        self._write(self._states.encode(None), None, 0, empty=True)

    def break_claim(self) -> dict[str, Any]:
        """Fence whoever holds the claim: none of its later saves counts, and others may claim at once.

        Returns what the last claimant said of itself; {} for a name that is not there, and then nothing is made.
        """
        folder = self._at()
        at = folder.look()
        if not at.names:
            return {}  # a mistyped name must not become a checkpoint
        told = claimant.of(folder, at.top)
        try:
            folder.claim(claimant.describe(broke_the_claim=True), accept_older=False)
        except protocol.Superseded:
            pass  # a claim came meanwhile: it fences too
        finally:
            if self._lock is None:
                folder.release()
        folder.mount.remove(
            folder.folder, layout.LOCK, quiet=True
        )  # a hung holder has it locked: the next makes its own
        return told

    def status(self) -> dict[str, Any]:
        """Who holds it, since when, how far it is and where: plain values, read without a claim and without the state.

        `claimed` (somebody holds it now), `owner` (what the last claimant said of itself), `epoch`, `finished`, `position`
        (as text), `items`, `saves`, `saved` (seconds since the epoch by the server's clock, or None), `bytes`, `path`.
        """
        from efsstate.checkpoints.status import status

        return status(self._at(), self.name)

    def shards(self, n: int) -> Shards:
        """`n` checkpoints that any number of workers share out among themselves: `with … .shards(n) as shards: for …`."""
        from efsstate.checkpoints.shards import Shards

        return Shards(self, n)


def _demand_function(value: Any, what: str) -> None:
    if not callable(value):
        raise TypeError(f"{what}: a function is needed, not {value!r}")


def _whole_number(value: Any, what: str, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ValueError(f"{what}: a whole number from 1 to {most} is needed, not {value!r}")
    return value
