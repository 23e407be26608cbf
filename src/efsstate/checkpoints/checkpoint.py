"""Offer a checkpoint to its user: load, claim, save, finish, and the errors of each."""

from __future__ import annotations

import os
import time

from efsstate import deadline, events, process
from efsstate.checkpoints.claiming import Claiming
from efsstate.checkpoints.protocol import CheckpointFolder
from efsstate.checkpoints.saves import States
from efsstate.errors import EfsStateError
from efsstate.format import layout
from efsstate.format.codec import resolve_codec
from efsstate.generic import TypeVar
from efsstate.mount.root import absolute, resolve
from efsstate.units import seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from efsstate.checkpoints.attempts import Attempts
    from efsstate.checkpoints.claim import HeldClaim
    from efsstate.checkpoints.claimant import Status
    from efsstate.checkpoints.loops import Loops
    from efsstate.checkpoints.saves import Save
    from efsstate.checkpoints.shards import Shards
    from efsstate.units import Duration

S = TypeVar("S", default="Any")
T = TypeVar("T")


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


class Checkpoint(Claiming[S]):
    """The progress of one job, on the mount; made by `checkpoint`, which has the options.

    `with job:` claims it, `job.resume(items)` goes through the items that are not done yet, and
    `job.save(state)` saves. Without a claim, `load` and `status` read it.

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

    def _repr_html_(self) -> str:
        """Return its status as a table: it reads the mount, and claims and makes nothing."""
        from efsstate.notebook import table

        return table(f"checkpoint {self.name}", self.status().items())

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
        if self._loops is not None:
            path = self._open_folder().path()
            self._loops.end(
                EfsStateError(
                    f"{path}: it was reset while its loop was running; leave the loop after reset()"
                )
            )
        self._loops, self._attempts, self.skipped = None, None, []
        self.finished, self._state = False, self._states.copy(self._options["initial"])
        self._write(claim, self._states.encode(None), None, 0, empty=True)

    def _before_reset(self) -> None:
        """Prepare a subclass's own state before its reset is saved."""

    def break_claim(self) -> dict[str, Any]:
        """Fence the claim's holder: none of its later saves counts, and others may claim at once.

        Returns the record of the last claimant; {} for a name that does not exist, and then nothing
        is made. If it raises `OSError`, the holder may be fenced while its lock file still keeps
        others from claiming: call it again.
        """
        from efsstate.checkpoints import claimant, protocol

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
        # MUT: a-break-that-leaves-the-lock-fails
        folder.mount.remove(folder.folder, layout.LOCK)
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
