"""One load: call the user's function with the files of a resolved model, and judge its result."""

from __future__ import annotations

import time

from efsstate import events
from efsstate.errors import EfsStateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from efsstate.modelstore.model_files import ModelFiles
    from efsstate.modelstore.resolve import ResolvedModel, Resolver

    Load = Callable[[ModelFiles], Any] | None


class LoadedModel:
    """A model in memory: its `value`, and how many `seconds` the load took.

    `files` keeps its local copy in place while it is loaded.
    """

    __slots__ = ("files", "resolved", "seconds", "value")

    def __init__(
        self, value: Any, files: ModelFiles, resolved: ResolvedModel, seconds: float
    ) -> None:
        self.value, self.files = value, files
        self.resolved, self.seconds = resolved, seconds

    @property
    def identity(self) -> str:
        """Return the identity of the resolved model."""
        return self.resolved.identity


def load_model(
    name: str,
    resolver: Resolver,
    resolved: ResolvedModel,
    load: Load,
    *,
    verify: str | None,
    stage: bool,
) -> LoadedModel:
    """Load `resolved`; an unmanaged model must be the same before and after."""
    started = time.monotonic()
    for is_last in (False, True):
        if resolved.unmanaged is not None:
            resolved.replace_unmanaged(resolved.unmanaged.settle())
        try:
            files = resolved.files(verify=verify, stage=stage)
            value = files.path if load is None else load(files)
        except FileNotFoundError as error:
            # 1. The version was removed between the look and the read, and another is active; or
            # 2. this host's NFS client remembers that the file was missing.
            if is_last or not resolved.is_below(error.filename):
                raise
            resolved = resolver.resolve()
            continue
        _require_model(name, files, value)
        files.end_load()
        if resolved.unmanaged is not None:
            now = resolved.unmanaged.look_again()
            if now.identity != resolved.identity:
                if is_last:
                    raise EfsStateError(
                        f"{now.path}: it changed again while it was loaded; publish it instead"
                    )
                del value
                resolved.replace_unmanaged(now)
                continue
            resolved.unmanaged.close_folders()
        seconds = time.monotonic() - started
        if events.listeners:
            size = files.size
            events.emit("model", "load", name, version=files.version, seconds=seconds, bytes=size)
        return LoadedModel(value, files, resolved, seconds)
    raise AssertionError


def _require_model(name: str, files: ModelFiles, value: Any) -> None:
    """Raise for a result that is no model: None, and an awaitable."""
    if value is None:
        raise EfsStateError(
            f"{files!r}: its load function returned None; it must return the loaded model"
        )
    if hasattr(value, "__await__"):
        getattr(value, "close", str)()  # else Python warns that it was never awaited
        raise TypeError(
            f"model {name!r}: its load function returned an awaitable, which can be awaited only"
            " once; write the load function as a plain `def`"
        )
