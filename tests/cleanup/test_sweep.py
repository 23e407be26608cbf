"""What a sweep removes, what it leaves, and what it says."""

import os
import subprocess
import sys
import tempfile
import time
import warnings

import pytest

from efsstate import RootError, SweepReport
from efsstate.eviction.scan import ABANDONED
from efsstate.format import entry

from .conftest import DAY, HOUR


def test_expired_entries_go_and_live_ones_stay_unopened(tree):
    tree.policy("f", shortest=HOUR, longest=HOUR)
    live = [tree.entry("f", i, age=10, ttl=HOUR) for i in range(50)]
    dead = [tree.entry("f", -i, age=2 * HOUR, ttl=HOUR) for i in range(1, 31)]
    report = tree.sweep()
    assert tree.there(*live) == live and not tree.there(*dead)
    assert report.reasons == {"expired": 30} and (report.removed, report.kept, report.looked) == (
        30,
        50,
        80,
    )
    assert report.opened == 0 and report.finished and report.errors == report.foreign == 0
    assert report.kept_bytes == sum(os.path.getsize(tree.full(name)) for name in live)


def test_only_those_between_shortest_and_longest_are_opened(tree):
    tree.policy("f", shortest=HOUR, longest=10 * HOUR)
    young = [tree.entry("f", ("y", i), age=HOUR / 2, ttl=HOUR) for i in range(5)]
    between_live = [tree.entry("f", ("l", i), age=5 * HOUR, ttl=9 * HOUR) for i in range(4)]
    between_dead = [tree.entry("f", ("d", i), age=5 * HOUR, ttl=2 * HOUR) for i in range(3)]
    old = [tree.entry("f", ("o", i), age=11 * HOUR, ttl=None) for i in range(2)]
    report = tree.sweep()
    assert tree.there(*young, *between_live) == young + between_live and not tree.there(
        *between_dead, *old
    )
    assert report.opened == 7 and report.reasons == {"expired": 5}


def test_entries_without_a_ttl_stay(tree):
    tree.policy("f")
    kept = tree.entry("f", 1, age=900 * DAY, unused=0)
    assert tree.sweep().removed == 0 and tree.there(kept)


def test_without_a_policy_the_header_decides(tree):
    live, dead = (
        tree.entry("f", 1, age=HOUR, ttl=2 * HOUR),
        tree.entry("f", 2, age=HOUR, ttl=HOUR / 2),
    )
    report = tree.sweep()
    assert tree.there(live, dead) == [live] and report.opened == 2


def test_what_was_cleared_goes_unopened(tree):
    tree.policy("f", shortest=DAY, longest=DAY)
    mark = tree.cleared("f", age=60)
    before, after = tree.entry("f", 1, age=61), tree.entry("f", 2, age=59)
    report = tree.sweep()
    assert (
        tree.there(before, after) == [after]
        and report.reasons == {"cleared": 1}
        and not report.opened
    )
    assert tree.there(mark, "cache/f/POLICY") == [mark, "cache/f/POLICY"] and not report.foreign


def test_older_than_and_unused_for(tree):
    tree.policy("f", shortest=90 * DAY, longest=90 * DAY)
    old = tree.entry("f", 1, age=10 * DAY, unused=0)
    idle = tree.entry("f", 2, age=5 * DAY, unused=5 * DAY)
    hot = tree.entry("f", 3, age=5 * DAY, unused=DAY)
    assert tree.sweep(unused_for="4d").reasons == {"unused": 1} and tree.there(old, idle, hot) == [
        old,
        hot,
    ]
    assert tree.sweep(older_than="7d").reasons == {"old": 1} and tree.there(old, idle, hot) == [hot]


def test_a_dry_run_removes_and_writes_nothing(tree):
    tree.policy("f", shortest=HOUR, longest=HOUR, max_entries=2)
    names = [tree.entry("f", i, age=2 * HOUR if i < 3 else 0, unused=10 - i) for i in range(8)]
    before = sorted(os.walk(tree.path))
    report = tree.sweep(dry_run=True)
    assert sorted(os.walk(tree.path)) == before and tree.there(*names) == names
    assert report.reasons == {"expired": 3, "limit": 3} and report.dry_run and report.kept == 2
    assert tree.sweep().reasons == report.reasons


def test_a_dry_run_works_on_a_read_only_mount(tree, monkeypatch):
    """It writes nothing, so it asks for no right to write (H13)."""
    tree.policy("f", shortest=HOUR, longest=HOUR)
    tree.entry("f", 1, age=2 * HOUR)
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)

    def refuse(folder, *_args, **_options):
        raise OSError(30, "Read-only file system", tree.full(folder))

    for name in ("_write", "make", "remove", "rename"):
        monkeypatch.setattr(tree.mount, name, refuse)
    report = tree.sweep(dry_run=True)
    assert report.reasons == {"expired": 1} and not report.errors and report.finished
    with pytest.raises(RootError):
        tree.sweep()


# Limits


def test_beyond_the_namespaces_limits_the_least_recently_used_go(tree):
    tree.policy("f", shortest=90 * DAY, max_entries=10)
    names = [tree.entry("f", i, age=50 * HOUR, unused=i * HOUR) for i in range(40)]
    report = tree.sweep()
    assert (
        tree.there(*names) == names[:10] and report.reasons == {"limit": 30} and report.kept == 10
    )


def test_max_bytes_of_the_namespace(tree):
    tree.policy("f", shortest=90 * DAY, max_bytes=5000)
    names = [tree.entry("f", i, age=50 * HOUR, unused=i * HOUR, size=900) for i in range(12)]
    tree.sweep()
    assert tree.there(*names) == names[:5]


def test_the_callers_limits_are_of_the_whole_cache(tree):
    names = []
    for i in range(30):
        namespace = "abc"[i % 3]
        tree.policy(namespace, shortest=90 * DAY)
        names.append(tree.entry(namespace, i, age=50 * HOUR, unused=i * HOUR))
    assert tree.sweep(max_entries=7).kept == 7 and tree.there(*names) == names[:7]
    assert (
        tree.sweep(max_bytes=3 * os.path.getsize(tree.full(names[0]))).kept == 3
        and tree.there(*names) == names[:3]
    )


def test_within_its_limit_nothing_goes(tree):
    tree.policy("f", shortest=90 * DAY, max_entries=10, max_bytes=10**6)
    names = [tree.entry("f", i) for i in range(10)]
    assert tree.sweep().removed == 0 and tree.there(*names) == names


def test_of_entries_used_at_one_moment_no_more_goes_than_must(tree):
    tree.policy("f", shortest=90 * DAY, max_entries=10)
    now = time.time()
    for i in range(64):
        os.utime(tree.full(tree.entry("f", i)), (now, now))
    tree.sweep()
    assert tree.entries("f") == 10


def test_a_refused_folder_does_not_keep_the_limit_from_others(tree, monkeypatch):
    tree.policy("f", shortest=90 * DAY, max_entries=10)
    for i in range(100):
        tree.entry("f", i, age=DAY, unused=i)
    real = tree.mount.scan

    def refused(folder):
        if folder == "cache/f/3":
            raise PermissionError(13, "Permission denied", tree.full(folder))
        return real(folder)

    monkeypatch.setattr(tree.mount, "scan", refused)
    there = len(os.listdir(tree.full("cache/f/3")))
    report = tree.sweep()
    assert report.errors == 1 and tree.entries("f") == 10 + there


def test_a_limit_is_held_to_to_the_entry_by_several_workers(tree):
    """The last ones that go are shared by all workers: none goes twice over."""
    tree.policy("f", shortest=90 * DAY, max_entries=777)
    now = time.time()
    for i in range(2000):
        os.utime(tree.full(tree.entry("f", i, size=1)), (now, now))
    assert tree.sweep().kept == 777 and tree.entries("f") == 777


def test_memory_does_not_grow_with_the_number_of_entries(tree):
    import stat as stats
    import tracemalloc

    tree.policy("f", shortest=HOUR, longest=HOUR)
    os.makedirs(tree.full("cache/f/a"), exist_ok=True)
    tree.sweep(max_entries=1)  # what it imports is not what is measured
    peaks = []
    for count in (3000, 20_000):
        for made in range(len(os.listdir(tree.full("cache/f/a"))), count):
            os.mknod(tree.full(f"cache/f/a/a{made:047x}"), 0o600 | stats.S_IFREG)
        tracemalloc.start()
        assert tree.sweep(max_entries=count).looked == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 2**20, peaks


# Models and checkpoints


def test_model_versions_beyond_their_keep_go_after_their_grace(tree, tmp_path_factory):
    from efsstate import publish, versions

    source = tmp_path_factory.mktemp("model") / "m.bin"
    for i in range(4):
        source.write_bytes(b"%d" % i * 1000)
        publish("m", source, version=f"v{i}", root=tree.path)
    tree.file("models/by-hand.pth", age=900 * DAY)
    os.makedirs(tree.full("models/folder-by-hand"))
    assert tree.sweep().removed == 0, "within their grace"
    for one in versions("m", root=tree.path):
        for name in os.listdir(tree.full(f"models/m/versions/{one.id}")):
            tree.age(f"models/m/versions/{one.id}/{name}", 3 * DAY)
    assert tree.sweep(dry_run=True).reasons == {"version": 2}
    report = tree.sweep()
    assert (
        report.reasons == {"version": 2}
        and report.removed_bytes == 2000
        and not report.foreign
        and not report.errors
    )
    assert [one.id for one in versions("m", root=tree.path) if one.active] == ["v3"]
    assert tree.there("models/by-hand.pth", "models/folder-by-hand") == [
        "models/by-hand.pth",
        "models/folder-by-hand",
    ]


def test_an_unfinished_checkpoint_never_goes(tree):
    from efsstate import checkpoint

    with checkpoint("import", root=tree.path, ttl=0) as job:
        job.save({"n": 1})
    for where, folders, names in os.walk(tree.full("checkpoints")):
        for name in folders + names:
            os.utime(f"{where}/{name}", (1, 1), follow_symlinks=False)
    tree.sweep(older_than=0, unused_for=0, max_bytes=0, max_entries=0)
    assert checkpoint("import", root=tree.path).load() == {"n": 1}


def test_a_finished_checkpoint_goes_and_so_does_a_rest_of_one(tree):
    from efsstate import checkpoint

    for name, ttl in (("past", 0), ("later", "7d"), ("ever", None)):
        with checkpoint(name, root=tree.path, ttl=ttl) as job:
            job.finish(1)
    rest = os.path.dirname(tree.file("checkpoints/.tmp-111111111111111111111111/1-1"))
    young = os.path.dirname(tree.file("checkpoints/.tmp-222222222222222222222222/1-1"))
    for folder in (rest, young):
        tree.file(f"{folder}/REMOVED")
    os.utime(tree.full(rest), (1, 1))
    time.sleep(0.01)
    assert tree.sweep(dry_run=True).reasons == {"checkpoint": 1, "temporary": 1} and tree.there(
        "checkpoints/past", rest
    )
    report = tree.sweep()
    assert (
        report.reasons == {"checkpoint": 1, "temporary": 1}
        and not report.errors
        and not report.foreign
    )
    assert sorted(os.listdir(tree.full("checkpoints"))) == sorted(
        ["later", "ever", os.path.basename(young)]
    )


def test_temporaries_that_were_abandoned_beside_the_areas_go_too(tree):
    old = [
        tree.file(f"{where}.tmp-{'3' * 24}", age=2 * DAY, body=b"")
        for where in ("", "cache/", "models/", "checkpoints/")
    ]
    young = tree.file(f".tmp-{'4' * 24}", body=b"")
    assert tree.sweep().reasons == {"temporary": 4} and not tree.there(*old) and tree.there(young)


# What was abandoned


def test_abandoned_temporaries_go_young_ones_and_locks_stay(tree):
    old = [
        tree.file("cache/f/3/.tmp-aaaaaaaaaaaaaaaaaaaaaaaa", age=ABANDONED + 60),
        tree.file("cache/f/.tmp-bbbbbbbbbbbbbbbbbbbbbbbb", age=ABANDONED + 60),
    ]
    kept = [
        tree.file("cache/f/3/.tmp-cccccccccccccccccccccccc", age=HOUR),
        tree.file("cache/f/4/LOCK", age=10 * DAY),
    ]
    mark = tree.full("cache/f/3/.tmp-dddddddddddddddddddddddd")
    os.symlink("changed", mark)
    os.utime(mark, (0, 0), follow_symlinks=False)
    report = tree.sweep()
    assert not tree.there(*old) and tree.there(*kept) == kept and not os.path.lexists(mark)
    assert report.reasons == {"temporary": 3} and not report.foreign


def test_foreign_files_are_left_and_reported(tree):
    tree.policy("f", shortest=HOUR, longest=HOUR)
    strange = [
        tree.file("cache/f/notes.txt", age=900 * DAY),
        tree.file("cache/f/a/README", age=900 * DAY),
        tree.file("cache/f/a/" + "a" * 47, age=900 * DAY),
        tree.file("cache/f/a/" + "A" * 48, age=900 * DAY),
        tree.file("cache/stray", age=900 * DAY),
        tree.file("cache/f/subfolder/x", age=900 * DAY),
    ]
    os.makedirs(tree.full("cache/f/b/" + "b" * 48))
    os.mkfifo(tree.full("cache/f/b/.tmp-eeeeeeeeeeeeeeeeeeeeeeee"))
    report = tree.sweep(older_than=0)
    assert tree.there(*strange) == strange and report.removed == 0 and report.foreign == 8
    assert tree.full("cache/stray") in report.foreign_paths and report.errors == 0


def test_the_nfs_clients_own_files_are_not_touched(tree):
    name = tree.file("cache/f/a/.nfs0001", age=900 * DAY)
    report = tree.sweep(older_than=0)
    assert tree.there(name) and report.foreign == 0


def test_users_own_data_is_never_looked_at(tree):
    name = tree.file("shared-data/f/a/" + "a" * 48, age=900 * DAY)
    other = tree.file("elsewhere/.tmp-333333333333333333333333", age=900 * DAY)
    assert (
        tree.sweep(older_than=0, max_entries=0).foreign == 0 and len(tree.there(name, other)) == 2
    )


def test_symbolic_links_are_never_followed(tree, tmp_path_factory):
    out = tmp_path_factory.mktemp("outside")
    tree.entry("f", 1, age=HOUR, ttl=1)
    victim = out / "a" / ("a" * 48)
    victim.parent.mkdir()
    victim.write_bytes(b"x")
    os.utime(victim, (1, 1))
    os.symlink(out, tree.full("cache/linked"))
    os.symlink(out / "a", tree.full("cache/f/7"))
    os.symlink(victim, tree.full("cache/f/8")) if not os.path.exists(
        tree.full("cache/f/8")
    ) else None
    report = tree.sweep(older_than=0, max_entries=0)
    assert victim.exists() and report.removed == 1 and report.foreign >= 2


def test_damaged_entries_are_left_and_counted(tree):
    tree.policy("f", shortest=0, longest=None)
    name = tree.entry("f", 1, age=HOUR, ttl=HOUR / 2)
    with open(tree.full(name), "r+b") as file:
        file.write(b"JUNK")
    tree.age(name, HOUR)
    report = tree.sweep()
    assert tree.there(name) and report.damaged == 1 and tree.full(name) in report.foreign_paths


def test_entries_of_a_newer_format_are_left_alone(tree):
    name = tree.entry("f", 1, age=HOUR, ttl=HOUR / 2)
    with open(tree.full(name), "r+b") as file:
        file.seek(4)
        file.write(bytes([entry.FORMAT + 1]))
    tree.age(name, HOUR)
    report = tree.sweep()
    assert tree.there(name) and report.newer == 1


def test_a_namespace_whose_policy_is_newer_is_left_alone(tree):
    tree.policy("f", shortest=1, longest=1)
    name = tree.entry("f", 1, age=900 * DAY, ttl=1)
    with open(tree.full("cache/f/POLICY"), "r+b") as file:
        file.seek(4)
        file.write(bytes([entry.FORMAT + 1]))
    report = tree.sweep(older_than=0, max_entries=0)
    assert tree.there(name) and report.newer == 1


# Faults


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do anything")
def test_permission_denied_in_one_folder_is_reported(tree):
    _permission(tree)


def _permission(tree):
    tree.policy("f", shortest=1, longest=1)
    names = [tree.entry("f", i, age=HOUR, ttl=1) for i in range(200)]
    shut = os.path.dirname(tree.full(names[0]))
    os.chmod(shut, 0o500)
    try:
        report = tree.sweep()
    finally:
        os.chmod(shut, 0o700)
    left = tree.there(*names)
    assert left and {os.path.dirname(tree.full(name)) for name in left} == {shut}
    assert report.errors == 1 and shut in report.error_texts[0] and report.finished
    assert tree.sweep().removed == len(left)


def test_permission_denied_as_another_user(tree):
    """The same as root in a container: in a child that gives its rights up."""
    if os.geteuid() != 0:
        pytest.skip("covered by the test above")
    tree.policy("warm", shortest=1, longest=1)
    tree.entry("warm", 1, age=HOUR, ttl=1)
    tree.sweep()  # imports what the child needs: another user may not read Python's own files
    with (
        tempfile.TemporaryDirectory() as above,
        warnings.catch_warnings(),
    ):  # pytest shuts its own folders to others
        os.mkdir(f"{above}/mine", 0o700)
        os.chown(f"{above}/mine", 65534, 65534)
        os.chmod(above, 0o755)
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # a fork beside threads: the child uses none of them
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.setgid(65534)
                os.setuid(65534)
                _permission(type(tree)(f"{above}/mine"))
                code = 0
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.parametrize("wrong", [DAY, -DAY])
def test_a_clock_that_is_wrong_by_a_day_removes_nothing_live(tree, wrong):
    """Ages are by the server's clock: that of a file made for it, before anything is judged."""
    tree.policy("f", shortest=HOUR, longest=HOUR)
    live, dead = tree.entry("f", 1, age=60, ttl=HOUR), tree.entry("f", 2, age=2 * HOUR, ttl=HOUR)
    temporary = tree.file("cache/f/1/.tmp-555555555555555555555555", age=HOUR)
    code = (
        f"import sys, time\nreal = time.time\ntime.time = lambda: real() + {wrong}\n"
        "from efsstate import sweep\nsweep(root=sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", code, tree.path], check=True)
    assert tree.there(live, dead, temporary) == [live, temporary]


def test_a_namespace_in_which_every_entry_is_hot_keeps_them_all(tree):
    tree.policy("f", shortest=90 * DAY)
    names = [tree.entry("f", i, age=80 * DAY, unused=0) for i in range(100)]
    assert tree.sweep(unused_for="30d").removed == 0 and tree.there(*names) == names


def test_a_root_that_is_not_named_is_refused(tmp_path, monkeypatch):
    from efsstate import sweep

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EFSSTATE_ROOT", raising=False)
    with pytest.raises(RootError):
        sweep()
    with pytest.raises(RootError):
        sweep(dry_run=True)
    with pytest.raises(RootError):
        sweep(root=tmp_path / "missing")


@pytest.mark.parametrize(
    "options",
    [
        {"older_than": -1},
        {"unused_for": "soon"},
        {"max_bytes": "much"},
        {"max_bytes": 1.5},
        {"max_entries": -1},
        {"max_entries": True},
        {"budget": "x"},
    ],
)
def test_bad_options_are_refused_before_anything_is_touched(tree, options):
    name = tree.entry("f", 1, age=HOUR, ttl=1)
    with pytest.raises((ValueError, TypeError)):
        tree.sweep(**options)
    assert tree.there(name) and not tree.there(".efsstate")


def test_an_empty_root_is_fine(tree):
    report = tree.sweep()
    assert (
        isinstance(report, SweepReport)
        and report.finished
        and report.removed == 0
        and report.errors == 0
    )
    assert "nothing" in repr(report) and report.as_dict()["finished"] is True


def test_datasets_are_swept_of_what_is_abandoned(tree):
    """A staged file of a killed writer goes after a day; parts stay, and foreign names too."""
    from efsstate import dataset

    reviews = dataset("reviews", root=tree.path)
    reviews.add(b"whole", key="k")
    folders = reviews.folders(reading=False)
    claim = folders.stage("a" * 32, ".bin")
    staged = f"{folders.staging(claim.process)}/{claim.staged}"
    tree.file(staged, age=2 * DAY)
    notes = tree.file("datasets/reviews/staging/notes.txt", age=2 * DAY)
    report = tree.sweep()
    assert report.reasons == {"temporary": 1} and not report.errors
    assert not tree.there(staged) and len(reviews.parts()) == 1
    assert report.foreign_paths == [tree.full(notes)] and tree.there(notes)


def test_all_counts_of_two_reports_are_added():
    reports = [SweepReport(), SweepReport()]
    for factor, report in enumerate(reports, 1):
        for place, (name, value) in enumerate(report.as_dict().items()):
            if isinstance(value, int | float) and not isinstance(value, bool):
                setattr(report, name, factor * (place + 1))
        report.reasons = {"old": factor, f"only {factor}": 1}
        report.foreign_paths = [f"{factor}-{i}" for i in range(15)]
        report.error_texts = [f"{factor}"]
    expected = {
        name: value * 3
        for name, value in reports[0].as_dict().items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    reports[0].add(reports[1])
    fields = reports[0].as_dict()
    assert len(expected) == 14 and expected == {name: fields[name] for name in expected}
    assert reports[0].reasons == {"old": 3, "only 1": 1, "only 2": 1}
    assert reports[0].foreign_paths[13:17] == ["1-13", "1-14", "2-0", "2-1"]
    assert len(reports[0].foreign_paths) == 20 and reports[0].error_texts == ["1", "2"]
