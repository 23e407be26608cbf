"""Start the command `efsstate`, or name in one line the extra that is missing."""

from __future__ import annotations

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

    return app.run(list(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
