"""The user's state to bytes and back: its codec, its schema, and the way from an older one."""

from __future__ import annotations

from efsstate.errors import EfsStateError, EncodeError
from efsstate.format.codec import resolve_codec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from efsstate.checkpoints.saves import Save


class States:
    """How the states of one checkpoint are stored: `codec` is the codec's name, `schema` the number that this code knows."""

    def __init__(
        self, codec: Any, schema: int, migrate: Callable[[Any, int], Any] | None, *, signed: bool
    ) -> None:
        self.codec, self._dumps, self._loads = resolve_codec(codec, signed=signed)
        self.schema = schema
        self._migrate = migrate

    def encode(self, state: Any) -> list[bytes]:
        """The state as bytes that nobody can change any more. Raises `EncodeError`."""
        try:
            made = self._dumps(state)
        except EncodeError as error:
            raise EncodeError(
                f"the state can't be saved, and earlier saves stand: {error}"
            ) from error
        # A copy of what can change: an array that changes between its checksum and its write would be saved damaged.
        # MUT: what-is-saved-is-a-copy
        return [
            part if type(part) is bytes else bytes(part)
            for part in (made if isinstance(made, list) else [made])
        ]

    def decode(self, found: Save, path: str) -> Any:
        """The state in a generation, which is at `path`; None in one without. Raises `EfsStateError`."""
        if found.schema > self.schema:
            raise EfsStateError(
                f"{path}: its state has schema {found.schema}, this code knows schema={self.schema}: it was saved by a newer"
                " deployment and is left as it is; run that deployment's code, or a newer one"
            )
        if found.empty:
            return None
        if found.codec != self.codec:
            raise EfsStateError(
                f"{path}: its state was saved with codec {found.codec!r}, not {self.codec!r}: pass that codec"
            )
        try:
            state = self._loads(found.state)
        except ValueError as error:
            raise EfsStateError(f"{path}: the state can't be read: {error}") from error
        if found.schema == self.schema:
            return state
        if self._migrate is None:
            raise EfsStateError(
                f"{path}: its state has schema {found.schema}, this code has schema={self.schema}: pass migrate=, a"
                " function of the old state and its schema that returns the new state"
            )
        return self._migrate(state, found.schema)
