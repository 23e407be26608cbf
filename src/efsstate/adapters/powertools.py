"""Keep the idempotency records of AWS Lambda Powertools on the mount.

    @idempotent(persistence_store=EfsPersistenceLayer())
    def handler(event, context): ...

A record is a chain of revisions (see `efsstate.records`): a call claims the next one, and its
result is the one after that. So a run that outlived its claim cannot overwrite the result of its
successor, as it can in Powertools' own layers.
"""

from __future__ import annotations

from functools import partial

from aws_lambda_powertools.shared.version import VERSION
from aws_lambda_powertools.utilities.idempotency.exceptions import (
    IdempotencyItemAlreadyExistsError,
    IdempotencyItemNotFoundError,
    IdempotencyPersistenceConfigError,
    IdempotencyPersistenceLayerError,
)
from aws_lambda_powertools.utilities.idempotency.persistence.base import BasePersistenceLayer
from aws_lambda_powertools.utilities.idempotency.persistence.datarecord import DataRecord

from efsstate.adapters._powertools import RecordMount, Runs
from efsstate.errors import ClaimLost
from efsstate.records.revision import CLAIMED, DONE, FREED, Content
from efsstate.records.store import RecordChanged

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from typing import Any, Self

    from efsstate.records.revision import Revision
    from efsstate.records.store import RecordStore
    from efsstate.units import Duration

_STATUS = {CLAIMED: "INPROGRESS", DONE: "COMPLETED"}


class EfsPersistenceLayer(BasePersistenceLayer):
    """A persistence layer for `idempotent` and `idempotent_function`.

    - `name` and `window`: layers with the same two share their records. The sweep removes records
      by windows. Give a window at least the length of `expires_after_seconds`: a first call looks
      into each earlier window that may still count.
    - `root`, `io_timeout`: as of `Cache`.

    Powertools raises `IdempotencyPersistenceLayerError` if the mount fails, and does not run the
    function. It also raises that at the end of a run that another call has taken over.
    """

    def __new__(cls, *_arguments: Any, **_options: Any) -> Self:
        """Refuse a Powertools that asks for more than this class has."""
        missing = getattr(cls, "__abstractmethods__", None)
        if missing:
            raise IdempotencyPersistenceConfigError(
                f"aws-lambda-powertools {VERSION}: its layers need {', '.join(sorted(missing))},"
                " which this efsstate does not have; update efsstate"
            )
        return super().__new__(cls)

    def __init__(
        self,
        name: str = "idempotency",
        *,
        window: Duration = "1d",
        root: str | os.PathLike[str] | None = None,
        io_timeout: Duration | None = None,
    ) -> None:
        try:
            self._mount = RecordMount(name, window, root, io_timeout)
        except (TypeError, ValueError) as error:
            raise IdempotencyPersistenceConfigError(str(error)) from error
        self._runs = Runs()
        super().__init__()  # type: ignore[no-untyped-call]

    def _get_record(self, idempotency_key: str) -> DataRecord:
        record = self._mount.call(partial(_read, key=idempotency_key))
        if record is None:
            raise IdempotencyItemNotFoundError
        return record

    def _put_record(self, data_record: DataRecord) -> None:
        claim = Content(
            CLAIMED,
            data_record.expiry_timestamp or 0,
            lease=data_record.in_progress_expiry_timestamp,
            note=data_record.payload_hash or "",
        )
        key = data_record.idempotency_key
        seen, record = self._mount.call(partial(_claim, key=key, claim=claim))
        self._runs.remember(key, seen)
        if record is not None:
            self._validate_payload(data_payload=data_record, stored_data_record=record)
            self._save_to_cache(data_record=record)
            raise IdempotencyItemAlreadyExistsError(old_data_record=record)

    def _update_record(self, data_record: DataRecord) -> None:
        result = Content(
            DONE,
            data_record.expiry_timestamp or 0,
            note=data_record.payload_hash or "",
            value=data_record.response_data or "",
        )
        self._finish(data_record.idempotency_key, result)

    def _delete_record(self, data_record: DataRecord) -> None:
        is_run = self._runs.knows(data_record.idempotency_key)
        try:
            self._finish(data_record.idempotency_key, Content(FREED))
        except ClaimLost as error:
            # Another call has it: that one's claim or result stays, and this run's error is raised.
            if not is_run:
                raise IdempotencyPersistenceLayerError(str(error)) from error

    def _finish(self, key: str, content: Content) -> None:
        seen = self._runs.forget(key)
        self._mount.call(lambda store: store.finish(key, seen, content))


def _read(store: RecordStore, key: str) -> DataRecord | None:
    revision = store.read(key)
    is_there = revision is not None and revision.state in _STATUS
    return _record_of(store, revision, key) if revision is not None and is_there else None


def _claim(store: RecordStore, key: str, claim: Content) -> tuple[Revision, DataRecord | None]:
    """Claim `key`: return our revision, or the live one that is there, with its record."""
    try:
        return store.claim(key, claim), None
    except RecordChanged as changed:
        return changed.revision, _record_of(store, changed.revision, key)


def _record_of(store: RecordStore, revision: Revision, key: str) -> DataRecord:
    content = revision.content
    return DataRecord(
        idempotency_key=key,
        status=_STATUS[revision.state],
        expiry_timestamp=revision.expires,
        in_progress_expiry_timestamp=content.lease,
        response_data=store.value(revision) or "",
        payload_hash=content.note,
    )
