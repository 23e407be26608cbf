"""Count the acknowledged writes that are still there: after a kill, of two writers, of a counter.

An acknowledgement is a call that returned. A new process reads afterwards, on NFS by client b.
"""

import contextlib
import os
import random
import signal
import threading

from benchmarks.kinds import value
from benchmarks.processes import fork, isolated, reason

PUTS, ADDITIONS = 100, 50
WITHIN = 20  # seconds for one process


def _started(work):
    """Run `work(say)` in a process of its own; return (process id, the end that reads its lines).

    `say(line)` reports a line; an error's last line begins with "error ".
    """
    receiving, sending = os.pipe()
    pid = fork()
    if pid:
        os.close(sending)
        return pid, os.fdopen(receiving, "rb")
    os.close(receiving)
    with contextlib.suppress(BaseException):
        try:
            work(lambda line: os.write(sending, line.encode() + b"\n"))
        except Exception as error:
            os.write(sending, f"error {reason(error)}\n".encode())
    os._exit(0)


def _ended(pid, lines):
    """Read all lines of a process; one that hangs is killed, and says so. Return them in order."""
    timer = threading.Timer(WITHIN, os.kill, (pid, signal.SIGKILL))
    timer.start()
    said = lines.read().decode().split("\n")[:-1]
    timer.cancel()
    lines.close()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status == -signal.SIGKILL:
        said.append(f"error hangs: no answer within {WITHIN} s")
    elif status:
        said.append(f"error the process dies: {status}")
    return said


def _putting(subject, folder, prefix, count):
    def work(say):
        writer = subject(folder)
        for number in range(count):
            writer.put(key := f"{prefix}-{number}")
            say(key)

    return work


def _read(subject, folder, keys):
    """Yield how many `keys` a new environment finds lost or wrong, and whether the cache works."""
    reader, found = subject(folder), {"lost": 0, "wrong": 0, "errors": 0}
    for key in keys:
        before = reader.computed
        try:
            got = reader.hit(key)
        except Exception as error:
            found["errors"] += 1
            found["error"] = reason(error)
        else:
            if got is None or reader.computed > before:
                found["lost"] += 1
            elif got != value(key):
                found["wrong"] += 1
    try:
        reader.put("afterwards")
        found["usable"] = reader.hit("afterwards") == value("afterwards")
    except Exception as error:
        found |= {"usable": False, "error": reason(error)}
    yield found


def _survivors(subject, folder, keys):
    """The same in a process of its own; one that fails or hangs has lost everything."""
    last = isolated(_read, subject, folder, keys, timeout=WITHIN)[-1]
    if "failed" in last:
        return {"lost": 0, "wrong": 0, "errors": len(keys), "usable": False} | {
            "error": last["failed"]
        }
    return last


def _summed(parts):
    found = {name: sum(part[name] for part in parts) for name in ("lost", "wrong", "errors")}
    found["usable"] = all(part["usable"] for part in parts)
    for part in parts:
        if "error" in part:
            found["error"] = part["error"]
    return found


def killed(subject, places, *, rounds=4):
    """Kill a writer with SIGKILL at a random put, `rounds` times, each in a new folder.

    `places`: so many pairs of folders, as the writer and the reader see them.
    """
    choose, acknowledged, parts = random.Random(1), 0, []
    for a, b in places[:rounds]:
        pid, lines = _started(_putting(subject, a, "k", 10_000))
        keys, enough = [], choose.randrange(PUTS // 2, PUTS)
        for line in lines:
            keys.append(line.decode().strip())
            if len(keys) == enough or keys[-1].startswith("error "):
                os.kill(pid, signal.SIGKILL)
                break
        keys += _ended(pid, lines)
        failed = [key for key in keys if key.startswith("error ") and "hangs" not in key]
        keys = [key for key in keys if not key.startswith("error ")]
        acknowledged += len(keys)
        parts.append(_survivors(subject, b, keys))
        if failed:
            parts[-1]["error"] = failed[-1].removeprefix("error ")
    yield {"row": "killed", "acknowledged": acknowledged, **_summed(parts)}


def writers(subject, a, b):
    """Let two processes put other keys at once, one on each client."""
    both = [
        _started(_putting(subject, folder, name, PUTS)) for folder, name in ((a, "a"), (b, "b"))
    ]
    said = [line for process in both for line in _ended(*process)]
    keys = [line for line in said if not line.startswith("error ")]
    found = {"row": "writers", "asked": 2 * PUTS, "acknowledged": len(keys)}
    found |= _survivors(subject, b, keys)
    if failed := [line for line in said if line.startswith("error ")]:
        found["error"] = failed[-1].removeprefix("error ")
    yield found


def counter(subject, a, b):
    """Let two processes raise one number, one on each client."""

    def adding(folder):
        def work(say):
            one = subject(folder)
            for _ in range(ADDITIONS):
                one.add_one()
                say("done")

        return work

    def read():
        yield {"total": subject(b).total() or 0}

    subject(a).close()  # the folder is there
    said = [line for process in [_started(adding(f)) for f in (a, b)] for line in _ended(*process)]
    found = {"row": "counter", "asked": 2 * ADDITIONS, "acknowledged": said.count("done")}
    found |= isolated(read, timeout=WITHIN)[-1]
    if failed := [line for line in said if line.startswith("error ")]:
        found["error"] = failed[-1].removeprefix("error ")
    yield found
