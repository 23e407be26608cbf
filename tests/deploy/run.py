"""Runs a command as the console script does."""

import contextlib
import io
from types import SimpleNamespace

from efsstate.cli import app


def run(*argv, json=False):
    """Its exit code, what it printed, and what it said on standard error."""
    printed, said = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
        code = app.run([str(one) for one in argv], json=json)
    return SimpleNamespace(code=code, out=printed.getvalue(), err=said.getvalue())
