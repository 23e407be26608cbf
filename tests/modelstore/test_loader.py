"""The loader: once per process, swapped whole, the old one serving until then.

And every failure told and remembered.
"""

import dataclasses
import gc
import itertools
import linecache
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.modelstore.conftest import fork_beside_threads, place, relink

import efsstate
from efsstate import (
    CorruptEntryError,
    EfsStateError,
    ModelNotFound,
    deadline,
    model,
    parallel,
    publish,
)
from efsstate.errors import DeadlineExceeded
from efsstate.modelstore import failures, loader, reader, swapping


class Network:
    """A loaded model; as heavy ones do, it refers to itself."""

    def __init__(self, files):
        self.weights, self.me = bytes(files.read()), self


def choosy(bad, tries):
    """A `load` that notes what it is given, and raises what `bad` has for it."""

    def load(files):
        network = Network(files)
        tries.append(network.weights)
        if network.weights in bad:
            raise bad[network.weights]
        return network

    return load


@pytest.fixture
def put(root, tmp_path):
    def put(text, **more):
        (tmp_path / "w").write_text(text)
        return publish("m", tmp_path / "w", root=root, **more)

    return put


class Context:
    def __init__(self, left):
        self.left = left

    def get_remaining_time_in_millis(self):
        return self.left * 1000


def test_nothing_happens_before_the_first_call(monkeypatch, tmp_path):
    monkeypatch.delenv("EFSSTATE_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    load = model("m", load=Network)
    assert load.version is None and "not loaded" in repr(load) and os.listdir(tmp_path) == []
    with pytest.raises(efsstate.RootError):
        load()


def test_a_decorator(root, put):
    put("1")

    @model("m", root=root)
    def classify(files):
        """Loads it."""
        return Network(files)

    assert (
        classify().weights == b"1" and classify() is classify() and classify.__doc__ == "Loads it."
    )
    with pytest.raises(TypeError, match="has its load function already"):
        classify(Network)


@pytest.mark.parametrize(
    "bad", [{"verify": "sha"}, {"load": 3}, {"check_every": -1}, {"check_every": "soon"}]
)
def test_mistakes_are_told_where_they_are_made(bad):
    with pytest.raises((TypeError, ValueError)):
        model("m", **bad)
    for name in ("a b", "", "../x", None, 3):
        with pytest.raises((TypeError, ValueError)):
            model(name)


def test_loaded_once_by_one_thread_while_the_others_wait(root, put):
    put("1")
    loads, start = [], threading.Barrier(8)

    def load(files):
        loads.append(threading.get_ident())
        time.sleep(0.2)
        return Network(files)

    get, seen = model("m", load, root=root), []

    def call():
        start.wait()
        seen.append(get())

    threads = [threading.Thread(target=call) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(loads) == 1 and len({id(s) for s in seen}) == 1 and len(seen) == 8


def test_a_warm_call_asks_nobody(root, put, monkeypatch):
    put("1")
    get = model("m", Network, root=root)
    get()
    monkeypatch.setattr(get._resolver, "resolve", lambda: pytest.fail("asked"))
    for _ in range(100):
        get()


def test_looked_at_no_more_often_than_asked(root, put, monkeypatch):
    put("1")
    get, looks = model("m", Network, check_every=0.2, root=root), []
    real = get._resolver.resolve
    monkeypatch.setattr(get._resolver, "resolve", lambda: looks.append(time.monotonic()) or real())
    until = time.monotonic() + 60
    while len(looks) < 4:
        assert time.monotonic() < until
        get()
    # A look is noted a moment after the clock was read.
    assert all(b - a >= 0.19 for a, b in itertools.pairwise(looks))


def test_a_swapped_version_is_freed_after_its_last_user(root, put):
    """Another version is swapped in and the old one is freed after its last user."""
    put("1")
    get = model("m", Network, check_every=0, root=root)
    old = get()
    gone = weakref.ref(old)
    put("2")
    assert get().weights == b"2"
    assert old.weights == b"1"
    del old
    gc.collect()
    assert gone() is None


def test_the_old_one_serves_while_the_new_one_is_loaded(root, put):
    """The old one serves the others while the new one is loaded."""
    put("1")
    loading, go = threading.Event(), threading.Event()

    def load(files):
        network = Network(files)
        if network.weights == b"2":
            loading.set()
            assert go.wait(30)
        return network

    get = model("m", load, check_every=0, root=root)
    get()
    put("2")
    seen = []
    thread = threading.Thread(target=lambda: seen.append(get().weights))
    thread.start()
    assert loading.wait(30)
    assert [get().weights for _ in range(50)] == [b"1"] * 50
    go.set()
    thread.join()
    assert seen == [b"2"] and get().weights == b"2"


def test_a_version_that_does_not_load_leaves_the_old_one(root, put, caplog):
    """A new version that does not load leaves the old one serving."""
    put("1")
    tries = []
    get = model("m", choosy({b"2": RuntimeError("wrong opset")}, tries), check_every=0, root=root)
    get()
    put("2")
    assert [get().weights for _ in range(5)] == [b"1"] * 5
    assert tries == [b"1", b"2"]  # and is not tried again for a while
    assert "wrong opset" in caplog.text and "the old one serves" in caplog.text
    put("3")
    assert get().weights == b"3"  # another one is tried at once


def test_a_failed_reload_is_tried_again_later(root, put, monkeypatch):
    put("1")
    fail = [True]

    def load(files):
        if fail and bytes(files.read()) == b"2":
            raise RuntimeError
        return Network(files)

    get = model("m", load, check_every=0, root=root)
    get()
    put("2")
    assert get().weights == b"1"
    assert get._state.failure.until - time.monotonic() == pytest.approx(30, abs=2)
    get._state.failure.until = 0
    assert get().weights == b"1"
    assert get._state.failure.until - time.monotonic() == pytest.approx(60, abs=2)
    get._state.failure.until = 0
    fail.clear()
    assert get().weights == b"2" and get._state.failure is None


def test_keep_old_false_frees_the_old_one_first(root, put):
    put("1")
    there = []

    def load(files):
        there.append(None if not there else gone())
        return Network(files)

    get = model("m", load, check_every=0, keep_old=False, root=root)
    gone = weakref.ref(get())
    put("2")
    assert get().weights == b"2" and there == [None, None]


def test_released_it_comes_back_if_the_new_one_fails(root, put):
    """Keep_old=False: brings the old one back if the new one fails."""
    put("1")
    alive = []

    class Own(Network):
        """This test's alone: another's may not be collected yet."""

    def load(files):
        alive.append(sum(type(o) is Own for o in gc.get_objects()))
        network = Own(files)
        if network.weights == b"2":
            raise RuntimeError("no")
        return network

    get = model("m", load, check_every=0, keep_old=False, root=root)
    get()
    put("2")
    assert get().weights == b"1" and get().weights == b"1"
    assert alive == [0, 0, 0]  # never two in memory, neither the old one nor the one that failed
    put("3")
    assert get().weights == b"3"


@pytest.fixture
def picky(root):
    """A model that keeps one version in memory, what its load raises (text -> error).

    And what it was given to load.
    """
    bad, tries = {}, []
    return model("m", choosy(bad, tries), check_every=0, keep_old=False, root=root), bad, tries


def test_released_it_is_tried_by_each_call_until_it_loads(put, picky):
    """Keep_old=False: an old one that did not come back at once comes with the next call."""
    get, bad, tries = picky
    put("1")
    get()
    put("2")
    bad |= {b"1": OSError(5, "Input/output error"), b"2": RuntimeError("wrong opset")}
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output error"):
            get()
    del bad[b"1"]
    assert [get().weights for _ in range(3)] == [b"1"] * 3
    assert tries == [b"1", b"2", b"1", b"1", b"1"]  # the new one once
    get._state.failure.until = 0
    bad.clear()
    assert get().weights == b"2" and get._state.failure is None


def test_released_it_comes_back_though_no_look_succeeds(root, put, picky, monkeypatch):
    """Keep_old=False: the old one comes back though no look succeeds."""
    get, bad, _ = picky
    put("1")
    get()
    put("2")
    bad |= {b"1": OSError(5, "Input/output error"), b"2": RuntimeError("wrong opset")}
    with pytest.raises(OSError, match="Input/output error"):
        get()
    bad.clear()

    def cut_off():
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(get._resolver, "resolve", cut_off)
    assert get().weights == b"1"


def test_released_a_slow_new_one_leaves_time_for_the_old(root, tmp_path):
    """The first invocation that meets it answers with the old one, and so do the next."""
    tries = []

    def load(files):
        tries.append(files.version)
        if files.version == slow:
            for _ in range(3000):
                files.read()
                time.sleep(0.01)
        return bytes(files.read())

    (tmp_path / "w").write_text("old")
    old, slow = publish("m", tmp_path / "w", root=root), None
    get = model("m", load, check_every=0, keep_old=False, root=root)
    with efsstate.invocation(Context(2)):
        assert get() == b"old"
    (tmp_path / "w").write_text("new")
    slow = publish("m", tmp_path / "w", root=root)
    get._state.loaded.seconds = 2.4  # more than it needs here, less than a third of what there is
    for _ in range(3):
        with efsstate.invocation(Context(16)):
            assert get() == b"old"
            assert deadline.remaining() > 1
    assert tries == [old, slow, old]


def test_released_one_cut_off_is_not_tried_next(put, picky):
    """Keep_old=False: a new one cut off with no time left is not what the next call tries."""
    get, bad, tries = picky
    put("1")
    get()
    put("2")
    bad |= {b"1": DeadlineExceeded("late"), b"2": DeadlineExceeded("late")}
    with pytest.raises(DeadlineExceeded):
        get()
    bad.clear()
    assert [get().weights for _ in range(3)] == [b"1"] * 3
    assert tries == [b"1", b"2", b"1", b"1"]


@pytest.mark.parametrize("keep_old", [True, False])
def test_a_reload_leaves_the_handler_time_for_its_work(root, tmp_path, keep_old):
    """Also where `load` reads by threads of its own.

    Which know nothing of what is kept for later.
    """
    new = None

    def read(files):
        for _ in range(1000 if files.version == new else 1):
            files.read()
            time.sleep(0.01)
        return bytes(files.read())

    def load(files):
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(read, files).result()

    (tmp_path / "w").write_text("old")
    publish("m", tmp_path / "w", root=root)
    get = model("m", load, check_every=0, keep_old=keep_old, root=root)
    assert get() == b"old"
    (tmp_path / "w").write_text("new")
    new = publish("m", tmp_path / "w", root=root)
    get._state.loaded.seconds = 2.4  # more than it needs here, less than a third of what there is
    with efsstate.invocation(Context(8)):
        assert get() == b"old"
        assert deadline.remaining() > 1


def test_no_reload_that_the_deadline_can_not_hold(root, put):
    put("1")

    def load(files):
        time.sleep(0.3)
        return Network(files)

    get = model("m", load, check_every=0, root=root)
    get()
    put("2")
    with efsstate.invocation(Context(0.5)):
        assert get().weights == b"1"
    with efsstate.invocation(Context(5)):
        assert get().weights == b"2"


class PanicException(BaseException):
    """As Rust's libraries raise it (pyo3): none of Python's `Exception`s."""


class UnfriendlyError(Exception):
    """Says nothing, and has attributes of names that others use."""

    exceptions = 5

    def __repr__(self):
        raise RuntimeError("not connected")

    __str__ = __repr__

    @property
    def __notes__(self):
        raise RuntimeError("not connected")


@pytest.mark.parametrize("keep_old", [True, False])
@pytest.mark.parametrize("error", [PanicException, UnfriendlyError, ExceptionGroup])
def test_whatever_a_new_version_raises_the_old_one_serves(root, put, keep_old, error):
    put("1")
    tries = []
    bad = (
        error("a group", [ValueError(1)])
        if error is ExceptionGroup
        else error("called `Option::unwrap()` on a `None` value")
    )
    get = model("m", choosy({b"2": bad}, tries), check_every=0, keep_old=keep_old, root=root)
    get()
    put("2")
    assert [get().weights for _ in range(3)] == [b"1"] * 3
    assert tries == [b"1", b"2"] + [b"1"] * (not keep_old)


class Alarm(BaseException):
    """A timeout that a signal's handler raises, as gevent's is."""


@pytest.mark.parametrize("keep_old", [True, False])
@pytest.mark.parametrize("error", [Alarm, KeyboardInterrupt])
def test_an_interrupted_load_is_tried_by_the_next_call(root, put, keep_old, error):
    """Who interrupts a load gets it and the next call tries again."""
    put("1")
    stop = [error]

    def load(files):
        network = Network(files)
        if stop:
            raise stop.pop()
        return network

    get = model("m", load, check_every=0, keep_old=keep_old, root=root)
    for text in ("1", "2"):
        put(text)
        stop[:] = [error]
        with efsstate.invocation(Context(60)):
            with pytest.raises(error):
                get()
            assert get().weights == text.encode() and deadline.remaining() > 50


@pytest.mark.parametrize("swap", [False, True])
def test_an_error_that_is_its_own_cause(root, put, swap):
    put("1")
    bad = [] if swap else [b"1"]

    def load(files):
        network = Network(files)
        if network.weights in bad:
            error = ValueError("bad weights")
            raise error from error
        return network

    get = model("m", load, check_every=0, root=root)
    if swap:
        get()
        put("2")
        bad.append(b"2")
    ended = []
    thread = threading.Thread(target=lambda: ended.append(_outcome(get)), daemon=True)
    thread.start()
    thread.join(30)
    assert ended == [b"1" if swap else "bad weights"]


def _outcome(get):
    try:
        return get().weights
    except ValueError as error:
        return str(error)


class BadWeightsError(Exception):
    def __init__(self, name):
        super().__init__(f"weights {name} are bad")


class LostError(OSError):
    def __init__(self, path):
        super().__init__(5, "no answer", path)


@dataclasses.dataclass(frozen=True)
class FrozenError(Exception):
    name: int


def raised_three_times(root, error):
    """The errors that three callers get of a load that raises `error`."""

    def load(files):
        raise error

    get, errors = model("m", load, root=root), []
    for _ in range(3):
        try:
            get()
        except BaseException as caught:
            errors.append(caught)
    return errors


@pytest.mark.parametrize(
    "error",
    [
        NameError("no x", name="x"),
        ImportError("no", name="torch", path="/x"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        OSError(13, "no right", "/x"),
        OSError(18, "no link", "/x", None, "/y"),
        KeyError("layer"),
        ExceptionGroup("two", [ValueError(1), OSError(2, "no file", "/z")]),
        CorruptEntryError("/x", "cut"),
        ModelNotFound("no model"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_builtin_error_is_raised_again_as_it_was(root, put, error):
    """So is one of ours. Each caller gets an object of its own."""
    put("1")
    errors = raised_three_times(root, error)
    assert len({id(e) for e in errors}) == 3
    for again in errors:
        assert type(again) is type(error) and str(again) == str(error)
        assert repr(again.args) == repr(error.args)
        for field in ("name", "path", "errno", "filename", "filename2", "start", "reason"):
            assert getattr(again, field, None) == getattr(error, field, None)


@pytest.mark.parametrize("error", [BadWeightsError("a"), LostError("/x"), FrozenError(3)])
def test_an_error_of_another_class_is_raised_again_as_ours(root, put, error):
    """Nothing of its class is run a second time: its type and text are kept as a text."""
    put("1")
    first, *more = raised_three_times(root, error)
    assert first is error
    for again in more:
        assert type(again) is EfsStateError and str(again) == f"{type(error).__name__}: {error}"
        assert again.__cause__ is None and again.__context__ is None


def test_what_must_be_awaited_is_no_model(root, put):
    put("1")

    async def load(files):
        return 1

    for make in (
        lambda: model("m", load, root=root),
        lambda: model("m", root=root)(load),
    ):
        with pytest.raises(TypeError, match="plain `def`"):
            make()()


def test_every_caller_gets_the_error_of_a_first_load(root, put):
    """A first load that raises is remembered and every caller gets the error."""
    put("1")
    loads = []

    class OddError(Exception):
        def __init__(self, a, b):
            super().__init__(f"{a} {b}")

    def load(files):
        loads.append(1)
        big = bytearray(10)
        assert big
        raise kinds[0]

    for kinds in ([ValueError("bad weights")], [OddError(1, 2)]):
        loads.clear()
        get = model("m", load, check_every=0, root=root)
        errors = []
        for _ in range(4):
            with pytest.raises((type(kinds[0]), EfsStateError), match=str(kinds[0])) as caught:
                get()
            errors.append(caught.value)
            depth, trace = 0, caught.value.__traceback__
            while trace:
                depth, trace = depth + 1, trace.tb_next
            assert depth < 12  # it does not grow
        assert len(loads) == 1 and len({id(e) for e in errors}) == 4
        assert all(
            len(e.__notes__) == 1 and "in load\n" in e.__notes__[0] for e in errors[1:]
        )  # where it was raised
    with pytest.raises(EfsStateError, match="OddError: 1 2"):
        get()
    put("2")
    with pytest.raises(OddError):  # another version is tried at once
        get()
    assert len(loads) == 2


def test_what_a_failed_load_had_in_memory_is_freed(root, put):
    """The remembered error's traceback holds no buffer as big as the model."""
    put("1")
    gone = []

    def load(files):
        network = Network(files)
        gone.append(weakref.ref(network))
        raise RuntimeError("no")

    get = model("m", load, root=root)
    with pytest.raises(RuntimeError):
        get()
    gc.collect()
    assert gone[0]() is None


def test_a_remembered_failure_keeps_no_callers_request_alive(root, put):
    """Neither the error's traceback nor the frames behind that of a load or look that failed."""
    put("1")
    requests = []

    class Request:
        """What a handler got."""

    def load(files):
        raise RuntimeError("no") from ValueError("because")

    def handler(get):
        body = Request()
        requests.append(weakref.ref(body))
        get()

    for get in (model("m", load, root=root), model("nope", load, root=root)):
        for _ in range(3):
            with pytest.raises((RuntimeError, ModelNotFound)):
                handler(get)
        assert get._state.failure is not None
    gc.collect()
    assert [request() for request in requests] == [None] * 6


def test_after_a_look_in_vain_the_next_is_within_half_a_minute(root, put):
    """However rarely a loaded model is looked at."""
    get = model("m", Network, check_every=3600, root=root)
    with pytest.raises(ModelNotFound):
        get()
    assert get._state.next_look - time.monotonic() <= 30
    put("1")
    with pytest.raises(ModelNotFound):
        get()
    get._state.next_look = 0
    assert get().weights == b"1"
    assert get._state.next_look - time.monotonic() > 3000


def test_none_is_no_model(root, put):
    put("1")
    with pytest.raises(EfsStateError, match="its load function returned None"):
        model("m", lambda files: None, root=root)()


def test_a_model_published_after_a_look_in_vain_is_found(root, put):
    get = model("m", Network, check_every=0, root=root)
    with pytest.raises(ModelNotFound, match="publish it"):
        get()
    put("1")
    assert get().weights == b"1"


def test_the_deadline_is_no_failure_of_the_version(root, put, monkeypatch):
    put("1")
    real, slow = reader.whole, [True]

    def whole(file, **more):
        if slow:
            raise DeadlineExceeded("half")
        return real(file, **more)

    monkeypatch.setattr(reader, "whole", whole)
    get = model("m", Network, root=root)
    with pytest.raises(DeadlineExceeded):
        get()
    slow.clear()
    assert get().weights == b"1"  # the next invocation tries at once


def test_a_load_cut_off_forgets_what_failed_before(root, put, monkeypatch):
    """What failed before is not told of a load that the deadline cut off."""
    get = model("m", Network, root=root)
    with pytest.raises(ModelNotFound):
        get()
    put("1")
    late = [True]

    def load(files):
        if late.pop():
            raise DeadlineExceeded("half")
        return 1

    get._swapper._load, get._state.next_look = load, 0
    late[:] = [False, True]
    with pytest.raises(DeadlineExceeded):
        get()
    assert get() == 1


def test_a_wait_for_a_load_ends_before_the_deadline(root, put, early):
    """A wait for another threads load ends before the deadline."""
    put("1")
    go, loading = threading.Event(), threading.Event()

    def load(files):
        loading.set()
        go.wait(30)
        return 1

    get = model("m", load, root=root)
    thread = threading.Thread(target=get)
    thread.start()
    loading.wait(30)
    with efsstate.invocation(Context(1.8)):
        with pytest.raises(EfsStateError, match="timed out waiting for another thread"):
            get()
        assert deadline.remaining() > 0  # so that the error still reaches somebody
    go.set()
    thread.join()
    assert get() == 1


def test_a_load_function_that_calls_its_own_model_is_told(root, put):
    put("1")
    get = model("m", lambda files: get(), root=root)
    with pytest.raises(RuntimeError, match="calls the model itself"):
        get()


def test_interrupted_by_ctrl_c_it_can_be_called_again(root, put):
    put("1")
    stop = [True]

    def load(files):
        if stop:
            raise KeyboardInterrupt
        return 1

    get = model("m", load, root=root)
    with pytest.raises(KeyboardInterrupt):
        get()
    stop.clear()
    assert get() == 1


def test_interrupted_at_any_line_the_turn_is_given_back(root, put):
    put("1")
    gate = ("_look_or_wait", "_enter_gate", "_leave_gate", "_make_swapper")
    ours = {getattr(loader.Model, name).__code__ for name in gate}
    ours |= {getattr(swapping.Swapper, name).__code__ for name in ("look", "_load_first")}
    files = (loader.__file__, swapping.__file__)
    at, interrupted = 0, True
    while interrupted:
        at, lines, interrupted = at + 1, 0, False
        get = model("m", lambda files: 5, root=root)

        def trace(frame, event, argument, at=at):
            nonlocal lines, interrupted
            if frame.f_code not in ours:
                return None if frame.f_code.co_filename not in files else trace
            # A real signal comes at calls and loops, never between a block's end and the release
            # of its lock.
            if event == "line" and not linecache.getline(
                frame.f_code.co_filename, frame.f_lineno
            ).lstrip().startswith("with "):
                lines += 1
                if lines == at:
                    interrupted = True
                    raise KeyboardInterrupt
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            get()
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
        assert get._state.owner is None, at
        got = []
        thread = threading.Thread(target=lambda get=get, got=got: got.append(get()), daemon=True)
        thread.start()
        thread.join(30)
        assert got == [5], at
    assert at > 20


def test_after_a_fork_the_childs_threads_load_it_once(root, put):
    put("1")
    code = f"""
import os, sys, threading, time
from efsstate import model
sys.setswitchinterval(1e-6)
for _ in range(60):
    loads = []
    m = model("m", lambda files: loads.append(1) or time.sleep(0.002) or 5, root={root!r})
    pid = os.fork()
    if not pid:
        together = threading.Barrier(6)
        call = lambda: together.wait() and None or m()
        threads = [threading.Thread(target=call, daemon=True) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        os._exit(99 if any(thread.is_alive() for thread in threads) else len(loads))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_fork_in_the_middle_of_a_load_harms_no_child(root, put):
    put("1")
    loading, go = threading.Event(), threading.Event()
    parent = os.getpid()

    def load(files):
        if os.getpid() == parent:
            loading.set()
            go.wait(30)
        return 5

    get = model("m", load, root=root)
    thread = threading.Thread(target=get)
    thread.start()
    loading.wait(30)
    pid = fork_beside_threads()
    if not pid:
        os._exit(get())
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    go.set()
    thread.join()


def test_a_bad_current_leaves_the_old_one_serving(root, put, caplog):
    """Current that goes missing or bad leaves the old one serving."""
    put("1")
    get = model("m", Network, check_every=0, root=root)
    get()
    current = pathlib.Path(place(root, "m", "CURRENT"))
    good = os.readlink(current)
    for bad in ("x", good[:-1], good[:-1] + "x", None):
        if bad is None:
            current.unlink()
            current.write_text(good)
        else:
            relink(current, bad)
        assert get().weights == b"1"
        with pytest.raises(CorruptEntryError, match="CURRENT"):
            model("m", Network, root=root)()
    current.unlink()
    assert get().weights == b"1"
    with pytest.raises(ModelNotFound, match="no version of model 'm' is active; activate one"):
        model("m", Network, root=root)()
    current.mkdir()
    assert get().weights == b"1"
    with pytest.raises(CorruptEntryError, match="CURRENT"):
        model("m", Network, root=root)()
    assert caplog.text.count("the old one serves") == 6


def test_the_root_that_goes_away_leaves_the_old_one_serving(root, put):
    put("1")
    get = model("m", Network, check_every=0, root=root)
    get()
    shutil.rmtree(os.path.join(root, "models"))
    assert get().weights == b"1"


def test_a_version_removed_after_the_look_gives_the_active(root, put, monkeypatch):
    """A version removed between the look and the read gives the one that is active."""
    first = put("1")
    get = model("m", Network, root=root)
    real, done = get._resolver.resolve, []

    def look():
        found = real()
        if not done:
            done.append(1)
            put("2")
            shutil.rmtree(place(root, "m", first))
        return found

    monkeypatch.setattr(get._resolver, "resolve", look)
    assert get().weights == b"2"


def test_a_version_that_is_missing_is_told(root, put):
    first = put("1")
    shutil.rmtree(place(root, "m", first))
    with pytest.raises(FileNotFoundError, match=first):
        model("m", Network, root=root)()


def test_folders_are_named_file_by_file(root, source):
    publish("m", source, root=root)

    def load(files):
        assert files.names == sorted(files.names) and files.size == sum(
            len(files.read(n)) for n in files.names
        )
        with pytest.raises(EfsStateError, match="it has 5 files; name one"):
            files.read()
        with pytest.raises(KeyError, match="no file 'nope'"):
            files.read("nope")
        for name in ("../x", "/etc/passwd", ".efsstate-manifest"):
            with pytest.raises(KeyError):
                files.read(name)
        assert files.read("MANIFEST") == b"" and files.mmap("MANIFEST") == b""
        assert bytes(files.read("CURRENT")) == b"the user's own"
        return files.path

    assert sorted(os.listdir(model("m", load, root=root)())) == [
        ".efsstate-manifest",
        "CURRENT",
        "MANIFEST",
        "a",
        "config.json",
        "empty",
    ]


def test_events_tell_of_loads(root, put):
    put("1")
    seen = []
    end = efsstate.on_event(seen.append)
    try:
        get = model("m", Network, root=root)
        get()
        with pytest.raises(RuntimeError):
            model(
                "m",
                lambda files: 1 / 0 if False else (_ for _ in ()).throw(RuntimeError("x")),
                root=root,
            )()
    finally:
        end()
    loads = [e for e in seen if e["event"] == "load"]
    assert (
        len(loads) == 1
        and loads[0]["name"] == "m"
        and loads[0]["bytes"] == 1
        and loads[0]["version"] == get.version
    )
    assert [e["event"] for e in seen if e["event"] == "error"] == ["error"]


def test_the_failure_waits_double_up_to_a_quarter_of_an_hour():
    failure = None
    waits = []
    for _ in range(8):
        failure = failures.LoadFailure(RuntimeError("x"), "v1", failure)
        waits.append(round(failure.until - time.monotonic()))
    assert waits == [30, 60, 120, 240, 480, 900, 900, 900]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_who_may_only_read_loads_models(tmp_path):
    """A function without the right to write serves what a publisher has put there."""
    (tmp_path / "w").write_text("1")
    with tempfile.TemporaryDirectory() as root:
        os.chmod(root, 0o755)
        publish("m", tmp_path / "w", root=root)
        pid = os.fork()
        if not pid:
            try:
                os.setgid(65534)
                os.setuid(65534)
                assert not os.access(root, os.W_OK)
                os._exit(
                    0 if model("m", lambda files: bytes(files.read()), root=root)() == b"1" else 1
                )
            finally:
                os._exit(2)
        assert os.waitpid(pid, 0)[1] == 0


def test_another_content_under_the_same_id_is_another_version(root, tmp_path):
    """Pruned, and published anew, by somebody who likes ids of his own.

    Nobody looked in between.
    """
    (tmp_path / "w").write_text("1")
    publish("m", tmp_path / "w", version="v1", root=root)
    get = model("m", lambda files: bytes(files.read()), check_every=0, root=root)
    assert get() == b"1"
    (tmp_path / "w").write_text("2")
    publish("m", tmp_path / "w", version="v2", root=root)
    os.utime(f"{root}/models/m/versions/v1/.efsstate-manifest", (1, 1))
    assert efsstate.prune("m", keep=1, root=root) == ["v1"]
    (tmp_path / "w").write_text("3")
    publish("m", tmp_path / "w", version="v1", root=root)
    assert get() == b"3"


def test_without_a_model_looks_are_half_a_minute_apart(root, put):
    """However seldom a model that serves is looked at."""
    put("bad")

    def load(files):
        raise ValueError("bad")

    get = model("m", load, check_every=3600, root=root)
    with pytest.raises(ValueError, match="bad"):
        get()
    assert get._state.next_look - time.monotonic() == pytest.approx(30, abs=2)


@pytest.mark.parametrize(
    ("kind", "is_loaded"),
    [
        ("provisioned-concurrency", True),
        ("lambda-managed-instances", True),
        ("on-demand", False),
        ("snap-start", False),
        ("", False),
    ],
)
def test_preload_loads_where_init_comes_before_requests(root, put, monkeypatch, kind, is_loaded):
    put("1")
    monkeypatch.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", kind)
    get = model("m", Network, root=root)
    assert get.preload() is is_loaded and (get.version is not None) is is_loaded
    assert get().weights == b"1"


def test_a_preload_that_fails_is_tried_by_the_first_call(root, put, monkeypatch, caplog):
    monkeypatch.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", "provisioned-concurrency")
    get = model("m", Network, check_every=0, root=root)
    assert not get.preload() and "not preloaded" in caplog.text
    put("1")
    assert get().weights == b"1"


def test_a_thread_that_an_alarm_leaves_is_waited_for(monkeypatch):
    """It would use a file that its caller has closed, and the number of another one."""

    class Interrupted(threading.Thread):
        def start(self):
            super().start()
            assert is_at_work.wait(20)
            raise TimeoutError("an alarm")

    def work(_job):
        is_at_work.set()
        time.sleep(0.3)
        done.append(1)

    done, is_at_work = [], threading.Event()
    monkeypatch.setattr(threading, "Thread", Interrupted)
    with pytest.raises(TimeoutError, match="an alarm"):
        list(parallel.each(work, [1, 2], threads=2, late=str))
    assert done


def test_a_load_ends_after_an_alarm_that_rings_as_it_takes_its_lock(monkeypatch):
    """Else the caller waits for its threads for ever, and they for the lock that it has."""
    enter = threading.Condition.__enter__

    def enter_and_raise(self):
        entered = enter(self)
        is_met = isinstance(self._lock, type(threading.RLock()))
        if is_met and threading.current_thread() is caller and alarms_left:
            raise alarms_left.pop()
        return entered

    def act():
        try:
            list(parallel.each(lambda _: time.sleep(0.3), [1, 2], threads=2, late=str))
        except TimeoutError:
            pass

    alarms_left = [TimeoutError("an alarm")]
    caller = threading.Thread(target=act, daemon=True)
    monkeypatch.setattr(threading.Condition, "__enter__", enter_and_raise)
    caller.start()
    caller.join(20)
    assert not caller.is_alive()
