"""Keep the state of Powertools' circuit breakers on the mount.

    @circuit_breaker(name="payments", persistence_store=EfsCircuitBreakerPersistence())
    def charge(order): ...

The state of a circuit is a record (see `efsstate.records`): each change is a compare-and-set, so of
all environments one alone gets the probe of a half-open circuit.
"""

from __future__ import annotations

import json
import time
from functools import partial

from aws_lambda_powertools.utilities.circuit_breaker.exceptions import (
    CircuitBreakerConfigError,
    CircuitBreakerPersistenceError,
)
from aws_lambda_powertools.utilities.circuit_breaker.persistence.base import (
    CircuitBreakerExistingLockError,
    CircuitBreakerPersistenceLayer,
)
from aws_lambda_powertools.utilities.circuit_breaker.persistence.record import CircuitStateRecord
from aws_lambda_powertools.utilities.circuit_breaker.states import CircuitState

from efsstate import process
from efsstate.adapters._powertools import RecordMount
from efsstate.errors import EfsStateError
from efsstate.records.revision import CLAIMED, Content
from efsstate.records.store import RecordChanged

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from typing import TypeVar

    from efsstate.records.revision import Revision
    from efsstate.records.store import RecordStore
    from efsstate.units import Duration

    T = TypeVar("T")

_FIELDS = ("failure_count", "opened_at", "half_open_owner", "probe_lease_expiry")
_KEPT = 86_400  # seconds, for a record without an expiry


class EfsCircuitBreakerPersistence(CircuitBreakerPersistenceLayer):
    """A persistence layer for `circuit_breaker`; the options are those of `EfsPersistenceLayer`.

    A read that fails counts as a closed circuit, as Powertools has it. A write that fails raises
    `CircuitBreakerPersistenceError`.
    """

    def __init__(
        self,
        name: str = "circuit_breaker",
        *,
        window: Duration = "1d",
        root: str | os.PathLike[str] | None = None,
        io_timeout: Duration | None = None,
    ) -> None:
        try:
            self._mount = RecordMount(name, window, root, io_timeout)
        except (TypeError, ValueError) as error:
            raise CircuitBreakerConfigError(str(error)) from error
        super().__init__()

    def _get_record(self, name: str) -> CircuitStateRecord | None:
        return self._mount.call(lambda store: _read(store, name)[1])

    def _put_record(
        self,
        record: CircuitStateRecord,
        condition: str | None = None,
        expected_opened_at: int | None = None,
    ) -> None:
        is_probe = condition == "half_open"
        check = partial(_require_probe, expected_opened_at=expected_opened_at) if is_probe else None
        self._change(record, check)

    def _update_record(self, record: CircuitStateRecord) -> None:
        self._change(record, None)

    def _change(
        self,
        record: CircuitStateRecord,
        check: Callable[[CircuitStateRecord | None], object] | None,
    ) -> None:
        try:
            self._mount.call(partial(_change, record=record, check=check))
        except (OSError, EfsStateError) as error:
            process.raise_of_handler(error)
            raise CircuitBreakerPersistenceError(
                f"circuit {record.name}: its state could not be kept", error
            ) from error


def _change(
    store: RecordStore,
    record: CircuitStateRecord,
    check: Callable[[CircuitStateRecord | None], object] | None,
) -> None:
    """Replace the record of a circuit, if `check` does not refuse the one that is there."""
    fields = {name: getattr(record, name) for name in _FIELDS}
    content = Content(
        CLAIMED,
        record.expiry_timestamp or int(time.time()) + _KEPT,
        value=json.dumps({"state": str(record.state), **fields}),
    )
    is_kept = False
    while not is_kept:
        revision, current = _read(store, record.name)
        if check is not None:
            check(current)
        try:
            store.put(record.name, content, revision)
            is_kept = True
        except RecordChanged:
            pass  # another environment was first: look again


def _require_probe(current: CircuitStateRecord | None, expected_opened_at: int | None) -> None:
    """Raise CircuitBreakerExistingLockError if the probe of the circuit is not to be had."""
    if current is not None and current.state == CircuitState.OPEN:
        is_free = current.half_open_owner is None and (
            expected_opened_at is None or current.opened_at == expected_opened_at
        )
    else:
        lease = None if current is None else current.probe_lease_expiry
        is_half_open = current is not None and current.state == CircuitState.HALF_OPEN
        is_free = is_half_open and lease is not None and lease <= int(time.time())
    if not is_free:
        raise CircuitBreakerExistingLockError


def _read(store: RecordStore, name: str) -> tuple[Revision | None, CircuitStateRecord | None]:
    revision = store.read(name)
    if revision is None or not revision.is_live(time.time()):
        return revision, None
    fields = json.loads(store.value(revision) or "{}")
    state = CircuitState(fields.pop("state"))
    return revision, CircuitStateRecord(
        name=name, state=state, expiry_timestamp=revision.expires, **fields
    )
