"""Alarms and interrupts that end a block between two of the library's own steps."""

import gc

import pytest

from efsstate import checkpoint
from efsstate.checkpoints.pace import Job, Kept
from efsstate.format.codec import msgpack


class Stop(Exception):  # noqa: N818 - an alarm, and no error of ours
    """The alarm."""


def fail(*_):
    raise Stop


def test_a_claim_that_an_alarm_left_behind_ends(root):
    """An alarm at the very end of the block skips its end: the claim goes with its last user."""
    gc.disable()
    try:
        job = checkpoint("job", root=root)
        job.__enter__()
        for _ in job.resume(range(3)):
            break
        del job
        with checkpoint("job", root=root) as job:
            assert list(job.resume(range(3))) == [0, 1, 2]
    finally:
        gc.enable()


@pytest.mark.parametrize("number", [0, 1])
def test_a_save_that_an_alarm_met_is_not_damaged(root, monkeypatch, number):
    """Neither its notes nor its state: the alarm's exception goes on."""
    unpack, calls = msgpack._unpack, []
    with checkpoint("job", root=root) as job:
        job.save({"number": 7})

    def unpack_and_ring(*arguments, **options):
        value = unpack(*arguments, **options)
        calls.append(value)
        if len(calls) == number + 1:
            raise Stop
        return value

    monkeypatch.setattr(msgpack, "_unpack", unpack_and_ring)
    with pytest.raises(Stop):
        checkpoint("job", root=root).load()
    assert checkpoint("job", root=root).load() == {"number": 7}


class Cut(bytes):
    """Bytes at which an alarm cuts off the loop."""

    def __len__(self):
        raise Stop


def test_an_alarm_does_not_part_a_state_from_its_position():
    state = []
    job = Job("job", lambda: state, lambda value: [Cut(repr(value), "ascii")], fail, fail)
    kept = Kept(job, None, 0)
    for items in (1, 2):
        state.append(items)
        with pytest.raises(Stop):
            kept.keep(items, items, 0.0, 0.0)
        assert kept.encoded()[0] == repr(list(range(1, kept.items + 1))).encode()
        assert kept.position == kept.items == items
