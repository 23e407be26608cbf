"""Read the process's environment variables: no other module of the package does."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

ROOT, DISABLE = b"EFSSTATE_ROOT", b"EFSSTATE_DISABLE"

# `peek(ROOT)` is one call of C code, for a hit to notice a change: it returns the same object until
# the variable is set again. `os.environ.get` is four calls of Python code.
peek: Callable[[bytes], object] = vars(os.environ).get("_data", os.environb).get


def variable(name: str) -> str | None:
    """Return the environment variable `name`, or None if it is unset or empty."""
    return os.environ.get(name) or None


def on_lambda() -> bool:
    """Return True in a Lambda execution environment."""
    return variable("AWS_LAMBDA_FUNCTION_NAME") is not None


def function_name() -> str | None:
    """Return the Lambda function's name."""
    return variable("AWS_LAMBDA_FUNCTION_NAME")


def function_memory() -> int | None:
    """Return the Lambda function's memory, in bytes."""
    text = variable("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
    return int(text) * 2**20 if text and text.isdigit() else None


def disabled() -> bool:
    """Return True if EFSSTATE_DISABLE turns caching off."""
    return (variable("EFSSTATE_DISABLE") or "0").lower() not in ("0", "false", "no", "off")


def signing_key() -> bytes | None:
    """Return the 32-byte key that EFSSTATE_SIGNING_KEY gives."""
    text = variable("EFSSTATE_SIGNING_KEY")
    if text is None:
        return None
    from efsstate.format.entry import blake2b

    return bytes(blake2b()(text.encode(), digest_size=32).digest())
