"""The operator's command as a Lambda function, because no shell reaches the mount.

The handler is `efsstate.ops.handler`.
"""

from __future__ import annotations

import contextlib
import io
import json

from efsstate.deadline import Invocation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def handler(event: dict[str, Any], context: object = None) -> dict[str, Any]:
    """Run the command that the event names: `{"argv": ["checkpoint", "ls"]}`.

    Return the command's JSON document, with its exit code as `exit`. A command that removes
    something needs "-y" in `argv`. An error, also of a bad event, is a document with the schema
    "efsstate.error".
    """
    argv = event.get("argv") if isinstance(event, dict) else None
    if not isinstance(argv, list) or not all(isinstance(word, str) for word in argv):
        return _error("usage", 'the event is {"argv": ["stat"]}: a list of strings', 2)
    try:
        from efsstate.cli import app
    except ImportError as error:
        return _error(
            "ImportError",
            f"the command needs {error.name}; put efsstate[cli] into the function's package",
            3,
        )
    output, messages = io.StringIO(), io.StringIO()
    with (
        Invocation(context),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(messages),
    ):
        code = app.run(argv, json=True)
    document: dict[str, Any]
    try:
        document = json.loads(output.getvalue())
    except ValueError:  # --help and --version are texts
        text = output.getvalue() + messages.getvalue()
        document = {"schema": "efsstate.text", "version": 1, "text": text}
    return {**document, "exit": code}


def _error(kind: str, message: str, code: int) -> dict[str, Any]:
    error = {"type": kind, "message": message, "exit": code}
    return {"schema": "efsstate.error", "version": 1, "error": error, "exit": code}
