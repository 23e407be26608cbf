"""What a checkpoint does for its user.

States, claims, finishes, updates, retention, and clear errors for bad input.
"""

import errno
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import numpy as np
import pytest

from efsstate import (
    ClaimedError,
    ClaimLost,
    EfsStateError,
    EncodeError,
    RootError,
    checkpoint,
    invocation,
)
from efsstate.format import layout


class Context:
    """What Lambda gives a handler."""

    function_name = "importer"
    aws_request_id = "11-22"

    def __init__(self, seconds):
        self.end = time.monotonic() + seconds

    def get_remaining_time_in_millis(self):
        return max(0, int((self.end - time.monotonic()) * 1000))


def test_nothing_saved_gives_the_default(root):
    job = checkpoint("job", root=root)
    assert job.load() is None and job.load({"a": 1}) == {"a": 1}
    assert not job.finished and job.position is None


@pytest.mark.parametrize(
    "state", [None, 0, "", {"a": (1, [2.5, b"x"], {3})}, 2**200, timedelta(days=1)], ids=repr
)
def test_a_state_comes_back_as_it_was(root, state):
    with checkpoint("job", root=root) as job:
        job.save(state)
    assert checkpoint("job", root=root).load("default") == state
    with checkpoint("job", root=root) as job:
        assert job.state == state and type(job.state) is type(state)


def test_arrays_come_back_and_a_change_after_the_save(root):
    """Arrays come back and a change after the save does not reach it."""
    array = np.arange(10000.0).reshape(100, 100)
    with checkpoint("job", root=root) as job:
        job.save({"weights": array})
        array[:] = 0
        loaded = checkpoint("job", root=root).load()["weights"]
        assert np.array_equal(loaded, np.arange(10000.0).reshape(100, 100))


def test_an_array_that_changes_while_it_is_saved_leaves(root):
    """An array that changes while it is saved leaves a readable save."""
    array, stop = np.zeros(4_000_000), threading.Event()

    def change():
        while not stop.is_set():
            array[:] += 1

    thread = threading.Thread(target=change)
    thread.start()
    try:
        with checkpoint("job", root=root) as job:
            for _ in range(5):
                job.save(array)
                assert (
                    checkpoint("job", root=root).load().shape == array.shape
                )  # a wrong checksum would refuse it
    finally:
        stop.set()
        thread.join()


def test_states_of_100_mb_are_saved_and_loaded(root):
    state = os.urandom(1 << 20) * 100
    with checkpoint("job", root=root) as job:
        job.save(state)
    assert checkpoint("job", root=root).load() == state


def test_a_state_that_cannot_be_encoded_is_refused(root):
    """A state that cannot be encoded is refused and the earlier one stands."""
    with checkpoint("job", root=root) as job:
        job.save(1)
        with pytest.raises(EncodeError, match="earlier saves stand"):
            job.save(object())
        assert job.state == 1
        job.save(2)
    assert checkpoint("job", root=root).load() == 2


def test_a_position_that_cannot_be_encoded_says_so(root):
    with pytest.raises(EncodeError, match="position"), checkpoint("job", root=root) as job:
        for _ in job.resume([1], every=1, position=lambda _: object()):
            pass


def test_only_keep_saves_stay_and_they_are_the_newest(root, folder):
    for keep in (1, 2, 5):
        with checkpoint(f"job{keep}", root=root, keep=keep) as job:
            for number in range(10):
                job.save(number)
        assert len(folder(f"job{keep}").saves()) == keep
        assert checkpoint(f"job{keep}", root=root).load() == 9


def test_retention_goes_on_across_claims_and_links_of_old(root, folder):
    """Retention goes on across claims and links of old claims go."""
    for _ in range(30):
        checkpoint("job", root=root).update(lambda count: count + 1, default=0)
    assert len(folder("job").saves()) == 3
    assert (
        len(list(folder("job").path.iterdir())) <= 1 + 3 + 2 * 6
    )  # LOCK, saves, links of a few claims
    assert checkpoint("job", root=root).load() == 30


def test_updates_of_threads_and_processes_are_all_kept(root):
    add = f"""
from efsstate import checkpoint
for _ in range(10):
    checkpoint('job', root={root!r}, wait=60).update(lambda n: n + 1, default=0)
"""
    processes = [subprocess.Popen([sys.executable, "-c", add]) for _ in range(2)]
    threads = [
        threading.Thread(
            target=lambda: [
                checkpoint("job", root=root, wait=60).update(lambda n: n + 1, default=0)
                for _ in range(10)
            ]
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [process.wait() for process in processes] == [0, 0]
    assert checkpoint("job", root=root).load() == 50


def test_update_returns_the_new_state_and_saves_nothing_if(root):
    """Update returns the new state and saves nothing if the function raises."""
    assert checkpoint("job", root=root).update(lambda n: n + 1, default=4) == 5
    with pytest.raises(ZeroDivisionError):
        checkpoint("job", root=root).update(lambda n: n / 0)
    assert checkpoint("job", root=root).load() == 5


# Claims


def test_a_second_claim_is_refused_with_who_has_it(root):
    hold = f"""
import time
from efsstate import checkpoint
with checkpoint('job', root={root!r}):
    print('held', flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    try:
        with (
            pytest.raises(ClaimedError, match=f"pid {process.pid}") as refused,
            checkpoint("job", root=root),
        ):
            pass
        assert refused.value.owner["pid"] == process.pid and refused.value.owner["host"]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    with checkpoint("job", root=root):  # the kill freed it
        pass


def test_a_claim_tells_its_function_request_and_deadline(root):
    with checkpoint("job", root=root, context=Context(30)) as job:
        owner = job.status()["owner"]
        assert owner["function"] == "importer" and owner["request"] == "11-22"
        assert 20 < owner["deadline"] - owner["since"] <= 30


def test_waiting_gets_the_claim_when_it_is_free(root):
    got = []

    def second():
        with checkpoint("job", root=root, wait="20s") as job:
            got.append(job.state)

    with checkpoint("job", root=root) as job:
        thread = threading.Thread(target=second)
        thread.start()
        job.save("first")
    thread.join(20)
    assert got == ["first"]


def test_a_wait_ends_at_the_deadline(root):
    with checkpoint("job", root=root):
        result = []

        def second():
            with invocation(Context(0.3)):
                try:
                    checkpoint("job", root=root, wait=1000).__enter__()
                except ClaimedError as error:
                    result.append(error)

        thread = threading.Thread(target=second)
        thread.start()
        thread.join(30)
        assert result


def test_a_block_inside_a_block_on_one_name_is_a_clear_error(root):
    """A block inside a block on one name is a clear error at once."""
    with checkpoint("job", root=root) as job:
        job.save(1)
        for again in (checkpoint("job", root=root, wait=1000), job):
            with pytest.raises(ClaimedError, match="enclosing block"), again:
                pass
        job.save(2)
    assert checkpoint("job", root=root).load() == 2


def test_a_claim_can_be_used_by_threads_one_save_at_a_time(root):
    with checkpoint("job", root=root) as job:
        threads = [threading.Thread(target=job.save, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert job.saves == 8
    assert checkpoint("job", root=root).load() in range(8)


def test_use_after_the_claim_ended_is_refused_and_changes(root):
    """Use after the claim ended is refused and changes nothing."""
    with checkpoint("job", root=root) as job:
        job.save(1)
    for use in (
        lambda: job.save(2),
        job.finish,
        lambda: job.resume([1]),
        lambda: setattr(job, "state", 3),
    ):
        with pytest.raises(ClaimLost, match="with checkpoint"):
            use()
    with pytest.raises(ClaimLost, match="not claimed"):
        checkpoint("other", root=root).save(1)
    assert checkpoint("job", root=root).load() == 1 and job.state == 1
    with job:  # and it can be claimed again
        job.save(4)
    assert checkpoint("job", root=root).load() == 4


def test_the_end_of_an_invocation_gives_back_what_is_still(root):
    """The end of an invocation gives back what is still claimed."""
    with invocation(Context(30)):
        job = checkpoint("job", root=root)
        job.__enter__()
        job.save(1)
    with pytest.raises(ClaimLost, match="ended"):
        job.save(2)
    with checkpoint("job", root=root) as other:
        assert other.state == 1


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_holds_nothing_and_the_parents_claim(root):
    """A forked child holds nothing and the parents claim goes on."""
    with checkpoint("job", root=root) as job:
        job.save(1)
        child = os.fork()
        if not child:
            code = 1
            try:
                job.save("child's")
            except ClaimLost as error:
                code = 0 if "fork" in str(error) else 2
            job.__exit__(None, None, None)  # must not give back the parent's lock
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        with pytest.raises(ClaimedError):
            run_claim(root)
        job.save(2)
    assert checkpoint("job", root=root).load() == 2


def run_claim(root):
    """Claim from another thread; raises what it raised."""
    raised = []

    def claim():
        try:
            with checkpoint("job", root=root):
                pass
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=claim)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_leaving_gives_the_lock_back_though_a_forked_child(root):
    """Leaving gives the lock back though a forked child lives on."""
    with checkpoint("job", root=root):
        child = os.fork()
        if not child:
            time.sleep(30)
            os._exit(0)
    try:
        run_claim(root)
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_break_claim_fences_the_holder_and_lets_others_in(root):
    with checkpoint("job", root=root) as job:
        job.save(1)
        told = checkpoint("job", root=root).break_claim()
        assert told["pid"] == os.getpid()
        taken = []
        thread = threading.Thread(
            target=lambda: taken.append(checkpoint("job", root=root).update(lambda n: n + 1))
        )
        thread.start()
        thread.join()
        assert taken == [2]
        with pytest.raises(ClaimLost, match="superseded"):
            job.save("late")
        with pytest.raises(ClaimLost):
            job.save("later")
    assert checkpoint("job", root=root).load() == 2


def test_break_claim_that_cannot_free_the_lock_raises(root, monkeypatch):
    """Others could not claim, so it must not say that they may; the next call finishes the work."""
    unlink = os.unlink

    def fail(path, **options):
        if path == layout.LOCK:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), path)
        unlink(path, **options)

    with checkpoint("job", root=root) as job:
        monkeypatch.setattr(os, "unlink", fail)
        with pytest.raises(PermissionError):
            checkpoint("job", root=root).break_claim()
        with pytest.raises(ClaimLost):
            job.save(1)
        monkeypatch.setattr(os, "unlink", unlink)
        checkpoint("job", root=root).break_claim()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(checkpoint("job", root=root).update, lambda _: 2).result()
    assert checkpoint("job", root=root).load() == 2


def test_break_claim_makes_no_checkpoint_of_a_name(root, tmp_path):
    """Break claim makes no checkpoint of a name that is not there."""
    assert checkpoint("typo", root=root).break_claim() == {} and not list(tmp_path.iterdir())


def test_epochs_grow_also_after_the_folder_was_removed(root, folder):
    import shutil

    with checkpoint("job", root=root) as first:
        pass
    with checkpoint("job", root=root) as second:
        pass
    assert second.epoch == first.epoch + 1
    shutil.rmtree(folder("job").path)
    time.sleep(0.01)
    with checkpoint("job", root=root) as third:
        third.save(1)
    assert third.epoch > second.epoch


def test_a_removed_folder_is_a_lost_claim(root, folder):
    """A removed folder is a lost claim and never an acknowledgement."""
    import shutil

    with checkpoint("job", root=root) as job:
        job.save(1)
        shutil.rmtree(folder("job").path)
        with pytest.raises(ClaimLost, match="removed"):
            job.save(2)


def test_a_full_disk_in_a_save_leaves_the_claim(root, folder, monkeypatch):
    """A full disk in a save leaves the claim and the earlier save."""
    with checkpoint("job", root=root) as job:
        job.save(1)
        with monkeypatch.context() as patched:
            patched.setattr(
                os,
                "writev",
                lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")),
            )
            with pytest.raises(OSError, match="No space"):
                job.save(2)
        assert checkpoint("job", root=root).load() == 1
        assert not folder("job").temporaries()
        job.save(3)
    assert checkpoint("job", root=root).load() == 3


# Finishing


def test_a_finished_one_stays_finished_with_its_result(root):
    with checkpoint("job", root=root) as job:
        job.state = 5
        job.finish({"rows": 7})
        assert job.finished and job.result == {"rows": 7}
        with pytest.raises(EfsStateError, match="finished"):
            job.save(6)
    again = checkpoint("job", root=root)
    assert again.load() == 5 and again.finished and again.result == {"rows": 7}
    with checkpoint("job", root=root) as job:
        assert job.finished and list(job.resume(range(9))) == []
        with pytest.raises(EfsStateError, match="reset"):
            job.finish()
    with pytest.raises(EfsStateError, match="finished"):
        checkpoint("job", root=root).update(lambda n: n)


@pytest.mark.parametrize("inside", [True, False])
def test_reset_starts_over(root, inside):
    with checkpoint("job", root=root) as job:
        for _ in job.resume(range(3)):
            job.state = "old"
    if inside:
        with checkpoint("job", root=root) as job:
            job.reset()
            assert job.state is None and not job.finished
    else:
        checkpoint("job", root=root).reset()
    job = checkpoint("job", root=root)
    assert job.load("none") == "none" and not job.finished and job.position is None
    with job:
        assert list(job.resume(range(3))) == [0, 1, 2]


# Options and names


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"keep": 0}, ValueError),
        ({"keep": True}, ValueError),
        ({"keep": 1000}, ValueError),
        ({"schema": 0}, ValueError),
        ({"wait": -1}, ValueError),
        ({"wait": "soon"}, ValueError),
        ({"ttl": object()}, TypeError),
        ({"codec": "yaml"}, TypeError),
        ({"migrate": 5}, TypeError),
        ({"unknown": 1}, TypeError),
    ],
    ids=str,
)
def test_bad_options_are_refused_when_it_is_made(root, options, error):
    with pytest.raises(error):
        checkpoint("job", root=root, **options)


@pytest.mark.parametrize("given", [{"date": "2026-11-01"}, "context", 5, object()], ids=str)
def test_what_is_no_context_is_refused_when_it_is_made(root, given):
    """Such as the event: it would be no deadline."""
    with pytest.raises(
        TypeError,
        match="context: .*second argument.*get_remaining_time_in_millis.*not an object of type"
        f" {type(given).__name__}; pass None",
    ):
        checkpoint("job", root=root, context=given)
    assert checkpoint("job", root=root, context=None).load() is None


def test_update_wants_a_function_before_it_claims(root, tmp_path):
    with pytest.raises(TypeError, match="a function is needed, not 5"):
        checkpoint("job", root=root).update(5)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["", "a\0b", "\ud800"])
def test_names_that_cannot_be_are_refused(root, name):
    with pytest.raises(ValueError, match="checkpoint name"):
        checkpoint(name, root=root)
    with pytest.raises(TypeError):
        checkpoint(None, root=root)


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "a/b", ".", "..", "x" * 1000, "Ä ö/ü", "s1", "LOCK"]
)
def test_any_other_name_stays_below_the_root(root, name, tmp_path):
    with checkpoint(name, root=root) as job:
        job.save(name)
    assert checkpoint(name, root=root).load() == name
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1


def test_without_a_root_it_refuses(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EFSSTATE_ROOT", raising=False)
    with pytest.raises(RootError):
        checkpoint("job").load()


def test_states_migrate_and_a_newer_schema_is_refused(root):
    with checkpoint("job", root=root) as job:
        job.save({"rows": 3})
    new = checkpoint(
        "job", root=root, schema=3, migrate=lambda state, schema: {**state, "was": schema}
    )
    assert new.load() == {"rows": 3, "was": 1}
    with pytest.raises(EfsStateError, match="migrate"):
        checkpoint("job", root=root, schema=2).load()
    with new:
        new.save(new.state)
    for use in (
        lambda: checkpoint("job", root=root).load(),
        lambda: checkpoint("job", root=root).__enter__(),
    ):
        with pytest.raises(EfsStateError, match="newer deployment"):
            use()
    assert new.load() == {"rows": 3, "was": 1}  # and it was left as it is


def test_another_codec_than_it_was_saved_with_is_a_clear_error(root, warned):
    with checkpoint("job", root=root, codec="pickle") as job:
        job.save({1, 2})
    assert checkpoint("job", root=root, codec="pickle").load() == {1, 2}
    with pytest.raises(EfsStateError, match="codec 'pickle'"):
        checkpoint("job", root=root).load()


def test_status_tells_who_how_far_and_where_without_reading(root):
    """Status tells who how far and where without reading the state."""
    with checkpoint("job", root=root) as job:
        for _ in job.resume(["a", "b", "c"], every=1, position=lambda item: item):
            job.state = "x" * 10_000_000
            if job.position == "b":
                break
        told = checkpoint("job", root=root).status()
        assert told["claimed"] and told["owner"]["pid"] == os.getpid()
        assert (told["position"], told["items"], told["finished"], told["saves"]) == (
            "b",
            2,
            False,
            2,
        )
        assert (
            abs(told["saved"] - time.time()) < 60
            and os.path.exists(told["path"])
            and told["bytes"] > 10_000_000
        )
    assert not checkpoint("job", root=root).status()["claimed"]
    assert checkpoint("other", root=root).status()["epoch"] == 0


def test_looking_at_a_claim_never_makes_a_claimant_fail(root):
    stop = threading.Event()

    def look():
        while not stop.is_set():
            checkpoint("job", root=root).status()
            time.sleep(0.001)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        for _ in range(50):
            with checkpoint("job", root=root) as job:
                job.save(1)
    finally:
        stop.set()
        watcher.join()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody who may not write")
def test_a_reader_who_may_not_write_loads_and_cannot_claim(folder):
    import shutil
    import tempfile

    root = tempfile.mkdtemp()
    try:
        os.chmod(root, 0o755)
        with checkpoint("job", root=root) as job:
            job.save("state")
        program = f"""
import os, tempfile
from efsstate import RootError, checkpoint, events
events.log("info", "", kind="events", event="")
# What is imported late must be there before
with checkpoint("other", root=tempfile.mkdtemp()) as other:
    other.save(1)
    other.load()
    other.status()
os.setgid(65534); os.setuid(65534)
job = checkpoint("job", root={root!r})
print(job.load(), job.unsettled, job.status()["saves"])
try: job.__enter__()
except RootError as error: print("refused", error)
"""
        said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert said.stdout.startswith("state False 1\nrefused") and "not writable" in said.stdout, (
            said
        )
        job.__enter__()
        os.unlink(
            os.path.join(root, "checkpoints", "job", f"b{job.epoch}")
        )  # as if it had died in its claim
        job.__exit__(None, None, None)
        assert subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True
        ).stdout.startswith("state True")
    finally:
        shutil.rmtree(root)


def test_a_reader_without_rights_gets_the_state_and_makes(root, folder):
    """A reader without rights gets the state and makes nothing."""
    with checkpoint("job", root=root) as job:
        job.save(1)
        before = sorted(path.name for path in folder("job").path.iterdir())
        assert checkpoint("job", root=root).load() == 1
        assert sorted(path.name for path in folder("job").path.iterdir()) == before
