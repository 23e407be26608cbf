"""Faults of the mount: whatever call fails, and however, the caller gets its result."""

import errno
import os
import re
import shutil
import subprocess
import sys
import textwrap

import pytest

from efsstate import Cache, cached

SCRIPT = textwrap.dedent("""
    import logging, os, sys
    from efsstate import Cache, cached
    logging.disable()
    f = cached(name="k", root=sys.argv[1], memory=0, ttl="1h")(lambda x: [x] * 2)
    c = Cache("c", root=sys.argv[1], memory=0)
    def mark(name):
        try: os.stat(name)
        except OSError: pass
    def all_of_it(a, b, d):
        assert [f(a), f(a), f.refresh(a), f(b), f(b)] == [[a, a]] * 3 + [[b, b]] * 2
        f.invalidate(a); f.cache_clear(); f.explain(a)
        assert f(a) == [a, a] and f.map([a, b, d]) == [[a, a], [b, b], [d, d]]
        c.set(a, "one"); assert c.get(a) in ("one", None)
        c.add(b, "two"); c.delete(a); list(c.keys()); c.get_many([a, b]); c.clear()
        assert c.get_or_compute(d, lambda: "five") == "five"
    all_of_it(-1, -2, -3)  # what is imported is imported now
    mark("/BEGIN")
    all_of_it(1, 2, 3)
    mark("/END")
    print("done")
""")
CALLS = (
    "openat,read,readv,write,writev,rename,renameat,renameat2,close,fstat,newfstatat,fcntl,"
    "unlink,unlinkat,mkdir,mkdirat,utimensat,getdents64,fchmod,fsync"
)
needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace is not installed: apt-get install strace"
)


def run(root, *options):
    """Return a script's result, and its calls between its marks: (name, how many before)."""
    trace = f"{root}.trace"
    done = subprocess.run(
        ["strace", "-qq", "-f", "-o", trace, *options, sys.executable, "-c", SCRIPT, root],
        capture_output=True,
        text=True,
    )
    seen, calls, inside, main = {}, [], False, None
    with open(trace, errors="replace") as file:
        for line in file:
            found = re.match(r"(\d+) +(\w+)\(", line)
            if not found or found[1] != (
                main := main or found[1]
            ):  # strace counts each thread's calls on their own
                continue
            seen[found[2]] = seen.get(found[2], 0) + 1
            if "/BEGIN" in line or "/END" in line:
                inside = "/BEGIN" in line
            elif inside:
                calls.append((found[2], seen[found[2]]))
    return done, calls


@needs_strace
@pytest.mark.slow
@pytest.mark.parametrize("error", ["ENOSPC", "EDQUOT", "EROFS", "EACCES", "EIO", "ESTALE"])
def test_any_single_call_may_fail_in_any_way(tmp_path, error):
    (tmp_path / "dry").mkdir()
    done, calls = run(str(tmp_path / "dry"), "-e", f"trace={CALLS},stat")
    assert done.stdout == "done\n", done.stderr
    for i, (name, at) in enumerate(calls):
        root = tmp_path / str(i)
        root.mkdir()
        done, _ = run(
            str(root),
            "-e",
            f"trace={name},stat,newfstatat",
            "-e",
            f"inject={name}:error={error}:when={at}",
        )
        assert done.stdout == "done\n", (name, at, done.stderr)


@needs_strace
@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("openat", "EACCES"), ("openat", "EROFS"), ("openat", "EIO"), ("openat", "ESTALE"),
        ("openat", "EMFILE"), ("read", "EIO"), ("read", "ESTALE"), ("writev", "ENOSPC"),
        ("writev", "EDQUOT"), ("renameat", "EIO"), ("renameat", "ESTALE"), ("fcntl", "ENOLCK"),
        ("fcntl", "EIO"), ("newfstatat", "ESTALE"), ("unlinkat", "EIO"), ("mkdirat", "EDQUOT"),
        ("close", "EIO"), ("close", "EDQUOT"),
    ],
)  # fmt: skip
def test_every_call_of_a_kind_may_fail(tmp_path, name, error):
    for root in ("dry", "wet"):
        (tmp_path / root).mkdir()
    done, calls = run(str(tmp_path / "dry"), "-e", f"trace={name},stat,newfstatat")
    assert done.stdout == "done\n", done.stderr
    mine = [at for called, at in calls if called == name]
    if not mine:
        pytest.skip(f"{name} is not called here")
    done, _ = run(
        str(tmp_path / "wet"),
        "-e",
        f"trace={name},stat,newfstatat",
        "-e",
        f"inject={name}:error={error}:when={mine[0]}..{mine[-1]}",
    )
    assert done.stdout == "done\n", (name, done.stderr)


def test_a_put_that_is_killed_at_any_call_leaves_no_wrong_value(tmp_path):
    """Kill -9 before each system call of a put leaves the old value, the new one, or none."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    script = (
        "import os, sys\nfrom efsstate import Cache\n"
        "c = Cache('c', root=sys.argv[1], memory=0)\nc.set('w', 1)\n"
        "try: os.stat('/BEGIN')\nexcept OSError: pass\nc.set('k', 'new' * 100)\n"
        "try: os.stat('/END')\nexcept OSError: pass\nprint('done')"
    )
    root = tmp_path / "put"
    root.mkdir()
    reader = Cache("c", root=root, memory=0)
    trace = tmp_path / "trace"
    calls = "openat,writev,rename,renameat,renameat2,close"
    for _ in range(2):  # the first makes the folders
        subprocess.run(
            [
                "strace",
                "-qq",
                "-o",
                trace,
                "-e",
                f"trace={calls},stat,newfstatat",
                sys.executable,
                "-c",
                script,
                root,
            ],
            check=True,
            capture_output=True,
        )
    seen, region, inside = {}, [], False
    for line in trace.read_text().splitlines():
        name = line.partition("(")[0]
        seen[name] = seen.get(name, 0) + 1
        if "/BEGIN" in line or "/END" in line:
            inside = "/BEGIN" in line
        elif inside and name in calls.split(","):
            region.append((name, seen[name]))
    assert {name for name, _ in region} >= {"openat", "writev", "close"}
    for name, at in region:
        reader.set("k", "old")
        done = subprocess.run(
            [
                "strace",
                "-qq",
                "-o",
                os.devnull,
                "-e",
                f"inject={name}:signal=KILL:when={at}",
                sys.executable,
                "-c",
                script,
                root,
            ],
            capture_output=True,
            text=True,
        )
        assert "done" not in done.stdout
        assert reader.get("k") in ("old", "new" * 100)


@pytest.mark.parametrize("state", ["full", "read-only", "removed", "a file"])
def test_a_bad_mount_costs_a_computation_and_one_log_line(state, root, caplog):
    """A mount in a bad state costs a computation and one log line."""
    calls = []
    f = cached(memory=0)(lambda x: calls.append(x) or x)
    f(1)
    calls.clear()
    if state == "read-only":
        if os.geteuid() == 0:
            pytest.skip("root may write anywhere")
        for path in [root, *root.rglob("*")]:
            path.chmod(0o500)
    elif state == "full":
        import resource

        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
        import signal

        before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    else:
        shutil.rmtree(root)
        if state == "a file":
            root.write_text("")
    try:
        assert [f(2), f(2), f(3)] == [2, 2, 3] and calls == [2, 2, 3]
        f.invalidate(2), f.refresh(2), f.cache_clear(), f.explain(2)
    finally:
        if state == "full":
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, before)
        elif state == "read-only":
            for path in [root, *root.rglob("*")]:
                path.chmod(0o700)
    assert (
        f.cache_info().errors
        and len({record.getMessage() for record in caplog.records}) == len(caplog.records) <= 6
    )


def test_what_is_not_forgiven_is_the_users_own(root):
    @cached
    def f(x):
        raise OSError(errno.ENOSPC, "the function's own")

    with pytest.raises(OSError, match="the function's own"):
        f(1)
    assert f.cache_info().errors == 0


def test_values_of_a_hundred_megabytes(another):
    f = cached(lambda x: b"x" * 100_000_000)
    assert f(1) == another(f)(1) == f(1) and f.cache_info().currsize == 0


@pytest.mark.parametrize("memory", [0, None])
@pytest.mark.parametrize("of", ["array", "bytes"])
def test_a_hit_takes_one_copy(another, of, memory):
    import tracemalloc

    import numpy as np

    made = np.zeros(4_000_000) if of == "array" else bytes(32_000_000)
    f = cached(lambda x: made, memory=memory)
    f(1)
    g = another(f, memory=memory)
    g.cache._results.read(g.cache_key(2))  # everything is imported and open
    tracemalloc.start()
    value = g(1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert memoryview(value).nbytes == 32_000_000 and value is not made and peak < 33_000_000
