"""Events reach whoever listens, as plain values, and a listener that fails harms nobody."""

import pickle

import pytest

from efsstate import errors, events, on_event


def test_listeners_get_plain_records_until_they_end(caplog):
    got = []
    end = on_event(got.append)
    broken = on_event(lambda record: 1 / 0)
    try:
        events.emit("cache", "hit", "ns", seconds=0.5, bytes=10)
        events.emit("cache", "hit", "ns", seconds=0.5, bytes=10)
    finally:
        end()
        broken()
    events.emit("cache", "hit", "ns")
    assert got == [{"kind": "cache", "event": "hit", "name": "ns", "seconds": 0.5, "bytes": 10}] * 2
    assert caplog.text.count("ZeroDivisionError") == 1 and not events.listeners


def test_what_is_no_function_is_refused_at_once():
    with pytest.raises(TypeError, match="on_event: a function is needed, not 5"):
        on_event(5)
    assert not events.listeners


def test_log_records_carry_their_values(caplog):
    events.log("warning", "%s is full", "x", kind="root", event="full", once="test", path="x")
    events.log("warning", "%s is full", "x", kind="root", event="full", once="test", path="x")
    assert [(r.name, r.getMessage(), r.efsstate) for r in caplog.records] == [
        ("efsstate", "x is full", {"kind": "root", "event": "full", "path": "x"})
    ]


@pytest.mark.parametrize(
    "error",
    [
        errors.CorruptEntryError("/p", "why"),
        errors.SignatureError("/p", "why"),
        errors.UnknownFormatError("/p", 9),
        errors.ClaimedError("held", {"host": "h"}),
    ],
)
def test_errors_survive_pickling_and_name_their_path(error):
    back = pickle.loads(pickle.dumps(error))
    assert (
        type(back) is type(error)
        and str(back) == str(error)
        and isinstance(back, errors.EfsStateError)
    )
