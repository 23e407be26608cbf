"""A model in this process: loaded on the first call, swapped when another version is activated.

A call that is due to look at the server acts by the model's state:

    state     _loaded  _released  _failure  action
    EMPTY     None     None       None      load the active version
    FAILED    None     None       set       raise the failure again, until its time; then as EMPTY
    READY     set      None       None      serve; load another active version, then serve that
    STALE     set      None       set       serve; load the version that failed once its time comes
    RELEASED  None     set        any       load the released version again, or a newer one

`keep_old=False` releases the old version before it loads another: READY → RELEASED → READY.
"""

from __future__ import annotations

import os
import threading
import time

from efsstate import deadline, events, units
from efsstate.errors import EfsStateError
from efsstate.modelstore.gate import ThreadGate
from efsstate.modelstore.resolve import Resolver
from efsstate.mount import environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Generic, TypeVar, overload

    from efsstate.modelstore.failures import LoadFailure
    from efsstate.modelstore.loading import LoadedModel
    from efsstate.modelstore.model_files import ModelFiles
    from efsstate.modelstore.resolve import ResolvedModel

    T = TypeVar("T")
    L = TypeVar("L")

    class _Generic(Generic[T]): ...

else:
    T = None

    class _Generic:
        # For `Model[Network]` at run time, without an import of typing.
        def __class_getitem__(cls, _parameter):  # noqa: ANN001, ANN204
            return cls


_PRELOADS = ("provisioned-concurrency", "lambda-managed-instances")
_RETRY = 30.0  # seconds between looks while nothing is loaded


class Model(_Generic[T]):
    """A model, loaded on its first call and kept; made by `efsstate.model`."""

    def __init__(
        self,
        name: str,
        load: Callable[[ModelFiles], T] | None,
        *,
        version: str | None = None,
        label: str | None = None,
        check_every: units.Duration = 60,
        verify: str | None = "size",
        stage: bool = False,
        keep_old: bool = True,
        root: str | os.PathLike[str] | None = None,
    ) -> None:
        if version is not None and label is not None:
            raise ValueError(f"version={version!r}, label={label!r}: pass one of them")
        for option, value in (("version", version), ("label", label)):
            _require_name(option, value)
        if verify not in ("size", "digest", None):
            raise ValueError(f"verify={verify!r}: it is 'size', 'digest' or None")
        if load is not None and not callable(load):
            raise TypeError(f"load={load!r}: a function of the files is needed")
        self.name = name
        self._options: dict[str, Any] = {
            "version": version,
            "label": label,
            "check_every": check_every,
            "verify": verify,
            "stage": stage,
            "keep_old": keep_old,
            "root": root,
        }
        self._load, self._verify, self._stage, self._keep_old = load, verify, stage, keep_old
        self._check_every = units.seconds(check_every, "check_every")
        self._resolver = Resolver(name, root, label=label, version=version)
        self._gate = ThreadGate()  # guards the fields below
        self._loaded: LoadedModel | None = None
        self._released: tuple[ResolvedModel, float] | None = None  # and the seconds of its load
        self._failure: LoadFailure | None = None
        self._next_look = 0.0  # monotonic
        self._resolved: tuple[str, float] | None = None  # by `identify`, and until when it holds
        # The identity of an unmanaged model that changed, and when that was first seen.
        self._pending_change: tuple[str, float] | None = None

    def __repr__(self) -> str:
        version = self.version
        return f"<model {self.name!r}, {f'version {version}' if version else 'not loaded'}>"

    @property
    def version(self) -> str | None:
        """Return the id of the version that is loaded, None before the first call."""
        loaded = self._loaded
        return loaded.files.version if loaded else None

    def identify(self, *, look: bool = True) -> str:
        """Return the identity of the version that a call uses, without loading it.

        It differs if an id is published again with other content. With `look` the server is asked
        as by a call, at most every `check_every`, and a loaded model is swapped. Raises what a
        call raises if no version is active.
        """
        if self._loaded is not None and look:
            self()
        loaded = self._loaded
        if loaded is not None:
            return loaded.identity
        now = time.monotonic()
        if self._resolved is None or now >= self._resolved[1]:
            self._resolved = self._resolver.resolve().identity, now + self._check_every
        return self._resolved[0]

    if TYPE_CHECKING:

        @overload
        def __call__(self) -> T: ...
        @overload
        def __call__(self, load: Callable[[ModelFiles], L]) -> Model[L]: ...

    def __call__(self, load: Callable[[ModelFiles], Any] | None = None) -> Any:
        """Return the loaded object; or, as a decorator of the function that loads it, the model."""
        if load is not None:
            return self._decorate(load)
        loaded = self._loaded
        if loaded is not None and time.monotonic() < self._next_look:
            return loaded.value
        # No frame may hold the old version while a new one is loaded: both would be in memory.
        del loaded
        return self._look_or_wait()

    def preload(self) -> bool:
        """Load the model now if the environment is initialised before it gets requests.

        To be called at import: with provisioned concurrency, and on Managed Instances, that is
        before the first request. Elsewhere it does nothing, since Lambda's init has 10 s. Return
        True if the model was loaded. An error is logged, and the first call tries again.
        """
        if environment.variable("AWS_LAMBDA_INITIALIZATION_TYPE") not in _PRELOADS:
            return False
        try:
            self()
        except Exception as error:
            from efsstate.modelstore.failures import describe

            text = "model %r: not preloaded; the first call loads it: %s"
            events.log(
                "warning",
                text,
                self.name,
                describe(error),
                kind="model",
                event="not_preloaded",
                name=self.name,
                error=type(error).__name__,
            )
            return False
        return True

    def _decorate(self, load: Callable[[ModelFiles], L]) -> Model[L]:
        if self._load is not None:
            raise TypeError(
                f"model {self.name!r} has its load function already; call it without arguments"
            )
        model = Model(self.name, load, **self._options)
        for attribute in ("__module__", "__qualname__", "__doc__"):
            if hasattr(load, attribute):
                setattr(model, attribute, getattr(load, attribute))
        model.__wrapped__ = load  # type: ignore[attr-defined]
        return model

    # One thread at a time

    def _look_or_wait(self) -> Any:
        """Look at the server, or wait for another thread that does so."""
        until = deadline.until_done()
        entry = [threading.get_ident()]
        try:
            try:
                value, is_served = self._enter_gate(entry, until)
                return value if is_served else self._look()
            finally:
                self._leave_gate(entry)
        finally:
            # MUT: a-turn-is-given-back-whatever-interrupts
            self._leave_gate(entry)  # a signal handler may have raised in the first

    def _enter_gate(self, entry: list[int], until: float) -> tuple[Any, bool]:
        """Enter the gate and return (None, False); or return (the value to serve, True)."""
        gate = self._gate
        with gate.changed:
            while gate.owner is not None or self._is_fresh():
                if self._loaded is not None:  # served while another thread looks for a new version
                    return self._loaded.value, True
                if gate.owner == entry:
                    raise RuntimeError(
                        f"model {self.name!r}: its load function calls the model itself"
                    )
                remaining = until - time.monotonic()
                if remaining <= 0:
                    raise EfsStateError(
                        f"model {self.name!r}: timed out waiting for another thread to load it;"
                        " raise the function's timeout, or load the model before starting threads"
                    )
                gate.changed.wait(remaining)
            if self._is_failed() and time.monotonic() < self._next_look:
                assert self._failure is not None
                raise self._failure.error()
            gate.owner = entry
        return None, False

    def _leave_gate(self, entry: list[int]) -> None:
        with self._gate.changed:
            if self._gate.owner is entry:  # another thread's entry must not end with ours
                self._gate.owner = None
                self._gate.changed.notify_all()

    def _is_fresh(self) -> bool:
        return self._loaded is not None and time.monotonic() < self._next_look

    def _is_failed(self) -> bool:
        return self._loaded is None and self._released is None and self._failure is not None

    # Inside the gate

    def _look(self) -> Any:
        """Ask the server for the version to be served, and serve it."""
        now = time.monotonic()
        wait = self._check_every if self._loaded is not None else min(self._check_every, _RETRY)
        self._next_look = now + wait
        try:
            resolved = self._resolver.resolve()
        except Exception as error:
            self._note_unresolved(error)
            if self._loaded is None and self._released is None:
                raise
            return self._load_released() if self._loaded is None else self._loaded.value
        has_failed = self._failure is not None and self._failure.blocks(resolved.identity, now)
        if self._loaded is not None:
            return self._keep_or_swap(resolved, has_failed, now)
        if self._released is not None:
            is_new = resolved.identity != self._released[0].identity
            if is_new and not has_failed and self._fits_deadline(self._released[1]):
                return self._load_after_release(resolved)
            return self._load_released()
        if has_failed:
            assert self._failure is not None
            raise self._failure.error()
        return self._load_first(resolved)

    def _note_unresolved(self, error: Exception) -> None:
        """Remember a look that failed, or log it if the old version can serve."""
        from efsstate.modelstore.failures import LoadFailure, describe

        self._emit_error(error)
        if self._loaded is None and self._released is None:
            self._failure = LoadFailure(error, None, self._failure)
            return
        text = "model %r: no look for a new version; the old one serves: %s"
        events.log(
            "warning",
            text,
            self.name,
            describe(error),
            kind="model",
            event="unresolved",
            name=self.name,
            error=type(error).__name__,
        )

    def _keep_or_swap(self, resolved: ResolvedModel, has_failed: bool, now: float) -> Any:
        assert self._loaded is not None
        if resolved.identity == self._loaded.identity:
            self._pending_change = None
            if resolved.is_pinned:
                self._loaded.resolved.note_use()
            return self._loaded.value
        self._note_change(resolved, now)
        may_swap = not has_failed and self._has_settled(resolved, now)
        if not may_swap or not self._fits_deadline(self._loaded.seconds):
            self._loaded.resolved.note_use()  # no longer active, and still in use
            return self._loaded.value
        if self._keep_old:
            return self._load_beside(resolved)
        self._released = self._loaded.resolved, self._loaded.seconds
        return self._load_after_release(resolved)

    def _note_change(self, resolved: ResolvedModel, now: float) -> None:
        """Note when an unmanaged model was first seen as it is now."""
        if resolved.unmanaged is None:
            return
        if self._pending_change is None or self._pending_change[0] != resolved.identity:
            self._pending_change = (resolved.identity, now)

    def _has_settled(self, resolved: ResolvedModel, now: float) -> bool:
        """Return True unless an unmanaged model has changed within the last `check_every`."""
        if resolved.unmanaged is None or self._pending_change is None:
            return True
        since = self._pending_change[1]
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
            self.name,
            seconds,
            kind="model",
            event="no_time_to_load",
            name=self.name,
            seconds=seconds,
            once=f"no time to reload {self.name}",
        )
        return False

    # Loads

    def _load_first(self, resolved: ResolvedModel) -> Any:
        from efsstate.modelstore.failures import is_failure, is_late

        try:
            loaded = self._load_version(resolved)
        except BaseException as error:
            if is_failure(error) and not is_late(error):
                self._remember_failure(error, resolved)
            else:
                # Cut off by the deadline or a signal: no failure of the version. An
                # earlier failure (of a look, or another version) no longer counts.
                self._failure = None
                self._report_error(error)
            raise
        return self._serve(loaded)

    def _load_beside(self, resolved: ResolvedModel) -> Any:
        """Load a new version while the old one stays in memory, and serve it if it loads."""
        # A quarter of the time is left to the handler, which the old version could have served.
        remaining = deadline.remaining()
        # MUT: a-reload-leaves-time-for-the-handler
        loaded = self._try_load(resolved, "serves", 0.0 if remaining is None else remaining / 4)
        if loaded is not None:
            return self._serve(loaded)
        assert self._loaded is not None
        return self._loaded.value

    def _load_after_release(self, resolved: ResolvedModel) -> Any:
        """Load a new version after the old one left memory; load the old one again if it fails."""
        import gc

        assert self._released is not None
        seconds, remaining = self._released[1], deadline.remaining()
        self._loaded = None
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
        assert self._released is not None
        try:
            loaded = self._load_version(self._released[0])
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
                self.name,
                old,
                why,
                kind="model",
                event="not_loaded",
                name=self.name,
                error=type(error).__name__,
            )
            return None
        finally:
            deadline.reserved.set(reserved)

    def _load_version(self, resolved: ResolvedModel) -> LoadedModel:
        from efsstate.modelstore.loading import load_model

        verify, stage = self._verify, self._stage
        return load_model(
            self.name, self._resolver, resolved, self._load, verify=verify, stage=stage
        )

    def _serve(self, loaded: LoadedModel) -> Any:
        if self._failure is not None and self._failure.identity in (None, loaded.identity):
            self._failure = None
        self._pending_change = self._released = None
        self._loaded = loaded
        if loaded.resolved.is_pinned:
            loaded.resolved.note_use()
        self._next_look = time.monotonic() + self._check_every
        return loaded.value

    def _remember_failure(self, error: BaseException, resolved: ResolvedModel) -> None:
        from efsstate.modelstore.failures import LoadFailure

        self._failure = LoadFailure(error, resolved.identity, self._failure)
        self._report_error(error)

    def _report_error(self, error: BaseException) -> None:
        """Emit the error, and free the buffers that its frames hold."""
        from efsstate.modelstore.failures import free_frames

        self._emit_error(error)
        free_frames(error)

    def _emit_error(self, error: BaseException) -> None:
        if events.listeners:
            from efsstate.modelstore.failures import describe

            events.emit("model", "error", self.name, error=describe(error))


def _require_name(option: str, value: object) -> None:
    """Raise ValueError if the option is not the name of a version or a label."""
    if value is None:
        return
    from efsstate.modelstore import manifest

    why = manifest.bad_label(value) if option == "label" else manifest.bad_version(value)
    if why:
        raise ValueError(f"{option} {value!r} can't be used: {why}")


if TYPE_CHECKING:

    @overload
    def model(
        name: str,
        load: Callable[[ModelFiles], L],
        *,
        version: str | None = ...,
        label: str | None = ...,
        check_every: units.Duration = ...,
        verify: str | None = ...,
        stage: bool = ...,
        keep_old: bool = ...,
        root: str | os.PathLike[str] | None = ...,
    ) -> Model[L]: ...
    @overload
    def model(
        name: str,
        load: None = None,
        *,
        version: str | None = ...,
        label: str | None = ...,
        check_every: units.Duration = ...,
        verify: str | None = ...,
        stage: bool = ...,
        keep_old: bool = ...,
        root: str | os.PathLike[str] | None = ...,
    ) -> Model[str]: ...


def model(
    name: str,
    load: Callable[[ModelFiles], Any] | None = None,
    *,
    version: str | None = None,
    label: str | None = None,
    check_every: units.Duration = 60,
    verify: str | None = "size",
    stage: bool = False,
    keep_old: bool = True,
    root: str | os.PathLike[str] | None = None,
) -> Model[Any]:
    """Return the model `name`: a function that returns the loaded object, once per process.

    Also a decorator of the function that loads it. Nothing happens until the first call. That call
    loads the model by `load(files)` while other threads wait; without `load` the object is the
    path. `files` has `path`, `read(name)`, `mmap(name)` and `stage()`.

    name: a published model's, that of a file or folder below `models/`, or an absolute path.
    version: serve this version, whichever is active. It is noted as in use, so that no prune
        removes it, if the function may write to the mount.
    label: serve the version that was activated under this label.
    check_every: at most so often a call asks the server for another active version (one request),
        loads it and serves it; the old one serves until then, and if the new one fails.
    verify: the property compared with the manifest: "size", "digest" (SHA-256), or None.
    stage: copy the files to `/tmp` first, once for all processes of the environment.
    keep_old: False releases the old version before the new one is loaded, and loads it again if
        the new one fails.

    A new version is not loaded if twice the last load's time does not fit before the deadline, and
    it gets three quarters of the remaining time at the most. Without `load`, a returned path is
    kept in place only while its version is loaded; to use one after a swap, pass a `load`.

    A call raises the error of the load, and again for 30 s (doubled each time, up to 15 minutes) or
    until another version is active: `ModelNotFound`, `CorruptEntryError`, `EfsStateError` (memory,
    deadline), `RootError`, `OSError`, or an error of `load`: a built-in one as it was, any other as
    an `EfsStateError` with its type and text.
    """
    return Model(
        name,
        load,
        version=version,
        label=label,
        check_every=check_every,
        verify=verify,
        stage=stage,
        keep_old=keep_old,
        root=root,
    )
