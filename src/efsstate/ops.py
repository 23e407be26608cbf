"""The operator's command as a Lambda function, for nobody has a shell on the mount: the handler is `efsstate.ops.handler`."""

from __future__ import annotations

import contextlib
import io
import json

from efsstate.deadline import Invocation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def handler(event: dict[str, Any], context: object = None) -> dict[str, Any]:
    """Run `{"argv": ["checkpoint", "ls"]}`; returns the command's JSON document, with its exit code as `exit`.

    What removes something needs "-y" in `argv`. A bad `argv` is a document with schema "efsstate.error", as any error is.
    """
    argv = event.get("argv") if isinstance(event, dict) else None
    if not isinstance(argv, list) or not all(isinstance(one, str) for one in argv):
        return _error("usage", 'the event is {"argv": ["stat"]}: a list of strings', 2)
    try:
        from efsstate.cli import app
    except ImportError as error:
        return _error(
            "ImportError",
            f"the command needs {error.name}: put efsstate[cli] into the function's package",
            3,
        )
    printed, said = io.StringIO(), io.StringIO()
    with Invocation(context), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
        code = app.run(argv, json=True)
    try:
        told: dict[str, Any] = json.loads(printed.getvalue())
    except ValueError:  # --help and --version are texts
        told = {
            "schema": "efsstate.text",
            "version": 1,
            "text": printed.getvalue() + said.getvalue(),
        }
    return {**told, "exit": code}


def _error(kind: str, message: str, code: int) -> dict[str, Any]:
    error = {"type": kind, "message": message, "exit": code}
    return {"schema": "efsstate.error", "version": 1, "error": error, "exit": code}
