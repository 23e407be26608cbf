"""The handler of load.py's Managed Instance: some operations a call, and their figures."""

import os
import resource
import time

from efsstate import invocation
from tests.torture import load, planted

if os.environ.get("TORTURE_PLANT"):
    getattr(planted, os.environ["TORTURE_PLANT"])()
resource.setrlimit(resource.RLIMIT_NOFILE, (load.DESCRIPTORS, load.DESCRIPTORS))
told = []
worker = load.Patient(
    os.environ["EFSSTATE_ROOT"],
    f"p{os.getpid()}",
    os.getpid(),
    memory=load.MEMORY,
    slot=120,
    tell=told.append,
)


@invocation
def handler(event, context):
    """Twenty operations and a turn at the lock; what they told."""
    told.clear()
    names, weights = zip(
        *[(n, float(w)) for n, w in (one.split(":") for one in load.MIX.split(","))], strict=True
    )
    for name in worker.rng.choices(names, weights, k=20):
        worker.once(name)
    worker.once("wait_in_line")
    now = time.monotonic()
    told.append(
        {"op": "sample", "name": "", "who": worker.who, "t0": now, "t1": now, **load.size()}
    )
    return list(told)
