"""A model in this process: loaded once, on the first call, and exchanged when another version is activated."""

from __future__ import annotations

import threading
import time

from efsstate import units
from efsstate.errors import ModelNotFound
from efsstate.mount import layout
from efsstate.mount import root as roots

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from typing import Any, Generic, TypeVar

    from efsstate.modelstore.content import Files

    T = TypeVar("T")

    class _Generic(Generic[T]): ...

else:
    T = None

    class _Generic:
        """`Model[Network]` in an annotation, without an import of typing."""

        def __class_getitem__(cls, _parameter):
            return cls


class Model(_Generic[T]):
    """A model that is loaded on its first call; made by `efsstate.model`."""

    def __init__(
        self,
        name: str,
        load: Callable[[Files], T] | None,
        *,
        check_every: units.Duration = 60,
        verify: str | None = "size",
        stage: bool = False,
        keep_old: bool = True,
        root: str | os.PathLike[str] | None = None,
    ) -> None:
        self.name = name
        self._model = layout.model_folder(name)
        self._load, self._check_every = load, units.seconds(check_every, "check_every")
        self._verify, self._stage, self._keep_old, self._root = verify, stage, keep_old, root
        self._lock = threading.Lock()
        self._value: Any = None
        self._version: str | None = None
        self._look_at = 0.0

    def __call__(self, load: Callable[[Files], Any] | None = None) -> Any:
        """The loaded object; or, given a function, the model that it loads (as a decorator does)."""
        if load is not None:
            return Model(
                self.name,
                load,
                check_every=self._check_every,
                verify=self._verify,
                stage=self._stage,
                keep_old=self._keep_old,
                root=self._root,
            )
        if self._version is not None and time.monotonic() < self._look_at:
            return self._value
        with self._lock:
            return self._fresh()

    def _fresh(self) -> Any:
        from efsstate.modelstore import content, manifest

        mount = roots.resolve(self._root, durable=True)
        mount.refresh(self._model)
        try:
            made = manifest.current(mount, self._model)
        except FileNotFoundError:
            raise ModelNotFound(
                f"{mount.where(self._model)}: no version of model {self.name!r} is active here"
            ) from None
        self._look_at = time.monotonic() + self._check_every
        if made.version != self._version:
            files = content.Files(mount, layout.version_folder(self._model, made.version), made, self._verify)
            value = files.path if self._load is None else self._load(files)
            self._value, self._version = value, made.version
        return self._value


def model(
    name: str,
    load: Callable[[Files], T] | None = None,
    *,
    check_every: units.Duration = 60,
    verify: str | None = "size",
    stage: bool = False,
    keep_old: bool = True,
    root: str | os.PathLike[str] | None = None,
) -> Model[T]:
    """The model `name`, loaded by `load(files)` on the first call of what this returns."""
    return Model(name, load, check_every=check_every, verify=verify, stage=stage, keep_old=keep_old, root=root)
