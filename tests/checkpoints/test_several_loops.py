"""Loops that are tried again in one claim, loops with and without names, and loops left behind."""

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
