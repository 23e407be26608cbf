"""Claim a checkpoint for a `with`, end the claim, and keep the deadline of its invocation."""

from __future__ import annotations

import time

from efsstate import deadline, events
from efsstate.checkpoints.looping import Looping
from efsstate.errors import ClaimedError, NotClaimed
from efsstate.generic import TypeVar
from efsstate.mount.root import resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Self

    from efsstate.checkpoints.saves import Save

S = TypeVar("S", default="Any")


class Claiming(Looping[S]):
    """The claims of a checkpoint; see `Checkpoint`."""

    if TYPE_CHECKING:
        unsettled: bool
        _options: dict[str, Any]
        _wait: float
        _keep: int
        _outer: deadline.Invocation | None
        _own: deadline.Invocation | None

        def _adopt(self, save: Save | None) -> None: ...

    def __enter__(self) -> Self:
        return self._enter(None)

    def _enter(self, until: float | None) -> Self:
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
        from efsstate.checkpoints.claim import HeldClaim

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
            if self._loops is not None:
                self._loops.end(
                    NotClaimed(
                        f"{self.name}: its `with` was left before the loop; read the items inside"
                        " `with checkpoint(...) as job:`"
                    )
                )
            self._loops = None
            self._leave_invocation()

    async def __aenter__(self) -> Self:
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
