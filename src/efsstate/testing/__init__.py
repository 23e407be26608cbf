"""Run Lambda handlers here under the real runtime client, in several environments at once.

    from efsstate.testing import Function

    with Function("app.handler", path="src", environment={"EFSSTATE_ROOT": "/tmp/shared"}) as f:
        result = f.invoke({"image": "..."})        # in a warm free environment, else in a new one
        assert result.error is None and result.value == {"labels": []}

It needs Linux and `awslambdaric` beside the handler (`pip install efsstate[testing]`), and the
root must be a folder that exists. `awslambdaric` is the client that Lambda itself runs, so it
treats your module, your exceptions and your JSON as Lambda does. As on Lambda, an environment is
frozen between invocations, has 1,024 descriptors, and is killed if it takes more than its memory.
With root rights here its task root is read-only, and its TMPDIR has the size of /tmp.
`Environment.enforced` says which of these hold.

For unit tests of functions there are `isolated()`, `disabled()` and `clock.advance("8d")`, and a
pytest plugin with fixtures of them: see docs/testing.md.

Differences from Lambda: a handler's /tmp is TMPDIR, while handlers that write to /tmp by name share
this machine's; a function has no network of its own; threads are not limited.
"""

from efsstate.testing._environment import Environment, Init, Result
from efsstate.testing._function import Function, Throttled
from efsstate.testing._unit import Clock, clock, disabled, isolated

__all__ = [
    "Clock",
    "Environment",
    "Function",
    "Init",
    "Result",
    "Throttled",
    "clock",
    "disabled",
    "isolated",
]
