"""In a guest: one process with everything imported, whose workers and judges are its forks.

A process costs half a second there.

Orders are lines of JSON, and so is what it tells:

    {"clock": 0}                        {"clock": its monotonic clock}
    {"work": [root, who, seed, mix, tag]}   a worker, whose operations are told with "tag"
    {"stop": tag}                       kill -9 of that tag's workers; {"stopped": tag}
    {"judge": {…}, "remove": folder}    {"violations": n, "some": […]}, by aftermath.py
"""

import json
import os
import shutil
import signal
import sys
import time

from tests.torture import aftermath, workload

SHOWN, LONGEST = (
    4,
    800,
    # violations that are told, and characters of one: a line stays below 4,096 bytes, so is never
    # torn
)


def fork(function):
    """The child's pid: it does this, and ends."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        function()
        status = 0
    except BaseException as error:
        workload.tell_line(
            {"violations": 1, "some": [f"{type(error).__name__}: {error}"[:LONGEST]]}
        )
    finally:
        os._exit(status)


def work(root, who, seed, mix, tag):
    os.makedirs(root, exist_ok=True)
    worker = workload.Worker(
        root, who, seed, tag=tag, tell=lambda one: workload.tell_line(one | {"tag": tag})
    )
    worker.run(mix, float("inf"))


def judge(order):
    with open(order["history"]) as file:
        told = json.load(file)
    bad = aftermath.judge(order["root"], order["tag"], told, order["margin"])
    workload.tell_line(
        {
            "violations": len(bad),
            "some": [json.dumps(one, default=str)[:LONGEST] for one in bad[:SHOWN]],
        }
    )


def main():
    workers = {}
    for line in sys.stdin:
        order = json.loads(line)
        if "clock" in order:
            workload.tell_line({"clock": time.monotonic()})
        elif "work" in order:
            workers.setdefault(order["work"][-1], []).append(fork(lambda: work(*order["work"])))
        elif "stop" in order:
            for pid in workers.pop(order["stop"], []):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            workload.tell_line({"stopped": order["stop"]})
        else:
            os.waitpid(fork(lambda: judge(order["judge"])), 0)
            if order["remove"]:
                shutil.rmtree(order["remove"], ignore_errors=True)


if __name__ == "__main__":
    main()
