"""Damage, hostile files, other releases: a miss, a count, a log line; nothing runs."""

import asyncio
import json
import os
import pickle
import random
import shutil
import time

import pytest

from efsstate import Cache, cached

VALUE = {"a": (1, 2, {3}), "b": b"x" * 300, "c": ["text"] * 20}


@pytest.fixture
def f():
    calls = []

    @cached(memory=0)
    def f(x):
        calls.append(x)
        return dict(VALUE, x=x)

    f.calls = calls
    f(1)
    calls.clear()
    return f


def test_no_flipped_bit_is_ever_served(f, entries):
    (path,) = entries()
    whole = path.read_bytes()
    for at in range(len(whole)):
        broken = bytearray(whole)
        broken[at] ^= 1 << (at % 8)
        path.write_bytes(broken)
        assert f(1) == dict(VALUE, x=1), at
        if path.read_bytes() == bytes(broken):  # left alone: it says that it is a newer format
            assert at == 4
            path.write_bytes(whole)
    assert len(f.calls) == len(whole) and f.cache_info().damaged + f.cache_info().errors == len(
        whole
    )
    assert f(1) and len(f.calls) == len(whole)


def test_no_cut_or_grown_file_is_ever_served(f, entries):
    (path,) = entries()
    whole = path.read_bytes()
    for broken in (
        *[whole[:length] for length in range(0, len(whole), 7)],
        whole + b"x",
        b"\0" * len(whole),
        whole * 2,
    ):
        path.write_bytes(broken)
        assert f(1) == dict(VALUE, x=1)
    assert f.cache_info().damaged == len(f.calls) and path.read_bytes()[4:5] == whole[4:5]


def test_an_entry_in_anothers_place_is_not_served(f, entries):
    f(2)
    shutil.copy(*[path for x in (2, 1) for path in entries() if path.name == f.cache_key(x)])
    f.calls.clear()
    assert f(1) == dict(VALUE, x=1) and f.calls == [1] and f.cache_info().damaged == 1


def test_damage_is_logged_with_the_path_and_the_reason(f, entries, caplog):
    (path,) = entries()
    path.write_bytes(path.read_bytes()[:-1])
    f(1), f(1)
    assert (
        len(caplog.records) == 1
        and str(path) in caplog.text
        and "where its header says" in caplog.text
    )


def test_a_newer_format_is_a_miss_and_is_left_alone(f, entries):
    (path,) = entries()
    newer = bytearray(path.read_bytes())
    newer[4] = 2
    path.write_bytes(newer)
    assert f(1) == f(1) == dict(VALUE, x=1) and f.calls == [1, 1]
    assert path.read_bytes() == newer
    cache = Cache(f.cache.name)
    assert f.explain(1).startswith("miss") and "newer" in f.explain(1) and list(cache.keys()) == []


@pytest.mark.parametrize("change", ["refresh", "invalidate"])
def test_a_newer_format_goes_where_that_is_asked_for(f, entries, change):
    """Else hosts of the newer release would go on with what was to be changed."""
    (path,) = entries()
    newer = bytearray(path.read_bytes())
    newer[4] = 2
    path.write_bytes(newer)
    getattr(f, change)(1)
    assert not path.exists() if change == "invalidate" else path.read_bytes()[4] == 1


@pytest.mark.parametrize("what", ["link", "directory", "fifo", "link to a directory", "unreadable"])
def test_whatever_stands_in_an_entrys_place_is_a_miss(f, entries, tmp_path, what):
    (path,) = entries()
    outside = tmp_path / "outside"
    outside.write_bytes(path.read_bytes())
    path.unlink()
    {
        "link": lambda: path.symlink_to(outside),
        "directory": path.mkdir,
        "fifo": lambda: os.mkfifo(path),
        "link to a directory": lambda: path.symlink_to(tmp_path),
        "unreadable": lambda: path.write_bytes(b"\0" * 10),
    }[what]()
    assert f(1) == dict(VALUE, x=1) and f.calls == [1]
    assert outside.exists()


def test_a_link_in_place_of_the_namespace_does_not_lead_out(f, root, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    g = cached(name="linked", memory=0)(lambda x: x)
    (root / "cache" / "linked").symlink_to(tmp_path / "elsewhere")
    assert (
        g(1) == 1
        and list((tmp_path / "elsewhere").iterdir()) == []
        and g.cache_info().errors + g.cache_info().damaged
    )


def marks(root):
    """The marks of the generations in the only namespace."""
    (namespace,) = os.listdir(root / "cache")
    return [
        path for path in (root / "cache" / namespace).iterdir() if path.name.startswith("CLEARED")
    ]


def test_a_clear_leaves_one_mark(f, root):
    for _ in range(3):
        f.cache_clear()
    (mark,) = marks(root)
    assert mark.is_symlink() and int(mark.name.split(".")[1]) > 0


@pytest.mark.parametrize(
    "make", [lambda path: path.write_bytes(b"x"), lambda path: path.symlink_to("cleared")]
)
def test_a_forged_clear_stamp_clears_everything_and_heals(f, root, make, apart):
    """A forged generation puts everything out of reach and heals."""
    f.cache_clear()
    f(1)
    (mark,) = marks(root)
    _, number, signature = mark.name.split(".")
    for forged in (
        f"CLEARED.{int(number) + 5}.{signature}",
        f"CLEARED.{number}.{'0' * 32}",
        f"CLEARED.{2**62 + 1}.{signature}",
    ):
        make(mark.parent / forged)
        time.sleep(
            0.01
            # Stamps are milliseconds: of the clear's own, an entry counts, and rightly.
        )
        apart()
        g = cached(name=f.cache.name, memory=0)(f.__wrapped__)
        before = len(f.calls)
        assert (
            g(1) == dict(VALUE, x=1)
            and len(f.calls) == before + 1
            and g(1)
            and len(f.calls) == before + 1
        )
        assert len(marks(root)) == 1


def test_without_the_key_nothing_is_cleared_for_others(root, monkeypatch, apart):
    """Without the key, a sound mark looks forged."""
    monkeypatch.setenv("EFSSTATE_SIGNING_KEY", "the key")
    owner = Cache("n", ttl="30d", memory=0)
    owner.set("other", 1, tags=["t"])
    owner.clear()
    owner.invalidate_tag("t")
    for _ in range(5):
        owner.incr("count")
    before = sorted(marks(root))
    monkeypatch.delenv("EFSSTATE_SIGNING_KEY")
    for process in range(2):
        apart()
        stranger = Cache("n", ttl="1d", memory=0)
        assert stranger.get("count", fresh=True) is None
        assert stranger.get("own", fresh=True) == (process or None)
        stranger.set("own", 1)
        assert stranger.get("own", fresh=True) == 1
    assert sorted(marks(root)) == before
    monkeypatch.setenv("EFSSTATE_SIGNING_KEY", "the key")
    apart()
    owner = Cache("n", ttl="30d", memory=0)
    assert owner.get("count", fresh=True) == 5 and owner.incr("count") == 6


@pytest.mark.parametrize("number", ["7", None, 2**62 - 1])
def test_without_the_key_what_was_cleared_stays_so(root, monkeypatch, apart, number):
    """What a host without a key stored before a clear by one with the key, whatever its mark."""
    monkeypatch.setenv("EFSSTATE_SIGNING_KEY", "the key")
    owner = Cache("n", memory=0)
    owner.set("other", 1)
    monkeypatch.delenv("EFSSTATE_SIGNING_KEY")
    stranger = Cache("n", memory=0)
    stranger.set("k", 1)
    assert stranger.get("k", fresh=True) == 1
    time.sleep(0.01)
    owner.clear()
    (mark,) = marks(root)
    if number:
        mark.rename(mark.with_name(f"CLEARED.{number}.{'0' * 32}"))
    assert stranger.get("k", fresh=True) is None
    assert stranger._results.disk().clear_stamp() < time.time() * 1000 + 60_000
    apart()
    assert Cache("n", memory=0).get("k", fresh=True) is None


def test_a_lost_generation_does_not_bring_cleared_results_back(f, root, entries):
    f(2)
    kept = {path: path.read_bytes() for path in entries()}
    f.cache_clear()
    f(2)
    (mark,) = marks(root)
    mark.unlink()
    for path, data in kept.items():
        if path.name == f.cache_key(1):
            path.write_bytes(data)
    g = cached(name=f.cache.name, memory=0)(f.__wrapped__)
    g(2)  # whose entry is of the newer generation
    assert g.explain(1) == "miss: it was cleared"


def test_a_generation_is_numbered_by_the_servers_clock(f, root, monkeypatch):
    """A host whose clock is a day behind must not write a stamp below an older clear's."""
    f.cache_clear()
    (mark,) = marks(root)
    mark.rename(mark.with_name(f"CLEARED.7.{'0' * 32}"))
    lost, now = int(time.time() * 1000), time.time
    monkeypatch.setattr(time, "time", lambda: now() - 86400)
    time.sleep(0.01)
    monkeypatch.setattr("efsstate.mount.clock._offset", 0.0)
    g = cached(name=f.cache.name, memory=0)(f.__wrapped__)
    g(1)
    assert g.cache._results.disk().clear_stamp() > lost


def test_anything_in_the_payload_is_a_miss_or_a_value(f, entries):
    """A writer without a key can forge the checksum: what it then wrote is still only data."""
    from efsstate.format import entry

    (path,) = entries()
    place = str(path).partition("/root/")[2]
    meta = entry.decode(path.read_bytes(), place=place, root="").meta
    choose = random.Random(2)
    for payload in (
        b"",
        b"\xc1",
        b"\xc1\xff\xff\xff\xff",
        b"\x91" * 1000,
        *[choose.randbytes(50) for _ in range(100)],
    ):
        path.write_bytes(
            b"".join(
                entry.encode(
                    payload, place=place, codec="msgpack", meta=meta, created=1e10, ttl=None
                )
            )
        )
        f(1)
    for forged in (b"", b"x", meta[:8], b"\xff" * 9):
        path.write_bytes(
            b"".join(
                entry.encode(
                    b"\x01", place=place, codec="msgpack", meta=forged, created=1e10, ttl=None
                )
            )
        )
        f(1)


class Bomb:
    def __reduce__(self):
        return os.mkdir, (os.environ["BOMB"],)


def test_a_planted_pickle_never_runs_unless_asked_for(f, entries, tmp_path, monkeypatch):
    from efsstate.format import entry

    monkeypatch.setenv("BOMB", str(tmp_path / "bomb"))
    (path,) = entries()
    place = str(path).partition("/root/")[2]
    meta = entry.decode(path.read_bytes(), place=place, root="").meta
    for codec in ("pickle", "msgpack"):
        path.write_bytes(
            b"".join(
                entry.encode(
                    pickle.dumps(Bomb()),
                    place=place,
                    codec=codec,
                    meta=meta,
                    created=1e10,
                    ttl=None,
                )
            )
        )
        assert f(1) == dict(VALUE, x=1)
    assert not (tmp_path / "bomb").exists()


LARGE = os.urandom(20 << 20)  # read in two parts: the value, and what is before it


@pytest.mark.parametrize("signed", [False, True])
def test_damage_to_large_bytes_is_never_served(monkeypatch, entries, signed):
    if signed:
        monkeypatch.setenv("EFSSTATE_SIGNING_KEY", "k" * 32)
    function = cached(memory=0)(lambda x: LARGE + b"%d" % x)
    function(1)
    path = entries()[0]
    whole = path.read_bytes()
    start = whole.index(LARGE[:100])
    places = [
        0,
        4,
        5,
        8,
        20,
        31,
        32,
        47,
        48,
        start - 6,
        start - 5,
        start - 4,
        start - 1,
        start,
        len(whole) // 2,
        len(whole) - 1,
    ]
    cuts = [
        whole[:-1],
        whole + b"x",
        whole[: len(whole) // 2],
        whole[:start],
        whole[:start] + bytes(len(whole) - start),
    ]
    for broken in [
        *(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in places),
        *cuts,
    ]:
        path.write_bytes(broken)
        assert function(1) == LARGE + b"1"
        path.write_bytes(whole)
    info = function.cache_info()
    assert info.mount == 0 and function(1) == LARGE + b"1" and function.cache_info().mount == 1


def test_a_large_read_cut_short_by_a_signal_is_no_damage(monkeypatch):
    """A read of large bytes that is cut short by a signal is no damage."""
    large = cached(memory=0)(lambda x: LARGE)
    large(1)
    real, short = os.pread, []

    def pread(fd, length, offset):
        if length > 1 << 20 and not short:
            short.append(length)
            length //= 2
        return real(fd, length, offset)

    monkeypatch.setattr(os, "pread", pread)
    assert large(1) == LARGE and short
    assert large.cache_info().mount == 1 and large.cache_info().damaged == 0


@pytest.mark.parametrize(
    "value", ["x" * (20 << 20), [LARGE], (LARGE,), bytearray(LARGE), {"a": LARGE}]
)
def test_large_values_that_are_not_bytes_come_back_as_they_were(value, another):
    function = cached(memory=0)(lambda x: value)
    function(1)
    found = another(function)
    assert found(1) == value and type(found(1)) is type(value) and found.cache_info().mount == 2


@pytest.mark.parametrize("other", [None, "another key"])
def test_with_a_key_what_is_not_signed_by_it_is_refused(monkeypatch, tmp_path, other):
    monkeypatch.setenv("BOMB", str(tmp_path / "bomb"))
    if other:
        monkeypatch.setenv("EFSSTATE_SIGNING_KEY", other)
    cached(name="k", codec="pickle", memory=0)(lambda x: Bomb())(1)
    monkeypatch.setenv("EFSSTATE_SIGNING_KEY", "the key")
    calls = []
    f = cached(name="k", codec="pickle", memory=0)(lambda x: calls.append(x) or "mine")
    assert f(1) == "mine" and f(1) == "mine" and calls == [1] and f.cache_info().damaged
    assert not (tmp_path / "bomb").exists()


def test_with_a_key_an_entry_counts_in_its_place_alone(monkeypatch, entries):
    monkeypatch.setenv("EFSSTATE_SIGNING_KEY", "the key")
    calls = []
    f = cached(name="k", codec="pickle", memory=0)(lambda x: calls.append(x) or x)
    f(1), f(2)
    shutil.copy(*[path for x in (2, 1) for path in entries() if path.name == f.cache_key(x)])
    assert f(1) == 1 and calls == [1, 2, 1]


def test_pickle_without_a_key_works_with_one_warning(caplog):
    import collections

    f = cached(name="counter", codec="pickle")(collections.Counter)
    assert f("aab") == f("aab") == collections.Counter("aab")
    assert len(caplog.records) == 1 and "EFSSTATE_SIGNING_KEY" in caplog.text


def test_a_reader_beside_writers_finds_whole_values(root):
    """Two processes replace, remove and clear: what is read is always one that somebody put."""
    pids = []
    for seed in range(2):
        if not (pid := os.fork()):
            cache, choose = Cache("busy", memory=0), random.Random(seed)
            for _ in range(600):
                number = choose.randrange(200)
                cache.set("k", [number] * number * 50)
                if number % 20 == 0:
                    cache.clear() if number % 40 else cache.delete("k")
            os._exit(0)
        pids.append(pid)
    cache, found, running = Cache("busy", memory=0), 0, True
    while running:
        running = not all(
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) for pid in pids
        )
        for fresh in (False, True):
            value = cache.get("k", fresh=fresh)
            if value is not None:
                found += 1
                assert len(value) % 50 == 0 and set(value) <= {len(value) // 50}
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0] and found > 10
    assert (
        cache.get("none") is None
        and cache._results.counts.damaged == cache._results.counts.errors == 0
    )


NOT_KEPT = {"kind": "cache", "event": "not_kept", "name": "w"}
FAILED = {"kind": "cache", "event": "error", "name": "w"}


@pytest.mark.parametrize(
    ("options", "result", "values"),
    [
        ({}, object(), {**NOT_KEPT, "error": "EncodeError"}),
        (
            {"ttl": lambda value: -1},
            1,
            {**NOT_KEPT, "error": "ValueError"},
        ),
        (
            {"root": "/dev/null/below"},
            1,
            {**FAILED, "doing": "read a result", "error": "RootError"},
        ),
        ({"codec": "pickle"}, 1, {"kind": "cache", "event": "pickle_unsigned"}),
    ],
)
def test_a_warning_has_values_for_machines(options, result, values, caplog):
    cached(name="w", **options)(lambda: result)()
    assert [record.efsstate for record in caplog.records] == [values]


class Once:
    """A codec that reads each value once, as of a class that was renamed."""

    name = "once"

    def __init__(self, times=1):
        self.times, self.read = times, 0

    def dumps(self, value):
        return repr(value).encode()

    def loads(self, data):
        self.read += 1
        if self.read > self.times:
            raise LookupError("gone")
        return json.loads(bytes(data))


@pytest.mark.parametrize(
    "call", ["f(1)", "f.map([1, 1])", "asyncio.run(a(1))", "asyncio.run(a.map([1, 1]))"]
)
def test_a_value_that_can_not_be_read_any_more_is_computed_anew(call, apart):
    calls = []

    def work(x):
        calls.append(x)
        return [x]

    async def later(x):
        return work(x)

    cached(name="k", codec=Once(100))(work)(1)
    apart()
    f, a = cached(name="k", codec=Once())(work), cached(name="k", codec=Once())(later)
    assert (
        f(1) == [1] and calls == [1] and asyncio.run(a(1)) == [1] and calls == [1]
    )  # the copy of the first caller
    assert eval(call) in ([1], [[1], [1]]) and len(calls) > 1
    function = a if "a(" in call or "a." in call else f
    assert function.cache_info().errors > 0


def test_a_value_that_can_not_be_read_any_more_is_not_there(apart):
    Cache("k", codec=Once(100)).set("a", [1])
    for ask in (lambda box: box.get("a", "none"), lambda box: box.get_many(["a"]).get("a", "none")):
        apart()
        box = Cache("k", codec=Once())
        assert box.get("a") == [1] and ask(box) == "none"
        apart()
        box = Cache("k", codec=Once())
        assert box.get("a") == [1] and box.get_or_compute("a", lambda: "anew") == "anew"
        Cache("k", codec=Once(100)).set("a", [1])
