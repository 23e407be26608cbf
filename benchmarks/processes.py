"""Run each subject in a process of its own, where it may fail, hang or die; or under strace."""

import ctypes
import io
import os
import pickle
import select
import signal
import subprocess
import sys
import tempfile
import time
import warnings

ALLOCATOR = {"mmap", "munmap", "brk", "madvise", "mremap", "mprotect"}


def reason(error):
    """An error in one short line, without the machine's paths."""
    text = f"{type(error).__name__}: {error}".split("\n")[0]
    return " ".join(word for word in text.split() if "/" not in word).rstrip(" :")[:120]


def fork():
    """Fork; on Linux the kernel kills the child when its parent ends, so none that hangs is left.

    A library's idle threads may be there: the child uses none of them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if not pid and sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    return pid


def isolated(function, *arguments, timeout=60):
    """Return what the generator `function(*arguments)` yields in a process of its own.

    If it failed or hung, that comes last.
    """
    receiving, sending = os.pipe()
    pid = fork()
    if not pid:
        os.close(receiving)
        with os.fdopen(sending, "wb") as out:
            code = 0
            try:
                for item in function(*arguments):
                    pickle.dump(item, out)
                    out.flush()
            except BaseException as error:
                pickle.dump({"failed": reason(error)}, out)
                code = 1
        sys.stdout.flush()
        os._exit(code)
    os.close(sending)
    data, end = b"", time.monotonic() + timeout
    while select.select([receiving], [], [], max(0, end - time.monotonic()))[0] and (
        more := os.read(receiving, 1 << 16)
    ):
        data += more
    os.close(receiving)
    hung = time.monotonic() >= end
    if hung:
        os.kill(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    items = list(_unpickled(data))
    if hung:
        items.append({"failed": f"hangs: no answer within {timeout} s"})
    elif status not in (0, 1):
        items.append(
            {
                "failed": "the process dies: "
                f"{signal.Signals(-status).name if status < 0 else f'exit code {status}'}"
            }
        )
    return items


def _unpickled(data):
    stream = io.BytesIO(data)
    while stream.tell() < len(data):
        try:
            yield pickle.load(stream)
        except (EOFError, pickle.UnpicklingError):
            return


def mark(name):
    """Leave a mark in the trace: a look for a name that does not exist."""
    try:
        os.stat(f"/benchmark-mark/{name}")
    except OSError:
        pass


def system_calls(*arguments):
    """Return the system calls of `python -m benchmarks.traced ARGUMENTS`, as `traced` does."""
    return traced([sys.executable, "-m", "benchmarks.traced", *arguments])


def own(calls):
    """Return the calls that are a subject's work, without those of its memory allocator."""
    return {name: count for name, count in calls.items() if name not in ALLOCATOR}


def of_allocator(calls):
    """Return how many of the calls are the memory allocator's."""
    return sum(calls.values()) - sum(own(calls).values())


def traced(command):
    """Return the system calls by name between the marks `begin-X` and `end-X`: {X: {call: count}}.

    The command leaves the marks.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = f"{folder}/log"
        done = subprocess.run(
            ["strace", "-f", "-qq", "-o", log, *command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=300,
        )
        if done.returncode:
            raise RuntimeError((done.stderr.strip() or f"code {done.returncode}").splitlines()[-1])
        with open(log, errors="replace") as lines:
            return _between_marks(lines)


def _between_marks(lines):
    counts, current = {}, None
    for line in lines:
        call = line.split(maxsplit=1)[1].partition("(")[0]  # after the process id
        if "/benchmark-mark/" in line:
            which, _, name = line.split("/benchmark-mark/")[1].partition('"')[0].partition("-")
            current = counts.setdefault(name, {}) if which == "begin" else None
        elif current is not None and call.isidentifier():
            current[call] = current.get(call, 0) + 1
    return counts
