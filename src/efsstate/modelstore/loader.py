"""A model in this process: loaded once, on the first call, and exchanged when another version is activated."""

from __future__ import annotations

import os
import threading
import time

from efsstate import deadline, events, units
from efsstate.errors import EfsStateError
from efsstate.modelstore.gate import ThreadGate
from efsstate.modelstore.resolve import Resolver

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Generic, TypeVar, overload

    from efsstate.modelstore.model_files import ModelFiles
    from efsstate.modelstore.resolve import Found

    T = TypeVar("T")
    L = TypeVar("L")

    class _Generic(Generic[T]): ...

else:
    T = None

    class _Generic:
        def __class_getitem__(cls, _parameter):  # noqa: ANN001, ANN204 - for `Model[Network]`, without typing
            return cls


_RETRY, _LONGEST_RETRY = (
    30.0,
    900.0,
)  # seconds after which a failed load is tried again, doubled each time
_FIELD: Any = type(NameError.name)  # what C and `__slots__` make of an attribute


class _Loaded:
    """A version that is loaded: `files` keeps its local copy in place for as long."""

    __slots__ = ("files", "found", "seconds", "value")

    def __init__(self, value: Any, files: ModelFiles, found: Found, seconds: float) -> None:
        self.value, self.files, self.found, self.seconds = value, files, found, seconds


class _Failure:
    """A load that failed: of what, why, and until when it is not tried again."""

    __slots__ = ("error", "identity", "times", "trace", "until")

    def __init__(self, error: BaseException, identity: str | None, before: _Failure | None) -> None:
        import traceback

        # Copied, and its traceback as text: frames keep their callers', and the first one's request, as long as this is.
        self.error, self.identity = _bare(error), identity
        try:
            trace = "".join(traceback.format_exception(error)).rstrip()
        except Exception:
            trace = _text(error)
        self.trace = f"As it was when it was tried:\n{trace}"
        self.times: int = (
            before.times + 1 if before is not None and before.identity == identity else 0
        )
        self.until = time.monotonic() + min(_LONGEST_RETRY, _RETRY * 2**self.times)

    def again(self) -> BaseException:
        """The error for one more caller: a copy, so that none gets another's traceback."""
        other = _bare(self.error)
        _note(other, [*getattr(other, "__notes__", ()), self.trace])
        return other


def _bare(error: BaseException) -> BaseException:
    """A copy of the error without what led to it: no traceback, no cause. Of its class nothing is run.

    What that does when one is made is done already: a message would be put together a second time.
    """
    try:
        builtin: Any = next(kind for kind in type(error).__mro__ if kind.__module__ == "builtins")
        given = list(error.args)
        if isinstance(error, BaseExceptionGroup):
            given[1:] = [[_bare(one) for one in error.exceptions]]
        other: BaseException = builtin.__new__(type(error), *given)
        builtin.__init__(other, *given)
        for kind in type(error).__mro__:
            for name, field in vars(kind).items():
                if (
                    type(field) is _FIELD and name != "obj"
                ):  # an AttributeError's, which may be anything
                    try:
                        if (
                            value := field.__get__(error)
                        ) is not None:  # set to that, an OSError tells of it
                            field.__set__(other, value)
                    except (AttributeError, TypeError):
                        pass  # it has no value, or can't be changed
        other.__dict__.update(error.__dict__)
        _note(other, list(getattr(error, "__notes__", ())))
    except Exception:
        return EfsStateError(f"{type(error).__name__}: {_text(error)}")
    return other


def _note(error: BaseException, notes: list[str]) -> None:
    object.__setattr__(error, "__notes__", notes)  # a frozen dataclass has no other way


def _text(error: BaseException) -> str:
    try:
        return repr(error)
    except Exception:
        return type(error).__name__


class Model(_Generic[T]):
    """A model, loaded on its first call and kept; made by `efsstate.model`, which says how it behaves."""

    def __init__(
        self,
        name: str,
        load: Callable[[ModelFiles], T] | None,
        *,
        check_every: units.Duration = 60,
        verify: str | None = "size",
        stage: bool = False,
        keep_old: bool = True,
        root: str | os.PathLike[str] | None = None,
    ) -> None:
        if verify not in ("size", "digest", None):
            raise ValueError(f"verify={verify!r}: it is 'size', 'digest' or None")
        if load is not None and not callable(load):
            raise TypeError(f"load={load!r}: a function of the files is needed")
        self.name = name
        self._options = (check_every, verify, stage, keep_old, root)
        self._load, self._verify, self._stage, self._keep_old = load, verify, stage, keep_old
        self._check_every = units.seconds(check_every, "check_every")
        self._finder = Resolver(name, root)
        self._loaded: _Loaded | None = None
        self._look_at = 0.0  # when the server is asked again
        self._failure: _Failure | None = None
        # Freed for one that did not load: what comes back, and its seconds.
        self._old: tuple[Found, float] | None = None
        self._changed: tuple[str, float] | None = (
            None  # a plain model that changed: what it is now, and since when
        )
        self._turn = ThreadGate()

    def __repr__(self) -> str:
        loaded = self._loaded
        return f"<model {self.name!r}, {f'version {loaded.files.version}' if loaded else 'not loaded'}>"

    @property
    def version(self) -> str | None:
        """The id of the version that is loaded, None before the first call."""
        loaded = self._loaded
        return loaded.files.version if loaded else None

    if TYPE_CHECKING:

        @overload
        def __call__(self) -> T: ...
        @overload
        def __call__(self, load: Callable[[ModelFiles], L]) -> Model[L]: ...

    def __call__(self, load: Callable[[ModelFiles], Any] | None = None) -> Any:
        """The loaded object; or, given the function that loads it, the model (as a decorator does)."""
        if load is not None:
            return self._with(load)
        loaded = self._loaded
        if loaded is not None and time.monotonic() < self._look_at:
            return loaded.value
        del loaded  # here and below: a frame that holds the old one would keep it in memory beside the new one
        return self._slow()

    def _with(self, load: Callable[[ModelFiles], L]) -> Model[L]:
        if self._load is not None:
            raise TypeError(
                f"model {self.name!r} has its load function already: call it without arguments"
            )
        check_every, verify, stage, keep_old, root = self._options
        made = Model(
            self.name,
            load,
            check_every=check_every,
            verify=verify,
            stage=stage,
            keep_old=keep_old,
            root=root,
        )
        for attribute in ("__module__", "__qualname__", "__doc__"):
            if hasattr(load, attribute):
                setattr(made, attribute, getattr(load, attribute))
        made.__wrapped__ = load  # type: ignore[attr-defined]
        return made

    def _slow(self) -> Any:
        until = deadline.until_done()
        mine = [threading.get_ident()]
        try:
            try:
                value, served = self._wait(mine, until)
                return value if served else self._fresh()
            finally:
                self._leave(mine)
        finally:
            # MUT: a-turn-is-given-back-whatever-interrupts
            self._leave(mine)  # a signal's handler may have raised in the first

    def _wait(self, mine: list[int], until: float) -> tuple[Any, bool]:
        """Take the turn to look, to be given back with `_leave`; or (what another loaded meanwhile, True)."""
        with self._turn.over:
            while True:
                if self._loaded is not None and (
                    self._turn.busy is not None or time.monotonic() < self._look_at
                ):
                    # While one looks for a new version, and loads it, the old one serves.
                    return self._loaded.value, True
                if self._turn.busy is None:
                    break
                if self._turn.busy == mine:
                    raise RuntimeError(
                        f"model {self.name!r}: its load function calls the model itself"
                    )
                left = until - time.monotonic()
                if left <= 0:
                    raise EfsStateError(
                        f"model {self.name!r}: another thread of this process was still loading it when the wait ended:"
                        " give the function a longer timeout, or load it before you start threads"
                    )
                self._turn.over.wait(left)
            if (
                self._loaded is None
                and self._old is None
                and self._failure is not None
                and time.monotonic() < self._look_at
            ):
                raise self._failure.again()
            self._turn.busy = mine
        return None, False

    def _leave(self, mine: list[int]) -> None:
        with self._turn.over:
            if self._turn.busy is mine:  # else it is another's turn, which must not end with ours
                self._turn.busy = None
                self._turn.over.notify_all()

    def _fresh(self) -> Any:
        """Look at what is to be served, and serve it."""
        now, failure, there = time.monotonic(), self._failure, self._loaded is not None
        self._look_at = now + (self._check_every if there else min(self._check_every, _RETRY))
        try:
            found = self._finder.look()
        except Exception as error:
            self._tell("error", error=_text(error))
            if self._loaded is None and self._old is None:
                self._failure = _Failure(error, None, failure)
                raise
            events.log(
                "warning",
                "model %r: no look for a new version; the old one serves: %s",
                self.name,
                error,
            )
            return self._come_back() if self._loaded is None else self._loaded.value
        failed = failure is not None and failure.identity == found.identity and now < failure.until
        if self._loaded is None:
            if self._old is not None:
                same = found.identity == self._old[0].identity
                return (
                    self._come_back()
                    if failed or same or not self._fits(self._old[1])
                    else self._replace(found)
                )
            if failed:
                assert failure is not None
                raise failure.again()
            return self._first(found)
        if found.identity == self._loaded.found.identity:
            self._changed = None
        elif not failed and self._still(found, now) and self._fits(self._loaded.seconds):
            if self._keep_old:
                return self._reload(found)
            self._old = self._loaded.found, self._loaded.seconds
            return self._replace(found)
        return self._loaded.value

    def _still(self, found: Found, now: float) -> bool:
        """Whether what was put there by hand has kept still for a whole `check_every` since it changed."""
        if found.plain is None:
            return True
        if self._changed is None or self._changed[0] != found.identity:
            self._changed = (found.identity, now)
            return False
        return now - self._changed[1] >= self._check_every

    def _fits(self, seconds: float) -> bool:
        left = deadline.remaining()
        if left is None or 2 * seconds <= left:
            return True
        events.log(
            "warning",
            "model %r: a new version is there, and the old one goes on: loading took %.1f s the last time, and no"
            " invocation has had twice that left",
            self.name,
            seconds,
            once=f"no time to reload {self.name}",
        )
        return False

    def _first(self, found: Found) -> Any:
        try:
            made = self._make(found)
        except BaseException as error:
            if _is_failure(error) and not _is_late(error):
                self._failed(error, found)
            else:  # what the deadline cut off is no failure of the version: the next invocation has one of its own
                self._failure = None  # nor is it what failed before: that there was no model at all, or another version
                self._let_go(error)
            raise
        return self._serve(made)

    def _reload(self, found: Found) -> Any:
        # A quarter is left to the handler, whose old version could have served it: a slow new one takes all.
        left = deadline.remaining()
        # MUT: a-reload-leaves-time-for-the-handler
        made = self._try(found, "serves", 0.0 if left is None else left / 4)
        if made is not None:
            return self._serve(made)
        assert self._loaded is not None
        return self._loaded.value

    def _replace(self, found: Found) -> Any:
        """As `_reload`, for models of which only one fits: the old one goes first, and comes back if it must."""
        import gc

        assert self._old is not None
        seconds, left = self._old[1], deadline.remaining()
        self._loaded = None
        gc.collect()  # many a model refers to itself
        # The old one's time is kept for it, half as much again for its luck: else a slow new one takes both down.
        made = self._try(
            found,
            "comes back",
            0.0 if left is None else min(1.5 * seconds + deadline.MARGIN, left / 2),
        )
        if made is not None:
            return self._serve(made)
        gc.collect()
        return self._come_back()

    def _try(self, found: Found, old: str, reserve: float) -> _Loaded | None:
        """A new version, loaded while `reserve` seconds are kept; None if that failed, and is remembered."""
        kept = deadline.reserved.get()
        try:
            deadline.reserved.set(kept + reserve)
            return self._make(found)
        except BaseException as error:
            if not _is_failure(error):
                raise
            # A version that is too slow is as bad as one that raises: the next invocation has the old one, not the same again.
            self._failed(error, found)
            why = _text(error)
            if _is_late(error):
                why += f" ({reserve:.1f} s were kept for the old one and the handler)"
            events.log(
                "error",
                "model %r: the new version does not load; the old one %s: %s",
                self.name,
                old,
                why,
            )
            return None
        finally:
            deadline.reserved.set(kept)

    def _come_back(self) -> Any:
        """Load the old one again. It did load before, so each call tries it until it does."""
        assert self._old is not None
        try:
            made = self._make(self._old[0])
        except BaseException as error:
            self._let_go(error)
            raise
        return self._serve(made)

    def _serve(self, made: _Loaded) -> Any:
        if self._failure is not None and self._failure.identity in (None, made.found.identity):
            self._failure = None
        self._changed = self._old = None
        self._loaded = made
        self._look_at = time.monotonic() + self._check_every
        return made.value

    def _failed(self, error: BaseException, found: Found) -> None:
        self._failure = _Failure(error, found.identity, self._failure)
        self._let_go(error)

    def _let_go(self, error: BaseException) -> None:
        """Tell of an error, and free what its frames hold: a failed load's buffers are as big as the model."""
        import traceback

        self._tell("error", error=_text(error))
        ahead, seen = [error], set()
        while ahead:
            one = ahead.pop()
            if id(one) not in seen:  # an error may be its own cause
                seen.add(id(one))
                traceback.clear_frames(one.__traceback__)
                ahead += [other for other in (one.__cause__, one.__context__) if other is not None]
                if isinstance(one, BaseExceptionGroup):
                    ahead += one.exceptions

    def _make(self, found: Found) -> _Loaded:
        """Load it; what is put there by hand must be the same before and after."""
        started = time.monotonic()
        for attempt in (0, 1):
            if found.plain is not None:
                found.plain = found.plain.settled()
                found.identity = found.plain.identity
            try:
                files = found.files(verify=self._verify, stage=self._stage)
                value = files.path if self._load is None else self._load(files)
            except FileNotFoundError as error:
                # Removed between the look and the read, and another is active; or this host remembers that it was missing.
                if attempt or not found.holds(error.filename):
                    raise
                found = self._finder.look()
                continue
            if value is None:
                raise EfsStateError(
                    f"{files!r}: its load function returned None: it must return the loaded model"
                )
            if hasattr(value, "__await__"):
                getattr(value, "close", str)()  # or Python warns that nobody awaited it
                raise TypeError(
                    f"model {self.name!r}: its load function returned what must be awaited, which can be done once only: a"
                    " load function is a plain `def`"
                )
            files.loaded()
            if (
                found.plain is not None
                and (now_plain := found.plain.again()).identity != found.identity
            ):
                if attempt:
                    raise EfsStateError(
                        f"{found.plain.path}: it changed again while it was loaded: publish it instead"
                    )
                del value
                found.plain = now_plain
                continue
            if found.plain is not None:
                found.plain.let_go()
            seconds = time.monotonic() - started
            self._tell("load", version=files.version, seconds=seconds, bytes=files.size)
            return _Loaded(value, files, found, seconds)
        raise AssertionError

    def _tell(self, event: str, **values: object) -> None:
        if events.listeners:
            events.emit(event, self.name, **values)


def _is_failure(error: BaseException) -> bool:
    """Whether the version failed. What else is no `Exception` says that somebody wants an end: Ctrl-C, a timeout's alarm.

    But Rust's libraries raise theirs so (pyo3's PanicException).
    """
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def _is_late(error: BaseException) -> bool:
    from efsstate.errors import DeadlineExceeded

    return isinstance(error, DeadlineExceeded)


if TYPE_CHECKING:

    @overload
    def model(
        name: str,
        load: Callable[[ModelFiles], L],
        *,
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
    check_every: units.Duration = 60,
    verify: str | None = "size",
    stage: bool = False,
    keep_old: bool = True,
    root: str | os.PathLike[str] | None = None,
) -> Model[Any]:
    """The model `name`: a function that gives the loaded object. Also a decorator, on the function that loads it.

    `name` is a published model's, or that of a file or folder below `models/`, or an absolute path. Nothing happens
    until the first call. That loads it, by `load(files)` in one thread while the others wait, and keeps it; without
    `load` it is the path. `files` has `path`, `read(name)`, `mmap(name)` and `stage()`.

    At most every `check_every` a call asks the server for another active version (one request), loads it and serves it
    from then on; the old one serves until then, and if the new one fails. `keep_old=False` frees the old one first, and
    loads it again if the new one fails, in time that is kept for it. Nothing is reloaded where twice the last load's time
    does not fit before the deadline, and a new version has three quarters of the time left at the most. Without `load` a path that
    was returned is kept in place as long as its version is loaded: who goes on with one after a swap gives a `load`.
    `verify` compares what is read with the manifest: "size", "digest" (SHA-256), or None. `stage=True` copies the files to
    `/tmp` first, once for all processes of the environment.

    A call raises what loading raised, and goes on raising it for 30 s (doubled each time, up to 15 minutes) or until
    another version is active: `ModelNotFound`, `CorruptEntryError`, `EfsStateError` (memory, deadline), `RootError`,
    `OSError`, or `load`'s own.
    """
    return Model(
        name,
        load,
        check_every=check_every,
        verify=verify,
        stage=stage,
        keep_old=keep_old,
        root=root,
    )
