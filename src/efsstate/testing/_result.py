"""What a test gets to see of an invocation and of an init."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from efsstate.testing._environment import Environment


@dataclass(frozen=True)
class Result:
    """What one invocation gave."""

    request_id: str
    value: Any  # what the handler returned, after JSON; bytes where it isn't JSON; None on an error
    error: (
        dict[str, Any] | None
    )  # errorType, errorMessage, stackTrace as the caller of Lambda gets them
    logs: str  # what the environment wrote meanwhile; with several processes that is everybody's
    duration: float  # seconds from the hand-over to the answer
    timed_out: bool
    init_duration: (
        float | None
    )  # seconds of the init before it, for the first invocation of a fresh process
    environment: Environment


@dataclass(frozen=True)
class Init:
    """One run of the code outside the handler."""

    status: str  # "ok", "error", "timeout", "exit"
    duration: float  # seconds
    error: dict[str, Any] | None
    logs: str
