"""Run your Lambda handlers here under the real runtime client, in several execution environments at once.

    from efsstate.testing import Function

    with Function("app.handler", path="src", environment={"EFSSTATE_ROOT": "/tmp/shared"}, timeout=3, memory=512) as f:
        result = f.invoke({"image": "..."})              # a warm free environment, else a new one
        assert result.error is None and result.value == {"labels": []}

Needs `awslambdaric` beside the handler (`pip install efsstate[testing]`) and Linux. It is the client that Lambda itself runs, so
what it does with your module, your exceptions and your JSON is what happens there. What is not as on Lambda: the memory is told,
not enforced; `/tmp` is told as TMPDIR, and a handler that writes to `/tmp` by name meets the others there; no network of its own.
"""

from efsstate.testing._environment import Environment
from efsstate.testing._function import Function
from efsstate.testing._result import Init, Result

__all__ = ["Environment", "Function", "Init", "Result"]
