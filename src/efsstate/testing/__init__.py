"""Run Lambda handlers here under the real runtime client, in several environments at once.

    from efsstate.testing import Function

    with Function("app.handler", path="src", environment={"EFSSTATE_ROOT": "/tmp/shared"}) as f:
        result = f.invoke({"image": "..."})        # in a warm free environment, else in a new one
        assert result.error is None and result.value == {"labels": []}

It needs Linux and `awslambdaric` beside the handler (`pip install efsstate[testing]`). That is the
client that Lambda itself runs, so it treats your module, your exceptions and your JSON as Lambda
does. As on Lambda, an environment is frozen between invocations, has 1,024 descriptors, and is
killed if it takes more than its memory. With root rights here its task root is read-only, and its
TMPDIR has the size of /tmp. `Environment.enforced` says which of these hold.

For unit tests of functions there are `isolated()`, `disabled()` and `clock.advance("8d")`, and a
pytest plugin with fixtures of them: see docs/testing.md.

Differences from Lambda: /tmp is TMPDIR, and handlers that write to /tmp by name share it; there is
no network of its own; a thousand threads or more are not refused.
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
