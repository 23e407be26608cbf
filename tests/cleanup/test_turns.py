"""A sweep that stops and is gone on with; several at once; shards; one that is killed anywhere."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from efsstate import invocation
from efsstate.cleanup import rounds, work
from efsstate.cleanup import sweep as sweep_module
from efsstate.eviction import scan
from efsstate.format import layout
from efsstate.mount.files import Mount

from .conftest import DAY, HOUR


def marks(tree):
    return {
        name: os.stat(f"{where}/{name}").st_atime
        for where, _, names in os.walk(tree.full(layout.SWEEPS))
        for name in names
    }


def plant(tree, namespace="f", dead=300, live=100):
    tree.policy(namespace, shortest=HOUR, longest=HOUR)
    names = [tree.entry(namespace, i, age=2 * HOUR, ttl=HOUR) for i in range(dead)]
    return names, [tree.entry(namespace, -i, age=1, ttl=HOUR) for i in range(1, live + 1)]


def test_without_time_nothing_is_done_and_the_next_call_goes_on(tree):
    dead, live = plant(tree)
    report = tree.sweep(budget=0)
    assert not report.finished and report.left == 1 and report.removed == 0
    assert tree.sweep(budget=60).finished
    assert not tree.there(*dead) and tree.there(*live) == live


def test_a_call_whose_time_is_over_at_once_does_one_folder(tree, monkeypatch):
    """On a machine that is as slow as that, a budget that is too small for a look gets on, too."""
    dead = [tree.entry(f"n{i}", i, age=2 * DAY) for i in range(3)]
    monkeypatch.setattr(scan.SweepOptions, "is_over", lambda _: True)
    reports = [tree.sweep(budget=0.2, older_than="1d") for _ in range(4)]
    assert sum(report.removed for report in reports) == 3 and not tree.there(*dead)
    assert [report.folders > 0 for report in reports[:3]] == [True] * 3 and reports[2].finished


def test_calls_that_are_cut_short_share_a_round(tree, monkeypatch):
    """Each call has time for three folders, none is swept twice in a round, and the next begins."""
    plant(tree)
    monkeypatch.setattr(work, "WORKERS", 1)
    done, calls = [], []
    real = scan.sweep_folder

    def counted(mount, folder, policy, wish, report):
        done.append(folder)
        calls[-1] += 1
        if calls[-1] >= 3:
            wish.until = 0.0
        return real(mount, folder, policy, wish, report)

    monkeypatch.setattr(scan, "sweep_folder", counted)
    finished = False
    while not finished:
        calls.append(0)
        finished = tree.sweep(budget=60).finished
        assert len(calls) < 20
    # The third of each call has no time left for its removals and keeps its turn.
    assert set(done) == {f"cache/f/{digit}" for digit in "0123456789abcdef"} and len(
        done
    ) <= 16 + len(calls)
    assert tree.entries("f") == 100
    first = len(done)
    calls.append(0)
    tree.sweep(budget=60)
    assert len(done) > first


def test_each_call_has_an_order_of_its_own(tree, monkeypatch):
    plant(tree)
    monkeypatch.setattr(work, "WORKERS", 1)
    orders, real = [], scan.sweep_folder
    monkeypatch.setattr(scan, "sweep_folder", lambda *a: orders[-1].append(a[1]) or real(*a))
    for _ in range(3):
        orders.append([])
        tree.sweep()
    assert (
        len({tuple(order) for order in orders}) == 3
        and len({frozenset(order) for order in orders}) == 1
    )


def test_a_folder_that_takes_all_the_time_starves_no_other(tree, monkeypatch):
    dead, _ = plant(tree)
    monkeypatch.setattr(work, "WORKERS", 1)  # side by side with it, no other would have time either
    real = scan.sweep_folder

    def slow(mount, folder, policy, wish, report):
        if folder == "cache/f/3":
            wish.until = 0.0
            return False
        return real(mount, folder, policy, wish, report)

    monkeypatch.setattr(scan, "sweep_folder", slow)
    for _ in range(60):
        assert not tree.sweep(budget=60).finished
        if {os.path.dirname(name) for name in tree.there(*dead)} == {"cache/f/3"}:
            break
    else:
        pytest.fail("the others starve")


def test_it_ends_before_the_invocations_deadline(tree):
    plant(tree)

    class Context:
        def get_remaining_time_in_millis(self):
            return 0

    with invocation(Context()):
        assert not tree.sweep().finished
    assert tree.sweep().finished


def test_what_was_asked_differently_is_another_sweep(tree):
    """An operator's own limits are not taken as done because the janitor has been everywhere."""
    _, live = plant(tree)
    tree.sweep(budget=60)
    assert tree.sweep(older_than=0, budget=60).removed == len(live)


def test_a_second_sweep_looks_again(tree):
    tree.policy("f", shortest=HOUR, longest=HOUR)
    first = tree.entry("f", 1, age=2 * HOUR)
    assert tree.sweep().removed == 1
    second = tree.entry("f", 1, age=2 * HOUR)
    assert first == second and tree.sweep().removed == 1


@pytest.mark.parametrize("can_stamp", [True, False])
def test_a_round_that_cannot_be_removed_begins_anew(tree, monkeypatch, can_stamp):
    """Else the next call finds every folder done, does nothing, and says that it is finished."""
    tree.entry("f", 1, age=HOUR, ttl=60)
    real_remove, real_stamp = Mount.remove, Mount.stamp

    def remove(mount, folder, name, **options):
        return name != layout.ROUND and real_remove(mount, folder, name, **options)

    def stamp(mount, folder, name):
        if not can_stamp:
            raise OSError(5, "Input/output error")
        time.sleep(0.05)  # a file's time is that of the last tick
        real_stamp(mount, folder, name)

    monkeypatch.setattr(Mount, "remove", remove)
    monkeypatch.setattr(Mount, "stamp", stamp)
    report = tree.sweep(budget="1h")
    assert report.finished and report.removed == 1 and bool(report.errors) != can_stamp
    if can_stamp:
        tree.entry("f", 2, age=HOUR, ttl=60)
        assert tree.sweep(budget="1h").removed == 1


def test_a_folder_that_another_sweeper_has_is_left_to_it(tree):
    dead, _ = plant(tree)
    kind = "None None None None 0/1"
    mine = rounds.SweepRound(tree.mount, kind, fresh=True)
    busy = "cache/f/3"
    seen = []
    assert mine.take(busy, lambda: seen.append(tree.sweep()) or True) is True
    report = seen[0]
    assert report.elsewhere == 1 and not report.finished
    assert {os.path.dirname(name) for name in tree.there(*dead)} == {busy}
    assert tree.sweep().finished and not tree.there(*dead)


def test_a_folder_that_another_has_swept_is_not_swept_again(tree):
    plant(tree)
    kind = "None None None None 0/1"
    mine = rounds.SweepRound(tree.mount, kind, fresh=True)
    tree.sweep()
    time.sleep(0.01)
    assert mine.take("cache/f/3", lambda: pytest.fail("swept twice")) is True


def test_several_at_once_share_the_work_and_do_not_collide(tree):
    dead, live = plant(tree, dead=4000, live=400)
    code = (
        "import sys\nfrom efsstate import sweep\nr = sweep(root=sys.argv[1])\n"
        "print(r.removed, r.errors, r.looked)"
    )
    runs = [
        subprocess.Popen([sys.executable, "-c", code, tree.path], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    results = [[int(word) for word in run.communicate(timeout=60)[0].split()] for run in runs]
    assert sum(removed for removed, _, _ in results) == len(dead) and not any(
        errors for _, errors, _ in results
    )
    assert not tree.there(*dead) and tree.there(*live) == live
    tree.sweep()
    assert tree.there(*live) == live


def test_shards_split_the_folders_and_together_do_all(tree):
    dead, live = plant(tree, dead=400)
    reports = [sweep_module.run(root=tree.path, shard=shard, of=5) for shard in range(5)]
    assert sum(report.folders for report in reports) == 16 and sum(
        report.removed for report in reports
    ) == len(dead)
    assert not tree.there(*dead) and tree.there(*live) == live
    for shard, of in ((5, 5), (-1, 5), (0, 0), ("0", 5)):
        with pytest.raises((ValueError, TypeError)):
            sweep_module.run(root=tree.path, shard=shard, of=of)


def test_marks_of_folders_that_are_gone_are_forgotten(tree):
    import shutil

    plant(tree)
    plant(tree, "g")
    tree.sweep()
    count = len(marks(tree))
    shutil.rmtree(tree.full("cache/g"))
    for where, _, names in os.walk(tree.full(layout.SWEEPS)):
        for name in names:
            os.utime(f"{where}/{name}", (time.time() - 8 * DAY,) * 2)
    tree.sweep(older_than="90d")
    tree.sweep()
    left = marks(tree)
    assert len(left) < count and not any(",g," in name for name in left)


def test_folders_that_we_can_not_have_named_are_foreign(tree):
    """The longest name, commas, and bytes that are no text cannot be namespaces."""
    for raw in (b"n" * 255, b"a,b", b"\xff\xfe"):
        os.makedirs(os.path.join(os.fsencode(tree.path), b"cache", raw, b"0"))
    report = tree.sweep()
    assert report.finished and report.errors == 0 and report.folders == 0 and report.foreign == 3


@pytest.mark.parametrize("after", [1, 5, 17, 60, 150, 330])
def test_killed_anywhere_the_next_one_goes_on(tree, after):
    """SIGKILL before the n-th change: nothing live is gone, and the next sweep does the rest."""
    dead, live = plant(tree, dead=300, live=60)
    code = (
        "import os, signal, sys\nfrom efsstate import sweep\nleft = int(sys.argv[2])\n"
        "def hook(event, args):\n"
        "    global left\n"
        "    if event in ('os.remove', 'os.utime', 'os.mkdir', 'open') and sys.argv[1]:\n"
        "        left -= 1\n"
        "        if left < 0: os.kill(os.getpid(), signal.SIGKILL)\n"
        "import efsstate.cleanup.sweep, efsstate.eviction.limits, msgpack, filelock, hashlib\n"
        "sys.addaudithook(hook)\nsweep(root=sys.argv[1])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, tree.path, str(after)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == -signal.SIGKILL, run.stderr
    assert tree.there(*live) == live
    assert tree.sweep().finished and not tree.there(*dead) and tree.there(*live) == live


def fail_in(monkeypatch, folder, error):
    real = scan.sweep_folder

    def sweep_folder(mount, name, *args):
        if name == folder:
            raise error
        return real(mount, name, *args)

    monkeypatch.setattr(scan, "sweep_folder", sweep_folder)


@pytest.mark.parametrize("error", [RecursionError("deep"), ZeroDivisionError("x"), KeyError(1)])
def test_whatever_fails_in_one_folder_the_others_are_swept(tree, monkeypatch, error):
    """An internal exception, or a tree deeper than the stack, ends one folder (I11, I32)."""
    dead, live = plant(tree)
    fail_in(monkeypatch, "cache/f/3", error)
    report = tree.sweep()
    assert report.errors == 1 and report.finished and type(error).__name__ in report.error_texts[0]
    assert tree.full("cache/f/3") in report.error_texts[0]
    assert {os.path.dirname(name) for name in tree.there(*dead)} == {"cache/f/3"}
    assert tree.there(*live) == live


def test_whatever_fails_in_one_checkpoint_the_others_are_swept(tree, monkeypatch):
    from efsstate import checkpoint
    from efsstate.checkpoints import retention

    for name in ("first", "second", "third"):
        with checkpoint(name, root=tree.path, ttl=0) as job:
            job.finish(1)
    time.sleep(0.01)
    real = retention.sweep

    def sweep(mount, folder, *args, **options):
        if folder.endswith("second"):
            raise RecursionError("deep")
        return real(mount, folder, *args, **options)

    monkeypatch.setattr(retention, "sweep", sweep)
    report = tree.sweep()
    assert report.reasons == {"checkpoint": 2} and report.errors == 1 and report.finished
    assert os.listdir(tree.full("checkpoints")) == ["second"]


def test_whatever_fails_in_one_model_the_rest_is_swept(tree, monkeypatch, tmp_path_factory):
    from efsstate import publish
    from efsstate.modelstore import versions

    dead, live = plant(tree)
    source = tmp_path_factory.mktemp("model") / "m.bin"
    source.write_bytes(b"x")
    publish("m", source, root=tree.path)

    def prune(*_args, **_options):
        raise RecursionError("deep")

    monkeypatch.setattr(versions, "prune_own", prune)
    report = tree.sweep()
    assert report.errors == 1 and "models/m" in report.error_texts[0] and report.finished
    assert not tree.there(*dead) and tree.there(*live) == live


def test_a_listing_that_takes_the_budget_leaves_time_for_work(tree, monkeypatch):
    """Half of the budget is for work, however long the names take to list (I21)."""
    dead = [tree.entry(f"n{i}", i, age=2 * DAY) for i in range(5)]
    list_names, clock, taken = tree.mount.scan, time.monotonic, [0.0]

    def scan_slowly(folder):
        taken[0] += 30 * (folder == "cache")
        return list_names(folder)

    monkeypatch.setattr(time, "monotonic", lambda: clock() + taken[0])
    monkeypatch.setattr(tree.mount, "scan", scan_slowly)
    assert tree.sweep(budget=16, older_than="1d").finished and not tree.there(*dead)


def test_a_namespace_too_large_for_the_time_is_trimmed(tree, monkeypatch):
    """Folders that half of the time allows stand for all, and no more goes than must (I21)."""
    tree.policy("f", shortest=90 * DAY, max_entries=160)
    for number in range(800):
        tree.entry("f", number, age=DAY, unused=number + 60)
    real, clock, taken = tree.mount.scan, time.monotonic, [0.0]

    def scan_slowly(folder):
        taken[0] += 0.05 * folder.startswith("cache/f/")
        return real(folder)

    monkeypatch.setattr(time, "monotonic", lambda: clock() + taken[0])
    monkeypatch.setattr(tree.mount, "scan", scan_slowly)
    counts = [tree.entries("f")]
    for _ in range(60):
        report = tree.sweep(budget=0.6)
        counts.append(tree.entries("f"))
        if report.finished:
            break
    assert counts[-1] <= 170 and min(counts) >= 130, counts
    assert len(set(counts)) > 3, "some at a time"
    assert report.kept >= 0


def test_a_mark_that_is_something_else_does_not_end_a_sweep(tree):
    _dead, _ = plant(tree)
    tree.sweep(older_than="90d")
    (marks_folder,) = os.listdir(tree.full(layout.SWEEPS))
    mark = tree.full(f"{layout.SWEEPS}/{marks_folder}/cache,f")
    os.remove(mark)
    os.mkdir(mark)
    tree.entry("f", 999, age=2 * HOUR)
    report = tree.sweep(older_than="90d")
    assert report.removed == 1 and report.errors == 1 and report.finished


def test_a_sweep_that_cannot_write_its_marks_goes_on(tree, monkeypatch, caplog):
    """One `sudo efsstate gc` made the marks root's; the janitor still works (G2)."""
    dead, live = plant(tree)
    real = tree.mount.make

    def make(folder):
        if folder.startswith(layout.SWEEPS):
            raise PermissionError(13, "Permission denied", tree.full(folder))
        return real(folder)

    monkeypatch.setattr(tree.mount, "make", make)
    for _ in range(2):
        report = tree.sweep(budget=60)
        assert report.finished and report.errors == 0
    assert not tree.there(*dead) and tree.there(*live) == live
    assert "goes on without them" in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's folder")
def test_a_sweep_by_another_user_than_the_marks_owner_works(tree):
    """The marks are there, readable, and another user's: neither an error nor a stop (G2)."""
    dead, live = plant(tree)
    tree.sweep(budget=60)  # as root; and again with the same options, as another user
    tree.entry("f", 999, age=2 * HOUR)
    for where, _, names in os.walk(tree.path):
        for name in [".", *names]:
            if "/.efsstate" not in where:
                os.chown(f"{where}/{name}", 65534, 65534, follow_symlinks=False)
    for folder in (tree.path, *pathlib.Path(tree.path).parents[:2]):
        os.chmod(folder, 0o755)
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.setgid(65534)
            os.setuid(65534)
            report = type(tree)(tree.path).sweep(budget=60)
            code = 0 if (report.removed, report.errors, report.finished) == (1, 0, True) else 2
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert tree.there(*live) == live and not tree.there(*dead)


def test_each_call_gets_on_however_many_namespaces_there_are(tree):
    """10,000 namespaces and calls of 0.2 s: none is in vain, and they come to an end (I21)."""
    digest = "a" * 48
    for number in range(10_000):
        os.makedirs(tree.full(f"cache/n{number}/a"))
    for number in range(0, 10_000, 100):
        tree.file(f"cache/n{number}/.tmp-{'a' * 24}", age=2 * DAY)
        tree.file(f"cache/n{number}/a/{digest}", age=2 * DAY)
    calls = removed = 0
    while True:
        report = tree.sweep(budget=0.2, older_than="1d")
        calls += 1
        removed += report.removed
        assert report.finished or report.folders > 0, (calls, report)
        if report.finished:
            break
        assert calls < 500
    assert calls > 1 and removed == 200


def test_each_call_gets_on_however_many_shards_a_checkpoint_has(tree):
    """One job of 10,000 shards and calls of 0.2 s (I21)."""
    from efsstate import checkpoint

    with checkpoint("job", root=tree.path, keep=1).shards(10_000) as shards:
        for shard in shards:
            shard.save(1)
            break
    for index in range(10_000):
        os.makedirs(tree.full(f"checkpoints/job/s{index}"), exist_ok=True)
    calls, done = 0, 0
    while True:
        report = tree.sweep(budget=0.2)
        calls += 1
        marks_now = sum("#" in name for name in marks(tree))
        assert report.finished or marks_now > done, (calls, report)
        done = marks_now
        if report.finished:
            break
        assert calls < 500
    assert calls > 1 and report.errors == 0


def test_no_thread_and_no_descriptor_is_left(tree):
    plant(tree)
    tree.sweep()
    threads, descriptors = (
        threading.active_count(),
        len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0,
    )
    for _ in range(3):
        tree.sweep()
    assert threading.active_count() == threads
    assert not descriptors or len(os.listdir("/proc/self/fd")) <= descriptors
