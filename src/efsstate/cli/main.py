"""Start the command `efsstate`, or name in one line the extra that is missing."""

from __future__ import annotations

import codecs
import io
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

COULD_NOT_CHECK = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run `efsstate` with `argv` (default: the process's own) and return the exit code."""
    try:
        import click  # noqa: F401
        import rich  # noqa: F401
    except ImportError as error:
        print(
            f"efsstate: the command needs {error.name}: pip install 'efsstate[cli]'",
            file=sys.stderr,
        )
        return COULD_NOT_CHECK
    from efsstate.cli import app

    if argv is None:
        _prepare_streams()
    return app.run(list(sys.argv[1:] if argv is None else argv))


def _prepare_streams() -> None:
    """Replace the standard streams that are closed, and let standard output print any text.

    If standard output is closed, its descriptor goes to the next file that is opened, and text that
    is printed would be written into that file. A character that the encoding of the output does not
    contain is printed as an escape.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, stream)
    codecs.register_error("efsstate", _spell)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="efsstate")


def _spell(error: UnicodeError) -> tuple[str, int]:
    """Return the text to print for characters that the encoding of the output does not contain.

    Parts of a progress bar become `#`, all others the escape that Python writes for them.
    """
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    spelled = ["#" if "\u2580" <= each <= "\u259f" else ascii(each)[1:-1] for each in text]
    return "".join(spelled), error.end


if __name__ == "__main__":
    sys.exit(main())
