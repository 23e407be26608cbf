"""Progress means completion, whatever consumes the loop: nothing is lost, or taken for done."""

import asyncio
import contextlib
import itertools
import multiprocessing.pool
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.checkpoints.test_checkpoint import Context

from efsstate import (
    EfsStateError,
    EncodeError,
    NotClaimed,
    ShardsError,
    SourceChanged,
    checkpoint,
    current,
    invocation,
    process,
)
from efsstate.errors import DeadlineExceeded


class Stop(Exception):  # noqa: N818 - the work failed, and no error of ours
    """The work failed."""


def batched(items, n):
    """`itertools.batched`, which Python 3.11 does not have."""
    items = iter(items)
    while batch := tuple(itertools.islice(items, n)):
        yield batch


def rest(root, source, **options):
    """Do what is left; return the items, and whether the job is finished."""
    with checkpoint("job", root=root) as job:
        items = list(job.resume(source, **options))
    return items, job.finished


# Consumers


def by_executor(work, items):
    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(work, items):
            pass


def by_executor_of_a_generator(work, items):
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, (item for item in items)))


def by_pool(work, items):
    with multiprocessing.pool.ThreadPool(2) as pool:
        for _ in pool.imap(work, items):
            pass


def by_pool_map(work, items):
    with multiprocessing.pool.ThreadPool(2) as pool:
        pool.map(work, items)


def by_another_thread(work, items):
    errors = []

    def run():
        try:
            for item in items:
                work(item)
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    raise errors[0]


@pytest.mark.parametrize(
    "consume",
    [by_executor, by_executor_of_a_generator, by_pool, by_pool_map, by_another_thread],
)
def test_consumers_that_work_on_several_items_are_refused(root, consume):
    done = []
    with (
        pytest.raises(EfsStateError, match=r"job\.map\(function, source, workers=8\)"),
        checkpoint("job", root=root) as job,
    ):
        consume(done.append, job.resume(range(12)))
    assert done == []
    assert rest(root, range(12)) == (list(range(12)), True)


def fail_at(bad):
    """Return a function that records its items and raises at one of them."""

    def work(item):
        if item == bad:
            raise Stop
        done.append(item)

    done = work.done = []
    return work


async def gathered(work, items):
    async def run(item):
        await asyncio.sleep(0)
        work(item)

    await asyncio.gather(*[run(item) for item in items])


def by_gather(work, items):
    asyncio.run(gathered(work, items))


def by_list(work, items):
    for item in list(items):
        work(item)


def by_comprehension(work, items):
    [work(item) for item in items]


def by_batches(work, items):
    for batch in batched(items, 4):
        for item in batch:
            work(item)


def by_pairs(work, items):
    for first, _ in itertools.pairwise(items):
        work(first)


def by_next(work, items):
    items = iter(items)
    while (item := next(items, None)) is not None:
        work(item)


def by_groups(work, items):
    for _, group in itertools.groupby(items, key=lambda item: item // 4):
        for item in list(group):
            work(item)


def by_collecting(work, items):
    collected = []
    for item in items:
        collected.append(item)  # noqa: PERF402 - as people write it
    for item in collected:
        work(item)


@pytest.mark.parametrize("every", [1, "0s", "10s"])
@pytest.mark.parametrize(
    "consume",
    [by_gather, by_list, by_comprehension, by_batches, by_pairs, by_next, by_groups],
)
def test_consumers_that_read_ahead_lose_nothing(root, consume, every):
    work = fail_at(7)
    try:
        with checkpoint("job", root=root) as job:
            consume(work, job.resume(range(12), every=every))
    except (Stop, EfsStateError):
        pass
    items, finished = rest(root, range(12))
    assert set(work.done) | set(items) == set(range(12))
    assert finished


def test_items_that_are_only_collected_do_not_count(root):
    """The loop came to its end; the work on its items did not."""
    with pytest.raises(Stop), checkpoint("job", root=root) as job:
        by_collecting(fail_at(0), job.resume(range(5)))
    assert rest(root, range(5)) == ([0, 1, 2, 3, 4], True)


def test_an_error_after_a_break_counts_nothing_more(root):
    with pytest.raises(Stop), checkpoint("job", root=root) as job:  # noqa: PT012
        for item in job.resume(range(9)):
            if item == 4:
                break
        raise Stop
    assert rest(root, range(9))[0] == list(range(9))


def test_consumers_that_read_ahead_are_warned(root, warned):
    with checkpoint("job", root=root) as job:
        list(job.resume(range(9), every=3))
    assert any("reads ahead" in line or "read ahead" in line for line in warned())


def direct(items):
    yield from ((item, item) for item in items)


def through(items):
    for item in items:
        yield item, item


@pytest.mark.parametrize("every", [1, "10s"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda items: ((item, item) for item in items),
        lambda items: zip(items, itertools.count(), strict=False),
        lambda items: map(lambda item: (item, item), items),  # noqa: C417
        lambda items: filter(None, map(lambda item: (item, item), items)),  # noqa: C417
        lambda items: itertools.islice(enumerate(items), 99),
        through,
        direct,
        lambda items: through(x for x, _ in through(items)),
    ],
)
def test_wrappers_that_take_item_by_item_save_in_between(root, wrap, every):
    """Such as tqdm, which is one of them: a generator around the loop."""
    with pytest.raises(Stop), checkpoint("job", root=root) as job:  # noqa: PT012
        for item, _ in wrap(job.resume(range(9), every=every)):
            if item == 6:
                raise Stop
    assert rest(root, range(9))[0] == [6, 7, 8]


@pytest.mark.parametrize("how", ["direct", "kept", "enumerated", "wrapped"])
def test_a_broken_item_does_not_count_in_a_later_save(root, how):
    """The loop is kept in a variable, so its generator does not end with the break."""
    with checkpoint("job", root=root) as job:
        items = job.resume(range(9))
        kept = {
            "direct": items,
            "kept": iter(items),
            "enumerated": map(lambda pair: pair[1], enumerate(items)),  # noqa: C417
            "wrapped": (item for item in items),
        }[how]
        for item in kept:
            if item == 4:
                break
        job.save("after the break")
    with checkpoint("job", root=root) as job:
        assert (job.state, job.position) == ("after the break", 4)
        assert next(iter(job.resume(range(9)))) == 4


def test_a_save_in_the_body_counts_the_item_also_through(root):
    """A save in the body counts the item also through wrappers."""
    with pytest.raises(Stop), checkpoint("job", root=root) as job:  # noqa: PT012
        for item, _ in through(job.resume(range(9))):
            job.save(item)
            if item == 4:
                raise Stop
    assert rest(root, range(9))[0] == [5, 6, 7, 8]


def test_a_save_can_leave_the_item_out(root):
    with pytest.raises(Stop), checkpoint("job", root=root) as job:  # noqa: PT012
        for item in job.resume(range(9)):
            job.save(f"trying {item}", done=False)
            if item == 4:
                raise Stop
    with checkpoint("job", root=root) as job:
        assert (job.state, job.position) == ("trying 4", 4)


def test_a_first_item_that_is_always_left_is_warned_of(root, warned):
    """`islice(…, 1)` in each of many calls never comes to the second item."""
    for _ in range(3):
        with checkpoint("job", root=root) as job:
            assert list(itertools.islice(job.resume(range(5)), 1)) == [0]
    for _ in range(3):
        with checkpoint("job", root=root) as job:
            for _item in itertools.islice(job.resume(range(5)), 1):
                pass
    assert any("left before it was done" in line for line in warned())


# Batches


def test_batches_count_as_a_whole(root):
    written = []
    with pytest.raises(Stop), checkpoint("job", root=root) as job:  # noqa: PT012
        for rows in job.resume(range(25), batch=10, every=1):
            if len(written) == 10:
                raise Stop
            written += rows
    with checkpoint("job", root=root) as job:
        assert job.position == 10
        sizes = []
        for rows in job.resume(range(25), batch=10):
            written += rows
            sizes.append(len(rows))
    assert (written, sizes, job.finished) == (list(range(25)), [10, 5], True)


def test_batches_have_the_position_of_their_last_item(root):
    with checkpoint("job", root=root) as job:
        for rows in job.resume("abcdef", batch=2, position=lambda item: item):
            if rows[0] == "e":
                break
    with checkpoint("job", root=root) as job:
        assert (job.position, job.items) == ("d", 4)


@pytest.mark.parametrize("batch", [0, -1])
def test_a_bad_batch_is_refused(root, batch):
    with checkpoint("job", root=root) as job, pytest.raises(ValueError, match="batch"):
        job.resume([], batch=batch)


# Sources


def same(item):
    return item


def stopped(root, source, at, **options):
    with pytest.raises(Stop), checkpoint("job", root=root) as job:  # noqa: PT012
        for item in job.resume(source, **options):
            if item == at:
                raise Stop


def test_a_source_without_the_position_is_an_error(root):
    stopped(root, list("bcde"), "d", position=same)
    for source in (list("bde"), ["e"], []):
        advice = r"'c'.*function of the last position"
        with pytest.raises(SourceChanged, match=advice):
            rest(root, source, position=same)
    assert rest(root, list("bcde"), position=same) == (["d", "e"], True)


def test_done_items_may_go_if_the_position_stays(root):
    stopped(root, list("bcde"), "d", position=same)
    assert rest(root, list("cde"), position=same) == (["d", "e"], True)


def test_new_items_before_the_position_are_an_error(root):
    """They would be skipped, and never done."""
    stopped(root, list("bcde"), "d", position=same)
    with pytest.raises(SourceChanged, match="has other items"):
        rest(root, list("abcde"), position=same)


@pytest.mark.parametrize("kind", [list, iter])
def test_a_source_shorter_than_what_was_done_is_an_error(root, kind):
    stopped(root, range(9), 6)
    with pytest.raises(SourceChanged, match="6 were done"):
        rest(root, kind(list(range(4))))
    assert rest(root, kind(list(range(6)))) == ([], True)


def test_a_set_is_refused_unless_positions_order_it(root):
    with checkpoint("job", root=root) as job:
        with pytest.raises(TypeError, match="sorted"):
            job.resume({"a", "b"})
        assert list(job.resume({"b", "c", "a"}, position=same)) == ["a", "b", "c"]


@pytest.mark.parametrize("position", [float("nan"), "array", "NaT"])
def test_a_position_equals_itself(position, root):
    """Else the next claim skips the whole source, and says that it has other items now."""
    numpy = pytest.importorskip("numpy")
    others = {"array": numpy.arange(2), "NaT": numpy.datetime64("NaT")}
    value = others.get(position, position) if isinstance(position, str) else position
    with checkpoint("job", root=root) as job:
        loop = job.resume([1, 2], position=lambda item: value if item == 2 else item)
        assert next(iter(loop)) == 1
        with pytest.raises(ValueError, match="for the item 2, which does not equal itself"):
            list(loop)
    with checkpoint("job", root=root) as job:
        assert list(job.resume([1, 2], position=lambda item: item)) == [2]


def test_none_is_no_position(root):
    pages = [{"next": 1}, {"next": 2}, {"next": None}]
    with pytest.raises(ValueError, match="returned None"), checkpoint("job", root=root) as job:
        for _ in job.resume(pages, position=lambda page: page["next"]):
            pass
    with checkpoint("job", root=root) as job:
        assert job.position == 2
        assert not job.finished


def test_a_position_that_cannot_be_saved_gets_advice_that_helps(root):
    with pytest.raises(EncodeError, match="plain values") as raised:  # noqa: PT012, SIM117
        with checkpoint("job", root=root) as job:
            for _ in job.resume([1], every=1, position=lambda _: object()):
                pass
    assert "pickle" not in str(raised.value)


# Deadlines


def slowly(items, seconds):
    for item in items:
        time.sleep(seconds)
        yield item


def test_skipping_that_takes_the_invocation_is_an_error(root):
    stopped(root, range(60), 48)
    with (  # noqa: PT012
        pytest.raises(DeadlineExceeded, match="function of the last position"),
        checkpoint("job", root=root, context=Context(2.5)) as job,
    ):
        for _ in job.resume(slowly(range(60), 0.05)):
            pytest.fail("an item was begun")


def test_the_deadline_is_looked_at_after_the_next_item(root):
    def pages(_):
        time.sleep(0.8)
        return [1, 2]

    with checkpoint("job", root=root, context=Context(2.5)) as job:
        for _ in job.resume(pages):
            pytest.fail("an item was begun within the margin")
        assert not job.complete
    assert not job.finished


def test_end_soon_ends_a_loop_after_its_item(root):
    with invocation(), checkpoint("job", root=root) as job:
        for item in job.resume(range(9)):
            if item == 3:
                current().end_soon()
        assert (job.items, job.complete) == (4, False)
    assert rest(root, range(9))[0] == [4, 5, 6, 7, 8]


def test_a_loop_without_a_deadline_on_lambda_is_warned_of(root, warned, monkeypatch):
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "importer")
    for context in (None, Context(30)):
        process.reset()
        with checkpoint("job", root=root, context=context) as job:
            job.resume([])
    lines = [line for line in warned() if "without a deadline" in line]
    assert len(lines) == 1
    assert "context=" in lines[0]
    assert "@invocation" in lines[0]


# Several loops


def test_a_second_loop_needs_a_name(root):
    with checkpoint("job", root=root) as job:
        assert list(job.resume(["a1", "a2", "a3"])) == ["a1", "a2", "a3"]
        with pytest.raises(EfsStateError, match="name="):
            job.resume(["b1", "b2", "b3", "b4", "b5"])


def test_loops_with_names_have_a_position_each(root):
    seen = []

    def run(stop=None):
        with checkpoint("job", root=root) as job:
            for name, count in (("train", 3), ("test", 5)):
                for item in job.resume(range(count), name=name):
                    if (name, item) == stop:
                        raise Stop
                    seen.append((name, item))
        return job.finished

    for stop in (("train", 1), ("test", 0), ("test", 3)):
        with pytest.raises(Stop):
            run(stop)
    assert run()
    expected = [("train", n) for n in range(3)] + [("test", n) for n in range(5)]
    assert sorted(seen) == sorted(expected)


def test_loops_with_and_without_names_do_not_mix(root):
    with checkpoint("job", root=root) as job:
        list(job.resume(range(2), name="a", finish=False))
    with checkpoint("job", root=root) as job, pytest.raises(EfsStateError, match=r"names \(a\)"):
        job.resume(range(2))


def test_complete_tells_the_end_from_the_deadline(root):
    with checkpoint("job", root=root) as job:
        assert not job.complete
        for item in job.resume("abc", position=same):
            assert not job.complete
            assert job.items == "abc".index(item)
        assert job.complete
        assert (job.items, job.position) == (3, "c")
    with checkpoint("job", root=root) as job:
        assert job.complete


def test_an_open_end_goes_on_with_new_rows(root):
    rows = [1, 2, 3]

    def after(last):
        return [row for row in rows if last is None or row > last]

    for new in ([], [4, 5], [], [6]):
        rows += new
        with checkpoint("job", root=root) as job:
            seen = list(job.resume(after, position=same, finish=False))
            assert job.complete
        assert seen == (new or ([1, 2, 3] if rows == [1, 2, 3] else []))
        assert not job.finished


# Attempts

KILLED = """
import os, sys
from efsstate import checkpoint
with checkpoint("job", root={root!r}) as job:
    for item in job.resume(range(8), every={every}, attempts=3):
        if item == 3:
            os.kill(os.getpid(), 9)
        print(item, flush=True)
    print("skipped", job.skipped, flush=True)
"""


@pytest.mark.parametrize("every", [1, 100, "'10s'"])
def test_an_item_that_kills_is_skipped_after_three_times(root, every):
    seen, kills = [], 0
    for _ in range(6):
        process = subprocess.run(
            [sys.executable, "-c", KILLED.format(root=root, every=every)],
            capture_output=True,
            text=True,
            check=False,
        )
        seen += process.stdout.split("\n")
        if process.returncode == 0:
            break
        assert process.returncode == -9, process.stderr
        kills += 1
    assert kills == 3
    assert {str(n) for n in range(8) if n != 3} <= set(seen)
    job = checkpoint("job", root=root)
    job.load()
    assert job.finished
    (skipped,) = job.skipped
    assert (skipped["item"], skipped["position"]) == (3, 4)
    assert job.status()["skipped"] == 1


@pytest.mark.parametrize("batch", [None, 1])
def test_a_skipped_item_that_its_source_changes_is_a_copy(root, batch):
    """Readers of files give one row again and again."""

    def rows():
        row = {"id": 0, "tags": []}
        for number in range(4):
            row["id"] = number
            row["tags"].append(number)
            yield row

    for _ in range(2):
        with contextlib.suppress(Stop), checkpoint("job", root=root) as job:
            for given in job.resume(rows(), attempts=1, batch=batch):
                if (given if batch is None else given[0])["id"] == 1:
                    raise Stop
    assert job.skipped == [{"item": {"id": 1, "tags": [0, 1]}, "position": 2, "error": "Stop: "}]
    assert job.finished


def test_what_is_done_with_a_skipped_position_changes_no_loop(root):
    source = [(number, {"at": number}) for number in range(4)]
    done = []
    for failing in (1, 2, None):
        with contextlib.suppress(Stop), checkpoint("job", root=root) as job:
            for number, _at in job.resume(source, position=lambda item: item[1], attempts=1):
                if job.skipped:
                    job.skipped[0]["position"]["at"] = "changed"
                if number == failing:
                    job.save("a state", done=False)
                    raise Stop
                done.append(number)
    assert done == [0, 3] and job.items == 4 and job.finished


def test_an_item_that_raises_is_skipped_with_its_error(root):
    told = []
    for count in range(3):
        with pytest.raises(Stop), checkpoint("job", root=root) as job:  # noqa: PT012
            for item in job.resume(range(6), attempts=3):
                if item == 2:
                    raise Stop(f"for the {count + 1}th time")
    with checkpoint("job", root=root) as job:
        on_skip = lambda item, error: told.append((item, error))  # noqa: E731
        assert list(job.resume(range(6), attempts=3, on_skip=on_skip)) == [3, 4, 5]
    assert told == [(2, "Stop: for the 3th time")]
    assert job.finished
    assert job.skipped[0]["error"] == "Stop: for the 3th time"


def test_an_item_that_fails_twice_and_then_succeeds(root):
    """An item that fails twice and then succeeds is not skipped."""
    for count in range(3):
        try:
            with checkpoint("job", root=root) as job:
                for item in job.resume(range(6), attempts=3):
                    if item == 2 and count < 2:
                        raise Stop  # noqa: TRY301
        except Stop:
            pass
    assert job.finished
    assert job.skipped == []


def test_breaks_and_deadlines_are_no_failures(root):
    for _ in range(5):
        with checkpoint("job", root=root) as job:
            for _item in job.resume(range(6), attempts=2):
                break
        with checkpoint("job", root=root, context=Context(0.1)) as job:
            assert list(job.resume(range(6), attempts=2)) == []
    with checkpoint("job", root=root) as job:
        assert list(job.resume(range(6), attempts=2)) == [0, 1, 2, 3, 4, 5]
        assert job.skipped == []


def test_a_healthy_loop_with_attempts_saves_as_often_as_without(root):
    saves = []
    for options in ({}, {"attempts": 3}):
        checkpoint("job", root=root).reset()
        with checkpoint("job", root=root) as job:
            before = job.saves
            for _ in job.resume(range(100), every=10, **options):
                pass
        saves.append(job.saves - before)
    assert saves[0] == saves[1]


def test_on_skip_needs_attempts(root):
    with (
        pytest.raises(TypeError, match="never called without attempts="),
        checkpoint("job", root=root) as job,
    ):
        job.resume(range(3), on_skip=print)


@pytest.mark.parametrize("answer", [None, 5])
def test_a_function_source_that_returns_no_items_is_told(root, answer):
    def rows_after(position):
        return answer

    with (
        pytest.raises(TypeError, match=rf"rows_after returned {answer} for the position None"),
        checkpoint("job", root=root) as job,
    ):
        list(job.resume(rows_after))


class Unshowable:
    def __repr__(self):
        raise ValueError


class Liar:
    @property
    def __class__(self):
        raise ValueError


@pytest.mark.parametrize("kind", [Unshowable, Liar])
def test_what_raises_when_looked_at_is_an_encode_error(root, kind):
    """A lazy proxy whose loading fails, as a state and as a position."""
    value = kind()
    with checkpoint("job", root=root) as job:
        with pytest.raises(EncodeError, match="can't be saved"):
            job.save(value)
        with pytest.raises(EncodeError, match="can't be saved"):
            job.save({"rows": [value]})
    with (
        pytest.raises(EncodeError, match="the position"),
        checkpoint("loop", root=root) as job,
    ):
        for _ in job.resume([1], position=lambda _: value, every=1):
            pass


def test_attempts_count_the_claims_since_the_position_moved(root):
    kill = (
        "import os\nfrom efsstate import checkpoint\n"
        f"with checkpoint('job', root={root!r}) as job:\n"
        "    for item in job.resume(range(9), every=1):\n"
        "        if item == 3: os.kill(os.getpid(), 9)\n"
    )
    assert checkpoint("job", root=root).status()["attempts"] == 0
    for count in (1, 2, 3):
        subprocess.run([sys.executable, "-c", kill], check=False)
        assert checkpoint("job", root=root).status()["attempts"] == max(1, count - 1)
    with checkpoint("job", root=root) as job:
        assert job.attempts == 3
        for _ in job.resume(range(9), every=1):
            if job.items == 4:
                assert job.attempts == 1
                break


# The rest


def test_nothing_claimed_is_an_error_of_its_own(root):
    job = checkpoint("job", root=root)
    with pytest.raises(NotClaimed):
        job.save(1)
    with job:
        job.save(1)
    with pytest.raises(NotClaimed):
        job.save(2)


def test_an_initial_state_is_a_copy_for_each_claim(root):
    initial = {"rows": []}
    for _ in range(2):
        with checkpoint("job", root=root, initial=initial) as job:
            job.state["rows"].append(1)
            assert job.state == {"rows": [1]}
    assert initial == {"rows": []}
    with checkpoint("job", root=root, initial=initial) as job:
        job.state["rows"].append(2)
        job.save()
    with checkpoint("job", root=root, initial=initial) as job:
        assert job.state == {"rows": [2]}
        job.reset()
        assert job.state == {"rows": []}


def test_an_encode_error_tells_the_place_in_the_state(root):
    state = {"name": "x", "rows": [1, 2, 3, {"when": object()}]}
    with checkpoint("job", root=root) as job, pytest.raises(EncodeError) as raised:
        job.save(state)
    assert "state['rows'][3]['when']" in str(raised.value)


def test_async_sources_and_blocks(root):
    async def source(last):
        for number in range(last or 0, 9):
            await asyncio.sleep(0)
            yield number

    async def run(stop=None):
        seen = []
        async with checkpoint("job", root=root) as job:
            async for item in job.resume(source):
                if item == stop:
                    raise Stop
                seen.append(item)
                job.state = (job.state or 0) + item
        return seen, job.finished

    with pytest.raises(Stop):
        asyncio.run(run(4))
    assert asyncio.run(run()) == ([4, 5, 6, 7, 8], True)
    assert checkpoint("job", root=root).load() == 36


def test_an_async_item_that_was_broken_off_does_not_count(root):
    async def source():
        for number in range(9):
            yield number

    async def run():
        async with checkpoint("job", root=root) as job:
            items = job.resume(source())
            async for item in items:
                if item == 4:
                    break
            job.save("broken")
            assert job.position == 4

    asyncio.run(run())
    with checkpoint("job", root=root) as job:
        assert job.position == 4


def test_an_async_claim_waits_without_holding_up_the_loop(root):
    async def main():
        ticks = []

        async def tick():
            while True:
                ticks.append(1)
                await asyncio.sleep(0.02)

        async def second():
            async with checkpoint("job", root=root, wait=10) as job:
                return job.state

        ticker = asyncio.ensure_future(tick())
        async with checkpoint("job", root=root) as job:
            waiting = asyncio.ensure_future(second())
            await asyncio.sleep(0.3)
            job.save("first")
        assert await waiting == "first"
        ticker.cancel()
        return len(ticks)

    assert asyncio.run(main()) > 8


def test_progress_of_an_unknown_name_makes_nothing(root):
    assert checkpoint("typo", root=root).shards(3).progress().done == 0
    with pytest.raises(ShardsError, match="no shards"):
        checkpoint("typo", root=root).shards().progress()
    assert os.listdir(root) == []
