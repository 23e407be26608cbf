"""Powertools: idempotency and circuit breakers on the mount, beside the layers for DynamoDB."""

import json
import os
import random
import sys
import threading
import time
import types

import pytest

pytest.importorskip("aws_lambda_powertools", reason="needs aws-lambda-powertools")

from aws_lambda_powertools.utilities.idempotency import (
    DynamoDBPersistenceLayer,
    IdempotencyConfig,
    idempotent,
    idempotent_function,
)
from aws_lambda_powertools.utilities.idempotency.exceptions import (
    IdempotencyAlreadyInProgressError,
    IdempotencyItemAlreadyExistsError,
    IdempotencyItemNotFoundError,
    IdempotencyPersistenceConfigError,
    IdempotencyPersistenceLayerError,
    IdempotencyValidationError,
)
from aws_lambda_powertools.utilities.idempotency.persistence.base import BasePersistenceLayer
from aws_lambda_powertools.utilities.idempotency.persistence.datarecord import DataRecord

from efsstate import sweep
from efsstate.adapters.powertools import EfsPersistenceLayer
from efsstate.errors import ClaimLost
from efsstate.mount.files import Mount


class Context:
    function_name = "charge"

    def __init__(self, milliseconds=30_000):
        self.milliseconds = milliseconds

    def get_remaining_time_in_millis(self):
        return self.milliseconds


def handler_of(function, layer=None, **options):
    config = IdempotencyConfig(**options)
    if isinstance(function, Calls):
        function = function.handler()
    return idempotent(config=config, persistence_store=layer or EfsPersistenceLayer())(function)


class Calls:
    """A handler that counts its runs."""

    def __init__(self, result=None):
        self.count, self.result = 0, result

    def handler(self):
        def charge(event, context):
            self.count += 1
            return {"run": self.count} if self.result is None else self.result

        return charge


def test_a_duplicate_gets_the_first_result():
    calls = Calls()
    handler = handler_of(calls)
    assert [handler({"order": 1}, Context()) for _ in range(3)] == [{"run": 1}] * 3
    assert handler({"order": 2}, Context()) == {"run": 2} and calls.count == 2


@pytest.mark.parametrize(
    "result",
    [0, [], {"text": "é\n\ud800 / "}, {"large": "x" * 300_000}],
    ids=["0", "[]", "text", "large"],
)
def test_a_result_comes_back_from_another_layer(result):
    calls = Calls(result)
    assert handler_of(calls)({"order": 1}, Context()) == result
    again = handler_of(calls)({"order": 1}, Context())
    # Powertools gives None for a stored result that is empty.
    assert again == (result or None) and calls.count == 1


def test_a_handler_that_raises_runs_again():
    attempts = []

    def charge(event, context):
        attempts.append(event)
        if len(attempts) < 3:
            raise ValueError("declined")
        return "charged"

    handler = handler_of(charge)
    for _ in range(2):
        with pytest.raises(ValueError, match="declined"):
            handler({"order": 1}, Context())
    assert handler({"order": 1}, Context()) == handler({"order": 1}, Context()) == "charged"
    assert len(attempts) == 3


def test_a_call_beside_another_is_refused():
    begun, proceed = threading.Event(), threading.Event()

    def charge(event, context):
        begun.set()
        assert proceed.wait(10)
        return "charged"

    handler, results = handler_of(charge), []
    thread = threading.Thread(target=lambda: results.append(handler({"order": 1}, Context())))
    thread.start()
    assert begun.wait(10)
    for layer in (None, EfsPersistenceLayer()):
        other = handler if layer is None else handler_of(charge, layer)
        with pytest.raises(IdempotencyAlreadyInProgressError):
            other({"order": 1}, Context())
    proceed.set()
    thread.join()
    assert results == ["charged"] and handler({"order": 1}, Context()) == "charged"


def test_a_run_that_was_taken_over_is_fenced():
    """Also within one process and layer: each thread has claims of its own."""
    begun, proceed = threading.Event(), threading.Event()
    results = []

    def charge(event, context):
        if not begun.is_set():
            begun.set()
            assert proceed.wait(10)
            return "late"
        return "successor's"

    handler = handler_of(charge)

    def call():
        try:
            handler({"order": 1}, Context(50))
        except IdempotencyPersistenceLayerError as error:
            results.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    assert begun.wait(10)
    time.sleep(0.1)  # its time is over
    assert handler({"order": 1}, Context()) == "successor's"
    proceed.set()
    thread.join()
    (error,) = results
    assert isinstance(error.__cause__, ClaimLost) and "another run took" in str(error)
    assert handler({"order": 1}, Context()) == "successor's"


def test_a_late_run_that_raises_leaves_its_successors_result():
    late, successor = EfsPersistenceLayer(), EfsPersistenceLayer()
    late._put_record(DataRecord("k", "INPROGRESS", expiry(), millis(-1)))
    successor._put_record(DataRecord("k", "INPROGRESS", expiry(), millis(60)))
    late._delete_record(DataRecord("k"))
    assert successor._get_record("k").status == "INPROGRESS"
    successor._update_record(DataRecord("k", "COMPLETED", expiry(), response_data='"kept"'))
    assert late._get_record("k").response_data == '"kept"'


def test_a_run_without_a_deadline_blocks_until_it_expires():
    first = EfsPersistenceLayer()
    first._put_record(DataRecord("k", "INPROGRESS", expiry()))
    with pytest.raises(IdempotencyItemAlreadyExistsError):
        EfsPersistenceLayer()._put_record(DataRecord("k", "INPROGRESS", expiry()))


def test_another_payload_under_one_key_is_refused():
    handler = handler_of(Calls(), event_key_jmespath="id", payload_validation_jmespath="amount")
    handler({"id": 1, "amount": 10}, Context())
    handler({"id": 1, "amount": 10}, Context())
    with pytest.raises(IdempotencyValidationError):
        handler({"id": 1, "amount": 20}, Context())


def test_functions_and_the_local_cache():
    layer = EfsPersistenceLayer()
    calls = []

    @idempotent_function(
        data_keyword_argument="order",
        persistence_store=layer,
        config=IdempotencyConfig(use_local_cache=True, lambda_context=Context()),
    )
    def charge(order):
        calls.append(order)
        return {"paid": order}

    assert charge(order=1) == charge(order=1) == {"paid": 1} and calls == [1]


def test_a_durable_replay_finishes_the_claim_that_it_saw():
    """Powertools runs the handler again in a replay, though the record is in progress."""
    first, replay = EfsPersistenceLayer(), EfsPersistenceLayer()
    first._put_record(DataRecord("k", "INPROGRESS", expiry(), millis(60)))
    with pytest.raises(IdempotencyItemAlreadyExistsError):
        replay._put_record(DataRecord("k", "INPROGRESS", expiry(), millis(60)))
    replay._update_record(DataRecord("k", "COMPLETED", expiry(), response_data="1"))
    with pytest.raises(ClaimLost):
        first._update_record(DataRecord("k", "COMPLETED", expiry(), response_data="2"))
    assert first._get_record("k").response_data == "1"


def test_a_result_without_a_claim_is_kept_once():
    layer = EfsPersistenceLayer()
    layer._update_record(DataRecord("k", "COMPLETED", expiry(), response_data="1"))
    with pytest.raises(ClaimLost, match="has a result already"):
        layer._update_record(DataRecord("k", "COMPLETED", expiry(), response_data="2"))
    layer._delete_record(DataRecord("unknown"))


def test_a_result_cannot_be_deleted():
    """Whoever saw it relies on it; Powertools itself deletes only claims."""
    layer = EfsPersistenceLayer()
    layer._put_record(DataRecord("k", "INPROGRESS", expiry(), millis(60)))
    layer._update_record(DataRecord("k", "COMPLETED", expiry(), response_data="1"))
    with pytest.raises(IdempotencyPersistenceLayerError, match="stays until it expires"):
        layer._delete_record(DataRecord("k"))
    assert layer._get_record("k").response_data == "1"


# Beside DynamoDB


def expiry(seconds=3600):
    return int(time.time()) + seconds


def millis(seconds):
    return int((time.time() + seconds) * 1000)


@pytest.fixture
def dynamodb(monkeypatch):
    moto = pytest.importorskip("moto")
    import boto3

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    with moto.mock_aws():
        client = boto3.client("dynamodb")
        client.create_table(
            TableName="t",
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        yield client


def outcome(call, record):
    """Return what a layer's method does, as plain values."""
    try:
        answer = call(record)
    except IdempotencyItemAlreadyExistsError as error:
        return "exists", shown(error.old_data_record)
    except (IdempotencyItemNotFoundError, IdempotencyValidationError) as error:
        return type(error).__name__, None
    return "done", shown(answer)


def shown(record):
    if record is None:
        return None
    lease = record.in_progress_expiry_timestamp if record.status == "INPROGRESS" else None
    # DynamoDB's numbers come back as Decimal.
    return (
        record.idempotency_key, record.status, int(record.expiry_timestamp),
        None if lease is None else int(lease), record.response_data or "",
        record.payload_hash or "",
    )  # fmt: skip


class Run:
    """One call's claim, on a layer of its own: it may come to its end late."""

    def __init__(self, key, hash_, expires):
        self.key, self.hash, self.expires = key, hash_, expires
        self.layer = layer_with_validation()


def layer_with_validation():
    layer = EfsPersistenceLayer()
    layer.payload_validation_enabled = True
    return layer


@pytest.mark.parametrize("count", [200, pytest.param(10_000, marks=pytest.mark.slow)])
def test_random_operations_agree_with_dynamodb(count, dynamodb):
    """Claims, results, removals and reads of a few keys; late runs differ, and are fenced."""
    chance = random.Random(11)
    theirs = DynamoDBPersistenceLayer("t", boto3_client=dynamodb)
    theirs.payload_validation_enabled = True
    runs, holders, fenced, kinds = [], {}, 0, {}
    for step in range(count):
        # Other keys from time to time, because a result that counts stays. DynamoDB takes 2 KB.
        key = f"{chance.choice('abc')}{step // 25}{'k' * chance.choice([0, 0, 1_900])}"
        kind = chance.choice(["put", "put", "update", "delete", "get", "late"])
        run = holders.get(key)
        if kind == "put":
            run = Run(key, chance.choice(["h1", "h1", "h2"]), expiry(chance.choice([3600, -5])))
            lease = chance.choice([None, millis(100), millis(-100), millis(-100)])
            record = DataRecord(key, "INPROGRESS", run.expires, lease, payload_hash=run.hash)
            mine, other = (
                outcome(run.layer._put_record, record),
                outcome(theirs._put_record, record),
            )
            if mine[0] == "done":
                runs.append(run)
                holders[key] = run
        elif kind in ("update", "delete") and run is not None:
            del holders[key]
            text = json.dumps({"step": step, "x": "y" * chance.choice([0, 10, 6000])})
            record = DataRecord(
                key, "COMPLETED", expiry(chance.choice([3600, -5])), None, text, run.hash
            )
            method = f"_{kind}_record"
            mine = outcome(getattr(run.layer, method), record)
            other = outcome(getattr(theirs, method), record)
        elif kind == "late":
            # Those that were taken over, and have not come to their end.
            late = [
                run
                for run in runs[-20:]
                if holders.get(run.key) is not run and run.layer._runs.knows(run.key)
            ]
            if not late:
                continue
            run = chance.choice(late)
            record = DataRecord(run.key, "COMPLETED", expiry(), None, '"late"', run.hash)
            with pytest.raises(ClaimLost):
                run.layer._update_record(record)
            fenced += 1
            continue
        else:
            kind = "get"
            mine = outcome(layer_with_validation()._get_record, key)
            other = outcome(theirs._get_record, key)
        kinds[kind, mine[0]] = kinds.get((kind, mine[0]), 0) + 1
        assert mine == other, (step, kind, key)
    print(f"{sum(kinds.values())} operations agreed, {fenced} late runs were fenced: {kinds}")
    assert fenced > count / 100 and all(number > 1 for number in kinds.values())
    assert kinds["put", "exists"] and kinds["put", "IdempotencyValidationError"]


# Bad input


def test_a_newer_powertools_that_asks_for_more_is_refused(monkeypatch):
    monkeypatch.setattr(EfsPersistenceLayer, "__abstractmethods__", frozenset(["_lock_record"]))
    with pytest.raises(
        IdempotencyPersistenceConfigError, match=r"need _lock_record.*update efsstate"
    ):
        EfsPersistenceLayer()


def test_all_that_powertools_asks_for_is_there():
    assert BasePersistenceLayer.__abstractmethods__ == {
        "_get_record", "_put_record", "_update_record", "_delete_record",
    }  # fmt: skip


def test_an_older_powertools_is_refused(monkeypatch):
    """The oldest versions have no module for DataRecord: Python's own error names it."""
    name = "aws_lambda_powertools.utilities.idempotency.persistence.datarecord"
    monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.delitem(sys.modules, "efsstate.adapters.powertools")
    with pytest.raises(ImportError, match=r"DataRecord.*aws_lambda_powertools"):
        __import__("efsstate.adapters.powertools")


@pytest.mark.parametrize(
    "options", [{"name": ""}, {"name": 5}, {"window": 0}, {"window": "soon"}, {"io_timeout": "x"}]
)
def test_a_bad_option_is_a_config_error(options):
    with pytest.raises(IdempotencyPersistenceConfigError):
        EfsPersistenceLayer(**options)


def test_a_result_that_json_cannot_hold_is_an_error_after_the_run():
    handler = handler_of(Calls({"when": object()}))
    with pytest.raises(IdempotencyPersistenceLayerError, match="Failed to update record state"):
        handler({"order": 1}, Context())


def test_a_key_of_ten_kilobytes():
    layer = EfsPersistenceLayer()
    key = "é\0/\n" * 2_500
    layer._put_record(DataRecord(key, "INPROGRESS", expiry(), millis(60)))
    layer._update_record(DataRecord(key, "COMPLETED", expiry(), response_data="1"))
    assert layer._get_record(key).response_data == "1"
    with pytest.raises(IdempotencyItemNotFoundError):
        layer._get_record(key + "x")


@pytest.mark.parametrize("errno_name", ["EROFS", "EACCES", "ENOSPC", "EDQUOT", "EIO", "ESTALE"])
def test_a_mount_that_fails_runs_nothing(errno_name, monkeypatch):
    import errno

    calls = Calls()
    handler = handler_of(calls)
    handler({"order": 0}, Context())
    code = getattr(errno, errno_name)

    def fail(*_args, **_named):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "symlink", fail)
    with pytest.raises(IdempotencyPersistenceLayerError, match="Failed to save in progress"):
        handler({"order": 1}, Context())
    assert calls.count == 1


def test_a_mount_that_hangs_runs_nothing(monkeypatch):
    calls, hang = Calls(), threading.Event()
    handler = handler_of(calls, EfsPersistenceLayer(io_timeout=0.2))
    handler({"order": 0}, Context())
    monkeypatch.setattr(Mount, "symlink", lambda *_, **__: hang.wait(20))
    with pytest.raises(IdempotencyPersistenceLayerError):
        handler({"order": 1}, Context())
    hang.set()
    assert calls.count == 1


def test_a_damaged_record_runs_nothing():
    calls = Calls()
    handler = handler_of(calls)
    handler({"order": 1}, Context())
    for folder, _, names in os.walk(os.environ["EFSSTATE_ROOT"]):
        for name in names:
            if name.endswith(".2"):
                text = os.readlink(f"{folder}/{name}")
                os.unlink(f"{folder}/{name}")
                os.symlink(text.replace('"run": 1', '"run": 7'), f"{folder}/{name}")
    with pytest.raises(IdempotencyPersistenceLayerError, match="checksum does not match"):
        handler({"order": 1}, Context())
    assert calls.count == 1


def test_a_root_without_a_name_is_refused(monkeypatch, tmp_path):
    monkeypatch.delenv("EFSSTATE_ROOT")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(IdempotencyPersistenceLayerError, match="no root was named"):
        handler_of(Calls())({"order": 1}, Context())


def test_the_sweep_leaves_records_that_count():
    handler = handler_of(Calls())
    handler({"order": 1}, Context())
    assert "record" not in sweep().reasons
    assert handler({"order": 1}, Context()) == {"run": 1}


def test_the_root_is_looked_up_again_when_it_changes(monkeypatch, tmp_path):
    calls = Calls()
    handler = handler_of(calls)
    handler({"order": 1}, Context())
    monkeypatch.setenv("EFSSTATE_ROOT", str(tmp_path / "other"))
    handler({"order": 1}, Context())
    assert calls.count == 2


def test_a_thread_remembers_a_bounded_number_of_runs(monkeypatch):
    from efsstate.adapters import _powertools

    monkeypatch.setattr(_powertools, "_MOST", 3)
    layer = EfsPersistenceLayer()
    for number in range(9):
        layer._put_record(DataRecord(str(number), "INPROGRESS", expiry(), millis(60)))
    assert len(layer._runs._seen) == 3


# Circuit breakers


@pytest.fixture
def breaker():
    """A function that makes a layer, ours or theirs for DynamoDB, with a fresh local memory."""
    pytest.importorskip(
        "aws_lambda_powertools.utilities.circuit_breaker", reason="needs Powertools 3.34"
    )
    from efsstate.adapters.powertools_breaker import EfsCircuitBreakerPersistence

    return EfsCircuitBreakerPersistence


def test_a_circuit_opens_probes_and_closes_for_the_fleet(breaker):
    from aws_lambda_powertools.utilities.circuit_breaker import (
        CircuitBreakerConfig,
        CircuitBreakerOpenError,
        circuit_breaker,
    )

    config = CircuitBreakerConfig(
        failure_threshold=2, recovery_timeout=1, success_threshold=1, local_cache_max_age=0
    )
    is_down, calls = [True], []

    def environment():
        @circuit_breaker(name="pay", config=config, persistence_store=breaker())
        def charge():
            calls.append(1)
            if is_down:
                raise ConnectionError
            return "paid"

        return charge

    first, second = environment(), environment()
    for _ in range(2):
        with pytest.raises(ConnectionError):
            first()
    for charge in (first, second):
        with pytest.raises(CircuitBreakerOpenError):
            charge()
    assert len(calls) == 2
    time.sleep(2.1)
    is_down.clear()
    assert second() == "paid" and first() == "paid"
    assert breaker().get_state("pay").state == "CLOSED"


def test_only_one_gets_the_probe(breaker):
    layers = [breaker() for _ in range(8)]
    layers[0].save_open("pay", 5, 1000)
    barrier, winners = threading.Barrier(len(layers)), []

    def elect(index):
        barrier.wait()
        if layers[index].try_acquire_half_open("pay", str(index), 1000):
            winners.append(index)

    threads = [threading.Thread(target=elect, args=(i,)) for i in range(len(layers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(winners) == 1
    assert breaker().get_state("pay").half_open_owner == str(winners[0])


@pytest.mark.parametrize("count", [60, pytest.param(8_000, marks=pytest.mark.slow)])
def test_circuits_agree_with_dynamodb(count, dynamodb, breaker):
    from aws_lambda_powertools.utilities.circuit_breaker.persistence.base import (
        CircuitBreakerExistingLockError,
    )
    from aws_lambda_powertools.utilities.circuit_breaker.persistence.dynamodb import (
        CircuitBreakerDynamoDBPersistence,
    )
    from aws_lambda_powertools.utilities.circuit_breaker.persistence.record import (
        CircuitStateRecord,
    )
    from aws_lambda_powertools.utilities.circuit_breaker.states import CircuitState

    chance = random.Random(3)
    theirs = CircuitBreakerDynamoDBPersistence("t", boto3_client=dynamodb)
    outcomes = {}
    for step in range(count):
        name, now = chance.choice("ab"), int(time.time())
        opened = chance.choice([1000, 2000])
        state = chance.choice(list(CircuitState))
        probing = state == CircuitState.HALF_OPEN
        record = CircuitStateRecord(
            name, state, chance.randrange(3), opened if state != CircuitState.CLOSED else None,
            "me" if probing else None, now + chance.choice([-50, 50]) if probing else None,
            now + 3600,
        )  # fmt: skip
        kind = chance.choice(["get", "put", "probe", "update"])
        answers = []
        for layer in (breaker(), theirs):
            try:
                if kind == "get":
                    answer = layer._get_record(name)
                elif kind == "put":
                    answer = layer._put_record(record)
                elif kind == "probe":
                    expected = chance_of(step, [1000, 2000, None])
                    answer = layer._put_record(record, "half_open", expected)
                else:
                    record.half_open_owner = record.probe_lease_expiry = None
                    answer = layer._update_record(record)
            except CircuitBreakerExistingLockError:
                answer = "lost"
            answers.append(answer)
        assert answers[0] == answers[1], (step, kind)
        outcomes[kind, answers[0] == "lost"] = outcomes.get((kind, answers[0] == "lost"), 0) + 1
    print(f"{count} operations agreed: {outcomes}")
    assert outcomes["probe", True] > 3 and outcomes["probe", False] > 3


def chance_of(step, values):
    return values[step % len(values)]


def test_a_circuits_write_that_fails_is_powertools_error(breaker, monkeypatch):
    from aws_lambda_powertools.utilities.circuit_breaker import (
        CircuitBreakerConfigError,
        CircuitBreakerPersistenceError,
    )

    def fail(*_args, **_named):
        raise OSError(30, "Read-only file system")

    layer = breaker()
    layer.save_open("pay", 5, 1000)
    monkeypatch.setattr(os, "symlink", fail)
    with pytest.raises(CircuitBreakerPersistenceError, match="its state could not be kept"):
        layer.save_closed("pay")
    with pytest.raises(CircuitBreakerConfigError):
        breaker(window=0)
