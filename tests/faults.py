"""Inject faults at system calls: run an operation again and again, and kill or fail each call.

An operation is a generator function without arguments. The code before its first `yield` prepares,
the code between the first and the second is the operation, and the second `yield` may give its
result. It runs in a forked child of this process, so that nothing is imported and nothing else is
opened meanwhile.

- `calls(operation)` gives its system calls as `(name, number)`: the how-many-th call of that name
  it is, since strace was attached.
- `run(operation, kill=call)`: the process dies at the call, before it sees the answer.
- `run(operation, error="EIO", call=call)`: the call is not made, and answers with the error.
- `run(operation, limit=n)`: no file may be longer than n bytes (RLIMIT_FSIZE), so a write is short,
  and the next one fails.
- `run(operation, short=n)`: the n-th read or write takes only a part of its bytes, and says so.
- `run(operation, close="EIO", nth=n)`: the n-th close closes and then fails, as over NFS.
"""

import gc
import os
import pickle
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

MISSING = None if shutil.which("strace") else "strace is not installed: apt-get install strace"
# What goes to a file system: errors are put here alone. close is not among them: strace would leave
# the descriptor open.
DISK = frozenset(
    [
        "openat",
        "read",
        "pread64",
        "readv",
        "preadv",
        "preadv2",
        "write",
        "writev",
        "pwrite64",
        "pwritev",
        "fsync",
        "fdatasync",
        "ftruncate",
        "rename",
        "renameat",
        "renameat2",
        "mkdir",
        "mkdirat",
        "rmdir",
        "unlink",
        "unlinkat",
        "symlink",
        "symlinkat",
        "readlink",
        "readlinkat",
        "fstat",
        "stat",
        "lstat",
        "newfstatat",
        "statx",
        "getdents64",
        "lseek",
        "ioctl",
        "fchmod",
        "utimensat",
        "fcntl",
        "flock",
        "statfs",
        "fstatfs",
        "access",
        "faccessat",
        "faccessat2",
        "mmap",
        "copy_file_range",
    ]
)
_IDLE = frozenset(
    [
        "brk",
        "mmap",
        "munmap",
        "mprotect",
        "madvise",
        "futex",
        "getrandom",
        "rt_sigaction",
        "rt_sigprocmask",
        "clock_nanosleep",
    ]
)
_BEGIN = re.compile(r"^(?:(\d+) +)?([a-z_0-9]+)\(")
_PATIENCE = 60.0  # seconds until an operation counts as hung
_write = os.write  # not what `_patch` puts in its place


class Outcome:
    """The end of an operation.

    `how` is "killed", "returned", "raised" or "hung"; `value` is from the second yield; `error`
    is a text.
    """

    def __init__(self, how, value=None, error="", kind="", descriptors=0, injected=True):
        self.how, self.value, self.error, self.kind = how, value, error, kind
        self.descriptors = descriptors  # more open than before
        self.injected = injected  # whether the fault was met at all

    def __repr__(self):
        text = f"{self.how} {self.kind} {self.error or self.value!r:.300}"
        return f"<{text}, {self.descriptors} more descriptors>"


def _descriptors():
    """How many are open, but for those of folders that a `Mount` keeps open, and bounds."""
    folders = sum(type(one).__name__ == "FolderHandle" for one in gc.get_objects())
    try:
        return len(os.listdir("/proc/self/fd")) - folders
    except OSError:  # the fault met us: there is but one
        return len(os.listdir("/proc/self/fd")) - folders


def _patch(short, close, nth):
    """Make the n-th transfer a short one, or the n-th close fail after it closed."""
    count = 0

    def mine():
        nonlocal count
        count += 1
        return count == (short or nth)

    def lessen(real, length):
        def call(fd, what, *more):
            return real(fd, length(what) if mine() else what, *more)

        return call

    def half(data):
        return memoryview(data).cast("B")[: max(1, memoryview(data).nbytes // 2)]

    def half_of_list(parts):
        total = sum(memoryview(part).nbytes for part in parts)
        left, out = max(1, total // 2), []
        for part in parts:
            view = memoryview(part).cast("B")[:left]
            out.append(view)
            left -= len(view)
        return [part for part in out if len(part)]

    if short:
        os.read = lessen(os.read, lambda n: max(1, n // 2))
        os.pread = lessen(os.pread, lambda n: max(1, n // 2))
        os.write, os.pwrite = lessen(os.write, half), lessen(os.pwrite, half)
        for name in ("readv", "preadv", "writev", "pwritev"):
            setattr(os, name, lessen(getattr(os, name), half_of_list))
    if close:
        import errno

        real = os.close

        def failing(fd):
            real(fd)
            if mine():
                raise OSError(getattr(errno, close), os.strerror(getattr(errno, close)))

        os.close = failing
    return lambda: count


def _child(operation, ready, go, result, prepare):
    """Run it, and tell what came of it."""
    status = 1
    try:
        os.setpgid(0, 0)
        way = operation()
        next(way)
        gc.collect()
        gc.disable()
        os.write(ready, b".")
        # Neither call is one that a fault is put in, so that what it counts begins at nought.
        while not select.select([go], [], [], 0.001)[0]:
            os.getpgrp()  # strace shows this once it has begun to trace
        met = prepare()
        before = _descriptors()
        os.getppid()  # where the operation begins in the trace
        how, value, error, kind = "returned", None, "", ""
        try:
            value = next(way, None)
        except BaseException as problem:
            how, error, kind = (
                "raised",
                str(problem),
                "/".join(one.__name__ for one in type(problem).__mro__),
            )
            if os.environ.get("FAULTS_TRACEBACK"):
                traceback.print_exc()
            del problem
        os.getppid()
        gc.collect()
        after = _descriptors()
        told = pickle.dumps((how, value, error, kind, after - before, met() if met else None))
        while told:
            try:
                told = told[_write(result, told) :]
            except OSError:  # as above
                pass
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _strace(pid, trace, options):
    """Attach strace, and return it once it has seen a call of the process."""
    spawned = subprocess.Popen(
        ["strace", "-f", "-q", "-p", str(pid), "-o", trace, *options],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        close_fds=False,
    )
    until = time.monotonic() + _PATIENCE
    while not os.path.getsize(trace):
        if spawned.poll() is not None or time.monotonic() > until:
            spawned.kill()
            raise RuntimeError(
                f"strace could not attach (it {spawned.poll()}): {spawned.stderr.read().decode()}"
            )
        time.sleep(0.0005)
    return spawned


def _run(operation, options=None, prepare=lambda: None):
    """(outcome, lines of the trace, what `prepare`'s counter says)."""
    pipes = [os.pipe() for _ in range(3)]
    (ready, say_ready), (go, say_go), (result, say_result) = pipes
    sys.stdout.flush()
    sys.stderr.flush()
    # A child that collects garbage would copy each page of what pytest holds: half a second a
    # fault.
    gc.freeze()
    pid = os.fork()
    if not pid:
        _child(operation, say_ready, go, say_result, prepare)
    gc.unfreeze()
    for fd in (say_ready, go, say_result):
        os.close(fd)
    tracer, trace = None, ""
    try:
        if not os.read(ready, 1):
            raise RuntimeError("the operation could not be prepared")
        if options is not None:
            handle, trace = tempfile.mkstemp(prefix="faults-")
            os.close(handle)
            tracer = _strace(pid, trace, options)
        os.write(say_go, b".")
        told = _read_all(result, pid)
        _, status = os.waitpid(pid, 0)
        pid = 0
        if tracer:
            tracer.wait(_PATIENCE)
        lines = []
        if trace:
            with open(trace, errors="replace") as file:
                lines = file.read().splitlines()
        if told is None:
            return Outcome("hung"), lines, None
        if told and os.waitstatus_to_exitcode(status) == 0:  # else it died while it told
            how, value, error, kind, more, count = pickle.loads(told)
            return Outcome(how, value, error, kind, more), lines, count
        return (
            Outcome(
                "killed" if os.waitstatus_to_exitcode(status) == -signal.SIGKILL else "hung",
                error=f"exit {status}",
            ),
            lines,
            None,
        )
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        if tracer:
            if tracer.poll() is None:
                tracer.kill()
            tracer.wait()
            tracer.stderr.close()
        for fd in (ready, say_go, result):
            os.close(fd)
        if trace:
            os.unlink(trace)


def _read_all(fd, pid):
    """What the child tells; None if it hangs (it is killed then)."""
    told, until = b"", time.monotonic() + _PATIENCE
    while True:
        if not select.select([fd], [], [], max(0.0, until - time.monotonic()))[0]:
            os.kill(pid, signal.SIGKILL)
            return None
        part = os.read(fd, 1 << 16)
        if not part:
            return told
        told += part


def calls(operation):
    """Return the system calls of an operation and its threads, `(name, number)`, in order."""
    for _ in range(5):
        outcome, lines, _ = _run(operation, ["-e", "trace=all"])
        if outcome.how != "returned":
            raise RuntimeError(f"the operation fails without a fault: {outcome}")
        counts, inside, main, began = {}, [], None, 0
        for line in lines:
            if "resumed>" in line or not (found := _BEGIN.match(line)):
                continue
            pid, name = found[1], found[2]
            if name == "getppid" and (main is None or pid == main):
                main, began = pid, began + 1
                continue
            counts[pid, name] = counts.get((pid, name), 0) + 1
            call = (name, counts[pid, name])
            if began == 1 and name not in _IDLE and call not in inside:
                inside.append(call)
        if began == 2:
            return inside[1:] if inside and inside[0][0] == "getppid" else inside
    raise RuntimeError("strace did not see the operation begin")


def _limit(size):
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))  # Python ignores SIGXFSZ


def warm(operation):
    """Have here whatever the operation imports, so that its children need not."""

    def tell():
        for _ in operation():
            pass
        yield
        yield [name for name in sys.modules if not name.startswith("__")]

    outcome = _run(tell)[0]
    if outcome.how != "returned":
        raise AssertionError(f"{outcome.how}: {outcome.kind}: {outcome.error}")
    for name in outcome.value:
        try:
            __import__(name)
        except ImportError:
            pass


def run(
    operation, *, kill=None, error=None, call=None, short=None, close=None, nth=None, limit=None
):
    """The operation with one fault; see the module. `outcome.injected` tells whether it was met."""
    if kill is not None or call is not None:
        name, number = kill or call
        what = "signal=KILL" if kill else f"error={error}"
        options = [
            "-e",
            f"trace={name},getppid,getpgrp",
            "-e",
            f"inject={name}:{what}:when={number}",
        ]
        outcome, lines, _ = _run(operation, options)
        outcome.injected = outcome.how == "killed" or any("(INJECTED)" in line for line in lines)
        return outcome
    if short or close:
        outcome, _, count = _run(operation, prepare=lambda: _patch(short, close, nth))
        outcome.injected = (count or 0) >= (short or nth)
        return outcome
    if limit is not None:
        return _run(operation, prepare=lambda: _limit(limit))[0]
    return _run(operation)[0]


def elsewhere(function, *given):
    """Return the result of `function` in a forked child, which leaves nothing here."""

    def operation():
        yield
        yield function(*given)

    outcome = _run(operation)[0]
    if outcome.how != "returned":
        raise AssertionError(f"{outcome.how}: {outcome.kind}: {outcome.error}")
    return outcome.value
