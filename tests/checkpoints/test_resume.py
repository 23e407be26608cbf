"""`resume`: what counts as done, when it saves, when it stops.

And that state and position always belong together.
"""

import asyncio
import contextlib
import dataclasses
import threading
import time
from datetime import timedelta

import pytest
from tests.checkpoints.test_checkpoint import Context

from efsstate import ClaimLost, EfsStateError, SourceChanged, checkpoint, invocation
from efsstate.checkpoints.saves import States


class Stop(Exception):  # noqa: N818 - the work failed, and no error of ours
    pass


def work(root, source=range(10), *, stop_at=None, how="raise", mutate=False, **options):
    """Sum the items; stop at one. Returns the items whose body ran to its end, or to the stop."""
    seen = []
    try:
        with checkpoint("job", root=root) as job:
            for item in job.resume(source, **options):
                seen.append(item)
                if mutate:
                    job.state = [] if job.state is None else job.state
                    job.state.append(item)
                else:
                    job.state = (job.state or 0) + item
                if item == stop_at:
                    if how == "break":
                        break
                    raise Stop  # noqa: TRY301
    except Stop:
        pass
    return seen


def test_it_runs_once_through_and_finishes(root):
    assert work(root) == list(range(10))
    job = checkpoint("job", root=root)
    assert job.load() == 45 and job.finished and job.position == 10
    assert work(root) == []


@pytest.mark.parametrize("how", ["raise", "break"])
@pytest.mark.parametrize("mutate", [False, True])
@pytest.mark.parametrize("every", [1, 3, "10s"])
def test_what_was_done_before_a_stop_is_saved_and_the_item(root, how, mutate, every):
    """What was done before a stop is saved and the item itself is not."""
    work(root, stop_at=6, how=how, mutate=mutate, every=every)
    job = checkpoint("job", root=root)
    assert job.load() == ([0, 1, 2, 3, 4, 5] if mutate else 15)
    assert job.position == 6 and not job.finished
    assert work(root, mutate=mutate) == [6, 7, 8, 9]
    assert job.load() == (list(range(10)) if mutate else 45)


def test_a_function_source_gets_the_last_position(root):
    """A function source gets the last position and cursors are kept."""
    asked = []
    rows = [{"id": n, "amount": 1} for n in (3, 5, 9, 12)]

    def after(last):
        asked.append(last)
        return [row for row in rows if last is None or row["id"] > last]

    with pytest.raises(Stop), checkpoint("job", root=root) as job:  # noqa: PT012
        for row in job.resume(after, position=lambda row: row["id"]):
            job.state = (job.state or 0) + row["amount"]
            if row["id"] == 9:
                raise Stop
    with checkpoint("job", root=root) as job:
        assert job.position == 5 and job.state == 2
        for row in job.resume(after, position=lambda row: row["id"]):
            job.state += row["amount"]
    assert asked == [None, 5] and job.state == 4 and job.finished and job.position == 12


LOG = {"a": list(range(6)), "b": list(range(100, 106))}


def in_place(offsets):
    """Yield (message, offsets) as a reader of a log does that counts in one dict."""
    offsets = {"a": 0, "b": 0} if offsets is None else offsets
    while any(offsets[name] < len(messages) for name, messages in LOG.items()):
        for name, messages in LOG.items():
            if offsets[name] < len(messages):
                offsets[name] += 1
                yield messages[offsets[name] - 1], offsets


async def in_place_async(offsets):
    for both in in_place(offsets):
        yield both


@pytest.mark.parametrize("how", ["loop", "map", "async"])
@pytest.mark.parametrize("every", [1, "1h"])
@pytest.mark.parametrize("stop_at", range(12))
def test_a_position_that_is_changed_in_place_loses_no_item(root, how, every, stop_at):
    done = []

    def take(message):
        if len(done) in (stop_at, stop_at + 2):
            done.append(None)
            raise Stop
        done.append(message)

    async def loop_async(job):
        async for message, _ in job.resume(in_place_async, position=lambda m: m[1], every=every):
            take(message)

    def run(job):
        if how == "async":
            asyncio.run(loop_async(job))
        elif how == "map":
            for message in job.map(
                lambda m: m[0], in_place, position=lambda m: m[1], every=every, workers=3
            ):
                take(message)
        else:
            for message, _ in job.resume(in_place, position=lambda m: m[1], every=every):
                take(message)

    for _ in range(2):
        with contextlib.suppress(Stop), checkpoint("job", root=root) as job:
            run(job)
    with checkpoint("job", root=root) as job:
        run(job)
    assert job.finished
    assert set(done) - {None} == {*LOG["a"], *LOG["b"]}


def test_a_save_after_a_broken_first_item_keeps_the_position(root):
    done = []
    for most in (2, 2, 12):
        with checkpoint("job", root=root) as job:
            for message, _ in job.resume(in_place, position=lambda m: m[1]):
                if len(done) == most:
                    break
                done.append(message)
            job.save("a state")
    assert done == [0, 100, 1, 101, 2, 102, 3, 103, 4, 104, 5, 105]


def test_a_position_that_was_read_and_changed_stays_as_it_was(root):
    with checkpoint("job", root=root) as job:
        for _, position in job.resume([(1, [1]), (2, [2])], position=lambda item: item[1]):
            job.position.append("in the loop") if job.position else None
            job.token[1].append("of the token")
            position.append("of the item")
            job.save(0)
            assert job.token[1] in ([1], [2])
            if position[0] == 2:
                break
    with checkpoint("job", root=root) as job:
        job.position.append("before a loop")
        job.save(1)
    job = checkpoint("job", root=root)
    job.load()
    assert job.position == [2]


def test_a_position_that_cannot_be_copied_is_refused(root):
    with (
        pytest.raises(TypeError, match="can't be copied"),
        checkpoint("job", root=root) as job,
    ):
        list(job.resume([1], position=lambda _: threading.Lock()))


class Columns:
    """As a DataFrame: `len` counts rows, and the iterator gives columns."""

    def __init__(self, rows, columns):
        self.rows, self.columns = rows, columns

    def __len__(self):
        return self.rows

    def __getitem__(self, name):
        return name

    def __iter__(self):
        return iter(range(self.columns))


@pytest.mark.parametrize("rows", [0, 2, 100])
def test_what_len_says_is_not_trusted(root, rows):
    work(root, Columns(rows, 5), stop_at=3)
    with pytest.raises(SourceChanged, match="after 2 items, but 3 were done"):
        work(root, Columns(rows, 2))
    assert work(root, Columns(rows, 5)) == [3, 4]
    assert checkpoint("job", root=root).load() == 10


def test_a_function_source_without_a_cursor_gets_the_count(root):
    asked = []

    def rest(count):
        asked.append(count)
        return range(count or 0, 5)

    assert work(root, rest, stop_at=3) == [0, 1, 2, 3]
    assert work(root, rest) == [3, 4] and asked == [None, 3]


def test_a_save_in_the_body_counts_the_item_as_done(root):
    with pytest.raises(Stop), checkpoint("job", root=root) as job:  # noqa: PT012
        for item in job.resume(range(10)):
            job.save(f"after {item}")
            if item == 4:
                raise Stop
    with checkpoint("job", root=root) as job:
        assert (job.state, job.position) == ("after 4", 5)
        assert next(iter(job.resume(range(10)))) == 5


def test_the_token_is_the_same_when_an_item_is_done_again(root):
    def tokens(stop):
        got = {}
        with pytest.raises(Stop), checkpoint("job", root=root) as job:  # noqa: PT012
            for item in job.resume("abcdef", every=2):
                got[item] = job.token
                if item == stop:
                    raise Stop
        return got

    first = tokens("d")
    again = tokens("f")
    assert first["d"] == again["d"] == ("job", 4)
    assert len({*first.values(), *again.values()}) == 6


def test_every_counts_items_or_time(root):
    for every, saves in ((1, 11), (4, 3), ("1h", 1), (timedelta(hours=1), 1), ("0s", 11)):
        checkpoint("job", root=root).reset()
        with checkpoint("job", root=root) as job:
            before = job.saves
            for _ in job.resume(range(10), every=every):
                pass
        assert job.saves - before == saves, every


@pytest.mark.parametrize(
    ("every", "error"),
    [(0, ValueError), (-1, ValueError), (True, TypeError), (1.5, TypeError), ("soon", ValueError)],
)
def test_a_bad_every_is_refused_before_the_loop(root, every, error):
    with checkpoint("job", root=root) as job, pytest.raises(error):
        job.resume([], every=every)


def test_what_is_no_source_is_refused_before_the_loop(root):
    with (
        checkpoint("job", root=root) as job,
        pytest.raises(TypeError, match="source: .*needed, not 5"),  # noqa: RUF043
    ):
        job.resume(5)


def test_a_position_that_is_no_function_is_refused_before(root):
    """A position that is no function is refused before the loop."""
    with (
        checkpoint("job", root=root) as job,
        pytest.raises(TypeError, match="position: a function of an item is needed, not 'id'"),
    ):
        job.resume([1], position="id")


def test_it_stops_at_the_margin_of_the_deadline_with_all(root):
    """It stops at the margin of the deadline with all saved and goes on next time."""
    seen, runs, is_finished = [], 0, False
    while not is_finished:  # the deadline may come right behind the last item
        runs += 1
        with checkpoint("job", root=root, context=Context(2.3)) as job:
            for item in job.resume(range(400)):
                seen.append(item)
                job.state = (job.state or 0) + item
                time.sleep(0.002)
            assert job.saves  # what was done is saved
        is_finished = job.finished
    assert seen == list(range(400)) and runs > 1


def test_the_margin_is_an_option_and_grows_with_the_slowest_item(root):
    with checkpoint("job", root=root, context=Context(3), margin=2.9) as job:
        done = 0
        for _ in job.resume(range(1000)):
            time.sleep(0.02)
            done += 1
    assert done < 10 and not job.finished
    with checkpoint("slow", root=root, context=Context(8)) as job:
        done = [time.sleep(1.5) for _ in job.resume(range(100))]
    assert len(done) in (3, 4)  # with 2 s it would be 4; twice the slowest item is 3 s


def test_nothing_is_begun_within_the_margin(root):
    with checkpoint("job", root=root, context=Context(1)) as job:
        assert list(job.resume(range(5))) == []
    assert not job.finished


def test_the_deadline_of_an_enclosing_invocation_holds(root):
    with invocation(Context(1)), checkpoint("job", root=root) as job:
        assert list(job.resume(range(5))) == []


def test_two_loops_at_once_are_refused_and_two_in_a_row_are_not(root):
    with checkpoint("job", root=root) as job:
        for item in job.resume(range(5)):
            with pytest.raises(EfsStateError, match="one loop at a time"):
                job.resume(range(3))
            if item == 3:
                break
        assert list(job.resume(range(5))) == [3, 4]
    assert job.finished


def test_a_source_that_raises_keeps_what_was_done(root):
    def source():
        yield from range(4)
        raise Stop

    assert work(root, source()) == [0, 1, 2, 3]
    job = checkpoint("job", root=root)
    assert job.load() == 6 and job.position == 4 and not job.finished


def test_a_lost_claim_ends_the_loop_with_claimlost(root):
    """A lost claim ends the loop with claimlost and the successor keeps its own."""
    with pytest.raises(ClaimLost), checkpoint("job", root=root) as job:  # noqa: PT012
        for item in job.resume(range(10), every=1):
            job.state = item
            if item == 4:
                checkpoint("job", root=root).break_claim()
    assert checkpoint("job", root=root).load() == 3


@dataclasses.dataclass(frozen=True)
class FrozenStop(Exception):  # noqa: N818 - as Stop
    code: int = 0


@pytest.mark.parametrize("kind", [Stop, FrozenStop])
def test_a_failing_save_at_the_end_does_not_hide_the_blocks(root, kind):
    """A failing save at the end does not hide the blocks own error."""
    with pytest.raises(kind) as raised, checkpoint("job", root=root) as job:  # noqa: PT012
        for item in job.resume(range(10)):
            job.state = item
            if item == 4:
                checkpoint("job", root=root).break_claim()
                raise kind
    assert "could not be saved" in raised.value.__notes__[0]


def test_between_saves_an_item_costs_no_system_call(root, monkeypatch):
    """The budget, under 2 µs an item, as counts.

    What could break it is a system call or an encoding for each item.
    """
    calls = {"encode": 0}
    with checkpoint("job", root=root) as job:
        encode = States.encode

        def counted(states, state):
            calls["encode"] += 1
            return encode(states, state)

        monkeypatch.setattr(States, "encode", counted)
        job.state = {"n": 0}
        for _ in job.resume(range(200_000), every="1h"):
            job.state["n"] += 1
        items = job.items
    assert items == 0 or job.state["n"] == 200_000
    assert calls["encode"] < 100_000
