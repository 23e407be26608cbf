"""Load the active version, keep it, or swap it for another, by what this process knows of a model.

A call that is due to look at the server acts by the model's state:

    state     loaded  released  failure  action
    EMPTY     None    None      None     load the active version
    FAILED    None    None      set      raise the failure again, until its time; then as EMPTY
    READY     set     None      None     serve; load another active version, then serve that
    STALE     set     None      set      serve; load the version that failed once its time comes
    RELEASED  None    set       any      load the released version again, or a newer one

`keep_old=False` releases the old version before it loads another: READY → RELEASED → READY.
"""

from __future__ import annotations

import time

from efsstate import deadline, events

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from efsstate.modelstore.loading import Load, LoadedModel
    from efsstate.modelstore.resolve import ResolvedModel, Resolver
    from efsstate.modelstore.state import ModelState

_RETRY = 30.0  # seconds between looks while nothing is loaded


class Swapper:
    """Swap the versions of one model; every method is called inside the gate of its `state`."""

    def __init__(
        self,
        name: str,
        state: ModelState,
        resolver: Resolver,
        load: Load,
        *,
        check_every: float,
        verify: str | None,
        stage: bool,
        keep_old: bool,
    ) -> None:
        self._name, self._state, self._resolver, self._load = name, state, resolver, load
        self._check_every, self._verify = check_every, verify
        self._stage, self._keep_old = stage, keep_old

    def look(self) -> Any:
        """Ask the server for the version to be served, and serve it."""
        state = self._state
        now = time.monotonic()
        wait = self._check_every if state.loaded is not None else min(self._check_every, _RETRY)
        state.next_look = now + wait
        try:
            resolved = self._resolver.resolve()
        except Exception as error:
            self._note_unresolved(error)
            if state.loaded is None and state.released is None:
                raise
            return self._load_released() if state.loaded is None else state.loaded.value
        has_failed = state.failure is not None and state.failure.blocks(resolved.identity, now)
        if state.loaded is not None:
            return self._keep_or_swap(resolved, has_failed, now)
        if state.released is not None:
            is_new = resolved.identity != state.released[0].identity
            if is_new and not has_failed and self._fits_deadline(state.released[1]):
                return self._load_after_release(resolved)
            return self._load_released()
        if has_failed:
            assert state.failure is not None
            raise state.failure.error()
        return self._load_first(resolved)

    def _note_unresolved(self, error: Exception) -> None:
        """Remember a look that failed, or log it if the old version can serve."""
        from efsstate.modelstore.failures import LoadFailure, describe

        state = self._state
        self._emit_error(error)
        if state.loaded is None and state.released is None:
            state.failure = LoadFailure(error, None, state.failure)
            return
        text = "model %r: no look for a new version; the old one serves: %s"
        events.log(
            "warning",
            text,
            self._name,
            describe(error),
            kind="model",
            event="unresolved",
            name=self._name,
            error=type(error).__name__,
        )

    def _keep_or_swap(self, resolved: ResolvedModel, has_failed: bool, now: float) -> Any:
        state = self._state
        assert state.loaded is not None
        if resolved.identity == state.loaded.identity:
            state.pending_change = None
            if resolved.is_pinned:
                state.loaded.resolved.note_use()
            return state.loaded.value
        self._note_change(resolved, now)
        may_swap = not has_failed and self._has_settled(resolved, now)
        if not may_swap or not self._fits_deadline(state.loaded.seconds):
            state.loaded.resolved.note_use()  # no longer active, and still in use
            return state.loaded.value
        if self._keep_old:
            return self._load_beside(resolved)
        state.released = state.loaded.resolved, state.loaded.seconds
        return self._load_after_release(resolved)

    def _note_change(self, resolved: ResolvedModel, now: float) -> None:
        """Note when an unmanaged model was first seen as it is now."""
        state = self._state
        if resolved.unmanaged is None:
            return
        if state.pending_change is None or state.pending_change[0] != resolved.identity:
            state.pending_change = (resolved.identity, now)

    def _has_settled(self, resolved: ResolvedModel, now: float) -> bool:
        """Return True unless an unmanaged model has changed within the last `check_every`."""
        state = self._state
        if resolved.unmanaged is None or state.pending_change is None:
            return True
        since = state.pending_change[1]
        return since < now and now - since >= self._check_every

    def _fits_deadline(self, seconds: float) -> bool:
        """Return True if twice the last load's seconds remain; log it if not."""
        remaining = deadline.remaining()
        if remaining is None or 2 * seconds <= remaining:
            return True
        events.log(
            "warning",
            "model %r: a new version is there, and the old one goes on: loading took %.1f s the"
            " last time, and no invocation has had twice that left",
            self._name,
            seconds,
            kind="model",
            event="no_time_to_load",
            name=self._name,
            seconds=seconds,
            once=f"no time to reload {self._name}",
        )
        return False

    def _load_first(self, resolved: ResolvedModel) -> Any:
        try:
            loaded = self._load_version(resolved)
        except BaseException as error:
            from efsstate.modelstore.failures import is_failure, is_late

            if is_failure(error) and not is_late(error):
                self._remember_failure(error, resolved)
            else:
                # Cut off by the deadline or a signal: no failure of the version. An
                # earlier failure (of a look, or another version) no longer counts.
                self._state.failure = None
                self._report_error(error)
            raise
        return self._serve(loaded)

    def _load_beside(self, resolved: ResolvedModel) -> Any:
        """Load a new version while the old one stays in memory, and serve it if it loads."""
        state = self._state
        # A quarter of the time is left to the handler, which the old version could have served.
        remaining = deadline.remaining()
        # MUT: a-reload-leaves-time-for-the-handler
        loaded = self._try_load(resolved, "serves", 0.0 if remaining is None else remaining / 4)
        if loaded is not None:
            return self._serve(loaded)
        assert state.loaded is not None
        return state.loaded.value

    def _load_after_release(self, resolved: ResolvedModel) -> Any:
        """Load a new version after the old one left memory; load the old one again if it fails."""
        import gc

        state = self._state
        assert state.released is not None
        seconds, remaining = state.released[1], deadline.remaining()
        state.loaded = None
        gc.collect()  # models often refer to themselves
        # The old version's time is reserved, and half as much again; otherwise a slow new version
        # takes both down.
        reserve = 0.0
        if remaining is not None:
            reserve = min(1.5 * seconds + deadline.MARGIN, remaining / 2)
        loaded = self._try_load(resolved, "comes back", reserve)
        if loaded is not None:
            return self._serve(loaded)
        gc.collect()
        return self._load_released()

    def _load_released(self) -> Any:
        """Load the released version again. It did load before, so every call tries it."""
        state = self._state
        assert state.released is not None
        try:
            loaded = self._load_version(state.released[0])
        except BaseException as error:
            self._report_error(error)
            raise
        return self._serve(loaded)

    def _try_load(self, resolved: ResolvedModel, old: str, reserve: float) -> LoadedModel | None:
        """Load a new version while `reserve` seconds are kept; return None if it fails.

        The failure is remembered. `old` completes the log line: the old version "serves".
        """
        from efsstate.modelstore.failures import describe, is_failure, is_late

        reserved = deadline.reserved.get()
        try:
            deadline.reserved.set(reserved + reserve)
            return self._load_version(resolved)
        except BaseException as error:
            if not is_failure(error):
                raise
            # Too slow is as bad as broken: the next invocation serves the old one at once.
            self._remember_failure(error, resolved)
            why = describe(error)
            if is_late(error):
                why += f" ({reserve:.1f} s were kept for the old one and the handler)"
            events.log(
                "error",
                "model %r: the new version does not load; the old one %s: %s",
                self._name,
                old,
                why,
                kind="model",
                event="not_loaded",
                name=self._name,
                error=type(error).__name__,
            )
            return None
        finally:
            deadline.reserved.set(reserved)

    def _load_version(self, resolved: ResolvedModel) -> LoadedModel:
        from efsstate.modelstore.loading import load_model

        verify, stage = self._verify, self._stage
        return load_model(
            self._name, self._resolver, resolved, self._load, verify=verify, stage=stage
        )

    def _serve(self, loaded: LoadedModel) -> Any:
        state = self._state
        if state.failure is not None and state.failure.identity in (None, loaded.identity):
            state.failure = None
        state.pending_change = state.released = None
        state.loaded = loaded
        if loaded.resolved.is_pinned:
            loaded.resolved.note_use()
        state.next_look = time.monotonic() + self._check_every
        return loaded.value

    def _remember_failure(self, error: BaseException, resolved: ResolvedModel) -> None:
        from efsstate.modelstore.failures import LoadFailure

        state = self._state
        state.failure = LoadFailure(error, resolved.identity, state.failure)
        self._report_error(error)

    def _report_error(self, error: BaseException) -> None:
        """Emit the error, and free the buffers that its frames hold."""
        from efsstate.modelstore.failures import free_frames

        self._emit_error(error)
        free_frames(error)

    def _emit_error(self, error: BaseException) -> None:
        if events.listeners:
            from efsstate.modelstore.failures import describe

            events.emit("model", "error", self._name, error=describe(error))
