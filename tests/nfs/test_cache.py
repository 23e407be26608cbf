"""The cache on two NFS clients: its cost, one computation for both, and changes seen in time."""

import os
import pathlib
import threading
import time

import pytest

from efsstate import Cache, cached

pytestmark = pytest.mark.nfs
VALUE = b"x" * 1024


def on(lab, client, name="k", **options):
    """A function whose results lie on the mount of `client`, with nothing in memory."""
    calls = []

    def work(x):
        calls.append(x)
        return VALUE

    made = cached(name=name, root=lab.path(client), **{"memory": 0, **options})(work)
    made.calls = calls
    return made


@pytest.mark.parametrize(("kib", "reads"), [(100, 1), (512, 1), (1024, 2), (4096, 5)])
def test_a_first_hit_of_a_large_result(lab, kib, reads):
    """An OPEN, a READ for each MiB and one for the rest, a CLOSE; a new folder takes 3 more."""
    value = b"x" * (kib << 10)
    a, b = (
        cached(name=f"large {kib}", root=lab.path(client), memory=0)(lambda x: value)
        for client in "ab"
    )
    a(1)
    with pytest.raises(KeyError):
        b.peek(2)  # its process has begun to use the cache
    with lab.count("b") as sent:
        assert b(1) == value
    assert sent.ops["OPEN"] <= 2 and sent.ops["READ"] == reads and sent.ops["CLOSE"] <= 2, sent.ops
    assert sent.total <= reads + 2 + 3, sent.ops


def test_a_hit_of_another_clients_entry_is_three_requests(lab):
    a, b = on(lab, "a"), on(lab, "b")
    for x in range(64):
        a(x)
    for x in range(48):
        b(x)
    with lab.count("b") as sent:
        for x in range(48, 64):
            b(x)
    assert sent.ops == {"OPEN": 16, "READ": 16, "CLOSE": 16} and b.calls == []


def test_the_first_256_hits_cost_at_most_three_and_a_half_each(lab):
    """Requests of a fresh environment, for entries of another client."""
    a = on(lab, "a")
    for x in range(256):
        a(x)
    b = on(lab, "b")
    with lab.count("b") as sent:
        for x in range(256):
            b(x)
    assert b.calls == [] and sent.total <= 3.5 * 256, sent.ops


def test_a_put_is_four_requests(lab):
    cache = Cache("k", root=lab.a, memory=0)
    for x in range(64):
        cache.set(x, VALUE)
    with lab.count("a") as sent:
        for x in range(64, 80):
            cache.set(x, VALUE)
    assert sent.ops == {"OPEN": 16, "WRITE": 16, "CLOSE": 16, "RENAME": 16}


def test_a_miss_alone_is_eleven_requests_in_all(lab):
    a = on(lab, "a")
    for x in range(100):
        a(x)
    with lab.count("a") as sent:
        for x in range(100, 116):
            a(x)
    assert len(a.calls) == 116 and sent.total <= 11 * 16, sent.ops
    assert sent.ops["LOCK"] == sent.ops["LOCKU"] == 16
    fresh = on(lab, "a", name="k")
    fresh(0)
    pathlib.Path(
        lab.path("a"), "cache/k/POLICY"
    ).read_bytes()  # the client may have given its page away: a READ more
    with lab.count("a") as sent:
        fresh("new")
    assert sent.total <= 11 + 3, (
        sent.ops
    )  # and its first look at the policy, by GETATTR, OPEN, CLOSE


def test_hit_put_and_miss_cost_the_same_among_many_entries(lab):
    """The same requests among 1,000 and 20,000."""
    from benchmarks import flat, measure

    sent = {client: measure.Requests(lab.path(client)) for client in "ab"}
    found = []
    for count in (1_000, 20_000):
        a, b = f"{lab.a}/{count}", f"{lab.b}/{count}"
        server = flat.SERVER + a.removeprefix("/mnt/a")
        figures = flat.requests(
            a,
            b,
            count,
            sent,
            server if os.path.isdir(flat.SERVER) and a.startswith("/mnt/a/") else None,
        )
        found.append({figure["row"]: figure["by_operation"] for figure in figures})
    assert set(found[0]) == {"hit", "put", "miss"} and found[0] == found[1]


def test_a_fresh_look_is_one_request_more(lab):
    a, b = Cache("k", root=lab.a, memory=0), Cache("k", root=lab.b, memory=0)
    for x in range(96):
        a.set(x, VALUE)
    time.sleep(1.5)  # a folder that was changed within a second is asked about more
    for x in range(64):
        b.get(x, fresh=True)
    with lab.count("b") as sent:
        for x in range(80, 96):
            assert b.get(x, fresh=True) == VALUE
    assert sent.ops == {"GETATTR": 16, "OPEN": 16, "READ": 16, "CLOSE": 16}
    a.clear()
    assert [b.get(x, fresh=True) for x in range(96)] == [None] * 96
    a.set(1, "new")
    assert b.get(1, fresh=True) == "new"


@pytest.mark.parametrize("memory", [0, None])
def test_64_processes_on_both_clients_compute_once(lab, memory):
    """32 forks a client; all have looked, and their clients remember that the name is missing."""

    def crowd(client):
        f = cached(name="cold", root=lab.path(client), memory=memory)(slow)
        with pytest.raises(KeyError):
            f.peek(1)
        pids = []
        for _ in range(32):
            if not (pid := os.fork()):
                while not os.path.exists("/run/go"):
                    time.sleep(0.2)
                os._exit(0 if f(1) == "value" else 1)
            pids.append(pid)
        print("ready", flush=True)
        return [os.waitpid(pid, 0)[1] for pid in pids]

    def slow(x):
        os.close(
            os.open(f"{lab.a}/computed-{os.getpid()}-{time.time_ns()}", os.O_CREAT | os.O_WRONLY)
        )
        time.sleep(1)
        return "value"

    workers = [lab.start(client, crowd, client) for client in ("a", "b")]
    for worker in workers:
        assert worker.readline(120).strip() == "ready"
    open("/run/go", "w").close()
    try:
        assert [worker.result(120) for worker in workers] == [[0] * 32] * 2
    finally:
        os.unlink("/run/go")
    assert len([name for name in os.listdir(lab.a) if name.startswith("computed")]) == 1


@pytest.mark.parametrize("change", ["invalidate", "refresh", "cache_clear"])
def test_a_change_is_seen_by_the_other_client_within_60_s(lab, change):
    """The worst case.

    B has the result in memory, its client the name, and the old file is open there.
    """
    cache_b = Cache("k2", root=lab.b)
    versions = iter(["old", "new", "newer"])
    a = cached(name="k2", root=lab.a)(lambda x: next(versions))
    b = cached(name="k2", root=lab.b)(lambda x: "computed by b")
    assert a(1) == b(1) == "old"
    held = [
        os.open(os.path.join(folder, name), os.O_RDONLY)
        for folder, _, names in os.walk(lab.b)
        for name in names
    ]
    exact = Cache("k2", root=lab.b)
    exact._keys = b.cache._keys
    key = a.cache_key(1)
    getattr(a, change)(*[1] * (change != "cache_clear"))
    now = exact._results.read(key, exact=True)
    assert (now and exact._results.take(now)) == ("new" if change == "refresh" else None)
    began = time.time()
    while b(1) == "old":
        assert time.time() - began < 60
        time.sleep(0.5)
    assert time.time() - began > 5  # it was in memory: else this shows nothing
    assert b(1) == ("new" if change == "refresh" else "computed by b")
    for fd in held:
        os.close(fd)
    assert cache_b.name == "k2"


@pytest.mark.parametrize("change", ["invalidate", "refresh", "set", "delete"])
@pytest.mark.parametrize("known", [False, True])
def test_an_older_computation_does_not_undo_anothers_change(lab, change, known):
    """The client remembers what was there, or that nothing was: it must ask anew."""
    box = Cache("k", root=lab.b, memory=0)
    if known:
        box.set(0, "older")
        box.delete(0)

    def compute():
        def work():
            print("in", flush=True)
            while not os.path.exists("/run/change"):
                time.sleep(0.1)
            return "old"

        return Cache("k", root=lab.a, memory=0).get_or_compute(0, work)

    f = cached(name="k", root=lab.b, memory=0, key=lambda: 0)(lambda: "new")
    worker = lab.start("a", compute)
    assert worker.readline(60).strip() == "in"
    try:
        {
            "invalidate": f.invalidate,
            "refresh": f.refresh,
            "set": lambda: box.set(0, "new"),
            "delete": lambda: box.delete(0),
        }[change]()
        open("/run/change", "w").close()
        assert worker.result(60) == "old"
    finally:
        os.unlink("/run/change")
    for client in "ab":
        assert Cache("k", root=lab.path(client), memory=0).get(0, fresh=True) == (
            "new" if change in ("refresh", "set") else None
        )


def test_to_invalidate_a_large_result_does_not_read_it(lab):
    a, b = Cache("k", root=lab.a, memory=0), Cache("k", root=lab.b, memory=0)
    a.set("k", b"x" * 8_000_000)
    with lab.count("b") as sent:
        assert b.delete("k") is True
    assert sent.ops["READ"] == 1 and sent.total <= 20, sent.ops
    assert a.get("k", fresh=True) is None


def test_the_death_of_who_computes_frees_the_key(lab):
    def compute():
        def work(x):
            print("in", flush=True)
            time.sleep(100)

        cached(name="k3", root=lab.a)(work)(1)

    victim = lab.start("a", compute)
    assert victim.readline().strip() == "in"
    threading.Timer(0.5, victim.kill).start()
    b = on(lab, "b", "k3")
    began = time.time()
    assert b(1) == VALUE and time.time() - began < 30 and b.cache_info().waits == 1


def test_a_link_that_is_cut_is_left_alone_and_used_again(lab):
    def work():
        calls = []
        f = cached(name="k4", root=lab.b, memory=0, io_timeout=0.5)(lambda x: calls.append(x) or x)
        f(1)
        print("ready", flush=True)
        while not os.path.exists("/run/cut"):
            time.sleep(0.05)
        for _ in range(20):
            assert f(1) == 1
        began = time.time()
        for _ in range(200):
            f(1)
        fast = time.time() - began
        print("alone", len(calls), fast, flush=True)
        end = time.time() + 120
        before = -1
        while before != len(calls) and time.time() < end:
            before = len(calls)
            f(1)
            time.sleep(0.2)
        print("again", flush=True)

    worker = lab.start("b", work)
    assert worker.readline().strip() == "ready"
    lab.cut("b")
    open("/run/cut", "w").close()
    try:
        word, calls, seconds = worker.readline().split()
        assert word == "alone" and int(calls) > 200 and float(seconds) < 20
    finally:
        os.unlink("/run/cut")
        lab.heal("b")
    assert worker.readline().strip() == "again"
    worker.wait()


def test_a_process_ends_while_its_mount_is_cut_off_for_good(lab):
    """Threads hang, and files of that mount are open: the end must not wait for the link."""
    code = """if True:
        import os, sys, time
        from efsstate import cached
        f = cached(name="k4", root=sys.argv[1], memory=0, io_timeout=0.5)(lambda x: x)
        f(1), f(1)
        print("ready", flush=True)
        while not os.path.exists("/run/cut"):
            time.sleep(0.05)
        print(*[f(i) for i in range(20)], flush=True)
        """
    worker = lab.start("b", code, lab.b)
    assert worker.readline().strip() == "ready"
    lab.cut("b")
    open("/run/cut", "w").close()
    try:
        assert worker.readline().split() == [str(i) for i in range(20)]
        assert worker.wait(timeout=20) == 0
    finally:
        os.unlink("/run/cut")
        lab.heal("b")


def test_a_claim_does_not_wait_for_a_client_that_is_cut_off(lab):
    """One process, two mounts: what is open of the one that hangs stays open for the other."""

    def work():
        from efsstate.mount import byte_locks
        from efsstate.mount.files import Mount

        for client, count in (("a", byte_locks._MAX_OPEN), ("b", 2 * byte_locks._MAX_OPEN)):
            mount = Mount(lab.path(client))
            for i in range(count):
                byte_locks.acquire(mount, f"cache/{client}-{i}", "0" * 48).release()
            if client == "a":
                print("open", flush=True)
                while not os.path.exists("/run/cut"):
                    time.sleep(0.05)
        print("claimed", flush=True)
        os._exit(0)

    worker = lab.start("a", work)
    assert worker.readline().strip() == "open"
    lab.cut("a")
    open("/run/cut", "w").close()
    try:
        assert worker.readline().strip() == "claimed"
    finally:
        os.unlink("/run/cut")
        lab.heal("a")
    worker.wait()


def test_a_lost_lock_costs_a_computation_at_most(lab):
    """A client cut off for longer than the lease loses its claims.

    And claims again by the same file.
    """
    a = on(lab, "a", "k5")
    a(1)

    def work():
        def slow(x):
            print("in", flush=True)
            while not os.path.exists("/run/healed"):
                time.sleep(0.05)
            return "a"

        f = cached(name="k5", root=lab.a, memory=0)(slow)
        f(2)
        again = cached(name="k5", root=lab.a, memory=0)(lambda x: x)
        print(
            "done",
            [again(x) for x in range(10, 20)] == list(range(10, 20)),
            again.cache_info().waits,
            flush=True,
        )

    worker = lab.start("a", work)
    assert worker.readline().strip() == "in"
    lab.cut("a")
    time.sleep(25)
    b = on(lab, "b", "k5", lock_timeout=30)
    assert b(2) == VALUE
    lab.heal("a")
    open("/run/healed", "w").close()
    try:
        assert worker.readline().split()[:2] == ["done", "True"]
    finally:
        os.unlink("/run/healed")
    worker.wait()


def test_map_has_sixteen_reads_in_flight_and_asks_for_no_more(lab, monkeypatch):
    """A loop has one in flight; the ratio of the times is in the benchmarks.

    The link is slow, so that the guest's one core does not count.
    """
    from efsstate.cache.tiers import TieredCache

    a = on(lab, "a", "k6")
    for x in range(128):
        a(x)
    b = on(lab, "b", "k6")
    b.map(range(64))  # the folders are known
    lab.delay("40ms")
    most, now, guard, read = [0], [0], threading.Lock(), TieredCache.read

    def counted(*args):
        with guard:
            now[0] += 1
            most[0] = max(most[0], now[0])
        try:
            return read(*args)
        finally:
            with guard:
                now[0] -= 1

    monkeypatch.setattr(TieredCache, "read", counted)
    with lab.count("b") as sent:
        assert b.map(range(64, 128)) == [VALUE] * 64
    assert b.calls == [] and most[0] >= 14, most
    assert [sent.ops[op] for op in ("OPEN", "READ", "CLOSE")] == [
        64
    ] * 3 and sent.total <= 3 * 64 + 16, sent.ops
