"""A version that is asked for at each call: a model's active one, or a function's result."""

from __future__ import annotations

from efsstate import process
from efsstate.cache.keys import KeyBuilder
from efsstate.errors import EfsStateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_SIMPLE = frozenset((str, bytes, int))  # of which two that are equal are one version


class VersionedKeys:
    """The keys of a cached function, for the version that its source has now."""

    def __init__(self, name: str, source: Any, late: Callable[[str], bytes] | None) -> None:
        # A model is not called for its version: that would load it.
        self._identify = source.identify if hasattr(source, "identify") else None
        self._name, self._source, self._late = name, source, late
        self._last: tuple[object, KeyBuilder] | None = None

    def current(self) -> KeyBuilder | None:
        """Return the keys of the version now; None if the model has no version that can be read.

        A function's own exception reaches the caller, as one of `key=` does.
        """
        if self._identify is None:
            return self._keys_of(self._source())
        try:
            return self._keys_of(self._identify())
        except (OSError, EfsStateError) as error:
            process.raise_of_handler(error)
            return None  # the call will say so, if it uses the model

    def are_current(self, keys: KeyBuilder) -> bool:
        """Return True if the version is still the one of `keys`, after a computation."""
        if self._identify is None:
            now = self._keys_of(self._source())
        else:
            now = self._keys_of(self._identify(look=False))  # what the computation has used
        return now.start == keys.start

    def restart(self) -> None:
        """Make new keys at the next call, since captured variables are bound to other objects."""
        self._last = None

    def _keys_of(self, version: object) -> KeyBuilder:
        last = self._last
        is_simple = last is not None and type(version) in _SIMPLE
        if last is not None and is_simple and (type(version), version) == (type(last[0]), last[0]):
            return last[1]
        keys = KeyBuilder(self._name, version, self._late)
        self._last = version, keys
        return keys
