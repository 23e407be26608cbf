"""Loops that are tried again in one claim, loops with and without names, and loops left behind."""

import asyncio
import contextlib
from functools import partial

import pytest

from efsstate import EfsStateError, NotClaimed, checkpoint


class Stop(Exception):  # noqa: N818 - the work failed, and no error of ours
    """The work failed."""


def fail_once(item, failures):
    """Raise if `item` is in `failures`, and take it out."""
    if item in failures:
        failures.remove(item)
        raise Stop


@pytest.mark.parametrize("saves", [False, True], ids=["unsaved", "saved"])
@pytest.mark.parametrize("name", [None, "rows"])
def test_a_loop_that_is_tried_again_goes_on(root, name, saves):
    """The state has each item once, though the loop was cut off twice in its claim."""
    failures = [3, 3, 5]
    with checkpoint("job", root=root) as job:
        job.state = 0
        while not job.complete:
            try:
                for item in job.resume(range(7), name=name):
                    if not saves:
                        fail_once(item, failures)
                    job.state += item
                    if saves:
                        job.save()
                        fail_once(item, failures)
            except Stop:
                pass
    assert (job.state, job.items, job.finished) == (21, 7, True)


@pytest.mark.parametrize("name", [None, "rows"])
def test_items_that_were_read_ahead_come_again(root, name):
    """A list that an error cut off is gone, so its items are not done."""
    failures, results = [3], []

    def work(item):
        fail_once(item, failures)
        return item

    with checkpoint("job", root=root) as job:
        while not job.complete:
            try:
                results = [work(item) for item in job.resume(range(6), name=name)]
            except Stop:
                pass
    assert results == [0, 1, 2, 3, 4, 5] and job.finished


def test_items_read_ahead_do_not_count_in_the_next_loop(root):
    with checkpoint("job", root=root) as job:
        with pytest.raises(Stop):
            [item if item < 2 else fail() for item in job.resume(range(3), name="rows")]
        assert list(job.resume(range(2), name="sums")) == [0, 1]
    with checkpoint("job", root=root) as job:
        assert list(job.resume(range(3), name="rows")) == [0, 1, 2]


def fail():
    raise Stop


def test_an_ended_loop_of_a_name_gives_nothing_more(root):
    seen = []
    with checkpoint("job", root=root) as job:
        for _ in range(2):
            seen += list(job.resume("abc", name="rows"))
    assert (seen, job.items, job.finished) == (["a", "b", "c"], 3, True)


@pytest.mark.parametrize("is_later", [False, True], ids=["one claim", "two claims"])
def test_a_name_beside_a_loop_without_one_is_refused(root, is_later):
    """Else it would begin at the first item, with a state that has some of them."""
    with checkpoint("job", root=root) as job:
        for item in job.resume(range(6)):
            if item == 3:
                break
        if not is_later:
            with pytest.raises(EfsStateError, match="without a name, which did 3 items"):
                job.resume(range(6), name="rows")
    with checkpoint("job", root=root) as job:
        if is_later:
            with pytest.raises(EfsStateError, match="without a name, which did 3 items"):
                job.resume(range(6), name="rows")
        assert list(job.resume(range(6))) == [3, 4, 5]


def returned(root, **options):
    with checkpoint("job", root=root) as job:
        return job.resume(range(4), **options)


def returned_map(root):
    with checkpoint("job", root=root) as job:
        return job.map(str, range(4))


def begun(root):
    with checkpoint("job", root=root) as job:
        items = job.resume(range(4))
        for _ in items:
            break
    return items


@pytest.mark.parametrize("leave", [returned, returned_map, begun])
def test_no_items_are_given_after_the_block(root, leave):
    """Nobody holds the job then, and nothing of the loop would be saved."""
    items = leave(root)
    with pytest.raises(NotClaimed, match="its `with` was left before the loop"):
        for _ in items:
            pass
    with checkpoint("job", root=root) as job:
        assert list(job.resume(range(4))) == [0, 1, 2, 3]


def test_a_reset_ends_the_loop(root):
    def run():
        with checkpoint("job", root=root) as job:
            for item in job.resume(range(4)):
                job.state = (job.state or 0) + item
                if item == 2:
                    job.reset()

    with pytest.raises(EfsStateError, match="leave the loop after reset"):
        run()
    with checkpoint("job", root=root) as job:
        assert job.state is None
        assert list(job.resume(range(4))) == [0, 1, 2, 3]


class Mute:
    """An item, or an error, that cannot be shown."""

    def __repr__(self):
        raise Stop

    __str__ = __repr__


class MuteError(Mute, Exception):
    """An error without a text."""


def test_an_item_that_cannot_be_shown_is_skipped(root):
    """And what was done before it is saved, though the text of its error cannot be had."""

    def run():
        with checkpoint("job", root=root) as job:
            for item in job.resume([1, Mute(), 3], attempts=1):
                if type(item) is Mute:
                    raise MuteError
                job.state = (job.state or 0) + item
        return job

    with pytest.raises(MuteError):
        run()
    job = run()
    assert job.finished and job.state == 4
    assert job.skipped == [
        {
            "item": "<Mute whose text raised Stop>",
            "position": 2,
            "error": "MuteError: <MuteError whose text raised Stop>",
        }
    ]


async def rows(count, position):
    for row in range(position or 0, count):
        yield row


@pytest.mark.parametrize("source", [partial(rows, 5), lambda position: rows(5, position)])
def test_a_function_that_returns_an_async_source(root, source):
    async def run(stop):
        seen = []
        async with checkpoint("job", root=root) as job:
            async for row in job.resume(source):
                if row == stop:
                    break
                seen.append(row)
        return seen, job.finished

    assert asyncio.run(run(2)) == ([0, 1], False)
    assert asyncio.run(run(None)) == ([2, 3, 4], True)


def test_async_for_needs_a_coroutine_function_for_map(root):
    async def run():
        async with checkpoint("job", root=root) as job:
            async for _ in job.map(lambda item: item, range(3)):
                pass

    with pytest.raises(TypeError, match="needs a coroutine function for map"):
        asyncio.run(run())


def bad_ones_last(items):
    """Give the items that cannot be read at the end."""
    bad = []
    for item in items:
        try:
            number = int(item)
        except ValueError:
            bad.append(item)
        else:
            yield number
    yield from bad


def bad_ones_left_out(items):
    for item in items:
        try:
            number = int(item)
        except ValueError:
            continue
        with contextlib.suppress(KeyError):
            yield number


@pytest.mark.parametrize(("tidy", "saved"), [(bad_ones_last, 0), (bad_ones_left_out, 2)])
def test_a_generator_that_keeps_bad_items_for_later(root, tidy, saved):
    """An item that an `except` clause keeps is not done when the next one is asked for."""
    with checkpoint("job", root=root) as job:
        for item in tidy(job.resume(["1", "x", "3"], every=1)):
            if item == 3:
                assert checkpoint("job", root=root).status()["items"] == saved


def test_loops_that_are_read_together_are_refused(root):
    with (
        pytest.raises(EfsStateError, match="one loop at a time"),
        checkpoint("job", root=root) as job,
    ):
        list(zip(job.resume(range(9), name="a"), job.resume(range(9), name="b"), strict=True))
    with checkpoint("job", root=root) as job:
        assert list(job.resume(range(9), name="a")) == list(range(9))
        assert list(job.resume(range(9), name="b")) == list(range(9))
