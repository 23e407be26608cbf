"""A model in this process: loaded on the first call, by one thread, and kept for all of them."""

from __future__ import annotations

import os
import threading
import time

from efsstate import deadline, events, units
from efsstate.errors import EfsStateError
from efsstate.modelstore.resolve import Resolver
from efsstate.modelstore.state import ModelState
from efsstate.mount import environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Generic, TypeVar, overload

    from efsstate.modelstore.model_files import ModelFiles
    from efsstate.modelstore.swapping import Swapper

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
        self._load = load
        self._check_every = units.seconds(check_every, "check_every")
        self._resolver = Resolver(name, root, label=label, version=version)
        self._state = ModelState()
        self._swapper: Swapper | None = None
        self._resolved: tuple[str, float] | None = None  # by `identify`, and until when it holds

    def __repr__(self) -> str:
        version = self.version
        return f"<model {self.name!r}, {f'version {version}' if version else 'not loaded'}>"

    @property
    def version(self) -> str | None:
        """Return the id of the version that is loaded, None before the first call."""
        loaded = self._state.loaded
        return loaded.files.version if loaded else None

    def identify(self, *, look: bool = True) -> str:
        """Return the identity of the version that a call uses, without loading it.

        It differs if an id is published again with other content. With `look` the server is asked
        as by a call, at most every `check_every`, and a loaded model is swapped. Raises what a
        call raises if no version is active.
        """
        if self._state.loaded is not None and look:
            self()
        loaded = self._state.loaded
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
        state = self._state
        loaded = state.loaded
        if loaded is not None and time.monotonic() < state.next_look:
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
                if is_served:
                    return value
                swapper = self._swapper or self._make_swapper()
                return swapper.look()
            finally:
                self._leave_gate(entry)
        finally:
            # MUT: a-turn-is-given-back-whatever-interrupts
            self._leave_gate(entry)  # a signal handler may have raised in the first

    def _enter_gate(self, entry: list[int], until: float) -> tuple[Any, bool]:
        """Enter the gate and return (None, False); or return (the value to serve, True)."""
        state = self._state
        with state.lock:
            while state.owner is not None or (
                state.loaded is not None and time.monotonic() < state.next_look
            ):
                if state.loaded is not None:  # served while another thread looks for a new version
                    return state.loaded.value, True
                if state.owner == entry:
                    raise RuntimeError(
                        f"model {self.name!r}: its load function calls the model itself"
                    )
                remaining = until - time.monotonic()
                if remaining <= 0:
                    raise EfsStateError(
                        f"model {self.name!r}: timed out waiting for another thread to load it;"
                        " raise the function's timeout, or load the model before starting threads"
                    )
                state.changed.wait(remaining)
            is_empty = state.loaded is None and state.released is None
            if is_empty and state.failure is not None and time.monotonic() < state.next_look:
                raise state.failure.error()
            state.owner = entry
        return None, False

    def _leave_gate(self, entry: list[int]) -> None:
        with self._state.lock:
            if self._state.owner is entry:  # another thread's entry must not end with ours
                self._state.owner = None
                self._state.changed.notify_all()

    def _make_swapper(self) -> Swapper:
        """Make the swapper, inside the gate: its module is imported at the first look alone."""
        from efsstate.modelstore.swapping import Swapper

        options = self._options
        self._swapper = swapper = Swapper(
            self.name,
            self._state,
            self._resolver,
            self._load,
            check_every=self._check_every,
            verify=options["verify"],
            stage=options["stage"],
            keep_old=options["keep_old"],
        )
        return swapper


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
