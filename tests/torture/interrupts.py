"""Every public operation, cut off by an alarm's handler or beside a fork, at a random moment.

Afterwards nothing may be left of what was cut off: no file is open, no lock is held, no temporary
file lies around, no thread waits, and the same operation gives the right answer within seconds.

python -m tests.torture.interrupts alarms|forks SECONDS SEED [OPERATION]
"""

import collections
import contextlib
import faulthandler
import gc
import logging
import os
import random
import signal
import stat
import sys
import tempfile
import threading
import time
import traceback
import warnings

from efsstate import process
from efsstate.format import layout
from tests.torture import MEMORY
from tests.torture.operations import BUSY, OPERATIONS, World, Wrong

PATIENCE = 5.0  # seconds within which an operation of some milliseconds must have come to its end
THREADS = 60  # that the I/O pool may have, and some
LOCK = f"/{layout.LOCK}"
INHERITED = "the parent's lock files are open"
OF_ONE_ROOT = 1000  # tries, before the next root
MOST = 200  # violations, after which it ends
FOLDERS = 600  # that may be open below one root: 256 of its mount, and lock files
WAITING = {"_work", "_worker"}  # where a worker waits: ours, or concurrent.futures'
SWITCH = 5e-4  # seconds that the thread which works may keep the one that forks waiting
SETTLED = 2.0  # seconds in which a thread that nobody waits for any more has closed its file


class Alarm(Exception):  # noqa: N818 - it is an event, as its name in users' code is
    """What a time-out by SIGALRM raises."""


class Late(TimeoutError):  # noqa: N818
    """What most handlers of SIGALRM raise: an OSError, as the mount's errors are."""


class Break(KeyboardInterrupt):
    """What a Ctrl-C raises."""


OS_PATH = {os.path.exists.__code__.co_filename, os.path.realpath.__code__.co_filename}
# Functions in which what a handler raises may come to nothing: the interpreter drops it in
# destructors and callbacks of weak references, a sweep reports it and goes on, metrics whose sink
# raises are dropped, a model goes on with its old version, bytes are decoded a second time, and
# Python's os.path (`exists`, `realpath` and others) takes every OSError for a missing name.
MAY_DROP = {
    "__del__", "_remove", "count_for.<locals>.retire", "find.<locals>.forget", "backoff",
    "sweep", "emit", "look", "_try_load", "loads", "decode", *OS_PATH,
}  # fmt: skip
LEFT_OUT = {"alarms": set(), "forks": {"sweep"}}
LATER = 5e-5  # seconds until an alarm that would meet asyncio itself rings again
_COROUTINE = 0x80  # inspect.CO_COROUTINE


def is_swallowed(frame):
    """Return True if asyncio would swallow what a signal's handler raises here.

    It does so in a callback of its loop, and forgets the callback: tasks may then wait for ever,
    whoever they are. In a task's own code, the task ends by it.
    """
    innermost, is_task = frame, False
    while frame is not None:
        if frame.f_globals.get("__package__") == "asyncio":
            return frame is innermost or not is_task
        is_task = is_task or bool(frame.f_code.co_flags & _COROUTINE)
        frame = frame.f_back
    return False


def open_below(root):
    """Return {descriptor: file or folder} of those at `root` and below it."""
    paths = {}
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            path = os.readlink(f"/proc/self/fd/{fd}")
            if path == root or path.startswith(f"{root}/"):
                paths[int(fd)] = path.removeprefix(root)
    return paths


def open_files(paths):
    """Return those of `open_below` that are neither folders nor the caches' lock files.

    Those stay open, up to a bound: it is the locks in them that are held or not.
    """
    files = {}
    for fd, path in paths.items():
        with contextlib.suppress(OSError):
            is_lock = path.startswith("/cache/") and path.endswith(LOCK)
            if not is_lock and not stat.S_ISDIR(os.fstat(fd).st_mode):
                files[fd] = path
    return files


def is_for_reading(fd):
    """Return True if the descriptor is open for reading alone."""
    with open(f"/proc/self/fdinfo/{fd}") as file:
        flags = next(line.split()[1] for line in file if line.startswith("flags"))
    return int(flags, 8) & os.O_ACCMODE == os.O_RDONLY


def locks():
    """Return the files on which this process holds locks."""
    with open("/proc/locks") as file:
        mine = [line.split() for line in file if f" {os.getpid()} " in line and "->" not in line]
    if not mine:
        return []
    names = {}
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            names[str(os.stat(f"/proc/self/fd/{fd}").st_ino)] = os.readlink(f"/proc/self/fd/{fd}")
    inodes = [(words[1], words[5].rpartition(":")[2]) for words in mine]
    return [f"{kind} {names.get(inode, inode)}" for kind, inode in inodes]


def temporaries(root):
    """Return the temporary files below `root`; `os.walk` would take three times as long."""
    found, waiting = [], [root]
    for folder in waiting:
        with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
            for one in entries:
                if layout.is_temporary(one.name):
                    found.append(one.path.removeprefix(root))
                if one.is_dir(follow_symlinks=False):
                    waiting.append(one.path)
    return found


def is_at_work():
    """Return True if another thread does something: it is not a worker that waits for work."""
    return any(
        ident != threading.get_ident() and frame.f_code.co_name not in WAITING
        for ident, frame in sys._current_frames().items()
    )


def _left(root, count):
    """Yield what is left of an operation that is over; close the files, so that they count once.

    A handler that raises as `os.open` returns takes the number of a file that was to be read with
    it: it is `lost`. To own it at once would cost each hit half a microsecond.
    """
    gc.collect()
    until = time.monotonic() + SETTLED
    idle = 0  # looks in turn that met no thread at what nobody waits for any more
    while (
        (paths := open_files(below := open_below(root))) and idle < 5 and time.monotonic() < until
    ):
        time.sleep(0.02)
        idle = 0 if is_at_work() else idle + 1
    for fd, path in paths.items():
        if is_for_reading(fd):
            count["lost"] += 1
        else:
            yield f"files are open: {path}"
        os.close(fd)
    if held := locks():
        yield f"file locks are held: {held}"
    if threading.active_count() > THREADS:
        yield f"{threading.active_count()} threads are running"
    if len(below) > FOLDERS:
        yield f"{len(below)} descriptors are open"


def _again(operation, world):
    """Yield what is wrong when `operation` is done again by another thread, undisturbed."""
    problems = []

    def act():
        try:
            operation(world)
        except BaseException as error:
            problems.append("".join(traceback.format_exception(error))[-1500:])

    started = time.monotonic()
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    thread.join(4 * PATIENCE)
    took = time.monotonic() - started
    if thread.is_alive():
        stack = "".join(traceback.format_stack(sys._current_frames()[thread.ident]))
        yield f"done again, it hangs:\n{stack[-1500:]}"
    elif took > PATIENCE:
        yield f"done again, it takes {took:.1f} s"
    yield from (f"done again: {text}" for text in problems)


class Alarms:
    """One operation after the other, each cut off at a random moment by a signal's handler."""

    def __init__(self, root, chance, names):
        self.root, self.chance, self.names = root, chance, names
        self.count, self.wrong = collections.Counter(), []
        self._is_armed, self._kind, self._at, self._within = False, Alarm, "", set()
        self._begin()

    def _begin(self):
        """Begin with a root that is empty: what lies on it is looked through after each try."""
        self.world = None
        process.reset()
        gc.unfreeze()
        gc.collect()  # the one before has folders open
        self.world = World(f"{self.root}{self.count['tries']}", self.chance)
        os.mkdir(self.world.root, 0o700)
        self.world.prepare()
        self._times = {name: self._time(OPERATIONS[name]) for name in self.names}
        gc.collect()
        gc.freeze()

    def _time(self, operation):
        durations = []
        for _ in range(7):
            started = time.perf_counter()
            operation(self.world)
            durations.append(time.perf_counter() - started)
        return sorted(durations)[4]

    def _ring(self, _signal, frame):
        if self._is_armed and is_swallowed(frame):
            signal.setitimer(signal.ITIMER_REAL, LATER)
        elif self._is_armed:
            self._is_armed = False
            self._at = "".join(traceback.format_stack(frame, limit=6))
            codes = [each.f_code for each, _ in traceback.walk_stack(frame)]
            self._within = {code.co_name for code in codes} | {code.co_qualname for code in codes}
            self._within.add(frame.f_code.co_filename)
            raise self._kind

    def run(self, until, most):
        """Cut operations off until the time is up, or `most` were."""
        before = signal.signal(signal.SIGALRM, self._ring)
        try:
            while time.monotonic() < until and self.count["met"] < most and len(self.wrong) < MOST:
                if self.count["tries"] % OF_ONE_ROOT == OF_ONE_ROOT - 1:
                    self._begin()
                name = self.names[self.count["tries"] % len(self.names)]
                self.count["tries"] += 1
                self._try(name)
        finally:
            faulthandler.cancel_dump_traceback_later()
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def _try(self, name):
        operation = OPERATIONS[name]
        faulthandler.dump_traceback_later(12 * PATIENCE, exit=True)  # a hang is told by its stacks
        delay = self.chance.random() ** 1.5 * 1.2 * self._times[name] + 2e-6
        self._kind = self.chance.choice((Alarm, Late, Break))
        self._at = ""
        problems = self._cut(operation, delay)
        problems += [*_left(self.world.root, self.count), *_again(operation, self.world)]
        if self._at:
            self.count["met"] += 1
        # Nobody is at work: what is temporary was left by somebody, and is counted once.
        if self._at and (names := temporaries(self.world.root)):
            problems.append(f"temporary files are left: {names}")
            for path in names:
                with contextlib.suppress(OSError):
                    os.unlink(self.world.root + path)
        if problems:
            process.reset()
            self.wrong += [f"{name}: {text}; it was cut off at\n{self._at}" for text in problems]

    def _cut(self, operation, delay):
        error = None
        try:
            try:
                self._is_armed = True
                signal.setitimer(signal.ITIMER_REAL, delay)
                operation(self.world)
            finally:
                self._is_armed = False
        except BaseException as caught:
            error = caught
        self._is_armed = False
        if isinstance(error, (Alarm, Late, Break)):
            self.count["raised"] += 1
        elif isinstance(error, Wrong) and _is_reported(str(error), self._at):
            self.count["reported"] += 1
        elif isinstance(error, Wrong) or (error and not self._at and not isinstance(error, BUSY)):
            return [f"it raised {type(error).__name__}: {error}"]
        elif self._at:
            self.count["mapped" if error else "swallowed"] += 1
            if self._kind is Late and not error and not self._within & MAY_DROP:
                return ["the caller's time limit was lost"]
        return []


def _is_reported(text, at):
    """Return True if an error that the alarm raised was logged, as it is of a sweep or a sink.

    A sweep goes on to the next folder, and says why. Metrics whose sink raises are dropped: the
    alarm rang within `Collector.flush`.
    """
    is_of_sweep = bool(at) and text.startswith("a sweep met")
    is_of_sink = "metrics/collector.py" in at and "in flush" in at
    return is_of_sweep or (is_of_sink and text.startswith("no metrics"))


class Forks:
    """A thread does one operation after the other; children are forked meanwhile, and do one."""

    def __init__(self, root, chance, names):
        self.chance, self.names = chance, names
        self.world = World(root, chance)
        self.world.prepare()
        self.world.states = collections.defaultdict(_Anything)  # children change them, too
        self.world.is_alone = False
        for name in names:  # what is imported late is here: a module's lock is nobody's to free
            OPERATIONS[name](self.world)
        self.count, self.wrong = collections.Counter(), []

    def run(self, until, most):
        """Fork until the time is up, or `most` times."""
        stop, doing = threading.Event(), [""]

        def act():
            while not stop.is_set():
                doing[0] = self.chance.choice(self.names)
                try:
                    OPERATIONS[doing[0]](self.world)
                except BUSY:
                    pass
                except Exception as error:
                    text = "".join(traceback.format_exception(error))[-1500:]
                    self.wrong.append(f"parent, {doing[0]}: {text}")

        thread = threading.Thread(target=act, daemon=True)
        interval = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH)
        thread.start()
        try:
            while time.monotonic() < until and self.count["met"] < most and len(self.wrong) < MOST:
                time.sleep(self.chance.random() * 0.004)
                self._fork(doing)
                self.count["met"] += 1
        finally:
            stop.set()
            thread.join(4 * PATIENCE)
            sys.setswitchinterval(interval)
        if thread.is_alive():
            self.wrong.append(f"parent: {doing[0]} hangs")
        self.wrong += [f"parent: {text}" for text in _left(self.world.root, self.count)]
        if names := temporaries(self.world.root):
            self.wrong.append(f"temporary files are left: {names}")
        # A thread may begin to open one after the last look of a fork, within some bytecodes.
        if self.count["inherited"] > max(1, self.count["met"] / 2000):
            self.wrong.append(f"{self.count['inherited']} children have a parent's lock file open")

    def _fork(self, doing):
        read, write = os.pipe()
        seed, parents = self.chance.random(), doing[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # that threads are running
            child = os.fork()
        if not child:
            os.close(read)
            self._child(write, seed)
        os.close(write)
        with os.fdopen(read) as file:
            said = file.read()
        _, status = os.waitpid(child, 0)
        if said.startswith(INHERITED) and not status:
            # The other thread was between the open and the note of its number.
            self.count["inherited"] += 1
            said = said.partition("\n")[2]
        if status or said:
            ending = f"it ended with {os.waitstatus_to_exitcode(status)}" if status else ""
            self.wrong.append(f"child of {parents}: {ending} {said}")

    def _child(self, write, seed):
        chance = self.world.chance = random.Random(seed)
        faulthandler.dump_traceback_later(2 * PATIENCE, exit=True, file=write)
        problems = []
        try:
            job = self.world.job
            if job is not None:
                problems += self._save_in_child(job)
            paths = open_files(open_below(self.world.root)).values()
            if held := [path for path in paths if "LOCK" in path]:
                problems.append(f"{INHERITED}: {held}")
            name = chance.choice(self.names)
            try:
                OPERATIONS[name](self.world)
            except BUSY:
                pass
            except Exception as error:
                text = "".join(traceback.format_exception(error))[-1500:]
                problems.append(f"{name}: {text}")
        except BaseException as error:
            problems.append("".join(traceback.format_exception(error))[-1500:])
        finally:
            os.write(write, "\n".join(problems).encode()[-60000:])
            os._exit(0)

    @staticmethod
    def _save_in_child(job):
        """Yield what is wrong with a save by somebody who inherited the claim."""
        try:
            job.save(-1)
        except BUSY:
            return []
        except Exception as error:
            return [f"a child's save raised {type(error).__name__}: {error}"]
        return ["a child saved under its parent's claim"]


class _Anything(set):
    """The states that may be, in a process that does not know what the others saved."""

    def __contains__(self, state):
        return state != -1

    def copy(self):
        return self


def disturb(kind, seconds, seed, *, most=10**9, names=None):
    """Return (figures, what is wrong) of one kind, `alarms` or `forks`."""
    chance = random.Random(seed)
    names = names or [name for name in OPERATIONS if name not in LEFT_OUT[kind]]
    logging.disable(logging.CRITICAL)
    hook, sys.unraisablehook = (
        sys.unraisablehook,
        lambda _: None,
    )  # asyncio's own __del__ among them
    gc.collect()
    gc.freeze()
    try:
        with tempfile.TemporaryDirectory(dir=MEMORY) as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # coroutines that an alarm cut off
            os.makedirs(f"{folder}/root", 0o700)
            part = {"alarms": Alarms, "forks": Forks}[kind](f"{folder}/root", chance, names)
            part.run(time.monotonic() + seconds, most)
            process.reset()
            return dict(part.count), part.wrong
    finally:
        sys.unraisablehook = hook
        gc.unfreeze()
        logging.disable(logging.NOTSET)


def run(seconds, seed):
    """Ten thousand of each kind, if there is time for them."""
    figures, wrong, until = {}, [], time.monotonic() + seconds
    for kind, share in (("alarms", 0.5), ("forks", 1)):  # of the time that is left
        counts, texts = disturb(kind, share * (until - time.monotonic()), seed, most=10_000)
        figures |= {f"{kind}_{name}": count for name, count in counts.items()}
        wrong += texts
    for text in wrong[:10]:
        print(f"interrupts: VIOLATION: seed {seed}: {text}", flush=True)
    return {"violations": len(wrong), "operations": len(OPERATIONS), **figures}


def main(kind, seconds, seed, *names):
    """Print what is wrong of one kind, and how often each place of the source is behind it."""
    figures, wrong = disturb(kind, float(seconds), int(seed), names=list(names))
    places = collections.Counter()
    for text in wrong:
        print(f"VIOLATION {text}\n")
        frames = [line.strip() for line in text.splitlines() if "/efsstate/" in line]
        problem = text.partition(": ")[2].partition(":")[0]
        places[problem, *frames[-1:]] += 1
    for (problem, *frame), count in places.most_common():
        print(f"{count:>6}  {problem}  {''.join(frame)}")
    print(figures, len(wrong), "violations")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main(*sys.argv[1:])
