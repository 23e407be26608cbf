"""The draw that decides whether this environment belongs to a canary's share."""

from __future__ import annotations

import os

from efsstate import process
from efsstate.mount import environment

_own: list[str] = []  # this process's name where no environment has one
process.at_reset(_own.clear)


def draw(model: str, version: str) -> float:
    """Return this environment's number between 0 and 1 for a version.

    It is the same at each call, in each process of the environment, and evenly spread over the
    environments; each version has another.
    """
    from efsstate.format.entry import blake2b

    text = f"{_environment()}\0{model}\0{version}"
    number = blake2b()(text.encode(errors="surrogateescape"), digest_size=7).digest()
    return int.from_bytes(number, "big") / 2**56


def _environment() -> str:
    """Return a name of the execution environment: on Lambda each has a log stream of its own."""
    stream = environment.variable("AWS_LAMBDA_LOG_STREAM_NAME")
    if stream is not None:
        return stream
    if not _own:
        _own.append(os.urandom(16).hex())
    return _own[0]
